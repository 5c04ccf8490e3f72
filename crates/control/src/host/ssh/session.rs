//! Sessions of a connection: commands, and the relay for hosts that forbid forwarding to sockets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::channel_io::{ChannelIo, Keep, Lag, Relay};
use super::connection::{Connection, Ended, Forwarding, Open, OpenError, last_words, printable};
use crate::host::exec::OutputBuffer;
use crate::host::{ExecOutput, ExecRequest, ExitStatus, TransportError, shell_quote};

/// How long a killed command may take to go before its place counts as free.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// A host that refuses a session although we have no other is asked again this often: it may still be
/// clearing up the one before.
const LONELY_REFUSALS_MAX: u32 = 5;
const LONELY_PAUSE: Duration = Duration::from_millis(100);
/// Status of a shell that does not find the program.
const STATUS_NOT_FOUND: u32 = 127;

impl Connection {
    /// Connects to a socket on the host. `keep` lives as long as the stream.
    ///
    /// OpenSSH answers alike whether the socket is missing or forwarding to it is forbidden. Until one
    /// attempt has shown which, a look at the socket decides whether a relay is worth trying.
    pub(super) async fn dial(self: &Arc<Self>, path: &str, lag: Lag, keep: Keep) -> Result<ChannelIo, TransportError> {
        if self.forwarding.get() == Some(&Forwarding::Forbidden) {
            return self.dial_relay(path, lag, keep).await;
        }
        let reason = match self.open(Open::Socket(path.to_owned())).await {
            Ok(channel) => {
                let _ = self.forwarding.set(Forwarding::Allowed);
                let (read_half, write_half) = channel.split();
                let halves = (read_half, Arc::new(write_half));
                let ended = self.ended.clone();
                return Ok(ChannelIo::new(halves, ended, lag, keep, None));
            }
            Err(OpenError::Failed(error)) => return Err(error),
            Err(OpenError::Refused(reason)) => reason,
        };
        let relay = match (reason, self.forwarding.get()) {
            (ChannelOpenFailure::ConnectFailed, Some(_)) => false,
            (ChannelOpenFailure::ConnectFailed, None) => self.sees_socket(path).await?,
            (ChannelOpenFailure::AdministrativelyProhibited | ChannelOpenFailure::UnknownChannelType, _) => true,
            (reason, _) => {
                return Err(TransportError::Forbidden {
                    detail: format!("{} refused a channel: {reason:?}", self.target.name()),
                });
            }
        };
        if !relay {
            return Err(TransportError::SocketMissing { path: path.into() });
        }
        self.dial_relay(path, lag, keep).await
    }

    /// Connects to a TCP address from the host.
    pub(super) async fn dial_tcp(self: &Arc<Self>, address: SocketAddr) -> Result<ChannelIo, TransportError> {
        let reason = match self.open(Open::Tcp(address.ip().to_string(), address.port())).await {
            Ok(channel) => {
                let (read_half, write_half) = channel.split();
                let halves = (read_half, Arc::new(write_half));
                return Ok(ChannelIo::new(halves, self.ended.clone(), Lag::Cut, Keep::default(), None));
            }
            Err(OpenError::Failed(error)) => return Err(error),
            Err(OpenError::Refused(reason)) => reason,
        };
        Err(match reason {
            ChannelOpenFailure::ConnectFailed => TransportError::Refused { address },
            ChannelOpenFailure::AdministrativelyProhibited | ChannelOpenFailure::UnknownChannelType => {
                TransportError::Forbidden {
                    detail: "connections to its containers; set AllowTcpForwarding local (or yes) in its sshd_config"
                        .into(),
                }
            }
            reason => {
                TransportError::Forbidden { detail: format!("{} refused a channel: {reason:?}", self.target.name()) }
            }
        })
    }

