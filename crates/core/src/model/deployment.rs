//! Deployments of a service: what is remembered of each.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    call::Turn,
    name::{HostName, RevisionId, TaskId},
    time::Timestamp,
    traffic::Answers,
};

/// ECS's deployment `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeploymentStatus {
    /// The newest.
    Primary,
    /// Older, with tasks still running.
    Active,
    /// Over.
    Inactive,
}

/// ECS's `rolloutState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    /// Under way.
    InProgress,
    /// Steady.
    Completed,
    /// Given up.
    Failed,
}

/// What ended a deployment: exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Outcome {
    /// It completed.
    Succeeded,
    /// It failed.
    Failed,
    /// It failed and the service is back at the last completed revision.
    RolledBack,
    /// A newer one took over.
    Superseded,
}

impl Outcome {
    /// The word for it, everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::RolledBack => "ROLLED_BACK",
            Self::Superseded => "SUPERSEDED",
        }
    }
}

/// ECS's lifecycle stages of a deployment whose revisions take turns in two target groups, in their order.
///
/// Rule: "Lifecycle stages for Amazon ECS service deployments", ECS developer guide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LifecycleStage {
    /// What earlier deployments left on the side of the new revision goes.
    ReconcileService,
    /// Nothing of the new revision was started yet.
    PreScaleUp,
    /// It is started, all of it.
    ScaleUp,
    /// All of it is healthy.
    PostScaleUp,
    /// The test listener turns to it.
    TestTrafficShift,
    /// The test listener shows it.
    PostTestTrafficShift,
    /// The requests of clients turn to it.
    ProductionTrafficShift,
    /// It gets them all.
    PostProductionTrafficShift,
    /// The old revision is ready to take them back.
    BakeTime,
    /// The old revision goes.
    CleanUp,
}

impl LifecycleStage {
    /// The word for it, everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReconcileService => "RECONCILE_SERVICE",
            Self::PreScaleUp => "PRE_SCALE_UP",
            Self::ScaleUp => "SCALE_UP",
            Self::PostScaleUp => "POST_SCALE_UP",
            Self::TestTrafficShift => "TEST_TRAFFIC_SHIFT",
            Self::PostTestTrafficShift => "POST_TEST_TRAFFIC_SHIFT",
            Self::ProductionTrafficShift => "PRODUCTION_TRAFFIC_SHIFT",
            Self::PostProductionTrafficShift => "POST_PRODUCTION_TRAFFIC_SHIFT",
            Self::BakeTime => "BAKE_TIME",
            Self::CleanUp => "CLEAN_UP",
        }
    }

    /// What follows; none after the last.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::ReconcileService => Some(Self::PreScaleUp),
            Self::PreScaleUp => Some(Self::ScaleUp),
            Self::ScaleUp => Some(Self::PostScaleUp),
            Self::PostScaleUp => Some(Self::TestTrafficShift),
            Self::TestTrafficShift => Some(Self::PostTestTrafficShift),
            Self::PostTestTrafficShift => Some(Self::ProductionTrafficShift),
            Self::ProductionTrafficShift => Some(Self::PostProductionTrafficShift),
            Self::PostProductionTrafficShift => Some(Self::BakeTime),
            Self::BakeTime => Some(Self::CleanUp),
            Self::CleanUp => None,
        }
    }
}

/// How far a deployment is whose revisions take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Its lifecycle stage.
    pub name: LifecycleStage,
    /// Since when.
    pub since: Timestamp,
    /// When every edge was seen to send requests where the stage wants them, at its present step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown_at: Option<Timestamp>,
}

/// A lifecycle hook that began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookRun {
    /// At this stage.
    pub stage: LifecycleStage,
    /// Which of the manifest's, from 0.
    pub index: usize,
    /// When.
    pub since: Timestamp,
    /// The task that tells; none: a person does, or a server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// When the server that tells is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
    /// The server said that it failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// It succeeded, or a person was asked.
    pub done: bool,
}

/// A query of an alarm that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryRun {
    /// Its name in the manifest.
    pub name: String,
    /// How often in a row it had a result.
    #[serde(default)]
    pub fired: u32,
    /// When it is asked.
    pub turn: Turn,
}

impl Stage {
    /// It begins.
    pub fn begin(name: LifecycleStage, since: Timestamp) -> Self {
        Self { name, since, shown_at: None }
    }
}

