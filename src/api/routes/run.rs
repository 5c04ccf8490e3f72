//! RunTask.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, RefOr, Schema, Type},
};

use super::{Api, extract::Body};
use crate::api::{
    error::{ApiError, ErrorBody, ErrorCode},
    view::task::{self, TaskView},
};
use roadstead_core::turn::Command;
use roadstead_core::{
    model::{hex::hex, standalone::RunTask},
    plan::absorb,
};

/// The request, with ECS's names.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Run(RunTask);

impl PartialSchema for Run {
    fn schema() -> RefOr<Schema> {
        let field = |kind, words: &str| ObjectBuilder::new().schema_type(kind).description(Some(words)).build();
        let list = |words: &str| ArrayBuilder::new().items(ObjectBuilder::new()).description(Some(words)).build();
        ObjectBuilder::new()
            .property("taskDefinition", field(Type::String, "family or family:revision"))
            .property("count", field(Type::Integer, "1 to 10; 1 when absent"))
            .property("cluster", field(Type::String, "`default` when absent"))
            .property("launchType", field(Type::String, "EC2, FARGATE"))
            .property("overrides", field(Type::Object, "ECS's TaskOverride"))
            .property("placementConstraints", list("Besides the task definition's"))
            .property("placementStrategy", list("Five at most, in order"))
            .property("startedBy", field(Type::String, "Who starts them"))
            .property("clientToken", field(Type::String, "A request with a token that was seen before starts nothing"))
            .required("taskDefinition")
            .build()
            .into()
    }
}

impl ToSchema for Run {}

/// What a request to run tasks came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// For people.
    pub message: String,
    /// Those that were started, now or when the token was first seen.
    pub tasks: Vec<TaskView>,
    /// One for each task that was asked for and is not there.
    pub failures: Vec<RunFailure>,
    /// Overrides that are known and not acted on, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A task that was not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunFailure {
    /// Why.
    pub reason: String,
}

/// Starts standalone tasks: placed once, never replaced. What finds no room now fails now.
#[utoipa::path(post, path = "/v1/run", request_body = Run, responses((status = 200, body = RunView), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn run(State(api): State<Api>, Body(Run(mut request)): Body<Run>) -> Result<Json<RunView>, ApiError> {
    if request.client_token.is_empty() {
        request.client_token = new_token()?;
    }
    let (token, count) = (request.client_token.clone(), request.count as usize);
    let not_acted_on = request.overrides.not_acted_on().into_iter();
    let warnings =
        not_acted_on.map(|path| format!("`overrides.{path}` is known, and not acted on by this version")).collect();
    let message = api.handle.command(Command::RunTask(Box::new(request))).await?;
    // What was ordered is in the picture by now.
    let snapshot = api.handle.snapshot();
    let state = &snapshot.world.state;
    let tasks: Vec<TaskView> = absorb::started_by_token(state, &token).map(|task| task::view(state, task)).collect();
    let missing = count.saturating_sub(tasks.len());
    let failures = vec![RunFailure { reason: message.clone() }; missing];
    Ok(Json(RunView { message, tasks, failures, warnings }))
}

/// 128 random bits, hex.
pub(crate) fn new_token() -> Result<String, ApiError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ApiError::new(ErrorCode::Internal, "there is no randomness"))?;
    Ok(hex(&bytes))
}
