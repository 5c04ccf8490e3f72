//! Scheduled tasks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{
    name::ScheduleName,
    schedule::{Fire, FireOutcome},
    spec::scheduled_task::ConcurrencyPolicy,
    time::Timestamp,
};

/// One scheduled task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledTaskView {
    /// Name.
    pub name: String,
    /// Cluster.
    pub cluster: String,
    /// As the manifest says it.
    pub schedule: String,
    /// IANA name.
    pub time_zone: String,
    /// What it starts.
    pub task_definition: String,
    /// How many tasks each time.
    pub count: u32,
    /// Allow, Forbid, Replace.
    #[schema(value_type = String)]
    pub concurrency_policy: ConcurrencyPolicy,
    /// Nothing begins.
    pub suspend: bool,
    /// The next time; one in the past waits to begin.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_fire_at: Option<Timestamp>,
    /// How many fires have tasks that run.
    pub active_count: u32,
    /// Newest first.
    #[schema(value_type = Vec<Object>)]
    pub fires: Vec<Fire>,
}

/// All of them.
pub fn list(snapshot: &Snapshot, cluster: Option<&str>) -> Vec<ScheduledTaskView> {
    let names = snapshot.world.state.desired.scheduled_tasks.keys();
    let views = names.filter_map(|name| view(snapshot, name));
    views.filter(|view| cluster.is_none_or(|cluster| cluster == view.cluster)).collect()
}

/// One, if it is declared.
pub fn view(snapshot: &Snapshot, name: &ScheduleName) -> Option<ScheduledTaskView> {
    let state = &snapshot.world.state;
    let spec = &state.desired.scheduled_tasks.get(name)?.spec;
    let record = state.schedules.get(name);
    let fires = record.map(|record| record.fires.clone()).unwrap_or_default();
    Some(ScheduledTaskView {
        name: name.to_string(),
        cluster: spec.cluster.to_string(),
        schedule: spec.schedule.clone(),
        time_zone: spec.time_zone.clone(),
        task_definition: spec.task_definition.clone(),
        count: spec.count,
        concurrency_policy: spec.concurrency_policy,
        suspend: spec.suspend,
        next_fire_at: record.and_then(|record| record.next_at),
        active_count: fires.iter().filter(|fire| fire.outcome == FireOutcome::Running).count() as u32,
        fires,
    })
}
