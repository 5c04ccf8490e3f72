//! BLUE_GREEN and CANARY deployments under load: no request fails, and after a swap the old side answers none; what fails is
//! taken back.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    load::{Load, exchange},
    support::{Controller, Lab, MINUTE, until},
    traffic::{edges, outcome},
};

/// There and back again.
const SWAPS: usize = 20;

pub fn service(version: usize, strategy: &str) -> String {
    format!(
        "
apiVersion: roadstead/v1
kind: Service
metadata: {{ name: web }}
spec:
  desiredCount: 3
  deploymentConfiguration: {{ {strategy} }}
  loadBalancers:
    - {{ targetGroup: blue, alternateTargetGroup: green, productionListenerRule: front/http, testListenerRule: front/test }}
  taskDefinition:
    containerDefinitions:
      - {{ name: web, image: 'roadstead/demo:{version}', memory: 16, stopTimeout: 5, portMappings: [{{ containerPort: 80 }}] }}
"
    )
}

pub const TRAFFIC: &str = "
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: blue }
spec: { port: 80, healthCheck: { path: /healthz, interval: 1s, timeout: 1s }, deregistrationDelay: 10s }
---
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: green }
spec: { port: 80, healthCheck: { path: /healthz, interval: 1s, timeout: 1s }, deregistrationDelay: 10s }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: front }
spec:
  listeners:
    - { name: http, port: 8088, defaultAction: { forward: blue } }
    - { name: test, port: 8089, defaultAction: { forward: green } }
";

const SWAP: &str = "strategy: BLUE_GREEN, bakeTime: 1s";

struct Swapped {
    _lab: Lab,
    controller: Controller,
    edges: Vec<SocketAddr>,
    load: Load,
}

impl Swapped {
    fn up(name: &str) -> Self {
        let lab = Lab::up(name);
        lab.lab(&["image", "--version", "2"]);
        let controller = Controller::start(&lab, &[("web.yaml", &service(1, SWAP)), ("traffic.yaml", TRAFFIC)]);
        controller.wait_steady();
        let edges = edges(&lab);
        for edge in &edges {
            until("every edge answers", MINUTE, || version(*edge).is_ok());
        }
        let load = Load::start(&edges);
        let swapped = Self { _lab: lab, controller, edges, load };
        swapped.asked();
        swapped
    }

    fn asked(&self) {
        until("they are asked", MINUTE, || self.load.seen.lock().unwrap().answers.values().sum::<u64>() > 100);
    }

    fn stage(&self) -> String {
        self.newest()["stage"].as_str().unwrap_or_default().to_owned()
    }

    fn newest(&self) -> serde_json::Value {
        let mut all = self.controller.items("deployments");
        all.retain(|deployment| deployment["status"] == "PRIMARY");
        all.remove(0)
    }

    /// Until the stage, which lasts.
    fn until_stage(&self, id: &str, stages: &[&str]) {
        until(stages[0], MINUTE * 2, || {
            let newest = self.newest();
            newest["id"] != *id && stages.contains(&newest["stage"].as_str().unwrap_or_default())
        });
    }

    fn unnoticed(&self, what: &str) -> BTreeMap<String, u64> {
        let seen = self.load.take();
        eprintln!("{what}: {:?}", seen.answers);
        assert_eq!(seen.failures, Vec::<String>::new(), "{what}, of {:?}", seen.answers);
        seen.answers
    }
}

fn version(edge: SocketAddr) -> Result<String, String> {
    exchange(edge, "/", false, &mut None).map_err(|(error, _)| error)
}

#[test]
#[ignore = "needs a lab"]
fn no_request_fails_in_twenty_swaps_and_the_old_side_answers_none_after_them() {
    let fleet = Swapped::up("swaps");
    let mut skews: Vec<Duration> = Vec::new();
    for swap in 0..SWAPS {
        let to = 2 - swap % 2;
        let id = fleet.newest()["id"].as_str().unwrap().to_owned();
        fleet.load.take();
        fleet.controller.write("web.yaml", &service(to, SWAP));
        fleet.until_stage(&id, &["BAKE_TIME", "CLEAN_UP"]);
        let shown = Instant::now();
        assert_eq!(outcome(&fleet.controller), "SUCCEEDED");
        fleet.asked();
        let seen = fleet.load.take();
        assert_eq!(seen.failures, Vec::<String>::new(), "swap {swap}: {:?}", seen.answers);
        let to = to.to_string();
        // What takes long does not say who it is.
        let is_old = |version: &String| !version.is_empty() && *version != to;
        let late = seen.log.iter().find(|(began, _, version)| *began > shown && is_old(version));
        assert_eq!(late, None, "swap {swap}: the old side answered after it was said to be over");
        let first = |edge: &SocketAddr| {
            let of_edge = seen.log.iter().filter(|(_, other, version)| other == edge && *version == to);
            of_edge.map(|(began, _, _)| *began).min().expect("every edge has turned")
        };
        let turned: Vec<Instant> = fleet.edges.iter().map(first).collect();
        skews.push(*turned.iter().max().unwrap() - *turned.iter().min().unwrap());
    }
    skews.sort();
    eprintln!("the edges turned within {:?} of each other (median), at most {:?}", skews[SWAPS / 2], skews[SWAPS - 1]);
}

