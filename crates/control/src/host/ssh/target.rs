//! Where a host is and how to prove who is who: plain settings, filled by the caller.

use std::path::PathBuf;
use std::time::Duration;

/// Which ssh-agent signs for us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Agent {
    /// None.
    #[default]
    Off,
    /// The one that `SSH_AUTH_SOCK` names.
    Environment,
    /// The one at this socket.
    Socket(PathBuf),
}

impl Agent {
    /// The environment's, where there is one.
    pub fn of_environment() -> Self {
        match std::env::var_os("SSH_AUTH_SOCK") {
            Some(_) => Self::Environment,
            None => Self::Off,
        }
    }
}

/// An SSH server and everything needed to talk to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshTarget {
    /// Name or IP address.
    pub address: String,
    /// TCP port.
    pub port: u16,
    /// User on the host.
    pub user: String,
    /// Private key, or a public key whose private half the agent holds. Without it, the agent's keys are tried.
    pub identity_file: Option<PathBuf>,
    /// Where keys may come from besides the file.
    pub agent: Agent,
    /// Accepted host keys, as in a `.pub` file: `ssh-ed25519 AAAA…`.
    pub host_keys: Vec<String>,
    /// Files in OpenSSH's known_hosts format; their entries for this host are accepted too, and their
    /// `@revoked` lines are always heeded. Certificates are not supported.
    pub known_hosts: Vec<PathBuf>,
    /// The name to look up in `known_hosts` instead of the address (as OpenSSH's HostKeyAlias).
    pub host_key_alias: Option<String>,
    /// The machine to go through, itself checked and authenticated in full.
    pub proxy_jump: Option<Box<SshTarget>>,
    /// Limit for connecting and authenticating, jump included.
    pub connect_timeout: Duration,
    /// Limit for opening a channel on a connection that stands.
    pub open_timeout: Duration,
    /// Silence after which the host is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// That many unanswered questions are allowed; with one more interval the connection is dead.
    pub keepalive_max: usize,
    /// Commands at once on one connection. OpenSSH's MaxSessions is 10 by default; a lower one is noticed and obeyed.
    pub max_sessions: usize,
    /// Bulk streams at once, each with a connection of its own.
    pub max_bulk: usize,
    /// First pause after a failed attempt.
    pub backoff_base: Duration,
    /// Longest pause between attempts.
    pub backoff_cap: Duration,
}

impl Default for SshTarget {
    fn default() -> Self {
        Self {
            address: String::new(),
            port: 22,
            user: "root".into(),
            identity_file: None,
            agent: Agent::Off,
            host_keys: Vec::new(),
            known_hosts: Vec::new(),
            host_key_alias: None,
            proxy_jump: None,
            connect_timeout: Duration::from_secs(10),
            open_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(3),
            keepalive_max: 2,
            max_sessions: 8,
            max_bulk: 4,
            backoff_base: Duration::from_millis(200),
            backoff_cap: Duration::from_secs(5),
        }
    }
}

impl SshTarget {
    /// `address:port`, for messages.
    pub fn name(&self) -> String {
        match self.address.contains(':') {
            true => format!("[{}]:{}", self.address, self.port),
            false => format!("{}:{}", self.address, self.port),
        }
    }

    /// The longest time a silent host stays unnoticed.
    pub fn keepalive_limit(&self) -> Duration {
        let questions = u32::try_from(self.keepalive_max).unwrap_or(u32::MAX);
        self.keepalive_interval.saturating_mul(questions.saturating_add(1))
    }
}
