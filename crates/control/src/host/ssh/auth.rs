//! Proving to a host who we are: a key from a file, or a key in ssh-agent.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{
    Algorithm, Error as KeyError, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key,
};
use tokio::net::UnixStream;

use super::target::{Agent, SshTarget};
use super::trust::{fingerprint, read_limited};
use crate::host::TransportError;

/// Larger key files are refused.
const KEY_FILE_MAX_BYTES: u64 = 64 << 10;
/// OpenSSH's MaxAuthTries is 6 by default, and counts.
const AGENT_KEYS_MAX: usize = 5;

/// One thing we can prove ourselves with.
pub(super) enum Credential {
    Key(Arc<PrivateKey>),
    /// The agent at this socket: this key, or any.
    Agent(PathBuf, Option<PublicKey>),
}

impl Credential {
    /// Everything the target allows, in the order of trying. Read before the host hears of us.
    pub(super) async fn load(target: &SshTarget) -> Result<Vec<Self>, TransportError> {
        let agent = agent_socket(&target.agent)?;
        let Some(path) = &target.identity_file else {
            return agent.map(|socket| vec![Self::Agent(socket, None)]).ok_or_else(|| {
                TransportError::misconfigured(
                    format!("there is no key to log in to {} with", target.name()),
                    "give an identityFile, or use ssh-agent",
                )
            });
        };
        let text = read_limited(path, KEY_FILE_MAX_BYTES).await?;
        if let Ok(public) = PublicKey::from_openssh(text.trim()) {
            return with_agent(agent, public, path, "is a public key");
        }
        refuse_readable_by_others(path).await?;
        match decode_secret_key(&text, None) {
            Ok(key) => {
                let any = agent.map(|socket| Self::Agent(socket, None));
                Ok([Self::Key(Arc::new(key))].into_iter().chain(any).collect())
            }
            Err(KeyError::KeyIsEncrypted) => {
                let public = public_half(&text, path).await?;
                with_agent(agent, public, path, "is locked with a passphrase")
            }
            Err(error) => Err(TransportError::misconfigured(
                format!("{} is no private key: {error}", path.display()),
                "correct the identityFile",
            )),
        }
    }

