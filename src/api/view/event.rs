//! Events.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_core::model::{
    state::{Event, EventLevel, EventSubject},
    time::Timestamp,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Growing number.
    pub id: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// NORMAL, WARNING.
    #[schema(value_type = String)]
    pub level: EventLevel,
    /// fleet, host, service, task, scheduledtask, file.
    pub kind: String,
    /// Of what it is about; empty for the fleet.
    pub name: String,
    /// Stable word for scripts.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// One event.
pub fn view(event: &Event) -> EventView {
    let (kind, name) = match &event.subject {
        EventSubject::Fleet => ("fleet", ""),
        EventSubject::Host(name) => ("host", name.as_str()),
        EventSubject::Service(name) => ("service", name.as_str()),
        EventSubject::Task(id) => ("task", id.as_str()),
        EventSubject::ScheduledTask(name) => ("scheduledtask", name.as_str()),
        EventSubject::File(name) => ("file", name.as_str()),
    };
    EventView {
        id: event.id,
        at: event.at,
        level: event.level,
        kind: kind.to_owned(),
        name: name.to_owned(),
        reason: event.reason.clone(),
        message: event.message.clone(),
    }
}

/// The subject that `kind` and `name` mean.
pub fn subject(kind: &str, name: &str) -> Option<EventSubject> {
    match kind {
        "fleet" => Some(EventSubject::Fleet),
        "host" => Some(EventSubject::Host(name.into())),
        "service" => Some(EventSubject::Service(name.into())),
        "task" => Some(EventSubject::Task(name.into())),
        "scheduledtask" => Some(EventSubject::ScheduledTask(name.into())),
        "file" => Some(EventSubject::File(name.to_owned())),
        _ => None,
    }
}
