//! A Docker Engine's answers, through the very client that reads real ones: only the socket is in memory.
//!
//! An answer is a body; `!404` and a line end before it give it another status than 200.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use roadstead_control::{
    engine::{DockerEngine, Engine, EngineError, EventAction, Limits},
    host::{BoxIo, ExecOutput, ExecRequest, Lane, LinkState, Transport, TransportError},
};
use roadstead_core::model::{
    container::ContainerView,
    name::{HostName, RuntimeId},
    ownership::{FleetKey, Owner, PREFIX},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::watch,
};

use super::{Reached, assert_readable, labels::KEY, parts};

/// The host that all inputs come from, and the container that an inspect asks for.
pub const HOST: &str = "box-a";
pub const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Small enough for small inputs to reach them.
fn limits() -> Limits {
    Limits { answer_bytes: 8 << 10, item_bytes: 2 << 10, containers: 8, ..Limits::default() }
}

/// `GET /containers/json`; after `~~~`, the answer to every inspect.
pub fn list(input: &[u8]) -> Reached {
    let (listed, inspected) = parts(input);
    let answers = || Answers {
        list: Bytes::copy_from_slice(listed),
        inspect: Bytes::copy_from_slice(inspected),
        ..Answers::default()
    };
    let look = || {
        run(answers(), async |engine| {
            let first = engine.list(&owner).await;
            let second = engine.list(&owner).await;
            (first, second)
        })
    };
    let (((first, second), requests), ((again, _), _)) = (look(), look());
    // A version, two lists, and one inspect for each container of each.
    assert!(requests <= 3 + 2 * limits().containers, "{requests} requests");
    let mut reached = Reached::new();
    for answer in [&first, &second] {
        let views = match answer {
            Ok(views) => views,
            Err(error) => {
                reached.insert(refused(error));
                continue;
            }
        };
        assert!(views.len() <= limits().containers, "{} containers", views.len());
        for (id, view) in views {
            assert_eq!(*id, view.id);
            is_sane(view);
            reached.insert(if view.owner.ours().is_some() { "ours" } else { "not ours" });
        }
    }
    assert_eq!(again.ok(), first.ok(), "the same answers, another view");
    reached
}

/// `GET /containers/ID/json`, and the same answer to a verb.
pub fn inspect(input: &[u8]) -> Reached {
    let answers = || Answers { inspect: Bytes::copy_from_slice(input), ..Answers::default() };
    let look = || run(answers(), async |engine| engine.inspect(ID, &owner).await).0;
    let mut reached = Reached::new();
    let inspected = look();
    match &inspected {
        Ok(None) => {
            reached.insert("not there");
        }
        Ok(Some(inspected)) => {
            is_sane(&inspected.view);
            assert!(inspected.view.id.as_str() == ID || inspected.view.name == ID, "not what was asked for");
            assert!(inspected.labels.keys().all(|label| label.starts_with(PREFIX)));
            assert!(inspected.labels.len() <= 64, "{} labels", inspected.labels.len());
            assert_eq!(owner(&inspected.labels), inspected.view.owner);
            reached.insert(if inspected.view.owner.ours().is_some() { "ours" } else { "not ours" });
        }
        Err(error) => {
            reached.insert(refused(error));
        }
    }
    assert_eq!(look().ok(), inspected.ok(), "the same answer, another view");
    let id = RuntimeId::from(ID);
    if let Err(error) = run(answers(), async |engine| engine.start(&id).await).0 {
        reached.insert(refused(&error));
    }
    reached
}

/// `GET /events`: the first byte says in pieces of which size it comes.
pub fn events(input: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let answers = || Answers { events: Bytes::copy_from_slice(input), ..Answers::default() };
    let follow = || {
        run(answers(), async |engine| {
            let mut stream = engine.events(None).await?;
            let mut seen = Vec::new();
            // Each event is one byte at least.
            for _ in 0..=input.len() {
                match stream.next().await {
                    Some(Ok(event)) => seen.push(event),
                    Some(Err(error)) => {
                        assert!(stream.next().await.is_none(), "goes on after its first error");
                        return Ok((seen, Some(error)));
                    }
                    None => return Ok((seen, None)),
                }
            }
            panic!("more events than bytes")
        })
        .0
    };
    let followed: Result<_, EngineError> = follow();
    let (seen, end) = match followed {
        Ok(seen) => seen,
        Err(error) => {
            reached.insert(refused(&error));
            return reached;
        }
    };
    for event in &seen {
        is_id(&event.id);
        assert_readable(&event.name, 512);
        reached.insert(match &event.action {
            EventAction::Other(word) => {
                assert_readable(word, 64);
                "another event"
            }
            EventAction::Die { .. } => "die",
            EventAction::Health => "health",
            EventAction::Create
            | EventAction::Start
            | EventAction::Oom
            | EventAction::Kill
            | EventAction::Stop
            | EventAction::Destroy => "an event",
        });
    }
    reached.insert(end.as_ref().map_or("its end", refused));
    let (again, _) = follow().expect("as before");
    assert_eq!(again, seen, "the same stream, other events");
    reached
}

