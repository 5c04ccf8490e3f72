//! `rollout` and `protect`.

use serde_json::Value;

use super::{
    control::handle::Snapshot,
    model::{
        diagnostic::{Diagnostic, Place, Severity},
        state::{Deployment, DeploymentStatus, HeldSync, Outcome, RolloutState},
        time::Timestamp,
    },
    online::Controller,
};

/// What the manifests say is in force.
async fn with_good_manifests() -> Controller {
    let controller = Controller::start().await;
    controller.change(|snapshot| {
        snapshot.world.state.fleet.held = None;
        snapshot.diagnostics.clear();
    });
    controller
}

/// Deployment 8 takes web back from deployment 7.
fn taken_back(snapshot: &mut Snapshot) {
    let record = snapshot.world.state.services.get_mut("web").unwrap();
    let failed = &mut record.deployments[0];
    let revision = failed.revision.clone();
    failed.status = DeploymentStatus::Active;
    failed.rollout_state = RolloutState::Failed;
    failed.rollout_state_reason = "3 of 3 failures".to_owned();
    failed.revision.number = 2;
    let rollback = Deployment {
        id: 8,
        revision,
        status: DeploymentStatus::Primary,
        rollout_state: RolloutState::InProgress,
        rollout_state_reason: "web:1 is being deployed: web:2 failed: 3 of 3 failures".to_owned(),
        rollback_of: Some(7),
        failed_tasks: 0,
        ..failed.clone()
    };
    record.deployments.insert(0, rollback);
}

