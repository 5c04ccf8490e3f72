//! New manifests → changes, unless they would take too much away at once (S13).

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use crate::model::{
    desired::Desired,
    name::HostName,
    spec::service::{SchedulingStrategy, ServiceSpec},
    state::{Change, Event, EventLevel, EventSubject, FleetRecord, HeldSync, State},
    task::LastStatus,
    time::Timestamp,
};

/// A fleet with at most this many tasks may lose more than half of them in one sync: that is retyped in a minute.
const SMALL_FLEET_TASKS: usize = 5;

/// What became of new manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncVerdict {
    /// The same as in force, and nothing was held.
    Unchanged,
    /// In force once these are committed.
    Taken(Vec<Change>),
    /// Not carried out until confirmed; what was in force stays.
    Held(HeldSync, Vec<Change>),
}

/// Admits `candidate` with the content hash `hash`.
///
/// One sync never removes more than max(1, 20 %) of the services or of the schedules, nor the last service, nor stops more than half of the
/// tasks, nor drops a host that still runs tasks, unless a person confirmed this very content.
pub fn desired(state: &State, candidate: &Arc<Desired>, hash: &str, now: Timestamp) -> SyncVerdict {
    let fleet = &state.fleet;
    if **candidate == *state.desired && fleet.manifests_hash == hash && fleet.held.is_none() {
        return SyncVerdict::Unchanged;
    }
    let token: String = hash.chars().take(8).collect();
    let confirmed = fleet.confirmed.contains(&token);
    if let Some(reason) = too_much(state, candidate).filter(|_| !confirmed) {
        let held = HeldSync { token: token.clone(), reason: reason.clone(), since: now };
        if fleet.held.as_ref().is_some_and(|held| held.token == token) {
            return SyncVerdict::Held(held, Vec::new());
        }
        let message =
            format!("the change of the manifests is held: {reason}. To carry it out: roadstead confirm {token}");
        let changes = vec![
            Change::Fleet(FleetRecord { held: Some(held.clone()), ..fleet.clone() }),
            event(now, EventLevel::Warning, "SyncHeld", message),
        ];
        return SyncVerdict::Held(held, changes);
    }
    // A confirmation is for one time.
    let left = fleet.confirmed.iter().filter(|known| **known != token).cloned().collect();
    let mut changes = vec![Change::Fleet(FleetRecord {
        manifests_hash: hash.to_owned(),
        held: None,
        confirmed: left,
        ..fleet.clone()
    })];
    if **candidate != *state.desired {
        changes.push(Change::Desired(Arc::clone(candidate)));
        changes.push(event(now, EventLevel::Normal, "ManifestsTaken", summary(&state.desired, candidate)));
    }
    SyncVerdict::Taken(changes)
}

fn too_much(state: &State, candidate: &Desired) -> Option<String> {
    let before = &state.desired.services;
    if !before.is_empty() && candidate.services.is_empty() {
        let names: Vec<&str> = before.keys().map(|name| name.as_str()).collect();
        return Some(format!("it removes every service ({})", names.join(", ")));
    }
    let schedules = (&state.desired.scheduled_tasks, &candidate.scheduled_tasks);
    let removed = removes_many("services", before, &candidate.services)
        .or_else(|| removes_many("schedules", schedules.0, schedules.1))
        .or_else(|| removes_many("subnets", &state.desired.subnets, &candidate.subnets))
        .or_else(|| removes_many("security groups", &state.desired.security_groups, &candidate.security_groups));
    if removed.is_some() {
        return removed;
    }
    let running = |host: &HostName| {
        state.tasks.values().filter(|task| task.last_status != LastStatus::Stopped && task.host == *host).count()
    };
    let orphaned =
        state.desired.hosts.keys().filter(|host| !candidate.hosts.contains_key(*host)).find(|host| running(host) > 0);
    if let Some(host) = orphaned {
        return Some(format!(
            "it removes host {host}, which still runs {} tasks (first: roadstead host drain {host})",
            running(host)
        ));
    }
    let wanted: usize = state.tasks.values().filter(|task| task.is_wanted() && !task.is_standalone()).count();
    let stopped: usize = before
        .iter()
        .map(|(name, manifest)| {
            let now = state.tasks.values().filter(|task| task.is_wanted() && task.service == *name).count();
            let then = candidate
                .services
                .get(name)
                .map_or(0, |after| count_after(&manifest.spec, &after.spec, now, candidate.hosts.len()));
            now.saturating_sub(then)
        })
        .sum();
    (stopped * 2 > wanted && wanted > SMALL_FLEET_TASKS).then(|| format!("it stops {stopped} of {wanted} tasks"))
}

/// Whether more than one of a kind, and more than a fifth of them, are no longer declared.
fn removes_many<K: Ord + Display, V>(kind: &str, before: &BTreeMap<K, V>, after: &BTreeMap<K, V>) -> Option<String> {
    let gone: Vec<String> = before.keys().filter(|name| !after.contains_key(*name)).map(ToString::to_string).collect();
    let is_many = gone.len() > (before.len() / 5).max(1);
    is_many.then(|| format!("it removes {} of {} {kind} ({})", gone.len(), before.len(), gone.join(", ")))
}

/// How many of `now` tasks remain wanted.
fn count_after(before: &ServiceSpec, after: &ServiceSpec, now: usize, hosts: usize) -> usize {
    match (before.scheduling_strategy, after.scheduling_strategy) {
        (_, SchedulingStrategy::Replica) => after.desired_count as usize,
        (SchedulingStrategy::Replica, SchedulingStrategy::Daemon) => now.min(hosts),
        (SchedulingStrategy::Daemon, SchedulingStrategy::Daemon) => now,
    }
}

fn summary(before: &Desired, after: &Desired) -> String {
    fn differences<K: Ord + Display, V: PartialEq>(
        kind: &str,
        before: &BTreeMap<K, V>,
        after: &BTreeMap<K, V>,
        words: &mut Vec<String>,
    ) {
        for (name, value) in after {
            match before.get(name) {
                None => words.push(format!("+{kind} {name}")),
                Some(old) if old != value => words.push(format!("~{kind} {name}")),
                Some(_) => {}
            }
        }
        words.extend(before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("-{kind} {name}")));
    }
    let mut words = Vec::new();
    differences("cluster", &before.clusters, &after.clusters, &mut words);
    differences("host", &before.hosts, &after.hosts, &mut words);
    differences("taskdefinition", &before.task_definitions, &after.task_definitions, &mut words);
    differences("service", &before.services, &after.services, &mut words);
    differences("scheduledtask", &before.scheduled_tasks, &after.scheduled_tasks, &mut words);
    differences("subnet", &before.subnets, &after.subnets, &mut words);
    differences("securitygroup", &before.security_groups, &after.security_groups, &mut words);
    let shown = words.len().min(12);
    let more = if words.len() > shown { format!(" and {} more", words.len() - shown) } else { String::new() };
    format!("manifests changed: {}{more}", words[..shown].join(", "))
}

fn event(at: Timestamp, level: EventLevel, reason: &str, message: String) -> Change {
    Change::Event(Event::new(at, EventSubject::Fleet, level, reason, message))
}
