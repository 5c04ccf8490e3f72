//! The predicates, named as in the invariants. Each looks at ground truth, at the rows, or at one decision.

use std::collections::{BTreeMap, BTreeSet};

use super::host::SimHost;
use crate::{
    model::{
        container::ContainerState,
        name::{HostName, TaskId},
        spec::service::SchedulingStrategy,
        state::{Change, DeploymentStatus, State},
        task::{DesiredStatus, LastStatus, StopCode, Task},
        world::{Plan, World},
    },
    plan::health,
};

/// A predicate that does not hold, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// S1, S2 …
    pub predicate: &'static str,
    /// What was seen.
    pub detail: String,
}

fn broken(predicate: &'static str, detail: String) -> Result<(), Broken> {
    Err(Broken { predicate, detail })
}

fn is_ghost(world: &World, host: &HostName) -> bool {
    use crate::model::world::HostStatus;
    matches!(crate::plan::host_status(world, host), HostStatus::Lost | HostStatus::Untrusted)
}

/// One decision against the world it was made in.
pub(super) fn decision(before: &World, plan: &Plan) -> Result<(), Broken> {
    let mut after = before.state.clone();
    let mut voluntary: BTreeSet<TaskId> = BTreeSet::new();
    let mut added: BTreeSet<String> = BTreeSet::new();
    for change in &plan.changes {
        if let Change::Task(task) = change {
            let was = before.state.tasks.get(&task.id);
            if was.is_none() {
                added.insert(task.service.to_string());
            }
            let newly_stopped = was.is_some_and(|was| was.desired_status == DesiredStatus::Running)
                && task.desired_status == DesiredStatus::Stopped;
            match task.stop_code {
                Some(StopCode::ServiceSchedulerInitiated | StopCode::TerminationNotice) if newly_stopped => {
                    voluntary.insert(task.id.clone());
                }
                Some(StopCode::HostLost) if newly_stopped => brake(before, &after, task)?,
                Some(_) | None => {}
            }
        }
        after.apply(change);
    }
    for (name, manifest) in &before.state.desired.services {
        if manifest.spec.scheduling_strategy == SchedulingStrategy::Daemon {
            continue;
        }
        let desired = manifest.spec.desired_count as usize;
        let configuration = &manifest.spec.deployment_configuration;
        let floor = (desired * configuration.minimum_healthy_percent.unwrap_or(100) as usize).div_ceil(100);
        let ceiling = desired * configuration.maximum_percent.unwrap_or(200) as usize / 100;
        let of_service = |state: &State| -> Vec<Task> {
            state.tasks.values().filter(|task| task.service == *name).map(|task| (**task).clone()).collect()
        };
        let live = of_service(&after)
            .into_iter()
            .filter(|task| {
                task.is_live() && (task.desired_status == DesiredStatus::Running || !is_ghost(before, &task.host))
            })
            .count();
        if added.contains(name.as_str()) && live > ceiling {
            return broken("S2", format!("{name}: {live} live tasks after a start, ceiling {ceiling}"));
        }
        let healthy =
            |task: &Task| health::healthy(task, manifest.spec.minimum_healthy_seconds.as_ms(), before.now).is_ok();
        let healthy_before = of_service(&before.state).iter().filter(|task| healthy(task)).count();
        let stopped_healthy =
            of_service(&before.state).iter().filter(|task| voluntary.contains(&task.id) && healthy(task)).count();
        if stopped_healthy > 0 && healthy_before - stopped_healthy < floor {
            return broken(
                "S3",
                format!("{name}: {stopped_healthy} of {healthy_before} healthy tasks stopped by choice, floor {floor}"),
            );
        }
    }
    Ok(())
}

fn brake(before: &World, after: &State, task: &Task) -> Result<(), Broken> {
    let hosts = before.state.desired.hosts.len();
    let recent =
        after.hosts.values().filter(|host| host.lost_since.is_some_and(|at| before.now.since_ms(at) < 60_000)).count();
    let lost_now = after.hosts.values().filter(|host| host.lost_since == Some(before.now)).count();
    if lost_now > 0 && recent * 2 > hosts {
        return broken(
            "S14",
            format!("task {} given up although {recent} of {hosts} hosts were lost within a minute", task.id),
        );
    }
    Ok(())
}

