//! Kind `TaskDefinition`: the ECS document, field for field.
//!
//! Rules: "Task definition parameters", ECS developer guide.

mod environment;
mod health_check;
mod linux;
mod logging;
mod volume;

use std::{collections::BTreeMap, sync::LazyLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use environment::{Environment, EnvironmentFile, EnvironmentFileType};
pub use health_check::{HealthCheck, HttpCheck, Probe, StatusMatcher, TcpCheck};
pub use linux::{
    Device, DevicePermission, HostEntry, IpcMode, KernelCapabilities, LinuxParameters, PidMode, PowerOverNetwork,
    ResourceRequirement, ResourceType, SystemControl, Tmpfs, Ulimit, UlimitName,
};
pub use logging::{DEFAULT_LOG_DRIVER, DOCKER_LOG_DRIVERS, ELSEWHERE_LOG_DRIVERS, LogConfiguration};
pub use volume::{
    DockerVolumeConfiguration, EfsVolumeConfiguration, HostVolume, MountPoint, Volume, VolumeFrom, VolumeScope,
};

use super::{NotActedOn, service::PlacementConstraint};
use crate::model::{
    image::ImagePullPolicy,
    network::SANDBOX,
    quantity::{CpuUnits, Mebibytes, Seconds},
};

/// What a task is: one or more containers, placed together on one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskDefinitionSpec {
    /// The family; the manifest's (or the service's) name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The containers.
    #[schemars(length(min = 1, max = 10))]
    pub container_definitions: Vec<ContainerDefinition>,
    /// bridge, host, none, or awsvpc: an address for each task.
    pub network_mode: NetworkMode,
    /// Hard limit for the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUnits>,
    /// Hard limit for the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Mebibytes>,
    /// Which hosts may run it (memberOf only, as in ECS).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement_constraints: Vec<PlacementConstraint>,
    /// EC2, FARGATE: FARGATE asks for a size from the Fargate table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires_compatibilities: Vec<String>,
    /// Which hosts fit by architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_platform: Option<RuntimePlatform>,
    /// File systems that its containers may mount.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Whose processes its containers see; each its own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_mode: Option<PidMode>,
    /// Whose shared memory its containers see; each its own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_mode: Option<IpcMode>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_configuration: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_accelerators: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_fault_injection: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<NotActedOn>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDefinition {
    /// Unique in the task.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// When it stops, the task stops.
    #[serde(default = "yes")]
    pub essential: bool,
    /// Relative shares.
    #[serde(default)]
    pub cpu: CpuUnits,
    /// Hard limit in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Mebibytes>,
    /// Soft limit in MiB; what placement counts when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<Mebibytes>,
    /// Replaces the image's CMD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entry_point: Vec<String>,
    /// Environment variables, as a list of name and value or as a map.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// Ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// What must have happened to other containers of the task before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ContainerDependency>,
    /// The container's own check; the image's HEALTHCHECK is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// On a dependency: how long until it must meet its condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Seconds>,
    /// From SIGTERM to SIGKILL; 30 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<Seconds>,
    /// Restarts by the engine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// `user`, `user:group`, `uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the command starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Docker labels of the user's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub docker_labels: BTreeMap<String, String>,
    /// No writes to the root file system.
    #[serde(default)]
    pub readonly_root_filesystem: bool,
    /// All rights on the host.
    #[serde(default)]
    pub privileged: bool,
    /// Variables from files next to the manifests; `environment` wins over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_files: Vec<EnvironmentFile>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<NotActedOn>,
    /// Where its output goes; Docker's `json-file` with rotation when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_configuration: Option<LogConfiguration>,
    /// Volumes of the task in this container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_points: Vec<MountPoint>,
    /// All mounts of another container of the task.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<VolumeFrom>,
    /// Limits of its processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Its name inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Lines for its /etc/hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<HostEntry>,
    /// Name servers in place of the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_servers: Vec<String>,
    /// Domains that short names are looked up in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search_domains: Vec<String>,
    /// `no-new-privileges`, or a profile of SELinux, AppArmor or seccomp.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docker_security_options: Vec<String>,
    /// Capabilities, devices, memory and what else is Linux's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux_parameters: Option<LinuxParameters>,
    /// Give it a terminal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub pseudo_terminal: bool,
    /// Keep its standard input open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub interactive: bool,
    /// Kernel settings of its namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub system_controls: Vec<SystemControl>,
    /// GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_requirements: Vec<ResourceRequirement>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_credentials: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firelens_configuration: Option<NotActedOn>,
    /// `container` or `container:alias`: found by that name (bridge only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// No network at all, whatever its task has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disable_networking: bool,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_specs: Option<NotActedOn>,
    /// Whether all tasks of a revision run what its tag stood for when the first of them started; enabled when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_consistency: Option<VersionConsistency>,
    /// When a registry is asked for the image; as the cluster says when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
}

