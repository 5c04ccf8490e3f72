//! Logs and commands of a container, through a whole controller's API and an engine in memory.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use roadstead_control::engine::{Engine, ExecOutput, OutputStream};
use roadstead_core::model::{
    container::ContainerConfig, name::HostName, name::RuntimeId, spec::task_definition::NetworkMode, time::Timestamp,
};
use roadstead_sim::engine::FakeEngine;

use super::{control::handle::Snapshot, online::Controller};

/// A controller whose task `aaaa000000000001` is a container of the engine's.
async fn start() -> Controller {
    let engine = Arc::new(FakeEngine::new(1, Arc::new(|| Timestamp(1_000))));
    engine.add_image("demo:1");
    let id = engine.create(&config()).await.unwrap().id;
    engine.start(&id).await.unwrap();
    engine.print(&id, OutputStream::Stdout, "hello \u{1b}[31mred\u{1b}[0m");
    engine.print(&id, OutputStream::Stderr, "again");
    let output = |stream, text: &'static str| ExecOutput { stream, bytes: Bytes::from_static(text.as_bytes()) };
    engine.set_command(&["env"], vec![output(OutputStream::Stdout, "A=1\n"), output(OutputStream::Stderr, "oh\n")], 3);
    let engines: BTreeMap<HostName, Arc<dyn Engine>> = BTreeMap::from([("box-a".into(), engine as Arc<dyn Engine>)]);
    let controller = Controller::start_with(engines).await;
    controller.change(|snapshot| run_as(snapshot, &id));
    controller
}

fn run_as(snapshot: &mut Snapshot, id: &RuntimeId) {
    let task = snapshot.world.state.tasks.get_mut("aaaa000000000001").unwrap();
    Arc::make_mut(task).containers.values_mut().for_each(|container| container.runtime_id = Some(id.clone()));
}

fn config() -> ContainerConfig {
    ContainerConfig {
        name: "rs-aaaa000000000001-web".to_owned(),
        image: "demo:1".to_owned(),
        entry_point: Vec::new(),
        command: Vec::new(),
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        ports: Vec::new(),
        network_mode: NetworkMode::Bridge,
        cpu_shares: 0,
        nano_cpus: None,
        memory_bytes: None,
        memory_reservation_bytes: None,
        user: None,
        working_directory: None,
        readonly_root_filesystem: false,
        privileged: false,
        restart: false,
        health_check: None,
        stop_timeout_s: 1,
        ..ContainerConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_carry_their_task_and_no_escape_sequences() {
    let controller = start().await;
    let printed = "aaaa0000/web hello red\naaaa0000/web again\n";
    assert_eq!(controller.run("logs web").await, (printed.to_owned(), String::new(), 0));
    let (out, _, _) = controller.run("logs task/aaaa000000000001 --tail 1 -o json").await;
    let record: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((record["stream"].as_str(), record["line"].as_str()), (Some("stderr"), Some("again")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commands_output_and_exit_status_are_ours() {
    let controller = start().await;
    assert_eq!(controller.run("exec web -- env").await, ("A=1\n".to_owned(), "oh\n".to_owned(), 3));
    let (_, error, status) = controller.run("exec task/aaaa000000000002 -- env").await;
    assert_eq!(status, 1);
    assert!(error.contains("container web of task aaaa000000000002 does not run"), "{error}");
    let (_, error, status) = controller.run("exec web -c nope -- env").await;
    assert_eq!(status, 1);
    assert!(error.contains("it has web"), "{error}");
}
