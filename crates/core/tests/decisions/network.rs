//! Tasks with addresses of their own: slices, rules before starts, names before stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use roadstead_core::{
    model::{
        action::{Verb, VerbName},
        container::{ContainerConfig, ContainerState, NetworkAttachment},
        name::HostName,
        network::{NetworkSeen, SANDBOX},
        observed::EngineIdentity,
        spec::network::Encapsulation,
        state::{Change, HostRecord, State},
        task::{DesiredStatus, LastStatus, StopCode, Task},
        time::Timestamp,
        wireguard::PublicKey,
        world::Plan,
    },
    plan::network::pictures,
    turn::{Core, Input},
};
use serde_json::{Value, json};

use super::story::{Story, manifest, one_container, web};

pub fn awsvpc() -> Value {
    json!({ "networkMode": "awsvpc", "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64, "portMappings": [{ "containerPort": 80, "name": "http" }] },
        { "name": "side", "image": "demo:1", "memory": 64, "essential": false,
          "dnsServers": ["198.51.100.7"], "dnsSearchDomains": ["example.com"] },
    ] })
}

impl Story {
    /// Hosts do what they should: each confirms its part as it is to be now.
    pub fn confirm(&mut self, hosts: &[&str]) {
        let pictures = pictures(&self.core.world().state);
        for host in hosts {
            let confirmed = pictures.get(*host).cloned();
            let slices = confirmed.iter().flat_map(|it| &it.bridges).map(|it| (it.subnet.clone(), it.slice)).collect();
            let seen =
                NetworkSeen { at: self.now, confirmed, under_way: None, slices, problem: None, public_key: None };
            self.core.take(self.now, Input::Network((*host).into(), seen));
        }
    }

    /// A host of which nothing was confirmed, nor seen, says what keeps it from that.
    pub fn nothing_confirmed(&mut self, host: &str, problem: Option<String>) {
        let seen = NetworkSeen {
            at: self.now,
            confirmed: None,
            under_way: None,
            slices: [].into(),
            problem,
            public_key: None,
        };
        self.core.take(self.now, Input::Network(host.into(), seen));
    }

    pub fn turn_of_network(&mut self, confirming: &[&str]) -> Plan {
        let plan = self.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| self.obey(action));
        self.confirm(confirming);
        plan
    }

    pub fn network_at_rest(service: Value, definition: Value) -> Self {
        let mut story = Self::begin(service, definition);
        story.live_in_network(30);
        story
    }

    pub fn live_in_network(&mut self, turns: u32) {
        for _ in 0..turns {
            self.turn_of_network(&["a", "b", "c"]);
        }
    }

    pub fn holding(&self) -> Vec<Arc<Task>> {
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
            let dns = (&config(name).dns_servers, &config(name).dns_search_domains);
            assert_eq!(dns, (&vec![], &vec![]), "Docker refuses them beside another's network");
        }
        let resolver = config(SANDBOX);
        assert_eq!(resolver.dns_servers, [Ipv4Addr::new(a, b, c, 1).to_string()], "its host's, in its slice");
        assert_eq!(resolver.dns_search_domains, ["default.internal"]);
    }
    assert_eq!(slices.len(), 3, "one slice for each host");
}

