//! What `DockerEngine` makes of bad, late, endless and missing answers, over a socket of the test's own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use roadstead_control::engine::{DockerEngine, Engine, EngineError, Limits, LogOptions};
use roadstead_control::host::LocalTransport;
use roadstead_core::model::container::{ContainerConfig, ContainerState};
use roadstead_core::model::ownership::{Claim, FleetKey, Owner};
use roadstead_core::model::spec::service::LaunchType;
use roadstead_core::model::spec::task_definition::NetworkMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// What the false engine does with a request.
enum Reply {
    /// Sends these bytes and waits for the next request.
    Bytes(Vec<u8>),
    /// Sends these bytes and closes the connection.
    Last(Vec<u8>),
    /// Sends these bytes over and over.
    Endless(Vec<u8>),
    /// Sends these bytes, then nothing more.
    Silence(Vec<u8>),
}

type Script = dyn Fn(&str) -> Option<Reply> + Send + Sync;

/// A socket that behaves as told and remembers the requests (`GET /v1.41/info`).
struct FalseEngine {
    _folder: tempfile::TempDir,
    socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for FalseEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FalseEngine {
    /// Answers as `script` says; where it says nothing, a decent API 1.41 without containers.
    fn new(script: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(accept(listener, Arc::new(script), Arc::clone(&requests)));
        Self { _folder: folder, socket, requests, task }
    }

    fn engine(&self) -> DockerEngine {
        engine_at(self.socket.clone())
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").clone()
    }

    fn count(&self, what: &str) -> usize {
        self.requests().iter().filter(|request| request.contains(what)).count()
    }
}

fn engine_at(socket: PathBuf) -> DockerEngine {
    let soon = Duration::from_millis(400);
    let limits = Limits {
        read: soon,
        list: soon * 4,
        inspect: soon / 2,
        inspects: soon,
        create: soon,
        start: soon,
        stop_margin: soon,
        remove: soon,
        registry: soon,
        pull_progress: soon,
        answer_bytes: 256 * 1024,
        item_bytes: 64 * 1024,
        containers: 3,
        volumes: 100,
        images: 100,
    };
    DockerEngine::new(Arc::new(LocalTransport::new()), socket, limits)
}

async fn accept(listener: UnixListener, script: Arc<Script>, requests: Arc<Mutex<Vec<String>>>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&requests)));
    }
}

