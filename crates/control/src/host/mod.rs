//! How we reach a host: dial a socket on it, run a command, put a file there.
//!
//! Two implementations of [`Transport`], [`SshTransport`] and [`LocalTransport`] (the machine
//! itself, for a fleet of one), pass the same conformance suite. Nothing here knows what is
//! spoken over a dialled socket.

mod backoff;
mod error;
mod exec;
mod local;
mod ssh;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use backoff::Backoff;
pub use error::TransportError;
pub use exec::{ExecOutput, ExecRequest, ExitStatus, shell_quote};
pub use local::LocalTransport;
pub use ssh::{
    Agent, Destination, ScannedHostKey, SshTarget, SshTransport, expand_home, resolve, resolve_with, scan_host_keys,
};

/// A byte stream to a socket on a host.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// See [`Io`]. Errors of its reads and writes may carry a [`TransportError`]
/// ([`TransportError::of_io`]).
pub type BoxIo = Box<dyn Io>;

/// Which connection a dialled socket uses, so that one kind of traffic never delays another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Short questions and answers. One connection per host, shared.
    Calls,
    /// Long and quiet streams: events, statistics, exec. One connection per host, shared. A reader
    /// that stops reading is cut off with [`TransportError::ReaderTooSlow`].
    Streams,
    /// Floods: followed logs, images. A connection of its own for each stream, and only a few at once.
    /// A reader that stops reading stops the sender (back-pressure); nobody else notices.
    Bulk,
}

/// The state of the connection for calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Not needed so far.
    Idle,
    /// Being opened; `attempt` counts from 1 since the last good connection.
    Connecting {
        /// Number of this attempt.
        attempt: u32,
    },
    /// Open and authenticated.
    Connected,
    /// Ended or not opened. The next call after `retry_in` tries again; calls before that fail at
    /// once with the same error.
    Down {
        /// Why.
        error: TransportError,
        /// Pause from the moment the state was set.
        retry_in: Duration,
    },
}

/// A way to one host. Cheap to share behind an `Arc`; every method has its own deadline.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Connects to the Unix socket `socket` (absolute path) on the host.
    async fn dial(&self, socket: &Path, lane: Lane) -> Result<BoxIo, TransportError>;

    /// Connects from the host to a TCP address that it can reach, one of its containers' for instance, over the connection
    /// for calls. The address refusing is [`TransportError::Refused`]; one that is silent is the caller's deadline.
    async fn dial_tcp(&self, address: SocketAddr) -> Result<BoxIo, TransportError>;

    /// Runs a command to its end. A status other than 0 is not an error here.
    async fn exec(&self, request: ExecRequest) -> Result<ExecOutput, TransportError>;

    /// Writes a file at the absolute `path`, all of it or nothing: a temporary file beside it, then
    /// a rename. `mode` is the file's permission bits.
    async fn upload(&self, path: &str, mode: u32, content: Bytes, deadline: Duration) -> Result<(), TransportError>;

    /// Follows the state of the connection.
    fn link(&self) -> watch::Receiver<LinkState>;

    /// Ends all connections, also those of streams still open. Later calls fail with
    /// [`TransportError::Closed`].
    async fn close(&self);
}

/// Unix socket addresses hold 108 bytes with the final NUL (unix(7)).
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// A socket path as text, or what is wrong with it.
fn socket_path(path: &Path) -> Result<&str, TransportError> {
    let text = path
        .to_str()
        .filter(|text| text.starts_with('/') && text.len() <= SOCKET_PATH_MAX_BYTES && !text.contains('\0'));
    text.ok_or_else(|| {
        TransportError::misconfigured(
            format!("{path:?} is no usable socket path"),
            format!("give an absolute path of at most {SOCKET_PATH_MAX_BYTES} bytes"),
        )
    })
}
