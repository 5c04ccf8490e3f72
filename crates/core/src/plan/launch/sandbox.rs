//! Containers that are joined: by namespaces of the task, and by links.
//!
//! Docker joins a container only to one that runs, so whoever is joined to another waits for its start.

use super::in_dependency_order;
use crate::model::{
    container::NamespaceMode,
    spec::{
        TaskDefinitionSpec,
        task_definition::{
            ContainerDefinition, ContainerDependency, DependencyCondition, IpcMode, NetworkMode, PidMode,
        },
    },
};

/// What must hold of other containers before this one starts: what it says itself, and what Docker needs.
pub(super) fn dependencies(spec: &TaskDefinitionSpec, definition: &ContainerDefinition) -> Vec<ContainerDependency> {
    let joined = definition.linked().map(|(name, _)| name).chain(joined(spec, definition));
    let start =
        |name: &str| ContainerDependency { container_name: name.to_owned(), condition: DependencyCondition::Start };
    definition.depends_on.iter().cloned().chain(joined.map(start)).collect()
}

/// The container whose namespaces it joins.
pub(super) fn joined<'a>(spec: &'a TaskDefinitionSpec, definition: &ContainerDefinition) -> Option<&'a str> {
    match place(spec, definition) {
        Place::Joins(anchor) => Some(anchor),
        Place::Anchor | Place::Alone => None,
    }
}

/// A container's part in the namespaces that its task shares.
enum Place<'a> {
    /// The others join it.
    Anchor,
    /// It joins this one.
    Joins(&'a str),
    /// Nothing is shared, or it is over before the others begin.
    Alone,
}

/// The first container that stays is joined by all that come after it: with awsvpc by all, since it holds the network.
fn place<'a>(spec: &'a TaskDefinitionSpec, definition: &ContainerDefinition) -> Place<'a> {
    let in_network = spec.network_mode == NetworkMode::Awsvpc && !definition.disable_networking;
    if spec.pid_mode != Some(PidMode::Task) && spec.ipc_mode != Some(IpcMode::Task) && !in_network {
        return Place::Alone;
    }
    let mut order = in_dependency_order(spec).into_iter();
    let anchor = order.find(|other| !spec.must_end(&other.name));
    match anchor {
        Some(anchor) if anchor.name == definition.name => Place::Anchor,
        Some(anchor) if order.any(|other| other.name == definition.name) => Place::Joins(&anchor.name),
        Some(_) | None => Place::Alone,
    }
}

/// Whose processes and whose shared memory a container sees; `created` gives the name of another on its host.
pub(super) fn namespaces(
    spec: &TaskDefinitionSpec,
    definition: &ContainerDefinition,
    created: impl Fn(&str) -> String,
) -> (NamespaceMode, NamespaceMode) {
    let place = place(spec, definition);
    let pid = match (spec.pid_mode, &place) {
        (Some(PidMode::Host), _) => NamespaceMode::Host,
        (Some(PidMode::Task), Place::Joins(anchor)) => NamespaceMode::Of(created(anchor)),
        (Some(PidMode::Task), Place::Anchor | Place::Alone) | (None, _) => NamespaceMode::Own,
    };
    let ipc = match (spec.ipc_mode, &place) {
        (Some(IpcMode::Host), _) => NamespaceMode::Host,
        (Some(IpcMode::None), _) => NamespaceMode::None,
        (Some(IpcMode::Task), Place::Anchor) => NamespaceMode::Shareable,
        (Some(IpcMode::Task), Place::Joins(anchor)) => NamespaceMode::Of(created(anchor)),
        (Some(IpcMode::Task), Place::Alone) | (None, _) => NamespaceMode::Own,
    };
    (pid, ipc)
}
