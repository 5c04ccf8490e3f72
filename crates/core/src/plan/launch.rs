//! From a revision and a place to containers, fully decided.

mod config;
mod mounts;
mod restart;
mod sandbox;

use std::{borrow::Cow, collections::BTreeSet, net::Ipv4Addr};

use crate::model::{
    action::LaunchStep,
    container::{ContainerState, HealthStatus, PortBinding},
    image,
    name::{ContainerName, RevisionId, ServiceName, TaskId},
    network::SANDBOX,
    small_map::SmallMap,
    spec::{
        ClusterSpec, TaskDefinitionSpec,
        task_definition::{
            ContainerDefinition, ContainerDependency, DependencyCondition, HealthCheck, NetworkMode, Protocol,
            ResourceType,
        },
    },
    state::Revision,
    task::{Task, TaskContainer},
    time::Timestamp,
};

use super::network::Around;

pub(super) use restart::{Restart, Revivals, by_controller, comes_back, restart};

/// ECS's default `stopTimeout`.
pub(super) const DEFAULT_STOP_TIMEOUT_S: u32 = 30;
/// ECS's default `startTimeout`.
const DEFAULT_START_TIMEOUT_S: u32 = 180;

/// CPU units and MiB that a task of this definition reserves on its host.
///
/// The task's own size when it has one; else the sum over its containers, `memoryReservation` before `memory`.
pub(super) fn reservation(spec: &TaskDefinitionSpec) -> (u32, u32) {
    let containers = &spec.container_definitions;
    let cpu = spec
        .cpu
        .map_or_else(|| containers.iter().map(|container| container.cpu.0).fold(0, u32::saturating_add), |cpu| cpu.0);
    let memory = spec.memory.map_or_else(
        || {
            containers
                .iter()
                .filter_map(|container| container.memory_reservation.or(container.memory))
                .map(|memory| memory.0)
                .fold(0, u32::saturating_add)
        },
        |memory| memory.0,
    );
    (cpu, memory)
}

/// GPUs that a task of this definition has on its host; all containers' together.
pub(super) fn gpus(spec: &TaskDefinitionSpec) -> u32 {
    spec.container_definitions.iter().map(gpus_of).fold(0, u32::saturating_add)
}

/// GPUs of one container; admission has seen that they are numbers.
fn gpus_of(definition: &ContainerDefinition) -> u32 {
    let wanted = definition.resource_requirements.iter().map(|requirement| match requirement.kind {
        ResourceType::Gpu => requirement.value.trim().parse().unwrap_or(0),
        ResourceType::InferenceAccelerator => 0,
    });
    wanted.fold(0, u32::saturating_add)
}

/// A port that a task takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PublishedPort<'a> {
    /// The container's name in the task.
    pub(super) container: &'a str,
    /// Inside.
    pub(super) container_port: u16,
    /// On the host, when it is not to be picked.
    pub(super) host_port: Option<u16>,
    /// tcp or udp.
    pub(super) protocol: Protocol,
}

/// The ports that a task takes on its host, in the order of the definition: what placement is asked for. In host mode a
/// container's own ports are the host's; its engine publishes nothing then. With awsvpc they are the task's own, and the
/// host's, too, only with a public address: `is_public`.
pub(super) fn published_ports(spec: &TaskDefinitionSpec, is_public: bool) -> Vec<PublishedPort<'_>> {
    let (on_host, holder) = match spec.network_mode {
        NetworkMode::Bridge => (false, None),
        NetworkMode::Host => (true, None),
        NetworkMode::Awsvpc if is_public => (true, Some(SANDBOX)),
        NetworkMode::Awsvpc | NetworkMode::None => return Vec::new(),
    };
    let mut ports = Vec::new();
    for definition in spec.container_definitions.iter().filter(|definition| !definition.disable_networking) {
        for mapping in &definition.port_mappings {
            let host_port = mapping.host_port.filter(|_| mapping.container_port_range.is_none());
            ports.extend(mapping.container_ports().into_iter().flatten().map(|container_port| PublishedPort {
                container: holder.unwrap_or(&definition.name),
                container_port,
                host_port: if on_host { Some(container_port) } else { host_port },
                protocol: mapping.protocol,
            }));
        }
    }
    ports
}

