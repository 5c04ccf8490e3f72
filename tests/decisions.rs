//! Decisions of the controller's core, told as short stories: three hosts in memory, no engine.

use std::{collections::BTreeMap, sync::Arc};

use roadstead::{
    control::core::{Core, Input},
    model::{
        action::{Action, ActionResult, Answer, Verb, VerbName},
        container::{ContainerState, ContainerView, HealthStatus},
        desired::{Desired, Manifest},
        name::{ContainerName, HostName, RuntimeId},
        observed::{EngineIdentity, HostContact, HostObservation},
        ownership::{Claim, Owner},
        spec::{HostSpec, ServiceSpec, TaskDefinitionSpec},
        state::State,
        task::StopCode,
        time::Timestamp,
        world::Plan,
    },
};
use serde_json::{Value, json};

/// A controller's core with three obedient hosts.
struct Story {
    core: Core,
    now: Timestamp,
    desired: Desired,
    contacts: BTreeMap<HostName, HostContact>,
    containers: BTreeMap<HostName, BTreeMap<RuntimeId, ContainerView>>,
    made: u32,
}

fn manifest<S>(spec: S, labels: &[(&str, &str)]) -> Manifest<S> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Manifest { labels, annotations: BTreeMap::new(), file: "story.yaml".into(), line: 1, spec }
}

impl Story {
    fn begin(service: Value, definition: Value) -> Self {
        let mut desired = Desired::default();
        for host in ["a", "b", "c"] {
            let spec: HostSpec = serde_json::from_value(json!({ "address": host })).unwrap();
            desired.hosts.insert(host.into(), manifest(spec, &[("availability-zone", host)]));
        }
        let definition: TaskDefinitionSpec = serde_json::from_value(definition).unwrap();
        desired.task_definitions.insert("web".into(), manifest(definition, &[]));
        let service: ServiceSpec = serde_json::from_value(service).unwrap();
        desired.services.insert("web".into(), manifest(service, &[]));
        let now = Timestamp(1_700_000_000_000);
        let (core, _) = Core::new(State::default(), 1, now, false);
        let contact = HostContact { watched_since: now, ..HostContact::default() };
        let contacts = desired.hosts.keys().map(|host| (host.clone(), contact.clone())).collect();
        let containers = desired.hosts.keys().map(|host| (host.clone(), BTreeMap::new())).collect();
        let mut story = Self { core, now, desired, contacts, containers, made: 0 };
        story.tell();
        story
    }

    fn tell(&mut self) {
        let hash = format!("{:08}", self.now.0);
        let input = Input::Manifests { desired: Arc::new(self.desired.clone()), hash, diagnostics: Vec::new() };
        self.core.take(self.now, input);
    }

    /// Time passes; hosts that are not in `silent` answer and are looked at; one decision is made.
    fn decide(&mut self, ms: u64, silent: &[&str]) -> Plan {
        self.now = self.now.plus_ms(ms);
        for (host, contact) in &mut self.contacts {
            if silent.contains(&host.as_str()) {
                contact.error = Some("no answer".into());
            } else {
                contact.engine_answered_at = Some(self.now);
                contact.link_answered_at = Some(self.now);
                contact.error = None;
            }
        }
        self.core.take(self.now, Input::Contacts(self.contacts.clone()));
        for (host, containers) in &self.containers {
            if silent.contains(&host.as_str()) {
                continue;
            }
            let identity =
                EngineIdentity { engine_id: host.to_string(), cpus: 8, memory_mib: 8_192, ..EngineIdentity::default() };
            let look = HostObservation {
                host: host.clone(),
                started_at: self.now,
                finished_at: self.now,
                identity,
                containers: containers.clone(),
            };
            self.core.take(self.now, Input::Look(Arc::new(look)));
        }
        self.core.decide(self.now)
    }

