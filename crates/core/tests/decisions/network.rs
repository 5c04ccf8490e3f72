//! Tasks with addresses of their own: slices, rules before starts, names before stops.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use roadstead_core::{
    model::{
        action::{Verb, VerbName},
        container::{ContainerState, NetworkAttachment},
        name::HostName,
        network::{NetworkSeen, SANDBOX},
        state::State,
        task::{DesiredStatus, LastStatus, StopCode, Task},
        world::Plan,
    },
    plan::network::pictures,
    turn::{Core, Input},
};
use serde_json::{Value, json};

use super::story::{Story, web};

fn awsvpc() -> Value {
    json!({ "networkMode": "awsvpc", "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80 }] },
        { "name": "side", "image": "demo:1", "memory": 64, "essential": false, "dnsServers": ["198.51.100.7"] },
    ] })
}

impl Story {
    /// Hosts do what they should: each confirms its part as it is to be now.
    fn confirm(&mut self, hosts: &[&str]) {
        let pictures = pictures(&self.core.world().state);
        for host in hosts {
            let confirmed = pictures.get(*host).filter(|picture| !picture.bridges.is_empty()).cloned();
            let slices = confirmed.iter().flat_map(|it| &it.bridges).map(|it| (it.subnet.clone(), it.slice)).collect();
            let seen = NetworkSeen { at: self.now, confirmed, slices, problem: None };
            self.core.take(self.now, Input::Network((*host).into(), seen));
        }
    }

    fn turn_of_network(&mut self, confirming: &[&str]) -> Plan {
        let plan = self.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| self.obey(action));
        self.confirm(confirming);
        plan
    }

    fn network_at_rest(count: u32, definition: Value) -> Self {
        let mut story = Self::begin(web(count), definition);
        for _ in 0..30 {
            story.turn_of_network(&["a", "b", "c"]);
        }
        story
    }

    fn holding(&self) -> Vec<Arc<Task>> {
        let tasks = self.core.world().state.tasks.values();
        tasks.filter(|task| task.last_status != LastStatus::Stopped).cloned().collect()
    }
}

fn launches(plan: &Plan) -> usize {
    plan.actions.iter().filter(|action| action.verb.name() == VerbName::Launch).count()
}

#[test]
fn a_task_has_an_address_in_its_host_s_slice_and_its_containers_share_it() {
    let mut story = Story::begin(web(3), awsvpc());
    let mut configs = Vec::new();
    for _ in 0..20 {
        for action in story.turn_of_network(&["a", "b", "c"]).actions {
            if let Verb::Launch { containers } = action.verb {
                configs.extend(containers.into_iter().map(|step| step.config));
            }
        }
    }
    assert_eq!(story.running(), 9, "three containers each, the sandbox included");
    let mut slices: BTreeSet<[u8; 3]> = BTreeSet::new();
    for task in story.holding() {
        let network = task.network.clone().unwrap();
        let [a, b, c, _] = network.address.octets();
        slices.insert([a, b, c]);
        let config = |name: &str| {
            let row = task.containers.get(name).unwrap();
            configs.iter().find(|config| config.name == row.created_name).unwrap()
        };
        let attachments = |name: &str| config(name).attachment.clone().unwrap();
        let sandbox = task.containers.get(SANDBOX).unwrap();
        let own = NetworkAttachment::Own { network: "rs-default".into(), address: network.address };
        assert_eq!(attachments(SANDBOX), own);
        for name in ["main", "side"] {
            assert_eq!(attachments(name), NetworkAttachment::Of(sandbox.created_name.clone()));
            assert!(config(name).dns_servers.is_empty(), "Docker refuses them beside another's network");
        }
    }
    assert_eq!(slices.len(), 3, "one slice for each host");
}

#[test]
fn no_task_is_launched_before_its_host_confirmed_the_rules_around_it() {
    let mut story = Story::begin(web(3), awsvpc());
    // Hosts were looked at, and have made nothing yet.
    let looked = |story: &mut Story| {
        for host in ["a", "b", "c"] {
            let seen = NetworkSeen { at: story.now, confirmed: None, slices: [].into(), problem: None };
            story.core.take(story.now, Input::Network(host.into(), seen));
        }
    };
    looked(&mut story);
    for _ in 0..10 {
        let plan = story.decide(1_000, &[]);
        assert_eq!(launches(&plan), 0);
        looked(&mut story);
    }
    let hosts: BTreeSet<HostName> = story.holding().iter().map(|task| task.host.clone()).collect();
    assert_eq!(hosts.len(), 3, "they are spread although no host is ready");
    let waiting = &story.core.report().waiting;
    assert!(
        waiting.iter().any(|it| it.reason.contains("has not confirmed the rules around its address")),
        "{waiting:?}"
    );
    // An older picture does not have the new task in it.
    story.confirm(&["a"]);
    let plan = story.decide(1_000, &[]);
    assert_eq!(launches(&plan), 1);
    assert_eq!(plan.actions[0].host.as_str(), "a");
}

