//! The manifests' shapes: one kind a file, and the table of kinds.

pub mod cluster;
pub mod expose;
pub mod host;
pub mod load_balancer;
pub mod network;
pub mod scheduled_task;
pub mod security_group;
pub mod service;
pub mod strategy;
pub mod subnet;
pub mod target_group;
pub mod task_definition;
pub mod tls;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use cluster::ClusterSpec;
pub use host::HostSpec;
pub use load_balancer::LoadBalancerSpec;
pub use scheduled_task::ScheduledTaskSpec;
pub use security_group::SecurityGroupSpec;
pub use service::ServiceSpec;
pub use subnet::SubnetSpec;
pub use target_group::TargetGroupSpec;
pub use task_definition::TaskDefinitionSpec;

/// The only `apiVersion` there is.
pub const API_VERSION: &str = "roadstead/v1";

/// The kinds of manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// Hosts that run tasks together.
    Cluster,
    /// A machine with Docker, reached over SSH.
    Host,
    /// What a task runs.
    TaskDefinition,
    /// How many tasks of a task definition must run.
    Service,
    /// Tasks that are started at certain times.
    ScheduledTask,
    /// Addresses that tasks get.
    Subnet,
    /// Who may reach tasks, and whom they may reach.
    SecurityGroup,
    /// Where load balancers send requests.
    TargetGroup,
    /// Who answers on ports of some hosts.
    LoadBalancer,
}

/// One row of the table of kinds.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// As written in a manifest.
    pub name: &'static str,
    /// As typed on a command line.
    pub plural: &'static str,
}

/// Every kind: a new one gets a file in this folder and a row here.
pub const KINDS: &[KindInfo] = &[
    KindInfo { kind: Kind::Cluster, name: "Cluster", plural: "clusters" },
    KindInfo { kind: Kind::Host, name: "Host", plural: "hosts" },
    KindInfo { kind: Kind::TaskDefinition, name: "TaskDefinition", plural: "taskdefinitions" },
    KindInfo { kind: Kind::Service, name: "Service", plural: "services" },
    KindInfo { kind: Kind::ScheduledTask, name: "ScheduledTask", plural: "scheduledtasks" },
    KindInfo { kind: Kind::Subnet, name: "Subnet", plural: "subnets" },
    KindInfo { kind: Kind::SecurityGroup, name: "SecurityGroup", plural: "securitygroups" },
    KindInfo { kind: Kind::TargetGroup, name: "TargetGroup", plural: "targetgroups" },
    KindInfo { kind: Kind::LoadBalancer, name: "LoadBalancer", plural: "loadbalancers" },
];

/// A manifest's `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Unique among the manifests of its kind.
    pub name: String,
    /// Attributes; on a host, what `attribute:NAME` means in placement.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Free text for people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The value of a field that is known, kept and not acted on yet: admission warns of it by name.
///
/// Its schema carries `x-not-acted-on: true`, which is what admission looks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NotActedOn(pub Value);

impl Eq for NotActedOn {}

impl NotActedOn {
    /// Whether it says anything: what ECS prints of a field that nobody set does not.
    pub fn says(&self) -> bool {
        match &self.0 {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) | Value::Number(_) => true,
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        }
    }
}

impl JsonSchema for NotActedOn {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NotActedOn".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "x-not-acted-on": true, "description": "Known, kept, and not acted on by this version." })
    }
}
