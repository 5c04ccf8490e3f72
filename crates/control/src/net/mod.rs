//! One host's part of the task network: its networks, routes, rules and names. [`HostNet`] is the seam; [`NodeNet`] makes it
//! so through the host's engine alone.
//!
//! All that touches the host runs in one container of ours, the node (see [`node`]): it puts back what it was last told when
//! its host reboots, with the controller away. What it is told is rendered by pure functions: [`nft`] the rules, [`names`]
//! the answers to names, [`tunnel`] the encrypted way to other hosts, [`script`] the rest and how they come into force.

pub mod lan;
pub mod names;
pub mod nft;
mod node;
pub(crate) mod ours;
mod sandboxes;
pub mod script;
pub(crate) mod session;
pub mod tunnel;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use roadstead_core::model::{name::SubnetName, network::HostNetwork, wireguard::PublicKey};

pub use node::NodeNet;
pub use ours::NodeImage;

use crate::engine::EngineError;

/// Why a host's part of the task network is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The engine did not do it. Try again.
    #[error("{0}")]
    Engine(#[from] EngineError),
    /// The host has no node image, and cannot get it. A person must act.
    #[error(
        "it has no image `{image}` and cannot pull it ({why}): build it with deploy/node-image/build and give it to the \
         controller with --node-image, or say where it is served in the cluster's `network.nodeImage`"
    )]
    NoNodeImage {
        /// Its name.
        image: String,
        /// In words.
        why: String,
    },
    /// Something of that name is there that is not ours. A person must act.
    #[error("{0}")]
    NotOurs(String),
    /// The node did not do what it was told. Try again.
    #[error("{what}: {said}")]
    Refused {
        /// What it was told.
        what: String,
        /// Its words.
        said: String,
    },
    /// The node's shell ended, or did not answer. Try again, all of it.
    #[error("the node's shell is gone: {0}")]
    Lost(String),
}

/// What came of making a host's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The host's public key, if it has one.
    pub public_key: Option<PublicKey>,
    /// Tasks on a LAN in whose namespaces no rules could be put: what is there begins shut, and the rest of the host is as it
    /// should be.
    pub left_out: BTreeSet<Ipv4Addr>,
}

/// One host's part of the task network.
#[async_trait]
pub trait HostNet: Send + Sync {
    /// Our networks that are there, whoever made them.
    async fn look(&self) -> Result<BTreeMap<SubnetName, Ipv4Net>, NetError>;

    /// Makes the host's part so, and returns when it is in force. Rules change in one transaction (S11).
    async fn apply(&self, wanted: &HostNetwork) -> Result<Applied, NetError>;

    /// What is no longer as it was applied, in words; nothing when all of it is.
    async fn drift(&self, applied: &HostNetwork) -> Result<Option<String>, NetError>;

    /// Leaves the host as it was found: nothing of ours in its networks, routes and tables; `for_good`, nothing is made there
    /// any more. While a container has one of the networks everything stays: what runs is not left without rules.
    async fn clear(&self, for_good: bool) -> Result<(), NetError>;
}
