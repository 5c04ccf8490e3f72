//! What breaks between us and a host, done for real.

use std::fs;
use std::time::Duration;

use futures_util::future::join_all;
use roadstead_control::host::{ExecRequest, Lane, LinkState, SshTarget, SshTransport, Transport, TransportError};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;

use crate::conformance::{dial, echo, first_error, run, until, within};
use crate::sockets::Sockets;
use crate::sshd::{Sshd, free_port};

/// A request that outlasts every test.
fn endless() -> ExecRequest {
    let mut request = ExecRequest::new(["sh", "-c", "echo begun >&2; exec sleep 1000"]);
    request.deadline = Duration::from_secs(1000);
    request
}

/// Waits until the server has begun as many commands.
async fn begun(sshd: &Sshd, commands: usize) {
    until("the command's begin", || sshd.log().matches("Starting session: command").count() >= commands).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_is_told_that_it_was_cut_off() {
    let Some(sshd) = Sshd::start("") else { return };
    let sockets = Sockets::serve(sshd.dir.path());
    let transport = SshTransport::new(sshd.target(), 1);
    let mut stalled = dial(&transport, &sockets.path("flood"), Lane::Streams).await;
    // The server side ends when our side closes the channel.
    until("the cut", || sockets.ended.load(std::sync::atomic::Ordering::SeqCst) > 0).await;

    let mut got = Vec::new();
    let error = within(stalled.read_to_end(&mut got)).await.unwrap_err();

    let Some(TransportError::ReaderTooSlow { limit_bytes }) = TransportError::of_io(&error) else {
        panic!("{error:?}");
    };
    assert!(got.len() <= *limit_bytes);
    echo(&transport, &sockets, Lane::Streams, b"still there?").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_in_the_middle_of_a_call() {
    let Some(mut sshd) = Sshd::start("") else {
        return;
    };
    let sockets = Sockets::serve(sshd.dir.path());
    let transport = SshTransport::new(sshd.target(), 1);
    let mut stream = dial(&transport, &sockets.path("echo"), Lane::Calls).await;
    let mut link = transport.link();

    let call = transport.exec(endless());
    let kill = async {
        begun(&sshd, 1).await;
        sshd.kill();
    };
    let (result, ()) = within(async { tokio::join!(call, kill) }).await;

    assert!(matches!(result, Err(TransportError::Lost { .. })), "{result:?}");
    let error = within(stream.read_u8()).await.unwrap_err();
    let error = TransportError::of_io(&error);
    assert!(matches!(error, Some(TransportError::Lost { .. })), "{error:?}");
    within(link.wait_for(|state| matches!(state, LinkState::Down { .. }))).await.unwrap();

    // While it is away, calls say so; when it is back, they work again.
    let away = within(transport.exec(ExecRequest::new(["true"]))).await;
    assert!(matches!(away, Err(TransportError::Unreachable { .. })), "{away:?}");
    sshd.restart();
    within(async {
        while transport.exec(ExecRequest::new(["true"])).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*transport.link().borrow(), LinkState::Connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_unnoticed_is_replaced() {
    let Some(sshd) = Sshd::start("") else { return };
    let transport = SshTransport::new(sshd.target(), 1);
    for _ in 0..3 {
        assert!(run(&transport, &["true"]).await.status.success());
        sshd.signal_sessions(Signal::KILL);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_is_noticed_by_its_silence() {
    let Some(sshd) = Sshd::start("") else { return };
    let sockets = Sockets::serve(sshd.dir.path());
    let target = SshTarget { keepalive_interval: Duration::from_millis(200), ..sshd.target() };
    let limit = target.keepalive_limit();
    let transport = SshTransport::new(target, 1);
    let mut stream = dial(&transport, &sockets.path("echo"), Lane::Calls).await;

    let call = transport.exec(endless());
    let stop = async {
        begun(&sshd, 1).await;
        sshd.signal_sessions(Signal::STOP);
    };
    let (result, ()) = within(async { tokio::join!(call, stop) }).await;

    // The call's own deadline is far away: it was the silence.
    let Err(TransportError::TimedOut { after, .. }) = &result else {
        panic!("{result:?}");
    };
    assert_eq!(*after, limit);
    let error = within(stream.read_u8()).await.unwrap_err();
    let error = TransportError::of_io(&error);
    assert!(matches!(error, Some(TransportError::TimedOut { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_banner_is_unreachable() {
    let Some(sshd) = Sshd::start("") else { return };
    // Accepts, and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let target = SshTarget {
        port: silent.local_addr().unwrap().port(),
        connect_timeout: Duration::from_millis(300),
        ..sshd.target()
    };
    let transport = SshTransport::new(target, 1);
    let result = within(transport.exec(ExecRequest::new(["true"]))).await;
    assert!(matches!(result, Err(TransportError::Unreachable { .. })), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn during_a_pause_calls_fail_with_the_reason() {
    let Some(sshd) = Sshd::start("") else { return };
    let target = SshTarget {
        port: free_port(),
        backoff_base: Duration::from_secs(1000),
        backoff_cap: Duration::from_secs(1000),
        ..sshd.target()
    };
    let transport = SshTransport::new(target, 1);
    let first = within(transport.exec(ExecRequest::new(["true"]))).await;
    assert!(matches!(first, Err(TransportError::Unreachable { .. })), "{first:?}");
    let second = within(transport.exec(ExecRequest::new(["true"]))).await;
    assert_eq!(first, second);
    let link = transport.link().borrow().clone();
    let LinkState::Down { retry_in, .. } = link else {
        panic!("{link:?}");
    };
    assert!(retry_in >= Duration::from_secs(500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_session_limit_is_noticed_and_obeyed() {
    let Some(sshd) = Sshd::start("MaxSessions 2") else {
        return;
    };
    let transport = SshTransport::new(sshd.target(), 1);
    for _ in 0..2 {
        let outputs = join_all((0..20).map(|_| run(&transport, &["echo", "done"])));
        for output in within(outputs).await {
            assert_eq!(output.stdout, "done\n");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_sessions_says_so() {
    let Some(sshd) = Sshd::start("MaxSessions 0") else {
        return;
    };
    let sockets = Sockets::serve(sshd.dir.path());
    let transport = SshTransport::new(sshd.target(), 1);
    let result = within(transport.exec(ExecRequest::new(["true"]))).await;
    assert!(matches!(result, Err(TransportError::Forbidden { .. })), "{result:?}");
    // Sockets need none.
    echo(&transport, &sockets, Lane::Calls, b"hello").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_forwarding_and_without_a_relay_the_error_says_what_to_do() {
    let forbid = "AllowStreamLocalForwarding no\nSetEnv PATH=DIR/bin";
    let Some(sshd) = Sshd::start(forbid) else {
        return;
    };
    fs::create_dir(sshd.path("bin")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/env", sshd.path("bin/env")).unwrap();
    std::os::unix::fs::symlink("/bin/sh", sshd.path("bin/sh")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/test", sshd.path("bin/test")).unwrap();
    let sockets = Sockets::serve(sshd.dir.path());
    let transport = SshTransport::new(sshd.target(), 1);
    let error = first_error(&transport, &sockets.path("echo"), Lane::Calls).await;
    let TransportError::Forbidden { detail } = &error else {
        panic!("{error:?}");
    };
    assert!(detail.contains("AllowStreamLocalForwarding"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_connections_are_forbidden_the_error_says_what_to_do() {
    let Some(sshd) = Sshd::start("AllowTcpForwarding no") else { return };
    let transport = SshTransport::new(sshd.target(), 1);
    let error = within(transport.dial_tcp(([127, 0, 0, 1], free_port()).into())).await.err();
    let Some(TransportError::Forbidden { detail }) = &error else {
        panic!("{error:?}");
    };
    assert!(detail.contains("AllowTcpForwarding"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_give_up_leave_nothing_behind() {
    let Some(sshd) = Sshd::start("") else { return };
    let sockets = Sockets::serve(sshd.dir.path());
    let transport = SshTransport::new(sshd.target(), 1);
    assert!(run(&transport, &["true"]).await.status.success());
    for _ in 0..30 {
        let path = sockets.path("echo");
        // Polled once: the question is on its way, nobody waits for the answer.
        let mut dialling = Box::pin(transport.dial(&path, Lane::Calls));
        assert!(futures_util::poll!(dialling.as_mut()).is_pending());
        drop(dialling);
        let mut running = Box::pin(transport.exec(endless()));
        assert!(futures_util::poll!(running.as_mut()).is_pending());
    }
    // More than the host has places for, had they been kept.
    let outputs = join_all((0..10).map(|_| run(&transport, &["true"])));
    assert!(within(outputs).await.iter().all(|output| output.status.success()));
}
