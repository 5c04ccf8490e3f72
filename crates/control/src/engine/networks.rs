//! Networks of an engine, and images that are put into it: what the task network needs of a host beyond [`Engine`](super::Engine).

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
};

use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::{ImportImageOptions, ListNetworksOptionsBuilder};
use futures_util::StreamExt;
use ipnet::Ipv4Net;
use roadstead_core::model::{
    name::SubnetName,
    network::{Bridge, Lan},
    ownership,
};

use super::{
    Content, DockerEngine, EngineError, docker::check_name, error::clip, version::ROUTED_WITHOUT_PERMISSION_UNTIL,
};

/// Docker's driver for machines on a LAN, and what it calls the host's interface there.
const MACVLAN: &str = "macvlan";
const PARENT: &str = "parent";
/// More of ours than this no host has.
const MAX_NETWORKS: usize = 1_024;

/// Tells which subnet our labels say that the network of this name is a part of, if they are ours.
pub type VerifyNetwork<'a> = &'a (dyn Fn(&str, &BTreeMap<String, String>) -> Option<SubnetName> + Sync);

/// A network of ours that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkThere {
    /// The subnet that it is a part of.
    pub subnet: SubnetName,
    /// The addresses of its tasks.
    pub slice: Ipv4Net,
    /// Of one on a LAN: the host's interface, and the router with the LAN's prefix.
    pub lan: Option<(String, Ipv4Net)>,
}

impl NetworkThere {
    /// Whether it is this one, on this interface of the host.
    pub fn is_of(&self, bridge: &Bridge, parent: Option<&String>) -> bool {
        let lan = bridge.lan.as_ref().map(|lan| (parent.cloned().unwrap_or_default(), lan.router));
        (&self.subnet, self.slice, &self.lan) == (&bridge.subnet, bridge.slice, &lan)
    }
}

impl DockerEngine {
    /// Every network that is ours, by name.
    ///
    /// # Errors
    /// As any question to the engine.
    pub async fn networks(&self, verify: VerifyNetwork<'_>) -> Result<BTreeMap<String, NetworkThere>, EngineError> {
        let call = self.call("list networks", self.question()).await?;
        let docker = call.docker()?;
        let label = HashMap::from([("label", vec![ownership::SUBNET])]);
        let options = ListNetworksOptionsBuilder::new().filters(&label).build();
        let networks = self.run(&call, docker.list_networks(Some(options))).await?;
        if networks.len() > MAX_NETWORKS {
            return Err(call.malformed(&format!("more than {MAX_NETWORKS} networks of ours")));
        }
        let ours = networks.into_iter().filter_map(|network| {
            let name = network.name.clone()?;
            let labels: BTreeMap<String, String> = network.labels.clone().unwrap_or_default().into_iter().collect();
            let subnet = verify(&name, &labels)?;
            Some((name, there(subnet, network)?))
        });
        Ok(ours.collect())
    }

    /// Makes a host's part of a subnet; `labels` are signed. Fine when it is there, whoever made it: the list tells.
    ///
    /// # Errors
    /// [`EngineError::Refused`] in the engine's words when its addresses are somebody else's.
    pub async fn create_network(
        &self,
        bridge: &Bridge,
        mtu: u32,
        labels: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let mut options = BTreeMap::from([
            ("com.docker.network.bridge.name", bridge.interface()),
            // Who is hidden behind the host, and who reaches whom, our own rules say.
            ("com.docker.network.bridge.enable_ip_masquerade", "false".to_owned()),
            ("com.docker.network.bridge.enable_icc", "false".to_owned()),
            ("com.docker.network.driver.mtu", mtu.to_string()),
        ]);
        if self.agreed_version().is_some_and(|version| version >= ROUTED_WITHOUT_PERMISSION_UNTIL) {
            // From Docker 28 on addresses are reached from other hosts only so.
            options.insert("com.docker.network.bridge.gateway_mode_ipv4", "nat-unprotected".to_owned());
        }
        let config = IpamConfig {
            subnet: Some(bridge.slice.to_string()),
            gateway: Some(bridge.gateway().to_string()),
            ..IpamConfig::default()
        };
        let options = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.make_network(bridge, "bridge", config, options, labels).await
    }

