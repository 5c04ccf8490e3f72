//! The node: the one container of ours on a host that touches the host's network, and the engine's networks beside it.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use roadstead_core::model::{
    container::{ContainerConfig, ContainerState, DeviceConfig, LogConfig, MountConfig, MountSource, VolumeConfig},
    name::{HostName, SubnetName},
    network::{Bridge, HostNetwork},
    ownership::{FleetKey, NODE_CONTAINER, Owner},
    spec::task_definition::NetworkMode,
    wireguard::PublicKey,
};
use tokio::sync::Mutex;

use super::{
    Applied, HostNet, NetError, NodeImage, lan, ours,
    sandboxes::Sandboxes,
    script::{DRIFTED, FOLDER, Parts, boot_of_node, clear},
    session::Session,
    tunnel,
};
use crate::engine::{ALL_SYSTEM_PATHS, DockerEngine, Engine, EngineError, NetworkThere};

/// The volume that keeps what the node was told is called as the node is.
const NODE: &str = NODE_CONTAINER;
/// Bytes that fit into one packet between hosts that share a network.
const MTU: u32 = 1_500;
/// What wireguard-go makes its interface with.
const TUN: &str = "/dev/net/tun";
/// A host's part of the task network, through its Docker engine.
pub struct NodeNet {
    engine: Arc<DockerEngine>,
    host: HostName,
    key: FleetKey,
    archive: NodeImage,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// What is in force.
    applied: Option<(HostNetwork, Parts)>,
    public_key: Option<PublicKey>,
    sandboxes: Sandboxes,
    is_left: bool,
}

impl NodeNet {
    /// Nothing is done yet.
    pub fn new(engine: Arc<DockerEngine>, host: HostName, key: FleetKey, archive: NodeImage) -> Self {
        Self { engine, host, key, archive, state: Mutex::default() }
    }

    async fn networks(&self) -> Result<BTreeMap<String, NetworkThere>, NetError> {
        let verify = |name: &str, labels: &BTreeMap<String, String>| self.key.network_of(&self.host, name, labels);
        Ok(self.engine.networks(&verify).await?)
    }

    /// Makes the engine's networks what they should be. One that a container still has stays until it has none; with the last
    /// one go rules, for which all must be gone.
    async fn make_networks(
        &self,
        wanted: &HostNetwork,
        parents: &BTreeMap<SubnetName, String>,
    ) -> Result<(), NetError> {
        let there = self.networks().await?;
        let is_it = |bridge: &Bridge, there: &NetworkThere| there.is_of(bridge, parents.get(&bridge.subnet));
        let is_wanted = |name: &String, there: &NetworkThere| {
            wanted.bridges.iter().any(|bridge| bridge.network() == *name && is_it(bridge, there))
        };
        for (name, network) in &there {
            if !is_wanted(name, network) {
                match self.engine.remove_network(name).await {
                    Ok(()) => {
                        tracing::info!(host = %self.host, network = %name, "removed: it is no part of a subnet any more")
                    }
                    Err(error @ (EngineError::Conflict { .. } | EngineError::Refused { .. }))
                        if !wanted.bridges.is_empty() =>
                    {
                        tracing::debug!(host = %self.host, network = %name, %error, "in use still");
                    }
                    Err(other) => return Err(other.into()),
                }
            }
        }
        let mtu = if wanted.tunnel.is_some() { tunnel::MTU } else { MTU };
        let mut made = false;
        for bridge in &wanted.bridges {
            if there.get(&bridge.network()).is_some_and(|there| is_it(bridge, there)) {
                continue;
            }
            let labels = self.key.sign_network(&self.host, &bridge.network(), &bridge.subnet);
            match (&bridge.lan, parents.get(&bridge.subnet)) {
                (Some(lan), Some(parent)) => self.engine.create_lan_network(bridge, lan, parent, labels).await?,
                (_, _) => self.engine.create_network(bridge, mtu, labels).await?,
            }
            made = true;
        }
        let there = if made { self.networks().await? } else { there };
        match wanted
            .bridges
            .iter()
            .find(|bridge| there.get(&bridge.network()).is_none_or(|there| !is_it(bridge, there)))
        {
            None => Ok(()),
            Some(Bridge { subnet, slice, .. }) => Err(NetError::NotOurs(format!(
                "its engine has another network `{}` than {slice} of subnet {subnet}: tasks of before have it still, or it is not ours (docker network inspect)",
                Bridge::network_of(subnet)
            ))),
        }
    }

    /// The host's interfaces on LANs, by subnet.
    async fn parents(&self, state: &mut State, wanted: &HostNetwork) -> Result<BTreeMap<SubnetName, String>, NetError> {
        let mut parents = BTreeMap::new();
        for bridge in &wanted.bridges {
            let Some(lan) = &bridge.lan else { continue };
            let said = self.tell(state, wanted, "which interface is on the LAN", &lan::parent(lan)).await?;
            let Some(name) = said.lines().next().filter(|name| !name.is_empty()) else {
                return Err(NetError::Refused {
                    what: format!("subnet {}", bridge.subnet),
                    said: format!(
                        "no interface of the host has an address of {}: say which one is on it in the subnet's `parent`, or leave the host out by its `availabilityZone`",
                        lan.router.trunc()
                    ),
                });
            };
            parents.insert(bridge.subnet.clone(), name.to_owned());
        }
        Ok(parents)
    }

