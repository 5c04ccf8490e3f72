//! Who starts a container again that ended: its engine by its policy, and where the engine cannot, the controller.

use crate::model::spec::{
    TaskDefinitionSpec,
    task_definition::{ContainerDefinition, DependencyCondition},
};

/// When a container is started again after it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Restart {
    /// Never.
    Never,
    /// Unless it ended with 0.
    OnFailure,
    /// Whatever its exit code.
    Always,
}

/// Without a policy an essential container always is; another one may have done its work, so it is unless it ended well;
/// and one that others wait for to end is not.
pub(in crate::plan) fn restart(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> Restart {
    let must_end = must_end(spec, &definition.name);
    match &definition.restart_policy {
        Some(policy) if !policy.enabled => Restart::Never,
        // Until it succeeds.
        Some(policy) if must_end || policy.ignored_exit_codes.contains(&0) => Restart::OnFailure,
        Some(_) => Restart::Always,
        None if must_end => Restart::Never,
        None if definition.essential => Restart::Always,
        None => Restart::OnFailure,
    }
}

/// Whether others wait for it to end.
pub(in crate::plan) fn must_end(spec: &TaskDefinitionSpec, name: &str) -> bool {
    spec.container_definitions.iter().flat_map(|other| &other.depends_on).any(|dependency| {
        dependency.container_name == name
            && matches!(dependency.condition, DependencyCondition::Complete | DependencyCondition::Success)
    })
}