/// Whether a tag is resolved once a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VersionConsistency {
    /// Once.
    Enabled,
    /// Not at all: each host runs what the tag stands for there.
    Disabled,
}

impl TaskDefinitionSpec {
    /// Whether others wait for a container to end.
    pub fn must_end(&self, container: &str) -> bool {
        self.container_definitions.iter().flat_map(|other| &other.depends_on).any(|dependency| {
            dependency.container_name == container
                && matches!(dependency.condition, DependencyCondition::Complete | DependencyCondition::Success)
        })
    }
}

impl ContainerDefinition {
    /// The containers of the task that must exist before it can be made.
    pub fn comes_after(&self) -> impl Iterator<Item = &str> {
        let waits_for = self.depends_on.iter().map(|dependency| dependency.container_name.as_str());
        waits_for.chain(self.linked().map(|(name, _)| name)).chain(self.mounts_of())
    }

    /// Of its links the container and the name that it is found by.
    pub fn linked(&self) -> impl Iterator<Item = (&str, &str)> {
        self.links.iter().map(|link| link.split_once(':').unwrap_or((link, link)))
    }

    fn mounts_of(&self) -> impl Iterator<Item = &str> {
        self.volumes_from.iter().map(|from| from.source_container.as_str())
    }
}

impl PortMapping {
    /// The container's ports: one, or all of its range; `None` when the range is none.
    pub fn container_ports(&self) -> Option<std::ops::RangeInclusive<u16>> {
        let Some(range) = &self.container_port_range else { return Some(self.container_port..=self.container_port) };
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
        (first > 0 && first <= last).then_some(first..=last)
    }
}

impl TaskDefinitionSpec {
    /// Every container of a task: with awsvpc first the one that holds its network, then those of the definition.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerDefinition> {
        let sandbox = (self.network_mode == NetworkMode::Awsvpc).then(|| &*SANDBOX_DEFINITION);
        sandbox.into_iter().chain(&self.container_definitions)
    }
}

/// What holds a task's network: it does nothing, and must not end. Its image is its cluster's to say.
static SANDBOX_DEFINITION: LazyLock<ContainerDefinition> = LazyLock::new(|| ContainerDefinition {
    name: SANDBOX.to_owned(),
    essential: true,
    entry_point: vec!["/usr/bin/catatonit".to_owned()],
    command: vec!["-P".to_owned()],
    readonly_root_filesystem: true,
    stop_timeout: Some(Seconds(1)),
    ..ContainerDefinition::default()
});

/// ECS's network modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Docker's bridge; host ports.
    #[default]
    Bridge,
    /// The host's own network.
    Host,
    /// None at all.
    None,
    /// An address per task.
    Awsvpc,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// Inside the container; 0 where a range stands in its place.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: u16,
    /// On the host; absent or 0: the planner picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// tcp or udp.
    #[serde(default)]
    pub protocol: Protocol,
    /// For service discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Kept for Service Connect users; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// `8000-8010`, in place of `containerPort`: each on a port of the host that is picked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_port_range: Option<String>,
}

/// Transport protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A condition on another container of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDependency {
    /// The other container.
    pub container_name: String,
    /// What must hold of it.
    pub condition: DependencyCondition,
}

/// ECS's dependency conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DependencyCondition {
    /// It runs.
    Start,
    /// It ran and exited, with any code.
    Complete,
    /// It ran and exited with 0.
    Success,
    /// Its health check passes.
    Healthy,
}

/// Restarts by the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartPolicy {
    /// true: Docker's `unless-stopped`; the default for services, and for nothing else.
    pub enabled: bool,
    /// Exits that are no reason to restart it. Docker can leave 0 alone, and no other: then the controller restarts it instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_exit_codes: Vec<i64>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_attempt_period: Option<NotActedOn>,
}

/// What the task's binaries need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuntimePlatform {
    /// X86_64 or ARM64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_architecture: Option<String>,
    /// LINUX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operating_system_family: Option<String>,
}

fn yes() -> bool {
    true
}

fn is_false(truth: &bool) -> bool {
    !truth
}
