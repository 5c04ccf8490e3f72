//! How many orders a host gets at once, and what the log says about each.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{task::yield_now, time::Duration, time::timeout};
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::engine::{
    Content, Created, EngineEvent, EngineInfo, EngineStream, ExecId, ExecOptions, ExecSession, ImageFacts, Inspected,
    LogLine, LogOptions, Progress, Verify, VerifyVolume,
};
use roadstead_core::model::{
    container::ContainerView, observed::EngineIdentity, storage::StoredImage, time::Timestamp, volume::VolumeClaim,
};

const DEADLINE: Duration = Duration::from_secs(30);
/// Enough for every task of a test to get as far as it can: all of them share one thread.
const TURNS: usize = 1_000;

/// Creates, stops and removals wait at a gate, and are counted while they do.
struct Gated {
    gate: Semaphore,
    inside: AtomicUsize,
    most: AtomicUsize,
}

impl Gated {
    fn closed() -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(0), inside: AtomicUsize::new(0), most: AtomicUsize::new(0) })
    }

    async fn pass(&self) -> Result<(), EngineError> {
        self.most.fetch_max(self.inside.fetch_add(1, SeqCst) + 1, SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.inside.fetch_sub(1, SeqCst);
        Ok(())
    }
}

fn unused<T>() -> Result<T, EngineError> {
    Err(EngineError::NotFound { what: "this test".to_owned() })
}

#[async_trait]
impl Engine for Gated {
    async fn create(&self, config: &ContainerConfig) -> Result<Created, EngineError> {
        self.pass().await?;
        match config.image.as_str() {
            "wrong" => unused(),
            "missing" => Err(EngineError::ImageMissing { image: "missing".to_owned(), message: String::new() }),
            _ => Ok(Created { id: RuntimeId::from(config.name.as_str()), warnings: Vec::new() }),
        }
    }
    async fn stop(&self, _: &RuntimeId, _: u32) -> Result<(), EngineError> {
        self.pass().await
    }
    async fn identify(&self) -> Result<EngineIdentity, EngineError> {
        unused()
    }
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        unused()
    }
    async fn ping(&self) -> Result<(), EngineError> {
        unused()
    }
    async fn list(&self, _: Verify<'_>) -> Result<BTreeMap<RuntimeId, ContainerView>, EngineError> {
        unused()
    }
    async fn image(&self, _: &str) -> Result<Option<ImageFacts>, EngineError> {
        Ok(None)
    }
    async fn images(&self) -> Result<BTreeMap<String, StoredImage>, EngineError> {
        unused()
    }
    async fn remove_image(&self, _: &str) -> Result<(), EngineError> {
        unused()
    }
    async fn registry_digest(&self, _: &str) -> Result<String, EngineError> {
        unused()
    }
    async fn pull(&self, _: &str, _: Progress<'_>) -> Result<(), EngineError> {
        self.pass().await
    }
    async fn start(&self, _: &RuntimeId) -> Result<(), EngineError> {
        unused()
    }
    async fn remove(&self, _: &RuntimeId, _: bool) -> Result<(), EngineError> {
        self.pass().await
    }
    async fn volumes(&self, _: VerifyVolume<'_>) -> Result<BTreeMap<String, VolumeClaim>, EngineError> {
        unused()
    }
    async fn remove_volume(&self, _: &str) -> Result<(), EngineError> {
        unused()
    }
    async fn has_volume(&self, _: &str) -> Result<bool, EngineError> {
        unused()
    }
    async fn download(&self, _: &RuntimeId, _: &str) -> Result<EngineStream<Bytes>, EngineError> {
        unused()
    }
    async fn upload(&self, _: &RuntimeId, _: &str, _: Content) -> Result<(), EngineError> {
        unused()
    }
    async fn inspect(&self, _: &str, _: Verify<'_>) -> Result<Option<Inspected>, EngineError> {
        unused()
    }
    async fn events(&self, _: Option<Timestamp>) -> Result<EngineStream<EngineEvent>, EngineError> {
        unused()
    }
    async fn logs(&self, _: &RuntimeId, _: LogOptions) -> Result<EngineStream<LogLine>, EngineError> {
        unused()
    }
    async fn exec(&self, _: &RuntimeId, _: ExecOptions) -> Result<ExecSession, EngineError> {
        unused()
    }
    async fn exec_resize(&self, _: &ExecId, _: u16, _: u16) -> Result<(), EngineError> {
        unused()
    }
    async fn exec_exit_code(&self, _: &ExecId) -> Result<Option<i64>, EngineError> {
        unused()
    }
}

