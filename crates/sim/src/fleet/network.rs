//! The controller's way to one fake host's part of the task network.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ipnet::Ipv4Net;

use super::{FakeFleet, Link};
use crate::engine::machine::{Answer, NetworkChange, Request};
use roadstead_control::{
    engine::EngineError,
    net::{Applied, HostNet, NetError},
};
use roadstead_core::model::{name::SubnetName, network::HostNetwork};

/// As the real node's shell.
const TELL: Duration = Duration::from_secs(30);

/// [`HostNet`] over simulated time.
pub(crate) struct FakeNet {
    fleet: FakeFleet,
    link: Arc<Link>,
    /// Another one after each answer that was not good.
    session: AtomicU64,
}

impl FakeNet {
    pub(crate) fn new(fleet: FakeFleet, link: Arc<Link>) -> Self {
        let session = AtomicU64::new(next_session(&fleet));
        Self { fleet, link, session }
    }

    async fn tell(&self, what: &str, change: NetworkChange) -> Result<Applied, NetError> {
        let session = self.session.load(Ordering::Relaxed);
        let told = self.link.change(what, Request::Network(session, change), TELL).await;
        let error = match told {
            Ok(Answer::Network(applied)) => return Ok(applied),
            Ok(Answer::Created(_) | Answer::Done) => {
                return Err(NetError::Lost("an answer to something else".to_owned()));
            }
            Err(error) => error,
        };
        self.session.store(next_session(&self.fleet), Ordering::Relaxed);
        Err(match error {
            EngineError::ImageMissing { image, message } => NetError::NoNodeImage { image, why: message },
            EngineError::Conflict { message } => NetError::NotOurs(message),
            EngineError::OutcomeUnknown { reason, .. } => NetError::Lost(reason),
            other => NetError::Engine(other),
        })
    }
}

pub(super) fn next_session(fleet: &FakeFleet) -> u64 {
    fleet.ground(|ground| {
        ground.counters.sessions += 1;
        ground.counters.sessions
    })
}

#[async_trait]
impl HostNet for FakeNet {
    async fn look(&self) -> Result<BTreeMap<SubnetName, Ipv4Net>, NetError> {
        Ok(self.link.read("list networks", true, |host, _| host.machine.slices()).await?)
    }

    async fn apply(&self, wanted: &HostNetwork) -> Result<Applied, NetError> {
        self.tell("make the task network", NetworkChange::Apply(Arc::new(wanted.clone()))).await
    }

    async fn drift(&self, applied: &HostNetwork) -> Result<Option<String>, NetError> {
        let drifted = self.link.read("look at the task network", true, |host, _| host.machine.drift(applied)).await?;
        if drifted.is_some() {
            self.session.store(next_session(&self.fleet), Ordering::Relaxed);
        }
        Ok(drifted)
    }

    async fn clear(&self, _for_good: bool) -> Result<(), NetError> {
        self.tell("clear the task network", NetworkChange::Clear).await.map(drop)
    }
}