/// Rows against the rows of the step before.
pub(super) fn rows(before: &State, after: &State) -> Result<(), Broken> {
    let mut ports: BTreeMap<(&HostName, u16), &TaskId> = BTreeMap::new();
    for task in after.tasks.values() {
        if let Some(was) = before.tasks.get(&task.id) {
            if was.desired_status == DesiredStatus::Stopped && task.desired_status == DesiredStatus::Running {
                return broken("S9", format!("task {} was ordered to stop and is wanted again", task.id));
            }
            if task.last_status < was.last_status || task.host != was.host || task.revision != was.revision {
                return broken(
                    "S18",
                    format!(
                        "task {} went from {:?} on {} to {:?} on {}",
                        task.id, was.last_status, was.host, task.last_status, task.host
                    ),
                );
            }
        }
        if task.last_status != LastStatus::Stopped {
            for port in task.containers.values().flat_map(|container| &container.ports) {
                if let Some(other) = ports.insert((&task.host, port.host_port), &task.id)
                    && *other != task.id
                {
                    return broken(
                        "S4",
                        format!("tasks {other} and {} both hold port {} of {}", task.id, port.host_port, task.host),
                    );
                }
            }
        }
    }
    for service in after.services.values() {
        let primaries =
            service.deployments.iter().filter(|deployment| deployment.status == DeploymentStatus::Primary).count();
        if primaries > 1 {
            return broken("S16", format!("{} has {primaries} PRIMARY deployments", service.name));
        }
    }
    if after.fleet.epoch < before.fleet.epoch {
        return broken("S6", format!("the epoch went from {} to {}", before.fleet.epoch, after.fleet.epoch));
    }
    Ok(())
}

/// Ground truth of every host.
pub(super) fn ground(
    hosts: &BTreeMap<HostName, SimHost>,
    committed: &BTreeSet<TaskId>,
    strangers: usize,
) -> Result<(), Broken> {
    for (name, host) in hosts {
        let foreign = host.containers.values().filter(|container| container.view.owner.ours().is_none()).count();
        if foreign != strangers {
            return broken("S1", format!("{name} has {foreign} of {strangers} containers of others"));
        }
        let mut singles: BTreeSet<(&TaskId, &str)> = BTreeSet::new();
        for container in host.containers.values() {
            let Some(claim) = container.view.owner.ours() else { continue };
            if !committed.contains(&claim.task) {
                return broken("S8", format!("container {} on {name} has no committed row", container.view.name));
            }
            if !singles.insert((&claim.task, claim.container.as_str())) {
                return broken(
                    "S4",
                    format!("container {} of task {} exists twice on {name}", claim.container, claim.task),
                );
            }
        }
    }
    Ok(())
}

/// Whether ground truth is what the manifests ask for; else what is missing.
pub(super) fn at_rest(world: &World, hosts: &BTreeMap<HostName, SimHost>) -> Result<(), String> {
    let mut live: BTreeMap<&str, BTreeSet<&TaskId>> = BTreeMap::new();
    for (name, host) in hosts {
        for container in host.containers.values() {
            let Some(claim) = container.view.owner.ours() else { continue };
            let row = world
                .state
                .tasks
                .get(&claim.task)
                .ok_or_else(|| format!("{} on {name} has no row", container.view.name))?;
            if container.view.state.is_live() && row.desired_status == DesiredStatus::Stopped {
                return Err(format!("L5: {} on {name} still runs although its task was stopped", container.view.name));
            }
            if container.view.state == ContainerState::Running && claim.essential {
                live.entry(claim.service.as_str()).or_default().insert(&claim.task);
            }
        }
    }
    for (name, manifest) in &world.state.desired.services {
        let desired = match manifest.spec.scheduling_strategy {
            SchedulingStrategy::Replica => manifest.spec.desired_count as usize,
            SchedulingStrategy::Daemon => hosts.len(),
        };
        if may_wait(world, name.as_str(), desired, hosts.len()) {
            continue;
        }
        let tasks = live.get(name.as_str()).cloned().unwrap_or_default();
        if tasks.len() != desired {
            return Err(format!("{name} has {} live tasks and wants {desired}", tasks.len()));
        }
        let newest = world.state.services.get(name).and_then(|record| record.deployments.first());
        for id in tasks {
            let Some(task) = world.state.tasks.get(id) else { return Err(format!("no row of {id}")) };
            if Some(&task.revision) != newest.map(|deployment| &deployment.revision) {
                return Err(format!("{name}: task {id} still runs {}", task.revision));
            }
            health::healthy(task, manifest.spec.minimum_healthy_seconds.as_ms(), world.now)
                .map_err(|_| format!("{name}: task {id} is not healthy"))?;
        }
    }
    Ok(())
}

/// Specs that can wait for ever, visibly: a fixed host port with more tasks than hosts beside each other, or bounds that
/// allow neither a start nor a stop.
fn may_wait(world: &World, service: &str, desired: usize, hosts: usize) -> bool {
    let Some(manifest) = world.state.desired.services.get(service) else { return true };
    let fixed_port = world.state.desired.task_definitions.get(service).is_some_and(|definition| {
        definition
            .spec
            .container_definitions
            .iter()
            .flat_map(|container| &container.port_mappings)
            .any(|port| port.host_port.is_some_and(|port| port != 0))
    });
    let configuration = &manifest.spec.deployment_configuration;
    let floor = (desired * configuration.minimum_healthy_percent.unwrap_or(100) as usize).div_ceil(100);
    let ceiling = desired * configuration.maximum_percent.unwrap_or(200) as usize / 100;
    let stuck = manifest.spec.scheduling_strategy == SchedulingStrategy::Replica
        && desired > 0
        && floor >= desired
        && ceiling <= desired;
    let crowded = fixed_port && (desired * 2 > hosts || world.state.desired.services.len() > 1);
    stuck || crowded
}
