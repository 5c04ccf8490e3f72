use serde_json::{Value, json};

use super::*;
use crate::model::{
    desired::{Desired, Manifest},
    name::RevisionId,
    network::{SubnetRecord, TaskNetwork},
    small_map::SmallMap,
    spec::service::LaunchType,
    task::{LastStatus, NewTask, Task},
    time::Timestamp,
};

fn manifest<S: serde::de::DeserializeOwned>(spec: Value) -> Manifest<S> {
    let spec = serde_json::from_value(spec).unwrap();
    Manifest { labels: BTreeMap::new(), annotations: BTreeMap::new(), file: "net.yaml".into(), line: 1, spec }
}

fn task(id: &str, host: &str, address: &str, groups: &[&str]) -> Task {
    let mut task = Task::new(NewTask {
        id: id.into(),
        cluster: "default".into(),
        service: "family:net".into(),
        slot: 0,
        revision: RevisionId { family: "net".into(), number: 1 },
        host: host.into(),
        launch_type: LaunchType::Ec2,
        cpu: 0,
        memory: 0,
        containers: SmallMap::default(),
        epoch: 1,
        created_at: Timestamp(1),
    });
    task.network = Some(Arc::new(TaskNetwork {
        subnet: "default".into(),
        address: address.parse().unwrap(),
        security_groups: groups.iter().map(|group| (*group).into()).collect(),
    }));
    task
}

/// Two hosts, and tasks in groups that each say something else.
fn state() -> State {
    let mut desired = Desired::default();
    for (host, address) in [("a", "192.168.1.1"), ("b", "192.168.1.2")] {
        desired.hosts.insert(host.into(), manifest(json!({ "address": address })));
    }
    let groups = json!({
        "web": { "ingress": [
            { "protocol": "tcp", "fromPort": 80, "toPort": 443, "sources": [{ "cidr": "0.0.0.0/0" }] },
            { "protocol": "icmp", "sources": [{ "cidr": "203.0.113.0/24" }] },
        ] },
        "db": {
            "ingress": [{ "protocol": "tcp", "fromPort": 5432, "sources": [{ "cidr": "198.51.100.7/32" }, { "securityGroup": "web" }] }],
            "egress": [{ "protocol": "udp", "fromPort": 123, "destinations": [{ "cidr": "0.0.0.0/0" }] }],
        },
        "sealed": { "ingress": [{ "sources": [{ "cidr": "10.64.0.0/16" }] }], "egress": [] },
        "admin": { "egress": [
            { "protocol": "tcp", "fromPort": 22, "destinations": [{ "cidr": "192.168.1.0/24" }] },
            { "protocol": "tcp", "fromPort": 22, "destinations": [{ "cidr": "10.64.0.0/16" }] },
            { "protocol": "tcp", "fromPort": 2376, "destinations": [{ "cidr": "10.64.0.1/32" }, { "cidr": "10.64.1.1/32" }] },
            { "protocol": "tcp", "fromPort": 80, "destinations": [{ "cidr": "169.254.169.254/32" }] },
        ] },
    });
    for (name, spec) in groups.as_object().unwrap() {
        desired.security_groups.insert(name.as_str().into(), manifest(spec.clone()));
    }
    let mut state = State { desired: Arc::new(desired), ..State::default() };
    let slices = BTreeMap::from([("a".into(), 0), ("b".into(), 1)]);
    let subnet = SubnetRecord {
        name: "default".into(),
        cidr: "10.64.0.0/16".parse().unwrap(),
        host_prefix: 24,
        lan: None,
        slices,
    };
    state.subnets.insert("default".into(), subnet);
    let mut over = task("over", "a", "10.64.0.9", &["web"]);
    over.last_status = LastStatus::Stopped;
    let mut bridged = task("bridged", "a", "10.64.0.9", &[]);
    bridged.network = None;
    let tasks = [
        task("web1", "a", "10.64.0.2", &["web"]),
        task("db1", "a", "10.64.0.3", &["db"]),
        task("db2", "b", "10.64.1.2", &["db"]),
        task("sealed", "b", "10.64.1.3", &["sealed"]),
        task("admin", "a", "10.64.0.4", &["admin"]),
        task("plain1", "a", "10.64.0.5", &["default"]),
        task("plain2", "b", "10.64.1.5", &["default"]),
        task("both", "b", "10.64.1.6", &["web", "db"]),
        task("orphan", "b", "10.64.1.7", &["gone"]),
        over,
        bridged,
    ];
    state.tasks.extend(tasks.map(|task| (task.id.clone(), Arc::new(task))));
    state
}

