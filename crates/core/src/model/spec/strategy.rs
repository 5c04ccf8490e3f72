//! How a new revision takes over where load balancers send requests to a service.
//!
//! Rules: `DeploymentConfiguration`, `CanaryConfiguration`, `LinearConfiguration` and "Lifecycle stages for Amazon ECS service
//! deployments", ECS. ▲ Durations are also written with their unit (`bakeTime: 30s`); bake time is 5 minutes when nothing is said.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    NotActedOn,
    service::{DeploymentConfiguration, SchedulingStrategy, ServiceSpec},
};
use crate::model::{deployment::LifecycleStage, quantity::Seconds};

/// ECS's deployment strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeploymentStrategy {
    /// Old tasks are replaced by new ones, some at a time.
    #[default]
    Rolling,
    /// The new revision is started beside the old one, and takes all requests at once.
    BlueGreen,
    /// It takes some requests, and after a while all.
    Canary,
    /// It takes more and more of them, step by step.
    Linear,
}

/// ECS's `deploymentController`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentController {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: DeploymentControllerType,
}

/// ECS's deployment controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeploymentControllerType {
    /// As `deploymentConfiguration.strategy` says.
    #[default]
    Ecs,
    /// The same as the strategy BLUE_GREEN.
    CodeDeploy,
    /// There is none here: refused.
    External,
}

/// A share of requests in per cent, to a tenth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// Of 1,000 requests.
    pub per_mille: u32,
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.per_mille % 10 {
            0 => serializer.serialize_u32(self.per_mille / 10),
            _ => serializer.serialize_f64(f64::from(self.per_mille) / 10.0),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        let tenths = percent * 10.0;
        // A decimal fraction is off a little in binary.
        if !(1.0..=1_000.0).contains(&tenths) || (tenths - tenths.round()).abs() > 1e-6 {
            return Err(serde::de::Error::custom("expected per cent from 0.1 to 100, to a tenth"));
        }
        // From 1 to 1,000, as was seen.
        Ok(Self { per_mille: tenths.round() as u32 })
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number", "minimum": 0.1, "maximum": 100.0, "multipleOf": 0.1 })
    }
}

/// For CANARY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CanaryConfiguration {
    /// How many per cent of the requests the new revision gets first; 5 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<Share>,
    /// For how long; 10 minutes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_bake_time: Option<Seconds>,
    /// The same as ECS has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1440))]
    pub canary_bake_time_in_minutes: Option<u32>,
}

/// For LINEAR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinearConfiguration {
    /// How many per cent of the requests more the new revision gets with each step; 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_percent: Option<Share>,
    /// From one step to the next; 6 minutes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_bake_time: Option<Seconds>,
    /// The same as ECS has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1440))]
    pub step_bake_time_in_minutes: Option<u32>,
}

/// ECS's `DeploymentLifecycleHook`: what must succeed before a deployment leaves a stage. ▲ ECS calls a Lambda function; here it is a
/// task that ends, a server that answers as that function does, or a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LifecycleHook {
    /// The stages at whose end it comes.
    #[schemars(length(min = 1))]
    pub lifecycle_stages: Vec<LifecycleStage>,
    /// A task of this definition is started (`smoke`, `smoke:3`): it succeeded when its essential containers exit with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_definition: Option<String>,
    /// This server is asked (POST) until it says that the stage may end, or not: http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// It waits for `roadstead rollout continue`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
    /// A task or a server that takes longer failed; 24 hours when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// A Lambda function: there is none here, and admission refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_target_arn: Option<String>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_details: Option<NotActedOn>,
}

/// ECS's `DeploymentAlarms`. ▲ What is watched is said here: how requests are answered at the load
/// balancers, and how often containers are started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeploymentAlarms {
    /// Whether anything is watched.
    pub enable: bool,
    /// Whether the service then returns to the revision before.
    pub rollback: bool,
    /// A deployment ends when so many per cent more of its requests fail (5xx, or no answer) than of those to the old revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_error_percent: Option<Share>,
    /// A deployment ends when its answers take longer than so many milliseconds, at the percentile that is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub maximum_latency_ms: Option<u32>,
    /// A deployment ends when its answers take so many per cent longer than those of the old revision, at that percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub maximum_latency_increase_percent: Option<u32>,
    /// The percentile of latency that is looked at; 99 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 99))]
    pub latency_percentile: Option<u32>,
    /// A deployment ends when containers of its tasks were started again more often than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_restarts: Option<u32>,
    /// A deployment ends when a query of Prometheus has a result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// Nothing is said of fewer requests than these; 50 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub minimum_requests: Option<u32>,
    /// Alarms of CloudWatch: there are none here, and admission refuses them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alarm_names: Vec<String>,
}

