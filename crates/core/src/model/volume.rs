//! Volumes that outlive their tasks: where their data is, and the way from one host to another.
//!
//! ECS's `scope: shared` is Docker's: for all tasks of one host. What is ours here is that one task which works alone on such
//! a volume is followed by its data: the record says on which host it is, and what mounts it goes there (S4, S19).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    name::{ClusterName, HostName, ServiceName, TaskId},
    spec::{
        ServiceSpec, TaskDefinitionSpec,
        service::SchedulingStrategy,
        task_definition::{Volume, VolumeScope},
    },
    time::Timestamp,
};

/// Which volume: a name means something else in another cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeId {
    /// The cluster on whose hosts it is.
    pub cluster: ClusterName,
    /// Its name, as Docker has it.
    pub name: String,
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.name)
    }
}

/// What is remembered of a volume that has one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRecord {
    /// Which.
    pub id: VolumeId,
    /// Where its data is. What mounts it goes there.
    pub host: HostName,
    /// The service that it was made for.
    pub service: ServiceName,
    /// Since when it is known.
    pub created_at: Timestamp,
    /// The last task that was placed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_by: Option<TaskId>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// Set while a person has it moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<VolumeMove>,
    /// Where a move left a copy that is not needed any more, and that is to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_copy: Option<HostName>,
    /// When an archive last took the place of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<Timestamp>,
}

impl VolumeRecord {
    /// What the removal of the old copy is known by: no task has such an id.
    pub fn removal(&self) -> TaskId {
        format!("moved-{}", self.id.name).into()
    }
}

/// On its way to another host, or given other data. Its tasks do not run meanwhile, and until it ends the data is where the record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMove {
    /// To which host.
    pub to: HostName,
    /// How far.
    pub stage: MoveStage,
    /// When a person said so; tells an answer to this move from one to another.
    pub since: Timestamp,
    /// Copies that went wrong.
    #[serde(default)]
    pub failures: u32,
    /// No copy before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Of a restore: the volume on the same host whose content takes the place of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_volume: Option<String>,
}

impl VolumeMove {
    /// What happens to the volume, in words.
    pub fn words(&self) -> String {
        match &self.from_volume {
            Some(_) => "is restored".to_owned(),
            None => format!("moves to {}", self.to),
        }
    }
}

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MoveStage {
    /// What mounts it ends, until all of it was seen gone.
    Stopping,
    /// It is copied and read back. May be begun again at any time: only the copy is written to.
    Copying,
}

/// What our labels say of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeClaim {
    /// It ends with its task.
    Task {
        /// The task.
        task: TaskId,
        /// The task's service.
        service: ServiceName,
    },
    /// It was made for tasks of a cluster, and stays.
    Shared {
        /// The cluster.
        cluster: ClusterName,
        /// The move that made it, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moved_at: Option<Timestamp>,
    },
}

/// The volumes of one host that bear our labels, as one complete list showed them. Kept in memory only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumesSeen {
    /// When the list was asked for.
    pub started_at: Timestamp,
    /// By name.
    pub volumes: std::collections::BTreeMap<String, VolumeClaim>,
}

/// Volumes of a task definition that its containers mount, and whose data stays on the host: shared ones of Docker's own
/// driver. One with driver options is somewhere else, or somebody else's folder.
pub fn stays_on_host(spec: &TaskDefinitionSpec) -> impl Iterator<Item = &str> {
    let is_local = |volume: &&Volume| {
        volume.docker_volume_configuration.as_ref().is_some_and(|docker| {
            let driver = docker.driver.as_deref().unwrap_or_default();
            docker.scope == VolumeScope::Shared && matches!(driver, "" | "local") && docker.driver_opts.is_empty()
        })
    };
    let is_mounted = |name: &&str| {
        let mut points = spec.container_definitions.iter().flat_map(|container| &container.mount_points);
        points.any(|point| point.source_volume == *name)
    };
    spec.volumes.iter().filter(is_local).map(|volume| volume.name.as_str()).filter(is_mounted)
}

/// Whether a task of this service works alone on the volumes that it mounts, so that they are its own. Of a service with
/// several tasks, or one on each host, every host has a volume of that name, as in ECS.
pub fn works_alone(spec: &ServiceSpec) -> bool {
    spec.scheduling_strategy == SchedulingStrategy::Replica && spec.desired_count <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_on_its_host_and_is_mounted_is_owned() {
        let spec: TaskDefinitionSpec = serde_json::from_value(serde_json::json!({
            "containerDefinitions": [{ "name": "db", "image": "db", "mountPoints": [
                { "sourceVolume": "data", "containerPath": "/a" },
                { "sourceVolume": "local", "containerPath": "/b" },
                { "sourceVolume": "task", "containerPath": "/c" },
                { "sourceVolume": "nfs", "containerPath": "/d" },
                { "sourceVolume": "other", "containerPath": "/e" },
                { "sourceVolume": "folder", "containerPath": "/f" },
            ]}],
            "volumes": [
                { "name": "data", "dockerVolumeConfiguration": { "scope": "shared", "autoprovision": true } },
                { "name": "local", "dockerVolumeConfiguration": { "scope": "shared", "driver": "local" } },
                { "name": "task", "dockerVolumeConfiguration": { "scope": "task" } },
                { "name": "nfs", "dockerVolumeConfiguration": { "scope": "shared", "driverOpts": { "type": "nfs" } } },
                { "name": "other", "dockerVolumeConfiguration": { "scope": "shared", "driver": "rexray" } },
                { "name": "folder", "host": { "sourcePath": "/srv" } },
                { "name": "unused", "dockerVolumeConfiguration": { "scope": "shared" } },
            ],
        }))
        .unwrap();
        assert_eq!(stays_on_host(&spec).collect::<Vec<_>>(), ["data", "local"]);
    }
}
