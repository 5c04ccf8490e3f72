//! The controller's state, and what would happen if.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};

use super::{Api, extract::Body};
use crate::api::{
    error::{ApiError, ErrorBody, ErrorCode},
    view::{plan, plan::PlanView, status, status::StatusView},
};
use roadstead_control::control::handle::WhatIf;
use roadstead_core::model::{
    diagnostic::Diagnostic,
    state::{Change, State as Durable},
    world::{Plan, Subject},
};

/// A plan that takes longer is given up.
const PLAN_DEADLINE: Duration = Duration::from_secs(30);

/// The controller's own state.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = StatusView)))]
pub(super) async fn status(State(api): State<Api>) -> Json<StatusView> {
    Json(status::view(&api.handle.snapshot()))
}

/// What would happen; changes nothing. The body may hold manifests that replace or add to the watched ones.
#[utoipa::path(post, path = "/v1/plan", request_body(content = Object, description = "`{\"files\": {NAME: TEXT}, \"images\": {PLACEHOLDER: IMAGE}}`; `{}` for what is watched now"), responses((status = 200, body = PlanView), (status = 422, body = ErrorBody)))]
pub(super) async fn plan(State(api): State<Api>, Body(question): Body<WhatIf>) -> Result<Json<PlanView>, ApiError> {
    let busy = || ApiError::new(ErrorCode::Unavailable, "other plans are being computed").hint("try again in a moment");
    let permit = Arc::clone(&api.plans).try_acquire_owned().map_err(|_| busy())?;
    let handle = api.handle.clone();
    let computed = tokio::task::spawn_blocking(move || {
        // Held until it is computed, also when nobody waits any more.
        let _permit = permit;
        handle.what_if(&question)
    });
    match tokio::time::timeout(PLAN_DEADLINE, computed).await {
        Ok(Ok(Ok(forecast))) => {
            let snapshot = api.handle.snapshot();
            Ok(Json(plan::view(&forecast.plan.report, &forecast.removed, forecast.diagnostics, |subject| {
                service_of(&snapshot.world.state, &forecast.plan, subject)
            })))
        }
        Ok(Ok(Err(diagnostics))) => Err(invalid(diagnostics)),
        Ok(Err(error)) => Err(ApiError::new(ErrorCode::Internal, format!("the plan could not be computed: {error}"))),
        Err(_) => Err(ApiError::new(ErrorCode::Unavailable, "the plan was not computed within 30 s")),
    }
}

fn invalid(diagnostics: Vec<Diagnostic>) -> ApiError {
    ApiError { diagnostics, ..ApiError::new(ErrorCode::Invalid, "the manifests have errors") }
}

/// The service of a task, also of one that the plan would make.
fn service_of(state: &Durable, plan: &Plan, subject: &Subject) -> Option<String> {
    let Subject::Task(id) = subject else { return None };
    let planned = plan.changes.iter().find_map(|change| {
        if let Change::Task(task) = change { Some(task).filter(|task| task.id == *id) } else { None }
    });
    planned.or_else(|| state.tasks.get(id)).map(|task| task.service.to_string())
}
