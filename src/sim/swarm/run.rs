//! One seed: phase one with faults, phase two without.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    check::{self, Broken},
    draw::{self, Rates},
    execute::carry_out,
    host::SimHost,
    rng::Rng,
    trace::Trace,
};
use crate::{
    control::{
        core::{Core, Input},
        handle::Command,
    },
    model::{
        action::{Action, ActionResult, Answer},
        container::ContainerConfig,
        desired::Desired,
        name::{HostName, RuntimeId, TaskId},
        observed::{HostContact, HostObservation},
        state::{Change, Schedulability, State},
        time::Timestamp,
    },
};

/// How large a run is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Hosts.
    pub hosts: u64,
    /// Services.
    pub services: u64,
    /// Steps with faults.
    pub steps: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self { hosts: 5, services: 4, steps: 300 }
    }
}

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first predicate that broke.
    pub broken: Option<Broken>,
    /// Steps taken, both phases.
    pub steps: u32,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Of the trace.
    pub hash: u64,
    /// The trace, when asked for.
    pub trace: Vec<String>,
}

const ANSWER_DEADLINE_MS: u64 = 10_000;
/// Phase two ends here at the latest; the start throttle alone may take a quarter of an hour.
const REST_WITHIN_STEPS: u32 = 4_000;
const STRANGERS: usize = 1;

struct Sent {
    action: Action,
    /// When it reaches the host.
    due: Timestamp,
    /// When the caller gives up.
    deadline: Timestamp,
    generation: u64,
    lose_answer: bool,
    arrived: bool,
    answered: bool,
}

struct Sim {
    rng: Rng,
    now: Timestamp,
    hosts: BTreeMap<HostName, SimHost>,
    core: Core,
    /// What the store would load.
    durable: State,
    wanted: Desired,
    version: u64,
    sent: Vec<Sent>,
    looks: Vec<(Timestamp, u64, Arc<HostObservation>)>,
    contacts: BTreeMap<HostName, HostContact>,
    committed: BTreeSet<TaskId>,
    generation: u64,
    faults: BTreeMap<&'static str, u64>,
    trace: Trace,
}

/// Runs one seed; `keep` keeps the trace's words.
pub fn run(seed: u64, shape: Shape, keep: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let rates = Rates::draw(&mut rng);
    let wanted = draw::desired(&mut rng, shape.hosts, shape.services);
    let now = Timestamp(1_700_000_000_000);
    let (core, changes) = Core::new(State::default(), seed, now, false);
    let hosts = wanted.hosts.keys().map(|name| (name.clone(), new_host(name))).collect();
    let mut sim = Sim {
        rng,
        now,
        hosts,
        core,
        durable: State::default(),
        wanted,
        version: 0,
        sent: Vec::new(),
        looks: Vec::new(),
        contacts: BTreeMap::new(),
        committed: BTreeSet::new(),
        generation: 0,
        faults: BTreeMap::new(),
        trace: Trace::new(keep),
    };
    sim.commit(&changes);
    sim.watch_anew();
    let mut steps = 0;
    let broken = sim.phases(&rates, shape.steps, &mut steps).err();
    if let Some(broken) = &broken {
        let now = sim.now;
        sim.trace.line(now, || format!("BROKEN {}: {}", broken.predicate, broken.detail));
    }
    let (hash, trace) = sim.trace.into_parts();
    Outcome { broken, steps, faults: sim.faults, hash, trace }
}

fn new_host(name: &HostName) -> SimHost {
    let mut host = SimHost::new(name.as_str(), 16, 8_192);
    let stranger =
        ContainerConfig { name: "somebody-elses".into(), image: "other:1".into(), ..ContainerConfig::default() };
    let _ = host.create(name.as_str(), &stranger);
    host
}

