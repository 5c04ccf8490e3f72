//! Subnet by itself.

use super::one_network;
use crate::{
    manifest::{
        node::at,
        report::{Scope, quote},
    },
    model::spec::{SubnetSpec, subnet::SubnetDriver},
};

/// The smallest slice: two tasks would be too few to be worth a network.
const LONGEST_HOST_PREFIX: u8 = 29;
/// More hosts than any fleet has.
const MOST_SLICES: u32 = 65_536;

/// Interfaces of Linux have names of 15 bytes at most.
const MAX_INTERFACE_BYTES: usize = 15;

/// Its LAN, or that it says nothing of one.
fn lan(spec: &SubnetSpec, scope: &mut Scope<'_>) {
    let fields = [("parent", spec.parent.is_some()), ("gateway", spec.gateway.is_some())];
    match (spec.driver, spec.gateway) {
        (SubnetDriver::Bridge, _) => {
            for (field, _) in fields.into_iter().filter(|(_, is_said)| *is_said) {
                let message = format!("`{field}` is for a subnet on a LAN");
                scope.error(at![field], "macvlan", message).help("leave it out, or say `driver: macvlan`");
            }
        }
        (SubnetDriver::Macvlan, None) => {
            scope
                .error(at!["driver"], "macvlan", "a subnet on a LAN needs `gateway`: the LAN's router, with its prefix")
                .help("such as `gateway: 192.168.1.1/24`");
        }
        (SubnetDriver::Macvlan, Some(router)) => {
            let network = router.trunc();
            if router.addr() == network.network() || router.addr() == network.broadcast() {
                let message = format!("{router} is no machine's address: it stands for the LAN itself");
                scope
                    .error(at!["gateway"], "macvlan", message)
                    .help("the router's own address, such as 192.168.1.1/24");
            } else if !network.contains(&spec.cidr) {
                let message = format!("{} is not within {network}, the LAN of the `gateway`", spec.cidr);
                scope.error(at!["cidr"], "macvlan", message).help("choose a part of it that nobody else uses");
            } else if spec.cidr.contains(&router.addr()) {
                let message = format!("the `gateway` {} is within {}, which tasks get", router.addr(), spec.cidr);
                scope.error(at!["cidr"], "macvlan", message).help("choose a part of the LAN that nobody else uses");
            }
        }
    }
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if let Some(parent) = &spec.parent
        && (parent.is_empty() || parent.len() > MAX_INTERFACE_BYTES || !parent.bytes().all(is_good))
    {
        let message = format!("{} is no interface's name", quote(parent));
        scope.error(at!["parent"], "macvlan", message).help("such as `eth0`, or leave it out");
    }
}

/// Checks a subnet.
pub fn subnet(spec: &SubnetSpec, scope: &mut Scope<'_>) {
    let cidr = spec.cidr;
    one_network(cidr, at!["cidr"], scope);
    lan(spec, scope);
    let path = if scope.node.find(at!["hostPrefix"]).is_some() { at!["hostPrefix"] } else { at!["cidr"] };
    if spec.host_prefix > LONGEST_HOST_PREFIX {
        let message = format!("a host's slice of /{} has no room for tasks", spec.host_prefix);
        scope.error(path, "host-prefix", message).label(format!("at most {LONGEST_HOST_PREFIX}"));
    } else if spec.host_prefix < cidr.prefix_len() {
        let message = format!("a host's slice of /{} is larger than the whole subnet", spec.host_prefix);
        scope
            .error(path, "host-prefix", message)
            .help(format!("`hostPrefix` from {} to {LONGEST_HOST_PREFIX}", cidr.prefix_len()));
    } else if spec.cut().slices() > MOST_SLICES {
        let message = format!("{} slices of /{} are more than {MOST_SLICES}", spec.cut().slices(), spec.host_prefix);
        scope.error(path, "host-prefix", message).help("a smaller `cidr`, or a smaller `hostPrefix`");
    }
}
