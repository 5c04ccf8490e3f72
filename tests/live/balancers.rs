//! Load balancers on real hosts: what they show, and what mends itself.

use std::process::Command;

use crate::support::{Controller, Lab, MINUTE, until, web};

const BALANCER: &str = "
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: web }
spec: { port: 80, healthCheck: { interval: 1, timeout: 1 }, deregistrationDelay: 5 }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: front }
spec:
  listeners: [{ name: http, port: 8088, defaultAction: { forward: web } }]
";

const LEFT: &str =
    "docker ps -a --format '{{.Names}}' | grep -c rs-lb || true; docker volume ls -q | grep -c rs-lb || true";

fn answers(lab: &Lab, host: &str) -> bool {
    let url = format!("http://{}:8088/", lab.address(host));
    Command::new("curl").args(["-sf", "-o", "/dev/null", "-m", "2", &url]).status().unwrap().success()
}

#[test]
#[ignore = "needs a lab"]
fn every_edge_forwards_and_mends_itself() {
    let lab = Lab::with("balancers", "2");
    let service = web(2) + "  loadBalancers: [{ targetGroup: web }]\n";
    let mut controller = Controller::start(&lab, &[("web.yaml", &service), ("front.yaml", BALANCER)]);
    controller.wait_steady();
    let hosts = ["host-a", "host-b"];
    let all_answer = || hosts.iter().all(|host| answers(&lab, host));
    until("both edges forward", MINUTE, all_answer);

    // HAProxy dies; its container dies; its map is played with.
    for fault in [
        "kill -9 $(docker top rs-lb -o pid,comm | awk '$2 == \"haproxy\" { print $1 }')",
        "docker rm -f rs-lb",
        "docker exec rs-lb sh -c \"echo 'clear map /var/lib/roadstead-lb/forwards.map' | socat - unix:/run/roadstead-lb/admin.sock\"",
    ] {
        lab.lab(&["ssh", "host-a", fault]);
        let took = until("both edges forward again", MINUTE, all_answer);
        eprintln!("both forward {took:?} after {fault}");
    }

    // With the controller away a host that starts anew forwards by what is on its disk.
    controller.kill();
    lab.lab(&["reboot", "host-a"]);
    until("both edges forward after a reboot", MINUTE, all_answer);
    controller.launch();
    controller.wait_steady();
    until("both edges forward", MINUTE, all_answer);

    controller.write("web.yaml", &web(2));
    controller.remove("front.yaml");
    for host in hosts {
        until("nothing of it is left", MINUTE, || lab.lab(&["ssh", host, LEFT]).split_whitespace().eq(["0", "0"]));
    }
}
