//! Tasks on hosts that share no network: they reach each other by an encrypted way, and nobody between them reads along.

use std::{collections::BTreeSet, net::Ipv4Addr};

use crate::{
    matrix::Echo,
    network::{Fleet, Place, TRACES, service, shown},
    support::{Controller, Lab, MINUTE, until},
};

const CLUSTER: &str = "
apiVersion: roadstead/v1
kind: Cluster
metadata: { name: default }
spec: { network: { encapsulation: wireguard } }
";

/// What passes a network card until a file is there: WireGuard's packets, and packets with a word in them.
const WATCH: &str = r#"
import os, socket, sys, time
device, word, stop = sys.argv[1], sys.argv[2].encode(), sys.argv[3]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind((device, 0)); s.settimeout(0.2)
open(stop + ".begun", "w").close()
tunnel, plain, end = 0, 0, time.time() + 60
while not os.path.exists(stop) and time.time() < end:
    try: p = s.recv(65535)
    except OSError: continue
    plain += word in p
    tunnel += p[12:14] == b"\x08\x00" and p[23] == 17 and (51820).to_bytes(2, "big") in (p[34:36], p[36:38])
print(tunnel, plain)
"#;

/// One task on each host, which reach each other; and one that nobody reaches.
fn manifests() -> String {
    let everywhere = service("web", 1, "default", "").replace("  desiredCount: 1\n", "  schedulingStrategy: DAEMON\n");
    format!("{everywhere}\n---{}", service("lone", 1, "lone", ""))
        + "\n---\napiVersion: roadstead/v1\nkind: SecurityGroup\nmetadata: { name: lone }\nspec: {}\n"
}

impl Fleet {
    fn on(&self, host: &str) -> Place {
        self.tasks("web").into_iter().find(|task| task.host == host).unwrap()
    }

    /// Whether each task reaches each other one, by address and by name.
    fn is_whole(&self, hosts: &[&str]) -> bool {
        let tasks = self.tasks("web");
        let on: BTreeSet<&str> = tasks.iter().map(|task| task.host.as_str()).collect();
        on == hosts.iter().copied().collect()
            && tasks.iter().all(|from| {
                tasks.iter().all(|to| self.reaches(from, to.address, 8080))
                    && self.addresses(from, "web.default.internal") == shown(&tasks)
            })
    }

    /// How many other hosts each host knows.
    fn peers(&self, hosts: &[&str]) -> Vec<usize> {
        let of =
            |host: &&str| self.lab.docker(host, &["exec", "rs-node", "wg", "show", "rs-wg", "peers"]).lines().count();
        hosts.iter().map(of).collect()
    }

    fn public_key(&self, host: &str) -> String {
        self.lab.docker(host, &["exec", "rs-node", "wg", "show", "rs-wg", "public-key"])
    }

    /// What is seen on a card while one task asks another something with a word in it.
    fn watched(&self, at: &str, inside: &str, device: &str, from: &Place, to: &Place) -> (u32, u32) {
        let (word, stop) = ("plain-to-be-seen", format!("/tmp/roadstead-watch-{device}-{}", to.id));
        let watcher = self.lab.spawn(&["ssh", at, &format!("{inside}python3 -c '{WATCH}' {device} {word} {stop}")]);
        until("somebody watches", MINUTE, || {
            self.ssh(at, &format!("ls {stop}.begun 2>&1 || true")).trim() == format!("{stop}.begun")
        });
        self.ssh(
            &from.host,
            &format!("nsenter -t {} -n curl -s -o /dev/null -m 5 http://{}:8080/{word}", from.pid, to.address),
        );
        self.ssh(at, &format!("touch {stop}"));
        let said = String::from_utf8(watcher.wait_with_output().unwrap().stdout).unwrap();
        self.ssh(at, &format!("rm -f {stop} {stop}.begun"));
        let mut numbers = said.split_whitespace().map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }
}

