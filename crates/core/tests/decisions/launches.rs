//! What a launch asks an engine for, and what waits before one.

use std::collections::BTreeMap;

use roadstead_core::model::{
    action::{ActionResult, Verb, VerbName},
    container::{ContainerConfig, ContainerState, MountSource, NamespaceMode},
    desired::Manifest,
    spec::{ClusterSpec, task_definition::NetworkMode},
    task::{Launch, StopCode, Task},
    time::Timestamp,
    world::Plan,
};
use serde_json::{Value, json};

use super::{
    looks::events,
    story::{Story, one_container, web},
};

const MIB: u64 = 1024 * 1024;

fn steps(plan: &Plan) -> Vec<(String, ContainerConfig, bool)> {
    let of = |verb: &Verb| if let Verb::Launch { containers } = verb { containers.clone() } else { Vec::new() };
    let steps = plan.actions.iter().flat_map(|action| of(&action.verb));
    steps.map(|step| (step.container.to_string(), step.config, step.start)).collect()
}

fn first(story: &mut Story) -> Vec<(String, ContainerConfig, bool)> {
    (0..5).map(|_| steps(&story.decide(1_000, &[]))).find(|steps| !steps.is_empty()).expect("it is launched")
}

/// The containers of a definition as they are first asked for.
fn configs(definition: Value, cluster: Value) -> Vec<ContainerConfig> {
    let mut story = Story::begin(web(1), definition);
    let spec: ClusterSpec = serde_json::from_value(cluster).unwrap();
    let manifest = Manifest { labels: [].into(), annotations: [].into(), file: "story.yaml".into(), line: 1, spec };
    story.desired.clusters.insert("default".into(), manifest);
    story.tell();
    first(&mut story).into_iter().map(|(_, config, _)| config).collect()
}

fn config(container: Value) -> ContainerConfig {
    let mut main = json!({ "name": "main", "image": "demo:1", "memory": 64 });
    main.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    configs(json!({ "containerDefinitions": [main] }), json!({})).remove(0)
}

#[test]
fn a_container_that_is_alone_in_its_network_asks_for_names_where_it_says() {
    let main = config(json!({ "dnsServers": ["198.51.100.7"], "dnsSearchDomains": ["example.com"] }));
    assert_eq!(main.dns_servers, ["198.51.100.7"]);
    assert_eq!(main.dns_search_domains, ["example.com"]);
}

#[test]
fn sizes_are_in_the_engines_units() {
    let linux = |linux: Value| json!({ "linuxParameters": linux });
    let plain = config(json!({ "memory": 96, "memoryReservation": 32 }));
    assert_eq!((plain.memory_bytes, plain.memory_reservation_bytes), (Some(96 * MIB), Some(32 * MIB)));
    assert_eq!((plain.nano_cpus, plain.memory_swap_bytes, plain.shared_memory_bytes), (None, None, None));
    let linux = config(linux(json!({
        "maxSwap": 16, "sharedMemorySize": 8,
        "tmpfs": [{ "containerPath": "/t", "size": 4, "mountOptions": ["noexec", "ro"] }],
        "devices": [
            { "hostPath": "/dev/a" },
            { "hostPath": "/dev/b", "containerPath": "/dev/c", "permissions": ["write", "read"] },
        ],
    })));
    assert_eq!((linux.memory_swap_bytes, linux.shared_memory_bytes), (Some(80 * MIB), Some(8 * MIB)));
    assert_eq!(linux.tmpfs["/t"], "size=4m,noexec,ro");
    let devices: Vec<_> =
        linux.devices.iter().map(|it| (it.container_path.as_str(), it.permissions.as_str())).collect();
    assert_eq!(devices, [("/dev/a", "rwm"), ("/dev/c", "rw")]);
    assert_eq!(config(json!({ "linuxParameters": { "sharedMemorySize": 0 } })).shared_memory_bytes, None);

    let of_the_task =
        json!({ "cpu": 1536, "memory": 256, "containerDefinitions": [{ "name": "main", "image": "demo:1" }] });
    let config = configs(of_the_task, json!({})).remove(0);
    assert_eq!((config.nano_cpus, config.memory_bytes), (Some(1_500_000_000), Some(256 * MIB)));
}

