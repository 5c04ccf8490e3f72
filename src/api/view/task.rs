//! Tasks as `DescribeTasks` prints them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::zone_of;
use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        container::{ContainerState, HealthStatus, PortBinding},
        name::ContainerName,
        network::SANDBOX,
        spec::{service::LaunchType, task_definition::Protocol},
        state::State,
        task::{DesiredStatus, LastStatus, StopCode, Task, TaskContainer},
        time::Timestamp,
    },
    plan::network,
};

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    /// 16 hex digits.
    pub task_id: String,
    /// `service:NAME`.
    pub group: String,
    /// Cluster.
    pub cluster: String,
    /// `family:revision`.
    pub task_definition: String,
    /// Host.
    pub host: String,
    /// The host's zone, when it has one.
    pub availability_zone: Option<String>,
    /// EC2, FARGATE.
    #[schema(value_type = String)]
    pub launch_type: LaunchType,
    /// PROVISIONING … STOPPED.
    #[schema(value_type = String)]
    pub last_status: LastStatus,
    /// RUNNING, STOPPED.
    #[schema(value_type = String)]
    pub desired_status: DesiredStatus,
    /// HEALTHY, UNHEALTHY, UNKNOWN.
    #[schema(value_type = String)]
    pub health_status: HealthStatus,
    /// Who started it, of a standalone task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// Its own address, on a task network.
    pub private_ip: Option<String>,
    /// Where that is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Who may reach it, and whom it may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// When it was decided.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it reached RUNNING.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub stopped_at: Option<Timestamp>,
    /// ECS's stop code.
    #[schema(value_type = Option<String>)]
    pub stop_code: Option<StopCode>,
    /// Why it stops, in words.
    pub stopped_reason: Option<String>,
    /// Until then neither scale-in nor a deployment stops it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub protected_until: Option<Timestamp>,
    /// By name.
    pub containers: Vec<ContainerView>,
}

/// One container of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TaskContainer)]
pub struct ContainerView {
    /// Name in the task definition.
    pub name: String,
    /// The engine's id.
    pub runtime_id: Option<String>,
    /// Image reference.
    pub image: String,
    /// The digest that it runs by; the image's content id when nobody ever pushed that to a registry.
    pub image_digest: Option<String>,
    /// Whether the task stops when it stops.
    pub essential: bool,
    /// PENDING, RUNNING, STOPPED.
    #[schema(value_type = String)]
    pub last_status: ContainerStatus,
    /// HEALTHY, UNHEALTHY, UNKNOWN.
    #[schema(value_type = String)]
    pub health_status: HealthStatus,
    /// Of the last run.
    pub exit_code: Option<i64>,
    /// Restarts by the engine.
    pub restart_count: u32,
    /// Published ports.
    pub network_bindings: Vec<NetworkBinding>,
}

/// ECS's container `lastStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ContainerStatus {
    /// Not started yet.
    Pending,
    /// Its process exists.
    Running,
    /// Ended, or gone.
    Stopped,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkBinding {
    /// Address on the host.
    #[serde(rename = "bindIP")]
    pub bind_ip: String,
    /// Inside.
    pub container_port: u16,
    /// On the host.
    pub host_port: u16,
    /// tcp, udp.
    #[schema(value_type = String)]
    pub protocol: Protocol,
}

/// Which tasks are listed.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter<'a> {
    /// Of this cluster.
    pub cluster: Option<&'a str>,
    /// Of this service.
    pub service: Option<&'a str>,
    /// On this host.
    pub host: Option<&'a str>,
    /// Ended ones, too.
    pub stopped: bool,
}

impl TaskFilter<'_> {
    fn takes(&self, task: &Task) -> bool {
        let is = |wanted: Option<&str>, name: &str| wanted.is_none_or(|wanted| wanted == name);
        is(self.cluster, task.cluster.as_str())
            && is(self.service, task.service.as_str())
            && is(self.host, task.host.as_str())
            && (self.stopped || task.last_status != LastStatus::Stopped)
    }
}

/// The tasks that pass `filter`: by service, then oldest first.
pub fn list(snapshot: &Snapshot, filter: &TaskFilter<'_>) -> Vec<TaskView> {
    let state = &snapshot.world.state;
    let mut tasks: Vec<&Task> = state.tasks.values().map(AsRef::as_ref).filter(|task| filter.takes(task)).collect();
    tasks.sort_by_key(|task| (&task.service, task.created_at, &task.id));
    tasks.into_iter().map(|task| view(state, task)).collect()
}

