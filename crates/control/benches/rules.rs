//! One member comes to a group of 500 and goes again: what a host's rules take for it, beside all of them written anew.
//! Needs root, `ip` and `nft`: `cargo bench --bench rules`. Each figure has the start of one `nft` in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::Ipv4Addr,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use roadstead_control::net::nft;
use roadstead_core::model::{
    network::{Bridge, FleetNetwork, GroupRules, HostNetwork, LocalTask, Names},
    spec::security_group::{IpProtocol, Peer, Permission},
};

const MEMBERS: u32 = 500;
/// Of these so many are on the host itself.
const HERE: u32 = 40;
const ROUNDS: usize = 40;

fn address(number: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(10, 64, 0, 2)) + number).into()
}

fn host(members: u32) -> HostNetwork {
    let all = Permission { protocol: IpProtocol::All, ports: None, peers: vec![Peer::SecurityGroup("web".into())] };
    let local = |number: u32| {
        let groups = BTreeSet::from(["web".into()]);
        let task = format!("{number:016}").as_str().into();
        (address(number), LocalTask { task, security_groups: groups, checked: BTreeSet::new(), namespace: None })
    };
    HostNetwork {
        node_image: "node".into(),
        bridges: vec![Bridge { subnet: "app".into(), slice: "10.64.0.0/24".parse().unwrap(), lan: None }],
        routes: BTreeMap::new(),
        tunnel: None,
        on_lan: Default::default(),
        tasks: (0..HERE).map(local).collect(),
        fleet: Arc::new(FleetNetwork {
            balancers: Default::default(),
            cluster: "default".into(),
            cidr: "10.64.0.0/16".parse().unwrap(),
            hosts: BTreeSet::new(),
            groups: [("web".into(), GroupRules { ingress: vec![all.clone()], egress: vec![all] })].into(),
            members: [("web".into(), (0..members).map(address).collect())].into(),
            names: Names::default(),
        }),
    }
}

/// A network namespace of its own, gone at the end.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("rs-bench-{}", std::process::id());
        assert!(Command::new("ip").args(["netns", "add", &name]).status().is_ok_and(|status| status.success()));
        Self(name)
    }

    fn load(&self, rules: &str) -> Duration {
        let began = Instant::now();
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &self.0, "nft", "-f", "-"]).stdin(Stdio::piped());
        let mut child = nft.spawn().unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().is_ok_and(|status: ExitStatus| status.success()));
        began.elapsed()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn told(what: &str, bytes: usize, mut took: Vec<Duration>) {
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{what:<44}{bytes:>8} bytes {median:>10.2?} {slowest:>10.2?} at most, of {}", took.len());
}

fn main() {
    let namespace = Namespace::new();
    let (without, with) = (host(MEMBERS), host(MEMBERS + 1));
    let [comes, goes] = [(&without, &with), (&with, &without)].map(|(from, to)| nft::update(from, to).unwrap());
    let whole = nft::ruleset(&without);
    namespace.load(&whole);
    let changes: Vec<Duration> = (0..ROUNDS).flat_map(|_| [&comes, &goes]).map(|rules| namespace.load(rules)).collect();
    let wholes: Vec<Duration> = (0..ROUNDS).map(|_| namespace.load(&whole)).collect();
    let nothing: Vec<Duration> = (0..ROUNDS).map(|_| namespace.load("")).collect();
    told(&format!("one member of {MEMBERS} comes or goes"), comes.len(), changes);
    told("all rules anew", whole.len(), wholes);
    told("no rules: a start of nft", 0, nothing);
}
