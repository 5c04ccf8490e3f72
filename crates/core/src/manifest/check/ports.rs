//! Ports inside one task.

use std::collections::BTreeMap;

use crate::{
    manifest::{
        node::{Span, at},
        report::Scope,
    },
    model::spec::{
        TaskDefinitionSpec,
        task_definition::{NetworkMode, Protocol},
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
            if mapping.container_port == 0 {
                scope.error(container_port, "out-of-range", "0 is not a port").label("from 1 to 65535");
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
