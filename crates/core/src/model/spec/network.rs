//! What clusters and services say of the task network.
//!
//! Rules: "Task networking with the awsvpc network mode" and "AwsVpcConfiguration", ECS.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected},
};

use super::cluster::DEFAULT_CLUSTER;
use crate::model::{
    name::{ClusterName, SecurityGroupName, SubnetName},
    network::NODE_IMAGE,
};

/// The group that a task is in when nothing else is said: its members reach each other, and may reach everybody (EC2).
pub const DEFAULT_SECURITY_GROUP: &str = "default";
/// What the subnet of a cluster that declares none is called.
const DEFAULT_SUBNET: &str = "default";
/// So many security groups for one task (ECS).
pub const MAX_SECURITY_GROUPS: usize = 5;
/// So many subnets for one service (ECS).
pub const MAX_SUBNETS: usize = 16;

/// The network in which the tasks of a cluster have addresses of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterNetwork {
    /// All addresses that tasks may have: nothing else in reach of the hosts uses them.
    #[serde(deserialize_with = "cidr")]
    #[schemars(with = "String")]
    pub cidr: Ipv4Net,
    /// How packets come from host to host.
    pub encapsulation: Encapsulation,
    /// The image of all that touches a host's network, when it is served under another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_image: Option<String>,
}

/// The subnet of a cluster that declares none: one over all its addresses.
pub fn default_subnet(cluster: &ClusterName) -> SubnetName {
    match cluster.as_str() {
        DEFAULT_CLUSTER => DEFAULT_SUBNET.into(),
        other => format!("{other}-{DEFAULT_SUBNET}").into(),
    }
}

impl Default for ClusterNetwork {
    fn default() -> Self {
        let cidr = Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 16);
        Self { cidr, encapsulation: Encapsulation::default(), node_image: None }
    }
}

impl ClusterNetwork {
    /// The image of all that touches a host's network.
    pub fn node_image(&self) -> &str {
        self.node_image.as_deref().unwrap_or(NODE_IMAGE)
    }
}

/// A range of IPv4 addresses, and in words what is none.
pub(super) fn cidr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv4Net, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wanted = "a range of IPv4 addresses such as 10.64.0.0/16";
    text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &wanted))
}

/// The same where it need not be said.
pub(super) fn some_cidr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Net>, D::Error> {
    cidr(deserializer).map(Some)
}

/// A router's address with its network's prefix, and in words what is none.
pub(super) fn some_router<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Net>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wanted = "a router's IPv4 address with its network's prefix, such as 192.168.1.1/24";
    text.parse().map(Some).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &wanted))
}

/// The same as [`cidr`] for a list of them.
pub(super) fn cidrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Range(#[serde(deserialize_with = "cidr")] Ipv4Net);
    Ok(Vec::<Range>::deserialize(deserializer)?.into_iter().map(|Range(range)| range).collect())
}

/// How packets of tasks come from host to host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// As they are: the hosts share a network.
    #[default]
    None,
    /// Encrypted, from host to host: they need not share one.
    Wireguard,
}

/// Where services are found by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceDiscovery {
    /// The domain below which names are; the cluster's name below `internal` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl ServiceDiscovery {
    /// The domain below which the names of a cluster's services are.
    pub fn namespace(&self, cluster: &ClusterName) -> String {
        self.namespace.clone().unwrap_or_else(|| format!("{cluster}.internal"))
    }
}

/// ECS's `networkConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkConfiguration {
    /// The only one there is.
    pub awsvpc_configuration: AwsvpcConfiguration,
}

/// ECS's `awsvpcConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AwsvpcConfiguration {
    /// Where addresses come from, by name: a host in the zone of one of them is chosen. All of the cluster's when none is
    /// named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub subnets: Vec<SubnetName>,
    /// Who may reach the tasks; `default` when none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub security_groups: Vec<SecurityGroupName>,
    /// Whether the tasks' ports are published on their hosts, too.
    #[serde(skip_serializing_if = "AssignPublicIp::is_default")]
    pub assign_public_ip: AssignPublicIp,
}

/// ECS's `assignPublicIp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AssignPublicIp {
    /// Each port on the same port of the host.
    Enabled,
    /// None.
    #[default]
    Disabled,
}

impl AssignPublicIp {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A name under which a service's healthy tasks are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRegistry {
    /// The name below the cluster's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// AWS's Cloud Map service: its last part is taken for the name when none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_arn: Option<String>,
    /// For SRV records: the container that the port is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// For SRV records: its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_port: Option<u16>,
    /// For SRV records of `awsvpc` tasks: the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ServiceRegistry {
    /// Its name below the namespace.
    pub fn name(&self) -> Option<&str> {
        let of_arn = || self.registry_arn.as_deref()?.rsplit('/').next();
        self.name.as_deref().or_else(of_arn).filter(|name| !name.is_empty())
    }
}

/// The groups of a service's tasks: the default one when none is named.
pub fn security_groups(configuration: Option<&NetworkConfiguration>) -> Vec<SecurityGroupName> {
    let named = configuration.map(|it| it.awsvpc_configuration.security_groups.as_slice()).unwrap_or_default();
    match named {
        [] => vec![DEFAULT_SECURITY_GROUP.into()],
        named => named.to_vec(),
    }
}
