//! Scheduled tasks: which of their times have come, and what became of those that began.
//!
//! A fire is keyed by its schedule and its time. Its tasks and the record that says it happened are one plan's changes, and
//! so one commit: it never happens twice. Of several times that passed unseen only the newest is made up for. Times are the
//! machine's, which may be set or sleep while the controller runs; `considered_until` never goes back with them.

use std::sync::Arc;

use crate::model::{
    desired::Manifest,
    schedule::{Fire, FireOutcome, ScheduleRecord},
    spec::{ScheduledTaskSpec, scheduled_task::ConcurrencyPolicy},
    standalone::{Scheduled, Standalone},
    state::{Change, EventLevel, EventSubject},
    task::{LastStatus, StopCode, Task},
    time::Timestamp,
    timing::Timing,
    world::Subject,
};

use super::{
    draft::{Draft, TaskNo},
    place::{self, Job},
    revision, service, volumes,
};

/// Starts what is due.
pub(super) fn fire(draft: &mut Draft<'_>) {
    let world = draft.world;
    for (name, manifest) in &world.state.desired.scheduled_tasks {
        let known = world.state.schedules.get(name);
        let mut record = known.cloned().unwrap_or_else(|| ScheduleRecord { name: name.clone(), ..Default::default() });
        one(draft, manifest, &mut record, known.is_none());
        if known != Some(&record) {
            draft.put_schedule(record);
        }
    }
    for name in world.state.schedules.keys().filter(|name| !world.state.desired.scheduled_tasks.contains_key(*name)) {
        draft.remove(Change::ScheduleRemoved(name.clone()));
    }
}

fn one(draft: &mut Draft<'_>, manifest: &Manifest<ScheduledTaskSpec>, record: &mut ScheduleRecord, is_new: bool) {
    let (now, spec) = (draft.wall(), &manifest.spec);
    let timing = format!("{} {}", spec.schedule, spec.time_zone);
    if is_new || record.timing != timing || record.suspended != spec.suspend {
        (record.timing, record.suspended) = (timing, spec.suspend);
        record.considered_until = record.considered_until.max(now);
        record.next_at = match spec.suspend {
            true => None,
            false => read(spec).and_then(|timing| timing.next_after(record.considered_until)),
        };
    }
    if let Some(due) = record.next_at.filter(|due| *due <= now)
        && let Some(timing) = read(spec)
    {
        come(draft, spec, record, &timing, due);
    }
    record.next_at.into_iter().for_each(|at| draft.wake_at(draft.when_wall_is(at)));
}

/// Admission has read it before.
fn read(spec: &ScheduledTaskSpec) -> Option<Timing> {
    Timing::new(&spec.schedule, &spec.time_zone).ok()
}

/// A time has come: `due` is the first that was not considered.
fn come(draft: &mut Draft<'_>, spec: &ScheduledTaskSpec, record: &mut ScheduleRecord, timing: &Timing, due: Timestamp) {
    let now = draft.wall();
    let last = timing.last_until(due, now);
    if last > due {
        let words = format!("it could not begin before {last} came, which is made up for");
        end(draft, spec, record, due, FireOutcome::Missed, words);
        record.next_at = Some(last);
    }
    let deadline = spec.starting_deadline_seconds.map(|seconds| last.plus_ms(seconds.as_ms()));
    if deadline.is_some_and(|deadline| deadline < now) {
        let words = "it could not begin before its starting deadline".to_owned();
        end(draft, spec, record, last, FireOutcome::Missed, words);
    } else {
        match begin(draft, spec, record, last) {
            Begun::Yes => {}
            Begun::Skipped(words) => end(draft, spec, record, last, FireOutcome::Skipped, words),
            Begun::NotYet(words) => {
                let subject = Subject::ScheduledTask(record.name.clone());
                let wakes_when = "it can be placed, or its next time comes";
                // A moment later it is too late.
                let wakes_at = deadline.map(|deadline| draft.when_wall_is(deadline.plus_ms(1)));
                draft.waiting(subject, format!("{last} cannot begin: {words}"), wakes_when, wakes_at);
                timing.next_after(last).into_iter().for_each(|at| draft.wake_at(draft.when_wall_is(at)));
                return;
            }
        }
    }
    record.considered_until = last;
    record.next_at = timing.next_after(last);
}