/// One deployment of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Unique for the service, growing.
    pub id: u64,
    /// What it deploys.
    pub revision: RevisionId,
    /// PRIMARY, ACTIVE, INACTIVE.
    pub status: DeploymentStatus,
    /// How it goes.
    pub rollout_state: RolloutState,
    /// In words.
    pub rollout_state_reason: String,
    /// What ended it.
    pub outcome: Option<Outcome>,
    /// Tasks of it that failed before they were healthy, as the circuit breaker counts them. What earlier versions counted
    /// under `failedTasks` they counted by another rule.
    #[serde(default, rename = "breakerCount")]
    pub failed_tasks: u32,
    /// It takes the service back from this deployment, and is itself never rolled back (S17).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<u64>,
    /// It replaces tasks of its own revision, too: a person said so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
    /// Since when a person lets it stand still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<Timestamp>,
    /// Since when a task of it has found no host, or when that was last counted as a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplaced_at: Option<Timestamp>,
    /// Where its revision takes turns with the one in service: how far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The lifecycle hooks that began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRun>,
    /// The queries of its alarms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<QueryRun>,
    /// How requests were answered meanwhile.
    #[serde(default, skip_serializing_if = "Analysis::is_empty")]
    pub analysis: Analysis,
    /// Start.
    pub created_at: Timestamp,
    /// Last change.
    pub updated_at: Timestamp,
}

/// How the requests of a service were answered during one of its deployments, as its load balancers counted them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Analysis {
    /// By tasks of the deployment.
    pub new: Answers,
    /// By others of the service.
    pub old: Answers,
    /// What each edge had counted of each task when that was last added; of a deployment that is under way.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub counted: BTreeMap<HostName, BTreeMap<TaskId, Answers>>,
}

impl Analysis {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `120 requests, 6 failed (5 %), p50 12 ms, p99 80 ms; of 900 to other revisions 0 %, p50 9 ms, p99 30 ms`; none while
    /// there were no requests.
    pub fn words(&self) -> Option<String> {
        let (new, old) = (self.new, self.old);
        let share = |of: Answers| percent(u32::try_from(of.errors_per_mille()).unwrap_or(u32::MAX));
        let took = |of: Answers| match (of.latency.percentile_ms(50), of.latency.percentile_ms(99)) {
            (Some(p50), Some(p99)) => format!(", p50 {p50} ms, p99 {p99} ms"),
            (_, _) => String::new(),
        };
        let of_new = || format!("{} requests, {} failed ({}){}", new.requests, new.errors, share(new), took(new));
        match (new.requests, old.requests) {
            (0, _) => None,
            (_, 0) => Some(of_new()),
            (_, others) => Some(format!("{}; of {others} to other revisions {}{}", of_new(), share(old), took(old))),
        }
    }
}

/// `12.5 %`.
pub fn percent(per_mille: u32) -> String {
    match per_mille % 10 {
        0 => format!("{} %", per_mille / 10),
        tenth => format!("{}.{tenth} %", per_mille / 10),
    }
}

impl Deployment {
    /// Since when and why it is paused, in words.
    pub fn paused_words(&self) -> Option<String> {
        let paused_at = self.paused_at?;
        let hook = self.hooks.iter().find(|hook| hook.task.is_none() && hook.turn.is_none() && hook.since == paused_at);
        Some(match hook {
            Some(hook) => format!("its hook at {} waits for a person to continue it", hook.stage.word()),
            None => "a person paused it".to_owned(),
        })
    }

    /// Whether it replaces nothing, and only healing goes on: a person paused it, or it failed and nothing takes it back.
    pub fn stands_still(&self) -> bool {
        match self.rollout_state {
            RolloutState::InProgress => self.paused_at.is_some(),
            RolloutState::Completed => false,
            // A failed rollback goes on: there is no better revision to run.
            RolloutState::Failed => self.rollback_of.is_none(),
        }
    }
}

/// Another revision than the one that the manifests ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// What the manifests ask for; once they ask for something else, the pin is over.
    pub instead_of: RevisionId,
    /// What the service runs.
    pub revision: RevisionId,
    /// Why, in words.
    pub reason: String,
}

/// A deployment that a person asked for, of what the service runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Again {
    /// Every task is replaced, once it is known what its images stand for by now.
    Resolve,
    /// Every task is replaced.
    Restart,
    /// What failed is tried once more.
    Retry,
}
