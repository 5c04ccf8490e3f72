//! What can go wrong with an engine, sorted by what the caller does next; and Docker's words for it.

use std::collections::BTreeMap;

use crate::host::TransportError;
use roadstead_core::model::name::RuntimeId;

/// Why a verb did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine was not reached; nothing was sent. Try later.
    #[error("{0}")]
    Unreachable(#[source] TransportError),
    /// The request went out and no usable answer came: it may be done, now or later. Look again.
    #[error("{what}: outcome unknown: {reason}")]
    OutcomeUnknown {
        /// The request.
        what: String,
        /// What happened instead of an answer.
        reason: String,
    },
    /// There is no such thing (any more).
    #[error("{what}: not found")]
    NotFound {
        /// The request.
        what: String,
    },
    /// Another container has the name: adopt it or leave it alone.
    #[error("the container name {name} is taken")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it, if it could be seen.
        existing: Option<RuntimeId>,
        /// That one's labels of ours.
        labels: BTreeMap<String, String>,
    },
    /// It is in a state that does not allow this now. Look again.
    #[error("{message}")]
    Conflict {
        /// The engine's words.
        message: String,
    },
    /// Somebody holds the host port: choose another.
    #[error("{message}")]
    PortTaken {
        /// The port, where the engine says it.
        port: Option<u16>,
        /// The engine's words.
        message: String,
    },
    /// The image exists neither on the host nor in its registry.
    #[error("image {image}: {message}")]
    ImageMissing {
        /// The reference.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// The registry does not answer the host. Try later.
    #[error("image {image}: {message}")]
    RegistryUnavailable {
        /// The reference.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// The registry wants (other) credentials.
    #[error("image {image}: {message}")]
    Unauthorised {
        /// The reference.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// The registry has had enough of us for now.
    #[error("image {image}: {message}")]
    RateLimited {
        /// The reference.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// The host's disk is full.
    #[error("{message}")]
    OutOfSpace {
        /// The engine's words.
        message: String,
    },
    /// The engine will never do this.
    #[error("refused ({status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The engine failed. Try later.
    #[error("engine failed ({status}): {message}")]
    ServerError {
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// The answer to a question makes no sense or is too large: nothing was learned.
    #[error("{what}: unusable answer: {reason}")]
    Malformed {
        /// The question.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// We and this engine know no common API version.
    #[error("the engine speaks {engine}, we need {need}")]
    UnsupportedVersion {
        /// What it speaks.
        engine: String,
        /// What we need.
        need: String,
    },
}

impl EngineError {
    /// Whether the engine may have done, or may still do, what it was asked.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } => true,
            Self::Unreachable(_)
            | Self::NotFound { .. }
            | Self::NameTaken { .. }
            | Self::Conflict { .. }
            | Self::PortTaken { .. }
            | Self::ImageMissing { .. }
            | Self::RegistryUnavailable { .. }
            | Self::Unauthorised { .. }
            | Self::RateLimited { .. }
            | Self::OutOfSpace { .. }
            | Self::Refused { .. }
            | Self::ServerError { .. }
            | Self::Malformed { .. }
            | Self::UnsupportedVersion { .. } => false,
        }
    }

    /// An answer with an error status, whatever the verb.
    pub(super) fn from_status(what: &str, status: u16, message: &str) -> Self {
        let said = message.to_ascii_lowercase();
        let message = clip(message, MESSAGE_MAX_BYTES);
        if is_out_of_space(&said) {
            return Self::OutOfSpace { message };
        }
        if is_port_taken(&said) {
            return Self::PortTaken { port: port_in(&said), message };
        }
        if status == 400 && said.contains("client version") {
            return Self::UnsupportedVersion {
                engine: message,
                need: "the version that it named before; it is asked again".into(),
            };
        }
        match status {
            404 => Self::NotFound { what: what.to_owned() },
            409 => Self::Conflict { message },
            400..=499 => Self::Refused { status, message },
            0..400 | 500.. => Self::ServerError { status, message },
        }
    }

    /// A pull that failed: `status` 0 when the words came in the middle of it.
    pub(super) fn from_pull(image: &str, status: u16, message: &str) -> Self {
        let said = message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let image = image.to_owned();
        let message = clip(message, MESSAGE_MAX_BYTES);
        if is_out_of_space(&said) {
            Self::OutOfSpace { message }
        } else if says(&["toomanyrequests", "too many requests", "rate limit"]) {
            Self::RateLimited { image, message }
        } else if says(&["manifest unknown", "not found", "no such image", "name unknown", "no matching manifest"]) {
            Self::ImageMissing { image, message }
        } else if says(&["unauthorized", "authentication required", "no basic auth", "denied", "forbidden"]) {
            Self::Unauthorised { image, message }
        } else if says(&["invalid reference", "invalid tag", "invalid checksum", "must be lowercase"]) {
            Self::Refused { status: 400, message }
        } else {
            match status {
                400 => Self::Refused { status, message },
                401 | 403 => Self::Unauthorised { image, message },
                404 => Self::ImageMissing { image, message },
                429 => Self::RateLimited { image, message },
                // What remains is the network between host and registry, in ever new words.
                0..400 | 402 | 405..429 | 430.. => Self::RegistryUnavailable { image, message },
            }
        }
    }
}

const MESSAGE_MAX_BYTES: usize = 1024;

fn is_out_of_space(said: &str) -> bool {
    said.contains("no space left on device") || said.contains("disk quota exceeded")
}

fn is_port_taken(said: &str) -> bool {
    said.contains("port is already allocated") || (said.contains("bind") && said.contains("address already in use"))
}

/// The port in `Bind for 0.0.0.0:8080 failed` or `listen tcp4 0.0.0.0:8080: bind: …`.
fn port_in(said: &str) -> Option<u16> {
    let tail = ["bind for ", "listen tcp", "listen udp"].iter().find_map(|begin| said.split_once(begin))?.1;
    tail.split_whitespace().find_map(|word| {
        let (address, port) = word.trim_end_matches(':').rsplit_once(':')?;
        (!address.is_empty()).then(|| port.parse().ok())?
    })
}

/// Text of others for people to read: at most so many bytes, no control characters.
pub(super) fn clip(text: &str, max_bytes: usize) -> String {
    let mut clipped = String::new();
    for c in text.trim().chars() {
        if clipped.len() + c.len_utf8() > max_bytes {
            break;
        }
        clipped.push(if c.is_control() { ' ' } else { c });
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: &EngineError) -> &'static str {
        match error {
            EngineError::Unreachable(_) => "unreachable",
            EngineError::OutcomeUnknown { .. } => "unknown",
            EngineError::NotFound { .. } => "not found",
            EngineError::NameTaken { .. } => "name",
            EngineError::Conflict { .. } => "conflict",
            EngineError::PortTaken { .. } => "port",
            EngineError::ImageMissing { .. } => "image",
            EngineError::RegistryUnavailable { .. } => "registry",
            EngineError::Unauthorised { .. } => "unauthorised",
            EngineError::RateLimited { .. } => "rate",
            EngineError::OutOfSpace { .. } => "space",
            EngineError::Refused { .. } => "refused",
            EngineError::ServerError { .. } => "server",
            EngineError::Malformed { .. } => "malformed",
            EngineError::UnsupportedVersion { .. } => "version",
        }
    }

    #[test]
    fn docker_words_are_sorted_by_what_to_do() {
        for (status, message, expected) in [
            (404, "No such container: x", "not found"),
            (409, "removal of container x is already in progress", "conflict"),
            (400, "invalid restart policy 'x'", "refused"),
            (422, "what", "refused"),
            (
                500,
                "driver failed programming external connectivity on endpoint x (0a): Bind for 0.0.0.0:8080 failed: port is already allocated",
                "port",
            ),
            (
                500,
                "driver failed: Error starting userland proxy: listen tcp4 0.0.0.0:8080: bind: address already in use",
                "port",
            ),
            (500, "write /var/lib/docker/x: no space left on device", "space"),
            (500, "OCI runtime create failed", "server"),
            (503, "", "server"),
            (200, "odd", "server"),
            (400, "client version 1.99 is too new. Maximum supported API version is 1.41", "version"),
            (400, "client version 1.41 is too old. Minimum supported API version is 1.44", "version"),
        ] {
            let error = EngineError::from_status("x", status, message);
            assert_eq!(kind(&error), expected, "{status} {message}");
            if let EngineError::PortTaken { port, .. } = error {
                assert_eq!(port, Some(8080), "{message}");
            }
        }
    }

    #[test]
    fn pull_failures_are_sorted_by_what_to_do() {
        for (status, message, expected) in [
            (404, "manifest for nginx:none not found: manifest unknown: manifest unknown", "image"),
            (
                404,
                "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
                "unauthorised",
            ),
            (500, "Get \"https://r.example/v2/\": unauthorized: authentication required", "unauthorised"),
            (500, "Get https://r.example/v2/: no basic auth credentials", "unauthorised"),
            (0, "toomanyrequests: You have reached your pull rate limit", "rate"),
            (429, "", "rate"),
            (500, "Get \"https://r.example/v2/\": dial tcp 192.0.2.1:443: i/o timeout", "registry"),
            (500, "Get https://r.example/v2/: dial tcp: lookup r.example: no such host", "registry"),
            (0, "failed to register layer: Error processing tar file(exit status 1): no space left on device", "space"),
            (400, "invalid reference format: repository name must be lowercase", "refused"),
            (0, "unexpected EOF", "registry"),
        ] {
            assert_eq!(kind(&EngineError::from_pull("x", status, message)), expected, "{status} {message}");
        }
    }

    #[test]
    fn words_of_others_are_bounded_and_harmless() {
        assert_eq!(clip(" a\u{1b}[31m\n", 99), "a [31m");
        assert_eq!(clip("ééé", 5), "éé");
        let EngineError::ServerError { message, .. } = EngineError::from_status("x", 500, &"y".repeat(1 << 20)) else {
            panic!("not a server error");
        };
        assert_eq!(message.len(), MESSAGE_MAX_BYTES);
    }
}
