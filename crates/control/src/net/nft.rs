//! A host's part of the task network as nftables, for `nft -f -`.
//!
//! What a packet must get through, closed by default:
//!
//! * `forged`: what a bridge's tasks send bears the address of one of them, and nobody else uses theirs;
//! * `egress`, then `ingress`: at the same hook one after the other. An `accept` ends only its own chain, so both must agree;
//! * `input`: from tasks to their own host; `output`: from the host to its own tasks, health checks first.
//!
//! What was allowed once goes on as long as it lasts, also when its rule is gone (EC2's connection tracking). Who asks from this
//! host is refused with a reset, to learn of it at once; who asks from elsewhere hears nothing, as with EC2. No reset is
//! sent for anything but a first packet: a connection that the kernel forgot is picked up again by its next packet.
//!
//! The hosts themselves are out of reach of a rule for everybody: sshd, the Docker Engine or what a cloud tells its machines
//! on 169.254.169.254 are meant by no one who writes `0.0.0.0/0`. A rule reaches them that is narrower, or names a group that
//! they are in. The hosts' addresses inside the task network are further in: a rule for a subnet means its tasks, so only one for
//! that very address reaches them. A load balancer on a host is no part of it: a rule for everybody reaches its ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::Ipv4Addr,
};

use aws_lc_rs::digest;
use ipnet::Ipv4Net;
use roadstead_core::model::{
    hex::hex,
    name::SecurityGroupName,
    network::{Bridge, GroupRules, HostNetwork, LINK_LOCAL, LocalTask, gateway, mac_address},
    spec::{
        security_group::{IpProtocol, Peer, Permission},
        task_definition::Protocol,
    },
    wireguard::INTERFACE,
};

/// The name of our tables, of both families.
pub const TABLE: &str = "roadstead";

/// All rules of a host, in one transaction in place of what was there.
pub fn ruleset(wanted: &HostNetwork) -> String {
    inet(wanted).whole()
}

/// From one picture to another by members that came or went: empty when there are none, and none when more differs than that.
/// Fails as a whole, changing nothing, on a host that does not have the rules of `before`.
pub fn update(before: &HostNetwork, after: &HostNetwork) -> Option<String> {
    inet(before).changed_to(&inet(after))
}

/// The rules against forged frames between tasks of one bridge, by itself: not every kernel has nftables for bridges, and it
/// loses only these. They know no ports: who can send any bytes (NET_RAW) and takes both the address and the hardware address of
/// a neighbour is not told apart from it.
pub fn bridge_ruleset(wanted: &HostNetwork) -> String {
    bridge(wanted).whole()
}

/// The same as [`update`], for [`bridge_ruleset`].
pub fn bridge_update(before: &HostNetwork, after: &HostNetwork) -> Option<String> {
    bridge(before).changed_to(&bridge(after))
}

/// The rules inside a task's own network namespace, where those of its host see none of its packets: the same, for it alone.
/// In one transaction in place of what was there; nothing for an address that is none of a LAN's.
pub fn task_ruleset(wanted: &HostNetwork, address: Ipv4Addr) -> Option<String> {
    let bridge = wanted.bridges.iter().find(|bridge| bridge.lan.is_some() && bridge.slice.contains(&address))?;
    let task = wanted.tasks.get(&address)?;
    let is_its = |group: &SecurityGroupName| task.security_groups.contains(group);
    let all = &wanted.fleet.groups;
    let groups = all.iter().filter(|(group, _)| is_its(group)).map(|(group, rules)| (group.clone(), rules.clone()));
    let groups: BTreeMap<SecurityGroupName, GroupRules> = groups.collect();
    let mut table = Table { family: "inet", sets: BTreeMap::new(), chains: String::new() };
    let alone = BTreeMap::from([(address, task.clone())]);
    // What is for all on the LAN is for it, too.
    let to_task: Vec<String> =
        judged(&mut table, wanted, &alone, &groups).into_iter().map(|it| format!("jump {}", it.chain)).collect();
    let gateway = bridge.gateway();
    let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let input = [
        "type filter hook input priority -10; policy drop;",
        "iifname \"lo\" accept",
        "meta nfproto ipv6 counter drop",
        TRACKED,
        &format!("ip saddr {gateway} {CHECKED}"),
    ];
    table.chain("input", &[own(&input), to_task, own(&["counter drop"])].concat());
    let output = [
        "type filter hook output priority -10; policy drop;",
        "oifname \"lo\" accept",
        "meta nfproto ipv6 counter drop",
        "ip saddr != @tasks counter drop",
        TRACKED,
        &format!("ip daddr {gateway} {NAMES}"),
        &format!("ip daddr {gateway} {ECHO}"),
        TO_BALANCERS,
        "ip daddr @hosts goto to_hosts",
        "ip daddr @gateways goto to_hosts",
        &format!("ip daddr {LINK_LOCAL} goto to_hosts"),
        "goto out",
    ];
    table.chain("output", &own(&output));
    table.chain("forward", &own(&["type filter hook forward priority -10; policy drop;"]));
    Some(table.whole())
}