impl Default for DeploymentAlarms {
    fn default() -> Self {
        Self {
            enable: true,
            rollback: true,
            maximum_error_percent: None,
            maximum_latency_ms: None,
            maximum_latency_increase_percent: None,
            latency_percentile: None,
            maximum_restarts: None,
            prometheus: None,
            minimum_requests: None,
            alarm_names: Vec::new(),
        }
    }
}

/// A Prometheus, or what answers as it does, and what it is asked while a deployment is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Prometheus {
    /// Where it is: `http://prometheus.lan:9090`, http or https; `/api/v1/query` is added.
    pub url: String,
    /// From one question to the next; 10 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub interval: Option<Seconds>,
    /// Each is an alarm.
    #[schemars(length(min = 1, max = 10))]
    pub queries: Vec<PrometheusQuery>,
}

/// An alarm that fires while its query has a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusQuery {
    /// What it is called in events.
    pub name: String,
    /// An instant query, such as `rate(errors_total{service="$service"}[1m]) > 5`. `$service`, `$family` and `$revision` (its number)
    /// stand for those of the deployment.
    pub query: String,
    /// So often in a row it has a result before the deployment ends; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub evaluation_periods: Option<u32>,
}

impl Prometheus {
    /// From one question to the next.
    pub fn interval(&self) -> Seconds {
        self.interval.unwrap_or(Seconds(10))
    }
}

impl DeploymentAlarms {
    /// So many requests are looked at before anything is said.
    pub fn minimum_requests(&self) -> u64 {
        self.minimum_requests.unwrap_or(50).into()
    }

    /// The percentile of latency that is looked at.
    pub fn latency_percentile(&self) -> u32 {
        self.latency_percentile.unwrap_or(99)
    }
}

/// A hook's longest time (ECS).
pub const LONGEST_HOOK_S: u32 = 86_400;

impl LifecycleHook {
    /// How long its task or its server may take.
    pub fn timeout(&self) -> Seconds {
        self.timeout.unwrap_or(Seconds(LONGEST_HOOK_S))
    }
}

fn either(ours: Option<Seconds>, minutes: Option<u32>, default_s: u32) -> Seconds {
    ours.or(minutes.map(|minutes| Seconds(minutes.saturating_mul(60)))).unwrap_or(Seconds(default_s))
}

impl DeploymentConfiguration {
    /// How long both revisions are ready after the new one got all requests.
    pub fn bake_time(&self) -> Seconds {
        either(self.bake_time, self.bake_time_in_minutes, 300)
    }
}

impl ServiceSpec {
    /// How a new revision takes over.
    pub fn strategy(&self) -> DeploymentStrategy {
        let of_controller = || match self.deployment_controller.unwrap_or_default().kind {
            DeploymentControllerType::CodeDeploy => DeploymentStrategy::BlueGreen,
            DeploymentControllerType::Ecs | DeploymentControllerType::External => DeploymentStrategy::Rolling,
        };
        self.deployment_configuration.strategy.unwrap_or_else(of_controller)
    }

    /// Whether its revisions take turns in two target groups.
    pub fn takes_turns(&self) -> bool {
        let shifts = match self.strategy() {
            DeploymentStrategy::Rolling => false,
            DeploymentStrategy::BlueGreen | DeploymentStrategy::Canary | DeploymentStrategy::Linear => true,
        };
        shifts
            && self.scheduling_strategy == SchedulingStrategy::Replica
            && !self.singleton
            && !self.load_balancers.is_empty()
            && self.load_balancers.iter().all(|own| own.alternate_target_group.is_some())
    }

    /// Of 1,000 requests, how many go to the new revision after `per_mille` of them did.
    pub fn next_share(&self, per_mille: u32) -> u32 {
        let configuration = &self.deployment_configuration;
        let next = match self.strategy() {
            DeploymentStrategy::Rolling | DeploymentStrategy::BlueGreen => 1_000,
            DeploymentStrategy::Canary => {
                let canary = configuration.canary_configuration.unwrap_or_default();
                let first = canary.canary_percent.map_or(50, |share| share.per_mille);
                if per_mille < first { first } else { 1_000 }
            }
            DeploymentStrategy::Linear => {
                let linear = configuration.linear_configuration.unwrap_or_default();
                per_mille.saturating_add(linear.step_percent.map_or(100, |share| share.per_mille))
            }
        };
        next.clamp(1, 1_000)
    }