#[test]
fn what_docker_writes_otherwise_is_written_so() {
    let options = ["apparmor:profile", "label=type:svirt", "no-new-privileges"];
    assert_eq!(
        config(json!({ "dockerSecurityOptions": options })).security_options,
        ["apparmor=profile", "label=type:svirt", "no-new-privileges"]
    );
    assert_eq!(config(json!({})).network_mode, NetworkMode::Bridge);
    assert_eq!(config(json!({ "disableNetworking": true })).network_mode, NetworkMode::None);
}

#[test]
fn logs_go_where_the_container_says_or_else_the_cluster_and_files_are_rotated() {
    let of = |container: Value, cluster: Value| {
        let mut main = json!({ "name": "main", "image": "demo:1", "memory": 64 });
        main.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let log = configs(json!({ "containerDefinitions": [main] }), cluster).remove(0).log;
        (log.driver.clone(), log.options.clone())
    };
    let rotated = of(json!({}), json!({}));
    assert!(rotated.0 == "json-file" && rotated.1.contains_key("max-size"), "{rotated:?}");
    let chosen = json!({ "logConfiguration": { "logDriver": "json-file", "options": { "max-size": "1m" } } });
    let (driver, options) = of(chosen, json!({}));
    assert!(driver == "json-file" && options["max-size"] == "1m" && options.len() == rotated.1.len(), "{options:?}");
    let journal = json!({ "logConfiguration": { "logDriver": "journald", "options": { "tag": "t" } } });
    let expected = ("journald".to_owned(), [("tag".to_owned(), "t".to_owned())].into());
    assert_eq!(of(journal.clone(), json!({})), expected);
    let cluster = json!({ "logging": journal["logConfiguration"] });
    assert_eq!(of(json!({}), cluster.clone()), expected);
    let amazons = json!({ "logConfiguration": { "logDriver": "awslogs", "options": { "awslogs-group": "g" } } });
    assert_eq!(of(amazons.clone(), cluster), expected);
    assert_eq!(of(amazons, json!({})), rotated);
}

#[test]
fn a_mount_is_of_the_host_of_docker_or_of_a_file_server() {
    let sources = |volume: Value, cluster: Value| -> Vec<MountSource> {
        let mut volume = volume;
        volume["name"] = json!("data");
        let definition = json!({ "volumes": [volume], "containerDefinitions": [{
            "name": "main", "image": "demo:1", "memory": 64,
            "mountPoints": [{ "sourceVolume": "data", "containerPath": "/data", "readOnly": true }],
        }] });
        let config = configs(definition, cluster).remove(0);
        assert!(config.mounts.iter().all(|mount| mount.read_only && mount.target == "/data"));
        config.mounts.into_iter().map(|mount| mount.source).collect()
    };
    let volume = |volume: Value, cluster: Value| match sources(volume, cluster).as_slice() {
        [MountSource::Volume(config)] => config.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(sources(json!({ "host": { "sourcePath": "/srv" } }), json!({})), [MountSource::Host("/srv".into())]);
    let unnamed = volume(json!({ "host": { "sourcePath": "" } }), json!({}));
    assert!(unnamed.name.starts_with("rs-task-") && !unnamed.must_exist, "{unnamed:?}");
    for (autoprovision, must_exist) in [(json!(true), false), (json!(false), true), (json!(null), true)] {
        let docker = json!({ "scope": "shared", "autoprovision": autoprovision });
        let shared = volume(json!({ "dockerVolumeConfiguration": docker }), json!({}));
        assert_eq!((shared.name.as_str(), shared.must_exist), ("data", must_exist));
    }
    let efs = json!({ "efsVolumeConfiguration": { "fileSystemId": "fs-1", "rootDirectory": "/app" } });
    let nfs = volume(efs, json!({ "fileSystems": { "fs-1": "nas:/export" } }));
    assert_eq!((nfs.driver.as_str(), nfs.options["device"].as_str()), ("local", ":/export/app"));
    assert!(nfs.options["o"].starts_with("addr=nas,") && nfs.no_copy && !nfs.must_exist, "{nfs:?}");
}

#[test]
fn the_first_container_that_stays_is_joined_by_those_after_it() {
    let containers = json!([
        { "name": "init", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "init", "condition": "SUCCESS" }] },
        { "name": "side", "image": "demo:1", "memory": 64 },
    ]);
    let of = |more: Value| {
        let mut definition = json!({ "containerDefinitions": containers });
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut configs = configs(definition, json!({}));
        configs.sort_by_key(|config| config.name.rsplit('-').next().unwrap().to_owned());
        let names: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
        let modes: Vec<_> = configs.into_iter().map(|config| (config.pid_mode, config.ipc_mode)).collect();
        (names, modes)
    };
    use NamespaceMode::{Host, None, Of, Own, Shareable};
    assert_eq!(of(json!({})).1, vec![(Own, Own); 3]);
    assert_eq!(of(json!({ "pidMode": "host", "ipcMode": "host" })).1, vec![(Host, Host); 3]);
    assert_eq!(of(json!({ "ipcMode": "none" })).1, vec![(Own, None); 3]);
    let (names, modes) = of(json!({ "pidMode": "task", "ipcMode": "task" }));
    let main = Of(names[1].clone());
    assert_eq!(modes, [(Own, Own), (Own, Shareable), (main.clone(), main)]);
    let (names, modes) = of(json!({ "pidMode": "task" }));
    assert_eq!(modes, [(Own, Own), (Own, Own), (Of(names[1].clone()), Own)]);
}