#[test]
fn the_first_host_that_is_looked_at_does_not_get_all_tasks() {
    let mut story = Story::begin(web(3), awsvpc());
    let looked = |story: &mut Story, host: &str| {
        let seen = NetworkSeen { at: story.now, confirmed: None, slices: [].into(), problem: None };
        story.core.take(story.now, Input::Network(host.into(), seen));
    };
    looked(&mut story, "b");
    for _ in 0..5 {
        story.decide(1_000, &[]);
        assert_eq!(story.holding().len(), 0, "two others are about to be looked at");
    }
    looked(&mut story, "a");
    for _ in 0..10 {
        story.decide(1_000, &[]);
    }
    let hosts: BTreeSet<HostName> = story.holding().iter().map(|task| task.host.clone()).collect();
    assert_eq!(hosts, ["a".into(), "b".into()].into(), "the third one was waited for long enough");
}

#[test]
fn a_task_whose_host_cannot_make_its_network_goes_elsewhere() {
    let mut story = Story::begin(web(3), awsvpc());
    for turn in 0..60 {
        story.turn_of_network(&["a", "b"]);
        let problem = (turn > 3).then(|| "no node image".to_owned());
        let seen = NetworkSeen { at: story.now, confirmed: None, slices: [].into(), problem };
        story.core.take(story.now, Input::Network("c".into(), seen));
    }
    assert_eq!(story.holding().len(), 3);
    assert!(story.holding().iter().all(|task| task.host.as_str() != "c" && task.last_status == LastStatus::Running));
    let ended = story.core.world().state.tasks.values().find(|task| task.host.as_str() == "c").cloned().unwrap();
    assert_eq!(ended.stop_code, Some(StopCode::TaskFailedToStart));
    assert!(ended.stopped_reason.as_ref().unwrap().contains("no node image"), "{:?}", ended.stopped_reason);
}

#[test]
fn a_task_leaves_all_names_before_it_is_stopped() {
    let mut story = Story::network_at_rest(2, awsvpc());
    let answered = |story: &Story| -> BTreeSet<Ipv4Addr> {
        let picture = pictures(&story.core.world().state)["a"].clone();
        picture.fleet.names.addresses["web.default.internal"].clone()
    };
    assert_eq!(answered(&story).len(), 2);
    let victim = story.holding()[0].clone();
    let address = victim.network.as_ref().unwrap().address;
    let stop = roadstead_core::turn::Command::StopTask { task: victim.id.clone(), reason: None };
    story.core.command(story.now, stop).unwrap();
    assert!(!answered(&story).contains(&address), "what hosts are to answer from now on");
    let stops = |plan: &Plan| plan.actions.iter().any(|action| action.verb.name() == VerbName::Stop);
    let plan = story.decide(1_000, &[]);
    assert!(!stops(&plan), "hosts still answer with it");
    story.confirm(&["a", "b"]);
    assert!(!stops(&story.decide(1_000, &[])), "one of them still does");
    story.confirm(&["c"]);
    assert!(stops(&story.decide(1_000, &[])));
}

#[test]
fn a_controller_that_has_just_started_does_not_take_hosts_for_silent_about_names() {
    let story = Story::network_at_rest(1, awsvpc());
    let victim = story.holding()[0].clone();
    let (core, _) = Core::new(story.core.world().state.clone(), 9, story.now.plus_ms(1), false);
    let mut story = Story { core, ..story };
    story.tell();
    let stops = |plan: &Plan| plan.actions.iter().any(|action| action.verb.name() == VerbName::Stop);
    story.decide(1_000, &[]);
    let stop = roadstead_core::turn::Command::StopTask { task: victim.id.clone(), reason: None };
    story.core.command(story.now, stop).unwrap();
    assert!(!stops(&story.decide(1_000, &[])), "they were told by the one before");
    story.confirm(&["a", "b", "c"]);
    assert!(stops(&story.decide(1_000, &[])));
}

#[test]
fn a_host_that_never_learns_of_it_holds_a_stop_up_for_five_seconds() {
    let mut story = Story::network_at_rest(1, awsvpc());
    let victim = story.holding()[0].clone();
    let stop = roadstead_core::turn::Command::StopTask { task: victim.id.clone(), reason: None };
    story.core.command(story.now, stop).unwrap();
    let stops = |plan: &Plan| plan.actions.iter().any(|action| action.verb.name() == VerbName::Stop);
    let turns = (1..10).find(|_| stops(&story.decide(1_000, &[])));
    assert_eq!(turns, Some(5));
}

