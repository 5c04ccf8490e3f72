//! What runs since before the database goes on: as which task, of which revision, with which ports.

use std::sync::Arc;

use roadstead_core::model::{
    container::{ContainerState, ContainerView, PortBinding},
    name::TaskId,
    spec::task_definition::Protocol,
    state::{Change, Revision},
    task::{LastStatus, Task},
};
use serde_json::{Value, json};

use super::{
    looks::{Three, events},
    story::Story,
};

fn pair() -> Value {
    json!([
        { "name": "main", "image": "demo:1", "memory": 64 },
        { "name": "other", "image": "demo:1", "memory": 64 },
        { "name": "side", "image": "demo:1", "memory": 64, "essential": false },
    ])
}

/// The database forgot the task, and all that `forget` says.
fn found(forget: impl FnOnce(&mut Three)) -> Three {
    let mut story = Three::of(pair());
    story.state.tasks.clear();
    forget(&mut story);
    story.taken_in(false);
    story
}

fn ended(story: &Three) -> Option<&str> {
    story.task().stopped_reason.as_deref()
}

#[test]
fn a_task_is_found_running_pending_or_over() {
    let whole = found(|_| {});
    assert_eq!((whole.task().last_status, ended(&whole)), (LastStatus::Running, None));
    let starting = found(|story| _ = story.view("other", |view| view.state = ContainerState::Created));
    assert_eq!((starting.task().last_status, ended(&starting)), (LastStatus::Pending, None));
    let exited = |view: &mut ContainerView| (view.state, view.exit_code) = (ContainerState::Exited, Some(0));
    let over = found(|story| _ = story.view("main", exited).view("other", exited));
    assert_eq!(ended(&over), Some("it had ended before the database knew of it"), "what it can be without lives");
    let only_side = found(|story| _ = story.gone("main").gone("other"));
    assert_eq!(ended(&only_side), Some("it had ended before the database knew of it"));
}

#[test]
fn what_it_should_have_is_told_by_a_manifest_or_a_revision_of_the_same_content() {
    let part = found(|story| _ = story.gone("other"));
    assert_eq!(ended(&part), Some("it was found without its essential container other"));
    let undeclared = |story: &mut Three| Arc::make_mut(&mut story.state.desired).task_definitions.clear();
    let known = found(|story| {
        undeclared(story);
        story.gone("other");
    });
    assert_eq!(ended(&known), Some("it was found without its essential container other"), "the revision tells");
    let of_other_content = found(|story| {
        undeclared(story);
        change_revision(story, |revision| revision.hash = "other".into());
        story.gone("other");
    });
    assert_eq!(ended(&of_other_content), None, "nobody knows any more");
}

fn change_revision(story: &mut Three, change: impl FnOnce(&mut Revision)) {
    let mut revision = story.state.latest_revision(&"web".into()).unwrap().clone();
    change(&mut revision);
    story.state.apply(&Change::Revision(revision));
}

fn numbers(story: &Three) -> (u32, Vec<u32>) {
    (story.task().revision.number, story.state.revisions["web"].keys().copied().collect())
}

#[test]
fn its_revision_is_told_by_its_content_and_no_number_is_given_twice() {
    assert_eq!(numbers(&found(|_| {})), (1, vec![1]));
    let renumbered = found(|story| {
        change_revision(story, |revision| revision.id.number = 5);
        change_revision(story, |revision| (revision.id.number, revision.hash) = (1, "other".into()));
    });
    assert_eq!(numbers(&renumbered), (5, vec![1, 5]), "the same content under another number");
    let taken = found(|story| {
        change_revision(story, |revision| revision.hash = "other".into());
    });
    assert_eq!(numbers(&taken), (2, vec![1, 2]), "its number is another one's");
    assert_eq!(taken.state.revisions["web"][&1].hash, "other");
    let unknown = found(|story| story.state.revisions = Default::default());
    assert_eq!(numbers(&unknown), (1, vec![1]));
}