fn end(snapshot: &mut Snapshot, outcome: Outcome) {
    let record = snapshot.world.state.services.get_mut("web").unwrap();
    let asked = record.deployments.iter_mut().find(|deployment| deployment.id == 7).unwrap();
    asked.outcome = Some(outcome);
    asked.rollout_state_reason = "so it ended".to_owned();
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_how_it_goes_and_its_exit_status_how_it_ended() {
    let controller = with_good_manifests().await;
    let going = "web: deployment 7 of web:1 is IN_PROGRESS: 1 of 3 tasks run, 1 are on their way; 1 of 3 failures\n";
    let said = controller.run("rollout status web").await;
    assert_eq!(said, (going.to_owned(), String::new(), 0));
    assert_eq!(controller.run("rollout status svc/web").await.0, going);
    controller.change(taken_back);
    let (out, _, status) = controller.run("rollout status web").await;
    let back =
        "web: deployment 7 of web:2 FAILED: 3 of 3 failures; back to web:1: 1 of 3 tasks run, 1 are on their way\n";
    assert_eq!((out.as_str(), status), (back, 0), "it has not ended");
    for (outcome, word, status) in [
        (Outcome::Succeeded, "SUCCEEDED", 0),
        (Outcome::Failed, "FAILED", 1),
        (Outcome::RolledBack, "ROLLED_BACK", 1),
        (Outcome::Superseded, "SUPERSEDED", 1),
    ] {
        controller.change(|snapshot| end(snapshot, outcome));
        let (out, _, ended) = controller.run("rollout status web --wait").await;
        assert_eq!((out.as_str(), ended), (&*format!("web: deployment 7 of web:2 {word}: so it ended\n"), status));
        let (out, _, ended) = controller.run("rollout status web -o json").await;
        let json: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((json["outcome"].as_str(), json["id"].as_str(), ended), (Some(word), Some("7"), status));
    }
    let (out, _, status) = controller.run("rollout history web -o json").await;
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["items"][0]["rollbackOf"].as_str(), status), (Some("7"), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_status_ends_with_the_rollout_it_began_with() {
    let controller = std::sync::Arc::new(with_good_manifests().await);
    let waiting = tokio::spawn({
        let controller = std::sync::Arc::clone(&controller);
        async move { controller.run("rollout status web --wait").await }
    });
    // It may have looked before or after this: either way it waits for the same deployment.
    controller.change(taken_back);
    controller.change(|snapshot| end(snapshot, Outcome::RolledBack));
    let (out, _, status) = waiting.await.unwrap();
    assert_eq!((out.as_str(), status), ("web: deployment 7 of web:2 ROLLED_BACK: so it ended\n", 1));
    let (_, error, status) = controller.run("rollout status agent --wait").await;
    assert_eq!((error.as_str(), status), ("", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_has_an_end() {
    let controller = with_good_manifests().await;
    let (out, error, status) = controller.run("rollout status web --wait --timeout 0").await;
    assert_eq!((out.as_str(), status), ("", 1));
    assert!(
        error.contains("the rollout of web did not end within 0 s") && error.contains("roadstead why web"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_says_reaches_the_controller() {
    let controller = Controller::start().await;
    for (arguments, order) in [
        ("rollout pause svc/web", "Rollout { service: ServiceName(\"web\"), verb: Pause }"),
        ("rollout continue web", "Rollout { service: ServiceName(\"web\"), verb: Continue }"),
        ("rollout abort web", "Rollout { service: ServiceName(\"web\"), verb: Abort }"),
        ("rollout restart web", "Rollout { service: ServiceName(\"web\"), verb: Restart }"),
        ("rollout undo web", "Rollout { service: ServiceName(\"web\"), verb: Undo { to: None } }"),
        ("protect task/bbbb", "ProtectTask { task: TaskId(\"bbbb000000000003\"), minutes: Some(120) }"),
        ("protect bbbb --minutes 2880", "ProtectTask { task: TaskId(\"bbbb000000000003\"), minutes: Some(2880) }"),
        ("protect bbbb --off", "ProtectTask { task: TaskId(\"bbbb000000000003\"), minutes: None }"),
    ] {
        assert_eq!(controller.run(arguments).await, (format!("{order}\n"), String::new(), 0), "{arguments}");
    }
    let (out, _, status) = controller.run("rollout undo web --to web:3").await;
    assert!(out.contains("Undo { to: Some(") && status == 0, "{out}");
    for (arguments, status, words) in [
        ("rollout undo web --to 3", 2, "--to"),
        ("protect bbbb --minutes 2881", 2, "2880"),
        ("protect ffff", 1, "ffff"),
        ("rollout status nope", 1, "there is no service"),
        ("rollout history nope", 1, "there is no service"),
    ] {
        let (_, error, ended) = controller.run(arguments).await;
        assert_eq!(ended, status, "{arguments}: {error}");
        assert!(error.contains(words), "{arguments}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_status_is_about_the_manifests_as_they_are_now() {
    let controller = Controller::start().await;
    controller.change(|snapshot| end(snapshot, Outcome::Succeeded));
    controller.change(|snapshot| {
        let held = HeldSync { token: "c0ffee".into(), reason: "it stops 9 of 9 tasks".into(), since: Timestamp(1) };
        snapshot.world.state.fleet.held = Some(held);
    });
    let (out, error, status) = controller.run("rollout status web --wait").await;
    assert_eq!((out.as_str(), status), ("", 1));
    assert!(error.contains("it stops 9 of 9 tasks") && error.contains("roadstead confirm c0ffee"), "{error}");
    assert_eq!(controller.run("rollout status web").await.2, 0, "without --wait it is about what is in force");
    controller.change(|snapshot| {
        snapshot.world.state.fleet.held = None;
        let severity = Severity::Error;
        let message = "not a mapping".to_owned();
        let (place, code) = (Place::default(), "not-a-manifest".into());
        snapshot.diagnostics = vec![Diagnostic { place, severity, code, message, also: Vec::new(), help: None }];
    });
    let (out, error, status) = controller.run("rollout status web --wait").await;
    assert!(out.contains("SUCCEEDED") && error.contains("the manifests have 1 error"), "{out}{error}");
    assert_eq!(status, 0);
}
