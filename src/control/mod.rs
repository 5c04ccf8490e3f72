//! The loops: the only place that joins the planner and the outside.
//!
//! ```text
//! ingest ─┐                                  ┌─▶ execute ─▶ engines
//! observe ┼─▶ driver: take → decide → commit ┤
//! api ────┘     (core: memory, no I/O)       └─▶ snapshot ─▶ api
//! ```
//! Each loop is woken by a period or a signal, does one bounded thing and never runs twice at once. The driver alone
//! writes: it commits what was decided before anything is sent (S8).

pub mod connect;
pub mod core;
mod driver;
mod execute;
mod fleet;
pub mod handle;
pub mod ingest;
mod key;
mod observe;
mod seams;
mod what_if;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::{
    core::Core,
    driver::Driver,
    fleet::Fleet,
    handle::{Handle, Snapshot},
    ingest::Ingest,
};
pub use self::{driver::DriverError, key::KeyError, seams::Clock};
use crate::store::{Store, StoreError};

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
    /// Take over a fleet that a controller with a higher epoch drove.
    pub take_over: bool,
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
    let clock = Clock::system();
    let store = Arc::new(Store::open(&options.data).await?);
    let key = key::load_or_make(options.fleet_key.as_deref(), &options.data)?;
    let state = store.load().await?;
    let clock = clock.not_before(state.newest_time());
    let started_at = clock.now();
    let (core, changes) = Core::new(state, started_at.0, started_at, options.take_over);
    store.commit(&changes, None).await?;
    tracing::info!(epoch = core.world().state.fleet.epoch, fleet = %key.id(), tasks = core.world().state.tasks.len(), "controller starts");

    let (inputs, waiting_inputs) = mpsc::channel(INPUTS);
    let (commands, waiting_commands) = mpsc::channel(COMMANDS);
    let (in_force, watch_in_force) = watch::channel(Arc::clone(&core.world().state.desired));
    let (snapshots, watch_snapshots) =
        watch::channel(Arc::new(Snapshot { started_at, manifests: options.manifests.clone(), ..Snapshot::default() }));
    let rescan = Arc::new(Notify::new());
    let fleet = Fleet::new(key, clock.clone(), inputs.clone(), stop.child_token());
    let handle = Handle {
        snapshots: watch_snapshots,
        commands,
        engines: fleet.engines(),
        store: Arc::clone(&store),
        manifests: options.manifests.clone(),
    };

    let ingest = Ingest {
        root: options.manifests.clone(),
        in_force: watch_in_force,
        inputs: inputs.clone(),
        rescan: Arc::clone(&rescan),
        stop: stop.clone(),
    };
    let ingest = tokio::spawn(ingest.run());
    let driver = Driver {
        core,
        store,
        fleet,
        clock,
        inputs,
        waiting_inputs,
        waiting_commands,
        rescan,
        in_force,
        snapshots,
        manifests: options.manifests,
        started_at,
        stop,
    };
    let driver = tokio::spawn(async move {
        let result = driver.run().await;
        ingest.abort();
        result
    });
    Ok(Running { handle, driver })
}
