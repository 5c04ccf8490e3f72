//! The start throttle: services whose tasks fail one after the other are started ever more slowly.
//!
//! Rule: "Service throttle logic", ECS developer guide.

use crate::model::{
    state::{MAX_FAILURES_KEPT, ServiceRecord},
    task::Task,
    time::Timestamp,
};

use super::{
    breaker,
    draft::{Draft, TaskNo},
};

/// The longest pause between two starts.
const MAX_DELAY_MS: u64 = 15 * 60_000;
/// A task that ended this soon after it was first healthy failed, too.
const EARLY_END_MS: u64 = 10_000;

/// The pause after `failures` in a row: none after the first, then 2 s, 4 s … 15 min.
pub(super) fn delay_ms(failures: u32) -> u64 {
    match failures {
        0 | 1 => 0,
        more => 1000_u64.checked_shl((more - 1).min(20)).unwrap_or(MAX_DELAY_MS).min(MAX_DELAY_MS),
    }
}

/// Whether the end of this task at `now` is a failed start of its service rather than the end of a life.
pub(super) fn failed_early(task: &Task, now: Timestamp) -> bool {
    !task.is_standalone() && task.healthy_at.is_none_or(|healthy_at| now.since_ms(healthy_at) < EARLY_END_MS)
}

/// Counts a start that failed: of the service, and of the deployment that it belongs to.
pub(super) fn count_failure(record: &mut ServiceRecord, task: &Task, now: Timestamp) {
    slow_down(record, task, now);
    breaker::count(record, task);
}

/// Counts a start that failed of the service only.
fn slow_down(record: &mut ServiceRecord, task: &Task, now: Timestamp) {
    // What failed together counts once: ten tasks of one killed host are not ten attempts.
    if record.failures.last().is_none_or(|(at, _)| *at != now) {
        record.consecutive_failures = record.consecutive_failures.saturating_add(1);
    }
    record.not_before = Some(now.plus_ms(delay_ms(record.consecutive_failures)));
    record.failures.push((now, task.host.clone()));
    let surplus = record.failures.len().saturating_sub(MAX_FAILURES_KEPT);
    record.failures.drain(..surplus);
}

/// The record of a task's service once somebody took the task's containers away: that slows starts down, and is not the
/// revision's fault.
pub(super) fn after_removal(known: Option<&ServiceRecord>, task: &Task, now: Timestamp) -> ServiceRecord {
    let mut record = record_of(known, task);
    slow_down(&mut record, task, now);
    record
}

fn record_of(known: Option<&ServiceRecord>, task: &Task) -> ServiceRecord {
    known.cloned().unwrap_or_else(|| ServiceRecord { name: task.service.clone(), ..ServiceRecord::default() })
}

/// The record of a task's service once the task's start failed; `None` when it is not known.
pub(super) fn after_failure(known: Option<&ServiceRecord>, task: &Task, now: Timestamp) -> ServiceRecord {
    let mut record = record_of(known, task);
    count_failure(&mut record, task, now);
    record
}

/// Counts a task of a draft as a start that failed.
pub(super) fn count_start_failure(draft: &mut Draft<'_>, no: TaskNo) {
    let now = draft.now();
    count_told(draft, no, |record, task| count_failure(record, task, now));
}

/// The same for a task that is given up as unhealthy, if it was never healthy; one that was is no failed start, but counts
/// against the deployment that is under way.
pub(super) fn count_sick(draft: &mut Draft<'_>, no: TaskNo) {
    match draft.task(no).healthy_at {
        None => count_start_failure(draft, no),
        Some(_) => count_told(draft, no, breaker::count),
    }
}

fn count_told(draft: &mut Draft<'_>, no: TaskNo, count: impl FnOnce(&mut ServiceRecord, &Task)) {
    let now = draft.now();
    draft.change_service_of(no, |task, record| count(record, task));
    let Some(service) = draft.tasks.service(no).map(|service| &draft.services[service]) else { return };
    let threshold = breaker::threshold_of(&draft.world.state, service.name);
    let event = service.record().and_then(|record| breaker::event(record, threshold, now));
    if let Some(event) = event {
        draft.event(event.subject, event.level, &event.reason, event.message);
    }
}

/// A task became healthy, or a new revision came: starts are free again.
pub(super) fn reset(record: &mut ServiceRecord) {
    record.consecutive_failures = 0;
    record.not_before = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_quarter_of_an_hour() {
        let delays: Vec<u64> = [0, 1, 2, 3, 4, 10, 11, 100].into_iter().map(|n| delay_ms(n) / 1000).collect();
        assert_eq!(delays, [0, 0, 2, 4, 8, 512, 900, 900]);
    }
}