#[test]
fn an_address_stays_its_task_s_until_the_containers_are_seen_gone() {
    let mut story = Story::network_at_rest(3, awsvpc());
    let lost = story.holding().into_iter().find(|task| task.host.as_str() == "b").unwrap();
    let address = lost.network.as_ref().unwrap().address;
    for _ in 0..40 {
        let plan = story.decide(1_000, &["b"]);
        plan.actions.iter().for_each(|action| story.obey(action));
        story.confirm(&["a", "c"]);
    }
    assert_eq!(story.task(&lost).desired_status, DesiredStatus::Stopped, "it was replaced");
    let holders = story.holding().iter().filter(|task| task.network.as_ref().unwrap().address == address).count();
    assert_eq!(holders, 1, "and its address is nobody else's");
    let pictures = pictures(&story.core.world().state);
    assert!(pictures["b"].tasks.contains_key(&address));
}

#[test]
fn a_sandbox_that_began_anew_under_its_containers_takes_the_task_with_it() {
    let mut story = Story::network_at_rest(1, awsvpc());
    let task = story.holding()[0].clone();
    let sandbox = task.containers.get(SANDBOX).unwrap().runtime_id.clone().unwrap();
    let view = story.containers.get_mut(&task.host).unwrap().get_mut(&sandbox).unwrap();
    (view.started_at, view.restart_count) = (Some(story.now), 1);
    story.decide(1_000, &[]);
    let task = story.task(&task);
    assert_eq!(task.stop_code, Some(StopCode::EssentialContainerExited));
    assert!(task.stopped_reason.as_ref().unwrap().contains("network"), "{:?}", task.stopped_reason);
}

#[test]
fn after_a_reboot_the_containers_come_back_into_the_sandbox() {
    let mut story = Story::network_at_rest(1, awsvpc());
    let task = story.holding()[0].clone();
    let sandbox = task.containers.get(SANDBOX).unwrap().runtime_id.clone().unwrap();
    story.now = story.now.plus_ms(5_000);
    for view in story.containers.get_mut(&task.host).unwrap().values_mut() {
        if view.id == sandbox {
            view.started_at = Some(story.now);
        } else {
            (view.state, view.exit_code) = (ContainerState::Exited, Some(137));
        }
    }
    for _ in 0..10 {
        story.turn_of_network(&["a", "b", "c"]);
    }
    assert_eq!(story.running(), 3);
    assert_eq!(story.task(&task).last_status, LastStatus::Running, "the same task");
}

#[test]
fn with_an_empty_database_tasks_keep_their_addresses_and_hosts_their_slices() {
    let story = Story::network_at_rest(3, awsvpc());
    let before: BTreeSet<(HostName, Ipv4Addr)> =
        story.holding().iter().map(|task| (task.host.clone(), task.network.as_ref().unwrap().address)).collect();
    let slices = story.core.world().state.subnets.clone();
    let networks = story.core.world().networks.clone();
    let (core, _) = Core::new(State::default(), 9, story.now.plus_ms(1), false);
    let mut story = Story { core, ..story };
    story.tell();
    for (host, seen) in &networks {
        let seen = NetworkSeen { confirmed: None, ..seen.clone() };
        story.core.take(story.now, Input::Network(host.clone(), seen));
    }
    for _ in 0..10 {
        let plan = story.turn_of_network(&["a", "b", "c"]);
        assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    }
    let after: BTreeSet<(HostName, Ipv4Addr)> =
        story.holding().iter().map(|task| (task.host.clone(), task.network.as_ref().unwrap().address)).collect();
    assert_eq!(after, before);
    assert_eq!(story.core.world().state.subnets, slices);
}

#[test]
fn a_forecast_goes_on_as_if_hosts_made_their_networks() {
    let mut story = Story::begin(web(3), awsvpc());
    story.decide(1_000, &[]);
    let plan = roadstead_core::plan::forecast::forecast(story.core.world());
    assert_eq!(launches(&plan), 3, "{:?}", plan.report.waiting);
    assert!(plan.report.waiting.is_empty(), "{:?}", plan.report.waiting);
}

#[test]
fn a_host_whose_networks_could_not_be_listed_gets_no_other_slice_than_the_one_that_it_may_have() {
    let mut story = Story::begin(web(0), awsvpc());
    let seen = |story: &mut Story, host: &str, slice: Option<&str>, problem: Option<&str>| {
        let slices = slice.iter().map(|slice| ("default".into(), slice.parse().unwrap())).collect();
        let problem = problem.map(str::to_owned);
        let seen = NetworkSeen { at: story.now, confirmed: None, slices, problem };
        story.core.take(story.now, Input::Network(host.into(), seen));
    };
    seen(&mut story, "a", None, Some("its engine does not answer"));
    seen(&mut story, "b", None, None);
    story.decide(1_000, &[]);
    let slice = |story: &Story, host: &str| {
        let record = &story.core.world().state.subnets["default"];
        record.slices.get(host).copied()
    };
    assert_eq!((slice(&story, "a"), slice(&story, "b")), (None, Some(0)));
    seen(&mut story, "a", Some("10.64.7.0/24"), None);
    story.decide(1_000, &[]);
    assert_eq!(slice(&story, "a"), Some(7), "what is there stays");
}
