//! From a revision and a place to containers, fully decided.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    action::LaunchStep,
    container::{ContainerConfig, ContainerState, HealthCheckConfig, HealthStatus, PortBinding},
    name::{ContainerName, RevisionId, ServiceName, TaskId},
    ownership::Claim,
    small_map::SmallMap,
    spec::{
        TaskDefinitionSpec,
        task_definition::{ContainerDefinition, ContainerDependency, DependencyCondition, NetworkMode},
    },
    state::Revision,
    task::{Task, TaskContainer},
};

/// ECS's default `stopTimeout`.
pub(super) const DEFAULT_STOP_TIMEOUT_S: u32 = 30;
const BYTES_PER_MIB: u64 = 1024 * 1024;

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

/// The ports to publish, in the order of the definition: what placement is asked for.
pub(super) fn published_ports(
    spec: &TaskDefinitionSpec,
) -> Vec<(&ContainerDefinition, &crate::model::spec::task_definition::PortMapping)> {
    match spec.network_mode {
        NetworkMode::Bridge | NetworkMode::Awsvpc => spec
            .container_definitions
            .iter()
            .flat_map(|container| container.port_mappings.iter().map(move |mapping| (container, mapping)))
            .collect(),
        NetworkMode::Host | NetworkMode::None => Vec::new(),
    }
}

/// A container's name on its host: revision and task are in it (S6), and it is the lock against creating it twice.
pub(super) fn container_name(service: &ServiceName, revision: &RevisionId, task: &TaskId, container: &str) -> String {
    format!("rs-{service}-{}-{task}-{container}", revision.number)
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
        .container_definitions
        .iter()
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
                ports: Vec::new(),
            };
            (ContainerName::from(definition.name.as_str()), row)
        })
        .collect();
    for ((definition, _), binding) in published_ports(spec).into_iter().zip(ports) {
        if let Some(row) = rows.get_mut(definition.name.as_str()) {
            row.ports.push(binding.clone());
        }
    }
    rows
}

/// What a launch would do now for a task whose containers stand as they do; empty when nothing can be done.
pub(super) fn steps(task: &Task, revision: &Revision, zone: Option<&str>) -> Vec<LaunchStep> {
    let Some(spec) = revision.spec.as_deref() else { return Vec::new() };
    let mut starting: BTreeSet<&str> = BTreeSet::new();
    let mut steps = Vec::new();
    for definition in in_dependency_order(spec) {
        let Some(row) = task.containers.get(definition.name.as_str()) else { continue };
        let exists = row.state.is_some();
        let startable = matches!(row.state, None | Some(ContainerState::Created));
        let start = startable
            && definition.depends_on.iter().all(|dependency| {
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
                config: config(task, row, spec, definition, &revision.hash, zone),
                runtime_id: row.runtime_id.clone(),
                start,
            });
        }
    }
    steps
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

/// What containers wait for: the other container, and the whole in words.
pub(super) fn unmet_dependencies(task: &Task, spec: &TaskDefinitionSpec) -> Vec<(String, String)> {
    let mut unmet = Vec::new();
    for definition in &spec.container_definitions {
        if task.containers.get(definition.name.as_str()).is_some_and(|row| row.state == Some(ContainerState::Created)) {
            for dependency in definition.depends_on.iter().filter(|dependency| !is_met(task, dependency)) {
                let word = match dependency.condition {
                    DependencyCondition::Start => "to start",
                    DependencyCondition::Complete => "to end",
                    DependencyCondition::Success => "to end with 0",
                    DependencyCondition::Healthy => "to be healthy",
                };
                let words = format!("{} waits for {} {word}", definition.name, dependency.container_name);
                unmet.push((dependency.container_name.clone(), words));
            }
        }
    }
    unmet
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
    let mut left: Vec<&ContainerDefinition> = spec.container_definitions.iter().collect();
    let mut ordered: Vec<&ContainerDefinition> = Vec::new();
    loop {
        let ready = left.iter().position(|definition| {
            definition
                .depends_on
                .iter()
                .all(|dependency| left.iter().all(|other| other.name != dependency.container_name))
        });
        match ready {
            Some(index) => ordered.push(left.remove(index)),
            None => break,
        }
    }
    ordered.append(&mut left);
    ordered
}

fn config(
    task: &Task,
    row: &TaskContainer,
    spec: &TaskDefinitionSpec,
    definition: &ContainerDefinition,
    hash: &str,
    zone: Option<&str>,
) -> ContainerConfig {
    let claim = Claim::of(task, &definition.name.as_str().into(), row, hash);
    let mut labels = definition.docker_labels.clone();
    labels.extend(claim.to_labels());
    let mut environment: BTreeMap<String, String> = [
        ("ROADSTEAD_CLUSTER", task.cluster.as_str()),
        ("ROADSTEAD_SERVICE", task.service.as_str()),
        ("ROADSTEAD_TASK_ID", task.id.as_str()),
        ("ROADSTEAD_TASK_DEFINITION", task.revision.to_string().as_str()),
        ("ROADSTEAD_CONTAINER", definition.name.as_str()),
        ("ROADSTEAD_HOST", task.host.as_str()),
        ("ROADSTEAD_AVAILABILITY_ZONE", zone.unwrap_or_default()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    environment.extend(definition.environment.0.clone());
    ContainerConfig {
        name: row.created_name.clone(),
        image: definition.image.clone(),
        entry_point: definition.entry_point.clone(),
        command: definition.command.clone(),
        environment,
        labels,
        ports: row.ports.clone(),
        network_mode: match spec.network_mode {
            // Admission warns: until tasks have addresses of their own, it runs as bridge.
            NetworkMode::Bridge | NetworkMode::Awsvpc => NetworkMode::Bridge,
            NetworkMode::Host => NetworkMode::Host,
            NetworkMode::None => NetworkMode::None,
        },
        cpu_shares: definition.cpu.0,
        nano_cpus: spec.cpu.map(|cpu| u64::from(cpu.0) * 1_000_000_000 / 1024),
        memory_bytes: definition.memory.or(spec.memory).map(|memory| u64::from(memory.0) * BYTES_PER_MIB),
        memory_reservation_bytes: definition.memory_reservation.map(|memory| u64::from(memory.0) * BYTES_PER_MIB),
        user: definition.user.clone(),
        working_directory: definition.working_directory.clone(),
        readonly_root_filesystem: definition.readonly_root_filesystem,
        privileged: definition.privileged,
        restart: restarts(spec, definition),
        health_check: definition.health_check.as_ref().map(|check| HealthCheckConfig {
            command: check.command.clone(),
            interval_ms: check.interval.as_ms(),
            timeout_ms: check.timeout.as_ms(),
            retries: check.retries,
            start_period_ms: check.start_period.as_ms(),
        }),
        stop_timeout_s: stop_timeout_s(definition),
    }
}

/// Whether the engine restarts it: services' containers by default, but not those that others wait for to end.
pub(super) fn restarts(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> bool {
    let must_end = spec.container_definitions.iter().flat_map(|other| &other.depends_on).any(|dependency| {
        dependency.container_name == definition.name
            && matches!(dependency.condition, DependencyCondition::Complete | DependencyCondition::Success)
    });
    definition.restart_policy.as_ref().map_or(!must_end, |policy| policy.enabled)
}

/// From SIGTERM to SIGKILL.
pub(super) fn stop_timeout_s(definition: &ContainerDefinition) -> u32 {
    definition.stop_timeout.map_or(DEFAULT_STOP_TIMEOUT_S, |timeout| timeout.0)
}
