//! How requests are answered while a deployment is under way, and the alarms that end it.
//!
//! Rule: "How CloudWatch alarms detect Amazon ECS deployment failures", ECS developer guide. ▲ What is watched is the share of
//! requests that fail at the load balancers, the new revision's beside the old one's.

use std::collections::BTreeMap;

use crate::model::{
    deployment::{Analysis, percent},
    name::{HostName, TaskId},
    spec::strategy::DeploymentAlarms,
    state::{Deployment, LifecycleStage, RolloutState},
    traffic::Answers,
};
use crate::plan::draft::{Draft, ServiceNo};

/// Adds what load balancers have counted since the last pass to the analysis of each deployment that has not ended: one that
/// is being taken back, too, since clients are sent to it until every edge has turned.
pub(in crate::plan) fn count(draft: &mut Draft<'_>, no: ServiceNo) {
    let deployments = draft.services[no].record().map_or(&[][..], |record| &record.deployments);
    let is_open = |deployment: &Deployment| deployment.outcome.is_none() && !has_taken_over(deployment);
    if draft.services[no].manifest.spec.load_balancers.is_empty() || !deployments.iter().any(is_open) {
        return;
    }
    let seen = seen(draft, no);
    let open = deployments.iter().enumerate().filter(|(_, deployment)| is_open(deployment));
    let news: Vec<(usize, Analysis)> = open
        .map(|(index, deployment)| (index, counted(draft, deployment, &seen)))
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

fn counted(draft: &Draft<'_>, deployment: &Deployment, seen: &[(&HostName, &TaskId, Answers)]) -> Analysis {
    let mut analysis = deployment.analysis.clone();
    for (host, id, answers) in seen {
        let Some(task) = draft.world.state.tasks.get(*id) else { continue };
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
fn seen<'d>(draft: &'d Draft<'_>, no: ServiceNo) -> Vec<(&'d HostName, &'d TaskId, Answers)> {
    let name = draft.services[no].name;
    let mut seen = Vec::new();
    for (host, edge) in draft.world.edges.iter() {
        let mut of_tasks: BTreeMap<&TaskId, Answers> = BTreeMap::new();
        for (task, target) in edge.targets.values().flatten() {
            let Some(answers) = target.answers else { continue };
            let sum = of_tasks.entry(task).or_default();
            *sum = sum.plus(answers);
        }
        let is_of_service = |id: &TaskId| draft.world.state.tasks.get(id).is_some_and(|task| task.service == *name);
        let ours = of_tasks.into_iter().filter(|(id, _)| is_of_service(id));
        seen.extend(ours.map(|(id, answers)| (host, id, answers)));
    }
    seen
}

fn has_taken_over(deployment: &Deployment) -> bool {
    deployment.stage.is_some_and(|stage| stage.name >= LifecycleStage::CleanUp)
}

/// Why a deployment is to end, if an alarm fires. One that a person paused is watched, too: its requests fail meanwhile.
pub(in crate::plan) fn fires(primary: &Deployment, alarms: &DeploymentAlarms) -> Option<String> {
    let goes_on = primary.rollout_state == RolloutState::InProgress && !has_taken_over(primary);
    let maximum = alarms.maximum_error_percent.filter(|_| alarms.enable && goes_on)?;
    let Analysis { new, old, .. } = &primary.analysis;
    // What fails as often with the old revision is not the new one's fault.
    let more = new.errors_per_mille().saturating_sub(old.errors_per_mille());
    let fires = new.requests >= alarms.minimum_requests() && more > u64::from(maximum.per_mille);
    fires.then(|| format!("its alarm: more than {} of its requests fail", percent(maximum.per_mille)))
}
