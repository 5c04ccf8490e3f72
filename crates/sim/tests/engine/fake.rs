//! The suite on the fake engine, and what only a fake can show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures_util::StreamExt;
use roadstead_control::engine::{Engine, EngineError, ExecOutput, OutputStream};
use roadstead_core::model::container::{ContainerConfig, ContainerState, HealthStatus};
use roadstead_core::model::name::RuntimeId;
use roadstead_core::model::time::Timestamp;
use roadstead_sim::engine::{FakeEngine, Registry, Request};

use crate::suite::{BAD_ARGUMENT, IMAGE, IMAGE_AWAY, Suite, World};

struct FakeWorld {
    engine: FakeEngine,
    now_ms: Arc<AtomicU64>,
}

impl FakeWorld {
    fn new() -> Self {
        let now_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now_ms);
        // Each look at the clock takes a millisecond.
        let engine = FakeEngine::new(1, Arc::new(move || Timestamp(clock.fetch_add(1, Ordering::SeqCst))));
        engine.add_image(IMAGE);
        engine.set_registry(IMAGE_AWAY, Registry::Away);
        engine.set_command(&["/demo", "exit", "3"], Vec::new(), 3);
        let bytes = "demo …".into();
        let stream = OutputStream::Stderr;
        engine.set_command(&["/demo", BAD_ARGUMENT], vec![ExecOutput { stream, bytes }], 2);
        Self { engine, now_ms }
    }
}

#[async_trait]
impl World for FakeWorld {
    async fn commit(&self, _: &RuntimeId, name: &str) {
        self.engine.add_image(name);
    }
    async fn pass_time(&self) {
        self.now_ms.fetch_add(50, Ordering::SeqCst);
        self.engine.tick();
    }
    async fn crash(&self, id: &RuntimeId) {
        self.engine.crash(id, 137);
    }
    async fn kill(&self, id: &RuntimeId) {
        self.engine.kill(id);
    }
    async fn remove(&self, id: &RuntimeId) {
        self.engine.remove_by_hand(id);
    }
    async fn rename(&self, id: &RuntimeId, name: &str) {
        self.engine.rename(id, name);
    }
    async fn turn_healthy(&self, id: &RuntimeId) {
        self.engine.set_health(id, HealthStatus::Healthy);
    }
    async fn print_usage_and_end(&self, id: &RuntimeId) {
        self.engine.print(id, OutputStream::Stderr, "demo …");
        self.engine.print(id, OutputStream::Stderr, "demo exit CODE …");
        self.engine.crash(id, 2);
    }
    async fn hang(&self) {
        self.engine.hang();
    }
    async fn resume(&self) {
        self.engine.resume();
    }
    async fn restart_engine(&self) {
        self.engine.restart_engine();
    }
    async fn reboot(&self) {
        self.engine.reboot();
    }
}

#[tokio::test]
async fn the_fake_engine_conforms() {
    let world = FakeWorld::new();
    Suite::new(&world.engine, &world).run().await;
}

#[tokio::test]
async fn answers_can_be_lost_after_the_work_is_done() {
    let world = FakeWorld::new();
    let suite = Suite::new(&world.engine, &world);
    world.engine.lose_answers(1);
    let result = world.engine.create(&suite.config("lost")).await;
    assert!(matches!(result, Err(EngineError::OutcomeUnknown { .. })), "{result:?}");
    assert_eq!(suite.list().await.len(), 1);
}

#[tokio::test]
async fn waiting_changes_happen_in_any_order_or_never() {
    let world = FakeWorld::new();
    let suite = Suite::new(&world.engine, &world);
    let (first, second, third) = (suite.config("1"), suite.config("2"), suite.config("3"));
    world.engine.hang();
    for config in [&first, &second, &third] {
        world.engine.create(config).await.expect_err("no answer");
    }
    let waiting = world.engine.waiting();
    assert_eq!(waiting.first(), Some(&Request::Create(Box::new(first))));
    assert!(world.engine.run_waiting(1) && !world.engine.run_waiting(5));
    world.engine.drop_waiting();
    world.engine.resume();
    let list = suite.list().await;
    assert_eq!(list.values().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["rs-2"]);
}

#[tokio::test]
async fn nobody_there_means_nothing_is_done() {
    let world = FakeWorld::new();
    let suite = Suite::new(&world.engine, &world);
    world.engine.set_reachable(false);
    let result = world.engine.create(&suite.config("none")).await;
    assert!(matches!(result, Err(EngineError::Unreachable(_))), "{result:?}");
    world.engine.set_reachable(true);
    assert!(suite.list().await.is_empty());
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_behind() {
    let world = FakeWorld::new();
    let suite = Suite::new(&world.engine, &world);
    world.engine.set_disk_full(true);
    let result = world.engine.create(&suite.config("full")).await;
    assert!(matches!(result, Err(EngineError::OutOfSpace { .. })), "{result:?}");
    assert!(suite.list().await.is_empty());
}

#[tokio::test]
async fn a_crash_loop_slows_down() {
    let world = FakeWorld::new();
    let suite = Suite::new(&world.engine, &world);
    let id = suite.start(&ContainerConfig { restart: true, ..suite.config("loop") }).await;
    let mut pauses = Vec::new();
    for _ in 0..4 {
        world.engine.crash(&id, 1);
        let crashed = suite.view(&id).await;
        assert_eq!((crashed.state, crashed.exit_code), (ContainerState::Restarting, Some(1)));
        world.now_ms.fetch_add(1000, Ordering::SeqCst);
        let running = suite.view(&id).await;
        let at = |at: Option<Timestamp>| at.expect("a time");
        pauses.push(at(running.started_at).since_ms(at(crashed.finished_at)));
    }
    assert_eq!(pauses, [100, 200, 400, 800]);
    world.now_ms.fetch_add(10_000, Ordering::SeqCst);
    world.engine.crash(&id, 1);
    world.now_ms.fetch_add(100, Ordering::SeqCst);
    assert_eq!(suite.view(&id).await.state, ContainerState::Running, "it ran well before");
}

#[tokio::test]
async fn only_the_last_256_events_are_remembered() {
    let world = FakeWorld::new();
    let suite = Suite::new(&world.engine, &world);
    let id = suite.create(&suite.config("ring")).await;
    for number in 0..300 {
        world.engine.rename(&id, &format!("rs-{number}"));
    }
    let events = world.engine.events(Some(Timestamp(0))).await.expect("a stream");
    world.engine.restart_engine();
    let names: Vec<String> = events.map(|event| event.expect("an event").name).collect().await;
    assert_eq!((names.len(), names[0].as_str()), (256, "rs-44"));
}
