//! Each edge's load balancers, made what they should be and watched.
//!
//! What they should show follows from what is durable; what an edge confirmed and what its checks say of targets is told to
//! the planner, which counts a task as healthy only then, and stops none that an edge may still send requests to (S10).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{fleet::Fleet, seams::Clock};
use crate::{
    lb::{EdgeState, HostEdge},
    net::NetError,
};
use roadstead_core::{
    model::{
        name::HostName,
        state::{ServiceRecord, State},
        traffic::{Edge, EdgeSeen, TargetHealth},
        world::World,
    },
    plan::traffic::{edges, has_balancers},
    turn::Input,
};

/// Between two looks at what an edge shows …
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// … and while somebody waits for what it will show.
const LOOK_EVERY_WAITING: Duration = Duration::from_millis(200);
/// No change of an edge takes longer, an image that is sent included.
const APPLY_WITHIN: Duration = Duration::from_secs(600);
/// No look takes longer.
const LOOK_WITHIN: Duration = Duration::from_secs(20);
/// Pause after something that failed: doubles from here …
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// … to here.
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// All edges.
#[derive(Default)]
pub(super) struct Edges {
    workers: BTreeMap<HostName, Worker>,
    /// What the pictures were made from.
    seen: Option<State>,
    /// There are load balancers, or there were: what is left of them goes.
    is_needed: bool,
}

struct Worker {
    wanted: watch::Sender<Option<Arc<Edge>>>,
    /// Answers are counted.
    counts: Arc<AtomicBool>,
    /// Ended with its host's connection.
    stop: CancellationToken,
}

impl Edges {
    /// Tells each host's worker what its load balancers are to show; begins and ends workers with hosts' connections.
    pub(super) fn follow(&mut self, world: &World, fleet: &Fleet) {
        // A host is asked for what an earlier controller left there once one is declared; a removal without any is told by
        // the state before.
        self.is_needed |= has_balancers(&world.state);
        if !self.is_needed {
            return;
        }
        self.workers.retain(|_, worker| !worker.stop.is_cancelled());
        let is_new = |host: &&HostName| !self.workers.contains_key(*host);
        let news: Vec<&HostName> = world.state.desired.hosts.keys().filter(is_new).collect();
        for host in news {
            let Some((connection, ends)) = fleet.connection(host) else { continue };
            let Some(edge) = connection.edge else { continue };
            let stop = ends.child_token();
            let (wanted, watch_wanted) = watch::channel(None);
            let counts = Arc::new(AtomicBool::new(false));
            let work = Work {
                host: host.clone(),
                edge,
                wanted: watch_wanted,
                inputs: fleet.inputs.clone(),
                clock: fleet.clock.clone(),
                counts: Arc::clone(&counts),
                told: None,
                is_there: None,
            };
            let stopped = stop.clone();
            fleet.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => {}
                    () = work.run() => {}
                }
            });
            self.workers.insert(host.clone(), Worker { wanted, counts, stop });
            self.seen = None;
        }
        if self.seen.as_ref().is_some_and(|seen| shows_the_same(seen, &world.state)) {
            return;
        }
        let counts = is_counted(&world.state);
        self.workers.values().for_each(|worker| worker.counts.store(counts, Ordering::Relaxed));
        let pictures = edges(&world.state);
        for (host, worker) in &self.workers {
            let picture = pictures.get(host);
            worker.wanted.send_if_modified(|wanted| {
                let differs = wanted.as_ref() != picture;
                if differs {
                    *wanted = picture.cloned();
                }
                differs
            });
        }
        self.seen = Some(world.state.clone());
    }
}

/// Whether nothing changed that pictures are made from; by identity, since all of it is shared.
fn shows_the_same(before: &State, after: &State) -> bool {
    Arc::ptr_eq(&before.desired, &after.desired)
        && before.tasks.is_the_same(&after.tasks)
        && before.services.is_the_same(&after.services)
        && before.revisions.is_the_same(&after.revisions)
        && before.certificates.is_the_same(&after.certificates)
        && before.acme_orders.is_the_same(&after.acme_orders)
}

/// Whether somebody asks how requests are answered: else each look would tell something new.
fn is_counted(state: &State) -> bool {
    let under_way = |record: &ServiceRecord| record.deployments.iter().any(|deployment| deployment.outcome.is_none());
    state.desired.services.iter().any(|(name, manifest)| {
        !manifest.spec.load_balancers.is_empty() && state.services.get(name).is_some_and(under_way)
    })
}

impl Drop for Edges {
    fn drop(&mut self) {
        self.workers.values().for_each(|worker| worker.stop.cancel());
    }
}

