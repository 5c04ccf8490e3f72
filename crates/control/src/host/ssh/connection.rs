//! One SSH connection: coming about (jump, host key, login), opening channels, ending.

use std::fmt::Display;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Handle, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{AlgorithmKind, Channel, ChannelOpenFailure, Disconnect, Preferred, SshId};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::auth::{Credential, authenticate};
use super::channel_io::{ChannelIo, Keep, Lag};
use super::target::SshTarget;
use super::trust::{Trust, Verdict, fingerprint};
use crate::host::{BoxIo, TransportError};

/// More machines in a row than this are taken for a circle.
const JUMPS_MAX: usize = 4;
/// How long the reason of an end may take to arrive after the end itself, and a farewell to be queued.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Messages of a channel that wait for its pump; a message holds at most one packet (32 KiB).
const CHANNEL_MESSAGES_MAX: usize = 32;

/// Sessions that relays leave free.
const PLACES_FOR_COMMANDS: usize = 2;

/// Why a connection ended; `None` while it stands.
pub(super) type Ended = watch::Receiver<Option<TransportError>>;

pub(super) struct Connection {
    handle: Handle<Client>,
    pub(super) target: Arc<SshTarget>,
    pub(super) ended: Ended,
    end: watch::Sender<Option<TransportError>>,
    /// Free places for sessions, and how many there are in all (fewer than configured once the host
    /// refused one).
    pub(super) sessions: Arc<Semaphore>,
    pub(super) sessions_limit: Mutex<usize>,
    /// Free places for relays: idle ones live long, and must leave room for commands.
    pub(super) relays: Arc<Semaphore>,
    /// What we know of the host's will to forward to sockets.
    pub(super) forwarding: Arc<OnceLock<Forwarding>>,
}

/// Whether the host forwards to sockets, once it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarding {
    Allowed,
    /// A command must relay instead.
    Forbidden,
}

/// What to open.
#[derive(Debug, Clone)]
pub(super) enum Open {
    Socket(String),
    Tcp(String, u16),
    Session,
}

/// Why a channel did not open.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The host said no; the connection is fine.
    Refused(ChannelOpenFailure),
    Failed(TransportError),
}

impl Connection {
    /// Connects and logs in, within the target's `connect_timeout`.
    pub(super) async fn connect(target: Arc<SshTarget>) -> Result<Self, TransportError> {
        let limit = target.connect_timeout;
        let host = target.name();
        timeout(limit, connect(target, 0)).await.unwrap_or_else(|_| {
            Err(TransportError::Unreachable { host, detail: format!("no connection in {limit:?}") })
        })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed() && self.ended.borrow().is_none()
    }

    /// Opens a channel. Safe to cancel: a channel that nobody waits for any more is closed.
    pub(super) async fn open(self: &Arc<Self>, what: Open) -> Result<Channel<Msg>, OpenError> {
        let limit = self.target.open_timeout;
        let waited_for = format!("{} opening {what:?}", self.target.name());
        let (answer, answered) = oneshot::channel();
        let connection = Arc::clone(self);
        tokio::spawn(async move {
            let handle = &connection.handle;
            let result = match what {
                Open::Socket(path) => handle.channel_open_direct_streamlocal(path).await,
                Open::Tcp(host, port) => {
                    let port = u32::from(port);
                    let origin = ("127.0.0.1", 0);
                    let opened = handle.channel_open_direct_tcpip(host, port, origin.0, origin.1);
                    opened.await
                }
                Open::Session => handle.channel_open_session().await,
            };
            if let Err(Ok(unwanted)) = answer.send(result) {
                let _ = unwanted.close().await;
            }
        });
        match timeout(limit, answered).await {
            Ok(Ok(Ok(channel))) => Ok(channel),
            Ok(Ok(Err(russh::Error::ChannelOpenFailure(reason)))) => Err(OpenError::Refused(reason)),
            // Whatever else goes wrong here, the connection is no longer usable.
            Ok(Ok(Err(_)) | Err(_)) => Err(OpenError::Failed(last_words(&mut self.ended.clone()).await)),
            Err(_) => Err(OpenError::Failed(TransportError::timed_out(waited_for, limit))),
        }
    }

    /// Ends the connection and everything on it.
    pub(super) async fn close(&self, reason: TransportError) {
        set_once(&self.end, reason);
        let farewell = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = timeout(LAST_WORDS, farewell).await;
    }

