//! Requests and answers, over the router and over real sockets.

use std::{collections::BTreeMap, io, os::unix::fs::PermissionsExt};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{NOW, fleet::Fleet};
use crate::api::{ListenTarget, Token, bind, router};
use roadstead_core::plan::absorb::RolloutVerb;
use roadstead_core::turn::{Command, CommandError};

async fn ask(fleet: &Fleet, token: Option<&str>, request: Request<Body>) -> (StatusCode, Value) {
    let token = token.map(|token| Token::new(token).unwrap());
    let answer = router(fleet.handle.clone(), token, CancellationToken::new()).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn get(fleet: &Fleet, path: &str) -> (StatusCode, Value) {
    ask(fleet, None, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(fleet: &Fleet, path: &str, body: &Value) -> (StatusCode, Value) {
    let request =
        Request::post(path).header("content-type", "application/json").body(Body::from(body.to_string())).unwrap();
    ask(fleet, None, request).await
}

fn texts<'a>(answer: &'a Value, field: &str) -> Vec<&'a str> {
    answer["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_list_and_every_single_thing_answers() {
    let fleet = Fleet::new(NOW, BTreeMap::new()).await;
    for (path, field, names) in [
        ("/v1/clusters", "name", vec!["default"]),
        ("/v1/hosts", "name", vec!["box-a", "box-b", "box-c"]),
        ("/v1/services", "name", vec!["agent", "web"]),
        ("/v1/services?cluster=other", "name", vec![]),
        ("/v1/tasks?service=web", "taskId", vec!["aaaa000000000001", "aaaa000000000002"]),
        (
            "/v1/tasks?host=box-a&stopped=true",
            "taskId",
            vec!["cccc000000000004", "aaaa000000000001", "bbbb000000000003"],
        ),
        ("/v1/taskdefinitions", "taskDefinition", vec!["agent:1", "web:1"]),
        ("/v1/deployments?service=web", "id", vec!["7"]),
        ("/v1/events", "reason", vec!["ManifestsTaken", "TaskRunning", "TaskFailed"]),
        ("/v1/events?limit=1", "reason", vec!["TaskFailed"]),
        ("/v1/events?kind=service&name=web", "reason", vec!["TaskRunning", "TaskFailed"]),
        ("/v1/events?after=2", "reason", vec!["TaskFailed"]),
    ] {
        let (status, answer) = get(&fleet, path).await;
        assert_eq!((status, texts(&answer, field)), (StatusCode::OK, names), "{path}");
    }
    for (path, field, value) in [
        ("/v1/clusters/default", "name", "default"),
        ("/v1/hosts/box-b", "status", "CORDONED"),
        ("/v1/services/web", "name", "web"),
        ("/v1/tasks/bbbb", "lastStatus", "STOPPED"),
        ("/v1/taskdefinitions/web:1", "family", "web"),
        ("/v1/deployments/7", "service", "web"),
        ("/v1/deployments/web", "id", "7"),
        ("/v1/why/service/web", "kind", "service"),
        ("/v1/why/task/bbbb", "name", "bbbb000000000003"),
    ] {
        let (status, answer) = get(&fleet, path).await;
        assert_eq!((status, answer[field].as_str()), (StatusCode::OK, Some(value)), "{path}");
    }
    let (_, why) = get(&fleet, "/v1/why/task/bbbb").await;
    assert_eq!(why["events"].as_array().unwrap().len(), 1, "only those that speak of it");
}

#[tokio::test]
async fn refusals_say_what_and_what_next() {
    let fleet = Fleet::new(NOW, BTreeMap::new()).await;
    for (path, status, code) in [
        ("/v1/nope", StatusCode::NOT_FOUND, "notFound"),
        ("/v1/hosts/nope", StatusCode::NOT_FOUND, "notFound"),
        ("/v1/services/nope", StatusCode::NOT_FOUND, "notFound"),
        ("/v1/tasks/aaaa", StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/tasks?stopped=maybe", StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/events?name=web", StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/events?kind=cow", StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/why/cow/web", StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/hosts/%ff", StatusCode::BAD_REQUEST, "badRequest"),
        ("/v1/logs/service/nope", StatusCode::NOT_FOUND, "notFound"),
        ("/v1/logs/service/web?container=nope", StatusCode::NOT_FOUND, "notFound"),
    ] {
        let (got, answer) = get(&fleet, path).await;
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{path}: {answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    let (status, answer) = get(&fleet, "/v1/plan").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (StatusCode::METHOD_NOT_ALLOWED, Some("badRequest")));
    let (status, _) = post(&fleet, "/v1/exec/task/aaaa000000000001", &json!({ "argv": ["sh"] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "no upgrade was asked for");
    let (status, _) = post(&fleet, "/v1/commands", &json!({ "order": "selfDestruct" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let huge = json!({ "files": { "a.yaml": "x".repeat(9 << 20) } });
    let (status, _) = post(&fleet, "/v1/plan", &huge).await;
    assert!(status.is_client_error(), "{status}");
}

#[tokio::test]
async fn orders_reach_the_controller_and_its_words_come_back() {
    let mut fleet = Fleet::new(NOW, BTreeMap::new()).await;
    let (commands, mut orders) = tokio::sync::mpsc::channel(4);
    fleet.handle.commands = commands;
    let controller = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some((command, answer)) = orders.recv().await {
            let refused = matches!(command, Command::Confirm { .. });
            seen.push(command);
            let _ = answer.send(if refused {
                Err(CommandError::Refused("nothing is held".to_owned()))
            } else {
                Ok("done".to_owned())
            });
        }
        seen
    });
    let (status, answer) =
        post(&fleet, "/v1/commands", &json!({ "order": "stopTask", "task": "bbbb", "reason": "old" })).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({ "message": "done" })));
    let (status, answer) = post(&fleet, "/v1/commands", &json!({ "order": "confirm", "token": "x" })).await;
    assert_eq!((status, answer["error"]["message"].as_str()), (StatusCode::CONFLICT, Some("nothing is held")));
    for unknown in ["stopTask", "protectTask"] {
        let (status, _) = post(&fleet, "/v1/commands", &json!({ "order": unknown, "task": "ffff" })).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    for order in [
        json!({ "order": "rollout", "service": "web", "verb": "undo", "to": "web:3" }),
        json!({ "order": "rollout", "service": "web", "verb": "pause" }),
        json!({ "order": "protectTask", "task": "bbbb", "minutes": 5 }),
    ] {
        assert_eq!(post(&fleet, "/v1/commands", &order).await.0, StatusCode::OK, "{order}");
    }
    let (status, _) =
        post(&fleet, "/v1/commands", &json!({ "order": "rollout", "service": "web", "verb": "go" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    drop(fleet);
    let stop = Command::StopTask { task: "bbbb000000000003".into(), reason: Some("old".to_owned()) };
    let rollout = |verb| Command::Rollout { service: "web".into(), verb };
    assert_eq!(
        controller.await.unwrap(),
        [
            stop,
            Command::Confirm { token: "x".to_owned() },
            rollout(RolloutVerb::Undo { to: Some("web:3".parse().unwrap()) }),
            rollout(RolloutVerb::Pause),
            Command::ProtectTask { task: "bbbb000000000003".into(), minutes: Some(5) },
        ]
    );
}

#[tokio::test]
async fn a_plan_changes_nothing_and_bad_manifests_are_drawn() {
    let fleet = Fleet::new(NOW, BTreeMap::new()).await;
    let (status, answer) = post(&fleet, "/v1/plan", &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(
        answer["actions"].is_array() && answer["waiting"].is_array() && answer["summary"]["changes"].is_boolean(),
        "{answer}"
    );
    let bad = json!({ "files": { "bad.yaml": "apiVersion: roadstead/v1\nkind: Service\nmetadata: { name: x }\nspec: { desiredCuont: 1 }\n" } });
    let (status, answer) = post(&fleet, "/v1/plan", &bad).await;
    assert_eq!(
        (status, answer["error"]["code"].as_str()),
        (StatusCode::UNPROCESSABLE_ENTITY, Some("invalid")),
        "{answer}"
    );
    assert_eq!(answer["error"]["diagnostics"][0]["file"], "bad.yaml");
}

#[tokio::test]
async fn with_a_token_nothing_is_told_without_it() {
    let fleet = Fleet::new(NOW, BTreeMap::new()).await;
    let secret = "0123456789abcdef";
    let request = |header: Option<&str>| {
        let request = Request::get("/v1/hosts");
        let request = header.into_iter().fold(request, |request, value| request.header("authorization", value));
        request.body(Body::empty()).unwrap()
    };
    for (header, status) in [
        (None, StatusCode::UNAUTHORIZED),
        (Some("Bearer 0123456789abcdeX"), StatusCode::UNAUTHORIZED),
        (Some("0123456789abcdef"), StatusCode::UNAUTHORIZED),
        (Some("Bearer 0123456789abcdef"), StatusCode::OK),
    ] {
        assert_eq!(ask(&fleet, Some(secret), request(header)).await.0, status, "{header:?}");
    }
    assert!(Token::new("short").is_err() && Token::new("0123456789 abcdef").is_err());
    assert_eq!(
        bind(ListenTarget::Tcp("127.0.0.1:0".parse().unwrap()), None).await.err().unwrap().kind(),
        io::ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn the_socket_is_ours_alone_and_goes_with_us() {
    let fleet = Fleet::new(NOW, BTreeMap::new()).await;
    let path = fleet.folder.path().join("run/roadstead.sock");
    let target = ListenTarget::Unix(path.clone());
    let (stop, bound) = (CancellationToken::new(), bind(target.clone(), None).await.unwrap());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o755));
    assert_eq!(bind(target.clone(), None).await.err().unwrap().kind(), io::ErrorKind::AddrInUse);

    let server = tokio::spawn(bound.serve(fleet.handle.clone(), stop.clone()));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stop.cancel();
    server.await.unwrap();
    assert!(!path.exists());

    // What a killed controller leaves behind is replaced; what is no socket is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(bind(target.clone(), None).await.unwrap());
    std::fs::write(&path, "a file").unwrap();
    assert_eq!(bind(target, None).await.err().unwrap().kind(), io::ErrorKind::AlreadyExists);
}