/// What keeps one host's load balancers.
struct Work {
    host: HostName,
    edge: Arc<dyn HostEdge>,
    wanted: watch::Receiver<Option<Arc<Edge>>>,
    inputs: mpsc::Sender<Input>,
    clock: Clock,
    counts: Arc<AtomicBool>,
    /// What the planner was told last.
    told: Option<EdgeSeen>,
    is_there: Option<bool>,
}

impl Work {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            match within(LOOK_WITHIN, self.edge.is_there()).await {
                Ok(is_there) => {
                    self.is_there = Some(is_there);
                    break;
                }
                Err(error) => self.tell(None, EdgeState::default(), Some(error.to_string())).await,
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        self.tell(None, EdgeState::default(), None).await;
        let mut applied: Option<Arc<Edge>> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let wait = match self.step(wanted.as_ref(), &mut applied).await {
                Ok(wait) => {
                    pause = FIRST_PAUSE;
                    wait
                }
                Err(error) => {
                    applied = None;
                    let problem = error.to_string();
                    if self.told.as_ref().and_then(|told| told.problem.as_ref()) != Some(&problem) {
                        tracing::warn!(host = %self.host, %problem, "its load balancers are not as they should be");
                    }
                    self.tell(None, EdgeState::default(), Some(problem)).await;
                    let wait = pause;
                    pause = (pause * 2).min(LAST_PAUSE);
                    wait
                }
            };
            if let Ok(Err(_)) = timeout(wait, self.wanted.changed()).await {
                return;
            }
        }
    }

    /// Makes it so if it is not, looks at it, and says when to look again.
    async fn step(
        &mut self,
        wanted: Option<&Arc<Edge>>,
        applied: &mut Option<Arc<Edge>>,
    ) -> Result<Duration, NetError> {
        let Some(wanted) = wanted else {
            if self.is_there != Some(false) {
                within(LOOK_WITHIN, self.edge.clear()).await?;
                self.is_there = Some(false);
                *applied = None;
                self.tell(None, EdgeState::default(), None).await;
            }
            return Ok(LOOK_EVERY);
        };
        if applied.as_ref() != Some(wanted) {
            self.is_there = Some(true);
            let told = self.told.take();
            let (confirmed, problem) =
                told.as_ref().map(|told| (told.confirmed.clone(), told.problem.clone())).unwrap_or_default();
            let targets = told.map(|told| told.targets).unwrap_or_default();
            self.say(confirmed, Some(Arc::clone(wanted)), EdgeState { drift: None, targets }, problem).await;
            // What is asked for by now may be something else.
            if self.wanted.has_changed().unwrap_or(false) {
                return Ok(Duration::ZERO);
            }
            within(APPLY_WITHIN, self.edge.apply(wanted)).await?;
            *applied = Some(Arc::clone(wanted));
        }
        let counts = self.counts.load(Ordering::Relaxed);
        let mut state = within(LOOK_WITHIN, self.edge.look(wanted, counts)).await?;
        if !counts {
            state.targets.values_mut().flat_map(BTreeMap::values_mut).for_each(|target| target.answers = None);
        }
        if let Some(drift) = &state.drift {
            tracing::warn!(host = %self.host, %drift, "somebody changed its load balancers: they are made anew");
            *applied = None;
            self.tell(None, EdgeState::default(), Some(drift.clone())).await;
            return Ok(Duration::ZERO);
        }
        let is_awaited = state.targets.iter().any(|(group, targets)| {
            targets.iter().any(|(task, seen)| {
                let leaves =
                    wanted.groups.get(group).and_then(|group| group.targets.get(task)).is_some_and(|it| it.leaves);
                seen.health == TargetHealth::Initial || leaves && !seen.idle
            })
        });
        self.tell(Some(Arc::clone(wanted)), state, None).await;
        Ok(if is_awaited { LOOK_EVERY_WAITING } else { LOOK_EVERY })
    }

    /// Tells the planner, if it does not know already.
    async fn tell(&mut self, confirmed: Option<Arc<Edge>>, state: EdgeState, problem: Option<String>) {
        self.say(confirmed, None, state, problem).await;
    }

    async fn say(
        &mut self,
        confirmed: Option<Arc<Edge>>,
        under_way: Option<Arc<Edge>>,
        state: EdgeState,
        problem: Option<String>,
    ) {
        let (at, is_there) = (self.clock.now(), self.is_there);
        let seen = EdgeSeen { at, confirmed, under_way, targets: state.targets, is_there, problem };
        let is_known = self.told.as_ref().is_some_and(|told| EdgeSeen { at: seen.at, ..told.clone() } == seen);
        if !is_known {
            self.told = Some(seen.clone());
            let _ = self.inputs.send(Input::Edge(self.host.clone(), seen)).await;
        }
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, NetError>>) -> Result<T, NetError> {
    timeout(deadline, work).await.unwrap_or_else(|_| Err(NetError::Lost(format!("no answer within {deadline:?}"))))
}
