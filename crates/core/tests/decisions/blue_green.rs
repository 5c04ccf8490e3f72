//! BLUE_GREEN, CANARY and LINEAR: two target groups that take turns.

use roadstead_core::{
    model::{
        container::ContainerState,
        desired::Manifest,
        name::TaskId,
        spec::{LoadBalancerSpec, TargetGroupSpec, TaskDefinitionSpec},
        state::{Deployment, LifecycleStage, Outcome, RolloutState, Schedulability, ServiceRecord},
        task::Task,
        traffic::{RuleRef, Side},
    },
    plan::{
        absorb::RolloutVerb,
        traffic::{edges, forwards},
    },
    turn::Command,
};
use serde_json::{Value, json};

use super::{
    story::{Story, manifest},
    traffic::{Edges, WELL, of, waits, well, with_port},
};

/// Where a rule of the load balancer sends requests: to blue and to green, of 1,000.
type Weights = (u32, u32);

const SERVICE: &str = "web";

fn sick(revisions: &[u32]) -> Edges {
    Edges { sick: revisions.to_vec(), ..well() }
}

impl Story {
    /// Two tasks in service, with a rule for clients and one for tests.
    pub fn in_turns(strategy: Value) -> Self {
        let mut story = Self::begin(
            json!({
                "taskDefinition": "web", "desiredCount": 2, "deploymentConfiguration": strategy,
                "loadBalancers": [{
                    "targetGroup": "web", "alternateTargetGroup": "green",
                    "productionListenerRule": "front/http", "testListenerRule": "front/test",
                }],
            }),
            with_port(),
        );
        story.declare_traffic(json!({ "role": "edge" }));
        let group: Manifest<TargetGroupSpec> = of(json!({ "port": 80, "deregistrationDelay": 60 }));
        story.desired.target_groups.insert("green".into(), group);
        let balancer: Manifest<LoadBalancerSpec> = of(json!({
            "hosts": { "role": "edge" },
            "listeners": [
                { "name": "http", "port": 80, "defaultAction": { "forward": "web" } },
                { "name": "test", "port": 9000, "defaultAction": { "forward": "green" } },
            ],
        }));
        story.desired.load_balancers.insert("front".into(), balancer);
        story.tell();
        story.go(30, &well());
        assert_eq!((story.rollout(), story.running()), (RolloutState::Completed, 2));
        story
    }

    pub fn service(&self) -> &ServiceRecord {
        &self.state().services[SERVICE]
    }

    pub fn primary(&self) -> &Deployment {
        self.service().primary().unwrap()
    }

    pub fn stage(&self) -> Option<LifecycleStage> {
        self.primary().stage.map(|stage| stage.name)
    }

    fn ended(&self) -> Vec<Option<Outcome>> {
        self.outcomes().into_iter().map(|(_, outcome)| outcome).collect()
    }

    pub fn weights(&self, rule: &str) -> Weights {
        let forwards = forwards(self.state());
        let share = |group: &str| {
            let shares = &forwards[&RuleRef::named(rule)];
            shares.iter().find(|share| share.target_group.as_str() == group).unwrap().weight
        };
        (share("web"), share("green"))
    }

    fn on(&self, side: Side) -> Vec<Task> {
        self.wanted().into_iter().filter(|task| task.side == side).collect()
    }

    /// One second after the other. Clients are never sent to nobody while somebody could answer them.
    pub fn go(&mut self, seconds: usize, say: &Edges) {
        for _ in 0..seconds {
            self.turn_of_traffic(1_000, say, &[]);
            let (blue, green) = self.weights("front/http");
            let lives = |side: Side| self.on(side).iter().any(|task| task.healthy_at.is_some());
            assert!(blue + green == 1_000, "{blue} {green}");
            assert!(blue == 0 || lives(Side::Blue) || !lives(Side::Green), "{:?}", self.stage());
            assert!(green == 0 || lives(Side::Green) || !lives(Side::Blue), "{:?}", self.stage());
        }
    }

    pub fn go_until(&mut self, what: &str, say: &Edges, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..200 {
            if is_so(self) {
                return;
            }
            self.go(1, say);
        }
        panic!("never {what}: {:?} {:#?}", self.stage(), self.core.report());
    }

