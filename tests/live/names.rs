//! Names where tasks have no addresses of their own: they stand for hosts, and for the ports that tasks have there.

use std::collections::BTreeSet;

use crate::{
    network::{ASK, ASK_ON, Fleet, TRACES},
    support::{MINUTE, until},
};

/// Where hosts and their containers ask.
const SERVER: &str = "169.254.73.53";
const WEB: &str = "web.klp.local";

const CLUSTER: &str = "
apiVersion: roadstead/v1
kind: Cluster
metadata: { name: default }
spec: { serviceDiscovery: { namespace: klp.local } }
";

/// Two tasks on port 8080 of two hosts, of which one is replaced at a time; and some on ports that nobody chose.
fn services(version: u32) -> String {
    let service = |name: &str, mapping: &str| {
        format!(
            "
---
apiVersion: roadstead/v1
kind: Service
metadata: {{ name: {name} }}
spec:
  desiredCount: 2
  minimumHealthySeconds: 1
  deploymentConfiguration: {{ minimumHealthyPercent: 50, maximumPercent: 100 }}
  placementStrategy: [{{ type: spread, field: host }}]
  taskDefinition:
    networkMode: bridge
    containerDefinitions:
      - {{ name: main, image: 'roadstead/demo:1', memory: 16, stopTimeout: 1, environment: {{ VERSION: '{version}' }}, portMappings: [{{ {mapping} }}] }}
"
        )
    };
    service("web", "containerPort: 80, hostPort: 8080, name: http") + &service("any", "containerPort: 80")
}

/// A task in bridge mode: its host, a process of it, its port there.
struct Bare {
    id: String,
    host: String,
    pid: String,
    port: String,
}

impl Fleet {
    fn bare(&self, service: &str) -> Vec<Bare> {
        let tasks = self.controller.items("tasks");
        let ours = tasks.iter().filter(|task| {
            task["group"] == format!("service:{service}")
                && task["lastStatus"] == "RUNNING"
                && task["desiredStatus"] == "RUNNING"
        });
        ours.filter_map(|task| {
            let (id, host) = (task["taskId"].as_str().unwrap(), task["host"].as_str().unwrap());
            let docker = |arguments: &[&str]| self.lab.docker(host, arguments);
            let name = docker(&["ps", "--filter", &format!("name={id}-main"), "--format", "{{.Names}}"]);
            // It may have ended meanwhile.
            let name = name.lines().next()?;
            let pid = docker(&["inspect", "--format", "{{.State.Pid}}", name]).trim().to_owned();
            let port = docker(&["port", name, "80/tcp"]).lines().next()?.rsplit(':').next()?.to_owned();
            Some(Bare { id: id.to_owned(), host: host.to_owned(), pid, port })
        })
        .collect()
    }