    /// Whether the path is a socket that this user may open.
    async fn sees_socket(self: &Arc<Self>, path: &str) -> Result<bool, TransportError> {
        let mut request = ExecRequest::new(["test", "-S", path, "-a", "-r", path, "-a", "-w", path]);
        request.deadline = self.target.open_timeout;
        let look = async {
            let session = self.open_session().await?;
            self.run(session, &request).await
        };
        match timeout(request.deadline, look).await {
            Ok(Ok(output)) => Ok(output.status.success()),
            // Without commands there is no relay either.
            Ok(Err(TransportError::Forbidden { .. })) => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(TransportError::timed_out(format!("{} looking at {path}", self.target.name()), request.deadline))
            }
        }
    }

    async fn dial_relay(self: &Arc<Self>, path: &str, lag: Lag, mut keep: Keep) -> Result<ChannelIo, TransportError> {
        let limit = self.target.open_timeout;
        let start = async {
            let place = Arc::clone(&self.relays).acquire_owned().await;
            let place = place.map_err(|_| TransportError::Closed)?;
            let mut session = self.open_session().await?;
            // `env`, for the login shell may not be a POSIX one.
            let socket = shell_quote(&format!("DOCKER_HOST=unix://{path}"));
            let command = format!("env {socket} docker system dial-stdio");
            session.start(command, &mut self.ended.clone()).await?;
            Ok((session, place))
        };
        let (mut session, place) = timeout(limit, start).await.unwrap_or_else(|_| {
            let what = format!("{} starting a relay", self.target.name());
            Err(TransportError::timed_out(what, limit))
        })?;
        let Some(read_half) = session.read_half.take() else {
            return Err(TransportError::lost("the relay ended at once"));
        };
        let halves = (read_half, Arc::clone(&session.write_half));
        keep._relay_place = Some(place);
        keep._session_place = session.place.take();
        let socket = PathBuf::from(path);
        let relay = Relay {
            failure: Box::new(move |status, complaint| relay_failure(&socket, status, complaint)),
            forwarding: Arc::clone(&self.forwarding),
        };
        let ended = self.ended.clone();
        Ok(ChannelIo::new(halves, ended, lag, keep, Some(relay)))
    }

    /// Waits for a free place and opens a session. Learns a host's lower limit by being refused.
    pub(super) async fn open_session(self: &Arc<Self>) -> Result<Session, TransportError> {
        let mut lonely_refusals = 0;
        loop {
            let permit = Arc::clone(&self.sessions).acquire_owned().await;
            let permit = permit.map_err(|_| TransportError::Closed)?;
            let reason = match self.open(Open::Session).await {
                Ok(channel) => return Ok(Session::new(channel, permit)),
                Err(OpenError::Failed(error)) => return Err(error),
                Err(OpenError::Refused(reason)) => reason,
            };
            if self.give_up_place(permit) {
                continue;
            }
            lonely_refusals += 1;
            if lonely_refusals > LONELY_REFUSALS_MAX {
                return Err(TransportError::Forbidden {
                    detail: format!(
                        "{} refuses sessions ({reason:?}); is MaxSessions 0 in its sshd_config?",
                        self.target.name()
                    ),
                });
            }
            sleep(LONELY_PAUSE).await;
        }
    }

    /// After a refusal: if others hold places, this one is one too many for the host.
    fn give_up_place(&self, permit: OwnedSemaphorePermit) -> bool {
        let mut limit = self.sessions_limit.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = limit.saturating_sub(self.sessions.available_permits());
        if taken < 2 {
            return false;
        }
        *limit -= 1;
        permit.forget();
        true
    }

    /// Runs a command in an open session. Cancelling it kills the command.
    pub(super) async fn run(&self, mut session: Session, request: &ExecRequest) -> Result<ExecOutput, TransportError> {
        let mut ended = self.ended.clone();
        session.start(request.command_line(), &mut ended).await?;
        let write_half = Arc::clone(&session.write_half);
        let feed = async {
            // A command that ends without its input is no failure; its status tells.
            if write_half.data_bytes(request.stdin.clone()).await.is_ok() {
                let _ = write_half.eof().await;
            }
        };
        let output = OutputBuffer::new(request.output_limit_bytes);
        let collect = session.collect(output, &mut ended);
        tokio::pin!(feed, collect);
        tokio::select! {
            output = &mut collect => output,
            () = &mut feed => collect.await,
        }
    }
}