    pub fn until_stage(&mut self, stage: LifecycleStage) {
        self.go_until(stage.word(), &well(), |story| story.stage() >= Some(stage));
        assert_eq!(self.stage(), Some(stage));
    }

    pub fn verb(&mut self, verb: RolloutVerb) {
        self.core.command(self.now, Command::Rollout { service: SERVICE.into(), verb }).unwrap();
    }
}

fn hooked(hook: Value) -> Story {
    let mut story = Story::in_turns(json!({ "strategy": "BLUE_GREEN", "bakeTime": 1, "lifecycleHooks": [hook] }));
    let smoke: TaskDefinitionSpec = serde_json::from_value(
        json!({ "containerDefinitions": [{ "name": "smoke", "image": "smoke:1", "memory": 64 }] }),
    )
    .unwrap();
    story.desired.task_definitions.insert("smoke".into(), manifest(smoke.into(), &[]));
    story.deploy("demo:2");
    story
}

impl Story {
    /// The task of the hook, as soon as there is one.
    fn hook_task(&mut self) -> Task {
        let of_hook = |story: &Self| story.state().tasks.values().find(|task| task.is_standalone()).cloned();
        self.go_until("a hook runs", &well(), |story| of_hook(story).is_some_and(|task| task.started_at.is_some()));
        Task::clone(&of_hook(self).unwrap())
    }

    fn exits(&mut self, task: &Task, code: i64) {
        let id = task.containers.values().find_map(|row| row.runtime_id.clone()).unwrap();
        let view = self.containers.get_mut(&task.host).unwrap().get_mut(&id).unwrap();
        (view.state, view.exit_code, view.finished_at) = (ContainerState::Exited, Some(code), Some(self.now));
    }
}

#[test]
fn a_hooks_task_that_exits_with_0_lets_it_go_on_and_another_takes_it_back() {
    for (code, outcome) in [(0, Outcome::Succeeded), (3, Outcome::RolledBack)] {
        let mut story = hooked(json!({ "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"], "taskDefinition": "smoke" }));
        let task = story.hook_task();
        let told = |task: &Task| {
            let of = &task.standalone.as_ref().unwrap().overrides.container_overrides[0].environment;
            of.0["ROADSTEAD_LIFECYCLE_STAGE"].clone()
        };
        assert_eq!(told(&task), "POST_TEST_TRAFFIC_SHIFT");
        let standalone = task.standalone.as_ref().unwrap();
        assert_eq!(standalone.started_by.as_deref(), Some("service/web"));
        assert_eq!(standalone.overrides.container_overrides[0].name, "smoke");
        story.go(20, &well());
        assert_eq!(story.stage(), Some(LifecycleStage::PostTestTrafficShift));
        assert_eq!((story.weights("front/http"), story.weights("front/test")), ((1_000, 0), (0, 1)));
        story.exits(&task, code);
        let of_two = |story: &Story| story.outcomes().into_iter().find(|(revision, _)| *revision == 2);
        story.go_until("ended", &well(), |story| of_two(story).is_some_and(|(_, outcome)| outcome.is_some()));
        assert_eq!(of_two(&story), Some((2, Some(outcome))));
        let all = if code == 0 { (0, 1_000) } else { (1_000, 0) };
        assert_eq!(story.weights("front/http"), all);
        let tasks = story.state().tasks.values().filter(|task| task.is_standalone()).count();
        assert_eq!(tasks, 1, "it ran once");
    }
}

