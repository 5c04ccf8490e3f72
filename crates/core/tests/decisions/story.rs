//! Three hosts in memory, and a controller's core over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use roadstead_core::model::{
    action::{Action, ActionResult, Answer, Verb, VerbName},
    container::{ContainerState, ContainerView, HealthStatus, MountSource},
    desired::{Desired, Manifest},
    image::ResolvedImage,
    name::{ContainerName, HostName, RuntimeId},
    observed::{Death, EngineIdentity, HostContact, HostObservation},
    ownership::{Claim, FleetKey, Owner},
    spec::{HostSpec, ServiceSpec, TaskDefinitionSpec},
    state::{Change, State},
    task::{StopCode, Task},
    time::Timestamp,
    volume::{VolumeClaim, VolumesSeen},
    world::Plan,
};
use roadstead_core::turn::{Core, Input};
use serde_json::{Value, json};

use super::looks::events;

/// A controller's core with three obedient hosts.
pub struct Story {
    pub core: Core,
    pub now: Timestamp,
    pub desired: Desired,
    pub contacts: BTreeMap<HostName, HostContact>,
    pub containers: BTreeMap<HostName, BTreeMap<RuntimeId, ContainerView>>,
    /// Of ours, by host and name.
    pub volumes: BTreeMap<HostName, BTreeMap<String, VolumeClaim>>,
    pub made: u32,
    /// Hosts that are not who they were.
    pub identities: BTreeMap<HostName, EngineIdentity>,
    /// Hosts whose sshd answers and whose engine does not.
    pub hung: BTreeSet<HostName>,
    /// What was pushed last under a reference.
    pub pushed: BTreeMap<String, u32>,
}

pub fn manifest<S>(spec: S, labels: &[(&str, &str)]) -> Manifest<S> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Manifest { labels, annotations: BTreeMap::new(), file: "story.yaml".into(), line: 1, spec }
}

impl Story {
    pub fn begin(service: Value, definition: Value) -> Self {
        let mut desired = Desired::default();
        for host in ["a", "b", "c"] {
            let spec: HostSpec = serde_json::from_value(json!({ "address": host })).unwrap();
            desired.hosts.insert(host.into(), manifest(spec, &[("availability-zone", host)]));
        }
        let definition: TaskDefinitionSpec = serde_json::from_value(definition).unwrap();
        desired.task_definitions.insert("web".into(), manifest(definition.into(), &[]));
        let service: ServiceSpec = serde_json::from_value(service).unwrap();
        desired.services.insert("web".into(), manifest(service, &[]));
        let now = Timestamp(1_700_000_000_000);
        let (core, _) = Core::new(State::default(), 1, now, false);
        let contact = HostContact { watched_since: now, ..HostContact::default() };
        let contacts = desired.hosts.keys().map(|host| (host.clone(), contact.clone())).collect();
        let containers = desired.hosts.keys().map(|host| (host.clone(), BTreeMap::new())).collect();
        let volumes = desired.hosts.keys().map(|host| (host.clone(), BTreeMap::new())).collect();
        let mut story = Self {
            core,
            now,
            desired,
            contacts,
            containers,
            volumes,
            made: 0,
            identities: BTreeMap::new(),
            hung: BTreeSet::new(),
            pushed: BTreeMap::new(),
        };
        story.tell();
        story
    }

    pub fn tell(&mut self) {
        let hash = format!("{:08}", self.now.0);
        let input = Input::Manifests { desired: Arc::new(self.desired.clone()), hash, diagnostics: Vec::new() };
        self.core.take(self.now, input);
    }

    /// Another controller goes on with what is durable, as `change` left it.
    pub fn go_on_with(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.core.world().state.clone();
        change(&mut state);
        (self.core, _) = Core::new(state, 2, self.now, false);
        self.tell();
    }

    /// A host of a zone, beside the first three.
    pub fn add_host(&mut self, name: &str, zone: &str) {
        let spec: HostSpec = serde_json::from_value(json!({ "address": name })).unwrap();
        self.desired.hosts.insert(name.into(), manifest(spec, &[("availability-zone", zone)]));
        let contact = HostContact { watched_since: self.now, ..HostContact::default() };
        self.contacts.insert(name.into(), contact);
        self.containers.insert(name.into(), BTreeMap::new());
        self.volumes.insert(name.into(), BTreeMap::new());
    }

