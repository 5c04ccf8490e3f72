//! What is Linux's own: namespaces, limits, devices, kernel settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{environment::Scalar, is_false};
use crate::model::quantity::Mebibytes;

/// Whose processes the containers of a task see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PidMode {
    /// The host's.
    Host,
    /// Those of all containers of the task.
    Task,
}

/// Whose shared memory, semaphores and queues the containers of a task see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// The host's.
    Host,
    /// Those of all containers of the task.
    Task,
    /// None at all.
    None,
}

/// Capabilities with which a container could lift the rules in its own network namespace, or send what they do not see.
const OVER_NETWORK: [&str; 6] = ["ALL", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE"];

/// What gives a container power over the rules in its own network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerOverNetwork {
    /// It is privileged.
    Privileged,
    /// The capability of this number that is added.
    Capability(usize),
}

impl super::ContainerDefinition {
    /// What gives it power over the rules in its own network namespace, if anything does.
    pub fn power_over_network(&self) -> Option<PowerOverNetwork> {
        let capabilities = self.linux_parameters.as_ref().and_then(|linux| linux.capabilities.as_ref());
        let mut added = capabilities.into_iter().flat_map(|capabilities| &capabilities.add);
        let is_one = |name: &String| OVER_NETWORK.contains(&name.strip_prefix("CAP_").unwrap_or(name));
        if self.privileged {
            return Some(PowerOverNetwork::Privileged);
        }
        added.position(is_one).map(PowerOverNetwork::Capability)
    }
}

/// ECS's `linuxParameters`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinuxParameters {
    /// What of root's rights it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<KernelCapabilities>,
    /// Devices of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// A first process that passes signals on and buries the dead.
    #[serde(skip_serializing_if = "is_false")]
    pub init_process_enabled: bool,
    /// Size of /dev/shm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_memory_size: Option<Mebibytes>,
    /// File systems in memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// Swap beyond its memory; 0: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_swap: Option<Mebibytes>,
    /// 0–100: how readily its memory is swapped out. Counts only with `maxSwap` (ECS).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub swappiness: Option<u32>,
}

/// Capabilities, without `CAP_`; `ALL` is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KernelCapabilities {
    /// Given beyond Docker's own set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Taken from it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// A device of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// On the host.
    pub host_path: String,
    /// Inside; the same when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_path: Option<String>,
    /// All three when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<DevicePermission>,
}

/// What may be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DevicePermission {
    /// Read from it.
    Read,
    /// Write to it.
    Write,
    /// Make nodes of it.
    Mknod,
}

/// A file system in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tmpfs {
    /// Where.
    pub container_path: String,
    /// Its size.
    pub size: Mebibytes,
    /// `ro`, `noexec`, `mode=1777` …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount_options: Vec<String>,
}

/// A limit of a container's processes; -1 is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ulimit {
    /// Of what.
    pub name: UlimitName,
    /// What it begins with.
    pub soft_limit: i64,
    /// What it may raise that to.
    pub hard_limit: i64,
}

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "setrlimit(2) has their meaning")]
pub enum UlimitName {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl UlimitName {
    /// As Docker takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Data => "data",
            Self::Fsize => "fsize",
            Self::Locks => "locks",
            Self::Memlock => "memlock",
            Self::Msgqueue => "msgqueue",
            Self::Nice => "nice",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Rss => "rss",
            Self::Rtprio => "rtprio",
            Self::Rttime => "rttime",
            Self::Sigpending => "sigpending",
            Self::Stack => "stack",
        }
    }
}

/// A kernel setting (sysctl).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemControl {
    /// Such as `net.core.somaxconn`.
    pub namespace: String,
    /// Its value.
    #[schemars(with = "Scalar")]
    pub value: String,
}

/// A line of /etc/hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostEntry {
    /// The name.
    pub hostname: String,
    /// Its address.
    pub ip_address: String,
}

/// Hardware beyond processor and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceRequirement {
    /// What.
    #[serde(rename = "type")]
    pub kind: ResourceType,
    /// How many GPUs.
    #[schemars(with = "Scalar")]
    pub value: String,
}

/// Hardware beyond processor and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ResourceType {
    /// Graphics processors, through Docker's device requests.
    #[serde(rename = "GPU")]
    Gpu,
    /// Amazon's, which nobody else has.
    InferenceAccelerator,
}