#[test]
fn hooks_come_one_after_the_other_and_each_once() {
    let at = json!({ "lifecycleStages": ["POST_SCALE_UP"], "taskDefinition": "smoke" });
    let mut story = hooked(at.clone());
    let hooks = json!([at, at, { "lifecycleStages": ["POST_SCALE_UP"], "pause": true }]);
    let spec = &mut story.desired.services.get_mut(SERVICE).unwrap().spec;
    spec.deployment_configuration.lifecycle_hooks = serde_json::from_value(hooks).unwrap();
    story.tell();
    let first = story.hook_task();
    story.exits(&first, 0);
    let second = |story: &Story| {
        let of_hooks = story.state().tasks.values().filter(|task| task.is_standalone() && task.id != first.id);
        of_hooks.map(|task| Task::clone(task)).next()
    };
    story.go_until("the second one runs", &well(), |story| second(story).is_some_and(|task| task.started_at.is_some()));
    let task = second(&story).unwrap();
    story.exits(&task, 0);
    story.go_until("a person is asked", &well(), |story| story.primary().paused_at.is_some());
    // What succeeded need not be remembered.
    let is_over = |id: &TaskId| [&first.id, &task.id].contains(&id);
    story.go_on_with(|state| [&first.id, &task.id].into_iter().for_each(|id| drop(state.tasks.remove(id))));
    for on in story.containers.values_mut() {
        on.retain(|_, view| !view.owner.ours().is_some_and(|claim| is_over(&claim.task)));
    }
    story.go(20, &well());
    assert_eq!((story.stage(), story.rollout()), (Some(LifecycleStage::PostScaleUp), RolloutState::InProgress));
    assert!(story.state().tasks.values().all(|task| !task.is_standalone()), "none runs again");
    story.verb(RolloutVerb::Continue);
    story.go_until("completed", &well(), |story| story.rollout() == RolloutState::Completed);
    assert_eq!((story.primary().revision.number, story.weights("front/http")), (2, (0, 1_000)));
}

#[test]
fn a_hooks_task_that_takes_too_long_is_stopped_and_the_deployment_taken_back() {
    let mut story = hooked(json!({ "lifecycleStages": ["PRE_SCALE_UP"], "taskDefinition": "smoke", "timeout": 30 }));
    let task = story.hook_task();
    assert_eq!(story.on(Side::Green).len(), 0, "nothing was started yet");
    story.go(25, &well());
    assert!(story.task(&task).is_wanted());
    story.go(20, &well());
    assert!(!story.task(&task).is_wanted());
    assert!(story.outcomes().contains(&(2, Some(Outcome::RolledBack))), "{:?}", story.outcomes());
}

#[test]
fn a_hook_that_waits_for_a_person_goes_on_when_it_is_continued() {
    let mut story = hooked(json!({ "lifecycleStages": ["POST_SCALE_UP"], "pause": true }));
    story.until_stage(LifecycleStage::PostScaleUp);
    story.go(30, &well());
    assert_eq!((story.stage(), story.on(Side::Green).len()), (Some(LifecycleStage::PostScaleUp), 2));
    assert!(waits(&story, "its hook at POST_SCALE_UP waits for a person"));
    story.verb(RolloutVerb::Continue);
    story.go_until("completed", &well(), |story| story.rollout() == RolloutState::Completed);
    assert_eq!(story.weights("front/http"), (0, 1_000));
}

fn blue_green(bake: u32) -> Value {
    json!({ "strategy": "BLUE_GREEN", "bakeTime": bake })
}

#[test]
fn a_new_revision_takes_its_turn_and_the_next_one_goes_back() {
    let mut story = Story::in_turns(blue_green(10));
    for (revision, (from, to)) in [(2, (Side::Blue, Side::Green)), (3, (Side::Green, Side::Blue))] {
        let all = |side: Side| if side == Side::Blue { (1_000, 0) } else { (0, 1_000) };
        let tested = |side: Side| if side == Side::Blue { (1, 0) } else { (0, 1) };
        story.deploy(&format!("demo:{revision}"));
        let mut seen: Vec<LifecycleStage> = Vec::new();
        story.go_until("completed", &well(), |story| story.primary().revision.number == revision);
        for _ in 0..200 {
            if story.rollout() == RolloutState::Completed {
                break;
            }
            story.go(1, &well());
            let stage = story.stage().unwrap();
            if seen.last() != Some(&stage) {
                seen.push(stage);
            }
            let healthy = |side| story.on(side).iter().filter(|task| task.healthy_at.is_some()).count();
            if stage < LifecycleStage::CleanUp {
                assert_eq!(healthy(from), 2, "what is in service stays whole: {stage:?}");
            }
            if stage < LifecycleStage::TestTrafficShift {
                assert_eq!((story.weights("front/http"), story.weights("front/test")), (all(from), tested(from)));
            } else {
                assert_eq!((healthy(to), story.weights("front/test")), (2, tested(to)), "{stage:?}");
            }
            let turned = stage >= LifecycleStage::ProductionTrafficShift;
            assert_eq!(story.weights("front/http"), if turned { all(to) } else { all(from) }, "{stage:?}");
        }
        let stages = [
            LifecycleStage::ScaleUp,
            LifecycleStage::TestTrafficShift,
            LifecycleStage::ProductionTrafficShift,
            LifecycleStage::BakeTime,
            LifecycleStage::CleanUp,
        ];
        assert_eq!(seen, stages);
        assert_eq!((story.on(from).len(), story.on(to).len(), story.running()), (0, 2, 2));
        assert_eq!(story.service().in_service.as_ref().map(|it| it.number), Some(revision));
    }
}