const TO_BALANCERS: &str = "ip daddr . tcp dport @balancers goto out";
const TRACKED: &str = "ct state established,related accept";
const CHECKED: &str = "ip daddr . meta l4proto . th dport @checked accept";
/// Names are answered at the gateway, and it answers a ping.
const NAMES: &str = "meta l4proto { tcp, udp } th dport 53 accept";
const ECHO: &str = "icmp type echo-request accept";

/// A table: what may change by itself, and the rest.
struct Table {
    family: &'static str,
    sets: BTreeMap<String, Set>,
    chains: String,
}

struct Set {
    kind: &'static str,
    elements: BTreeSet<String>,
}

impl Table {
    fn set(&mut self, name: impl Into<String>, kind: &'static str, elements: impl IntoIterator<Item = String>) {
        self.sets.insert(name.into(), Set { kind, elements: elements.into_iter().collect() });
    }

    fn chain(&mut self, name: &str, rules: &[String]) {
        let _ = writeln!(self.chains, "\tchain {name} {{");
        for rule in rules {
            let _ = writeln!(self.chains, "\t\t{rule}");
        }
        self.chains.push_str("\t}\n");
    }

    fn whole(&self) -> String {
        let name = format!("{} {TABLE}", self.family);
        // Declared first, so that there is something to delete.
        let mut text = format!("table {name}\ndelete table {name}\ntable {name} {{\n");
        for (name, set) in &self.sets {
            let _ = writeln!(text, "\tset {name} {{\n\t\ttype {}", set.kind);
            if !set.elements.is_empty() {
                let _ = writeln!(text, "\t\telements = {{ {} }}", list(&set.elements));
            }
            text.push_str("\t}\n");
        }
        text + &self.chains + "}\n"
    }

    fn changed_to(&self, after: &Self) -> Option<String> {
        if self.chains != after.chains || !self.sets.keys().eq(after.sets.keys()) {
            return None;
        }
        let mut text = String::new();
        for ((name, before), after) in self.sets.iter().zip(after.sets.values()) {
            let gone: Vec<&String> = before.elements.difference(&after.elements).collect();
            let new: Vec<&String> = after.elements.difference(&before.elements).collect();
            for (verb, elements) in [("delete", gone), ("add", new)] {
                if !elements.is_empty() {
                    let _ = writeln!(text, "{verb} element {} {TABLE} {name} {{ {} }}", self.family, list(elements));
                }
            }
        }
        Some(text)
    }
}

fn list<T: AsRef<str>>(elements: impl IntoIterator<Item = T>) -> String {
    elements.into_iter().map(|element| element.as_ref().to_owned()).collect::<Vec<_>>().join(", ")
}

/// A group's set or chain. Its name is a person's text: what could be anything else than a word is left out, and the hash keeps
/// apart what is then alike.
fn of_group(what: &str, group: &SecurityGroupName) -> String {
    let hash = digest::digest(&digest::SHA256, group.as_str().as_bytes());
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let readable: String = group.as_str().chars().take(40).map(word).collect();
    format!("{what}_{readable}_{}", hex(hash.as_ref().get(..8).unwrap_or_default()))
}

