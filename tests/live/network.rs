//! Tasks with addresses of their own, on real hosts: who reaches whom, under which names, and what mends itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    time::Duration,
};

use crate::support::{Controller, Lab, MINUTE, until};

/// What a host has of network, to be the same before and after.
pub const TRACES: &str = "ip -o link | cut -d: -f2 | sort; ip -4 route; nft list tables; iptables -S DOCKER-USER; \
    docker ps -a --format '{{.Names}}'; docker network ls --format '{{.Name}}' | sort; docker volume ls -q";

/// One name server question: how many addresses, or -1 when the name is not known.
pub const ASK: &str = r#"
import socket, struct, sys
name, server, kind = sys.argv[1], sys.argv[2], int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
q = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0" + struct.pack(">HH", kind, 1)
s.sendto(q, (server, 53)); r = s.recv(4096)
if r[3] & 15: print("unknown"); sys.exit()
at, found = len(q), []
for _ in range(struct.unpack(">H", r[6:8])[0]):
    at += 2; t, _, _, n = struct.unpack(">HHIH", r[at:at + 10]); at += 10
    found.append(".".join(map(str, r[at:at + 4])) if t == 1 else str(struct.unpack(">H", r[at + 4:at + 6])[0])); at += n
print(" ".join(found))
"#;

/// The same again and again until a file is there: each address that is answered must take a connection.
pub const ASK_ON: &str = r#"
import os, socket, struct, sys, time
name, server, kind, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
q = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0" + struct.pack(">HH", kind, 1)
answers, end = 0, time.time() + 240
while not os.path.exists(stop) and time.time() < end:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
    try:
        s.sendto(q, (server, 53)); r = s.recv(4096)
    except OSError as e:
        print("no answer", e); continue
    at, n = len(q), struct.unpack(">H", r[6:8])[0]
    if n == 0 or r[3] & 15: print("nothing", r[3] & 15)
    for _ in range(n):
        address = ".".join(map(str, r[at + 12:at + 16])); at += 16
        try: socket.create_connection((address, 8080), 2).close()
        except OSError as e: print(address, "was answered and does not answer", e)
    answers += 1
    time.sleep(0.02)
print("answers", answers)
"#;

/// A service of one container on port 8080, in some groups.
pub fn service(name: &str, count: u32, groups: &str, more: &str) -> String {
    format!(
        "
apiVersion: roadstead/v1
kind: Service
metadata: {{ name: {name} }}
spec:
  desiredCount: {count}
  minimumHealthySeconds: 1
  networkConfiguration: {{ awsvpcConfiguration: {{ securityGroups: [{groups}] }} }}
  taskDefinition:
    networkMode: awsvpc
    containerDefinitions:
      - {{ name: main, image: 'roadstead/demo:1', memory: 16, stopTimeout: 1, environment: {{ PORT: 8080 }}, portMappings: [{{ containerPort: 8080 }}] }}
{more}"
    )
}

pub fn group(name: &str, ingress: &str) -> String {
    format!(
        "\n---\napiVersion: roadstead/v1\nkind: SecurityGroup\nmetadata: {{ name: {name} }}\nspec: {{ ingress: [{ingress}] }}\n"
    )
}

pub fn tcp(port: u16, source: &str) -> String {
    format!("{{ protocol: tcp, fromPort: {port}, sources: [{{ {source} }}] }}")
}

/// A running task: where, its address, and a process in its network.
#[derive(Clone, Debug)]
pub struct Place {
    pub id: String,
    pub host: String,
    pub address: Ipv4Addr,
    pub pid: String,
}

pub struct Fleet {
    pub lab: Lab,
    pub controller: Controller,
}

impl Fleet {
    pub fn with(name: &str, hosts: &str, manifests: &[(&str, &str)]) -> Self {
        let lab = Lab::with(name, hosts);
        let controller = Controller::start(&lab, manifests);
        Self { lab, controller }
    }

    pub fn ssh(&self, host: &str, command: &str) -> String {
        self.lab.lab(&["ssh", host, command])
    }

