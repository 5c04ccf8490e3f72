//! Each host's part of the task network, made what it should be and looked at now and then.
//!
//! What it should be follows from what is durable; what a host confirmed is told to the planner, which starts no task before
//! (S11), and stops none whose name a host may still answer with.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use ipnet::Ipv4Net;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{fleet::Fleet, seams::Clock};
use crate::net::{Applied, HostNet, NetError};
use roadstead_core::{
    model::{
        name::{HostName, SubnetName},
        network::{HostNetwork, NetworkSeen},
        state::State,
        wireguard::PublicKey,
        world::World,
    },
    plan::network::{has_parts, pictures},
    turn::Input,
};

/// Between two looks at whether a host is still as it was made.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// No change of a host takes longer, an image that is sent included.
const APPLY_WITHIN: Duration = Duration::from_secs(600);
/// No look takes longer.
const LOOK_WITHIN: Duration = Duration::from_secs(20);
/// Names that are added one after the other, as tasks become healthy, are written together: so long after the change before.
const NAMES_EVERY: Duration = Duration::from_millis(500);
/// Pause after something that failed: doubles from here …
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// … to here.
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// All hosts' parts.
#[derive(Default)]
pub(super) struct Networks {
    workers: BTreeMap<HostName, Worker>,
    /// What the pictures were made from.
    seen: Option<State>,
    /// Whether hosts have parts by that, or had.
    is_needed: bool,
}

struct Worker {
    wanted: watch::Sender<Option<Arc<HostNetwork>>>,
    /// Ended with its host's connection.
    stop: CancellationToken,
}

impl Networks {
    /// Tells each host's worker what its part is to be; begins and ends workers with hosts' connections.
    pub(super) fn follow(&mut self, world: &World, fleet: &Fleet) {
        if !self.seen.as_ref().is_some_and(|seen| shows_the_same(seen, &world.state)) {
            // Where there was one, its leavings go.
            self.is_needed = !world.state.subnets.is_empty() || has_parts(&world.state);
        }
        if self.workers.is_empty() && !self.is_needed {
            self.seen = Some(world.state.clone());
            return;
        }
        self.workers.retain(|_, worker| !worker.stop.is_cancelled());
        let is_new = |host: &&HostName| !self.workers.contains_key(*host);
        let news: Vec<&HostName> = world.state.desired.hosts.keys().filter(is_new).collect();
        for host in news {
            let Some((connection, ends)) = fleet.connection(host) else { continue };
            let Some(net) = connection.network else { continue };
            let stop = ends.child_token();
            let (wanted, watch_wanted) = watch::channel(None);
            let work = Work {
                host: host.clone(),
                net,
                wanted: watch_wanted,
                inputs: fleet.inputs.clone(),
                clock: fleet.clock.clone(),
                slices: BTreeMap::new(),
                public_key: None,
                problem: None,
                is_clear: false,
                has_waited: false,
            };
            let stopped = stop.clone();
            fleet.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => {}
                    () = work.run() => {}
                }
            });
            self.workers.insert(host.clone(), Worker { wanted, stop });
            self.seen = None;
        }
        if self.seen.as_ref().is_some_and(|seen| shows_the_same(seen, &world.state)) {
            return;
        }
        let pictures = pictures(&world.state);
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
        && before.subnets.is_the_same(&after.subnets)
        && before.revisions.is_the_same(&after.revisions)
        && before.hosts.is_the_same(&after.hosts)
}

impl Drop for Networks {
    fn drop(&mut self) {
        self.workers.values().for_each(|worker| worker.stop.cancel());
    }
}

/// What keeps one host's part.
struct Work {
    host: HostName,
    net: Arc<dyn HostNet>,
    wanted: watch::Receiver<Option<Arc<HostNetwork>>>,
    inputs: mpsc::Sender<Input>,
    clock: Clock,
    slices: BTreeMap<SubnetName, Ipv4Net>,
    public_key: Option<PublicKey>,
    /// What went wrong with the last try.
    problem: Option<String>,
    /// Nothing of ours is there.
    is_clear: bool,
    /// The planner had the time to say what is to be there.
    has_waited: bool,
}

