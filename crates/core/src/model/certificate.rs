//! Certificates of load balancers: what is known of them, and their keys, sealed.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{hex::hex, name::CertificateId, time::Timestamp};

/// A day.
pub const DAY_MS: u64 = 86_400_000;
/// A certificate that ends this soon is told of, however long its life is.
const ENDING_MS: u64 = 14 * DAY_MS;

/// A private key as PEM, or what holds one. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(String);

impl Hidden {
    /// Takes it in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for whoever seals it, or hands it to a load balancer.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What a certificate says, with those that vouch for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateFacts {
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// Who vouches for it.
    pub issuer: String,
    /// Its number, hex.
    pub serial: String,
    /// SHA-1 of it, hex in capitals: HAProxy tells no other.
    pub sha1: String,
    /// SHA-256 of the whole chain, hex.
    pub digest: String,
    /// Since when it counts.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
    /// The certificate, and those between it and a root, as PEM.
    pub chain: String,
}

/// A certificate that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRecord {
    /// Which.
    pub id: CertificateId,
    /// What it says.
    pub facts: CertificateFacts,
    /// Its private key, sealed.
    pub sealed_key: String,
    /// People were told that it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub told: bool,
}

impl CertificateRecord {
    /// From when on it is renewed: two thirds of its life are over. An authority is not asked for all of them at once: up to
    /// a sixth later, by its name.
    pub fn renew_at(&self) -> Timestamp {
        let sixth_ms = self.life_ms() / 6;
        let later_ms = if self.is_ordered() { sixth_ms / 256 * u64::from(self.id.draw()) } else { 0 };
        self.facts.not_before.plus_ms(sixth_ms.saturating_mul(4).saturating_add(later_ms))
    }

    /// From when on people are told that it ends: by then it should have been renewed.
    pub fn ending_at(&self) -> Timestamp {
        let part = if self.is_ordered() { 8 } else { 3 };
        Timestamp(self.facts.not_after.0.saturating_sub(ENDING_MS.min(self.life_ms() / part)))
    }

    fn life_ms(&self) -> u64 {
        self.facts.not_after.since_ms(self.facts.not_before)
    }

    fn is_ordered(&self) -> bool {
        self.id.as_str().starts_with("acme:")
    }
}

/// What a load balancer shows of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// As [`CertificateFacts::digest`].
    pub digest: String,
    /// As [`CertificateFacts::sha1`].
    pub sha1: String,
}

impl CertificateId {
    /// The authority that vouches for certificates of our own.
    pub fn authority() -> Self {
        Self::from("authority")
    }

    /// A name for its file: of hex digits, always the same.
    pub fn file_stem(&self) -> String {
        hex(digest(&SHA256, self.as_str().as_bytes()).as_ref()).chars().take(24).collect()
    }

    /// A number that is as good as any, and always the same.
    fn draw(&self) -> u8 {
        digest(&SHA256, self.as_str().as_bytes()).as_ref().first().copied().unwrap_or_default()
    }
}