    pub fn state(&self) -> &State {
        &self.core.world().state
    }

    /// Time passes; hosts that are not in `silent` answer and are looked at; one decision is made. What images stand for is
    /// answered at once, and decided upon.
    pub fn decide(&mut self, ms: u64, silent: &[&str]) -> Plan {
        let mut plan = self.decide_once(ms, silent);
        while let Some(asked) = plan.actions.iter().position(|action| action.verb.name() == VerbName::Resolve) {
            let asked = plan.actions.remove(asked);
            self.resolve(&asked);
            let more = self.plan();
            plan.changes.extend(more.changes);
            plan.actions.extend(more.actions);
            plan.report = more.report;
        }
        plan
    }

    /// Answers what images stand for: what was pushed, by its digest; the others were loaded by hand, and run by their tags.
    pub fn resolve(&mut self, action: &Action) {
        let Verb::Resolve { images, .. } = &action.verb else { panic!("{action:?}") };
        let image = |reference: &String| match self.pushed.get(reference) {
            Some(push) => ResolvedImage::Digest(format!("sha256:{push:0>64}")),
            None => ResolvedImage::Local(String::new()),
        };
        let images = images.iter().map(|request| (request.reference.clone(), image(&request.reference))).collect();
        self.answer(action, ActionResult::Resolved { images });
    }

    /// The same, without answering anything.
    pub fn decide_once(&mut self, ms: u64, silent: &[&str]) -> Plan {
        self.time_passes(ms, silent);
        for host in self.containers.keys() {
            if silent.contains(&host.as_str()) || self.hung.contains(host) {
                continue;
            }
            let seen = VolumesSeen { started_at: self.now, volumes: self.volumes[host].clone() };
            self.core.take(self.now, Input::Volumes(host.clone(), seen));
            let look = self.look_at(host.as_str(), self.now);
            self.core.take(self.now, Input::Look(Arc::new(look)));
        }
        self.plan()
    }

    /// Time passes; hosts that are not in `silent` answer, and none is looked at.
    pub fn time_passes(&mut self, ms: u64, silent: &[&str]) {
        self.now = self.now.plus_ms(ms);
        for (host, contact) in &mut self.contacts {
            if silent.contains(&host.as_str()) {
                contact.error = Some("no answer".into());
            } else {
                let hangs = self.hung.contains(host);
                contact.link_answered_at = Some(self.now);
                contact.error = hangs.then(|| "the engine does not answer".into());
                if !hangs {
                    contact.engine_answered_at = Some(self.now);
                }
            }
        }
        self.core.take(self.now, Input::Contacts(self.contacts.clone()));
    }

    /// A plan, held to what must be true of every one.
    pub fn plan(&mut self) -> Plan {
        let is_quiet = self.core.quiet_until(self.now).is_some();
        let plan = self.core.decide(self.now);
        let finds_nothing = |plan: &Plan| plan.changes.is_empty() && plan.actions.is_empty();
        assert!(!is_quiet || finds_nothing(&plan), "this would have been slept through (L3): {plan:#?}");
        assert!(plan.wake_at.is_none_or(|at| at > self.now), "its alarm is over: {:?}", plan.wake_at);
        let again = self.core.clone().decide(self.now);
        assert!(finds_nothing(&again), "planning again finds something to do (S12): {again:#?}");
        plan
    }

    /// A complete look as a host stands, begun at `started_at`.
    pub fn look_at(&self, host: &str, started_at: Timestamp) -> HostObservation {
        let identity = self.identities.get(host).cloned().unwrap_or_else(|| EngineIdentity {
            engine_id: host.to_owned(),
            cpus: 8,
            memory_mib: 8_192,
            ..EngineIdentity::default()
        });
        let containers = self.containers[host].clone();
        HostObservation { host: host.into(), started_at, finished_at: self.now, identity, containers }
    }

