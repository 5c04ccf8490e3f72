//! The definitions of `tests/fixtures/ecs/` on real hosts: as they are, but for their images.
//!
//! Every image is a small one that plays the part of each: what its commands, entry points and health checks name is there.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Controller, Lab, MINUTE, busybox, own_capabilities, until};

/// Fixtures of services, and the containers that run in the end.
const SERVICES: [(&str, &[&str]); 13] = [
    ("agent.json", &["agent"]),
    ("auth.json", &["auth", "otel-collector"]),
    ("codepipeline.json", &["checkout"]),
    ("firelens.json", &["log_router", "payments"]),
    ("game-server.json", &["arena"]),
    // Its `migrate` has ended by then.
    ("init-container.json", &["app"]),
    ("nginx-and-app.json", &["app", "nginx"]),
    ("otel-collector.json", &["aws-otel-collector", "orders"]),
    ("secrets.json", &["ledger"]),
    ("skeleton.json", &["hello"]),
    ("ulimits.json", &["node"]),
    ("web-and-sidecar.json", &["cache-warmer", "web"]),
    ("worker.json", &["worker"]),
];

/// Fixtures of tasks that are run once, and end with 0.
const JOBS: [&str; 1] = ["cron.yaml"];

/// Fixtures that no lab can run, and what it lacks.
const NOT_HERE: [(&str, &str); 6] = [
    ("efs.json", "an NFS server, and a kernel that mounts it"),
    ("fargate-big.json", "a machine of 8 vCPUs"),
    ("gpu.json", "a GPU with its drivers"),
    ("linux-parameters.json", "a graphics card (/dev/dri) and AppArmor"),
    ("no-fargate-size.json", "nothing: it is refused, since Fargate has no such size"),
    ("windows.json", "nothing: it is refused, since hosts are Linux machines"),
];

const IMAGE: &str = "part:1";

/// What the image does: the programs of all fixtures, each as far as it matters here.
const PLAYER: &str = r#"#!/bin/sh
case "$*" in
  *db:migrate* | report*) echo "done: $*" ;;
  *) exec sleep 1000000 ;;
esac
"#;
const WELL: &str = "#!/bin/sh\nexit 0\n";

/// As in capability.h.
const CAP_SYS_RESOURCE: u32 = 24;
const CAPABILITIES: [(&str, u32); 4] =
    [("NET_ADMIN", 12), ("SYS_PTRACE", 19), ("SYS_ADMIN", 21), ("SYS_RESOURCE", CAP_SYS_RESOURCE)];

fn fixtures() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ecs");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".env")).collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ecs").join(name)).unwrap()
}

/// The image on every host of the lab.
fn load(lab: &Lab) {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("root/bin");
    fs::create_dir_all(&programs).unwrap();
    for (name, text) in [("play", PLAYER), ("agent", WELL), ("curl", WELL), ("../healthcheck", WELL)] {
        use std::os::unix::fs::PermissionsExt;
        fs::write(programs.join(name), text).unwrap();
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let archive = busybox(folder.path(), &["sh", "sleep"]);
    for host in lab.hosts() {
        lab.import_with(host, &archive, "part", &["ENTRYPOINT [\"/bin/play\"]"]);
    }
}

/// A machine that lacks a right itself gives it to no container: there the fixture goes without.
fn within_our_rights(container: &mut Value) {
    let may = |bit: u32| own_capabilities() & (1 << bit) != 0;
    if !may(CAP_SYS_RESOURCE) {
        // What raises limits.
        container.as_object_mut().unwrap().remove("ulimits");
    }
    if let Some(added) = container.pointer_mut("/linuxParameters/capabilities/add").and_then(Value::as_array_mut) {
        let known = |name: &Value| CAPABILITIES.iter().find(|(known, _)| name == known).unwrap().1;
        added.retain(|name| may(known(name)));
    }
}

/// A fixture with our image in place of its own, and its family.
fn with_our_image(name: &str) -> (Value, String, bool) {
    let mut document: Value = serde_yaml::from_str(&read(name)).unwrap();
    let inner = ["taskDefinition", "spec"].into_iter().find(|key| document.get(key).is_some());
    let definition = match inner {
        Some(key) => document.get_mut(key).unwrap(),
        None => &mut document,
    };
    let mut placeholders = serde_json::Map::new();
    for container in definition["containerDefinitions"].as_array_mut().unwrap() {
        let image = container["image"].as_str().unwrap().to_owned();
        match image.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
            // The product's own way.
            Some(placeholder) => drop(placeholders.insert(placeholder.to_owned(), json!(IMAGE))),
            None => container["image"] = json!(IMAGE),
        }
        within_our_rights(container);
    }
    let family = definition["family"].as_str().map(str::to_owned);
    let compatible = definition["requiresCompatibilities"].as_array().cloned().unwrap_or_default();
    let family = family.unwrap_or_else(|| document["metadata"]["name"].as_str().unwrap().to_owned());
    if !placeholders.is_empty() {
        document["variables"] = Value::Object(placeholders);
    }
    (document, family, compatible.contains(&json!("FARGATE")))
}

