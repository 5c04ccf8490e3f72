//! Answers that come bit by bit: watch, logs, exec.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, BufReader, duplex, split},
    time::timeout,
};
use tokio_util::{
    codec::{FramedRead, FramedWrite},
    io::StreamReader,
    sync::CancellationToken,
};
use tower::ServiceExt;

use super::{NOW, engine::Script, fleet::Fleet};
use crate::api::{
    frame::{Frame, FrameCodec, PROTOCOL},
    router,
    routes::{ExecRequest, LogRecord, LogSource},
};
use roadstead_control::{control::handle::Snapshot, engine::Engine};
use roadstead_core::model::name::HostName;

/// Against a test that hangs; nothing is timed.
const PATIENCE: Duration = Duration::from_secs(20);

fn engines(scripts: &[(&str, &Arc<Script>)]) -> BTreeMap<HostName, Arc<dyn Engine>> {
    scripts.iter().map(|(host, script)| ((*host).into(), Arc::clone(*script) as Arc<dyn Engine>)).collect()
}

async fn get(fleet: &Fleet, stop: &CancellationToken, path: &str) -> Response<Body> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    router(fleet.handle.clone(), None, stop.clone()).oneshot(request).await.unwrap()
}

fn lines(answer: Response<Body>) -> tokio::io::Lines<impl AsyncBufReadExt + Unpin> {
    let body = answer.into_body().into_data_stream().map(|bytes| bytes.map_err(std::io::Error::other));
    BufReader::new(StreamReader::new(body)).lines()
}

#[tokio::test]
async fn a_watch_speaks_at_the_start_and_at_each_change_and_ends_with_the_controller() {
    let fleet = Fleet::new(NOW, BTreeMap::new()).await;
    let stop = CancellationToken::new();
    let mut lines = lines(get(&fleet, &stop, "/v1/watch").await);
    let mut next = async || loop {
        match timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
            Some(line) if line.is_empty() => {}
            line => return line,
        }
    };
    assert_eq!(next().await.as_deref(), Some("data: 1"));
    fleet.snapshots.send(Arc::new(Snapshot::default())).unwrap();
    assert_eq!(next().await.as_deref(), Some("data: 2"));
    stop.cancel();
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn logs_of_all_tasks_come_in_the_order_of_time() {
    let web = Arc::new(Script { lines: vec![(1, "one"), (5, "five")], ..Script::default() });
    let fleet = Fleet::new(NOW, engines(&[("box-a", &web)])).await;
    // A second task of the service, with other lines, and a third on a host that nobody is connected to.
    let other = Arc::new(Script { lines: vec![(2, "two"), (9, "nine")], ..Script::default() });
    let mut snapshot = Snapshot::clone(&fleet.handle.snapshot());
    for (id, host) in [("aaaa000000000002", "box-b"), ("aaaa000000000005", "box-c")] {
        let mut task = snapshot.world.state.tasks["aaaa000000000001"].as_ref().clone();
        (task.id, task.host) = (id.into(), host.into());
        task.containers
            .values_mut()
            .for_each(|container| container.runtime_id = Some(format!("run-{id}").as_str().into()));
        snapshot.world.state.tasks.insert(task.id.clone(), Arc::new(task));
    }
    fleet.snapshots.send(Arc::new(snapshot)).unwrap();
    let mut fleet = fleet;
    fleet.handle.engines =
        tokio::sync::watch::Sender::new(Arc::new(engines(&[("box-a", &web), ("box-b", &other)]))).subscribe();

    let records = async |path: &str| -> Vec<LogRecord> {
        let body = get(&fleet, &CancellationToken::new(), path).await.into_body().collect();
        let body = timeout(PATIENCE, body).await.unwrap().unwrap().to_bytes();
        body.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    };
    let all = records("/v1/logs/service/web").await;
    let printed: Vec<&str> =
        all.iter().filter(|record| record.stream == LogSource::Stdout).map(|record| record.line.as_str()).collect();
    assert_eq!(printed, ["one", "two", "five", "nine"]);
    let notices: Vec<&str> =
        all.iter().filter(|record| record.stream == LogSource::Notice).map(|record| record.host.as_str()).collect();
    assert_eq!(notices, ["box-c"]);
    let tail = records("/v1/logs/task/aaaa000000000001?tail=1").await;
    assert_eq!(tail.iter().map(|record| record.line.as_str()).collect::<Vec<_>>(), ["five"]);
}

