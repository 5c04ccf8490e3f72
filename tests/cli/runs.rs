//! `run`: what it waits for, and its exit status.

use std::{process::Stdio, sync::Arc};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::timeout,
};

use super::{
    control::handle::Snapshot,
    model::{
        container::ContainerState,
        name::TaskId,
        standalone::Standalone,
        task::{DesiredStatus, LastStatus, StopCode, Task},
    },
    online::{Controller, PATIENCE},
};

/// A standalone task that the request with the token `t` started, and that runs.
fn started(snapshot: &mut Snapshot, id: &str) {
    let tasks = &mut snapshot.world.state.tasks;
    let standalone = Standalone { client_token: Some("t".to_owned()), ..Standalone::default() };
    let task = Task {
        id: id.into(),
        service: "family:web".into(),
        standalone: Some(Arc::new(standalone)),
        ..Task::clone(&tasks["aaaa000000000001"])
    };
    tasks.insert(task.id.clone(), Arc::new(task));
}

/// It is over: its containers are essential or not, and ended with a code or not at all.
fn end(snapshot: &mut Snapshot, id: &str, stop_code: StopCode, containers: &[(bool, Option<i64>)]) {
    let task = Arc::make_mut(snapshot.world.state.tasks.get_mut(id).unwrap());
    let row = task.containers.values().next().unwrap().clone();
    task.containers = Default::default();
    for (index, (essential, exit_code)) in containers.iter().enumerate() {
        let state = Some(if exit_code.is_some() { ContainerState::Exited } else { ContainerState::Running });
        let row =
            crate::model::task::TaskContainer { essential: *essential, exit_code: *exit_code, state, ..row.clone() };
        task.containers.insert(format!("c{index}").as_str().into(), row);
    }
    task.desired_status = DesiredStatus::Stopped;
    // What a lost host runs is not known to be over.
    task.last_status = if stop_code == StopCode::HostLost { LastStatus::Running } else { LastStatus::Stopped };
    (task.stop_code, task.stopped_reason) = (Some(stop_code), Some("so it ended".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_exit_status_is_that_of_the_essential_containers() {
    use StopCode::{EssentialContainerExited as Exited, HostLost, TaskFailedToStart, UserInitiated};
    let controller = Controller::start().await;
    for (stop_code, containers, status) in [
        (Exited, &[(true, Some(0))][..], 0),
        (Exited, &[(true, Some(3))], 3),
        (Exited, &[(true, Some(0)), (true, Some(4))], 4),
        (Exited, &[(false, Some(5)), (true, Some(0))], 0),
        (Exited, &[(true, Some(300))], 255),
        (Exited, &[(true, Some(-1))], 255),
        // Removed by somebody, or killed with the others: nobody knows how it ended.
        (Exited, &[(true, None)], 1),
        (TaskFailedToStart, &[(true, None)], 1),
        (TaskFailedToStart, &[(true, Some(127))], 127),
        (UserInitiated, &[(true, Some(137))], 137),
        (UserInitiated, &[(true, Some(0))], 1),
        (HostLost, &[(true, None)], 1),
    ] {
        controller.change(|snapshot| {
            started(snapshot, "eeee000000000001");
            end(snapshot, "eeee000000000001", stop_code, containers);
        });
        let (_, error, found) = controller.run("run web --wait --client-token t").await;
        assert_eq!(found, status, "{stop_code:?} {containers:?}: {error}");
        assert_eq!(error.contains("so it ended"), status != 0, "{stop_code:?} {containers:?}: {error}");
    }
    let (_, _, status) = controller.run("run web --client-token t").await;
    assert_eq!(status, 0, "nobody waits for its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_tasks_the_first_that_ended_badly_counts_and_then_what_is_missing() {
    let controller = Controller::start().await;
    let codes = [("eeee000000000001", 0), ("eeee000000000002", 7), ("eeee000000000003", 9)];
    controller.change(|snapshot| {
        for (id, code) in codes {
            started(snapshot, id);
            end(snapshot, id, StopCode::EssentialContainerExited, &[(true, Some(code))]);
        }
    });
    assert_eq!(controller.run("run web --count 3 --wait --client-token t").await.2, 7);
    assert_eq!(controller.run("run web --count 4 --wait --client-token t").await.2, 7);
    controller.change(|snapshot| {
        for (id, _) in codes {
            end(snapshot, id, StopCode::EssentialContainerExited, &[(true, Some(0))]);
        }
    });
    assert_eq!(controller.run("run web --count 3 --wait --client-token t").await.2, 0);
    let (_, error, status) = controller.run("run web --count 4 --wait --client-token t").await;
    assert_eq!(status, 1);
    assert!(error.contains("1 task could not be started"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_over_may_be_forgotten_while_others_are_waited_for() {
    for (code, status) in [(0, 0), (6, 6)] {
        let controller = Controller::start().await;
        let (first, second) = ("eeee000000000001", "eeee000000000002");
        controller.change(|snapshot| {
            started(snapshot, first);
            started(snapshot, second);
            end(snapshot, first, StopCode::EssentialContainerExited, &[(true, Some(code))]);
        });
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_roadstead"));
        program.args(["run", "web", "--count", "2", "--wait", "--client-token", "t"]);
        program.env("ROADSTEAD_ENDPOINT", &controller.endpoint).env("NO_COLOR", "1");
        let mut program = program.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(program.stderr.take().unwrap()).lines();
        let mut told = async |words: &str| {
            while let Some(line) = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
                if line.contains(words) {
                    return;
                }
            }
            panic!("it ended without {words}");
        };
        told(&format!("{second} on box-a: RUNNING")).await;
        controller.change(|snapshot| {
            snapshot.world.state.tasks.remove(&TaskId::from(first)).unwrap();
        });
        controller.change(|snapshot| {
            end(snapshot, second, StopCode::EssentialContainerExited, &[(true, Some(0))]);
        });
        told(&format!("{second} on box-a: STOPPED")).await;
        let found = timeout(PATIENCE, program.wait()).await.unwrap().unwrap();
        assert_eq!(found.code(), Some(status));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_that_are_not_acted_on_are_warned_of() {
    let controller = Controller::start().await;
    controller.change(|snapshot| started(snapshot, "eeee000000000001"));
    let overrides = r#"{"taskRoleArn":"arn:aws:iam::1:role/a","ephemeralStorage":null,"containerOverrides":[{"name":"web","environmentFiles":[],"resourceRequirements":[{"type":"GPU","value":"1"}]}]}"#;
    let (_, error, status) = controller.run(&format!("run web --client-token t --overrides {overrides}")).await;
    assert_eq!(status, 0, "{error}");
    let warnings: Vec<&str> = error.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(
        warnings,
        ["taskRoleArn", "containerOverrides.0.resourceRequirements"]
            .map(|path| format!("warning: `overrides.{path}` is known, and not acted on by this version"))
    );
}
