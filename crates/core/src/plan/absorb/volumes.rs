//! A person's word about a volume, and what became of its copy → changes.

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::model::{
    name::HostName,
    spec::service::SchedulingStrategy,
    state::{Change, Event, EventLevel, EventSubject, Schedulability, State},
    task::Task,
    time::Timestamp,
    volume::{MoveStage, VolumeId, VolumeMove, VolumeRecord, stays_on_host},
};

/// A copy that went wrong so often is given up, and the volume stays where it is.
const MAX_FAILURES: u32 = 4;
/// Pause before a copy is begun again; doubles each time.
const FIRST_PAUSE_MS: u64 = 2_000;

/// What a person can say about a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verb")]
pub enum VolumeVerb {
    /// Its tasks stop, its data is copied and compared, and they start on the other host.
    Move {
        /// The other host.
        to: HostName,
    },
    /// It stays where it is.
    CancelMove,
    /// This is the host where its data is, or shall be.
    Pin {
        /// The host.
        host: HostName,
    },
    /// Nobody cares any more where it is: the next task begins wherever it is placed.
    Forget,
    /// Its tasks stop, the content of another volume of its host takes the place of its data, and they start again. Comes
    /// with an archive only.
    #[serde(skip)]
    Restore {
        /// The other volume.
        from: String,
    },
}

/// How the copy of a volume ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Which volume.
    pub id: VolumeId,
    /// Which move of it.
    pub since: Timestamp,
    /// When it ended.
    pub at: Timestamp,
    /// How.
    pub result: Result<CopyDone, CopyFailed>,
}

/// A copy that was read back and is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyDone {
    /// Of the archive.
    pub bytes: u64,
    /// Of the archive, hex.
    pub sha256: String,
}

/// Why there is no copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFailed {
    /// In words a person can act on.
    pub reason: String,
    /// Trying again would not help.
    pub for_good: bool,
}

fn refuse<T>(words: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Refused(words.into()))
}

/// Follows a person's word about a volume; gives the answer in words.
///
/// # Errors
/// Why not.
pub fn volume(
    state: &State,
    id: &VolumeId,
    verb: &VolumeVerb,
    now: Timestamp,
) -> Result<(String, Vec<Change>), Refusal> {
    let known = state.volumes.get(id);
    let unknown = || Refusal::Unknown(format!("no volume {} in cluster {} has a place", id.name, id.cluster));
    let known_or = || known.ok_or_else(unknown);
    match verb {
        VolumeVerb::Move { to } => move_to(state, known_or()?, to, now),
        VolumeVerb::CancelMove => {
            let record = known_or()?;
            match &record.moving {
                None => return refuse(format!("volume {} does not move", id.name)),
                Some(moving) if is_replacing(moving) => return refuse(being_replaced(id)),
                Some(_) => {}
            }
            let words = format!("volume {} stays on {}", id.name, record.host);
            Ok(said(VolumeRecord { moving: None, ..record.clone() }, now, "VolumeMoveCancelled", words))
        }
        VolumeVerb::Pin { host } => pin(state, id, host, now),
        VolumeVerb::Restore { from } => restore(state, known_or()?, from, now),
        VolumeVerb::Forget => {
            let record = known_or()?;
            if let Some(task) = volume_users(state, id).next() {
                return refuse(format!(
                    "task {} on {} uses volume {}: stop its service first",
                    task.id, task.host, id.name
                ));
            }
            let is_lost = state.hosts.get(&record.host).is_some_and(|host| host.lost_since.is_some());
            // Half of it is there, or where it is to go: it would be found, and taken for whole.
            match record.moving.as_ref().filter(|_| !is_lost) {
                Some(moving) if is_replacing(moving) => return refuse(being_replaced(id)),
                Some(moving) => {
                    return refuse(format!(
                        "volume {0} {1}: `roadstead volume move {0} --cancel` first",
                        id.name,
                        moving.words()
                    ));
                }
                None => {}
            }
            let words =
                format!("volume {} of {} has no place any more; its data was left as it is", id.name, record.host);
            let event = event(record, now, EventLevel::Warning, "VolumeForgotten", &words);
            Ok((words, vec![Change::VolumeRemoved(id.clone()), event]))
        }
    }
}

fn is_replacing(moving: &VolumeMove) -> bool {
    moving.from_volume.is_some() && moving.stage == MoveStage::Copying
}

fn being_replaced(id: &VolumeId) -> String {
    format!("the data of volume {} is being replaced: that ends by itself", id.name)
}