    /// The same for a host's part of a subnet on a LAN, where `parent` is its interface.
    ///
    /// # Errors
    /// As [`Self::create_network`]'s.
    pub async fn create_lan_network(
        &self,
        bridge: &Bridge,
        lan: &Lan,
        parent: &str,
        labels: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let config = IpamConfig {
            subnet: Some(lan.router.trunc().to_string()),
            ip_range: Some(bridge.slice.to_string()),
            gateway: Some(lan.router.addr().to_string()),
            ..IpamConfig::default()
        };
        let options = HashMap::from([(PARENT.to_owned(), parent.to_owned())]);
        self.make_network(bridge, MACVLAN, config, options, labels).await
    }

    async fn make_network(
        &self,
        bridge: &Bridge,
        driver: &str,
        config: IpamConfig,
        options: HashMap<String, String>,
        labels: BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        let name = bridge.network();
        let call = self.call(format!("create network {name:.64}"), self.change(self.limits.create)).await?;
        let docker = call.docker()?;
        let request = NetworkCreateRequest {
            name,
            driver: Some(driver.to_owned()),
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            options: Some(options),
            labels: Some(labels.into_iter().collect()),
            ..NetworkCreateRequest::default()
        };
        match self.run(&call, docker.create_network(request)).await {
            Ok(_) | Err(EngineError::Conflict { .. } | EngineError::NameTaken { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Removes a network that no container has. Fine when it is gone.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] or [`EngineError::Refused`] when a container has it.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let call = self.call(format!("remove network {name:.64}"), self.change(self.limits.remove)).await?;
        let docker = call.docker()?;
        match self.run(&call, docker.remove_network(name)).await {
            Err(EngineError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Puts the images of an archive, as `docker save` makes them, into the engine. It fails when nothing moves for a while.
    ///
    /// # Errors
    /// In the engine's words; what came of it is unknown when it did not answer.
    pub async fn load_images(&self, archive: Content) -> Result<(), EngineError> {
        let call = self.call("load an image", self.archive_terms(true)).await?;
        let docker = call.docker()?;
        let (counted, moved) = super::archive::counted(archive);
        let answers =
            docker.import_image_stream(ImportImageOptions { quiet: true, ..Default::default() }, counted, None);
        let load = async {
            let mut answers = pin!(answers);
            while let Some(answer) = answers.next().await {
                if let Some(error) = answer?.error_detail.and_then(|detail| detail.message) {
                    return Err(bollard::errors::Error::DockerStreamError { error: clip(&error, 512) });
                }
            }
            Ok(())
        };
        tokio::select! {
            biased;
            done = self.run(&call, load) => done,
            reason = super::archive::stands_still(&moved) => {
                Err(EngineError::OutcomeUnknown { what: "load an image".to_owned(), reason })
            }
        }
    }
}

fn there(subnet: SubnetName, network: Network) -> Option<NetworkThere> {
    let parent = network.options.unwrap_or_default().remove(PARENT).unwrap_or_default();
    let is_on_lan = network.driver.as_deref() == Some(MACVLAN);
    let of = |config: IpamConfig| {
        let whole: Ipv4Net = config.subnet?.parse().ok()?;
        let slice = config.ip_range.filter(|_| is_on_lan).map_or(Some(whole), |range| range.parse().ok())?;
        let router = || Ipv4Net::new(config.gateway?.parse().ok()?, whole.prefix_len()).ok();
        let lan = if is_on_lan { Some((parent.clone(), router()?)) } else { None };
        Some(NetworkThere { subnet: subnet.clone(), slice, lan })
    };
    network.ipam?.config?.into_iter().find_map(of)
}
