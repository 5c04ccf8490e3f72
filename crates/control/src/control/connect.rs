//! From a Host manifest to a transport and an engine.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;

use crate::{
    engine::{DockerEngine, Engine, Limits},
    host::{Agent, LocalTransport, SshTarget, SshTransport, Transport, TransportError, resolve},
};
use roadstead_core::model::{
    desired::Desired,
    name::HostName,
    spec::host::{HostSpec, SshSpec},
};

use super::seams::Connector;

/// The address that means this machine itself.
pub const LOCAL_ADDRESS: &str = "local";

/// A way to a host and its engine.
#[derive(Clone)]
pub struct Connection {
    /// Commands and sockets.
    pub transport: Arc<dyn Transport>,
    /// Containers.
    pub engine: Arc<dyn Engine>,
}

/// Hosts over SSH, and this machine itself.
pub struct RealHosts;

#[async_trait]
impl Connector for RealHosts {
    async fn connect(&self, host: &HostName, spec: &HostSpec, desired: &Desired) -> Result<Connection, TransportError> {
        let transport: Arc<dyn Transport> = if spec.address == LOCAL_ADDRESS {
            Arc::new(LocalTransport::new())
        } else {
            // Hosts that went away together do not come back in step.
            let seed = host.as_str().bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
            Arc::new(SshTransport::new(target(spec, desired).await?, seed))
        };
        let engine =
            Arc::new(DockerEngine::new(Arc::clone(&transport), PathBuf::from(&spec.docker_socket), Limits::default()));
        Ok(Connection { transport, engine })
    }
}

/// The SSH target of a Host manifest: what it says, and for the rest the user's own SSH configuration.
///
/// # Errors
/// As [`resolve`].
pub async fn target(spec: &HostSpec, desired: &Desired) -> Result<SshTarget, TransportError> {
    let mut target = one_target(&spec.address, &spec.ssh).await?;
    if let Some(jump) = &spec.ssh.proxy_jump {
        let named = desired.hosts.get(jump.as_str());
        // One jump by name is enough for a fleet; longer chains belong into ~/.ssh/config, where `ssh -G` finds them.
        target.proxy_jump = Some(Box::new(match named {
            Some(host) => one_target(&host.spec.address, &host.spec.ssh).await?,
            None => resolve(jump).await?,
        }));
    }
    Ok(target)
}

async fn one_target(address: &str, ssh: &SshSpec) -> Result<SshTarget, TransportError> {
    let is_complete =
        ssh.user.is_some() && ssh.identity_file.is_some() && (ssh.host_key.is_some() || ssh.known_hosts.is_some());
    let mut target = if is_complete {
        SshTarget { address: address.to_owned(), ..SshTarget::default() }
    } else {
        resolve(address).await?
    };
    if let Some(user) = &ssh.user {
        target.user.clone_from(user);
    }
    if let Some(port) = ssh.port {
        target.port = port;
    }
    if let Some(file) = &ssh.identity_file {
        target.identity_file = Some(PathBuf::from(file));
        target.agent = Agent::Off;
    }
    if ssh.host_key.is_some() || ssh.known_hosts.is_some() {
        // What the manifest pins is all that counts.
        target.host_keys = ssh.host_key.iter().cloned().collect();
        target.known_hosts = ssh.known_hosts.iter().map(PathBuf::from).collect();
    }
    Ok(target)
}
