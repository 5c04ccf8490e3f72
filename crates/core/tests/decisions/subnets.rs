//! Subnets: which there are, how they are cut, and how long they stay.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_core::{
    model::{
        desired::Manifest,
        network::NetworkSeen,
        spec::{SubnetSpec, task_definition::NetworkMode},
    },
    plan::network::{has_network, pictures, subnets},
    turn::Input,
};
use serde_json::{Value, json};

use super::{
    network::awsvpc,
    story::{Story, one_container, web},
};

impl Story {
    pub fn declare_subnet(&mut self, name: &str, spec: Value) {
        let spec: SubnetSpec = serde_json::from_value(spec).unwrap();
        let (labels, annotations) = (BTreeMap::new(), BTreeMap::new());
        let manifest = Manifest { labels, annotations, file: "subnets.yaml".into(), line: 1, spec };
        self.desired.subnets.insert(name.into(), manifest);
        self.tell();
    }

    fn subnets(&self) -> Vec<String> {
        subnets(self.state()).keys().map(ToString::to_string).collect()
    }

    /// How each is cut, and whose the slices are.
    fn cut(&self) -> Vec<String> {
        let cut = self.state().subnets.values().map(|record| {
            let hosts: Vec<&str> = record.slices.keys().map(|host| host.as_str()).collect();
            format!("{} {} /{} {}", record.name, record.cidr, record.host_prefix, hosts.join(""))
        });
        cut.collect()
    }

    fn move_host(&mut self, host: &str, zone: &str) {
        let labels = &mut self.desired.hosts.get_mut(host).unwrap().labels;
        labels.insert("availability-zone".to_owned(), zone.to_owned());
        self.tell();
    }

    /// What a host of which nothing was confirmed says of its networks.
    fn tell_of(&mut self, host: &str, under_way: bool, problem: Option<&str>) {
        let under_way = pictures(self.state()).get(host).cloned().filter(|_| under_way);
        let problem = problem.map(str::to_owned);
        let seen =
            NetworkSeen { at: self.now, confirmed: None, under_way, slices: [].into(), public_key: None, problem };
        self.core.take(self.now, Input::Network(host.into(), seen));
    }

    fn is_there(&self) -> (bool, usize, usize) {
        let state = self.state();
        (has_network(state), pictures(state).len(), subnets(state).len())
    }
}

#[test]
fn there_is_a_task_network_as_long_as_something_wants_or_has_an_address() {
    let mut story = Story::network_at_rest(web(2), one_container());
    assert_eq!((story.is_there(), story.cut()), ((false, 0, 0), vec![]), "nobody asked for it");
    story.declare_subnet("one", json!({ "cidr": "10.64.0.0/16" }));
    assert_eq!(story.is_there(), (true, 3, 1), "a subnet is declared");
    story.desired.subnets.clear();
    story.tell();
    assert_eq!(story.is_there(), (false, 0, 0));

    let mut story = Story::network_at_rest(web(2), awsvpc());
    assert_eq!((story.is_there(), story.cut()), ((true, 3, 1), vec!["default 10.64.0.0/16 /24 abc".to_owned()]));
    story.desired.task_definitions.get_mut("web").unwrap().spec.edit(|spec| spec.network_mode = NetworkMode::Bridge);
    story.tell();
    let mut turns = 0;
    while story.holding().iter().any(|task| task.network.is_some()) {
        assert_eq!(story.is_there(), (true, 3, 1));
        story.live_in_network(1);
        turns += 1;
        assert!(turns < 60, "they are replaced");
    }
    story.live_in_network(1);
    assert_eq!((story.is_there(), story.running()), ((false, 0, 0), 4));
}

#[test]
fn a_host_has_slices_of_the_subnets_of_its_zone_and_of_its_cluster() {
    let mut story = Story::begin(web(3), awsvpc());
    story.declare_subnet("east", json!({ "cidr": "10.64.0.0/20", "availabilityZone": "a" }));
    story.declare_subnet("west", json!({ "cidr": "10.64.16.0/20", "availabilityZone": "b" }));
    story.declare_subnet("far", json!({ "cluster": "other", "cidr": "10.64.32.0/20" }));
    story.live_in_network(20);
    assert_eq!(story.subnets(), ["east", "west"]);
    assert_eq!(story.cut(), ["east 10.64.0.0/20 /26 a", "west 10.64.16.0/20 /26 b"]);
    let mut placed: Vec<String> = story.holding().iter().map(|task| task.host.to_string()).collect();
    placed.sort();
    placed.dedup();
    assert_eq!(placed, ["a", "b"]);
    story.desired.hosts.get_mut("c").unwrap().spec.cluster = "other".into();
    story.tell();
    story.live_in_network(5);
    assert_eq!(story.subnets(), ["east", "far", "west"]);
    assert_eq!(story.cut(), ["east 10.64.0.0/20 /26 a", "far 10.64.32.0/20 /26 c", "west 10.64.16.0/20 /26 b"]);
}