/// Every group that is spoken of by these rules, and these tasks.
fn groups<'a>(
    rules: &'a BTreeMap<SecurityGroupName, GroupRules>,
    tasks: &'a BTreeMap<Ipv4Addr, LocalTask>,
) -> BTreeSet<&'a SecurityGroupName> {
    let named = rules.values().flat_map(|rules| rules.ingress.iter().chain(&rules.egress));
    let named = named.flat_map(|permission| &permission.peers).filter_map(|peer| match peer {
        Peer::SecurityGroup(name) => Some(name),
        Peer::Cidr(_) => None,
    });
    let local = tasks.values().flat_map(|task| &task.security_groups);
    rules.keys().chain(named).chain(local).collect()
}

/// Who is let in by a group: its members here, by their set, and the chain that says so.
struct Entrance {
    members: String,
    chain: String,
}

impl Entrance {
    fn of_host(entrances: &[Self]) -> Vec<String> {
        entrances.iter().map(|it| format!("ip daddr @{} jump {}", it.members, it.chain)).collect()
    }
}

/// The sets, and the chains without a hook: what groups say of some tasks.
fn judged(
    table: &mut Table,
    wanted: &HostNetwork,
    tasks: &BTreeMap<Ipv4Addr, LocalTask>,
    all: &BTreeMap<SecurityGroupName, GroupRules>,
) -> Vec<Entrance> {
    let fleet = &wanted.fleet;
    table.set("tasks", "ipv4_addr", texts(tasks.keys()));
    table.set("hosts", "ipv4_addr", texts(&fleet.hosts));
    let gateways: Vec<Ipv4Addr> = wanted.slices().map(gateway).collect();
    table.set("gateways", "ipv4_addr", texts(&gateways));
    let checked = tasks.iter().flat_map(|(address, task)| {
        task.checked.iter().map(move |(protocol, port)| match protocol {
            Protocol::Tcp => format!("{address} . tcp . {port}"),
            Protocol::Udp => format!("{address} . udp . {port}"),
        })
    });
    table.set("checked", "ipv4_addr . inet_proto . inet_service", checked);

    let balancers = fleet.balancers.iter().map(|(address, port)| format!("{address} . {port}"));
    table.set("balancers", "ipv4_addr . inet_service", balancers);

    let (mut out, mut to_hosts, mut entrances) = (Vec::new(), Vec::new(), Vec::new());
    for group in groups(all, tasks) {
        table.set(of_group("members", group), "ipv4_addr", texts(fleet.members.get(group).into_iter().flatten()));
        let Some(rules) = all.get(group) else { continue };
        let local = of_group("local", group);
        let members = tasks.iter().filter(|(_, task)| task.security_groups.contains(group));
        table.set(&local, "ipv4_addr", texts(members.map(|(address, _)| address)));
        let mut chain = |what, way, select: fn(&Peer, &str) -> Option<String>, permissions: &[Permission]| {
            let name = of_group(what, group);
            table.chain(&name, &allowed(way, permissions, select));
            name
        };
        let name = chain("out", "daddr", everywhere, &rules.egress);
        out.push(format!("ip saddr @{local} jump {name}"));
        let name = chain("hosts", "daddr", hosts_alone, &rules.egress);
        to_hosts.push(format!("ip saddr @{local} jump {name}"));
        let name = chain("in", "saddr", everywhere, &rules.ingress);
        entrances.push(Entrance { members: local, chain: name });
    }

    let refuse = ["tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset", "counter drop"];
    table.chain("refuse", &refuse.map(str::to_owned));
    let refused = || "goto refuse".to_owned();
    to_hosts.push(refused());
    out.push(refused());
    table.chain("to_hosts", &to_hosts);
    table.chain("out", &out);
    entrances
}

