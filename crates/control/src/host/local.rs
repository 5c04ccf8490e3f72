//! The machine the controller itself runs on, without SSH.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::fs;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::exec::{OutputBuffer, upload_temporary};
use super::{BoxIo, ExecOutput, ExecRequest, ExitStatus, Lane, LinkState, Transport, TransportError, socket_path};

/// A Unix socket answers at once or its listener's queue is full.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// Reaches the local machine.
pub struct LocalTransport {
    link: watch::Sender<LinkState>,
    closed: CancellationToken,
}

impl LocalTransport {
    /// A transport to this machine; it needs no connecting.
    pub fn new() -> Self {
        Self { link: watch::Sender::new(LinkState::Connected), closed: CancellationToken::new() }
    }

    /// Runs `work` until its deadline, or until the transport is closed.
    async fn bounded<T>(
        &self,
        what: &str,
        deadline: Duration,
        work: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(TransportError::Closed),
            result = timeout(deadline, work) => {
                result.unwrap_or_else(|_| Err(TransportError::timed_out(what, deadline)))
            }
        }
    }
}

impl Default for LocalTransport {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Transport for LocalTransport {
    async fn dial(&self, socket: &Path, _lane: Lane) -> Result<BoxIo, TransportError> {
        socket_path(socket)?;
        let connect = async {
            match UnixStream::connect(socket).await {
                Ok(stream) => Ok(stream),
                Err(error) => Err(dial_error(socket, &error)),
            }
        };
        let stream = self.bounded("dial", DIAL_DEADLINE, connect).await?;
        let closed = self.closed.clone().cancelled_owned();
        Ok(Box::new(until::Until::new(stream, closed)))
    }

    async fn dial_tcp(&self, address: SocketAddr) -> Result<BoxIo, TransportError> {
        let connect = async { TcpStream::connect(address).await.map_err(|error| tcp_error(address, &error)) };
        let stream = self.bounded("dial", DIAL_DEADLINE, connect).await?;
        let closed = self.closed.clone().cancelled_owned();
        Ok(Box::new(until::Until::new(stream, closed)))
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, TransportError> {
        request.check()?;
        // Not the arguments: they may hold what no log should.
        let what = format!("running {}", request.program());
        self.bounded(&what, request.deadline, run(&request)).await
    }

    async fn upload(&self, path: &str, mode: u32, content: Bytes, deadline: Duration) -> Result<(), TransportError> {
        let temporary = upload_temporary(path)?;
        let write = async {
            let guard = RemoveOnDrop(&temporary);
            let result = write_and_rename(&temporary, path, mode, &content).await;
            drop(guard);
            result.map_err(|error| TransportError::CommandFailed {
                what: format!("upload to {path}"),
                detail: error.to_string(),
            })
        };
        self.bounded(&format!("upload to {path}"), deadline, write).await
    }

    fn link(&self) -> watch::Receiver<LinkState> {
        self.link.subscribe()
    }

    async fn close(&self) {
        self.closed.cancel();
        self.link.send_replace(LinkState::Down { error: TransportError::Closed, retry_in: Duration::MAX });
    }
}

fn dial_error(socket: &Path, error: &io::Error) -> TransportError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return TransportError::misconfigured(
            format!("this user may not open {}", socket.display()),
            "run as root, or add the user to the socket's group (for Docker: docker)",
        );
    }
    TransportError::SocketMissing { path: socket.to_owned() }
}

fn tcp_error(address: SocketAddr, error: &io::Error) -> TransportError {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    match error.kind() {
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable | TimedOut => {
            TransportError::Refused { address }
        }
        // Such as no file descriptor left: that is our own trouble.
        _ => TransportError::lost(error.to_string()),
    }
}

/// Ends the whole process group of a command that did not end by itself.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // `id` is gone once the child was waited for; then nothing is left to kill.
        let pid = self.0.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

