//! `dependsOn`: what may wait for what.

use std::collections::BTreeMap;

use crate::{
    manifest::{
        node::at,
        report::{Scope, quote},
        suggest::did_you_mean,
    },
    model::spec::{
        TaskDefinitionSpec,
        task_definition::{ContainerDefinition, DependencyCondition},
    },
};

/// Checks all dependencies of a task definition.
pub fn check(spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let by_name: BTreeMap<&str, &ContainerDefinition> =
        spec.container_definitions.iter().map(|container| (container.name.as_str(), container)).collect();
    for (index, container) in spec.container_definitions.iter().enumerate() {
        for (number, dependency) in container.depends_on.iter().enumerate() {
            let name_path = at!["containerDefinitions", index, "dependsOn", number, "containerName"];
            let condition_path = at!["containerDefinitions", index, "dependsOn", number, "condition"];
            let name = dependency.container_name.as_str();
            let Some(other) = by_name.get(name) else {
                scope
                    .error(
                        name_path,
                        "unknown-container",
                        format!("no container of this task is named {}", quote(name)),
                    )
                    .maybe_help(did_you_mean(name, by_name.keys().copied()));
                continue;
            };
            if name == container.name {
                scope.error(name_path, "depends-on", "a container cannot wait for itself");
                continue;
            }
            match dependency.condition {
                DependencyCondition::Start => {}
                DependencyCondition::Healthy if other.health_check.is_none() => {
                    scope
                        .error(
                            condition_path,
                            "depends-on",
                            format!("{} has no `healthCheck`, so it is never HEALTHY", quote(name)),
                        )
                        .help("give it one, or wait for `START`");
                }
                DependencyCondition::Healthy => {}
                DependencyCondition::Complete | DependencyCondition::Success if other.essential => {
                    scope
                        .error(
                            condition_path,
                            "depends-on",
                            format!("{} is essential: when it exits, the whole task stops", quote(name)),
                        )
                        .help(format!("give {} `essential: false`", quote(name)));
                }
                DependencyCondition::Complete if other.restart_policy.as_ref().is_some_and(|policy| policy.enabled) => {
                    scope
                        .error(
                            condition_path,
                            "depends-on",
                            format!("{} is started again whenever it ends, so it is never COMPLETE", quote(name)),
                        )
                        .help("take its `restartPolicy` away, or wait for `SUCCESS`: it is started again until it ends with 0");
                }
                DependencyCondition::Complete | DependencyCondition::Success => {}
            }
        }
    }
    if let Some(cycle) = cycle(spec, &by_name)
        && let Some(first) = cycle.first()
        && let Some(index) = spec.container_definitions.iter().position(|container| container.name == *first)
    {
        let round: Vec<&str> = cycle.iter().copied().chain([*first]).collect();
        let field = match spec.container_definitions.get(index) {
            Some(container) if !container.depends_on.is_empty() => "dependsOn",
            Some(container) if !container.links.is_empty() => "links",
            Some(_) | None => "volumesFrom",
        };
        scope
            .error(
                at!["containerDefinitions", index, field],
                "depends-on",
                "containers wait for each other in a circle: none would ever start",
            )
            .label(format!("{} → …", quote(first)))
            .help(round.into_iter().map(quote).collect::<Vec<_>>().join(" waits for "));
    }
}

/// The first cycle of more than one container.
fn cycle<'a>(spec: &'a TaskDefinitionSpec, by_name: &BTreeMap<&str, &'a ContainerDefinition>) -> Option<Vec<&'a str>> {
    let mut done: Vec<&str> = Vec::new();
    for start in &spec.container_definitions {
        // Each frame: a container and how many of its dependencies were looked at.
        let mut path: Vec<(&ContainerDefinition, usize)> = vec![(start, 0)];
        while let Some((container, next)) = path.last_mut() {
            let container: &'a ContainerDefinition = container;
            let name = container.comes_after().nth(*next);
            *next += 1;
            let Some(name) = name else {
                done.push(&container.name);
                path.pop();
                continue;
            };
            if name == container.name || done.contains(&name) {
                continue;
            }
            if let Some(begin) = path.iter().position(|(container, _)| container.name == name) {
                return Some(path.iter().skip(begin).map(|(container, _)| container.name.as_str()).collect());
            }
            if let Some(other) = by_name.get(name) {
                path.push((other, 0));
            }
        }
    }
    None
}
