//! What the loops are joined to: the outside, or the simulator's fleet.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    host::TransportError,
    store::{Keep, Store, StoreError},
};
use roadstead_core::{
    manifest::{Admission, SourceTree},
    model::{
        decision::Decision,
        desired::Desired,
        name::HostName,
        ownership::FleetKey,
        spec::host::HostSpec,
        state::{Change, State},
        time::Timestamp,
        world::{Plan, World},
    },
};

pub use super::http::Carrier;
use super::{certificates::Vault, connect::Connection};

/// Where durable things are kept.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Everything, as of one moment.
    async fn load(&self) -> Result<State, StoreError>;

    /// All of it or nothing, and durable when this returns.
    async fn commit(&self, changes: &[Change], decision: Option<&Decision>) -> Result<(), StoreError>;

    /// Forgets old history.
    async fn prune(&self) -> Result<(), StoreError>;
}

#[async_trait]
impl Ledger for Store {
    async fn load(&self) -> Result<State, StoreError> {
        Self::load(self).await
    }

    async fn commit(&self, changes: &[Change], decision: Option<&Decision>) -> Result<(), StoreError> {
        Self::commit(self, changes, decision).await.map(drop)
    }

    async fn prune(&self) -> Result<(), StoreError> {
        Self::prune(self, Keep::default()).await
    }
}

/// Makes ways to hosts.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Opens nothing yet: connections are made when first needed.
    ///
    /// # Errors
    /// When the manifest says too little; tried again later.
    async fn connect(&self, host: &HostName, spec: &HostSpec, desired: &Desired) -> Result<Connection, TransportError>;
}

/// Where manifests come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// All of them as they are now.
    ///
    /// # Errors
    /// In words; no evidence that nothing is wanted (S5).
    async fn read(&mut self) -> Result<SourceTree, String>;

    /// Resolves when they may have changed and whoever writes has finished. A hint: they are also read without it.
    async fn touched(&mut self);
}

/// Texts, and what is in force → what is wanted from now on.
pub type Admit = Arc<dyn Fn(&SourceTree, &Desired) -> Admission + Send + Sync>;

/// Sees each decision before it is written; the simulator's checks.
pub trait Witness: Send + Sync {
    /// `plan` is what was decided in `world`.
    fn decided(&self, world: &World, plan: &Plan);

    /// No plan was made in `world`: it would have been empty.
    fn was_quiet(&self, world: &World);
}

/// Everything that a controller is made of.
pub struct Parts {
    /// Where durable things are kept.
    pub ledger: Arc<dyn Ledger>,
    /// Makes ways to hosts.
    pub connector: Arc<dyn Connector>,
    /// Where manifests come from.
    pub source: Box<dyn Source>,
    /// Reads them.
    pub admit: Admit,
    /// Brings the questions of deployments to servers of others; over the network when absent.
    pub carrier: Option<Arc<dyn Carrier>>,
    /// Certificates and what opens them; without it none is read or made.
    pub vault: Option<Arc<Vault>>,
    /// The time.
    pub clock: Clock,
    /// Marks containers as this fleet's.
    pub key: FleetKey,
    /// The manifests' folder, for people.
    pub manifests: PathBuf,
    /// Take over a fleet that a controller with a higher epoch drove.
    pub take_over: bool,
    /// Sees each decision.
    pub witness: Option<Arc<dyn Witness>>,
}

/// The controller's clock: the wall's time when it started, moved on by the monotonic clock. A wall clock that is set
/// while the controller runs moves nothing here, so it cannot make hosts look silent; schedules are told how far it is.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Timestamp,
    since: Instant,
    /// Whether the system's wall clock is asked.
    has_wall: bool,
}

impl Clock {
    /// From the system's clocks.
    pub fn system() -> Self {
        Self { has_wall: true, ..Self::starting_at(wall()) }
    }

    /// It is `wall` now.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { started: wall, since: Instant::now(), has_wall: false }
    }

    /// Later than `newest`, the latest time that is on record: a wall clock that was set back between two runs would put
    /// everything known into the future, and what is heard in the very moment of a loss would not be news.
    pub fn not_before(self, newest: Timestamp) -> Self {
        Self { started: self.started.max(newest.plus_ms(1)), ..self }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.started.plus_ms(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// How far the machine's clock is ahead of this one, in whole seconds: it was set, or the machine slept.
    pub fn wall_ahead_ms(&self) -> i64 {
        if self.has_wall { seconds_ahead_ms(wall(), self.now()) } else { 0 }
    }
}

fn wall() -> Timestamp {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
}

fn seconds_ahead_ms(wall: Timestamp, ours: Timestamp) -> i64 {
    let ms = |later: Timestamp, earlier: Timestamp| i64::try_from(later.since_ms(earlier)).unwrap_or(i64::MAX);
    let ahead_ms = ms(wall, ours).saturating_sub(ms(ours, wall));
    ahead_ms - ahead_ms % 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_a_second_is_no_difference() {
        for (wall, ours, ahead) in
            [(5_000, 5_000, 0), (5_999, 5_000, 0), (5_000, 5_999, 0), (7_500, 5_000, 2_000), (5_000, 7_500, -2_000)]
        {
            assert_eq!(seconds_ahead_ms(Timestamp(wall), Timestamp(ours)), ahead, "{wall} {ours}");
        }
    }
}
