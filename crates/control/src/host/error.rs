//! What can go wrong between us and a host, sorted by what the caller does next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Why a call to a host did not succeed.
///
/// `Lost` and `TimedOut` leave the outcome unknown: the host may still do what it was asked.
/// All others mean that the call had no effect, except `CommandFailed` and `OutputTooLarge`,
/// where a command ran.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The host did not prove the identity we pinned. Nothing was sent to it, not even a user name.
    /// The caller quarantines the host until a person has looked.
    #[error("{host} is not who it should be: it presented {presented}, {}", untrusted_detail(.expected, *.revoked))]
    Untrusted {
        /// `address:port` of the machine that answered (it may be the jump host).
        host: String,
        /// SHA-256 fingerprints that would have been accepted.
        expected: Vec<String>,
        /// What it presented: a fingerprint, or the key types it offers when none of them is pinned.
        presented: String,
        /// The presented key is marked `@revoked`.
        revoked: bool,
    },
    /// The host knows us but lets us not in.
    #[error("{host} refused the user {user:?} (tried: {})", tried_detail(.tried))]
    Unauthorised {
        /// `address:port`.
        host: String,
        /// The user we tried to be.
        user: String,
        /// The keys that were offered, as fingerprints.
        tried: Vec<String>,
    },
    /// No connection came about. Worth another try later.
    #[error("cannot reach {host}: {detail}")]
    Unreachable {
        /// `address:port`.
        host: String,
        /// The reason in words.
        detail: String,
    },
    /// No answer in time. The outcome is unknown.
    #[error("no answer in {after:?}: {what}")]
    TimedOut {
        /// What we waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// Nobody answers at the socket: it is missing, nobody listens, or the user may not open it
    /// (SSH does not say which).
    #[error("nobody answers at the socket {}: is the service running, and may this user open it?", .path.display())]
    SocketMissing {
        /// The socket on the host.
        path: PathBuf,
    },
    /// Nobody answers at a TCP address: the host could not connect to it.
    #[error("nobody answers at {address}")]
    Refused {
        /// The address, as the host sees it.
        address: SocketAddr,
    },
    /// The host's SSH server forbids what we need.
    #[error("the host forbids it: {detail}")]
    Forbidden {
        /// What is forbidden, and what would help.
        detail: String,
    },
    /// The connection ended in the middle. The outcome is unknown.
    #[error("connection lost: {detail}")]
    Lost {
        /// The reason in words.
        detail: String,
    },
    /// The settings cannot work. A person must change them; trying again does not help.
    #[error("{problem}; {next_step}")]
    Misconfigured {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        next_step: String,
    },
    /// A command printed more than the caller allows. It was killed.
    #[error("the command printed more than {limit_bytes} bytes")]
    OutputTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// A command that belongs to the transport itself (an upload) failed on the host.
    #[error("{what} failed: {detail}")]
    CommandFailed {
        /// What was tried.
        what: String,
        /// What the command said.
        detail: String,
    },
    /// The reader of a stream was so slow that its buffer ran full; the stream was cut.
    #[error("the stream was cut: its reader left more than {limit_bytes} bytes unread")]
    ReaderTooSlow {
        /// The limit.
        limit_bytes: usize,
    },
    /// The transport was closed by its owner.
    #[error("the transport is closed")]
    Closed,
}

fn untrusted_detail(expected: &[String], revoked: bool) -> String {
    if revoked {
        return "which is revoked".into();
    }
    format!("expected {}", expected.join(" or "))
}

fn tried_detail(tried: &[String]) -> String {
    if tried.is_empty() {
        return "no key".into();
    }
    tried.join(", ")
}

impl TransportError {
    pub(super) fn misconfigured(problem: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::Misconfigured { problem: problem.into(), next_step: next_step.into() }
    }

    pub(super) fn timed_out(what: impl Into<String>, after: Duration) -> Self {
        Self::TimedOut { what: what.into(), after }
    }

    pub(super) fn lost(detail: impl Into<String>) -> Self {
        Self::Lost { detail: detail.into() }
    }

    /// True when the host may or may not have done what it was asked.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Lost { .. } | Self::ReaderTooSlow { .. } => true,
            Self::Untrusted { .. }
            | Self::Unauthorised { .. }
            | Self::Unreachable { .. }
            | Self::SocketMissing { .. }
            | Self::Refused { .. }
            | Self::Forbidden { .. }
            | Self::Misconfigured { .. }
            | Self::OutputTooLarge { .. }
            | Self::CommandFailed { .. }
            | Self::Closed => false,
        }
    }

    /// The transport's error inside an I/O error of a dialled stream, if there is one.
    pub fn of_io(error: &io::Error) -> Option<&TransportError> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<TransportError> for io::Error {
    fn from(error: TransportError) -> Self {
        let kind = match &error {
            TransportError::TimedOut { .. } => io::ErrorKind::TimedOut,
            TransportError::Lost { .. } | TransportError::ReaderTooSlow { .. } | TransportError::Closed => {
                io::ErrorKind::ConnectionReset
            }
            TransportError::SocketMissing { .. } => io::ErrorKind::NotFound,
            TransportError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            TransportError::Untrusted { .. }
            | TransportError::Unauthorised { .. }
            | TransportError::Forbidden { .. } => io::ErrorKind::PermissionDenied,
            TransportError::Unreachable { .. } => io::ErrorKind::HostUnreachable,
            TransportError::Misconfigured { .. }
            | TransportError::OutputTooLarge { .. }
            | TransportError::CommandFailed { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
