//! Subnet by itself.

use super::one_network;
use crate::{
    manifest::{node::at, report::Scope},
    model::spec::SubnetSpec,
};

/// The smallest slice: two tasks would be too few to be worth a network.
const LONGEST_HOST_PREFIX: u8 = 29;
/// More hosts than any fleet has.
const MOST_SLICES: u32 = 65_536;

/// Checks a subnet.
pub fn subnet(spec: &SubnetSpec, scope: &mut Scope<'_>) {
    let cidr = spec.cidr;
    one_network(cidr, at!["cidr"], scope);
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
