//! The fields of a task definition, seen from inside the containers that carry them.

use std::fs;

use serde_json::Value;

use crate::support::{Controller, Lab, MINUTE, busybox, capabilities, own_capabilities, until};

const HOST: &str = "host-a";

/// A folder of the host, whose /tmp goes with the lab; not there at first.
const OF_HOST: &str = "/tmp/made/on/demand";

/// `base` comes first: others are linked to it, join its namespaces and have its mounts.
const SERVICE: &str = r#"
apiVersion: roadstead/v1
kind: Service
metadata: { name: fields }
spec:
  desiredCount: 1
  minimumHealthySeconds: 1
  taskDefinition:
    memory: 64
    cpu: 0.5
    pidMode: task
    ipcMode: task
    volumes:
      - { name: empty }
      - { name: folder, host: { sourcePath: FOLDER } }
      - name: shared-fields
        dockerVolumeConfiguration:
          { scope: shared, autoprovision: true, driver: local, driverOpts: { type: tmpfs, device: tmpfs, o: "size=1m" }, labels: { team: red } }
    containerDefinitions:
      - { name: first, image: 'busybox:1', essential: false, command: [/bin/touch, /empty/made], mountPoints: [{ sourceVolume: empty, containerPath: /empty }] }
      - name: base
        image: 'busybox:1'
        entryPoint: [/bin/sh, -c]
        command: ["echo printed by base; exec sleep 1000000"]
        dependsOn: [{ containerName: first, condition: SUCCESS }]
        cpu: 128
        memory: 48
        memoryReservation: 32
        stopTimeout: 2
        pseudoTerminal: true
        healthCheck: { command: [CMD, /bin/ls, /folder], interval: 5s, timeout: 3s, retries: 4, startPeriod: 1s }
        portMappings: [{ containerPortRange: 9000-9002 }, { containerPort: 9100, hostPort: 19100, protocol: udp }]
        linuxParameters: { initProcessEnabled: true, sharedMemorySize: 32 }
        mountPoints:
          - { sourceVolume: empty, containerPath: /empty }
          - { sourceVolume: folder, containerPath: /folder }
          - { sourceVolume: shared-fields, containerPath: /shared }
      - name: app
        image: 'busybox:1'
        command: [/bin/sh, -c, "echo printed by app; exec sleep 1000000"]
        stopTimeout: 2
        links: ["base:alias"]
        volumesFrom: [{ sourceContainer: base, readOnly: true }]
        mountPoints: [{ sourceVolume: empty, containerPath: /same, readOnly: true }]
        environmentFiles: [{ value: fields.env }]
        environment: { BOTH: written }
        user: "1000:1000"
        workingDirectory: /scratch
        hostname: fields-host
        extraHosts: [{ hostname: extra, ipAddress: 198.51.100.7 }]
        dnsServers: [198.51.100.53]
        dnsSearchDomains: [klp.local]
        dockerLabels: { team: blue }
        dockerSecurityOptions: [no-new-privileges]
        logConfiguration: { logDriver: local, options: { max-size: 1m } }
        readonlyRootFilesystem: true
        ulimits: [{ name: nofile, softLimit: 512, hardLimit: 1024 }]
        systemControls: [{ namespace: net.core.somaxconn, value: 321 }]
        linuxParameters:
          maxSwap: 16
          swappiness: 10
          capabilities: { add: [SYS_PTRACE], drop: [NET_RAW] }
          devices: [{ hostPath: /dev/zero, containerPath: /dev/nothing, permissions: [read] }]
          tmpfs: [{ containerPath: /scratch, size: 16, mountOptions: [noexec, mode=1777] }]
      - { name: reader, image: 'busybox:1', command: [/bin/cat], stopTimeout: 2, interactive: true, disableNetworking: true }
      - { name: mighty, image: 'busybox:1', command: [/bin/sleep, '1000000'], stopTimeout: 2, privileged: PRIVILEGED, restartPolicy: { enabled: true, ignoredExitCodes: [0] } }
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: on-host }
spec:
  desiredCount: 1
  minimumHealthySeconds: 1
  taskDefinition:
    networkMode: host
    containerDefinitions: [{ name: host, image: 'busybox:1', memory: 16, stopTimeout: 1, command: [/bin/sleep, '1000000'] }]
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: alone }
spec:
  desiredCount: 1
  minimumHealthySeconds: 1
  taskDefinition:
    networkMode: none
    containerDefinitions: [{ name: none, image: 'busybox:1', memory: 16, stopTimeout: 1, command: [/bin/sleep, '1000000'] }]
"#;

