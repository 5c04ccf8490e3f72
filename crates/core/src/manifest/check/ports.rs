//! Ports inside one task.

use std::collections::BTreeMap;

use crate::{
    manifest::{
        node::{Span, Step, at},
        report::{Scope, quote},
    },
    model::spec::{
        TaskDefinitionSpec,
        task_definition::{NetworkMode, PortMapping, Protocol},
    },
};

/// Checks all port mappings of a task definition.
pub fn check(spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    // Who has which port of the network that the task's containers share.
    let mut taken: BTreeMap<(u16, Protocol), Span> = BTreeMap::new();
    for (index, container) in spec.container_definitions.iter().enumerate() {
        for (number, mapping) in container.port_mappings.iter().enumerate() {
            let container_port = at!["containerDefinitions", index, "portMappings", number, "containerPort"];
            let host_port = at!["containerDefinitions", index, "portMappings", number, "hostPort"];
            if let Some(range) = &mapping.container_port_range {
                let path = at!["containerDefinitions", index, "portMappings", number, "containerPortRange"];
                range_of_ports(range, mapping, spec.network_mode, path, scope);
                continue;
            }
            if mapping.container_port == 0 {
                let said = scope.error(container_port, "out-of-range", "0 is not a port");
                said.label("`containerPort` is from 1 to 65535");
                continue;
            }
            let fixed = mapping.host_port.filter(|port| *port != 0);
            let (port, path) = match spec.network_mode {
                NetworkMode::Bridge => match fixed {
                    Some(port) => (port, host_port),
                    None => continue,
                },
                NetworkMode::Host | NetworkMode::Awsvpc => {
                    if fixed.is_some_and(|port| port != mapping.container_port) {
                        scope
                            .error(
                                host_port,
                                "ports",
                                "here a container's port is the task's: `hostPort` must be equal to `containerPort`",
                            )
                            .help("leave `hostPort` out");
                        continue;
                    }
                    (mapping.container_port, container_port)
                }
                NetworkMode::None => {
                    scope.error(
                        container_port,
                        "ports",
                        "with `networkMode: none` there is no network to have a port in",
                    );
                    continue;
                }
            };
            let span = scope.node.locate(path);
            match taken.get(&(port, mapping.protocol)) {
                Some(first) => {
                    let protocol = match mapping.protocol {
                        Protocol::Tcp => "tcp",
                        Protocol::Udp => "udp",
                    };
                    let first = *first;
                    scope
                        .error(path, "port-clash", format!("port {port}/{protocol} is taken twice in one task"))
                        .label("again here")
                        .also(first, "first here");
                }
                None => {
                    taken.insert((port, mapping.protocol), span);
                }
            }
        }
    }
}

/// Ports of one range (ECS).
const MAX_RANGE: usize = 100;

fn range_of_ports(range: &str, mapping: &PortMapping, mode: NetworkMode, path: &[Step<'_>], scope: &mut Scope<'_>) {
    let error = |scope: &mut Scope<'_>, message: String, label: &str| {
        scope.error(path, "ports", message).label(label);
    };
    match mapping.container_ports() {
        None => error(scope, format!("{} is not a range of ports", quote(range)), "such as 8000-8010"),
        Some(ports) if ports.len() > MAX_RANGE => {
            error(scope, format!("{} ports, {MAX_RANGE} are the most", ports.len()), "each takes a port of the host");
        }
        Some(_) if mapping.container_port != 0 => {
            error(scope, "a mapping has a port or a range of them".to_owned(), "leave `containerPort` out");
        }
        Some(_) if mapping.host_port.is_some_and(|port| port != 0) => {
            error(scope, "the ports of the host are picked for a range".to_owned(), "leave `hostPort` out");
        }
        Some(_) => match mode {
            NetworkMode::Bridge | NetworkMode::Awsvpc => {}
            NetworkMode::Host | NetworkMode::None => {
                error(scope, "a range is published on a bridge only".to_owned(), "not in this `networkMode`");
            }
        },
    }
}
