//! Kind `Service`, with ECS's field names.

use std::fmt;

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    NotActedOn, TaskDefinitionSpec,
    expose::Expose,
    load_balancer::ServiceLoadBalancer,
    network::{NetworkConfiguration, ServiceRegistry},
    strategy::{
        CanaryConfiguration, DeploymentAlarms, DeploymentController, DeploymentStrategy, LifecycleHook,
        LinearConfiguration,
    },
};
use crate::model::{name::ClusterName, quantity::Seconds, task::MAX_RESTARTS_KEPT};

/// How many tasks of a task definition must run, and how they are placed and replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// The cluster it runs in; `default` when absent.
    #[serde(default = "default_cluster")]
    pub cluster: ClusterName,
    /// The name of a TaskDefinition (`auth`), a revision of it (`auth:3`), or a task definition written in place.
    pub task_definition: TaskDefinitionRef,
    /// REPLICA: how many tasks. Ignored for DAEMON.
    #[serde(default = "one")]
    pub desired_count: u32,
    /// EC2 (you choose hosts) or FARGATE (sizes from the Fargate table, spread by itself).
    #[serde(default)]
    pub launch_type: LaunchType,
    /// REPLICA or DAEMON.
    #[serde(default)]
    pub scheduling_strategy: SchedulingStrategy,
    /// Which hosts may run it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placement_constraints: Vec<PlacementConstraint>,
    /// Up to five, applied in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub placement_strategy: Vec<PlacementStrategy>,
    /// How a new revision is rolled out.
    #[serde(default)]
    pub deployment_configuration: DeploymentConfiguration,
    /// After a start, how long failing checks are overlooked.
    #[serde(default)]
    pub health_check_grace_period_seconds: Seconds,
    /// A task without any check counts as healthy after running this long.
    #[serde(default = "ten_seconds")]
    pub minimum_healthy_seconds: Seconds,
    /// What happens to its tasks when their host is lost.
    #[serde(default)]
    pub on_host_loss: OnHostLoss,
    /// When a silent host counts as lost for its tasks; what is absent is as the cluster says.
    #[serde(default, skip_serializing_if = "ServiceHostLoss::is_default")]
    pub host_loss: ServiceHostLoss,
    /// When a task whose containers are restarted again and again is replaced.
    #[serde(default, skip_serializing_if = "CrashLoop::is_default")]
    pub crash_loop: CrashLoop,
    /// Who deploys: ECS, or as CODE_DEPLOY does, which means BLUE_GREEN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment_controller: Option<DeploymentController>,
    /// With `networkMode: awsvpc`: from which subnets its tasks have addresses, and in which security groups they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_configuration: Option<NetworkConfiguration>,
    /// The target groups that its tasks are targets of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub load_balancers: Vec<ServiceLoadBalancer>,
    /// Under which names its healthy tasks are found; its own when nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_registries: Vec<ServiceRegistry>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_scaling: Option<NotActedOn>,
    /// A target group and a rule of a load balancer, with a certificate when the name is public, without manifests of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose: Option<Box<Expose>>,
    /// Never two of its task: it stops before it is started anew, and waits for its lost host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub singleton: bool,
    /// Whether tasks are moved, one at a time, when zones have become uneven.
    #[serde(default, skip_serializing_if = "AvailabilityZoneRebalancing::is_default")]
    pub availability_zone_rebalancing: AvailabilityZoneRebalancing,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_execute_command: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform_version: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_provider_strategy: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagate_tags: Option<NotActedOn>,
}

/// What `taskDefinition` may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum TaskDefinitionRef {
    /// `auth` or `auth:3`.
    Named(String),
    /// In place; its family is the service's name unless it says another.
    Inline(Box<TaskDefinitionSpec>),
}

/// By hand, since a derived untagged enum forgets what was wrong and where.
impl<'de> Deserialize<'de> for TaskDefinitionRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = TaskDefinitionRef;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a task definition, or a task definition")
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(TaskDefinitionRef::Named(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(MapAccessDeserializer::new(map)).map(TaskDefinitionRef::Inline)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// ECS's launch types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum LaunchType {
    /// You see and choose the hosts.
    #[default]
    Ec2,
    /// You choose none.
    Fargate,
}

/// ECS's scheduling strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SchedulingStrategy {
    /// `desiredCount` tasks.
    #[default]
    Replica,
    /// One task on every matching host.
    Daemon,
}

/// What happens to tasks on a lost host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnHostLoss {
    /// Start others elsewhere.
    #[default]
    Replace,
    /// Wait until the host is back or a person removes it.
    Wait,
}

/// How long a host may be silent, for the tasks of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceHostLoss {
    /// Silent this long: the host gets no new tasks of the service. The shorter of this and the cluster's holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect_after: Option<Seconds>,
    /// Silent this long: the service's tasks there are replaced elsewhere, before or after the host is LOST for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_after: Option<Seconds>,
}

