//! One decision against the world that it was made in.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Checks, Predicate, broken, volumes::owns};
use crate::fleet::{FakeHost, Ground};
use roadstead_core::{
    model::{
        name::{HostName, ServiceName, TaskId},
        spec::service::{SchedulingStrategy, ServiceSpec},
        state::{Change, State},
        task::{DesiredStatus, StopCode, Task},
        traffic::Side,
        volume::{VolumeId, stays_on_host},
        world::{HostStatus, Plan, World},
    },
    plan::{self, health},
};

impl Checks {
    /// The planner decided.
    pub(crate) fn decided(&mut self, world: &World, plan: &Plan) -> Result<(), Broken> {
        for (host, contact) in &world.contacts {
            if let Some(at) = contact.looked_at {
                self.looked_at.insert(host.clone(), at);
            }
            if contact.untrusted.is_some() {
                self.untrusted.insert(host.clone());
            } else {
                self.untrusted.remove(host);
            }
        }
        self.note_network(world);
        self.under_way.clear();
        self.under_way.extend(world.in_flight.iter().map(|key| key.task.clone()));
        if plan.actions.is_empty() && plan.changes.is_empty() {
            return Ok(());
        }
        self.acted_at = world.now;
        let after = after(world, plan);
        s14_brake(world, plan, &after.state)?;
        s21_quarantine(world, plan)?;
        s2_s3_bounds(world, plan, &after.state)?;
        s12_back_off(world, plan, &after.state)?;
        s12_calm(&after)
    }
}

impl Ground {
    /// A controller that was shown what a later one made gives no order: told from the hosts, whatever it says of itself.
    pub(crate) fn s7_one_writer(&self, world: &World, plan: &Plan) -> Result<(), Broken> {
        if plan.actions.is_empty() {
            return Ok(());
        }
        if self.fenced {
            return broken(Predicate::S7, "a controller that knows of a later one gives an order");
        }
        let ours = world.state.fleet.epoch;
        for (name, look) in &world.state.observations {
            let there = self.hosts.get(name).into_iter().flat_map(FakeHost::containers);
            let mut seen = there.filter(|(id, _, _, _)| look.containers.contains_key(*id));
            if let Some((_, claim, _, _)) = seen.find(|(_, claim, _, _)| claim.epoch > ours) {
                let words = format!("gives an order, and was shown {} of epoch {}", claim.created_name, claim.epoch);
                return broken(Predicate::S7, format!("a controller of epoch {ours} {words}"));
            }
        }
        Ok(())
    }
}

/// Whoever is not asked had nothing to say: what waits for a time is not slept through.
pub(crate) fn l3_nothing_was_due(world: &World) -> Result<(), Broken> {
    match first_of(&plan::plan(world)) {
        Some(what) => broken(Predicate::L3, format!("the planner was not asked, and had something to do: {what}")),
        None => Ok(()),
    }
}

/// The world when the plan is committed and sent.
fn after(world: &World, plan: &Plan) -> World {
    let mut after = world.clone();
    for change in &plan.changes {
        after.state.apply(change);
    }
    for action in &plan.actions {
        after.in_flight.insert(action.key());
        after.retry_at.remove(&action.key());
    }
    after
}

fn s12_calm(after: &World) -> Result<(), Broken> {
    match first_of(&plan::plan(after)) {
        Some(what) => broken(Predicate::S12, format!("planning again finds more to do: {what}")),
        None => Ok(()),
    }
}

/// The first of what a plan does, in words.
fn first_of(plan: &Plan) -> Option<String> {
    let action = plan.actions.first().map(|action| format!("{:?} task {}", action.verb.name(), action.task));
    let change = plan.changes.first().map(|change| format!("{change:?}").chars().take(1500).collect());
    let what: Vec<String> = action.into_iter().chain(change).collect();
    (!what.is_empty()).then(|| what.join("; "))
}

