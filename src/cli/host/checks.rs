//! What a machine needs to be a host: one list, for `host add` and `host check`.

use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::cli::{
    get::now,
    printer::{Printer, Tone},
    text::clean,
};
use roadstead_control::{
    control::connect::Connection,
    engine::{EngineError, EngineInfo},
    host::{ExecRequest, Transport, TransportError},
};
use roadstead_core::model::{name::HostName, observed::EngineIdentity};

/// One question to the host may take so long.
const DEADLINE: Duration = Duration::from_secs(15);
/// A clock may differ by so much: health checks and events carry the host's time.
const MAX_SKEW_MS: u64 = 5_000;
/// Less free room than this, and images soon do not fit.
const MIN_FREE_MIB: u64 = 1_024;
/// Docker Engine 20.10 is the oldest that is tested.
const MIN_ENGINE: (u32, u32) = (20, 10);

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// Stable, for scripts.
    pub name: &'static str,
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Check {
    fn good(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, ok: true, detail: detail.into(), next: None }
    }

    pub fn bad(name: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, ok: false, detail: detail.into(), next: Some(next.into()) }
    }
}

/// What was found out about a host.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    pub checks: Vec<Check>,
    /// Who answered, with its machine id, when it could be asked.
    pub identity: Option<EngineIdentity>,
    /// The machine's own name.
    pub hostname: Option<String>,
}

