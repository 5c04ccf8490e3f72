//! Which host keys we accept. Exact keys only: no first use, no certificates, no guessing.

use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

use super::target::SshTarget;
use crate::host::TransportError;

/// Larger known_hosts files are refused.
const KNOWN_HOSTS_MAX_BYTES: u64 = 4 << 20;

/// The accepted and the revoked keys of one host.
#[derive(Debug, Clone, Default)]
pub(super) struct Trust {
    accepted: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

/// The judgement on a presented key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Unknown,
    Revoked,
}

impl Trust {
    /// Collects the keys of a target. Reads its known_hosts files.
    pub(super) async fn load(target: &SshTarget) -> Result<Self, TransportError> {
        let mut trust = Self::default();
        for text in &target.host_keys {
            let key = PublicKey::from_openssh(text.trim()).map_err(|error| {
                TransportError::misconfigured(
                    format!("the host key of {} cannot be read: {error}", target.name()),
                    "give it as in a .pub file: ssh-ed25519 AAAA…",
                )
            })?;
            trust.accepted.push(key);
        }
        for path in &target.known_hosts {
            let text = read_limited(path, KNOWN_HOSTS_MAX_BYTES).await?;
            trust.add_known_hosts(&text, target, path)?;
        }
        if trust.accepted.is_empty() {
            return Err(TransportError::misconfigured(
                format!("no host key is pinned for {}", target.name()),
                "give its hostKey; `roadstead host add` reads it and shows its fingerprint",
            ));
        }
        Ok(trust)
    }

    fn add_known_hosts(&mut self, text: &str, target: &SshTarget, path: &Path) -> Result<(), TransportError> {
        let name = lookup_name(target);
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let line = words.join(" ");
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Ok(entry) = Entry::from_str(&line) else {
                // A key type we do not know cannot be accepted anyway; a revocation must not be overlooked.
                if line.starts_with('@') {
                    return Err(TransportError::misconfigured(
                        format!("{}:{}: cannot read this line", path.display(), index + 1),
                        "correct or remove it",
                    ));
                }
                continue;
            };
            if !matches_host(entry.host_patterns(), &name) {
                continue;
            }
            match entry.marker() {
                None => self.accepted.push(entry.public_key().clone()),
                Some(Marker::Revoked) => self.revoked.push(entry.public_key().clone()),
                Some(Marker::CertAuthority) => {}
            }
        }
        Ok(())
    }

    pub(super) fn judge(&self, presented: &PublicKey) -> Verdict {
        let is_in = |keys: &[PublicKey]| keys.iter().any(|key| key.key_data() == presented.key_data());
        match (is_in(&self.revoked), is_in(&self.accepted)) {
            (true, _) => Verdict::Revoked,
            (false, true) => Verdict::Accepted,
            (false, false) => Verdict::Unknown,
        }
    }

    /// The host key algorithms to offer: those of the accepted keys and no others, so that a host
    /// with several keys presents the one we know.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for key in &self.accepted {
            for algorithm in signature_algorithms(&key.algorithm()) {
                if !algorithms.contains(&algorithm) {
                    algorithms.push(algorithm);
                }
            }
        }
        algorithms
    }

    /// Fingerprints of the accepted keys, for messages.
    pub(super) fn expected(&self) -> Vec<String> {
        self.accepted.iter().map(fingerprint).collect()
    }
}

/// `ssh-ed25519 SHA256:…`
pub(super) fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// All signature algorithms we accept from hosts, best first. SHA-1 and DSA are not among them.
pub(super) fn all_algorithms() -> Vec<Algorithm> {
    use EcdsaCurve::{NistP256, NistP384, NistP521};
    let mut keys = vec![Algorithm::Ed25519];
    keys.extend([NistP256, NistP384, NistP521].map(|curve| Algorithm::Ecdsa { curve }));
    keys.push(Algorithm::Rsa { hash: None });
    keys.iter().flat_map(signature_algorithms).collect()
}

fn signature_algorithms(key: &Algorithm) -> Vec<Algorithm> {
    match key {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => vec![key.clone()],
        Algorithm::Rsa { .. } => {
            [HashAlg::Sha512, HashAlg::Sha256].map(|hash| Algorithm::Rsa { hash: Some(hash) }).to_vec()
        }
        // The library's list is open; what we do not know we do not offer.
        _ => Vec::new(),
    }
}

/// As OpenSSH writes it: the bare name on port 22, else `[name]:port`; lower case.
fn lookup_name(target: &SshTarget) -> String {
    if let Some(alias) = &target.host_key_alias {
        return alias.to_lowercase();
    }
    let address = target.address.to_lowercase();
    match target.port {
        22 => address,
        port => format!("[{address}]:{port}"),
    }
}

fn matches_host(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::Patterns(patterns) => {
            let mut matched = false;
            for pattern in patterns {
                let pattern = pattern.to_lowercase();
                match pattern.strip_prefix('!') {
                    Some(negated) if glob(negated.as_bytes(), name.as_bytes()) => return false,
                    Some(_) => {}
                    None => matched |= glob(pattern.as_bytes(), name.as_bytes()),
                }
            }
            matched
        }
        HostPatterns::HashedName { salt, hash } => {
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::sign(&key, name.as_bytes()).as_ref() == hash
        }
    }
}

