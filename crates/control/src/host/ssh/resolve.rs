//! From what a person types (`user@box`, an alias in ~/.ssh/config) to a full target.
//!
//! The `ssh` program itself resolves its configuration (`ssh -G`, which connects to nothing), so
//! `Match`, `Include` and patterns mean exactly what they mean to the person's own ssh.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use super::target::{Agent, SshTarget};
use crate::host::{ExecRequest, LocalTransport, Transport, TransportError};

const DEADLINE: Duration = Duration::from_secs(5);
const OUTPUT_MAX_BYTES: usize = 256 << 10;
/// More jumps in a row than this are taken for a circle.
const JUMPS_MAX: usize = 4;

/// Resolves `[user@]host[:port]` with the user's own SSH configuration. Where the `ssh` program is
/// missing, the text alone decides.
pub async fn resolve(destination: &str) -> Result<SshTarget, TransportError> {
    resolve_with(destination, None).await
}

/// The same with this configuration file only (`ssh -F`).
pub async fn resolve_with(destination: &str, config: Option<&Path>) -> Result<SshTarget, TransportError> {
    resolve_at(destination, config, 0).await
}

/// Boxed, for a jump host is resolved in the same way.
fn resolve_at<'a>(
    destination: &'a str,
    config: Option<&'a Path>,
    depth: usize,
) -> Pin<Box<dyn Future<Output = Result<SshTarget, TransportError>> + Send + 'a>> {
    Box::pin(async move {
        if depth > JUMPS_MAX {
            return Err(TransportError::misconfigured(
                format!("more than {JUMPS_MAX} jump hosts in a row"),
                "look for a circle in ProxyJump",
            ));
        }
        let typed = Destination::parse(destination)?;
        let mut argv = vec!["ssh".to_owned(), "-G".into()];
        if let Some(config) = config {
            argv.extend(["-F".into(), config.display().to_string()]);
        }
        if let Some(port) = typed.port {
            argv.extend(["-p".into(), port.to_string()]);
        }
        if let Some(user) = &typed.user {
            argv.extend(["-l".into(), user.clone()]);
        }
        argv.extend(["--".into(), typed.host.clone()]);
        let mut request = ExecRequest::new(argv);
        request.deadline = DEADLINE;
        request.output_limit_bytes = OUTPUT_MAX_BYTES;

        let output = LocalTransport::new().exec(request).await?;
        if output.status == crate::host::ExitStatus::Exited(127) {
            return Ok(typed.into_target());
        }
        if !output.status.success() {
            return Err(TransportError::misconfigured(
                format!("ssh cannot read its configuration: {}", String::from_utf8_lossy(&output.stderr).trim()),
                format!("try `ssh -G {}`", typed.host),
            ));
        }
        let settings = Settings::parse(&String::from_utf8_lossy(&output.stdout), std::env::home_dir());
        let mut target = settings.target(&typed)?;
        // The first of a list is the first machine on the way.
        for jump in settings.jumps() {
            let mut via = resolve_at(jump, config, depth + 1).await?;
            via.proxy_jump = target.proxy_jump.take().or(via.proxy_jump);
            target.proxy_jump = Some(Box::new(via));
        }
        Ok(target)
    })
}

/// What `~/` means in a path that a person wrote, to this process.
pub fn expand_home(path: &str) -> PathBuf {
    expand(path, std::env::home_dir().as_deref())
}

fn expand(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_), None) | (None, _) => path.into(),
    }
}

/// What a person types.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    /// Before the `@`.
    pub user: Option<String>,
    /// An address, or a name of ~/.ssh/config.
    pub host: String,
    /// After the `:`.
    pub port: Option<u16>,
}

impl Destination {
    /// `[user@]host[:port]`; an IPv6 address with a port stands in brackets.
    ///
    /// # Errors
    /// `Misconfigured` for anything else.
    pub fn parse(text: &str) -> Result<Self, TransportError> {
        let wrong = || {
            TransportError::misconfigured(
                format!("{text:?} is no SSH destination"),
                "write user@host or user@host:port",
            )
        };
        let text = text.strip_prefix("ssh://").unwrap_or(text);
        let (user, rest) = match text.rsplit_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            // Two colons or more: a bare IPv6 address.
            None if rest.matches(':').count() == 1 => {
                let (host, port) = rest.split_once(':').ok_or_else(wrong)?;
                (host, Some(port))
            }
            None => (rest, None),
        };
        let port = match port {
            Some(port) => Some(port.parse::<u16>().ok().filter(|p| *p != 0).ok_or_else(wrong)?),
            None => None,
        };
        let is_word = |word: &str| {
            !word.is_empty() && !word.starts_with('-') && !word.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if !is_word(host) || !user.as_deref().is_none_or(is_word) {
            return Err(wrong());
        }
        Ok(Self { user, host: host.to_owned(), port })
    }

