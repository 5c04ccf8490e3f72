//! Volumes that have one place.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::{Copies, handle::Snapshot};
use roadstead_core::{
    model::{
        name::{HostName, TaskId},
        time::Timestamp,
        volume::VolumeRecord,
    },
    plan::absorb,
};

/// How a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VolumeStatus {
    /// No task uses it.
    Available,
    /// A task uses it.
    InUse,
    /// It moves: what used it ends, or it is copied.
    Moving,
    /// Other data takes the place of its own: what used it ends, or it is copied.
    Restoring,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView {
    /// Its name, as Docker has it.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// AVAILABLE, IN_USE, MOVING, RESTORING.
    pub status: VolumeStatus,
    /// Where its data is.
    #[schema(value_type = String)]
    pub host: HostName,
    /// The service that it was made for.
    pub service: String,
    /// Live tasks that mount it.
    #[schema(value_type = Vec<String>)]
    pub used_by: Vec<TaskId>,
    /// The last task that was placed on it.
    #[schema(value_type = Option<String>)]
    pub last_used_by: Option<TaskId>,
    /// When that was.
    #[schema(value_type = Option<String>)]
    pub last_used_at: Option<Timestamp>,
    /// Since when it is known.
    #[schema(value_type = String)]
    pub created_at: Timestamp,
    /// To which host it moves.
    #[schema(value_type = Option<String>)]
    pub moving_to: Option<HostName>,
    /// Bytes of it that went to or came back from the other host so far.
    pub copied_bytes: Option<u64>,
    /// Where a copy that is not needed any more waits to be removed.
    #[schema(value_type = Option<String>)]
    pub old_copy: Option<HostName>,
    /// When an archive last took the place of its data.
    #[schema(value_type = Option<String>)]
    pub restored_at: Option<Timestamp>,
}

/// All volumes that have one place.
pub fn list(snapshot: &Snapshot, copies: &Copies) -> Vec<VolumeView> {
    snapshot.world.state.volumes.values().map(|record| view(snapshot, copies, record)).collect()
}

fn view(snapshot: &Snapshot, copies: &Copies, record: &VolumeRecord) -> VolumeView {
    let used_by: Vec<TaskId> =
        absorb::volume_users(&snapshot.world.state, &record.id).map(|task| task.id.clone()).collect();
    let moving_to = record.moving.as_ref().filter(|moving| moving.from_volume.is_none());
    VolumeView {
        name: record.id.name.clone(),
        cluster: record.id.cluster.to_string(),
        status: match (&record.moving, used_by.is_empty()) {
            (Some(moving), _) if moving.from_volume.is_some() => VolumeStatus::Restoring,
            (Some(_), _) => VolumeStatus::Moving,
            (None, false) => VolumeStatus::InUse,
            (None, true) => VolumeStatus::Available,
        },
        host: record.host.clone(),
        service: record.service.to_string(),
        used_by,
        last_used_by: record.last_used_by.clone(),
        last_used_at: record.last_used_at,
        created_at: record.created_at,
        moving_to: moving_to.map(|moving| moving.to.clone()),
        copied_bytes: copies.bytes(&record.id),
        old_copy: record.old_copy.clone(),
        restored_at: record.restored_at,
    }
}
