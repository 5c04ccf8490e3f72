//! What would happen if everything went well: the planner asked again and again, each order pretended done.
//!
//! `plan`, `simulate` and `apply` answer from here, so that what-if is the very function that decides.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    action::{Action, ActionKey, ActionResult, Answer, Verb, VerbName},
    container::{ContainerState, HealthStatus},
    image::{ImageRequest, ResolvedImage},
    network::NetworkSeen,
    report::Waiting,
    spec::TaskDefinitionSpec,
    storage::DiskUse,
    task::{LastStatus, Launch, Task},
    time::Timestamp,
    world::{Plan, Subject, World},
};

use super::{absorb, network::pictures};

/// More rounds than any deployment of the allowed sizes needs.
const MAX_ROUNDS: usize = 2_000;

/// All changes, orders and reasons until nothing is left to do, as one plan; `waiting` is what still waits then.
pub fn forecast(world: &World) -> Plan {
    settle(&mut world.clone())
}

/// The same, and the world as it is then.
pub(super) fn settle(world: &mut World) -> Plan {
    let in_flight: Vec<ActionKey> = std::mem::take(&mut world.in_flight).iter().cloned().collect();
    world.retry_at.clear();
    for key in in_flight.iter().filter(|key| key.verb == VerbName::Launch) {
        change(world, &key.task.clone(), |task, spec| pretend_launched(task, None, spec));
    }
    let mut whole = Plan::default();
    pretend_networks(world);
    for _ in 0..MAX_ROUNDS {
        let round = crate::plan::plan(world);
        for change in &round.changes {
            world.state.apply(change);
        }
        if !round.changes.is_empty() {
            pretend_networks(world);
        }
        for action in &round.actions {
            pretend(world, action);
        }
        whole.report.doing.extend(round.report.doing);
        whole.report.waiting = round.report.waiting;
        whole.wake_at = round.wake_at;
        whole.changes.extend(round.changes.iter().cloned());
        whole.actions.extend(round.actions.iter().filter(|action| action.verb.name() != VerbName::Resolve).cloned());
        if round.actions.is_empty() && round.changes.is_empty() {
            return whole;
        }
    }
    whole.report.waiting.push(Waiting {
        subject: Subject::Fleet,
        reason: format!("the forecast ends after {MAX_ROUNDS} rounds"),
        wakes_when: "the first part is done".to_owned(),
        wakes_at: None,
    });
    whole
}

fn pretend(world: &mut World, action: &Action) {
    match &action.verb {
        Verb::Resolve { images, .. } => pretend_resolved(world, action, images),
        Verb::Launch { containers } => {
            let started: Vec<&str> =
                containers.iter().filter(|step| step.start).map(|step| step.container.as_str()).collect();
            change(world, &action.task, |task, spec| pretend_launched(task, Some(&started), spec));
        }
        Verb::Tidy { .. } => change(world, &action.task, |task, _| task.strays.clear()),
        Verb::Stop { .. } | Verb::Remove { .. } => change(world, &action.task, |task, _| {
            for row in task.containers.values_mut() {
                row.state = None;
                row.runtime_id = None;
            }
            task.advance(LastStatus::Stopped);
            task.stopped_at = Some(task.stopping_at.unwrap_or_default());
        }),
        Verb::Sweep { volumes } => {
            if let Some(seen) = world.volumes.get_mut(&action.host) {
                seen.volumes.retain(|name, _| !volumes.contains(name));
            }
            answered(world, action, ActionResult::Done { containers: Vec::new() });
        }
        Verb::Prune { images } => {
            let Some(seen) = world.storage.get_mut(&action.host) else { return };
            for image in images {
                seen.images.remove(&image.id);
                let freed = |disk: &mut DiskUse| disk.used_bytes = disk.used_bytes.saturating_sub(image.size_bytes);
                seen.disk.iter_mut().for_each(freed);
            }
        }
    }
}

/// Hosts make their parts of the task network at once, but for those that have a problem with it.
fn pretend_networks(world: &mut World) {
    let now = world.now;
    for (host, picture) in pictures(&world.state) {
        let new = || NetworkSeen {
            at: now,
            confirmed: None,
            under_way: None,
            slices: BTreeMap::new(),
            problem: None,
            public_key: None,
        };
        let seen = world.networks.entry(host).or_insert_with(new);
        if seen.problem.is_none() {
            seen.confirmed = Some(picture);
        }
    }
}

/// Images are what they were; of new ones nobody knows.
fn pretend_resolved(world: &mut World, action: &Action, images: &[ImageRequest]) {
    let revision = world.state.tasks.get(&action.task).and_then(|task| world.state.revision(&task.revision));
    let known = revision.map(|revision| revision.images.clone()).unwrap_or_default();
    let unknown = || ResolvedImage::Local(String::new());
    let image =
        |image: &ImageRequest| (image.reference.clone(), known.get(&image.reference).cloned().unwrap_or_else(unknown));
    let result = ActionResult::Resolved { images: images.iter().map(image).collect() };
    answered(world, action, result);
}

fn answered(world: &mut World, action: &Action, result: ActionResult) {
    let answer = Answer { key: action.key(), host: action.host.clone(), at: world.now, result };
    for change in absorb::answer(&world.state, &answer) {
        world.state.apply(&change);
    }
}

/// `started`: the containers that were started; all when absent.
fn pretend_launched(task: &mut Task, started: Option<&[&str]>, spec: Option<&TaskDefinitionSpec>) {
    // Long ago, so that no waiting time stands between.
    let long_ago = Timestamp(1);
    task.launch = Launch::Answered { at: long_ago };
    for (name, row) in task.containers.iter_mut() {
        row.runtime_id = Some(format!("{}-{name}", task.id).into());
        if started.is_none_or(|started| started.contains(&name.as_str())) {
            let must_end = spec.is_some_and(|spec| spec.must_end(name.as_str()));
            row.state = Some(if must_end { ContainerState::Exited } else { ContainerState::Running });
            row.exit_code = must_end.then_some(0);
            row.health = HealthStatus::Healthy;
        } else if row.state.is_none() {
            row.state = Some(ContainerState::Created);
        }
    }
    if crate::plan::health::all_running(task) {
        task.advance(LastStatus::Running);
        task.started_at = Some(long_ago);
        task.health_status = HealthStatus::Healthy;
    }
}

fn change(
    world: &mut World,
    id: &crate::model::name::TaskId,
    change: impl FnOnce(&mut Task, Option<&TaskDefinitionSpec>),
) {
    let Some(task) = world.state.tasks.get(id) else { return };
    let spec = world.state.revision(&task.revision).and_then(|revision| revision.spec.clone());
    let mut task = (**task).clone();
    change(&mut task, spec.as_deref());
    world.state.tasks.insert(id.clone(), Arc::new(task));
}
