//! The checks that are made from the hosts: of each container in turn, a few at once on each host.
//!
//! A controller that was away begins with the verdicts on record and with no failure, so its absence makes nothing
//! UNHEALTHY; a host that does not answer gives no verdict.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    connect::Connection,
    fleet::Fleet,
    probe::{Outcome, probe},
    seams::Clock,
};
use roadstead_core::{
    model::{
        container::{ContainerState, HealthStatus},
        name::{ContainerName, HostName, RuntimeId, TaskId},
        ownership::Owner,
        report::Waiting,
        spec::task_definition::HealthCheck,
        world::{Subject, World},
    },
    plan::{
        absorb::Probed,
        probe::{Life, Target, Verdict, targets},
    },
    turn::Input,
};

/// Checks at once on one host.
const AT_ONCE: usize = 16;
/// How long a host may take to say where a container is, or that it is there itself.
const HOST_DEADLINE: Duration = Duration::from_secs(5);

/// All containers that are being checked.
#[derive(Default)]
pub(super) struct Probes {
    running: BTreeMap<RuntimeId, Running>,
    slots: BTreeMap<HostName, Arc<Semaphore>>,
    board: Board,
}

/// A container that is being checked.
struct Running {
    life: Life,
    /// What is on record.
    known: watch::Sender<HealthStatus>,
    /// Ended with it, or with its host's connection.
    stop: CancellationToken,
}

impl Probes {
    /// Begins to check what is to be checked and is not, and ends what is not to be checked any more.
    pub(super) fn follow(&mut self, world: &World, fleet: &Fleet) {
        let targets = targets(world);
        let wanted: BTreeMap<&RuntimeId, &Target<'_>> =
            targets.iter().map(|target| (&target.life.id, target)).collect();
        self.running.retain(|id, running| {
            let target = wanted.get(id).filter(|target| target.life == running.life);
            if let Some(target) = target {
                running.known.send_replace(target.health);
            } else {
                running.stop.cancel();
            }
            !running.stop.is_cancelled()
        });
        self.slots.retain(|_, slots| Arc::strong_count(slots) > 1);
        for target in &targets {
            if self.running.contains_key(&target.life.id) {
                continue;
            }
            if let Some((connection, ends)) = fleet.connection(&target.life.host) {
                self.begin(target, connection, ends.child_token(), fleet);
            }
        }
    }

    fn begin(&mut self, target: &Target<'_>, connection: Connection, stop: CancellationToken, fleet: &Fleet) {
        let life = target.life.clone();
        let slots = self.slots.entry(life.host.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
        let (known, watch_known) = watch::channel(target.health);
        let checker = Checker {
            life: life.clone(),
            check: target.check.clone(),
            address: target.address.map(IpAddr::V4),
            is_certain: target.address.is_some(),
            known: watch_known,
            connection,
            slots: Arc::clone(slots),
            inputs: fleet.inputs.clone(),
            clock: fleet.clock.clone(),
            board: self.board.clone(),
        };
        let stopped = stop.clone();
        fleet.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = checker.run() => {}
            }
        });
        self.running.insert(life.id.clone(), Running { life, known, stop });
    }

    /// Which checks cannot be made, and why.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        self.board.waiting()
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.stop.cancel());
    }
}

/// What checks one container as long as it lives.
struct Checker {
    life: Life,
    check: HealthCheck,
    /// Where it is, once that is known.
    address: Option<IpAddr>,
    /// Nobody need ask its engine again.
    is_certain: bool,
    known: watch::Receiver<HealthStatus>,
    connection: Connection,
    slots: Arc<Semaphore>,
    inputs: mpsc::Sender<Input>,
    clock: Clock,
    board: Board,
}

