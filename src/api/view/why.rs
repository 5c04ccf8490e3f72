//! Why a service or a task is as it is: the planner's own account, and what came before.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    event::{self, EventView},
    plan::{self, PlannedAction, WaitingView},
    scheduled_task,
    service::{self, ServiceView, concerns, waiting_of},
    task::{self, TaskView},
};
use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{
    name::{ScheduleName, ServiceName},
    state::Event,
    task::Task,
    time::Timestamp,
    world::Subject,
};

/// The account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhyView {
    /// service, task, scheduledtask.
    pub kind: String,
    /// Of what.
    pub name: String,
    /// How it stands, in one sentence.
    pub summary: String,
    /// What waits, and what ends the waiting.
    pub waiting: Vec<WaitingView>,
    /// What the last plan does about it.
    pub doing: Vec<PlannedAction>,
    /// Tasks that failed in a row.
    pub consecutive_failures: u32,
    /// No start before this.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_before: Option<Timestamp>,
    /// Its tasks; of a task, itself.
    pub tasks: Vec<TaskView>,
    /// Oldest first.
    pub events: Vec<EventView>,
    /// What stands in the way of the whole fleet: fenced, held, the brake.
    pub fleet: Vec<String>,
}

/// Why a service is as it is; `events` are its own.
pub fn service(snapshot: &Snapshot, name: &ServiceName, events: &[Event]) -> Option<WhyView> {
    let view = service::view(snapshot, name, &[])?;
    let state = &snapshot.world.state;
    let record = state.services.get(name);
    let doing = snapshot.report.doing.iter().filter(|doing| concerns(state, &doing.subject, name));
    Some(WhyView {
        kind: "service".to_owned(),
        name: name.to_string(),
        summary: service_summary(&view),
        waiting: waiting_of(snapshot, name).map(plan::waiting).collect(),
        doing: doing.map(|doing| plan::action(doing, Some(name.to_string()))).collect(),
        consecutive_failures: record.map_or(0, |record| record.consecutive_failures),
        not_before: record.and_then(|record| record.not_before),
        tasks: task::list(
            snapshot,
            &task::TaskFilter { service: Some(name.as_str()), stopped: true, ..Default::default() },
        ),
        events: events.iter().map(event::view).collect(),
        fleet: fleet(snapshot),
    })
}

/// Why a task is as it is; `events` are those that speak of it.
pub fn task(snapshot: &Snapshot, task: &Task, events: &[Event]) -> WhyView {
    let subject = Subject::Task(task.id.clone());
    let record = snapshot.world.state.services.get(&task.service);
    let waiting = snapshot.report.waiting.iter().filter(|waiting| waiting.subject == subject);
    let doing = snapshot.report.doing.iter().filter(|doing| doing.subject == subject);
    WhyView {
        kind: "task".to_owned(),
        name: task.id.to_string(),
        summary: task_summary(task),
        waiting: waiting.map(plan::waiting).collect(),
        doing: doing.map(|doing| plan::action(doing, Some(task.service.to_string()))).collect(),
        consecutive_failures: record.map_or(0, |record| record.consecutive_failures),
        not_before: record.and_then(|record| record.not_before),
        tasks: vec![task::view(&snapshot.world.state, task)],
        events: events.iter().map(event::view).collect(),
        fleet: fleet(snapshot),
    }
}

/// Why a scheduled task is as it is; `events` are its own.
pub fn scheduled_task(snapshot: &Snapshot, name: &ScheduleName, events: &[Event]) -> Option<WhyView> {
    let view = scheduled_task::view(snapshot, name)?;
    let subject = Subject::ScheduledTask(name.clone());
    let waiting = snapshot.report.waiting.iter().filter(|waiting| waiting.subject == subject);
    let state = &snapshot.world.state;
    let tasks = state.tasks.values().filter(|task| view.fires.iter().any(|fire| fire.tasks.contains(&task.id)));
    Some(WhyView {
        kind: "scheduledtask".to_owned(),
        name: name.to_string(),
        summary: match view.next_fire_at {
            _ if view.suspend => format!("{name} is suspended: nothing begins"),
            Some(at) => format!("{name} fires next at {at} ({})", view.schedule),
            None => format!("{name} does not fire any more ({})", view.schedule),
        },
        waiting: waiting.map(plan::waiting).collect(),
        doing: Vec::new(),
        consecutive_failures: 0,
        not_before: None,
        tasks: tasks.map(|task| task::view(state, task)).collect(),
        events: events.iter().map(event::view).collect(),
        fleet: fleet(snapshot),
    })
}

fn service_summary(view: &ServiceView) -> String {
    let steady = view.conditions.first().map(|condition| condition.message.as_str()).unwrap_or_default();
    format!("{} of {}: {steady}", view.name, view.task_definition)
}

fn task_summary(task: &Task) -> String {
    let last = super::word(&task.last_status);
    let place = match task.is_standalone() {
        true => format!("{} by itself on {}", task.revision, task.host),
        false => format!("{} of service {} on {}", task.revision, task.service, task.host),
    };
    match &task.stopped_reason {
        Some(reason) => format!("{last}: {place}: {reason}"),
        None => format!("{last}: {place}"),
    }
}

/// What stands in the way of everything.
fn fleet(snapshot: &Snapshot) -> Vec<String> {
    let fleet = &snapshot.world.state.fleet;
    let fenced = snapshot.fenced.iter().map(|reason| format!("the controller is fenced and does nothing: {reason}"));
    let held = fleet.held.iter().map(|held| {
        format!("a change of the manifests is held: {}; `roadstead confirm {}` carries it out", held.reason, held.token)
    });
    let brake = fleet.brake.iter().filter(|brake| !brake.released);
    let brake =
        brake.map(|brake| format!("the brake is on: {}; `roadstead brake release` goes on regardless", brake.reason));
    let settling =
        snapshot.world.settling.then(|| "not every host was looked at since the controller started".to_owned());
    fenced.chain(held).chain(brake).chain(settling).collect()
}