/// Live tasks that mount a volume, but for those of services with a task on each host.
pub fn volume_users<'s>(state: &'s State, id: &VolumeId) -> impl Iterator<Item = &'s Task> {
    mounting(state, id).filter(|task| !is_daemon(state, task))
}

fn mounting<'s>(state: &'s State, id: &VolumeId) -> impl Iterator<Item = &'s Task> {
    state
        .tasks
        .values()
        .map(|task| &**task)
        .filter(|task| task.is_live() && task.cluster == id.cluster && mounts(state, task, &id.name))
}

/// Whether a task mounts a volume of this name that stays on its host.
pub fn mounts(state: &State, task: &Task, volume: &str) -> bool {
    let definition = state.revision(&task.revision).and_then(|revision| revision.spec.as_deref());
    definition.is_some_and(|spec| stays_on_host(spec).any(|name| name == volume))
}

fn is_daemon(state: &State, task: &Task) -> bool {
    let service = state.desired.services.get(&task.service);
    service.is_some_and(|manifest| manifest.spec.scheduling_strategy == SchedulingStrategy::Daemon)
}

fn declared(state: &State, id: &VolumeId, host: &HostName) -> Result<(), Refusal> {
    match state.desired.hosts.get(host) {
        None => Err(Refusal::Unknown(format!("there is no host {host}"))),
        Some(manifest) if manifest.spec.cluster != id.cluster => {
            refuse(format!("host {host} is of cluster {}, and the volume of {}", manifest.spec.cluster, id.cluster))
        }
        Some(_) => Ok(()),
    }
}

fn move_to(
    state: &State,
    record: &VolumeRecord,
    to: &HostName,
    now: Timestamp,
) -> Result<(String, Vec<Change>), Refusal> {
    let name = &record.id.name;
    declared(state, &record.id, to)?;
    match &record.moving {
        Some(moving) if moving.to == *to => {
            return Ok((format!("volume {name} moves to {to} already"), Vec::new()));
        }
        Some(moving) => {
            return refuse(format!(
                "volume {name} moves to {}; first: roadstead volume move {name} --cancel",
                moving.to
            ));
        }
        None => {}
    }
    if record.host == *to {
        return refuse(format!("volume {name} is on {to} already"));
    }
    let host = state.hosts.get(to);
    if host.is_none_or(|host| host.schedulability != Schedulability::Active || host.lost_since.is_some()) {
        return refuse(format!("host {to} takes no tasks just now: roadstead get hosts"));
    }
    no_daemon_uses(state, record)?;
    if let Some(old) = &record.old_copy {
        let is_gone = state.hosts.get(old).is_none_or(|host| host.lost_since.is_some());
        return refuse(match is_gone || !state.desired.hosts.contains_key(old) {
            true => format!(
                "the copy that the last move left on {old} cannot be removed, since {old} is gone; if it is for good: roadstead volume pin {name} --host {}",
                record.host
            ),
            false => format!(
                "the copy that the last move left on {old} is still there: it goes once a task is healthy on {}",
                record.host
            ),
        });
    }
    let words = format!("volume {name} moves from {} to {to}: what mounts it stops meanwhile", record.host);
    let stage = MoveStage::Stopping;
    let moving =
        Some(VolumeMove { to: to.clone(), stage, since: now, failures: 0, not_before: None, from_volume: None });
    Ok(said(VolumeRecord { moving, ..record.clone() }, now, "VolumeMoving", words))
}

fn no_daemon_uses(state: &State, record: &VolumeRecord) -> Result<(), Refusal> {
    match mounting(state, &record.id).find(|task| task.host == record.host && is_daemon(state, task)) {
        Some(daemon) => refuse(format!(
            "service {} has a task on each host, and that on {} uses volume {}",
            daemon.service, record.host, record.id.name
        )),
        None => Ok(()),
    }
}

/// Whatever stands against a restore of a volume.
///
/// # Errors
/// That, in words.
pub fn may_restore(state: &State, record: &VolumeRecord) -> Result<(), Refusal> {
    declared(state, &record.id, &record.host)?;
    if let Some(moving) = &record.moving {
        return refuse(format!("volume {} {} just now", record.id.name, moving.words()));
    }
    if state.hosts.get(&record.host).is_none_or(|host| host.lost_since.is_some()) {
        let words = format!("host {} is lost, so nobody can tell whether a task there still writes", record.host);
        return refuse(words);
    }
    no_daemon_uses(state, record)
}