impl Checker {
    async fn run(mut self) {
        let _posted = Posted { board: self.board.clone(), of: (self.life.task.clone(), self.life.container.clone()) };
        let mut verdict = Verdict::from(*self.known.borrow());
        let seen_at = Instant::now();
        // What began together is not asked together for ever.
        let mix = |hash: u64, byte: u8| hash.wrapping_mul(31).wrapping_add(byte.into());
        let share = self.life.id.as_str().bytes().fold(0_u64, mix) % 100;
        sleep(Duration::from_millis(verdict.pause_ms(0, &self.check) * share / 400)).await;
        loop {
            // Never closed.
            let slot = Arc::clone(&self.slots).acquire_owned().await;
            let age_ms = u64::try_from(seen_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            let outcome = self.ask().await;
            drop(slot);
            let mut why = None;
            match outcome {
                Outcome::Passed => verdict.passed(),
                Outcome::Failed(reason) | Outcome::Silent(reason) => {
                    verdict.failed(age_ms, &self.check);
                    why = Some(reason);
                    // It may be another one by now.
                    self.address = self.address.filter(|_| self.is_certain);
                }
                Outcome::NotMade(reason) => {
                    self.board.note(&self.life, Some(reason));
                    sleep(Duration::from_millis(verdict.pause_ms(age_ms, &self.check))).await;
                    continue;
                }
            }
            self.board.note(&self.life, None);
            if !self.tell(verdict, why).await {
                return;
            }
            sleep(Duration::from_millis(verdict.pause_ms(age_ms, &self.check))).await;
        }
    }

    /// Tells the verdict where it is news; false when nobody listens any more.
    async fn tell(&self, verdict: Verdict, why: Option<String>) -> bool {
        let health = verdict.health();
        if health == HealthStatus::Unknown || health == *self.known.borrow() {
            return true;
        }
        let reason = why.map(|why| match verdict.failures() {
            0 | 1 => why,
            times => format!("{why}, {times} times in a row"),
        });
        let probed = Probed { life: self.life.clone(), at: self.clock.now(), health, reason };
        self.inputs.send(Input::Probed(probed)).await.is_ok()
    }

    async fn ask(&mut self) -> Outcome {
        let Some(how) = self.check.probe() else { return Outcome::NotMade("nothing is to be checked".to_owned()) };
        let address = match self.address {
            Some(address) => address,
            None => match self.find().await {
                Ok(address) => *self.address.insert(address),
                Err(reason) => return Outcome::NotMade(reason),
            },
        };
        let deadline = Duration::from_millis(self.check.timeout.as_ms());
        let address = SocketAddr::new(address, how.port());
        let outcome = probe(self.connection.transport.as_ref(), address, how, deadline).await;
        // Whose silence it was its engine tells: a host that is away fails no container.
        if let Outcome::Silent(_) = &outcome
            && !matches!(timeout(HOST_DEADLINE, self.connection.engine.ping()).await, Ok(Ok(())))
        {
            return Outcome::NotMade("its host does not answer".to_owned());
        }
        outcome
    }

    /// Its address on its host.
    async fn find(&self) -> Result<IpAddr, String> {
        let inspected = self.connection.engine.inspect(self.life.id.as_str(), &|_| Owner::Foreign);
        let inspected = timeout(HOST_DEADLINE, inspected).await.map_err(|_| "its host does not answer".to_owned())?;
        let inspected = inspected.map_err(|error| error.to_string())?.ok_or("it is gone")?;
        if inspected.view.state != ContainerState::Running {
            return Err("it does not run".to_owned());
        }
        inspected.address.ok_or_else(|| "it has no address in a network of its host".to_owned())
    }
}

/// The checks that cannot be made, and why.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<BTreeMap<(TaskId, ContainerName), String>>>);

/// A container's place on the board, cleared when dropped.
struct Posted {
    board: Board,
    of: (TaskId, ContainerName),
}

impl Drop for Posted {
    fn drop(&mut self) {
        self.board.lock().remove(&self.of);
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(TaskId, ContainerName), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, life: &Life, reason: Option<String>) {
        let of = (life.task.clone(), life.container.clone());
        let mut board = self.lock();
        match reason {
            Some(reason) => {
                if board.get(&of) != Some(&reason) {
                    tracing::debug!(task = %life.task, container = %life.container, %reason, "its check cannot be made");
                }
                board.insert(of, reason);
            }
            None => drop(board.remove(&of)),
        }
    }

    fn waiting(&self) -> Vec<Waiting> {
        let words = |((task, container), reason): (&(TaskId, ContainerName), &String)| Waiting {
            subject: Subject::Task(task.clone()),
            reason: format!(
                "the check of container {container} cannot be made, so its health stays as it is: {reason}"
            ),
            wakes_when: "its host can be asked; it is tried at every interval".to_owned(),
            wakes_at: None,
        };
        self.lock().iter().map(words).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, path::Path};

    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::{
        engine::{DockerEngine, Limits},
        host::{BoxIo, ExecOutput, ExecRequest, Lane, LinkState, Transport, TransportError},
    };

    /// A host that lets nobody connect to anything.
    struct Forbids;

    fn forbidden() -> TransportError {
        TransportError::Forbidden { detail: "connections".into() }
    }

    #[async_trait]
    impl Transport for Forbids {
        async fn dial(&self, _: &Path, _: Lane) -> Result<BoxIo, TransportError> {
            Err(forbidden())
        }

        async fn dial_tcp(&self, _: SocketAddr) -> Result<BoxIo, TransportError> {
            Err(forbidden())
        }

        async fn exec(&self, _: ExecRequest) -> Result<ExecOutput, TransportError> {
            Err(forbidden())
        }

        async fn upload(&self, _: &str, _: u32, _: Bytes, _: Duration) -> Result<(), TransportError> {
            Err(forbidden())
        }

        fn link(&self) -> watch::Receiver<LinkState> {
            watch::channel(LinkState::Connected).1
        }

        async fn close(&self) {}
    }

    #[tokio::test]
    async fn a_host_that_forbids_connections_is_named_and_fails_nothing() {
        let transport: Arc<dyn Transport> = Arc::new(Forbids);
        let engine = DockerEngine::new(Arc::clone(&transport), "/var/run/docker.sock".into(), Limits::default());
        let (inputs, mut told) = mpsc::channel(8);
        let (_known, known) = watch::channel(HealthStatus::Healthy);
        let board = Board::default();
        let checker = Checker {
            life: Life {
                host: "a".into(),
                task: "1".into(),
                container: "web".into(),
                id: "c1".into(),
                started_at: None,
            },
            check: serde_json::from_str(r#"{ "http": { "port": 80 }, "interval": 1, "retries": 1 }"#).unwrap(),
            address: Some(Ipv4Addr::LOCALHOST.into()),
            is_certain: true,
            known,
            connection: Connection { transport, engine: Arc::new(engine), network: None, edge: None },
            slots: Arc::new(Semaphore::new(1)),
            inputs,
            clock: Clock::system(),
            board: board.clone(),
        };
        let checking = tokio::spawn(checker.run());
        let said = async {
            while board.waiting().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), said).await.unwrap();
        let reason = board.waiting().remove(0).reason;
        assert!(
            reason.contains("container web cannot be made") && reason.contains("forbids it: connections"),
            "{reason}"
        );
        assert!(told.try_recv().is_err(), "no verdict");
        checking.abort();
        assert!(checking.await.is_err());
        assert!(board.waiting().is_empty(), "nobody checks it any more");
    }
}
