//! Kind `Cluster`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    network::{ClusterNetwork, ServiceDiscovery},
    service::ServiceHostLoss,
    task_definition::LogConfiguration,
};
use crate::model::{image::ImagePullPolicy, quantity::Seconds};

/// The name of the cluster that is meant where none is named; it exists without a manifest.
pub const DEFAULT_CLUSTER: &str = "default";

/// Hosts that run tasks together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// When a silent host is suspected and when it counts as lost.
    pub host_loss: HostLoss,
    /// The network in which tasks have addresses of their own.
    #[serde(skip_serializing_if = "is_default")]
    pub network: ClusterNetwork,
    /// The namespace in which services are found by name.
    #[serde(skip_serializing_if = "is_default")]
    pub service_discovery: ServiceDiscovery,
    /// Where the output of containers goes that say nothing of it, or name a driver that is not here (`awslogs`, `awsfirelens`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<LogConfiguration>,
    /// What an EFS `fileSystemId` means here: `fs-0123: nas.example.com`, or `nas.example.com:/export`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub file_systems: BTreeMap<String, String>,
    /// When a registry is asked for the image of a container that says nothing of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// When images that nothing needs any more are removed from hosts.
    pub image_cleanup: ImageCleanup,
}

/// When images that nothing needs any more are removed from hosts.
///
/// Rule: the kubelet's image garbage collection, whose thresholds these are; the age is the ECS agent's
/// `ECS_IMAGE_MINIMUM_CLEANUP_AGE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageCleanup {
    /// Above this fullness of the disk under Docker's data root images are removed; 100: never.
    #[schemars(range(min = 1, max = 100))]
    pub high_threshold_percent: u32,
    /// Until it is no fuller than this.
    #[schemars(range(max = 99))]
    pub low_threshold_percent: u32,
    /// Not before an image was unused for so long.
    pub minimum_age: Seconds,
    /// Of each task definition in use, the images of so many newest revisions stay.
    #[schemars(range(min = 1))]
    pub keep_revisions: u32,
}

impl Default for ImageCleanup {
    fn default() -> Self {
        Self { high_threshold_percent: 85, low_threshold_percent: 80, minimum_age: Seconds(3_600), keep_revisions: 3 }
    }
}

/// How long a host may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HostLoss {
    /// Silent this long: SUSPECT, gets no new tasks.
    pub suspect_after: Seconds,
    /// Silent this long: LOST, its tasks are replaced elsewhere.
    pub lost_after: Seconds,
    /// sshd answers and the engine does not for this long: LOST, too; `lostAfter` when that is longer.
    pub engine_lost_after: Seconds,
}

impl HostLoss {
    /// As a service has it that says something of its own.
    pub fn of_service(self, own: ServiceHostLoss) -> Self {
        let lost_after = own.lost_after.unwrap_or(self.lost_after);
        let suspect_after = own.suspect_after.unwrap_or(self.suspect_after).min(self.suspect_after).min(lost_after);
        Self { suspect_after, lost_after, ..self }
    }

    /// For how long the engine alone may be silent; never shorter than the whole machine may.
    pub fn engine_lost_after(self) -> Seconds {
        self.engine_lost_after.max(self.lost_after)
    }
}

impl Default for HostLoss {
    fn default() -> Self {
        Self { suspect_after: Seconds(5), lost_after: Seconds(12), engine_lost_after: Seconds(60) }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
