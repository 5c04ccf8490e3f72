//! Standalone tasks: what RunTask starts, and what it lays over the task definition.
//!
//! Rules: "RunTask" and "TaskOverride", ECS API reference.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    name::{ClusterName, ScheduleName},
    quantity::{CpuUnits, MIN_CPU_LIMIT, Mebibytes},
    spec::{
        NotActedOn, TaskDefinitionSpec,
        cluster::DEFAULT_CLUSTER,
        network::NetworkConfiguration,
        service::{LaunchType, PlacementConstraint, PlacementStrategy},
        task_definition::{Environment, RestartPolicy},
    },
    time::Timestamp,
};

/// So many tasks may be asked for at once (ECS).
pub const MAX_COUNT: u32 = 10;
/// Overrides have at most so many characters as JSON (ECS).
pub const MAX_OVERRIDES_CHARS: usize = 8192;
/// A client token has at most so many characters (ECS).
pub const MAX_TOKEN_CHARS: usize = 64;
/// ECS's `startedBy` has at most so many characters.
pub const MAX_STARTED_BY_CHARS: usize = 128;
/// Docker takes no less.
const MIN_MEMORY_MIB: u32 = 6;

/// ECS's RunTask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunTask {
    /// `family` or `family:revision`.
    pub task_definition: String,
    /// How many, up to [`MAX_COUNT`].
    #[serde(default = "one")]
    pub count: u32,
    /// Where.
    #[serde(default = "default_cluster")]
    pub cluster: ClusterName,
    /// EC2 or FARGATE.
    #[serde(default)]
    pub launch_type: LaunchType,
    /// What differs from the task definition.
    #[serde(default)]
    pub overrides: TaskOverride,
    /// Which hosts may run them, besides what the task definition says.
    #[serde(default)]
    pub placement_constraints: Vec<PlacementConstraint>,
    /// Up to five, in order.
    #[serde(default)]
    pub placement_strategy: Vec<PlacementStrategy>,
    /// With `networkMode: awsvpc`: from which subnets they have addresses, and in which security groups they are.
    #[serde(default)]
    pub network_configuration: Option<NetworkConfiguration>,
    /// Who starts them, in words.
    #[serde(default)]
    pub started_by: Option<String>,
    /// A request with a token that was seen before starts nothing.
    #[serde(default)]
    pub client_token: String,
}

/// ECS's `TaskOverride`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TaskOverride {
    /// Of single containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_overrides: Vec<ContainerOverride>,
    /// Hard limit for the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUnits>,
    /// Hard limit for the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Mebibytes>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_accelerator_overrides: Option<NotActedOn>,
}

/// ECS's `ContainerOverride`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerOverride {
    /// Which container.
    pub name: String,
    /// In place of the task definition's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Added to the task definition's; of the same name these win.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    pub environment: Environment,
    /// Relative shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUnits>,
    /// Hard limit in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Mebibytes>,
    /// Soft limit in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<Mebibytes>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_files: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_requirements: Option<NotActedOn>,
}

/// Values of variables and words of commands may be secret: logs name neither.
impl fmt::Debug for ContainerOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerOverride")
            .field("name", &self.name)
            .field("command_words", &self.command.len())
            .field("environment", &self.environment.0.keys())
            .field("cpu", &self.cpu)
            .field("memory", &self.memory)
            .field("memory_reservation", &self.memory_reservation)
            .finish()
    }
}

/// What a standalone task has that a service's task has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Standalone {
    /// ECS's `startedBy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// The token of the request that started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// What differs from its revision.
    #[serde(skip_serializing_if = "TaskOverride::is_empty")]
    pub overrides: TaskOverride,
    /// The fire that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<Scheduled>,
}

/// One fire of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduled {
    /// The schedule.
    pub by: ScheduleName,
    /// Its time.
    pub at: Timestamp,
}

impl TaskOverride {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Fields that say something and are not acted on, as paths in the overrides.
    pub fn not_acted_on(&self) -> Vec<String> {
        let of_task = [
            ("taskRoleArn", &self.task_role_arn),
            ("executionRoleArn", &self.execution_role_arn),
            ("ephemeralStorage", &self.ephemeral_storage),
            ("inferenceAcceleratorOverrides", &self.inference_accelerator_overrides),
        ];
        let of_task = of_task.into_iter().map(|(field, value)| (field.to_owned(), value));
        let of_containers = self.container_overrides.iter().enumerate().flat_map(|(index, container)| {
            [
                ("environmentFiles", &container.environment_files),
                ("resourceRequirements", &container.resource_requirements),
            ]
            .map(|(field, value)| (format!("containerOverrides.{index}.{field}"), value))
        });
        let said = of_task.chain(of_containers).filter(|(_, value)| value.as_ref().is_some_and(NotActedOn::says));
        said.map(|(path, _)| path).collect()
    }

