//! Tasks that are machines on the hosts' LAN: anybody there reaches them without a route, as far as their groups let.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{
    matrix::Outsider,
    network::{ASK, Fleet, Place, TRACES, group, service, shown, tcp},
    support::{Controller, Lab, MINUTE, capabilities, until},
};

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;

/// The lab's network without its last number.
fn lan_of(lab: &Lab) -> String {
    lab.address("host-a").rsplit_once('.').unwrap().0.to_owned()
}

fn on_lan(name: &str, count: u32, groups: &str) -> String {
    service(name, count, groups, "").replace("securityGroups:", "subnets: [lan], securityGroups:")
}

/// Everybody reaches web; web reaches api, and what is near, which is on a bridge; nobody reaches mute, and it nobody.
fn manifests(lan: &str, api_sources: &[&str]) -> String {
    let subnet = format!(
        "apiVersion: roadstead/v1\nkind: Subnet\nmetadata: {{ name: lan }}\nspec: {{ driver: macvlan, cidr: {lan}.64/26, hostPrefix: 28, gateway: {lan}.1/24 }}\n---\n"
    );
    let mute = "\n---\napiVersion: roadstead/v1\nkind: SecurityGroup\nmetadata: { name: mute }\nspec: { egress: [] }\n";
    let api: Vec<String> = api_sources.iter().map(|source| tcp(8080, source)).collect();
    let services =
        [on_lan("web", 3, "web"), on_lan("api", 3, "api"), on_lan("mute", 1, "mute"), service("near", 3, "near", "")];
    let groups = [
        group("web", &tcp(8080, "cidr: 0.0.0.0/0")),
        group("api", &api.join(", ")),
        group("near", &tcp(8080, "securityGroup: web")),
    ];
    subnet + &services.join("---") + &groups.concat() + mute
}

const WEB_ALONE: [&str; 1] = ["securityGroup: web"];

fn allowed(from: &str, to: &str) -> bool {
    match (from, to) {
        ("mute", _) | (_, "mute") => false,
        (_, "web") => true,
        (from, "api" | "near") => from == "web",
        _ => false,
    }
}

impl Fleet {
    /// The TCP ports 8080 that an outsider reaches; no other packet of its is answered.
    fn seen_by(&self, outsider: &Outsider, tasks: &[Place]) -> BTreeSet<Ipv4Addr> {
        let said = outsider.tries(&shown(tasks).into_iter().collect::<Vec<_>>());
        said.lines()
            .map(|line| line.strip_prefix("tcp ").unwrap_or_else(|| panic!("{said}")).parse().unwrap())
            .collect()
    }

    fn inside(&self, task: &Place, command: &str) -> String {
        self.ssh(&task.host, &format!("nsenter -t {} -n {command}", task.pid))
    }

    /// What a task's own resolver says.
    fn named(&self, task: &Place, name: &str) -> BTreeSet<String> {
        let said = self.inside(task, &format!("python3 -c '{ASK}' {name} 127.0.0.11 1 2>&1 || true"));
        said.split_whitespace().map(str::to_owned).collect()
    }

    fn sandbox(&self, task: &Place) -> String {
        let filter = format!("name={}-task.sandbox", task.id);
        self.lab.docker(&task.host, &["ps", "-a", "--filter", &filter, "--format", "{{.ID}}"]).trim().to_owned()
    }
}

fn addresses(tasks: &[Place]) -> BTreeSet<Ipv4Addr> {
    tasks.iter().map(|task| task.address).collect()
}

#[test]
#[ignore = "needs a lab"]
fn tasks_are_machines_on_the_lan_and_everybody_reaches_what_their_groups_let() {
    let lab = Lab::with("macvlan", "3");
    let before: BTreeMap<&str, String> =
        lab.hosts().into_iter().map(|host| (host, lab.lab(&["ssh", host, TRACES]))).collect();
    let lan = lan_of(&lab);
    let controller = Controller::start(&lab, &[("fleet.yaml", &manifests(&lan, &WEB_ALONE))]);
    let mut fleet = Fleet { lab, controller };
    fleet.controller.wait_steady();
    let outsider = Outsider::on(&fleet, &BTreeMap::new());
    who_reaches_whom(&fleet, &lan, &outsider);
    rules_change_and_come_back(&fleet, &lan, &outsider);
    a_network_begins_shut(&mut fleet, &outsider);
    hosts_fail(&fleet, &outsider);
    hosts_go(&fleet, &before);
}