async fn run(request: &ExecRequest) -> Result<ExecOutput, TransportError> {
    let program = request.program();
    let spawned = Command::new(program)
        .args(request.argv.iter().skip(1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => Group(child),
        Err(error) => return not_started(program, &error),
    };
    let stdin = child.0.stdin.take();
    let mut stdout = child.0.stdout.take();
    let mut stderr = child.0.stderr.take();
    let mut output = OutputBuffer::new(request.output_limit_bytes);

    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that does not want its input closes it; that is its right.
            let _ = stdin.write_all(&request.stdin).await;
        }
    };
    let collect = async {
        let mut out_chunk = vec![0; 16 << 10];
        let mut err_chunk = vec![0; 16 << 10];
        while stdout.is_some() || stderr.is_some() {
            tokio::select! {
                data = read_some(&mut stdout, &mut out_chunk), if stdout.is_some() => {
                    output.push(data, false)?;
                }
                data = read_some(&mut stderr, &mut err_chunk), if stderr.is_some() => {
                    output.push(data, true)?;
                }
            }
        }
        Ok(())
    };
    // The output's end is the command's end; unread input must not hold it up.
    {
        tokio::pin!(feed, collect);
        tokio::select! {
            collected = &mut collect => collected,
            () = &mut feed => collect.await,
        }?;
    }
    let status = child.0.wait().await;
    let status = status.map_err(|error| TransportError::lost(error.to_string()))?;
    Ok(output.finish(exit_status(status)))
}

/// What a shell would say, so that both transports answer alike.
fn not_started(program: &str, error: &io::Error) -> Result<ExecOutput, TransportError> {
    let status = match error.kind() {
        io::ErrorKind::NotFound => 127,
        io::ErrorKind::PermissionDenied => 126,
        _ => return Err(TransportError::lost(format!("{program}: {error}"))),
    };
    let mut output = OutputBuffer::new(usize::MAX);
    output.push(format!("{program}: {error}\n").as_bytes(), true)?;
    Ok(output.finish(ExitStatus::Exited(status)))
}

/// Reads a piece; at the end (or on an error, which for a pipe is the same) drops the reader.
async fn read_some<'a, R: AsyncRead + Unpin>(reader: &mut Option<R>, chunk: &'a mut [u8]) -> &'a [u8] {
    let count = match reader {
        Some(open) => open.read(chunk).await.unwrap_or(0),
        None => 0,
    };
    if count == 0 {
        *reader = None;
    }
    chunk.get(..count).unwrap_or_default()
}

fn exit_status(status: std::process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Exited(code.unsigned_abs()),
        (None, Some(signal)) => ExitStatus::Signalled(signal_name(signal)),
        (None, None) => ExitStatus::Signalled("unknown".into()),
    }
}

/// Names as SSH gives them (RFC 4254 6.10); others by number.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        11 => "SEGV",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        other => return other.to_string(),
    };
    name.into()
}

struct RemoveOnDrop<'a>(&'a str);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        // After the rename it is gone already.
        let _ = std::fs::remove_file(self.0);
    }
}

async fn write_and_rename(temporary: &str, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(temporary).await?;
    file.write_all(content).await?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777)).await?;
    file.sync_all().await?;
    fs::rename(temporary, path).await
}

/// A stream that ends when its transport is closed.
mod until {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
    use tokio_util::sync::WaitForCancellationFutureOwned;

    use super::TransportError;

    pub(super) struct Until<S> {
        stream: S,
        closed: Pin<Box<WaitForCancellationFutureOwned>>,
        done: bool,
    }

    impl<S> Until<S> {
        pub(super) fn new(stream: S, closed: WaitForCancellationFutureOwned) -> Self {
            Self { stream, closed: Box::pin(closed), done: false }
        }

        fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
            self.done = self.done || self.closed.as_mut().poll(cx).is_ready();
            if self.done {
                return Err(TransportError::Closed.into());
            }
            Ok(())
        }
    }

    impl<S: AsyncRead + Unpin> AsyncRead for Until<S> {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            self.check(cx)?;
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Until<S> {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.check(cx)?;
            Pin::new(&mut self.stream).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }
}