/// `*` and `?` as in known_hosts. Remembers only the last `*`, so the cost is at most quadratic.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || Some(&c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            Some(_) | None => {
                let Some((star_p, star_t)) = star else {
                    return false;
                };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}

/// Reads a text file, refusing one that is not a file or too large.
pub(super) async fn read_limited(path: &Path, max_bytes: u64) -> Result<String, TransportError> {
    let broken = |detail: String| {
        TransportError::misconfigured(
            format!("{} cannot be read: {detail}", path.display()),
            "correct the path or the file",
        )
    };
    let metadata = tokio::fs::metadata(path).await;
    let metadata = metadata.map_err(|error| broken(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > max_bytes {
        return Err(broken(format!("it must be a file of at most {max_bytes} bytes")));
    }
    let text = tokio::fs::read_to_string(path).await;
    text.map_err(|error| broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL5/DbZnKLW9NCovNZ8bgxFW1s2JeC4lX7feKHqbzB1a";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIITD7HD80v3Racul/NMfIddkGdg5/jhSZ6XEFWHVaCwi";

    fn target(address: &str, port: u16) -> SshTarget {
        SshTarget { address: address.into(), port, ..SshTarget::default() }
    }

    fn verdict(known_hosts: &str, target: &SshTarget) -> Verdict {
        let mut trust = Trust::default();
        let path = Path::new("known_hosts");
        trust.add_known_hosts(known_hosts, target, path).unwrap();
        trust.judge(&PublicKey::from_openssh(KEY).unwrap())
    }

    #[test]
    fn known_hosts_lines() {
        use Verdict::{Accepted, Revoked, Unknown};
        let box_a = target("Box-A", 22);
        let port = target("box-a", 2222);
        for (line, target, want) in [
            (format!("box-a {KEY}"), &box_a, Accepted),
            (format!("  box-a\t{KEY}  comment"), &box_a, Accepted),
            (format!("# box-a {KEY}"), &box_a, Unknown),
            (format!("box-a {OTHER}"), &box_a, Unknown),
            (format!("box-a.lan {KEY}"), &box_a, Unknown),
            (format!("a,box-?,c {KEY}"), &box_a, Accepted),
            (format!("*,!box-a {KEY}"), &box_a, Unknown),
            (format!("box-a {KEY}"), &port, Unknown),
            (format!("[box-a]:2222 {KEY}"), &port, Accepted),
            (format!("[box-a]:2222 {KEY}"), &box_a, Unknown),
            (format!("@cert-authority * {KEY}"), &box_a, Unknown),
            (format!("box-a {KEY}\n@revoked * {KEY}"), &box_a, Revoked),
            (format!("@revoked * {KEY}\nbox-a {KEY}"), &box_a, Revoked),
            (format!("@revoked x {KEY}\nbox-a {KEY}"), &box_a, Accepted),
            (format!("nonsense\nbox-a {KEY}"), &box_a, Accepted),
        ] {
            assert_eq!(verdict(&line, target), want, "{line}");
        }
    }

    /// The line is from `ssh-keygen -H` over `box-a`, so the hash is OpenSSH's and not ours.
    #[test]
    fn hashed_names() {
        let line = format!("|1|zp0hnr2WmkdVlrM9SrNUY2TB4+M=|7KMxc7VfHWvdodZgrK7TfYB/3Ns= {KEY}");
        assert_eq!(verdict(&line, &target("BOX-A", 22)), Verdict::Accepted);
        assert_eq!(verdict(&line, &target("box-b", 22)), Verdict::Unknown);
    }

    #[test]
    fn an_alias_replaces_name_and_port() {
        let mut target = target("10.0.0.1", 2222);
        target.host_key_alias = Some("fleet".into());
        assert_eq!(verdict(&format!("fleet {KEY}"), &target), Verdict::Accepted);
    }

    #[test]
    fn an_unreadable_revocation_is_an_error() {
        let mut trust = Trust::default();
        let result = trust.add_known_hosts("@revoked * rubbish", &target("a", 22), Path::new("k"));
        assert!(matches!(result, Err(TransportError::Misconfigured { .. })));
    }

    #[tokio::test]
    async fn no_pinned_key_is_an_error() {
        let result = Trust::load(&target("a", 22)).await;
        assert!(matches!(result, Err(TransportError::Misconfigured { .. })));
    }

    #[test]
    fn only_algorithms_of_pinned_keys_are_offered() {
        let trust = Trust { accepted: vec![PublicKey::from_openssh(KEY).unwrap()], revoked: vec![] };
        assert_eq!(trust.algorithms(), [Algorithm::Ed25519]);
    }

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("", "", true),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*b*c", "axbxbc", true),
            ("a?c", "ac", false),
            ("a*", "ba", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), want, "{pattern}");
        }
    }
}
