//! REPLICA services: `desiredCount` tasks, kept within floor and ceiling.
//!
//! Rules: "Deployment configuration" and "Service scheduler", ECS developer guide. Floor = ceil(desired × minimum %),
//! ceiling = floor(desired × maximum %), over tasks that run or may.

use std::collections::BTreeSet;

use crate::model::{
    container::{ContainerState, HealthStatus},
    name::RevisionId,
    spec::service::{CrashLoop, DeploymentConfiguration},
    task::{LastStatus, Launch, StopCode, Task, TaskContainer},
    time::Timestamp,
    world::{HostStatus, Subject, World},
};

use super::{
    breaker,
    draft::{Draft, TaskNo},
    health, hosts, place,
    placement::Unplaceable,
    rebalance,
    service::{self, Subjected},
    throttle, traffic, volumes,
};

/// Fewest healthy and most live tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) floor: usize,
    pub(super) ceiling: usize,
}

/// Bounds for `desired` tasks; defaults as given (REPLICA 100/200, DAEMON 0/100).
pub(super) fn bounds(
    desired: usize,
    configuration: &DeploymentConfiguration,
    default_minimum: u32,
    default_maximum: u32,
) -> Bounds {
    let minimum = configuration.minimum_healthy_percent.unwrap_or(default_minimum) as usize;
    let maximum = configuration.maximum_percent.unwrap_or(default_maximum) as usize;
    Bounds { floor: (desired * minimum).div_ceil(100), ceiling: desired * maximum / 100 }
}

/// Why a task is to be replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replace {
    /// It runs another revision.
    Outdated,
    /// Its host drains.
    Draining,
    /// Its health check fails.
    Unhealthy,
    /// Its engine restarts it again and again.
    CrashLoop,
}

impl Replace {
    fn code(self) -> StopCode {
        match self {
            Self::Outdated => StopCode::ServiceSchedulerInitiated,
            Self::Draining => StopCode::TerminationNotice,
            Self::Unhealthy => StopCode::ServiceSchedulerInitiated,
            Self::CrashLoop => StopCode::EssentialContainerExited,
        }
    }

    fn words(self, world: &World, service: &Subjected<'_>, task: &Task) -> String {
        match self {
            Self::Outdated => service.replacement_words(task),
            Self::Draining => format!("host {} is being drained", task.host),
            Self::Unhealthy => unhealthy_words(world, task),
            Self::CrashLoop => crash_loop_words(task, service.spec.crash_loop),
        }
    }
}

const HEALTH_CHECK_FAILS: &str = "its health check fails";

/// Why a task counts as unhealthy, in words.
pub(super) fn unhealthy_words(world: &World, task: &Task) -> String {
    if task.health_status != HealthStatus::Unhealthy
        && let Some(words) = traffic::reason(world, task)
    {
        return words;
    }
    let paused = task.containers.iter().find(|(_, container)| container.state == Some(ContainerState::Paused));
    let reason = || task.containers.values().find_map(|container| container.health_reason.as_deref());
    match paused {
        Some((name, _)) => format!("somebody paused its container {name}"),
        None => {
            reason().map_or_else(|| HEALTH_CHECK_FAILS.to_owned(), |reason| format!("{HEALTH_CHECK_FAILS}: {reason}"))
        }
    }
}

/// What a crash loop looked like, in words.
pub(super) fn crash_loop_words(task: &Task, limits: CrashLoop) -> String {
    let restarts = |row: &TaskContainer| row.restart_count.max(row.revived.map_or(0, |revived| revived.times));
    let restarted = task.containers.iter().filter(|(_, row)| restarts(row) > 0);
    let culprit = restarted.max_by_key(|(_, row)| (row.essential, restarts(row)));
    let (name, code) = culprit.map_or(("?", None), |(name, container)| (name.as_str(), container.exit_code));
    let code = code.map_or_else(String::new, |code| format!(", last with exit code {code}"));
    let times = match limits.restarts {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    };
    let within = match limits.period.0 {
        60 => "a minute".to_owned(),
        seconds if seconds.is_multiple_of(60) => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} s"),
    };
    format!("container {name} was restarted {times} in {within}{code}")
}