/// Its containers as they are launched: the sandbox and the others.
fn launched(service: Value, definition: Value) -> BTreeMap<String, ContainerConfig> {
    let mut story = Story::begin(service, definition);
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
fn ports_are_published_on_the_host_with_a_public_address_alone_and_by_what_holds_the_network() {
    for (assigned, want) in [("ENABLED", vec![(80, 80)]), ("DISABLED", vec![])] {
        let mut service = web(1);
        service["networkConfiguration"] = json!({ "awsvpcConfiguration": { "assignPublicIp": assigned } });
        let configs = launched(service, awsvpc());
        let ports = |name: &str| -> Vec<(u16, u16)> {
            configs[name].ports.iter().map(|port| (port.container_port, port.host_port)).collect()
        };
        assert_eq!((ports(SANDBOX), ports("main")), (want, vec![]), "{assigned}");
    }
}

#[test]
fn kernel_settings_of_the_network_are_made_by_what_holds_it() {
    let (net, kernel) = ("net.core.somaxconn", "kernel.msgmax");
    let controls = json!([{ "namespace": net, "value": "512" }, { "namespace": kernel, "value": "9000" }]);
    for (mode, of_sandbox, of_main) in [("awsvpc", Some(vec![net]), vec![kernel]), ("bridge", None, vec![kernel, net])]
    {
        let mut definition = awsvpc();
        definition["networkMode"] = json!(mode);
        definition["containerDefinitions"][0]["systemControls"] = controls.clone();
        let configs = launched(web(1), definition);
        let sysctls = |name: &str| Some(configs.get(name)?.sysctls.keys().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((sysctls(SANDBOX), sysctls("main")), (of_sandbox, Some(of_main)), "{mode}");
        let values = configs.values().flat_map(|config| &config.sysctls);
        let values: BTreeSet<(&str, &str)> = values.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(values, [(net, "512"), (kernel, "9000")].into(), "{mode}");
    }
}

#[test]
fn no_task_is_launched_before_its_host_confirmed_the_rules_around_it() {
    let mut story = Story::begin(web(3), awsvpc());
    // Hosts were looked at, and have made nothing yet.
    let looked = |story: &mut Story| {
        for host in ["a", "b", "c"] {
            story.nothing_confirmed(host, None);
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
        story.nothing_confirmed(host, None);
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
        story.nothing_confirmed("c", problem);
    }
    assert_eq!(story.holding().len(), 3);
    assert!(story.holding().iter().all(|task| task.host.as_str() != "c" && task.last_status == LastStatus::Running));
    let ended = story.core.world().state.tasks.values().find(|task| task.host.as_str() == "c").cloned().unwrap();
    assert_eq!(ended.stop_code, Some(StopCode::TaskFailedToStart));
    assert!(ended.stopped_reason.as_ref().unwrap().contains("no node image"), "{:?}", ended.stopped_reason);
}

#[test]
fn a_host_s_problem_is_waited_for_half_a_minute_by_what_has_not_begun() {
    let mut story = Story::begin(web(3), awsvpc());
    let tell = |story: &mut Story, problem: Option<&str>| {
        for host in ["a", "b", "c"] {
            let problem = problem.filter(|_| host == "c").map(str::to_owned);
            story.nothing_confirmed(host, problem);
        }
    };
    tell(&mut story, None);
    let created = story.now.plus_ms(1_000);
    story.decide(1_000, &[]);
    let alarms = |story: &Story| {
        let waiting = story.core.report().waiting.iter().filter(|it| it.wakes_when == "the host confirms them");
        waiting.map(|it| it.wakes_at.map(|at| at.since_ms(created))).collect::<Vec<_>>()
    };
    assert_eq!(alarms(&story), [None, None, None], "it takes as long as it takes");
    for second in 1..30 {
        tell(&mut story, Some("no node image"));
        story.decide(1_000, &[]);
        assert_eq!(story.stop_codes(), [], "after {second} s");
    }
    assert_eq!(alarms(&story), [None, None, Some(30_000)]);
    tell(&mut story, Some("no node image"));
    story.decide(1_000, &[]);
    assert_eq!(story.stop_codes(), [StopCode::TaskFailedToStart]);
}

#[test]
fn a_host_s_problem_with_its_network_leaves_alone_what_runs_there_or_needs_none() {
    let problem = || Some("no node image".to_owned());
    let mut story = Story::network_at_rest(web(3), awsvpc());
    let ended = story.containers.get_mut("c").unwrap().values_mut().find(|view| view.name.ends_with("-side")).unwrap();
    (ended.state, ended.exit_code) = (ContainerState::Exited, Some(0));
    for _ in 0..40 {
        story.turn_of_network(&["a", "b"]);
        let seen = story.core.world().networks["c"].clone();
        let seen = NetworkSeen { at: story.now, problem: problem(), ..seen };
        story.core.take(story.now, Input::Network("c".into(), seen));
    }
    assert_eq!((story.stop_codes(), story.running()), (vec![], 8));

    // Nobody says what their image stands for.
    let mut story = Story::begin(web(3), one_container());
    for _ in 0..40 {
        story.decide_once(1_000, &[]);
        for host in ["a", "b", "c"] {
            story.nothing_confirmed(host, problem());
        }
    }
    assert_eq!((story.stop_codes(), story.wanted().len()), (vec![], 3));
}

#[test]
fn looking_at_a_network_that_stays_as_it_is_plans_nothing() {
    let mut story = Story::network_at_rest(web(3), awsvpc());
    story.time_passes(1_000, &[]);
    story.confirm(&["a", "b", "c"]);
    assert!(story.core.quiet_until(story.now).is_some());
}

#[test]
fn a_task_leaves_all_names_before_it_is_stopped() {
    let mut story = Story::network_at_rest(web(2), awsvpc());
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
    let story = Story::network_at_rest(web(1), awsvpc());
    let victim = story.holding()[0].clone();
    let (core, _) = Core::new(story.core.world().state.clone(), 9, story.now.plus_ms(1), false);
    let mut story = Story { core, ..story };
    story.tell();
    let stops = |plan: &Plan| plan.actions.iter().any(|action| action.verb.name() == VerbName::Stop);
    story.decide(1_000, &[]);
    let stop = roadstead_core::turn::Command::StopTask { task: victim.id.clone(), reason: None };
    story.core.command(story.now, stop).unwrap();
    assert!(!stops(&story.decide(1_000, &[])), "they were told by the one before");
    // They were looked at, which says nothing of what they answer.
    for host in ["a", "b", "c"] {
        story.nothing_confirmed(host, None);
    }
    assert!(!stops(&story.decide(1_000, &[])));
    story.confirm(&["a", "b", "c"]);
    assert!(stops(&story.decide(1_000, &[])));
}

#[test]
fn a_host_that_never_learns_of_it_holds_a_stop_up_for_five_seconds() {
    let mut story = Story::network_at_rest(web(1), awsvpc());
    let victim = story.holding()[0].clone();
    let stop = roadstead_core::turn::Command::StopTask { task: victim.id.clone(), reason: None };
    story.core.command(story.now, stop).unwrap();
    let stops = |plan: &Plan| plan.actions.iter().any(|action| action.verb.name() == VerbName::Stop);
    let turns = (1..10).find(|_| stops(&story.decide(1_000, &[])));
    assert_eq!(turns, Some(5));
}

#[test]
fn an_address_stays_its_task_s_until_the_containers_are_seen_gone() {
    let mut story = Story::network_at_rest(web(3), awsvpc());
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
    let mut story = Story::network_at_rest(web(1), awsvpc());
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
fn a_sandbox_that_began_anew_while_no_controller_looked_takes_the_adopted_task_with_it() {
    let mut story = Story::network_at_rest(web(1), awsvpc());
    let task = story.holding()[0].clone();
    let sandbox = task.containers.get(SANDBOX).unwrap().runtime_id.clone().unwrap();
    let view = story.containers.get_mut(&task.host).unwrap().get_mut(&sandbox).unwrap();
    (view.started_at, view.restart_count) = (Some(story.now), 1);
    story.go_on_with(|state| *state = State::default());
    story.live_in_network(10);
    assert_eq!(story.task(&task).stop_code, Some(StopCode::EssentialContainerExited));
    assert_eq!(story.running(), 3, "a whole one took its place");
}

#[test]
fn after_a_reboot_the_containers_come_back_into_the_sandbox() {
    let mut story = Story::network_at_rest(web(1), awsvpc());
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
    let story = Story::network_at_rest(web(3), awsvpc());
    let before: BTreeSet<(HostName, Ipv4Addr)> =
        story.holding().iter().map(|task| (task.host.clone(), task.network.as_ref().unwrap().address)).collect();
    let slices = story.core.world().state.subnets.clone();
    let networks = story.core.world().networks.clone();
    let (core, _) = Core::new(State::default(), 9, story.now.plus_ms(1), false);
    let mut story = Story { core, ..story };
    story.tell();
    for (host, seen) in &networks {
        let seen = NetworkSeen { confirmed: None, under_way: None, ..seen.clone() };
        story.core.take(story.now, Input::Network(host.clone(), seen));
    }
    for _ in 0..10 {
        let plan = story.turn_of_network(&["a", "b", "c"]);
        assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    }
    let after: BTreeSet<(HostName, Ipv4Addr)> =
        story.holding().iter().map(|task| (task.host.clone(), task.network.as_ref().unwrap().address)).collect();
    assert_eq!(after, before);
    assert!(story.holding().iter().all(|task| !task.uses_names), "they ask where their address is");
    assert_eq!(story.core.world().state.subnets, slices);
}

#[test]
fn with_an_empty_database_a_slice_of_which_a_task_has_its_address_stays_its_hosts_though_that_tells_nothing_more() {
    let story = Story::network_at_rest(web(3), awsvpc());
    let slices = story.core.world().state.subnets["default"].slices.clone();
    let networks = story.core.world().networks.clone();
    let (core, _) = Core::new(State::default(), 9, story.now.plus_ms(1), false);
    let mut story = Story { core, ..story };
    story.tell();
    let first = slices.iter().find(|(_, number)| **number == 0).unwrap().0.clone();
    story.decide(1_000, &[]);
    story.decide(20_000, &[]);
    for host in slices.keys().filter(|host| **host != first) {
        // Of these everything that they had is gone.
        let seen = NetworkSeen { confirmed: None, under_way: None, slices: [].into(), ..networks[host].clone() };
        story.core.take(story.now, Input::Network(host.clone(), seen));
    }
    story.decide(1_000, &[]);
    let record = &story.core.world().state.subnets["default"];
    assert!(record.slices.values().all(|number| *number != 0), "{record:?} {:?}", story.holding());
    story
        .core
        .take(story.now, Input::Network(first.clone(), NetworkSeen { confirmed: None, ..networks[&first].clone() }));
    story.decide(1_000, &[]);
    assert_eq!(story.core.world().state.subnets["default"].slices, slices);
}

#[test]
fn with_an_empty_database_a_task_is_replaced_whose_address_went_to_another_host_while_its_own_was_away() {
    let mut story = Story::network_at_rest(web(3), awsvpc());
    let first = story.state().subnets["default"].slices.iter().find(|(_, number)| **number == 0).unwrap().0.clone();
    let lost: Vec<_> = story.holding().into_iter().filter(|task| task.host == first).collect();
    let networks = story.core.world().networks.clone();
    story.go_on_with(|state| *state = State::default());
    // The others were reinstalled.
    story.containers.iter_mut().filter(|(host, _)| **host != first).for_each(|(_, there)| there.clear());
    story.tell();
    for ms in [1_000, 20_000, 1_000] {
        story.decide(ms, &[first.as_str()]);
        for host in ["a", "b", "c"].into_iter().filter(|host| **host != *first.as_str()) {
            let seen = NetworkSeen { confirmed: None, under_way: None, slices: [].into(), ..networks[host].clone() };
            story.core.take(story.now, Input::Network(host.into(), seen));
        }
    }
    assert!(story.state().subnets["default"].slices.values().any(|number| *number == 0), "nobody could know");
    story.live_in_network(20);
    for task in &lost {
        let reason = &story.task(task).stopped_reason;
        assert!(reason.as_ref().is_some_and(|reason| reason.contains("is host")), "{reason:?}");
    }
    assert!(!lost.is_empty() && story.running() >= 3, "{}", story.running());
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
        let seen = NetworkSeen { at: story.now, confirmed: None, under_way: None, slices, problem, public_key: None };
        story.core.take(story.now, Input::Network(host.into(), seen));
    };
    seen(&mut story, "a", None, Some("its engine does not answer"));
    seen(&mut story, "b", None, None);
    story.decide(1_000, &[]);
    let slice = |story: &Story, host: &str| {
        let record = &story.core.world().state.subnets["default"];
        record.slices.get(host).copied()
    };
    assert_eq!(slice(&story, "b"), None, "c may have any: it is waited for");
    seen(&mut story, "c", Some("10.64.0.0/24"), None);
    story.decide(1_000, &[]);
    assert_eq!((slice(&story, "a"), slice(&story, "b"), slice(&story, "c")), (None, Some(1), Some(0)));
    seen(&mut story, "a", Some("10.64.7.0/24"), None);
    story.decide(1_000, &[]);
    assert_eq!(slice(&story, "a"), Some(7), "what is there stays");
}

#[test]
fn hosts_know_each_other_by_the_keys_that_they_told_and_follow_a_new_one() {
    let mut story = Story::network_at_rest(web(3), awsvpc());
    let mut desired = (*story.core.world().state.desired).clone();
    let mut cluster = desired.cluster(&"default".into()).clone();
    cluster.network.encapsulation = Encapsulation::Wireguard;
    desired.clusters.insert("default".into(), manifest(cluster, &[]));
    let b = desired.hosts.get_mut("b").unwrap();
    b.spec.wireguard = serde_json::from_value(json!({ "endpoint": "203.0.113.7:4000", "listenPort": 5000 })).unwrap();
    story.desired = desired;
    story.tell();
    let tell = |story: &mut Story, host: &str, key: char| {
        let public_key = PublicKey::parse(&format!("{key:A<43}="));
        let confirmed = pictures(&story.core.world().state).get(host).cloned();
        let seen =
            NetworkSeen { at: story.now, confirmed, under_way: None, slices: [].into(), problem: None, public_key };
        story.core.take(story.now, Input::Network(host.into(), seen))
    };
    // Who knows whom by what.
    let keys = |story: &Story, of: &str| -> Vec<String> {
        let pictures = pictures(&story.core.world().state);
        let peers = pictures[of].tunnel.as_ref().unwrap().peers.values();
        peers.map(|peer| peer.public_key.as_ref().map_or("-".into(), |key| key.to_string()[..1].to_owned())).collect()
    };
    assert_eq!(keys(&story, "a"), ["-", "-"]);
    assert!(pictures(&story.core.world().state)["a"].routes.is_empty());
    tell(&mut story, "a", 'a');
    tell(&mut story, "b", 'b');
    tell(&mut story, "c", 'c');
    assert!(tell(&mut story, "c", 'c').is_empty(), "nothing new is nothing to write");
    assert_eq!(story.core.world().networks[&HostName::from("c")].problem, None, "its own key is its own");
    assert!(tell(&mut story, "nobody", 'n').is_empty(), "nobody declared it");
    assert_eq!((keys(&story, "a"), keys(&story, "b")), (vec!["b".into(), "c".into()], vec!["a".into(), "c".into()]));
    let tunnels = pictures(&story.core.world().state);
    let tunnel = |host: &str| tunnels[host].tunnel.clone().unwrap();
    assert_eq!((tunnel("a").listen_port, tunnel("b").listen_port), (51_820, 5_000));
    let endpoint = |of: &str| tunnel("a").peers[&HostName::from(of)].endpoint.map(|it| it.to_string());
    assert_eq!((endpoint("b").as_deref(), endpoint("c")), (Some("203.0.113.7:4000"), None), "c has a name only");
    // Installed anew, it has another; a copy of somebody else's is nobody's.
    tell(&mut story, "b", 'd');
    assert_eq!(keys(&story, "a"), ["d", "c"]);
    tell(&mut story, "c", 'a');
    assert_eq!(keys(&story, "b"), ["a", "c"]);
    let seen = &story.core.world().networks[&HostName::from("c")];
    assert!(seen.confirmed.is_none() && seen.problem.as_ref().unwrap().contains("host a"), "{:?}", seen.problem);
    // Who is not who it was says nothing that is believed.
    story.identities.insert("b".into(), EngineIdentity { engine_id: "another".into(), ..EngineIdentity::default() });
    story.decide(1_000, &[]);
    assert!(!tell(&mut story, "b", 'e').iter().any(|change| matches!(change, Change::Host(_))));
    assert_eq!(keys(&story, "a"), ["d", "c"]);
}

#[test]
fn a_port_is_found_by_its_number_and_by_its_name() {
    let mut definition = awsvpc();
    definition["containerDefinitions"][0]["portMappings"] = json!([
        { "containerPort": 80, "name": "http" },
        { "containerPort": 81, "name": "admin" },
        { "containerPort": 80, "name": "quic", "protocol": "udp" },
        // Nobody could ask for it.
        { "containerPort": 82, "name": "not.a.label" },
    ]);
    let story = Story::network_at_rest(web(2), definition);
    let pictures = pictures(&story.core.world().state);
    let services = &pictures["a"].fleet.names.services;
    let name = |port: &str| format!("_{port}.web.default.internal");
    let ports = ["80._tcp", "80._udp", "81._tcp", "82._tcp", "admin._tcp", "http._tcp", "quic._udp"];
    assert_eq!(services.keys().cloned().collect::<Vec<_>>(), ports.map(name));
    for (number, word) in [("80._tcp", "http._tcp"), ("81._tcp", "admin._tcp"), ("80._udp", "quic._udp")] {
        assert_eq!(services[&name(number)], services[&name(word)]);
        assert_eq!(services[&name(word)].len(), 2);
    }
}

#[test]
fn a_host_of_which_nothing_is_remembered_is_remembered_by_its_key() {
    let public_key = PublicKey::parse(&format!("{:A<43}=", 'k'));
    let mut seen = NetworkSeen {
        at: Timestamp(1),
        confirmed: None,
        under_way: None,
        slices: [].into(),
        problem: None,
        public_key: public_key.clone(),
    };
    let changes = roadstead_core::plan::absorb::network(&State::default(), &"new".into(), &mut seen);
    let record = HostRecord { name: "new".into(), public_key, ..HostRecord::default() };
    assert_eq!(changes, [Change::Host(record)]);
}
