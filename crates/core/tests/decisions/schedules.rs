//! Schedules: each time fires once, whatever became of the controller and its clock meanwhile.

use std::sync::Arc;

use roadstead_core::model::{
    container::ContainerState,
    desired::Manifest,
    schedule::{Fire, FireOutcome},
    task::{StopCode, Task},
    time::Timestamp,
};
use roadstead_core::turn::{Command, Core};
use serde_json::{Value, json};

use crate::story::{Story, one_container, web};

const MINUTE_MS: u64 = 60_000;

/// `web` every minute, and what else the spec says.
fn every_minute(more: Value) -> Story {
    let mut story = Story::begin(web(0), one_container());
    story.settle(&[]);
    let mut spec = json!({ "schedule": "rate(1 minute)", "taskDefinition": "web" });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let spec = serde_json::from_value(spec).unwrap();
    let manifest = Manifest { labels: [].into(), annotations: [].into(), file: "story.yaml".into(), line: 1, spec };
    story.desired.scheduled_tasks.insert("nightly".into(), manifest);
    story.tell();
    story.decide(1, &[]);
    story
}

impl Story {
    fn fires(&self) -> Vec<Fire> {
        self.core.world().state.schedules.get("nightly").map(|record| record.fires.clone()).unwrap_or_default()
    }

    fn fire_outcomes(&self) -> Vec<FireOutcome> {
        self.fires().iter().map(|fire| fire.outcome).collect()
    }

    fn scheduled(&self) -> Vec<Arc<Task>> {
        self.core.world().state.tasks.values().filter(|task| task.is_standalone()).cloned().collect()
    }

    /// Time passes, and everything is carried out.
    fn pass(&mut self, ms: u64) {
        let plan = self.decide(ms, &[]);
        plan.actions.iter().for_each(|action| self.obey(action));
        for _ in 0..5 {
            let plan = self.decide(1, &[]);
            plan.actions.iter().for_each(|action| self.obey(action));
        }
    }

    fn end_all(&mut self, code: i64) {
        for view in self.containers.values_mut().flat_map(|host| host.values_mut()) {
            (view.state, view.exit_code) = (ContainerState::Exited, Some(code));
        }
        self.pass(1_000);
    }

    /// The controller is killed and starts again, with this clock.
    fn reborn(&mut self, at: Timestamp) {
        self.now = at;
        let (core, _) = Core::new(self.core.world().state.clone(), 2, at, false);
        self.core = core;
        self.tell();
        for contact in self.contacts.values_mut() {
            contact.watched_since = at;
        }
    }
}

#[test]
fn a_schedule_fires_at_its_time_and_remembers_how_it_went() {
    let mut story = every_minute(json!({ "count": 2 }));
    assert_eq!(story.fires(), []);
    let wakes_at = story.decide(1, &[]).wake_at.expect("the next time");
    assert_eq!(Some(wakes_at), story.core.world().state.schedules["nightly"].next_at);
    story.pass(MINUTE_MS - 10_000);
    assert_eq!(story.fires(), [], "not before its time");
    story.pass(10_000);
    assert_eq!((story.running(), story.fire_outcomes()), (2, vec![FireOutcome::Running]));
    let task = story.scheduled().remove(0);
    assert_eq!(task.standalone.as_ref().unwrap().started_by.as_deref(), Some("scheduledtask/nightly"));
    story.end_all(0);
    assert_eq!(story.fire_outcomes(), [FireOutcome::Succeeded]);
    assert_eq!(story.fires()[0].exit_code, Some(0));
    story.pass(MINUTE_MS);
    story.end_all(3);
    assert_eq!(story.fire_outcomes(), [FireOutcome::Failed, FireOutcome::Succeeded]);
    let last = story.fires().remove(0);
    assert_eq!(last.exit_code, Some(3));
    assert!(last.reason.unwrap().contains("exit code 3"));
}