    /// The RUNNING tasks of a service.
    pub fn tasks(&self, service: &str) -> Vec<Place> {
        let tasks = self.controller.items("tasks");
        let ours = tasks.iter().filter(|task| {
            task["group"] == format!("service:{service}")
                && task["lastStatus"] == "RUNNING"
                && task["desiredStatus"] == "RUNNING"
        });
        ours.filter_map(|task| {
            let text = |field: &str| task[field].as_str().unwrap_or_else(|| panic!("{field} of {task}")).to_owned();
            let (id, host) = (text("taskId"), text("host"));
            let names = self
                .lab
                .docker(&host, &["ps", "--filter", &format!("name={id}-task.sandbox"), "--format", "{{.Names}}"]);
            // It may have ended meanwhile.
            let name = names.lines().next()?;
            let pid = self.lab.docker(&host, &["inspect", "--format", "{{.State.Pid}}", name]);
            Some(Place { id, host, address: text("privateIp").parse().unwrap(), pid: pid.trim().to_owned() })
        })
        .collect()
    }

    /// Whether a connection is made from inside a task.
    pub fn reaches(&self, from: &Place, to: Ipv4Addr, port: u16) -> bool {
        let command =
            format!("nsenter -t {} -n curl -s -o /dev/null -m 2 http://{to}:{port}/ && echo yes || true", from.pid);
        self.ssh(&from.host, &command).trim() == "yes"
    }

    pub fn host_reaches(&self, host: &str, to: Ipv4Addr, port: u16) -> bool {
        self.ssh(host, &format!("curl -s -o /dev/null -m 2 http://{to}:{port}/ && echo yes || true")).trim() == "yes"
    }

    /// What a task is answered for a name; nothing when nobody answers.
    fn ask(&self, from: &Place, name: &str, kind: u8) -> String {
        let [a, b, c, _] = from.address.octets();
        let command = format!("nsenter -t {} -n python3 -c '{ASK}' {name} {a}.{b}.{c}.1 {kind} 2>&1 || true", from.pid);
        self.ssh(&from.host, &command).trim().to_owned()
    }

    pub fn addresses(&self, from: &Place, name: &str) -> BTreeSet<String> {
        self.ask(from, name, 1).split_whitespace().map(str::to_owned).collect()
    }
}

pub fn shown(tasks: &[Place]) -> BTreeSet<String> {
    tasks.iter().map(|task| task.address.to_string()).collect()
}

#[test]
#[ignore = "needs a lab"]
fn tasks_reach_whom_their_groups_let_by_address_and_by_name() {
    let side = "      - { name: side, image: 'roadstead/demo:1', memory: 16, essential: false, stopTimeout: 1, environment: { PORT: 8081 } }\n";
    let web = service("web", 2, "web", side) + &group("web", &tcp(8080, "cidr: 0.0.0.0/0"));
    let api = service("api", 2, "api", "") + &group("api", &tcp(8080, "securityGroup: web"));
    let db = service("db", 1, "db", "") + &group("db", &tcp(8080, "securityGroup: api"));
    let lone = service("lone", 2, "default", "");
    let fleet =
        Fleet::with("network", "3", &[("web.yaml", &web), ("api.yaml", &api), ("db.yaml", &db), ("lone.yaml", &lone)]);
    fleet.controller.wait_steady();
    let all: BTreeMap<&str, Vec<Place>> =
        ["web", "api", "db", "lone"].into_iter().map(|name| (name, fleet.tasks(name))).collect();
    let allowed = |from: &str, to: &str| match to {
        "web" => true,
        "api" => from == "web",
        "db" => from == "api",
        _ => from == to,
    };
    for (from_name, from) in &all {
        for (to_name, to) in &all {
            for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
                if from.id == to.id {
                    continue;
                }
                let passes = fleet.reaches(from, to.address, 8080);
                assert_eq!(passes, allowed(from_name, to_name), "{from_name} {from:?} → {to_name} {to:?}");
            }
        }
    }
    let (web, api, db) = (&all["web"], &all["api"], &all["db"]);
    assert_ne!(web[0].host, web[1].host, "over hosts");
    // Localhost between the containers of a task; their other ports are shut to others.
    assert!(fleet.reaches(&web[0], Ipv4Addr::LOCALHOST, 8081));
    assert!(!fleet.reaches(&api[0], web[0].address, 8081));
    // From hosts: to what is open to all only, and never from a task to a host.
    for host in fleet.lab.hosts() {
        assert!(fleet.host_reaches(host, web[0].address, 8080), "{host}");
        assert!(!fleet.host_reaches(host, db[0].address, 8080), "{host}");
        let sshd = fleet.lab.address(host);
        let command = format!(
            "nsenter -t {} -n python3 -c 'import socket; socket.create_connection((\"{sshd}\", 22), 2)' 2>/dev/null && echo yes || true",
            web[0].pid
        );
        assert_eq!(fleet.ssh(&web[0].host, &command).trim(), "", "sshd of {host} from a task");
    }
    // Names, from every host, and of no other cluster.
    for task in web.iter().chain(api) {
        assert_eq!(fleet.addresses(task, "api.default.internal"), shown(api));
    }
    assert_eq!(fleet.ask(&web[0], &format!("{}.api.default.internal", api[0].id), 1), api[0].address.to_string());
    assert_eq!(fleet.ask(&web[0], "_8080._tcp.db.default.internal", 33), "8080");
    assert_eq!(fleet.ask(&web[0], "nothing.default.internal", 1), "unknown");
    // A rule changes: within seconds, and without a task being touched.
    let open = service("db", 1, "db", "")
        + &group("db", &[tcp(8080, "securityGroup: api"), tcp(8080, "securityGroup: web")].join(", "));
    assert!(!fleet.reaches(&web[0], db[0].address, 8080));
    fleet.controller.write("db.yaml", &open);
    until("the rule is in force", MINUTE, || fleet.reaches(&web[0], db[0].address, 8080));
    assert_eq!(fleet.tasks("db")[0].id, db[0].id, "the same task");
    mends_itself(&fleet, web, api);
}

