//! A person's word about a rollout or a task → changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{
    name::{RevisionId, ServiceName, TaskId},
    state::{Again, Change, Deployment, Event, EventLevel, EventSubject, Pin, RolloutState, ServiceRecord, State},
    task::{DesiredStatus, Task},
    time::Timestamp,
};
use crate::plan::{revision, rollout};

/// ECS's bounds of task protection, in minutes.
pub const PROTECTION_MINUTES: std::ops::RangeInclusive<u32> = 1..=2880;

/// What a person can say about the rollout of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verb")]
pub enum RolloutVerb {
    /// It replaces nothing until it is continued; what ends, crash-loops or is sick meanwhile is healed.
    Pause,
    /// It goes on; what was given up or taken back is tried again.
    Continue,
    /// Back to the last completed revision.
    Abort,
    /// Back to the completed revision before the one that runs, or to a given one.
    Undo {
        /// To which; the completed one before when absent, which is refused while the service was taken back already.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<RevisionId>,
    },
    /// Every task is replaced by a new one: of the same revision, unless its images' tags stand for something else by now.
    Restart,
}

/// Why a person's word is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such thing.
    Unknown(String),
    /// Not now, or not so.
    Refused(String),
}

fn refuse<T>(words: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Refused(words.into()))
}

/// Follows a person's word about a service's rollout; gives the answer in words.
///
/// # Errors
/// Why not.
pub fn rollout(
    state: &State,
    name: &ServiceName,
    verb: &RolloutVerb,
    now: Timestamp,
) -> Result<(String, Vec<Change>), Refusal> {
    let Some(manifest) = state.desired.services.get(name) else {
        return Err(Refusal::Unknown(format!("there is no service {name}")));
    };
    let known = state.services.get(name).and_then(|record| Some((record, record.primary()?)));
    let Some((record, primary)) = known else { return refuse(format!("{name} was never deployed")) };
    let Some(wanted) = revision::wanted_of(state, &manifest.spec) else {
        return refuse(format!("the task definition of {name} has just changed: say it again"));
    };
    let mut record = record.clone();
    let words = match verb {
        RolloutVerb::Pause => pause(&mut record, now)?,
        RolloutVerb::Continue => resume(&mut record, &wanted)?,
        RolloutVerb::Abort => abort(state, &mut record, &wanted, now)?,
        RolloutVerb::Undo { to } => undo(state, &mut record, &wanted, to.as_ref(), primary)?,
        RolloutVerb::Restart => restart(&mut record)?,
    };
    let reason = match verb {
        RolloutVerb::Pause => "RolloutPaused",
        RolloutVerb::Continue => "RolloutContinued",
        RolloutVerb::Abort => "RolloutAborted",
        RolloutVerb::Undo { .. } => "RolloutUndone",
        RolloutVerb::Restart => "RolloutRestarted",
    };
    let said = event(name, now, reason, words.clone());
    Ok((words, vec![Change::Service(record), said]))
}

fn under_way(record: &mut ServiceRecord) -> Result<&mut Deployment, Refusal> {
    let name = record.name.clone();
    let primary = record.deployments.first_mut();
    match primary.filter(|primary| primary.rollout_state == RolloutState::InProgress) {
        Some(primary) => Ok(primary),
        None => refuse(format!("no rollout of {name} is under way")),
    }
}

fn pause(record: &mut ServiceRecord, now: Timestamp) -> Result<String, Refusal> {
    let primary = under_way(record)?;
    primary.paused_at.get_or_insert(now);
    Ok(format!("the rollout of {} stands still; what dies meanwhile is replaced", primary.revision))
}

fn resume(record: &mut ServiceRecord, wanted: &RevisionId) -> Result<String, Refusal> {
    if let Ok(primary) = under_way(record)
        && primary.paused_at.take().is_some()
    {
        return Ok(format!("the rollout of {} goes on", primary.revision));
    }
    let failed = record.primary().is_some_and(|primary| primary.rollout_state == RolloutState::Failed);
    if record.pin.take().is_some() {
        return Ok(format!("{wanted}, which the manifests ask for, is tried again"));
    }
    if failed {
        record.again = Some(Again::Retry);
        return Ok(format!("{wanted} is tried again"));
    }
    refuse(format!("the rollout of {} neither stands still nor failed", record.name))
}