#[tokio::test]
async fn followed_logs_take_in_tasks_that_start_later() {
    let script = Arc::new(Script { lines: vec![(1, "hello")], ..Script::default() });
    let fleet = Fleet::new(NOW, engines(&[("box-a", &script), ("box-b", &script)])).await;
    let stop = CancellationToken::new();
    let mut lines = lines(get(&fleet, &stop, "/v1/logs/service/web?follow=true").await);
    let mut next = async || -> LogRecord {
        serde_json::from_str(&timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap()).unwrap()
    };
    assert_eq!(next().await.task, "aaaa000000000001");
    let mut snapshot = Snapshot::clone(&fleet.handle.snapshot());
    let mut task = snapshot.world.state.tasks["aaaa000000000002"].as_ref().clone();
    task.containers.values_mut().for_each(|container| container.runtime_id = Some("new".into()));
    snapshot.world.state.tasks.insert(task.id.clone(), Arc::new(task));
    fleet.snapshots.send(Arc::new(snapshot)).unwrap();
    let record = next().await;
    assert_eq!((record.task.as_str(), record.line.as_str()), ("aaaa000000000002", "hello"));
}

#[tokio::test]
async fn a_command_gets_its_input_and_gives_output_and_exit_code() {
    let script = Arc::new(Script::default());
    let fleet = Fleet::new(NOW, engines(&[("box-a", &script)])).await;
    let (client, server) = duplex(1 << 10);
    let service =
        hyper_util::service::TowerToHyperService::new(router(fleet.handle.clone(), None, CancellationToken::new()));
    let _server = tokio::spawn(
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service).with_upgrades(),
    );
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    let _client = tokio::spawn(connection.with_upgrades());
    let wanted = ExecRequest {
        argv: vec!["cat".to_owned(), "-".to_owned()],
        tty: true,
        stdin: true,
        size: Some((24, 80)),
        ..ExecRequest::default()
    };
    let request = Request::post("/v1/exec/service/web")
        .header("host", "x")
        .header("content-type", "application/json")
        .header("connection", "upgrade")
        .header("upgrade", PROTOCOL)
        .body(Full::new(Bytes::from(serde_json::to_vec(&wanted).unwrap())))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let (reader, writer) = split(TokioIo::new(hyper::upgrade::on(answer).await.unwrap()));
    let (mut frames, mut input) = (FramedRead::new(reader, FrameCodec), FramedWrite::new(writer, FrameCodec));
    // More than every buffer on the way: input and output must flow at once.
    let sent = Bytes::from(vec![b'x'; 300_000]);
    let writing = tokio::spawn({
        let sent = sent.clone();
        async move {
            input.send(Frame::Resize { rows: 30, columns: 100 }).await.unwrap();
            input.send(Frame::Stdin(sent)).await.unwrap();
            input.send(Frame::Stdin(Bytes::new())).await.unwrap();
            input
        }
    });
    let mut output = Vec::new();
    let code = loop {
        match timeout(PATIENCE, frames.next()).await.unwrap().unwrap().unwrap() {
            Frame::Stdout(bytes) => output.extend_from_slice(&bytes),
            Frame::Exit(code) => break code,
            other => panic!("{other:?}"),
        }
    };
    drop(writing.await.unwrap());
    assert_eq!(code, 7);
    assert_eq!(output, [b"cat -\n".as_slice(), &sent].concat());
    assert_eq!(*script.resized.lock().unwrap(), [(24, 80), (30, 100)]);
}
