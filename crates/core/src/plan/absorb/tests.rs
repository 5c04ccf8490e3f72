//! A look that shows nothing new is told without going into it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::observation::{Absorbed, in_full, observation, shows_nothing_new};
use crate::model::{
    action::{Action, Verb},
    container::{ContainerState, ContainerView, HealthStatus},
    name::{HostName, RuntimeId, TaskId},
    observed::HostObservation,
    ownership::{Claim, Owner},
    state::{Change, State},
    task::{DesiredStatus, LastStatus, Launch, StopCode, Task},
    time::Timestamp,
    world::World,
};
use crate::plan::plan;
use crate::plan::tests::{any_nudge, any_service, at_rest, nudge, one_pair};

/// What a host shows that runs what the state says.
fn look(world: &World, host: &HostName, at: Timestamp) -> HostObservation {
    let mut containers = BTreeMap::new();
    for task in world.state.tasks.values().filter(|task| task.host == *host) {
        let hash = world.state.revision(&task.revision).map_or("", |revision| &revision.hash);
        for (name, row) in task.containers.iter() {
            let (Some(id), Some(state)) = (row.runtime_id.clone(), row.state) else { continue };
            let view = ContainerView {
                id: id.clone(),
                name: row.created_name.clone(),
                image: row.image.clone(),
                image_id: "sha256:0".to_owned(),
                state,
                health: row.health,
                has_health_check: row.has_health_check,
                exit_code: row.exit_code,
                oom_killed: false,
                started_at: Some(Timestamp(1)),
                finished_at: None,
                restart_count: 0,
                error: String::new(),
                ports: row.ports.clone(),
                owner: Owner::Ours(Box::new(Claim::of(task, name, row, hash))),
            };
            containers.insert(id, view);
        }
    }
    let identity = world.state.hosts.get(host).and_then(|record| record.identity.clone()).unwrap();
    HostObservation { host: host.clone(), started_at: at, finished_at: at, identity, containers }
}

fn absorb(state: &mut State, look: HostObservation) -> Vec<Change> {
    let changes = in_full(state, &Arc::new(look), &BTreeSet::new()).changes;
    changes.iter().for_each(|change| state.apply(change));
    changes
}

/// What becomes of a second look.
#[derive(Clone, Copy, Debug)]
enum Turn {
    ContainerGone,
    Ended,
    Unhealthy,
    HigherEpoch,
    UnknownTask,
    Copy,
    Launching,
    LaunchedSince,
}

fn any_turn() -> impl Strategy<Value = Turn> {
    use Turn::{ContainerGone, Copy, Ended, HigherEpoch, LaunchedSince, Launching, Unhealthy, UnknownTask};
    proptest::sample::select(vec![
        ContainerGone,
        Ended,
        Unhealthy,
        HigherEpoch,
        UnknownTask,
        Copy,
        Launching,
        LaunchedSince,
    ])
}

