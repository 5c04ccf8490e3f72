//! A service's `expose`: a host name, a route and, when the name is public, a certificate, without manifests of their own.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    load_balancer::Conditions,
    target_group::TargetHealthCheck,
    tls::{Acme, Certificate, CertificateIssuer},
};
use crate::model::name::LoadBalancerName;

/// What the names of all that `expose` makes begin with: no manifest can have such a name.
pub const EXPOSE_PREFIX: &str = "expose:";

/// Top-level names that nobody can have in the public DNS (RFC 2606, 6761, 6762, 8375, and ICANN's `internal`), and habits.
const PRIVATE_SUFFIXES: &[&str] = &[
    "corp",
    "example",
    "example.com",
    "example.net",
    "example.org",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "private",
    "test",
];

/// How clients find a service by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expose {
    /// The host name that is asked for, as a rule's `hostHeader`.
    pub host: String,
    /// Only paths like this, as a rule's `pathPattern`; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// By which load balancer; the cluster's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancerName>,
    /// The container that answers; the only one with a port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Its port; its first one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub container_port: Option<u16>,
    /// How it is told whether a task can take requests.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health_check: TargetHealthCheck,
    /// Who vouches for the name; ACME when absent, the name is public and the load balancer is made by `expose`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<ExposeIssuer>,
    /// For ACME: which authority; Let's Encrypt when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<Acme>,
    /// Whether clients that come by HTTP are sent to HTTPS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redirect_http: bool,
}

/// Who vouches for the name of an exposed service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExposeIssuer {
    /// One that speaks ACME.
    Acme,
    /// The fleet's own.
    SelfSigned,
    /// Nobody: HTTP only.
    None,
}

impl Expose {
    /// Which requests it is for.
    pub fn conditions(&self) -> Conditions {
        Conditions {
            host_header: vec![self.host.clone()],
            path_pattern: self.path.iter().cloned().collect(),
            ..Conditions::default()
        }
    }

    /// The certificate that it asks for. `made`: its load balancer is made by `expose`, and has those that are of use.
    pub fn certificate(&self, made: bool) -> Option<Certificate> {
        let issuer = match self.issuer {
            Some(ExposeIssuer::None) => None,
            Some(ExposeIssuer::Acme) => Some(CertificateIssuer::Acme),
            Some(ExposeIssuer::SelfSigned) => Some(CertificateIssuer::SelfSigned),
            None => (made && is_public(&self.host)).then_some(CertificateIssuer::Acme),
        }?;
        let acme = self.acme.clone().filter(|_| issuer == CertificateIssuer::Acme);
        Some(Certificate { domains: vec![self.host.clone()], issuer: Some(issuer), acme, ..Certificate::default() })
    }
}

/// Whether a name can be in the public DNS, and stands for itself alone.
pub fn is_public(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let is_private =
        |suffix: &&str| host.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    host.contains('.')
        && !host.contains(['*', '?'])
        && host.parse::<IpAddr>().is_err()
        && !PRIVATE_SUFFIXES.iter().any(is_private)
}

fn is_default(check: &TargetHealthCheck) -> bool {
    *check == TargetHealthCheck::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_s_own_are_not_public() {
        for host in ["shop.io", "a.b.co.uk", "notlocal.de", "myexample.com"] {
            assert!(is_public(host), "{host}");
        }
        for host in [
            "web",
            "web.lan",
            "web.LAN",
            "nas.home.arpa",
            "web.example.com",
            "example.com",
            "*.shop.io",
            "192.0.2.1",
            "local",
        ] {
            assert!(!is_public(host), "{host}");
        }
    }
}
