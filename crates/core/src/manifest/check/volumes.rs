//! A task's volumes, and what its containers mount.

use std::collections::{BTreeMap, BTreeSet};

use super::join;
use crate::{
    manifest::{
        document::is_family,
        node::{Step, at},
        report::{Scope, quote},
        suggest::did_you_mean,
    },
    model::spec::{
        TaskDefinitionSpec,
        task_definition::{ContainerDefinition, EfsVolumeConfiguration, Volume, VolumeScope},
    },
};

/// Checks the volumes of a task and all that is mounted of them.
pub fn check(spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = at!["volumes", index, "name"];
        if !is_family(&volume.name) {
            scope
                .error(path, "bad-name", format!("{} is not the name of a volume", quote(&volume.name)))
                .help("1 to 255 letters, digits, hyphens and underscores");
        } else if let Some(first) = seen.insert(&volume.name, index) {
            let first = scope.node.locate(at!["volumes", first, "name"]);
            scope
                .error(path, "duplicate-volume", format!("two volumes are named {}", quote(&volume.name)))
                .label("again here")
                .also(first, "first here");
        }
        kind(volume, index, scope);
    }
    for (index, container) in spec.container_definitions.iter().enumerate() {
        mounts(container, index, &seen, spec, scope);
        volumes_from(container, index, spec, scope);
    }
}

fn kind(volume: &Volume, index: usize, scope: &mut Scope<'_>) {
    let base = at!["volumes", index];
    let at = |more: &[&'static str]| join(base, &more.iter().map(|key| Step::Key(key)).collect::<Vec<_>>());
    let host = volume.host.as_ref().and_then(|host| host.source_path.as_deref()).filter(|path| !path.is_empty());
    let docker = volume.docker_volume_configuration.as_ref();
    let efs = volume.efs_volume_configuration.as_ref();
    if [host.is_some(), docker.is_some(), efs.is_some()].into_iter().filter(|given| *given).count() > 1 {
        scope
            .error(&at(&["name"]), "volume", format!("the volume {} is of two kinds at once", quote(&volume.name)))
            .help("one of `host`, `dockerVolumeConfiguration`, `efsVolumeConfiguration`; none of them is an empty one");
    }
    if let Some(path) = host {
        absolute(path, &at(&["host", "sourcePath"]), scope);
    }
    if let Some(docker) = docker {
        if docker.scope == VolumeScope::Task && docker.autoprovision.is_some() {
            scope
                .error(
                    &at(&["dockerVolumeConfiguration", "autoprovision"]),
                    "volume",
                    "a volume of a task is always made with it",
                )
                .label("only with `scope: shared`");
        }
        let shared_name = docker.scope == VolumeScope::Shared;
        if shared_name && (volume.name.len() < 2 || !volume.name.starts_with(|c: char| c.is_ascii_alphanumeric())) {
            scope
                .error(&at(&["name"]), "bad-name", format!("Docker takes no volume named {}", quote(&volume.name)))
                .help("two characters or more, the first a letter or a digit");
        } else if shared_name && volume.name.starts_with("rs-") {
            scope
                .error(&at(&["name"]), "bad-name", format!("{} may be one of Roadstead's own", quote(&volume.name)))
                .label("`rs-` begins the names of volumes that Roadstead makes and removes");
        }
    }
    if let Some(efs) = efs {
        file_system(efs, base, scope);
    }
    if volume.fsx_windows_file_server_volume_configuration.is_some() {
        let path = at(&["fsxWindowsFileServerVolumeConfiguration"]);
        scope.error(&path, "windows", "FSx for Windows is not mounted: hosts are Linux machines");
    }
    if volume.configured_at_launch {
        scope
            .error(&at(&["configuredAtLaunch"]), "volume", "there is no EBS here to make a volume of at launch")
            .help("a folder of the host (`host: { sourcePath: … }`), or a shared Docker volume");
    }
}

fn file_system(efs: &EfsVolumeConfiguration, base: &[Step<'_>], scope: &mut Scope<'_>) {
    let at = |field: &'static str| join(base, &[Step::Key("efsVolumeConfiguration"), Step::Key(field)]);
    if !is_server(&efs.file_system_id) {
        scope
            .error(&at("fileSystemId"), "file-system", format!("{} names no file system", quote(&efs.file_system_id)))
            .help("a name of the cluster's `fileSystems`, or the NFS server's address");
    }
    if let Some(folder) = efs.root_directory.as_deref().filter(|folder| !folder.is_empty()) {
        absolute(folder, &at("rootDirectory"), scope);
    }
}

/// A name or an address, and nothing that a mount would take as an option of its own.
pub fn is_server(word: &str) -> bool {
    (1..=255).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte))
}