#[test]
#[ignore = "needs a lab"]
fn hosts_that_share_no_network_reach_each_other_and_nobody_reads_along() {
    let lab = Lab::apart("wireguard", "4");
    let traces = |lab: &Lab, host: &str| lab.lab(&["ssh", host, TRACES]);
    let before = traces(&lab, "host-d");
    let mut controller = Controller::new(&lab, &[("cluster.yaml", CLUSTER), ("web.yaml", &manifests())]);
    let late = std::fs::read_to_string(controller.path("manifests/hosts/host-d.yaml")).unwrap();
    controller.remove("hosts/host-d.yaml");
    controller.launch();
    let mut fleet = Fleet { lab, controller };
    // Hosts a and c are on one side, b and d on the other, and no way leads from one to the other.
    let there = fleet.lab.address("host-b");
    let knock = format!("timeout 2 bash -c '</dev/tcp/{there}/22' && echo open || true");
    assert_eq!(fleet.ssh("host-a", &knock).trim(), "");
    fleet.controller.wait_steady();
    let three = ["host-a", "host-b", "host-c"];
    until("all reach each other", MINUTE, || fleet.is_whole(&three));
    let lone = fleet.tasks("lone").remove(0);
    assert!(
        !fleet.reaches(&fleet.on("host-b"), lone.address, 8080)
            && !fleet.reaches(&fleet.on("host-a"), lone.address, 8080)
    );
    // On the wire it is not to be read, where it arrives it is.
    let (from, to) = (fleet.on("host-a"), fleet.on("host-b"));
    let (tunnel, plain) = fleet.watched("host-b", "", "eth0", &from, &to);
    assert!(tunnel > 3 && plain == 0, "{tunnel} encrypted packets, {plain} with the word in it");
    let (_, plain) = fleet.watched("host-b", &format!("nsenter -t {} -n ", to.pid), "eth0", &from, &to);
    assert!(plain > 0, "the watcher sees nothing at all");
    // What does not fit into one packet arrives, from either side.
    for (from, to) in [(&from, &to), (&to, &from)] {
        let echo = Echo::of(&fleet, to);
        until("it answers", MINUTE, || echo.has_begun());
        assert!(fleet.sends_much(from, to), "{from:?} → {to:?}");
    }
    hosts_come_and_go(&fleet, &late, &before, &three);
    mends_itself(&mut fleet, &three);
}

fn hosts_come_and_go(fleet: &Fleet, late: &str, before: &str, three: &[&str]) {
    assert_eq!(fleet.peers(three), [2, 2, 2]);
    fleet.controller.write("hosts/host-d.yaml", late);
    until("the new host's task reaches all and is reached", MINUTE * 2, || {
        fleet.is_whole(&["host-a", "host-b", "host-c", "host-d"])
    });
    assert_eq!(fleet.peers(three), [3, 3, 3]);
    fleet.controller.cli(&["host", "drain", "host-d"]);
    until("it has no task", MINUTE, || fleet.tasks("web").iter().all(|task| task.host != "host-d"));
    until("no container is left", MINUTE, || {
        fleet.lab.docker("host-d", &["ps", "-aq", "--filter", "name=rs-web"]).trim().is_empty()
    });
    fleet.controller.cli(&["host", "remove", "host-d"]);
    until("nobody knows it any more", MINUTE, || fleet.peers(three) == [2, 2, 2]);
    until("it is as it was found", MINUTE, || fleet.lab.lab(&["ssh", "host-d", TRACES]) == before);
    assert!(fleet.is_whole(three));
}

fn mends_itself(fleet: &mut Fleet, hosts: &[&str]) {
    let node = |fleet: &Fleet, command: &str| {
        fleet.lab.docker("host-b", &["exec", "rs-node", "sh", "-c", command]);
    };
    type Damage<'a> = (&'a str, &'a dyn Fn(&Fleet));
    let damages: [Damage<'_>; 4] = [
        ("its interface is removed", &|fleet| node(fleet, "ip link del rs-wg")),
        ("a peer is removed", &|fleet| {
            node(fleet, "wg set rs-wg peer $(wg show rs-wg peers | { read -r one; echo $one; }) remove")
        }),
        ("its node is killed", &|fleet| drop(fleet.lab.docker("host-b", &["kill", "rs-node"]))),
        ("its node is removed", &|fleet| drop(fleet.lab.docker("host-b", &["rm", "-f", "rs-node"]))),
    ];
    let key = fleet.public_key("host-b");
    for (what, damage) in damages {
        damage(fleet);
        until(&format!("mended after {what}"), MINUTE, || fleet.is_whole(hosts));
        assert_eq!(fleet.public_key("host-b"), key, "the key stays");
    }
    // With its folder goes its key: the others learn the new one.
    fleet.ssh("host-b", "docker rm -f rs-node && docker volume rm rs-node");
    until("mended with another key", MINUTE, || fleet.is_whole(hosts) && fleet.public_key("host-b") != key);
    // A boot with the controller away: by itself it finds its way back.
    let [a, b, c, _] = fleet.on("host-b").address.octets();
    let gateway = Ipv4Addr::new(a, b, c, 1);
    let key = fleet.public_key("host-b");
    fleet.controller.kill();
    fleet.lab.lab(&["reboot", "host-b"]);
    until("its node is back", MINUTE, || {
        fleet.ssh("host-a", &format!("timeout 2 bash -c '</dev/tcp/{gateway}/53' && echo open || true")).trim()
            == "open"
    });
    assert_eq!(fleet.public_key("host-b"), key);
}
