//! Stories of what deployments ask over HTTP.

use roadstead_core::{
    model::{
        call::{Call, Reply},
        deployment::{LifecycleStage, Outcome, RolloutState},
    },
    plan::calls::calls,
    turn::Input,
};
use serde_json::{Value, json};

use super::{
    story::Story,
    traffic::{waits, well},
};

fn asked(hook: Value) -> Story {
    let mut story = Story::in_turns(json!({ "strategy": "BLUE_GREEN", "bakeTime": 60, "lifecycleHooks": [hook] }));
    story.deploy("demo:2");
    story
}

fn says(status: &str) -> Reply {
    Ok((200, json!({ "hookStatus": status, "callBackDelay": 20 }).to_string().into_bytes()))
}

impl Story {
    /// Answers what is due by now; how much that was.
    fn reply(&mut self, reply: impl Fn(&Call) -> Reply) -> usize {
        let due: Vec<Call> = calls(self.state()).into_iter().filter(|call| call.at <= self.now).collect();
        for call in &due {
            self.core.take(self.now, Input::Called(call.id.clone(), call.at, reply(call)));
        }
        due.len()
    }

    /// Goes on for so long, each second answering; how often it was asked.
    fn replying(&mut self, seconds: u64, reply: impl Fn(&Call) -> Reply) -> usize {
        (0..seconds)
            .map(|_| {
                let count = self.reply(&reply);
                self.go(1, &well());
                count
            })
            .sum()
    }
}

#[test]
fn a_server_is_asked_until_it_says_that_the_stage_may_end() {
    let mut story = asked(json!({ "lifecycleStages": ["POST_SCALE_UP"], "url": "http://hooks.lan/" }));
    story.until_stage(LifecycleStage::PostScaleUp);
    story.go(2, &well());
    let call = calls(story.state()).pop().unwrap();
    let told: Value = serde_json::from_str(&call.body.text).unwrap();
    assert_eq!((&told["targetRevision"], &told["sourceRevision"]), (&json!("web:2"), &json!("web:1")));
    assert_eq!(story.replying(70, |_| says("IN_PROGRESS")), 4, "at once, and every 20 s");
    assert_eq!(story.stage(), Some(LifecycleStage::PostScaleUp));
    assert!(waits(&story, "its hook http://hooks.lan/: IN_PROGRESS"));
    // An answer that comes late is that of another question.
    let late = calls(story.state()).pop().unwrap();
    assert_eq!(story.core.take(story.now, Input::Called(late.id, call.at, says("SUCCEEDED"))), []);
    story.replying(25, |_| says("SUCCEEDED"));
    story.go_until("completed", &well(), |story| story.rollout() == RolloutState::Completed);
}

#[test]
fn a_server_that_says_failed_or_nothing_in_time_takes_the_deployment_back() {
    let silent = || Err("connection refused".to_owned());
    let replies =
        [(says("FAILED"), 1, "http://hooks.lan/ says FAILED"), (silent(), 6, "took too long: connection refused")];
    for (reply, times, words) in replies {
        let mut story =
            asked(json!({ "lifecycleStages": ["PRE_SCALE_UP"], "url": "http://hooks.lan/", "timeout": 60 }));
        story.until_stage(LifecycleStage::PreScaleUp);
        story.go(2, &well());
        assert_eq!(story.replying(70, |_| reply.clone()), times, "{words}");
        assert!(story.outcomes().contains(&(2, Some(Outcome::RolledBack))), "{:?}", story.outcomes());
        let reasons: Vec<&str> =
            story.state().services["web"].deployments.iter().map(|it| it.rollout_state_reason.as_str()).collect();
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{reasons:?}");
        assert_eq!(calls(story.state()), [], "nobody is asked any more");
    }
}

fn watched() -> Story {
    let alarms = json!({ "prometheus": {
        "url": "http://prometheus.lan:9090/", "interval": 5,
        "queries": [
            { "name": "errors", "query": "errors{revision=\"$revision\"} > 1", "evaluationPeriods": 2 },
            { "name": "never", "query": "vector(0) > 1" },
        ],
    } });
    let mut story = Story::in_turns(json!({ "strategy": "BLUE_GREEN", "bakeTime": 60, "alarms": alarms }));
    story.deploy("demo:2");
    story
}

fn samples(some: bool) -> Reply {
    let result = if some { json!([{ "metric": {}, "value": [1, "1"] }]) } else { json!([]) };
    let answer = json!({ "status": "success", "data": { "resultType": "vector", "result": result } });
    Ok((200, answer.to_string().into_bytes()))
}

#[test]
fn a_query_that_has_a_result_twice_in_a_row_takes_the_deployment_back() {
    let mut story = watched();
    story.go(2, &well());
    let call = calls(story.state()).remove(0);
    assert_eq!(call.url, "http://prometheus.lan:9090/api/v1/query");
    assert_eq!(call.body.text, "query=errors%7Brevision%3D%222%22%7D+%3E+1");
    let fires = |call: &Call| samples(call.body.text.contains("errors"));
    assert_eq!(story.reply(fires), 2);
    story.replying(6, |_| samples(false));
    // Once, and once more after a pause, is not twice in a row; an answer that cannot be read changes nothing.
    assert_eq!(story.replying(5, fires), 2);
    story.replying(5, |_| Err("connection refused".to_owned()));
    assert_eq!(story.rollout(), RolloutState::InProgress);
    story.replying(5, fires);
    assert!(story.outcomes().contains(&(2, Some(Outcome::RolledBack))), "{:?}", story.outcomes());
    let reasons: Vec<&str> =
        story.state().services["web"].deployments.iter().map(|it| it.rollout_state_reason.as_str()).collect();
    assert!(reasons.iter().any(|it| it.contains("the query errors had a result 2 times in a row")), "{reasons:?}");
}

#[test]
fn a_prometheus_that_is_silent_holds_nothing_up_and_is_told_of() {
    let mut story = watched();
    story.replying(20, |_| Err("connection refused".to_owned()));
    assert!(waits(&story, "the alarm errors does not watch its deployment"));
    for _ in 0..120 {
        story.replying(1, |_| Err("connection refused".to_owned()));
    }
    assert_eq!((story.rollout(), story.primary().revision.number), (RolloutState::Completed, 2));
}