fn stem(name: &str) -> &str {
    name.split('.').next().unwrap()
}

#[test]
fn every_fixture_runs_live_or_is_said_not_to() {
    let services = SERVICES.iter().map(|(name, _)| *name);
    let named = services.chain(JOBS).chain(NOT_HERE.iter().map(|(name, _)| *name));
    let all: Vec<String> = named.map(str::to_owned).collect();
    assert_eq!(all.iter().cloned().collect::<BTreeSet<_>>(), fixtures());
    assert_eq!(all.len(), fixtures().len(), "in one list only");
}

#[test]
#[ignore = "needs a lab"]
fn what_people_have_in_ecs_runs() {
    let lab = Lab::up("fixtures");
    load(&lab);
    let mut controller = Controller::new(&lab, &[("app.env", &read("app.env"))]);
    for host in lab.hosts() {
        let file = format!("hosts/{host}.yaml");
        let manifest = fs::read_to_string(controller.path("manifests").join(&file)).unwrap();
        controller.write(&file, &manifest.replace("labels: { ", "labels: { role: edge, "));
    }
    for (name, _) in SERVICES {
        let (document, family, fargate) = with_our_image(name);
        controller.write(&format!("{}.json", stem(name)), &document.to_string());
        let service = json!({
            "apiVersion": "roadstead/v1", "kind": "Service", "metadata": { "name": stem(name) },
            "spec": {
                "taskDefinition": family, "minimumHealthySeconds": 1,
                "launchType": if fargate { "FARGATE" } else { "EC2" },
                // As agents are run: one on every host that it fits.
                "schedulingStrategy": if name == "agent.json" { "DAEMON" } else { "REPLICA" },
            },
        });
        controller.write(&format!("service-{}.json", stem(name)), &service.to_string());
    }
    for name in JOBS {
        controller.write(&format!("{}.json", stem(name)), &with_our_image(name).0.to_string());
    }
    controller.launch();
    // The slowest health check is made after half a minute.
    until("every service is steady", 4 * MINUTE, || {
        controller.items("services").len() == SERVICES.len() && controller.is_steady()
    });
    for (name, containers) in SERVICES {
        let running = lab.running(&lab.hosts(), stem(name));
        let times = if name == "agent.json" { 3 } else { 1 };
        assert_eq!(running.len(), containers.len() * times, "{name}: {running:?}");
        for container in containers {
            let count = running.iter().filter(|name| name.ends_with(&format!("-{container}"))).count();
            assert_eq!(count, times, "{name}: {container} of {running:?}");
        }
    }
    for name in JOBS {
        let (_, family, _) = with_our_image(name);
        controller.cli(&["run", &family, "--wait"]);
    }
}