/// Whether a task is unhealthy for good: failing checks are overlooked within the grace period.
pub(super) fn is_unhealthy(draft: &mut Draft<'_>, service: &Subjected<'_>, no: TaskNo) -> bool {
    let task = draft.task(no);
    // Also before all of it runs: others may wait for the very container that fails.
    let is_up = matches!(task.last_status, LastStatus::Activating | LastStatus::Running);
    if !health::is_unhealthy(task, service.spec) || !is_up {
        return false;
    }
    let first_seen = || task.containers.values().filter_map(|row| row.seen_started_at).min();
    let since = task.started_at.or_else(first_seen).unwrap_or(draft.now());
    let overlooked_until = since.plus_ms(service.spec.health_check_grace_period_seconds.as_ms());
    draft.wake_at(overlooked_until);
    overlooked_until <= draft.now()
}

pub(super) fn reconcile(draft: &mut Draft<'_>, service: &Subjected<'_>) {
    let desired = service.spec.desired_count as usize;
    let bounds = match service.exclusive {
        // It stops before it is started anew.
        true => Bounds { floor: 0, ceiling: desired },
        false => bounds(desired, &service.spec.deployment_configuration, 100, 200),
    };

    let mut keepers: Vec<TaskNo> = Vec::new();
    let mut replaced: Vec<(TaskNo, Replace)> = Vec::new();
    for no in service.live.iter().copied() {
        if !draft.task(no).is_wanted() {
            continue;
        }
        match reason_to_replace(draft, service, no) {
            // A crash loop is over at once: what it does is not service.
            Some(why @ Replace::CrashLoop) => {
                throttle::count_start_failure(draft, no);
                service::stop(draft, no, why.code(), &why.words(draft.world, service, draft.task(no)));
            }
            // Nothing was ever sent of it: it is over at once, and its place is free in this very plan.
            Some(why) if draft.task(no).launch == Launch::NotIssued && protected_until(draft, no).is_none() => {
                service::stop(draft, no, why.code(), &why.words(draft.world, service, draft.task(no)));
            }
            Some(why) => replaced.push((no, why)),
            None => keepers.push(no),
        }
    }

    let missing = desired.saturating_sub(keepers.len());
    let (started, no_room) = start_missing(draft, service, bounds, missing, replaced.len());
    if service.is_primary {
        breaker::note_room(draft, service, no_room.as_ref());
    }
    let no_room = no_room.is_some();
    if draft.braked() {
        return;
    }
    let blocked = if no_room {
        Blocked::NoRoom
    } else if missing > started {
        Blocked::ByCeiling
    } else {
        Blocked::No
    };
    stop_replaced(draft, service, bounds, desired, &keepers, &replaced, blocked);
    scale_in(draft, service, bounds, desired, &keepers);
    if replaced.is_empty() {
        let slot = free_slots(draft, service).next().unwrap_or(u32::MAX);
        rebalance::move_one(draft, service, bounds, slot, &keepers);
    }
}

fn reason_to_replace(draft: &mut Draft<'_>, service: &Subjected<'_>, no: TaskNo) -> Option<Replace> {
    let unhealthy = is_unhealthy(draft, service, no);
    let task = draft.task(no);
    let why = if health::crash_loops(task, service.spec.crash_loop, draft.now()) {
        return Some(Replace::CrashLoop);
    } else if unhealthy && protected_until(draft, no).is_some() {
        // Protection is from scale-in and deployments, not from being healed.
        Some(Replace::Unhealthy)
    } else if service.replaces(task) || task.cluster != service.spec.cluster {
        Some(Replace::Outdated)
    } else if draft.host_status(no) == Some(HostStatus::Draining) {
        Some(Replace::Draining)
    } else if unhealthy {
        Some(Replace::Unhealthy)
    } else {
        None
    };
    why.filter(|_| !volumes::keeps(draft, no))
}