    /// Closes the connection when `closed` says so. Does not keep it alive.
    pub(super) fn close_with(self: &Arc<Self>, closed: CancellationToken) {
        let connection = Arc::downgrade(self);
        let mut ended = self.ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                _ = ended.wait_for(Option::is_some) => return,
            }
            if let Some(connection) = connection.upgrade() {
                connection.close(TransportError::Closed).await;
            }
        });
    }
}

fn set_once(end: &watch::Sender<Option<TransportError>>, reason: TransportError) {
    end.send_if_modified(|current| {
        let first = current.is_none();
        if first {
            *current = Some(reason);
        }
        first
    });
}

/// The reason of an end that has been noticed already.
pub(super) async fn last_words(ended: &mut Ended) -> TransportError {
    let reason = timeout(LAST_WORDS, end_of(ended)).await;
    reason.unwrap_or_else(|_| TransportError::lost("the connection ended"))
}

/// Waits for the end.
pub(super) async fn end_of(ended: &mut Ended) -> TransportError {
    match ended.wait_for(Option::is_some).await.as_deref() {
        Ok(Some(error)) => error.clone(),
        Ok(None) | Err(_) => TransportError::lost("the connection ended"),
    }
}

/// Boxed, for a jump host is connected to in the same way.
fn connect(
    target: Arc<SshTarget>,
    depth: usize,
) -> Pin<Box<dyn Future<Output = Result<Connection, TransportError>> + Send>> {
    Box::pin(async move {
        let trust = Trust::load(&target).await?;
        let credentials = Credential::load(&target).await?;
        let stream = reach(&target, depth).await?;

        let end = watch::Sender::new(None);
        let judgement = Arc::new(OnceLock::new());
        let preferred = Preferred { key: trust.algorithms().into(), ..Preferred::DEFAULT };
        let expected = trust.expected();
        let client = Client {
            trust,
            judgement: Arc::clone(&judgement),
            host: target.name(),
            end: end.clone(),
            silence_limit: target.keepalive_limit(),
        };
        let config = Arc::new(config(&target, preferred));
        let handle = client::connect_stream(config, stream, client).await;
        let mut handle = handle.map_err(|error| match judgement.get() {
            Some(untrusted) => TransportError::clone(untrusted),
            None => handshake_error(&target, expected, error),
        })?;
        authenticate(&credentials, &mut handle, &target).await?;
        let relays = target.max_sessions.saturating_sub(PLACES_FOR_COMMANDS).max(1);
        Ok(Connection {
            handle,
            ended: end.subscribe(),
            end,
            sessions: Arc::new(Semaphore::new(target.max_sessions.max(1))),
            sessions_limit: Mutex::new(target.max_sessions.max(1)),
            relays: Arc::new(Semaphore::new(relays)),
            forwarding: Arc::new(OnceLock::new()),
            target,
        })
    })
}

/// A byte stream to the SSH server of a target, through its jump host if it has one.
pub(super) async fn reach(target: &SshTarget, depth: usize) -> Result<BoxIo, TransportError> {
    let Some(jump) = &target.proxy_jump else {
        return tcp(target).await;
    };
    if depth >= JUMPS_MAX {
        return Err(TransportError::misconfigured(
            format!("more than {JUMPS_MAX} jump hosts in a row"),
            "look for a circle in proxyJump",
        ));
    }
    let jump = Arc::new(connect(Arc::new(SshTarget::clone(jump)), depth + 1).await?);
    let opened = jump.open(Open::Tcp(target.address.clone(), target.port));
    let channel = opened.await.map_err(|error| match error {
        OpenError::Failed(error) => error,
        OpenError::Refused(ChannelOpenFailure::AdministrativelyProhibited) => TransportError::Forbidden {
            detail: format!(
                "{} does not forward TCP; set AllowTcpForwarding yes in its sshd_config",
                jump.target.name()
            ),
        },
        OpenError::Refused(reason) => TransportError::Unreachable {
            host: target.name(),
            detail: format!("{} cannot reach it: {reason:?}", jump.target.name()),
        },
    })?;
    let ended = jump.ended.clone();
    let keep = Keep { _connection: Some(jump), ..Keep::default() };
    let (read_half, write_half) = channel.split();
    let halves = (read_half, Arc::new(write_half));
    let stream = ChannelIo::new(halves, ended, Lag::Wait, keep, None);
    Ok(Box::new(stream))
}

