//! [`FakeEngine`]: a Docker Engine in memory, with the faults that real ones have.

pub(crate) mod machine;
mod verbs;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::broadcast;

use roadstead_control::engine::{EngineError, EngineEvent, EngineInfo, EventAction, ExecOutput, LogLine, OutputStream};
use roadstead_control::host::TransportError;
use roadstead_core::model::container::HealthStatus;
use roadstead_core::model::name::RuntimeId;
use roadstead_core::model::observed::EngineIdentity;
use roadstead_core::model::spec::task_definition::Protocol;
use roadstead_core::model::time::Timestamp;

use machine::{Answer, Machine};
pub use machine::{Registry, Request};

/// Tells the time; the simulator's, or a test's.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Followers that lag further behind than this are cut off, like those of a real engine.
const FOLLOWERS_BUFFER: usize = 1024;
/// Lines kept per container.
const LINES_MAX: usize = 4096;

/// How the engine treats requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Well,
    /// It takes requests and answers none (SIGSTOP).
    Hung,
    /// Nobody is there.
    Unreachable,
}

/// A Docker Engine in memory.
pub struct FakeEngine {
    now: Now,
    inner: Mutex<Inner>,
}

struct Inner {
    machine: Machine,
    mood: Mood,
    /// Answers to lose, though the work is done.
    lose: u32,
    /// Changes that a hung engine was asked for.
    waiting: VecDeque<Request>,
    lines: BTreeMap<RuntimeId, VecDeque<LogLine>>,
    scripts: BTreeMap<Vec<String>, Script>,
    /// Exit codes of commands that ran.
    execs: Vec<i64>,
    requests: u64,
    /// Whoever follows events or output; an engine that dies drops them.
    events: broadcast::Sender<EngineEvent>,
    output: broadcast::Sender<Printed>,
}

/// What a command inside a container does.
#[derive(Clone, Debug)]
struct Script {
    output: Vec<ExecOutput>,
    exit_code: i64,
}

#[derive(Clone, Debug)]
enum Printed {
    Line(RuntimeId, LogLine),
    Ended(RuntimeId),
}

impl FakeEngine {
    /// An empty engine. Engines of other seeds have other ids.
    pub fn new(seed: u64, now: Now) -> Self {
        Self {
            now,
            inner: Mutex::new(Inner {
                machine: Machine::new(seed),
                mood: Mood::Well,
                lose: 0,
                waiting: VecDeque::new(),
                lines: BTreeMap::new(),
                scripts: BTreeMap::new(),
                execs: Vec::new(),
                requests: 0,
                events: broadcast::Sender::new(FOLLOWERS_BUFFER),
                output: broadcast::Sender::new(FOLLOWERS_BUFFER),
            }),
        }
    }

    /// Who it says it is.
    pub fn set_identity(&self, identity: EngineIdentity) {
        self.lock().machine.identity = identity;
    }

    /// How it says it is set up; `live_restore` is also obeyed.
    pub fn set_info(&self, info: EngineInfo) {
        self.lock().machine.info = info;
    }

    /// Puts an image on the host, as by `docker load`.
    pub fn add_image(&self, image: &str) {
        self.lock().machine.images.insert(image.to_owned(), None);
    }

    /// Takes an image off the host.
    pub fn remove_image(&self, image: &str) {
        self.lock().machine.images.remove(image);
    }

    /// Somebody pushes other content under a reference.
    pub fn push_anew(&self, image: &str) {
        self.lock().machine.push_anew(image);
    }

    /// What the registry answers for an image; unless told, it does not know it.
    pub fn set_registry(&self, image: &str, answer: Registry) {
        self.lock().machine.registry.insert(image.to_owned(), answer);
    }

    /// A process of the host's own takes a port, or frees it.
    pub fn set_foreign_port(&self, port: u16, protocol: Protocol, taken: bool) {
        let ports = &mut self.lock().machine.foreign_ports;
        if taken {
            ports.insert((port, protocol));
        } else {
            ports.remove(&(port, protocol));
        }
    }

    /// Fills the disk, or frees it.
    pub fn set_disk_full(&self, full: bool) {
        self.lock().machine.disk_full = full;
    }

    /// The main process of a container ends by itself; the restart policy applies.
    pub fn crash(&self, id: &RuntimeId, exit_code: i64) {
        self.happen(|machine, now| machine.end(id, exit_code, false, now));
    }

    /// The kernel kills the main process for memory; the restart policy applies.
    pub fn oom(&self, id: &RuntimeId) {
        self.happen(|machine, now| machine.end(id, 137, true, now));
    }

    /// `docker kill` by hand: no restart follows.
    pub fn kill(&self, id: &RuntimeId) {
        self.happen(|machine, now| machine.kill(id, now));
    }

    /// `docker stop` by hand.
    pub fn stop_by_hand(&self, id: &RuntimeId) {
        self.by_hand(&Request::Stop(id.clone()));
    }

    /// `docker rm -f` by hand.
    pub fn remove_by_hand(&self, id: &RuntimeId) {
        self.by_hand(&Request::Remove { id: id.clone(), force: true });
    }

    /// `docker pause` or `unpause` by hand.
    pub fn set_paused(&self, id: &RuntimeId, paused: bool) {
        self.happen(|machine, now| machine.set_paused(id, paused, now));
    }

    /// `docker rename` by hand.
    pub fn rename(&self, id: &RuntimeId, name: &str) {
        self.happen(|machine, now| machine.rename(id, name, now));
    }