impl Sim {
    fn phases(&mut self, rates: &Rates, fault_steps: u32, steps: &mut u32) -> Result<(), Broken> {
        for _ in 0..fault_steps {
            *steps += 1;
            let pause = self.rng.within(50, 1_500);
            self.now = self.now.plus_ms(pause);
            self.draw_faults(rates);
            self.step(rates)?;
        }
        self.heal();
        let calm = Rates {
            cut: 0,
            hang: 0,
            heal: 0,
            engine_restart: 0,
            kill: 0,
            crash: 0,
            remove_by_hand: 0,
            lose_answer: 0,
            lose_request: 0,
            controller_crash: 0,
            database_lost: 0,
            change: 0,
            operator: 0,
            stale_look: 0,
        };
        let mut last = String::new();
        let mut quiet = 0;
        for _ in 0..REST_WITHIN_STEPS {
            *steps += 1;
            self.now = self.now.plus_ms(1_000);
            let acted = self.step(&calm)?;
            match check::at_rest(self.core.world(), &self.hosts) {
                Ok(()) if !acted && self.sent.is_empty() => {
                    quiet += 1;
                    if quiet > 20 {
                        return Ok(());
                    }
                }
                Ok(()) => quiet = 0,
                Err(missing) => {
                    quiet = 0;
                    last = missing;
                }
            }
        }
        let waiting: Vec<String> = self.core.report().waiting.iter().map(|waiting| waiting.reason.clone()).collect();
        let predicate = if last.starts_with("L5") { "L5" } else { "L1" };
        Err(Broken { predicate, detail: format!("not at rest: {last}; waiting: {}", waiting.join(" | ")) })
    }

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    fn draw_faults(&mut self, rates: &Rates) {
        let names: Vec<HostName> = self.hosts.keys().cloned().collect();
        let Some(name) = self.rng.pick(&names).cloned() else { return };
        let now = self.now;
        let healthy_after = self.rng.within(500, 8_000);
        if self.rng.chance(rates.heal)
            && let Some(host) = self.hosts.get_mut(&name)
        {
            if !host.linked || !host.engine_up {
                self.trace.line(now, || format!("{name} heals"));
            }
            host.linked = true;
            host.engine_up = true;
        }
        let fault = |sim: &mut Self, rate: u64, word: &'static str| {
            let happens = sim.rng.chance(rate);
            if happens {
                sim.count(word);
                sim.trace.line(now, || format!("{name}: {word}"));
            }
            happens
        };
        if fault(self, rates.cut, "link cut") {
            self.on(&name, |host| host.linked = false);
        }
        if fault(self, rates.hang, "engine hangs") {
            self.on(&name, |host| host.engine_up = false);
        }
        if fault(self, rates.engine_restart, "engine killed and restarted") {
            self.on(&name, |host| {
                host.engine_up = true;
                host.restart_engine(now, healthy_after);
            });
            // What it was asked and had not done is forgotten.
            self.sent.iter_mut().filter(|sent| sent.action.host == name).for_each(|sent| sent.lose_answer = true);
            self.sent.retain(|sent| !(sent.action.host == name && sent.arrived));
        }
        let ours: Vec<RuntimeId> = self
            .hosts
            .get(&name)
            .map(|host| {
                host.containers
                    .values()
                    .filter(|container| container.view.owner.ours().is_some())
                    .map(|container| container.view.id.clone())
                    .collect()
            })
            .unwrap_or_default();
        let victim = self.rng.pick(&ours).cloned();
        if let Some(victim) = victim {
            if fault(self, rates.kill, "docker kill") {
                self.on(&name, |host| host.kill(&victim, now));
            }
            if fault(self, rates.crash, "crash") {
                self.on(&name, |host| host.crash(&victim, now, healthy_after));
            }
            if fault(self, rates.remove_by_hand, "docker rm -f") {
                self.on(&name, |host| {
                    host.kill(&victim, now);
                    let _ = host.remove(&victim);
                });
            }
        }
        if self.rng.chance(rates.change) {
            let words = draw::change(&mut self.rng, &mut self.wanted);
            self.version += 1;
            self.trace.line(now, || format!("manifests: {words}"));
            self.tell_manifests();
        }
        if self.rng.chance(rates.operator) {
            let to = match self.rng.within(0, 2) {
                0 => Schedulability::Active,
                1 => Schedulability::Cordoned,
                _ => Schedulability::Draining,
            };
            self.command(Command::SetSchedulability { host: name.clone(), to });
        }
        if self.rng.chance(rates.controller_crash) {
            self.count("controller crash");
            self.crash_controller(rates);
        }
    }

    fn on(&mut self, name: &HostName, act: impl FnOnce(&mut SimHost)) {
        if let Some(host) = self.hosts.get_mut(name) {
            act(host);
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.now;
        self.trace.line(now, || format!("operator: {command:?}"));
        if let Ok((_, changes)) = self.core.command(now, command) {
            self.commit(&changes);
        }
    }

    fn crash_controller(&mut self, rates: &Rates) {
        let now = self.now;
        let lost = self.rng.chance(rates.database_lost * 20);
        self.trace.line(now, || format!("controller killed{}", if lost { ", its database deleted" } else { "" }));
        if lost {
            self.count("database lost");
            self.durable = State::default();
        }
        self.restart_controller();
    }

    fn restart_controller(&mut self) {
        self.generation += 1;
        self.looks.clear();
        let (core, changes) = Core::new(self.durable.clone(), self.rng.next(), self.now, false);
        self.core = core;
        self.commit(&changes);
        self.watch_anew();
    }

    fn watch_anew(&mut self) {
        let since = self.now;
        self.contacts = self
            .hosts
            .keys()
            .map(|host| (host.clone(), HostContact { watched_since: since, ..HostContact::default() }))
            .collect();
        self.tell_manifests();
    }

    fn tell_manifests(&mut self) {
        let input = Input::Manifests {
            desired: Arc::new(self.wanted.clone()),
            hash: format!("{:08}", self.version),
            diagnostics: Vec::new(),
        };
        let changes = self.core.take(self.now, input);
        self.commit(&changes);
        // A large change is held until somebody says yes.
        if let Some(held) = self.core.world().state.fleet.held.clone() {
            self.command(Command::Confirm { token: held.token });
        }
    }

    fn commit(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Task(task) = change {
                self.committed.insert(task.id.clone());
            }
            if let Change::Event(event) = change {
                let now = self.now;
                self.trace.line(now, || format!("    {}", event.message));
            }
            self.durable.apply(change);
        }
    }

    /// One turn of the world and of the controller's loop; whether the controller did anything.
    fn step(&mut self, rates: &Rates) -> Result<bool, Broken> {
        let before = self.durable.clone();
        for host in self.hosts.values_mut() {
            host.tick(self.now);
        }
        self.deliver();
        self.observe(rates);
        let world_changes = {
            let contacts = self.contacts.clone();
            self.core.take(self.now, Input::Contacts(contacts))
        };
        self.commit(&world_changes);
        let world = self.core.world().clone();
        let plan = self.core.decide(self.now);
        check::decision(&world, &plan)?;
        // A crash before the commit loses the decision, one after it loses the orders (S8).
        if self.rng.chance(rates.controller_crash) {
            self.count("crash before commit");
            self.restart_controller();
            return Ok(true);
        }
        self.commit(&plan.changes);
        check::rows(&before, &self.durable)?;
        if self.rng.chance(rates.controller_crash) {
            self.count("crash after commit");
            self.restart_controller();
            return Ok(true);
        }
        let again = self.core.clone().decide(self.now);
        if !again.actions.is_empty() || !again.changes.is_empty() {
            let action = again
                .actions
                .first()
                .map(|action| format!("{:?} task {} ({})", action.verb.name(), action.task, action.reason));
            let change = again.changes.first().map(|change| match change {
                Change::Task(task) => format!(
                    "task {} of {}: {:?}/{:?} {}",
                    task.id,
                    task.revision,
                    task.desired_status,
                    task.last_status,
                    task.stopped_reason.as_deref().unwrap_or("")
                ),
                other => format!("{other:?}").chars().take(300).collect(),
            });
            let what = action.into_iter().chain(change).collect::<Vec<_>>().join("; ");
            return Err(Broken { predicate: "S12", detail: format!("planning again finds more to do: {}", what) });
        }
        let acted = !plan.actions.is_empty() || !plan.changes.is_empty();
        for action in plan.actions {
            self.send(action, rates);
        }
        check::ground(&self.hosts, &self.committed, STRANGERS)?;
        Ok(acted)
    }

    fn send(&mut self, action: Action, rates: &Rates) {
        let now = self.now;
        self.trace.line(now, || {
            format!("  → {}: {:?} task {} ({})", action.host, action.verb.name(), action.task, action.reason)
        });
        let lost = self.rng.chance(rates.lose_request);
        if lost {
            self.count("request lost");
        }
        let delay = self.rng.within(20, 2_000);
        let lose_answer = self.rng.chance(rates.lose_answer);
        if lose_answer {
            self.count("answer lost");
        }
        let due = if lost { Timestamp(u64::MAX) } else { now.plus_ms(delay) };
        self.sent.push(Sent {
            action,
            due,
            deadline: now.plus_ms(ANSWER_DEADLINE_MS),
            generation: self.generation,
            lose_answer,
            arrived: false,
            answered: false,
        });
    }

    /// Hosts do what they were asked, in time or late; callers give up at their deadline.
    fn deliver(&mut self) {
        let mut sent = std::mem::take(&mut self.sent);
        let mut kept = Vec::new();
        for mut one in sent.drain(..) {
            let mut result = None;
            let mut over = false;
            if let Some(host) = self.hosts.get_mut(&one.action.host) {
                if !one.arrived && one.due <= self.now && host.linked {
                    one.arrived = true;
                }
                // Past its deadline, what never arrived never will.
                if !one.arrived && one.deadline <= self.now {
                    over = true;
                }
                if one.arrived && host.engine_up {
                    let healthy_after = self.rng.within(200, 6_000);
                    result = Some(carry_out(host, &one.action, self.now, healthy_after));
                    over = true;
                    let linked = host.linked;
                    if one.lose_answer || !linked {
                        result = None;
                        over = one.answered || one.deadline <= self.now;
                        if !over {
                            // Done, and nobody knows: the caller waits for its deadline.
                            one.due = Timestamp(u64::MAX);
                            one.arrived = false;
                        }
                    }
                }
            }
            if result.is_none() && !one.answered && one.deadline <= self.now {
                result = Some(ActionResult::Unknown { reason: "no answer in time".into() });
            }
            if let Some(result) = result
                && !one.answered
            {
                one.answered = true;
                self.answer(&one, result);
            }
            if !over {
                kept.push(one);
            }
        }
        self.sent = kept;
    }

    fn answer(&mut self, one: &Sent, result: ActionResult) {
        if one.generation != self.generation {
            return;
        }
        let (now, key) = (self.now, one.action.key());
        self.trace
            .line(now, || format!("  ← {}: {:?} task {}: {}", one.action.host, key.verb, key.task, words(&result)));
        let answer = Answer { key, host: one.action.host.clone(), at: now, result };
        let changes = self.core.take(now, Input::Answer(answer));
        self.commit(&changes);
    }

    fn observe(&mut self, rates: &Rates) {
        let now = self.now;
        for (name, host) in &self.hosts {
            let contact = self.contacts.entry(name.clone()).or_default();
            if host.linked {
                contact.link_answered_at = Some(now);
            }
            if !host.answers() {
                contact.error = Some("no answer".into());
                continue;
            }
            contact.engine_answered_at = Some(now);
            contact.error = None;
            if self.rng.chance(200) {
                continue;
            }
            let look = HostObservation {
                host: name.clone(),
                started_at: now,
                finished_at: now,
                identity: host.identity.clone(),
                containers: host
                    .containers
                    .iter()
                    .map(|(id, container)| (id.clone(), container.view.clone()))
                    .collect(),
            };
            let late = if self.rng.chance(rates.stale_look) { self.rng.within(100, 4_000) } else { 0 };
            self.looks.push((now.plus_ms(late), self.generation, Arc::new(look)));
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.looks).into_iter().partition(|(at, ..)| *at <= now);
        self.looks = later;
        for (_, generation, look) in due {
            // The observer takes one look after the other: an older one never comes after a newer one.
            let newer = self
                .contacts
                .get(&look.host)
                .and_then(|contact| contact.looked_at)
                .is_some_and(|at| at > look.started_at);
            if generation != self.generation || newer {
                continue;
            }
            let finished = HostObservation { finished_at: now, ..(*look).clone() };
            let changes = self.core.take(now, Input::Look(Arc::new(finished)));
            self.commit(&changes);
            if let Some(contact) = self.contacts.get_mut(&look.host) {
                contact.looked_at = Some(look.started_at);
            }
        }
    }

    fn heal(&mut self) {
        let now = self.now;
        self.trace.line(now, || "everything heals".to_owned());
        for host in self.hosts.values_mut() {
            host.linked = true;
            host.engine_up = true;
        }
        draw::cure(&mut self.wanted);
        self.version += 1;
        self.tell_manifests();
        let names: Vec<HostName> = self.hosts.keys().cloned().collect();
        for host in names {
            self.command(Command::SetSchedulability { host, to: Schedulability::Active });
        }
    }
}

fn words(result: &ActionResult) -> String {
    match result {
        ActionResult::Done { .. } => "done".into(),
        ActionResult::Failed { reason, .. } => format!("failed: {reason}"),
        ActionResult::NotSent { reason } => format!("not sent: {reason}"),
        ActionResult::Unknown { reason } => format!("unknown: {reason}"),
    }
}
