//! A task's volumes, and where its containers mount them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{environment::Scalar, is_false};
use crate::model::spec::NotActedOn;

/// A file system that the containers of a task may mount. With nothing but a name it is empty at first, made with the task and
/// removed with its last container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// What `mountPoints` call it.
    pub name: String,
    /// A folder of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostVolume>,
    /// A volume of the host's Docker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_volume_configuration: Option<DockerVolumeConfiguration>,
    /// A network file system: NFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efs_volume_configuration: Option<EfsVolumeConfiguration>,
    /// Windows only: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub fsx_windows_file_server_volume_configuration: Option<serde_json::Value>,
    /// An EBS volume that the service names: refused.
    #[serde(default, skip_serializing_if = "is_false")]
    pub configured_at_launch: bool,
}

/// A folder of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostVolume {
    /// Made when it is missing. Absent: a volume that lives as long as the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
}

/// A volume of the host's Docker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DockerVolumeConfiguration {
    /// How long it lives.
    pub scope: VolumeScope,
    /// Of a shared one: make it when it is missing. Without it a task waits for somebody to make it, and fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoprovision: Option<bool>,
    /// Docker's `local` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The driver's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub driver_opts: BTreeMap<String, String>,
    /// Docker labels of the volume.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub labels: BTreeMap<String, String>,
}

/// How long a Docker volume lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeScope {
    /// As long as its task.
    #[default]
    Task,
    /// For ever, and for all tasks of its host that name it.
    Shared,
}

/// A network file system. Mounted by the host's Docker as NFS 4.1 with EFS's recommended options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EfsVolumeConfiguration {
    /// A name of the cluster's `fileSystems`; else the server's address itself.
    pub file_system_id: String,
    /// The folder of it; `/` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_directory: Option<String>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit_encryption: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit_encryption_port: Option<NotActedOn>,
    /// See [`NotActedOn`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_config: Option<NotActedOn>,
}

/// A volume of the task in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountPoint {
    /// The volume's name.
    pub source_volume: String,
    /// Where.
    pub container_path: String,
    /// No writes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
}

/// All mounts of another container of the task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeFrom {
    /// The other container.
    pub source_container: String,
    /// No writes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
}
