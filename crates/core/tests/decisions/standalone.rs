//! Standalone tasks: placed once, never replaced, started once for one request.

use std::sync::Arc;

use roadstead_core::model::{
    action::{ActionResult, Verb},
    container::ContainerState,
    standalone::RunTask,
    state::{Change, EventLevel, Schedulability},
    task::{LastStatus, StopCode, Task},
    world::Plan,
};
use roadstead_core::turn::{Command, CommandError, Core, Input};
use serde_json::{Value, json};

use crate::story::{Story, one_container, web};

fn request(token: &str, more: Value) -> RunTask {
    let mut request = json!({ "taskDefinition": "web", "clientToken": token });
    request.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    serde_json::from_value(request).unwrap()
}

impl Story {
    fn run(&mut self, token: &str, more: Value) -> Result<String, CommandError> {
        let command = Command::RunTask(Box::new(request(token, more)));
        self.core.command(self.now, command).map(|(words, _)| words)
    }

    fn standalone(&self) -> Vec<Arc<Task>> {
        self.core.world().state.tasks.values().filter(|task| task.is_standalone()).cloned().collect()
    }

    /// The main process of every container of standalone tasks ends.
    fn end_standalone(&mut self, code: i64) {
        let now = self.now;
        for view in self.containers.values_mut().flat_map(|host| host.values_mut()) {
            if view.owner.ours().unwrap().service.family().is_some() {
                (view.state, view.exit_code, view.finished_at) = (ContainerState::Exited, Some(code), Some(now));
            }
        }
    }
}

fn launches(plan: &Plan) -> usize {
    plan.actions.iter().filter(|action| matches!(action.verb, Verb::Launch { .. })).count()
}

fn settled(services_tasks: u32) -> Story {
    let mut story = Story::begin(web(services_tasks), one_container());
    story.settle(&[]);
    story
}

#[test]
fn a_standalone_task_runs_once_and_its_end_is_kept() {
    let mut story = settled(1);
    story.run("once", json!({ "count": 2, "startedBy": "somebody" })).unwrap();
    story.settle(&[]);
    assert_eq!(story.running(), 3, "beside the service's");
    let tasks = story.standalone();
    assert_eq!(tasks.iter().map(|task| task.service.group()).collect::<Vec<_>>(), ["family:web"; 2]);
    assert_ne!(tasks[0].host, tasks[1].host, "spread over zones");
    story.end_standalone(3);
    story.settle(&[]);
    assert_eq!(story.running(), 1, "nothing takes their place");
    for task in story.standalone() {
        assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::EssentialContainerExited)));
        assert_eq!(task.containers.values().next().unwrap().exit_code, Some(3));
        assert_eq!(task.standalone.as_ref().unwrap().started_by.as_deref(), Some("somebody"));
    }
    let record = &story.core.world().state.services["web"];
    assert_eq!((record.consecutive_failures, story.core.world().state.services.len()), (0, 1), "no service failed");
}

#[test]
fn its_containers_are_not_restarted_and_have_its_overrides() {
    let mut story = settled(0);
    let overrides =
        json!({ "containerOverrides": [{ "name": "main", "command": ["say"], "environment": { "A": "1" } }] });
    story.run("once", json!({ "overrides": overrides })).unwrap();
    let plan = story.decide(1_000, &[]);
    let Some(Verb::Launch { containers }) = plan.actions.first().map(|action| &action.verb) else {
        panic!("{:?}", plan.actions)
    };
    let config = &containers[0].config;
    assert!(!config.restart);
    assert_eq!(config.command, ["say"]);
    assert_eq!(config.environment["A"], "1");
    assert!(config.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)), "{}", config.name);
}

