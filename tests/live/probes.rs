//! Health checks that are made from the host, of an image that has no shell to run one in.

use crate::support::{Controller, Lab, MINUTE, until};

const HOST: &str = "host-a";

/// Three ways to be checked: over HTTP on the bridge, over TCP, and over HTTP in the host's own network.
const SERVICES: &str = r#"
apiVersion: roadstead/v1
kind: Service
metadata: { name: asked }
spec:
  desiredCount: 2
  taskDefinition:
    containerDefinitions:
      - { name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, healthCheck: { http: { port: 80, path: /healthz, matcher: 200 }, interval: 1s, timeout: 1s, retries: 2 } }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: connected }
spec:
  desiredCount: 1
  taskDefinition:
    containerDefinitions:
      - { name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, healthCheck: { tcp: { port: 80 }, interval: 1s, timeout: 1s } }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: on-host }
spec:
  desiredCount: 1
  taskDefinition:
    networkMode: host
    containerDefinitions:
      - { name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 2, environment: { PORT: 8123 }, healthCheck: { http: { port: 8123, headers: { X-Probe: "1" } }, interval: 1s, timeout: 1s } }
"#;

/// Nothing listens there.
const DEAF: &str = "
apiVersion: roadstead/v1
kind: Service
metadata: { name: deaf }
spec:
  desiredCount: 1
  taskDefinition:
    containerDefinitions:
      - { name: web, image: 'roadstead/demo:1', memory: 16, stopTimeout: 1, healthCheck: { http: { port: 81 }, interval: 1s, timeout: 1s, retries: 2 } }
";

/// Asks a container for a path, from its host.
fn ask(lab: &Lab, container: &str, path: &str) -> String {
    let address = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    let address = lab.docker(HOST, &["inspect", "--format", address, container]);
    lab.lab(&["ssh", HOST, &format!("curl -fsS http://{}{path}", address.trim())])
}

#[test]
#[ignore = "needs a lab"]
fn an_image_without_a_shell_is_checked_from_its_host_and_replaced_when_it_fails() {
    let lab = Lab::with("probes", "1");
    let mut controller = Controller::start(&lab, &[("services.yaml", SERVICES)]);
    controller.wait_steady();
    for task in controller.items("tasks") {
        assert_eq!(task["healthStatus"], "HEALTHY", "{task}");
    }
    let before = lab.running(&[HOST], "asked");
    assert_eq!(before.len(), 2, "{before:?}");
    for container in &before {
        let check = lab.docker(
            HOST,
            &["inspect", "--format", "{{json .State.Health}} {{json .NetworkSettings.Ports}}", container],
        );
        assert!(check.starts_with("null ") && !check.contains("HostPort"), "nothing in it, nothing published: {check}");
    }

    // A controller that was away makes nothing unhealthy.
    controller.kill();
    controller.launch();
    controller.wait_steady();
    assert_eq!(lab.running(&[HOST], "asked"), before);

    let told = before.first().unwrap();
    let task = lab.docker(HOST, &["inspect", "--format", "{{index .Config.Labels \"dev.roadstead.task\"}}", told]);
    ask(&lab, told, "/healthz/fail");
    until("it is told to be unhealthy", MINUTE, || {
        controller
            .cli(&["events", "-n", "500"])
            .contains("is unhealthy: GET :80/healthz answered 500, 2 times in a row")
    });
    until("another takes its place", 2 * MINUTE, || {
        let now = lab.running(&[HOST], "asked");
        now.len() == 2 && !now.contains(told)
    });
    controller.wait_steady();
    assert_eq!(lab.running(&[HOST], "asked").intersection(&before).count(), 1, "the other one stays");
    let why = controller.cli(&["describe", "task", task.trim()]);
    assert!(why.contains("its health check fails: GET :80/healthz answered 500"), "{why}");

    controller.write("deaf.yaml", DEAF);
    until("nobody listens, and that is said", MINUTE, || {
        controller.cli(&["events", "-n", "500"]).contains("is unhealthy: nothing listens on port 81, 2 times in a row")
    });
}