/// Whether the tasks of a time were started.
enum Begun {
    Yes,
    NotYet(String),
    Skipped(String),
}

fn begin(draft: &mut Draft<'_>, spec: &ScheduledTaskSpec, record: &mut ScheduleRecord, at: Timestamp) -> Begun {
    let now = draft.now();
    let revision = match revision::named(draft, &spec.task_definition) {
        Ok(revision) => revision,
        Err(words) => return Begun::NotYet(words),
    };
    let definition = draft.revision(&revision).and_then(|revision| revision.spec.clone());
    let Some(definition) = definition else { return Begun::NotYet(format!("the content of {revision} was lost")) };
    if let Some((words, _)) = volumes::obstacle_in(draft, &spec.cluster, &definition) {
        return Begun::NotYet(words);
    }
    let running = running(draft, record);
    match spec.concurrency_policy {
        ConcurrencyPolicy::Allow => {}
        ConcurrencyPolicy::Forbid if !running.is_empty() => {
            return Begun::Skipped("the tasks of the time before still run".to_owned());
        }
        ConcurrencyPolicy::Forbid => {}
        ConcurrencyPolicy::Replace => {
            for no in running {
                let reason = format!("{} of {at} takes its place", record.name);
                service::stop(draft, no, StopCode::ServiceSchedulerInitiated, &reason);
            }
            for fire in record.fires.iter_mut().filter(|fire| fire.outcome == FireOutcome::Running) {
                fire.outcome = FireOutcome::Replaced;
                fire.reason = Some(format!("{at} took its place"));
                fire.ended_at = Some(now);
            }
        }
    }
    let mut job = Job {
        revision: &revision,
        definition: &definition,
        cluster: &spec.cluster,
        launch_type: spec.launch_type,
        constraints: &spec.placement_constraints,
        strategies: &spec.placement_strategy,
        network: spec.network_configuration.as_ref(),
        standalone: Arc::new(Standalone {
            started_by: Some(format!("scheduledtask/{}", record.name)),
            overrides: spec.overrides.clone(),
            scheduled: Some(Scheduled { by: record.name.clone(), at }),
            ..Standalone::default()
        }),
        nth: 0,
    };
    let reason = format!("{} fires, as scheduled for {at}", record.name);
    let (mut tasks, mut lacking) = (Vec::new(), None);
    while lacking.is_none() && job.nth < u64::from(spec.count) {
        match place::start_standalone(draft, &job, &reason) {
            Ok(id) => {
                tasks.push(id);
                job.nth += 1;
            }
            Err(unplaceable) => lacking = Some(unplaceable.to_string()),
        }
    }
    if let (true, Some(words)) = (tasks.is_empty(), &lacking) {
        return Begun::NotYet(words.clone());
    }
    let reason = lacking.map(|words| format!("{} of {} tasks were started: {words}", tasks.len(), spec.count));
    let level = if reason.is_some() { EventLevel::Warning } else { EventLevel::Normal };
    let words = format!("{} of {at} begins with {} tasks of {revision}", record.name, tasks.len());
    let outcome = FireOutcome::Running;
    draft.event(EventSubject::ScheduledTask(record.name.clone()), level, "ScheduleFired", words);
    let fire = Fire { scheduled_at: at, outcome, reason, fired_at: Some(now), ended_at: None, exit_code: None, tasks };
    record.fires.insert(0, fire);
    Begun::Yes
}

/// The tasks of a schedule's fires that run, or may: also one that is being stopped, or was given up with its host and not
/// seen gone.
fn running(draft: &Draft<'_>, record: &ScheduleRecord) -> Vec<TaskNo> {
    let of_it = |task: &Task| {
        task.standalone
            .as_ref()
            .and_then(|standalone| standalone.scheduled.as_ref())
            .is_some_and(|by| by.by == record.name)
    };
    draft.tasks.with(|traits| traits.live).filter(|(_, task)| of_it(task)).map(|(no, _)| no).collect()
}

