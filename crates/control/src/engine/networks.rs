//! Networks of an engine, and images that are put into it: what the task network needs of a host beyond [`Engine`](super::Engine).

use std::{
    collections::{BTreeMap, HashMap},
    pin::pin,
};

use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::{ImportImageOptions, ListNetworksOptionsBuilder};
use futures_util::StreamExt;
use ipnet::Ipv4Net;
use roadstead_core::model::{name::SubnetName, network::Bridge, ownership};

use super::{
    Content, DockerEngine, EngineError, docker::check_name, error::clip, version::ROUTED_WITHOUT_PERMISSION_UNTIL,
};

/// More of ours than this no host has.
const MAX_NETWORKS: usize = 1_024;

/// Tells which subnet our labels say that the network of this name is a part of, if they are ours.
pub type VerifyNetwork<'a> = &'a (dyn Fn(&str, &BTreeMap<String, String>) -> Option<SubnetName> + Sync);

impl DockerEngine {
    /// Every network that is ours, by name: its subnet and its addresses.
    ///
    /// # Errors
    /// As any question to the engine.
    pub async fn networks(
        &self,
        verify: VerifyNetwork<'_>,
    ) -> Result<BTreeMap<String, (SubnetName, Ipv4Net)>, EngineError> {
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
            Some((name, (subnet, slice_of(network)?)))
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
        let name = bridge.network();
        let call = self.call(format!("create network {name:.64}"), self.change(self.limits.create)).await?;
        let docker = call.docker()?;
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
        let request = NetworkCreateRequest {
            name,
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            options: Some(options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
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

fn slice_of(network: Network) -> Option<Ipv4Net> {
    network.ipam?.config?.into_iter().find_map(|config| config.subnet?.parse().ok())
}
