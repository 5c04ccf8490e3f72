//! Task definitions: one entry a revision.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{image::ResolvedImage, name::Family, state::Revision, time::Timestamp};

/// One revision, with the ECS document's own fields beside ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskDefinitionView {
    /// `family:revision`.
    pub task_definition: String,
    /// Family.
    pub family: String,
    /// Number.
    pub revision: u32,
    /// ACTIVE: the newest of a declared family; else INACTIVE.
    #[schema(value_type = String)]
    pub status: RevisionStatus,
    /// SHA-256 over the content.
    pub hash: String,
    /// What its image references stand for, once resolved: a digest, or the content id of what was loaded on a host by hand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub registered_at: Timestamp,
    /// The ECS document; none for a revision that is known only from running containers.
    pub spec: Option<serde_json::Value>,
}

/// ECS's task definition `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RevisionStatus {
    /// What new tasks get.
    Active,
    /// Kept.
    Inactive,
}

/// All revisions: by family, newest first.
pub fn list(snapshot: &Snapshot) -> Vec<TaskDefinitionView> {
    let revisions = &snapshot.world.state.revisions;
    revisions.values().flat_map(|family| family.values().rev()).map(|revision| view(snapshot, revision)).collect()
}

/// `auth:3`, or the newest revision of `auth`.
pub fn find(snapshot: &Snapshot, name: &str) -> Option<TaskDefinitionView> {
    let state = &snapshot.world.state;
    let revision = match name.parse() {
        Ok(id) => state.revision(&id),
        Err(_) => state.latest_revision(&Family::from(name)),
    };
    revision.map(|revision| view(snapshot, revision))
}

fn view(snapshot: &Snapshot, revision: &Revision) -> TaskDefinitionView {
    let state = &snapshot.world.state;
    let family = &revision.id.family;
    let newest = state.latest_revision(family).is_some_and(|latest| latest.id == revision.id);
    let active = newest && state.desired.task_definitions.contains_key(family);
    TaskDefinitionView {
        task_definition: revision.id.to_string(),
        family: family.to_string(),
        revision: revision.id.number,
        status: if active { RevisionStatus::Active } else { RevisionStatus::Inactive },
        hash: revision.hash.clone(),
        images: revision.images.iter().map(|(reference, image)| (reference.clone(), content(image))).collect(),
        registered_at: revision.created_at,
        spec: revision.spec.as_ref().and_then(|spec| serde_json::to_value(spec.as_ref()).ok()),
    }
}

fn content(image: &ResolvedImage) -> String {
    match image {
        ResolvedImage::Digest(digest) => digest.clone(),
        ResolvedImage::Local(id) => id.clone(),
    }
}
