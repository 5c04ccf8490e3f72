//! Every packet between tasks of four services on three hosts, from their hosts and from outside: those pass that a group lets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    process::{Child, Command},
};

use crate::{
    network::{Fleet, Place, group, service, tcp},
    support::{MINUTE, until},
};

/// Answers each UDP packet on port 8080 with what is in it, and what comes to TCP port 8090 with how much it was, until a file is
/// there.
const ECHO: &str = r#"
import os, socket, sys, threading
t = socket.create_server(("", 8090))
def count():
    while True:
        c, _ = t.accept(); c.settimeout(5); n = 0
        try:
            while p := c.recv(65536): n += len(p)
            c.sendall(b"%d" % n)
        except OSError: pass
        c.close()
threading.Thread(target=count, daemon=True).start()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 8080)); s.settimeout(0.2)
open(sys.argv[1] + ".begun", "w").close()
while not os.path.exists(sys.argv[1]):
    try: p, who = s.recvfrom(65535)
    except OSError: continue
    s.sendto(p, who)
"#;

/// Tries port 8080 of each address by TCP and by UDP, all at once; prints those that answer, each line in one piece.
const TRY: &str = r#"
import os, socket, sys, threading
def say(*words): os.write(1, (" ".join(words) + "\n").encode())
def tcp(to):
    try: socket.create_connection((to, 8080), 3).close()
    except OSError: return
    say("tcp", to)
def udp(to):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)
    for _ in range(3):
        try:
            s.sendto(b"x", (to, 8080))
            if s.recv(9) == b"x": say("udp", to); return
        except OSError: pass
threads = [threading.Thread(target=way, args=[to]) for to in sys.argv[1:] for way in (tcp, udp)]
[t.start() for t in threads]; [t.join() for t in threads]
"#;

/// One packet of 4000 bytes there and back, which no network takes whole; and a million bytes in as many packets as that takes.
const SEND_MUCH: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
s.sendto(b"x" * 4000, (sys.argv[1], 8080)); print("udp", len(s.recv(65535)), flush=True)
s = socket.create_connection((sys.argv[1], 8090), 5); s.settimeout(10)
s.sendall(b"x" * 1000000); s.shutdown(socket.SHUT_WR); print("tcp", s.recv(99).decode())
"#;

/// A machine on the hosts' network that is none of them; gone when dropped.
pub struct Outsider(String);

impl Outsider {
    pub fn on(fleet: &Fleet, routes: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> Self {
        let conf = std::fs::read_to_string(fleet.lab.folder().join("lab.conf")).unwrap();
        let index = conf.lines().find_map(|line| line.strip_prefix("INDEX=")).unwrap();
        let outsider = Self(format!("rsout{index}"));
        let [a, b, c, _] = fleet.lab.address("host-a").parse::<Ipv4Addr>().unwrap().octets();
        let name = &outsider.0;
        let run = |line: String| {
            assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
        };
        run(format!("ip netns add {name} && ip link add {name} type veth peer name eth0 netns {name}"));
        run(format!("ip link set {name} master rslab{index} up && ip -n {name} addr add {a}.{b}.{c}.200/24 dev eth0"));
        run(format!("ip -n {name} link set eth0 up"));
        for (to, via) in routes {
            run(format!("ip -n {name} route add {to} via {via}"));
        }
        outsider
    }

    pub fn tries(&self, to: &[String]) -> String {
        let output =
            Command::new("ip").args(["netns", "exec", &self.0, "python3", "-c", TRY]).args(to).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.0]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// Answers by UDP in a task's network.
pub struct Echo<'a> {
    fleet: &'a Fleet,
    host: String,
    stop: String,
    child: Child,
}

impl<'a> Echo<'a> {
    pub fn of(fleet: &'a Fleet, task: &Place) -> Self {
        let stop = format!("/tmp/roadstead-echo-{}", task.id);
        let command = format!("nsenter -t {} -n python3 -c '{ECHO}' {stop}", task.pid);
        let child = fleet.lab.spawn(&["ssh", &task.host, &command]);
        Self { fleet, host: task.host.clone(), stop, child }
    }

    pub fn has_begun(&self) -> bool {
        self.fleet.ssh(&self.host, &format!("ls {}.begun 2>/dev/null || true", self.stop)).trim() != ""
    }
}

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        self.fleet.ssh(&self.host, &format!("touch {}", self.stop));
        let _ = self.child.wait();
        self.fleet.ssh(&self.host, &format!("rm -f {0} {0}.begun", self.stop));
    }
}

