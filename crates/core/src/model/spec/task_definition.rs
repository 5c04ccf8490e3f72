//! Kind `TaskDefinition`: the ECS document, field for field.
//!
//! Rules: "Task definition parameters", ECS developer guide.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use super::{NotActedOn, service::PlacementConstraint};
use crate::model::quantity::{CpuUnits, Mebibytes, Seconds};

/// What a task is: one or more containers, placed together on one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskDefinitionSpec {
    /// The family; the manifest's (or the service's) name when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// The containers.
    #[schemars(length(min = 1, max = 10))]
    pub container_definitions: Vec<ContainerDefinition>,
    /// bridge, host, none; awsvpc is not acted on yet and runs as bridge.
    pub network_mode: NetworkMode,
    /// Hard limit for the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUnits>,
    /// Hard limit for the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Mebibytes>,
    /// Which hosts may run it (memberOf only, as in ECS).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub placement_constraints: Vec<PlacementConstraint>,
    /// EC2, FARGATE: FARGATE asks for a size from the Fargate table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires_compatibilities: Vec<String>,
    /// Which hosts fit by architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_platform: Option<RuntimePlatform>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_mode: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_mode: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_configuration: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_accelerators: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_fault_injection: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<NotActedOn>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDefinition {
    /// Unique in the task.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// When it stops, the task stops.
    #[serde(default = "yes")]
    pub essential: bool,
    /// Relative shares.
    #[serde(default)]
    pub cpu: CpuUnits,
    /// Hard limit in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Mebibytes>,
    /// Soft limit in MiB; what placement counts when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<Mebibytes>,
    /// Replaces the image's CMD.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Replaces the image's ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entry_point: Vec<String>,
    /// Environment variables, as a list of name and value or as a map.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// Ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// What must have happened to other containers of the task before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<ContainerDependency>,
    /// The container's own check; the image's HEALTHCHECK is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// On a dependency: how long until it must meet its condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Seconds>,
    /// From SIGTERM to SIGKILL; 30 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<Seconds>,
    /// Restarts by the engine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// `user`, `user:group`, `uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the command starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Docker labels of the user's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub docker_labels: BTreeMap<String, String>,
    /// No writes to the root file system.
    #[serde(default)]
    pub readonly_root_filesystem: bool,
    /// All rights on the host.
    #[serde(default)]
    pub privileged: bool,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_files: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_configuration: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_points: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes_from: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ulimits: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_hosts: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_servers: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_search_domains: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_security_options: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux_parameters: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudo_terminal: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_controls: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_requirements: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_credentials: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firelens_configuration: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_networking: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_specs: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_consistency: Option<NotActedOn>,
}

/// ECS's network modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Docker's bridge; host ports.
    #[default]
    Bridge,
    /// The host's own network.
    Host,
    /// None at all.
    None,
    /// An address per task.
    Awsvpc,
}

/// Environment variables by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A name and its value, ECS's `KeyValuePair`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeyValuePair {
    /// The name.
    name: String,
    /// The value.
    #[serde(default)]
    value: Scalar,
}

/// Text; numbers and booleans are taken as they are written.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
struct Scalar(String);

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// Asks for text, so that a format that knows how a number was written (`1.10`) hands it over so.
impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsText;

        impl Visitor<'_> for AsText {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_bool<E>(self, truth: bool) -> Result<Scalar, E> {
                Ok(Scalar(truth.to_string()))
            }
        }

        deserializer.deserialize_str(AsText)
    }
}

/// The two forms, for the schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum EnvironmentForm {
    List(Vec<KeyValuePair>),
    Map(BTreeMap<String, Scalar>),
}

impl<'de> Deserialize<'de> for Environment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrMap;

        impl<'de> Visitor<'de> for ListOrMap {
            type Value = Environment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of `name` and `value`, or a mapping")
            }

            fn visit_unit<E>(self) -> Result<Environment, E> {
                Ok(Environment::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Environment, A::Error> {
                let mut variables = BTreeMap::new();
                while let Some(KeyValuePair { name, value }) = list.next_element()? {
                    variables.insert(name, value.0);
                }
                Ok(Environment(variables))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Environment, A::Error> {
                let mut variables = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Scalar>()? {
                    variables.insert(name, value.0);
                }
                Ok(Environment(variables))
            }
        }

        deserializer.deserialize_any(ListOrMap)
    }
}

impl Serialize for Environment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0.iter().map(|(name, value)| KeyValuePair { name: name.clone(), value: Scalar(value.clone()) }),
        )
    }
}

impl JsonSchema for Environment {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Environment".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        EnvironmentForm::json_schema(generator)
    }
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// Inside the container.
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: u16,
    /// On the host; absent or 0: the planner picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// tcp or udp.
    #[serde(default)]
    pub protocol: Protocol,
    /// For service discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Kept for Service Connect users; changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_port_range: Option<NotActedOn>,
}

/// Transport protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// A condition on another container of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerDependency {
    /// The other container.
    pub container_name: String,
    /// What must hold of it.
    pub condition: DependencyCondition,
}

/// ECS's dependency conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DependencyCondition {
    /// It runs.
    Start,
    /// It ran and exited, with any code.
    Complete,
    /// It ran and exited with 0.
    Success,
    /// Its health check passes.
    Healthy,
}

/// ECS's container health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// `["CMD", "program", …]`, `["CMD-SHELL", "line"]`, or a plain line for the shell.
    #[serde(deserialize_with = "text_or_list")]
    #[schemars(with = "TextOrList")]
    pub command: Vec<String>,
    /// 5–300 s.
    #[serde(default = "interval")]
    pub interval: Seconds,
    /// 2–60 s.
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

/// Restarts by the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartPolicy {
    /// true: Docker's `unless-stopped`; the default for services.
    pub enabled: bool,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored_exit_codes: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_attempt_period: Option<NotActedOn>,
}

/// What the task's binaries need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuntimePlatform {
    /// X86_64 or ARM64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_architecture: Option<String>,
    /// LINUX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operating_system_family: Option<String>,
}

fn yes() -> bool {
    true
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