/// Starts what is missing, as far as the ceiling and the throttle allow; returns how many, and why no host fits the next.
fn start_missing(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    bounds: Bounds,
    missing: usize,
    replaced: usize,
) -> (usize, Option<Unplaceable>) {
    // Without a revision to start the rollout's standstill says why.
    let Some(starts) = service.starts.as_ref().filter(|_| missing > 0) else { return (0, None) };
    let subject = || Subject::Service(service.name.clone());
    let room = bounds.ceiling.saturating_sub(service.counted_live(draft));
    let allowed = missing.min(room);
    if allowed == 0 {
        if replaced == 0 {
            draft.waiting(
                subject(),
                format!("{missing} tasks are missing, and old ones must end first (ceiling {})", bounds.ceiling),
                "a task ends",
                None,
            );
        }
        return (0, None);
    }
    if let Some(at) = service.throttled_until(draft) {
        let failures = service.failures(draft);
        let reason =
            format!("{missing} tasks are missing, but {failures} in a row failed to start: the next try is delayed");
        draft.waiting(subject(), reason, format!("{at}, or a new revision"), Some(at));
        return (0, None);
    }
    if let Some((task, host)) = service.left_behind(draft) {
        let reason = format!("{missing} tasks are missing: task {task} still runs on {host}, and there are never two");
        draft.waiting(subject(), reason, "it is seen gone", None);
        return (0, None);
    }
    if let Some((host, until)) = hosts::first_look_missing(draft, &service.spec.cluster) {
        let reason =
            format!("{missing} tasks are missing, and host {host} was not looked at since the controller started");
        draft.waiting(subject(), reason, "it answers or is SUSPECT", Some(until));
        return (0, None);
    }
    if let Some((reason, wakes_when)) = volumes::obstacle(draft, service) {
        draft.waiting(subject(), format!("{missing} tasks are missing: {reason}"), wakes_when, None);
        return (0, None);
    }
    let mut slots = free_slots(draft, service);
    let failed_before = service.failures(draft) > 0;
    // After failures one task at a time tries whether it is better now.
    let allowed = if failed_before { 1 } else { allowed };
    if failed_before && is_trying(draft, service, starts) {
        let reason = format!("{missing} tasks are missing; after a failure one at a time is tried, and one just is");
        draft.waiting(subject(), reason, "the started one is healthy or fails", None);
        return (0, None);
    }
    for started in 0..allowed {
        let slot = slots.next().unwrap_or(u32::MAX);
        let reason = format!("{} wants {} tasks", service.name, service.spec.desired_count);
        if let Err(unplaceable) = place::start(draft, service, slot, None, &reason) {
            // After a pass that started some, the next one tells what is still missing.
            draft.waiting(
                subject(),
                format!("{missing} of {} tasks cannot be placed: {unplaceable}", service.spec.desired_count),
                "a host has room or becomes ACTIVE",
                None,
            );
            return (started, Some(unplaceable));
        }
    }
    (allowed, None)
}

/// Whether a task of what is started is on its way and was never healthy yet.
fn is_trying(draft: &Draft<'_>, service: &Subjected<'_>, starts: &RevisionId) -> bool {
    let is_trying = |no, task: &Task| task.revision == *starts && task.healthy_at.is_none() && draft.is_heard(no);
    service.wanted(draft).any(|(no, task)| is_trying(no, task))
}

/// Why what is missing cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blocked {
    No,
    ByCeiling,
    NoRoom,
}

/// Slot numbers that no live task of the service has, ascending.
fn free_slots(draft: &Draft<'_>, service: &Subjected<'_>) -> impl Iterator<Item = u32> + use<> {
    let live = service.all.iter().map(|no| draft.task(*no)).filter(|task| task.is_live());
    let taken: BTreeSet<u32> = live.map(|task| task.slot).collect();
    (1..u32::MAX).filter(move |slot| !taken.contains(slot))
}

/// How many healthy tasks may be stopped by choice.
struct Budget {
    /// Healthy ones on hosts that can be asked.
    healthy: usize,
    floor: usize,
}

impl Budget {
    /// Whether a task that serves may be stopped; `counted` is one of the healthy. One on a silent host was not counted, and
    /// goes only when the others keep the floor without it.
    fn spend(&mut self, counted: bool) -> bool {
        let may = if counted { self.healthy > self.floor } else { self.healthy >= self.floor };
        if may && counted {
            self.healthy -= 1;
        }
        may
    }
}

/// Stops tasks that are to be replaced: healthy ones while the floor stays kept, others once their place is filled or
/// nothing can be started without it.
fn stop_replaced(
    draft: &mut Draft<'_>,
    service: &Subjected<'_>,
    bounds: Bounds,
    desired: usize,
    keepers: &[TaskNo],
    replaced: &[(TaskNo, Replace)],
    blocked: Blocked,
) {
    if replaced.is_empty() {
        return;
    }
    let healthy_keepers = keepers.iter().filter(|no| service.healthy(draft, **no)).count();
    let healthy_replaced = replaced.iter().filter(|(no, _)| service.healthy(draft, *no)).count();
    let mut budget = Budget { healthy: healthy_keepers + healthy_replaced, floor: bounds.floor };
    // Start-first where the ceiling allows it: a task goes only when a healthy one took its place, unless none can be
    // started before it went.
    let mut places_filled = (healthy_keepers + replaced.len()).saturating_sub(desired);
    let ceiling_blocks = blocked == Blocked::ByCeiling && service.counted_live(draft) >= bounds.ceiling;
    // A sick task may hold the very room, or the port, that its replacement needs; one at a time.
    let mut makes_room = blocked == Blocked::NoRoom;
    for (no, why) in replaced.iter().copied() {
        let words = why.words(draft.world, service, draft.task(no));
        if why == Replace::Outdated && is_protected(draft, no, &words) {
            continue;
        }
        let task = draft.task(no);
        let never_ran = task.last_status < LastStatus::Running;
        let place_filled = places_filled > 0 || ceiling_blocks;
        let may_go = if service.serves(draft, no) {
            budget.spend(service.healthy(draft, no))
        } else {
            never_ran || place_filled || std::mem::take(&mut makes_room)
        };
        if !may_go {
            let subject = Subject::Task(task.id.clone());
            let reason = format!("{words}: it stays until a healthy task takes its place (floor {})", bounds.floor);
            draft.waiting(subject, reason, "a new task is healthy", None);
            continue;
        }
        places_filled = places_filled.saturating_sub(1);
        if why == Replace::Unhealthy {
            throttle::count_sick(draft, no);
        }
        service::stop(draft, no, why.code(), &words);
    }
}

