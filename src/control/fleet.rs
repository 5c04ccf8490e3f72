//! The declared hosts as running observers and open connections.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    engine::Engine,
    model::{
        desired::Desired,
        name::HostName,
        ownership::FleetKey,
        spec::{
            cluster::HostLoss,
            host::{HostSpec, SshSpec},
        },
    },
};

use super::{
    connect::{self, Connection},
    core::Input,
    execute::HostSlots,
    observe::{Contacts, Observer},
    seams::Clock,
};

/// Engines by host, as others may hold them.
pub type Engines = Arc<BTreeMap<HostName, Arc<dyn Engine>>>;

/// Watches and connects the declared hosts.
pub(super) struct Fleet {
    pub(super) key: FleetKey,
    pub(super) clock: Clock,
    pub(super) contacts: Contacts,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    hosts: BTreeMap<HostName, Member>,
    engines: watch::Sender<Engines>,
}

struct Member {
    /// What the connection was made from: when it changes, the connection is made anew.
    recipe: (HostSpec, HostLoss, Vec<SshSpec>),
    connection: Option<Connection>,
    slots: HostSlots,
    hint: Arc<Notify>,
    stop: CancellationToken,
}

impl Fleet {
    pub(super) fn new(key: FleetKey, clock: Clock, inputs: mpsc::Sender<Input>, stop: CancellationToken) -> Self {
        Self {
            key,
            clock,
            contacts: Contacts::default(),
            inputs,
            tasks: TaskTracker::new(),
            stop,
            hosts: BTreeMap::new(),
            engines: watch::Sender::new(Arc::default()),
        }
    }

    /// For readers of logs and the like.
    pub(super) fn engines(&self) -> watch::Receiver<Engines> {
        self.engines.subscribe()
    }

    /// Makes observers and connections follow the declared hosts.
    pub(super) async fn follow(&mut self, desired: &Desired) {
        let mut changed = false;
        let gone: Vec<HostName> =
            self.hosts.keys().filter(|host| !desired.hosts.contains_key(*host)).cloned().collect();
        for host in gone {
            self.drop_member(&host);
            changed = true;
        }
        for (host, manifest) in &desired.hosts {
            let loss = desired.cluster(&manifest.spec.cluster).host_loss;
            let jumps = manifest
                .spec
                .ssh
                .proxy_jump
                .iter()
                .filter_map(|jump| desired.hosts.get(jump.as_str()))
                .map(|jump| jump.spec.ssh.clone())
                .collect();
            let recipe = (manifest.spec.clone(), loss, jumps);
            if self.hosts.get(host).is_some_and(|member| member.recipe == recipe) {
                continue;
            }
            self.drop_member(host);
            let member = self.connect(host, recipe, desired).await;
            self.hosts.insert(host.clone(), member);
            changed = true;
        }
        if changed {
            let engines = self
                .hosts
                .iter()
                .filter_map(|(host, member)| Some((host.clone(), Arc::clone(&member.connection.as_ref()?.engine))))
                .collect();
            self.engines.send_replace(Arc::new(engines));
        }
    }

    async fn connect(&self, host: &HostName, recipe: (HostSpec, HostLoss, Vec<SshSpec>), desired: &Desired) -> Member {
        let hint = Arc::new(Notify::new());
        let stop = self.stop.child_token();
        let seed = host.as_str().bytes().fold(0_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let connection = match connect::connection(&recipe.0, desired, seed).await {
            Ok(connection) => {
                let observer = Observer {
                    host: host.clone(),
                    connection: connection.clone(),
                    loss: recipe.1,
                    key: self.key.clone(),
                    clock: self.clock.clone(),
                    contacts: self.contacts.clone(),
                    inputs: self.inputs.clone(),
                    hint: Arc::clone(&hint),
                    stop: stop.clone(),
                };
                self.tasks.spawn(observer.run());
                Some(connection)
            }
            Err(error) => {
                tracing::error!(%host, %error, "this host cannot be connected");
                self.contacts.fail(host, self.clock.now(), error.to_string());
                None
            }
        };
        Member { recipe, connection, slots: HostSlots::default(), hint, stop }
    }

    fn drop_member(&mut self, host: &HostName) {
        if let Some(member) = self.hosts.remove(host) {
            member.stop.cancel();
        }
    }

    /// A host's engine and its slots, when it is connected.
    pub(super) fn engine(&self, host: &HostName) -> Option<(Arc<dyn Engine>, HostSlots)> {
        let member = self.hosts.get(host)?;
        Some((Arc::clone(&member.connection.as_ref()?.engine), member.slots.clone()))
    }

    /// Asks for a look at a host now.
    pub(super) fn hint(&self, host: &HostName) -> Option<Arc<Notify>> {
        self.hosts.get(host).map(|member| Arc::clone(&member.hint))
    }
}
