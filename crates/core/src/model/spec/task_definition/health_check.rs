//! Health checks of containers: commands inside, as in ECS, and probes from the host, for images without a shell.
//!
//! Rules: "Health check", ECS task definition parameters; "Health checks for target groups", Elastic Load Balancing.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::environment::Scalar;
use crate::model::quantity::{QuantityError, Seconds};

/// A container's health check: exactly one of `command` (ECS's), `http` and `tcp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// `["CMD", "program", …]`, `["CMD-SHELL", "line"]`, or a plain line for the shell.
    #[serde(default, deserialize_with = "text_or_list", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "TextOrList")]
    pub command: Vec<String>,
    /// Asked for from the host over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// Connected to from the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    /// 5–300 s; from 1 s for `http` and `tcp`.
    #[serde(default = "interval")]
    pub interval: Seconds,
    /// 2–60 s; from 1 s for `http` and `tcp`.
    #[serde(default = "timeout")]
    pub timeout: Seconds,
    /// 1–10.
    #[serde(default = "retries")]
    #[schemars(range(min = 1, max = 10))]
    pub retries: u32,
    /// 0–300 s in which failures do not count.
    #[serde(default)]
    pub start_period: Seconds,
}

impl HealthCheck {
    /// What is made from the host, if this is not a command.
    pub fn probe(&self) -> Option<Probe<'_>> {
        self.http.as_ref().map(Probe::Http).or(self.tcp.as_ref().map(Probe::Tcp))
    }
}

/// A check that is made from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe<'a> {
    /// An answer is expected.
    Http(&'a HttpCheck),
    /// A connection is enough.
    Tcp(&'a TcpCheck),
}

impl Probe<'_> {
    /// The container's port.
    pub fn port(self) -> u16 {
        match self {
            Self::Http(http) => http.port,
            Self::Tcp(tcp) => tcp.port,
        }
    }
}

/// A GET request to the container; redirects are answers, and are not followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// What is asked for, with its query.
    #[serde(default = "root")]
    pub path: String,
    /// Inside the container.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Which statuses are healthy; 200-399 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matcher: Option<StatusMatcher>,
    /// More headers by name; `Host` in place of ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A connection to the container, closed at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCheck {
    /// Inside the container.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// HTTP statuses: `200`, `200,202`, `200-299`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusMatcher(Vec<RangeInclusive<u16>>);

/// What load balancers take.
const STATUSES: RangeInclusive<u16> = 200..=499;

impl StatusMatcher {
    /// Whether a status is one of them.
    pub fn matches(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for StatusMatcher {
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl FromStr for StatusMatcher {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (STATUSES.contains(&first) && STATUSES.contains(&last) && first <= last).then_some(first..=last)
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| QuantityError {
            text: text.to_owned(),
            expected: "statuses from 200 to 499 such as 200, \"200,202\" or \"200-299\"",
        })
    }
}

impl fmt::Display for StatusMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            match range.start() == range.end() {
                true => write!(f, "{comma}{}", range.start())?,
                false => write!(f, "{comma}{}-{}", range.start(), range.end())?,
            }
        }
        Ok(())
    }
}

impl Serialize for StatusMatcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusMatcher {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Scalar::deserialize(deserializer)?.0.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for StatusMatcher {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StatusMatcher".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number"] })
    }
}

/// The two forms, for the schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum TextOrList {
    Text(String),
    List(Vec<String>),
}

fn text_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Either;

    impl<'de> Visitor<'de> for Either {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of words, or a line for the shell")
        }

        fn visit_str<E>(self, line: &str) -> Result<Self::Value, E> {
            Ok(vec!["CMD-SHELL".to_owned(), line.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
            Deserialize::deserialize(SeqAccessDeserializer::new(list))
        }
    }

    deserializer.deserialize_any(Either)
}

fn root() -> String {
    "/".to_owned()
}

fn interval() -> Seconds {
    Seconds(30)
}

fn timeout() -> Seconds {
    Seconds(5)
}

fn retries() -> u32 {
    3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_and_written() {
        for (text, written, inside, outside) in [
            ("200", "200", [200, 200], [201, 399]),
            ("200, 202", "200,202", [200, 202], [201, 203]),
            ("200-299,401", "200-299,401", [250, 401], [300, 400]),
        ] {
            let matcher: StatusMatcher = text.parse().unwrap();
            assert_eq!(matcher.to_string(), written);
            assert!(inside.iter().all(|status| matcher.matches(*status)), "{text}");
            assert!(!outside.iter().any(|status| matcher.matches(*status)), "{text}");
        }
        for text in ["", "ok", "199", "500", "299-200", "200-", "200,,201", "2e2"] {
            assert!(text.parse::<StatusMatcher>().is_err(), "{text}");
        }
    }
}
