//! A task definition that says FARGATE itself.

use super::super::{
    node::{Step, at},
    report::Scope,
};
use crate::model::{
    fargate::{is_of_host, unfit},
    spec::TaskDefinitionSpec,
};

/// The longest time from SIGTERM to SIGKILL, and the longest start timeout (ECS).
const LONGEST_TIMEOUT_S: u32 = 120;

/// Checks a task definition that says FARGATE itself.
pub fn check(spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    if let Some((field, message, help)) = unfit(spec) {
        let privileged = spec.container_definitions.iter().position(|container| container.privileged);
        let volume = spec.volumes.iter().position(is_of_host);
        match (field, privileged, volume) {
            ("containerDefinitions", Some(index), _) => {
                scope.error(at!["containerDefinitions", index, "privileged"], "fargate", message).help(help)
            }
            ("volumes", _, Some(index)) => scope.error(at!["volumes", index], "fargate", message).help(help),
            (_, _, _) => scope.error(&[Step::Key(field)], "fargate", message).help(help),
        };
    }
    for (index, container) in spec.container_definitions.iter().enumerate() {
        for (field, timeout) in [("stopTimeout", container.stop_timeout), ("startTimeout", container.start_timeout)] {
            if let Some(timeout) = timeout {
                super::in_range(
                    scope,
                    at!["containerDefinitions", index, field],
                    timeout.0,
                    0..=LONGEST_TIMEOUT_S,
                    " s",
                );
            }
        }
    }
}