#[test]
#[ignore = "needs a lab"]
fn a_canary_is_tried_and_taken_back_and_nobody_notices() {
    let fleet = Swapped::up("canary");
    let canary = "strategy: CANARY, bakeTime: 1h, canaryConfiguration: { canaryPercent: 20, canaryBakeTime: 1h }";
    let id = fleet.newest()["id"].as_str().unwrap().to_owned();
    fleet.controller.write("web.yaml", &service(2, canary));
    fleet.until_stage(&id, &["PRODUCTION_TRAFFIC_SHIFT"]);
    until("a part of the requests goes there", MINUTE, || fleet.newest()["trafficPerMille"] == 200);
    for edge in &fleet.edges {
        let test = SocketAddr::new(edge.ip(), 8089);
        until("the test listener shows it", MINUTE, || version(test).is_ok_and(|version| version == "2"));
        assert!((0..20).all(|_| version(test) == Ok("2".to_owned())));
    }
    fleet.load.take();
    until("they are asked", MINUTE, || fleet.load.seen.lock().unwrap().answers.values().sum::<u64>() > 2_000);
    let answers = fleet.unnoticed("a canary");
    let share = answers["2"] as f64 / answers.values().sum::<u64>() as f64;
    assert!((0.1..0.3).contains(&share), "{share}");
    let said = fleet.controller.cli(&["rollout", "status", "web"]);
    assert!(said.contains("PRODUCTION_TRAFFIC_SHIFT with 20 % of the requests"), "{said}");

    // It goes on with all of them, and is taken back while it bakes.
    fleet.controller.write("web.yaml", &service(2, &canary.replace("canaryBakeTime: 1h", "canaryBakeTime: 1s")));
    until("it bakes", MINUTE, || fleet.stage() == "BAKE_TIME");
    let failed = fleet.controller.try_cli(&["rollout", "abort", "web"]);
    assert!(failed.status.success(), "{failed:?}");
    assert_eq!(outcome(&fleet.controller), "ROLLED_BACK");
    let back = Instant::now();
    fleet.asked();
    fleet.load.take();
    fleet.asked();
    let seen = fleet.load.take();
    assert!(seen.log.iter().all(|(began, _, version)| *began < back || version != "2"), "{:?}", seen.answers);
    assert_eq!(seen.failures, Vec::<String>::new());
}

#[test]
#[ignore = "needs a lab"]
fn linear_and_canary_deployments_go_all_the_way_and_nobody_notices() {
    let fleet = Swapped::up("linear");
    let linear = "strategy: LINEAR, bakeTime: 1s, linearConfiguration: { stepPercent: 25, stepBakeTime: 1s }";
    let canary = "strategy: CANARY, bakeTime: 1s, canaryConfiguration: { canaryPercent: 10, canaryBakeTime: 2s }";
    for (to, strategy, steps) in [(2, linear, [250, 500, 750, 1_000].as_slice()), (1, canary, &[100, 1_000])] {
        let id = fleet.newest()["id"].as_str().unwrap().to_owned();
        fleet.load.take();
        fleet.controller.write("web.yaml", &service(to, strategy));
        until("it has begun", MINUTE, || fleet.newest()["id"] != *id);
        let mut seen: Vec<u64> = vec![0];
        until("it has ended", MINUTE * 2, || {
            let newest = fleet.newest();
            let share = newest["trafficPerMille"].as_u64().unwrap_or_default();
            if seen.last() != Some(&share) && newest["stage"] != "CLEAN_UP" && newest["outcome"].is_null() {
                seen.push(share);
            }
            !newest["outcome"].is_null()
        });
        assert_eq!(outcome(&fleet.controller), "SUCCEEDED");
        // A short step may pass between two looks.
        assert!(seen[1..].iter().all(|share| steps.contains(share)) && seen.is_sorted(), "{seen:?}");
        let answers = fleet.unnoticed(strategy);
        assert!(answers.contains_key("1") && answers.contains_key("2"), "{answers:?}");
    }
}

