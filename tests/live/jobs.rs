//! Standalone tasks and schedules, with containers that really end.

use std::collections::BTreeSet;

use crate::support::{Controller, Lab, MINUTE, busybox, until};

const JOB: &str = "apiVersion: roadstead/v1\nkind: TaskDefinition\nmetadata: { name: job }\nspec:\n  containerDefinitions:\n    - { name: main, image: 'busybox:1', memory: 16, stopTimeout: 1, command: [/bin/sh, -c, 'exit 0'] }\n";

fn lab(name: &str) -> Lab {
    let lab = Lab::up(name);
    let folder = tempfile::tempdir().unwrap();
    let archive = busybox(folder.path(), &["sh", "sleep"]);
    lab.hosts().into_iter().for_each(|host| lab.import(host, &archive, "busybox"));
    lab
}

/// The task ids of all containers of jobs, ended ones too.
fn made(lab: &Lab) -> Vec<String> {
    let of_host = |host: &str| {
        lab.docker(
            host,
            &[
                "ps",
                "-a",
                "--filter",
                "label=dev.roadstead.service=family:job",
                "--format",
                "{{.Label \"dev.roadstead.task\"}}",
            ],
        )
    };
    lab.hosts().into_iter().flat_map(|host| of_host(host).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
#[ignore = "needs a lab"]
fn run_ends_with_the_exit_code_of_the_container_and_shows_what_it_prints() {
    let lab = lab("jobs-run");
    let controller = Controller::start(&lab, &[("job.yaml", JOB)]);
    // What is asked before every host was looked at is refused, and starts nothing.
    until("the first one ends with 0", MINUTE, || controller.try_cli(&["run", "job", "--wait"]).status.success());
    let failed = controller.try_cli(&["run", "job", "--wait", "--command", "/bin/sh", "-c", "exit 3"]);
    assert_eq!(failed.status.code(), Some(3), "{}", String::from_utf8_lossy(&failed.stderr));
    let script = "echo canary of $A; exit 4";
    let shown = controller.try_cli(&["run", "job", "--logs", "--env", "A=dawn", "--command", "/bin/sh", "-c", script]);
    let (out, err) = (String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    assert_eq!(shown.status.code(), Some(4), "{err}");
    assert!(out.contains("canary of dawn"), "{out}{err}");
    let several = controller.cli(&["run", "job", "--count", "3", "--wait", "-o", "name"]);
    assert_eq!(several.lines().count(), 3, "{several}");
    let ids: BTreeSet<String> = made(&lab).into_iter().collect();
    assert_eq!((ids.len(), made(&lab).len()), (6, 6), "one container for each task that was asked for");
    // The same request again starts nothing.
    controller.cli(&["run", "job", "--client-token", "once", "--wait"]);
    controller.cli(&["run", "job", "--client-token", "once", "--wait"]);
    assert_eq!(made(&lab).len(), 7);
    let nowhere = controller.try_cli(&["run", "job", "--overrides", r#"{"memory": 9999999}"#]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("RESOURCE:MEMORY"));
}

// A release build has no crash points.
#[cfg(debug_assertions)]
#[test]
#[ignore = "needs a lab"]
fn a_scheduled_task_fires_once_across_a_controller_killed_at_the_fire() {
    let lab = lab("jobs-fire");
    let schedule = |suspend: bool| {
        format!(
            "apiVersion: roadstead/v1\nkind: ScheduledTask\nmetadata: {{ name: tick }}\nspec: {{ taskDefinition: job, schedule: rate(10 seconds), suspend: {suspend} }}\n"
        )
    };
    for at in ["orders-decided", "orders-committed", "created", "started"] {
        let mut controller = Controller::new(&lab, &[("job.yaml", JOB), ("tick.yaml", &schedule(false))]);
        let before = made(&lab).len();
        controller.launch_to_crash(at);
        until("the first fire kills it", MINUTE, || controller.ended().is_some());
        controller.launch();
        let scheduled =
            |controller: &Controller| controller.items("scheduledtasks").first().cloned().unwrap_or_default();
        let fires = |controller: &Controller| scheduled(controller)["fires"].as_array().cloned().unwrap_or_default();
        until("two fires have ended well", 3 * MINUTE, || {
            controller.answers() && fires(&controller).iter().filter(|fire| fire["outcome"] == "SUCCEEDED").count() >= 2
        });
        controller.write("tick.yaml", &schedule(true));
        until("it is suspended, and nothing runs", MINUTE, || {
            scheduled(&controller)["suspend"] == true
                && fires(&controller).iter().all(|fire| fire["outcome"] != "RUNNING")
        });
        let fires = fires(&controller);
        let times: BTreeSet<String> = fires.iter().map(|fire| fire["scheduledAt"].to_string()).collect();
        assert_eq!(times.len(), fires.len(), "{at}: each time once: {fires:?}");
        let begun: usize = fires.iter().map(|fire| fire["tasks"].as_array().map_or(0, Vec::len)).sum();
        let ids: BTreeSet<String> = made(&lab).into_iter().collect();
        assert_eq!(
            (ids.len() - before, made(&lab).len() - before),
            (begun, begun),
            "{at}: a container a fire: {fires:?}"
        );
        controller.stop();
    }
}