/// Nothing of a revision is started before the pause after its last failure is over, or a task of it is healthy.
fn s12_back_off(world: &World, plan: &Plan, after: &State) -> Result<(), Broken> {
    let not_before = |state: &State, task: &Task| {
        state.services.get(&task.service).and_then(|record| record.not_before).filter(|at| *at > world.now)
    };
    for change in &plan.changes {
        let Change::Task(task) = change else { continue };
        let Some(record) = world.state.services.get(&task.service) else { continue };
        let is_new = !world.state.tasks.contains_key(&task.id);
        let is_newest = record.deployments.first().is_some_and(|deployment| deployment.revision == task.revision);
        let paused = not_before(&world.state, task).zip(not_before(after, task));
        if is_new
            && is_newest
            && let Some((at, _)) = paused
        {
            let early_ms = at.since_ms(world.now);
            return broken(Predicate::S12, format!("a task of {} is decided {early_ms} ms too early", task.service));
        }
    }
    Ok(())
}

fn s14_brake(world: &World, plan: &Plan, after: &State) -> Result<(), Broken> {
    let given_up = plan.changes.iter().find_map(|change| {
        let Change::Task(task) = change else { return None };
        let was_wanted =
            world.state.tasks.get(&task.id).is_some_and(|was| was.desired_status == DesiredStatus::Running);
        (was_wanted && task.stop_code == Some(StopCode::HostLost)).then_some(task)
    });
    let Some(task) = given_up else { return Ok(()) };
    let is_released = after.fleet.brake.as_ref().is_some_and(|brake| brake.released);
    let lost_at = |host: &HostName| after.hosts.get(host).and_then(|record| record.lost_since);
    let declared = &world.state.desired.hosts;
    let spec = declared_service(world, task);
    let is_early = |host: &HostName| spec.is_some_and(|spec| plan::is_lost_early(world, host, spec));
    let is_recent = |host: &&HostName| match lost_at(host) {
        Some(at) => world.now.since_ms(at) < 60_000,
        None => is_early(host),
    };
    let recent = declared.keys().filter(is_recent).count();
    let is_new = lost_at(&task.host).is_none_or(|at| at == world.now);
    if is_new && !is_released && recent * 2 > declared.len() {
        return broken(
            Predicate::S14,
            format!(
                "task {} is given up although {recent} of {} hosts were lost within a minute",
                task.id,
                declared.len()
            ),
        );
    }
    Ok(())
}

fn declared_service<'w>(world: &'w World, task: &Task) -> Option<&'w ServiceSpec> {
    world.state.desired.services.get(&task.service).map(|manifest| &manifest.spec)
}

/// No order goes to a host that is not who it was.
fn s21_quarantine(world: &World, plan: &Plan) -> Result<(), Broken> {
    for action in &plan.actions {
        if plan::host_status(world, &action.host) == HostStatus::Untrusted {
            return broken(Predicate::S21, format!("an order goes to {}, which is not who it was", action.host));
        }
    }
    let mut seen: BTreeMap<(&str, Option<&str>), &HostName> = BTreeMap::new();
    for (name, record) in &world.state.hosts {
        let Some(identity) = &record.identity else { continue };
        let key = (identity.engine_id.as_str(), identity.machine_id.as_deref());
        if let Some(other) = seen.insert(key, name) {
            return broken(Predicate::S21, format!("{other} and {name} are taken for two hosts and are one"));
        }
    }
    Ok(())
}

/// Floor and ceiling in tasks; a daemon's are not counted here.
pub(super) fn bounds(spec: &ServiceSpec, hosts: usize) -> (usize, usize) {
    let desired = match spec.scheduling_strategy {
        SchedulingStrategy::Replica => spec.desired_count as usize,
        SchedulingStrategy::Daemon => return (0, hosts * 2),
    };
    let configuration = &spec.deployment_configuration;
    let floor = (desired * configuration.minimum_healthy_percent.unwrap_or(100) as usize).div_ceil(100);
    let ceiling = desired * configuration.maximum_percent.unwrap_or(200) as usize / 100;
    (floor, ceiling)
}