#[test]
#[ignore = "needs a lab"]
fn a_revision_that_is_slow_is_taken_back_by_its_alarm() {
    let fleet = Swapped::up("slow");
    let alarm = "strategy: BLUE_GREEN, bakeTime: 1h, alarms: { maximumLatencyIncreasePercent: 100, latencyPercentile: 50, minimumRequests: 100 }";
    let slow = service(2, alarm).replace("memory: 16", "memory: 16, environment: { DEMO_SLOW_MS: '300' }");
    let id = fleet.newest()["id"].as_str().unwrap().to_owned();
    fleet.controller.write("web.yaml", &slow);
    until("it has begun", MINUTE, || fleet.newest()["id"] != *id);
    assert_eq!(outcome(&fleet.controller), "ROLLED_BACK");
    let ended = fleet.controller.items("deployments").into_iter().find(|it| it["outcome"] == "ROLLED_BACK").unwrap();
    let reason = ended["rolloutStateReason"].as_str().unwrap();
    eprintln!("{reason}");
    assert!(reason.starts_with("its alarm: the p50 of its answers is"), "{reason}");
    fleet.unnoticed("slow answers are answers");
}

#[test]
#[ignore = "needs a lab"]
fn what_a_smoke_test_refuses_gets_no_request() {
    let fleet = Swapped::up("smoke");
    for (to, code, expected) in [(2, 0, "SUCCEEDED"), (1, 3, "ROLLED_BACK")] {
        let hook =
            "lifecycleHooks: [{ lifecycleStages: [POST_TEST_TRAFFIC_SHIFT], taskDefinition: smoke, timeout: 1m }]";
        let smoke = format!(
            "---
apiVersion: roadstead/v1
kind: TaskDefinition
metadata: {{ name: smoke }}
spec: {{ containerDefinitions: [{{ name: smoke, image: 'roadstead/demo:1', memory: 16, command: [exit, '{code}'] }}] }}
"
        );
        let id = fleet.newest()["id"].as_str().unwrap().to_owned();
        fleet.load.take();
        fleet.controller.write("web.yaml", &(service(to, &format!("{SWAP}, {hook}")) + &smoke));
        until("it has begun", MINUTE, || fleet.newest()["id"] != *id);
        assert_eq!(outcome(&fleet.controller), expected);
        let answers = fleet.unnoticed(expected);
        assert_eq!(answers.contains_key("1"), to == 2, "{answers:?}");
        fleet.load.take();
        fleet.asked();
        assert!(fleet.unnoticed("after it").contains_key("2"));
    }
}

#[test]
#[ignore = "needs a lab"]
fn a_revision_that_answers_with_errors_is_taken_back_by_its_alarm() {
    let fleet = Swapped::up("alarm");
    let alarm = "strategy: BLUE_GREEN, bakeTime: 1h, alarms: { maximumErrorPercent: 1, minimumRequests: 200 }";
    let failing = service(2, alarm).replace("memory: 16", "memory: 16, environment: { DEMO_FAILS_EVERY: '20' }");
    let id = fleet.newest()["id"].as_str().unwrap().to_owned();
    fleet.unnoticed("before it");
    fleet.controller.write("web.yaml", &failing);
    until("it has begun", MINUTE, || fleet.newest()["id"] != *id);
    assert_eq!(outcome(&fleet.controller), "ROLLED_BACK");
    let failed = fleet.load.take().failures.len() as u64;
    let ended = fleet.controller.items("deployments").into_iter().find(|it| it["outcome"] == "ROLLED_BACK").unwrap();
    let counted = &ended["requests"];
    let reason = ended["rolloutStateReason"].as_str().unwrap();
    eprintln!("{failed} requests failed; {reason}");
    assert!(reason.starts_with("its alarm: more than 1 % of its requests fail"), "{reason}");
    assert!((1..=failed).contains(&counted["failed"].as_u64().unwrap()), "{failed} failed, and {counted}");
    assert!(counted["total"].as_u64().unwrap() >= 200, "{counted}");
    assert!(ended["otherRequests"]["total"].as_u64().unwrap() > 0, "{ended}");
    // Nobody is sent there any more.
    fleet.asked();
    fleet.load.take();
    fleet.asked();
    assert_eq!(fleet.unnoticed("after it").keys().filter(|version| *version == "2").count(), 0);
}