#[test]
fn a_fire_and_its_tasks_are_one_plan() {
    let mut story = every_minute(json!({}));
    let before = story.core.world().state.clone();
    let plan = story.decide(MINUTE_MS, &[]);
    assert_eq!((story.scheduled().len(), story.fires().len()), (1, 1));
    assert!(!plan.actions.is_empty());
    // What is durable is what was there before, or all of it: from both it goes on as if nothing had been.
    let after = story.core.world().state.clone();
    for (state, words) in [(before, "nothing of it is durable"), (after, "all of it is durable")] {
        let (core, _) = Core::new(state, 3, story.now.plus_ms(5), false);
        story.core = core;
        story.tell();
        story.pass(1_000);
        assert_eq!((story.fires().len(), story.scheduled().len()), (1, 1), "{words}");
        story.containers.values_mut().for_each(|host| host.clear());
    }
}

#[test]
fn of_many_missed_times_one_is_made_up_for() {
    let mut story = every_minute(json!({}));
    let begun = story.core.world().state.schedules["nightly"].considered_until;
    let later = story.now.plus_ms(10 * MINUTE_MS + 20_000);
    story.reborn(later);
    for _ in 0..3 {
        story.pass(1_000);
    }
    assert_eq!(story.fire_outcomes(), [FireOutcome::Running, FireOutcome::Missed]);
    let fires = story.fires();
    assert_eq!(fires[1].scheduled_at, begun.plus_ms(MINUTE_MS), "the first that was missed");
    assert_eq!(fires[0].scheduled_at, begun.plus_ms(10 * MINUTE_MS), "the last");
    assert_eq!(story.scheduled().len(), 1);
}

#[test]
fn what_is_too_late_is_missed() {
    let mut story = every_minute(json!({ "startingDeadlineSeconds": 5 }));
    let later = story.now.plus_ms(MINUTE_MS + 20_000);
    story.reborn(later);
    story.pass(1_000);
    assert_eq!((story.fire_outcomes(), story.scheduled().len()), (vec![FireOutcome::Missed], 0));
    story.pass(40_000);
    assert_eq!(story.fire_outcomes(), [FireOutcome::Running, FireOutcome::Missed], "the next one begins");
}

#[test]
fn a_clock_that_goes_back_fires_nothing_again() {
    let mut story = every_minute(json!({}));
    story.pass(MINUTE_MS);
    story.end_all(0);
    let back = Timestamp(story.now.0 - 30_000);
    story.reborn(back);
    for _ in 0..3 {
        story.pass(10_000);
    }
    assert_eq!(story.fire_outcomes(), [FireOutcome::Succeeded]);
    story.pass(MINUTE_MS);
    assert_eq!(story.fires().len(), 2, "time has passed what was considered");
}

#[test]
fn policies_say_what_happens_to_tasks_that_still_run() {
    for (policy, outcomes, running) in [
        ("Allow", [FireOutcome::Running, FireOutcome::Running], 2),
        ("Forbid", [FireOutcome::Skipped, FireOutcome::Running], 1),
        ("Replace", [FireOutcome::Running, FireOutcome::Replaced], 1),
    ] {
        let mut story = every_minute(json!({ "concurrencyPolicy": policy }));
        story.pass(MINUTE_MS);
        story.pass(MINUTE_MS);
        assert_eq!(story.fire_outcomes(), outcomes, "{policy}");
        assert_eq!(story.running(), running, "{policy}");
        let stopped = story.stop_codes();
        let expected: &[StopCode] = if policy == "Replace" { &[StopCode::ServiceSchedulerInitiated] } else { &[] };
        assert_eq!(stopped, expected, "{policy}");
    }
}

#[test]
fn a_clock_that_is_set_is_followed_and_nothing_fires_twice() {
    let mut story = every_minute(json!({}));
    story.pass(MINUTE_MS);
    assert_eq!(story.fires().len(), 1);
    // The machine slept for two hours, which our clock did not see.
    story.core.note_wall(120 * 60_000);
    story.pass(1_000);
    assert_eq!(story.fire_outcomes()[..2], [FireOutcome::Running, FireOutcome::Missed], "the newest is made up for");
    let known = story.fires().len();
    story.pass(MINUTE_MS);
    assert_eq!(story.fires().len(), known + 1);
    // It is set back by an hour: what has fired does not fire again.
    story.core.note_wall(60 * 60_000);
    for _ in 0..59 {
        story.pass(MINUTE_MS);
    }
    assert_eq!(story.fires().len(), known + 1);
    story.pass(2 * MINUTE_MS);
    assert!(story.fires().len() > known + 1, "its time has come again");
}

