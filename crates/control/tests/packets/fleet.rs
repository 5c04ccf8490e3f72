//! A fleet of two hosts: subnets, tasks, and groups as written or drawn.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use ipnet::Ipv4Net;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use roadstead_core::model::{
    desired::{Desired, Manifest},
    name::{RevisionId, SecurityGroupName, TaskId},
    network::{Bridge, SubnetRecord, TaskNetwork},
    small_map::SmallMap,
    spec::{TaskDefinitionSpec, service::LaunchType},
    state::{Revision, State},
    task::{NewTask, Task},
    time::Timestamp,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Hosts, with their addresses and the number of their slices.
pub const HOSTS: [(&str, Ipv4Addr, u8); 2] =
    [("h1", Ipv4Addr::new(192, 0, 2, 1), 0), ("h2", Ipv4Addr::new(192, 0, 2, 2), 1)];
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// What is neither host nor task.
pub const OUTSIDE: [Ipv4Addr; 2] = [STRANGER, Ipv4Addr::new(169, 254, 169, 254)];

/// Ports on which everybody answers, so that nothing but a rule refuses.
pub const LISTENED: &[u16] = &[53, 5432, 8080, 9000];

pub struct TaskOf {
    pub id: &'static str,
    pub host: &'static str,
    pub subnet: &'static str,
    pub address: Ipv4Addr,
    groups: &'static [&'static str],
}

/// Subnets, and their second number.
pub const SUBNETS: [(&str, u8); 2] = [("app", 77), ("data", 78)];

pub fn bridge(subnet: (&str, u8), slice: u8) -> Bridge {
    Bridge {
        subnet: subnet.0.into(),
        slice: Ipv4Net::new(Ipv4Addr::new(10, subnet.1, slice, 0), 24).unwrap(),
        lan: None,
    }
}

