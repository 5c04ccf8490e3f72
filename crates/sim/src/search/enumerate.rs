//! What sampling is weak at: a crash around each durable or remote step, each event lost, and every pair of faults in the
//! smallest fleet that has them all.

use crate::{
    Tell,
    rng::Rng,
    run,
    scenario::{Change, Database, Happening, Mishap, Point, Scenario, Scripted, Sickness, plain_desired},
};
use roadstead_core::model::{
    name::{HostName, ServiceName},
    spec::{service::TaskDefinitionRef, task_definition::NetworkMode},
    state::Schedulability,
};

/// A scenario and what it is about.
#[derive(Clone, Debug)]
pub struct Named {
    /// In words.
    pub name: String,
    /// What to run.
    pub scenario: Scenario,
}

/// How long the one change of a story may take.
const STORY_MS: u64 = 20_000;
/// Within a launch, after it, after some more; a look that takes 10 s is given up.
const LATE_MS: [u64; 3] = [250, 1_500, 6_000];

fn host(number: u64) -> HostName {
    format!("host-{number}").into()
}

fn story(name: &str, seed: u64, what: &[Happening]) -> Named {
    let script = what.iter().map(|what| Scripted { at_ms: 6_000, what: what.clone() }).collect();
    let desired = plain_desired(2, 2);
    let scenario = Scenario { seed, desired, script, faults_ms: STORY_MS, ..Scenario::default() };
    Named { name: name.to_owned(), scenario }
}

/// Several services of one task, of which all but one go at once.
fn services_dropped(seed: u64) -> Named {
    let names = ["svc-1", "svc-2"];
    let removals = names.map(|name| Happening::Manifests { change: Change::Remove { service: name.into() } });
    let mut story = story("services dropped", seed, &removals);
    let desired = &mut story.scenario.desired;
    *desired = plain_desired(2, 1);
    let first = desired.services.values().next().zip(desired.task_definitions.values().next());
    if let Some((service, definition)) = first.map(|(service, definition)| (service.clone(), definition.clone())) {
        for name in names {
            let mut service = service.clone();
            service.spec.task_definition = TaskDefinitionRef::Named(name.to_owned());
            desired.services.insert(name.into(), service);
            desired.task_definitions.insert(name.into(), definition.clone());
        }
    }
    story
}

/// A roll-out fails for a reason that is not its own, so that the way back fails, too, and there is one more before it.
fn rollback_fails(seed: u64) -> Named {
    let service = || ServiceName::from("svc-0");
    let image = |version| Happening::Manifests {
        change: Change::Image { service: service(), version, sickness: Sickness::None },
    };
    let mut story = story("roll-back fails", seed, &[image(2)]);
    for what in [Happening::Outage { service: service(), for_ms: 60_000 }, image(3)] {
        story.scenario.script.push(Scripted { at_ms: 25_000, what });
    }
    story.scenario.faults_ms = 75_000;
    for service in story.scenario.desired.services.values_mut() {
        // All old tasks end first: none is left that the way back could find.
        let bounds = &mut service.spec.deployment_configuration;
        (bounds.minimum_healthy_percent, bounds.maximum_percent) = (Some(0), Some(100));
    }
    story
}

/// A service whose tasks have addresses of their own is rolled out while somebody flushes the rules of one host.
fn own_addresses(seed: u64) -> Named {
    let image = Change::Image { service: "svc-0".into(), version: 2, sickness: Sickness::None };
    let what = [Happening::Manifests { change: image }, Happening::FlushRules { host: host(0) }];
    let mut story = story("addresses of their own", seed, &what);
    for definition in story.scenario.desired.task_definitions.values_mut() {
        definition.spec.edit(|spec| spec.network_mode = NetworkMode::Awsvpc);
    }
    story
}