#[test]
fn a_subnet_is_cut_anew_once_nobody_has_an_address_of_it() {
    let mut story = Story::begin(web(2), awsvpc());
    story.declare_subnet("one", json!({ "cidr": "10.64.0.0/16", "hostPrefix": 24 }));
    story.live_in_network(20);
    story.declare_subnet("one", json!({ "cidr": "10.64.0.0/16", "hostPrefix": 25 }));
    story.live_in_network(5);
    assert_eq!(story.cut(), ["one 10.64.0.0/16 /24 abc"]);
    let words = "it is still 10.64.0.0/16 with slices of /24, since tasks have addresses of it";
    assert!(story.waiting().contains(words), "{}", story.waiting());
    story.scale(0);
    story.live_in_network(20);
    assert_eq!(story.cut(), ["one 10.64.0.0/16 /25 abc"]);
    assert!(!story.waiting().contains("it is still"), "{}", story.waiting());
}

#[test]
fn a_subnet_that_is_no_longer_declared_goes_with_its_last_task() {
    let mut story = Story::begin(web(2), awsvpc());
    for (name, cidr) in [("one", "10.64.0.0/18"), ("two", "10.64.64.0/18"), ("three", "10.64.128.0/18")] {
        story.declare_subnet(name, json!({ "cidr": cidr }));
    }
    story.live_in_network(20);
    let names = |story: &Story| story.state().subnets.keys().map(ToString::to_string).collect::<BTreeSet<_>>();
    let all = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let used = story.holding().remove(0).network.as_ref().unwrap().subnet.to_string();
    assert!(story.holding().iter().all(|task| task.network.as_ref().unwrap().subnet.as_str() == used));
    let mut unused = ["one", "two", "three"].into_iter().filter(|name| **name != used);
    let (first, second) = (unused.next().unwrap(), unused.next().unwrap());
    story.desired.subnets.remove(first);
    story.tell();
    story.decide(1_000, &[]);
    assert_eq!(names(&story), all(&[&used, second]), "nobody has an address of {first}");
    story.desired.subnets.remove(used.as_str());
    story.tell();
    story.live_in_network(5);
    assert_eq!(names(&story), all(&[&used, second]));
    story.scale(0);
    story.live_in_network(20);
    assert_eq!(names(&story), all(&[second]));
}

/// An order without an answer may have made a network that nobody has seen.
#[test]
fn a_slice_that_another_host_may_still_have_is_given_to_nobody() {
    for (under_way, expected) in [(true, 1), (false, 0)] {
        let mut story = Story::begin(web(0), awsvpc());
        story.declare_subnet("one", json!({ "cidr": "10.64.0.0/24", "hostPrefix": 26, "availabilityZone": "a" }));
        for host in ["a", "b", "c"] {
            story.tell_of(host, false, None);
        }
        story.decide(1_000, &[]);
        assert_eq!(story.state().subnets["one"].slices, [("a".into(), 0)].into());
        story.tell_of("a", under_way, Some("no answer"));
        story.move_host("a", "b");
        story.move_host("b", "a");
        story.decide(1_000, &[]);
        assert_eq!(story.state().subnets["one"].slices, [("b".into(), expected)].into(), "{under_way}");
    }
}

/// What a host had is what it may have while it cannot be asked.
#[test]
fn a_host_that_cannot_be_asked_has_the_networks_that_it_had() {
    let mut story = Story::begin(web(0), awsvpc());
    story.declare_subnet("one", json!({ "cidr": "10.64.0.0/24", "hostPrefix": 26, "availabilityZone": "a" }));
    story.live_in_network(5);
    assert_eq!(story.core.world().networks["a"].slices.len(), 1);
    story.tell_of("a", false, Some("no answer"));
    assert_eq!(story.core.world().networks["a"].slices.len(), 1);
    story.decide(1_000, &[]);
    assert_eq!(story.state().subnets["one"].slices, [("a".into(), 0)].into(), "it keeps its own");
    story.tell_of("a", false, None);
    assert_eq!(story.core.world().networks["a"].slices.len(), 0, "it was asked");
}

/// Planning again would find it (S12).
#[test]
fn a_slice_goes_in_the_plan_that_ends_the_last_task_for_which_it_stayed() {
    let mut story = Story::begin(web(1), awsvpc());
    story.declare_subnet("one", json!({ "cidr": "10.64.0.0/24", "hostPrefix": 26, "availabilityZone": "a" }));
    for host in ["a", "b", "c"] {
        story.tell_of(host, false, None);
    }
    story.decide(1_000, &[]);
    assert_eq!(story.holding().len(), 1);
    story.move_host("a", "b");
    for _ in 0..60 {
        story.tell_of("a", false, Some("no node image"));
        story.decide(1_000, &[]);
        let stays = story.holding().iter().any(|task| task.host.as_str() == "a");
        assert_eq!(story.state().subnets["one"].slices.contains_key("a"), stays, "{}", story.now);
        if !stays {
            return;
        }
    }
    panic!("it was waited for for ever: {}", story.waiting());
}