#[test]
fn a_dependency_that_ended_nobody_knows_how_did_not_end_well() {
    let definition = json!({ "containerDefinitions": [
        { "name": "init", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "init", "condition": "SUCCESS" }] }
    ] });
    for (code, starts) in [(None, false), (Some(0), true)] {
        let mut story = Story::begin(web(1), definition.clone());
        for _ in 0..3 {
            let plan = story.decide(1_000, &[]);
            plan.actions.iter().for_each(|action| story.obey(action));
        }
        for view in story.containers.values_mut().flat_map(|on| on.values_mut()) {
            if view.name.ends_with("init") {
                (view.state, view.exit_code) = (ContainerState::Exited, code);
            }
        }
        let plan = story.decide(1_000, &[]);
        let started = steps(&plan).iter().any(|(name, _, start)| name == "main" && *start);
        let waits = plan.report.waiting.iter().any(|waiting| waiting.reason == "main waits for init to end with 0");
        assert_eq!((started, waits), (starts, !starts), "{code:?}: {:?}", plan.report.waiting);
    }
}

#[test]
fn what_waits_for_a_start_waits_also_while_that_one_waits_itself() {
    let container = |name: &str, on: Value| json!({ "name": name, "image": "demo:1", "memory": 64, "dependsOn": on });
    let mut db = container("db", json!([]));
    db["healthCheck"] = json!({ "command": ["CMD", "check"] });
    let on = |name: &str, condition: &str| json!([{ "containerName": name, "condition": condition }]);
    let mut story = Story::begin(
        web(1),
        json!({ "containerDefinitions": [
        db, container("main", on("db", "HEALTHY")), container("side", on("main", "START")),
    ] }),
    );
    for _ in 0..6 {
        let plan = story.decide(1_000, &[]);
        plan.actions.iter().for_each(|action| story.obey(action));
    }
    let views = story.containers.values().flat_map(BTreeMap::values);
    let states: Vec<_> = views.map(|view| (view.name.rsplit('-').next().unwrap().to_owned(), view.state)).collect();
    let state = |name: &str| states.iter().find(|(of, _)| of == name).map(|(_, state)| *state);
    use ContainerState::{Created, Running};
    assert_eq!((state("db"), state("main"), state("side")), (Some(Running), Some(Created), Some(Created)));
}

#[test]
fn a_launch_without_an_answer_is_repeated_after_three_seconds() {
    let mut story = Story::begin(web(1), one_container());
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    let ordered_at = story.now;
    // Another controller: it does not know how the order fared, and asks nobody but the host.
    story.go_on_with(|_| {});
    story.decide(500, &[]);
    let plan = story.decide(2_499, &[]);
    assert_eq!((plan.actions.len(), plan.wake_at), (0, Some(ordered_at.plus_ms(3_000))));
    let plan = story.decide(1, &[]);
    assert_eq!(plan.actions.iter().map(|action| action.key()).collect::<Vec<_>>(), [launch.key()]);
}

