//! A fleet in memory: what is really there, and a queue of what will happen. It outlives the controllers that drive it.

mod answers;
mod edge;
mod happen;
mod host;
mod life;
mod link;
mod network;
mod requests;
mod server;
mod volumes;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

pub(crate) use answers::Servers;
pub(crate) use edge::FakeEdge;
pub(crate) use host::{FakeHost, InFlight, Reach};
pub use link::Link;
pub(crate) use network::FakeNet;
pub(crate) use requests::Sent;

use super::{
    check::{Broken, Checks},
    engine::machine::Pieces,
    rng::Rng,
    run::Errand,
    scenario::{Mishap, Point, Scenario},
    trace::{Tell, Trace},
};
use roadstead_control::control::{handle::Snapshot, seams::Clock};
use roadstead_core::model::{
    desired::Desired,
    name::{HostName, RuntimeId, ServiceName},
    state::{Change, State},
    time::Timestamp,
};
use roadstead_core::turn::Command;

/// The time at which every run starts.
pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000);
/// Of so many seeds, one has every plan made that the controller does not make.
const AUDIT_EVERY: u64 = 20;
/// A copy of the database is laid aside this often.
const BACKUP_EVERY_MS: u64 = 20_000;

/// Shared by the controller's links, its ledger and the run.
#[derive(Clone)]
pub struct FakeFleet(Arc<Shared>);

struct Shared {
    ground: Mutex<Ground>,
    clock: Mutex<Option<Clock>>,
    stirred: Notify,
    touched: Notify,
}

/// What happens at a time.
pub(crate) enum Due {
    /// A change reaches its host.
    Arrive(HostName, Box<InFlight>),
    /// A health check comes to a verdict, or the main process ends, of the life that began then.
    Life(HostName, RuntimeId, Timestamp, life::Turn),
    /// A task writes to its volumes, in the life that began then.
    Writes(HostName, RuntimeId, Timestamp),
    /// The engine starts crashed containers again.
    Restarts(HostName),
    /// A connection without packets is given up.
    ConnectionLost(HostName, Timestamp),
    /// Packets pass again.
    LinkMends(HostName),
    /// The next of the script.
    Scripted(usize),
    /// The manifests are as they should be again.
    ManifestsMend(u64),
    /// The database is copied.
    Backup,
    /// Faults end.
    Heal,
    /// Is the fleet at rest?
    Look,
}

/// Why a controller's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Killed {
        back_after_ms: u64,
        clock_back_ms: u64,
    },
    Stopped {
        back_after_ms: u64,
    },
    Stalled {
        for_ms: u64,
    },
    /// The run is over.
    Over,
}

/// How the manifests' folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    Fine,
    Unreadable,
    Empty,
    /// The file of this service is broken.
    Broken(u64),
}

/// One thing that became of the database.
#[derive(Clone, Debug)]
pub(crate) enum Durable {
    /// These became durable, together.
    Committed(Vec<Change>),
    /// A controller began, and read it.
    Read,
    /// It was copied, in place of the copy before.
    BackedUp,
    /// It was deleted.
    Lost,
    /// The copy took its place.
    PutBack,
}

/// What has been counted so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: u64,
    pub(crate) commits: u64,
    pub(crate) events: u64,
    pub(crate) lists: u64,
    /// Of whoever tells hosts about their parts of the task network.
    pub(crate) sessions: u64,
    pub(crate) decisions: u64,
    pub(crate) plans: u64,
    /// Of tasks, to their volumes.
    pub(crate) writes: u64,
}

