//! Whose a container is: labels with a keyed digest over them (S1), and the epoch that numbers controllers (S6, S7).

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::hex::hex;
use super::name::{
    ClusterName, ContainerName, HostName, RevisionId, SecurityGroupName, ServiceName, SubnetName, TaskId,
};
use super::network::TaskNetwork;
use super::spec::service::LaunchType;
use super::task::{Task, TaskContainer};
use super::time::Timestamp;
use super::volume::VolumeClaim;

/// A label of ours.
macro_rules! label {
    ($name:literal) => {
        concat!("dev.roadstead.", $name)
    };
}

/// All our labels begin with this.
pub const PREFIX: &str = label!("");
const MAC: &str = label!("mac");
const FLEET: &str = label!("fleet");
/// On a volume of ours: its name.
pub const VOLUME: &str = label!("volume");
/// On a volume that ends with its task: the task.
pub const TASK: &str = label!("task");
const SERVICE: &str = label!("service");
const MOVED: &str = label!("moved-at-ms");
const CLUSTER: &str = label!("cluster");
/// On a network of ours, too: the subnet that it is a part of.
pub const SUBNET: &str = label!("subnet");
/// On the containers of ours that are no task's: what they were made from.
pub const NODE: &str = label!("node");
/// That container's name on every host.
pub const NODE_CONTAINER: &str = "rs-node";
/// The name of the container in which a host's load balancers run.
pub const BALANCER_CONTAINER: &str = "rs-lb";
const ADDRESS: &str = label!("address");
const SECURITY_GROUPS: &str = label!("security-groups");

/// The secret that marks containers as this fleet's. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct FleetKey {
    bytes: [u8; 32],
    id: SmolStr,
}

impl std::fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FleetKey({})", self.id())
    }
}

impl FleetKey {
    /// From 32 secret bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        let id = hex(&mac(&bytes, b"roadstead fleet id")[..6]).into();
        Self { bytes, id }
    }

    /// The secret bytes, to be written to the key file only.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// A public short name of the key: tells "another fleet's" from "tampered with".
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `labels` plus the fleet's id and the digest over the host, the container's name and all our labels.
    pub fn sign(&self, host: &HostName, name: &str, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut signed = labels.clone();
        signed.insert(FLEET.to_owned(), self.id.to_string());
        let mac = hex(&mac(&self.bytes, &message(host, name, &signed)));
        signed.insert(MAC.to_owned(), mac);
        signed
    }

    /// Whose a container with these labels is, seen on `host` under `name` (`created_name` survives renames).
    pub fn owner_of(&self, host: &HostName, labels: &BTreeMap<String, String>) -> Owner {
        let Some(fleet) = labels.get(FLEET) else {
            return Owner::Foreign;
        };
        if fleet != self.id() {
            return Owner::OtherFleet { fleet: fleet.clone() };
        }
        let Some(claim) = Claim::from_labels(labels) else {
            // What touches the host's network for us is no task's.
            let is_node = labels.contains_key(NODE)
                && [NODE_CONTAINER, BALANCER_CONTAINER].iter().any(|name| self.has_signed(host, name, labels));
            return if is_node { Owner::Foreign } else { Owner::Forged };
        };
        let expected = hex(&mac(&self.bytes, &message(host, &claim.created_name, labels)));
        let presented = labels.get(MAC).map(String::as_str).unwrap_or_default();
        match verify_slices_are_equal(expected.as_bytes(), presented.as_bytes()) {
            Ok(()) => Owner::Ours(Box::new(claim)),
            Err(_) => Owner::Forged,
        }
    }

    /// The labels of a host's part of a subnet, which is a network of this name.
    pub fn sign_network(&self, host: &HostName, name: &str, subnet: &SubnetName) -> BTreeMap<String, String> {
        self.sign(host, name, &BTreeMap::from([(SUBNET.to_owned(), subnet.to_string())]))
    }

    /// Which subnet the network `name` on `host` is a part of; `None` unless its labels are ours and made for it.
    pub fn network_of(&self, host: &HostName, name: &str, labels: &BTreeMap<String, String>) -> Option<SubnetName> {
        self.has_signed(host, name, labels).then(|| labels.get(SUBNET).map(|name| name.as_str().into())).flatten()
    }

    /// Whether these labels are ours, and made for what bears this name on this host.
    pub fn has_signed(&self, host: &HostName, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let expected = hex(&mac(&self.bytes, &message(host, name, labels)));
        let presented = labels.get(MAC).map(String::as_str).unwrap_or_default();
        labels.get(FLEET).map(String::as_str) == Some(self.id())
            && verify_slices_are_equal(expected.as_bytes(), presented.as_bytes()).is_ok()
    }

    /// Signs the labels of a volume that [`VolumeClaim::to_labels`] marked as ours; others stay as they are.
    pub fn sign_volume(&self, host: &HostName, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        match labels.get(VOLUME) {
            Some(name) => self.sign(host, name, labels),
            None => labels.clone(),
        }
    }

    /// What our labels say of the volume `name` on `host`; `None` unless they are ours and made for this very volume.
    pub fn volume_of(&self, host: &HostName, name: &str, labels: &BTreeMap<String, String>) -> Option<VolumeClaim> {
        if labels.get(VOLUME).map(String::as_str) != Some(name) || !self.has_signed(host, name, labels) {
            return None;
        }
        match (labels.get(TASK), labels.get(CLUSTER)) {
            (Some(task), _) => Some(VolumeClaim::Task {
                task: task.as_str().into(),
                service: labels.get(SERVICE).map_or("", String::as_str).into(),
            }),
            (None, Some(cluster)) => Some(VolumeClaim::Shared {
                cluster: cluster.as_str().into(),
                moved_at: labels.get(MOVED).and_then(|ms| ms.parse().ok()).map(Timestamp),
            }),
            (None, None) => None,
        }
    }
}

