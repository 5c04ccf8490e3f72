//! Kind `SecurityGroup`: who may reach its members, and whom they may reach.
//!
//! Rules: "Security groups", Amazon VPC user guide. What nothing allows is refused; answers to what was allowed always pass.

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network;
use crate::model::name::SecurityGroupName;

/// So many rules each way (EC2's limit).
pub const MAX_RULES: usize = 60;

/// What a security group allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SecurityGroupSpec {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who may reach its members; nobody when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<IngressRule>,
    /// Whom its members may reach; everybody when absent, nobody when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<EgressRule>>,
}

/// What may come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngressRule {
    /// tcp, udp, icmp, or all (`-1`).
    #[serde(default)]
    pub protocol: IpProtocol,
    /// The first port; every port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_port: Option<u16>,
    /// The last port; `fromPort` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_port: Option<u16>,
    /// From where; one of them is enough.
    pub sources: Vec<Peer>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What may go out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressRule {
    /// tcp, udp, icmp, or all (`-1`).
    #[serde(default)]
    pub protocol: IpProtocol,
    /// The first port; every port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_port: Option<u16>,
    /// The last port; `fromPort` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_port: Option<u16>,
    /// Where to; one of them is enough. A host itself is reached only by a rule that is narrower than `0.0.0.0/0`.
    pub destinations: Vec<Peer>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "PeerFields")]
pub enum Peer {
    /// Addresses.
    Cidr(Ipv4Net),
    /// The members of a security group.
    SecurityGroup(SecurityGroupName),
}

/// A [`Peer`] as it is written: one of the two.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PeerFields {
    /// A range of addresses.
    #[serde(default, deserialize_with = "network::some_cidr")]
    #[schemars(with = "Option<String>")]
    cidr: Option<Ipv4Net>,
    /// The name of a security group: its members.
    #[serde(default)]
    security_group: Option<SecurityGroupName>,
}

impl TryFrom<PeerFields> for Peer {
    type Error = &'static str;

    fn try_from(fields: PeerFields) -> Result<Self, Self::Error> {
        match (fields.cidr, fields.security_group) {
            (Some(cidr), None) => Ok(Self::Cidr(cidr)),
            (None, Some(name)) => Ok(Self::SecurityGroup(name)),
            (Some(_), Some(_)) => Err("either `cidr` or `securityGroup`: two peers are two items of the list"),
            (None, None) => Err("neither `cidr` nor `securityGroup` is said"),
        }
    }
}

impl JsonSchema for Peer {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Peer".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        PeerFields::json_schema(generator)
    }
}

/// Protocols as security groups have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP; ports say nothing.
    Icmp,
    /// Any; ports say nothing.
    #[default]
    #[serde(alias = "-1")]
    All,
}

/// What one rule lets pass, whichever way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// The protocol.
    pub protocol: IpProtocol,
    /// First and last port; every one when absent.
    pub ports: Option<(u16, u16)>,
    /// The other end: one of these.
    pub peers: Vec<Peer>,
}

fn permission(protocol: IpProtocol, from: Option<u16>, to: Option<u16>, peers: &[Peer]) -> Permission {
    let has_ports = match protocol {
        IpProtocol::Tcp | IpProtocol::Udp => true,
        IpProtocol::Icmp | IpProtocol::All => false,
    };
    let ports = from.filter(|_| has_ports).map(|from| (from, to.unwrap_or(from)));
    Permission { protocol, ports, peers: peers.to_vec() }
}

impl SecurityGroupSpec {
    /// What may come in, rule by rule.
    pub fn ingress(&self) -> Vec<Permission> {
        let of = |rule: &IngressRule| permission(rule.protocol, rule.from_port, rule.to_port, &rule.sources);
        self.ingress.iter().map(of).collect()
    }

    /// What may go out, rule by rule.
    pub fn egress(&self) -> Vec<Permission> {
        let of = |rule: &EgressRule| permission(rule.protocol, rule.from_port, rule.to_port, &rule.destinations);
        match &self.egress {
            Some(rules) => rules.iter().map(of).collect(),
            None => vec![permission(IpProtocol::All, None, None, &[Peer::Cidr(Ipv4Net::default())])],
        }
    }

    /// The group `default` where it is not declared: its members reach each other, and may reach everybody.
    pub fn of_default_group() -> Self {
        let members = Peer::SecurityGroup(network::DEFAULT_SECURITY_GROUP.into());
        Self {
            ingress: vec![IngressRule {
                protocol: IpProtocol::All,
                from_port: None,
                to_port: None,
                sources: vec![members],
                description: None,
            }],
            ..Self::default()
        }
    }
}
