//! Task definition by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{Beside, CheckExpression, constraints, container, depends, environment, fargate, one_of, ports, volumes};
use crate::{
    manifest::{
        document::{FAMILY_RULE, is_family},
        node::at,
        report::{Scope, quote},
    },
    model::{
        quantity::MIN_CPU_LIMIT,
        spec::{
            TaskDefinitionSpec,
            task_definition::{NetworkMode, Protocol},
        },
    },
};

/// Containers of a task, at most (ECS).
const MAX_CONTAINERS: usize = 10;

/// Checks a task definition, takes its environment files in, and takes the host ports off one whose tasks will own an address each.
pub fn task_definition(
    spec: &mut TaskDefinitionSpec,
    scope: &mut Scope<'_>,
    check_expression: CheckExpression,
    beside: Beside<'_>,
) {
    if let Some(family) = spec.family.as_deref().filter(|family| !is_family(family)) {
        scope.error(at!["family"], "bad-name", format!("{} is not a family", quote(family))).help(FAMILY_RULE);
    }
    for (index, compatibility) in spec.requires_compatibilities.iter().enumerate() {
        one_of(
            scope,
            at!["requiresCompatibilities", index],
            compatibility,
            &["EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES"],
        );
    }
    platform(spec, scope);
    constraints(scope, &spec.placement_constraints, false, check_expression);
    if spec.container_definitions.len() > MAX_CONTAINERS {
        let message =
            format!("{} containers in one task, {MAX_CONTAINERS} are the most", spec.container_definitions.len());
        scope.error(at!["containerDefinitions", MAX_CONTAINERS, "name"], "containers", message).label("the eleventh");
        return;
    }
    containers(spec, scope);
    for (index, container) in spec.container_definitions.iter_mut().enumerate() {
        environment::files(&mut container.environment_files, index, beside, scope);
    }
    sums(spec, scope);
    volumes::check(spec, scope);
    depends::check(spec, scope);
    ports::check(spec, scope);
    if spec.requires_compatibilities.iter().any(|compatibility| compatibility == "FARGATE") {
        fargate::check(spec, scope);
    }
    if spec.network_mode == NetworkMode::Awsvpc {
        for port in spec.container_definitions.iter_mut().flat_map(|container| &mut container.port_mappings) {
            port.host_port = None;
        }
    }
}

fn platform(spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let Some(platform) = &spec.runtime_platform else { return };
    if let Some(architecture) = &platform.cpu_architecture {
        one_of(scope, at!["runtimePlatform", "cpuArchitecture"], architecture, &["X86_64", "ARM64"]);
    }
    if let Some(system) = &platform.operating_system_family {
        let path = at!["runtimePlatform", "operatingSystemFamily"];
        if system.to_ascii_uppercase().starts_with("WINDOWS") {
            scope
                .error(path, "windows", "Windows containers are not run: hosts are Linux machines")
                .label("only `LINUX`");
        } else {
            one_of(scope, path, system, &["LINUX"]);
        }
    }
}

fn containers(spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let containers = &spec.container_definitions;
    if containers.is_empty() {
        scope
            .error(at!["containerDefinitions"], "containers", "a task has at least one container")
            .help("add one to `containerDefinitions`");
        return;
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, definition) in containers.iter().enumerate() {
        match names.get(definition.name.as_str()) {
            Some(first) => {
                let first = scope.node.locate(at!["containerDefinitions", *first, "name"]);
                scope
                    .error(
                        at!["containerDefinitions", index, "name"],
                        "duplicate-container",
                        format!("two containers are named {}", quote(&definition.name)),
                    )
                    .label("again here")
                    .also(first, "first here");
            }
            None => {
                names.insert(&definition.name, index);
            }
        }
        container::check(definition, index, spec, scope);
    }
    if !containers.iter().any(|container| container.essential) {
        scope
            .error(
                at!["containerDefinitions"],
                "essential",
                "no container is essential: nothing would say when the task is over",
            )
            .help("leave `essential: false` out of the one that matters");
    }
}

fn sums(spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let containers = &spec.container_definitions;
    if let Some(task) = spec.memory {
        let unlimited: Vec<String> =
            containers.iter().filter(|one| one.memory.is_none()).map(|one| quote(&one.name)).collect();
        if containers.len() > 1 && !unlimited.is_empty() {
            let message = format!("each of {} may use all {} MiB of the task", unlimited.join(", "), task.0);
            scope
                .warning(at!["memory"], "memory-not-shared", message)
                .label("a limit of each container, not of all together")
                .help("give each container a `memory` of its own");
        }
        let counted: u64 = containers
            .iter()
            .map(|container| u64::from(container.memory_reservation.or(container.memory).unwrap_or_default().0))
            .sum();
        if counted > u64::from(task.0) {
            scope
                .error(
                    at!["memory"],
                    "impossible-size",
                    format!("the containers need {counted} MiB, the task has {} MiB", task.0),
                )
                .label("less than the sum of its containers");
        }
        for (index, container) in containers.iter().enumerate() {
            if container.memory.is_some_and(|memory| memory > task) {
                scope.error(
                    at!["containerDefinitions", index, "memory"],
                    "impossible-size",
                    format!("more memory than the whole task has ({} MiB)", task.0),
                );
            }
        }
    }
    if let Some(task) = spec.cpu {
        if task.0 < MIN_CPU_LIMIT {
            scope
                .error(
                    at!["cpu"],
                    "impossible-size",
                    format!(
                        "{} CPU units are less than a hundredth of a CPU, which is the least that Linux limits to",
                        task.0
                    ),
                )
                .help(format!("1024 units are one vCPU: `cpu: 1 vcpu`, or at least {MIN_CPU_LIMIT}"));
        }
        let counted: u64 = containers.iter().map(|container| u64::from(container.cpu.0)).sum();
        if counted > u64::from(task.0) {
            scope
                .error(
                    at!["cpu"],
                    "impossible-size",
                    format!("the containers ask for {counted} CPU units, the task has {}", task.0),
                )
                .label("less than the sum of its containers");
        }
    }
}

/// The ports of the host that every task of this definition takes: no two such tasks fit on one host.
pub fn host_ports(spec: &TaskDefinitionSpec) -> BTreeSet<(u16, Protocol)> {
    let ports = spec.container_definitions.iter().flat_map(|container| &container.port_mappings);
    match spec.network_mode {
        NetworkMode::Bridge => ports
            .filter_map(|port| port.host_port.filter(|number| *number != 0).map(|number| (number, port.protocol)))
            .collect(),
        NetworkMode::Host => ports.map(|port| (port.container_port, port.protocol)).collect(),
        NetworkMode::Awsvpc | NetworkMode::None => BTreeSet::new(),
    }
}