/// What people and programs do to a host's network is undone.
fn mends_itself(fleet: &Fleet, web: &[Place], api: &[Place]) {
    let victim = &api[0];
    let lone = fleet.tasks("lone").into_iter().find(|task| task.host != victim.host).unwrap();
    let is_whole = |fleet: &Fleet| {
        fleet.reaches(&web[0], victim.address, 8080)
            && fleet.reaches(&web[1], victim.address, 8080)
            && !fleet.reaches(&lone, victim.address, 8080)
            && fleet.addresses(victim, "web.default.internal") == shown(web)
    };
    let node = |command: &str| {
        fleet.lab.docker(&victim.host, &["exec", "rs-node", "sh", "-c", command]);
    };
    assert!(is_whole(fleet));
    let damages: [(&str, &dyn Fn()); 5] = [
        ("its rules are flushed", &|| drop(fleet.ssh(&victim.host, "nft flush ruleset"))),
        ("its routes are removed", &|| node("ip -4 route flush proto 73")),
        ("its name server is killed", &|| node("kill -9 $(cat /run/dnsmasq.pid)")),
        ("its node is removed", &|| drop(fleet.lab.docker(&victim.host, &["rm", "-f", "rs-node"]))),
        ("it forwards nothing", &|| drop(fleet.ssh(&victim.host, "echo 0 >/proc/sys/net/ipv4/ip_forward"))),
    ];
    for (what, damage) in damages {
        damage();
        until(&format!("mended after {what}"), MINUTE, || is_whole(fleet));
    }
    // The engine makes its own rules anew when it starts, and containers go with it.
    fleet.lab.lab(&["kill-engine", &victim.host]);
    fleet.lab.lab(&["start-engine", &victim.host]);
    until("all of it runs again", MINUTE * 2, || fleet.tasks("api").len() == 2 && fleet.tasks("web").len() == 2);
    let (web, api) = (fleet.tasks("web"), fleet.tasks("api"));
    until("and is whole", MINUTE, || {
        web.iter().all(|from| api.iter().all(|to| fleet.reaches(from, to.address, 8080)))
            && fleet.addresses(&web[0], "api.default.internal") == shown(&api)
    });
}

#[test]
#[ignore = "needs a lab"]
fn many_tasks_of_one_port_share_a_host_until_the_addresses_are_used_up() {
    let subnet = |prefix: u8| {
        format!(
            "apiVersion: roadstead/v1\nkind: Subnet\nmetadata: {{ name: small }}\nspec: {{ cidr: 10.64.8.0/24, hostPrefix: {prefix} }}\n"
        )
    };
    let fleet = Fleet::with(
        "addresses",
        "3",
        &[("subnet.yaml", &subnet(29)), ("web.yaml", &service("web", 20, "default", ""))],
    );
    // Five addresses on each of three hosts.
    until("all addresses are in use", MINUTE * 3, || fleet.tasks("web").len() == 15);
    let tasks = fleet.tasks("web");
    assert_eq!(shown(&tasks).len(), 15, "each its own");
    let why = fleet.controller.cli(&["why", "web"]);
    assert!(why.contains("3 have no address left in the task's subnets"), "{why}");
    // Every one answers on the same port.
    let from = &tasks[0];
    assert!(tasks.iter().all(|to| fleet.reaches(from, to.address, 8080)));
    // Fewer are wanted: what waits goes first, and nothing that runs is touched for it.
    fleet.controller.write("web.yaml", &service("web", 12, "default", ""));
    fleet.controller.wait_steady();
    assert_eq!(fleet.tasks("web").len(), 12);
}

