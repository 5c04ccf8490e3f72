//! Names in a cluster whose tasks have no addresses of their own: who has them, who asks, and for how long.

use std::collections::BTreeMap;

use roadstead_core::{
    model::{
        action::{Verb, VerbName},
        network::{NAME_SERVER, NetworkSeen},
        task::DesiredStatus,
        world::Plan,
    },
    plan::network::{has_network, has_part, has_parts, pictures},
    turn::{Command, Input},
};
use serde_json::{Value, json};

use super::{
    life::with,
    network::awsvpc,
    story::{Story, manifest, one_container, web},
};

const WEB: &str = "web.klp.local";

fn bridge() -> Value {
    json!({ "networkMode": "bridge", "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80 }] },
        { "name": "own", "image": "demo:1", "memory": 64, "dnsServers": ["198.51.100.7"] },
        { "name": "off", "image": "demo:1", "memory": 64, "disableNetworking": true },
    ] })
}

impl Story {
    /// Hosts with addresses, in a cluster that has this to say.
    fn of_cluster(service: Value, definition: Value, cluster: Value) -> Self {
        let mut story = Self::begin(service, definition);
        for (host, address) in [("a", "192.168.1.1"), ("b", "192.168.1.2"), ("c", "192.168.1.3")] {
            story.desired.hosts.get_mut(host).unwrap().spec =
                serde_json::from_value(json!({ "address": address })).unwrap();
        }
        story.declare_cluster(cluster);
        story
    }

    fn declare_cluster(&mut self, cluster: Value) {
        let cluster = serde_json::from_value(cluster).unwrap();
        self.desired.clusters.insert("default".into(), manifest(cluster, &[]));
        self.tell();
    }

    /// How many hosts answer for names.
    fn answering(&self) -> usize {
        pictures(self.state()).len()
    }

    fn order_stop(&mut self) {
        let task = self.holding()[0].id.clone();
        self.core.command(self.now, Command::StopTask { task, reason: None }).unwrap();
    }
}

fn named() -> Value {
    json!({ "serviceDiscovery": { "namespace": "klp.local" } })
}

fn stops(plan: &Plan) -> bool {
    plan.actions.iter().any(|action| action.verb.name() == VerbName::Stop)
}

/// The name servers of each container as it is launched.
fn asked(story: &mut Story) -> BTreeMap<String, Vec<String>> {
    let mut asked = BTreeMap::new();
    for _ in 0..10 {
        for action in story.turn_of_network(&["a", "b", "c"]).actions {
            let Verb::Launch { containers } = action.verb else { continue };
            asked.extend(containers.into_iter().map(|step| (step.container.to_string(), step.config.dns_servers)));
        }
    }
    asked
}

#[test]
fn a_cluster_whose_manifests_speak_of_names_has_them_without_a_task_network() {
    let registered = with(1, json!({ "serviceRegistries": [{ "name": "login" }] }));
    for (service, cluster, want) in [
        (web(1), json!({}), 0),
        (web(1), named(), 3),
        (registered, json!({}), 3),
        (web(1), json!({ "network": {} }), 0),
    ] {
        let mut story = Story::of_cluster(service.clone(), bridge(), cluster.clone());
        let asked = asked(&mut story);
        assert_eq!(story.answering(), want, "{service} {cluster}");
        let part_of = |cluster: &str| has_part(story.state(), &cluster.into());
        assert_eq!((has_parts(story.state()), part_of("default"), part_of("other")), (want > 0, want > 0, false));
        assert!(!has_network(story.state()) && pictures(story.state()).values().all(|it| it.bridges.is_empty()));
        let ours = if want > 0 { vec![NAME_SERVER.to_string()] } else { vec![] };
        assert_eq!(asked["main"], ours);
        assert_eq!(asked["own"], ["198.51.100.7"], "its own");
        assert_eq!(asked["off"], Vec::<String>::new(), "it reaches nobody");
    }
}

#[test]
fn its_names_stand_for_hosts_and_the_ports_there() {
    let mut story = Story::of_cluster(web(2), bridge(), named());
    story.live_in_network(20);
    let names = pictures(story.state())["c"].fleet.names.clone();
    let tasks = story.holding();
    let hosts = &story.desired.hosts;
    let addresses = tasks.iter().filter_map(|task| hosts[&task.host].spec.route_address());
    assert_eq!(names.addresses[WEB], addresses.collect());
    let ports = tasks
        .iter()
        .map(|task| (format!("{}.{WEB}", task.id), task.containers.get("main").unwrap().ports[0].host_port));
    assert_eq!(names.services[&format!("_80._tcp.{WEB}")], ports.collect());
}

#[test]
fn which_tasks_ask_their_host_goes_by_their_network_mode() {
    for (mode, want) in [("bridge", true), ("host", true), ("none", false)] {
        let definition = json!({ "networkMode": mode, "containerDefinitions": [{ "name": "main", "image": "demo:1", "memory": 64 }] });
        let mut story = Story::of_cluster(web(1), definition, named());
        assert_eq!(asked(&mut story)["main"] == [NAME_SERVER.to_string()], want, "{mode}");
    }
    // Beside tasks with addresses, too.
    let mut story = Story::of_cluster(web(1), bridge(), json!({}));
    story.declare_subnet("one", json!({ "cidr": "10.64.0.0/16" }));
    assert_eq!(asked(&mut story)["main"], [NAME_SERVER.to_string()]);
}