#[test]
fn a_failed_order_is_repeated_when_its_pause_is_over_and_waits_visibly_till_then() {
    let mut story = Story::begin(web(1), one_container());
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    story.answer(&launch, ActionResult::NotSent { reason: "no connection".into() });
    let (again_at, _) = story.core.world().retry_at[&launch.key()].clone();
    // Not for the pause after an order of unknown outcome, which is over then.
    for _ in 0..3 {
        story.decide(again_at.since_ms(story.now).min(100), &[]);
        story.answer(&launch, ActionResult::NotSent { reason: "no connection".into() });
    }
    let (again_at, _) = story.core.world().retry_at[&launch.key()].clone();
    let plan = story.decide(again_at.since_ms(story.now) - 1, &[]);
    assert_eq!((plan.actions.len(), plan.wake_at), (0, Some(again_at)));
    let says = |plan: &Plan| {
        plan.report.waiting.iter().any(|it| it.reason == "the last attempt did not succeed: no connection")
    };
    assert!(says(&plan), "{:?}", plan.report.waiting);
    assert_eq!(story.decide(1, &[]).actions.len(), 1);
}

#[test]
fn a_task_on_a_host_that_cannot_be_asked_waits_visibly_if_something_is_left_to_do() {
    let orders = |change: fn(&mut Task)| {
        let mut story = Story::begin(web(1), one_container());
        story.settle(&[]);
        let host = story.state().tasks.values().next().unwrap().host.to_string();
        story.go_on_with(|state| {
            change(std::sync::Arc::make_mut(state.tasks.values_mut().next().unwrap()));
        });
        let plan = story.decide(1_000, &[&host]);
        let waits = plan.report.waiting.iter().find(|waiting| waiting.reason.starts_with("cannot "));
        waits.map(|waiting| waiting.reason.replace(&format!("host {host}"), "host H"))
    };
    let start = Some("cannot start it: host H does not answer just now".to_owned());
    let stop = Some("cannot stop it: host H does not answer just now".to_owned());
    assert_eq!(orders(|_| {}), None);
    assert_eq!(orders(|task| task.launch = Launch::NotIssued), start);
    assert_eq!(orders(|task| task.strays.push("twice".into())), start);
    assert_eq!(orders(|task| task.containers.get_mut("main").unwrap().state = None), start);
    assert_eq!(orders(|task| task.containers.get_mut("main").unwrap().state = Some(ContainerState::Created)), start);
    assert_eq!(orders(|task| task.order_stop(Timestamp(1), StopCode::UserInitiated, "a person")), stop);
    // What has done its work is not waited for, and what is to come back is.
    let ended = |code: i64| {
        let mut story = Story::begin(
            web(1),
            json!({ "containerDefinitions": [
            { "name": "main", "image": "demo:1", "memory": 64 },
            { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
        ] }),
        );
        story.settle(&[]);
        let host = story.state().tasks.values().next().unwrap().host.to_string();
        for view in story.containers.get_mut(host.as_str()).unwrap().values_mut() {
            if view.name.ends_with("side") {
                (view.state, view.exit_code) = (ContainerState::Exited, Some(code));
            }
        }
        story.time_passes(1_000, &[&host]);
        story.look(&host, story.now);
        let plan = story.plan();
        plan.report.waiting.iter().any(|waiting| waiting.reason.starts_with("cannot start it"))
    };
    assert_eq!((ended(0), ended(1)), (false, true));
}

#[test]
fn a_start_again_is_told_with_how_the_container_ended() {
    let mut story = Story::begin(
        web(1),
        json!({ "containerDefinitions": [
        { "name": "main", "image": "demo:1", "memory": 64 },
        { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
    ] }),
    );
    story.settle(&[]);
    let view =
        story.containers.values_mut().flat_map(|on| on.values_mut()).find(|view| view.name.ends_with("side")).unwrap();
    (view.state, view.exit_code) = (ContainerState::Exited, Some(3));
    let plan = story.decide(1_000, &[]);
    assert_eq!(plan.actions.iter().map(|action| action.verb.name()).collect::<Vec<_>>(), [VerbName::Launch]);
    let told = events(&plan.changes).into_iter().filter(|event| event.reason == "ContainerRestarted");
    let told: Vec<String> = told.map(|event| event.message).collect();
    assert!(told.len() == 1 && told[0].ends_with("ended with exit code 3 and is started again"), "{told:?}");
}

#[test]
fn a_start_that_may_be_on_its_way_to_a_container_is_repeated_sooner_where_it_may_run_twice() {
    let mut story = Story::begin(web(1), one_container());
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    story.make(&launch);
    for view in story.containers.values_mut().flat_map(|on| on.values_mut()) {
        view.state = ContainerState::Created;
    }
    story.go_on_with(|state| {
        let issued = state.tasks[&launch.task].launch;
        assert!(matches!(issued, Launch::Issued { .. }));
    });
    let mut again = Vec::new();
    for _ in 0..4 {
        again.extend(story.decide(1_000, &[]).actions.into_iter().map(|action| action.key()));
    }
    assert!(again.contains(&launch.key()), "of a service, within seconds: {again:?}");
}

#[test]
fn a_standalone_launch_of_which_nothing_is_there_is_repeated_within_seconds() {
    let mut story = Story::begin(web(0), one_container());
    story.settle(&[]);
    let request = serde_json::from_value(json!({ "taskDefinition": "web", "clientToken": "one" })).unwrap();
    story.core.command(story.now, roadstead_core::turn::Command::RunTask(Box::new(request))).unwrap();
    let launch = (0..5).find_map(|_| story.decide(1_000, &[]).actions.into_iter().next()).unwrap();
    story.go_on_with(|_| {});
    let again = (0..4).flat_map(|_| story.decide(1_000, &[]).actions).any(|action| action.key() == launch.key());
    assert!(again);
}

#[test]
fn while_a_container_is_there_twice_nothing_else_is_ordered_of_its_task() {
    let mut story = Story::begin(web(1), one_container());
    story.settle(&[]);
    let (id, host) = story.state().tasks.values().map(|task| (task.id.clone(), task.host.clone())).next().unwrap();
    story.containers.get_mut(&host).unwrap().clear();
    story.go_on_with(|state| {
        let task = std::sync::Arc::make_mut(state.tasks.get_mut(&id).unwrap());
        task.strays.push("twice".into());
        task.containers.values_mut().for_each(|row| (row.runtime_id, row.state) = (None, None));
    });
    story.time_passes(1_000, &[]);
    let contacts: BTreeMap<_, _> = story
        .contacts
        .iter()
        .map(|(name, contact)| {
            (
                name.clone(),
                roadstead_core::model::observed::HostContact { looked_at: Some(story.now), ..contact.clone() },
            )
        })
        .collect();
    let mut world = story.core.world().clone();
    world.contacts = contacts.into();
    let plan = roadstead_core::plan::plan(&world);
    assert_eq!(plan.actions.iter().map(|action| action.verb.name()).collect::<Vec<_>>(), [VerbName::Tidy]);
    assert!(plan.report.waiting.iter().any(|it| it.reason == "one of its containers is there twice"), "{plan:?}");
}

#[test]
fn what_a_person_stops_leaves_nothing_and_what_failed_keeps_its_containers() {
    let removes = |code: StopCode| {
        let mut story = Story::begin(web(1), one_container());
        story.settle(&[]);
        let now = story.now;
        story.go_on_with(|state| {
            let task = std::sync::Arc::make_mut(state.tasks.values_mut().next().unwrap());
            task.order_stop(now, code, "why");
        });
        let plan = story.decide(1_000, &[]);
        let stop = |verb: &Verb| if let Verb::Stop { containers } = verb { containers.clone() } else { Vec::new() };
        let steps = plan.actions.iter().flat_map(|action| stop(&action.verb));
        steps.map(|step| step.remove).collect::<Vec<_>>()
    };
    assert_eq!(removes(StopCode::UserInitiated), [true]);
    assert_eq!(removes(StopCode::TaskFailedToStart), [false]);
}
