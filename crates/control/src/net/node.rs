//! The node: the one container of ours on a host that touches the host's network, and the engine's networks beside it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::BytesMut;
use futures_util::stream;
use ipnet::Ipv4Net;
use roadstead_core::model::{
    container::{ContainerConfig, ContainerState, LogConfig, MountConfig, MountSource, VolumeConfig},
    hex::hex,
    name::{HostName, RuntimeId, SubnetName},
    network::{Bridge, HostNetwork},
    ownership::{self, FleetKey, NODE_CONTAINER, Owner},
    spec::{network::Encapsulation, task_definition::NetworkMode},
};
use tokio::{fs::File, io::AsyncReadExt, sync::Mutex};

use super::{
    HostNet, NetError,
    script::{BOOT, DRIFTED, FOLDER, Parts, clear},
    session::Session,
};
use crate::engine::{ALL_SYSTEM_PATHS, DockerEngine, Engine, EngineError};

/// The volume that keeps what the node was told is called as the node is.
const NODE: &str = NODE_CONTAINER;
/// Bytes that fit into one packet between hosts that share a network.
const MTU: u32 = 1_500;
/// The same inside WireGuard over any network.
const MTU_ENCRYPTED: u32 = 1_420;
/// Pieces that an image is sent in.
const PIECE_BYTES: usize = 64 << 10;

/// Where the node image is, when no registry serves it: an archive as `docker save` makes it; `{arch}` in its path stands for
/// the host's, amd64 or arm64.
#[derive(Clone, Debug, Default)]
pub struct NodeImage(pub Option<PathBuf>);

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
    is_left: bool,
}

impl NodeNet {
    /// Nothing is done yet.
    pub fn new(engine: Arc<DockerEngine>, host: HostName, key: FleetKey, archive: NodeImage) -> Self {
        Self { engine, host, key, archive, state: Mutex::default() }
    }

    async fn networks(&self) -> Result<BTreeMap<String, (SubnetName, Ipv4Net)>, NetError> {
        let verify = |name: &str, labels: &BTreeMap<String, String>| self.key.network_of(&self.host, name, labels);
        Ok(self.engine.networks(&verify).await?)
    }

    /// Makes the engine's networks what they should be. One that a container still has stays until it has none.
    async fn make_networks(&self, wanted: &HostNetwork) -> Result<(), NetError> {
        let there = self.networks().await?;
        let is_wanted = |name: &String, slice: Ipv4Net| {
            wanted.bridges.iter().any(|bridge| bridge.network() == *name && bridge.slice == slice)
        };
        for (name, (_, slice)) in &there {
            if !is_wanted(name, *slice) {
                match self.engine.remove_network(name).await {
                    Ok(()) => {
                        tracing::info!(host = %self.host, network = %name, "removed: it is no part of a subnet any more")
                    }
                    Err(error @ (EngineError::Conflict { .. } | EngineError::Refused { .. })) => {
                        tracing::debug!(host = %self.host, network = %name, %error, "in use still");
                    }
                    Err(other) => return Err(other.into()),
                }
            }
        }
        let mtu = match wanted.fleet.encapsulation {
            Encapsulation::None => MTU,
            Encapsulation::Wireguard => MTU_ENCRYPTED,
        };
        let mut made = false;
        for bridge in &wanted.bridges {
            if there.get(&bridge.network()).is_some_and(|(_, slice)| *slice == bridge.slice) {
                continue;
            }
            let labels = self.key.sign_network(&self.host, &bridge.network(), &bridge.subnet);
            self.engine.create_network(bridge, mtu, labels).await?;
            made = true;
        }
        let there = if made { self.networks().await? } else { there };
        match wanted.bridges.iter().find(|bridge| there.get(&bridge.network()).is_none_or(|it| it.1 != bridge.slice)) {
            None => Ok(()),
            Some(Bridge { subnet, slice }) => Err(NetError::NotOurs(format!(
                "its engine has another network `{}` than {slice} of subnet {subnet}: tasks of before have it still, or it is not ours (docker network inspect)",
                Bridge::network_of(subnet)
            ))),
        }
    }

    async fn make_image(&self, image: &str) -> Result<(), NetError> {
        if self.engine.image(image).await?.is_some() {
            return Ok(());
        }
        let lacks = |why: String| NetError::NoNodeImage { image: image.to_owned(), why };
        let Some(archive) = self.archive.0.as_deref() else {
            return self.engine.pull(image, &|_| {}).await.map_err(|error| match error {
                unreachable @ EngineError::Unreachable(_) => unreachable.into(),
                other => lacks(other.to_string()),
            });
        };
        let identity = self.engine.identify().await?;
        let arch = match identity.architecture.as_str() {
            "ARM64" => "arm64",
            _ => "amd64",
        };
        let path = archive.to_string_lossy().replace("{arch}", arch);
        let content = archive_of(Path::new(&path), &self.host).await.map_err(|why| lacks(format!("{path}: {why}")))?;
        self.engine.load_images(content).await?;
        match self.engine.image(image).await? {
            Some(_) => Ok(()),
            None => Err(lacks(format!("{path} holds another image than that"))),
        }
    }