#[test]
fn one_that_is_to_be_restarted_is_until_it_ends_with_a_code_that_is_ignored() {
    let policy = json!({ "enabled": true, "ignoredExitCodes": [0, 3] });
    let main = json!({ "name": "main", "image": "demo:1", "memory": 64, "restartPolicy": policy });
    let mut story = Story::begin(web(0), json!({ "containerDefinitions": [main] }));
    story.settle(&[]);
    story.run("once", json!({})).unwrap();
    story.settle(&[]);
    for _ in 0..5 {
        story.end_standalone(1);
        story.settle(&[]);
        assert_eq!((story.running(), story.stop_codes()), (1, vec![]), "no service would replace it");
    }
    story.end_standalone(3);
    story.settle(&[]);
    let task = &story.standalone()[0];
    assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::EssentialContainerExited)));
    assert_eq!(task.containers.values().next().unwrap().exit_code, Some(3));
}

#[test]
fn with_fargate_the_definition_and_what_differs_must_fit() {
    let definition = |more: Value| {
        let mut definition = json!({ "containerDefinitions": [{ "name": "main", "image": "demo:1", "memory": 64 }] });
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        definition
    };
    let size = json!({ "cpu": 256, "memory": 512 });
    let mut privileged = definition(size.clone());
    privileged["containerDefinitions"][0]["privileged"] = json!(true);
    for (definition, overrides, refused) in [
        (definition(size.clone()), json!({}), None),
        (definition(size.clone()), json!({ "memory": 1024 }), None),
        (definition(size), json!({ "memory": 700 }), Some("memory: 700 MiB of memory with 256 CPU units")),
        (definition(json!({})), json!({ "cpu": 256, "memory": 512 }), Some("cpu: Fargate needs a `cpu`")),
        (definition(json!({ "cpu": 256, "memory": 600 })), json!({}), Some("256 CPU units go with 512, 1024")),
        (definition(json!({ "cpu": 256, "memory": 512, "networkMode": "host" })), json!({}), Some("networkMode: ")),
        (privileged, json!({}), Some("refuses `privileged`")),
    ] {
        let mut story = Story::begin(web(0), definition);
        story.settle(&[]);
        let said = story.run("once", json!({ "launchType": "FARGATE", "overrides": overrides }));
        match (said, refused) {
            (Ok(_), None) => {}
            (Err(CommandError::Refused(said)), Some(words)) if said.contains(words) => {}
            (said, _) => panic!("{refused:?}: {said:?}"),
        }
        assert_eq!(story.standalone().len(), usize::from(refused.is_none()));
    }
}

#[test]
fn one_of_a_shared_sandbox_that_ends_ends_its_task() {
    let container = |name: &str| json!({ "name": name, "image": "demo:1", "memory": 64 });
    let containers = [container("main"), container("second")];
    let mut story = Story::begin(web(0), json!({ "pidMode": "task", "containerDefinitions": containers }));
    story.settle(&[]);
    story.run("once", json!({})).unwrap();
    story.settle(&[]);
    let views = story.containers.values_mut().flat_map(|host| host.values_mut());
    for view in views.filter(|view| view.owner.ours().unwrap().container.as_str() == "second") {
        (view.state, view.exit_code) = (ContainerState::Exited, Some(0));
    }
    story.settle(&[]);
    let task = &story.standalone()[0];
    assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::EssentialContainerExited)));
}