    /// The definition with these laid over it.
    pub fn over(&self, definition: &TaskDefinitionSpec) -> TaskDefinitionSpec {
        let mut spec = definition.clone();
        spec.cpu = self.cpu.or(spec.cpu);
        spec.memory = self.memory.or(spec.memory);
        for container in &mut spec.container_definitions {
            let Some(differs) = self.container_overrides.iter().find(|other| other.name == container.name) else {
                continue;
            };
            if !differs.command.is_empty() {
                container.command.clone_from(&differs.command);
            }
            container.environment.0.extend(differs.environment.0.clone());
            container.cpu = differs.cpu.unwrap_or(container.cpu);
            container.memory = differs.memory.or(container.memory);
            container.memory_reservation = differs.memory_reservation.or(container.memory_reservation);
        }
        spec
    }

    /// Why these do not fit a definition, if so: where in them, as a path of field names and numbers, and what.
    pub fn misfit(&self, definition: &TaskDefinitionSpec) -> Option<(Vec<String>, String)> {
        let at = |path: &[&str]| path.iter().map(|step| (*step).to_owned()).collect::<Vec<String>>();
        let chars = serde_json::to_string(self).map_or(0, |json| json.chars().count());
        if chars > MAX_OVERRIDES_CHARS {
            return Some((
                at(&[]),
                format!("the overrides have {chars} characters; {MAX_OVERRIDES_CHARS} are allowed"),
            ));
        }
        let names = || definition.container_definitions.iter().map(|container| container.name.as_str());
        let mut seen: Vec<&str> = Vec::new();
        for (index, differs) in self.container_overrides.iter().enumerate() {
            let number = index.to_string();
            let wrong = |field: &str, words: String| Some((at(&["containerOverrides", &number, field]), words));
            if !names().any(|name| name == differs.name) {
                let there: Vec<&str> = names().collect();
                let words = format!(
                    "there is no container {:?} in the task definition, but {}",
                    differs.name,
                    there.join(", ")
                );
                return wrong("name", words);
            }
            if seen.contains(&differs.name.as_str()) {
                return wrong("name", format!("container {:?} is overridden twice", differs.name));
            }
            seen.push(&differs.name);
        }
        if let Some(cpu) = self.cpu.filter(|cpu| cpu.0 < MIN_CPU_LIMIT) {
            let words = format!("{} CPU units are less than Linux can limit to: 1024 are one vCPU", cpu.0);
            return Some((at(&["cpu"]), words));
        }
        let after = self.over(definition);
        let largest = after.container_definitions.iter().filter_map(|container| container.memory).max();
        if let (Some(task), Some(largest)) = (self.memory, largest)
            && largest > task
        {
            let words = format!("a container may use {} MiB, the task {}", largest.0, task.0);
            return Some((at(&["memory"]), words));
        }
        for (index, differs) in self.container_overrides.iter().enumerate() {
            let number = index.to_string();
            let wrong = |field: &str, words: String| Some((at(&["containerOverrides", &number, field]), words));
            let merged = after.container_definitions.iter().find(|container| container.name == differs.name);
            for (field, value) in [("memory", differs.memory), ("memoryReservation", differs.memory_reservation)] {
                if value.is_some_and(|value| value.0 < MIN_MEMORY_MIB) {
                    return wrong(field, format!("a container needs at least {MIN_MEMORY_MIB} MiB"));
                }
            }
            let Some((hard, soft)) = merged.map(|merged| (merged.memory, merged.memory_reservation)) else { continue };
            let field = if differs.memory_reservation.is_some() { "memoryReservation" } else { "memory" };
            if let (Some(hard), Some(soft)) = (hard, soft)
                && soft > hard
            {
                return wrong(field, format!("the reservation of {} MiB is more than the limit of {}", soft.0, hard.0));
            }
            if let (Some(task), Some(of_one)) = (after.memory, hard.or(soft))
                && of_one > task
            {
                return wrong(
                    field,
                    format!("container {} may use {} MiB, its task {}", differs.name, of_one.0, task.0),
                );
            }
        }
        None
    }
}

