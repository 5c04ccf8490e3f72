//! Load balancers on real hosts: what clients notice of rollouts, scaling, drains and losses.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    load::{Load, status},
    support::{Controller, Lab, MINUTE, until},
};

fn service(image: &str, count: u32) -> String {
    format!(
        "
apiVersion: roadstead/v1
kind: Service
metadata: {{ name: web }}
spec:
  desiredCount: {count}
  loadBalancers: [{{ targetGroup: web }}]
  taskDefinition:
    containerDefinitions:
      - {{ name: web, image: '{image}', memory: 16, stopTimeout: 10, portMappings: [{{ containerPort: 80 }}] }}
"
    )
}

const TRAFFIC: &str = "
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: web }
spec: { port: 80, healthCheck: { path: /healthz, interval: 1s, timeout: 1s }, deregistrationDelay: 10s }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: front }
spec:
  listeners:
    - name: http
      port: 8088
      rules: [{ name: gone, priority: 1, conditions: { pathPattern: [/gone*] }, action: { fixedResponse: { statusCode: 410 } } }]
      defaultAction: { forward: web }
";

pub fn edges(lab: &Lab) -> Vec<SocketAddr> {
    lab.hosts().iter().map(|host| format!("{}:8088", lab.address(host)).parse().unwrap()).collect()
}

