//! Hosts with bridges and tasks, and all the world outside, in namespaces that are gone afterwards.

use std::{
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use roadstead_core::model::network::mac_address;
use serde_json::Value;

use crate::{
    far_end::{ADDRESSES, Ask, Probe, Seen},
    fleet::{self, HOSTS, OUTSIDE, SUBNETS, TASKS},
};

/// Longer than any question takes, also on a machine that has much else to do.
const DEADLINE: Duration = Duration::from_secs(40);
const PREFIX: &str = "rs-packets";
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// One namespace, and who answers in it.
pub struct Place {
    pub name: &'static str,
    /// The first is what it sends from when it is not said.
    pub addresses: Vec<Ipv4Addr>,
    far_end: Option<(Child, Receiver<Vec<Option<Seen>>>)>,
}

pub struct Lab {
    test: &'static str,
    pub places: Vec<Place>,
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Lab {
    pub fn up(test: &'static str) -> Self {
        remove_forgotten();
        let place = |name, addresses: Vec<Ipv4Addr>| Place { name, addresses, far_end: None };
        let mut places = vec![place("outside", OUTSIDE.to_vec())];
        places.extend(HOSTS.map(|(host, address, slice)| {
            let gateways = SUBNETS.map(|subnet| fleet::bridge(subnet, slice).gateway());
            place(host, [&[address][..], &gateways].concat())
        }));
        places.extend(TASKS.iter().map(|task| place(task.id, vec![task.address])));
        let mut lab = Self { test, places };
        for place in &lab.places {
            run(Command::new("ip").args(["netns", "add", &lab.namespace(place.name)]));
            lab.ip(place.name, "link set lo up");
            lab.set(place.name, "net/ipv4/ping_group_range", "0 0");
            // Nothing is sent but what is asked for.
            lab.set(place.name, "net/ipv6/conf/all/disable_ipv6", "1");
        }
        lab.ip("outside", "link add lan type bridge");
        lab.ip("outside", "link set lan up");
        lab.ip("outside", &format!("address add {ROUTER}/24 dev lan"));
        for address in OUTSIDE {
            lab.ip("outside", &format!("address add {address}/32 dev lo"));
        }
        for (host, address, slice) in HOSTS {
            lab.ip("outside", &format!("link add {host} type veth peer name lan netns {}", lab.namespace(host)));
            lab.ip("outside", &format!("link set {host} master lan up"));
            lab.ip(host, "link set lan up");
            lab.ip(host, &format!("address add {address}/24 dev lan"));
            lab.ip(host, &format!("route add default via {ROUTER}"));
            lab.set(host, "net/ipv4/ip_forward", "1");
            // Docker sets it: what goes from task to task on one bridge is asked about, too.
            lab.set(host, "net/bridge/bridge-nf-call-iptables", "1");
            for bridge in SUBNETS.map(|subnet| fleet::bridge(subnet, slice)) {
                let name = bridge.interface();
                lab.ip(host, &format!("link add {name} type bridge"));
                lab.ip(host, &format!("address add {}/24 dev {name}", bridge.gateway()));
                lab.ip(host, &format!("link set {name} up"));
            }
        }
        for (host, address, slice) in HOSTS {
            for elsewhere in HOSTS.iter().map(|(other, ..)| *other).chain(["outside"]).filter(|other| *other != host) {
                for bridge in SUBNETS.map(|subnet| fleet::bridge(subnet, slice)) {
                    lab.ip(elsewhere, &format!("route add {} via {address}", bridge.slice));
                }
            }
        }
        for task in TASKS {
            let bridge = fleet::bridge_of(task);
            let namespace = lab.namespace(task.id);
            lab.ip(task.host, &format!("link add {} type veth peer name eth0 netns {namespace}", task.id));
            lab.ip(task.host, &format!("link set {} master {} up", task.id, bridge.interface()));
            lab.ip(task.id, &format!("link set eth0 address {} up", mac_address(task.address)));
            lab.ip(task.id, &format!("address add {}/24 dev eth0", task.address));
            lab.ip(task.id, &format!("route add default via {}", bridge.gateway()));
        }
        for index in 0..lab.places.len() {
            let far_end = lab.start(&lab.places[index]);
            lab.places[index].far_end = Some(far_end);
        }
        for place in &lab.places {
            lab.answer(place.name);
        }
        lab
    }

    fn namespace(&self, place: &str) -> String {
        format!("{PREFIX}-{}-{}-{place}", std::process::id(), self.test)
    }

    fn inside(&self, place: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(place)]).arg(program);
        command
    }

    /// `sysctl KEY=VALUE` in a namespace.
    pub fn set(&self, place: &str, key: &str, value: &str) {
        run(self.inside(place, "sysctl").args(["-qw", &format!("{key}={value}")]));
    }

    /// `ip …` in a namespace.
    pub fn ip(&self, place: &str, arguments: &str) {
        run(Command::new("ip").args(["-n", &self.namespace(place)]).args(arguments.split(' ')));
    }

    fn start(&self, place: &Place) -> (Child, Receiver<Vec<Option<Seen>>>) {
        let addresses: Vec<String> = place.addresses.iter().map(Ipv4Addr::to_string).collect();
        let mut command = self.inside(place.name, std::env::current_exe().unwrap());
        command.args(["--exact", "far_end::answers_in_a_namespace", "--ignored", "--nocapture"]);
        command.env(ADDRESSES, addresses.join(",")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (answers, answered) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some((_, answer)) = line.split_once('@') else { continue };
                if answers.send(serde_json::from_str(answer).unwrap()).is_err() {
                    return;
                }
            }
        });
        (child, answered)
    }

    fn place(&self, name: &str) -> &Place {
        self.places.iter().find(|place| place.name == name).unwrap()
    }

    fn answer(&self, place: &str) -> Vec<Option<Seen>> {
        let (_, answered) = self.place(place).far_end.as_ref().unwrap();
        answered.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("{place}: {error}"))
    }

    fn tell(&mut self, place: &str, ask: &Ask) {
        let place = self.places.iter_mut().find(|it| it.name == place).unwrap();
        let stdin = place.far_end.as_mut().unwrap().0.stdin.as_mut().unwrap();
        writeln!(stdin, "{}", serde_json::to_string(ask).unwrap()).unwrap();
    }

    /// Whether it could be done.
    pub fn ask(&mut self, place: &str, ask: &Ask) -> bool {
        self.tell(place, ask);
        self.answer(place).iter().all(Option::is_some)
    }

    /// Whether each passes; all at once, from all places.
    pub fn probe(&mut self, probes: Vec<(&'static str, Probe)>) -> Vec<bool> {
        self.seen(probes).iter().map(Option::is_some).collect()
    }

    /// As whom each arrives; all at once, from all places.
    pub fn seen(&mut self, probes: Vec<(&'static str, Probe)>) -> Vec<Option<Seen>> {
        let mut passed = vec![None; probes.len()];
        let names: Vec<&'static str> = self.places.iter().map(|place| place.name).collect();
        let of =
            |name: &str| probes.iter().enumerate().filter(move |(_, (place, _))| *place == name).collect::<Vec<_>>();
        for name in &names {
            self.tell(name, &Ask::Probe(of(name).into_iter().map(|(_, (_, probe))| probe.clone()).collect()));
        }
        for name in &names {
            for ((index, _), seen) in of(name).into_iter().zip(self.answer(name)) {
                passed[index] = seen;
            }
        }
        passed
    }

    /// `nft -f -` on a host.
    pub fn try_load(&self, host: &str, text: &str) -> bool {
        let mut command = self.inside(host, "nft");
        let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        if !output.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        }
        output.status.success()
    }

    pub fn load(&self, host: &str, text: &str) {
        assert!(self.try_load(host, text), "{text}");
    }

    fn listed(&self, host: &str, family: &str) -> Vec<Value> {
        let text = run(self.inside(host, "nft").args(["-j", "list", "table", family, "roadstead"]));
        let mut listed: Value = serde_json::from_str(&text).unwrap();
        listed["nftables"].as_array_mut().unwrap().split_off(1)
    }

    /// Our table as the kernel of a host has it, without what only counts.
    pub fn table(&self, host: &str) -> Vec<Value> {
        fn without_counts(value: &mut Value) {
            match value {
                Value::Object(fields) => {
                    fields.retain(|name, _| !["handle", "packets", "bytes"].contains(&name.as_str()));
                    fields.values_mut().for_each(without_counts);
                }
                Value::Array(values) => values.iter_mut().for_each(without_counts),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let mut listed = self.listed(host, "inet");
        for item in &mut listed {
            without_counts(item);
            if let Some(elements) = item.pointer_mut("/set/elem").and_then(Value::as_array_mut) {
                elements.sort_by_key(Value::to_string);
            }
        }
        listed
    }

    /// How many packets a host's chain has dropped.
    pub fn dropped(&self, host: &str, family: &str, chain: &str) -> u64 {
        let rules = self.listed(host, family).into_iter().filter(|item| item["rule"]["chain"] == chain);
        let counted = |rule: &Value| {
            let parts = rule["rule"]["expr"].as_array().unwrap();
            parts.iter().filter_map(|part| part["counter"]["packets"].as_u64()).sum::<u64>()
        };
        rules.map(|rule| counted(&rule)).sum()
    }

    /// What a host knows of a neighbour.
    pub fn neighbour(&self, host: &str, address: Ipv4Addr) -> String {
        run(Command::new("ip").args(["-n", &self.namespace(host), "neighbour", "show", &address.to_string()]))
    }
}

/// Namespaces of a test that was ended before it could remove them.
fn remove_forgotten() {
    for name in run(Command::new("ip").args(["netns", "list"])).lines().filter_map(|line| line.split(' ').next()) {
        let of = name.strip_prefix(PREFIX).and_then(|rest| rest.trim_start_matches('-').split('-').next());
        if of.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            run(Command::new("ip").args(["netns", "del", name]));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for place in &mut self.places {
            if let Some((mut child, _)) = place.far_end.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        for place in &self.places {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(place.name)]).output();
        }
    }
}
