//! Alarms that are queries of a Prometheus: each is asked as long as the deployment is watched.
//!
//! Who does not answer says nothing: the deployment goes on, and it is told that nobody watches it.

use super::analysis;
use crate::model::{
    call::Turn,
    deployment::{Deployment, QueryRun},
    spec::strategy::DeploymentAlarms,
    state::ServiceRecord,
    time::Timestamp,
    world::Subject,
};
use crate::plan::draft::{Draft, ServiceNo};

/// So often nobody answers before it is told.
const TOLD_AFTER: u32 = 3;

/// What takes the service back is not watched: it is never taken back itself (S17), and what fired may do so for a while.
fn is_watched(deployment: &Deployment) -> bool {
    analysis::is_watched(deployment) && deployment.rollback_of.is_none()
}

/// The first questions.
fn begin(alarms: &DeploymentAlarms, now: Timestamp) -> Vec<QueryRun> {
    let queries = alarms.prometheus.iter().filter(|_| alarms.enable).flat_map(|prometheus| &prometheus.queries);
    queries.map(|query| QueryRun { name: query.name.clone(), fired: 0, turn: Turn::first(now) }).collect()
}

/// Begins to ask what is not asked yet, and sees to it that the next question is not forgotten.
pub(in crate::plan) fn watch(draft: &mut Draft<'_>, no: ServiceNo) {
    let service = &draft.services[no];
    let alarms = &service.manifest.spec.deployment_configuration.alarms;
    let Some(prometheus) = alarms.prometheus.as_ref().filter(|_| alarms.enable) else { return };
    let Some(primary) = service.record().and_then(ServiceRecord::primary).filter(|it| is_watched(it)) else { return };
    let now = draft.now();
    let name = service.name.clone();
    let known = |name: &str| primary.queries.iter().find(|run| run.name == name).cloned();
    let runs: Vec<QueryRun> = begin(alarms, now).into_iter().map(|run| known(&run.name).unwrap_or(run)).collect();
    let is_new = runs != primary.queries;
    let next = runs.iter().map(|run| run.turn.at).filter(|at| *at > now).min();
    let silent = runs.iter().find(|run| run.turn.unanswered >= TOLD_AFTER).cloned();
    let url = prometheus.url.clone();
    if is_new {
        draft.services[no].change(|record| {
            if let Some(primary) = record.deployments.first_mut() {
                primary.queries = runs;
            }
        });
    }
    if let Some(at) = next {
        draft.wake_at(at);
    }
    if let Some(run) = silent {
        let said = run.turn.said.unwrap_or_default();
        let reason = format!("the alarm {} does not watch its deployment: {url}: {said}", run.name);
        draft.waiting(
            Subject::Service(name),
            reason,
            "it answers; the deployment goes on meanwhile",
            Some(run.turn.at),
        );
    }
}

/// Why a deployment is to end, if one of its queries had a result often enough.
pub(super) fn fires(primary: &Deployment, alarms: &DeploymentAlarms) -> Option<String> {
    let prometheus = alarms.prometheus.as_ref().filter(|_| is_watched(primary))?;
    let is_due = |run: &&QueryRun| {
        let query = prometheus.queries.iter().find(|query| query.name == run.name);
        query.is_some_and(|query| run.fired >= query.evaluation_periods.unwrap_or(1))
    };
    let run = primary.queries.iter().find(is_due)?;
    Some(match run.fired {
        1 => format!("the query {} has a result", run.name),
        times => format!("the query {} had a result {times} times in a row", run.name),
    })
}
