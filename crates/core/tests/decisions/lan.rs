//! Tasks that are machines on a LAN: their rules are in their own namespaces, so nothing joins one before they are there.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_core::{
    model::{
        action::Verb,
        container::{ContainerConfig, ContainerState},
        network::{HostNetwork, NetworkSeen, SANDBOX},
        task::{LastStatus, Task},
        world::Plan,
    },
    plan::network::pictures,
    turn::Input,
};
use serde_json::{Value, json};

use super::{
    network::awsvpc,
    story::{Story, web},
};

/// A subnet on the LAN of the hosts.
fn lan() -> Value {
    json!({ "driver": "macvlan", "cidr": "192.168.7.64/26", "hostPrefix": 28, "gateway": "192.168.7.1/24" })
}

fn on_lan(count: u32) -> Value {
    let mut service = web(count);
    service["networkConfiguration"] = json!({ "awsvpcConfiguration": { "subnets": ["lan"] } });
    service
}

fn begin(service: Value, definition: Value) -> Story {
    let mut story = Story::begin(service, definition);
    story.declare_subnet("lan", lan());
    story
}

impl Story {
    /// Every host is as it should be, but for what `but` makes of its picture.
    fn confirm_but(&mut self, but: impl Fn(&mut HostNetwork)) {
        for (host, picture) in pictures(self.state()) {
            let mut confirmed = HostNetwork::clone(&picture);
            but(&mut confirmed);
            let slices = confirmed.bridges.iter().map(|it| (it.subnet.clone(), it.slice)).collect();
            let confirmed = Some(Arc::new(confirmed));
            let seen =
                NetworkSeen { at: self.now, confirmed, under_way: None, slices, problem: None, public_key: None };
            self.core.take(self.now, Input::Network(host, seen));
        }
    }

    /// A turn in which no host has put rules into any namespace.
    fn turn_outside(&mut self) -> Plan {
        let plan = self.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| self.obey(action));
        self.confirm_but(|picture| picture.tasks.values_mut().for_each(|task| task.namespace = None));
        plan
    }

    fn only_task(&self) -> Arc<Task> {
        let holding = self.holding();
        assert_eq!(holding.len(), 1);
        Arc::clone(&holding[0])
    }
}

/// What a plan starts, by the name in the task.
fn started(plan: &Plan) -> Vec<String> {
    let launches = plan.actions.iter().filter_map(|action| match &action.verb {
        Verb::Launch { containers } => Some(containers),
        _ => None,
    });
    launches.flatten().filter(|step| step.start).map(|step| step.container.to_string()).collect()
}

fn states(story: &Story, task: &Task) -> BTreeMap<String, Option<ContainerState>> {
    story.task(task).containers.iter().map(|(name, row)| (name.to_string(), row.state)).collect()
}

#[test]
fn nothing_joins_a_network_on_a_lan_before_its_host_confirmed_rules_in_it() {
    let mut story = begin(on_lan(1), awsvpc());
    let mut all = Vec::new();
    let mut plan = Plan::default();
    for _ in 0..30 {
        plan = story.turn_outside();
        all.extend(started(&plan));
    }
    assert_eq!(all, [SANDBOX], "the sandbox alone, and once");
    let task = story.only_task();
    let lan: ipnet::Ipv4Net = "192.168.7.64/26".parse().unwrap();
    assert!(lan.contains(&task.network.as_ref().unwrap().address));
    let words: Vec<&str> = plan.report.waiting.iter().map(|waiting| waiting.reason.as_str()).collect();
    assert!(words.iter().any(|words| words.contains("has not confirmed the rules inside the network")), "{words:?}");
    // Rules for another life of it are none for this one.
    story.confirm_but(|picture| {
        let namespaces = picture.tasks.values_mut().filter_map(|task| task.namespace.as_mut());
        namespaces.for_each(|namespace| namespace.started_at = namespace.started_at.plus_ms(1));
    });
    assert_eq!(started(&story.decide(1_000, &[])), Vec::<String>::new());
    story.confirm_but(|_| {});
    let plan = story.decide(1_000, &[]);
    assert_eq!(started(&plan), ["main", "side"]);
    plan.actions.iter().for_each(|action| story.obey(action));
    story.live_in_network(5);
    assert_eq!((story.running(), story.task(&task).last_status), (3, LastStatus::Running));
}

#[test]
fn after_a_reboot_nothing_joins_the_sandbox_again_before_rules_are_in_its_new_network() {
    let mut story = begin(on_lan(1), awsvpc());
    story.live_in_network(30);
    let task = story.only_task();
    assert_eq!(story.task(&task).last_status, LastStatus::Running);
    let before = pictures(story.state());
    story.now = story.now.plus_ms(5_000);
    let sandbox = task.containers.get(SANDBOX).unwrap().runtime_id.clone().unwrap();
    for view in story.containers.get_mut(&task.host).unwrap().values_mut() {
        if view.id == sandbox {
            view.started_at = Some(story.now);
        } else {
            (view.state, view.exit_code) = (ContainerState::Exited, Some(137));
        }
    }
    // What was confirmed of its life before is confirmed again: nobody told the new one anything.
    for _ in 0..10 {
        assert_eq!(started(&story.decide(1_000, &[])), Vec::<String>::new());
        story.confirm_but(|picture| {
            for (address, local) in &mut picture.tasks {
                local.namespace = before[&task.host].tasks[address].namespace.clone();
            }
        });
    }
    assert_eq!(states(&story, &task)["main"], Some(ContainerState::Exited));
    story.live_in_network(5);
    assert_eq!((story.running(), story.task(&task).last_status), (3, LastStatus::Running), "the same task");
}

