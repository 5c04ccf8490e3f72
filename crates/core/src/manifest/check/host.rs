//! Host by itself.

use std::path::Path;

use crate::{
    manifest::{
        node::{Step, at},
        report::{Scope, quote},
    },
    model::spec::HostSpec,
};

/// The address that is this machine's own Docker socket.
const LOCAL: &str = "local";

/// What the first word of a public key line may be.
const KEY_TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// Checks a host and makes its files' paths absolute. `folder` is the folder of the manifest.
pub fn host(spec: &mut HostSpec, scope: &mut Scope<'_>, folder: &Path) {
    address(spec, scope);
    if spec.ssh.port == Some(0) {
        scope.error(at!["ssh", "port"], "out-of-range", "0 is not a port").label("from 1 to 65535");
    }
    let wireguard = &spec.wireguard;
    let ports = [("endpoint", wireguard.endpoint.map(|it| it.port())), ("listenPort", wireguard.listen_port)];
    for (field, _) in ports.into_iter().filter(|(_, port)| *port == Some(0)) {
        let path = &[Step::Key("wireguard"), Step::Key(field)];
        scope.error(path, "out-of-range", "0 is not a port").label("from 1 to 65535");
    }
    if !spec.docker_socket.starts_with('/') {
        let message = format!("{} is not an absolute path", quote(&spec.docker_socket));
        scope.error(at!["dockerSocket"], "bad-path", message).label("on the host, such as `/var/run/docker.sock`");
    }
    for (field, file) in [("identityFile", &mut spec.ssh.identity_file), ("knownHosts", &mut spec.ssh.known_hosts)] {
        if let Some(path) = file {
            let at = &[Step::Key("ssh"), Step::Key(field)];
            if path.is_empty() {
                scope.error(at, "bad-path", format!("{} names no file", quote(field)));
            } else if path.starts_with('~') && !path.starts_with("~/") {
                scope
                    .error(at, "bad-path", format!("{} is in nobody's home folder", quote(path)))
                    .help("`~/` is the home folder of the controller's own user; write any other path in full");
            } else if !path.starts_with('/') && !path.starts_with("~/") {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        }
    }
    match &spec.ssh.host_key {
        Some(key) => host_key(key, scope),
        None if spec.ssh.known_hosts.is_none() && spec.address != LOCAL => {
            scope
                .warning(
                    at!["address"],
                    "untrusted",
                    "no key is pinned for this host: it will be UNTRUSTED, and nothing is sent to it",
                )
                .label("neither `ssh.hostKey` nor `ssh.knownHosts`")
                .help(format!(
                    "`roadstead host add` writes it for you; `ssh-keyscan {}` prints it, to be compared on the machine",
                    spec.address
                ));
        }
        None => {}
    }
}

fn address(spec: &HostSpec, scope: &mut Scope<'_>) {
    let address = spec.address.as_str();
    if address == LOCAL || address.parse::<std::net::IpAddr>().is_ok() || is_dns_name(address) {
        return;
    }
    let message = format!("{} is neither an IP address, nor a DNS name, nor `local`", quote(address));
    let help = if address.contains("://") {
        Some("write the address alone".to_owned())
    } else if address.contains('@') {
        Some("the login name goes into `ssh.user`".to_owned())
    } else if address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        Some("the port goes into `ssh.port`".to_owned())
    } else {
        None
    };
    scope.error(at!["address"], "bad-address", message).maybe_help(help);
}

fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Four numbers that are no IP address are a slip, not a name.
    let numbers = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.len() <= 253 && !numbers && name.split('.').all(label)
}

fn host_key(key: &str, scope: &mut Scope<'_>) {
    let path = at!["ssh", "hostKey"];
    let mut words = key.split_ascii_whitespace();
    let (kind, blob) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if key.starts_with("SHA256:") || key.starts_with("MD5:") {
        scope
            .error(path, "host-key", "this is a fingerprint, not the key")
            .help("`ssh-keyscan -t ed25519 ADDRESS` prints the key; `roadstead host add --fingerprint` checks it against a fingerprint");
    } else if !KEY_TYPES.contains(&kind)
        || blob.len() < 32
        || !blob.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
    {
        scope
            .error(path, "host-key", "this is not a public key")
            .label("such as `ssh-ed25519 AAAA…`")
            .help("it is the content of /etc/ssh/ssh_host_ed25519_key.pub on the host");
    }
}

/// The Host that a `proxyJump` may name: a single word. `user@box` and `box:2222` are addresses.
pub fn names_a_host(proxy_jump: &str) -> Option<&str> {
    (!proxy_jump.contains(['@', ':', '.'])).then_some(proxy_jump)
}
