//! A host's load balancers, by HAProxy in a container of ours.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use roadstead_core::model::{
    container::{ContainerConfig, ContainerState, LogConfig, MountConfig, MountSource, VolumeConfig},
    name::HostName,
    ownership::{BALANCER_CONTAINER, FleetKey, Owner},
    spec::task_definition::NetworkMode,
    traffic::Edge,
};
use tokio::sync::Mutex;

use super::{
    Bundles, EdgeState, HostEdge,
    haproxy::{
        FOLDER,
        apply::{Applied, Shell},
        certificates, script,
    },
};
use crate::{
    engine::{DockerEngine, Engine, EngineError},
    net::{NetError, NodeImage, ours, session::Session},
};

/// Its volume is called as it is.
const NAME: &str = BALANCER_CONTAINER;

/// A host's load balancers, through its Docker engine.
pub struct HaproxyEdge {
    engine: Arc<DockerEngine>,
    host: HostName,
    key: FleetKey,
    archive: NodeImage,
    bundles: Arc<dyn Bundles>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    applied: Applied,
}

impl HaproxyEdge {
    /// Nothing is done yet.
    pub fn new(
        engine: Arc<DockerEngine>,
        host: HostName,
        key: FleetKey,
        archive: NodeImage,
        bundles: Arc<dyn Bundles>,
    ) -> Self {
        Self { engine, host, key, archive, bundles, state: Mutex::default() }
    }

    fn config(&self, image: &str) -> ContainerConfig {
        let mut config = ContainerConfig {
            name: NAME.to_owned(),
            image: image.to_owned(),
            entry_point: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            command: vec![script::BOOT.to_owned()],
            network_mode: NetworkMode::Host,
            // Docker's own set has what HAProxy needs: low ports, and to become nobody.
            restart: true,
            stop_timeout_s: 2,
            log: LogConfig::default(),
            mounts: vec![MountConfig {
                source: MountSource::Volume(VolumeConfig { name: NAME.to_owned(), ..VolumeConfig::default() }),
                target: FOLDER.to_owned(),
                read_only: false,
            }],
            ..ContainerConfig::default()
        };
        ours::sign(&mut config, &self.key, &self.host);
        config
    }

    /// A shell in the running container.
    async fn shell<'a>(&self, session: &'a mut Option<Session>, image: &str) -> Result<&'a mut Session, NetError> {
        let shell = match session.take() {
            Some(open) => open,
            None => {
                let id = ours::container(&*self.engine, &self.host, &self.key, &self.config(image)).await?;
                Session::open(&*self.engine, &id).await?
            }
        };
        Ok(session.insert(shell))
    }
}

#[async_trait]
impl Shell for Session {
    async fn run(&mut self, what: &str, script: &str) -> Result<String, NetError> {
        Self::run(self, what, script).await
    }
}

#[async_trait]
impl HostEdge for HaproxyEdge {
    async fn is_there(&self) -> Result<bool, NetError> {
        let there = self.engine.inspect(NAME, &|_| Owner::Foreign).await?;
        Ok(there.is_some_and(|there| self.key.has_signed(&self.host, NAME, &there.labels)))
    }

    async fn apply(&self, wanted: &Edge) -> Result<(), NetError> {
        let pems = certificates::pems(wanted, &*self.bundles)?;
        let State { session, applied } = &mut *self.state.lock().await;
        if applied.node_image() != Some(&wanted.node_image) {
            self.archive.make(&self.engine, &self.host, &wanted.node_image).await?;
            // Whoever is told next makes sure of the container.
            *session = None;
        }
        let shell = self.shell(session, &wanted.node_image).await?;
        let told = applied.apply(shell, wanted, &pems).await;
        if let Err(NetError::Lost(_)) = &told {
            *session = None;
        }
        told
    }

    async fn look(&self, wanted: &Edge, counts: bool) -> Result<EdgeState, NetError> {
        let State { session, applied } = &mut *self.state.lock().await;
        let looked = match self.shell(session, &wanted.node_image).await {
            Ok(shell) => applied.look(shell, wanted, counts).await,
            Err(error) => Err(error),
        };
        let drift = match looked {
            Ok(state) => return Ok(state),
            // The shell went with the container.
            Err(NetError::Lost(why)) => why,
            Err(NetError::Engine(EngineError::NotFound { .. } | EngineError::Conflict { .. })) => {
                "its container is gone".to_owned()
            }
            Err(other) => {
                applied.forget();
                return Err(other);
            }
        };
        applied.forget();
        *session = None;
        Ok(EdgeState { drift: Some(drift), targets: BTreeMap::new() })
    }

    async fn clear(&self) -> Result<(), NetError> {
        let mut state = self.state.lock().await;
        *state = State::default();
        let there = self.engine.inspect(NAME, &|_| Owner::Foreign).await?;
        if let Some(there) = there.filter(|there| self.key.has_signed(&self.host, NAME, &there.labels)) {
            if there.view.state != ContainerState::Removing {
                self.engine.remove(&there.view.id, true).await?;
            }
            self.engine.remove_volume(NAME).await?;
        }
        Ok(())
    }
}
