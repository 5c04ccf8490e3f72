//! Kind `ScheduledTask`: standalone tasks at certain times. Fields as in ECS where it has them, else as in Kubernetes' CronJob.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    network::NetworkConfiguration,
    service::{LaunchType, PlacementConstraint, PlacementStrategy},
};
use crate::model::{name::ClusterName, quantity::Seconds, standalone::TaskOverride};

/// How many fires are remembered at most, of those that succeeded and of the others.
pub const MAX_HISTORY: u32 = 100;

/// Which tasks are started, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScheduledTaskSpec {
    /// `cron(0 3 * * ? *)` as at AWS, `0 3 * * *` as in crontab, or `rate(15 minutes)`.
    pub schedule: String,
    /// The time zone of a cron schedule, by its IANA name; UTC when absent.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The name of a TaskDefinition (`report`), or a revision of it (`report:3`).
    pub task_definition: String,
    /// The cluster; `default` when absent.
    #[serde(default = "default_cluster")]
    pub cluster: ClusterName,
    /// How many tasks each time.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10))]
    pub count: u32,
    /// What differs from the task definition.
    #[serde(default, skip_serializing_if = "TaskOverride::is_empty")]
    pub overrides: TaskOverride,
    /// EC2 (you choose hosts) or FARGATE.
    #[serde(default)]
    pub launch_type: LaunchType,
    /// Which hosts may run them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement_constraints: Vec<PlacementConstraint>,
    /// Up to five, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub placement_strategy: Vec<PlacementStrategy>,
    /// With `networkMode: awsvpc`: from which subnets the tasks have addresses, and in which security groups they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_configuration: Option<NetworkConfiguration>,
    /// What happens when the tasks of the time before still run.
    #[serde(default)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// What could not begin for so long is missed; without it what is late begins late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<Seconds>,
    /// While true nothing begins, and nothing is made up for later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// How many fires that succeeded are remembered.
    #[serde(default = "ten")]
    #[schemars(range(max = 100))]
    pub successful_jobs_history_limit: u32,
    /// How many fires that failed, were missed or skipped are remembered.
    #[serde(default = "ten")]
    #[schemars(range(max = 100))]
    pub failed_jobs_history_limit: u32,
}

/// Kubernetes' `concurrencyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConcurrencyPolicy {
    /// New tasks begin beside them.
    #[default]
    Allow,
    /// This time is skipped.
    Forbid,
    /// They are stopped, and new ones begin.
    Replace,
}

fn default_cluster() -> ClusterName {
    super::cluster::DEFAULT_CLUSTER.into()
}

fn utc() -> String {
    "UTC".to_owned()
}

fn one() -> u32 {
    1
}

fn ten() -> u32 {
    10
}