fn endpoint(text: &str) -> Endpoint {
    text.parse().map_or_else(|_| Endpoint::Task(text.into()), Endpoint::Address)
}

fn flow(text: &str) -> Flow {
    match text.split_once(' ') {
        Some(("tcp", port)) => Flow::Tcp(port.parse().unwrap()),
        Some(("udp", port)) => Flow::Udp(port.parse().unwrap()),
        Some(_) => panic!("{text}"),
        None => Flow::Echo,
    }
}

fn judge(state: &State, from: &str, what: &str, to: &str) -> Result<Verdict, NotJudged> {
    verdict(state, &Packet { from: endpoint(from), to: endpoint(to), flow: flow(what) })
}

#[test]
fn each_end_says_yes_by_a_rule_or_says_what_is_missing() {
    let state = state();
    let all = "rule 1 of `web`: all, 0.0.0.0/0";
    let pg = "rule 1 of `db`: tcp 5432, 198.51.100.7/32 or members of `web`";
    let rows = [
        // Ports, protocols, and the peers: a network, an address, a group.
        ("203.0.113.9", "tcp 80", "web1", "no task is at this end", "rule 1 of `web`: tcp 80-443, 0.0.0.0/0"),
        ("203.0.113.9", "tcp 443", "web1", "no task is at this end", "rule 1 of `web`: tcp 80-443, 0.0.0.0/0"),
        ("203.0.113.9", "icmp", "web1", "no task is at this end", "rule 2 of `web`: icmp, 203.0.113.0/24"),
        ("198.51.100.7", "tcp 5432", "db1", "no task is at this end", pg),
        ("web1", "tcp 5432", "db1", all, pg),
        ("web1", "tcp 5432", "db2", all, pg),
        ("10.64.0.2", "tcp 5432", "10.64.1.2", all, pg),
        // One of several groups is enough.
        ("both", "tcp 5432", "db1", "rule 1 of `web`: all, 0.0.0.0/0", pg),
        ("web1", "tcp 5432", "both", all, pg),
        ("db1", "udp 123", "203.0.113.9", "rule 1 of `db`: udp 123, 0.0.0.0/0", "no task is at this end"),
        // All protocols.
        ("web1", "icmp", "sealed", all, "rule 1 of `sealed`: all, 10.64.0.0/16"),
        ("web1", "udp 9", "sealed", all, "rule 1 of `sealed`: all, 10.64.0.0/16"),
        // The group `default`, declared by nobody.
        (
            "plain1",
            "tcp 9",
            "plain2",
            "rule 1 of `default`: all, 0.0.0.0/0",
            "rule 1 of `default`: all, members of `default`",
        ),
        ("plain1", "tcp 9", "plain1", "it never leaves the task", "it never leaves the task"),
        // Hosts.
        ("sealed", "udp 53", "10.64.1.1", "names are answered there", "no task is at this end"),
        ("sealed", "tcp 53", "10.64.1.1", "names are answered there", "no task is at this end"),
        ("sealed", "icmp", "10.64.1.1", "a task's gateway answers it", "no task is at this end"),
        ("admin", "tcp 22", "192.168.1.1", "rule 1 of `admin`: tcp 22, 192.168.1.0/24", "no task is at this end"),
        ("admin", "tcp 22", "192.168.1.2", "rule 1 of `admin`: tcp 22, 192.168.1.0/24", "no task is at this end"),
        (
            "admin",
            "tcp 2376",
            "10.64.0.1",
            "rule 3 of `admin`: tcp 2376, 10.64.0.1/32 or 10.64.1.1/32",
            "no task is at this end",
        ),
        (
            "admin",
            "tcp 2376",
            "10.64.1.1",
            "rule 3 of `admin`: tcp 2376, 10.64.0.1/32 or 10.64.1.1/32",
            "no task is at this end",
        ),
        (
            "admin",
            "tcp 80",
            "169.254.169.254",
            "rule 4 of `admin`: tcp 80, 169.254.169.254/32",
            "no task is at this end",
        ),
        ("192.168.1.2", "tcp 80", "web1", "no task is at this end", "rule 1 of `web`: tcp 80-443, 0.0.0.0/0"),
        ("10.64.0.1", "tcp 80", "web1", "no task is at this end", "rule 1 of `web`: tcp 80-443, 0.0.0.0/0"),
    ];
    for (from, what, to, egress, ingress) in rows {
        let verdict = judge(&state, from, what, to).unwrap();
        let said = (verdict.egress.to_string(), verdict.ingress.to_string());
        assert_eq!((said.0.as_str(), said.1.as_str()), (egress, ingress), "{from} {what} {to}");
        assert!(verdict.passes(), "{from} {what} {to}");
    }
}

