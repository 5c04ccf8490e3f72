//! Tasks behind load balancers: health by their targets, and no stop before every edge has let go (S10).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use roadstead_core::{
    model::{
        action::VerbName,
        container::{ContainerState, HealthStatus},
        desired::Manifest,
        name::TaskId,
        spec::{LoadBalancerSpec, TargetGroupSpec},
        state::{RolloutState, Schedulability, State},
        task::{DesiredStatus, LastStatus, Task},
        time::Timestamp,
        traffic::{Answers, Edge, EdgeSeen, Target, TargetHealth, TargetSeen},
        world::Plan,
    },
    plan::traffic::{addresses, edges, edges_of, has_balancers, is_registered, is_used},
    turn::{Command, Input},
};
use serde_json::{Value, json};

use super::{looks::events, story::Story};

/// What the fake edges say.
#[derive(Clone)]
pub struct Edges {
    /// Those that do what they should.
    pub obey: Vec<&'static str>,
    /// What their checks say of targets of these revisions.
    pub sick: Vec<u32>,
    /// Something is in flight to every target.
    pub busy: bool,
    /// What each target of these revisions has answered by now.
    pub answers: BTreeMap<u32, Answers>,
}

pub const WELL: Edges = Edges { obey: Vec::new(), sick: Vec::new(), busy: false, answers: BTreeMap::new() };

pub fn well() -> Edges {
    Edges { obey: vec!["a", "b"], ..WELL }
}

pub fn with_port() -> Value {
    json!({ "containerDefinitions": [
        { "name": "web", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80 }] },
    ] })
}

fn behind(count: u32) -> Value {
    json!({ "taskDefinition": "web", "desiredCount": count, "minimumHealthySeconds": 3600,
            "loadBalancers": [{ "targetGroup": "web" }] })
}

pub fn of<S: serde::de::DeserializeOwned>(spec: Value) -> Manifest<S> {
    let spec = serde_json::from_value(spec).unwrap();
    Manifest { labels: BTreeMap::new(), annotations: BTreeMap::new(), file: "t.yaml".into(), line: 1, spec }
}

impl Story {
    /// Two of the three hosts are edges.
    fn with_balancer(service: Value) -> Self {
        let mut story = Self::begin(service, with_port());
        story.declare_traffic(json!({ "role": "edge" }));
        story
    }

    pub fn declare_traffic(&mut self, hosts: Value) {
        for (number, host) in ["a", "b", "c"].into_iter().enumerate() {
            let manifest = self.desired.hosts.get_mut(host).unwrap();
            manifest.spec.address = format!("198.51.100.{}", number + 1);
            if host != "c" {
                manifest.labels.insert("role".to_owned(), "edge".to_owned());
            }
        }
        let group: TargetGroupSpec = serde_json::from_value(json!({ "port": 80, "deregistrationDelay": 60 })).unwrap();
        self.desired.target_groups.insert("web".into(), of(serde_json::to_value(group).unwrap()));
        let balancer: LoadBalancerSpec = serde_json::from_value(json!({
            "hosts": hosts,
            "listeners": [{ "name": "http", "port": 80, "defaultAction": { "forward": "web" } }],
        }))
        .unwrap();
        self.desired.load_balancers.insert("front".into(), of(serde_json::to_value(balancer).unwrap()));
        self.tell();
    }

    /// The edges show what they should by now, and say what they know.
    pub fn show(&mut self, say: &Edges) -> Vec<String> {
        let mut said = Vec::new();
        let pictures = edges(self.state());
        for host in &say.obey {
            let confirmed = pictures.get(*host).cloned();
            let revision = |task: &TaskId| self.state().tasks.get(task).map(|task| task.revision.number);
            let known = confirmed.iter().flat_map(|edge| &edge.groups);
            let targets = known
                .map(|(name, group)| {
                    let seen = group.targets.keys().map(|task| {
                        let is_sick = revision(task).is_some_and(|number| say.sick.contains(&number));
                        let health = if is_sick { TargetHealth::Unhealthy } else { TargetHealth::Healthy };
                        let reason = is_sick.then(|| "HTTP 500".to_owned());
                        let answers =
                            revision(task).map(|number| say.answers.get(&number).copied().unwrap_or_default());
                        (task.clone(), TargetSeen { health, reason, idle: !say.busy, answers })
                    });
                    (name.clone(), seen.collect())
                })
                .collect();
            let is_there = Some(confirmed.is_some());
            let seen = EdgeSeen { at: self.now, confirmed, under_way: None, targets, is_there, problem: None };
            let changes = self.core.take(self.now, Input::Edge((*host).into(), seen));
            said.extend(events(&changes).into_iter().map(|event| event.message));
        }
        said
    }

