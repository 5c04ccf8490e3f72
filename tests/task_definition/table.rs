//! Each field of a task definition → what Docker's create request says of it.

use std::collections::BTreeMap;

use roadstead_core::manifest::render;
use serde_json::{Value, json};

use crate::{HOST, admitted, bodies, launched};

/// A field, what is written, and what then stands where in the request for the container `app`.
pub struct Row {
    pub field: &'static str,
    written: Value,
    asked: Vec<(&'static str, Value)>,
}

fn row<const N: usize>(field: &'static str, written: Value, asked: [(&'static str, Value); N]) -> Row {
    Row { field, written, asked: asked.into() }
}

const MIB: u64 = 1024 * 1024;

/// Fields of a container.
pub fn of_a_container() -> Vec<Row> {
    let volume = |name: &str, rest: Value| {
        let mut mount = json!({ "Type": "volume", "Source": name, "Target": "/m" });
        mount.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        mount
    };
    vec![
        row("image", json!("demo:2"), [("/Image", json!("demo:2"))]),
        row("cpu", json!(512), [("/HostConfig/CpuShares", json!(512))]),
        row("memory", json!("64Mi"), [("/HostConfig/Memory", json!(64 * MIB))]),
        row("memoryReservation", json!(32), [("/HostConfig/MemoryReservation", json!(32 * MIB))]),
        row("command", json!(["serve", "--fast"]), [("/Cmd", json!(["serve", "--fast"]))]),
        row("entryPoint", json!(["/bin/app"]), [("/Entrypoint", json!(["/bin/app"]))]),
        row("environment", json!([{ "name": "COLOUR", "value": "green" }]), [("/Env/0", json!("COLOUR=green"))]),
        row(
            "environmentFiles",
            json!([{ "value": "app.env" }, { "value": "arn:aws:s3:::b/c/more.env", "type": "s3" }]),
            [("/Env/0", json!("ALSO=more")), ("/Env/1", json!("FROM_FILE=\"first\" "))],
        ),
        row(
            "portMappings",
            json!([{ "containerPort": 80, "hostPort": "8080", "protocol": "udp", "name": "web", "appProtocol": "http" }]),
            [("/HostConfig/PortBindings/80~1udp/0/HostPort", json!("8080")), ("/ExposedPorts/80~1udp", json!({}))],
        ),
        row(
            "portMappings[].containerPortRange",
            json!([{ "containerPortRange": "8000-8002" }]),
            [("/ExposedPorts", json!({ "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {} }))],
        ),
        row(
            "healthCheck",
            json!({ "command": ["CMD", "probe"], "interval": "10s", "timeout": 2, "retries": 5, "startPeriod": 1 }),
            [(
                "/Healthcheck",
                json!({ "Test": ["CMD", "probe"], "Interval": 10_000_000_000_u64, "Timeout": 2_000_000_000_u64, "Retries": 5, "StartPeriod": 1_000_000_000 }),
            )],
        ),
        row("stopTimeout", json!("2m"), [("/StopTimeout", json!(120))]),
        row("restartPolicy", json!({ "enabled": false }), [("/HostConfig/RestartPolicy/Name", json!("no"))]),
        row(
            "restartPolicy.ignoredExitCodes",
            json!({ "enabled": true, "ignoredExitCodes": [0] }),
            [("/HostConfig/RestartPolicy/Name", json!("on-failure"))],
        ),
        // Docker cannot tell these apart.
        row(
            "restartPolicy.ignoredExitCodes",
            json!({ "enabled": true, "ignoredExitCodes": [0, 3] }),
            [("/HostConfig/RestartPolicy/Name", json!("no"))],
        ),
        row(
            "logConfiguration",
            json!({ "logDriver": "fluentd", "options": { "fluentd-address": "127.0.0.1:24224", "fluentd-async": true } }),
            [(
                "/HostConfig/LogConfig",
                json!({ "Type": "fluentd", "Config": { "fluentd-address": "127.0.0.1:24224", "fluentd-async": "true" } }),
            )],
        ),
        row(
            "logConfiguration.options",
            json!({ "logDriver": "json-file", "options": { "max-size": "1m" } }),
            [("/HostConfig/LogConfig/Config", json!({ "max-size": "1m", "max-file": "3" }))],
        ),
        row(
            "mountPoints",
            json!([{ "sourceVolume": "host", "containerPath": "/m", "readOnly": true }]),
            [("/HostConfig/Binds", json!(["/srv/data:/m:ro"]))],
        ),
        row(
            "mountPoints[].readOnly",
            json!([{ "sourceVolume": "shared", "containerPath": "/m", "readOnly": true }]),
            [(
                "/HostConfig/Mounts",
                json!([volume(
                    "shared",
                    json!({ "ReadOnly": true, "VolumeOptions": { "Labels": { "a": "b", "dev.roadstead.cluster": "default", "dev.roadstead.volume": "shared" }, "DriverConfig": { "Name": "local", "Options": { "type": "tmpfs" } } } })
                )]),
            )],
        ),
        row(
            "volumesFrom",
            json!([{ "sourceContainer": "side", "readOnly": true }]),
            [("/HostConfig/VolumesFrom", json!(["rs-web-1-TASK-side:ro"]))],
        ),
        row(
            "ulimits",
            json!([{ "name": "nofile", "softLimit": 1024, "hardLimit": "2048" }, { "name": "core", "softLimit": -1, "hardLimit": -1 }]),
            [(
                "/HostConfig/Ulimits",
                json!([{ "Name": "nofile", "Soft": 1024, "Hard": 2048 }, { "Name": "core", "Soft": -1, "Hard": -1 }]),
            )],
        ),
        row("user", json!("1000:1000"), [("/User", json!("1000:1000"))]),
        row("workingDirectory", json!("/srv"), [("/WorkingDir", json!("/srv"))]),
        row("hostname", json!("app-1"), [("/Hostname", json!("app-1"))]),
        row(
            "extraHosts",
            json!([{ "hostname": "db", "ipAddress": "198.51.100.7" }]),
            [("/HostConfig/ExtraHosts", json!(["db:198.51.100.7"]))],
        ),
        row("dnsServers", json!(["198.51.100.53"]), [("/HostConfig/Dns", json!(["198.51.100.53"]))]),
        row("dnsSearchDomains", json!(["klp.local"]), [("/HostConfig/DnsSearch", json!(["klp.local"]))]),
        row("dockerLabels", json!({ "team": "red" }), [("/Labels/team", json!("red"))]),
        row(
            "dockerSecurityOptions",
            json!(["no-new-privileges", "apparmor:docker-default"]),
            [("/HostConfig/SecurityOpt", json!(["no-new-privileges", "apparmor=docker-default"]))],
        ),
        row(
            "linuxParameters.capabilities",
            json!({ "capabilities": { "add": ["SYS_PTRACE"], "drop": ["ALL"] } }),
            [("/HostConfig/CapAdd", json!(["SYS_PTRACE"])), ("/HostConfig/CapDrop", json!(["ALL"]))],
        ),
        row(
            "linuxParameters.devices",
            json!({ "devices": [{ "hostPath": "/dev/fuse", "containerPath": "/dev/f", "permissions": ["write", "read"] }, { "hostPath": "/dev/null" }] }),
            [(
                "/HostConfig/Devices",
                json!([
                    { "PathOnHost": "/dev/fuse", "PathInContainer": "/dev/f", "CgroupPermissions": "rw" },
                    { "PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rwm" },
                ]),
            )],
        ),
        row(
            "linuxParameters.initProcessEnabled",
            json!({ "initProcessEnabled": true }),
            [("/HostConfig/Init", json!(true))],
        ),
        row(
            "linuxParameters.sharedMemorySize",
            json!({ "sharedMemorySize": "128Mi" }),
            [("/HostConfig/ShmSize", json!(128 * MIB))],
        ),
        row(
            "linuxParameters.tmpfs",
            json!({ "tmpfs": [{ "containerPath": "/run", "size": 64, "mountOptions": ["noexec", "mode=1777"] }] }),
            [("/HostConfig/Tmpfs", json!({ "/run": "size=64m,noexec,mode=1777" }))],
        ),
        row("linuxParameters.maxSwap", json!({ "maxSwap": 64 }), [("/HostConfig/MemorySwap", json!(192 * MIB))]),
        row(
            "linuxParameters.swappiness",
            json!({ "maxSwap": 0, "swappiness": 10 }),
            [("/HostConfig/MemorySwappiness", json!(10)), ("/HostConfig/MemorySwap", json!(128 * MIB))],
        ),
        row("privileged", json!(true), [("/HostConfig/Privileged", json!(true))]),
        row("readonlyRootFilesystem", json!(true), [("/HostConfig/ReadonlyRootfs", json!(true))]),
        row("pseudoTerminal", json!(true), [("/Tty", json!(true))]),
        row("interactive", json!("true"), [("/OpenStdin", json!(true))]),
        row(
            "systemControls",
            json!([{ "namespace": "net.core.somaxconn", "value": 1024 }]),
            [("/HostConfig/Sysctls", json!({ "net.core.somaxconn": "1024" }))],
        ),
        row(
            "resourceRequirements",
            json!([{ "type": "GPU", "value": "2" }]),
            [("/HostConfig/DeviceRequests", json!([{ "Count": 2, "Capabilities": [["gpu"]] }]))],
        ),
        row(
            "links",
            json!(["side:db", "side"]),
            [("/HostConfig/Links", json!(["rs-web-1-TASK-side:db", "rs-web-1-TASK-side:side"]))],
        ),
        row("disableNetworking", json!(true), [("/HostConfig/NetworkMode", json!("none"))]),
    ]
}

/// Fields of a task.
pub fn of_a_task() -> Vec<Row> {
    let mounted = |name: &str, options: Value| json!([{ "Type": "volume", "Source": name, "Target": "/v", "VolumeOptions": options }]);
    vec![
        row("family", json!("frontend"), [("/Labels/dev.roadstead.revision", json!("frontend:1"))]),
        row("networkMode", json!("host"), [("/HostConfig/NetworkMode", json!("host"))]),
        row("cpu", json!("0.5"), [("/HostConfig/NanoCpus", json!(500_000_000))]),
        row("pidMode", json!("host"), [("/HostConfig/PidMode", json!("host"))]),
        row("ipcMode", json!("none"), [("/HostConfig/IpcMode", json!("none"))]),
        row(
            "volumes[].host",
            json!([{ "name": "v", "host": { "sourcePath": "/srv/v" } }]),
            [("/HostConfig/Binds", json!(["/srv/v:/v"]))],
        ),
        row(
            "volumes[].name",
            json!([{ "name": "v", "host": {} }]),
            [("/HostConfig/Mounts", mounted("rs-task-TASK-v", json!({ "Labels": of_task("rs-task-TASK-v") })))],
        ),
        row(
            "volumes[].dockerVolumeConfiguration",
            json!([{ "name": "vv", "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true, "driver": "local", "driverOpts": { "type": "tmpfs", "device": "tmpfs" }, "labels": { "a": 1 } } }]),
            [(
                "/HostConfig/Mounts",
                mounted(
                    "vv",
                    json!({ "Labels": { "a": "1", "dev.roadstead.cluster": "default", "dev.roadstead.volume": "vv" }, "DriverConfig": { "Name": "local", "Options": { "type": "tmpfs", "device": "tmpfs" } } }),
                ),
            )],
        ),
        row(
            "volumes[].efsVolumeConfiguration",
            json!([{ "name": "v", "efsVolumeConfiguration": { "fileSystemId": "fs-1", "rootDirectory": "/web/data" } }]),
            [(
                "/HostConfig/Mounts/0/VolumeOptions",
                json!({
                    "NoCopy": true,
                    "Labels": { "dev.roadstead.file-system": "fs-1" },
                    "DriverConfig": { "Name": "local", "Options": {
                        "type": "nfs",
                        "o": "addr=nas.example.com,nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport",
                        "device": ":/export/web/data",
                    } },
                }),
            )],
        ),
    ]
}

/// The labels of a volume that ends with its task.
fn of_task(volume: &str) -> Value {
    json!({ "dev.roadstead.service": "web", "dev.roadstead.task": "TASK", "dev.roadstead.volume": volume })
}

const FILES: [(&str, &str); 3] = [
    ("app.env", "# ours\nFROM_FILE=\"first\" \nROADSTEAD_HOST=mine\n"),
    ("more.env", "FROM_FILE=second\nALSO=more\n"),
    (
        "cluster.yaml",
        "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: { name: default }\nspec: { fileSystems: { fs-1: 'nas.example.com:/export/' } }\n",
    ),
];

/// What is asked for the containers of a definition, without our own variables.
fn asked(definition: &Value, more: &[(&str, &str)]) -> BTreeMap<String, Value> {
    let service = json!({
        "apiVersion": "roadstead/v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "desiredCount": 1, "taskDefinition": definition },
    });
    let text = service.to_string();
    let files: Vec<(&str, &str)> =
        [("host.yaml", HOST), ("web.json", &text)].into_iter().chain(FILES).chain(more.iter().copied()).collect();
    let admission = admitted(&files);
    assert!(!admission.has_errors(), "{definition}\n{}", render(&admission.diagnostics, false));
    let mut bodies = bodies(&launched(&admission.desired));
    for body in bodies.values_mut() {
        let ours = |variable: &Value| {
            variable.as_str().is_some_and(|text| text.starts_with("ROADSTEAD_") && text != "ROADSTEAD_HOST=mine")
        };
        body["Env"].as_array_mut().unwrap().retain(|variable| !ours(variable));
    }
    bodies
}

fn definition() -> Value {
    json!({
        "containerDefinitions": [
            { "name": "side", "image": "demo:1", "memory": 32 },
            { "name": "app", "image": "demo:1", "memory": 128 },
        ],
        "volumes": [
            { "name": "host", "host": { "sourcePath": "/srv/data" } },
            { "name": "shared", "dockerVolumeConfiguration": { "scope": "shared", "driverOpts": { "type": "tmpfs" }, "labels": { "a": "b" } } },
        ],
    })
}

fn holds(row: &Row, before: &Value, after: &Value) {
    for (pointer, expected) in &row.asked {
        assert_eq!(after.pointer(pointer), Some(expected), "{} at {pointer}: {after:#}", row.field);
        assert_ne!(before.pointer(pointer), Some(expected), "{}: that stands there anyway", row.field);
    }
}

/// Of a path its first step: the field that is written.
fn first(field: &str) -> &str {
    field.split(['.', '[']).next().unwrap()
}

#[test]
fn containers_get_what_their_fields_say() {
    let before = &asked(&definition(), &[])["app"];
    for row in of_a_container() {
        let mut definition = definition();
        definition["containerDefinitions"][1][first(row.field)] = row.written.clone();
        holds(&row, before, &asked(&definition, &[])["app"]);
    }
}

#[test]
fn tasks_give_their_containers_what_they_say() {
    let before = &asked(&definition(), &[])["app"];
    for row in of_a_task() {
        let mut definition = definition();
        definition[first(row.field)] = row.written.clone();
        if first(row.field) == "volumes" {
            definition["containerDefinitions"][1]["mountPoints"] =
                json!([{ "sourceVolume": row.written[0]["name"], "containerPath": "/v" }]);
        }
        holds(&row, before, &asked(&definition, &[])["app"]);
    }
}

/// What is not asked for is not in the request: a host without SELinux, swap or GPUs never hears of them.
#[test]
fn what_nobody_says_is_not_asked_for() {
    let body = &asked(&definition(), &[])["app"];
    let said: Vec<&str> = body["HostConfig"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        said,
        [
            "CpuShares",
            "LogConfig",
            "Memory",
            "NetworkMode",
            "PortBindings",
            "Privileged",
            "ReadonlyRootfs",
            "RestartPolicy"
        ]
    );
    // Docker would take 1024 for nothing said; ECS's agent says the least there is.
    assert_eq!(body["HostConfig"]["CpuShares"], 2);
}

/// Its log driver needs AWS: the cluster says where the output goes, and Docker's own file is where it goes by itself.
#[test]
fn logs_are_taken_over() {
    let rotated = json!({ "Type": "json-file", "Config": { "max-size": "10m", "max-file": "3" } });
    let journal = json!({ "Type": "journald", "Config": { "tag": "fleet" } });
    let cluster = "apiVersion: roadstead/v1\nkind: Cluster\nmetadata: { name: default }\nspec: { logging: { logDriver: journald, options: { tag: fleet } } }\n";
    for driver in ["awslogs", "awsfirelens", "loki"] {
        let mut definition = definition();
        let log = json!({ "logDriver": driver, "options": { "awslogs-group": "/ecs/web" }, "secretOptions": [] });
        definition["containerDefinitions"][1]["logConfiguration"] = log;
        assert_eq!(asked(&definition, &[])["app"]["HostConfig"]["LogConfig"], rotated, "{driver}");
        let with_cluster = asked(&definition, &[("cluster.yaml", cluster)]);
        assert_eq!(with_cluster["app"]["HostConfig"]["LogConfig"], journal, "{driver}");
        assert_eq!(with_cluster["side"]["HostConfig"]["LogConfig"], journal, "what says nothing goes there, too");
    }
}

/// The first container that stays holds the namespaces; what ends before it has its own.
#[test]
fn namespaces_of_a_task_are_those_of_its_first_container_that_stays() {
    let definition = json!({
        "pidMode": "task", "ipcMode": "task", "memory": 256,
        "containerDefinitions": [
            { "name": "app", "image": "demo:1", "dependsOn": [{ "containerName": "init", "condition": "SUCCESS" }] },
            { "name": "init", "image": "demo:1", "essential": false },
            { "name": "side", "image": "demo:1", "essential": false },
        ],
    });
    let bodies = asked(&definition, &[]);
    let modes =
        |name: &str| (bodies[name]["HostConfig"]["PidMode"].clone(), bodies[name]["HostConfig"]["IpcMode"].clone());
    let with_app = json!("container:rs-web-1-TASK-app");
    assert_eq!(modes("init"), (Value::Null, Value::Null));
    assert_eq!(modes("app"), (Value::Null, json!("shareable")));
    assert_eq!(modes("side"), (with_app.clone(), with_app));
}

/// Docker joins a container only to one that runs, and takes mounts only from one that is there.
#[test]
fn whoever_needs_another_comes_after_it() {
    let starts = |definition: Value| {
        let text = json!({
            "apiVersion": "roadstead/v1", "kind": "Service", "metadata": { "name": "web" },
            "spec": { "desiredCount": 1, "taskDefinition": definition },
        });
        let text = text.to_string();
        let admission = admitted(&[("host.yaml", HOST), ("web.json", &text)]);
        assert!(!admission.has_errors(), "{}", render(&admission.diagnostics, false));
        launched(&admission.desired)
            .into_iter()
            .map(|step| (step.container.to_string(), step.start))
            .collect::<Vec<_>>()
    };
    let pair = |name: &str, start: bool| (name.to_owned(), start);
    for needs in [json!({ "links": ["b"] }), json!({ "volumesFrom": [{ "sourceContainer": "b" }] })] {
        let mut app = json!({ "name": "a", "image": "demo:1", "memory": 16 });
        app.as_object_mut().unwrap().extend(needs.as_object().unwrap().clone());
        let definition = json!({ "containerDefinitions": [app, { "name": "b", "image": "demo:1", "memory": 16 }] });
        assert_eq!(starts(definition), [pair("b", true), pair("a", true)], "{needs}");
    }
    // What is joined to another waits as long as that does itself.
    for (task, side) in [(json!({ "pidMode": "task" }), json!({})), (json!({}), json!({ "links": ["app"] }))] {
        let mut definition = json!({
            "memory": 64,
            "containerDefinitions": [
                { "name": "app", "image": "demo:1", "dependsOn": [{ "containerName": "init", "condition": "SUCCESS" }] },
                { "name": "init", "image": "demo:1", "essential": false },
                { "name": "side", "image": "demo:1", "essential": false },
            ],
        });
        definition.as_object_mut().unwrap().extend(task.as_object().unwrap().clone());
        definition["containerDefinitions"][2].as_object_mut().unwrap().extend(side.as_object().unwrap().clone());
        let started = [pair("init", true), pair("app", false), pair("side", false)];
        assert_eq!(starts(definition), started, "{task} {side}");
    }
}

/// A changed file is a new revision; a field that is not there does not change the hash that a revision had before there was it.
#[test]
fn the_hash_is_of_files_too_and_of_nothing_that_is_not_there() {
    let hash = |environment: &str| {
        let text = json!({ "family": "web", "memory": 64, "containerDefinitions": [{ "name": "a", "image": "demo:1", "environmentFiles": [{ "value": "app.env" }] }] });
        let text = text.to_string();
        let admission = admitted(&[("web.json", &text), ("app.env", environment)]);
        assert!(!admission.has_errors(), "{}", render(&admission.diagnostics, false));
        admission.desired.task_definitions["web"].spec.hash().to_owned()
    };
    assert_ne!(hash("A=1\n"), hash("A=2\n"));
    assert_eq!(hash("A=1\n"), hash("# the same\nA=1\n"));
    let text = json!({ "family": "web", "cpu": "256", "memory": 64, "containerDefinitions": [
        { "name": "a", "image": "demo:1", "command": ["x"], "environment": [{ "name": "A", "value": "b" }],
          "portMappings": [{ "containerPort": 80 }], "restartPolicy": { "enabled": true } } ] });
    let admission = admitted(&[("web.json", &text.to_string())]);
    let hash = admission.desired.task_definitions["web"].spec.hash().to_owned();
    assert_eq!(hash, "4a5ef97708e610ef411b3320f8c9700717d9ee6a62b8625f065f41c67e7ca9d9");
}