#[test]
fn what_nothing_allows_is_refused_in_words() {
    let state = state();
    let rows = [
        ("203.0.113.9", "tcp 79", "web1", "no ingress rule of `web` of 10.64.0.2 names tcp 79 from 203.0.113.9"),
        ("203.0.113.9", "tcp 444", "web1", "no ingress rule of `web` of 10.64.0.2 names tcp 444 from 203.0.113.9"),
        ("203.0.113.9", "udp 80", "web1", "no ingress rule of `web` of 10.64.0.2 names udp 80 from 203.0.113.9"),
        ("198.51.100.7", "icmp", "web1", "no ingress rule of `web` of 10.64.0.2 names icmp from 198.51.100.7"),
        ("198.51.100.8", "tcp 5432", "db1", "no ingress rule of `db` of 10.64.0.3 names tcp 5432 from 198.51.100.8"),
        (
            "plain1",
            "tcp 5432",
            "db1",
            "no ingress rule of `db` of 10.64.0.3 names tcp 5432 from 10.64.0.5 (group `default`)",
        ),
        (
            "both",
            "udp 9",
            "plain1",
            "no ingress rule of `default` of 10.64.0.5 names udp 9 from 10.64.1.6 (groups `db`, `web`)",
        ),
        ("192.168.1.2", "tcp 22", "plain1", "no ingress rule of `default` of 10.64.0.5 names tcp 22 from 192.168.1.2"),
        ("10.64.0.1", "tcp 22", "plain1", "no ingress rule of `default` of 10.64.0.5 names tcp 22 from 10.64.0.1"),
        ("web1", "tcp 9", "orphan", "no ingress rule of `gone` of 10.64.1.7 names tcp 9 from 10.64.0.2 (group `web`)"),
        ("orphan", "tcp 80", "web1", "no egress rule of `gone` of 10.64.1.7 names tcp 80 to 10.64.0.2 (group `web`)"),
        ("db1", "tcp 123", "203.0.113.9", "no egress rule of `db` of 10.64.0.3 names tcp 123 to 203.0.113.9"),
        ("sealed", "tcp 80", "web1", "no egress rule of `sealed` of 10.64.1.3 names tcp 80 to 10.64.0.2 (group `web`)"),
        ("203.0.113.9", "tcp 9", "10.64.0.99", ""),
        ("web1", "tcp 9", "10.64.1.99", "no task has the address 10.64.1.99"),
        ("10.64.1.99", "tcp 80", "web1", "no task has the address 10.64.1.99"),
        // Hosts, their addresses inside the network, and what they are told of themselves.
        (
            "web1",
            "tcp 22",
            "192.168.1.1",
            "no egress rule of `web` of 10.64.0.2 names tcp 22 to 192.168.1.1: 0.0.0.0/0 does not cover hosts",
        ),
        (
            "web1",
            "tcp 22",
            "192.168.1.2",
            "no egress rule of `web` of 10.64.0.2 names tcp 22 to 192.168.1.2: 0.0.0.0/0 does not cover hosts",
        ),
        (
            "web1",
            "tcp 80",
            "169.254.169.254",
            "no egress rule of `web` of 10.64.0.2 names tcp 80 to 169.254.169.254: 0.0.0.0/0 does not cover what machines are told of themselves",
        ),
        (
            "web1",
            "udp 54",
            "10.64.0.1",
            "no egress rule of `web` of 10.64.0.2 names udp 54 to 10.64.0.1: it is a host's, for which only a rule for 10.64.0.1/32 is meant",
        ),
        (
            "web1",
            "udp 53",
            "10.64.1.1",
            "no egress rule of `web` of 10.64.0.2 names udp 53 to 10.64.1.1: it is a host's, for which only a rule for 10.64.1.1/32 is meant",
        ),
        (
            "admin",
            "tcp 22",
            "10.64.0.1",
            "no egress rule of `admin` of 10.64.0.4 names tcp 22 to 10.64.0.1: it is a host's, for which only a rule for 10.64.0.1/32 is meant",
        ),
        (
            "admin",
            "tcp 23",
            "192.168.1.2",
            "no egress rule of `admin` of 10.64.0.4 names tcp 23 to 192.168.1.2: 0.0.0.0/0 does not cover hosts",
        ),
    ];
    for (from, what, to, why) in rows {
        let verdict = judge(&state, from, what, to).unwrap();
        if why.is_empty() {
            // Neither end is a task: nothing of ours is asked.
            assert!(verdict.passes(), "{from} {what} {to}");
            continue;
        }
        assert!(!verdict.passes(), "{from} {what} {to}");
        let refused = [verdict.egress, verdict.ingress].into_iter().filter(|judgement| !judgement.passes());
        assert_eq!(refused.map(|judgement| judgement.to_string()).collect::<Vec<_>>().join("; "), why);
    }
}