/// Two hosts, one service of two tasks, and one thing that happens: scale-up, replacement, roll-out, drain, scale-in, losses.
pub fn stories() -> Vec<Named> {
    let service = || "svc-0".into();
    vec![
        story("start", 1, &[]),
        story("scale-up", 2, &[Happening::Manifests { change: Change::DesiredCount { service: service(), to: 5 } }]),
        story("scale-in", 3, &[Happening::Manifests { change: Change::DesiredCount { service: service(), to: 1 } }]),
        story("replacement", 4, &[Happening::Crash { host: host(0), nth: 0 }]),
        story(
            "roll-out",
            5,
            &[Happening::Manifests {
                change: Change::Image { service: service(), version: 2, sickness: Sickness::None },
            }],
        ),
        story("drain", 6, &[Happening::Operator { host: host(0), to: Schedulability::Draining }]),
        story("host lost", 7, &[Happening::Cut { host: host(0), there: true, back: true }]),
        story(
            "every host lost",
            8,
            &[0, 1].map(|number| Happening::Cut { host: host(number), there: true, back: true }),
        ),
        story(
            "database lost, clock set back",
            9,
            &[Happening::KillController { back_after_ms: 1_000, database: Database::Lost, clock_back_ms: 3_600_000 }],
        ),
        services_dropped(10),
        rollback_fails(11),
        own_addresses(12),
    ]
}

/// Each story with the controller killed, or the step or its answer lost, at each of its durable and remote steps; and
/// with each of its events lost; and with each look older than what was done since, when it is taken in.
pub fn crash_points() -> impl Iterator<Item = Named> {
    stories().into_iter().flat_map(|story| {
        let points = run(&story.scenario, Tell::Nothing).points;
        let at_steps = [Mishap::KillBefore, Mishap::KillAfter, Mishap::KillAtAnswer, Mishap::Lost, Mishap::AnswerLost];
        let at_commits = [Mishap::KillBefore, Mishap::KillAfter, Mishap::Lost, Mishap::AnswerLost];
        let requests = (0..points.requests).flat_map(move |n| at_steps.map(|mishap| (Point::Request(n), mishap)));
        let commits = (0..points.commits).flat_map(move |n| at_commits.map(|mishap| (Point::Commit(n), mishap)));
        let events = (0..points.events).map(|n| (Point::Event(n), Mishap::Lost));
        let lists = (0..points.lists).flat_map(|n| LATE_MS.map(|by_ms| (Point::List(n), Mishap::Late { by_ms })));
        requests.chain(commits).chain(events).chain(lists).map(move |(point, mishap)| Named {
            name: format!("{}: {mishap:?} at {point:?}", story.name),
            scenario: Scenario { mishaps: vec![(point, mishap)], ..story.scenario.clone() },
        })
    })
}