    /// Time passes, hosts obey, and then edges say what they know.
    pub fn turn_of_traffic(&mut self, ms: u64, say: &Edges, silent: &[&str]) -> Plan {
        let plan = self.decide(ms, silent);
        plan.actions.iter().for_each(|action| self.obey(action));
        self.show(say);
        plan
    }

    fn traffic_at_rest(count: u32) -> Self {
        let mut story = Self::with_balancer(behind(count));
        for _ in 0..30 {
            story.turn_of_traffic(1_000, &well(), &[]);
        }
        assert_eq!(story.running(), count as usize);
        story
    }

    pub fn rollout(&self) -> RolloutState {
        self.state().services["web"].primary().unwrap().rollout_state
    }
}

fn stops(plan: &Plan) -> usize {
    plan.actions.iter().filter(|action| action.verb.name() == VerbName::Stop).count()
}

pub fn waits(story: &Story, words: &str) -> bool {
    story.core.report().waiting.iter().any(|waiting| waiting.reason.contains(words))
}

#[test]
fn a_task_is_healthy_when_every_edge_that_knows_it_says_so() {
    let mut story = Story::with_balancer(behind(2));
    for _ in 0..20 {
        story.turn_of_traffic(1_000, &WELL, &[]);
    }
    assert_eq!(story.running(), 2);
    assert_eq!(story.rollout(), RolloutState::InProgress, "no edge has said anything");
    assert!(story.wanted().iter().all(|task| task.healthy_at.is_none()));
    // One of them is enough where the other is not to be had.
    for _ in 0..3 {
        story.turn_of_traffic(1_000, &Edges { obey: vec!["a"], ..WELL }, &[]);
    }
    assert_eq!(story.rollout(), RolloutState::Completed);
    assert!(story.wanted().iter().all(|task| task.target_health == Some(HealthStatus::Healthy)));
    // The edges do not agree: the one that cannot reach it may be the one that is wrong.
    story.show(&Edges { sick: vec![1], obey: vec!["b"], ..WELL });
    assert!(story.wanted().iter().all(|task| task.target_health == Some(HealthStatus::Healthy)));
    let said = story.show(&Edges { sick: vec![1], obey: vec!["a"], ..WELL });
    assert!(story.wanted().iter().all(|task| task.target_health == Some(HealthStatus::Unhealthy)));
    assert!(said[0].contains("fails the check from a: HTTP 500"), "{said:?}");
}

#[test]
fn a_task_whose_target_fails_its_checks_is_replaced() {
    let mut story = Story::traffic_at_rest(2);
    story.show(&Edges { sick: vec![1], ..well() });
    let plan = story.decide(1_000, &[]);
    assert_eq!(plan.actions.iter().filter(|action| action.verb.name() == VerbName::Launch).count(), 2, "others first");
}

#[test]
fn a_task_stops_only_when_every_edge_has_let_go_of_it() {
    let mut story = Story::traffic_at_rest(2);
    story.scale(1);
    story.decide(1_000, &[]);
    for _ in 0..100 {
        assert_eq!(
            stops(&story.turn_of_traffic(1_000, &Edges { obey: vec!["a"], ..WELL }, &[])),
            0,
            "b was not told yet"
        );
    }
    assert!(waits(&story, "load balancer host b has not taken it out yet"));
    story.show(&well());
    assert_eq!(stops(&story.turn_of_traffic(1_000, &well(), &[])), 1);
}

#[test]
fn a_rollout_goes_by_targets() {
    let mut story = Story::traffic_at_rest(2);
    story.deploy("demo:2");
    let sick = Edges { sick: vec![2], ..well() };
    for _ in 0..20 {
        story.turn_of_traffic(1_000, &sick, &[]);
        let old = story.wanted().iter().filter(|task| task.revision.number == 1).count();
        assert_eq!(old, 2, "the new ones never served");
    }
    story.deploy("demo:3");
    for _ in 0..20 {
        story.turn_of_traffic(1_000, &well(), &[]);
    }
    assert!(story.wanted().iter().all(|task| task.revision.number == 3));
    assert_eq!(story.rollout(), RolloutState::Completed);
}

