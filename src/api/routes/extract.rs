//! Extractors whose refusals are API errors.

use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, rejection::PathRejection};

use crate::api::error::{ApiError, ErrorCode};
use crate::api::view::task::{self, NoTask};
use roadstead_core::model::{name::ServiceName, state::State, task::Task};

#[derive(FromRequestParts)]
#[from_request(via(Path), rejection(ApiError))]
pub(super) struct Named<T>(pub T);

#[derive(FromRequestParts)]
#[from_request(via(Query), rejection(ApiError))]
pub(super) struct Params<T>(pub T);

#[derive(FromRequest)]
#[from_request(via(Json), rejection(ApiError))]
pub(super) struct Body<T>(pub T);

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorCode::BadRequest, rejection.body_text())
    }
}

/// The task with this id or the beginning of it.
pub(super) fn find_task<'a>(state: &'a State, id: &str) -> Result<&'a Task, ApiError> {
    task::find(state, id).map_err(|why| match why {
        NoTask::Unknown => ApiError::not_found("task", id),
        NoTask::Ambiguous(ids) => {
            ApiError::new(ErrorCode::BadRequest, format!("several tasks begin with {id:?}: {}", ids.join(", ")))
                .hint("give more of the id")
        }
    })
}

/// What a path's `{kind}/{name}` means: the running tasks to look at.
pub(super) enum Subject<'a> {
    Service(ServiceName),
    Task(&'a Task),
}

pub(super) fn subject<'a>(state: &'a State, kind: &str, name: &str) -> Result<Subject<'a>, ApiError> {
    match kind {
        "service" if state.desired.services.contains_key(name) || state.services.contains_key(name) => {
            Ok(Subject::Service(name.into()))
        }
        "service" => Err(ApiError::not_found("service", name)),
        "task" => find_task(state, name).map(Subject::Task),
        _ => Err(ApiError::new(ErrorCode::BadRequest, format!("{kind:?} is neither service nor task"))),
    }
}