/// What can go wrong in the small scope, as (what, and what ends it later).
fn faults() -> Vec<(&'static str, Vec<(u64, Happening)>)> {
    let cut = |there, back| Happening::Cut { host: host(0), there, back };
    let heal = || Happening::Heal { host: host(0) };
    let resume = |shuffled| Happening::Resume { host: host(0), shuffled };
    let kill = |database| Happening::KillController { back_after_ms: 1_000, database, clock_back_ms: 0 };
    vec![
        ("cut for 3 s", vec![(0, cut(true, true)), (3_000, heal())]),
        ("cut for 16 s", vec![(0, cut(true, true)), (16_000, heal())]),
        ("deaf for 16 s", vec![(0, cut(true, false)), (16_000, heal())]),
        ("mute for 16 s", vec![(0, cut(false, true)), (16_000, heal())]),
        ("hung for 5 s", vec![(0, Happening::Hang { host: host(0) }), (5_000, resume(false))]),
        ("hung for 16 s, then in another order", vec![(0, Happening::Hang { host: host(0) }), (16_000, resume(true))]),
        ("engine killed", vec![(0, Happening::KillEngine { host: host(0) })]),
        ("reboot", vec![(0, cut(true, true)), (1, Happening::Reboot { host: host(0) }), (9_000, heal())]),
        ("crash", vec![(0, Happening::Crash { host: host(0), nth: 0 })]),
        ("docker kill", vec![(0, Happening::Kill { host: host(1), nth: 0 })]),
        ("docker rm -f", vec![(0, Happening::Remove { host: host(0), nth: 1 })]),
        ("docker rename", vec![(0, Happening::Rename { host: host(0), nth: 0 })]),
        (
            "docker pause",
            vec![(0, Happening::Pause { host: host(0), nth: 0 }), (4_000, Happening::Unpause { host: host(0) })],
        ),
        ("name taken", vec![(0, Happening::Squat { host: host(0) })]),
        ("labels forged", vec![(0, Happening::Forge { host: host(0), nth: 0 })]),
        ("disk full", vec![(0, Happening::DiskFull { host: host(0) }), (6_000, Happening::DiskFree { host: host(0) })]),
        ("reinstalled", vec![(0, cut(true, true)), (1, Happening::Reinstall { host: host(0) }), (14_000, heal())]),
        ("controller killed", vec![(0, kill(Database::Kept))]),
        ("database lost", vec![(0, kill(Database::Lost))]),
        ("database of before", vec![(0, kill(Database::Old))]),
        ("controller stalled", vec![(0, Happening::Stall { for_ms: 30_000 })]),
        ("manifests gone", vec![(0, Happening::Empty { for_ms: 8_000 })]),
        ("manifest broken", vec![(0, Happening::BrokenFile { nth: 0, for_ms: 8_000 })]),
        ("drain", vec![(0, Happening::Operator { host: host(0), to: Schedulability::Draining })]),
        ("task stopped", vec![(0, Happening::StopTask { nth: 0 })]),
    ]
}

/// Two hosts, one service of two tasks, one change, and each fault, alone and with each other one, at each of a few times
/// around the change.
pub fn small_scope() -> impl Iterator<Item = Named> {
    let times = [5_900_u64, 6_050, 6_400, 7_500];
    let faults = faults();
    let count = faults.len();
    let changes = [
        Change::DesiredCount { service: "svc-0".into(), to: 4 },
        Change::Image { service: "svc-0".into(), version: 2, sickness: Sickness::None },
    ];
    let pairs = (0..count).flat_map(move |one| (one..count).map(move |other| (one, other)));
    pairs.flat_map(move |(one, other)| {
        let (faults, changes) = (faults.clone(), changes.clone());
        times.into_iter().enumerate().map(move |(index, at_ms)| {
            let change = changes[(one + other + index) % changes.len()].clone();
            let mut script = vec![Scripted { at_ms: 6_000, what: Happening::Manifests { change } }];
            let mut add = |fault: &(&str, Vec<(u64, Happening)>), from_ms: u64| {
                script.extend(
                    fault.1.iter().map(|(after_ms, what)| Scripted { at_ms: from_ms + after_ms, what: what.clone() }),
                );
            };
            add(&faults[one], at_ms);
            let mut name = format!("{} at {at_ms} ms", faults[one].0);
            if other != one {
                let later = Rng::keyed(index as u64, &[one as u64, other as u64]).within(0, 4_000);
                add(&faults[other], at_ms + later);
                name = format!("{name}, {} {later} ms later", faults[other].0);
            }
            script.sort_by_key(|scripted| scripted.at_ms);
            let seed = (one * count + other) as u64;
            let scenario =
                Scenario { seed, desired: plain_desired(2, 2), script, faults_ms: 26_000, ..Scenario::default() };
            Named { name, scenario }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_scope_has_every_pair() {
        let names: std::collections::BTreeSet<String> = small_scope().map(|named| named.name).collect();
        let count = faults().len();
        assert_eq!(small_scope().count(), 4 * count * (count + 1) / 2);
        assert!(names.len() > 1_000);
    }

    #[test]
    fn a_scenario_is_the_same_after_a_file() {
        let scenario = crate::scenario::draw(7, crate::scenario::Shape::default());
        let text = serde_json::to_string(&scenario).expect("a value");
        assert_eq!(serde_json::from_str::<Scenario>(&text).expect("the same"), scenario);
    }
}