impl ServiceHostLoss {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A crash loop: so many restarts of a task's containers within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CrashLoop {
    /// So many.
    #[schemars(range(min = 1, max = MAX_RESTARTS_KEPT))]
    pub restarts: u32,
    /// Within this time.
    pub period: Seconds,
}

impl Default for CrashLoop {
    fn default() -> Self {
        Self { restarts: 3, period: Seconds(300) }
    }
}

impl CrashLoop {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// ECS's `availabilityZoneRebalancing`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum AvailabilityZoneRebalancing {
    /// They are.
    Enabled,
    /// They stay where they are.
    #[default]
    Disabled,
}

impl AvailabilityZoneRebalancing {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One placement constraint (ECS: distinctInstance, memberOf).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlacementConstraint {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: PlacementConstraintType,
    /// For `memberOf`, in the cluster query language: `attribute:disk == ssd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

/// ECS's constraint types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PlacementConstraintType {
    /// At most one task of the service on a host.
    DistinctInstance,
    /// Only hosts for which `expression` holds.
    MemberOf,
}

/// One placement strategy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlacementStrategy {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: PlacementStrategyType,
    /// spread: `attribute:LABEL`, `instanceId` or `host`; binpack: `cpu` or `memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// ECS's strategy types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlacementStrategyType {
    /// Evenly over the values of `field`.
    Spread,
    /// The host that would have least of `field` left.
    Binpack,
    /// By the plan's seed.
    Random,
}

/// Bounds of a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeploymentConfiguration {
    /// Floor in per cent of desired; 100 for REPLICA, 0 for DAEMON when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub minimum_healthy_percent: Option<u32>,
    /// Ceiling in per cent of desired; 200 for REPLICA, 100 for DAEMON when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 10000))]
    pub maximum_percent: Option<u32>,
    /// When a deployment whose tasks fail is given up.
    #[serde(skip_serializing_if = "is_default")]
    pub deployment_circuit_breaker: DeploymentCircuitBreaker,
    /// How a new revision takes over; ROLLING when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<DeploymentStrategy>,
    /// BLUE_GREEN, CANARY, LINEAR: how long both revisions are ready after the new one got all requests; 5 minutes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bake_time: Option<Seconds>,
    /// The same as ECS has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1440))]
    pub bake_time_in_minutes: Option<u32>,
    /// For CANARY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_configuration: Option<CanaryConfiguration>,
    /// For LINEAR.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_configuration: Option<LinearConfiguration>,
    /// What ends a deployment whose requests fail.
    #[serde(skip_serializing_if = "is_default")]
    pub alarms: DeploymentAlarms,
    /// BLUE_GREEN, CANARY, LINEAR: what must succeed before the deployment goes on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub lifecycle_hooks: Vec<LifecycleHook>,
}

/// ECS's `deploymentCircuitBreaker`; here it is on, with rollback, unless the manifest says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeploymentCircuitBreaker {
    /// Whether failures are counted at all.
    pub enable: bool,
    /// Whether the service then returns to the last completed revision.
    pub rollback: bool,
    /// How many failures are too many.
    pub threshold_configuration: ThresholdConfiguration,
    /// Whether a task of the deployment that becomes healthy sets the count back to 0.
    pub reset_on_healthy_task: bool,
}

impl Default for DeploymentCircuitBreaker {
    fn default() -> Self {
        Self {
            enable: true,
            rollback: true,
            threshold_configuration: ThresholdConfiguration::default(),
            reset_on_healthy_task: true,
        }
    }
}

/// ECS's `thresholdConfiguration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ThresholdConfiguration {
    /// How `value` is meant.
    #[serde(rename = "type")]
    pub kind: ThresholdType,
    /// Per cent of the desired count, or a count.
    #[schemars(range(min = 1, max = 10000))]
    pub value: u32,
}

impl Default for ThresholdConfiguration {
    fn default() -> Self {
        Self { kind: ThresholdType::BoundedPercent, value: 50 }
    }
}

/// ECS's threshold types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ThresholdType {
    /// Per cent of the desired count, and from 3 to 200.
    BoundedPercent,
    /// Per cent of the desired count, without these bounds.
    UnboundedPercent,
    /// So many.
    Count,
}

impl ServiceSpec {
    /// Whether load balancers send requests to its tasks.
    pub fn has_targets(&self) -> bool {
        !self.load_balancers.is_empty() || self.expose.is_some()
    }

    /// Whether its tasks on a lost host wait for it: a singleton's always do (S19).
    pub fn waits_for_lost_host(&self) -> bool {
        self.singleton || self.on_host_loss == OnHostLoss::Wait
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn default_cluster() -> ClusterName {
    super::cluster::DEFAULT_CLUSTER.into()
}

fn one() -> u32 {
    1
}

fn ten_seconds() -> Seconds {
    Seconds(10)
}