#[test]
#[ignore = "needs a lab"]
fn names_stand_for_running_tasks_through_a_rolling_update() {
    let update = |version: &str| {
        service("web", 3, "default", "").replace("PORT: 8080", &format!("PORT: 8080, VERSION: '{version}'"))
            + &service_of_one()
    };
    let fleet = Fleet::with("names", "3", &[("web.yaml", &update("1"))]);
    fleet.controller.wait_steady();
    let asker = fleet.tasks("asker").remove(0);
    let before = shown(&fleet.tasks("web"));
    assert_eq!(fleet.addresses(&asker, "web.default.internal"), before);
    // What is answered is connected to at once: a stopped task would refuse.
    let [a, b, c, _] = asker.address.octets();
    let stop = format!("/tmp/roadstead-{}", asker.id);
    let watch =
        format!("nsenter -t {} -n python3 -c '{ASK_ON}' web.default.internal {a}.{b}.{c}.1 1 {stop}", asker.pid);
    let watcher = fleet.lab.spawn(&["ssh", &asker.host, &watch]);
    fleet.controller.write("web.yaml", &update("2"));
    until("all tasks are of the new revision", MINUTE * 3, || {
        let now = shown(&fleet.tasks("web"));
        now.len() == 3 && now.is_disjoint(&before) && fleet.addresses(&asker, "web.default.internal") == now
    });
    fleet.controller.wait_steady();
    fleet.ssh(&asker.host, &format!("touch {stop}"));
    let told = String::from_utf8(watcher.wait_with_output().unwrap().stdout).unwrap();
    fleet.ssh(&asker.host, &format!("rm -f {stop}"));
    let answers: usize =
        told.lines().last().and_then(|line| line.strip_prefix("answers ")).unwrap_or("0").parse().unwrap();
    assert!(answers > 10, "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

fn service_of_one() -> String {
    "\n---".to_owned() + &service("asker", 1, "default", "")
}

#[test]
#[ignore = "needs a lab"]
fn a_host_that_is_removed_is_left_as_it_was_found() {
    let lab = Lab::with("traces", "1");
    let traces = |lab: &Lab| lab.lab(&["ssh", "host-a", TRACES]);
    let before = traces(&lab);
    let controller = Controller::start(&lab, &[("web.yaml", &service("web", 1, "default", ""))]);
    let fleet = Fleet { lab, controller };
    fleet.controller.wait_steady();
    assert_eq!(fleet.tasks("web").len(), 1);
    assert_ne!(traces(&fleet.lab), before);
    fleet.controller.write("web.yaml", &service("web", 0, "default", ""));
    fleet.controller.wait_steady();
    until("no container is left", MINUTE, || {
        fleet.lab.docker("host-a", &["ps", "-aq", "--filter", "name=rs-web"]).trim().is_empty()
    });
    fleet.controller.cli(&["host", "remove", "host-a"]);
    let mut now = String::new();
    let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("nothing is left", Duration::from_secs(30), || {
            now = traces(&fleet.lab);
            now == before
        })
    }));
    assert!(left.is_ok(), "before:\n{before}\nnow:\n{now}");
}

/// The service of the mission's source: auth with a collector beside it, behind an internal load balancer.
const AUTH: &str = "
apiVersion: roadstead/v1
kind: Cluster
metadata: { name: default }
spec: { serviceDiscovery: { namespace: klp.local } }
---
apiVersion: roadstead/v1
kind: SecurityGroup
metadata: { name: auth }
spec: { ingress: [{ protocol: tcp, fromPort: 8080, toPort: 8080, sources: [{ securityGroup: internal-alb }] }] }
---
apiVersion: roadstead/v1
kind: TargetGroup
metadata: { name: auth-blue }
spec: { port: 8080, protocol: HTTP, targetType: ip, healthCheck: { path: /healthz, interval: 1s, timeout: 1s } }
---
apiVersion: roadstead/v1
kind: LoadBalancer
metadata: { name: internal }
spec:
  hosts: { availability-zone: ZONE }
  securityGroups: [internal-alb]
  listeners:
    - name: http
      port: 8088
      protocol: HTTP
      rules: [{ name: auth, priority: 10, conditions: { hostHeader: [auth.klp.local] }, action: { forward: auth-blue } }]
      defaultAction: { fixedResponse: { statusCode: 404 } }
