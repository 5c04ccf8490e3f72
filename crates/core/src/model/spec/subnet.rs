//! Kind `Subnet`.

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{name::ClusterName, network::Lan};

/// Addresses that the tasks on some hosts get: each of these hosts has a slice of its own.
///
/// With `driver: macvlan` they are addresses of the LAN itself, for services that name the subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubnetSpec {
    /// The cluster; `default` when absent.
    #[serde(default = "default_cluster")]
    pub cluster: ClusterName,
    /// The zone of its hosts: their label `availability-zone`; every host of the cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Whether its addresses are of a network of the hosts' own, or of the LAN that the hosts are on.
    #[serde(default, skip_serializing_if = "SubnetDriver::is_bridge")]
    pub driver: SubnetDriver,
    /// With `driver: macvlan` the hosts' interface on the LAN; the one with an address of the LAN when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// With `driver: macvlan` the LAN's router, with the LAN's prefix: 192.168.1.1/24.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "super::network::some_router")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<Ipv4Net>,
    /// All its addresses; within the cluster's `network.cidr`, and with `driver: macvlan` the part of the LAN that nobody else
    /// gives out.
    #[serde(deserialize_with = "super::network::cidr")]
    #[schemars(with = "String")]
    pub cidr: Ipv4Net,
    /// How large a host's slice is: 26 means 64 addresses, of which tasks can have 61.
    #[serde(default = "twenty_six")]
    #[schemars(range(min = 8, max = 29))]
    pub host_prefix: u8,
}

fn default_cluster() -> ClusterName {
    super::cluster::DEFAULT_CLUSTER.into()
}

fn twenty_six() -> u8 {
    26
}

/// What a subnet's addresses are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubnetDriver {
    /// A network of each host's own, to which the others have routes.
    #[default]
    Bridge,
    /// The LAN that the hosts are on: each task is a machine on it.
    Macvlan,
}

impl SubnetDriver {
    fn is_bridge(&self) -> bool {
        *self == Self::Bridge
    }
}

impl SubnetSpec {
    /// How it is cut.
    pub fn cut(&self) -> Cut {
        Cut { cidr: self.cidr, host_prefix: self.host_prefix }
    }

    /// The LAN that its addresses are of, if they are.
    pub fn lan(&self) -> Option<Lan> {
        let router = self.gateway.filter(|_| self.driver == SubnetDriver::Macvlan)?;
        Some(Lan { parent: self.parent.clone(), router })
    }
}

/// Addresses cut into slices of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// All of them.
    pub cidr: Ipv4Net,
    /// How large a slice is.
    pub host_prefix: u8,
}

impl Cut {
    /// How many slices there are.
    pub fn slices(self) -> u32 {
        let bits = self.host_prefix.saturating_sub(self.cidr.prefix_len());
        1u32.checked_shl(bits.into()).unwrap_or(u32::MAX)
    }

    /// A slice by its number, from 0.
    pub fn slice(self, number: u32) -> Option<Ipv4Net> {
        if self.host_prefix < self.cidr.prefix_len() || number >= self.slices() {
            return None;
        }
        let first = u32::from(self.cidr.network()).checked_add(number.checked_mul(self.slice_size()?)?)?;
        Ipv4Net::new(first.into(), self.host_prefix).ok()
    }

    /// Which slice this is; none when it is no slice of these.
    pub fn number_of(self, slice: Ipv4Net) -> Option<u32> {
        let number = u32::from(slice.network()).checked_sub(u32::from(self.cidr.network()))? / self.slice_size()?;
        (self.slice(number) == Some(slice)).then_some(number)
    }

    fn slice_size(self) -> Option<u32> {
        1u32.checked_shl(32u32.saturating_sub(self.host_prefix.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_cut_into_slices() {
        let spec = |cidr: &str, host_prefix| Cut { cidr: cidr.parse().unwrap(), host_prefix };
        let subnet = spec("10.64.16.0/20", 26);
        assert_eq!(subnet.slices(), 64);
        assert_eq!(subnet.slice(0).unwrap().to_string(), "10.64.16.0/26");
        assert_eq!(subnet.slice(63).unwrap().to_string(), "10.64.31.192/26");
        assert_eq!(subnet.slice(64), None);
        let number = |slice: &str| subnet.number_of(slice.parse().unwrap());
        assert_eq!(
            (number("10.64.31.192/26"), number("10.64.31.192/27"), number("10.64.32.0/26")),
            (Some(63), None, None)
        );
        assert_eq!(number("10.64.15.0/26"), None);
        assert_eq!(spec("10.0.0.0/24", 24).slice(0).unwrap().to_string(), "10.0.0.0/24");
        assert_eq!(spec("10.0.0.0/24", 20).slice(0), None);
    }
}
