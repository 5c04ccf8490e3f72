//! One container of a task definition.

use super::{environment, health_check, image, in_range, join, linux, logging, network};
use crate::{
    manifest::{
        document::is_family,
        node::{Step, at},
        report::{Scope, quote},
    },
    model::{
        ownership,
        spec::{
            TaskDefinitionSpec,
            task_definition::{ContainerDefinition, NetworkMode},
        },
    },
};

/// What Docker needs to start a container, in MiB; ECS says 4.
const LEAST_MEMORY_MIB: u32 = 6;

/// A day: longer than any graceful stop, shorter than a forgotten unit.
const LONGEST_TIMEOUT_S: u32 = 86_400;

/// Checks container number `index`.
pub fn check(container: &ContainerDefinition, index: usize, task: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let base = at!["containerDefinitions", index];
    let at = |field: &'static str| join(base, &[Step::Key(field)]);
    if !is_family(&container.name) {
        scope
            .error(&at("name"), "bad-name", format!("{} is not a container name", quote(&container.name)))
            .help("a container name has 1 to 255 letters, digits, hyphens and underscores");
    }
    image::check(&container.image, &at("image"), scope);
    memory(container, base, task, scope);
    environment::written(base, scope);
    if let Some(log) = &container.log_configuration {
        logging::container(log, &at("logConfiguration"), scope);
    }
    if let Some(policy) = &container.restart_policy
        && policy.enabled
        && task.must_end(&container.name)
        && let Some(number) = policy.ignored_exit_codes.iter().position(|code| *code != 0)
    {
        let path = join(base, &[Step::Key("restartPolicy"), Step::Key("ignoredExitCodes"), Step::Index(number)]);
        scope
            .warning(
                &path,
                "not-acted-on",
                "others wait for it to end, so Docker restarts it, and the only code that Docker leaves alone is 0",
            )
            .label("not acted on");
    }
    linux::check(container, index, task, scope);
    network::check(container, index, task, scope);
    if let Some(check) = &container.health_check {
        let has_network = task.network_mode != NetworkMode::None && !container.disable_networking;
        health_check::check(check, has_network, &at("healthCheck"), scope);
    }
    for (field, timeout) in [("stopTimeout", container.stop_timeout), ("startTimeout", container.start_timeout)] {
        if let Some(timeout) = timeout {
            in_range(scope, &at(field), timeout.0, 0..=LONGEST_TIMEOUT_S, " s");
        }
    }
    if let Some(folder) = container.working_directory.as_deref().filter(|folder| !folder.starts_with('/')) {
        scope.error(&at("workingDirectory"), "bad-path", format!("{} is not an absolute path", quote(folder)));
    }
    if let Some(label) = container.docker_labels.keys().find(|label| label.starts_with(ownership::PREFIX)) {
        scope
            .error(
                &join(base, &[Step::Key("dockerLabels"), Step::Key(label)]),
                "reserved-label",
                format!("the label {} is one of Roadstead's own", quote(label)),
            )
            .help(format!("labels that begin with {} mark whose a container is", quote(ownership::PREFIX)));
    }
}

fn memory(container: &ContainerDefinition, base: &[Step<'_>], task: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let at = |field: &'static str| join(base, &[Step::Key(field)]);
    if container.memory.is_none() && container.memory_reservation.is_none() && task.memory.is_none() {
        scope
            .error(
                &at("name"),
                "missing-memory",
                format!("the container {} says nothing of memory, nor does its task", quote(&container.name)),
            )
            .help("give it `memory` (a hard limit, MiB) or `memoryReservation`, or give the task `memory`");
    }
    for (field, size) in [("memory", container.memory), ("memoryReservation", container.memory_reservation)] {
        if let Some(size) = size.filter(|size| size.0 < LEAST_MEMORY_MIB) {
            scope
                .error(
                    &at(field),
                    "too-little-memory",
                    format!("{} MiB of memory is too little to start a container", size.0),
                )
                .label(format!("Docker needs at least {LEAST_MEMORY_MIB} MiB"));
        }
    }
    if let (Some(limit), Some(reservation)) = (container.memory, container.memory_reservation)
        && reservation > limit
    {
        scope
            .error(
                &at("memoryReservation"),
                "impossible-size",
                format!("reserves {} MiB and may use {} MiB only", reservation.0, limit.0),
            )
            .label("more than `memory`");
    }
}
