//! The loops: the only place that joins the planner and the outside.
//!
//! ```text
//! ingest ─┐                                  ┌─▶ execute ─▶ engines
//! observe ┼─▶ driver: take → decide → commit ┤
//! api ────┘     (core: memory, no I/O)       └─▶ snapshot ─▶ api
//! ```
//! Each loop is woken by a period or a signal, does one bounded thing and never runs twice at once. The driver alone
//! writes: it commits what was decided before anything is sent (S8).

mod calls;
pub mod certificates;
pub mod connect;
mod copy;
mod driver;
mod edges;
mod execute;
mod fleet;
mod folder;
pub mod handle;
mod http;
pub mod images;
pub mod ingest;
mod key;
mod launches;
mod leftovers;
mod listen;
mod movers;
mod networks;
mod observe;
mod probe;
mod probes;
pub mod pulls;
mod rescan;
mod restore;
pub mod seams;
mod storage;
mod what_if;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    copy::{Copies, Reading, read_volume},
    driver::DriverError,
    key::KeyError,
    movers::image_for,
    restore::{RestoreError, restore_archive},
};
use self::{
    driver::Driver,
    fleet::{Engines, Fleet},
    folder::Folder,
    handle::{CommandEnvelope, Handle, Snapshot},
    ingest::Ingest,
    launches::Launches,
    movers::Movers,
    probes::Probes,
    rescan::{Rescan, Waiting},
    seams::{Clock, Parts},
};
use roadstead_core::turn::Core;

use crate::{
    crash_point::{self, Point, reach},
    net::NodeImage,
    store::{Store, StoreError},
};

/// How many inputs may wait.
const INPUTS: usize = 1_024;
/// How many orders of people may wait.
const COMMANDS: usize = 64;

/// What a controller is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The manifests' folder.
    pub manifests: PathBuf,
    /// The folder of database, lock and key.
    pub data: PathBuf,
    /// The fleet's key file, when it is not in `data`.
    pub fleet_key: Option<PathBuf>,
    /// The file of the key that private keys are sealed with, when it is neither systemd's credential nor beside `data`.
    pub seal_key: Option<PathBuf>,
    /// Take over a fleet that a controller with a higher epoch drove.
    pub take_over: bool,
    /// What the task network is made with, when no registry serves it.
    pub node_image: NodeImage,
}

/// Why a controller could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The fleet's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A crash point that does not exist.
    #[error("{0}")]
    CrashPoint(String),
    /// While it ran.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// A running controller.
pub struct Running {
    /// For the API.
    pub handle: Handle,
    driver: tokio::task::JoinHandle<Result<(), DriverError>>,
}

impl Running {
    /// Resolves when it has stopped and everything is written.
    ///
    /// # Errors
    /// Why it had to stop by itself.
    pub async fn stopped(self) -> Result<(), ControlError> {
        match self.driver.await {
            Ok(result) => Ok(result?),
            Err(error) => Err(DriverError::Died(error.to_string()).into()),
        }
    }
}

/// Starts a controller; it runs until `stop` is cancelled. Everything on the hosts goes on without it.
///
/// # Errors
/// [`ControlError`]: the database is locked or broken, the key unreadable.
pub async fn start(options: Options, stop: CancellationToken) -> Result<Running, ControlError> {
    crash_point::arm().map_err(ControlError::CrashPoint)?;
    let store = Arc::new(Store::open(&options.data).await?);
    let key = key::load_or_make(options.fleet_key.as_deref(), &options.data)?;
    let seal = certificates::Seal::new(options.seal_key, &options.data);
    let vault = Arc::new(certificates::Vault::new(seal, key.id().to_string()));
    let offered = Arc::clone(&vault);
    let parts = Parts {
        ledger: Arc::clone(&store) as Arc<dyn seams::Ledger>,
        connector: Arc::new(connect::RealHosts {
            key: Some(key.clone()),
            node_image: options.node_image,
            bundles: Some(Arc::clone(&vault) as _),
        }),
        source: Box::new(Folder::new(options.manifests.clone())),
        admit: Arc::new(move |tree, in_force| {
            let admission = ingest::admit(tree, in_force);
            offered.offer(&admission);
            admission
        }),
        carrier: None,
        vault: Some(vault),
        clock: Clock::system(),
        key,
        manifests: options.manifests.clone(),
        take_over: options.take_over,
        witness: None,
    };
    let loops = run(parts, stop).await?;
    let handle = Handle {
        snapshots: loops.snapshots,
        commands: loops.commands,
        engines: loops.engines,
        copies: loops.copies,
        store,
        manifests: options.manifests,
    };
    Ok(Running { handle, driver: loops.driver })
}

/// The running loops, whatever they are joined to.
pub struct Loops {
    /// What the controller sees and does.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Orders of people.
    pub commands: mpsc::Sender<CommandEnvelope>,
    /// Engines of the declared hosts.
    pub engines: watch::Receiver<Engines>,
    /// How far copies of volumes are.
    pub copies: Copies,
    /// Ends when the controller has stopped.
    pub driver: tokio::task::JoinHandle<Result<(), DriverError>>,
}

/// Joins the loops to `parts` and starts them.
///
/// # Errors
/// [`ControlError::Store`]: what is durable cannot be read, or the first row not be written.
pub async fn run(parts: Parts, stop: CancellationToken) -> Result<Loops, ControlError> {
    let state = parts.ledger.load().await?;
    reach(Point::StateLoaded);
    let clock = parts.clock.not_before(state.newest_time());
    let started_at = clock.now();
    let (core, changes) = Core::new(state, started_at.0, started_at, parts.take_over);
    parts.ledger.commit(&changes, None).await?;
    reach(Point::EpochCommitted);
    tracing::info!(epoch = core.world().state.fleet.epoch, fleet = %parts.key.id(), tasks = core.world().state.tasks.len(), "controller starts");

    let (inputs, waiting_inputs) = mpsc::channel(INPUTS);
    let (commands, waiting_commands) = mpsc::channel(COMMANDS);
    let (in_force, watch_in_force) = watch::channel(Arc::clone(&core.world().state.desired));
    let (snapshots, watch_snapshots) =
        watch::channel(Arc::new(Snapshot { started_at, manifests: parts.manifests.clone(), ..Snapshot::default() }));
    let rescan = Arc::new(Rescan::default());
    let movers = Movers::new(parts.key.clone());
    let fleet = Fleet::new(parts.connector, parts.key, clock.clone(), inputs.clone(), stop.child_token());
    let engines = fleet.engines();
    let ingest = Ingest {
        source: parts.source,
        admit: parts.admit,
        root: parts.manifests.clone(),
        in_force: watch_in_force,
        inputs: inputs.clone(),
        rescan: Arc::clone(&rescan),
        stop: stop.clone(),
    };
    let ingest = tokio::spawn(ingest.run());
    let copies = movers.copies.clone();
    let driver = Driver {
        movers,
        networks: Default::default(),
        edges: Default::default(),
        probes: Probes::default(),
        calls: calls::Calls::new(parts.carrier),
        vault: parts.vault,
        orders: certificates::acme::Orders::default(),
        core,
        ledger: parts.ledger,
        fleet,
        launches: Launches::default(),
        clock,
        inputs,
        waiting_inputs,
        waiting_commands,
        rescan,
        readers: Waiting::default(),
        in_force,
        snapshots,
        manifests: parts.manifests,
        started_at,
        witness: parts.witness,
        stop,
    };
    let driver = tokio::spawn(async move {
        let result = driver.run().await;
        ingest.abort();
        result
    });
    Ok(Loops { snapshots: watch_snapshots, commands, engines, copies, driver })
}
