//! Where packets between hosts are encrypted: what comes by that way is from a peer's tasks, and what is from these or for them
//! takes no other.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use roadstead_control::net::nft;
use roadstead_core::model::{
    network::{Bridge, FleetNetwork, HostNetwork, Names, Tunnel},
    wireguard::{INTERFACE, Peer},
};

/// A host with two ways to one other place; gone with everything in it.
struct Ways {
    host: String,
    other: String,
}

impl Ways {
    fn new() -> Self {
        let name = |what| format!("rs-packets-{}-{what}", std::process::id());
        let ways = Self { host: name("ways"), other: name("beyond") };
        for namespace in [&ways.host, &ways.other] {
            run(&["netns", "add", namespace]);
            run(&["-n", namespace, "link", "set", "lo", "up"]);
            // Nothing is sent but what is asked for.
            let quiet = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
            run(&["netns", "exec", namespace, "sh", "-c", quiet]);
        }
        for (way, net) in [("lan", "192.0.2"), (INTERFACE, "198.51.100")] {
            run(&["-n", &ways.host, "link", "add", way, "type", "veth", "peer", "name", way, "netns", &ways.other]);
            for (namespace, last) in [(&ways.host, 1), (&ways.other, 2)] {
                run(&["-n", namespace, "address", "add", &format!("{net}.{last}/24"), "dev", way]);
                run(&["-n", namespace, "link", "set", way, "up"]);
            }
        }
        for address in ["10.64.1.5/32", "10.64.2.5/32"] {
            run(&["-n", &ways.other, "address", "add", address, "dev", "lo"]);
        }
        ways
    }

    /// A packet from the other place to the host, in this name.
    fn send(&self, from: &str, to: &str) {
        run(&[
            "-n",
            &self.other,
            "route",
            "replace",
            to,
            "src",
            from,
            "dev",
            if to.starts_with("192") { "lan" } else { INTERFACE },
        ]);
        self.knock(&self.other, to);
    }

    fn knock(&self, namespace: &str, to: &str) {
        let knock = format!("echo knock >/dev/udp/{to}/9 || true");
        run(&["netns", "exec", namespace, "bash", "-c", &knock]);
    }

    /// How many packets were dropped where a chain says it.
    fn dropped(&self, chain: &str) -> usize {
        let text = run(&["netns", "exec", &self.host, "nft", "list", "chain", "inet", nft::TABLE, chain]);
        let counts = text.split("counter packets ").skip(1).filter_map(|rest| rest.split(' ').next());
        counts.map(|count| count.parse::<usize>().unwrap()).sum()
    }
}

impl Drop for Ways {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.other] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn picture() -> HostNetwork {
    let peer = Peer { public_key: None, endpoint: None, slices: ["10.64.1.0/24".parse().unwrap()].into() };
    HostNetwork {
        node_image: "node".into(),
        bridges: vec![Bridge { subnet: "app".into(), slice: "10.64.0.0/24".parse().unwrap(), lan: None }],
        routes: BTreeMap::new(),
        tunnel: Some(Tunnel { listen_port: 51_820, peers: [("other".into(), peer)].into() }),
        on_lan: Default::default(),
        tasks: BTreeMap::new(),
        fleet: Arc::new(FleetNetwork {
            balancers: Default::default(),
            cluster: "default".into(),
            cidr: "10.64.0.0/16".parse().unwrap(),
            hosts: Default::default(),
            groups: BTreeMap::new(),
            members: BTreeMap::new(),
            names: Names::default(),
        }),
    }
}

#[test]
fn what_is_from_other_hosts_tasks_or_for_them_takes_no_other_way() {
    if !crate::can_run() {
        return;
    }
    let ways = Ways::new();
    let mut load = Command::new("ip");
    load.args(["netns", "exec", &ways.host, "nft", "-f", "-"]).stdin(Stdio::piped());
    let mut load = load.spawn().unwrap();
    load.stdin.take().unwrap().write_all(nft::ruleset(&picture()).as_bytes()).unwrap();
    assert!(load.wait().unwrap().success());
    let (lan, tunnel) = ("192.0.2.1", "198.51.100.1");
    // In the name of a task of the peer: by its way, and by no other.
    ways.send("10.64.1.5", tunnel);
    assert_eq!(ways.dropped("forged"), 0);
    ways.send("10.64.1.5", lan);
    assert_eq!(ways.dropped("forged"), 1);
    // In another name: nothing comes by the peer's way, and what is none of ours is let alone on the LAN.
    ways.send("10.64.2.5", tunnel);
    assert_eq!(ways.dropped("forged"), 2);
    ways.send("192.0.2.2", lan);
    assert_eq!(ways.dropped("forged"), 2);
    // For a task of the peer: as the route says, but not in plain when the route is another.
    run(&["-n", &ways.host, "route", "add", "10.64.1.0/24", "dev", INTERFACE]);
    ways.knock(&ways.host, "10.64.1.5");
    assert_eq!(ways.dropped("plain"), 0);
    run(&["-n", &ways.host, "route", "replace", "10.64.1.0/24", "via", "192.0.2.2", "dev", "lan"]);
    ways.knock(&ways.host, "10.64.1.5");
    assert_eq!(ways.dropped("plain"), 1);
}