fn inet(wanted: &HostNetwork) -> Table {
    let fleet = &wanted.fleet;
    let mut table = Table { family: "inet", sets: BTreeMap::new(), chains: String::new() };
    table.set("bridges", "ifname", wanted.bridges.iter().map(|bridge| format!("\"{}\"", bridge.interface())));
    // A group has its members' set also where nothing names it: an update needs none of the rest then.
    for group in fleet.members.keys() {
        table.set(of_group("members", group), "ipv4_addr", texts(fleet.members.get(group).into_iter().flatten()));
    }
    let to_tasks = Entrance::of_host(&judged(&mut table, wanted, &wanted.tasks, &fleet.groups));
    let rules = |parts: &[&[String]]| parts.concat();
    let texts = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    // The host's own resets come back to it by its loopback, in a task's name.
    let forged = [
        "type filter hook prerouting priority raw; policy accept;",
        "iifname \"lo\" accept",
        "iifname @bridges meta nfproto ipv6 counter drop",
        "iifname @bridges ip saddr != @tasks counter drop",
        "iifname != @bridges ip saddr @tasks counter drop",
    ];
    let by_tunnel = encrypted(wanted, &mut table);
    // On a LAN a host's own address among its tasks' is for these alone.
    let on_lan = wanted.bridges.iter().filter(|bridge| bridge.lan.is_some());
    let own = |bridge: &Bridge| format!("iifname != @bridges ip daddr {} counter drop", bridge.gateway());
    table.chain("forged", &rules(&[&texts(&forged), &on_lan.map(own).collect::<Vec<_>>(), &by_tunnel]));
    let link_local = format!("ip daddr {LINK_LOCAL} goto to_hosts");
    let egress = [
        "type filter hook forward priority -11; policy accept;",
        "iifname != @bridges accept",
        TRACKED,
        TO_BALANCERS,
        "ip daddr @hosts goto to_hosts",
        "ip daddr @gateways goto to_hosts",
        &link_local,
    ];
    table.chain("egress", &rules(&[&texts(&egress), &texts(&["goto out"])]));
    let ingress = [
        "type filter hook forward priority -10; policy accept;",
        "oifname != @bridges accept",
        "meta nfproto ipv6 counter drop",
        TRACKED,
    ];
    table.chain("ingress", &rules(&[&texts(&ingress), &to_tasks, &texts(&["counter drop"])]));
    let input = [
        "type filter hook input priority -10; policy accept;",
        "iifname != @bridges accept",
        TRACKED,
        &format!("ip daddr @gateways {NAMES}"),
        &format!("ip daddr @gateways {ECHO}"),
        TO_BALANCERS,
        "goto to_hosts",
    ];
    table.chain("input", &texts(&input));
    // By address too: what goes to a published port is on its way elsewhere until its destination is rewritten.
    let output = [
        "type filter hook output priority -10; policy accept;",
        "oifname @bridges goto from_host",
        "ip daddr @tasks goto from_host",
    ];
    let from_host = [TRACKED, CHECKED];
    table.chain("from_host", &rules(&[&texts(&from_host), &to_tasks, &texts(&["goto refuse"])]));
    table.chain("output", &texts(&output));
    let cluster = ranges(wanted.slices().chain([fleet.cidr]));
    let masquerade = format!("ip saddr {{ {cluster} }} ip daddr != {{ {cluster} }} oifname != @bridges masquerade");
    let hook = "type nat hook postrouting priority srcnat; policy accept;";
    table.chain("leaving", &texts(&[hook, &masquerade]));
    table
}

/// What belongs to the encrypted way between hosts: what comes by it is from a peer's tasks, what is from them comes by it and
/// nothing for them leaves by another way, whatever becomes of routes. Returns what `forged` is to say of it.
fn encrypted(wanted: &HostNetwork, table: &mut Table) -> Vec<String> {
    if wanted.tunnel.is_none() {
        return Vec::new();
    }
    let others = ranges(wanted.slices_elsewhere());
    if others.is_empty() {
        return vec![format!("iifname \"{INTERFACE}\" counter drop")];
    }
    let rules = [
        "type filter hook postrouting priority -1; policy accept;".to_owned(),
        format!("oifname != {{ \"{INTERFACE}\", \"lo\" }} ip daddr {{ {others} }} counter drop"),
    ];
    table.chain("plain", &rules);
    // A network of the engine's that is older than the encryption has larger packets.
    let rules = [
        "type filter hook forward priority mangle; policy accept;".to_owned(),
        format!("oifname \"{INTERFACE}\" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"),
    ];
    table.chain("fits", &rules);
    vec![
        format!("iifname \"{INTERFACE}\" meta nfproto ipv6 counter drop"),
        format!("iifname \"{INTERFACE}\" ip saddr != {{ {others} }} counter drop"),
        format!("iifname != \"{INTERFACE}\" ip saddr {{ {others} }} counter drop"),
    ]
}