/// A revision as a task runs it: of a standalone task with its overrides.
pub(super) fn of_task<'r>(task: &Task, revision: &'r Revision) -> Cow<'r, Revision> {
    match &revision.spec {
        Some(spec) if task.is_standalone() => {
            let standalone = task.standalone.as_deref().cloned().unwrap_or_default();
            Cow::Owned(Revision { spec: Some(standalone.content(spec)), ..revision.clone() })
        }
        Some(_) | None => Cow::Borrowed(revision),
    }
}

/// The health check of a container that is made from the host, if its check is one.
pub fn probed<'a>(spec: &'a TaskDefinitionSpec, container: &str) -> Option<&'a HealthCheck> {
    let definition = spec.container_definitions.iter().find(|definition| definition.name == container)?;
    definition.health_check.as_ref().filter(|check| check.probe().is_some())
}

/// A container's name on its host: revision and task are in it (S6), and it is the lock against creating it twice.
pub(super) fn container_name(service: &ServiceName, revision: &RevisionId, task: &TaskId, container: &str) -> String {
    // Docker takes no colon.
    let group = service.as_str().replace(':', ".");
    format!("rs-{group}-{}-{task}-{container}", revision.number)
}

/// The rows of a new task's containers; `ports` as placement gave them, in the order of [`published_ports`].
pub(super) fn task_containers(
    service: &ServiceName,
    revision: &RevisionId,
    task: &TaskId,
    spec: &TaskDefinitionSpec,
    ports: &[PortBinding],
) -> SmallMap<ContainerName, TaskContainer> {
    let mut rows: SmallMap<ContainerName, TaskContainer> = spec
        .containers()
        .map(|definition| {
            let row = TaskContainer {
                created_name: container_name(service, revision, task, &definition.name),
                essential: definition.essential,
                image: definition.image.clone(),
                image_digest: None,
                runtime_id: None,
                state: None,
                health: HealthStatus::Unknown,
                has_health_check: definition.health_check.is_some(),
                exit_code: None,
                oom_killed: false,
                restart_count: 0,
                started_at: None,
                seen_started_at: None,
                taken_down: false,
                ports: Vec::new(),
                revived: None,
                health_reason: None,
            };
            (ContainerName::from(definition.name.as_str()), row)
        })
        .collect();
    // With a public address as many as without one, or none.
    for (port, binding) in published_ports(spec, true).into_iter().zip(ports) {
        if let Some(row) = rows.get_mut(port.container) {
            row.ports.push(binding.clone());
        }
    }
    rows
}

/// What the containers of a task find where it is.
pub(super) struct Surroundings<'a> {
    /// Its host's zone.
    pub(super) zone: Option<&'a str>,
    /// Its cluster.
    pub(super) cluster: &'a ClusterSpec,
    /// Where names are asked for in the task network: its host's address there.
    pub(super) name_server: Option<Ipv4Addr>,
    /// What is around those that join its sandbox.
    pub(super) namespace: Around,
}