    /// Decides and carries everything out, until nothing is left to do.
    fn settle(&mut self, silent: &[&str]) {
        for _ in 0..60 {
            let plan = self.decide(1_000, silent);
            for action in &plan.actions {
                self.obey(action);
            }
        }
    }

    fn obey(&mut self, action: &Action) {
        let mut ids: Vec<(ContainerName, RuntimeId)> = Vec::new();
        let host = self.containers.get_mut(&action.host).unwrap();
        match &action.verb {
            Verb::Launch { containers } => {
                for step in containers {
                    self.made += 1;
                    let id = step.runtime_id.clone().unwrap_or_else(|| RuntimeId::from(format!("c{}", self.made)));
                    let claim = Claim::from_labels(&step.config.labels).unwrap();
                    let view = host.entry(id.clone()).or_insert_with(|| ContainerView {
                        id: id.clone(),
                        name: step.config.name.clone(),
                        image: step.config.image.clone(),
                        image_id: String::new(),
                        state: ContainerState::Created,
                        health: HealthStatus::Unknown,
                        has_health_check: step.config.health_check.is_some(),
                        exit_code: None,
                        oom_killed: false,
                        started_at: None,
                        finished_at: None,
                        restart_count: 0,
                        error: String::new(),
                        ports: step.config.ports.clone(),
                        owner: Owner::Ours(Box::new(claim)),
                    });
                    if step.start {
                        view.state = ContainerState::Running;
                        view.started_at = Some(self.now);
                    }
                    ids.push((step.container.clone(), id));
                }
            }
            Verb::Stop { containers } => containers.iter().for_each(|step| {
                host.remove(&step.runtime_id);
            }),
            Verb::Remove { containers } => containers.iter().for_each(|id| {
                host.remove(id);
            }),
        }
        self.answer(action, ActionResult::Done { containers: ids });
    }

    fn answer(&mut self, action: &Action, result: ActionResult) {
        let answer = Answer { key: action.key(), host: action.host.clone(), at: self.now, result };
        self.core.take(self.now, Input::Answer(answer));
    }

    fn running(&self) -> usize {
        self.containers.values().flat_map(BTreeMap::values).filter(|view| view.state == ContainerState::Running).count()
    }

    fn stop_codes(&self) -> Vec<StopCode> {
        self.core.world().state.tasks.values().filter_map(|task| task.stop_code).collect()
    }
}

fn web(count: u32) -> Value {
    json!({ "taskDefinition": "web", "desiredCount": count, "minimumHealthySeconds": 1 })
}

fn one_container() -> Value {
    json!({ "containerDefinitions": [{ "name": "main", "image": "demo:1", "memory": 64 }] })
}

#[test]
fn when_the_brake_ends_the_other_hosts_get_time_to_answer_too() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    assert_eq!(story.running(), 3);
    for _ in 0..20 {
        story.decide(1_000, &["a", "b", "c"]);
    }
    assert!(story.core.world().state.fleet.brake.is_some(), "all are silent: the brake holds");
    // One answers a moment before the others.
    let plan = story.decide(300, &["b", "c"]);
    assert!(story.core.world().state.fleet.brake.is_none(), "one answers: the brake ends");
    assert!(plan.actions.is_empty(), "and nothing is given up at once: {:?}", plan.actions);
    story.settle(&[]);
    assert_eq!(story.running(), 3);
    assert_eq!(story.stop_codes(), [], "nothing was ever replaced");
}