fn owner(labels: &BTreeMap<String, String>) -> Owner {
    FleetKey::new(KEY).owner_of(&HostName::from(HOST), labels)
}

fn is_id(id: &RuntimeId) {
    assert!(id.as_str().len() == 64 && id.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}

fn is_sane(view: &ContainerView) {
    is_id(&view.id);
    for text in [&view.name, &view.image, &view.image_id] {
        assert_readable(text, 512);
    }
    assert_readable(&view.error, 1024);
    assert!(view.ports.is_sorted_by(|one, other| one < other), "{:?}", view.ports);
    assert!(view.ports.iter().all(|port| port.host_port != 0), "{:?}", view.ports);
}

/// An error is short, without control characters, and of the sort that such an answer gives.
fn refused(error: &EngineError) -> &'static str {
    assert_readable(&error.to_string(), 2048);
    match error {
        EngineError::Malformed { .. } => "malformed",
        EngineError::OutcomeUnknown { .. } => "unknown",
        EngineError::NotFound { .. } => "not found",
        EngineError::Conflict { .. } => "conflict",
        EngineError::PortTaken { .. } => "port taken",
        EngineError::OutOfSpace { .. } => "out of space",
        EngineError::Refused { .. } => "refused",
        EngineError::ServerError { .. } => "server error",
        EngineError::UnsupportedVersion { .. } => "another version",
        EngineError::Unreachable(_)
        | EngineError::NameTaken { .. }
        | EngineError::ImageMissing { .. }
        | EngineError::RegistryUnavailable { .. }
        | EngineError::Unauthorised { .. }
        | EngineError::RateLimited { .. } => panic!("no answer to a question gives {error:?}"),
    }
}

/// Speaks to an engine that gives these answers; also tells how many it gave.
fn run<T>(answers: Answers, work: impl AsyncFnOnce(&DockerEngine) -> T) -> (T, usize) {
    // With the clock paused, a wait that nobody ends is over at once, and by its deadline.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let socket = Arc::new(Socket { answers, given: AtomicUsize::new(0) });
        let engine = DockerEngine::new(Arc::new(InMemory(Arc::clone(&socket))), "/docker.sock".into(), limits());
        let result = work(&engine).await;
        (result, socket.given.load(Ordering::SeqCst))
    })
}

#[derive(Default)]
struct Answers {
    list: Bytes,
    inspect: Bytes,
    events: Bytes,
}

struct Socket {
    answers: Answers,
    given: AtomicUsize,
}

impl Socket {
    async fn serve(&self, mut stream: DuplexStream) -> std::io::Result<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            self.given.fetch_add(1, Ordering::SeqCst);
            let line =
                String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
            if line.contains("/events") {
                self.stream_events(&mut stream).await?;
                continue;
            }
            let answer = match line.as_str() {
                "GET /version HTTP/1.1" => br#"{"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}"#,
                line if line.contains("/containers/json") => &self.answers.list[..],
                _ => &self.answers.inspect[..],
            };
            let (status, body) = status_of(answer);
            let kind = "content-type: application/json";
            let head = format!("HTTP/1.1 {status} X\r\n{kind}\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(body).await?;
        }
    }

    async fn stream_events(&self, stream: &mut DuplexStream) -> std::io::Result<()> {
        let (size, rest) = self.answers.events.split_first().unwrap_or((&0, &[]));
        let (status, body) = status_of(rest);
        let head = format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        for piece in body.chunks(usize::from(*size).max(1)) {
            stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
            stream.write_all(piece).await?;
            stream.write_all(b"\r\n").await?;
        }
        stream.write_all(b"0\r\n\r\n").await
    }
}

fn status_of(answer: &[u8]) -> (u16, &[u8]) {
    match answer {
        [b'!', hundreds @ b'2'..=b'5', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b'\n', body @ ..] => {
            let digit = |byte: u8| u16::from(byte - b'0');
            let status = 100 * digit(*hundreds) + 10 * digit(*tens) + digit(*ones);
            // These two have no body by definition.
            if matches!(status, 204 | 304) { (200, body) } else { (status, body) }
        }
        body => (200, body),
    }
}

struct InMemory(Arc<Socket>);

#[async_trait]
impl Transport for InMemory {
    async fn dial(&self, _: &Path, _: Lane) -> Result<BoxIo, TransportError> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let socket = Arc::clone(&self.0);
        tokio::spawn(async move { socket.serve(theirs).await });
        Ok(Box::new(ours))
    }

    async fn dial_tcp(&self, _: SocketAddr) -> Result<BoxIo, TransportError> {
        Err(TransportError::Closed)
    }

    async fn exec(&self, _: ExecRequest) -> Result<ExecOutput, TransportError> {
        Err(TransportError::Closed)
    }

    async fn upload(&self, _: &str, _: u32, _: Bytes, _: Duration) -> Result<(), TransportError> {
        Err(TransportError::Closed)
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        watch::channel(LinkState::Idle).1
    }

    async fn close(&self) {}
}