async fn tcp(target: &SshTarget) -> Result<BoxIo, TransportError> {
    let unreachable =
        |error: &dyn Display| TransportError::Unreachable { host: target.name(), detail: error.to_string() };
    let endpoint = (target.address.as_str(), target.port);
    let addresses = tokio::net::lookup_host(endpoint).await;
    let addresses: Vec<_> = addresses.map_err(|error| unreachable(&error))?.collect();
    let mut failure = unreachable(&"the name has no address");
    // An address that swallows packets must leave time for the next one.
    let share = target.connect_timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
                return Ok(Box::new(stream));
            }
            Ok(Err(error)) => failure = unreachable(&error),
            Err(_) => failure = unreachable(&format!("no answer in {share:?}")),
        }
    }
    Err(failure)
}

pub(super) fn config(target: &SshTarget, preferred: Preferred) -> client::Config {
    let version = concat!("SSH-2.0-Roadstead_", env!("CARGO_PKG_VERSION"));
    client::Config {
        client_id: SshId::Standard(version.into()),
        preferred,
        channel_buffer_size: CHANNEL_MESSAGES_MAX,
        keepalive_interval: Some(target.keepalive_interval),
        keepalive_max: target.keepalive_max,
        // Answers to keepalives count as activity: this bounds writes that do not get through.
        inactivity_timeout: Some(target.keepalive_limit()),
        nodelay: true,
        ..client::Config::default()
    }
}

fn handshake_error(target: &SshTarget, expected: Vec<String>, error: russh::Error) -> TransportError {
    match error {
        russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, theirs, .. } => TransportError::Untrusted {
            host: target.name(),
            expected,
            presented: printable(&format!("only keys of type {}", theirs.join(", "))),
            revoked: false,
        },
        russh::Error::NoCommonAlgo { kind, theirs, .. } => TransportError::misconfigured(
            format!("{} offers no {kind:?} algorithm we accept: {}", target.name(), printable(&theirs.join(", "))),
            "update its SSH server",
        ),
        error => TransportError::Unreachable { host: target.name(), detail: error.to_string() },
    }
}

/// Text from a host, fit for a log line.
pub(super) fn printable(text: &str) -> String {
    text.trim().chars().take(300).flat_map(char::escape_debug).collect()
}

/// Our side of the conversation: judges the host key, notes the end, opens nothing for the host.
pub(super) struct Client {
    trust: Trust,
    judgement: Arc<OnceLock<TransportError>>,
    host: String,
    end: watch::Sender<Option<TransportError>>,
    silence_limit: Duration,
}

/// Generates handlers that refuse a channel the host wants to open with us: dropping the reply refuses.
macro_rules! refuse {
    ($($name:ident($($argument:ty),*);)*) => {$(
        async fn $name(
            &mut self,
            _: Channel<Msg>,
            $(_: $argument,)*
            _: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            Ok(())
        }
    )*};
}

impl Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let (verdict, presented) = match presented {
            PublicKeyOrCertificate::PublicKey { key, .. } => (self.trust.judge(key), fingerprint(key)),
            PublicKeyOrCertificate::Certificate(_) => (Verdict::Unknown, "a certificate".into()),
        };
        if verdict == Verdict::Accepted {
            return Ok(true);
        }
        let _ = self.judgement.set(TransportError::Untrusted {
            host: self.host.clone(),
            expected: self.trust.expected(),
            presented,
            revoked: verdict == Verdict::Revoked,
        });
        Ok(false)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let error = match reason {
            DisconnectReason::Error(russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout) => {
                TransportError::timed_out(format!("a sign of life from {}", self.host), self.silence_limit)
            }
            DisconnectReason::Error(error) => TransportError::lost(format!("{}: {error}", self.host)),
            DisconnectReason::ReceivedDisconnect(info) => {
                TransportError::lost(format!("{} said: {}", self.host, printable(&info.message)))
            }
        };
        set_once(&self.end, error);
        Ok(())
    }

    refuse! {
        server_channel_open_forwarded_tcpip(&str, u32, &str, u32);
        server_channel_open_forwarded_streamlocal(&str);
        server_channel_open_agent_forward();
        server_channel_open_session();
        server_channel_open_direct_tcpip(&str, u32, &str, u32);
        server_channel_open_direct_streamlocal(&str);
        server_channel_open_x11(&str, u32);
    }
}

impl Drop for Client {
    /// Also an end without words is an end.
    fn drop(&mut self) {
        set_once(&self.end, TransportError::lost(format!("{}: the connection ended", self.host)));
    }
}