#[test]
fn what_is_in_flight_may_end_but_not_for_ever() {
    let mut story = Story::traffic_at_rest(2);
    let busy = Edges { busy: true, ..well() };
    story.scale(1);
    let begun = story.now;
    let mut stopped_after = None;
    for _ in 0..100 {
        if stops(&story.turn_of_traffic(1_000, &busy, &[])) > 0 {
            stopped_after = Some(story.now.since_ms(begun));
            break;
        }
    }
    // The deregistrationDelay is 60 s.
    assert!(stopped_after.is_some_and(|ms| (60_000..63_000).contains(&ms)), "{stopped_after:?}");
    let mut story = Story::traffic_at_rest(2);
    story.scale(1);
    story.turn_of_traffic(1_000, &busy, &[]);
    story.turn_of_traffic(1_000, &busy, &[]);
    assert!(waits(&story, "it finishes what load balancer host"));
    story.turn_of_traffic(1_000, &well(), &[]);
    assert_eq!(stops(&story.turn_of_traffic(1_000, &well(), &[])), 1, "nothing is in flight any more");
}

#[test]
fn an_edge_that_cannot_be_reached_keeps_its_targets_until_it_answers_or_a_person_gives_it_up() {
    let mut story = Story::traffic_at_rest(3);
    story.scale(1);
    let rest = Edges { obey: vec!["a"], ..WELL };
    let mut stopped = 0;
    for _ in 0..8 {
        stopped += stops(&story.turn_of_traffic(1_000, &rest, &["b"]));
    }
    assert_eq!(stopped, 0);
    assert!(waits(&story, "load balancer host b does not answer"));
    let to = Schedulability::Cordoned;
    let command = Command::SetSchedulability { host: "b".into(), to, timeout_s: None };
    story.core.command(story.now, command).unwrap();
    let stopped: usize = (0..5).map(|_| stops(&story.turn_of_traffic(1_000, &rest, &["b"]))).sum();
    assert!(stopped > 0, "a person gave it up");
}