impl Findings {
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// Asks everything; goes on after a failure as far as that makes sense.
pub(super) async fn examine(connection: &Connection) -> Findings {
    let mut findings = Findings::default();
    let transport = &connection.transport;
    let clock = match clock(transport).await {
        Ok(clock) => clock,
        Err(error) => {
            findings.checks.push(Check::bad("login", error.to_string(), login_advice(&error)));
            return findings;
        }
    };
    findings.checks.push(Check::good("login", "commands run"));
    findings.checks.push(clock);
    findings.hostname = output(transport, &["hostname"]).await.ok();
    let identity = match connection.engine.identify().await {
        Ok(identity) => identity,
        Err(error) => {
            findings.checks.push(Check::bad("docker", error.to_string(), engine_advice(&error)));
            return findings;
        }
    };
    findings.checks.push(version(&identity));
    let machine_id = output(transport, &["cat", "/etc/machine-id"]).await.ok().filter(|id| !id.is_empty());
    findings.identity = Some(EngineIdentity { machine_id, ..identity });
    match connection.engine.info().await {
        Ok(info) => findings.checks.extend(room(transport, &info).await),
        Err(error) => findings.checks.push(Check::bad("disk", error.to_string(), engine_advice(&error))),
    }
    findings
}

/// Same machine, or a copy of it?
pub(super) fn duplicate(identity: &EngineIdentity, others: &[(HostName, EngineIdentity)]) -> Check {
    let machine = identity.machine_id.as_deref();
    let twin = others.iter().find_map(|(name, other)| {
        let same_machine = machine.is_some() && other.machine_id.as_deref() == machine;
        let same_engine = !identity.engine_id.is_empty() && identity.engine_id == other.engine_id;
        match (same_engine, same_machine) {
            (false, false) => None,
            (true, true) => Some((name, "engine id and machine id")),
            (true, false) => Some((name, "engine id")),
            (false, true) => Some((name, "machine id")),
        }
    });
    match twin {
        None => Check::good("identity", "unique among the hosts that answered"),
        Some((name, what)) => Check::bad(
            "identity",
            format!("the same {what} as host {name}: the same machine, or a clone of it"),
            "on a clone: `rm /etc/machine-id /etc/docker/key.json /var/lib/docker/engine-id; systemd-machine-id-setup; systemctl restart docker`, then try again",
        ),
    }
}

async fn output(transport: &Arc<dyn Transport>, argv: &[&str]) -> Result<String, TransportError> {
    let mut request = ExecRequest::new(argv.iter().copied());
    request.deadline = DEADLINE;
    request.output_limit_bytes = 64 << 10;
    let output = transport.exec(request).await?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(TransportError::CommandFailed {
            what: argv.join(" "),
            detail: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

/// The clock's difference; an error when not even this command runs.
async fn clock(transport: &Arc<dyn Transport>) -> Result<Check, TransportError> {
    // Connects first, so that connecting does not count as a difference.
    output(transport, &["true"]).await?;
    let before = now();
    let text = output(transport, &["date", "+%s"]).await?;
    let after = now();
    let Ok(seconds) = text.parse::<u64>() else {
        return Ok(Check::bad("clock", format!("`date +%s` printed {text:?}"), "the host needs a POSIX `date`"));
    };
    // Whole seconds: the host's time is somewhere within this one.
    let (earliest, latest) = (seconds.saturating_mul(1000), seconds.saturating_add(1).saturating_mul(1000));
    let skew_ms = before.0.saturating_sub(latest).max(earliest.saturating_sub(after.0));
    Ok(match skew_ms > MAX_SKEW_MS {
        false => Check::good("clock", "in step"),
        true => {
            Check::bad("clock", format!("{} s off", skew_ms / 1000), "set it: `timedatectl set-ntp true` on the host")
        }
    })
}

fn version(identity: &EngineIdentity) -> Check {
    let mut numbers = identity.engine_version.split('.').map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().flatten().unwrap_or(0), numbers.next().flatten().unwrap_or(0));
    let detail = format!(
        "Docker Engine {} (API {}), {} CPUs, {} MiB, {}",
        identity.engine_version, identity.api_version, identity.cpus, identity.memory_mib, identity.architecture
    );
    match version >= MIN_ENGINE {
        true => Check::good("docker", detail),
        false => {
            Check::bad("docker", detail, format!("install Docker Engine {}.{} or later", MIN_ENGINE.0, MIN_ENGINE.1))
        }
    }
}

async fn room(transport: &Arc<dyn Transport>, info: &EngineInfo) -> Vec<Check> {
    let table = output(transport, &["df", "-Pk", &info.data_root]).await;
    let free_kib =
        table.as_ref().ok().and_then(|table| table.lines().nth(1)?.split_whitespace().nth(3)?.parse::<u64>().ok());
    let disk = match (free_kib.map(|kib| kib / 1024), table) {
        (Some(free), _) if free >= MIN_FREE_MIB => {
            Check::good("disk", format!("{free} MiB free in {}", info.data_root))
        }
        (Some(free), _) => Check::bad(
            "disk",
            format!("only {free} MiB free in {}", info.data_root),
            "make room: `docker system prune` on the host removes what nothing uses",
        ),
        (None, Ok(_)) => {
            Check::bad("disk", format!("free room in {} is unknown", info.data_root), "the host needs a POSIX `df`")
        }
        (None, Err(error)) => Check::bad("disk", error.to_string(), format!("may this user see {}?", info.data_root)),
    };
    let storage = match info.storage_driver.as_str() {
        "vfs" => Check::bad(
            "storage",
            "storage driver vfs: every container is a full copy",
            "use overlay2: see the engine's log for why it does not",
        ),
        driver => Check::good("storage", format!("storage driver {driver}")),
    };
    vec![disk, storage]
}

/// What to do when no command runs.
pub(super) fn login_advice(error: &TransportError) -> String {
    match error {
        TransportError::Untrusted { .. } => "if the machine was installed again, compare its key there (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`) and put the new one into the manifest's hostKey".to_owned(),
        TransportError::Unauthorised { user, .. } => format!("let a key of yours in: `ssh-copy-id {user}@HOST`, or name another with identityFile (`--identity` of `host add`)"),
        TransportError::Unreachable { .. } | TransportError::TimedOut { .. } | TransportError::Lost { .. } => "is the machine on, is its SSH server running, is the address right, does a firewall allow the port?".to_owned(),
        TransportError::Forbidden { .. } => "the SSH server must allow commands and forwarding to sockets (AllowStreamLocalForwarding, no ForceCommand)".to_owned(),
        TransportError::CommandFailed { .. } => "the login shell must be able to run commands".to_owned(),
        TransportError::Misconfigured { next_step, .. } => next_step.clone(),
        TransportError::SocketMissing { .. } | TransportError::Refused { .. } | TransportError::OutputTooLarge { .. } | TransportError::ReaderTooSlow { .. } | TransportError::Closed => "try again".to_owned(),
    }
}

/// What to do when the engine does not answer.
fn engine_advice(error: &EngineError) -> String {
    const RIGHTS: &str = "install Docker (`apt install docker.io`), start it (`systemctl enable --now docker`), and let this user use it (`usermod -aG docker USER`)";
    match error {
        EngineError::Unreachable(TransportError::SocketMissing { .. }) => RIGHTS.to_owned(),
        EngineError::Unreachable(error) => login_advice(error),
        EngineError::UnsupportedVersion { .. } => {
            format!("install Docker Engine {}.{} or later", MIN_ENGINE.0, MIN_ENGINE.1)
        }
        EngineError::OutcomeUnknown { .. } => {
            "does the engine hang? `systemctl status docker` and `journalctl -u docker` on the host".to_owned()
        }
        EngineError::NotFound { .. }
        | EngineError::NameTaken { .. }
        | EngineError::Conflict { .. }
        | EngineError::PortTaken { .. }
        | EngineError::ImageMissing { .. }
        | EngineError::RegistryUnavailable { .. }
        | EngineError::Unauthorised { .. }
        | EngineError::RateLimited { .. }
        | EngineError::OutOfSpace { .. }
        | EngineError::Refused { .. }
        | EngineError::ServerError { .. }
        | EngineError::Malformed { .. } => "see `journalctl -u docker` on the host".to_owned(),
    }
}

/// `✓ docker   Docker Engine 20.10.24 …`
pub(super) fn print(printer: &Printer, host: &str, checks: &[Check]) -> String {
    let mut lines = vec![printer.tinted(Tone::Strong, &clean(host))];
    for check in checks {
        let (sign, tone) = if check.ok { ("✓", Tone::Good) } else { ("✗", Tone::Bad) };
        lines.push(format!("  {} {:<9} {}", printer.tinted(tone, sign), check.name, clean(&check.detail)));
        if let Some(next) = &check.next {
            lines.push(format!("              → {}", clean(next)));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(engine: &str, machine: Option<&str>, version: &str) -> EngineIdentity {
        EngineIdentity {
            engine_id: engine.to_owned(),
            machine_id: machine.map(str::to_owned),
            engine_version: version.to_owned(),
            ..EngineIdentity::default()
        }
    }

    #[test]
    fn clones_are_found_by_either_id() {
        let others = [(HostName::from("a"), identity("E1", Some("M1"), ""))];
        for (mine, unique) in [
            (identity("E2", Some("M2"), ""), true),
            (identity("E1", Some("M2"), ""), false),
            (identity("E2", Some("M1"), ""), false),
            (identity("E2", None, ""), true),
            (identity("", Some("M2"), ""), true),
        ] {
            assert_eq!(duplicate(&mine, &others).ok, unique, "{mine:?}");
        }
    }

    #[test]
    fn old_engines_are_refused() {
        for (text, ok) in [
            ("20.10.24+dfsg1", true),
            ("28.0.1", true),
            ("20.9.0", false),
            ("19.03.15", false),
            ("", false),
            ("x", false),
        ] {
            assert_eq!(version(&identity("", None, text)).ok, ok, "{text}");
        }
    }
}