#[test]
fn a_task_ordered_to_stop_while_it_is_launched_keeps_its_port_until_the_launch_is_over() {
    let definition = json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80, "hostPort": 8080 }] }
    ] });
    let mut story = Story::begin(web(1), definition);
    let mut launched = None;
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        launched = launched.or(plan.actions.into_iter().next());
    }
    let launch = launched.expect("it is launched");
    assert_eq!(launch.verb.name(), VerbName::Launch);
    // The image is pulled for a long time; meanwhile nothing is wanted any more.
    story.desired.services.get_mut("web").unwrap().spec.desired_count = 0;
    story.tell();
    for _ in 0..40 {
        story.decide(1_000, &[]);
    }
    let task = &story.core.world().state.tasks[&launch.task];
    assert!(task.is_live(), "its containers may appear at any moment: {:?}", task.last_status);
    story.obey(&launch);
    story.settle(&[]);
    assert_eq!(story.running(), 0, "what appeared late is stopped");
    assert!(!story.core.world().state.tasks.get(&launch.task).is_some_and(|task| task.is_live()));
}

#[test]
fn a_sick_task_that_holds_the_only_port_makes_room_for_its_replacement() {
    let definition = json!({ "containerDefinitions": [{
        "name": "main", "image": "demo:1", "memory": 64,
        "portMappings": [{ "containerPort": 80, "hostPort": 8080 }],
        "healthCheck": { "command": ["CMD", "check"] }
    }] });
    let mut story = Story::begin(web(3), definition);
    for _ in 0..5 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    for view in story.containers.values_mut().flat_map(BTreeMap::values_mut) {
        view.health = HealthStatus::Healthy;
    }
    story.decide(1_000, &[]);
    let sick = story.containers.get_mut("a").unwrap().values_mut().next().unwrap();
    sick.health = HealthStatus::Unhealthy;
    let sick = sick.id.clone();
    story.settle(&[]);
    assert!(!story.containers["a"].contains_key(&sick), "it went");
    assert_eq!(story.containers["a"].len(), 1, "and another took its place");
}

#[test]
fn a_container_that_ended_well_and_was_tidied_away_is_not_run_again() {
    let definition = json!({ "containerDefinitions": [
        { "name": "migrate", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "migrate", "condition": "SUCCESS" }] }
    ] });
    let mut story = Story::begin(web(1), definition);
    for _ in 0..4 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    for view in
        story.containers.values_mut().flat_map(BTreeMap::values_mut).filter(|view| view.name.ends_with("migrate"))
    {
        view.state = ContainerState::Exited;
        view.exit_code = Some(0);
    }
    story.settle(&[]);
    assert_eq!(story.running(), 1, "main runs after migrate ended with 0");
    for containers in story.containers.values_mut() {
        containers.retain(|_, view| !view.name.ends_with("migrate"));
    }
    let made = story.made;
    story.settle(&[]);
    assert_eq!(story.made, made, "nothing was made again");
    assert_eq!(story.running(), 1);
}

#[test]
fn a_dependency_that_never_comes_ends_the_task_after_its_start_timeout() {
    let definition = json!({ "containerDefinitions": [
        { "name": "db", "image": "demo:1", "memory": 64, "startTimeout": 20, "healthCheck": { "command": ["CMD", "check"] } },
        { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "db", "condition": "HEALTHY" }] }
    ] });
    let mut story = Story::begin(web(1), definition);
    let mut reasons = Vec::new();
    for _ in 0..40 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
        reasons.extend(story.core.world().state.tasks.values().filter_map(|task| task.stopped_reason.clone()));
    }
    assert!(
        reasons.iter().any(|reason| reason.contains("main waits for db to be healthy") && reason.contains("20 s")),
        "{reasons:?}"
    );
}

#[test]
fn a_dead_host_does_not_keep_a_deployment_from_completing() {
    let mut story = Story::begin(web(3), one_container());
    story.settle(&[]);
    for _ in 0..20 {
        let plan = story.decide(1_000, &["a"]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    story.desired.task_definitions.get_mut("web").unwrap().spec.container_definitions[0].image = "demo:2".into();
    story.tell();
    story.settle(&["a"]);
    let record = &story.core.world().state.services["web"];
    let primary = record.deployments.first().unwrap();
    assert_eq!((primary.revision.to_string().as_str(), primary.outcome.is_some()), ("web:2", true), "{primary:?}");
}