/// What is really there.
pub(crate) struct Ground {
    pub(crate) now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Due>,
    sequence: u64,
    pub(crate) hosts: BTreeMap<HostName, FakeHost>,
    /// What the database holds.
    pub(crate) durable: State,
    pub(crate) backup: State,
    /// What became of the database, step by step, when that is asked for.
    pub(crate) history: Option<Vec<Durable>>,
    pub(crate) scenario: Scenario,
    pub(crate) mishaps: BTreeMap<Point, Mishap>,
    /// Phase two: no faults by chance any more.
    pub(crate) calm: bool,
    pub(crate) counters: Counters,
    pub(crate) checks: Checks,
    /// Plans that the controller does not make are made here.
    pub(crate) audits: bool,
    pub(crate) broken: Option<Broken>,
    pub(crate) trace: Trace,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) ending: Option<Ending>,
    /// Orders of people that the controller was not told yet.
    pub(crate) orders: Vec<Command>,
    /// The same of what takes longer.
    pub(crate) errands: Vec<Errand>,
    /// What people read from volumes last.
    archives: BTreeMap<String, Pieces>,
    /// What the manifests say now.
    pub(crate) wanted: Arc<Desired>,
    pub(crate) version: u64,
    pub(crate) folder: Folder,
    folder_life: u64,
    /// What the manifests said at each version.
    pub(crate) versions: BTreeMap<u64, Arc<Desired>>,
    pub(crate) take_over: bool,
    /// The running controller may not act.
    pub(crate) fenced: bool,
    /// No controller runs: nothing can be told of rest.
    pub(crate) away: bool,
    /// Looks in a row at which nothing was missing and nothing done.
    pub(crate) quiet_looks: u32,
    touched: bool,
    /// Services whose containers end soon after they start, and until when.
    outages: BTreeMap<ServiceName, Timestamp>,
    chance: Rng,
}

impl FakeFleet {
    pub(crate) fn new(scenario: Scenario, tell: Tell) -> Self {
        let wanted = Arc::new(scenario.desired.clone());
        let mut numbers = 0;
        let hosts = wanted.hosts.keys().map(|name| {
            numbers += 1;
            (name.clone(), FakeHost::new(name, scenario.seed, numbers))
        });
        let mut ground = Ground {
            now: START,
            queue: BTreeMap::new(),
            sequence: 0,
            hosts: hosts.collect(),
            durable: State::default(),
            backup: State::default(),
            history: None,
            mishaps: scenario.mishaps.iter().copied().collect(),
            calm: false,
            counters: Counters::default(),
            checks: Checks::default(),
            audits: tell != Tell::Nothing || scenario.seed.is_multiple_of(AUDIT_EVERY),
            broken: None,
            trace: Trace::new(tell),
            counts: BTreeMap::new(),
            ending: None,
            orders: Vec::new(),
            errands: Vec::new(),
            archives: BTreeMap::new(),
            versions: BTreeMap::from([(0, Arc::clone(&wanted))]),
            wanted,
            version: 0,
            folder: Folder::Fine,
            folder_life: 0,
            take_over: false,
            fenced: false,
            away: false,
            quiet_looks: 0,
            touched: false,
            outages: BTreeMap::new(),
            chance: Rng::keyed(scenario.seed, &[u64::MAX]),
            scenario,
        };
        for index in 0..ground.scenario.script.len() {
            let at = START.plus_ms(ground.scenario.script[index].at_ms);
            ground.push(at, Due::Scripted(index));
        }
        ground.push(START.plus_ms(ground.scenario.faults_ms), Due::Heal);
        ground.push(START.plus_ms(BACKUP_EVERY_MS), Due::Backup);
        Self(Arc::new(Shared {
            ground: Mutex::new(ground),
            clock: Mutex::new(None),
            stirred: Notify::new(),
            touched: Notify::new(),
        }))
    }

