//! One scenario from its first moment to its end: controllers are born, killed and born again over a fleet that goes on.

mod errands;
mod ledger;
mod rest;
mod source;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
pub(crate) use errands::Errand;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    check::{self, Broken, Predicate},
    fleet::{Durable, Ending, FakeEdge, FakeFleet, FakeNet, Ground, Link, START, Servers},
    scenario::Scenario,
    trace::Tell,
};
use roadstead_control::{
    control::{
        self, Loops,
        connect::Connection,
        seams::{Clock, Connector, Parts, Witness},
    },
    host::TransportError,
};
use roadstead_core::model::{
    desired::Desired,
    name::HostName,
    ownership::FleetKey,
    spec::host::HostSpec,
    time::Timestamp,
    world::{Plan, World},
};

/// A run that takes longer hangs.
const MAX_SIMULATED_MS: u64 = 4 * 3_600_000;
/// More decisions than this, and the controller spins.
const MAX_DECISIONS: u64 = 200_000;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first predicate that broke.
    pub broken: Option<Broken>,
    /// Decisions that the controllers took.
    pub steps: u64,
    /// Those among them for which the planner was asked.
    pub plans: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Of the trace: the same for the same scenario.
    pub hash: u64,
    /// The trace in words, when asked for.
    pub trace: Vec<String>,
    /// How many changes were sent, commits made, events told, lists asked for: what can be enumerated.
    pub points: Points,
    /// What the fleet came to, and what it took.
    pub end: End,
}

/// How many durable and remote steps a run had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Changes sent.
    pub requests: u64,
    /// Commits.
    pub commits: u64,
    /// Events.
    pub events: u64,
    /// Lists.
    pub lists: u64,
}

/// What a fleet came to: for comparing runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Live tasks of each service, by the image of their first container.
    pub live: BTreeMap<String, BTreeMap<String, u64>>,
    /// Containers that were made, by service.
    pub creates: BTreeMap<String, u64>,
}

/// Runs a scenario.
pub fn run(scenario: &Scenario, tell: Tell) -> Outcome {
    outcome(run_to_the_end(FakeFleet::new(scenario.clone(), tell)))
}

/// Runs a scenario, and says what became of its database, step by step.
pub(crate) fn run_recorded(scenario: &Scenario) -> (Outcome, Vec<Durable>) {
    let fleet = FakeFleet::new(scenario.clone(), Tell::Nothing);
    fleet.ground(|ground| ground.history = Some(Vec::new()));
    let mut ground = run_to_the_end(fleet);
    let history = ground.history.take().unwrap_or_default();
    (outcome(ground), history)
}

fn run_to_the_end(fleet: FakeFleet) -> Ground {
    let ledger = Arc::new(ledger::FakeLedger(fleet.clone()));
    let mut clock_back_ms = 0;
    loop {
        let ending = one_life(&fleet, &ledger, clock_back_ms);
        fleet.unwind();
        clock_back_ms = 0;
        let after_ms = match ending {
            Ending::Over => break,
            Ending::Killed { back_after_ms, clock_back_ms: back } => {
                clock_back_ms = back;
                back_after_ms
            }
            Ending::Stopped { back_after_ms } => back_after_ms,
            Ending::Stalled { for_ms } => for_ms,
        };
        let over = fleet.ground(|ground| {
            ground.ending = None;
            let to = ground.now.plus_ms(after_ms);
            ground.away = true;
            ground.advance(to);
            ground.away = false;
            // Whatever else was to end it while it was away, did.
            ground.ending = None;
            ground.checks.reborn();
            ground.broken.is_some()
        });
        if over {
            break;
        }
    }
    drop(ledger);
    match fleet.into_ground() {
        Some(ground) => ground,
        None => unreachable!("the last controller is gone, and with it all that it held"),
    }
}

fn outcome(ground: Ground) -> Outcome {
    Outcome {
        end: rest::end(&ground),
        broken: ground.broken,
        steps: ground.counters.decisions,
        plans: ground.counters.plans,
        faults: ground.counts,
        hash: ground.trace.hash(),
        trace: ground.trace.into_lines(),
        points: Points {
            requests: ground.counters.requests,
            commits: ground.counters.commits,
            events: ground.counters.events,
            lists: ground.counters.lists,
        },
    }
}

/// A controller from its start to its end. Its runtime dies with it: nothing that it had under way goes on, as after
/// SIGKILL.
fn one_life(fleet: &FakeFleet, ledger: &Arc<ledger::FakeLedger>, clock_back_ms: u64) -> Ending {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => unreachable!("a runtime without I/O needs nothing: {error}"),
    };
    let ending = runtime.block_on(live(fleet, ledger, clock_back_ms));
    drop(runtime);
    ending
}