/// The newest rollout's outcome, once it has ended.
pub fn outcome(controller: &Controller) -> String {
    let output = controller.try_cli(&["rollout", "status", "web", "--wait", "--timeout", "240", "-o", "json"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    said["outcome"].as_str().unwrap_or_default().to_owned()
}

/// What stops more than half of the tasks waits for a person's word.
fn confirm(controller: &Controller) {
    let status: serde_json::Value =
        serde_json::from_slice(&controller.try_cli(&["status", "-o", "json"]).stdout).unwrap();
    if let Some(token) = status["held"]["token"].as_str() {
        controller.cli(&["confirm", token]);
    }
}

/// Of what was in flight to the victim each client had one request at most, and what is asked after it fell is answered by others.
fn a_lost_task_and_a_lost_host_cost_what_was_in_flight(lab: &Lab, controller: &Controller, edges: &[SocketAddr]) {
    controller.write("web.yaml", &service("roadstead/demo:2", 6));
    until("it is scaled", MINUTE * 2, || lab.running(&lab.hosts(), "web").len() == 6);
    controller.wait_steady();
    // The load balancer of the host that is lost goes with it.
    let load = Load::start(&edges[..2]);
    let asked = |count: u64| {
        let many = || load.seen.lock().unwrap().answers.values().sum::<u64>() > count;
        until("they are asked", MINUTE, many);
    };
    let in_flight = |what: &str, fell: Instant| {
        let seen = load.take();
        eprintln!("{what}: {:?}, {} of {} clients failed once", seen.answers, seen.failures.len(), load.clients());
        assert!(seen.failures.len() <= load.clients(), "{what}: {:?}", seen.failures);
        let late: Vec<&String> =
            seen.failed.iter().zip(&seen.failures).filter(|(began, _)| **began > fell).map(|(_, why)| why).collect();
        assert_eq!(late, Vec::<&String>::new(), "{what}: asked after it fell");
    };
    asked(500);
    let before = lab.running(&["host-c"], "web");
    let victim = before.first().expect("a task on host-c").clone();
    lab.docker("host-c", &["kill", &victim]);
    let fell = Instant::now();
    until("another one runs in its place", MINUTE, || {
        let now = lab.running(&lab.hosts(), "web");
        now.len() == 6 && !now.contains(&victim)
    });
    controller.wait_steady();
    in_flight("a task killed", fell);

    asked(500);
    lab.lab(&["cut", "host-c"]);
    let fell = Instant::now();
    until("others run in their place", MINUTE * 2, || lab.running(&["host-a", "host-b"], "web").len() == 6);
    // Whoever waits for an answer of the lost host gives up.
    thread::sleep(Duration::from_secs(9));
    in_flight("a host lost", fell);
    drop(load);
    lab.lab(&["heal", "host-c"]);
    until("the duplicates are gone", MINUTE * 2, || lab.running(&lab.hosts(), "web").len() == 6);
    controller.wait_steady();
}

#[test]
#[ignore = "needs a lab"]
fn nobody_notices_a_rollout_a_scaling_or_a_drain() {
    let lab = Lab::up("traffic");
    lab.lab(&["image", "--version", "2"]);
    let controller =
        Controller::start(&lab, &[("web.yaml", &service("roadstead/demo:1", 12)), ("traffic.yaml", TRAFFIC)]);
    controller.wait_steady();
    let edges = edges(&lab);
    for edge in &edges {
        until("every edge answers", MINUTE, || status(*edge, "/").contains(" 200 "));
        assert!(status(*edge, "/gone/away").contains(" 410 "));
    }
    let load = Load::start(&edges);
    let since = std::cell::Cell::new(Instant::now());
    until("they are asked", MINUTE, || load.seen.lock().unwrap().answers.values().sum::<u64>() > 200);
    let unnoticed = |what: &str| {
        let seen = load.take();
        let took = since.replace(Instant::now()).elapsed();
        let all: u64 = seen.answers.values().sum();
        eprintln!("{what}: {:?}, {:.0} requests a second", seen.answers, all as f64 / took.as_secs_f64());
        assert_eq!(seen.failures, Vec::<String>::new(), "{what}, of {:?}", seen.answers);
        seen
    };
    unnoticed("at rest");

    controller.write("web.yaml", &service("roadstead/demo:2", 12));
    until("the rollout has begun", MINUTE, || controller.items("deployments").len() > 1);
    assert_eq!(outcome(&controller), "SUCCEEDED");
    controller.wait_steady();
    unnoticed("a rolling update");
    until("they are asked", MINUTE, || load.seen.lock().unwrap().answers.values().sum::<u64>() > 100);
    // What was asked before that may still be under way.
    thread::sleep(Duration::from_secs(5));
    load.take();
    until("they are asked", MINUTE, || load.seen.lock().unwrap().answers.values().sum::<u64>() > 100);
    assert!(!unnoticed("after it").answers.contains_key("1"));

    for count in [3, 20, 3] {
        controller.write("web.yaml", &service("roadstead/demo:2", count));
        until("it is scaled", MINUTE * 2, || {
            confirm(&controller);
            let tasks = controller.items("tasks");
            tasks.iter().filter(|task| task["lastStatus"] == "RUNNING").count() == count as usize
        });
        controller.wait_steady();
        unnoticed(&format!("scaled to {count}"));
    }
    controller.cli(&["host", "drain", "host-b"]);
    until("it is empty", MINUTE * 2, || lab.running(&["host-b"], "web").is_empty());
    controller.wait_steady();
    unnoticed("a drain");
    controller.cli(&["host", "uncordon", "host-b"]);

    // The structure changes: another port, another rule.
    controller.write("traffic.yaml", &TRAFFIC.replace("statusCode: 410", "statusCode: 418"));
    until("the new rule is in force", MINUTE, || edges.iter().all(|edge| status(*edge, "/gone").contains(" 418 ")));
    // Slow answers and downloads that were under way then have ended.
    thread::sleep(Duration::from_secs(5));
    unnoticed("a reload");
    drop(load);
    a_lost_task_and_a_lost_host_cost_what_was_in_flight(&lab, &controller, &edges);

    // A load balancer that is killed comes back by itself.
    lab.docker("host-a", &["exec", "rs-lb", "sh", "-c", "kill -9 -1 || true"]);
    until("it is back", MINUTE, || status(edges[0], "/").contains(" 200 "));
    lab.docker("host-a", &["rm", "-f", "rs-lb"]);
    until("it is made anew", MINUTE, || status(edges[0], "/").contains(" 200 "));

    // Without load balancers nothing of them is left.
    controller
        .write("web.yaml", &service("roadstead/demo:2", 3).replace("  loadBalancers: [{ targetGroup: web }]\n", ""));
    controller.remove("traffic.yaml");
    until("they are gone", MINUTE, || {
        lab.hosts().iter().all(|host| !lab.docker(host, &["ps", "-a", "--format", "{{.Names}}"]).contains("rs-lb"))
    });
}