/// Two tasks that one look shows, each of these contents and families, with no revision known.
fn two(contents: [(&str, &str); 2]) -> Vec<String> {
    let mut story = Three::of(pair());
    story.state.tasks.clear();
    story.state.revisions = Default::default();
    let first: Vec<ContainerView> = story.look.containers.values().cloned().collect();
    for (number, (family, hash)) in contents.into_iter().enumerate() {
        for view in &first {
            let mut view = view.clone();
            if let roadstead_core::model::ownership::Owner::Ours(claim) = &mut view.owner {
                claim.task = TaskId::from(format!("task-{number}"));
                claim.revision_hash = hash.into();
                claim.revision.family = family.into();
            }
            view.id = format!("{}-{number}", view.id).into();
            story.look.containers.insert(view.id.clone(), view);
        }
    }
    first.iter().for_each(|view| drop(story.look.containers.remove(&view.id)));
    story.taken_in(false);
    story.state.tasks.values().map(|task| task.revision.to_string()).collect()
}

#[test]
fn tasks_that_one_look_shows_share_a_revision_when_they_are_of_one_content() {
    assert_eq!(two([("web", "x"), ("web", "x")]), ["web:1", "web:1"]);
    assert_eq!(two([("web", "x"), ("web", "y")]), ["web:1", "web:2"]);
    assert_eq!(two([("web", "x"), ("api", "x")]), ["web:1", "api:1"]);
}

/// With an old database a row may hold a port that a container which it does not know has by now: a port has one holder.
#[test]
fn a_port_that_another_row_holds_on_this_host_is_not_taken_over() {
    for (host, status, taken_over) in [
        ("a", LastStatus::Running, false),
        ("a", LastStatus::Stopping, false),
        ("a", LastStatus::Stopped, true),
        ("b", LastStatus::Running, true),
    ] {
        let port = PortBinding { container_port: 80, host_port: 8080, protocol: Protocol::Tcp };
        let mut story = Three::of(pair());
        let mut holder = Task { id: "holder".into(), host: host.into(), ..story.task().clone() };
        holder.last_status = status;
        for row in holder.containers.values_mut() {
            row.runtime_id = None;
        }
        holder.containers.get_mut("main").unwrap().ports = vec![port.clone()];
        story.state.tasks.clear();
        story.state.tasks.insert(holder.id.clone(), Arc::new(holder));
        story.view("main", |view| view.ports = vec![port.clone()]);
        story.view("other", |view| (view.state, view.ports) = (ContainerState::Exited, vec![port.clone()]));
        story.taken_in(false);
        let ports = &story.container("main").ports;
        assert_eq!(ports.contains(&port), taken_over, "{host} {status:?}");
        assert!(story.container("other").ports.is_empty(), "only what lives holds one");
    }
}

#[test]
fn the_ports_of_what_had_ended_are_known_when_it_runs_again() {
    let port = PortBinding { container_port: 80, host_port: 8080, protocol: Protocol::Tcp };
    let mut story = found(|story| {
        story.view("side", |view| (view.state, view.exit_code) = (ContainerState::Exited, Some(0)));
    });
    story.view("side", |view| (view.state, view.ports) = (ContainerState::Running, vec![port.clone()]));
    story.taken_in(false);
    assert_eq!(story.container("side").ports, [port]);
}

/// The plan of a fleet of which nothing is known is told as if all went well.
#[test]
fn a_forecast_lets_end_what_must_end_and_run_what_must_run() {
    let mut story = Story::begin(
        super::story::web(2),
        json!({ "containerDefinitions": [
        { "name": "init", "image": "demo:1", "memory": 64, "essential": false },
        { "name": "main", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "init", "condition": "SUCCESS" }] },
        { "name": "side", "image": "demo:1", "memory": 64, "dependsOn": [{ "containerName": "main", "condition": "START" }] },
    ] }),
    );
    story.time_passes(1_000, &[]);
    ["a", "b", "c"].iter().for_each(|host| drop(story.look(host, story.now)));
    let plan = roadstead_core::plan::forecast::forecast(&story.core.world_at(story.now));
    assert_eq!(plan.report.waiting, []);
    let words: Vec<&str> = plan.report.doing.iter().map(|doing| doing.action.as_str()).collect();
    assert_eq!(words.iter().filter(|word| **word == "place").count(), 2, "{words:?}");
    assert!(words.contains(&"start"), "{words:?}");
    let told: Vec<String> = events(&plan.changes).into_iter().map(|event| event.reason).collect();
    assert!(told.contains(&"DeploymentEnded".to_owned()), "it comes to its end: {told:?}");
}