    /// Looks at a host as it stands.
    pub fn look(&mut self, host: &str, started_at: Timestamp) -> Vec<Change> {
        let look = self.look_at(host, started_at);
        self.core.take(self.now, Input::Look(Arc::new(look)))
    }

    /// Decides and carries everything out, until nothing is left to do.
    pub fn settle(&mut self, silent: &[&str]) {
        for _ in 0..60 {
            let plan = self.decide(1_000, silent);
            for action in &plan.actions {
                self.obey(action);
            }
        }
    }

    pub fn obey(&mut self, action: &Action) {
        let containers = self.make(action);
        self.answer(action, ActionResult::Done { containers });
    }

    /// Carries an order out without an answer.
    pub fn make(&mut self, action: &Action) -> Vec<(ContainerName, RuntimeId)> {
        let mut ids: Vec<(ContainerName, RuntimeId)> = Vec::new();
        let host = self.containers.get_mut(&action.host).unwrap();
        match &action.verb {
            Verb::Resolve { .. } => panic!("answered already"),
            Verb::Launch { containers } => {
                for step in containers {
                    self.made += 1;
                    let key = FleetKey::new([1; 32]);
                    for mount in &step.config.mounts {
                        let MountSource::Volume(volume) = &mount.source else { continue };
                        let labels = key.sign_volume(&action.host, &volume.labels);
                        let claim = key.volume_of(&action.host, &volume.name, &labels).unwrap();
                        self.volumes.get_mut(&action.host).unwrap().entry(volume.name.clone()).or_insert(claim);
                    }
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
            Verb::Stop { containers } | Verb::Tidy { containers } => containers.iter().for_each(|step| {
                host.remove(&step.runtime_id);
            }),
            Verb::Remove { containers } => containers.iter().for_each(|id| {
                host.remove(id);
            }),
            Verb::Sweep { volumes } => {
                let seen = self.volumes.get_mut(&action.host).unwrap();
                seen.retain(|name, _| !volumes.contains(name));
            }
            Verb::Prune { .. } => panic!("no disk is full here"),
        }
        ids
    }

    pub fn answer(&mut self, action: &Action, result: ActionResult) {
        let answer = Answer { key: action.key(), host: action.host.clone(), at: self.now, result };
        self.core.take(self.now, Input::Answer(answer));
    }

    /// A host's only container: its task, and its end as the engine would announce it now, after somebody killed it.
    pub fn death_on(&self, host: &str) -> (Arc<Task>, Death) {
        let id = self.containers[host].keys().next().unwrap().clone();
        let has = |task: &&Arc<Task>| task.containers.values().any(|row| row.runtime_id.as_ref() == Some(&id));
        let task = Arc::clone(self.core.world().state.tasks.values().find(has).unwrap());
        let death =
            Death { host: host.into(), id, at: self.now, heard_at: self.now, exit_code: Some(137), for_good: true };
        (task, death)
    }

    /// One decision after a death was heard of, before anything is looked at.
    pub fn hear(&mut self, death: &Death) -> Plan {
        self.core.take(self.now, Input::Died(death.clone()));
        self.plan()
    }

    pub fn task(&self, like: &Task) -> Arc<Task> {
        Arc::clone(&self.core.world().state.tasks[&like.id])
    }

    /// The stable words of a plan's events.
    pub fn said(&self, plan: &Plan) -> impl Iterator<Item = String> + use<> {
        events(&plan.changes).into_iter().map(|event| event.reason)
    }

    pub fn running(&self) -> usize {
        self.containers.values().flat_map(BTreeMap::values).filter(|view| view.state == ContainerState::Running).count()
    }

    pub fn stop_codes(&self) -> Vec<StopCode> {
        self.core.world().state.tasks.values().filter_map(|task| task.stop_code).collect()
    }
}

pub fn web(count: u32) -> Value {
    json!({ "taskDefinition": "web", "desiredCount": count, "minimumHealthySeconds": 1 })
}

pub fn one_container() -> Value {
    json!({ "containerDefinitions": [{ "name": "main", "image": "demo:1", "memory": 64 }] })
}