impl Fleet {
    /// Whether packets that are too large for one come from task to task. The other one is an [`Echo`].
    pub fn sends_much(&self, from: &Place, to: &Place) -> bool {
        let command = format!("nsenter -t {} -n python3 -c '{SEND_MUCH}' {} 2>&1 || true", from.pid, to.address);
        let said = self.ssh(&from.host, &command);
        assert!(said == "udp 4000\ntcp 1000000\n" || said.contains("Error"), "{said}");
        !said.contains("Error")
    }
}

fn udp(port: u16, source: &str) -> String {
    tcp(port, source).replace("tcp", "udp")
}

/// Everybody may by TCP to web, nobody else by UDP than api; web to api, api to db, by UDP the other way round; lone to itself.
fn manifests() -> String {
    let web = group("web", &[tcp(8080, "cidr: 0.0.0.0/0"), udp(8080, "securityGroup: api")].join(", "));
    let api = group("api", &[tcp(8080, "securityGroup: web"), udp(8080, "securityGroup: db")].join(", "));
    let db = group("db", &[tcp(8080, "securityGroup: api"), udp(8080, "cidr: 0.0.0.0/0")].join(", "));
    let services = ["web", "api", "db"].map(|name| service(name, 3, name, ""));
    let lone = service("lone", 3, "default", "");
    services.join("---") + "---" + &lone + &web + &api + &db
}

/// `from` is a service, or nobody's.
fn allowed(protocol: &str, from: Option<&str>, to: &str) -> bool {
    match (protocol, to) {
        ("tcp", "web") | ("udp", "db") => true,
        ("tcp", "api") => from == Some("web"),
        ("tcp", "db") => from == Some("api"),
        ("udp", "web") => from == Some("api"),
        ("udp", "api") => from == Some("db"),
        _ => from == Some(to),
    }
}

#[test]
#[ignore = "needs a lab"]
fn each_packet_passes_that_a_group_lets_and_no_other() {
    let fleet = Fleet::with("matrix", "3", &[("fleet.yaml", &manifests())]);
    fleet.controller.wait_steady();
    let services = ["web", "api", "db", "lone"];
    let tasks: Vec<(&str, Place)> =
        services.iter().flat_map(|name| fleet.tasks(name).into_iter().map(|task| (*name, task))).collect();
    let places = tasks.iter().map(|(name, task)| (*name, task.host.as_str())).collect::<BTreeSet<_>>();
    assert_eq!((tasks.len(), places.len()), (12, 12), "each service on each host: {places:?}");
    let echoes: Vec<Echo<'_>> = tasks.iter().map(|(_, task)| Echo::of(&fleet, task)).collect();
    until("all answer", MINUTE, || echoes.iter().all(Echo::has_begun));
    let addresses: Vec<String> = tasks.iter().map(|(_, task)| task.address.to_string()).collect();
    let check = |who: &str, from: Option<&str>, own: Option<Ipv4Addr>, said: &str| {
        let answered: BTreeSet<&str> = said.lines().collect();
        let others = tasks.iter().filter(|(_, task)| Some(task.address) != own);
        let wrong: Vec<String> = others
            .flat_map(|(to, task)| ["tcp", "udp"].map(|protocol| (protocol, *to, task)))
            .filter(|(protocol, to, task)| {
                answered.contains(format!("{protocol} {}", task.address).as_str()) != allowed(protocol, from, to)
            })
            .map(|(protocol, to, task)| format!("{protocol} → {to} {task:?}"))
            .collect();
        assert!(wrong.is_empty(), "from {who}: {wrong:#?} of what answered: {answered:?}");
    };
    let tried = format!("python3 -c '{TRY}' {}", addresses.join(" "));
    for (from, task) in &tasks {
        let said = fleet.ssh(&task.host, &format!("nsenter -t {} -n {tried}", task.pid));
        check(&format!("{from} {task:?}"), Some(from), Some(task.address), &said);
    }
    let lone: Vec<&Place> = tasks.iter().filter(|(name, _)| *name == "lone").map(|(_, task)| task).collect();
    for (from, to) in lone.iter().flat_map(|from| lone.iter().map(move |to| (from, to))) {
        assert!(fleet.sends_much(from, to), "{from:?} → {to:?}");
    }
    assert!(!fleet.sends_much(&tasks[0].1, lone[0]), "it may not");
    for host in fleet.lab.hosts() {
        check(host, None, None, &fleet.ssh(host, &tried));
    }
    let routes = tasks.iter().map(|(_, task)| (task.address, fleet.lab.address(&task.host).parse().unwrap())).collect();
    let outsider = Outsider::on(&fleet, &routes);
    check("outside", None, None, &outsider.tries(&addresses));
}