impl VolumeClaim {
    /// As labels of the volume `name`, without the digest; `given` are the user's, of which none can pass for ours.
    pub fn to_labels(&self, name: &str, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = given.clone();
        labels.retain(|label, _| !label.starts_with(PREFIX));
        labels.insert(VOLUME.to_owned(), name.to_owned());
        match self {
            Self::Task { task, service } => {
                labels.insert(TASK.to_owned(), task.to_string());
                labels.insert(SERVICE.to_owned(), service.to_string());
            }
            Self::Shared { cluster, moved_at } => {
                labels.insert(CLUSTER.to_owned(), cluster.to_string());
                labels.extend(moved_at.map(|Timestamp(ms)| (MOVED.to_owned(), ms.to_string())));
            }
        }
        labels
    }
}

fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

fn message(host: &HostName, name: &str, labels: &BTreeMap<String, String>) -> Vec<u8> {
    let mut message = Vec::new();
    let mut field = |text: &str| {
        message.extend_from_slice(&(text.len() as u64).to_be_bytes());
        message.extend_from_slice(text.as_bytes());
    };
    field(host.as_str());
    field(name);
    for (label, value) in labels.range(PREFIX.to_owned()..) {
        if !label.starts_with(PREFIX) {
            break;
        }
        if label != MAC {
            field(label);
            field(value);
        }
    }
    message
}

/// Whose a container is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// Ours: the digest is right.
    Ours(Box<Claim>),
    /// Carries our fleet's name without a right digest: never touched, reported.
    Forged,
    /// Another Roadstead fleet's.
    OtherFleet {
        /// That fleet's id.
        fleet: String,
    },
    /// Somebody else's.
    Foreign,
}

impl Owner {
    /// The claim, when it is ours.
    pub fn ours(&self) -> Option<&Claim> {
        match self {
            Self::Ours(claim) => Some(claim),
            Self::Forged | Self::OtherFleet { .. } | Self::Foreign => None,
        }
    }
}

