//! One container of a task definition.

use super::{environment, image, in_range, join, linux, logging, network};
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
            task_definition::{ContainerDefinition, HealthCheck},
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
        && let Some(number) = policy.ignored_exit_codes.iter().position(|code| *code != 0)
    {
        let path = join(base, &[Step::Key("restartPolicy"), Step::Key("ignoredExitCodes"), Step::Index(number)]);
        scope
            .warning(
                &path,
                "not-acted-on",
                "Docker restarts it after this exit, too: the only code it leaves alone is 0",
            )
            .label("not acted on");
    }
    linux::check(container, index, task, scope);
    network::check(container, index, task, scope);
    if let Some(check) = &container.health_check {
        health_check(check, &at("healthCheck"), scope);
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

fn health_check(check: &HealthCheck, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let at = |field: &'static str| join(base, &[Step::Key(field)]);
    match check.command.split_first() {
        Some((first, rest)) if first == "CMD" || first == "CMD-SHELL" => {
            if rest.iter().all(String::is_empty) {
                scope.error(&at("command"), "health-check", "the health check runs nothing");
            }
        }
        Some((first, _)) => {
            scope
                .error(
                    &at("command"),
                    "health-check",
                    format!("a health check's list begins with `CMD` or `CMD-SHELL`, not with {}", quote(first)),
                )
                .help(
                    "`[CMD, program, argument]` runs a program, `[CMD-SHELL, \"a line\"]` a line of the image's shell",
                );
        }
        None => {
            scope.error(&at("command"), "health-check", "the health check runs nothing");
        }
    }
    in_range(scope, &at("interval"), check.interval.0, 5..=300, " s");
    in_range(scope, &at("timeout"), check.timeout.0, 2..=60, " s");
    in_range(scope, &at("retries"), check.retries, 1..=10, "");
    in_range(scope, &at("startPeriod"), check.start_period.0, 0..=300, " s");
}
