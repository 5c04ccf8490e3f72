//! Security groups: what they let pass, and who is in them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        name::SecurityGroupName,
        spec::{
            network::DEFAULT_SECURITY_GROUP,
            security_group::{IpProtocol, Peer, Permission},
        },
    },
    plan::network as plan,
};

/// One security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupView {
    /// Name.
    pub name: String,
    /// As the manifest says it.
    pub description: Option<String>,
    /// Whether a manifest declares it; `default` is there without one, any other lets nothing pass.
    pub declared: bool,
    /// What may reach its members.
    pub ingress: Vec<PermissionView>,
    /// What its members may reach.
    pub egress: Vec<PermissionView>,
    /// The tasks that are in it, by address.
    pub members: Vec<MemberView>,
}

/// What a rule lets pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PermissionView {
    /// tcp, udp, icmp, all.
    #[schema(value_type = String)]
    pub protocol: IpProtocol,
    /// The first port; every port when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_port: Option<u16>,
    /// The last port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_port: Option<u16>,
    /// The other end, one of them: address ranges, and names of security groups.
    pub peers: Vec<String>,
}

/// A task that is in a security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// Its address.
    pub private_ip: String,
    /// The task.
    pub task_id: String,
    /// `service:NAME`, `family:NAME`.
    pub group: String,
    /// Where it is.
    pub host: String,
}

/// All of them: declared, `default` where there is a task network, and those that tasks are in.
pub fn list(snapshot: &Snapshot) -> Vec<SecurityGroupView> {
    let state = &snapshot.world.state;
    let mut members: BTreeMap<SecurityGroupName, BTreeMap<_, MemberView>> = BTreeMap::new();
    for task in state.tasks.values().filter(|task| plan::holds_address(task)) {
        let Some(network) = &task.network else { continue };
        for group in plan::groups_of(state, task) {
            let member = MemberView {
                private_ip: network.address.to_string(),
                task_id: task.id.to_string(),
                group: task.service.group(),
                host: task.host.to_string(),
            };
            members.entry(group).or_default().insert((network.address, &task.id), member);
        }
    }
    let default = plan::has_network(state).then(|| DEFAULT_SECURITY_GROUP.into());
    let declared = &state.desired.security_groups;
    let names: BTreeSet<SecurityGroupName> = declared.keys().chain(members.keys()).cloned().chain(default).collect();
    let view = |name: SecurityGroupName| {
        let rules = plan::rules_of(state, &name);
        let manifest = declared.get(&name);
        SecurityGroupView {
            description: manifest.and_then(|manifest| manifest.spec.description.clone()),
            declared: manifest.is_some(),
            ingress: rules.ingress.iter().map(permission).collect(),
            egress: rules.egress.iter().map(permission).collect(),
            members: members.remove(&name).into_iter().flat_map(BTreeMap::into_values).collect(),
            name: name.to_string(),
        }
    };
    names.into_iter().map(view).collect()
}

fn permission(permission: &Permission) -> PermissionView {
    let peer = |peer: &Peer| match peer {
        Peer::Cidr(cidr) => cidr.to_string(),
        Peer::SecurityGroup(name) => name.to_string(),
    };
    PermissionView {
        protocol: permission.protocol,
        from_port: permission.ports.map(|(from, _)| from),
        to_port: permission.ports.map(|(_, to)| to),
        peers: permission.peers.iter().map(peer).collect(),
    }
}
