//! Containers that die, and containers that are not ours.

use std::process::{Command, Stdio};

use crate::support::{Controller, Lab, MINUTE, Service, until, web};

#[test]
#[ignore = "needs a lab"]
fn a_killed_container_is_replaced() {
    let lab = Lab::up("kill");
    let controller = Controller::start(&lab, &[("web.yaml", &web(3))]);
    controller.wait_steady();
    let before = lab.running(&lab.hosts(), "web");
    let (id, _) = lab.truth_of("host-a").into_iter().find(|(_, (name, _))| name.starts_with("rs-web-")).unwrap();
    lab.docker("host-a", &["kill", &id]);
    until("three run again", MINUTE, || lab.running(&lab.hosts(), "web").len() == 3);
    let after = lab.running(&lab.hosts(), "web");
    assert_eq!(after.intersection(&before).count(), 2, "the other two were left alone");
    controller.wait_steady();
    let stopped = controller.cli(&["events"]);
    assert!(stopped.contains("was killed (exit code 137)"), "{stopped}");
}

/// The engine heals what crashes, the controller what its engine cannot; what cannot be made holds nobody up.
#[test]
#[ignore = "needs a lab"]
fn of_a_task_of_several_containers_whatever_dies_comes_back_in_its_place() {
    let pair = "apiVersion: roadstead/v1\nkind: Service\nmetadata: { name: pair }\nspec:\n  desiredCount: 1\n  minimumHealthySeconds: 1\n  taskDefinition:\n    containerDefinitions:\n      - { name: app, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2 }\n      - { name: beat, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, essential: false }\n      - { name: lost, image: 'registry.invalid/lost:1', memory: 16, essential: false }\n";
    let lab = Lab::with("pair", "1");
    let controller = Controller::start(&lab, &[("pair.yaml", pair)]);
    controller.wait_steady();
    let containers = lab.truth_of("host-a");
    let id = |name: &str| containers.iter().find(|(_, (full, _))| full.ends_with(name)).unwrap().0.clone();
    let (app, beat) = (id("-app"), id("-beat"));
    let inspected = |id: &str, what: &str| lab.docker("host-a", &["inspect", "--format", what, id]).trim().to_owned();
    let policy = |id| inspected(id, "{{.HostConfig.RestartPolicy.Name}}");
    assert_eq!((policy(&app).as_str(), policy(&beat).as_str()), ("unless-stopped", "on-failure"));
    assert_eq!(containers.len(), 2, "the third has no image: {containers:?}");
    assert!(controller.cli(&["events"]).contains("lost: "), "and that is said");

    let main_process = inspected(&app, "{{.State.Pid}}");
    lab.lab(&["ssh", "host-a", &format!("kill -9 {main_process}")]);
    until("the engine restarts app", MINUTE, || inspected(&app, "{{.RestartCount}} {{.State.Running}}") == "1 true");
    lab.docker("host-a", &["kill", &beat]);
    until("beat runs again", MINUTE, || inspected(&beat, "{{.State.Running}}") == "true");
    controller.wait_steady();
    let found: Vec<String> = lab.truth_of("host-a").into_keys().collect();
    assert_eq!(found, containers.into_keys().collect::<Vec<_>>(), "the same containers of the same task");
}

#[test]
#[ignore = "needs a lab"]
fn a_killed_container_that_somebody_starts_again_is_stopped() {
    let lab = Lab::up("again");
    let controller = Controller::start(&lab, &[("web.yaml", &web(3))]);
    controller.wait_steady();
    let (id, (name, _)) = lab.truth_of("host-a").into_iter().find(|(_, (_, running))| *running).unwrap();
    lab.docker("host-a", &["kill", &id]);
    lab.docker("host-a", &["start", &id]);
    until("three others run", MINUTE, || {
        let running = lab.running(&lab.hosts(), "web");
        running.len() == 3 && !running.contains(&name)
    });
    controller.wait_steady();
    assert!(!lab.running(&["host-a"], "web").contains(&name), "it is not wanted again");
}

#[test]
#[ignore = "needs a lab"]
fn a_wedged_container_hides_nothing_of_the_others() {
    let lab = Lab::up("wedged");
    let mut controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    let ours: Vec<(String, String)> = lab.truth_of("host-a").into_iter().map(|(id, (name, _))| (id, name)).collect();
    let [(wedged, _), (killed, name)] = &ours[..] else { panic!("two on host-a: {ours:?}") };
    let shim = format!("$(pgrep -f '[c]ontainerd-shim.*{wedged}')");
    lab.lab(&["ssh", "host-a", &format!("kill -STOP {shim}")]);
    // Docker waits for the shim, and with it whoever asks for this container.
    let socket = format!("unix://{}", lab.folder().join("hosts/host-a/run/docker.sock").display());
    let kill = Command::new("docker").args(["-H", &socket, "kill", wedged]).stdout(Stdio::null()).spawn();
    let _kill = Service(kill.unwrap());
    until("it cannot be inspected", MINUTE, || {
        let inspect = ["1", "docker", "-H", &socket, "inspect", wedged];
        Command::new("timeout").args(inspect).stdout(Stdio::null()).status().unwrap().code() == Some(124)
    });
    // A new controller has to ask for every container's details.
    controller.stop();
    controller.launch();
    until("its host is known", MINUTE, || controller.host_status("host-a") == "ACTIVE");
    controller.wait_steady();
    lab.docker("host-a", &["kill", killed]);
    let task = name.split('-').nth(3).unwrap().to_owned();
    until("the end of the other is seen", MINUTE, || {
        let tasks = controller.cli(&["ps", "--all", "-o", "json"]);
        let tasks: serde_json::Value = serde_json::from_str(&tasks).unwrap();
        let now = tasks["items"].as_array().unwrap().iter().find(|now| now["taskId"] == task.as_str());
        now.is_none_or(|now| now["lastStatus"] == "STOPPED")
    });
    until("and it is replaced", MINUTE, || lab.running(&lab.hosts(), "web").len() == 6);
    assert_eq!(controller.host_status("host-a"), "ACTIVE");
    lab.lab(&["ssh", "host-a", &format!("kill -CONT {shim}")]);
    until("set free, it dies and is replaced, too", MINUTE, || {
        let running = lab.running(&lab.hosts(), "web");
        running.len() == 6 && !lab.truth_of("host-a").get(wedged).is_some_and(|(_, running)| *running)
    });
    controller.wait_steady();
}

