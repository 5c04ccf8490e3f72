//! The controller's way to one fake host's load balancers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{FakeFleet, Ground, Link, network::next_session};
use crate::engine::machine::{EdgeChange, Request};
use roadstead_control::{
    engine::EngineError,
    lb::{EdgeState, HostEdge},
    net::NetError,
};
use roadstead_core::model::{
    name::TaskId,
    traffic::{Edge, TargetHealth, TargetSeen},
};

/// As the real one's shell.
const TELL: Duration = Duration::from_secs(30);
/// One task of so many has a client that never ends: it goes when its time is over.
const ONE_IS_BUSY: u64 = 5;

/// [`HostEdge`] over simulated time.
pub(crate) struct FakeEdge {
    fleet: FakeFleet,
    link: Arc<Link>,
    /// Another one after each answer that was not good.
    session: AtomicU64,
}

impl FakeEdge {
    pub(crate) fn new(fleet: FakeFleet, link: Arc<Link>) -> Self {
        let session = AtomicU64::new(next_session(&fleet));
        Self { fleet, link, session }
    }

    async fn tell(&self, what: &str, change: EdgeChange) -> Result<(), NetError> {
        let session = self.session.load(Ordering::Relaxed);
        let told = self.link.change(what, Request::Edge(session, change), TELL).await;
        told.map(drop).map_err(|error| {
            self.session.store(next_session(&self.fleet), Ordering::Relaxed);
            match error {
                EngineError::OutcomeUnknown { reason, .. } => NetError::Lost(reason),
                other => NetError::Engine(other),
            }
        })
    }
}

#[async_trait]
impl HostEdge for FakeEdge {
    async fn is_there(&self) -> Result<bool, NetError> {
        Ok(self.link.read("look for load balancers", true, |host, _| host.machine.balancers.shown.is_some()).await?)
    }

    async fn apply(&self, wanted: &Edge) -> Result<(), NetError> {
        self.tell("show load balancers", EdgeChange::Apply(Arc::new(wanted.clone()))).await
    }

    async fn look(&self, applied: &Edge, _: bool) -> Result<EdgeState, NetError> {
        let answering: BTreeMap<TaskId, bool> = self.fleet.ground(|ground| {
            let tasks = applied.groups.values().flat_map(|group| group.targets.keys());
            tasks.map(|task| (task.clone(), answers(ground, task))).collect()
        });
        let shown =
            self.link.read("look at load balancers", true, |host, _| host.machine.balancers.shown.clone()).await?;
        if shown.as_deref() != Some(applied) {
            self.session.store(next_session(&self.fleet), Ordering::Relaxed);
            return Ok(EdgeState { drift: Some("they show something else".to_owned()), ..EdgeState::default() });
        }
        let seen = |task: &TaskId| {
            let (health, reason) = match answering.get(task) {
                Some(true) => (TargetHealth::Healthy, None),
                Some(false) | None => (TargetHealth::Unhealthy, Some("connection refused".to_owned())),
            };
            let lot = task.as_str().bytes().fold(7_u64, |lot, byte| lot.wrapping_mul(31).wrapping_add(byte.into()));
            TargetSeen { health, reason, idle: lot % ONE_IS_BUSY != 0, answers: None }
        };
        let targets = applied
            .groups
            .iter()
            .map(|(name, group)| (name.clone(), group.targets.keys().map(|task| (task.clone(), seen(task))).collect()))
            .collect();
        Ok(EdgeState { drift: None, targets })
    }

    async fn clear(&self) -> Result<(), NetError> {
        self.tell("remove load balancers", EdgeChange::Clear).await
    }
}

/// Whether a task takes requests: something of it runs.
fn answers(ground: &Ground, task: &TaskId) -> bool {
    ground
        .hosts
        .values()
        .any(|host| host.there && host.containers().any(|(_, claim, state, _)| claim.task == *task && state.is_live()))
}
