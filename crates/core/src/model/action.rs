//! Orders to hosts, fully decided, and their answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    container::ContainerConfig,
    image::{ImagePullPolicy, ImageRequest, ResolvedImage},
    name::{ContainerName, HostName, RuntimeId, ServiceName, TaskId},
    time::Timestamp,
};

/// One order to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Action {
    /// The task it is about; with [`Verb::key`] what identifies it: never two of the same at once.
    pub task: TaskId,
    /// The task's service.
    pub service: ServiceName,
    /// Where.
    pub host: HostName,
    /// What.
    pub verb: Verb,
    /// Why, in words.
    pub reason: String,
}

/// What is ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Say what these images stand for: for the whole of the task's revision.
    Resolve {
        /// By reference.
        images: Vec<ImageRequest>,
        /// Ask the registry also for what is there already: a person wants it anew.
        fresh: bool,
    },
    /// Make these containers exist under their names, and start those that say so, in this order.
    Launch {
        /// In order.
        containers: Vec<LaunchStep>,
    },
    /// Stop these containers, wave by wave (each SIGTERM, its time-out, SIGKILL), then remove those that say so.
    Stop {
        /// By wave.
        containers: Vec<StopStep>,
    },
    /// Remove these ended or never started containers.
    Remove {
        /// By id.
        containers: Vec<RuntimeId>,
    },
    /// Stop and remove second containers of a task, whatever else it is ordered meanwhile.
    Tidy {
        /// In order.
        containers: Vec<StopStep>,
    },
    /// Remove volumes that an ended task left behind.
    Sweep {
        /// By name.
        volumes: Vec<String>,
    },
    /// Remove images that nothing uses; one that is in use after all stays.
    Prune {
        /// In this order.
        images: Vec<PrunedImage>,
    },
}

/// An image to remove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunedImage {
    /// By content id, so that what a name means by then changes nothing.
    pub id: String,
    /// Its size, for people.
    pub size_bytes: u64,
}

/// One container of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchStep {
    /// Its name in the task.
    pub container: ContainerName,
    /// What to create.
    pub config: ContainerConfig,
    /// Its id, when it exists already: then it is only started.
    pub runtime_id: Option<RuntimeId>,
    /// Whether to start it now.
    pub start: bool,
    /// Whether the task cannot be without it.
    pub needed: bool,
    /// When its registry is asked for the image.
    #[serde(default)]
    pub pull: ImagePullPolicy,
}

/// One container of a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopStep {
    /// By id.
    pub runtime_id: RuntimeId,
    /// From SIGTERM to SIGKILL.
    pub timeout_s: u32,
    /// Those of one wave stop at once, and before those of the next.
    pub wave: u32,
    /// Remove it afterwards.
    pub remove: bool,
}

/// Identifies an action that is under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActionKey {
    /// The task.
    pub task: TaskId,
    /// resolve, launch, stop, remove, tidy, sweep, prune.
    pub verb: VerbName,
}

/// A verb without its details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerbName {
    /// [`Verb::Resolve`].
    Resolve,
    /// [`Verb::Launch`].
    Launch,
    /// [`Verb::Stop`].
    Stop,
    /// [`Verb::Remove`].
    Remove,
    /// [`Verb::Tidy`].
    Tidy,
    /// [`Verb::Sweep`].
    Sweep,
    /// [`Verb::Prune`].
    Prune,
}

impl Action {
    /// What identifies it.
    pub fn key(&self) -> ActionKey {
        ActionKey { task: self.task.clone(), verb: self.verb.name() }
    }
}

impl Verb {
    /// Without its details.
    pub fn name(&self) -> VerbName {
        match self {
            Self::Resolve { .. } => VerbName::Resolve,
            Self::Launch { .. } => VerbName::Launch,
            Self::Stop { .. } => VerbName::Stop,
            Self::Remove { .. } => VerbName::Remove,
            Self::Tidy { .. } => VerbName::Tidy,
            Self::Sweep { .. } => VerbName::Sweep,
            Self::Prune { .. } => VerbName::Prune,
        }
    }
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Which order.
    pub key: ActionKey,
    /// Where.
    pub host: HostName,
    /// When the answer was here.
    pub at: Timestamp,
    /// The end.
    pub result: ActionResult,
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ActionResult {
    /// What the images stand for, by reference.
    Resolved {
        /// All that were asked for.
        images: BTreeMap<String, ResolvedImage>,
    },
    /// Done; for a launch the ids by container.
    Done {
        /// Containers that exist now.
        containers: Vec<(ContainerName, RuntimeId)>,
    },
    /// Images are gone.
    Pruned {
        /// Those that were removed.
        images: Vec<PrunedImage>,
        /// Ids of those that somebody uses.
        in_use: Vec<String>,
        /// Why it was ordered.
        why: String,
    },
    /// A launch that did all but what its task can be without.
    Partly {
        /// What the engine said, in words a person can act on.
        reason: String,
        /// Containers that exist now.
        containers: Vec<(ContainerName, RuntimeId)>,
    },
    /// The host refused, for good: this very order can never succeed.
    Failed {
        /// What the engine said, in words a person can act on.
        reason: String,
        /// Containers that exist nevertheless.
        containers: Vec<(ContainerName, RuntimeId)>,
    },
    /// Somebody removed a container of a launch before it was started: no order brings that one to life any more.
    Removed {
        /// What the engine said.
        reason: String,
        /// Containers that were made, that one included.
        containers: Vec<(ContainerName, RuntimeId)>,
    },
    /// Nothing was sent: no connection, or no room on the host's queue.
    NotSent {
        /// Why.
        reason: String,
    },
    /// Sent, and nobody knows (S9).
    Unknown {
        /// Why.
        reason: String,
    },
}