#[test]
fn one_whose_container_somebody_removed_before_it_started_is_no_services_failure() {
    let mut story = settled(0);
    story.run("once", json!({})).unwrap();
    let launch = story.decide(1_000, &[]).actions.remove(0);
    story.answer(&launch, ActionResult::Removed { reason: "no such container".into(), containers: Vec::new() });
    story.settle(&[]);
    let task = &story.standalone()[0];
    assert_eq!((task.last_status, task.stop_code), (LastStatus::Stopped, Some(StopCode::TaskFailedToStart)));
    assert_eq!(story.core.world().state.services.keys().map(ToString::to_string).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn the_same_request_starts_nothing_twice() {
    let mut story = settled(0);
    story.run("t", json!({})).unwrap();
    story.settle(&[]);
    // The answer was lost, and the controller dies and comes back.
    let state = story.core.world().state.clone();
    let (core, _) = Core::new(state, 2, story.now.plus_ms(1), false);
    story.core = core;
    story.tell();
    story.run("t", json!({})).unwrap();
    story.settle(&[]);
    assert_eq!((story.standalone().len(), story.running()), (1, 1));
    story.end_standalone(0);
    story.settle(&[]);
    story.run("t", json!({})).unwrap();
    story.settle(&[]);
    assert_eq!((story.standalone().len(), story.running()), (1, 0), "also when it is over");
    let other = story.run("t", json!({ "overrides": { "memory": 128 } }));
    assert!(matches!(other, Err(CommandError::Refused(_))), "{other:?}");
    story.run("u", json!({})).unwrap();
    assert_eq!(story.standalone().len(), 2);
}

#[test]
fn a_launch_without_an_answer_makes_no_second_container_set() {
    let mut story = settled(0);
    story.run("t", json!({})).unwrap();
    let plan = story.decide(1_000, &[]);
    let launch = plan.actions.first().expect("it is launched").clone();
    // It ran, and ended; then the controller comes back with nothing but its database.
    let state = story.core.world().state.clone();
    story.make(&launch);
    story.end_standalone(0);
    let (core, _) = Core::new(state, 2, story.now.plus_ms(1), false);
    story.core = core;
    story.tell();
    for _ in 0..30 {
        let plan = story.decide(1_000, &[]);
        assert_eq!(launches(&plan), 0, "{:?}", plan.actions);
    }
    assert_eq!(story.standalone()[0].stop_code, Some(StopCode::EssentialContainerExited));
}

#[test]
fn with_its_host_lost_it_ends_and_is_not_started_elsewhere() {
    let mut story = settled(0);
    story.run("t", json!({})).unwrap();
    story.settle(&[]);
    let host = story.standalone()[0].host.clone();
    for _ in 0..30 {
        story.decide(1_000, &[host.as_str()]);
    }
    let task = story.standalone().remove(0);
    assert_eq!((task.stop_code, story.standalone().len()), (Some(StopCode::HostLost), 1));
    story.settle(&[]);
    assert_eq!(story.running(), 0, "what still ran there is stopped");
    assert_eq!(story.standalone()[0].last_status, LastStatus::Stopped);
}

#[test]
fn what_finds_no_room_fails_at_once_with_ecs_words() {
    let mut story = settled(0);
    let none = story.run("a", json!({ "overrides": { "memory": 10_000 } })).unwrap_err();
    assert!(none.to_string().starts_with("RESOURCE:MEMORY: 0/3 hosts fit"), "{none}");
    assert!(story.standalone().is_empty());
    // 8192 MiB a host: one of 5000 each.
    let some = story.run("b", json!({ "count": 5, "overrides": { "memory": 5_000 } })).unwrap();
    assert!(some.starts_with("3 of 5 tasks of web:1 are started; RESOURCE:MEMORY"), "{some}");
    assert_eq!(story.standalone().len(), 3);
}

#[test]
fn what_is_wrong_with_a_request_is_told() {
    let mut story = settled(0);
    for (more, words) in [
        (json!({ "taskDefinition": "wbe" }), "no TaskDefinition wbe"),
        (json!({ "taskDefinition": "web:7" }), "no revision web:7"),
        (json!({ "count": 11 }), "count is 1 to 10"),
        (json!({ "cluster": "other" }), "no cluster other"),
        (json!({ "clientToken": "with blank" }), "clientToken"),
        (json!({ "overrides": { "containerOverrides": [{ "name": "x" }] } }), "overrides.containerOverrides.0.name"),
    ] {
        let said = story.run("t", more).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }
    assert!(story.standalone().is_empty());
}

#[test]
fn its_end_is_news_of_its_own() {
    let mut story = settled(0);
    story.run("t", json!({})).unwrap();
    story.settle(&[]);
    story.end_standalone(0);
    story.now = story.now.plus_ms(1_000);
    let host = story.standalone()[0].host.clone();
    let look = story.look_at(host.as_str(), story.now);
    let changes = story.core.take(story.now, Input::Look(Arc::new(look)));
    let ended = changes.iter().find_map(|change| match change {
        Change::Event(event) if event.reason == "TaskEnded" => Some(event.level),
        _ => None,
    });
    assert_eq!(ended, Some(EventLevel::Normal), "it ended well");
}

#[test]
fn one_that_cannot_start_fails_nobody_else() {
    let mut story = settled(1);
    story.run("t", json!({})).unwrap();
    let plan = story.decide(1_000, &[]);
    let launch = plan.actions.iter().find(|action| action.service.family().is_some()).unwrap().clone();
    story.answer(&launch, ActionResult::Failed { reason: "no such image".into(), containers: Vec::new() });
    story.settle(&[]);
    let task = story.standalone().remove(0);
    assert_eq!((task.stop_code, task.last_status), (Some(StopCode::TaskFailedToStart), LastStatus::Stopped));
    assert_eq!(story.core.world().state.services.len(), 1);
}

#[test]
fn a_drain_leaves_it_alone_for_as_long_as_was_said() {
    let mut story = settled(0);
    story.run("once", json!({})).unwrap();
    story.settle(&[]);
    let host = story.standalone()[0].host.clone();
    let drain = |story: &mut Story, timeout_s| {
        let order = Command::SetSchedulability { host: host.clone(), to: Schedulability::Draining, timeout_s };
        story.core.command(story.now, order).unwrap();
    };
    drain(&mut story, None);
    for _ in 0..5 {
        story.settle(&[]);
    }
    assert_eq!(story.running(), 1, "without a time-out for ever");
    drain(&mut story, Some(100));
    story.settle(&[]);
    assert_eq!(story.running(), 1);
    story.settle(&[]);
    assert_eq!((story.running(), story.stop_codes()), (0, vec![StopCode::TerminationNotice]));
}

#[test]
fn what_a_request_cannot_mean_is_refused() {
    let mut story = settled(0);
    for (request, words) in [
        (json!({ "placementStrategy": [{ "type": "binpack", "field": "disk" }] }), "cpu or memory"),
        (json!({ "launchType": "FARGATE", "placementStrategy": [{ "type": "random" }] }), "you choose no host"),
        (json!({ "overrides": { "cpu": 1 } }), "1024 are one vCPU"),
        (json!({ "overrides": { "memory": 32 } }), "a container may use 64 MiB, the task 32"),
        (json!({ "count": 11 }), "count is 1 to 10"),
        (json!({ "clientToken": "" }), "clientToken is 1 to 64"),
        (json!({ "clientToken": "t".repeat(65) }), "clientToken is 1 to 64"),
        (json!({ "startedBy": "s".repeat(129) }), "startedBy is at most 128"),
        (json!({ "startedBy": "line\nline" }), "startedBy is at most 128"),
        (json!({ "placementStrategy": vec![json!({ "type": "random" }); 6] }), "five placement strategies"),
    ] {
        let refused = story.run("t", request).unwrap_err();
        assert!(matches!(&refused, CommandError::Refused(why) if why.contains(words)), "{refused:?}");
    }
    assert_eq!(story.standalone().len(), 0);
    for (number, request) in [
        json!({ "clientToken": "t".repeat(64), "startedBy": "ü".repeat(128) }),
        json!({ "clientToken": "2", "placementStrategy": vec![json!({ "type": "random" }); 5] }),
        json!({ "clientToken": "3", "placementStrategy": [{ "type": "binpack", "field": "memory" }] }),
        json!({ "clientToken": "4", "placementStrategy": [{ "type": "spread", "field": "attribute:disk" }] }),
    ]
    .into_iter()
    .enumerate()
    {
        story.run("t", request).unwrap();
        assert_eq!(story.standalone().len(), number + 1);
    }
}
