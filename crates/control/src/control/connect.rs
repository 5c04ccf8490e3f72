//! From a Host manifest to a transport and an engine.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use async_trait::async_trait;

use crate::{
    engine::{DockerEngine, Engine, Limits},
    host::{
        Agent, Destination, LocalTransport, SshTarget, SshTransport, Transport, TransportError, expand_home,
        resolve_with,
    },
    lb::{Bundles, HaproxyEdge, HostEdge},
    net::{HostNet, NodeImage, NodeNet},
};
use roadstead_core::model::{
    desired::Desired,
    name::HostName,
    ownership::FleetKey,
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
    /// Its part of the task network, where it can have one.
    pub network: Option<Arc<dyn HostNet>>,
    /// Its load balancers, where it can have some.
    pub edge: Option<Arc<dyn HostEdge>>,
}

/// Hosts over SSH, and this machine itself.
#[derive(Default)]
pub struct RealHosts {
    /// What marks a host's part of the task network as this fleet's; without it there is none.
    pub key: Option<FleetKey>,
    /// What that is made with, when no registry serves it.
    pub node_image: NodeImage,
    /// Where load balancers get their certificates.
    pub bundles: Option<Arc<dyn Bundles>>,
}

#[async_trait]
impl Connector for RealHosts {
    async fn connect(&self, host: &HostName, spec: &HostSpec, desired: &Desired) -> Result<Connection, TransportError> {
        let transport: Arc<dyn Transport> = if spec.address == LOCAL_ADDRESS {
            Arc::new(LocalTransport::new())
        } else {
            // Hosts that went away together do not come back in step.
            let seed = host.as_str().bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
            Arc::new(SshTransport::new(target(&spec.address, &spec.ssh, desired).await?, seed))
        };
        let engine =
            Arc::new(DockerEngine::new(Arc::clone(&transport), PathBuf::from(&spec.docker_socket), Limits::default()));
        let network = self.key.clone().map(|key| {
            let net = NodeNet::new(Arc::clone(&engine), host.clone(), key, self.node_image.clone());
            Arc::new(net) as Arc<dyn HostNet>
        });
        let edge = self.key.clone().zip(self.bundles.clone()).map(|(key, bundles)| {
            let edge = HaproxyEdge::new(Arc::clone(&engine), host.clone(), key, self.node_image.clone(), bundles);
            Arc::new(edge) as Arc<dyn HostEdge>
        });
        Ok(Connection { transport, engine, network, edge })
    }
}

/// The SSH target of a Host manifest: what it says, and for the rest the user's own SSH configuration.
///
/// # Errors
/// As [`resolve_with`].
pub async fn target(address: &str, ssh: &SshSpec, desired: &Desired) -> Result<SshTarget, TransportError> {
    Surroundings { config: None, agent: Agent::of_environment() }.target(address, ssh, desired).await
}

/// The address and login of a manifest that leads to this target, which was resolved from a `destination` that a person
/// typed. All of the way stands in it where that is possible; else it leaves the same things to ~/.ssh/config as the person.
///
/// # Errors
/// As [`Destination::parse`].
pub async fn manifest_for(
    destination: &str,
    target: &SshTarget,
    desired: &Desired,
) -> Result<(String, SshSpec), TransportError> {
    Surroundings { config: None, agent: Agent::of_environment() }.manifest_for(destination, target, desired).await
}

/// A target's jump host as a manifest's `proxyJump`: never taken for another Host's name.
pub fn proxy_jump(target: &SshTarget) -> Option<String> {
    target.proxy_jump.as_ref().map(|jump| format!("{}@{}", jump.user, jump.name()))
}

/// What a manifest leaves to the process.
struct Surroundings {
    /// This SSH configuration instead of the user's.
    config: Option<PathBuf>,
    agent: Agent,
}

impl Surroundings {
    async fn target(&self, address: &str, ssh: &SshSpec, desired: &Desired) -> Result<SshTarget, TransportError> {
        let mut target = self.one_target(address, ssh).await?;
        if let Some(jump) = &ssh.proxy_jump {
            let named = desired.hosts.get(jump.as_str());
            // One jump by name is enough for a fleet; longer chains belong into ~/.ssh/config, where `ssh -G` finds them.
            target.proxy_jump = Some(Box::new(match named {
                Some(host) => self.one_target(&host.spec.address, &host.spec.ssh).await?,
                None => resolve_with(jump, self.config.as_deref()).await?,
            }));
        }
        Ok(target)
    }

