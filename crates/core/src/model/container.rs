//! Containers: as they are to be created, and as an engine shows them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::{
    name::{RuntimeId, TaskId},
    ownership::Owner,
    spec::task_definition::{DEFAULT_LOG_DRIVER, NetworkMode, Protocol},
    time::Timestamp,
};

/// Everything needed to create one container; no choice is left to whoever executes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerConfig {
    /// The container's name on its host: the lock (creating it twice is a 409).
    pub name: String,
    /// Image reference.
    pub image: String,
    /// Replaces ENTRYPOINT when not empty.
    pub entry_point: Vec<String>,
    /// Replaces CMD when not empty.
    pub command: Vec<String>,
    /// Variables by name.
    pub environment: BTreeMap<String, String>,
    /// All labels but the digest, which is added when it is created.
    pub labels: BTreeMap<String, String>,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// bridge, host, none; with awsvpc `attachment` says which network.
    pub network_mode: NetworkMode,
    /// Its place in the task network.
    pub attachment: Option<NetworkAttachment>,
    /// Relative CPU shares; 0 = the engine's default.
    pub cpu_shares: u32,
    /// Hard CPU limit in billionths of a CPU.
    pub nano_cpus: Option<u64>,
    /// Hard memory limit in bytes.
    pub memory_bytes: Option<u64>,
    /// Soft memory limit in bytes.
    pub memory_reservation_bytes: Option<u64>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// Working directory.
    pub working_directory: Option<String>,
    /// Read-only root file system.
    pub readonly_root_filesystem: bool,
    /// All rights.
    pub privileged: bool,
    /// Docker's `unless-stopped` when true, else no restarts.
    pub restart: bool,
    /// The container's own check; none switches the image's check off.
    pub health_check: Option<HealthCheckConfig>,
    /// Of these restarts only those after a failure: Docker's `on-failure`.
    pub restart_failed_only: bool,
    /// From SIGTERM to SIGKILL, in seconds.
    pub stop_timeout_s: u32,
    /// Where its output goes.
    pub log: LogConfig,
    /// File systems of the host, of the engine and of the network.
    pub mounts: Vec<MountConfig>,
    /// Containers whose mounts it has, too: `name`, or `name:ro`.
    pub volumes_from: Vec<String>,
    /// File systems in memory: options by path.
    pub tmpfs: BTreeMap<String, String>,
    /// Bytes of /dev/shm.
    pub shared_memory_bytes: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_swap_bytes: Option<u64>,
    /// 0–100.
    pub swappiness: Option<u32>,
    /// Limits of its processes.
    pub ulimits: Vec<Ulimit>,
    /// Kernel settings by name.
    pub sysctls: BTreeMap<String, String>,
    /// Its name inside.
    pub hostname: Option<String>,
    /// Lines for /etc/hosts: `name:address`.
    pub extra_hosts: Vec<String>,
    /// Name servers.
    pub dns_servers: Vec<String>,
    /// Domains that short names are looked up in.
    pub dns_search_domains: Vec<String>,
    /// Containers that are found by a name: `container:name`.
    pub links: Vec<String>,
    /// As Docker takes them: `no-new-privileges`, `apparmor=profile`.
    pub security_options: Vec<String>,
    /// Rights beyond Docker's own set.
    pub capabilities_added: Vec<String>,
    /// Rights that are taken from it.
    pub capabilities_dropped: Vec<String>,
    /// Devices of the host.
    pub devices: Vec<DeviceConfig>,
    /// Graphics processors.
    pub gpus: u32,
    /// A first process that buries the dead.
    pub init: bool,
    /// A terminal.
    pub terminal: bool,
    /// Standard input stays open.
    pub interactive: bool,
    /// Whose processes it sees.
    pub pid_mode: NamespaceMode,
    /// Whose shared memory it sees.
    pub ipc_mode: NamespaceMode,
}

/// A container's place in the task network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkAttachment {
    /// It holds the task's address.
    Own {
        /// The engine's network, by name.
        network: String,
        /// The address.
        address: Ipv4Addr,
    },
    /// It shares that of another container, by name.
    Of(String),
}

/// Where a container's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogConfig {
    /// Docker's driver.
    pub driver: String,
    /// The driver's own.
    pub options: BTreeMap<String, String>,
}

/// Docker's `json-file` keeps everything for ever; these options keep 30 MB per container.
pub const LOG_ROTATION: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

