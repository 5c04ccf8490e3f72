//! One host's load balancers. [`HostEdge`] is the seam.

pub mod haproxy;
mod node;

use std::collections::BTreeMap;

use async_trait::async_trait;
use roadstead_core::model::{
    certificate::Hidden,
    name::{CertificateId, TargetGroupName, TaskId},
    traffic::{Edge, TargetSeen},
};

pub use node::HaproxyEdge;

use crate::net::NetError;

/// What an edge shows just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeState {
    /// What is not as it was last made, in words.
    pub drift: Option<String>,
    /// Its targets by group, those included that leave.
    pub targets: BTreeMap<TargetGroupName, BTreeMap<TaskId, TargetSeen>>,
}

/// Where certificates with their keys come from.
pub trait Bundles: Send + Sync {
    /// A certificate, those that vouch for it, and its key, as PEM. `digest`: what it must be by now.
    ///
    /// # Errors
    /// Why it cannot be had, in words without a secret.
    fn bundle(&self, id: &CertificateId, digest: &str) -> Result<Hidden, String>;
}

/// One host's load balancers.
#[async_trait]
pub trait HostEdge: Send + Sync {
    /// Whether load balancers of ours are there, whoever made them.
    async fn is_there(&self) -> Result<bool, NetError>;

    /// Makes them so, and returns when it is in force: a target that leaves gets no request any more.
    async fn apply(&self, wanted: &Edge) -> Result<(), NetError>;

    /// What they show, after `applied`; with `counts` also how long answers took.
    async fn look(&self, applied: &Edge, counts: bool) -> Result<EdgeState, NetError>;

    /// Takes them from the host.
    async fn clear(&self) -> Result<(), NetError>;
}
