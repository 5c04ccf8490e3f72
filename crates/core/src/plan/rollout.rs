//! Which revision a service runs: what the manifests ask for, unless a person or the circuit breaker took it back.

use crate::model::{
    name::RevisionId,
    state::{Deployment, DeploymentStatus, EventLevel, EventSubject, Outcome, Pin, RolloutState, ServiceRecord},
    time::Timestamp,
};

use super::{
    breaker,
    draft::{Draft, ServiceNo},
    traffic::{analysis, queries},
};

/// What the tasks of a service that asks for `wanted` shall run.
pub(super) fn target(draft: &Draft<'_>, record: Option<&ServiceRecord>, wanted: &RevisionId) -> RevisionId {
    let pin = record.and_then(|record| record.pin.as_ref()).filter(|pin| pin.instead_of == *wanted);
    let kept = pin.map(|pin| &pin.revision).filter(|revision| has_content(draft, revision));
    kept.unwrap_or(wanted).clone()
}

fn has_content(draft: &Draft<'_>, revision: &RevisionId) -> bool {
    draft.revision(revision).is_some_and(|revision| revision.spec.is_some())
}

/// Forgets a pin that the manifests have left behind, and gives a deployment up that failed too often, or whose alarm fires.
pub(super) fn judge(draft: &mut Draft<'_>, no: ServiceNo) {
    let Some(Ok(wanted)) = draft.services[no].wanted.clone() else { return };
    let pin = draft.services[no].record().and_then(|record| record.pin.as_ref());
    if pin.is_some_and(|pin| pin.instead_of != wanted) {
        draft.services[no].change(|record| record.pin = None);
    }
    analysis::count(draft, no);
    queries::watch(draft, no);
    sound(draft, no, &wanted);
    trip(draft, no, &wanted);
    let target = target(draft, draft.services[no].record(), &wanted);
    draft.services[no].target = Some(Ok(target));
}

fn sound(draft: &mut Draft<'_>, no: ServiceNo, wanted: &RevisionId) {
    let service = &draft.services[no];
    let alarms = &service.manifest.spec.deployment_configuration.alarms;
    let Some((record, primary)) = service.record().and_then(|it| Some((it, it.primary()?))) else { return };
    let reason =
        analysis::fires(draft, primary, alarms).filter(|_| target(draft, Some(record), wanted) == primary.revision);
    let rolls_back = alarms.rollback;
    if let Some(reason) = reason {
        end_early(draft, no, wanted, &reason, rolls_back);
    }
}

fn trip(draft: &mut Draft<'_>, no: ServiceNo, wanted: &RevisionId) {
    let service = &draft.services[no];
    let Some(record) = service.record() else { return };
    // One that a person paused stands still, whatever becomes of its tasks.
    let goes_on =
        |primary: &&Deployment| primary.rollout_state == RolloutState::InProgress && primary.paused_at.is_none();
    let Some(primary) = record.primary().filter(goes_on) else { return };
    let too_many =
        breaker::threshold_of(&draft.world.state, service.name).filter(|threshold| primary.failed_tasks >= *threshold);
    // One that the manifests have left behind is superseded.
    let Some(threshold) = too_many.filter(|_| target(draft, Some(record), wanted) == primary.revision) else { return };
    let reason = format!("{} of {threshold} failures", primary.failed_tasks);
    fail(draft, no, wanted, &reason);
}

/// Gives the PRIMARY deployment up, and takes the service back where there is a way back and the manifest lets it.
pub(super) fn fail(draft: &mut Draft<'_>, no: ServiceNo, wanted: &RevisionId, reason: &str) {
    let rolls_back = draft.services[no].manifest.spec.deployment_configuration.deployment_circuit_breaker.rollback;
    end_early(draft, no, wanted, reason, rolls_back);
}

fn end_early(draft: &mut Draft<'_>, no: ServiceNo, wanted: &RevisionId, reason: &str, rolls_back: bool) {
    let (now, service) = (draft.now(), &draft.services[no]);
    let Some((record, primary)) = service.record().and_then(|record| Some((record, record.primary()?))) else { return };
    let back_to = way_back(record).filter(|revision| rolls_back && has_content(draft, revision)).cloned();
    let failed = format!("deployment {} of {} is taken back: {reason}", primary.id, primary.revision);
    draft.services[no].change(|record| give_up(record, wanted, back_to.as_ref(), reason, now));
    if back_to.is_some() {
        let subject = EventSubject::Service(draft.services[no].name.clone());
        draft.event(subject, EventLevel::Warning, "DeploymentFailed", failed);
    }
}