#[test]
fn a_task_that_is_ending_or_perhaps_runs_on_a_lost_host_still_runs() {
    let mut story = every_minute(json!({ "concurrencyPolicy": "Forbid" }));
    story.pass(MINUTE_MS);
    let task = story.scheduled()[0].clone();
    let stop = Command::StopTask { task: task.id.clone(), reason: None };
    story.core.command(story.now, stop).unwrap();
    // It takes its stopTimeout.
    for _ in 0..7 {
        story.decide(10_000, &[]);
    }
    assert_eq!(story.fire_outcomes()[0], FireOutcome::Skipped);
    assert_eq!(story.scheduled().len(), 1);

    let mut story = every_minute(json!({ "concurrencyPolicy": "Forbid" }));
    story.pass(MINUTE_MS);
    let host = story.scheduled()[0].host.clone();
    for _ in 0..70 {
        story.decide(1_000, &[host.as_str()]);
    }
    assert_eq!(story.scheduled()[0].stop_code, Some(StopCode::HostLost));
    assert_eq!(story.scheduled().len(), 1, "nobody saw it gone");
}

#[test]
fn what_cannot_be_placed_waits_visibly_and_for_its_own_time_only() {
    let mut story = every_minute(json!({ "overrides": { "memory": 10_000 } }));
    let plan = story.decide(MINUTE_MS, &[]);
    let waiting =
        plan.report.waiting.iter().find(|waiting| waiting.reason.contains("cannot begin")).expect("it is told");
    assert!(waiting.reason.contains("0/3 hosts fit"), "{}", waiting.reason);
    assert!(plan.changes.is_empty(), "{:?}", plan.changes);
    assert_eq!(story.fires(), []);
    story.decide(MINUTE_MS, &[]);
    assert_eq!(story.fire_outcomes(), [FireOutcome::Missed], "the next one took its place");
    story.desired.scheduled_tasks.values_mut().for_each(|manifest| manifest.spec.overrides.memory = None);
    story.tell();
    story.pass(1_000);
    assert_eq!(story.fire_outcomes(), [FireOutcome::Running, FireOutcome::Missed]);
}

#[test]
fn while_suspended_nothing_fires_and_nothing_is_made_up_for() {
    let mut story = every_minute(json!({ "suspend": true }));
    story.pass(5 * MINUTE_MS);
    assert_eq!(story.fires(), []);
    story.desired.scheduled_tasks.values_mut().for_each(|manifest| manifest.spec.suspend = false);
    story.tell();
    story.pass(1);
    story.pass(MINUTE_MS - 10_000);
    assert_eq!(story.fires(), []);
    story.pass(10_000);
    assert_eq!(story.fire_outcomes(), [FireOutcome::Running]);
    story.desired.scheduled_tasks.clear();
    story.tell();
    story.pass(MINUTE_MS);
    assert!(story.core.world().state.schedules.is_empty());
    assert_eq!(story.running(), 1, "what began goes on");
}