#[test]
fn a_picture_has_who_runs_and_who_leaves() {
    let mut story = Story::traffic_at_rest(2);
    assert_eq!(picture(&story).len(), 2);
    assert!(picture(&story).values().all(|target| !target.leaves && target.port >= 1024));
    assert_eq!(edges(story.state()).keys().map(|host| host.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    story.scale(1);
    story.decide(1_000, &[]);
    let targets = picture(&story);
    assert_eq!((targets.len(), targets.values().filter(|target| target.leaves).count()), (2, 1));
    for _ in 0..10 {
        story.turn_of_traffic(1_000, &well(), &[]);
    }
    assert_eq!(picture(&story).len(), 1);
}

/// A host that never was an edge, and does not answer: it holds nothing up.
#[test]
fn a_host_of_no_load_balancer_that_cannot_be_asked_is_not_waited_for() {
    let mut story = Story::traffic_at_rest(1);
    let seen = |is_there| EdgeSeen {
        at: Timestamp(1),
        confirmed: None,
        under_way: None,
        targets: BTreeMap::new(),
        is_there,
        problem: Some("no answer".to_owned()),
    };
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 0;
    story.tell();
    for (is_there, expected) in [(Some(true), 0), (None, 1)] {
        story.core.take(story.now, Input::Edge("c".into(), seen(is_there)));
        let stopped: usize = (0..5).map(|_| stops(&story.turn_of_traffic(1_000, &well(), &[]))).sum();
        assert_eq!(stopped, expected, "{is_there:?}");
    }
}

/// What is on its way there may be in force already.
#[test]
fn a_picture_that_is_under_way_counts_as_one_that_is_shown() {
    let mut story = Story::traffic_at_rest(1);
    let world = story.core.world();
    let before = world.edges["a"].clone();
    let with_it = before.confirmed.clone().unwrap();
    let mut without = Edge::clone(&with_it);
    without.groups.values_mut().for_each(|group| group.targets.clear());
    let service = story.desired.services.get_mut("web").unwrap();
    service.spec.load_balancers.clear();
    service.spec.desired_count = 0;
    let confirmed = Some(Arc::new(without));
    for (under_way, expected) in [(Some(with_it), 0), (None, 1)] {
        let seen = EdgeSeen { at: story.now, confirmed: confirmed.clone(), under_way, ..before.clone() };
        story.core.take(story.now, Input::Edge("a".into(), seen));
        story.tell();
        let stopped: usize =
            (0..5).map(|_| stops(&story.turn_of_traffic(1_000, &Edges { obey: vec!["b"], ..WELL }, &[]))).sum();
        assert_eq!(stopped, expected);
    }
}

#[test]
fn an_edge_of_which_nobody_knows_what_it_shows_is_waited_for_also_when_the_service_left_it() {
    let mut story = Story::traffic_at_rest(1);
    let service = story.desired.services.get_mut("web").unwrap();
    service.spec.load_balancers.clear();
    service.spec.desired_count = 0;
    let obscure = |story: &mut Story, is_there| {
        let seen = EdgeSeen {
            at: story.now,
            confirmed: None,
            under_way: None,
            targets: BTreeMap::new(),
            is_there,
            problem: None,
        };
        story.core.take(story.now, Input::Edge("a".into(), seen));
    };
    obscure(&mut story, Some(true));
    story.tell();
    let mut stopped = 0;
    for _ in 0..20 {
        stopped += stops(&story.turn_of_traffic(1_000, &Edges { obey: vec!["b"], ..WELL }, &[]));
    }
    assert_eq!(stopped, 0, "a may show anything");
    obscure(&mut story, None);
    assert_eq!(stops(&story.turn_of_traffic(1_000, &Edges { obey: vec!["b"], ..WELL }, &[])), 0, "it may still");
    obscure(&mut story, Some(false));
    assert_eq!(
        stops(&story.turn_of_traffic(1_000, &Edges { obey: vec!["b"], ..WELL }, &[])),
        1,
        "there is nothing on a"
    );
}

/// The picture of the first edge: its one group.
fn picture(story: &Story) -> BTreeMap<TaskId, Target> {
    edges(story.state())["a"].groups["web"].targets.clone()
}

fn group(port: u16) -> Manifest<TargetGroupSpec> {
    let spec = serde_json::from_value(json!({ "port": port })).unwrap();
    Manifest { labels: BTreeMap::new(), annotations: BTreeMap::new(), file: "t.yaml".into(), line: 1, spec }
}

#[test]
fn a_group_is_on_the_edges_of_whatever_forwards_to_it_or_gives_its_rule_away() {
    let mut story = Story::with_balancer(behind(1));
    assert!(!has_balancers(&State::default()) && has_balancers(story.state()));
    for name in ["green", "other", "unused"] {
        story.desired.target_groups.insert(name.into(), group(81));
    }
    let mut elsewhere = story.desired.load_balancers["front"].clone();
    elsewhere.spec = serde_json::from_value(json!({
        "hosts": { "role": "third" },
        "listeners": [{ "name": "http", "port": 81, "defaultAction": { "forward": "other" } }],
    }))
    .unwrap();
    story.desired.load_balancers.insert("elsewhere".into(), elsewhere);
    story.desired.hosts.get_mut("c").unwrap().labels.insert("role".to_owned(), "third".to_owned());
    let front = story.desired.load_balancers.get_mut("front").unwrap();
    front.spec.listeners[0].default_action =
        serde_json::from_value(json!({ "fixedResponse": { "statusCode": 404 } })).unwrap();
    story.desired.services.get_mut("web").unwrap().spec.load_balancers = serde_json::from_value(json!([
        { "targetGroup": "web", "alternateTargetGroup": "green", "productionListenerRule": "front/http" },
    ]))
    .unwrap();
    story.tell();
    let of = |name: &str| -> Vec<String> {
        edges_of(story.state(), &name.into()).into_iter().map(|host| host.to_string()).collect()
    };
    assert_eq!(
        ["web", "green", "other", "unused"].map(of),
        [vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()], vec![]]
    );
    assert!(is_used(story.state(), &"web".into()) && !is_used(story.state(), &"unused".into()));
}

#[test]
fn who_is_behind_no_load_balancer_is_no_target() {
    let mut story = Story::traffic_at_rest(1);
    let mut plain = story.desired.services["web"].clone();
    plain.spec.load_balancers.clear();
    story.desired.services.insert("plain".into(), plain);
    story.tell();
    for _ in 0..10 {
        story.turn_of_traffic(1_000, &well(), &[]);
    }
    let health = |service: &str| {
        let mut tasks = story.state().tasks.values().filter(|task| task.service.as_str() == service);
        tasks.next().unwrap().target_health
    };
    assert_eq!([health("web"), health("plain")], [Some(HealthStatus::Healthy), None]);
    let shown = &edges(story.state())["a"];
    assert_eq!(shown.node_image, story.state().desired.cluster(&"default".into()).network.node_image());
}

#[test]
fn a_target_that_fails_says_what_its_check_says() {
    let mut story = Story::traffic_at_rest(1);
    let sick = Edges { sick: vec![1], ..well() };
    let said: Vec<String> = (0..90)
        .flat_map(|_| {
            let plan = story.turn_of_traffic(1_000, &sick, &[]);
            events(&plan.changes).into_iter().map(|event| event.message).collect::<Vec<_>>()
        })
        .collect();
    assert!(
        said.iter().any(|said| said.contains("is stopped: its target in web fails the check from a: HTTP 500")),
        "{said:?}"
    );
}

/// An edge that shows nothing of it may be told at this moment.
#[test]
fn what_an_edge_is_to_show_it_may_show_before_it_says_so() {
    for (is_there, confirms, expected) in [(Some(true), true, 0), (Some(false), false, 1)] {
        let mut story = Story::traffic_at_rest(1);
        let before = story.core.world().edges["b"].clone();
        let mut without = Edge::clone(before.confirmed.as_ref().unwrap());
        without.groups.values_mut().for_each(|group| group.targets.clear());
        let confirmed = confirms.then(|| Arc::new(without));
        let seen = EdgeSeen { at: story.now, confirmed, is_there, ..before };
        story.core.take(story.now, Input::Edge("b".into(), seen));
        story.scale(0);
        let rest = Edges { obey: vec!["a"], ..WELL };
        let stopped: usize = (0..5).map(|_| stops(&story.turn_of_traffic(1_000, &rest, &[]))).sum();
        assert_eq!(stopped, expected, "{is_there:?}");
    }
}

#[test]
fn an_edge_that_is_none_any_more_is_waited_for_until_it_shows_nothing() {
    let mut story = Story::traffic_at_rest(1);
    story.desired.hosts.get_mut("a").unwrap().labels.clear();
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 0;
    story.tell();
    let rest = Edges { obey: vec!["b"], ..WELL };
    let stopped: usize = (0..5).map(|_| stops(&story.turn_of_traffic(1_000, &rest, &[]))).sum();
    assert_eq!(stopped, 0, "it still shows the task");
    assert_eq!(
        stops(&story.turn_of_traffic(1_000, &well(), &[])) + stops(&story.turn_of_traffic(1_000, &well(), &[])),
        1
    );
}

#[test]
fn what_was_adopted_stops_only_when_the_edges_were_asked() {
    for is_behind in [true, false] {
        let mut story = Story::traffic_at_rest(2);
        story.go_on_with(|state| *state = State::default());
        let spec = &mut story.desired.services.get_mut("web").unwrap().spec;
        spec.desired_count = 1;
        if !is_behind {
            // The edges were told of it before the manifests changed.
            spec.load_balancers.clear();
        }
        story.tell();
        let turn =
            |story: &mut Story, say: &Edges| (0..8).map(|_| stops(&story.turn_of_traffic(1_000, say, &[]))).sum();
        let stopped: usize = turn(&mut story, &WELL);
        assert_eq!((stopped, story.running()), (0, 2), "nobody knows what the edges show");
        let stopped: usize = turn(&mut story, &well());
        assert_eq!((stopped, story.running()), (1, 1), "{is_behind}");
    }
}

#[test]
fn what_was_a_target_and_is_checked_anew_stops_only_when_the_edges_were_asked() {
    let mut definition = with_port();
    definition["containerDefinitions"][0]["healthCheck"] = json!({ "command": ["CMD", "true"] });
    let mut story = Story::begin(behind(1), definition);
    story.declare_traffic(json!({ "role": "edge" }));
    let set = |story: &mut Story, health| {
        story.containers.values_mut().flat_map(|on| on.values_mut()).for_each(|view| view.health = health);
    };
    for _ in 0..30 {
        set(&mut story, HealthStatus::Healthy);
        story.turn_of_traffic(1_000, &well(), &[]);
    }
    let target = |story: &Story| story.state().tasks.values().next().unwrap().target_health;
    assert_eq!((story.running(), target(&story)), (1, Some(HealthStatus::Healthy)));
    // Its container begins anew, and so does the controller, which nobody tells what edges show.
    set(&mut story, HealthStatus::Unknown);
    story.turn_of_traffic(1_000, &well(), &[]);
    story.turn_of_traffic(1_000, &well(), &[]);
    assert_eq!(target(&story), Some(HealthStatus::Unknown));
    story.go_on_with(|_| {});
    story.scale(0);
    let turn = |story: &mut Story, say: &Edges| (0..8).map(|_| stops(&story.turn_of_traffic(1_000, say, &[]))).sum();
    let stopped: usize = turn(&mut story, &WELL);
    assert_eq!(stopped, 0, "it may still get requests");
    let stopped: usize = turn(&mut story, &well());
    assert_eq!(stopped, 1);
}

#[test]
fn what_ended_by_itself_is_not_held() {
    let mut story = Story::traffic_at_rest(1);
    story.scale(0);
    let rest = Edges { obey: vec!["a"], ..WELL };
    story.turn_of_traffic(1_000, &rest, &[]);
    let views = story.containers.values_mut().flat_map(BTreeMap::values_mut);
    views.for_each(|view| (view.state, view.exit_code) = (ContainerState::Exited, Some(0)));
    let ended: usize = (0..5).map(|_| story.turn_of_traffic(1_000, &rest, &[]).actions.len()).sum();
    assert!(ended > 0, "what is left of it goes");
}

#[test]
fn a_task_is_a_target_from_when_it_runs_and_its_own_checks_have_said_something_until_it_is_over() {
    let mut definition = with_port();
    definition["containerDefinitions"][0]["healthCheck"] = json!({ "command": ["CMD", "check"] });
    definition["containerDefinitions"][0]["portMappings"] = json!([{ "containerPort": 80 }, { "containerPort": 81 }]);
    let mut service = behind(1);
    service["loadBalancers"] = json!([{ "targetGroup": "web", "containerName": "web", "containerPort": 81 }]);
    let mut story = Story::begin(service, definition);
    story.declare_traffic(json!({ "role": "edge" }));
    let plan = story.decide(1_000, &[]);
    assert_eq!((story.wanted().len(), picture(&story).len()), (1, 0), "it does not run yet");
    plan.actions.iter().for_each(|action| story.obey(action));
    for _ in 0..5 {
        story.turn_of_traffic(1_000, &well(), &[]);
    }
    assert_eq!(story.wanted()[0].last_status, LastStatus::Running);
    assert_eq!(picture(&story).len(), 0, "its own check has said nothing");
    let views = story.containers.values_mut().flat_map(BTreeMap::values_mut);
    views.for_each(|view| view.health = HealthStatus::Healthy);
    story.turn_of_traffic(1_000, &well(), &[]);
    let task = story.wanted().remove(0);
    let bound = task.containers.values().flat_map(|row| &row.ports).find(|port| port.container_port == 81);
    assert_eq!(picture(&story)[&task.id].port, bound.unwrap().host_port);
    let ending = |last_status| Task { desired_status: DesiredStatus::Stopped, last_status, ..Task::clone(&task) };
    assert!(is_registered(&ending(LastStatus::Stopping)));
    assert!(!is_registered(&ending(LastStatus::Deprovisioning)));
}

#[test]
fn a_load_balancer_speaks_from_its_hosts_and_in_its_own_cluster() {
    let story = Story::with_balancer(behind(1));
    let of = |cluster: &str| -> Vec<BTreeSet<Ipv4Addr>> {
        addresses(story.state(), &cluster.into()).map(|(_, addresses)| addresses).collect()
    };
    let hosts = [1, 2].map(|last| Ipv4Addr::new(198, 51, 100, last));
    assert_eq!(of("default"), [BTreeSet::from(hosts)]);
    assert!(of("other").is_empty());
}