async fn live(fleet: &FakeFleet, ledger: &Arc<ledger::FakeLedger>, clock_back_ms: u64) -> Ending {
    let (now, take_over) = fleet.ground(|ground| {
        ground.fenced = false;
        (ground.now, ground.take_over)
    });
    fleet.wind(Clock::starting_at(now));
    let stop = CancellationToken::new();
    let parts = Parts {
        ledger: Arc::clone(ledger) as Arc<dyn control::seams::Ledger>,
        connector: Arc::new(FakeConnector(fleet.clone())),
        source: Box::new(source::FakeSource::new(fleet.clone())),
        admit: source::admit(fleet.clone()),
        carrier: Some(Arc::new(Servers::new(fleet.clone()))),
        vault: None,
        clock: Clock::starting_at(Timestamp(now.0.saturating_sub(clock_back_ms))),
        key: FleetKey::new([7; 32]),
        manifests: "/simulated".into(),
        take_over,
        witness: Some(Arc::new(FakeWitness(fleet.clone()))),
    };
    let mut loops = tokio::select! {
        biased;
        loops = control::run(parts, stop.clone()) => match loops {
            Ok(loops) => loops,
            // It could not even write its first row: somebody starts it again.
            Err(_) => return Ending::Killed { back_after_ms: 1_000, clock_back_ms: 0 },
        },
        ending = ended(fleet) => return ending,
    };
    loop {
        let (next, ending, orders, asked) = fleet.ground(|ground| {
            ground.note(&loops.snapshots.borrow());
            let now = ground.now;
            ground.advance(now);
            if now.since_ms(START) > MAX_SIMULATED_MS || ground.counters.decisions > MAX_DECISIONS {
                ground.breaks(Err(Broken::new(Predicate::L1, "the run does not come to an end")));
            }
            let over = ground.broken.is_some().then_some(Ending::Over);
            (
                ground.next(),
                over.or_else(|| ground.ending.take()),
                std::mem::take(&mut ground.orders),
                std::mem::take(&mut ground.errands),
            )
        });
        match ending {
            Some(Ending::Stopped { .. }) => {
                stop.cancel();
                ended_by_itself(fleet, &mut loops).await;
                return fleet.ground(|_| Ending::Stopped { back_after_ms: 1_000 });
            }
            Some(Ending::Stalled { for_ms }) => {
                fleet.ground(|ground| ground.checks.stalled_ms += for_ms);
                tokio::time::advance(Duration::from_millis(for_ms)).await;
            }
            Some(ending) => return ending,
            None => {}
        }
        for order in orders {
            let (reply, _) = tokio::sync::oneshot::channel();
            let _ = loops.commands.try_send((order, reply));
        }
        for errand in asked {
            let desk = errands::Desk {
                snapshots: loops.snapshots.clone(),
                commands: loops.commands.clone(),
                engines: loops.engines.clone(),
                copies: loops.copies.clone(),
            };
            tokio::spawn(errands::run(fleet.clone(), desk, errand));
        }
        let now = fleet.ground(|ground| ground.now);
        let wake = Instant::now() + Duration::from_millis(next.map_or(1_000, |at| at.since_ms(now)));
        tokio::select! {
            biased;
            () = fleet.stirred() => {}
            result = &mut loops.driver => {
                let words = match result {
                    Ok(Ok(())) => "it ended without a reason".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                fleet.ground(|ground| ground.breaks(Err(Broken::new(Predicate::L4, format!("the controller ended by itself: {words}")))));
                return Ending::Over;
            }
            () = sleep_until(wake) => {}
        }
    }
}

/// Resolves when the controller is to be killed.
async fn ended(fleet: &FakeFleet) -> Ending {
    loop {
        if let Some(ending) = fleet.ground(|ground| ground.ending.take()) {
            return ending;
        }
        fleet.stirred().await;
    }
}

/// Lets a controller stop in order while the world goes on.
async fn ended_by_itself(fleet: &FakeFleet, loops: &mut Loops) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while Instant::now() < give_up {
        let next = fleet.ground(|ground| {
            let now = ground.now;
            ground.advance(now);
            // Killed while it stops.
            (ground.ending.is_none() && ground.broken.is_none())
                .then(|| ground.next().map_or(1_000, |at| at.since_ms(now)))
        });
        let Some(next) = next else { return };
        tokio::select! {
            biased;
            _ = &mut loops.driver => return,
            () = sleep_until(Instant::now() + Duration::from_millis(next.min(50))) => {}
        }
    }
    fleet.ground(|ground| {
        ground.breaks(Err(Broken::new(Predicate::L4, "a controller that was told to stop did not within 20 s")));
    });
}

struct FakeConnector(FakeFleet);

#[async_trait]
impl Connector for FakeConnector {
    async fn connect(&self, host: &HostName, _: &HostSpec, _: &Desired) -> Result<Connection, TransportError> {
        let link = Arc::new(Link::new(self.0.clone(), host.clone()));
        let network = Arc::new(FakeNet::new(self.0.clone(), Arc::clone(&link)));
        let edge = Arc::new(FakeEdge::new(self.0.clone(), Arc::clone(&link)));
        Ok(Connection { transport: Arc::clone(&link) as _, engine: link, network: Some(network), edge: Some(edge) })
    }
}

struct FakeWitness(FakeFleet);

impl Witness for FakeWitness {
    fn decided(&self, world: &World, plan: &Plan) {
        self.0.ground(|ground| {
            ground.counters.decisions += 1;
            ground.counters.plans += 1;
            let checked = ground.s7_one_writer(world, plan).and_then(|()| ground.s19_owner_is_alone(world, plan));
            ground.breaks(checked);
            let checked = ground.checks.decided(world, plan);
            ground.breaks(checked);
        });
    }

    fn was_quiet(&self, world: &World) {
        self.0.ground(|ground| {
            ground.counters.decisions += 1;
            if ground.audits {
                ground.breaks(check::l3_nothing_was_due(world));
            }
        });
    }
}
