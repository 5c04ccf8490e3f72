//! Containers: as they are to be created, and as an engine shows them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    name::RuntimeId,
    ownership::Owner,
    spec::task_definition::{NetworkMode, Protocol},
    time::Timestamp,
};

/// Everything needed to create one container; no choice is left to whoever executes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
    /// bridge, host, none.
    pub network_mode: NetworkMode,
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
    /// From SIGTERM to SIGKILL, in seconds.
    pub stop_timeout_s: u32,
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
