//! How requests are answered while a deployment is under way, and the alarms that end it.
//!
//! Rule: "How CloudWatch alarms detect Amazon ECS deployment failures", ECS developer guide. ▲ What is watched is the share of
//! requests that fail at the load balancers, the new revision's beside the old one's.

use std::collections::BTreeMap;

use crate::model::{
    deployment::{Analysis, percent},
    latency::Latency,
    name::{HostName, TaskId},
    spec::strategy::DeploymentAlarms,
    state::{Deployment, LifecycleStage, RolloutState},
    task::Task,
    traffic::Answers,
};
use crate::plan::draft::{Draft, ServiceNo};

/// Answers that take so little longer are no alarm, however quick those before were.
const NOTICED_MS: u64 = 10;

/// Adds what load balancers have counted since the last pass to the analysis of each deployment that has not ended: one that
/// is being taken back, too, since clients are sent to it until every edge has turned.
pub(in crate::plan) fn count(draft: &mut Draft<'_>, no: ServiceNo) {
    let deployments = draft.services[no].record().map_or(&[][..], |record| &record.deployments);
    let is_open = |deployment: &Deployment| deployment.outcome.is_none() && !has_taken_over(deployment);
    if draft.services[no].manifest.spec.load_balancers.is_empty() || !deployments.iter().any(is_open) {
        return;
    }
    let said = said(draft, no);
    let open = deployments.iter().enumerate().filter(|(_, deployment)| is_open(deployment));
    let news: Vec<(usize, Analysis)> = open
        .map(|(index, deployment)| (index, counted(deployment, &said)))
        .filter(|(index, analysis)| *analysis != deployments[*index].analysis)
        .collect();
    if news.is_empty() {
        return;
    }
    draft.services[no].change(|record| {
        for (index, analysis) in news {
            if let Some(deployment) = record.deployments.get_mut(index) {
                deployment.analysis = analysis;
            }
        }
    });
}

/// What an edge says of a task.
type Said<'d> = BTreeMap<(&'d HostName, &'d TaskId), (&'d Task, Answers)>;

fn counted(deployment: &Deployment, said: &Said<'_>) -> Analysis {
    let mut analysis = deployment.analysis.clone();
    for ((host, id), (task, answers)) in said {
        let before = analysis.counted.entry((*host).clone()).or_default().insert((*id).clone(), *answers);
        // What was answered before anybody counted is not of this deployment.
        let more = before.map_or_else(Answers::default, |before| answers.since(before));
        let is_new = task.revision == deployment.revision && task.deployment >= deployment.id;
        let of = if is_new { &mut analysis.new } else { &mut analysis.old };
        *of = of.plus(more);
    }
    analysis
}

/// What each edge says of each task of a service, in all of its target groups together.
fn said<'d>(draft: &Draft<'d>, no: ServiceNo) -> Said<'d> {
    let name = draft.services[no].name;
    let mut said = Said::new();
    for (host, edge) in draft.world.edges.iter() {
        for (id, target) in edge.targets.values().flatten() {
            let task = draft.world.state.tasks.get(id).filter(|task| task.service == *name);
            let (Some(task), Some(answers)) = (task, target.answers) else { continue };
            let (_, sum) = said.entry((host, id)).or_insert((task, Answers::default()));
            *sum = sum.plus(answers);
        }
    }
    said
}

fn has_taken_over(deployment: &Deployment) -> bool {
    deployment.stage.is_some_and(|stage| stage.name >= LifecycleStage::CleanUp)
}

/// Whether alarms end it.
pub(super) fn is_watched(deployment: &Deployment) -> bool {
    deployment.rollout_state == RolloutState::InProgress && !has_taken_over(deployment)
}

/// Why a deployment is to end, if an alarm fires. One that a person paused is watched, too: its requests fail meanwhile.
pub(in crate::plan) fn fires(draft: &Draft<'_>, primary: &Deployment, alarms: &DeploymentAlarms) -> Option<String> {
    if !alarms.enable || !is_watched(primary) {
        return None;
    }
    let Analysis { new, old, .. } = &primary.analysis;
    let why = failing(*new, *old, alarms)
        .or_else(|| slow(new.latency, old.latency, alarms))
        .or_else(|| restarting(draft, primary, alarms))
        .or_else(|| super::queries::fires(primary, alarms))?;
    Some(format!("its alarm: {why}"))
}

/// What fails as often with the old revision is not the new one's fault.
fn failing(new: Answers, old: Answers, alarms: &DeploymentAlarms) -> Option<String> {
    let maximum = alarms.maximum_error_percent?;
    let more = new.errors_per_mille().saturating_sub(old.errors_per_mille());
    let fires = new.requests >= alarms.minimum_requests() && more > u64::from(maximum.per_mille);
    fires.then(|| format!("more than {} of its requests fail", percent(maximum.per_mille)))
}

fn slow(new: Latency, old: Latency, alarms: &DeploymentAlarms) -> Option<String> {
    let percentile = alarms.latency_percentile();
    let counted = |of: Latency| of.percentile_ms(percentile).filter(|_| of.total() >= alarms.minimum_requests());
    let took_ms = counted(new)?;
    if let Some(maximum_ms) = alarms.maximum_latency_ms.filter(|maximum_ms| took_ms > u64::from(*maximum_ms)) {
        return Some(format!("the p{percentile} of its answers is {took_ms} ms, more than {maximum_ms} ms"));
    }
    let (percent, before_ms) = (alarms.maximum_latency_increase_percent?, counted(old)?);
    let allowed_ms = before_ms + before_ms.saturating_mul(percent.into()) / 100;
    let fires = took_ms > allowed_ms.max(before_ms + NOTICED_MS);
    let words = || format!("the p{percentile} of its answers is {took_ms} ms, and that of the others' {before_ms} ms");
    fires.then(words)
}

fn restarting(draft: &Draft<'_>, primary: &Deployment, alarms: &DeploymentAlarms) -> Option<String> {
    let maximum = alarms.maximum_restarts?;
    let of_it = |task: &&Task| task.revision == primary.revision && task.deployment >= primary.id;
    let restarts: usize = draft.tasks.iter().filter(of_it).map(|task| task.restarts.len()).sum();
    let fires = restarts > usize::try_from(maximum).unwrap_or(usize::MAX);
    fires.then(|| format!("its containers were started again {restarts} times"))
}