impl Standalone {
    /// What the task runs: its revision's content with the overrides, and without the restarts that only services have by
    /// default.
    pub fn content(&self, definition: &TaskDefinitionSpec) -> Arc<TaskDefinitionSpec> {
        let mut spec = self.overrides.over(definition);
        for container in &mut spec.container_definitions {
            container
                .restart_policy
                .get_or_insert_with(|| RestartPolicy { enabled: false, ..RestartPolicy::default() });
        }
        Arc::new(spec)
    }
}

fn one() -> u32 {
    1
}

fn default_cluster() -> ClusterName {
    DEFAULT_CLUSTER.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> TaskDefinitionSpec {
        serde_json::from_str(
            r#"{"memory": 256, "containerDefinitions": [
                {"name": "main", "image": "demo", "memory": 64, "command": ["a"], "environment": {"A": "1", "B": "2"}},
                {"name": "side", "image": "demo", "restartPolicy": {"enabled": true}}]}"#,
        )
        .unwrap()
    }

    fn overrides(json: &str) -> TaskOverride {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_differs_is_laid_over_the_definition() {
        let given = overrides(
            r#"{"cpu": 128, "containerOverrides": [{"name": "main", "command": ["b", "c"], "memory": 128,
                "environment": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}]}"#,
        );
        assert_eq!(given.misfit(&definition()), None);
        let content = Standalone { overrides: given, ..Standalone::default() }.content(&definition());
        let main = &content.container_definitions[0];
        assert_eq!(main.command, ["b", "c"]);
        assert_eq!(main.memory, Some(Mebibytes(128)));
        let environment: Vec<(&str, &str)> =
            main.environment.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(environment, [("A", "1"), ("B", "3"), ("C", "4")]);
        assert_eq!((content.cpu, content.memory), (Some(CpuUnits(128)), Some(Mebibytes(256))));
        let restarts = |index: usize| content.container_definitions[index].restart_policy.as_ref().unwrap().enabled;
        assert!(!restarts(0), "only services restart by default");
        assert!(restarts(1), "what is written stays");
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        for (json, path, words) in [
            (r#"{"containerOverrides": [{"name": "mian"}]}"#, "containerOverrides/0/name", "no container"),
            (r#"{"containerOverrides": [{"name": "side"}, {"name": "side"}]}"#, "containerOverrides/1/name", "twice"),
            (r#"{"containerOverrides": [{"name": "main", "memory": 5}]}"#, "containerOverrides/0/memory", "6 MiB"),
            (
                r#"{"containerOverrides": [{"name": "main", "memoryReservation": 65}]}"#,
                "containerOverrides/0/memoryReservation",
                "more than the limit",
            ),
            (
                r#"{"containerOverrides": [{"name": "main", "memory": 300}]}"#,
                "containerOverrides/0/memory",
                "its task 256",
            ),
        ] {
            let (place, said) = overrides(json).misfit(&definition()).unwrap();
            assert_eq!(place.join("/"), path, "{json}");
            assert!(said.contains(words), "{said}");
        }
        let long = "x".repeat(MAX_OVERRIDES_CHARS);
        let json = format!(r#"{{"containerOverrides": [{{"name": "main", "command": ["{long}"]}}]}}"#);
        assert!(overrides(&json).misfit(&definition()).unwrap().1.contains("8192"));
    }

    #[test]
    fn what_is_not_acted_on_is_named_unless_it_says_nothing() {
        let given = overrides(
            r#"{"taskRoleArn": "arn:aws:iam::1:role/a", "executionRoleArn": "", "ephemeralStorage": {"sizeInGiB": 30},
                "inferenceAcceleratorOverrides": [], "containerOverrides": [
                    {"name": "main", "environmentFiles": [], "resourceRequirements": []},
                    {"name": "side", "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::b/c.env"}]}]}"#,
        );
        let named = ["taskRoleArn", "ephemeralStorage", "containerOverrides.1.environmentFiles"];
        assert_eq!(given.not_acted_on(), named);
        assert_eq!(TaskOverride::default().not_acted_on(), [""; 0]);
    }

    #[test]
    fn logs_show_no_values() {
        let given = overrides(
            r#"{"containerOverrides": [{"name": "main", "command": ["canary"], "environment": {"A": "canary"}}]}"#,
        );
        assert!(!format!("{given:?}").contains("canary"));
    }
}
