//! Kind `Subnet`.

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::name::ClusterName;

/// Addresses that the tasks on some hosts get: each of these hosts has a slice of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubnetSpec {
    /// The cluster; `default` when absent.
    #[serde(default = "default_cluster")]
    pub cluster: ClusterName,
    /// The zone of its hosts: their label `availability-zone`; every host of the cluster when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// All its addresses; within the cluster's `network.cidr`.
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

impl SubnetSpec {
    /// How many hosts can have a slice.
    pub fn slices(&self) -> u32 {
        let bits = self.host_prefix.saturating_sub(self.cidr.prefix_len());
        1u32.checked_shl(bits.into()).unwrap_or(u32::MAX)
    }

    /// One host's slice, from 0.
    pub fn slice(&self, number: u32) -> Option<Ipv4Net> {
        if self.host_prefix < self.cidr.prefix_len() || number >= self.slices() {
            return None;
        }
        let size = 1u32.checked_shl(32u32.saturating_sub(self.host_prefix.into()))?;
        let first = u32::from(self.cidr.network()).checked_add(number.checked_mul(size)?)?;
        Ipv4Net::new(first.into(), self.host_prefix).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_cut_into_slices() {
        let spec = |cidr: &str, host_prefix| SubnetSpec {
            cluster: default_cluster(),
            availability_zone: None,
            cidr: cidr.parse().unwrap(),
            host_prefix,
        };
        let subnet = spec("10.64.16.0/20", 26);
        assert_eq!(subnet.slices(), 64);
        assert_eq!(subnet.slice(0).unwrap().to_string(), "10.64.16.0/26");
        assert_eq!(subnet.slice(63).unwrap().to_string(), "10.64.31.192/26");
        assert_eq!(subnet.slice(64), None);
        assert_eq!(spec("10.0.0.0/24", 24).slice(0).unwrap().to_string(), "10.0.0.0/24");
        assert_eq!(spec("10.0.0.0/24", 20).slice(0), None);
    }
}