    fn into_target(self) -> SshTarget {
        let defaults = SshTarget::default();
        SshTarget {
            user: self.user.unwrap_or(defaults.user),
            port: self.port.unwrap_or(defaults.port),
            address: self.host,
            agent: Agent::of_environment(),
            ..SshTarget::default()
        }
    }
}

/// The output of `ssh -G`: a key (lower case), a space, a value; some keys several times.
struct Settings {
    lines: Vec<(String, String)>,
    home: Option<PathBuf>,
}

impl Settings {
    fn parse(text: &str, home: Option<PathBuf>) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        let lines = pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        Self { lines: lines.collect(), home }
    }

    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.lines.iter().filter(move |(name, _)| name == key);
        lines.map(|(_, value)| value.as_str())
    }

    /// The value, unless it is `none`.
    fn one<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).find(|value| *value != "none")
    }

    fn path(&self, text: &str) -> PathBuf {
        expand(text, self.home.as_deref())
    }

    fn jumps(&self) -> impl Iterator<Item = &str> {
        self.one("proxyjump").into_iter().flat_map(|list| list.split(','))
    }

    fn target(&self, typed: &Destination) -> Result<SshTarget, TransportError> {
        if let Some(command) = self.one("proxycommand") {
            return Err(TransportError::misconfigured(
                format!("{} is reached through ProxyCommand {command:?}", typed.host),
                "use ProxyJump instead",
            ));
        }
        let defaults = SshTarget::default();
        let seconds = self.one("connecttimeout").and_then(|text| text.parse().ok());
        let files = ["userknownhostsfile", "globalknownhostsfile"]
            .into_iter()
            .flat_map(|key| self.all(key))
            .flat_map(str::split_ascii_whitespace);
        Ok(SshTarget {
            address: self.one("hostname").unwrap_or(&typed.host).to_owned(),
            port: self.one("port").and_then(|port| port.parse().ok()).unwrap_or(defaults.port),
            user: self.one("user").unwrap_or(&defaults.user).to_owned(),
            // ssh lists its default names too, whether they exist or not.
            identity_file: self.all("identityfile").map(|file| self.path(file)).find(|file| file.is_file()),
            agent: self.agent(),
            known_hosts: files.map(|file| self.path(file)).filter(|file| file.is_file()).collect(),
            host_key_alias: self.one("hostkeyalias").map(str::to_owned),
            connect_timeout: seconds.map_or(defaults.connect_timeout, Duration::from_secs),
            ..SshTarget::default()
        })
    }

    fn agent(&self) -> Agent {
        match self.all("identityagent").next() {
            Some("none") => Agent::Off,
            Some("SSH_AUTH_SOCK") | None => Agent::of_environment(),
            Some(path) => Agent::Socket(self.path(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let destination = |user: Option<&str>, host: &str, port| Destination {
            user: user.map(str::to_owned),
            host: host.into(),
            port,
        };
        for (text, want) in [
            ("box", destination(None, "box", None)),
            ("root@box", destination(Some("root"), "box", None)),
            ("root@box:2222", destination(Some("root"), "box", Some(2222))),
            ("ssh://a@box:22", destination(Some("a"), "box", Some(22))),
            ("a@b@box", destination(Some("a@b"), "box", None)),
            ("fe80::1", destination(None, "fe80::1", None)),
            ("u@[fe80::1]:22", destination(Some("u"), "fe80::1", Some(22))),
        ] {
            assert_eq!(Destination::parse(text), Ok(want), "{text}");
        }
        for text in [
            "",
            "@box",
            "root@",
            "-oProxyCommand=x",
            "root@-x",
            "-l@box",
            "box:",
            "box:0",
            "box:99999",
            "a b",
            "[::1]22",
        ] {
            assert!(Destination::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn settings_of_ssh() {
        let text = "user deploy\nhostname 10.0.0.7\nport 2222\nproxyjump none\nproxycommand none\n\
                    identityfile /nowhere/id\nhostkeyalias box\nconnecttimeout 3\nidentityagent none\n";
        let typed = Destination::parse("box").unwrap();
        let target = Settings::parse(text, None).target(&typed).unwrap();
        let want = SshTarget {
            address: "10.0.0.7".into(),
            port: 2222,
            user: "deploy".into(),
            host_key_alias: Some("box".into()),
            connect_timeout: Duration::from_secs(3),
            ..SshTarget::default()
        };
        assert_eq!(target, want);
    }

    #[test]
    fn proxy_commands_are_refused() {
        let typed = Destination::parse("box").unwrap();
        let settings = Settings::parse("proxycommand nc %h %p\n", None);
        assert!(matches!(settings.target(&typed), Err(TransportError::Misconfigured { .. })));
    }
}