#[test]
fn only_tasks_with_an_address_are_judged() {
    let state = state();
    for (from, why) in [
        ("nobody", NotJudged::NoSuchTask("nobody".into())),
        ("over", NotJudged::NoAddress("over".into())),
        ("bridged", NotJudged::NoAddress("bridged".into())),
    ] {
        assert_eq!(judge(&state, from, "tcp 80", "web1"), Err(why.clone()));
        assert_eq!(judge(&state, "web1", "tcp 80", from), Err(why));
    }
}

#[test]
fn its_own_host_alone_checks_a_tasks_health_without_a_rule() {
    let state = state();
    let pictures = pictures(&state);
    let at = |host: &str, address: &str| {
        let network = &pictures[host];
        (network, network.tasks[&address.parse::<Ipv4Addr>().unwrap()].clone())
    };
    let (network, mut task) = at("a", "10.64.0.3");
    task.checked.insert((Protocol::Tcp, 8080));
    let host = HostName::from("a");
    let at = At { host: &host, network, task: &task };
    let to = End { address: "10.64.0.3".parse().unwrap(), at: Some(at), fleet: &pictures };
    let checks = |from: &str, flow| ingress(&state, at, from.parse().unwrap(), &to, flow).passes();
    assert!(checks("10.64.0.1", Flow::Tcp(8080)) && checks("192.168.1.1", Flow::Tcp(8080)));
    assert!(!checks("10.64.0.1", Flow::Udp(8080)) && !checks("10.64.0.1", Flow::Tcp(8081)));
    assert!(!checks("10.64.1.1", Flow::Tcp(8080)) && !checks("192.168.1.2", Flow::Tcp(8080)));
}

#[test]
fn the_same_address_in_another_cluster_is_somebody_else() {
    let mut state = state();
    let mut desired = Desired::clone(&state.desired);
    desired.hosts.insert("c".into(), manifest(json!({ "address": "192.168.1.3", "cluster": "other" })));
    state.desired = Arc::new(desired);
    let subnet = SubnetRecord {
        name: "other-default".into(),
        cidr: "10.64.0.0/16".parse().unwrap(),
        host_prefix: 24,
        lan: None,
        slices: BTreeMap::from([("c".into(), 1)]),
    };
    state.subnets.insert(subnet.name.clone(), subnet);
    let mut there = task("there", "c", "10.64.1.2", &["default"]);
    there.cluster = "other".into();
    state.tasks.insert(there.id.clone(), Arc::new(there));

    let by_address = judge(&state, "web1", "tcp 5432", "10.64.1.2").unwrap();
    assert!(by_address.passes(), "db2 is meant: {by_address:?}");
    let of_other = judge(&state, "10.64.1.2", "icmp", "192.168.1.3").unwrap();
    assert!(!of_other.passes(), "whichever is meant, no rule of all addresses covers a host: {of_other:?}");
    // To the outside of its cluster a task is its host.
    let out = judge(&state, "web1", "tcp 80", "203.0.113.9").unwrap();
    assert_eq!((out.from, out.passes()), ("192.168.1.1".parse().unwrap(), true));
    let to_own_host = judge(&state, "admin", "tcp 22", "192.168.1.1").unwrap();
    assert_eq!(to_own_host.from, "10.64.0.4".parse::<Ipv4Addr>().unwrap());
}

#[test]
fn inside_the_task_network_a_task_is_itself() {
    let mut state = state();
    let from = |state: &State, to: &str| judge(state, "web1", "tcp 80", to).unwrap().from.to_string();
    assert_eq!(from(&state, "10.64.200.1"), "10.64.0.2", "of the cluster's addresses, and in no slice");
    let mut desired = Desired::clone(&state.desired);
    desired.clusters.insert("default".into(), manifest(json!({ "network": { "cidr": "10.80.0.0/16" } })));
    state.desired = Arc::new(desired);
    assert_eq!(from(&state, "10.64.1.2"), "10.64.0.2", "in a slice that was cut of earlier addresses");
    assert_eq!(from(&state, "10.64.200.1"), "192.168.1.1");
}