fn s2_s3_bounds(world: &World, plan: &Plan, after: &State) -> Result<(), Broken> {
    let mut voluntary: BTreeSet<&TaskId> = BTreeSet::new();
    let mut touched: BTreeMap<&ServiceName, BTreeSet<Side>> = BTreeMap::new();
    for change in &plan.changes {
        let Change::Task(task) = change else { continue };
        let was = world.state.tasks.get(&task.id);
        let with_new = touched.entry(&task.service).or_default();
        with_new.extend(was.is_none().then_some(task.side));
        // A person moves what it mounts.
        let id = |name: &str| VolumeId { cluster: task.cluster.clone(), name: name.to_owned() };
        let moves = |name: &str| world.state.volumes.get(&id(name)).is_some_and(|record| record.moving.is_some());
        let spec = world.state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
        let is_moved = spec.is_some_and(|spec| stays_on_host(spec).any(moves));
        let is_by_choice = !is_moved
            && match task.stop_code {
                Some(StopCode::ServiceSchedulerInitiated | StopCode::TerminationNotice) => true,
                Some(
                    StopCode::TaskFailedToStart
                    | StopCode::EssentialContainerExited
                    | StopCode::UserInitiated
                    | StopCode::HostLost,
                )
                | None => false,
            };
        if is_by_choice
            && task.desired_status == DesiredStatus::Stopped
            && was.is_some_and(|was| was.desired_status == DesiredStatus::Running)
        {
            voluntary.insert(&task.id);
        }
    }
    for (name, with_new) in touched {
        let Some(manifest) = world.state.desired.services.get(name) else { continue };
        if manifest.spec.scheduling_strategy == SchedulingStrategy::Daemon {
            continue;
        }
        let (floor, ceiling) = bounds(&manifest.spec, world.state.desired.hosts.len());
        // A task that owns a volume stops before the next one starts.
        let owns = world.state.tasks.values().filter(|task| task.service == *name).any(|task| {
            let spec = world.state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
            spec.is_some_and(|spec| owns(&manifest.spec, spec))
        });
        let floor = if owns { 0 } else { floor };
        let is_ghost = |host: &HostName| {
            matches!(plan::host_status(world, host), HostStatus::Lost | HostStatus::Untrusted)
                || plan::is_lost_early(world, host, &manifest.spec)
        };
        let counts = |task: &&std::sync::Arc<Task>| {
            task.service == *name
                && task.is_live()
                && (task.desired_status == DesiredStatus::Running || !is_ghost(&task.host))
        };
        let is_healthy = |task: &&std::sync::Arc<Task>| {
            task.service == *name && health::healthy(task, &manifest.spec, world.now).is_ok()
        };
        // Of two that take turns each is held to it; one that gets no requests has no floor.
        let shift = after.services.get(name).and_then(|record| record.shift).unwrap_or_default();
        for side in [Side::Blue, Side::Green] {
            let of_side = |task: &&std::sync::Arc<Task>| task.side == side;
            let live = after.tasks.values().filter(of_side).filter(counts).count();
            if with_new.contains(&side) && live > ceiling {
                let words = format!("{name}: {live} live tasks after a start, the ceiling is {ceiling}");
                return broken(Predicate::S2, words);
            }
            let floor = if shift.share(side) > 0 { floor } else { 0 };
            let healthy: Vec<_> = world.state.tasks.values().filter(of_side).filter(is_healthy).collect();
            let stopped = healthy.iter().filter(|task| voluntary.contains(&task.id)).count();
            if stopped > 0 && healthy.len() - stopped < floor {
                let of = healthy.len();
                let words =
                    format!("{name}: {stopped} of {of} healthy tasks are stopped by choice, the floor is {floor}");
                return broken(Predicate::S3, words);
            }
        }
    }
    Ok(())
}
