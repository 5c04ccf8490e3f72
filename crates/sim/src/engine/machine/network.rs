//! A fake host's part of the task network: its engine's networks, and what its node makes of the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::Ipv4Net;

use roadstead_control::{engine::EngineError, net::Applied};
use roadstead_core::model::{
    container::{ContainerConfig, ContainerState, HealthStatus, NetworkAttachment},
    name::{RuntimeId, SubnetName},
    network::{Bridge, HostNetwork, Namespace, task_addresses},
    wireguard::PublicKey,
};

use super::{Machine, holds_ports};

/// What a host is told about its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// Make it so.
    Apply(Arc<HostNetwork>),
    /// Leave the host as it was found.
    Clear,
}

/// Whose network a container has, and of which life.
pub(super) type Joined = (RuntimeId, u32);

/// How the node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Node {
    #[default]
    Gone,
    /// It was stopped with its engine, which does not start it again.
    Stopped,
    Running,
}

/// A host's part.
#[derive(Default)]
pub(crate) struct Part {
    /// The engine's networks, by name.
    pub(crate) networks: BTreeMap<String, Ipv4Net>,
    /// Those of them that are on a LAN.
    on_lan: BTreeSet<String>,
    /// The lives of sandboxes there in whose namespaces rules were put.
    held: BTreeSet<Joined>,
    /// What the kernel lets pass.
    pub(crate) rules: Option<Arc<HostNetwork>>,
    /// What the node puts back when it starts.
    saved: Option<Arc<HostNetwork>>,
    node: Node,
    /// The image of the node is not to be had.
    pub(crate) lacks_image: bool,
    /// Somebody laid hands on it since it was made: it is not what it was told.
    pub(crate) struck: bool,
    /// The last one that told it anything: one before it is not listened to any more.
    session: u64,
    /// Made with the first way to other hosts, and gone with the node's volume.
    key: Option<PublicKey>,
    keys_made: u64,
}

impl Part {
    /// What names stand for, when anybody answers for them.
    pub(crate) fn names(&self) -> Option<&HostNetwork> {
        self.saved.as_deref().filter(|_| self.node == Node::Running)
    }

    /// What other hosts must know it by.
    pub(crate) fn public_key(&self) -> Option<&PublicKey> {
        self.key.as_ref().filter(|_| self.rules.as_ref().is_some_and(|rules| rules.tunnel.is_some()))
    }

    /// Whether nothing of ours is there.
    pub(crate) fn is_clear(&self) -> bool {
        self.networks.is_empty() && self.rules.is_none() && self.node == Node::Gone
    }
}

impl Machine {
    /// Our networks that are there.
    pub(crate) fn slices(&self) -> BTreeMap<SubnetName, Ipv4Net> {
        let subnet = |name: &String| name.strip_prefix("rs-").map(SubnetName::from);
        self.part.networks.iter().filter_map(|(name, slice)| Some((subnet(name)?, *slice))).collect()
    }

    pub(super) fn change_network(&mut self, session: u64, change: &NetworkChange) -> Result<Applied, EngineError> {
        if session < self.part.session {
            let message = "another session has begun".to_owned();
            return Err(EngineError::ServerError { status: 500, message });
        }
        self.part.session = session;
        let mut left_out = BTreeSet::new();
        match change {
            NetworkChange::Apply(wanted) => {
                self.make_network(wanted)?;
                left_out = self.hold(wanted);
            }
            NetworkChange::Clear => self.clear_network()?,
        }
        Ok(Applied { public_key: self.part.public_key().cloned(), left_out })
    }

    /// Puts rules inside the namespaces that tasks on a LAN have now; returns those that have none.
    fn hold(&mut self, wanted: &HostNetwork) -> BTreeSet<Ipv4Addr> {
        self.part.on_lan = wanted.bridges.iter().filter(|bridge| bridge.lan.is_some()).map(Bridge::network).collect();
        let mut left_out = BTreeSet::new();
        for (address, task) in &wanted.tasks {
            let Some(namespace) = &task.namespace else { continue };
            match self.life_of(namespace) {
                Some(life) => drop(self.part.held.insert(life)),
                None => drop(left_out.insert(*address)),
            }
        }
        left_out
    }

    /// The life that a sandbox lives now, whichever was seen.
    fn life_of(&self, namespace: &Namespace) -> Option<Joined> {
        let container = self.containers.get(&namespace.container).filter(|container| holds_ports(container.state))?;
        Some((namespace.container.clone(), container.life))
    }