    /// The node as it is to be.
    fn config(&self, wanted: &HostNetwork) -> ContainerConfig {
        let tun = || DeviceConfig { host_path: TUN.into(), container_path: TUN.into(), permissions: "rw".into() };
        let mut config = ContainerConfig {
            name: NODE.to_owned(),
            image: wanted.node_image.clone(),
            entry_point: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            command: vec![boot_of_node()],
            network_mode: NetworkMode::Host,
            // Not more than it needs: `privileged` would give it the host's devices, too.
            capabilities_added: vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()],
            security_options: vec![ALL_SYSTEM_PATHS.to_owned(), "apparmor=unconfined".to_owned()],
            devices: wanted.tunnel.iter().map(|_| tun()).collect(),
            restart: true,
            stop_timeout_s: 2,
            log: LogConfig::default(),
            mounts: vec![MountConfig {
                source: MountSource::Volume(VolumeConfig { name: NODE.to_owned(), ..VolumeConfig::default() }),
                target: FOLDER.to_owned(),
                read_only: false,
            }],
            ..ContainerConfig::default()
        };
        ours::sign(&mut config, &self.key, &self.host);
        config
    }

    async fn tell(
        &self,
        state: &mut State,
        wanted: &HostNetwork,
        what: &str,
        script: &str,
    ) -> Result<String, NetError> {
        if state.session.is_none() {
            let node = ours::container(&*self.engine, &self.host, &self.key, &self.config(wanted)).await?;
            state.session = Some(Session::open(&*self.engine, &node).await?);
        }
        let Some(session) = &mut state.session else { return Err(NetError::Lost("none was opened".to_owned())) };
        let told = session.run(what, script).await;
        if let Err(NetError::Lost(_)) = &told {
            state.session = None;
        }
        told
    }
}

#[async_trait]
impl HostNet for NodeNet {
    async fn look(&self) -> Result<BTreeMap<SubnetName, Ipv4Net>, NetError> {
        Ok(self.networks().await?.into_values().map(|there| (there.subnet, there.slice)).collect())
    }

    async fn apply(&self, wanted: &HostNetwork) -> Result<Applied, NetError> {
        let mut state = self.state.lock().await;
        if state.is_left {
            return Err(NetError::Lost("the host was left".to_owned()));
        }
        let parts = Parts::of(wanted);
        // What is half done is told anew, whole.
        let before = state.applied.take();
        let same_ground = before.as_ref().is_some_and(|(was, _)| {
            was.bridges == wanted.bridges
                && was.node_image == wanted.node_image
                && was.tunnel.is_some() == wanted.tunnel.is_some()
                && state.session.is_some()
        });
        if !same_ground {
            self.archive.make(&self.engine, &self.host, &wanted.node_image).await?;
            // Whoever is told next makes sure of the node.
            state.session = None;
            let parents = self.parents(&mut state, wanted).await?;
            self.make_networks(wanted, &parents).await?;
        }
        let script = match &before {
            Some((was, before)) if same_ground => parts.since(before, wanted, was),
            Some(_) | None => parts.whole(wanted),
        };
        if !script.is_empty() {
            let said = self.tell(&mut state, wanted, "its part of the task network", &script).await?;
            // Of what was not said again the key is as it was.
            state.public_key =
                tunnel::public_key(&said).or(state.public_key.take()).filter(|_| wanted.tunnel.is_some());
        }
        state.applied = Some((wanted.clone(), parts));
        let left_out = state.sandboxes.apply(&*self.engine, &self.host, wanted).await;
        Ok(Applied { public_key: state.public_key.clone(), left_out })
    }

    async fn drift(&self, applied: &HostNetwork) -> Result<Option<String>, NetError> {
        let mut state = self.state.lock().await;
        let said = self.tell(&mut state, applied, "a look at the task network", &Parts::check(applied)).await;
        let drifted = match said {
            Ok(said) => match said.lines().filter_map(|line| line.strip_prefix(DRIFTED)).collect::<Vec<_>>() {
                none if none.is_empty() => return Ok(state.sandboxes.drift(&*self.engine).await),
                some => some.join("; "),
            },
            // The shell went with the node.
            Err(NetError::Lost(why)) => why,
            Err(NetError::Engine(EngineError::NotFound { .. } | EngineError::Conflict { .. })) => {
                "its node is gone".to_owned()
            }
            Err(other) => {
                state.applied = None;
                return Err(other);
            }
        };
        state.applied = None;
        state.session = None;
        Ok(Some(drifted))
    }

    async fn clear(&self, for_good: bool) -> Result<(), NetError> {
        let mut state = self.state.lock().await;
        for name in self.networks().await?.into_keys() {
            self.engine.remove_network(&name).await?;
        }
        state.applied = None;
        state.sandboxes.forget();
        state.is_left |= for_good;
        let there = self.engine.inspect(NODE, &|_| Owner::Foreign).await?;
        let ours = there.filter(|there| self.key.has_signed(&self.host, NODE, &there.labels));
        if let Some(node) = ours {
            if node.view.state == ContainerState::Running {
                let mut session = Session::open(&*self.engine, &node.view.id).await?;
                session.run("to leave the host as it was", &clear()).await?;
            }
            state.session = None;
            self.engine.remove(&node.view.id, true).await?;
            self.engine.remove_volume(NODE).await?;
        }
        Ok(())
    }
}