/// One task.
pub fn view(state: &State, task: &Task) -> TaskView {
    let groups = if task.network.is_some() { network::groups_of(state, task) } else { Vec::new() };
    TaskView {
        task_id: task.id.to_string(),
        group: task.service.group(),
        cluster: task.cluster.to_string(),
        task_definition: task.revision.to_string(),
        host: task.host.to_string(),
        availability_zone: zone_of(state, &task.host),
        launch_type: task.launch_type,
        last_status: task.last_status,
        desired_status: task.desired_status,
        health_status: task.health_status,
        started_by: task.standalone.as_ref().and_then(|standalone| standalone.started_by.clone()),
        private_ip: task.network.as_ref().map(|network| network.address.to_string()),
        subnet: task.network.as_ref().map(|network| network.subnet.to_string()),
        security_groups: groups.iter().map(ToString::to_string).collect(),
        created_at: task.created_at,
        started_at: task.started_at,
        stopped_at: task.stopped_at,
        stop_code: task.stop_code,
        stopped_reason: task.stopped_reason.clone(),
        protected_until: task.protected_until,
        containers: task
            .defined_containers()
            .map(|(name, container)| container_view(state, task, name, container))
            .collect(),
    }
}

fn container_view(state: &State, task: &Task, name: &ContainerName, container: &TaskContainer) -> ContainerView {
    ContainerView {
        name: name.to_string(),
        runtime_id: container.runtime_id.as_ref().map(ToString::to_string),
        image: container.image.clone(),
        image_digest: container.image_digest.clone(),
        essential: container.essential,
        last_status: container_status(task, container),
        health_status: container.health,
        exit_code: container.exit_code,
        restart_count: container.restart_count,
        network_bindings: bindings(state, task, name, container),
    }
}

/// Where a container's ports are published: by itself, or by what holds its task's network.
fn bindings(state: &State, task: &Task, name: &ContainerName, container: &TaskContainer) -> Vec<NetworkBinding> {
    let spec = state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    let definitions = spec.into_iter().flat_map(|spec| &spec.container_definitions);
    let mappings = definitions.filter(|definition| name.as_str() == definition.name).flat_map(|it| &it.port_mappings);
    let own: BTreeSet<(u16, Protocol)> = mappings
        .flat_map(|mapping| mapping.container_ports().into_iter().flatten().map(|port| (port, mapping.protocol)))
        .collect();
    let of_task = task.containers.get(SANDBOX).into_iter().flat_map(|sandbox| &sandbox.ports);
    let of_task = of_task.filter(|port| own.contains(&(port.container_port, port.protocol)));
    container.ports.iter().chain(of_task).map(binding).collect()
}

fn container_status(task: &Task, container: &TaskContainer) -> ContainerStatus {
    match container.state {
        Some(ContainerState::Running | ContainerState::Paused | ContainerState::Restarting) => ContainerStatus::Running,
        Some(ContainerState::Exited | ContainerState::Dead | ContainerState::Removing) => ContainerStatus::Stopped,
        Some(ContainerState::Created) | None if task.last_status == LastStatus::Stopped => ContainerStatus::Stopped,
        Some(ContainerState::Created) | None => ContainerStatus::Pending,
    }
}

fn binding(port: &PortBinding) -> NetworkBinding {
    NetworkBinding {
        bind_ip: "0.0.0.0".to_owned(),
        container_port: port.container_port,
        host_port: port.host_port,
        protocol: port.protocol,
    }
}

/// Why no single task is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTask {
    /// None.
    Unknown,
    /// These ids begin so.
    Ambiguous(Vec<String>),
}

/// The task with this id, or the only one whose id begins so.
pub fn find<'a>(state: &'a State, id: &str) -> Result<&'a Task, NoTask> {
    if let Some(task) = state.tasks.get(id) {
        return Ok(task);
    }
    if id.is_empty() {
        return Err(NoTask::Unknown);
    }
    let from = roadstead_core::model::name::TaskId::from(id);
    let mut found =
        state.tasks.range(from..).map(|(_, task)| task.as_ref()).take_while(|task| task.id.as_str().starts_with(id));
    let Some(first) = found.next() else { return Err(NoTask::Unknown) };
    let others: Vec<String> = found.take(4).map(|task| task.id.to_string()).collect();
    if others.is_empty() {
        return Ok(first);
    }
    Err(NoTask::Ambiguous(std::iter::once(first.id.to_string()).chain(others).collect()))
}