    /// A controller is born: simulated time is its runtime's from here on.
    pub(crate) fn wind(&self, clock: Clock) {
        *self.0.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock);
    }

    /// It is dead: time stands until the run moves it.
    pub(crate) fn unwind(&self) {
        *self.0.clock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Looks at what is really there, or changes it.
    pub(crate) fn ground<T>(&self, work: impl FnOnce(&mut Ground) -> T) -> T {
        let now = self.0.clock.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Clock::now);
        let mut ground = self.0.ground.lock().unwrap_or_else(PoisonError::into_inner);
        ground.now = now.unwrap_or(ground.now).max(ground.now);
        let next = ground.next();
        let done = work(&mut ground);
        let is_asked = !(ground.orders.is_empty() && ground.errands.is_empty());
        if ground.ending.is_some() || ground.broken.is_some() || is_asked || ground.next() < next {
            self.0.stirred.notify_one();
        }
        if std::mem::take(&mut ground.touched) {
            self.0.touched.notify_one();
        }
        done
    }

    /// Resolves when something will happen earlier than it seemed.
    pub(crate) async fn stirred(&self) {
        self.0.stirred.notified().await;
    }

    /// Resolves when the manifests may have changed.
    pub(crate) async fn touched(&self) {
        self.0.touched.notified().await;
    }

    /// Takes out what is really there, at the end.
    pub(crate) fn into_ground(self) -> Option<Ground> {
        Arc::into_inner(self.0).map(|shared| shared.ground.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Ground {
    /// Notes what became of the database, when that is asked for.
    pub(crate) fn record(&mut self, durable: Durable) {
        self.history.iter_mut().for_each(|history| history.push(durable.clone()));
    }

    pub(crate) fn push(&mut self, at: Timestamp, due: Due) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), due);
    }

    /// When something happens next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// Lets everything happen that is due by `to`, in order.
    pub(crate) fn advance(&mut self, to: Timestamp) {
        while self.broken.is_none()
            && self.ending.is_none()
            && self.next().is_some_and(|at| at <= to)
            && let Some(((at, _), due)) = self.queue.pop_first()
        {
            self.now = self.now.max(at);
            self.happens(due);
        }
        self.now = self.now.max(to);
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Arrive(host, in_flight) => self.arrive(&host, *in_flight),
            Due::Life(host, id, began, turn) => self.live(&host, &id, began, turn),
            Due::Writes(host, id, began) => self.writes(&host, &id, began),
            Due::Restarts(host) => {
                self.on(&host, |host, clock| host.machine.settle(clock));
                self.await_restart(&host);
            }
            Due::ConnectionLost(host, since) => self.connection_lost(&host, since),
            Due::LinkMends(host) => self.heal_link(&host),
            Due::Scripted(index) => {
                if let Some(scripted) = self.scenario.script.get(index).cloned()
                    && !self.calm
                {
                    self.happen(&scripted.what);
                }
            }
            Due::ManifestsMend(life) => {
                if self.folder_life == life {
                    self.set_folder(Folder::Fine);
                }
            }
            Due::Backup => {
                self.backup = self.durable.clone();
                self.record(Durable::BackedUp);
                self.push(self.now.plus_ms(BACKUP_EVERY_MS), Due::Backup);
            }
            Due::Heal => self.heal(),
            Due::Look => self.look_for_rest(),
        }
    }

    /// Something happens on a host; what follows from it is put into the queue.
    pub(crate) fn on<T>(&mut self, host: &HostName, work: impl FnOnce(&mut FakeHost, Timestamp) -> T) -> T
    where
        T: Default,
    {
        let Some(found) = self.hosts.get_mut(host) else { return T::default() };
        let clock = found.clock(self.now);
        let done = work(found, clock);
        self.follow(host);
        done
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Whether something that happens so often happens now.
    pub(crate) fn strikes(&mut self, permille: u64) -> bool {
        !self.calm && permille > 0 && self.chance.chance(permille)
    }

    pub(crate) fn within(&mut self, from: u64, to: u64) -> u64 {
        self.chance.within(from, to)
    }

    /// What was decided for this step in advance.
    pub(crate) fn mishap(&mut self, point: Point) -> Option<Mishap> {
        let mishap = self.mishaps.get(&point).copied();
        if let Some(mishap) = mishap {
            self.trace.line(self.now, &["mishap"], || format!("{point:?}: {mishap:?}"));
        }
        mishap
    }

    /// Takes note of what the controller says of itself.
    pub(crate) fn note(&mut self, snapshot: &Snapshot) {
        self.fenced = snapshot.fenced.is_some();
        self.checks.note_report(&snapshot.report);
    }

    pub(crate) fn breaks(&mut self, result: Result<(), Broken>) {
        if let Err(broken) = result
            && self.broken.is_none()
        {
            self.trace.line(self.now, &["broken"], || format!("BROKEN {broken}"));
            self.broken = Some(broken);
        }
    }

    pub(crate) fn kill(&mut self, why: &'static str) {
        self.count(why);
        self.trace.line(self.now, &["kill"], || format!("the controller is killed: {why}"));
        self.ending = Some(Ending::Killed { back_after_ms: 500, clock_back_ms: 0 });
    }
}