    /// Whether rules were put into the namespace of any of its lives.
    pub(crate) fn was_held(&self, sandbox: &RuntimeId) -> bool {
        self.part.held.iter().any(|(id, _)| id == sandbox)
    }

    /// The sandbox on a LAN whose namespace a container has joined, when no rules are in it.
    pub(crate) fn joined_open(&self, id: &RuntimeId) -> Option<&RuntimeId> {
        let joined = self.containers.get(id)?.joined.as_ref()?;
        let sandbox = &self.containers.get(&joined.0)?.config;
        let Some(NetworkAttachment::Own { network, .. }) = &sandbox.attachment else { return None };
        (self.part.on_lan.contains(network) && !self.part.held.contains(joined)).then_some(&joined.0)
    }

    fn make_network(&mut self, wanted: &Arc<HostNetwork>) -> Result<(), EngineError> {
        if !self.images.contains_key(&wanted.node_image) {
            if self.part.lacks_image {
                let (image, message) = (wanted.node_image.clone(), "not on this host".to_owned());
                return Err(EngineError::ImageMissing { image, message });
            }
            self.images.insert(wanted.node_image.clone(), None);
        }
        let is_wanted = |name: &str, slice: &Ipv4Net| {
            wanted.bridges.iter().any(|bridge| bridge.network() == name && bridge.slice == *slice)
        };
        let unwanted = self.part.networks.iter().filter(|(name, slice)| !is_wanted(name, slice));
        for name in unwanted.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if !self.is_attached(&name) {
                self.part.networks.remove(&name);
            } else if wanted.bridges.is_empty() {
                return Err(EngineError::Conflict { message: format!("network {name} has active endpoints") });
            }
        }
        for Bridge { subnet, slice, .. } in &wanted.bridges {
            let there = *self.part.networks.entry(Bridge::network_of(subnet)).or_insert(*slice);
            if there != *slice {
                let message = format!("network rs-{subnet} is {there}, which containers have still");
                return Err(EngineError::Conflict { message });
            }
        }
        if wanted.tunnel.is_some() && self.part.key.is_none() {
            self.part.keys_made += 1;
            self.part.key = PublicKey::parse(&format!("{:016x}{:A<27}=", self.seed, self.part.keys_made));
        }
        (self.part.rules, self.part.saved) = (Some(Arc::clone(wanted)), Some(Arc::clone(wanted)));
        (self.part.node, self.part.struck) = (Node::Running, false);
        Ok(())
    }

    fn clear_network(&mut self) -> Result<(), EngineError> {
        if let Some(name) = self.part.networks.keys().find(|name| self.is_attached(name)) {
            return Err(EngineError::Conflict { message: format!("network {name} has active endpoints") });
        }
        let Part { lacks_image, session, keys_made, .. } = self.part;
        self.part = Part { lacks_image, session, keys_made, ..Part::default() };
        Ok(())
    }

    /// What is not as the node was last told, as the node itself tells it.
    pub(crate) fn drift(&self, applied: &HostNetwork) -> Option<String> {
        if self.part.node != Node::Running {
            return Some("its node is gone".to_owned());
        }
        if self.part.rules != self.part.saved {
            return Some("its rules were changed".to_owned());
        }
        let mut namespaces = applied.tasks.values().filter_map(|task| self.life_of(task.namespace.as_ref()?));
        if namespaces.any(|life| !self.part.held.contains(&life)) {
            return Some("the rules inside a task were changed".to_owned());
        }
        let gone = applied.bridges.iter().find(|bridge| !self.part.networks.contains_key(&bridge.network()));
        gone.map(|bridge| format!("its network {} is gone", bridge.network()))
    }

    /// Somebody flushes all rules of the kernel.
    pub(crate) fn flush_rules(&mut self) {
        self.part.struck |= self.part.rules.take().is_some();
        self.part.held.clear();
    }

    /// `docker rm -f` of the node: what it has in the kernel stays.
    pub(crate) fn remove_node(&mut self) {
        self.part.node = Node::Gone;
        self.part.struck = true;
    }

    /// `docker network prune`: of those that no running container has.
    pub(crate) fn prune_networks(&mut self) {
        for name in self.part.networks.keys().cloned().collect::<Vec<_>>() {
            if !self.is_attached(&name) {
                self.part.networks.remove(&name);
                self.part.struck = true;
            }
        }
    }

    /// The image of the node cannot be had for a while, and is not there unless something runs from it.
    pub(crate) fn lose_node_image(&mut self, image: &str) {
        self.part.lacks_image = true;
        let id = self.image_id(image);
        if self.part.node == Node::Gone && !self.containers.values().any(|it| Some(&it.image_id) == id.as_ref()) {
            self.images.remove(image);
        }
    }

    /// The engine stops the node with everything else, and starts it as little again.
    pub(super) fn stop_node(&mut self) {
        if self.part.node == Node::Running {
            self.part.node = Node::Stopped;
            self.part.struck = true;
        }
    }

    /// The kernel begins anew: the node, if it comes back, puts back what it was last told.
    pub(super) fn reboot_network(&mut self) {
        self.part.rules = self.part.saved.clone().filter(|_| self.part.node == Node::Running);
        self.part.struck |= self.part.rules.is_none();
    }

    fn is_attached(&self, network: &str) -> bool {
        self.containers.values().any(|container| {
            holds_ports(container.state)
                && matches!(&container.config.attachment, Some(NetworkAttachment::Own { network: its, .. }) if its == network)
        })
    }

    /// The address that a container has, or is to have, of its own.
    pub(crate) fn own_address(&self, id: &RuntimeId) -> Option<Ipv4Addr> {
        match &self.containers.get(id)?.config.attachment {
            Some(NetworkAttachment::Own { address, .. }) => Some(*address),
            Some(NetworkAttachment::Of(_)) | None => None,
        }
    }

    /// What a container is to join, by the id that it has when it is made: another name later changes nothing.
    pub(super) fn by_id(&self, mut config: ContainerConfig) -> ContainerConfig {
        if let Some(NetworkAttachment::Of(joined)) = &mut config.attachment
            && let Some(id) = self.find(joined)
        {
            *joined = id.as_str().to_owned();
        }
        config
    }

    /// What a container is put into when it starts: whose life it shares, and its address.
    pub(super) fn attach(&self, id: &RuntimeId) -> Result<(Option<Joined>, Option<IpAddr>), EngineError> {
        let refused = |message: String| Err(EngineError::ServerError { status: 403, message });
        match self.containers.get(id).and_then(|container| container.config.attachment.as_ref()) {
            None => Ok((None, None)),
            Some(NetworkAttachment::Own { network, address }) => {
                let Some(slice) = self.part.networks.get(network) else {
                    return Err(EngineError::NotFound { what: format!("network {network}") });
                };
                let (first, last) = task_addresses(*slice);
                if !(first..=last).contains(&u32::from(*address)) {
                    return refused(format!("no configured subnet contains {address}"));
                }
                let holder = self.containers.iter().find(|(other, container)| {
                    *other != id && holds_ports(container.state) && container.address == Some((*address).into())
                });
                match holder {
                    Some(_) => refused("Address already in use".to_owned()),
                    None => Ok((None, Some((*address).into()))),
                }
            }
            Some(NetworkAttachment::Of(name)) => match self.find(name) {
                Some(other) if self.state(&other).is_some_and(holds_ports) => {
                    let life = self.containers.get(&other).map_or(0, |container| container.life);
                    Ok((Some((other, life)), None))
                }
                Some(other) => {
                    let message = format!("cannot join network of a non running container: {other}");
                    Err(EngineError::Conflict { message })
                }
                None => Err(EngineError::NotFound { what: format!("container {name}") }),
            },
        }
    }

    /// Whether a running container has the network of a life that is over.
    pub(crate) fn has_lost_its_network(&self, id: &RuntimeId) -> bool {
        let Some(container) = self.containers.get(id).filter(|container| holds_ports(container.state)) else {
            return false;
        };
        container.joined.as_ref().is_some_and(|(other, life)| {
            !self.containers.get(other).is_some_and(|other| holds_ports(other.state) && other.life == *life)
        })
    }

    /// What listens in a network that others hold: the one among those joined that is checked.
    pub(super) fn in_network_of(&self, holder: &RuntimeId, label: &str) -> Option<(ContainerState, HealthStatus)> {
        let mut joined = self.containers.iter().filter(|(id, container)| {
            container.joined.as_ref().is_some_and(|(other, _)| other == holder)
                && holds_ports(container.state)
                && container.config.labels.contains_key(label)
                && !self.has_lost_its_network(id)
        });
        joined.next().map(|(_, container)| (container.state, container.health))
    }
}