pub(super) fn protected_until(draft: &Draft<'_>, no: TaskNo) -> Option<Timestamp> {
    draft.task(no).protected_until.filter(|until| *until > draft.now())
}

/// Whether a person protected a task from scale-in and deployments; then it waits, and says so.
pub(super) fn is_protected(draft: &mut Draft<'_>, no: TaskNo, words: &str) -> bool {
    let Some(until) = protected_until(draft, no) else { return false };
    let subject = Subject::Task(draft.task(no).id.clone());
    let reason = format!("{words}: it stays, since a person protected it");
    draft.waiting(subject, reason, format!("{until}, or `roadstead protect --off`"), Some(until));
    true
}

/// Stops what is beyond the desired count, by ECS's rule of choice.
fn scale_in(draft: &mut Draft<'_>, service: &Subjected<'_>, bounds: Bounds, desired: usize, keepers: &[TaskNo]) {
    let surplus = keepers.len().saturating_sub(desired);
    let mixed = keepers.iter().any(|no| service.is_outdated(draft.task(*no)));
    if surplus == 0 || (service.standstill.is_some() && mixed) {
        return;
    }
    let healthy_all = keepers.iter().filter(|no| service.healthy(draft, **no)).count();
    let mut budget = Budget { healthy: healthy_all, floor: bounds.floor };
    let (free, protected): (Vec<TaskNo>, Vec<TaskNo>) =
        keepers.iter().partition(|no| protected_until(draft, **no).is_none());
    for no in protected.into_iter().take(surplus.saturating_sub(free.len())) {
        is_protected(draft, no, "there are more tasks than wanted");
    }
    for no in place::choose_scale_in(draft, service, &free, surplus) {
        if service.serves(draft, no) && !budget.spend(service.healthy(draft, no)) {
            let subject = Subject::Task(draft.task(no).id.clone());
            let reason = format!("it is one too many, but the floor is {}", bounds.floor);
            draft.waiting(subject, reason, "another task is healthy", None);
            continue;
        }
        let reason = format!("{} wants only {desired} tasks", service.name);
        service::stop(draft, no, StopCode::ServiceSchedulerInitiated, &reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_counted_goes_above_the_floor_and_another_when_the_others_keep_it() {
        for (healthy, floor, counted, may, left) in [
            (3, 2, true, true, 2),
            (2, 2, true, false, 2),
            (2, 2, false, true, 2),
            (3, 2, false, true, 3),
            (1, 2, false, false, 1),
        ] {
            let mut budget = Budget { healthy, floor };
            assert_eq!((budget.spend(counted), budget.healthy), (may, left), "{healthy} {floor} {counted}");
        }
    }

    #[test]
    fn floor_rounds_up_and_ceiling_down() {
        let with = |minimum, maximum| DeploymentConfiguration {
            minimum_healthy_percent: Some(minimum),
            maximum_percent: Some(maximum),
            ..DeploymentConfiguration::default()
        };
        assert_eq!(bounds(3, &with(50, 150), 100, 200), Bounds { floor: 2, ceiling: 4 });
        assert_eq!(bounds(1, &with(0, 100), 100, 200), Bounds { floor: 0, ceiling: 1 });
        assert_eq!(bounds(4, &DeploymentConfiguration::default(), 100, 200), Bounds { floor: 4, ceiling: 8 });
        assert_eq!(bounds(4, &DeploymentConfiguration::default(), 0, 100), Bounds { floor: 0, ceiling: 4 });
    }
}
