//! Kind `Host`.

use std::net::{Ipv4Addr, SocketAddrV4};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Unexpected},
};

use crate::model::{
    name::ClusterName,
    quantity::{CpuUnits, Mebibytes},
    wireguard,
};

/// A machine with Docker Engine 20.10 or later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostSpec {
    /// IP address or DNS name; `local` is this machine's own Docker socket, without SSH.
    pub address: String,
    /// How to log in.
    #[serde(default)]
    pub ssh: SshSpec,
    /// The cluster it belongs to; `default` when absent.
    #[serde(default = "default_cluster")]
    pub cluster: ClusterName,
    /// Kept back for the machine itself.
    #[serde(default)]
    pub reserved: Reserved,
    /// How many GPUs tasks may have there: Docker tells of none.
    #[serde(default, skip_serializing_if = "is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub gpus: u32,
    /// Where other hosts reach it, when that is not `address`: what the routes of the task network go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub private_address: Option<Ipv4Addr>,
    /// Where other hosts reach it when the cluster's packets are encrypted.
    #[serde(default, skip_serializing_if = "WireguardSpec::is_default")]
    pub wireguard: WireguardSpec,
    /// The Docker socket on the host.
    #[serde(default = "default_docker_socket")]
    pub docker_socket: String,
}

/// How to log in over SSH.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SshSpec {
    /// Login name; from `~/.ssh/config`, else `root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// TCP port; from `~/.ssh/config`, else 22.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Private key file, relative to the manifest's folder, or below the controller's home with `~/`; without it `~/.ssh/config` and the agent are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_file: Option<String>,
    /// The host's public key, exactly: `ssh-ed25519 AAAA…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// An OpenSSH known_hosts file that pins the key instead; its path is meant as that of `identityFile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<String>,
    /// Go through this host: another Host's name, or `[user@]address[:port]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_jump: Option<String>,
}

/// A host's end of the encrypted way between hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WireguardSpec {
    /// Address and port that lead to it from the other hosts, such as `203.0.113.7:51820`; its `privateAddress` or `address`
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "endpoint")]
    #[schemars(with = "Option<String>")]
    pub endpoint: Option<SocketAddrV4>,
    /// The UDP port that it listens on; 51820 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
}

impl WireguardSpec {
    /// The UDP port that it listens on.
    pub fn listen_port(&self) -> u16 {
        self.listen_port.unwrap_or(wireguard::LISTEN_PORT)
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddrV4>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wanted = "an IPv4 address and a port such as 203.0.113.7:51820";
    text.parse().map(Some).map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &wanted))
}

/// Resources that tasks may not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Reserved {
    /// CPU units.
    pub cpu: CpuUnits,
    /// MiB.
    pub memory: Mebibytes,
}

impl HostSpec {
    /// Where other hosts reach it: where routes to its tasks go.
    pub fn route_address(&self) -> Option<Ipv4Addr> {
        self.private_address.or_else(|| self.address.parse().ok())
    }

    /// Where other hosts send encrypted packets for it.
    pub fn endpoint(&self) -> Option<SocketAddrV4> {
        let own = || Some(SocketAddrV4::new(self.route_address()?, self.wireguard.listen_port()));
        self.wireguard.endpoint.or_else(own)
    }

    /// All addresses that are known to be its own.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        let endpoint = self.wireguard.endpoint.map(|endpoint| *endpoint.ip());
        [self.address.parse().ok(), self.private_address, endpoint].into_iter().flatten()
    }
}

fn is_none(gpus: &u32) -> bool {
    *gpus == 0
}

fn default_cluster() -> ClusterName {
    super::cluster::DEFAULT_CLUSTER.into()
}

fn default_docker_socket() -> String {
    "/var/run/docker.sock".to_owned()
}
