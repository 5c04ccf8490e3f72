//! What hosts are told of the task network: the names of services, and which ports they may check.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_core::{
    model::{
        container::{ContainerState, HealthStatus},
        network::{HostNetwork, SANDBOX},
        spec::task_definition::Protocol,
        task::LastStatus,
    },
    plan::network::pictures,
};
use serde_json::{Value, json};

use super::{
    life::with,
    network::awsvpc,
    story::{Story, web},
};

const WEB: &str = "web.default.internal";

/// Ports 80 and 81 of `main`, 53 and 80 of `side`.
fn ports(mode: &str) -> Value {
    let host_port = |inside: u16, outside: u16| match mode {
        "bridge" => json!({ "containerPort": inside, "hostPort": outside }),
        _ => json!({ "containerPort": inside }),
    };
    let mut names = host_port(53, 5353);
    names["protocol"] = json!("udp");
    json!({ "networkMode": mode, "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [host_port(80, 8080), host_port(81, 8081)] },
        { "name": "side", "image": "demo:1", "memory": 64, "portMappings": [names, host_port(90, 9090)] },
    ] })
}

impl Story {
    fn picture(&self) -> HostNetwork {
        HostNetwork::clone(&pictures(self.state())["a"])
    }

    /// By port and protocol where a name's tasks are reached, of the only task.
    fn ports_of(&self, name: &str) -> BTreeMap<String, u16> {
        let task = self.wanted().remove(0);
        let names = &self.picture().fleet.names;
        let of_name = names.services.iter().filter_map(|(service, targets)| {
            let port = service.strip_suffix(&format!(".{name}"))?;
            let targets: Vec<_> = targets.iter().map(|(target, port)| (target.as_str(), *port)).collect();
            let [(target, outside)] = targets[..] else { panic!("{service}: {targets:?}") };
            assert_eq!(target, format!("{}.{name}", task.id));
            assert!(names.addresses.contains_key(target));
            Some((port.to_owned(), outside))
        });
        of_name.collect()
    }

    fn is_answered(&self) -> bool {
        !self.picture().fleet.names.addresses[WEB].is_empty()
    }
}

/// One task at rest, on hosts with addresses, in a cluster with a network.
fn at_rest(service: Value, definition: Value) -> Story {
    let mut story = Story::begin(service, definition);
    story.declare_subnet("one", json!({ "cidr": "10.64.0.0/16" }));
    for (host, address) in [("a", "192.168.1.1"), ("b", "192.168.1.2"), ("c", "192.168.1.3")] {
        story.desired.hosts.get_mut(host).unwrap().spec =
            serde_json::from_value(json!({ "address": address })).unwrap();
    }
    story.tell();
    story.live_in_network(20);
    story
}

#[test]
fn a_name_says_on_which_ports_its_tasks_are_reached() {
    let inside = [("_53._udp", 53), ("_80._tcp", 80), ("_81._tcp", 81), ("_90._tcp", 90)];
    let outside = [("_53._udp", 5353), ("_80._tcp", 8080), ("_81._tcp", 8081), ("_90._tcp", 9090)];
    for (mode, want) in [("awsvpc", inside.to_vec()), ("host", inside.to_vec()), ("bridge", outside.to_vec())] {
        let story = at_rest(web(1), ports(mode));
        let want = want.into_iter().map(|(service, port)| (service.to_owned(), port)).collect();
        assert_eq!(story.ports_of(WEB), want, "{mode}");
        assert!(story.is_answered(), "{mode}");
    }
    let mut none = ports("none");
    for container in none["containerDefinitions"].as_array_mut().unwrap() {
        container.as_object_mut().unwrap().remove("portMappings");
    }
    assert!(!at_rest(web(1), none).is_answered(), "nobody reaches it");
}