#[test]
fn the_old_side_goes_only_after_the_bake_time() {
    let mut story = Story::in_turns(blue_green(30));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    let since = story.now;
    story.go_until("cleaned up", &well(), |story| story.stage() == Some(LifecycleStage::CleanUp));
    assert!((29_000..=32_000).contains(&story.now.since_ms(since)), "{}", story.now.since_ms(since));
}

#[test]
fn an_abort_while_it_bakes_is_one_swap() {
    let mut story = Story::in_turns(blue_green(60));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    assert_eq!(story.weights("front/http"), (0, 1_000));
    story.verb(RolloutVerb::Abort);
    story.decide(1, &[]);
    assert_eq!((story.weights("front/http"), story.weights("front/test")), ((1_000, 0), (1, 0)), "at once");
    assert_eq!(story.on(Side::Green).len(), 2, "no edge has shown it yet");
    story.go(10, &well());
    assert_eq!(story.ended()[..2], [Some(Outcome::Succeeded), Some(Outcome::RolledBack)]);
    assert!(story.wanted().iter().all(|task| task.revision.number == 1 && task.side == Side::Blue));
    assert_eq!(story.running(), 2);
}

#[test]
fn the_other_side_goes_only_when_every_edge_has_turned_away_from_it() {
    let mut story = Story::in_turns(blue_green(60));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story.verb(RolloutVerb::Abort);
    let only_a = Edges { obey: vec!["a"], ..WELL };
    story.go(20, &only_a);
    assert_eq!(story.on(Side::Green).len(), 2);
    assert!(waits(&story, "load balancer host b does not show it yet"));
    story.go(10, &well());
    assert_eq!(story.on(Side::Green).len(), 0);
}

#[test]
fn what_never_becomes_healthy_gets_no_request_and_is_taken_back() {
    let mut story = Story::in_turns(blue_green(1));
    story.deploy("demo:2");
    for _ in 0..200 {
        story.go(1, &sick(&[2]));
        assert_eq!((story.weights("front/http"), story.weights("front/test")), ((1_000, 0), (1, 0)));
        if story.ended()[1] == Some(Outcome::RolledBack) {
            break;
        }
    }
    assert_eq!(story.ended()[..2], [Some(Outcome::Succeeded), Some(Outcome::RolledBack)]);
    assert_eq!((story.on(Side::Green).len(), story.running()), (0, 2));
}

#[test]
fn one_that_falls_ill_while_it_bakes_gives_the_requests_back() {
    let mut story = Story::in_turns(blue_green(600));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story.show(&sick(&[2]));
    story.decide(1_000, &[]);
    assert_eq!(story.weights("front/http"), (1_000, 0));
    story.go(30, &sick(&[2]));
    assert_eq!(story.ended()[..2], [Some(Outcome::Succeeded), Some(Outcome::RolledBack)]);
    let reason = &story.service().deployments[1].rollout_state_reason;
    assert!(reason.contains("none of its tasks is healthy any more"), "{reason}");
}

#[test]
fn one_that_is_not_to_be_taken_back_stays_without_requests() {
    let mut strategy = blue_green(600);
    strategy["deploymentCircuitBreaker"] = json!({ "rollback": false });
    let mut story = Story::in_turns(strategy);
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story.go(30, &sick(&[2]));
    assert_eq!(story.ended()[0], Some(Outcome::Failed));
    assert_eq!((story.weights("front/http"), story.on(Side::Blue).len()), ((1_000, 0), 2));
    assert!(!story.on(Side::Green).is_empty(), "it can be looked at");
    story.verb(RolloutVerb::Continue);
    story.go(1, &well());
    story.until_stage(LifecycleStage::BakeTime);
    assert_eq!(story.weights("front/http"), (0, 1_000));
}