const fn task(id: &'static str, host: usize, subnet: usize, last: u8, groups: &'static [&'static str]) -> TaskOf {
    let ((host, _, slice), (subnet, second)) = (HOSTS[host], SUBNETS[subnet]);
    TaskOf { id, host, subnet, address: Ipv4Addr::new(10, second, slice, last), groups }
}

/// Groups are called as nobody should call them.
const WEB: &str = "web";
const DATA: &str = "data base; flush ruleset";
const ADMIN: &str = "admin}";
const SEALED: &str = "sealed\"";
/// Of the load balancer on the first host, which answers on 9000.
const FRONT: &str = "front";

pub const TASKS: &[TaskOf] = &[
    task("web1", 0, 0, 2, &[WEB]),
    task("web2", 0, 0, 3, &[WEB, SEALED]),
    task("db1", 0, 0, 4, &[DATA]),
    task("db2", 0, 1, 2, &[DATA]),
    task("admin", 0, 1, 3, &[ADMIN]),
    task("sealed", 0, 1, 4, &[SEALED]),
    task("web3", 1, 0, 2, &[WEB]),
    task("db3", 1, 0, 3, &[DATA, ADMIN]),
];

pub fn address(id: &str) -> Ipv4Addr {
    TASKS.iter().find(|task| task.id == id).unwrap().address
}

pub type Groups = BTreeMap<&'static str, Value>;

/// Something of everything.
pub fn groups() -> Groups {
    BTreeMap::from([
        (
            WEB,
            json!({ "ingress": [
                { "protocol": "tcp", "fromPort": 5432, "toPort": 8080, "sources": [{ "cidr": "0.0.0.0/0" }] },
                { "protocol": "icmp", "sources": [{ "cidr": "203.0.113.0/24" }, { "securityGroup": ADMIN }] },
                { "protocol": "udp", "sources": [{ "securityGroup": DATA }] },
            ] }),
        ),
        (
            DATA,
            json!({
                "ingress": [
                    { "protocol": "tcp", "fromPort": 5432, "sources": [{ "securityGroup": WEB }, { "cidr": "10.77.0.1/32" }] },
                    { "protocol": "udp", "fromPort": 53, "sources": [{ "cidr": "203.0.113.7/32" }] },
                ],
                "egress": [
                    { "protocol": "udp", "fromPort": 8080, "destinations": [{ "cidr": "10.77.0.0/16" }] },
                    { "protocol": "tcp", "fromPort": 9000, "destinations": [{ "cidr": "0.0.0.0/0" }] },
                ],
            }),
        ),
        (
            ADMIN,
            json!({ "ingress": [{ "sources": [{ "securityGroup": ADMIN }] }], "egress": [
                { "protocol": "tcp", "fromPort": 9000, "destinations": [{ "cidr": "192.0.2.0/24" }] },
                { "protocol": "icmp", "destinations": [{ "cidr": "10.77.0.0/16" }, { "cidr": "169.254.0.0/16" }] },
                { "protocol": "tcp", "fromPort": 8080, "destinations": [{ "cidr": "10.78.0.1/32" }, { "cidr": "10.77.1.1/32" }] },
            ] }),
        ),
        (
            SEALED,
            json!({
                "ingress": [
                    { "sources": [{ "cidr": "10.78.0.0/16" }] },
                    { "protocol": "tcp", "fromPort": 5432, "sources": [{ "securityGroup": FRONT }] },
                ],
                "egress": [],
            }),
        ),
    ])
}

/// Groups of chance.
pub fn drawn(random: &mut StdRng) -> Groups {
    let peers = [
        json!({ "cidr": "0.0.0.0/0" }),
        json!({ "cidr": "10.77.0.0/16" }),
        json!({ "cidr": "192.0.2.0/24" }),
        json!({ "cidr": "203.0.113.7/32" }),
        json!({ "cidr": "10.78.0.1/32" }),
        json!({ "cidr": "128.0.0.0/1" }),
        json!({ "securityGroup": WEB }),
        json!({ "securityGroup": DATA }),
        json!({ "securityGroup": ADMIN }),
        json!({ "securityGroup": SEALED }),
        json!({ "securityGroup": FRONT }),
    ];
    let mut rules = |field: &str| {
        let rule = |_| {
            let peers: Vec<&Value> = peers.choose_multiple(random, 2).collect();
            let mut rule = json!({ field: peers });
            rule["protocol"] = json!(["tcp", "udp", "icmp", "all"].choose(random));
            if ["tcp", "udp"].contains(&rule["protocol"].as_str().unwrap()) && random.random_bool(0.7) {
                rule["fromPort"] = json!(LISTENED.choose(random));
                if random.random_bool(0.5) {
                    rule["toPort"] = json!(10_000);
                }
            }
            rule
        };
        let rules: Vec<Value> = (0..3).map(rule).collect();
        rules
    };
    let mut group = |name| (name, json!({ "ingress": rules("sources"), "egress": rules("destinations") }));
    [WEB, DATA, ADMIN, SEALED].map(&mut group).into()
}

fn manifest<S: DeserializeOwned>(spec: Value) -> Manifest<S> {
    let spec = serde_json::from_value(spec).unwrap();
    Manifest { labels: BTreeMap::new(), annotations: BTreeMap::new(), file: "net.yaml".into(), line: 1, spec }
}

/// The state in which these groups are in force.
pub fn state(groups: &Groups) -> State {
    let mut desired = Desired::default();
    desired.clusters.insert("default".into(), manifest(json!({ "network": { "cidr": "10.77.0.0/16" } })));
    for (host, address, _) in HOSTS {
        desired.hosts.insert(host.into(), manifest(json!({ "address": address })));
    }
    let balancer = json!({
        "hosts": { "role": "edge" }, "securityGroups": [FRONT], "listeners": [{ "name": "http", "port": 9000 }],
    });
    desired.load_balancers.insert("front".into(), manifest(balancer));
    desired.hosts.get_mut(HOSTS[0].0).unwrap().labels.insert("role".into(), "edge".into());
    for (name, spec) in groups {
        desired.security_groups.insert((*name).into(), manifest(spec.clone()));
    }
    let mut state = State::default();
    for (name, second) in SUBNETS {
        let cidr = format!("10.{second}.0.0/16");
        let spec = json!({ "cidr": cidr, "hostPrefix": 24 });
        desired.subnets.insert(name.into(), manifest(spec));
        let slices = HOSTS.iter().map(|(host, _, slice)| ((*host).into(), (*slice).into())).collect();
        let record =
            SubnetRecord { name: name.into(), cidr: cidr.parse().unwrap(), host_prefix: 24, lan: None, slices };
        state.subnets.insert(name.into(), record);
    }
    state.desired = Arc::new(desired);
    let id = RevisionId { family: "net".into(), number: 1 };
    let spec: TaskDefinitionSpec = serde_json::from_value(json!({
        "family": "net",
        "networkMode": "awsvpc",
        "containerDefinitions": [{ "name": "app", "image": "app", "healthCheck": { "tcp": { "port": 9000 } } }],
    }))
    .unwrap();
    let revision = Revision {
        id: id.clone(),
        hash: String::new(),
        spec: Some(Arc::new(spec)),
        images: BTreeMap::new(),
        created_at: Timestamp(1),
    };
    state.revisions.insert("net".into(), BTreeMap::from([(1, revision)]));
    for TaskOf { id: task, host, subnet, address, groups } in TASKS {
        let mut new = Task::new(NewTask {
            id: (*task).into(),
            cluster: "default".into(),
            service: "family:net".into(),
            slot: 0,
            revision: id.clone(),
            host: (*host).into(),
            launch_type: LaunchType::Ec2,
            cpu: 0,
            memory: 0,
            containers: SmallMap::default(),
            epoch: 1,
            created_at: Timestamp(1),
        });
        let security_groups = groups.iter().copied().map(SecurityGroupName::from).collect();
        new.network = Some(Arc::new(TaskNetwork { subnet: (*subnet).into(), address: *address, security_groups }));
        state.tasks.insert(new.id.clone(), Arc::new(new));
    }
    state
}

/// The same, with a task in the group of the sealed ones alone.
pub fn without_member(state: &State, id: &str) -> State {
    let mut state = state.clone();
    let mut task = Task::clone(&state.tasks[&TaskId::from(id)]);
    let mut network = TaskNetwork::clone(task.network.as_deref().unwrap());
    network.security_groups = vec![SEALED.into()];
    task.network = Some(Arc::new(network));
    state.tasks.insert(task.id.clone(), Arc::new(task));
    state
}

/// Where a task is.
pub fn bridge_of(task: &TaskOf) -> Bridge {
    let (_, _, slice) = HOSTS.into_iter().find(|(host, ..)| *host == task.host).unwrap();
    bridge(SUBNETS.into_iter().find(|(subnet, _)| *subnet == task.subnet).unwrap(), slice)
}