fn who_reaches_whom(fleet: &Fleet, lan: &str, outsider: &Outsider) {
    let services = ["web", "api", "mute", "near"];
    let all: Vec<(&str, Place)> =
        services.iter().flat_map(|name| fleet.tasks(name).into_iter().map(|task| (*name, task))).collect();
    assert_eq!(all.len(), 10);
    let of = |service: &str| -> Vec<Place> {
        all.iter().filter(|(name, _)| *name == service).map(|(_, task)| task.clone()).collect()
    };
    let (web, api) = (of("web"), of("api"));
    assert_eq!(web.iter().map(|task| task.host.as_str()).collect::<BTreeSet<_>>().len(), 3, "over hosts");
    let on_lan: Vec<Place> = all.iter().filter(|(name, _)| *name != "near").map(|(_, task)| task.clone()).collect();
    assert!(on_lan.iter().all(|task| task.address.to_string().starts_with(&format!("{lan}."))), "{on_lan:?}");
    assert_eq!(addresses(&on_lan).len(), 7, "each its own");
    // Task to task: across hosts and on one, on the LAN and beside it.
    let mut wrong = Vec::new();
    for (from_name, from) in &all {
        for (to_name, to) in all.iter().filter(|(_, to)| to.id != from.id) {
            if fleet.reaches(from, to.address, 8080) != allowed(from_name, to_name) {
                wrong.push(format!("{from_name} {from:?} → {to_name} {to:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Hosts to their own tasks and to others'; never a task to a host.
    for host in fleet.lab.hosts() {
        for (name, task) in all.iter().filter(|(name, _)| *name != "near") {
            assert_eq!(fleet.host_reaches(host, task.address, 8080), *name == "web", "{host} → {name} {task:?}");
        }
        let knock =
            format!("timeout 2 bash -c '</dev/tcp/{}/22' 2>/dev/null && echo open || true", fleet.lab.address(host));
        for task in &web {
            assert_eq!(fleet.inside(task, &knock).trim(), "", "sshd of {host} from {task:?}");
        }
    }
    // Somebody on the LAN who knows no route.
    assert_eq!(fleet.seen_by(outsider, &on_lan), addresses(&web));
    for task in web.iter().chain(&api) {
        assert_eq!(fleet.named(task, "api.default.internal"), shown(&api), "{task:?}");
    }
    // Nobody but the sandbox has a say in its rules, and the node no more rights than with bridges.
    let main = format!("name={}-main", web[0].id);
    let main = fleet.lab.docker(&web[0].host, &["ps", "--filter", &main, "--format", "{{.ID}}"]);
    let pid = fleet.lab.docker(&web[0].host, &["inspect", "--format", "{{.State.Pid}}", main.trim()]);
    let status = fleet.ssh(&web[0].host, &format!("cat /proc/{}/status", pid.trim()));
    for line in ["CapBnd", "CapEff", "CapPrm"] {
        assert_eq!(capabilities(&status, line) & (CAP_NET_ADMIN | CAP_NET_RAW), 0, "{line}");
    }
    let node = "{{.HostConfig.Privileged}} {{.HostConfig.PidMode}} {{.HostConfig.CapAdd}}";
    let node = fleet.lab.docker("host-a", &["inspect", "--format", node, "rs-node"]);
    assert!(node.starts_with("false ") && !node.contains("SYS_ADMIN") && !node.contains("host"), "{node}");
    let drivers = fleet.lab.docker("host-a", &["network", "inspect", "--format", "{{.Driver}}", "rs-lan"]);
    assert_eq!(drivers.trim(), "macvlan");
    let outside = format!("{lan}.200");
    let why = fleet.controller.try_cli(&["why", &api[0].id, "--from", &outside, "--port", "8080"]);
    let why = String::from_utf8(why.stdout).unwrap();
    assert!(why.contains("no ingress rule"), "{why}");
}

fn rules_change_and_come_back(fleet: &Fleet, lan: &str, outsider: &Outsider) {
    let (web, api) = (fleet.tasks("web"), fleet.tasks("api"));
    let both: Vec<Place> = web.iter().chain(&api).cloned().collect();
    let outside = format!("cidr: {lan}.200/32");
    fleet.controller.write("fleet.yaml", &manifests(lan, &["securityGroup: web", &outside]));
    until("the outsider is let in", MINUTE, || fleet.seen_by(outsider, &both) == addresses(&both));
    fleet.controller.write("fleet.yaml", &manifests(lan, &WEB_ALONE));
    until("it is not any more", MINUTE, || fleet.seen_by(outsider, &both) == addresses(&web));
    assert_eq!(shown(&fleet.tasks("api")), shown(&api));
    let victim = &api[0];
    fleet.inside(victim, "nft delete table inet roadstead");
    let rules = |task: &Place| fleet.inside(task, "nft list tables");
    until("its rules are back", MINUTE, || rules(victim).contains("inet roadstead"));
    assert_eq!(fleet.seen_by(outsider, &both), addresses(&web));
    let node = |command: &str| {
        fleet.lab.docker(&victim.host, &["exec", "rs-node", "sh", "-c", command]);
    };
    let shim = fleet.ssh(&victim.host, "ip -o link show type macvlan | cut -d: -f2 | cut -d@ -f1");
    let shim = shim.trim();
    assert!(shim.starts_with("rs-") && shim.lines().count() == 1, "{shim}");
    let own = web.iter().find(|task| task.host == victim.host).unwrap();
    let damages: [(&str, &dyn Fn()); 4] = [
        ("its interface among them is removed", &|| node(&format!("ip link del {shim}"))),
        ("its routes are removed", &|| node("ip -4 route flush proto 73")),
        ("its rules are flushed", &|| drop(fleet.ssh(&victim.host, "nft flush ruleset"))),
        ("its node is removed", &|| drop(fleet.lab.docker(&victim.host, &["rm", "-f", "rs-node"]))),
    ];
    for (what, damage) in damages {
        damage();
        until(&format!("mended after {what}"), MINUTE, || {
            fleet.host_reaches(&victim.host, own.address, 8080)
                && !fleet.host_reaches(&victim.host, victim.address, 8080)
                && fleet.named(victim, "web.default.internal") == shown(&web)
        });
    }
}

/// A sandbox that is started by anybody begins shut, and stays so until the controller told it what may pass.
fn a_network_begins_shut(fleet: &mut Fleet, outsider: &Outsider) {
    let task = fleet.tasks("web").remove(0);
    let sandbox = fleet.sandbox(&task);
    fleet.controller.kill();
    fleet.lab.docker(&task.host, &["restart", "-t", "1", &sandbox]);
    let pid = fleet.lab.docker(&task.host, &["inspect", "--format", "{{.State.Pid}}", &sandbox]);
    let again = Place { pid: pid.trim().to_owned(), ..task.clone() };
    for chain in ["input", "output"] {
        let rules = fleet.inside(&again, &format!("nft list chain inet roadstead {chain}"));
        assert!(rules.contains("policy drop") && !rules.contains("accept"), "{rules}");
    }
    assert!(!fleet.host_reaches(&task.host, task.address, 8080));
    fleet.controller.launch();
    is_whole(fleet, outsider, "another controller");
}

fn is_whole(fleet: &Fleet, outsider: &Outsider, after: &str) {
    until(&format!("all is as it should be after {after}"), MINUTE * 3, || {
        let (web, api) = (fleet.tasks("web"), fleet.tasks("api"));
        let both: Vec<Place> = web.iter().chain(&api).cloned().collect();
        (web.len(), api.len()) == (3, 3)
            && fleet.seen_by(outsider, &both) == addresses(&web)
            && web.iter().all(|from| api.iter().all(|to| fleet.reaches(from, to.address, 8080)))
    });
}

fn hosts_fail(fleet: &Fleet, outsider: &Outsider) {
    fleet.lab.lab(&["kill-engine", "host-b"]);
    fleet.lab.lab(&["start-engine", "host-b"]);
    is_whole(fleet, outsider, "an engine died");
    fleet.lab.lab(&["reboot", "host-c"]);
    is_whole(fleet, outsider, "a host booted");
}

fn hosts_go(fleet: &Fleet, before: &BTreeMap<&str, String>) {
    let host = "host-b";
    fleet.controller.cli(&["host", "drain", host]);
    let left = |more: &[&str]| {
        fleet.lab.docker(host, &[&["ps", "-aq", "--filter", "label=dev.roadstead.task"], more].concat())
    };
    until("nothing runs there", MINUTE, || left(&["--filter", "status=running"]).trim().is_empty());
    // What failed with its engine is kept for its logs.
    left(&["--filter", "status=exited"]).lines().for_each(|id| drop(fleet.lab.docker(host, &["rm", id])));
    until("no container is left", MINUTE, || left(&[]).trim().is_empty());
    fleet.controller.cli(&["host", "remove", host]);
    let mut now = String::new();
    let is_gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("it is as it was found", MINUTE, || {
            now = fleet.lab.lab(&["ssh", host, TRACES]);
            now == before[host]
        });
    }));
    assert!(is_gone.is_ok(), "before:\n{}\nnow:\n{now}", before[host]);
}