#[test]
#[ignore = "needs a lab"]
fn all_containers_of_a_host_are_replaced() {
    let lab = Lab::up("killall");
    let controller = Controller::start(&lab, &[("web.yaml", &web(9))]);
    controller.wait_steady();
    let victims: Vec<String> = lab.truth_of("host-b").into_keys().collect();
    assert_eq!(victims.len(), 3, "spread over three zones");
    let mut kill = vec!["kill"];
    kill.extend(victims.iter().map(String::as_str));
    lab.docker("host-b", &kill);
    until("nine run again", MINUTE, || lab.running(&lab.hosts(), "web").len() == 9);
    controller.wait_steady();
    for host in lab.hosts() {
        assert_eq!(lab.running(&[host], "web").len(), 3, "even again: {host}");
    }
}

#[test]
#[ignore = "needs a lab"]
fn a_removed_container_is_replaced_and_a_paused_one_too() {
    let lab = Lab::up("people");
    let controller = Controller::start(&lab, &[("web.yaml", &web(3))]);
    controller.wait_steady();
    let (id, (name, _)) = lab.truth_of("host-c").into_iter().next().unwrap();
    lab.docker("host-c", &["rm", "-f", &id]);
    until("three others run", MINUTE, || {
        let running = lab.running(&lab.hosts(), "web");
        running.len() == 3 && !running.contains(&name)
    });
    controller.wait_steady();
    let (paused, (name, _)) = lab.truth_of("host-a").into_iter().find(|(_, (_, running))| *running).unwrap();
    lab.docker("host-a", &["pause", &paused]);
    until("the paused one is gone and three others run", MINUTE, || {
        let running = lab.running(&lab.hosts(), "web");
        running.len() == 3 && !running.contains(&name) && !lab.truth_of("host-a").contains_key(&paused)
    });
}

#[test]
#[ignore = "needs a lab"]
fn an_unhealthy_task_is_replaced() {
    let lab = Lab::up("unhealthy");
    let text = web(3).replace(
        "stopTimeout: 2,",
        "stopTimeout: 2, healthCheck: { command: [CMD, /demo, healthcheck], interval: 5s, timeout: 2s, retries: 1 },",
    );
    let controller = Controller::start(&lab, &[("web.yaml", &text)]);
    controller.wait_steady();
    let task = controller.items("tasks").into_iter().find(|task| task["host"] == "host-a").unwrap();
    let binding = &task["containers"][0]["networkBindings"][0];
    let host = controller.items("hosts").into_iter().find(|host| host["name"] == "host-a").unwrap();
    let url = format!("http://{}:{}/healthz/fail", host["address"].as_str().unwrap(), binding["hostPort"]);
    assert!(std::process::Command::new("curl").args(["-fsS", "-X", "POST", &url]).status().unwrap().success());
    let id = task["taskId"].as_str().unwrap().to_owned();
    until("its task is gone and three healthy ones run", 2 * MINUTE, || {
        let names = lab.running(&lab.hosts(), "web");
        names.len() == 3 && !names.iter().any(|name| name.contains(&id))
    });
    controller.wait_steady();
}

#[test]
#[ignore = "needs a lab"]
fn a_foreign_container_under_our_name_is_left_alone() {
    let lab = Lab::up("foreign");
    let mut controller = Controller::start(&lab, &[("web.yaml", &web(3))]);
    controller.wait_steady();
    // A task that is committed and whose create never arrives: its host is cut off at that moment.
    lab.lab(&["cut", "host-a"]);
    controller.write("web.yaml", &web(6));
    let mut name = String::new();
    until("a task is committed for the host that was cut off", MINUTE, || {
        let pending = controller
            .items("tasks")
            .into_iter()
            .find(|task| task["host"] == "host-a" && task["lastStatus"] != "RUNNING");
        let Some(task) = pending else { return false };
        name = format!("rs-web-1-{}-web", task["taskId"].as_str().unwrap());
        true
    });
    controller.kill();
    // Before the link heals: what the dead controller had sent may still arrive then.
    let foreign = lab.docker("host-a", &["run", "-d", "--name", &name, "roadstead/demo:1"]).trim().to_owned();
    let started = lab.docker("host-a", &["inspect", "--format", "{{.State.StartedAt}}", &foreign]);
    lab.lab(&["heal", "host-a"]);
    controller.launch();
    until("six of ours run beside it", 2 * MINUTE, || lab.running(&lab.hosts(), "web").len() == 6);
    controller.wait_steady();
    assert_eq!(
        lab.docker("host-a", &["inspect", "--format", "{{.State.StartedAt}}", &foreign]),
        started,
        "it was not touched"
    );
    assert!(controller.cli(&["events"]).contains("it was left alone"), "and the reason is told");
}