#[test]
fn a_registry_may_be_of_one_container_and_of_one_port() {
    for (registry, want) in [
        (json!({}), vec!["_53._udp", "_80._tcp", "_81._tcp", "_90._tcp"]),
        (json!({ "containerName": "main" }), vec!["_80._tcp", "_81._tcp"]),
        (json!({ "containerName": "main", "containerPort": 81 }), vec!["_81._tcp"]),
        (json!({ "containerName": "main", "containerPort": 90 }), vec![]),
        (json!({ "port": 53 }), vec!["_53._udp"]),
    ] {
        let mut registry = registry;
        registry["name"] = json!("login");
        let service = with(1, json!({ "serviceRegistries": [registry] }));
        let story = at_rest(service, ports("awsvpc"));
        let found: Vec<String> = story.ports_of("login.default.internal").into_keys().collect();
        assert_eq!(found, want, "{registry}");
        assert_eq!(story.ports_of(WEB), BTreeMap::new(), "{registry}");
    }
}

#[test]
fn a_name_stands_for_what_runs_and_is_well() {
    let mut definition = awsvpc();
    definition["containerDefinitions"][0]["healthCheck"] = json!({ "command": ["CMD", "check"] });
    let mut story = at_rest(web(1), definition);
    let host = story.holding()[0].host.clone();
    let mut seen = |name: &str, state: ContainerState, health: HealthStatus| {
        let views = story.containers.get_mut(&host).unwrap().values_mut();
        for view in views.filter(|view| view.name.ends_with(&format!("-{name}"))) {
            (view.state, view.health) = (state, health);
        }
        story.now = story.now.plus_ms(100);
        story.look(host.as_str(), story.now);
        story.is_answered()
    };
    let (runs, exited) = (ContainerState::Running, ContainerState::Exited);
    assert!(!seen("main", runs, HealthStatus::Unknown), "it was not checked yet");
    assert!(seen("main", runs, HealthStatus::Healthy));
    assert!(seen("side", exited, HealthStatus::Unknown), "one that may end");
    assert!(seen("side", runs, HealthStatus::Unhealthy), "one that may fail");
    assert!(!seen("main", runs, HealthStatus::Unhealthy));
    assert!(seen("main", runs, HealthStatus::Healthy));
    assert!(!seen("main", ContainerState::Paused, HealthStatus::Healthy));
}

#[test]
fn a_name_does_not_stand_for_a_task_of_which_something_is_to_start_yet() {
    let mut definition = awsvpc();
    definition["containerDefinitions"][0]["healthCheck"] = json!({ "command": ["CMD", "check"] });
    let side = &mut definition["containerDefinitions"][1];
    side["dependsOn"] = json!([{ "containerName": "main", "condition": "HEALTHY" }]);
    side["essential"] = json!(true);
    let mut story = at_rest(web(1), definition);
    let host = story.holding()[0].host.clone();
    let views = story.containers.get_mut(&host).unwrap().values_mut();
    views.filter(|view| view.name.ends_with("-main")).for_each(|view| view.health = HealthStatus::Healthy);
    story.look(host.as_str(), story.now);
    assert_eq!(story.holding()[0].last_status, LastStatus::Activating);
    assert!(!story.is_answered());
    story.live_in_network(5);
    assert!(story.is_answered());
}

#[test]
fn a_host_may_reach_the_ports_that_it_checks_and_no_others() {
    let check = json!({ "http": { "port": 8080, "path": "/healthz" } });
    for (check, want) in [(Some(check), vec![(Protocol::Tcp, 8080)]), (None, vec![])] {
        let mut definition = awsvpc();
        if let Some(check) = check {
            definition["containerDefinitions"][0]["healthCheck"] = check;
        }
        let story = at_rest(web(1), definition);
        let task = story.holding().remove(0);
        let on_host = &pictures(story.state())[&task.host].tasks[&task.network.as_ref().unwrap().address];
        assert_eq!(on_host.checked, want.into_iter().collect::<BTreeSet<_>>());
        assert!(task.containers.contains_key(SANDBOX));
    }
}
