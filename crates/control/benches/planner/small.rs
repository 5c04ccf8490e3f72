//! What the simulator asks for tens of thousands of times a second: 5 hosts, 4 services, 40 tasks.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::Criterion;
use roadstead_core::turn::{Core, Input};
use roadstead_core::{
    model::{
        action::{Action, ActionResult, Answer, Verb},
        container::{ContainerState, ContainerView, HealthStatus},
        desired::Desired,
        name::{ContainerName, Family, HostName, RuntimeId, ServiceName},
        observed::{EngineIdentity, HostContact, HostObservation},
        ownership::{Claim, Owner},
        spec::ServiceSpec,
        state::State,
        time::Timestamp,
        world::Plan,
    },
    plan::plan,
};
use serde_json::json;

use super::{START, definition, manifest};

const HOSTS: usize = 5;
const SERVICES: usize = 4;
const TASKS_PER_SERVICE: usize = 10;
const TASKS_PER_HOST: usize = SERVICES * TASKS_PER_SERVICE / HOSTS;
/// What others run on each host.
const STRANGERS: usize = 2;
const TURN_MS: u64 = 1_000;
/// The longest that coming to rest may take.
const MAX_TURNS: usize = 60;

/// A controller's core, and hosts that obey at once.
struct Small {
    core: Core,
    now: Timestamp,
    desired: Desired,
    hosts: BTreeMap<HostName, BTreeMap<RuntimeId, ContainerView>>,
    made: usize,
}

impl Small {
    fn new() -> Self {
        let mut desired = Desired::default();
        for number in 0..HOSTS {
            let labels = BTreeMap::from([("availability-zone".to_owned(), format!("az{number}"))]);
            desired.hosts.insert(format!("host-{number}").into(), manifest(labels, json!({ "address": "198.18.0.1" })));
        }
        for number in 0..SERVICES {
            let name = format!("service-{number}");
            let spec = json!({
                "taskDefinition": name, "desiredCount": TASKS_PER_SERVICE, "minimumHealthySeconds": 1,
                "deploymentConfiguration": { "maximumPercent": 150, "minimumHealthyPercent": 100 },
            });
            desired.task_definitions.insert(Family::from(name.as_str()), definition(1));
            desired.services.insert(ServiceName::from(name), manifest::<ServiceSpec>(BTreeMap::new(), spec));
        }
        let (core, _) = Core::new(State::default(), 7, START, false);
        let hosts = desired.hosts.keys().map(|host| (host.clone(), BTreeMap::new())).collect();
        let mut small = Self { core, now: START, desired, hosts, made: 0 };
        for host in small.hosts.keys().cloned().collect::<Vec<_>>() {
            for _ in 0..STRANGERS {
                small.make(&host, view("somebody-elses", Owner::Foreign));
            }
        }
        small
    }

    /// As it is when nothing has happened for a while.
    fn settled() -> Self {
        let mut small = Self::new();
        small.want();
        small.settle();
        small
    }

    fn want(&mut self) {
        let (desired, hash) = (Arc::new(self.desired.clone()), self.now.0.to_string());
        self.core.take(self.now, Input::Manifests { desired, hash, diagnostics: Vec::new() });
    }

    fn make(&mut self, host: &HostName, mut view: ContainerView) -> RuntimeId {
        self.made += 1;
        let id = RuntimeId::from(format!("{:064x}", self.made));
        view.id = id.clone();
        self.hosts.get_mut(host).expect("a declared host").insert(id.clone(), view);
        id
    }

    /// A second passes, and every host answers and is looked at.
    fn look(&mut self) {
        self.now = self.now.plus_ms(TURN_MS);
        let now = Some(self.now);
        let contact = HostContact {
            engine_answered_at: now,
            link_answered_at: now,
            watched_since: START,
            ..HostContact::default()
        };
        let contacts = self.hosts.keys().map(|host| (host.clone(), contact.clone())).collect();
        self.core.take(self.now, Input::Contacts(contacts));
        for look in self.looks() {
            self.core.take(self.now, Input::Look(look));
        }
    }

    fn looks(&self) -> Vec<Arc<HostObservation>> {
        let look = |(host, containers): (&HostName, &BTreeMap<_, _>)| {
            let identity = EngineIdentity {
                engine_id: host.to_string(),
                architecture: "X86_64".to_owned(),
                cpus: 64,
                memory_mib: 65_536,
                ..EngineIdentity::default()
            };
            let containers = containers.clone();
            Arc::new(HostObservation {
                host: host.clone(),
                started_at: self.now,
                finished_at: self.now,
                identity,
                containers,
            })
        };
        self.hosts.iter().map(look).collect()
    }