    async fn one_target(&self, address: &str, ssh: &SshSpec) -> Result<SshTarget, TransportError> {
        // A name may be one of ~/.ssh/config; an IP address with all the rest has nothing to ask there.
        let is_complete = address.parse::<IpAddr>().is_ok()
            && ssh.user.is_some()
            && ssh.port.is_some()
            && ssh.identity_file.is_some()
            && (ssh.host_key.is_some() || ssh.known_hosts.is_some());
        let mut target = if is_complete {
            SshTarget { address: address.to_owned(), agent: self.agent.clone(), ..SshTarget::default() }
        } else {
            resolve_with(address, self.config.as_deref()).await?
        };
        if let Some(user) = &ssh.user {
            target.user.clone_from(user);
        }
        if let Some(port) = ssh.port {
            target.port = port;
        }
        if let Some(file) = &ssh.identity_file {
            target.identity_file = Some(expand_home(file));
        }
        if ssh.host_key.is_some() || ssh.known_hosts.is_some() {
            // What the manifest pins is all that counts.
            target.host_keys = ssh.host_key.iter().cloned().collect();
            target.known_hosts = ssh.known_hosts.iter().map(|file| expand_home(file)).collect();
        }
        Ok(target)
    }

    async fn manifest_for(
        &self,
        destination: &str,
        target: &SshTarget,
        desired: &Desired,
    ) -> Result<(String, SshSpec), TransportError> {
        let name = Destination::parse(destination)?.host;
        let short = SshSpec {
            user: Some(target.user.clone()),
            port: Some(target.port),
            host_key: target.host_keys.first().cloned(),
            ..SshSpec::default()
        };
        let identity_file = target.identity_file.as_ref().map(|file| file.display().to_string());
        let with_file = SshSpec { identity_file, ..short.clone() };
        let full = SshSpec { proxy_jump: proxy_jump(target), ..with_file.clone() };
        for (address, ssh) in [(&target.address, full), (&name, short)] {
            if self.target(address, &ssh, desired).await.is_ok_and(|found| found == *target) {
                return Ok((address.clone(), ssh));
            }
        }
        Ok((name, with_file))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAA";

    async fn target_of(address: &str, ssh: SshSpec, config: &str) -> SshTarget {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, config).unwrap();
        let around = Surroundings { config: Some(file), agent: Agent::Socket("/run/agent".into()) };
        around.target(address, &ssh, &Desired::default()).await.unwrap()
    }

    fn ssh(host_key: &str) -> SshSpec {
        SshSpec { host_key: Some(host_key.to_owned()), ..SshSpec::default() }
    }

    fn complete() -> SshSpec {
        SshSpec { user: Some("deploy".into()), port: Some(2222), identity_file: Some("/k/id".into()), ..ssh(KEY) }
    }

    #[tokio::test]
    async fn a_complete_manifest_asks_no_configuration_and_keeps_the_agent() {
        let target = target_of("192.0.2.1", complete(), "Host *\n HostName 192.0.2.9\n").await;
        let want = SshTarget {
            address: "192.0.2.1".into(),
            user: "deploy".into(),
            port: 2222,
            identity_file: Some("/k/id".into()),
            agent: Agent::Socket("/run/agent".into()),
            host_keys: vec![KEY.to_owned()],
            ..SshTarget::default()
        };
        assert_eq!(target, want);
    }

    #[tokio::test]
    async fn a_name_is_looked_up_however_much_the_manifest_says() {
        let config = "Host box\n HostName 192.0.2.1\n Port 22\n ProxyJump gate\n IdentityAgent /run/other\n\
                      Host gate\n HostName 192.0.2.2\n User porter\n";
        let target = target_of("box", complete(), config).await;
        assert_eq!((target.address.as_str(), target.port, target.user.as_str()), ("192.0.2.1", 2222, "deploy"));
        assert_eq!(target.identity_file, Some("/k/id".into()));
        assert_eq!(target.agent, Agent::Socket("/run/other".into()), "a file does not take the agent away");
        let jump = target.proxy_jump.unwrap();
        assert_eq!((jump.address.as_str(), jump.user.as_str()), ("192.0.2.2", "porter"));
    }