impl Work {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        // What is there first: the planner gives no slice to a host that may have one.
        loop {
            match within(LOOK_WITHIN, self.net.look()).await {
                Ok(slices) => {
                    self.slices = slices;
                    break;
                }
                Err(error) => self.tell(None, Some(error.to_string())).await,
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
        self.tell(None, None).await;
        let mut applied: Option<Arc<HostNetwork>> = None;
        let mut applied_at = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let early = NAMES_EVERY.saturating_sub(applied_at.elapsed());
            if let (Some(wanted), Some(applied)) = (&wanted, &applied)
                && !early.is_zero()
                && wanted != applied
                && applied.lacks_only_names(wanted)
            {
                match timeout(early, self.wanted.changed()).await {
                    Ok(Err(_)) => return,
                    Ok(Ok(())) | Err(_) => continue,
                }
            }
            let done = match (&wanted, &applied) {
                (Some(wanted), Some(applied)) if wanted == applied => Ok(()),
                (Some(wanted), None) if wanted.bridges.is_empty() && !self.slices.is_empty() => {
                    self.clear_unknown(&mut applied).await
                }
                (Some(wanted), _) => {
                    let done = self.apply(wanted, &mut applied).await;
                    applied_at = Instant::now();
                    done
                }
                (None, None) if self.is_clear => Ok(()),
                // Rules and names may be there without a network.
                (None, _) => self.clear(&mut applied).await,
            };
            let wait = match done {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    self.problem = None;
                    LOOK_EVERY
                }
                Err(error) => {
                    let problem = error.to_string();
                    if self.problem.as_ref() != Some(&problem) {
                        tracing::warn!(host = %self.host, %problem, "its part of the task network is not as it should be");
                    }
                    applied = None;
                    self.tell(None, Some(problem.clone())).await;
                    self.problem = Some(problem);
                    let wait = pause;
                    pause = (pause * 2).min(LAST_PAUSE);
                    wait
                }
            };
            match timeout(wait, self.wanted.changed()).await {
                Ok(Ok(())) => continue,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
            if let Some(was) = &applied {
                match within(LOOK_WITHIN, self.net.drift(was)).await {
                    Ok(None) => {}
                    Ok(Some(drifted)) => {
                        tracing::warn!(host = %self.host, %drifted, "somebody changed its part of the task network: it is made anew");
                        applied = None;
                        self.tell(None, Some(drifted)).await;
                    }
                    Err(error) => {
                        applied = None;
                        self.tell(None, Some(error.to_string())).await;
                        sleep(FIRST_PAUSE).await;
                    }
                }
            }
        }
    }

    async fn apply(
        &mut self,
        wanted: &Arc<HostNetwork>,
        applied: &mut Option<Arc<HostNetwork>>,
    ) -> Result<(), NetError> {
        self.say(applied.clone(), Some(Arc::clone(wanted)), self.problem.clone()).await;
        // What is asked for by now may be something else.
        if self.wanted.has_changed().unwrap_or(false) {
            self.say(applied.clone(), None, self.problem.clone()).await;
            return Ok(());
        }
        self.is_clear = false;
        let made = wanted.bridges.iter().map(|bridge| (bridge.subnet.clone(), bridge.slice));
        // Without an answer they may be there.
        self.slices.extend(made.clone());
        let Applied { public_key, left_out } = within(APPLY_WITHIN, self.net.apply(wanted)).await?;
        self.public_key = public_key;
        self.slices = made.collect();
        // What could not be told differs from what is wanted: it is tried again.
        let confirmed = if left_out.is_empty() { Arc::clone(wanted) } else { Arc::new(without(wanted, &left_out)) };
        *applied = Some(Arc::clone(&confirmed));
        self.tell(Some(confirmed), None).await;
        Ok(())
    }

    /// Networks that an earlier controller made, and that are not to be there: the planner hears of them first, since it may have
    /// forgotten whose they are, and one that a container has stays.
    async fn clear_unknown(&mut self, applied: &mut Option<Arc<HostNetwork>>) -> Result<(), NetError> {
        if !std::mem::replace(&mut self.has_waited, true) {
            return Ok(());
        }
        match self.clear(applied).await {
            Err(error @ NetError::Lost(_)) => Err(error),
            Err(error) => {
                tracing::debug!(host = %self.host, %error, "a network that is not to be there stays for now");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn clear(&mut self, applied: &mut Option<Arc<HostNetwork>>) -> Result<(), NetError> {
        within(LOOK_WITHIN, self.net.clear(false)).await?;
        self.slices.clear();
        self.is_clear = true;
        *applied = None;
        self.tell(None, None).await;
        Ok(())
    }

    async fn tell(&self, confirmed: Option<Arc<HostNetwork>>, problem: Option<String>) {
        self.say(confirmed, None, problem).await;
    }

    async fn say(
        &self,
        confirmed: Option<Arc<HostNetwork>>,
        under_way: Option<Arc<HostNetwork>>,
        problem: Option<String>,
    ) {
        let public_key = self.public_key.clone().filter(|_| confirmed.is_some());
        let slices = self.slices.clone();
        let seen = NetworkSeen { at: self.clock.now(), confirmed, under_way, slices, problem, public_key };
        let _ = self.inputs.send(Input::Network(self.host.clone(), seen)).await;
    }
}

/// A picture without the namespaces of some tasks.
fn without(picture: &HostNetwork, left_out: &BTreeSet<Ipv4Addr>) -> HostNetwork {
    let mut picture = picture.clone();
    let tasks = picture.tasks.iter_mut().filter(|(address, _)| left_out.contains(*address));
    tasks.for_each(|(_, task)| task.namespace = None);
    picture
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, NetError>>) -> Result<T, NetError> {
    timeout(deadline, work).await.unwrap_or_else(|_| Err(NetError::Lost(format!("no answer within {deadline:?}"))))
}