/// Its `main` waits for what never comes.
const LATE: &str = "
apiVersion: roadstead/v1
kind: Service
metadata: { name: late }
spec:
  desiredCount: 1
  taskDefinition:
    containerDefinitions:
      - { name: never, image: 'busybox:1', memory: 16, startTimeout: 3s, stopTimeout: 1, command: [/bin/sleep, '1000000'], healthCheck: { command: [CMD, /bin/ls, /nowhere] } }
      - { name: main, image: 'busybox:1', memory: 16, command: [/bin/cat], dependsOn: [{ containerName: never, condition: HEALTHY }] }
";

/// A field, a container, and what then stands where when Docker shows it.
const INSPECTED: [(&str, &str, &str, &str); 28] = [
    ("family", "base", "/Config/Labels/dev.roadstead.revision", r#""fields:1""#),
    ("networkMode", "host", "/HostConfig/NetworkMode", r#""host""#),
    ("networkMode", "none", "/HostConfig/NetworkMode", r#""none""#),
    ("networkMode", "base", "/HostConfig/NetworkMode", r#""bridge""#),
    ("cpu", "base", "/HostConfig/NanoCpus", "500000000"),
    ("cpu", "base", "/HostConfig/CpuShares", "128"),
    ("memory", "app", "/HostConfig/Memory", "67108864"),
    ("memory", "base", "/HostConfig/Memory", "50331648"),
    ("memoryReservation", "base", "/HostConfig/MemoryReservation", "33554432"),
    ("image", "base", "/Config/Image", r#""busybox:1""#),
    ("entryPoint", "base", "/Config/Entrypoint", r#"["/bin/sh", "-c"]"#),
    ("command", "base", "/Config/Cmd", r#"["echo printed by base; exec sleep 1000000"]"#),
    ("stopTimeout", "base", "/Config/StopTimeout", "2"),
    (
        "healthCheck",
        "base",
        "/Config/Healthcheck",
        r#"{ "Test": ["CMD", "/bin/ls", "/folder"], "Interval": 5000000000, "Timeout": 3000000000, "Retries": 4, "StartPeriod": 1000000000 }"#,
    ),
    ("healthCheck", "base", "/State/Health/Status", r#""healthy""#),
    ("portMappings", "base", "/HostConfig/PortBindings/9100~1udp/0/HostPort", r#""19100""#),
    ("portMappings[].containerPortRange", "base", "/Config/ExposedPorts/9002~1tcp", "{}"),
    ("essential", "first", "/State/Status", r#""exited""#),
    ("logConfiguration", "app", "/HostConfig/LogConfig/Type", r#""local""#),
    ("logConfiguration.options", "app", "/HostConfig/LogConfig/Config", r#"{ "max-size": "1m" }"#),
    ("logConfiguration.options", "base", "/HostConfig/LogConfig/Config", r#"{ "max-size": "10m", "max-file": "3" }"#),
    ("linuxParameters.devices", "app", "/HostConfig/Devices/0/CgroupPermissions", r#""r""#),
    ("linuxParameters.maxSwap", "app", "/HostConfig/MemorySwap", "83886080"),
    ("linuxParameters.swappiness", "app", "/HostConfig/MemorySwappiness", "10"),
    ("restartPolicy", "base", "/HostConfig/RestartPolicy/Name", r#""unless-stopped""#),
    ("restartPolicy.ignoredExitCodes", "mighty", "/HostConfig/RestartPolicy/Name", r#""on-failure""#),
    ("interactive", "reader", "/Config/OpenStdin", "true"),
    ("dockerLabels", "app", "/Config/Labels/team", r#""blue""#),
];

/// The containers of tasks.
struct Task<'a> {
    lab: &'a Lab,
    names: Vec<String>,
}

impl<'a> Task<'a> {
    /// The running ones of a service.
    fn of(lab: &'a Lab, service: &str) -> Self {
        Self { lab, names: lab.running(&[HOST], service).into_iter().collect() }
    }

    /// All that there are.
    fn all(lab: &'a Lab) -> Self {
        Self { lab, names: lab.truth_of(HOST).into_values().map(|(name, _)| name).collect() }
    }

    fn name(&self, container: &str) -> &str {
        self.names.iter().find(|name| name.ends_with(&format!("-{container}"))).unwrap()
    }

    /// What a volume that lives as long as this task is named on its host.
    fn volume(&self, name: &str) -> String {
        let id = self
            .lab
            .docker(HOST, &["inspect", "--format", "{{index .Config.Labels \"dev.roadstead.task\"}}", &self.names[0]]);
        format!("rs-task-{}-{name}", id.trim())
    }

    /// What a line of the shell prints.
    fn sh(&self, container: &str, line: &str) -> String {
        self.lab.docker(HOST, &["exec", self.name(container), "/bin/sh", "-c", line]).trim().to_owned()
    }

    fn inspect(&self, container: &str) -> Value {
        let text = self.lab.docker(HOST, &["inspect", self.name(container)]);
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }
}

fn same(field: &str, found: impl AsRef<str>, expected: &str) {
    assert_eq!(found.as_ref(), expected, "{field}");
}

fn has(field: &str, found: impl AsRef<str>, part: &str) {
    let found = found.as_ref();
    assert!(found.contains(part), "{field}: {part:?} is not in {found:?}");
}

fn volumes(lab: &Lab) -> Vec<String> {
    lab.docker(HOST, &["volume", "ls", "-q"]).lines().map(str::to_owned).collect()
}

fn lab(name: &str) -> Lab {
    let lab = Lab::with(name, "1");
    let folder = tempfile::tempdir().unwrap();
    let names = ["sh", "sleep", "cat", "id", "pwd", "ls", "readlink", "head", "grep", "hostname", "touch", "wc", "df"];
    lab.import(HOST, &busybox(folder.path(), &names), "busybox");
    lab
}

#[test]
#[ignore = "needs a lab"]
fn every_field_is_seen_inside() {
    let lab = lab("fields");
    // A machine that lacks a capability itself starts nothing privileged.
    let ours = own_capabilities();
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    let privileged = ours.count_ones() == last + 1;
    let service = SERVICE.replace("FOLDER", OF_HOST).replace("PRIVILEGED", &privileged.to_string());
    let controller = Controller::start(
        &lab,
        &[("fields.env", "FROM_FILE=\"kept as it is\"\nBOTH=file\n"), ("fields.yaml", &service)],
    );
    controller.wait_steady();
    let task = Task::of(&lab, "fields");
    same("containerDefinitions", task.names.len().to_string(), "4");
    same("dependsOn", task.sh("base", "ls /empty"), "made");
    has("name", task.name("base"), "-base");
    let all = Task::all(&lab);
    for (field, container, pointer, expected) in INSPECTED {
        let expected: Value = serde_json::from_str(expected).unwrap();
        assert_eq!(all.inspect(container).pointer(pointer), Some(&expected), "{field}: {pointer} of {container}");
    }

    let status = task.sh("app", "cat /proc/self/status");
    same("user", task.sh("app", "id -u && id -g"), "1000\n1000");
    same("workingDirectory", task.sh("app", "pwd"), "/scratch");
    same("hostname", task.sh("app", "hostname"), "fields-host");
    has("environmentFiles", task.sh("app", "echo \"$FROM_FILE\""), "\"kept as it is\"");
    same("environment", task.sh("app", "echo \"$BOTH\""), "written");
    has("extraHosts", task.sh("app", "cat /etc/hosts"), "198.51.100.7\textra");
    has("links", task.sh("app", "cat /etc/hosts"), "alias");
    has("dnsServers", task.sh("app", "cat /etc/resolv.conf"), "nameserver 198.51.100.53");
    has("dnsSearchDomains", task.sh("app", "cat /etc/resolv.conf"), "search klp.local");
    has("ulimits", task.sh("app", "grep 'open files' /proc/self/limits"), "512                  1024");
    same("systemControls", task.sh("app", "cat /proc/sys/net/core/somaxconn"), "321");
    has("dockerSecurityOptions", &status, "NoNewPrivs:\t1");
    let (net_raw, sys_ptrace) = (1 << 13, 1 << 19);
    let bounds = capabilities(&status, "CapBnd");
    same("linuxParameters.capabilities", format!("{:x}", bounds & (net_raw | sys_ptrace)), &format!("{sys_ptrace:x}"));
    same("linuxParameters.devices", task.sh("app", "head -c 7 /dev/nothing | wc -c"), "7");
    let scratch = task.sh("app", "grep ' /scratch ' /proc/mounts");
    has("linuxParameters.tmpfs", &scratch, "size=16384k");
    has("linuxParameters.tmpfs", &scratch, "noexec");
    has("linuxParameters.initProcessEnabled", task.sh("base", "cat /proc/1/comm"), "docker-init");
    has("linuxParameters.sharedMemorySize", task.sh("base", "df -k /dev/shm"), " 32768 ");

    // One set of processes, one shared memory.
    has("pidMode", task.sh("app", "cat /proc/1/comm"), "docker-init");
    task.sh("base", "echo seen > /dev/shm/word");
    same("ipcMode", task.sh("app", "cat /dev/shm/word"), "seen");

    task.sh("base", "echo one > /empty/word; echo two > /folder/word; echo three > /shared/word");
    same("volumes[].name", task.sh("app", "cat /same/word"), "one");
    same("mountPoints", task.sh("app", "cat /empty/word"), "one");
    has("mountPoints[].readOnly", task.sh("app", "grep ' /same ' /proc/mounts"), " ro,");
    same("volumes[].host", lab.lab(&["ssh", HOST, &format!("cat {OF_HOST}/word")]).trim(), "two");
    same("volumesFrom", task.sh("app", "cat /folder/word /shared/word"), "two\nthree");
    has("volumesFrom", task.sh("app", "grep ' /folder ' /proc/mounts"), " ro,");
    has("volumes[].dockerVolumeConfiguration", task.sh("base", "grep ' /shared ' /proc/mounts"), "tmpfs");
    let label = lab.docker(HOST, &["volume", "inspect", "--format", "{{.Labels.team}}", "shared-fields"]);
    same("volumes[].dockerVolumeConfiguration", label.trim(), "red");

    same("readonlyRootFilesystem", task.sh("app", "touch /bin/x 2>/dev/null || echo refused"), "refused");
    same("disableNetworking", task.sh("reader", "ls /sys/class/net"), "lo");
    same("pseudoTerminal", task.sh("base", "readlink /proc/1/fd/1"), "/dev/pts/0");
    let effective = capabilities(&task.sh("mighty", "cat /proc/self/status"), "CapEff");
    same("privileged", (effective == ours).to_string(), &privileged.to_string());
    let ports = task.inspect("base")["NetworkSettings"]["Ports"].as_object().unwrap().len();
    same("portMappings", ports.to_string(), "4");
    // From a terminal, and through a driver that is not Docker's usual one.
    let logs = controller.cli(&["logs", "fields"]);
    has("pseudoTerminal", &logs, "printed by base");
    has("logConfiguration", &logs, "printed by app");

    controller.write("late.yaml", LATE);
    let told = || controller.cli(&["events", "-n", "500"]);
    until("what never comes is given up", MINUTE, || told().contains("main waits for never to be healthy, and did so"));
    has("startTimeout", told(), "for longer than the startTimeout of 3 s");
}

#[test]
#[ignore = "needs a lab"]
fn a_changed_file_is_deployed_and_a_tasks_volume_goes_with_it() {
    let lab = lab("volumes");
    let service = "apiVersion: roadstead/v1\nkind: Service\nmetadata: { name: keeper }\nspec:\n  desiredCount: 1\n  minimumHealthySeconds: 1\n  taskDefinition:\n    volumes: [{ name: scratch }, { name: kept-volume, dockerVolumeConfiguration: { scope: shared } }]\n    containerDefinitions:\n      - { name: a, image: 'busybox:1', memory: 16, stopTimeout: 1, command: [/bin/sleep, '1000000'], environmentFiles: [{ value: a.env }], mountPoints: [{ sourceVolume: scratch, containerPath: /m }] }\n      - { name: b, image: 'busybox:1', memory: 16, stopTimeout: 1, command: [/bin/sleep, '1000000'], mountPoints: [{ sourceVolume: scratch, containerPath: /m }, { sourceVolume: kept-volume, containerPath: /kept }] }\n";
    let controller = Controller::start(&lab, &[("a.env", "WORD=first\n"), ("keeper.yaml", service)]);

    // Nobody made the shared volume yet, and nothing makes it by itself.
    until("it says which volume is missing", MINUTE, || {
        controller.cli(&["get", "tasks", "-o", "json"]).contains("there is no volume `kept-volume` on this host")
    });
    assert!(!volumes(&lab).contains(&"kept-volume".to_owned()));
    lab.docker(HOST, &["volume", "create", "kept-volume"]);
    controller.wait_steady();
    // Containers of the failed starts are kept for their logs, and so are their volumes: the running task's is meant.
    let task = Task::of(&lab, "keeper");
    let first = task.volume("scratch");
    assert!(volumes(&lab).contains(&first), "{first}");
    same("environmentFiles", task.sh("a", "echo $WORD"), "first");
    task.sh("a", "echo here > /m/word");
    same("volumes[].name", task.sh("b", "cat /m/word"), "here");
    let before: Vec<String> = task.names.clone();

    controller.write("a.env", "WORD=second\n");
    until("the changed file runs", 2 * MINUTE, || {
        let task = Task::of(&lab, "keeper");
        task.names.len() == 2 && task.names.iter().all(|name| !before.contains(name))
    });
    controller.wait_steady();
    same("environmentFiles", Task::of(&lab, "keeper").sh("a", "echo $WORD"), "second");
    same("volumes[].name", Task::of(&lab, "keeper").sh("b", "ls /m"), "");
    until("the old task's volume is gone", MINUTE, || !volumes(&lab).contains(&first));
    let second = Task::of(&lab, "keeper").volume("scratch");
    assert!(volumes(&lab).contains(&second), "{second}");

    controller.write("keeper.yaml", &service.replace("desiredCount: 1", "desiredCount: 0"));
    until("its volume is gone", MINUTE, || !volumes(&lab).contains(&second));
    assert!(lab.running(&[HOST], "keeper").is_empty());
    assert!(volumes(&lab).contains(&"kept-volume".to_owned()), "a shared volume stays");
}
