//! What was seen of a host. Only a complete look becomes a value of these types (S5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    container::ContainerView,
    name::{HostName, RuntimeId},
    time::Timestamp,
};

/// Who an engine says it is, and what its machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineIdentity {
    /// Docker's engine id.
    pub engine_id: String,
    /// `/etc/machine-id`, when it could be read.
    pub machine_id: Option<String>,
    /// Engine version, `20.10.24`.
    pub engine_version: String,
    /// Negotiated API version, `1.41`.
    pub api_version: String,
    /// ECS's word: X86_64 or ARM64; else as the engine says.
    pub architecture: String,
    /// The operating system's name.
    pub operating_system: String,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// One complete look at a host's containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostObservation {
    /// The host.
    pub host: HostName,
    /// When the look began, by our clock: nothing that we did later can be missing for good.
    pub started_at: Timestamp,
    /// When the whole answer was here.
    pub finished_at: Timestamp,
    /// Who answered.
    pub identity: EngineIdentity,
    /// Every container there is, ours or not, by id.
    pub containers: BTreeMap<RuntimeId, ContainerView>,
}

/// A container's end, as its engine announced it: its own word, while its list may still show it running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The host.
    pub host: HostName,
    /// The container.
    pub id: RuntimeId,
    /// When it died, by the engine's clock.
    pub at: Timestamp,
    /// When we heard of it, by ours.
    pub heard_at: Timestamp,
    /// Exit code, where given.
    pub exit_code: Option<i64>,
    /// Somebody had it killed or stopped, so the engine does not restart it whatever its policy says.
    pub for_good: bool,
}

/// How a host can be reached just now; kept in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostContact {
    /// When the engine last answered anything.
    pub engine_answered_at: Option<Timestamp>,
    /// When sshd (or the machine) last answered anything.
    pub link_answered_at: Option<Timestamp>,
    /// When we began to try; silence counts from here at the earliest.
    pub watched_since: Timestamp,
    /// Why it must not be used: wrong host key, clone of another host.
    pub untrusted: Option<String>,
    /// The last error in words.
    pub error: Option<String>,
    /// Start of the last complete look.
    pub looked_at: Option<Timestamp>,
}
