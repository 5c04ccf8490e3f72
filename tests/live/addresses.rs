//! Tasks' addresses on real hosts: whose they stay while nobody can ask, and who comes in by the ports of their hosts.

use std::{collections::BTreeSet, net::Ipv4Addr, process::Command, time::Duration};

use crate::{
    network::{Fleet, Place, group, service, shown},
    support::{MINUTE, throughout, until},
};

impl Fleet {
    /// The addresses that running sandboxes of a host have, as its engine says.
    fn engine_addresses(&self, host: &str) -> BTreeSet<String> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let ids = self.lab.docker(host, &["ps", "-q", "--filter", "name=task.sandbox"]);
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return BTreeSet::new();
        }
        let said = self.lab.docker(host, &[&["inspect", "--format", format], ids.as_slice()].concat());
        said.split_whitespace().map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "needs a lab"]
fn a_silent_host_keeps_its_addresses_until_it_is_heard_again() {
    // Two slices of five addresses for three hosts.
    let subnet = "apiVersion: roadstead/v1\nkind: Subnet\nmetadata: { name: small }\nspec: { cidr: 10.64.8.0/28, hostPrefix: 29 }\n";
    let web = service("web", 8, "default", "");
    let fleet = Fleet::with("silent", "3", &[("subnet.yaml", subnet), ("web.yaml", &web)]);
    fleet.controller.wait_steady();
    let sliced: BTreeSet<String> = fleet.tasks("web").into_iter().map(|task| task.host).collect();
    let sliced: Vec<String> = sliced.into_iter().collect();
    let [away, other] = sliced.as_slice() else { panic!("{sliced:?} have slices") };
    let before = fleet.engine_addresses(away);
    fleet.lab.lab(&["cut", away]);
    until("the other host has as many tasks as it has addresses", MINUTE * 2, || {
        fleet.engine_addresses(other).len() == 5
    });
    until("the rest waits", MINUTE, || {
        fleet.controller.cli(&["why", "web"]).contains("no address left in the task's subnets")
    });
    // The third host gets no slice, and nobody what the silent one has.
    throughout("each address is one task's", Duration::from_secs(8), || {
        let all: Vec<String> = fleet.lab.hosts().iter().flat_map(|host| fleet.engine_addresses(host)).collect();
        all.len() == before.len() + 5
            && all.iter().collect::<BTreeSet<_>>().len() == all.len()
            && fleet.engine_addresses(away) == before
    });
    fleet.lab.lab(&["heal", away]);
    fleet.controller.wait_steady();
    until("what it had is gone, and others have its addresses", MINUTE, || {
        let now: Vec<_> = fleet.tasks("web").into_iter().filter(|task| task.host == *away).collect();
        now.len() == 3 && fleet.engine_addresses(away) == shown(&now) && !shown(&now).is_disjoint(&before)
    });
    let now = fleet.tasks("web");
    assert_eq!(shown(&now).len(), 8);
    until("all of them answer", MINUTE, || now.iter().all(|to| fleet.reaches(&now[0], to.address, 8080)));
}

#[test]
#[ignore = "needs a lab"]
fn published_ports_are_reached_from_outside_by_those_who_may() {
    let side =
        "      - { name: side, image: 'roadstead/demo:1', memory: 16, stopTimeout: 1, environment: { PORT: 8081 } }\n";
    let public = service("web", 1, "web", side)
        .replace("awsvpcConfiguration: { ", "awsvpcConfiguration: { assignPublicIp: ENABLED, ");
    let hidden = service("hidden", 1, "web", "").replace("8080", "8090");
    let manifest = |source: &str| {
        let rule = format!("{{ protocol: tcp, fromPort: 8000, toPort: 8999, sources: [{{ cidr: {source}/32 }}] }}");
        format!("{public}\n---{hidden}") + &group("web", &rule)
    };
    let fleet = Fleet::with("public", "2", &[]);
    // This machine is on the hosts' network, and none of them.
    let [a, b, c, _] = fleet.lab.address("host-a").parse::<Ipv4Addr>().unwrap().octets();
    fleet.controller.write("web.yaml", &manifest(&Ipv4Addr::new(a, b, c, 1).to_string()));
    fleet.controller.wait_steady();
    let web = fleet.tasks("web").remove(0);
    let at: Ipv4Addr = fleet.lab.address(&web.host).parse().unwrap();
    let other = if web.host == "host-a" { "host-b" } else { "host-a" };
    let from_outside = |host: &str, port: u16| {
        let url = format!("http://{}:{port}/", fleet.lab.address(host));
        Command::new("curl").args(["-s", "-o", "/dev/null", "-m", "2", &url]).status().unwrap().success()
    };
    until("this machine may", MINUTE, || from_outside(&web.host, 8080));
    assert!(!fleet.host_reaches(other, at, 8080), "the other host may not");
    assert!(!from_outside(&web.host, 8081), "no port mapping says it");
    assert!(!from_outside("host-a", 8090) && !from_outside("host-b", 8090), "its service is not public");
    fleet.controller.write("web.yaml", &manifest(&fleet.lab.address(other)));
    until("the other host may, and this machine no longer", MINUTE, || {
        fleet.host_reaches(other, at, 8080) && !from_outside(&web.host, 8080)
    });
    assert_eq!(fleet.tasks("web").remove(0).id, web.id, "the same task");
}

#[test]
#[ignore = "needs a lab"]
fn forty_tasks_of_one_port_answer_each_on_its_own_address() {
    let fleet = Fleet::with("forty", "3", &[("web.yaml", &service("web", 40, "default", ""))]);
    until("all of them run", MINUTE * 4, || fleet.controller.is_steady());
    let tasks = fleet.tasks("web");
    assert_eq!((tasks.len(), shown(&tasks).len()), (40, 40));
    let on: BTreeSet<&str> = tasks.iter().map(|task| task.host.as_str()).collect();
    assert_eq!(on.len(), 3, "{on:?}");
    // Who answers says which task it is.
    let answered = |task: &Place| {
        let command = format!("nsenter -t {} -n curl -s -m 3 http://{}:8080/", tasks[0].pid, task.address);
        fleet.ssh(&tasks[0].host, &command)
    };
    for task in &tasks {
        let said = answered(task);
        assert!(said.contains(&task.id), "{task:?} says {said}");
    }
}