    /// Its health check comes to a verdict.
    pub fn set_health(&self, id: &RuntimeId, health: HealthStatus) {
        self.happen(|machine, now| machine.set_health(id, health, now));
    }

    /// Does what is due by now: restarts of crashed containers.
    pub fn tick(&self) {
        self.happen(Machine::settle);
    }

    /// The engine stops answering (SIGSTOP). Changes asked for meanwhile wait in [`Self::waiting`].
    pub fn hang(&self) {
        self.lock().mood = Mood::Hung;
    }

    /// The engine goes on, and first does what waited: a client that went away changes nothing.
    pub fn resume(&self) {
        self.lock().mood = Mood::Well;
        while self.run_waiting(0) {}
    }

    /// The changes that wait in a hung engine, oldest first.
    pub fn waiting(&self) -> Vec<Request> {
        self.lock().waiting.iter().cloned().collect()
    }

    /// Does one waiting change, in any order. False when there is none.
    pub fn run_waiting(&self, index: usize) -> bool {
        let request = self.lock().waiting.remove(index);
        if let Some(request) = &request {
            self.by_hand(request);
        }
        request.is_some()
    }

    /// Forgets what waits, as an engine that dies does.
    pub fn drop_waiting(&self) {
        self.lock().waiting.clear();
    }

    /// Nobody is there, or somebody is again.
    pub fn set_reachable(&self, reachable: bool) {
        self.lock().mood = if reachable { Mood::Well } else { Mood::Unreachable };
    }

    /// The answers to the next `count` requests are lost, after the work was done.
    pub fn lose_answers(&self, count: u32) {
        self.lock().lose = count;
    }

    /// The engine dies (SIGKILL) and is started again: it forgets events, streams end, and without
    /// live-restore it stops its containers, for good as Docker 20.10 does.
    pub fn restart_engine(&self) {
        self.begin_anew(Machine::restart);
    }

    /// The machine loses power and starts again: containers with a restart policy do too.
    pub fn reboot(&self) {
        self.begin_anew(Machine::reboot);
    }

    fn begin_anew(&self, what: impl FnOnce(&mut Machine, Timestamp)) {
        let mut inner = self.lock();
        inner.waiting.clear();
        inner.mood = Mood::Well;
        inner.events = broadcast::Sender::new(FOLLOWERS_BUFFER);
        inner.output = broadcast::Sender::new(FOLLOWERS_BUFFER);
        what(&mut inner.machine, (self.now)());
        inner.tell();
    }

    /// A container prints a line.
    pub fn print(&self, id: &RuntimeId, stream: OutputStream, text: &str) {
        let line = LogLine { stream, at: Some((self.now)()), bytes: Bytes::copy_from_slice(text.as_bytes()) };
        let mut inner = self.lock();
        let lines = inner.lines.entry(id.clone()).or_default();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.clone());
        let _ = inner.output.send(Printed::Line(id.clone(), line));
    }

    /// What a command does in every container; without a script a command is not found.
    pub fn set_command(&self, argv: &[&str], output: Vec<ExecOutput>, exit_code: i64) {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        self.lock().scripts.insert(argv, Script { output, exit_code });
    }

    /// How many requests it has had, of any kind.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happens on the host, whoever did it.
    fn happen(&self, what: impl FnOnce(&mut Machine, Timestamp)) {
        let mut inner = self.lock();
        what(&mut inner.machine, (self.now)());
        inner.tell();
    }

    /// Whoever asked is not there to hear the answer.
    fn by_hand(&self, request: &Request) {
        self.happen(|machine, now| drop(machine.apply(request, now)));
    }

    /// A question: answered, or not.
    fn ask<T>(&self, what: &str, answer: impl FnOnce(&mut Inner) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let mut inner = self.lock();
        inner.requests += 1;
        match inner.mood {
            Mood::Well => {}
            Mood::Hung => return Err(no_answer(what)),
            Mood::Unreachable => return Err(unreachable()),
        }
        inner.machine.settle((self.now)());
        let answer = answer(&mut inner);
        inner.tell();
        if inner.lose > 0 {
            inner.lose -= 1;
            return Err(no_answer(what));
        }
        answer
    }

    /// A change: a hung engine does it later.
    fn change(&self, what: &str, request: Request) -> Result<Answer, EngineError> {
        let mut inner = self.lock();
        if inner.mood == Mood::Hung {
            inner.requests += 1;
            inner.waiting.push_back(request);
            return Err(no_answer(what));
        }
        drop(inner);
        let now = (self.now)();
        self.ask(what, |inner| inner.machine.apply(&request, now))
    }
}

impl Inner {
    /// Tells followers what happened. Having none is fine.
    fn tell(&mut self) {
        for event in self.machine.take_fresh() {
            let ended = match event.action {
                EventAction::Die { .. } | EventAction::Destroy => true,
                EventAction::Create
                | EventAction::Start
                | EventAction::Oom
                | EventAction::Kill
                | EventAction::Stop
                | EventAction::Health
                | EventAction::Other(_) => false,
            };
            if ended {
                let _ = self.output.send(Printed::Ended(event.id.clone()));
            }
            if event.action == EventAction::Destroy {
                self.lines.remove(&event.id);
            }
            let _ = self.events.send(event);
        }
    }
}

fn no_answer(what: &str) -> EngineError {
    EngineError::OutcomeUnknown { what: what.to_owned(), reason: "no answer".into() }
}

fn unreachable() -> EngineError {
    EngineError::Unreachable(TransportError::Unreachable { host: "fake".into(), detail: "nobody is there".into() })
}