fn restore(state: &State, record: &VolumeRecord, from: &str, now: Timestamp) -> Result<(String, Vec<Change>), Refusal> {
    may_restore(state, record)?;
    let (name, host) = (&record.id.name, &record.host);
    let words = format!("volume {name} on {host} is restored: what mounts it stops meanwhile");
    let (to, from_volume, stage) = (host.clone(), Some(from.to_owned()), MoveStage::Stopping);
    let moving = Some(VolumeMove { to, stage, since: now, failures: 0, not_before: None, from_volume });
    Ok(said(VolumeRecord { moving, ..record.clone() }, now, "VolumeRestoring", words))
}

fn pin(state: &State, id: &VolumeId, host: &HostName, now: Timestamp) -> Result<(String, Vec<Change>), Refusal> {
    declared(state, id, host)?;
    let name = &id.name;
    let record = match state.volumes.get(id) {
        Some(record) if record.moving.is_some() => return refuse(format!("volume {name} moves just now")),
        Some(record) => VolumeRecord { host: host.clone(), old_copy: None, ..record.clone() },
        None => VolumeRecord {
            id: id.clone(),
            host: host.clone(),
            service: Default::default(),
            created_at: now,
            last_used_by: None,
            last_used_at: None,
            moving: None,
            old_copy: None,
            restored_at: None,
        },
    };
    if let Some(task) = volume_users(state, id).find(|task| task.host != *host) {
        return refuse(format!("task {} uses volume {name} on {}: stop its service first", task.id, task.host));
    }
    Ok(said(record, now, "VolumePinned", format!("what mounts volume {name} goes to {host}")))
}

/// A copy ended: the volume has its new place, or is copied again, or stays. An answer to a move that is over is nothing.
pub fn volume_copied(state: &State, copied: &Copied) -> Vec<Change> {
    let Some(record) = state.volumes.get(&copied.id) else { return Vec::new() };
    let is_this = |moving: &&VolumeMove| moving.since == copied.since && moving.stage == MoveStage::Copying;
    let Some(moving) = record.moving.as_ref().filter(is_this) else { return Vec::new() };
    // Whatever came to life since may have written: it is stopped, and copied again.
    if volume_users(state, &copied.id).next().is_some() {
        return Vec::new();
    }
    let name = &copied.id.name;
    let (record, level, reason, words) = match &copied.result {
        Ok(done) if moving.from_volume.is_some() => {
            let words =
                format!("volume {name} on {} was restored: {} bytes, sha256 {}", record.host, done.bytes, done.sha256);
            let record = VolumeRecord { moving: None, restored_at: Some(copied.at), ..record.clone() };
            (record, EventLevel::Normal, "VolumeRestored", words)
        }
        Ok(done) => {
            let words = format!(
                "volume {name} was moved from {} to {}: {} bytes, sha256 {}",
                record.host, moving.to, done.bytes, done.sha256
            );
            let (host, old_copy) = (moving.to.clone(), Some(record.host.clone()));
            (VolumeRecord { host, old_copy, moving: None, ..record.clone() }, EventLevel::Normal, "VolumeMoved", words)
        }
        // Half of a restore is no data to start on: it goes on until it is whole.
        Err(failed) if failed.for_good || (moving.failures + 1 >= MAX_FAILURES && moving.from_volume.is_none()) => {
            let words = format!("volume {name} stays as it is, on {}: {}", record.host, failed.reason);
            (VolumeRecord { moving: None, ..record.clone() }, EventLevel::Warning, "VolumeMoveFailed", words)
        }
        Err(failed) => {
            let pause_ms = FIRST_PAUSE_MS << moving.failures.min(5);
            let words = format!("volume {name} is copied again in {} s: {}", pause_ms / 1000, failed.reason);
            let failures = moving.failures.saturating_add(1);
            let not_before = Some(copied.at.plus_ms(pause_ms));
            let moving = Some(VolumeMove { failures, not_before, ..moving.clone() });
            (VolumeRecord { moving, ..record.clone() }, EventLevel::Warning, "VolumeCopyFailed", words)
        }
    };
    let event = event(&record, copied.at, level, reason, &words);
    vec![Change::Volume(record), event]
}

fn said(record: VolumeRecord, at: Timestamp, reason: &str, words: String) -> (String, Vec<Change>) {
    let event = event(&record, at, EventLevel::Normal, reason, &words);
    (words, vec![Change::Volume(record), event])
}

fn event(record: &VolumeRecord, at: Timestamp, level: EventLevel, reason: &str, message: &str) -> Change {
    let subject = match record.service.as_str() {
        "" => EventSubject::Host(record.host.clone()),
        _ => EventSubject::Service(record.service.clone()),
    };
    Change::Event(Event::new(at, subject, level, reason, message))
}