fn launch(image: &str) -> Verb {
    let config = ContainerConfig { image: image.to_owned(), ..ContainerConfig::default() };
    Verb::Launch {
        containers: vec![LaunchStep {
            container: "web".into(),
            config,
            runtime_id: None,
            start: false,
            needed: true,
            pull: ImagePullPolicy::default(),
        }],
    }
}

fn stop() -> Verb {
    Verb::Stop { containers: vec![StopStep { runtime_id: "id".into(), timeout_s: 1, wave: 0, remove: false }] }
}

fn remove() -> Verb {
    Verb::Remove { containers: vec!["id".into()] }
}

fn order(engine: &Arc<Gated>, slots: &HostSlots, task: &str, verb: Verb) -> Execution {
    let action =
        Action { task: task.into(), service: "web".into(), host: "box-a".into(), verb, reason: "a test".to_owned() };
    Execution {
        action,
        engine: Arc::clone(engine) as Arc<dyn Engine>,
        slots: slots.clone(),
        board: PullBoard::default(),
        key: FleetKey::new([7; 32]),
        clock: Clock::starting_at(Timestamp(0)),
        overtaken: CancellationToken::new(),
    }
}

/// Runs more orders of this kind than may be asked at once; how many were.
async fn most_at_once(slots: &HostSlots, orders: usize, verb: impl Fn() -> Verb) -> usize {
    let engine = Gated::closed();
    let running: Vec<_> =
        (0..orders).map(|task| tokio::spawn(order(&engine, slots, &format!("t{task}"), verb()).run())).collect();
    for done in 0..orders {
        for _ in 0..TURNS {
            yield_now().await;
        }
        assert!(engine.inside.load(SeqCst) > 0, "{done} of {orders} done, and none of the others is let in");
        engine.gate.add_permits(1);
    }
    for running in running {
        let answer = timeout(DEADLINE, running).await.unwrap().unwrap();
        assert!(matches!(answer.result, ActionResult::Done { .. }), "{answer:?}");
    }
    engine.most.load(SeqCst)
}

#[tokio::test]
async fn a_host_is_asked_no_more_at_once_than_its_cpus_carry() {
    for (cpus, launches) in [(0, 2), (1, 2), (2, 2), (3, 3), (8, 8), (64, 8)] {
        let slots = HostSlots::new(cpus, Arc::default());
        assert_eq!(most_at_once(&slots, 12, || launch("web:1")).await, launches, "launches with {cpus} CPUs");
        assert_eq!(most_at_once(&slots, STOPS_PER_HOST + 4, stop).await, STOPS_PER_HOST, "stops with {cpus} CPUs");
        let removals = most_at_once(&slots, REMOVALS_PER_HOST + 4, remove).await;
        assert_eq!(removals, REMOVALS_PER_HOST, "removals with {cpus} CPUs");
    }
}