    fn turn(&mut self) -> Plan {
        self.look();
        let plan = self.core.decide(self.now);
        plan.actions.iter().for_each(|action| self.obey(action));
        plan
    }

    /// Turns until three plans in a row found nothing to do.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..MAX_TURNS {
            let plan = self.turn();
            quiet = if plan.actions.is_empty() && plan.changes.is_empty() { quiet + 1 } else { 0 };
            if quiet == 3 {
                return;
            }
        }
        panic!("the fleet does not come to rest");
    }

    fn obey(&mut self, action: &Action) {
        let mut containers: Vec<(ContainerName, RuntimeId)> = Vec::new();
        match &action.verb {
            Verb::Launch { containers: steps } => {
                for step in steps {
                    let claim = Claim::from_labels(&step.config.labels).expect("the planner's labels");
                    let mut view = view(&step.config.name, Owner::Ours(Box::new(claim)));
                    view.ports = step.config.ports.clone();
                    containers.push((step.container.clone(), self.make(&action.host, view)));
                }
            }
            Verb::Stop { containers } | Verb::Tidy { containers } => {
                let host = self.hosts.get_mut(&action.host).expect("a declared host");
                containers.iter().for_each(|step| drop(host.remove(&step.runtime_id)));
            }
            Verb::Resolve { .. } | Verb::Remove { .. } | Verb::Sweep { .. } | Verb::Prune { .. } => {
                panic!("named by digest, and nothing failed")
            }
        }
        let answer = Answer {
            key: action.key(),
            host: action.host.clone(),
            at: self.now,
            result: ActionResult::Done { containers },
        };
        self.core.take(self.now, Input::Answer(answer));
    }
}

fn view(name: &str, owner: Owner) -> ContainerView {
    ContainerView {
        id: RuntimeId::default(),
        name: name.to_owned(),
        image: "demo:1".to_owned(),
        image_id: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_owned(),
        state: ContainerState::Running,
        health: HealthStatus::Unknown,
        has_health_check: false,
        exit_code: None,
        oom_killed: false,
        started_at: Some(START),
        finished_at: None,
        restart_count: 0,
        error: String::new(),
        ports: Vec::new(),
        owner,
    }
}

/// One of the four services is rolled out.
fn rolling() -> Small {
    let mut small = Small::settled();
    let definition = small.desired.task_definitions.values_mut().next().expect("four definitions");
    definition.spec.edit(|spec| spec.container_definitions[0].image = format!("demo@sha256:{:064}", 2));
    small.want();
    small
}

/// Benchmarks of single turns.
pub(super) fn small(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("small");

    let settled = Small::settled();
    assert_eq!(settled.core.world().state.tasks.len(), SERVICES * TASKS_PER_SERVICE);
    group.bench_function("plan_idle", |bench| bench.iter(|| black_box(plan(settled.core.world()))));

    let mut waits = rolling();
    waits.turn();
    waits.look();
    let found = plan(waits.core.world());
    assert!(found.actions.is_empty() && !found.report.waiting.is_empty(), "the new tasks are not healthy yet");
    group.bench_function("plan_rollout_waits", |bench| bench.iter(|| black_box(plan(waits.core.world()))));

    let mut acts = rolling();
    acts.turn();
    acts.turn();
    acts.look();
    let found = plan(acts.core.world());
    assert_eq!(found.actions.len(), TASKS_PER_SERVICE / 2, "half of the old tasks end: {:?}", found.report);
    group.bench_function("plan_rollout_acts", |bench| bench.iter(|| black_box(plan(acts.core.world()))));

    let mut looked = Small::settled();
    let mut looks = looked.looks();
    looks.retain(|look| look.containers.len() == TASKS_PER_HOST + STRANGERS);
    let look = looks.pop().expect("a host with its share of the tasks");
    let now = looked.now;
    group.bench_function("take_look_unchanged", |bench| {
        bench.iter(|| black_box(looked.core.take(now, Input::Look(Arc::clone(&look)))));
    });

    group.bench_function("core_clone", |bench| bench.iter(|| black_box(settled.core.clone())));
    group.bench_function("world_clone", |bench| bench.iter(|| black_box(settled.core.world().clone())));
    group.finish();
}