/// What our labels say of a container: enough to adopt its task with an empty database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The name it was created under.
    pub created_name: String,
    /// Its task.
    pub task: TaskId,
    /// Its name in the task definition.
    pub container: ContainerName,
    /// The cluster.
    pub cluster: ClusterName,
    /// The service.
    pub service: ServiceName,
    /// The slot in the service.
    pub slot: u32,
    /// The revision.
    pub revision: RevisionId,
    /// The revision's content hash.
    pub revision_hash: String,
    /// The launch type.
    pub launch_type: LaunchType,
    /// The epoch of the controller that decided it.
    pub epoch: u64,
    /// CPU units that the whole task reserves.
    pub task_cpu: u32,
    /// MiB that the whole task reserves.
    pub task_memory: u32,
    /// Whether the task stops when it stops.
    pub essential: bool,
    /// When the task was decided, ms since the Unix epoch.
    pub task_created_at_ms: u64,
    /// The task's place in the task network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Arc<TaskNetwork>>,
}

impl Claim {
    /// What a container of a task bears; `revision_hash` is that of the task's revision.
    pub fn of(task: &Task, container: &ContainerName, row: &TaskContainer, revision_hash: &str) -> Self {
        Self {
            created_name: row.created_name.clone(),
            task: task.id.clone(),
            container: container.clone(),
            cluster: task.cluster.clone(),
            service: task.service.clone(),
            slot: task.slot,
            revision: task.revision.clone(),
            revision_hash: revision_hash.to_owned(),
            launch_type: task.launch_type,
            epoch: task.epoch,
            task_cpu: task.cpu,
            task_memory: task.memory,
            essential: row.essential,
            task_created_at_ms: task.created_at.0,
            network: task.network.clone(),
        }
    }

    /// As labels, without the digest.
    pub fn to_labels(&self) -> BTreeMap<String, String> {
        let launch_type = match self.launch_type {
            LaunchType::Ec2 => "EC2",
            LaunchType::Fargate => "FARGATE",
        };
        let network = self.network.iter().flat_map(|network| {
            let groups: Vec<&str> = network.security_groups.iter().map(SecurityGroupName::as_str).collect();
            [
                (SUBNET, network.subnet.to_string()),
                (ADDRESS, network.address.to_string()),
                (SECURITY_GROUPS, groups.join(",")),
            ]
        });
        [
            (label!("name"), self.created_name.clone()),
            (label!("task"), self.task.to_string()),
            (label!("container"), self.container.to_string()),
            (label!("cluster"), self.cluster.to_string()),
            (label!("service"), self.service.to_string()),
            (label!("slot"), self.slot.to_string()),
            (label!("revision"), self.revision.to_string()),
            (label!("revision-hash"), self.revision_hash.clone()),
            (label!("launch-type"), launch_type.to_owned()),
            (label!("epoch"), self.epoch.to_string()),
            (label!("task-cpu"), self.task_cpu.to_string()),
            (label!("task-memory"), self.task_memory.to_string()),
            (label!("essential"), self.essential.to_string()),
            (label!("task-created-at-ms"), self.task_created_at_ms.to_string()),
        ]
        .into_iter()
        .chain(network)
        .map(|(label, value)| (label.to_owned(), value))
        .collect()
    }

