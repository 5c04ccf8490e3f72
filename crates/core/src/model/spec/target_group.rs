//! Kind `TargetGroup`: where load balancers send requests, and how they tell who can take them.
//!
//! Rules: "Target groups for your Application Load Balancers" and `CreateTargetGroup`, Elastic Load Balancing. ▲ Defaults of the
//! health check are shorter here, since what is checked is near: every 5 s, healthy after 2.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{name::ClusterName, quantity::Seconds};

/// Where load balancers send requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetGroupSpec {
    /// The cluster whose services are its targets; the one that all hosts are in when absent, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The port of a target that says none itself; a service's targets always do.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// How targets are spoken to.
    #[serde(default)]
    pub protocol: TargetProtocol,
    /// ECS's `ip` or `instance`: what a service's targets are follows from its network mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<TargetType>,
    /// How it is told whether a target can take requests.
    #[serde(default)]
    pub health_check: TargetHealthCheck,
    /// How long a target that leaves may finish what it does; it ends early when nothing is in flight.
    #[serde(default = "default_deregistration_delay")]
    #[schemars(range(max = 3600))]
    pub deregistration_delay: Seconds,
    /// Over how long a new target comes to its full share; 0: at once, or from 30 to 900 s.
    #[serde(default)]
    pub slow_start: Seconds,
    /// Which target gets the next request.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Whether a client stays with its target.
    #[serde(default)]
    pub stickiness: Stickiness,
    /// For TCP: whether targets are told of the client by the PROXY protocol, version 2.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy_protocol: bool,
}

/// How targets are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum TargetProtocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP over TLS; whose certificate it is does not matter (as with an ALB).
    Https,
    /// Bytes.
    Tcp,
}

/// ELB's target types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetType {
    /// Addresses.
    Ip,
    /// Hosts and ports.
    Instance,
}

/// How it is told whether a target can take requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TargetHealthCheck {
    /// HTTP, HTTPS, or TCP (a connection is enough); as the group's own protocol when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<TargetProtocol>,
    /// Another port than the one that takes requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// What is asked for.
    pub path: String,
    /// Between two checks.
    #[schemars(range(min = 1, max = 300))]
    pub interval: Seconds,
    /// No answer within this is a failure.
    #[schemars(range(min = 1, max = 120))]
    pub timeout: Seconds,
    /// So many in a row: an unhealthy target is healthy again. A new one needs one.
    #[schemars(range(min = 2, max = 10))]
    pub healthy_threshold_count: u32,
    /// So many failures in a row: unhealthy.
    #[schemars(range(min = 2, max = 10))]
    pub unhealthy_threshold_count: u32,
    /// Which answers are good: `200`, `200,202`, `200-299`.
    pub matcher: String,
}

impl Default for TargetHealthCheck {
    fn default() -> Self {
        Self {
            protocol: None,
            port: None,
            path: "/".to_owned(),
            interval: Seconds(5),
            timeout: Seconds(5),
            healthy_threshold_count: 2,
            unhealthy_threshold_count: 2,
            matcher: "200".to_owned(),
        }
    }
}

/// Which target gets the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// In turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastOutstandingRequests,
    /// By lot.
    WeightedRandom,
}

/// Whether a client stays with its target, by a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Stickiness {
    /// Whether it does.
    pub enabled: bool,
    /// For how long after its last request.
    pub duration: Seconds,
    /// What the cookie is called.
    pub cookie_name: String,
}

impl Default for Stickiness {
    fn default() -> Self {
        Self { enabled: false, duration: Seconds(86_400), cookie_name: "RSALB".to_owned() }
    }
}

fn default_deregistration_delay() -> Seconds {
    Seconds(300)
}

impl TargetGroupSpec {
    /// A group of targets that speak HTTP on a port, with what holds when nothing is said.
    pub fn of_port(port: u16) -> Self {
        Self {
            cluster: None,
            port,
            protocol: TargetProtocol::default(),
            target_type: None,
            health_check: TargetHealthCheck::default(),
            deregistration_delay: default_deregistration_delay(),
            slow_start: Seconds(0),
            algorithm: Algorithm::default(),
            stickiness: Stickiness::default(),
            proxy_protocol: false,
        }
    }

    /// Which answers of a check are good, as inclusive ranges of status codes; none when `matcher` cannot be read.
    pub fn good_answers(&self) -> Option<Vec<(u16, u16)>> {
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (200 <= first && first <= last && last <= 499).then_some((first, last))
        };
        self.health_check.matcher.split(',').map(range).collect()
    }

    /// How a check is made.
    pub fn check_protocol(&self) -> TargetProtocol {
        self.health_check.protocol.unwrap_or(self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matcher_is_codes_and_ranges() {
        let answers = |matcher: &str| {
            let health_check = TargetHealthCheck { matcher: matcher.to_owned(), ..TargetHealthCheck::default() };
            let spec: TargetGroupSpec = serde_json::from_str(r#"{"port":80}"#).unwrap();
            TargetGroupSpec { health_check, ..spec }.good_answers()
        };
        assert_eq!(answers("200"), Some(vec![(200, 200)]));
        assert_eq!(answers("200,202, 300-399"), Some(vec![(200, 200), (202, 202), (300, 399)]));
        for bad in ["", "199", "200-500", "300-200", "ok", "200,,201"] {
            assert_eq!(answers(bad), None, "{bad}");
        }
    }
}
