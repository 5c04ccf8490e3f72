//! What a listener needs to speak TLS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::name::CertificateId;

/// Certificates of one listener (ELB).
pub const MAX_CERTIFICATES: usize = 25;

/// How a listener speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// The first is shown to clients that ask for a name which none of them has.
    #[schemars(length(min = 1, max = 25))]
    pub certificates: Vec<Certificate>,
    /// Clients that know no newer version than before this are refused.
    #[serde(default)]
    pub minimum_protocol_version: TlsVersion,
}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// 1.2.
    #[default]
    #[serde(rename = "TLSv1.2")]
    V12,
    /// 1.3.
    #[serde(rename = "TLSv1.3")]
    V13,
}

impl TlsVersion {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V12 => "TLSv1.2",
            Self::V13 => "TLSv1.3",
        }
    }
}

/// A certificate: given files, or names for which one is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Certificate {
    /// The certificate and those that vouch for it (PEM): a path from this manifest's folder that ends in `.pem`, `.crt` or
    /// `.cer`. When the file changes, the new certificate is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<String>,
    /// Its private key (PEM, not encrypted): a path that ends in `.pem` or `.key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_file: Option<String>,
    /// The names that one is made for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub domains: Vec<String>,
    /// Who vouches for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<CertificateIssuer>,
    /// For `issuer: ACME`: which authority; Let's Encrypt when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
}

/// An authority that speaks ACME (RFC 8555).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Acme {
    /// The URL of its directory (https); Let's Encrypt's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Whom it may write to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// What vouches for the directory itself, if the machine's own authorities do not (PEM): a path as `certificateFile` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

/// The directory that is asked when none is named.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

impl Acme {
    /// The directory that is asked.
    pub fn directory(&self) -> &str {
        self.directory.as_deref().unwrap_or(LETS_ENCRYPT)
    }
}

/// Who vouches for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CertificateIssuer {
    /// An authority of this fleet's own: `roadstead cert ca` prints what clients are to trust.
    SelfSigned,
    /// One that speaks ACME: it asks on port 80 of every name, and a listener of this load balancer answers.
    Acme,
}

impl Certificate {
    /// Which it is. Two that say the same are one.
    pub fn id(&self) -> CertificateId {
        let names = || self.names().join(",");
        match (&self.certificate_file, self.issuer) {
            (Some(file), _) => format!("file:{file}").into(),
            (None, Some(CertificateIssuer::Acme)) => match self.acme.as_ref().map_or(LETS_ENCRYPT, Acme::directory) {
                LETS_ENCRYPT => format!("acme:{}", names()).into(),
                other => format!("acme:{}@{other}", names()).into(),
            },
            (None, Some(CertificateIssuer::SelfSigned) | None) => format!("self-signed:{}", names()).into(),
        }
    }

    /// Whether it is ordered of an authority.
    pub fn is_ordered(&self) -> bool {
        self.certificate_file.is_none() && self.issuer == Some(CertificateIssuer::Acme)
    }

    /// The names that one is made for, each once, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.domains.iter().map(|name| name.to_ascii_lowercase()).collect();
        names.sort();
        names.dedup();
        names
    }
}