impl Default for LogConfig {
    fn default() -> Self {
        let options = LOG_ROTATION.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { driver: DEFAULT_LOG_DRIVER.to_owned(), options }
    }
}

/// A file system in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountConfig {
    /// What.
    pub source: MountSource,
    /// Where.
    pub target: String,
    /// No writes.
    pub read_only: bool,
}

/// What can be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountSource {
    /// A path of the host; a folder is made when it is missing.
    Host(String),
    /// A volume of the engine.
    Volume(VolumeConfig),
}

/// A volume of the engine; made when it is missing, unless that is not wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeConfig {
    /// Its name on the host.
    pub name: String,
    /// Who keeps it; the engine's own driver when empty.
    pub driver: String,
    /// The driver's own.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// It must be there already.
    pub must_exist: bool,
    /// An empty one is not filled with what the image has at that place.
    pub no_copy: bool,
}

/// What the names of volumes begin with that live as long as a task: its id follows, and a hyphen.
const TASK_VOLUME: &str = "rs-task-";

/// The name of a volume that lives as long as its task.
pub fn task_volume(task: &TaskId, volume: &str) -> String {
    format!("{TASK_VOLUME}{task}-{volume}")
}

/// Whether a volume lives as long as this task.
pub fn is_task_volume(name: &str, task: &TaskId) -> bool {
    name.strip_prefix(TASK_VOLUME).and_then(|rest| rest.strip_prefix(task.as_str())?.strip_prefix('-')).is_some()
}

/// A limit of processes; -1 is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ulimit {
    /// As setrlimit(2) has it, in lower case.
    pub name: String,
    /// What it begins with.
    pub soft: i64,
    /// What it may raise that to.
    pub hard: i64,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceConfig {
    /// On the host.
    pub host_path: String,
    /// Inside.
    pub container_path: String,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// Whose namespace a container has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Own,
    /// Its own, that others may join.
    Shareable,
    /// The host's.
    Host,
    /// That of another container, by name.
    Of(String),
    /// None.
    None,
}

/// A health check as Docker takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheckConfig {
    /// `CMD …` or `CMD-SHELL …`.
    pub command: Vec<String>,
    /// Milliseconds between checks.
    pub interval_ms: u64,
    /// Milliseconds that one may take.
    pub timeout_ms: u64,
    /// Failures in a row until unhealthy.
    pub retries: u32,
    /// Milliseconds after the start in which failures do not count.
    pub start_period_ms: u64,
}

/// A port of a container on a port of its host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortBinding {
    /// Inside.
    pub container_port: u16,
    /// On the host.
    pub host_port: u16,
    /// tcp or udp.
    pub protocol: Protocol,
}

/// Docker's container states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Made, never started; also what a failed start leaves behind.
    Created,
    /// Runs.
    Running,
    /// Frozen by somebody.
    Paused,
    /// Crashed; the engine will start it again.
    Restarting,
    /// On its way out.
    Removing,
    /// Ended.
    Exited,
    /// Half removed.
    Dead,
}

impl ContainerState {
    /// Whether its process exists, or will again without anyone's order.
    pub fn is_live(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Restarting => true,
            Self::Created | Self::Removing | Self::Exited | Self::Dead => false,
        }
    }
}

/// Docker's verdict on a container's health check; also ECS's for tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HealthStatus {
    /// Checks pass.
    Healthy,
    /// Checks fail.
    Unhealthy,
    /// No check, or no verdict yet.
    #[default]
    Unknown,
}

/// One container in a complete list of a host's containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// The engine's id.
    pub id: RuntimeId,
    /// Its name, without the leading slash.
    pub name: String,
    /// Image reference as created.
    pub image: String,
    /// The image's content id.
    pub image_id: String,
    /// Docker's state.
    pub state: ContainerState,
    /// Docker's health; `Unknown` also while starting.
    pub health: HealthStatus,
    /// Whether it has a health check at all.
    pub has_health_check: bool,
    /// Exit code, of ended ones.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed its main process for memory.
    pub oom_killed: bool,
    /// Last start.
    pub started_at: Option<Timestamp>,
    /// Last end.
    pub finished_at: Option<Timestamp>,
    /// Restarts by the engine.
    pub restart_count: u32,
    /// The engine's error text of a failed start.
    pub error: String,
    /// Published ports, of any owner.
    pub ports: Vec<PortBinding>,
    /// Whose it is.
    pub owner: Owner,
}