    /// From labels; `None` when one is missing or malformed.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        let text = |label: &str| labels.get(label).map(String::as_str);
        Some(Self {
            created_name: text(label!("name"))?.to_owned(),
            task: text(label!("task")).filter(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))?.into(),
            container: text(label!("container"))?.into(),
            cluster: text(label!("cluster"))?.into(),
            service: text(label!("service"))?.into(),
            slot: text(label!("slot"))?.parse().ok()?,
            revision: text(label!("revision"))?.parse().ok()?,
            revision_hash: text(label!("revision-hash"))?.to_owned(),
            launch_type: match text(label!("launch-type"))? {
                "EC2" => LaunchType::Ec2,
                "FARGATE" => LaunchType::Fargate,
                _ => return None,
            },
            epoch: text(label!("epoch"))?.parse().ok()?,
            task_cpu: text(label!("task-cpu"))?.parse().ok()?,
            task_memory: text(label!("task-memory"))?.parse().ok()?,
            essential: text(label!("essential"))?.parse().ok()?,
            task_created_at_ms: text(label!("task-created-at-ms"))?.parse().ok()?,
            network: match text(ADDRESS) {
                Some(address) => Some(Arc::new(TaskNetwork {
                    subnet: text(SUBNET)?.into(),
                    address: address.parse().ok()?,
                    security_groups: text(SECURITY_GROUPS)?.split(',').map(Into::into).collect(),
                })),
                None => None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
            created_name: "rs-web-1-0123456789abcdef-web".into(),
            task: "0123456789abcdef".into(),
            container: "web".into(),
            cluster: "default".into(),
            service: "web".into(),
            slot: 2,
            revision: RevisionId { family: "web".into(), number: 1 },
            revision_hash: "aa".into(),
            launch_type: LaunchType::Ec2,
            epoch: 7,
            task_cpu: 64,
            task_memory: 32,
            essential: true,
            task_created_at_ms: 5,
            network: Some(Arc::new(TaskNetwork {
                subnet: "a".into(),
                address: [10, 0, 0, 2].into(),
                security_groups: vec!["web".into(), "db".into()],
            })),
        }
    }

    #[test]
    fn a_signed_claim_is_ours_and_nothing_else_is() {
        let key = FleetKey::new([1; 32]);
        let host: HostName = "a".into();
        let labels = key.sign(&host, &claim().created_name, &claim().to_labels());
        assert_eq!(key.owner_of(&host, &labels), Owner::Ours(Box::new(claim())));
        assert_eq!(key.owner_of(&"b".into(), &labels), Owner::Forged, "copied to another host");
        assert!(matches!(FleetKey::new([2; 32]).owner_of(&host, &labels), Owner::OtherFleet { .. }));
        assert_eq!(key.owner_of(&host, &BTreeMap::new()), Owner::Foreign);
        for label in labels.keys() {
            let mut changed = labels.clone();
            changed.insert(label.clone(), "3".into());
            assert_ne!(key.owner_of(&host, &changed), Owner::Ours(Box::new(claim())), "{label}");
        }
        let mut extra = labels;
        extra.insert(format!("{PREFIX}zzz"), "1".into());
        assert_eq!(key.owner_of(&host, &extra), Owner::Forged);
    }

    #[test]
    fn a_volume_is_ours_on_its_host_and_under_its_name_only() {
        let key = FleetKey::new([1; 32]);
        let host: HostName = "a".into();
        let task = VolumeClaim::Task { task: "0123456789abcdef".into(), service: "web".into() };
        let shared = VolumeClaim::Shared { cluster: "default".into(), moved_at: Some(Timestamp(7)) };
        let given =
            BTreeMap::from([("dev.roadstead.task".to_owned(), "x".to_owned()), ("a".to_owned(), "b".to_owned())]);
        for claim in [task, shared] {
            let labels = key.sign_volume(&host, &claim.to_labels("data", &given));
            assert_eq!(labels.get("a").map(String::as_str), Some("b"));
            assert_eq!(key.volume_of(&host, "data", &labels), Some(claim.clone()));
            assert_eq!(key.volume_of(&host, "other", &labels), None);
            assert_eq!(key.volume_of(&"b".into(), "data", &labels), None);
            assert_eq!(FleetKey::new([2; 32]).volume_of(&host, "data", &labels), None);
            assert_eq!(key.volume_of(&host, "data", &claim.to_labels("data", &given)), None, "not signed");
        }
    }
}