fn turn(world: &mut World, look: &mut HostObservation, launching: &mut BTreeSet<TaskId>, turn: Turn, which: Index) {
    let Some(id) = look.containers.keys().nth(which.index(look.containers.len().max(1))).cloned() else { return };
    let Some(view) = look.containers.get_mut(&id) else { return };
    let Owner::Ours(claim) = &mut view.owner else { return };
    let task = claim.task.clone();
    match turn {
        Turn::ContainerGone => drop(look.containers.remove(&id)),
        Turn::Ended => view.state = ContainerState::Exited,
        Turn::Unhealthy => view.health = HealthStatus::Unhealthy,
        Turn::HigherEpoch => claim.epoch += 1,
        Turn::UnknownTask => drop(world.state.tasks.remove(&task)),
        Turn::Copy => {
            if let Some(task) = world.state.tasks.get_mut(&task) {
                Arc::make_mut(task).host = "elsewhere".into();
            }
        }
        Turn::Launching => drop(launching.insert(task)),
        Turn::LaunchedSince => {
            if let Some(task) = world.state.tasks.get_mut(&task) {
                Arc::make_mut(task).launch = Launch::Answered { at: look.started_at };
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_to_show_nothing_new_shows_nothing_new(
        services in vec(any_service(), 1..3),
        nudges in vec((any_nudge(), any::<Index>()), 0..3),
        turns in vec((any_turn(), any::<Index>()), 0..3),
        which in any::<Index>(),
    ) {
        let mut world = at_rest(2, &services);
        let hosts: Vec<HostName> = world.state.hosts.keys().cloned().collect();
        let host = which.get(&hosts);
        let first = look(&world, host, world.now);
        absorb(&mut world.state, first);
        for (what, which) in nudges {
            nudge(&mut world, what, which);
        }
        let mut second = look(&world, host, world.now.plus_ms(1_000));
        let mut launching = BTreeSet::new();
        for (what, which) in turns {
            turn(&mut world, &mut second, &mut launching, what, which);
        }
        let launching: BTreeSet<&TaskId> = launching.iter().collect();
        let second = Arc::new(second);
        let full = in_full(&world.state, &second, &launching);
        if shows_nothing_new(&world.state, &second, &launching) {
            prop_assert_eq!(&full, &Absorbed::default());
        }
        let short = observation(&world.state, &second, &launching);
        if short.untrusted.is_none() {
            prop_assert_eq!(short, full);
        }
    }

    #[test]
    fn at_rest_a_second_look_shows_nothing_new(services in vec(any_service(), 1..3)) {
        let mut world = at_rest(2, &services);
        for host in world.state.hosts.keys().cloned().collect::<Vec<_>>() {
            let first = look(&world, &host, world.now);
            absorb(&mut world.state, first);
            let second = look(&world, &host, world.now.plus_ms(1_000));
            prop_assert!(shows_nothing_new(&world.state, &second, &BTreeSet::new()));
        }
    }
}

/// A fleet of one host and one task of two essential containers, of which the database knows nothing.
fn found(missing: &str) -> (State, Vec<Change>, Task) {
    let mut world = at_rest(1, &[one_pair()]);
    let task = world.state.tasks.values().next().cloned().unwrap();
    let host = task.host.clone();
    let mut look = look(&world, &host, world.now);
    look.containers.retain(|_, view| view.owner.ours().is_some_and(|claim| claim.container.as_str() != missing));
    world.state.tasks = Default::default();
    world.state.revisions = Default::default();
    let changes = absorb(&mut world.state, look);
    let task = world.state.tasks.get(&task.id).map(|task| Task::clone(task)).unwrap();
    (world.state, changes, task)
}

#[test]
fn a_whole_task_is_adopted_and_a_part_of_one_ends() {
    let (_, _, whole) = found("");
    assert!(whole.is_wanted());
    let (mut state, changes, part) = found("side");
    assert!(!part.is_wanted());
    let reason = part.stopped_reason.clone().unwrap();
    assert!(reason.contains("without its essential container side"), "{reason}");
    let said = |change: &Change| matches!(change, Change::Event(event) if event.message.ends_with(&reason));
    assert!(changes.iter().any(said), "{changes:?}");

    // The other container appears late: it is known, and its task is not over before it is gone, too.
    let mut late = look(&World { state: state.clone(), ..World::default() }, &part.host, Timestamp(u64::MAX / 2));
    let id = RuntimeId::from("late");
    let mut view = late.containers.values().next().cloned().unwrap();
    view.id = id.clone();
    view.owner = Owner::Ours(Box::new(Claim::of(&part, &"side".into(), part.containers.get("side").unwrap(), "")));
    late.containers.insert(id.clone(), view);
    absorb(&mut state, late);
    let row = state.tasks.get(&part.id).unwrap().containers.get("side").unwrap();
    assert_eq!(row.runtime_id, Some(id));
}

#[test]
fn a_part_of_a_task_that_is_being_launched_waits_for_the_rest() {
    let mut world = at_rest(1, &[one_pair()]);
    let task = world.state.tasks.values().next().cloned().unwrap();
    let mut look = look(&world, &task.host, world.now);
    look.containers.retain(|_, view| view.owner.ours().is_some_and(|claim| claim.container.as_str() != "side"));
    world.state.tasks = Default::default();
    let absorbed = in_full(&world.state, &Arc::new(look), &[&task.id].into());
    assert!(!absorbed.changes.iter().any(|change| matches!(change, Change::Task(_))), "{:?}", absorbed.changes);
}

/// A fleet of one host with one task of two essential containers, and a look at it; `issued`: a launch order of unknown
/// outcome, given in the moment before the look.
fn pair(issued: bool) -> (World, TaskId, HostObservation) {
    let mut world = at_rest(1, &[one_pair()]);
    let id = world.state.tasks.keys().next().unwrap().clone();
    let at = world.now.plus_ms(5_000);
    let shown = look(&world, &"h0".into(), at);
    let seen = look(&world, &"h0".into(), world.now.plus_ms(1));
    absorb(&mut world.state, seen);
    if issued {
        let task = world.state.tasks.get_mut(&id).unwrap();
        Arc::make_mut(task).launch = Launch::Issued { at: Timestamp(at.0 - 1) };
    }
    (world, id, shown)
}

fn of_container<'l>(look: &'l HostObservation, name: &str) -> &'l ContainerView {
    look.containers.values().find(|view| view.owner.ours().unwrap().container.as_str() == name).unwrap()
}

#[test]
fn what_was_seen_running_and_is_there_no_more_ends_its_task_whatever_is_under_way() {
    for issued in [false, true] {
        let (mut world, id, mut shown) = pair(issued);
        let gone = of_container(&shown, "main").id.clone();
        shown.containers.remove(&gone);
        absorb(&mut world.state, shown);
        let task = &world.state.tasks[&id];
        assert_eq!(task.desired_status, DesiredStatus::Stopped, "issued: {issued}");
        assert!(task.stopped_reason.as_ref().unwrap().contains("main was removed on the host"), "issued: {issued}");
    }
}

#[test]
fn with_a_launch_of_unknown_outcome_a_task_is_over_only_when_its_containers_are_gone() {
    for (issued, expected) in [(false, LastStatus::Stopped), (true, LastStatus::Stopping)] {
        let (mut world, id, mut shown) = pair(issued);
        let task = Arc::make_mut(world.state.tasks.get_mut(&id).unwrap());
        task.order_stop(world.now, StopCode::HostLost, "its host is lost");
        // Long enough ago for every request to have arrived, and yet one may.
        shown.started_at = shown.started_at.plus_ms(60_000);
        for view in shown.containers.values_mut() {
            view.state = ContainerState::Exited;
        }
        let mut again = shown.clone();
        absorb(&mut world.state, shown);
        assert_eq!(world.state.tasks[&id].last_status, expected, "issued: {issued}");
        again.started_at = again.started_at.plus_ms(1);
        absorb(&mut world.state, again.clone());
        assert_eq!(world.state.tasks[&id].last_status, expected, "issued: {issued}");
        again.containers.clear();
        absorb(&mut world.state, again);
        assert_eq!(world.state.tasks[&id].last_status, LastStatus::Stopped, "issued: {issued}");
    }
}

#[test]
fn a_container_that_is_there_twice_is_removed_and_the_one_that_is_known_stays() {
    let (mut world, id, mut shown) = pair(false);
    let known = of_container(&shown, "main").clone();
    let second = RuntimeId::from("0".repeat(64));
    let twice = ContainerView { id: second.clone(), state: ContainerState::Created, ..known.clone() };
    let mut once = shown.clone();
    shown.containers.insert(second.clone(), twice);
    absorb(&mut world.state, shown);
    let task = &world.state.tasks[&id];
    assert_eq!(task.containers.get("main").unwrap().runtime_id.as_ref(), Some(&known.id));
    assert_eq!(task.strays, std::slice::from_ref(&second));
    let orders = plan(&world).actions;
    let [Action { verb: Verb::Tidy { containers }, .. }] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!(containers.iter().map(|step| &step.runtime_id).collect::<Vec<_>>(), [&second]);
    assert!(containers.iter().all(|step| step.remove));
    once.started_at = once.started_at.plus_ms(1);
    absorb(&mut world.state, once);
    assert!(world.state.tasks[&id].strays.is_empty());
    assert!(plan(&world).actions.is_empty());
}