#[test]
fn history_has_its_limits() {
    let mut story = every_minute(json!({ "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1 }));
    for code in [0, 1, 0, 1, 0, 0] {
        story.pass(MINUTE_MS);
        story.end_all(code);
    }
    assert_eq!(story.fire_outcomes(), [FireOutcome::Succeeded, FireOutcome::Succeeded, FireOutcome::Failed]);
}

#[test]
fn another_schedule_counts_from_now_on() {
    let mut story = every_minute(json!({}));
    let next = |story: &Story| story.state().schedules["nightly"].next_at.unwrap().since_ms(story.now);
    assert!(next(&story) <= MINUTE_MS);
    story.desired.scheduled_tasks.get_mut("nightly").unwrap().spec.schedule = "rate(1 hour)".into();
    story.tell();
    story.decide(1, &[]);
    assert!(next(&story) > 50 * MINUTE_MS, "{}", next(&story));
}

/// Time passes, and what is said of the schedule.
fn said(story: &mut Story, ms: u64) -> Vec<String> {
    let plan = story.decide(ms, &[]);
    plan.actions.iter().for_each(|action| story.obey(action));
    story.said(&plan).filter(|reason| reason.starts_with("Schedule")).collect()
}

#[test]
fn what_was_skipped_and_what_was_missed_are_told_apart() {
    let mut story = every_minute(json!({ "concurrencyPolicy": "Forbid" }));
    assert_eq!(said(&mut story, MINUTE_MS), ["ScheduleFired"]);
    assert_eq!(story.fire_outcomes(), [FireOutcome::Running]);
    assert_eq!(said(&mut story, MINUTE_MS), ["ScheduleSkipped"], "it still runs");
    assert_eq!(said(&mut story, 3 * MINUTE_MS), ["ScheduleMissed", "ScheduleSkipped"]);
}

#[test]
fn a_starting_deadline_may_be_met_to_the_millisecond() {
    for (late_ms, outcome) in [(10_000, FireOutcome::Running), (10_001, FireOutcome::Missed)] {
        let mut story = every_minute(json!({ "startingDeadlineSeconds": 10 }));
        let due = story.state().schedules["nightly"].next_at.unwrap();
        story.decide(due.plus_ms(late_ms).since_ms(story.now), &[]);
        assert_eq!(story.fire_outcomes(), [outcome], "{late_ms}");
    }
}

#[test]
fn a_time_that_failed_says_why_by_the_task_that_did_not_end_by_itself() {
    let mut story = every_minute(json!({ "count": 2 }));
    story.pass(MINUTE_MS);
    let tasks = story.scheduled();
    assert_eq!(tasks.len(), 2);
    let last = tasks.last().unwrap().id.clone();
    for view in story.containers.values_mut().flat_map(|host| host.values_mut()) {
        if view.owner.ours().unwrap().task != last {
            (view.state, view.exit_code) = (ContainerState::Exited, Some(0));
        }
    }
    let stop = Command::StopTask { task: last, reason: Some("enough".into()) };
    story.core.command(story.now, stop).unwrap();
    story.pass(1_000);
    story.pass(1_000);
    assert_eq!((story.fires()[0].outcome, story.fires()[0].reason.as_deref()), (FireOutcome::Failed, Some("enough")));

    let mut story = every_minute(json!({}));
    story.pass(MINUTE_MS);
    story.containers.values_mut().for_each(|on| on.clear());
    story.go_on_with(|state| state.tasks.clear());
    story.decide(1_000, &[]);
    assert_eq!(story.fires()[0].reason.as_deref(), Some("its tasks are not known any more"));
}

#[test]
fn a_time_has_the_exit_code_that_is_not_zero() {
    for codes in [[0, 3], [3, 0]] {
        let mut story = every_minute(json!({ "count": 2 }));
        story.pass(MINUTE_MS);
        let tasks = story.scheduled();
        for view in story.containers.values_mut().flat_map(|host| host.values_mut()) {
            let nth = tasks.iter().position(|task| view.owner.ours().unwrap().task == task.id).unwrap();
            (view.state, view.exit_code) = (ContainerState::Exited, Some(codes[nth]));
        }
        story.pass(1_000);
        assert_eq!((story.fires()[0].outcome, story.fires()[0].exit_code), (FireOutcome::Failed, Some(3)), "{codes:?}");
    }
}

#[test]
fn a_time_of_which_a_task_found_no_host_failed_though_the_others_end_well() {
    // No host holds two of 5,000 MiB.
    let mut story = every_minute(json!({ "count": 7, "overrides": { "memory": 5_000 } }));
    story.pass(MINUTE_MS);
    let begun = story.scheduled().len();
    assert!((1..7).contains(&begun), "{begun}");
    story.end_all(0);
    let last = story.fires().remove(0);
    assert_eq!((last.outcome, last.exit_code), (FireOutcome::Failed, Some(0)));
    assert!(
        last.reason.as_deref().unwrap_or_default().starts_with(&format!("{begun} of 7 tasks were started")),
        "{last:?}"
    );
}
