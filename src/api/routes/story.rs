//! What happened, and why things are as they are.

use axum::{Json, extract::State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api,
    extract::{Named, Params, Subject, subject},
};
use crate::api::{
    error::{ApiError, ErrorBody, ErrorCode},
    view::{Items, event, event::EventView, why, why::WhyView},
};
use roadstead_core::model::{name::ScheduleName, state::EventSubject};

/// Most events in one answer.
const MAX_EVENTS: u32 = 1000;
/// Events in one answer when nobody says how many.
const DEFAULT_EVENTS: u32 = 100;
/// Events in an account of why.
const EVENTS_SHOWN: u32 = 20;
/// So many of a service's events are looked through for those of a task.
const EVENTS_FOR_A_TASK: u32 = 500;

#[derive(Deserialize, IntoParams)]
pub(super) struct EventQuery {
    /// Only events after this id.
    after: Option<u64>,
    /// The newest so many, at most 1000; 100 when absent.
    limit: Option<u32>,
    /// fleet, host, service, task, scheduledtask, file.
    kind: Option<String>,
    /// Of what.
    name: Option<String>,
}

/// Events, oldest first.
#[utoipa::path(get, path = "/v1/events", params(EventQuery), responses((status = 200, body = Items<EventView>), (status = 400, body = ErrorBody)))]
pub(super) async fn events(
    State(api): State<Api>,
    Params(query): Params<EventQuery>,
) -> Result<Json<Items<EventView>>, ApiError> {
    let limit = query.limit.unwrap_or(DEFAULT_EVENTS).min(MAX_EVENTS);
    let subject = match (&query.kind, &query.name) {
        (None, None) => None,
        (None, Some(_)) => return Err(ApiError::new(ErrorCode::BadRequest, "a name needs a kind")),
        (Some(kind), name) => {
            let subject = event::subject(kind, name.as_deref().unwrap_or_default());
            Some(subject.ok_or_else(|| {
                ApiError::new(
                    ErrorCode::BadRequest,
                    format!("{kind:?} is none of fleet, host, service, task, scheduledtask, file"),
                )
            })?)
        }
    };
    let events = match query.after {
        Some(after) => api.handle.store.events_after(after, subject.as_ref(), limit).await?,
        None => api.handle.store.newest_events(subject.as_ref(), limit).await?,
    };
    Ok(Json(Items { items: events.iter().map(event::view).collect() }))
}

/// Why a service or a task is as it is.
#[utoipa::path(get, path = "/v1/why/{kind}/{name}", params(("kind" = String, Path, description = "service, task, scheduledtask"), ("name" = String, Path)), responses((status = 200, body = WhyView), (status = 404, body = ErrorBody)))]
pub(super) async fn why(
    State(api): State<Api>,
    Named((kind, name)): Named<(String, String)>,
) -> Result<Json<WhyView>, ApiError> {
    let snapshot = api.handle.snapshot();
    if kind == "scheduledtask" {
        let schedule = ScheduleName::from(name.as_str());
        let subject = EventSubject::ScheduledTask(schedule.clone());
        let events = api.handle.store.newest_events(Some(&subject), EVENTS_SHOWN).await?;
        let view = why::scheduled_task(&snapshot, &schedule, &events);
        return view.map(Json).ok_or_else(|| ApiError::not_found(&kind, &name));
    }
    let view = match subject(&snapshot.world.state, &kind, &name)? {
        Subject::Service(service) => {
            let events =
                api.handle.store.newest_events(Some(&EventSubject::Service(service.clone())), EVENTS_SHOWN).await?;
            why::service(&snapshot, &service, &events)
        }
        Subject::Task(task) => {
            let mut events = api.handle.store.newest_events(Some(&task.told_in()), EVENTS_FOR_A_TASK).await?;
            // A task's story is told in its service's events, by its id.
            events.retain(|event| event.message.contains(task.id.as_str()));
            Some(why::task(&snapshot, task, &events))
        }
    };
    view.map(Json).ok_or_else(|| ApiError::not_found(&kind, &name))
}