/// A path that Docker takes in `path:path`.
pub fn absolute(path: &str, at: &[Step<'_>], scope: &mut Scope<'_>) -> bool {
    let wrong = if !path.starts_with('/') {
        "is not an absolute path"
    } else if path.contains(|c: char| c == ':' || c.is_control()) || path.len() > 4096 {
        "is a path that Docker does not take"
    } else if path.split('/').any(|part| part == "..") {
        "leads back by `..`: write where it leads"
    } else {
        return true;
    };
    scope.error(at, "bad-path", format!("{} {wrong}", quote(path)));
    false
}

/// A path inside a container that something is mounted at.
pub fn target(path: &str, at: &[Step<'_>], scope: &mut Scope<'_>) {
    if absolute(path, at, scope) && path.trim_matches('/').is_empty() {
        scope.error(at, "bad-path", "nothing can be mounted over the whole file system").label("a folder below `/`");
    }
}

fn mounts(
    container: &ContainerDefinition,
    index: usize,
    volumes: &BTreeMap<&str, usize>,
    spec: &TaskDefinitionSpec,
    scope: &mut Scope<'_>,
) {
    let mut taken: BTreeSet<&str> = BTreeSet::new();
    for (number, point) in container.mount_points.iter().enumerate() {
        let path = at!["containerDefinitions", index, "mountPoints", number, "sourceVolume"];
        let name = point.source_volume.as_str();
        if !volumes.contains_key(name) {
            let said = scope.error(path, "unknown-volume", format!("no volume of this task is named {}", quote(name)));
            match spec.volumes.is_empty() {
                true => said.help("add it to the task definition's `volumes`: `- { name: … }` is an empty one"),
                false => said.maybe_help(did_you_mean(name, volumes.keys().copied())),
            };
        }
        let path = at!["containerDefinitions", index, "mountPoints", number, "containerPath"];
        target(&point.container_path, path, scope);
        if !taken.insert(point.container_path.trim_end_matches('/')) {
            let message = format!("something is mounted at {} already", quote(&point.container_path));
            scope.error(path, "bad-path", message).label("again here");
        }
    }
}

fn volumes_from(container: &ContainerDefinition, index: usize, spec: &TaskDefinitionSpec, scope: &mut Scope<'_>) {
    for (number, from) in container.volumes_from.iter().enumerate() {
        let path = at!["containerDefinitions", index, "volumesFrom", number, "sourceContainer"];
        other_container(&from.source_container, container, spec, path, "mount the volumes of", scope);
    }
}

/// A name that must be that of another container of the task.
pub fn other_container(
    name: &str,
    container: &ContainerDefinition,
    spec: &TaskDefinitionSpec,
    path: &[Step<'_>],
    what: &str,
    scope: &mut Scope<'_>,
) {
    let names = || spec.container_definitions.iter().map(|other| other.name.as_str());
    if name == container.name {
        scope.error(path, "itself", format!("a container cannot {what} itself"));
    } else if !names().any(|other| other == name) {
        scope
            .error(path, "unknown-container", format!("no container of this task is named {}", quote(name)))
            .maybe_help(did_you_mean(name, names()));
    }
}