fn relay_failure(socket: &Path, status: u32, complaint: &str) -> TransportError {
    if status == STATUS_NOT_FOUND {
        return TransportError::Forbidden {
            detail: "forwarding to sockets; set AllowStreamLocalForwarding yes in its \
                     sshd_config, or install the docker program as a relay"
                .into(),
        };
    }
    // The docker program's words since 18.09.
    if complaint.contains("failed to open the raw stream connection") {
        return TransportError::SocketMissing { path: socket.to_owned() };
    }
    TransportError::CommandFailed {
        what: "docker system dial-stdio".into(),
        detail: format!("status {status}: {}", printable(complaint)),
    }
}

/// A session on the host and its place. Dropping it kills what runs in it (where the server obeys:
/// OpenSSH does not for root, there the command's own time limit ends it) and closes it.
pub(super) struct Session {
    /// Gone when the host has closed the session, or a stream has taken it over.
    read_half: Option<ChannelReadHalf>,
    write_half: Arc<ChannelWriteHalf<Msg>>,
    place: Option<OwnedSemaphorePermit>,
}

impl Session {
    fn new(channel: Channel<Msg>, place: OwnedSemaphorePermit) -> Self {
        let (read_half, write_half) = channel.split();
        Self { read_half: Some(read_half), write_half: Arc::new(write_half), place: Some(place) }
    }

    /// The next message; `None` after the host closed the session.
    async fn next(&mut self, ended: &mut Ended) -> Result<Option<ChannelMsg>, TransportError> {
        let Some(read_half) = &mut self.read_half else {
            return Ok(None);
        };
        match read_half.wait().await {
            Some(ChannelMsg::Close) => {
                self.read_half = None;
                Ok(None)
            }
            Some(message) => Ok(Some(message)),
            None => {
                self.read_half = None;
                Err(last_words(ended).await)
            }
        }
    }

    /// Asks for a command and waits for the host's word that it begins.
    async fn start(&mut self, command: String, ended: &mut Ended) -> Result<(), TransportError> {
        if self.write_half.exec(true, command).await.is_err() {
            return Err(last_words(ended).await);
        }
        loop {
            match self.next(ended).await? {
                Some(ChannelMsg::Success) => return Ok(()),
                Some(ChannelMsg::Failure) | None => {
                    return Err(TransportError::Forbidden {
                        detail: "the host does not run commands for this user".into(),
                    });
                }
                Some(_) => {}
            }
        }
    }

    async fn collect(&mut self, mut output: OutputBuffer, ended: &mut Ended) -> Result<ExecOutput, TransportError> {
        let mut status = None;
        while let Some(message) = self.next(ended).await? {
            match message {
                ChannelMsg::Data { data } => output.push(&data, false)?,
                ChannelMsg::ExtendedData { data, .. } => output.push(&data, true)?,
                ChannelMsg::ExitStatus { exit_status } => {
                    status = Some(ExitStatus::Exited(exit_status));
                }
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    status = Some(ExitStatus::Signalled(signal_text(&signal_name)));
                }
                _ => {}
            }
        }
        status
            .map(|status| output.finish(status))
            .ok_or_else(|| TransportError::lost("the session ended without an exit status"))
    }
}

impl Drop for Session {
    /// The place is given back when the command is gone, not before: the host counts it until then.
    fn drop(&mut self) {
        let Some(mut read_half) = self.read_half.take() else {
            return;
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let write_half = Arc::clone(&self.write_half);
        let place = self.place.take();
        runtime.spawn(async move {
            let gone = async {
                let _ = write_half.signal(Sig::KILL).await;
                while !matches!(read_half.wait().await, Some(ChannelMsg::Close) | None) {}
            };
            if timeout(KILL_GRACE, gone).await.is_err() {
                // Unread data must not hold up the close.
                drop(read_half);
                let _ = write_half.close().await;
            }
            drop(place);
        });
    }
}

fn signal_text(signal: &Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => return printable(name),
    }
    .into()
}