/// Address ranges, neither twice nor one in the other.
fn ranges(ranges: impl Iterator<Item = Ipv4Net>) -> String {
    let ranges: Vec<Ipv4Net> = ranges.map(|range| range.trunc()).collect();
    list(Ipv4Net::aggregate(&ranges).iter().map(Ipv4Net::to_string))
}

fn texts<'a>(addresses: impl IntoIterator<Item = &'a Ipv4Addr>) -> Vec<String> {
    addresses.into_iter().map(Ipv4Addr::to_string).collect()
}

/// The rules of a chain: one for each peer that `select` makes a match of.
fn allowed(way: &str, permissions: &[Permission], select: fn(&Peer, &str) -> Option<String>) -> Vec<String> {
    let mut rules = Vec::new();
    for permission in permissions {
        let ports = |protocol: &str| match permission.ports {
            None => format!("meta l4proto {protocol} "),
            Some((first, last)) => format!("{protocol} dport {first}-{last} "),
        };
        let what = match permission.protocol {
            IpProtocol::Tcp => ports("tcp"),
            IpProtocol::Udp => ports("udp"),
            IpProtocol::Icmp => "meta l4proto icmp ".to_owned(),
            IpProtocol::All => String::new(),
        };
        let matches = permission.peers.iter().filter_map(|peer| select(peer, way));
        rules.extend(matches.map(|peer| format!("{peer} {what}accept")));
    }
    rules
}

fn everywhere(peer: &Peer, way: &str) -> Option<String> {
    Some(match peer {
        Peer::Cidr(cidr) if cidr.prefix_len() == 0 => "meta nfproto ipv4".to_owned(),
        Peer::Cidr(cidr) => format!("ip {way} {}", cidr.trunc()),
        Peer::SecurityGroup(group) => format!("ip {way} @{}", of_group("members", group)),
    })
}

fn hosts_alone(peer: &Peer, way: &str) -> Option<String> {
    match peer {
        Peer::Cidr(cidr) if cidr.prefix_len() == 0 => None,
        Peer::Cidr(cidr) if cidr.prefix_len() < 32 => Some(format!("ip {way} {} ip {way} != @gateways", cidr.trunc())),
        Peer::Cidr(_) | Peer::SecurityGroup(_) => everywhere(peer, way),
    }
}

/// The host's own frames never come in by a bridge's ports, so these are tasks'. The kernel learns where a hardware address is
/// after this hook: a frame that is dropped here takes nobody's place.
fn bridge(wanted: &HostNetwork) -> Table {
    let mut table = Table { family: "bridge", sets: BTreeMap::new(), chains: String::new() };
    table.set("hardware", "ether_addr", wanted.tasks.keys().copied().map(mac_address));
    let pair = |address: &Ipv4Addr| format!("{address} . {}", mac_address(*address));
    table.set("pairs", "ipv4_addr . ether_addr", wanted.tasks.keys().map(pair));
    let mut rules = vec![
        "type filter hook prerouting priority -300; policy accept;".to_owned(),
        "ether saddr @hardware ether type != { ip, arp } counter drop".to_owned(),
        "ether daddr @hardware ether type != { ip, arp } counter drop".to_owned(),
    ];
    let slices = ranges(wanted.bridges.iter().map(|bridge| bridge.slice));
    let mut whose = vec![("ip", "ether saddr @hardware".to_owned()), ("arp", "ether saddr @hardware".to_owned())];
    if !slices.is_empty() {
        whose.push(("ip", format!("ip saddr {{ {slices} }}")));
        whose.push(("arp", format!("arp saddr ip {{ {slices} }}")));
    }
    for (kind, whose) in whose {
        let pairs: &[&str] = match kind {
            "arp" => &["arp saddr ip . arp saddr ether", "arp saddr ip . ether saddr"],
            _ => &["ip saddr . ether saddr"],
        };
        rules.extend(pairs.iter().map(|pair| format!("{whose} ether type {kind} {pair} != @pairs counter drop")));
    }
    table.chain("forged", &rules);
    table
}

#[cfg(test)]
mod tests;