#[test]
fn canary_and_linear_go_step_by_step() {
    let canary = json!({ "strategy": "CANARY", "bakeTime": 1, "canaryConfiguration": { "canaryPercent": 5, "canaryBakeTime": 20 } });
    let linear = json!({ "strategy": "LINEAR", "bakeTime": 1, "linearConfiguration": { "stepPercent": 40, "stepBakeTime": 20 } });
    for (strategy, shares) in [(canary, vec![50, 1_000]), (linear, vec![400, 800, 1_000])] {
        let mut story = Story::in_turns(strategy);
        story.deploy("demo:2");
        story.until_stage(LifecycleStage::ProductionTrafficShift);
        let mut seen = vec![(story.weights("front/http").1, story.now)];
        for _ in 0..200 {
            if story.stage() != Some(LifecycleStage::ProductionTrafficShift) {
                break;
            }
            story.go(1, &well());
            let share = story.weights("front/http").1;
            if seen.last().unwrap().0 != share {
                seen.push((share, story.now));
            }
        }
        assert_eq!(seen.iter().map(|(share, _)| *share).collect::<Vec<_>>(), shares);
        for steps in seen.windows(2) {
            let ms = steps[1].1.since_ms(steps[0].1);
            assert!((20_000..=23_000).contains(&ms), "{ms}");
        }
        story.go(20, &well());
        assert_eq!((story.rollout(), story.running()), (RolloutState::Completed, 2));
    }
}

#[test]
fn a_step_waits_for_every_edge_unless_a_person_gave_it_up() {
    let mut story = Story::in_turns(blue_green(1));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::ScaleUp);
    let only_a = Edges { obey: vec!["a"], ..WELL };
    for _ in 0..30 {
        story.turn_of_traffic(1_000, &only_a, &["b"]);
    }
    assert_eq!(story.stage(), Some(LifecycleStage::TestTrafficShift));
    assert!(waits(&story, "load balancer host b does not answer"));
    let to = Schedulability::Cordoned;
    let command = Command::SetSchedulability { host: "b".into(), to, timeout_s: None };
    story.core.command(story.now, command).unwrap();
    for _ in 0..60 {
        story.turn_of_traffic(1_000, &only_a, &["b"]);
    }
    assert!(story.stage() >= Some(LifecycleStage::BakeTime), "{:?}", story.stage());
}

#[test]
fn a_newer_revision_waits_until_the_requests_are_given_back() {
    let mut story = Story::in_turns(blue_green(600));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story.deploy("demo:3");
    story.go_until("3 begun", &well(), |story| story.primary().revision.number == 3);
    assert_eq!((story.stage(), story.weights("front/http")), (Some(LifecycleStage::ReconcileService), (1_000, 0)));
    for _ in 0..200 {
        if story.stage() != Some(LifecycleStage::ReconcileService) {
            break;
        }
        assert!(story.wanted().iter().all(|task| task.revision.number != 3));
        story.go(1, &well());
    }
    assert!(story.on(Side::Green).iter().all(|task| task.revision.number == 3));
    story.until_stage(LifecycleStage::BakeTime);
    assert_eq!(story.ended()[1], Some(Outcome::Superseded));
    assert_eq!(story.weights("front/http"), (0, 1_000));
}

#[test]
fn a_restart_takes_its_turn_too_and_can_be_aborted() {
    let mut story = Story::in_turns(blue_green(600));
    let before = story.on(Side::Blue);
    story.verb(RolloutVerb::Restart);
    story.until_stage(LifecycleStage::BakeTime);
    assert_eq!((story.on(Side::Blue).len(), story.on(Side::Green).len()), (2, 2));
    assert!(story.wanted().iter().all(|task| task.revision.number == 1));
    story.verb(RolloutVerb::Abort);
    story.go(20, &well());
    let ids = |tasks: Vec<Task>| tasks.into_iter().map(|task| task.id).collect::<Vec<_>>();
    assert_eq!((ids(story.on(Side::Blue)), story.on(Side::Green).len()), (ids(before), 0));
    assert_eq!(story.weights("front/http"), (1_000, 0));
}

#[test]
fn who_is_left_gets_all_requests_when_the_old_side_dies_on_the_way() {
    let linear = json!({ "strategy": "LINEAR", "bakeTime": 1, "linearConfiguration": { "stepPercent": 10, "stepBakeTime": 3600 } });
    let mut story = Story::in_turns(linear);
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::ProductionTrafficShift);
    story.go(3, &well());
    assert_eq!(story.weights("front/http"), (900, 100));
    story.show(&sick(&[1]));
    story.decide(1_000, &[]);
    assert_eq!(story.weights("front/http"), (0, 1_000));
}