    /// Tries this one; false when the host refuses it. Adds what it tried to `tried`.
    async fn try_on<H: Handler>(
        &self,
        handle: &mut Handle<H>,
        target: &SshTarget,
        tried: &mut Vec<String>,
    ) -> Result<bool, TransportError> {
        match self {
            Self::Key(key) => {
                let hash = signature_hash(handle, &key.algorithm()).await;
                tried.push(fingerprint(key.public_key()));
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                let result = handle.authenticate_publickey(&target.user, key).await;
                logged_in(handle, target, &result.map_err(|error| ended(target, &error))?)
            }
            Self::Agent(socket, wanted) => {
                let mut agent = open_agent(socket, handle).await?;
                for key in agent_keys(&mut agent, wanted.as_ref()).await? {
                    let hash = signature_hash(handle, &key.algorithm()).await;
                    tried.push(fingerprint(&key));
                    let result = handle.authenticate_publickey_with(&target.user, key, hash, &mut agent).await;
                    // An agent that declines to sign for one key may sign for the next.
                    if let Ok(result) = result
                        && logged_in(handle, target, &result)?
                    {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
}

/// Logs in with the first credential that the host takes.
pub(super) async fn authenticate<H: Handler>(
    credentials: &[Credential],
    handle: &mut Handle<H>,
    target: &SshTarget,
) -> Result<(), TransportError> {
    let mut tried = Vec::new();
    for credential in credentials {
        match credential.try_on(handle, target, &mut tried).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // An agent that is broken or empty is the reason only if nothing else was tried.
            Err(TransportError::Misconfigured { .. }) if !tried.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Err(TransportError::Unauthorised { host: target.name(), user: target.user.clone(), tried })
}

/// The library reports a connection that ended as a refusal without methods.
fn logged_in<H: Handler>(handle: &Handle<H>, target: &SshTarget, result: &AuthResult) -> Result<bool, TransportError> {
    match result {
        AuthResult::Success => Ok(true),
        AuthResult::Failure { .. } if handle.is_closed() => Err(ended(target, &russh::Error::Disconnect)),
        AuthResult::Failure { .. } => Ok(false),
    }
}

fn ended(target: &SshTarget, error: &russh::Error) -> TransportError {
    TransportError::Unreachable {
        host: target.name(),
        detail: format!("the connection ended while logging in: {error}"),
    }
}

fn with_agent(
    agent: Option<PathBuf>,
    public: PublicKey,
    path: &Path,
    state: &str,
) -> Result<Vec<Credential>, TransportError> {
    let Some(socket) = agent else {
        return Err(TransportError::misconfigured(
            format!("{} {state}, and no ssh-agent is in use", path.display()),
            format!(
                "start an ssh-agent, load the key with `ssh-add {}` and start this program with the agent's SSH_AUTH_SOCK; or use a key without passphrase",
                path.display()
            ),
        ));
    };
    Ok(vec![Credential::Agent(socket, Some(public))])
}

fn agent_socket(agent: &Agent) -> Result<Option<PathBuf>, TransportError> {
    match agent {
        Agent::Off => Ok(None),
        Agent::Socket(path) => Ok(Some(path.clone())),
        Agent::Environment => match std::env::var_os("SSH_AUTH_SOCK") {
            Some(path) => Ok(Some(path.into())),
            None => Err(TransportError::misconfigured(
                "ssh-agent is to be used, but SSH_AUTH_SOCK is not set",
                "start the agent, or give an identityFile",
            )),
        },
    }
}

async fn refuse_readable_by_others(path: &Path) -> Result<(), TransportError> {
    let metadata = tokio::fs::metadata(path).await;
    let mode = metadata.map_or(0o777, |metadata| metadata.permissions().mode() & 0o777);
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(TransportError::misconfigured(
        format!("others may read the private key {} (mode {mode:04o})", path.display()),
        format!("run `chmod 600 {}`", path.display()),
    ))
}

/// The public half of a locked key: OpenSSH's format holds it in clear, for others there is the `.pub` file.
async fn public_half(text: &str, path: &Path) -> Result<PublicKey, TransportError> {
    if let Ok(key) = PrivateKey::from_openssh(text) {
        return Ok(key.public_key().clone());
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    let text = read_limited(Path::new(&name), KEY_FILE_MAX_BYTES).await?;
    PublicKey::from_openssh(text.trim()).map_err(|error| {
        TransportError::misconfigured(
            format!("{} is no public key: {error}", Path::new(&name).display()),
            "make it again with `ssh-keygen -y`",
        )
    })
}

/// RSA keys sign with SHA-2 only.
async fn signature_hash<H: Handler>(handle: &Handle<H>, key: &Algorithm) -> Option<HashAlg> {
    if !matches!(key, Algorithm::Rsa { .. }) {
        return None;
    }
    match handle.best_supported_rsa_hash().await {
        Ok(Some(Some(hash))) => Some(hash),
        Ok(Some(None)) | Ok(None) | Err(_) => Some(HashAlg::Sha512),
    }
}

async fn open_agent<H: Handler>(socket: &Path, handle: &Handle<H>) -> Result<AgentClient<UnixStream>, TransportError> {
    let agent = AgentClient::connect_uds(socket).await;
    let mut agent = agent.map_err(|error| agent_broken(socket, &error))?;
    if let Some(binding) = handle.agent_session_binding() {
        // Only keys that are bound to destinations need it, and old agents do not know it.
        let _ = agent.bind_session(binding, false).await;
    }
    Ok(agent)
}

fn agent_broken(socket: &Path, error: &KeyError) -> TransportError {
    TransportError::misconfigured(
        format!("ssh-agent at {} does not answer: {error}", socket.display()),
        "start it, or give an identityFile",
    )
}

async fn agent_keys(
    agent: &mut AgentClient<UnixStream>,
    wanted: Option<&PublicKey>,
) -> Result<Vec<PublicKey>, TransportError> {
    let identities = agent.request_identities().await;
    let identities = identities.map_err(|error| {
        TransportError::misconfigured(
            format!("ssh-agent does not list its keys: {error}"),
            "restart it, or give an identityFile",
        )
    })?;
    let keys: Vec<PublicKey> = identities
        .into_iter()
        .filter_map(|identity| match identity {
            AgentIdentity::PublicKey { key, .. } => Some(key),
            AgentIdentity::Certificate { .. } => None,
        })
        .filter(|key| wanted.is_none_or(|wanted| wanted.key_data() == key.key_data()))
        .take(AGENT_KEYS_MAX)
        .collect();
    if keys.is_empty() {
        return Err(TransportError::misconfigured(
            match wanted {
                Some(key) => format!("ssh-agent does not hold {}", fingerprint(key)),
                None => "ssh-agent holds no key".into(),
            },
            "load the key with `ssh-add`",
        ));
    }
    Ok(keys)
}
