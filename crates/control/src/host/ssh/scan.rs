//! Reading a host's keys before anybody trusts it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{self, Handler};
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Preferred};
use tokio::time::timeout;

use super::connection::{config, reach};
use super::target::SshTarget;
use super::trust::all_algorithms;
use crate::host::TransportError;

/// A key that a host presented. It proves nothing yet: a person compares the fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedHostKey {
    /// As in a `.pub` file, without comment: fit for a Host manifest.
    pub key: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

/// Reads the keys of the target's SSH server, best type first: one connection for each key type,
/// ended before any login. Of the target only the address, port and jump host matter; a jump host is
/// checked and logged in to as ever.
pub async fn scan_host_keys(target: &SshTarget, deadline: Duration) -> Result<Vec<ScannedHostKey>, TransportError> {
    let scan = async {
        let mut keys = Vec::new();
        for algorithms in by_key_type() {
            if let Some(key) = scan_one(target, algorithms).await? {
                keys.push(key);
            }
        }
        Ok(keys)
    };
    let keys = timeout(deadline, scan).await.unwrap_or_else(|_| {
        Err(TransportError::Unreachable { host: target.name(), detail: format!("no host key in {deadline:?}") })
    })?;
    if keys.is_empty() {
        return Err(TransportError::misconfigured(
            format!("{} has no host key of a type we accept", target.name()),
            "give it one: `ssh-keygen -A` on the host, then restart its SSH server",
        ));
    }
    Ok(keys)
}

fn by_key_type() -> Vec<Vec<Algorithm>> {
    let mut groups: Vec<Vec<Algorithm>> = Vec::new();
    for algorithm in all_algorithms() {
        match groups.last_mut() {
            Some(group) if group.iter().all(|first| same_type(first, &algorithm)) => {
                group.push(algorithm);
            }
            Some(_) | None => groups.push(vec![algorithm]),
        }
    }
    groups
}

/// Signature algorithms of one key type: only RSA has several.
fn same_type(a: &Algorithm, b: &Algorithm) -> bool {
    let is_rsa = |key: &Algorithm| matches!(key, Algorithm::Rsa { .. });
    a == b || (is_rsa(a) && is_rsa(b))
}

async fn scan_one(target: &SshTarget, algorithms: Vec<Algorithm>) -> Result<Option<ScannedHostKey>, TransportError> {
    let preferred = Preferred { key: algorithms.into(), ..Preferred::DEFAULT };
    let seen = Arc::new(OnceLock::new());
    let scanner = Scanner(Arc::clone(&seen));
    let stream = reach(target, 0).await?;
    let result = client::connect_stream(Arc::new(config(target, preferred)), stream, scanner).await;
    match (seen.get(), result) {
        (Some(key), _) => key_text(key).map(Some),
        (None, Err(russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. })) => Ok(None),
        (None, Err(error)) => Err(unreadable(target, &error.to_string())),
        (None, Ok(_)) => Err(unreadable(target, "it presented no key")),
    }
}

fn unreadable(target: &SshTarget, detail: &str) -> TransportError {
    TransportError::Unreachable { host: target.name(), detail: detail.to_owned() }
}

fn key_text(key: &PublicKey) -> Result<ScannedHostKey, TransportError> {
    let text = PublicKey::from(key.key_data().clone()).to_openssh();
    let text = text.map_err(|error| TransportError::lost(format!("host key: {error}")))?;
    Ok(ScannedHostKey { key: text.trim().to_owned(), fingerprint: key.fingerprint(HashAlg::Sha256).to_string() })
}

struct Scanner(Arc<OnceLock<PublicKey>>);

impl Handler for Scanner {
    type Error = russh::Error;

    /// Takes the key down and refuses it: that ends the connection before any login.
    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = presented {
            let _ = self.0.set(key.clone());
        }
        Ok(false)
    }
}
