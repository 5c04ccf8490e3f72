//! How requests are answered during a deployment, and the alarms that take it back.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_core::{
    model::{
        deployment::Analysis,
        latency::{self, Latency},
        state::{LifecycleStage, Outcome},
        time::Timestamp,
        traffic::Answers,
    },
    plan::absorb::RolloutVerb,
};
use serde_json::{Value, json};

use super::{
    story::Story,
    traffic::{Edges, well},
};

/// Two tasks of each revision, at each of two edges.
const COUNTERS: u64 = 4;

fn answers(requests: u64, errors: u64) -> Answers {
    Answers { requests, errors, ..Answers::default() }
}

/// What each target of a revision has answered by now.
fn say(answers: &[(u32, Answers)]) -> Edges {
    Edges { answers: BTreeMap::from_iter(answers.iter().copied()), ..well() }
}

fn strategy(alarms: Value) -> Value {
    json!({ "strategy": "BLUE_GREEN", "bakeTime": 600, "alarms": alarms })
}

/// A new revision that bakes, of which nothing was counted yet.
fn baking(alarms: Value) -> Story {
    let mut story = Story::in_turns(strategy(alarms));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story
}

fn analysis(story: &Story) -> Analysis {
    let of_two = story.service().deployments.iter().find(|it| it.revision.number == 2);
    of_two.map(|it| it.analysis.clone()).unwrap_or_default()
}

fn outcome_of_two(story: &Story) -> Option<Outcome> {
    story.service().deployments.iter().find(|it| it.revision.number == 2).and_then(|it| it.outcome)
}

#[test]
fn a_revision_that_fails_more_often_than_the_one_before_is_taken_back() {
    for (old, new, is_taken_back) in [
        (answers(0, 0), answers(25, 1), true),
        (answers(0, 0), answers(24, 24), false),
        (answers(0, 0), answers(1_000, 20), false),
        (answers(0, 0), answers(1_000, 21), true),
        (answers(100, 3), answers(100, 5), false),
        (answers(100, 3), answers(100, 6), true),
        (answers(100, 50), answers(100, 5), false),
    ] {
        let mut story = baking(json!({ "maximumErrorPercent": 2, "minimumRequests": 100 }));
        story.go(20, &say(&[(1, old), (2, new)]));
        let expected = is_taken_back.then_some(Outcome::RolledBack);
        assert_eq!(outcome_of_two(&story), expected, "{old:?} {new:?}");
        let all = if is_taken_back { (1_000, 0) } else { (0, 1_000) };
        assert_eq!(story.weights("front/http"), all, "{old:?} {new:?}");
        let counted = |of: Answers| answers(COUNTERS * of.requests, COUNTERS * of.errors);
        let found = analysis(&story);
        assert_eq!((found.new, found.old), (counted(new), counted(old)));
        assert_eq!(found.counted.is_empty(), is_taken_back, "what is over needs no counters");
    }
}

#[test]
fn what_fails_until_every_edge_has_turned_back_is_counted_too() {
    let mut story = baking(json!({ "maximumErrorPercent": 1 }));
    story.show(&say(&[(2, answers(100, 50))]));
    story.decide(1_000, &[]);
    assert_eq!((story.weights("front/http"), analysis(&story).new), ((1_000, 0), answers(400, 200)));
    story.go(20, &say(&[(2, answers(110, 60))]));
    assert_eq!((outcome_of_two(&story), analysis(&story).new), (Some(Outcome::RolledBack), answers(440, 240)));
}

#[test]
fn it_says_how_many_requests_failed() {
    let mut story = baking(json!({ "maximumErrorPercent": 1 }));
    let mut said = story.show(&say(&[(1, answers(500, 0)), (2, answers(100, 5))]));
    for _ in 0..20 {
        let plan = story.decide(1_000, &[]);
        said.extend(super::looks::events(&plan.changes).into_iter().map(|event| event.message));
        plan.actions.iter().for_each(|action| story.obey(action));
        story.show(&say(&[(1, answers(500, 0)), (2, answers(100, 5))]));
    }
    let taken_back = said.iter().find(|words| words.contains("ROLLED_BACK")).expect("it ends");
    for words in [
        "its alarm: more than 1 % of its requests fail",
        "400 requests, 20 failed (5 %); of 2000 to other revisions 0 %",
    ] {
        assert!(taken_back.contains(words), "{taken_back}");
    }
}