/// Notes a time that did not begin.
fn end(
    draft: &mut Draft<'_>,
    spec: &ScheduledTaskSpec,
    record: &mut ScheduleRecord,
    scheduled_at: Timestamp,
    outcome: FireOutcome,
    words: String,
) {
    let reason = if outcome == FireOutcome::Skipped { "ScheduleSkipped" } else { "ScheduleMissed" };
    let message = format!("{} of {scheduled_at} does not begin: {words}", record.name);
    draft.event(EventSubject::ScheduledTask(record.name.clone()), EventLevel::Warning, reason, message);
    let fire = Fire {
        scheduled_at,
        outcome,
        reason: Some(words),
        fired_at: None,
        ended_at: None,
        exit_code: None,
        tasks: Vec::new(),
    };
    record.fires.insert(0, fire);
    record.trim(spec.successful_jobs_history_limit, spec.failed_jobs_history_limit);
}

/// Notes how the fires ended whose tasks are over.
pub(super) fn conclude(draft: &mut Draft<'_>) {
    let world = draft.world;
    for (name, manifest) in &world.state.desired.scheduled_tasks {
        let is_running = |fire: &Fire| fire.outcome == FireOutcome::Running;
        let known = draft.schedule(name).filter(|record| record.fires.iter().any(is_running));
        let Some(mut record) = known.cloned() else { continue };
        let mut news = Vec::new();
        for fire in record.fires.iter_mut().filter(|fire| is_running(fire)) {
            let tasks: Vec<&Task> = draft.tasks.iter().filter(|task| fire.tasks.contains(&task.id)).collect();
            if let Some((level, words)) = judge(fire, &tasks, world.now) {
                news.push((level, format!("{name} of {} {words}", fire.scheduled_at)));
            }
        }
        if news.is_empty() {
            continue;
        }
        for (level, words) in news {
            draft.event(EventSubject::ScheduledTask(name.clone()), level, "ScheduleEnded", words);
        }
        record.trim(manifest.spec.successful_jobs_history_limit, manifest.spec.failed_jobs_history_limit);
        draft.put_schedule(record);
    }
}

/// Gives a fire its outcome, if its tasks are over; in words how it ended.
fn judge(fire: &mut Fire, known: &[&Task], now: Timestamp) -> Option<(EventLevel, String)> {
    let ended = ended(known, fire.tasks.len())?;
    let codes: Vec<i64> = known.iter().flat_map(|task| exit_codes(task)).collect();
    fire.exit_code = codes.iter().find(|code| **code != 0).or(codes.first()).copied();
    fire.ended_at = Some(known.iter().filter_map(|task| task.stopped_at).max().unwrap_or(now));
    let words = match ended {
        Ok(()) if fire.reason.is_none() => {
            fire.outcome = FireOutcome::Succeeded;
            return Some((EventLevel::Normal, "succeeded".to_owned()));
        }
        Ok(()) => ENDED_SOMEHOW.to_owned(),
        Err(words) => words,
    };
    fire.outcome = FireOutcome::Failed;
    let words = fire.reason.get_or_insert(words);
    Some((EventLevel::Warning, format!("failed: {words}")))
}

const ENDED_SOMEHOW: &str = "it ended, and nobody knows how";

fn exit_codes(task: &Task) -> impl Iterator<Item = i64> {
    task.containers.values().filter(|row| row.essential).filter_map(|row| row.exit_code)
}

/// Whether `count` tasks that end by themselves are over, and if not well, why.
pub(super) fn ended(known: &[&Task], count: usize) -> Option<Result<(), String>> {
    // One on a lost host is over: whether it ever ends there, nobody can tell.
    let is_over = |task: &&Task| task.last_status == LastStatus::Stopped || task.stop_code == Some(StopCode::HostLost);
    if !known.iter().all(is_over) {
        return None;
    }
    let mut codes = known.iter().flat_map(|task| exit_codes(task)).peekable();
    let has_codes = codes.peek().is_some();
    let is_bad = codes.any(|code| code != 0);
    let by_itself = |task: &Task| task.stop_code == Some(StopCode::EssentialContainerExited);
    let all_known = known.len() == count;
    if !is_bad && known.iter().all(|task| by_itself(task)) && all_known && has_codes {
        return Some(Ok(()));
    }
    let of_task = known.iter().find(|task| !by_itself(task) || is_bad);
    Some(Err(match of_task.and_then(|task| task.stopped_reason.clone()) {
        _ if !all_known => "its tasks are not known any more".to_owned(),
        Some(words) => words,
        None => ENDED_SOMEHOW.to_owned(),
    }))
}