/// What a launch would do now for a task whose containers stand as they do; empty when nothing can be done.
pub(super) fn steps(
    task: &Task,
    revision: &Revision,
    revivals: &Revivals,
    around: &Surroundings<'_>,
) -> Vec<LaunchStep> {
    let Some(spec) = revision.spec.as_deref() else { return Vec::new() };
    let context = config::Context { task, spec, revision, around };
    let mut starting: BTreeSet<&str> = BTreeSet::new();
    let mut steps = Vec::new();
    for definition in in_dependency_order(spec) {
        let Some(row) = task.containers.get(definition.name.as_str()) else { continue };
        let exists = row.state.is_some();
        let startable = matches!(row.state, None | Some(ContainerState::Created)) || revivals.has(&definition.name);
        // Docker joins a container only to one that runs; and we to a namespace with rules in it, where it is to have its own.
        let joined_runs = sandbox::joined(spec, definition).is_none_or(|anchor| {
            let runs = || task.containers.get(anchor).is_some_and(|row| row.state == Some(ContainerState::Running));
            match around.namespace {
                Around::Guarded => starting.contains(anchor) || runs(),
                Around::Held => true,
                Around::Open => false,
            }
        });
        let start = startable
            && joined_runs
            && sandbox::dependencies(spec, definition).iter().all(|dependency| {
                // In this very launch the other one is started first.
                let starts_now = dependency.condition == DependencyCondition::Start
                    && starting.contains(dependency.container_name.as_str());
                starts_now || is_met(task, dependency)
            });
        if start {
            starting.insert(&definition.name);
        }
        if start || !exists {
            steps.push(LaunchStep {
                container: definition.name.as_str().into(),
                config: config::config(&context, row, definition),
                runtime_id: row.runtime_id.clone(),
                start,
                needed: is_needed(spec, definition),
                pull: definition.image_pull_policy.or(around.cluster.image_pull_policy).unwrap_or_default(),
            });
        }
    }
    steps
}