/// So many quick answers, of at most 5 ms, and slow ones, of 101 to 200 ms.
fn took(quick: u64, slow: u64) -> Answers {
    let mut counts = [0; latency::BUCKETS];
    (counts[2], counts[7]) = (quick, slow);
    Answers { requests: quick + slow, errors: 0, latency: Latency::new(counts) }
}

#[test]
fn a_revision_whose_answers_take_too_long_is_taken_back() {
    for (alarms, old, new, words) in [
        (
            json!({ "maximumLatencyMs": 100 }),
            took(0, 0),
            took(98, 2),
            "the p99 of its answers is 150 ms, more than 100 ms",
        ),
        (json!({ "maximumLatencyMs": 100 }), took(0, 0), took(99, 1), ""),
        (json!({ "maximumLatencyMs": 200 }), took(0, 0), took(0, 100), ""),
        (json!({ "maximumLatencyMs": 100 }), took(0, 0), took(0, 12), ""),
        (json!({ "maximumLatencyMs": 100, "latencyPercentile": 50 }), took(0, 0), took(51, 49), ""),
        (
            json!({ "maximumLatencyMs": 100, "latencyPercentile": 50 }),
            took(0, 0),
            took(49, 51),
            "the p50 of its answers is",
        ),
        (
            json!({ "maximumLatencyIncreasePercent": 50 }),
            took(100, 0),
            took(98, 2),
            "the p99 of its answers is 150 ms, and that of the others' 4 ms",
        ),
        (json!({ "maximumLatencyIncreasePercent": 50 }), took(98, 2), took(98, 2), ""),
        (json!({ "maximumLatencyIncreasePercent": 50 }), took(0, 0), took(98, 2), ""),
        (json!({ "maximumLatencyIncreasePercent": 50 }), took(12, 0), took(98, 2), ""),
        (json!({ "maximumLatencyIncreasePercent": 5000 }), took(100, 0), took(98, 2), ""),
    ] {
        let mut story = baking(alarms.clone());
        story.go(20, &say(&[(1, old), (2, new)]));
        let two = story.service().deployments.iter().find(|it| it.revision.number == 2).unwrap();
        assert_eq!(two.outcome, (!words.is_empty()).then_some(Outcome::RolledBack), "{alarms} {old:?} {new:?}");
        assert!(two.rollout_state_reason.contains(words), "{}", two.rollout_state_reason);
    }
}

#[test]
fn a_little_longer_is_no_alarm() {
    let mut counts = [0; latency::BUCKETS];
    counts[3] = 100;
    let new = Answers { requests: 100, errors: 0, latency: Latency::new(counts) };
    let mut story = baking(json!({ "maximumLatencyIncreasePercent": 10 }));
    story.go(20, &say(&[(1, took(100, 0)), (2, new)]));
    assert_eq!(outcome_of_two(&story), None, "9 ms after 4 ms");
}

#[test]
fn a_revision_whose_containers_are_started_again_and_again_is_taken_back() {
    for (maximum, outcome) in [(2, None), (1, Some(Outcome::RolledBack)), (0, Some(Outcome::RolledBack))] {
        let mut story = baking(json!({ "maximumRestarts": maximum }));
        story.go_on_with(|state| {
            for task in state.tasks.values_mut() {
                let (is_new, task) = (task.revision.number == 2, Arc::make_mut(task));
                // Those of the old revision are not counted.
                task.restarts = vec![Timestamp(1); if is_new { 1 } else { 9 }];
            }
        });
        story.go(20, &well());
        assert_eq!(outcome_of_two(&story), outcome, "{maximum}");
    }
}