    #[tokio::test]
    async fn a_tilde_is_this_process_s_home() {
        let spec =
            SshSpec { identity_file: Some("~/.ssh/id".into()), known_hosts: Some("~/known".into()), ..complete() };
        let target = target_of("192.0.2.1", spec, "").await;
        let home = std::env::home_dir().unwrap();
        assert_eq!(target.identity_file, Some(home.join(".ssh/id")));
        assert_eq!(target.known_hosts, [home.join("known")]);
    }

    #[tokio::test]
    async fn a_jump_is_another_host_or_a_destination() {
        let mut desired = Desired::default();
        let gate = serde_json::json!({ "address": "192.0.2.2", "ssh": complete() });
        let gate = serde_json::json!({ "file": "gate.yaml", "line": 1, "spec": gate });
        desired.hosts.insert("gate".into(), serde_json::from_value(gate).unwrap());
        for (jump, address, user, port) in
            [("gate", "192.0.2.2", "deploy", 2222), ("root@192.0.2.3:22", "192.0.2.3", "root", 22)]
        {
            let spec = SshSpec { proxy_jump: Some(jump.to_owned()), ..complete() };
            let around = Surroundings { config: Some("/dev/null".into()), agent: Agent::Off };
            let via = around.target("192.0.2.1", &spec, &desired).await.unwrap().proxy_jump.unwrap();
            assert_eq!((via.address.as_str(), via.user.as_str(), via.port), (address, user, port), "{jump}");
        }
    }

    #[tokio::test]
    async fn manifests_lead_to_what_was_resolved() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("id"), folder.path().join("other"));
        fs::write(&file, "").unwrap();
        fs::write(&other, "").unwrap();
        let id = file.display();
        let gate = "Host gate\n HostName 192.0.2.2\n User porter\n";
        let cases = [
            ("an address", "root@192.0.2.1:2222", String::new(), None, ("192.0.2.1", None)),
            (
                "an alias",
                "box",
                format!("Host box\n HostName 192.0.2.1\n IdentityFile {id}\n"),
                None,
                ("192.0.2.1", None),
            ),
            (
                "a jump host",
                "box",
                format!("Host box\n HostName 192.0.2.1\n IdentityFile {id}\n ProxyJump gate\n{gate}"),
                None,
                ("192.0.2.1", Some("porter@192.0.2.2:22")),
            ),
            (
                "a jump host with a key of its own",
                "box",
                format!("Host box\n HostName 192.0.2.1\n ProxyJump gate\n{gate} IdentityFile {id}\n"),
                None,
                ("box", None),
            ),
            (
                "the same, and a key that was named",
                "box",
                format!("Host box\n HostName 192.0.2.1\n ProxyJump gate\n{gate} IdentityFile {id}\n"),
                Some(&other),
                ("box", None),
            ),
            (
                "two jump hosts",
                "box",
                format!("Host box\n HostName 192.0.2.1\n ProxyJump porter@192.0.2.3,gate\n{gate}"),
                None,
                ("box", None),
            ),
            (
                "an agent of its own",
                "box",
                format!("Host box\n HostName 192.0.2.1\n IdentityFile {id}\n IdentityAgent /run/agent\n"),
                None,
                ("box", None),
            ),
            (
                "jump hosts for all addresses of a network",
                "192.0.2.1",
                format!("Host 192.0.2.1\n IdentityFile {id}\n ProxyJump porter@192.0.2.3,gate\n{gate}"),
                None,
                ("192.0.2.1", None),
            ),
        ];
        for (what, destination, config, named_file, (address, jump)) in cases {
            let path = folder.path().join("config");
            fs::write(&path, config).unwrap();
            let mut target = resolve_with(destination, Some(&path)).await.unwrap();
            target.host_keys = vec![KEY.to_owned()];
            target.known_hosts = Vec::new();
            if let Some(file) = named_file {
                target.identity_file = Some(file.clone());
            }
            let around = Surroundings { config: Some(path), agent: Agent::of_environment() };
            let desired = Desired::default();
            let (written, ssh) = around.manifest_for(destination, &target, &desired).await.unwrap();
            assert_eq!((written.as_str(), ssh.proxy_jump.as_deref()), (address, jump), "{what}");
            assert_eq!(around.target(&written, &ssh, &desired).await.unwrap(), target, "{what}");
        }
    }
}