fn abort(state: &State, record: &mut ServiceRecord, wanted: &RevisionId, now: Timestamp) -> Result<String, Refusal> {
    let primary = under_way(record)?.clone();
    if primary.rollback_of.is_some() {
        return refuse(format!("the return to {} is itself never taken back", primary.revision));
    }
    let back_to = rollout::way_back(record).filter(|revision| has_content(state, revision)).cloned();
    if back_to.is_none() && primary.restart {
        // There is no other revision to go back to, nor need of one: what was not started anew yet stays.
        let pin = record.pin.clone();
        rollout::give_up(record, wanted, Some(&primary.revision), "a person aborted it", now);
        record.pin = pin;
        record.again = Some(Again::Retry);
        return Ok(format!("no further task of {} is started anew", record.name));
    }
    let Some(back_to) = back_to else {
        return refuse(format!("no other revision of {} ever completed: there is nothing to go back to", record.name));
    };
    rollout::give_up(record, wanted, Some(&back_to), "a person aborted it", now);
    Ok(format!("{} goes back from {} to {back_to}", record.name, primary.revision))
}

fn undo(
    state: &State,
    record: &mut ServiceRecord,
    wanted: &RevisionId,
    to: Option<&RevisionId>,
    primary: &Deployment,
) -> Result<String, Refusal> {
    let other = |revision: &&RevisionId| **revision != primary.revision;
    let target = match to {
        Some(to) if *to == primary.revision => return refuse(format!("{} runs {to} already", record.name)),
        Some(to) if to.family != wanted.family => {
            return refuse(format!("{to} is of another family than {wanted}, which the manifests ask for"));
        }
        Some(to) => to.clone(),
        None if record.pin.is_some() => {
            let name = &record.name;
            return refuse(format!(
                "{name} was taken back already and runs {}; to go back further, say to which revision: roadstead rollout undo {name} --to REVISION",
                primary.revision
            ));
        }
        None => match record.completed().find(other) {
            Some(before) => before.clone(),
            None => return refuse(format!("no other revision of {} ever completed", record.name)),
        },
    };
    if !has_content(state, &target) {
        return Err(Refusal::Unknown(format!("there is no revision {target} any more")));
    }
    let reason = "a person said so".to_owned();
    record.pin = (target != *wanted).then(|| Pin { instead_of: wanted.clone(), revision: target.clone(), reason });
    record.again = None;
    Ok(format!("{} goes from {} to {target}", record.name, primary.revision))
}

fn restart(record: &mut ServiceRecord) -> Result<String, Refusal> {
    if record.primary().is_some_and(Deployment::stands_still) {
        let name = &record.name;
        return refuse(format!("the rollout of {name} stands still; first: roadstead rollout continue {name}"));
    }
    record.again = Some(Again::Resolve);
    Ok(format!("every task of {} is replaced by a new one", record.name))
}

fn has_content(state: &State, revision: &RevisionId) -> bool {
    state.revision(revision).is_some_and(|revision| revision.spec.is_some())
}

/// Protects a task from scale-in and deployments for some minutes, or ends that.
///
/// # Errors
/// Why not.
pub fn protect(
    state: &State,
    id: &TaskId,
    minutes: Option<u32>,
    now: Timestamp,
) -> Result<(String, Vec<Change>), Refusal> {
    let Some(task) = state.tasks.get(id) else { return Err(Refusal::Unknown(format!("there is no task {id}"))) };
    if task.desired_status == DesiredStatus::Stopped {
        return refuse(format!("task {id} is already stopping or over"));
    }
    let (protected_until, words) = match minutes {
        Some(minutes) if PROTECTION_MINUTES.contains(&minutes) => {
            let until = now.plus_ms(u64::from(minutes) * 60_000);
            (Some(until), format!("task {id} is protected from scale-in and deployments until {until}"))
        }
        Some(_) => return refuse("a task is protected for 1 to 2880 minutes"),
        None => (None, format!("task {id} is protected no longer")),
    };
    if task.is_standalone() {
        return refuse(format!("task {id} belongs to no service: neither scale-in nor a deployment stops it"));
    }
    let said = event(&task.service, now, "TaskProtection", words.clone());
    let task = Task { protected_until, ..(**task).clone() };
    Ok((words, vec![Change::Task(Arc::new(task)), said]))
}

fn event(service: &ServiceName, at: Timestamp, reason: &str, message: String) -> Change {
    let subject = EventSubject::Service(service.clone());
    Change::Event(Event::new(at, subject, EventLevel::Normal, reason, message))
}