#[test]
fn no_task_waits_for_names_before_it_starts() {
    let mut story = Story::of_cluster(web(3), one_container(), named());
    for _ in 0..20 {
        story.turn_of_network(&[]);
    }
    assert_eq!(story.running(), 3);
}

#[test]
fn a_task_leaves_them_before_it_is_stopped() {
    let mut story = Story::of_cluster(web(2), bridge(), named());
    story.live_in_network(20);
    story.order_stop();
    assert_eq!(
        pictures(story.state())["a"].fleet.names.addresses[WEB].len(),
        1,
        "what hosts are to answer from now on"
    );
    assert!(!stops(&story.decide(1_000, &[])), "hosts still answer with it");
    story.confirm(&["a", "b"]);
    assert!(!stops(&story.decide(1_000, &[])), "one of them still does");
    story.confirm(&["c"]);
    assert!(stops(&story.decide(1_000, &[])));
}

#[test]
fn hosts_that_cannot_be_asked_hold_a_stop_up_for_five_seconds_and_where_there_are_no_names_for_none() {
    for (cluster, want) in [(named(), 5), (json!({}), 1)] {
        let mut story = Story::of_cluster(web(1), one_container(), cluster);
        for _ in 0..20 {
            story.turn_of_network(&[]);
        }
        story.order_stop();
        let turns = (1..10).find(|_| stops(&story.decide(1_000, &[])));
        assert_eq!(turns, Some(want));
    }
}

#[test]
fn a_task_without_a_network_is_in_no_name() {
    let definition =
        json!({ "networkMode": "none", "containerDefinitions": [{ "name": "main", "image": "demo:1", "memory": 64 }] });
    let mut story = Story::of_cluster(web(1), definition, named());
    // No host has confirmed what it answers with.
    for _ in 0..20 {
        story.turn_of_network(&[]);
    }
    story.order_stop();
    assert!(stops(&story.decide(1_000, &[])));
}

#[test]
fn a_host_without_addresses_has_ways_to_others_and_holds_a_stop_up_only_when_it_is_known_to_answer() {
    let mut story = Story::of_cluster(web(2), awsvpc(), json!({}));
    for (name, cidr, zone) in [("east", "10.64.0.0/20", "a"), ("west", "10.64.16.0/20", "b")] {
        story.declare_subnet(name, json!({ "cidr": cidr, "availabilityZone": zone }));
    }
    story.live_in_network(20);
    let pictures = pictures(story.state());
    assert_eq!(
        ["a", "b", "c"].map(|host| pictures[host].routes.len()),
        [1, 1, 2],
        "the load balancers of c send requests to tasks of others"
    );
    story.order_stop();
    story.decide(1_000, &[]);
    story.confirm(&["a", "b"]);
    assert!(!stops(&story.decide(1_000, &[])), "c answers for names, too");
    let seen = NetworkSeen { confirmed: None, ..story.core.world().networks["c"].clone() };
    story.core.take(story.now, Input::Network("c".into(), seen));
    assert!(stops(&story.decide(1_000, &[])), "with nothing confirmed nobody has asked it for addresses");
}

#[test]
fn hosts_that_still_answer_are_waited_for_also_when_nobody_wants_names_any_more() {
    let mut story = Story::of_cluster(web(1), bridge(), named());
    story.live_in_network(20);
    story.declare_cluster(json!({}));
    story.live_in_network(5);
    story.order_stop();
    assert!(!stops(&story.decide(1_000, &[])));
}

#[test]
fn names_stay_for_as_long_as_a_task_asks_for_them() {
    let mut story = Story::of_cluster(web(2), one_container(), named());
    story.live_in_network(20);
    story.declare_cluster(json!({}));
    story.live_in_network(5);
    assert_eq!(story.answering(), 3, "its tasks ask still");
    let before = story.holding();
    for task in &before {
        story.core.command(story.now, Command::StopTask { task: task.id.clone(), reason: None }).unwrap();
    }
    story.live_in_network(60);
    assert!(before.iter().all(|task| story.task(task).desired_status == DesiredStatus::Stopped));
    assert_eq!((story.running(), story.answering()), (2, 0), "the new ones do not");
}

#[test]
fn tasks_that_come_after_those_with_addresses_do_not_hold_their_network() {
    let mut story = Story::of_cluster(web(2), awsvpc(), json!({}));
    story.live_in_network(30);
    assert_eq!(story.answering(), 3);
    let spec = serde_json::from_value(one_container()).unwrap();
    story.desired.task_definitions.get_mut("web").unwrap().spec = spec;
    story.tell();
    story.live_in_network(90);
    assert!(story.holding().iter().all(|task| task.network.is_none() && !task.uses_names));
    assert_eq!(story.answering(), 0);
}