#[test]
fn alarms_do_as_they_are_told() {
    for (alarms, outcome) in [
        (json!({}), None),
        (json!({ "enable": false, "maximumErrorPercent": 1 }), None),
        (json!({ "maximumErrorPercent": 1 }), Some(Outcome::RolledBack)),
        (json!({ "rollback": false, "maximumErrorPercent": 1 }), Some(Outcome::Failed)),
    ] {
        let mut story = baking(alarms.clone());
        story.go(20, &say(&[(2, answers(100, 50))]));
        assert_eq!(outcome_of_two(&story), outcome, "{alarms}");
    }
}

#[test]
fn one_that_a_person_paused_is_watched_and_one_that_has_taken_over_is_not() {
    let alarms = json!({ "maximumErrorPercent": 1 });
    let mut story = baking(alarms.clone());
    story.verb(RolloutVerb::Pause);
    story.go(20, &say(&[(2, answers(100, 50))]));
    assert_eq!((outcome_of_two(&story), story.weights("front/http")), (Some(Outcome::RolledBack), (1_000, 0)));

    let mut story = Story::in_turns(json!({ "strategy": "BLUE_GREEN", "bakeTime": 1, "alarms": alarms }));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::CleanUp);
    story.go(20, &say(&[(2, answers(100, 50))]));
    assert_eq!((outcome_of_two(&story), story.weights("front/http")), (Some(Outcome::Succeeded), (0, 1_000)));
}

#[test]
fn what_was_answered_before_the_deployment_is_not_of_it_and_counters_may_begin_anew() {
    let mut story = Story::in_turns(strategy(json!({ "maximumErrorPercent": 1 })));
    let before = say(&[(1, answers(9_000, 4_000))]);
    story.go(5, &before);
    story.deploy("demo:2");
    story.go_until("it bakes", &before, |story| story.stage() == Some(LifecycleStage::BakeTime));
    assert_eq!((analysis(&story).old, analysis(&story).new), (answers(0, 0), answers(0, 0)));
    story.go(2, &say(&[(1, answers(9_010, 4_000)), (2, answers(30, 0))]));
    assert_eq!((analysis(&story).old, analysis(&story).new), (answers(40, 0), answers(120, 0)));
    // An edge whose program began anew.
    story.go(2, &say(&[(1, answers(0, 0)), (2, answers(5, 0))]));
    assert_eq!((analysis(&story).old, analysis(&story).new), (answers(40, 0), answers(140, 0)));
    // One that says nothing of it for a while.
    story.go(2, &Edges { obey: vec![], ..well() });
    story.go(20, &say(&[(1, answers(0, 0)), (2, answers(6, 1))]));
    assert_eq!(analysis(&story).new, answers(144, 4));
    assert_eq!(outcome_of_two(&story), Some(Outcome::RolledBack));
}

#[test]
fn where_a_revision_is_started_anew_its_tasks_of_before_are_the_others() {
    let mut story = Story::in_turns(strategy(json!({})));
    story.verb(RolloutVerb::Restart);
    story.go_until("it bakes", &well(), |story| story.stage() == Some(LifecycleStage::BakeTime));
    story.go(2, &say(&[(1, answers(10, 1))]));
    let primary = story.service().primary().unwrap();
    assert_eq!((primary.analysis.new, primary.analysis.old), (answers(40, 4), answers(40, 4)));
}

#[test]
fn an_alarm_that_is_set_once_it_has_taken_over_takes_nothing_back() {
    let mut story = Story::in_turns(json!({
        "strategy": "BLUE_GREEN", "bakeTime": 5, "alarms": { "maximumErrorPercent": 90 }
    }));
    let failing = say(&[(2, answers(100, 50))]);
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story.go_until("it has taken over", &failing, |story| story.stage() == Some(LifecycleStage::CleanUp));
    assert_eq!((analysis(&story).new, outcome_of_two(&story)), (answers(400, 200), None));
    let spec = &mut story.desired.services.get_mut("web").unwrap().spec;
    spec.deployment_configuration.alarms = serde_json::from_value(json!({ "maximumErrorPercent": 1 })).unwrap();
    story.tell();
    story.go(20, &failing);
    assert_eq!((outcome_of_two(&story), story.weights("front/http")), (Some(Outcome::Succeeded), (0, 1_000)));
}
