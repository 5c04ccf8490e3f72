//! What the API sees of the running controller: a picture that is always whole, and a short list of orders.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{engine::Engine, store::Store};
use roadstead_core::{
    model::{
        diagnostic::Diagnostic,
        name::HostName,
        report::Report,
        shared::Shared,
        spec::Kind,
        time::Timestamp,
        world::{Plan, World},
    },
    turn::{Command, CommandError},
};

use super::copy::Copies;

/// The controller at one moment, published after every decision.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What the planner was last told.
    pub world: World,
    /// The last plan's account of itself.
    pub report: Shared<Report>,
    /// What is wrong with the manifests now.
    pub diagnostics: Vec<Diagnostic>,
    /// The manifests' folder.
    pub manifests: PathBuf,
    /// When this controller started.
    pub started_at: Timestamp,
    /// Set when the controller must not act, and why: another controller drives this fleet (S7).
    pub fenced: Option<String>,
}

/// An order on its way, with where the answer goes: a sentence for the person.
pub type CommandEnvelope = (Command, oneshot::Sender<Result<String, CommandError>>);

/// What the API holds.
#[derive(Clone)]
pub struct Handle {
    /// The newest picture.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Orders, bounded.
    pub commands: mpsc::Sender<CommandEnvelope>,
    /// Engines of the declared hosts, for logs and exec.
    pub engines: watch::Receiver<Arc<BTreeMap<HostName, Arc<dyn Engine>>>>,
    /// How far copies of volumes are.
    pub copies: Copies,
    /// Events and decisions.
    pub store: Arc<Store>,
    /// The manifests' folder.
    pub manifests: PathBuf,
}

/// A question to the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WhatIf {
    /// Manifest texts by file name that replace or add to the watched ones.
    pub files: BTreeMap<String, String>,
    /// Images by the name of the placeholder that they stand for.
    pub images: BTreeMap<String, String>,
    /// They stand for all of the watched ones: what they lack is taken away.
    pub whole: bool,
}

/// The planner's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// What would happen.
    pub plan: Plan,
    /// What would be declared no longer: kind and name, in the order of [`KINDS`](roadstead_core::model::spec::KINDS).
    pub removed: Vec<(Kind, String)>,
    /// Warnings about the manifests.
    pub diagnostics: Vec<Diagnostic>,
}

/// See [`Handle::command`].
pub(super) async fn order(commands: &mpsc::Sender<CommandEnvelope>, command: Command) -> Result<String, CommandError> {
    let (answer, answered) = oneshot::channel();
    commands.try_send((command, answer)).map_err(|error| CommandError::Unavailable(error.to_string()))?;
    match tokio::time::timeout(std::time::Duration::from_secs(10), answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(CommandError::Unavailable("it is stopping".to_owned())),
        Err(_) => Err(CommandError::Unavailable("no answer within 10 s".to_owned())),
    }
}

impl Handle {
    /// Sends an order and waits for its answer.
    ///
    /// # Errors
    /// [`CommandError`], also when the controller does not answer within ten seconds.
    pub async fn command(&self, command: Command) -> Result<String, CommandError> {
        order(&self.commands, command).await
    }

    /// What would happen, by the planner itself; changes nothing.
    ///
    /// # Errors
    /// The diagnostics, when a text does not pass admission or the folder cannot be read.
    pub fn what_if(&self, question: &WhatIf) -> Result<Forecast, Vec<Diagnostic>> {
        super::what_if::answer(&self.snapshot(), &self.manifests, question)
    }

    /// The newest picture.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }
}