/// What is known to be good: the last completed revision; where revisions take turns, the one in service.
fn last_good(record: &ServiceRecord) -> Option<&RevisionId> {
    let takes_turns = record.primary().is_some_and(|primary| primary.stage.is_some());
    record.in_service.as_ref().filter(|_| takes_turns).or_else(|| record.completed().next())
}

/// What a failed PRIMARY deployment gives way to: the last completed revision. A rollback is never rolled back (S17).
pub(super) fn way_back(record: &ServiceRecord) -> Option<&RevisionId> {
    let primary = record.primary()?;
    let last = last_good(record)?;
    (primary.rollback_of.is_none() && *last != primary.revision).then_some(last)
}

/// Ends the PRIMARY deployment as failed. With a way back its outcome is that of the rollback.
pub(super) fn give_up(
    record: &mut ServiceRecord,
    wanted: &RevisionId,
    back_to: Option<&RevisionId>,
    reason: &str,
    now: Timestamp,
) {
    let Some(primary) = record.deployments.first_mut() else { return };
    primary.rollout_state = RolloutState::Failed;
    primary.updated_at = now;
    match back_to {
        Some(back_to) => {
            primary.rollout_state_reason = reason.to_owned();
            let reason = format!("{} failed: {reason}", primary.revision);
            let pin = || Pin { instead_of: wanted.clone(), revision: back_to.clone(), reason };
            record.pin = (back_to != wanted).then(pin);
        }
        None => end(record, 0, Outcome::Failed, reason.to_owned(), now),
    }
}

/// Gives a deployment its outcome, and with it the one that it is the rollback of.
pub(super) fn end(record: &mut ServiceRecord, index: usize, outcome: Outcome, reason: String, now: Timestamp) {
    let Some(ended) = record.deployments.get_mut(index).filter(|ended| ended.outcome.is_none()) else { return };
    ended.outcome = Some(outcome);
    ended.rollout_state_reason = reason;
    ended.updated_at = now;
    ended.analysis.counted.clear();
    let (taken_back, revision) = (ended.rollback_of, ended.revision.clone());
    let origin = record.deployments.iter_mut().find(|origin| Some(origin.id) == taken_back);
    if let Some(origin) = origin.filter(|origin| origin.outcome.is_none()) {
        let (outcome, words) = match outcome {
            Outcome::Succeeded => (Outcome::RolledBack, format!("the service runs {revision} again")),
            Outcome::Failed => (Outcome::Failed, format!("the return to {revision} failed, too")),
            Outcome::RolledBack | Outcome::Superseded => {
                (Outcome::Failed, format!("the return to {revision} was overtaken"))
            }
        };
        origin.rollout_state_reason = format!("{}: {words}", origin.rollout_state_reason);
        origin.outcome = Some(outcome);
        origin.analysis.counted.clear();
        origin.updated_at = now;
    }
}

/// Ends what a new deployment of `target` takes over from, and says which deployment it takes the service back from.
pub(super) fn hand_over(record: &mut ServiceRecord, target: &RevisionId, now: Timestamp) -> Option<u64> {
    let is_way_back = last_good(record) == Some(target);
    let primary = record.deployments.first_mut()?;
    if primary.status == DeploymentStatus::Primary {
        primary.status = DeploymentStatus::Active;
        primary.updated_at = now;
    }
    if primary.outcome.is_some() {
        return None;
    }
    match primary.rollout_state {
        RolloutState::Failed if primary.rollback_of.is_none() && is_way_back => return Some(primary.id),
        RolloutState::Failed => {
            let reason = primary.rollout_state_reason.clone();
            end(record, 0, Outcome::Failed, reason, now);
        }
        RolloutState::InProgress | RolloutState::Completed => {
            end(record, 0, Outcome::Superseded, format!("{target} took over"), now);
        }
    }
    None
}