#[test]
fn the_requests_stay_where_somebody_can_answer_until_the_old_side_can_again() {
    let mut story = Story::in_turns(blue_green(600));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story.show(&sick(&[1]));
    story.verb(RolloutVerb::Abort);
    for _ in 0..10 {
        story.turn_of_traffic(1_000, &sick(&[1]), &[]);
        assert_eq!(story.weights("front/http"), (0, 1_000));
    }
    assert!(waits(&story, "the requests go back once"));
    assert_eq!(story.on(Side::Green).len(), 2);
    story.go_until("back", &well(), |story| story.weights("front/http") == (1_000, 0));
    story.go_until("completed", &well(), |story| story.rollout() == RolloutState::Completed);
    assert_eq!(story.on(Side::Green).len(), 0);
}

#[test]
fn a_pause_holds_it_where_it_is() {
    let mut story = Story::in_turns(blue_green(5));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::TestTrafficShift);
    story.verb(RolloutVerb::Pause);
    story.go(60, &well());
    assert_eq!((story.stage(), story.weights("front/http")), (Some(LifecycleStage::TestTrafficShift), (1_000, 0)));
    assert_eq!((story.on(Side::Blue).len(), story.on(Side::Green).len()), (2, 2));
    story.verb(RolloutVerb::Continue);
    story.go_until("completed", &well(), |story| story.rollout() == RolloutState::Completed);
    assert_eq!(story.weights("front/http"), (0, 1_000));
}

#[test]
fn both_sides_follow_the_desired_count() {
    let mut story = Story::in_turns(blue_green(600));
    story.deploy("demo:2");
    story.until_stage(LifecycleStage::BakeTime);
    story.scale(3);
    story.go(20, &well());
    assert_eq!((story.on(Side::Blue).len(), story.on(Side::Green).len()), (3, 3));
    let slots: std::collections::BTreeSet<u32> = story.wanted().iter().map(|task| task.slot).collect();
    assert_eq!(slots.len(), 6, "each has a slot of its own");
}

/// Whatever controller goes on from what is durable, in whatever stage.
#[test]
fn another_controller_goes_on_in_every_stage() {
    let mut story = Story::in_turns(blue_green(5));
    story.deploy("demo:2");
    for _ in 0..120 {
        story.go_on_with(|_| ());
        story.go(2, &well());
        if story.primary().revision.number == 2 && story.rollout() == RolloutState::Completed {
            break;
        }
    }
    assert_eq!(
        (story.rollout(), story.weights("front/http"), story.running()),
        (RolloutState::Completed, (0, 1_000), 2)
    );
    assert_eq!(edges(story.state()).len(), 2);
}

#[test]
fn a_service_that_rolls_again_stays_on_the_side_where_it_is() {
    let mut story = Story::in_turns(blue_green(1));
    story.deploy("demo:2");
    story.go_until("completed", &well(), |story| {
        story.primary().revision.number == 2 && story.rollout() == RolloutState::Completed
    });
    story.desired.services.get_mut("web").unwrap().spec.deployment_configuration.strategy = None;
    story.deploy("demo:3");
    story.go_until("completed", &well(), |story| {
        story.primary().revision.number == 3 && story.rollout() == RolloutState::Completed
    });
    assert_eq!((story.stage(), story.on(Side::Green).len(), story.weights("front/http")), (None, 2, (0, 1_000)));
}

/// With no task nothing was shown to be good, and yet it is what the side stands for.
#[test]
fn what_was_deployed_while_no_task_was_wanted_is_in_service() {
    let mut story = Story::in_turns(blue_green(1));
    story.scale(0);
    story.deploy("demo:2");
    story.go_until("completed", &well(), |story| {
        story.primary().revision.number == 2 && story.rollout() == RolloutState::Completed
    });
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 2;
    story.deploy("demo:3");
    story.go_until("scaled up", &well(), |story| {
        story.primary().revision.number == 3 && story.stage() > Some(LifecycleStage::ScaleUp)
    });
    let revisions = |side| story.on(side).iter().map(|task| task.revision.number).collect::<Vec<_>>();
    assert_eq!((revisions(Side::Green), revisions(Side::Blue)), (vec![2, 2], vec![3, 3]));
}