/// Its containers as they are launched.
fn launched(service: Value, definition: Value) -> BTreeMap<String, ContainerConfig> {
    let mut story = begin(service, definition);
    let mut configs = BTreeMap::new();
    for _ in 0..10 {
        for action in story.turn_of_network(&["a", "b", "c"]).actions {
            let Verb::Launch { containers } = action.verb else { continue };
            configs.extend(containers.into_iter().map(|step| (step.container.to_string(), step.config)));
        }
    }
    configs
}

#[test]
fn a_sandbox_on_a_lan_begins_shut_and_no_other_container_has_a_say_in_its_rules() {
    for (service, is_on_lan) in [(on_lan(1), true), (web(1), false)] {
        let mut definition = awsvpc();
        definition["containerDefinitions"][0]["command"] = json!(["serve"]);
        let configs = launched(service, definition);
        let (sandbox, main) = (&configs[SANDBOX], &configs["main"]);
        let drops = sandbox.entry_point.iter().any(|word| word.contains("policy drop"));
        let rights = (drops, sandbox.capabilities_added.iter().any(|name| name == "NET_ADMIN"));
        assert_eq!(rights, (is_on_lan, is_on_lan));
        assert!(sandbox.readonly_root_filesystem && sandbox.restart);
        assert_eq!(main.capabilities_dropped.iter().any(|name| name == "NET_RAW"), is_on_lan);
        assert_eq!(main.restart, !is_on_lan, "an engine would not ask for rules first");
        assert!(main.capabilities_added.is_empty());
        assert_eq!((main.command.as_slice(), main.tmpfs.len()), (&["serve".to_owned()][..], 0));
        assert_eq!(sandbox.tmpfs.contains_key("/run"), is_on_lan, "where its rules are loaded from");
        // It asks its own host, which is the first of its slice.
        let expected = if is_on_lan { "192.168.7.65" } else { "10.64.0.1" };
        assert_eq!(sandbox.dns_servers.len(), 1);
        assert!(sandbox.dns_servers[0].starts_with(&expected[..7]), "{:?}", sandbox.dns_servers);
    }
}

#[test]
fn what_gives_all_rights_up_needs_nothing_dropped_beside() {
    for (dropped, expected) in [(json!(["ALL"]), vec!["ALL"]), (json!(["CHOWN"]), vec!["CHOWN", "NET_RAW"])] {
        let mut definition = awsvpc();
        definition["containerDefinitions"][0]["linuxParameters"] = json!({ "capabilities": { "drop": dropped } });
        assert_eq!(launched(on_lan(1), definition)["main"].capabilities_dropped, expected);
    }
}

#[test]
fn what_could_lift_the_rules_gets_no_address_of_a_lan() {
    let powers = [
        json!({ "privileged": true }),
        json!({ "linuxParameters": { "capabilities": { "add": ["NET_ADMIN"] } } }),
        json!({ "linuxParameters": { "capabilities": { "add": ["CAP_NET_RAW"] } } }),
        json!({ "linuxParameters": { "capabilities": { "add": ["SYS_PTRACE", "CHOWN"] } } }),
    ];
    for power in powers {
        let mut definition = awsvpc();
        definition["containerDefinitions"][1].as_object_mut().unwrap().extend(power.as_object().unwrap().clone());
        let mut story = begin(on_lan(1), definition);
        story.live_in_network(10);
        assert!(story.holding().is_empty(), "{power}");
    }
    let mut definition = awsvpc();
    definition["containerDefinitions"][1]["linuxParameters"] = json!({ "capabilities": { "add": ["CHOWN"] } });
    let mut story = begin(on_lan(1), definition);
    story.live_in_network(10);
    assert_eq!(story.holding().len(), 1);
}

#[test]
fn nothing_gets_on_a_lan_that_does_not_name_it() {
    let mut story = begin(web(6), awsvpc());
    story.live_in_network(30);
    let subnets: Vec<String> =
        story.holding().iter().map(|task| task.network.as_ref().unwrap().subnet.to_string()).collect();
    assert_eq!(subnets, ["default"; 6]);
    let pictures = pictures(story.state());
    let mut tasks = pictures.values().flat_map(|picture| picture.tasks.values());
    assert!(tasks.all(|task| task.namespace.is_none()), "their rules are the host's");
    let cut = story.state().subnets["lan"].lan.clone().unwrap();
    assert_eq!((cut.parent, cut.router), (None, "192.168.7.1/24".parse().unwrap()));
}

#[test]
fn hosts_have_no_routes_to_the_others_machines_on_a_lan_and_know_of_them() {
    let mut story = begin(on_lan(1), awsvpc());
    story.live_in_network(5);
    for (host, picture) in pictures(story.state()) {
        let own: Vec<_> = picture.bridges.iter().filter(|bridge| bridge.lan.is_some()).collect();
        assert_eq!((own.len(), picture.on_lan.len()), (1, 2), "{host}");
        assert!(!picture.on_lan.contains(&own[0].slice));
        assert!(picture.routes.keys().all(|slice| !picture.on_lan.contains(slice)), "{host}");
        assert!(picture.on_lan.iter().all(|slice| picture.slices_elsewhere().any(|other| other == *slice)));
    }
}