---
apiVersion: roadstead/v1
kind: TaskDefinition
metadata: { name: auth }
spec:
  family: auth
  networkMode: awsvpc
  requiresCompatibilities: [FARGATE]
  cpu: 512
  memory: 1024
  containerDefinitions:
    - name: auth
      image: 'roadstead/demo:1'
      essential: true
      stopTimeout: 2
      environment: { PORT: 8080, OTEL_EXPORTER_OTLP_ENDPOINT: 'http://localhost:4318' }
      portMappings: [{ containerPort: 8080, hostPort: 8080, protocol: tcp }]
    - name: otel-collector
      image: 'roadstead/demo:1'
      essential: false
      stopTimeout: 2
      environment: { PORT: 4318 }
      portMappings: [{ containerPort: 4318, hostPort: 4318, protocol: tcp }]
---
apiVersion: roadstead/v1
kind: Service
metadata: { name: auth }
spec:
  taskDefinition: auth
  desiredCount: 2
  launchType: FARGATE
  networkConfiguration: { awsvpcConfiguration: { securityGroups: [auth], assignPublicIp: DISABLED } }
  loadBalancers: [{ targetGroup: auth-blue, containerName: auth, containerPort: 8080 }]
  serviceRegistries: [{ name: auth }]
";

#[test]
#[ignore = "needs a lab"]
fn an_internal_load_balancer_is_admitted_and_nobody_else() {
    let lab = Lab::up("auth");
    let host = fs::read_to_string(lab.host_manifests().join("host-a.yaml")).unwrap();
    let zone = host.split("availability-zone: ").nth(1).and_then(|rest| rest.split([' ', '}']).next()).unwrap();
    let lone = service("lone", 3, "default", "");
    let manifests = [("auth.yaml", &*AUTH.replace("ZONE", zone)), ("lone.yaml", &lone)];
    let controller = Controller::start(&lab, &manifests);
    let fleet = Fleet { lab, controller };
    fleet.controller.wait_steady();
    let (auth, lone) = (fleet.tasks("auth"), fleet.tasks("lone"));
    assert_eq!((auth.len(), lone.len()), (2, 3));
    assert_ne!(auth[0].host, auth[1].host, "over zones");
    let edge = fleet.lab.address("host-a");
    let asked = |host: &str| {
        format!("curl -s -o /dev/null -m 3 -w '%{{http_code}}' -H 'Host: {host}' http://{edge}:8088/ || true")
    };
    for from in ["host-a", "host-b", "host-c"] {
        let answered = |host: &str| fleet.ssh(from, &asked(host)).trim().to_owned();
        assert_eq!((answered("auth.klp.local"), answered("other")), ("200".to_owned(), "404".to_owned()), "{from}");
        for task in &auth {
            assert_eq!(fleet.host_reaches(from, task.address, 8080), from == "host-a", "{from} → {task:?}");
        }
    }
    for from in &lone {
        for task in &auth {
            assert!(!fleet.reaches(from, task.address, 8080), "{from:?} → {task:?}");
        }
        // By the load balancer it may: a rule for everybody reaches it, though it is on a host.
        let inside = format!("nsenter -t {} -n {}", from.pid, asked("auth.klp.local"));
        assert_eq!(fleet.ssh(&from.host, &inside).trim(), "200", "{from:?}");
        assert_eq!(fleet.addresses(from, "auth.klp.local"), shown(&auth));
    }
    for task in &auth {
        assert!(fleet.reaches(task, Ipv4Addr::LOCALHOST, 4318), "its collector");
        assert!(!fleet.reaches(task, auth.iter().find(|other| other.id != task.id).unwrap().address, 4318));
    }
    let why = fleet.controller.cli(&["why", &auth[0].id, "--from", &edge, "--port", "8080"]);
    assert!(why.contains("internal-alb"), "{why}");
}
