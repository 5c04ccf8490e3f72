//! Certificates from an authority that speaks ACME (RFC 8555): what is under way for one, and the account it is asked with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{name::CertificateId, time::Timestamp};

/// Where an authority asks for its proof (RFC 8555, 8.3).
pub const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";
/// Bytes of a token, and of what is answered; more nobody sends.
const MAX_WORD_BYTES: usize = 512;

/// What proves that a name is ours: what is answered, by token.
pub type Challenges = BTreeMap<String, String>;

/// Whether an authority's word can be one of HAProxy's, and of its commands: base64url, and the dot between two.
pub fn is_word(text: &str) -> bool {
    (1..=MAX_WORD_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The account that a directory knows us by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmeAccount {
    /// The directory's URL.
    pub directory: String,
    /// Its private key, sealed.
    pub sealed_key: String,
}

impl AcmeAccount {
    /// What its key is sealed as.
    pub fn sealed_as(directory: &str) -> CertificateId {
        format!("account:{directory}").into()
    }
}

/// What is under way for a certificate, or went wrong. It is forgotten when the certificate comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AcmeOrder {
    /// Which certificate.
    pub id: CertificateId,
    /// The directory that is asked.
    pub directory: String,
    /// How often it was begun: written before anything is asked, so that a controller that dies every time asks no more often.
    pub tries: u32,
    /// When the last try began.
    pub begun_at: Timestamp,
    /// The epoch of the controller that works at it; none while nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worked_by: Option<u64>,
    /// It is not begun anew before this.
    pub not_before: Timestamp,
    /// What is answered while it is under way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub challenges: Challenges,
    /// Why the last try failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcmeNews {
    /// A key for a directory that had none.
    Account(AcmeAccount),
    /// What is to be answered.
    Challenges(Challenges),
    /// It failed.
    Failed {
        /// Why, in words.
        why: String,
        /// The authority says not to come again sooner.
        retry_after_ms: Option<u64>,
    },
}
