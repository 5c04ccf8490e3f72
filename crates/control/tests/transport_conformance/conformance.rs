//! What every transport does, whatever lies between.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use roadstead_control::host::{
    BoxIo, ExecOutput, ExecRequest, ExitStatus, Lane, LinkState, LocalTransport, SshTarget, SshTransport, Transport,
    TransportError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::sockets::{FLOOD_BYTES, Sockets};
use crate::sshd::{DEADLINE, Sshd, skipped};

/// Calls made beside a stalled reader.
const CALLS: usize = 100;
/// The same where each starts a program on the host.
const RELAYED_CALLS: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn local() {
    let dir = tempfile::tempdir().unwrap();
    conforms(Arc::new(LocalTransport::new()), dir.path(), CALLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh() {
    let Some(sshd) = Sshd::start("") else { return };
    let transport = SshTransport::new(sshd.target(), 1);
    conforms(Arc::new(transport), sshd.dir.path(), CALLS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_through_a_jump_host() {
    let (Some(jump), Some(sshd)) = (Sshd::start(""), Sshd::start("")) else {
        return;
    };
    let mut target = sshd.target();
    target.proxy_jump = Some(Box::new(jump.target()));
    conforms(Arc::new(SshTransport::new(target, 1)), sshd.dir.path(), CALLS).await;
    assert!(jump.saw_login());
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_with_a_relay_where_forwarding_is_forbidden() {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&paths).map(|dir| dir.join("docker"));
    let Some(docker) = programs.find(|program| program.is_file()) else {
        skipped("the docker program");
        return;
    };
    let forbid = "AllowStreamLocalForwarding no\nSetEnv PATH=DIR/bin:/usr/bin:/bin";
    let Some(sshd) = Sshd::start(forbid) else {
        return;
    };
    fs::create_dir(sshd.path("bin")).unwrap();
    std::os::unix::fs::symlink(docker, sshd.path("bin/docker")).unwrap();
    let transport = SshTransport::new(sshd.target(), 1);
    conforms(Arc::new(transport), sshd.dir.path(), RELAYED_CALLS).await;

    let sockets = Sockets::serve(&sshd.path("bin"));
    let target = SshTarget { open_timeout: Duration::from_secs(3), ..sshd.target() };
    relays_leave_room_for_commands(&SshTransport::new(target, 1), &sockets).await;
    assert!(sshd.log().contains("refused streamlocal port forward"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_logs_in_once_for_calls_and_once_for_streams() {
    let Some(sshd) = Sshd::start("") else { return };
    let sockets = Sockets::serve(sshd.dir.path());
    let transport = SshTransport::new(sshd.target(), 1);
    echo(&transport, &sockets, Lane::Calls, b"hello").await;
    assert_eq!(sshd.logins(), 1);
    echo(&transport, &sockets, Lane::Streams, b"hello").await;
    assert_eq!(sshd.logins(), 2);

    let lanes = [Lane::Calls, Lane::Streams].into_iter().cycle().take(20);
    let path = sockets.path("echo");
    let open = join_all(lanes.map(|lane| dial(&transport, &path, lane))).await;
    run(&transport, &["true"]).await;
    assert_eq!(sshd.logins(), 2, "{} streams and a command on two connections", open.len());

    echo(&transport, &sockets, Lane::Bulk, b"hello").await;
    assert_eq!(sshd.logins(), 3, "a flood has a connection of its own");
}

async fn conforms(transport: Arc<dyn Transport>, dir: &Path, calls: usize) {
    let sockets = Sockets::serve(dir);
    dialling(&*transport, &sockets).await;
    dialling_tcp(&*transport).await;
    commands(&*transport, dir).await;
    killed_at_the_deadline(&*transport, dir).await;
    uploads(&*transport, dir).await;
    dropped_streams_end_on_the_host(&*transport, &sockets).await;
    stalled_readers_stall_nobody(&transport, &sockets, calls).await;
    bulk_streams_wait_for_their_reader(&*transport, &sockets, calls).await;
    assert_eq!(*transport.link().borrow(), LinkState::Connected);
    closing(&*transport, &sockets).await;
}

pub async fn dial(transport: &dyn Transport, path: &Path, lane: Lane) -> BoxIo {
    within(transport.dial(path, lane)).await.unwrap()
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("no end in sight")
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::task::yield_now().await;
    }
}

pub async fn run(transport: &dyn Transport, argv: &[&str]) -> ExecOutput {
    let request = ExecRequest::new(argv.iter().copied());
    within(transport.exec(request)).await.unwrap()
}

/// Sends `content` through the echoing socket and gets it back.
pub async fn echo(transport: &dyn Transport, sockets: &Sockets, lane: Lane, content: &[u8]) {
    echoes(dial(transport, &sockets.path("echo"), lane).await, content).await;
}

async fn echoes(stream: BoxIo, content: &[u8]) {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut back = Vec::new();
    let send = async {
        write.write_all(content).await?;
        write.shutdown().await
    };
    let (sent, received) = within(async { tokio::join!(send, read.read_to_end(&mut back)) }).await;
    sent.unwrap();
    received.unwrap();
    assert!(back == content, "{} bytes came back changed", back.len());
}

async fn dialling_tcp(transport: &dyn Transport) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    };
    let ask = async { echoes(transport.dial_tcp(address).await.unwrap(), b"hello").await };
    within(async { tokio::join!(serve, ask) }).await;
    drop(listener);
    let refused = within(transport.dial_tcp(address)).await;
    assert_eq!(refused.err(), Some(TransportError::Refused { address }));
}

async fn dialling(transport: &dyn Transport, sockets: &Sockets) {
    let content: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    for lane in [Lane::Calls, Lane::Streams, Lane::Bulk] {
        echo(transport, sockets, lane, b"hello").await;
        echo(transport, sockets, lane, &content).await;

        // An answer that comes only after the end of the question.
        let mut stream = dial(transport, &sockets.path("count"), lane).await;
        within(stream.write_all(&content)).await.unwrap();
        within(stream.shutdown()).await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, content.len().to_string());

        let mut stream = dial(transport, &sockets.path("hangup"), lane).await;
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"");

        let missing = sockets.path("missing");
        let error = first_error(transport, &missing, lane).await;
        assert_eq!(error, TransportError::SocketMissing { path: missing });
    }
    for path in ["", "docker.sock", &format!("/{}", "x".repeat(107))] {
        let result = transport.dial(Path::new(path), Lane::Calls).await;
        assert!(matches!(result.err(), Some(TransportError::Misconfigured { .. })));
    }
}

/// The error of dialling, or of the first read: a relay learns only then.
pub async fn first_error(transport: &dyn Transport, path: &Path, lane: Lane) -> TransportError {
    match within(transport.dial(path, lane)).await {
        Err(error) => error,
        Ok(mut stream) => {
            let error: io::Error = within(stream.read_u8()).await.unwrap_err();
            TransportError::of_io(&error).expect("a typed error").clone()
        }
    }
}

async fn commands(transport: &dyn Transport, dir: &Path) {
    let words = ["it's", "$HOME `id`", "a  b", "*", "", "line\nline", "-n", "\\", "ä", "!!"];
    let mut argv = vec!["printf", "%s|"];
    argv.extend(words);
    let output = run(transport, &argv).await;
    assert_eq!(output.stdout, Bytes::from(words.map(|word| format!("{word}|")).concat()));

    let everything: Vec<u8> = (0..=255u8).cycle().take(1_000_000).collect();
    let mut request = ExecRequest::new(["cat"]);
    request.stdin = everything.clone().into();
    let output = within(transport.exec(request)).await.unwrap();
    assert!(output.stdout == everything);

    let output = run(transport, &["sh", "-c", "echo out; echo err >&2; exit 3"]).await;
    let want = ExecOutput { status: ExitStatus::Exited(3), stdout: "out\n".into(), stderr: "err\n".into() };
    assert_eq!(output, want);

    let output = run(transport, &["sh", "-c", "kill -KILL $$"]).await;
    // A shell in between reports the signal as a status.
    let signalled = [ExitStatus::Signalled("KILL".into()), ExitStatus::Exited(137)];
    assert!(signalled.contains(&output.status), "{:?}", output.status);

    let output = run(transport, &["/no/such/program"]).await;
    assert_eq!(output.status, ExitStatus::Exited(127));

    // A command that does not read its input.
    let mut request = ExecRequest::new(["true"]);
    request.stdin = vec![0; 4 << 20].into();
    let output = within(transport.exec(request)).await.unwrap();
    assert!(output.status.success());

    let mut request = ExecRequest::new(["sh", "-c", "while :; do echo flood; done"]);
    request.output_limit_bytes = 100_000;
    assert_eq!(within(transport.exec(request)).await, Err(TransportError::OutputTooLarge { limit_bytes: 100_000 }));

    let many = join_all((0..20).map(|n| async move {
        let output = run(transport, &["echo", &n.to_string()]).await;
        assert_eq!(output.stdout, Bytes::from(format!("{n}\n")));
    }));
    within(many).await;

    let empty = transport.exec(ExecRequest::new([""; 0])).await;
    assert!(matches!(empty, Err(TransportError::Misconfigured { .. })));
    assert!(dir.exists());
}

async fn killed_at_the_deadline(transport: &dyn Transport, dir: &Path) {
    let pid_file = dir.join("pid");
    let script = format!("echo $$ >{}; exec sleep 1000", pid_file.display());
    let mut request = ExecRequest::new(["sh", "-c", &script]);
    request.deadline = Duration::from_secs(2);
    let result = within(transport.exec(request)).await;
    assert!(matches!(result, Err(TransportError::TimedOut { .. })), "{result:?}");
    let pid = fs::read_to_string(&pid_file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    until("the command's end", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))).await;
}

async fn uploads(transport: &dyn Transport, dir: &Path) {
    let dir = dir.join("it's an upload");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("file");
    let path = file.to_str().unwrap();
    let large = Bytes::from(vec![7; 3_000_000]);
    for (content, mode) in [(Bytes::from_static(b"first"), 0o640), (large, 0o755), (Bytes::new(), 0o600)] {
        let done = transport.upload(path, mode, content.clone(), DEADLINE);
        within(done).await.unwrap();
        assert!(fs::read(&file).unwrap() == content);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, mode);
    }
    let directory = dir.join("directory");
    fs::create_dir(&directory).unwrap();
    for wrong in [directory.as_path(), &dir.join("missing/file")] {
        let content = Bytes::from_static(b"x");
        let path = wrong.to_str().unwrap();
        let result = within(transport.upload(path, 0o600, content, DEADLINE)).await;
        assert!(matches!(result, Err(TransportError::CommandFailed { .. })), "{result:?}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "something was left behind");
}

async fn dropped_streams_end_on_the_host(transport: &dyn Transport, sockets: &Sockets) {
    for lane in [Lane::Calls, Lane::Streams, Lane::Bulk] {
        let mut stream = dial(transport, &sockets.path("echo"), lane).await;
        within(stream.write_all(b"x")).await.unwrap();
        within(stream.read_u8()).await.unwrap();
        let before = sockets.ended.load(Ordering::SeqCst);
        drop(stream);
        until("the end of a dropped stream", || sockets.ended.load(Ordering::SeqCst) > before).await;
    }
}

async fn stalled_readers_stall_nobody(transport: &Arc<dyn Transport>, sockets: &Sockets, calls: usize) {
    for lane in [Lane::Calls, Lane::Streams] {
        let stalled = dial(&**transport, &sockets.path("flood"), lane).await;
        let workers = join_all((0..4).map(|_| async {
            for _ in 0..calls / 4 {
                echo(&**transport, sockets, lane, b"still there?").await;
            }
        }));
        workers.await;
        drop(stalled);
    }
}

async fn bulk_streams_wait_for_their_reader(transport: &dyn Transport, sockets: &Sockets, calls: usize) {
    // What an earlier one still writes is not this one's.
    until("the end of earlier floods", || sockets.floods.load(Ordering::SeqCst) == 0).await;
    let before = sockets.flooded.load(Ordering::SeqCst);
    let mut stream = dial(transport, &sockets.path("flood"), Lane::Bulk).await;
    for _ in 0..calls {
        echo(transport, sockets, Lane::Calls, b"still there?").await;
    }
    let unread = sockets.flooded.load(Ordering::SeqCst) - before;
    assert!(unread < FLOOD_BYTES, "nothing holds the sender back");

    let mut chunk = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match within(stream.read(&mut chunk)).await.unwrap() {
            0 => break,
            count => total += count,
        }
    }
    assert_eq!(total, FLOOD_BYTES);
}

async fn relays_leave_room_for_commands(transport: &dyn Transport, sockets: &Sockets) {
    let mut idle = Vec::new();
    loop {
        match within(transport.dial(&sockets.path("echo"), Lane::Calls)).await {
            Ok(stream) => idle.push(stream),
            Err(TransportError::TimedOut { .. }) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(!idle.is_empty());
    assert!(run(transport, &["true"]).await.status.success());
}

async fn closing(transport: &dyn Transport, sockets: &Sockets) {
    let mut streams = Vec::new();
    for lane in [Lane::Calls, Lane::Streams, Lane::Bulk] {
        streams.push(dial(transport, &sockets.path("echo"), lane).await);
    }
    within(transport.close()).await;
    for mut stream in streams {
        let error = within(stream.read_u8()).await.unwrap_err();
        assert_eq!(TransportError::of_io(&error), Some(&TransportError::Closed));
    }
    let dialled = transport.dial(&sockets.path("echo"), Lane::Calls).await;
    assert_eq!(dialled.err(), Some(TransportError::Closed));
    let output = transport.exec(ExecRequest::new(["true"])).await;
    assert_eq!(output, Err(TransportError::Closed));
}