    /// How long the requests stay as they are before more of them go to the new revision.
    pub fn step_bake_time(&self) -> Seconds {
        let configuration = &self.deployment_configuration;
        match self.strategy() {
            DeploymentStrategy::Rolling | DeploymentStrategy::BlueGreen => Seconds(0),
            DeploymentStrategy::Canary => {
                let canary = configuration.canary_configuration.unwrap_or_default();
                either(canary.canary_bake_time, canary.canary_bake_time_in_minutes, 600)
            }
            DeploymentStrategy::Linear => {
                let linear = configuration.linear_configuration.unwrap_or_default();
                either(linear.step_bake_time, linear.step_bake_time_in_minutes, 360)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(strategy: &Value) -> ServiceSpec {
        let spec = json!({ "taskDefinition": "web", "deploymentConfiguration": strategy });
        serde_json::from_value(spec).unwrap()
    }

    fn steps(spec: &ServiceSpec) -> Vec<u32> {
        let mut shares = vec![spec.next_share(0)];
        while shares.last() != Some(&1_000) {
            shares.push(spec.next_share(shares[shares.len() - 1]));
        }
        shares
    }

    #[test]
    fn requests_are_shifted_in_steps() {
        let canary = |of: Value| json!({ "strategy": "CANARY", "canaryConfiguration": of });
        let linear = |of: Value| json!({ "strategy": "LINEAR", "linearConfiguration": of });
        for (strategy, shares, bake) in [
            (json!({ "strategy": "BLUE_GREEN" }), vec![1_000], 0),
            (json!({ "strategy": "CANARY" }), vec![50, 1_000], 600),
            (canary(json!({ "canaryPercent": 12.5, "canaryBakeTimeInMinutes": 1 })), vec![125, 1_000], 60),
            (canary(json!({ "canaryPercent": 100, "canaryBakeTime": "5s" })), vec![1_000], 5),
            (linear(json!({ "stepPercent": 40, "stepBakeTime": "5s" })), vec![400, 800, 1_000], 5),
            (linear(json!({ "stepPercent": 50, "stepBakeTimeInMinutes": 2 })), vec![500, 1_000], 120),
        ] {
            let spec = spec(&strategy);
            assert_eq!((steps(&spec), spec.step_bake_time().0), (shares, bake), "{strategy}");
        }
        let linear = spec(&json!({ "strategy": "LINEAR" }));
        assert_eq!((steps(&linear).len(), linear.step_bake_time().0), (10, 360));
    }

    #[test]
    fn a_share_is_per_cent_to_a_tenth() {
        for (text, per_mille) in [("0.1", 1), ("5", 50), ("12.5", 125), ("33.3", 333), ("99.9", 999), ("100", 1_000)] {
            let share: Share = serde_json::from_str(text).unwrap();
            assert_eq!(share.per_mille, per_mille, "{text}");
            assert_eq!(serde_json::to_string(&share).unwrap(), text);
        }
        for bad in ["0", "0.05", "100.1", "-1", "12.55"] {
            assert!(serde_json::from_str::<Share>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bake_time_is_in_our_words_or_those_of_ecs() {
        let bake = |of: Value| spec(&of).deployment_configuration.bake_time().0;
        assert_eq!(bake(json!({ "bakeTime": "30s" })), 30);
        assert_eq!(bake(json!({ "bakeTimeInMinutes": 2 })), 120);
        assert_eq!(bake(json!({})), 300);
    }

    #[test]
    fn turns_are_taken_where_there_are_two_groups() {
        let of = |fields: Value| {
            let mut spec = json!({ "taskDefinition": "web" });
            spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            serde_json::from_value::<ServiceSpec>(spec).unwrap().takes_turns()
        };
        let both = json!([{ "targetGroup": "blue", "alternateTargetGroup": "green" }]);
        let one = json!([{ "targetGroup": "blue" }]);
        let strategy = json!({ "strategy": "CANARY" });
        assert!(of(json!({ "loadBalancers": both, "deploymentConfiguration": strategy })));
        assert!(of(json!({ "loadBalancers": both, "deploymentController": { "type": "CODE_DEPLOY" } })));
        assert!(!of(json!({ "loadBalancers": both })));
        assert!(!of(json!({ "loadBalancers": both, "deploymentController": { "type": "ECS" } })));
        assert!(!of(json!({ "loadBalancers": one, "deploymentConfiguration": strategy })));
        assert!(!of(json!({ "loadBalancers": [], "deploymentConfiguration": strategy })));
        assert!(!of(json!({ "loadBalancers": both, "deploymentConfiguration": strategy, "singleton": true })));
        let daemon =
            json!({ "loadBalancers": both, "deploymentConfiguration": strategy, "schedulingStrategy": "DAEMON" });
        assert!(!of(daemon));
    }
}
