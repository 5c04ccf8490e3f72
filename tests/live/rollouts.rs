//! Rollouts that fail, and how they end.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::support::{Controller, Lab, MINUTE, until, web};

/// Asks the tasks one after the other, all the time.
struct Visitor {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU32>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Visitor {
    fn start(addresses: Vec<SocketAddr>) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let thread = thread::spawn({
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    for address in &addresses {
                        match ask(*address) {
                            Ok(()) => answers.fetch_add(1, Ordering::Relaxed),
                            Err(error) => {
                                failures.push(format!("{address}: {error}"));
                                0
                            }
                        };
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                failures
            }
        });
        Self { stop, answers, thread: Some(thread) }
    }

    /// What went wrong.
    fn failures(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().unwrap()).unwrap_or_default()
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(address: SocketAddr) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(text)?;
    stream.set_read_timeout(Some(patience)).map_err(text)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    if answer.contains(" 200 ") { Ok(()) } else { Err(answer) }
}

/// Where the tasks of web answer.
fn addresses(controller: &Controller) -> Vec<SocketAddr> {
    let hosts = controller.items("hosts");
    let address = |task: &Value| {
        let host = hosts.iter().find(|host| host["name"] == task["host"]).unwrap()["address"].as_str().unwrap();
        let port = &task["containers"][0]["networkBindings"][0]["hostPort"];
        format!("{host}:{port}").parse().unwrap()
    };
    controller.items("tasks").iter().map(address).collect()
}

/// The newest rollout, once it has ended, and the exit status that says how.
fn ended(controller: &Controller) -> (Value, i32) {
    let output = controller.try_cli(&["rollout", "status", "web", "--wait", "--timeout", "180", "-o", "json"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    (json, output.status.code().unwrap())
}

/// Until the newest rollout is of another deployment than before.
fn another(controller: &Controller, before: &Value) {
    until("the rollout begins", MINUTE, || {
        let said = controller.try_cli(&["rollout", "status", "web", "-o", "json"]);
        serde_json::from_slice::<Value>(&said.stdout).is_ok_and(|now| now["id"] != before["id"])
    });
}

#[test]
#[ignore = "needs a lab"]
fn a_broken_image_is_taken_back_by_itself_while_the_service_answers() {
    let lab = Lab::up("rollback");
    // A container that ends at once, and is started again at once, is not well in between.
    let web = || web(3).replace("minimumHealthySeconds: 1", "minimumHealthySeconds: 5");
    let mut controller = Controller::start(&lab, &[("web.yaml", &web())]);
    controller.wait_steady();
    let (first, status) = ended(&controller);
    assert_eq!((first["outcome"].as_str(), status), (Some("SUCCEEDED"), 0));
    let old = lab.running(&lab.hosts(), "web");
    let visitor = Visitor::start(addresses(&controller));
    until("it answers", MINUTE, || visitor.answers.load(Ordering::Relaxed) > 10);

    let nowhere = web().replace("roadstead/demo:1", "roadstead/demo:nonexistent");
    let crashing = web().replace("memory: 16,", "memory: 16, command: [exit, '1'],");
    let mut before = first;
    for (what, broken) in [("no such tag", nowhere), ("its container ends at once", crashing)] {
        controller.write("web.yaml", &broken);
        another(&controller, &before);
        let (rollout, status) = ended(&controller);
        assert_eq!((rollout["outcome"].as_str(), status), (Some("ROLLED_BACK"), 1), "{what}: {rollout}");
        let revision = rollout["taskDefinition"].as_str().unwrap();
        let events = controller.cli(&["events", "service/web", "-n", "500"]);
        let told = format!("deployment {} of {revision} ROLLED_BACK: ", rollout["id"].as_str().unwrap());
        assert_eq!(events.matches(&told).count(), 1, "{what}: {events}");
        let listed = controller.items("deployments");
        let listed = listed.iter().find(|deployment| deployment["id"] == rollout["id"]).unwrap();
        assert_eq!(listed["outcome"], rollout["outcome"], "{what}");
        let services = controller.items("services");
        assert_eq!(services[0]["taskDefinition"], "web:1", "{what}");
        assert!(
            controller.cli(&["get", "services"]).contains(&format!("it runs web:1 instead of {revision}")),
            "{what}"
        );
        before = rollout;
    }
    // The next controller keeps to it.
    controller.kill();
    controller.launch();
    controller.wait_steady();
    assert_eq!(lab.running(&lab.hosts(), "web"), old, "what served was never touched");
    let failures = visitor.failures();
    assert!(failures.is_empty(), "{failures:?}");

    controller.write("web.yaml", &web().replace("memory: 16,", "memory: 17,"));
    another(&controller, &before);
    let (rollout, status) = ended(&controller);
    assert_eq!((rollout["outcome"].as_str(), status), (Some("SUCCEEDED"), 0), "a new revision is a fresh deployment");
}

#[test]
#[ignore = "needs a lab"]
fn a_drain_in_the_middle_of_a_rollout_keeps_the_floor() {
    let lab = Lab::up("drain-rollout");
    let controller = Controller::start(&lab, &[("web.yaml", &web(6))]);
    controller.wait_steady();
    let (before, _) = ended(&controller);
    let old = lab.running(&lab.hosts(), "web");
    controller.write("web.yaml", &web(6).replace("memory: 16", "memory: 17"));
    another(&controller, &before);
    controller.cli(&["host", "drain", "host-a"]);
    until("the host is empty and all are new", 3 * MINUTE, || {
        assert!(lab.running(&lab.hosts(), "web").len() >= 6, "never fewer than six");
        let running = lab.running(&lab.hosts(), "web");
        lab.running(&["host-a"], "web").is_empty() && old.is_disjoint(&running)
    });
    let (after, status) = ended(&controller);
    assert_eq!((after["outcome"].as_str(), status), (Some("SUCCEEDED"), 0));
    assert_eq!(lab.running(&["host-b", "host-c"], "web").len(), 6);
}