    /// The node as it is to be; `image` by its name.
    fn config(&self, image: &str) -> ContainerConfig {
        let mut config = ContainerConfig {
            name: NODE.to_owned(),
            image: image.to_owned(),
            entry_point: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            command: vec![BOOT.to_owned()],
            network_mode: NetworkMode::Host,
            // Not more than it needs: `privileged` would give it the host's devices, too.
            capabilities_added: vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()],
            security_options: vec![ALL_SYSTEM_PATHS.to_owned(), "apparmor=unconfined".to_owned()],
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
        use aws_lc_rs::digest;
        let content = format!("{config:?}");
        let hash = digest::digest(&digest::SHA256, content.as_bytes());
        let labels = BTreeMap::from([(ownership::NODE.to_owned(), hex(hash.as_ref().get(..8).unwrap_or_default()))]);
        config.labels = self.key.sign(&self.host, NODE, &labels);
        config
    }

    /// The running node, made anew when another one is needed.
    async fn make_node(&self, image: &str) -> Result<RuntimeId, NetError> {
        let config = self.config(image);
        if let Some(there) = self.engine.inspect(NODE, &|_| Owner::Foreign).await? {
            if !self.key.has_signed(&self.host, NODE, &there.labels) {
                return Err(NetError::NotOurs(format!(
                    "a container `{NODE}` is there that is not this fleet's: remove it (docker rm -f {NODE})"
                )));
            }
            if there.labels == config.labels && there.view.state == ContainerState::Running {
                return Ok(there.view.id);
            }
            if there.labels == config.labels && there.view.state != ContainerState::Removing {
                self.engine.start(&there.view.id).await?;
                return Ok(there.view.id);
            }
            self.engine.remove(&there.view.id, true).await?;
        }
        let id = self.engine.create(&config).await?.id;
        self.engine.start(&id).await?;
        Ok(id)
    }

    async fn tell(&self, state: &mut State, image: &str, what: &str, script: &str) -> Result<String, NetError> {
        if state.session.is_none() {
            let node = self.make_node(image).await?;
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

/// An archive's bytes, with how far it is in the log.
async fn archive_of(path: &Path, host: &HostName) -> Result<crate::engine::Content, std::io::Error> {
    let file = File::open(path).await?;
    let total = file.metadata().await?.len();
    tracing::info!(%host, archive = %path.display(), mib = total >> 20, "sending the node image");
    let pieces = stream::unfold((file, 0_u64, host.clone()), move |(mut file, sent, host)| async move {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        match file.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(bytes) => {
                let now = sent + bytes as u64;
                let tenth = |sent: u64| sent.saturating_mul(10) / total.max(1);
                if tenth(now) > tenth(sent) {
                    tracing::info!(%host, percent = tenth(now) * 10, "the node image is on its way");
                }
                Some((Ok(piece.freeze()), (file, now, host)))
            }
            Err(error) => Some((Err(error), (file, sent, host))),
        }
    });
    Ok(Box::pin(pieces))
}

#[async_trait]
impl HostNet for NodeNet {
    async fn look(&self) -> Result<BTreeMap<SubnetName, Ipv4Net>, NetError> {
        Ok(self.networks().await?.into_values().collect())
    }

    async fn apply(&self, wanted: &HostNetwork) -> Result<(), NetError> {
        let mut state = self.state.lock().await;
        if state.is_left {
            return Err(NetError::Lost("the host was left".to_owned()));
        }
        let parts = Parts::of(wanted);
        // What is half done is told anew, whole.
        let before = state.applied.take();
        let same_ground = before.as_ref().is_some_and(|(was, _)| {
            was.bridges == wanted.bridges && was.node_image == wanted.node_image && state.session.is_some()
        });
        if !same_ground {
            self.make_image(&wanted.node_image).await?;
            self.make_networks(wanted).await?;
            // Whoever is told next makes sure of the node.
            state.session = None;
        }
        let script = match &before {
            Some((was, before)) if same_ground => parts.since(before, wanted, was),
            Some(_) | None => parts.whole(wanted),
        };
        if !script.is_empty() {
            self.tell(&mut state, &wanted.node_image, "its part of the task network", &script).await?;
        }
        state.applied = Some((wanted.clone(), parts));
        Ok(())
    }

    async fn drift(&self, applied: &HostNetwork) -> Result<Option<String>, NetError> {
        let mut state = self.state.lock().await;
        let said =
            self.tell(&mut state, &applied.node_image, "a look at the task network", &Parts::check(applied)).await;
        let drifted = match said {
            Ok(said) => match said.lines().filter_map(|line| line.strip_prefix(DRIFTED)).collect::<Vec<_>>() {
                none if none.is_empty() => return Ok(None),
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
