//! Deployments of services.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        name::ServiceName,
        state::{Deployment, DeploymentStatus, LifecycleStage, Outcome, RolloutState, ServiceRecord, State},
        time::Timestamp,
        traffic::Answers,
        world::World,
    },
    plan::breaker,
};

use super::service::{Counts, desired_count};

/// Requests, as load balancers counted them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestsView {
    /// How many there were.
    pub total: u64,
    /// Of these were answered with 5xx, or not at all.
    pub failed: u64,
    /// Half of the answers of HTTP began within so many milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<u64>,
    /// 99 of 100 did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<u64>,
}

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentView {
    /// Unique in the fleet.
    pub id: String,
    /// Its service.
    pub service: String,
    /// PRIMARY, ACTIVE, INACTIVE.
    #[schema(value_type = String)]
    pub status: DeploymentStatus,
    /// IN_PROGRESS, COMPLETED, FAILED.
    #[schema(value_type = String)]
    pub rollout_state: RolloutState,
    /// In words.
    pub rollout_state_reason: String,
    /// SUCCEEDED, FAILED, ROLLED_BACK, SUPERSEDED; none while it goes on.
    #[schema(value_type = Option<String>)]
    pub outcome: Option<Outcome>,
    /// Lifecycle stage of a deployment whose revision takes turns with another one.
    pub stage: Option<String>,
    /// Of 1,000 requests of clients, how many go to its revision just now; none where it takes no turns.
    pub traffic_per_mille: Option<u32>,
    /// How its requests were answered, where load balancers counted them.
    pub requests: Option<RequestsView>,
    /// How those to other revisions of the service were answered meanwhile.
    pub other_requests: Option<RequestsView>,
    /// `family:revision`.
    pub task_definition: String,
    /// Tasks that it is to have in the end.
    pub desired_count: u32,
    /// Tasks of it that run.
    pub running_count: u32,
    /// Tasks of it that are on their way.
    pub pending_count: u32,
    /// Tasks of it that failed before they were healthy, as the circuit breaker counts them.
    pub failed_tasks: u32,
    /// So many of them end it; none when nobody counts.
    pub failure_threshold: Option<u32>,
    /// The deployment from which it takes the service back.
    pub rollback_of: Option<String>,
    /// A person lets it stand still.
    pub paused: bool,
    /// Start.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Last change.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// All that are remembered, by service, newest first.
pub fn list(snapshot: &Snapshot, service: Option<&str>) -> Vec<DeploymentView> {
    let world = &snapshot.world;
    let records =
        world.state.services.values().filter(|record| service.is_none_or(|name| name == record.name.as_str()));
    records.flat_map(|record| of_service(world, &record.name)).collect()
}

/// Those of one service, newest first.
pub(super) fn of_service(world: &World, service: &ServiceName) -> Vec<DeploymentView> {
    let Some(record) = world.state.services.get(service) else { return Vec::new() };
    record
        .deployments
        .iter()
        .enumerate()
        .map(|(index, deployment)| {
            // A rollback deploys an older revision again: its tasks belong to the newest deployment of it.
            let newest =
                record.deployments.iter().position(|other| other.revision == deployment.revision) == Some(index);
            let shown = view(&world.state, service, deployment, newest);
            DeploymentView { rollout_state_reason: reason(world, record, index), ..shown }
        })
        .collect()
}

/// Why it stands as it does, with the failures of the one that is under way.
fn reason(world: &World, record: &ServiceRecord, index: usize) -> String {
    let told = record.deployments.get(index).map(|deployment| deployment.rollout_state_reason.clone());
    let threshold = breaker::threshold_of(&world.state, &record.name);
    let failures = (index == 0).then(|| breaker::count_in_words(record, threshold, world.now)).flatten();
    let paused = record.deployments.get(index).and_then(Deployment::paused_words);
    let answered = record.deployments.get(index).and_then(|deployment| deployment.analysis.words());
    let parts: Vec<String> =
        told.into_iter().chain(failures).chain(paused).chain(answered).filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

fn traffic_per_mille(state: &State, service: &ServiceName, deployment: &Deployment) -> Option<u32> {
    let (stage, shift) = (deployment.stage?, state.services.get(service)?.shift.unwrap_or_default());
    match deployment.status {
        DeploymentStatus::Primary if stage.name < LifecycleStage::CleanUp => Some(shift.share(shift.live.other())),
        DeploymentStatus::Primary => Some(shift.share(shift.live)),
        DeploymentStatus::Active | DeploymentStatus::Inactive => None,
    }
}

fn counted(answers: Answers) -> Option<RequestsView> {
    let Answers { requests, errors, latency } = answers;
    let view = RequestsView {
        total: requests,
        failed: errors,
        p50_ms: latency.percentile_ms(50),
        p99_ms: latency.percentile_ms(99),
    };
    (requests > 0).then_some(view)
}

fn view(state: &State, service: &ServiceName, deployment: &Deployment, newest: bool) -> DeploymentView {
    let counts = match newest {
        true => Counts::of(state, service, Some(&deployment.revision)),
        false => Counts::default(),
    };
    DeploymentView {
        id: deployment.id.to_string(),
        service: service.to_string(),
        status: deployment.status,
        rollout_state: deployment.rollout_state,
        rollout_state_reason: deployment.rollout_state_reason.clone(),
        outcome: deployment.outcome,
        stage: deployment.stage.map(|stage| stage.name.word().to_owned()),
        traffic_per_mille: traffic_per_mille(state, service, deployment),
        requests: counted(deployment.analysis.new),
        other_requests: counted(deployment.analysis.old),
        task_definition: deployment.revision.to_string(),
        desired_count: match deployment.status {
            DeploymentStatus::Primary => desired_count(state, service),
            DeploymentStatus::Active | DeploymentStatus::Inactive => 0,
        },
        running_count: counts.running,
        pending_count: counts.pending,
        failed_tasks: deployment.failed_tasks,
        failure_threshold: breaker::threshold_of(state, service),
        rollback_of: deployment.rollback_of.map(|id| id.to_string()),
        paused: deployment.paused_at.is_some(),
        created_at: deployment.created_at,
        updated_at: deployment.updated_at,
    }
}
