//! The declared hosts as running observers and open connections.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    crash_point::{Point, reach},
    engine::Engine,
    net::NetError,
};
use roadstead_core::model::{
    desired::Desired,
    name::HostName,
    ownership::FleetKey,
    spec::{cluster::HostLoss, host::HostSpec},
};

use super::{
    connect::Connection,
    execute::HostSlots,
    observe::{Contacts, Observer},
    pulls::PullBoard,
    seams::{Clock, Connector},
};
use roadstead_core::turn::Input;

/// Pause before a host whose connection could not even be set up is tried again.
const CONNECT_AGAIN: Duration = Duration::from_secs(30);

/// A host that is no longer declared has so long to be left as it was found.
const LEAVE_WITHIN: Duration = Duration::from_secs(20);

/// Engines by host, as others may hold them.
pub type Engines = Arc<BTreeMap<HostName, Arc<dyn Engine>>>;

/// Watches and connects the declared hosts.
pub(super) struct Fleet {
    connector: Arc<dyn Connector>,
    pub(super) key: FleetKey,
    pub(super) clock: Clock,
    pub(super) contacts: Contacts,
    pub(super) board: PullBoard,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    hosts: BTreeMap<HostName, Member>,
    engines: watch::Sender<Engines>,
}

/// A host's own manifest, its cluster's limits, and the manifest of the host that it is reached through.
type Recipe = (HostSpec, HostLoss, Option<HostSpec>);

struct Member {
    /// What the connection was made from: when it changes, the connection is made anew.
    recipe: Recipe,
    connection: Option<Connection>,
    made_at: Instant,
    /// Made for the host's size when it is first ordered something.
    slots: OnceLock<HostSlots>,
    hint: Arc<Notify>,
    storage_hint: Arc<Notify>,
    stop: CancellationToken,
}

impl Member {
    fn is_due(&self) -> bool {
        self.connection.is_none() && self.made_at.elapsed() > CONNECT_AGAIN
    }
}

impl Fleet {
    pub(super) fn new(
        connector: Arc<dyn Connector>,
        key: FleetKey,
        clock: Clock,
        inputs: mpsc::Sender<Input>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            connector,
            key,
            clock,
            contacts: Contacts::default(),
            board: PullBoard::default(),
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
            self.leave(&host);
            changed = true;
        }
        for (host, manifest) in &desired.hosts {
            let loss = desired.strictest_host_loss(host);
            let jump = manifest.spec.ssh.proxy_jump.as_ref().and_then(|jump| desired.hosts.get(jump.as_str()));
            let recipe = (manifest.spec.clone(), loss, jump.map(|jump| jump.spec.clone()));
            if self.hosts.get(host).is_some_and(|member| member.recipe == recipe && !member.is_due()) {
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

    async fn connect(&self, host: &HostName, recipe: Recipe, desired: &Desired) -> Member {
        let (hint, storage_hint) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let stop = self.stop.child_token();
        reach(Point::Connecting);
        let connection = match self.connector.connect(host, &recipe.0, desired).await {
            Ok(connection) => {
                reach(Point::Connected);
                let observer = Observer {
                    host: host.clone(),
                    connection: connection.clone(),
                    loss: recipe.1,
                    key: self.key.clone(),
                    clock: self.clock.clone(),
                    contacts: self.contacts.clone(),
                    inputs: self.inputs.clone(),
                    hint: Arc::clone(&hint),
                    storage_hint: Arc::clone(&storage_hint),
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
        Member { recipe, connection, made_at: Instant::now(), slots: OnceLock::new(), hint, storage_hint, stop }
    }

    /// Leaves a host that is no longer declared as it was found, and then for good.
    fn leave(&mut self, host: &HostName) {
        let Some(member) = self.hosts.remove(host) else { return };
        self.contacts.remove(host);
        let Some(connection) = member.connection else {
            member.stop.cancel();
            return;
        };
        let host = host.clone();
        self.tasks.spawn(async move {
            if let Some(edge) = connection.edge {
                cleared(&host, "load balancers", edge.clear()).await;
            }
            if let Some(network) = connection.network {
                cleared(&host, "part of the task network", network.clear(true)).await;
            }
            member.stop.cancel();
        });
    }

    fn drop_member(&mut self, host: &HostName) {
        if let Some(member) = self.hosts.remove(host) {
            member.stop.cancel();
            self.contacts.remove(host);
        }
    }

    /// Whether a connection that could not be set up is to be tried again.
    pub(super) fn is_due(&self) -> bool {
        self.hosts.values().any(Member::is_due)
    }

    /// A host's engine and its slots, when it is connected; `cpus` as its engine told.
    pub(super) fn engine(&self, host: &HostName, cpus: u32) -> Option<(Arc<dyn Engine>, HostSlots)> {
        let member = self.hosts.get(host)?;
        let engine = Arc::clone(&member.connection.as_ref()?.engine);
        Some((engine, member.slots.get_or_init(|| HostSlots::new(cpus, Arc::clone(&member.storage_hint))).clone()))
    }

    /// A host's connection, and what ends with it.
    pub(super) fn connection(&self, host: &HostName) -> Option<(Connection, &CancellationToken)> {
        let member = self.hosts.get(host)?;
        Some((member.connection.clone()?, &member.stop))
    }

    /// Asks for a look at a host now.
    pub(super) fn hint(&self, host: &HostName) -> Option<Arc<Notify>> {
        self.hosts.get(host).map(|member| Arc::clone(&member.hint))
    }

    /// Asks for a look at a host's disk and images now.
    pub(super) fn storage_hint(&self, host: &HostName) -> Option<Arc<Notify>> {
        self.hosts.get(host).map(|member| Arc::clone(&member.storage_hint))
    }
}

/// Says what is left on a host that was to be as it was found.
async fn cleared(host: &HostName, what: &str, work: impl Future<Output = Result<(), NetError>>) {
    match timeout(LEAVE_WITHIN, work).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%host, %error, "its {what} is left there"),
        Err(_) => tracing::warn!(%host, "its {what} is left there: no answer"),
    }
}
