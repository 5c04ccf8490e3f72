//! Where a container's output goes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::environment::Scalar;
use crate::model::spec::NotActedOn;

/// What takes over where nothing is said, and from drivers that are not here.
pub const DEFAULT_LOG_DRIVER: &str = "json-file";

/// Docker's own drivers: their options are passed through.
pub const DOCKER_LOG_DRIVERS: &[&str] =
    &["fluentd", "gcplogs", "gelf", "journald", "json-file", "local", "none", "splunk", "syslog"];

/// ECS's drivers that need what is not here: AWS's credentials, its agent, or Windows.
pub const ELSEWHERE_LOG_DRIVERS: &[&str] = &["awsfirelens", "awslogs", "etwlogs", "logentries"];

/// ECS's `logConfiguration`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogConfiguration {
    /// One of Docker's drivers. Any other is taken over by the cluster's `logging`.
    pub log_driver: String,
    /// The driver's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub options: BTreeMap<String, String>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_options: Option<NotActedOn>,
}

impl LogConfiguration {
    /// Whether Docker itself has the driver.
    pub fn is_dockers(&self) -> bool {
        DOCKER_LOG_DRIVERS.contains(&self.log_driver.as_str())
    }
}