#[tokio::test]
async fn stops_do_not_wait_for_launches() {
    let (engine, slots) = (Gated::closed(), HostSlots::new(2, Arc::default()));
    let orders = (0..4).map(|task| order(&engine, &slots, &format!("t{task}"), launch("web:1")));
    let orders: Vec<_> = orders.chain([order(&engine, &slots, "old", stop())]).collect();
    let running: Vec<_> = orders.into_iter().map(|order| tokio::spawn(order.run())).collect();
    for _ in 0..TURNS {
        yield_now().await;
    }
    assert_eq!(engine.inside.load(SeqCst), 3, "two launches and the stop");
    running.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn slow_stops_and_removals_do_not_wait_for_each_other() {
    for (many, other) in [(stop as fn() -> Verb, remove as fn() -> Verb), (remove, stop)] {
        let (engine, slots) = (Gated::closed(), HostSlots::new(2, Arc::default()));
        let all = if many().name() == stop().name() { STOPS_PER_HOST } else { REMOVALS_PER_HOST };
        let mut running = Vec::new();
        for (task, verb) in std::iter::repeat_n(many(), all + 1).chain([other()]).enumerate() {
            running.push(tokio::spawn(order(&engine, &slots, &format!("t{task}"), verb).run()));
        }
        for _ in 0..TURNS {
            yield_now().await;
        }
        assert_eq!(engine.inside.load(SeqCst), all + 1, "all that may, and the other one");
        running.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test]
async fn a_launch_that_is_overtaken_takes_no_further_step() {
    let (engine, slots) = (Gated::closed(), HostSlots::new(2, Arc::default()));
    for (overtaken, made) in [(false, 2), (true, 1)] {
        let mut both = launch("web:1");
        let Verb::Launch { containers } = &mut both else { panic!("{both:?}") };
        containers.extend(containers.clone());
        let order = order(&engine, &slots, "t", both);
        let word = order.overtaken.clone();
        let running = tokio::spawn(order.run());
        for _ in 0..TURNS {
            yield_now().await;
        }
        assert_eq!(engine.inside.load(SeqCst), 1, "the first is being made");
        if overtaken {
            word.cancel();
        }
        engine.gate.add_permits(made);
        let answer = timeout(DEADLINE, running).await.unwrap().unwrap();
        let ActionResult::Done { containers } = answer.result else { panic!("{answer:?}") };
        assert_eq!(containers.len(), made, "what exists of it is told");
    }
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_any_more_is_given_up() {
    let (engine, slots) = (Gated::closed(), HostSlots::new(2, Arc::default()));
    let order = order(&engine, &slots, "t", launch("missing"));
    let word = order.overtaken.clone();
    let running = tokio::spawn(order.run());
    engine.gate.add_permits(1);
    for _ in 0..TURNS {
        yield_now().await;
    }
    assert_eq!(engine.inside.load(SeqCst), 1, "it is being pulled");
    word.cancel();
    let answer = timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(matches!(&answer.result, ActionResult::Done { containers } if containers.is_empty()), "{answer:?}");
}

#[tokio::test]
async fn a_container_that_is_gone_at_its_start_was_removed_by_somebody() {
    let (engine, slots) = (Gated::closed(), HostSlots::new(2, Arc::default()));
    engine.gate.add_permits(1);
    let mut verb = launch("web:1");
    let Verb::Launch { containers } = &mut verb else { panic!("{verb:?}") };
    containers[0].start = true;
    let answer = timeout(DEADLINE, order(&engine, &slots, "t", verb).run()).await.unwrap();
    assert!(matches!(&answer.result, ActionResult::Removed { containers, .. } if containers.len() == 1), "{answer:?}");
}

#[tokio::test]
async fn containers_of_one_wave_stop_at_once_and_before_those_of_the_next() {
    let (engine, slots) = (Gated::closed(), HostSlots::new(2, Arc::default()));
    let step = |wave| StopStep { runtime_id: "id".into(), timeout_s: 1, wave, remove: false };
    let verb = Verb::Stop { containers: [0, 0, 0, 1].map(step).to_vec() };
    let running = tokio::spawn(order(&engine, &slots, "t", verb).run());
    for inside in [3, 1] {
        for _ in 0..TURNS {
            yield_now().await;
        }
        assert_eq!(engine.inside.load(SeqCst), inside);
        engine.gate.add_permits(inside);
    }
    let answer = timeout(DEADLINE, running).await.unwrap().unwrap();
    assert!(matches!(answer.result, ActionResult::Done { .. }), "{answer:?}");
}

#[tokio::test]
async fn what_a_task_can_be_without_does_not_end_its_launch() {
    let step = |name: &str, image: &str, needed| {
        let config = ContainerConfig { name: name.to_owned(), image: image.to_owned(), ..ContainerConfig::default() };
        LaunchStep {
            container: name.into(),
            config,
            runtime_id: None,
            start: false,
            needed,
            pull: ImagePullPolicy::default(),
        }
    };
    for needed in [false, true] {
        let (engine, slots) = (Gated::closed(), HostSlots::new(2, Arc::default()));
        engine.gate.add_permits(2);
        let verb = Verb::Launch { containers: vec![step("side", "wrong", needed), step("web", "web:1", true)] };
        let answer = timeout(DEADLINE, order(&engine, &slots, "t", verb).run()).await.unwrap();
        let made = vec![(ContainerName::from("web"), RuntimeId::from("web"))];
        match answer.result {
            ActionResult::Partly { reason, containers } if !needed => {
                assert!(reason.starts_with("side: ") && containers == made, "{reason} {containers:?}");
            }
            ActionResult::Failed { containers, .. } if needed => assert_eq!(containers, []),
            other => panic!("{needed}: {other:?}"),
        }
    }
}

/// The lines of a log.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn every_line_of_the_log_names_its_order() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(lines.clone())
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (engine, slots) = (Gated::closed(), HostSlots::new(4, Arc::default()));
    // All three are under way together, so that a line of one could bear the name of another.
    engine.gate.add_permits(3);
    let _answers = timeout(
        DEADLINE,
        futures_util::future::join3(
            order(&engine, &slots, "good", launch("web:1")).run(),
            order(&engine, &slots, "bad", launch("wrong")).run(),
            order(&engine, &slots, "old", stop()).run(),
        ),
    )
    .await
    .unwrap();
    let text = lines.text();
    for (verb, task, end) in [("Launch", "good", "done"), ("Launch", "bad", "failed"), ("Stop", "old", "done")] {
        let span = format!("order{{verb={verb} task={task} service=web host=box-a}}:");
        let told: Vec<&str> = text.lines().filter(|line| line.contains(&span)).collect();
        assert!(matches!(told[..], [line] if line.contains(end)), "{task}: {text}");
    }
}