async fn serve(mut stream: UnixStream, script: Arc<Script>, requests: Arc<Mutex<Vec<String>>>) -> Option<()> {
    loop {
        let request = read_request(&mut stream).await?;
        requests.lock().expect("no panic").push(request.clone());
        match script(&request).unwrap_or_else(|| decent(&request)) {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await.ok()?,
            Reply::Last(bytes) => return stream.write_all(&bytes).await.ok(),
            Reply::Endless(bytes) => loop {
                stream.write_all(&bytes).await.ok()?;
            },
            Reply::Silence(bytes) => {
                stream.write_all(&bytes).await.ok()?;
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn read_request(stream: &mut UnixStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a request is text");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    stream.read_exact(&mut body).await.ok()?;
    let line = head.lines().next().expect("a first line");
    Some(line.trim_end_matches(" HTTP/1.1").to_owned())
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn version(newest: &str, oldest: &str) -> Vec<u8> {
    answer(200, &format!(r#"{{"Version":"20.10.24","ApiVersion":"{newest}","MinAPIVersion":"{oldest}"}}"#))
}

fn decent(request: &str) -> Reply {
    Reply::Bytes(match request {
        "GET /version" => version("1.41", "1.12"),
        "GET /_ping" => answer(200, "OK"),
        list if list.starts_with("GET /v1.41/containers/json") => answer(200, "[]"),
        _ => answer(404, r#"{"message":"no such thing"}"#),
    })
}

/// A script that only concerns requests which contain `what`.
fn on(what: &'static str, reply: impl Fn() -> Reply + Send + Sync + 'static) -> FalseEngine {
    FalseEngine::new(move |request| request.contains(what).then(&reply))
}

fn foreign(_: &BTreeMap<String, String>) -> Owner {
    Owner::Foreign
}

fn config() -> ContainerConfig {
    ContainerConfig {
        name: "web".into(),
        image: "demo:1".into(),
        entry_point: Vec::new(),
        command: Vec::new(),
        environment: BTreeMap::new(),
        labels: BTreeMap::new(),
        ports: Vec::new(),
        network_mode: NetworkMode::Bridge,
        cpu_shares: 0,
        nano_cpus: None,
        memory_bytes: None,
        memory_reservation_bytes: None,
        user: None,
        working_directory: None,
        readonly_root_filesystem: false,
        privileged: false,
        restart: false,
        health_check: None,
        stop_timeout_s: 1,
        ..ContainerConfig::default()
    }
}

fn id() -> String {
    "0a".repeat(32)
}

#[tokio::test]
async fn an_unusable_answer_to_a_question_teaches_nothing() {
    let one = format!(r#"{{"Id":"{}","State":"running","Status":"Up 1 second"}}"#, id());
    let four = format!("[{one},{one},{one},{one}]");
    let long_head = format!("HTTP/1.1 200 X\r\nx: {}\r\n", "y".repeat(512 * 1024));
    let mounts = format!(r#"[{{"Id":"{}","State":"running","Mounts":[{}{{}}]}}]"#, id(), "{},".repeat(5000));
    let cases: [(&str, Vec<u8>); 10] = [
        ("truncated JSON", answer(200, r#"[{"Id":"0a"#)),
        ("no JSON", answer(200, "<html>")),
        ("another type", answer(200, r#"{"message":"hello"}"#)),
        ("a path for an id", answer(200, r#"[{"Id":"../../images/x","State":"running"}]"#)),
        ("an unknown state", answer(200, &one.replace("running", "dancing"))),
        ("too many containers", answer(200, &four)),
        ("objects that grow in memory", answer(200, &mounts)),
        ("no HTTP", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
        ("an endless head", long_head.into_bytes()),
        ("too deep", answer(200, &"[".repeat(100_000))),
    ];
    for (name, bytes) in cases {
        let host = on("/containers/json", move || Reply::Bytes(bytes.clone()));
        let result = host.engine().list(&foreign).await;
        assert!(matches!(result, Err(EngineError::Malformed { .. })), "{name}: {result:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let head = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".to_vec(), vec![b' '; 4096], b"\r\n".to_vec()].concat();
    let sent = Mutex::new(false);
    let host = FalseEngine::new(move |request| {
        let list = request.contains("/containers/json");
        let first = !std::mem::replace(&mut *sent.lock().expect("no panic"), list);
        list.then(|| Reply::Endless(if first { [head.clone(), chunk.repeat(200)].concat() } else { chunk.clone() }))
    });
    let result = host.engine().list(&foreign).await;
    assert!(matches!(result, Err(EngineError::Malformed { .. })), "{result:?}");
}

#[tokio::test]
async fn without_an_answer_the_outcome_is_unknown() {
    let cut = || Reply::Last(b"HTTP/1.1 201 X\r\ncontent-length: 100\r\n\r\n{".to_vec());
    for (name, host) in [
        ("silence", on("/create", || Reply::Silence(Vec::new()))),
        (
            "silence after the head",
            on("/create", || Reply::Silence(b"HTTP/1.1 201 X\r\ncontent-length: 9\r\n\r\n".to_vec())),
        ),
        ("closed", on("/create", || Reply::Last(Vec::new()))),
        ("cut off", on("/create", cut)),
        ("created, but what?", on("/create", || Reply::Bytes(answer(201, "{}")))),
        ("created a path", on("/create", || Reply::Bytes(answer(201, r#"{"Id":"../x","Warnings":[]}"#)))),
        ("no HTTP", on("/create", || Reply::Bytes(b"\0\0\0\0\r\n\r\n".to_vec()))),
    ] {
        let result = host.engine().create(&config()).await;
        assert!(matches!(result, Err(EngineError::OutcomeUnknown { .. })), "{name}: {result:?}");
        assert_eq!(host.count("/create"), 1, "{name}: a change is never sent twice");
    }
}

#[tokio::test]
async fn nobody_there_means_nothing_was_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = engine_at(folder.path().join("none.sock"));
    let result = engine.create(&config()).await;
    assert!(matches!(result, Err(EngineError::Unreachable(_))), "{result:?}");
}

#[tokio::test]
async fn a_hung_engine_stops_nobody_else() {
    let hung = on("", || Reply::Silence(Vec::new()));
    let well = FalseEngine::new(|_| None);
    let (hung_engine, well_engine) = (hung.engine(), well.engine());
    let (ping, list) = tokio::join!(hung_engine.ping(), well_engine.list(&foreign));
    assert!(matches!(ping, Err(EngineError::OutcomeUnknown { .. })), "{ping:?}");
    assert!(list.expect("an answer").is_empty());
}

#[tokio::test]
async fn versions_are_agreed_per_engine() {
    for (newest, oldest, path) in [
        ("1.41", "1.12", "GET /v1.41/containers/json?all=true"),
        ("1.99", "1.44", &format!("GET /v{}/containers/json?all=true", bollard::API_DEFAULT_VERSION)),
    ] {
        let host = FalseEngine::new(move |request| {
            let bytes = if request == "GET /version" { version(newest, oldest) } else { answer(200, "[]") };
            Some(Reply::Bytes(bytes))
        });
        let engine = host.engine();
        engine.list(&foreign).await.expect("a list");
        engine.list(&foreign).await.expect("a list");
        let requests = host.requests();
        assert_eq!(requests.len(), 3, "asked once: {requests:?}");
        assert!(requests[1].starts_with(path.trim_end_matches("?all=true")), "{requests:?}");
    }
    for (newest, oldest) in [("1.40", "1.12"), ("1.99", "1.98")] {
        let host = on("/version", move || Reply::Bytes(version(newest, oldest)));
        let result = host.engine().list(&foreign).await;
        assert!(matches!(result, Err(EngineError::UnsupportedVersion { .. })), "{newest}: {result:?}");
        assert_eq!(host.requests(), ["GET /version"], "nothing else was tried");
    }
}

#[tokio::test]
async fn an_engine_of_another_version_is_asked_anew() {
    let newer = Arc::new(Mutex::new(true));
    let host = FalseEngine::new({
        let newer = Arc::clone(&newer);
        move |request| match (request, *newer.lock().expect("no panic")) {
            ("GET /version", true) => Some(Reply::Bytes(version("1.44", "1.24"))),
            ("GET /version", false) => None,
            (list, true) if list.starts_with("GET /v1.44/") => Some(Reply::Bytes(answer(200, "[]"))),
            (list, false) if list.starts_with("GET /v1.44/") => {
                let message = r#"{"message":"client version 1.44 is too new. Maximum supported API version is 1.41"}"#;
                Some(Reply::Bytes(answer(400, message)))
            }
            _ => None,
        }
    });
    let engine = host.engine();
    engine.list(&foreign).await.expect("a list");
    *newer.lock().expect("no panic") = false;
    let refused = engine.list(&foreign).await;
    assert!(matches!(refused, Err(EngineError::UnsupportedVersion { .. })), "{refused:?}");
    engine.list(&foreign).await.expect("a list in the older version");
}

#[tokio::test]
async fn connections_are_reused_and_dead_ones_replaced() {
    let host = FalseEngine::new(|request| {
        // Closes each connection after its second answer, without having said so.
        let last = request.contains("/containers/json");
        last.then(|| Reply::Last(answer(200, "[]")))
    });
    let engine = host.engine();
    for _ in 0..5 {
        engine.ping().await.expect("an answer");
        engine.list(&foreign).await.expect("a list");
    }
}

fn ours() -> (BTreeMap<String, String>, impl Fn(&BTreeMap<String, String>) -> Owner + Sync) {
    let key = FleetKey::new([1; 32]);
    let claim = Claim {
        created_name: "web".into(),
        task: "0123456789abcdef".into(),
        container: "web".into(),
        cluster: "default".into(),
        service: "web".into(),
        slot: 0,
        revision: "web:1".parse().expect("a revision"),
        revision_hash: "aa".into(),
        launch_type: LaunchType::Ec2,
        epoch: 1,
        task_cpu: 0,
        task_memory: 0,
        essential: true,
        task_created_at_ms: 0,
        network: None,
    };
    let labels = key.sign(&"a".into(), "web", &claim.to_labels());
    (labels, move |labels: &BTreeMap<String, String>| key.owner_of(&"a".into(), labels))
}

#[tokio::test]
async fn at_rest_nothing_is_inspected() {
    let (labels, verify) = ours();
    let status = Arc::new(Mutex::new("Up 5 seconds"));
    let events = format!(r#"{{"Type":"container","Action":"restart","Actor":{{"ID":"{}"}},"timeNano":1000000}}"#, id());
    let host = FalseEngine::new({
        let status = Arc::clone(&status);
        let labels = serde_json::to_string(&labels).expect("JSON");
        move |request| {
            let status = *status.lock().expect("no panic");
            let restart_count = u32::from(status == "Up 1 second");
            if request.contains("/containers/json") {
                let foreign = "0b".repeat(32);
                let list = format!(
                    r#"[{{"Id":"{}","Names":["/web"],"State":"running","Status":"{status}","Labels":{labels}}},
                        {{"Id":"{foreign}","Names":["/other"],"State":"exited","Status":"Exited (3) 1 second ago"}}]"#,
                    id()
                );
                return Some(Reply::Bytes(answer(200, &list)));
            }
            if request.ends_with(&format!("{}/json", id())) {
                let inspect = format!(
                    r#"{{"Id":"{}","Name":"/web","State":{{"Status":"running","StartedAt":"2026-01-02T03:04:05.5Z"}},
                        "RestartCount":{restart_count},"Config":{{"Labels":{labels}}}}}"#,
                    id()
                );
                return Some(Reply::Bytes(answer(200, &inspect)));
            }
            request.contains("/events").then(|| {
                let head = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n";
                Reply::Silence(format!("{head}{:x}\r\n{events}\n\r\n", events.len() + 1).into_bytes())
            })
        }
    });
    let engine = host.engine();
    for status_now in ["Up 5 seconds", "Up 6 seconds", "Up About a minute"] {
        *status.lock().expect("no panic") = status_now;
        let list = engine.list(&verify).await.expect("a list");
        assert!(list[id().as_str()].started_at.is_some(), "{status_now}");
        assert_eq!(list["0b".repeat(32).as_str()].exit_code, Some(3));
        assert_eq!(host.count(&id()), 1, "{status_now}");
    }
    *status.lock().expect("no panic") = "Up 1 second";
    let list = engine.list(&verify).await.expect("a list");
    assert_eq!((list[id().as_str()].restart_count, host.count(&id())), (1, 2), "started anew");

    let mut events = engine.events(None).await.expect("a stream");
    let event = events.next().await.expect("an event").expect("an event");
    assert_eq!((event.id.as_str(), event.at.0), (id().as_str(), 1));
    engine.list(&verify).await.expect("a list");
    assert_eq!(host.count(&id()), 3, "an event named it");
}

#[tokio::test]
async fn one_container_that_cannot_be_inspected_hides_no_other() {
    let (labels, verify) = ours();
    let labels = serde_json::to_string(&labels).expect("JSON");
    let (hung, fine) = ("0a".repeat(32), "0c".repeat(32));
    let inspect = {
        let labels = labels.clone();
        move |id: &str, name: &str| {
            let state = r#"{"Status":"running","StartedAt":"2026-01-02T03:04:05.5Z"}"#;
            let body = format!(
                r#"{{"Id":"{id}","Name":"/{name}","State":{state},"RestartCount":2,"Config":{{"Labels":{labels}}}}}"#
            );
            Reply::Bytes(answer(200, &body))
        }
    };
    type Unusable = fn() -> Reply;
    let replies: [(&str, Unusable); 3] = [
        ("silence", || Reply::Silence(Vec::new())),
        ("half an answer", || Reply::Silence(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{".to_vec())),
        ("its own failure", || Reply::Bytes(answer(500, r#"{"message":"layer does not exist"}"#))),
    ];
    for (what, reply) in replies {
        let works = Arc::new(Mutex::new(true));
        let host = FalseEngine::new({
            let (labels, inspect, works) = (labels.clone(), inspect.clone(), Arc::clone(&works));
            let (hung, fine) = (hung.clone(), fine.clone());
            move |request| {
                let works = *works.lock().expect("no panic");
                if request.contains("/containers/json") {
                    let (state, status) =
                        if works { ("running", "Up 5 seconds") } else { ("exited", "Exited (9) 1 second ago") };
                    let list = format!(
                        r#"[{{"Id":"{hung}","Names":["/web"],"State":"{state}","Status":"{status}","Labels":{labels}}},
                            {{"Id":"{fine}","Names":["/web"],"State":"running","Status":"Up 5 seconds","Labels":{labels}}}]"#
                    );
                    return Some(Reply::Bytes(answer(200, &list)));
                }
                if request.ends_with(&format!("{fine}/json")) {
                    return Some(inspect(&fine, "web"));
                }
                request.ends_with(&format!("{hung}/json")).then(|| if works { inspect(&hung, "web") } else { reply() })
            }
        });
        let engine = host.engine();
        engine.list(&verify).await.expect("a list");
        *works.lock().expect("no panic") = false;
        for turn in 1..=2 {
            let list = engine.list(&verify).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(list[fine.as_str()].started_at.is_some(), "{what}");
            let view = &list[hung.as_str()];
            assert_eq!((view.state, view.exit_code), (ContainerState::Exited, Some(9)), "{what}: as listed");
            assert!(view.owner.ours().is_some() && !view.oom_killed, "{what}");
            assert_eq!(view.restart_count, 2, "{what}: what is counted never goes back");
            assert_eq!(host.count(&hung), 1 + turn, "{what}: it is asked for again");
            assert_eq!(host.count(&fine), 1, "{what}: the other is not");
        }
        *works.lock().expect("no panic") = true;
        let list = engine.list(&verify).await.expect("a list");
        assert_eq!(list[hung.as_str()].restart_count, 2, "{what}: known again");
    }
}

#[tokio::test]
async fn a_stream_that_goes_wrong_ends() {
    let head = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let garbage = [head.clone(), chunk(b"{\"Type\": 5}\n")].concat();
    let endless = [head.clone(), chunk(&vec![b'{'; 4096]).repeat(64)].concat();
    for (name, bytes) in [("garbage", garbage), ("endless line", endless)] {
        let host = on("/events", move || Reply::Silence(bytes.clone()));
        let mut events = host.engine().events(None).await.expect("a stream");
        let first = events.next().await;
        assert!(matches!(first, Some(Err(EngineError::Malformed { .. }))), "{name}: {first:?}");
        assert!(events.next().await.is_none(), "{name}");
    }
    let cut = [head.clone(), chunk(b"\x01\0\0\0\0\0\0\x02a\n")].concat();
    let host = on("/logs", move || Reply::Last(cut.clone()));
    let engine = host.engine();
    let mut lines = engine.logs(&id().into(), LogOptions::default()).await.expect("a stream");
    assert_eq!(&lines.next().await.expect("a line").expect("a line").bytes[..], b"a");
    let end = lines.next().await;
    assert!(matches!(end, Some(Err(EngineError::OutcomeUnknown { .. }))), "{end:?}");
    assert!(lines.next().await.is_none());

    let huge = [head, chunk(b"\x01\0\0\0\xff\xff\xff\xff"), chunk(&[b'x'; 4096]).repeat(64)].concat();
    let host = on("/logs", move || Reply::Silence(huge.clone()));
    let engine = host.engine();
    let mut lines = engine.logs(&id().into(), LogOptions::default()).await.expect("a stream");
    let first = lines.next().await;
    assert!(matches!(first, Some(Err(EngineError::Malformed { .. }))), "{first:?}");

    let refused = host.engine().logs(&id().into(), LogOptions::default()).await;
    assert!(refused.is_ok(), "one bad stream spoils no other");
    let host = on("/logs", || Reply::Bytes(answer(404, r#"{"message":"No such container"}"#)));
    let refused = host.engine().logs(&id().into(), LogOptions::default()).await;
    assert!(matches!(refused.err(), Some(EngineError::NotFound { .. })));
}

#[tokio::test]
async fn a_pull_may_take_long_but_must_get_on() {
    let head = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let step = |json: &str| format!("{:x}\r\n{json}\r\n\r\n", json.len() + 2).into_bytes();
    let begun =
        [head.clone(), step(r#"{"id":"a","status":"Downloading","progressDetail":{"current":1,"total":2}}"#)].concat();
    let stalled = begun.clone();
    let host = on("/images/create", move || Reply::Silence(stalled.clone()));
    let steps = Mutex::new(Vec::new());
    let progress = |step| steps.lock().expect("no panic").push(step);
    let result = host.engine().pull("demo:1", &progress).await;
    assert!(matches!(result, Err(EngineError::OutcomeUnknown { .. })), "{result:?}");
    let steps = steps.into_inner().expect("no panic");
    assert_eq!(steps.iter().map(|step| step.total_bytes).collect::<Vec<_>>(), [Some(2)]);

    let failed = [begun, step(r#"{"errorDetail":{"message":"write: no space left on device"},"error":"x"}"#)].concat();
    let host = on("/images/create", move || Reply::Silence(failed.clone()));
    let result = host.engine().pull("demo:1", &|_| ()).await;
    assert!(matches!(result, Err(EngineError::OutOfSpace { .. })), "{result:?}");

    let host = on("/images/create", || Reply::Bytes(answer(404, r#"{"message":"manifest unknown"}"#)));
    let result = host.engine().pull("demo", &|_| ()).await;
    assert!(matches!(result, Err(EngineError::ImageMissing { .. })), "{result:?}");
    assert_eq!(host.count("fromImage=demo%3Alatest"), 1, "{:?}", host.requests());

    let result = host.engine().pull("../containers/x?", &|_| ()).await;
    assert!(matches!(result, Err(EngineError::Refused { .. })), "{result:?}");
}
