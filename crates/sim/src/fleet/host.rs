//! One host in memory: its engine, the way to it, and what waits there.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::{broadcast, oneshot};

use crate::{
    engine::machine::{Answer, Machine, Request},
    rng::Rng,
};
use roadstead_control::engine::{EngineError, EngineEvent};
use roadstead_core::model::{
    container::{ContainerState, HealthStatus},
    name::{HostName, RuntimeId},
    ownership::Claim,
    time::Timestamp,
};

/// Longer without packets, and a connection is given up.
pub(crate) const CONNECTION_LASTS_MS: u64 = 9_000;
/// Followers that lag further behind are cut off.
const FOLLOWERS_BUFFER: usize = 64;

/// A change on its way to a host or waiting in its engine.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) request: Request,
    pub(crate) reply: Option<oneshot::Sender<Result<Answer, EngineError>>>,
    pub(crate) lose_answer: bool,
    /// The controller is killed when the answer is there.
    pub(crate) kill_at_answer: bool,
    pub(crate) server_error: bool,
    /// It is told that it was done, and nothing was.
    pub(crate) torn: bool,
    pub(crate) sent_at: Timestamp,
}

/// How a host can be reached just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Fine,
    /// Requests go out and no answer comes.
    Silent,
    /// There is no connection.
    Refused,
}

/// One host.
pub(crate) struct FakeHost {
    pub(crate) name: HostName,
    pub(crate) machine: Machine,
    /// Packets to the host pass.
    pub(crate) there: bool,
    /// Packets from the host pass.
    pub(crate) back: bool,
    pub(crate) cut_at: Option<Timestamp>,
    pub(crate) hung: bool,
    /// What a hung engine was asked.
    pub(crate) waiting: VecDeque<InFlight>,
    /// What a cut link holds back.
    pub(crate) held_back: Vec<InFlight>,
    /// Answers that never come: whoever waits, waits.
    pub(crate) limbo: Vec<oneshot::Sender<Result<Answer, EngineError>>>,
    pub(crate) followers: broadcast::Sender<EngineEvent>,
    /// Our containers, by what their labels said when they were made.
    pub(crate) ours: BTreeMap<RuntimeId, Claim>,
    /// Containers of others.
    pub(crate) strangers: usize,
    /// The next container gets its name taken before it is made.
    pub(crate) squat_next: bool,
    /// Which checks, latencies and lives its containers have.
    pub(crate) rng: Rng,
    /// Its clock is ahead by so much.
    pub(crate) clock_ahead_ms: u64,
    /// How often its identity changed.
    pub(crate) lives: u64,
}

impl FakeHost {
    pub(crate) fn new(name: &HostName, seed: u64, number: u64) -> Self {
        let mut rng = Rng::keyed(seed, &[number]);
        let clock_ahead_ms = if rng.chance(200) { rng.within(0, 20_000) } else { 0 };
        let mut host = Self {
            name: name.clone(),
            machine: machine(number, 0),
            there: true,
            back: true,
            cut_at: None,
            hung: false,
            waiting: VecDeque::new(),
            held_back: Vec::new(),
            limbo: Vec::new(),
            followers: broadcast::Sender::new(FOLLOWERS_BUFFER),
            ours: BTreeMap::new(),
            strangers: 0,
            squat_next: false,
            rng,
            clock_ahead_ms,
            lives: 0,
        };
        host.add_stranger("somebody-elses", Timestamp(0));
        host
    }

    /// The host's own clock.
    pub(crate) fn clock(&self, now: Timestamp) -> Timestamp {
        now.plus_ms(self.clock_ahead_ms)
    }

    pub(crate) fn reach(&self, now: Timestamp) -> Reach {
        if self.there && self.back {
            return if self.hung { Reach::Silent } else { Reach::Fine };
        }
        match self.cut_at {
            Some(at) if now.since_ms(at) >= CONNECTION_LASTS_MS => Reach::Refused,
            Some(_) | None => Reach::Silent,
        }
    }

    pub(crate) fn is_well(&self) -> bool {
        self.there && self.back && !self.hung
    }

    /// Somebody else makes and starts a container.
    pub(crate) fn add_stranger(&mut self, name: &str, now: Timestamp) {
        self.add_other(name, BTreeMap::new(), now);
    }

    pub(crate) fn add_other(&mut self, name: &str, labels: BTreeMap<String, String>, now: Timestamp) {
        let config = roadstead_core::model::container::ContainerConfig {
            name: name.to_owned(),
            image: "other:1".to_owned(),
            labels,
            ..Default::default()
        };
        if let Ok(Answer::Created(created)) = self.machine.apply(&Request::Create(Box::new(config)), now) {
            let _ = self.machine.apply(&Request::Start(created.id), now);
            self.strangers += 1;
        }
    }

    /// The machine is another one from now on.
    pub(crate) fn reinstall(&mut self, number: u64, now: Timestamp) {
        self.lives += 1;
        self.machine = machine(number, self.lives);
        self.ours.clear();
        self.strangers = 0;
        self.add_stranger("somebody-elses", now);
        self.forget_requests();
    }

    /// The engine or the machine died: nobody waits any more, and nothing is done later.
    pub(crate) fn forget_requests(&mut self) {
        self.waiting.clear();
        self.held_back.clear();
        self.limbo.clear();
        self.hung = false;
        self.followers = broadcast::Sender::new(FOLLOWERS_BUFFER);
    }

    /// The connection is given up: streams end, and whoever waits learns that no answer comes.
    pub(crate) fn give_up_connection(&mut self) {
        self.limbo.clear();
        for waiting in &mut self.waiting {
            waiting.reply = None;
        }
        for held in &mut self.held_back {
            held.reply = None;
        }
        self.followers = broadcast::Sender::new(FOLLOWERS_BUFFER);
    }

    /// Our containers as they are: claim, state, health.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&RuntimeId, &Claim, ContainerState, HealthStatus)> {
        self.ours.iter().filter_map(|(id, claim)| {
            Some((id, claim, self.machine.state(id)?, self.machine.health(id).unwrap_or_default()))
        })
    }

    pub(crate) fn nth(&self, nth: u64) -> Option<RuntimeId> {
        let count = self.ours.len() as u64;
        (count > 0).then(|| self.ours.keys().nth((nth % count) as usize).cloned()).flatten()
    }
}

fn machine(number: u64, life: u64) -> Machine {
    let mut machine = Machine::new(number + 1000 * life);
    machine.identity.machine_id = Some(format!("{number:016x}{life:016x}"));
    machine.identity.cpus = 16;
    machine.identity.memory_mib = 8_192;
    for version in 0..10 {
        machine.have_pulled(&format!("demo:{version}"));
    }
    machine.images.insert("other:1".to_owned(), None);
    machine
}