    /// What is answered to a host, or to a container on it.
    fn told(&self, host: &str, inside: Option<&str>, name: &str, kind: u8) -> BTreeSet<String> {
        let inside = inside.map(|pid| format!("nsenter -t {pid} -n ")).unwrap_or_default();
        let said = self.ssh(host, &format!("{inside}python3 -c '{ASK}' {name} {SERVER} {kind} 2>&1 || true"));
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// Whether every host and every container on it is told where the tasks of both services are.
    fn is_named(&self) -> bool {
        let (web, any) = (self.bare("web"), self.bare("any"));
        let hosts = |tasks: &[Bare]| tasks.iter().map(|task| self.lab.address(&task.host)).collect::<BTreeSet<_>>();
        let ports = |tasks: &[Bare]| tasks.iter().map(|task| task.port.clone()).collect::<BTreeSet<_>>();
        web.len() == 2
            && any.len() == 2
            && web.iter().flat_map(|task| [(&task.host, None), (&task.host, Some(&*task.pid))]).all(|(host, inside)| {
                self.told(host, inside, WEB, 1) == hosts(&web)
                    && self.told(host, inside, "any.klp.local", 1) == hosts(&any)
                    && self.told(host, inside, "_80._tcp.any.klp.local", 33) == ports(&any)
                    && self.told(host, inside, "_http._tcp.web.klp.local", 33) == ports(&web)
            })
    }
}

#[test]
#[ignore = "needs a lab"]
fn names_stand_for_hosts_and_ports_where_tasks_have_no_addresses() {
    let fleet = Fleet::with("bare-names", "2", &[]);
    let traces = |host: &str| fleet.ssh(host, &format!("{TRACES}; ip -4 addr show dev lo"));
    let before = traces("host-a");
    fleet.controller.write("cluster.yaml", CLUSTER);
    fleet.controller.write("services.yaml", &services(1));
    fleet.controller.wait_steady();
    until("all are told", MINUTE, || fleet.is_named());
    let (web, any) = (fleet.bare("web"), fleet.bare("any"));
    assert_ne!(web[0].host, web[1].host, "over hosts");
    // What a container asks by itself; whom it finds there.
    let resolver = fleet.ssh(&web[0].host, &format!("cat /proc/{}/root/etc/resolv.conf", web[0].pid));
    assert!(resolver.lines().any(|line| line == format!("nameserver {SERVER}")), "{resolver}");
    let far = any.iter().find(|task| task.host != web[0].host).unwrap();
    let url = format!("http://{}:{}/", fleet.lab.address(&far.host), far.port);
    fleet.ssh(&web[0].host, &format!("nsenter -t {} -n curl -fs -o /dev/null -m 3 {url}", web[0].pid));
    let of_task = fleet.told(&web[0].host, Some(&web[0].pid), &format!("{}.any.klp.local", far.id), 1);
    assert_eq!(of_task, [fleet.lab.address(&far.host)].into());
    assert_eq!(fleet.told("host-a", None, "nothing.klp.local", 1), ["unknown".to_owned()].into());
    // There is no network and there are no rules.
    let shown = traces("host-a");
    assert!(shown.contains("rs-node") && shown.contains(SERVER), "{shown}");
    assert!(!shown.contains("inet roadstead") && !shown.contains("rs-default"), "{shown}");
    mends_itself(&fleet);
    stops_are_told_first(&fleet);
    // Nobody asks for names any more, and the last who might has gone.
    fleet.controller.remove("cluster.yaml");
    until("tasks go on asking", MINUTE, || fleet.controller.is_steady());
    let scaled = services(2).replace("desiredCount: 2", "desiredCount: 0");
    fleet.controller.write("services.yaml", &scaled);
    fleet.controller.wait_steady();
    let mut now = String::new();
    let left = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("nothing is left", MINUTE, || {
            now = traces("host-a")
                .lines()
                .filter(|line| !line.starts_with("rs-web") && !line.starts_with("rs-any"))
                .collect::<Vec<_>>()
                .join("\n");
            now == before.trim_end()
        })
    }));
    assert!(left.is_ok(), "before:\n{before}\nnow:\n{now}");
}

fn mends_itself(fleet: &Fleet) {
    let node = |command: &str| {
        fleet.lab.docker("host-a", &["exec", "rs-node", "sh", "-c", command]);
    };
    let damages: [(&str, &dyn Fn()); 4] = [
        ("its name server is killed", &|| node("kill -9 $(cat /run/dnsmasq.pid)")),
        ("its name server for ports is killed", &|| node("kill -9 $(cat /run/dnsmasq-srv.pid)")),
        ("its address is removed", &|| drop(fleet.ssh("host-a", &format!("ip addr del {SERVER}/32 dev lo")))),
        ("its node is removed", &|| drop(fleet.lab.docker("host-a", &["rm", "-f", "rs-node"]))),
    ];
    for (what, damage) in damages {
        damage();
        until(&format!("mended after {what}"), MINUTE, || fleet.is_named());
    }
    // A boot with nobody to tell it anything.
    fleet.ssh(
        "host-a",
        &format!("docker kill rs-node >/dev/null; ip addr del {SERVER}/32 dev lo; docker start rs-node"),
    );
    until("it puts back what it was told", MINUTE, || fleet.is_named());
}

/// Each address that is answered takes a connection, while one task after the other is replaced.
fn stops_are_told_first(fleet: &Fleet) {
    let before: BTreeSet<String> = fleet.bare("web").into_iter().map(|task| task.id).collect();
    let stop = "/tmp/roadstead-bare-names";
    let watch = format!("rm -f {stop}; python3 -c '{ASK_ON}' {WEB} {SERVER} 1 {stop}");
    let watcher = fleet.lab.spawn(&["ssh", "host-a", &watch]);
    fleet.controller.write("services.yaml", &services(2));
    until("all tasks are of the new revision", MINUTE * 3, || {
        let now: BTreeSet<String> = fleet.bare("web").into_iter().map(|task| task.id).collect();
        now.len() == 2 && now.is_disjoint(&before)
    });
    fleet.controller.wait_steady();
    fleet.ssh("host-a", &format!("touch {stop}"));
    let told = String::from_utf8(watcher.wait_with_output().unwrap().stdout).unwrap();
    fleet.ssh("host-a", &format!("rm -f {stop}"));
    let answers = told.lines().last().and_then(|line| line.strip_prefix("answers ")).unwrap_or("0");
    assert!(answers.parse::<usize>().unwrap() > 10, "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}