/// Whether a task cannot be without a container: it is essential, or another one needs it.
pub(super) fn is_needed(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> bool {
    let name = definition.name.as_str();
    definition.essential || spec.containers().any(|other| needs(spec, other).any(|needed| needed == name))
}

/// Those that a container comes after, and goes before when the task stops.
fn needs<'a>(spec: &'a TaskDefinitionSpec, definition: &'a ContainerDefinition) -> impl Iterator<Item = &'a str> {
    definition.comes_after().chain(sandbox::joined(spec, definition))
}

/// The digests that containers of a revision run by, by container.
pub(super) fn digests(revision: &Revision, spec: &TaskDefinitionSpec) -> Vec<(String, String)> {
    let digest = |definition: &ContainerDefinition| {
        let pinned = revision.image(&definition.image);
        Some((definition.name.clone(), image::digest(&pinned)?.to_owned()))
    };
    spec.container_definitions.iter().filter_map(digest).collect()
}

/// Whether what a container waits for was seen.
fn is_met(task: &Task, dependency: &ContainerDependency) -> bool {
    let Some(other) = task.containers.get(dependency.container_name.as_str()) else { return false };
    match dependency.condition {
        DependencyCondition::Start => has_started(other),
        DependencyCondition::Complete => other.state == Some(ContainerState::Exited),
        DependencyCondition::Success => other.state == Some(ContainerState::Exited) && other.exit_code == Some(0),
        DependencyCondition::Healthy => {
            other.state == Some(ContainerState::Running) && other.health == HealthStatus::Healthy
        }
    }
}

/// What a container waits for.
pub(super) struct Unmet {
    /// In words.
    pub(super) words: String,
    /// When it gives up and how many seconds it will have waited then; none while the other has not started, and where it
    /// may take as long as it takes.
    pub(super) until: Option<(Timestamp, u32)>,
}

/// What the containers of a task wait for.
pub(super) fn unmet_dependencies(task: &Task, spec: &TaskDefinitionSpec) -> Vec<Unmet> {
    let mut unmet = Vec::new();
    for definition in spec.containers() {
        if task.containers.get(definition.name.as_str()).is_some_and(|row| row.state == Some(ContainerState::Created)) {
            let dependencies = sandbox::dependencies(spec, definition);
            for dependency in dependencies.iter().filter(|dependency| !is_met(task, dependency)) {
                let word = match dependency.condition {
                    DependencyCondition::Start => "to start",
                    DependencyCondition::Complete => "to end",
                    DependencyCondition::Success => "to end with 0",
                    DependencyCondition::Healthy => "to be healthy",
                };
                let other = dependency.container_name.as_str();
                let since = task.containers.get(other).and_then(|row| row.seen_started_at);
                let until = since.zip(start_timeout_s(spec, dependency));
                unmet.push(Unmet {
                    words: format!("{} waits for {other} {word}", definition.name),
                    until: until.map(|(since, timeout_s)| (since.plus_ms(u64::from(timeout_s) * 1_000), timeout_s)),
                });
            }
        }
    }
    unmet
}

/// For how long a dependency is waited for once it was seen started. Without a `startTimeout` as long as ECS's agent does by
/// default, beyond the time in which failing checks do not count; but work that is to end may take its time.
fn start_timeout_s(spec: &TaskDefinitionSpec, dependency: &ContainerDependency) -> Option<u32> {
    let other = spec.container_definitions.iter().find(|other| other.name == dependency.container_name)?;
    let by_default = match dependency.condition {
        DependencyCondition::Complete | DependencyCondition::Success => None,
        DependencyCondition::Start | DependencyCondition::Healthy => {
            let start_period_s = other.health_check.as_ref().map_or(0, |check| check.start_period.0);
            Some(DEFAULT_START_TIMEOUT_S.saturating_add(start_period_s))
        }
    };
    other.start_timeout.map(|timeout| timeout.0).or(by_default)
}

/// A container that failed a SUCCESS dependency, with its exit code.
pub(super) fn failed_success_dependency(task: &Task, spec: &TaskDefinitionSpec) -> Option<(String, i64)> {
    spec.container_definitions
        .iter()
        .flat_map(|definition| &definition.depends_on)
        .filter(|dependency| dependency.condition == DependencyCondition::Success)
        .find_map(|dependency| {
            let row = task.containers.get(dependency.container_name.as_str())?;
            let code = row.exit_code.filter(|code| *code != 0)?;
            (row.state == Some(ContainerState::Exited)).then(|| (dependency.container_name.clone(), code))
        })
}

fn has_started(container: &TaskContainer) -> bool {
    match container.state {
        Some(
            ContainerState::Running | ContainerState::Paused | ContainerState::Restarting | ContainerState::Exited,
        ) => true,
        Some(ContainerState::Created | ContainerState::Removing | ContainerState::Dead) | None => false,
    }
}

/// Dependencies before their dependants; ties in the order of the definition. Admission refuses cycles; should one get
/// here, its containers come last, in order.
pub(super) fn in_dependency_order(spec: &TaskDefinitionSpec) -> Vec<&ContainerDefinition> {
    let mut left: Vec<&ContainerDefinition> = spec.containers().collect();
    let mut ordered: Vec<&ContainerDefinition> = Vec::new();
    loop {
        let ready = left
            .iter()
            .position(|definition| definition.comes_after().all(|name| left.iter().all(|other| other.name != name)));
        match ready {
            Some(index) => ordered.push(left.remove(index)),
            None => break,
        }
    }
    ordered.append(&mut left);
    ordered
}

/// In which wave each container stops, by wave: dependants before what they depend on, all others at once.
pub(super) fn stop_waves(spec: &TaskDefinitionSpec) -> Vec<(&ContainerDefinition, u32)> {
    let mut waves: Vec<(&ContainerDefinition, u32)> = Vec::new();
    for definition in in_dependency_order(spec).into_iter().rev() {
        let after = waves.iter().filter(|(other, _)| needs(spec, other).any(|needed| needed == definition.name));
        let wave = after.map(|(_, wave)| wave + 1).max().unwrap_or(0);
        waves.push((definition, wave));
    }
    waves.sort_by_key(|(_, wave)| *wave);
    waves
}

/// From SIGTERM to SIGKILL.
pub(super) fn stop_timeout_s(definition: &ContainerDefinition) -> u32 {
    definition.stop_timeout.map_or(DEFAULT_STOP_TIMEOUT_S, |timeout| timeout.0)
}
