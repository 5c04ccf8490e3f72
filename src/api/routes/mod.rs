//! The routes: one table, from which the router is made and against which the OpenAPI document is tested.

mod command;
mod exec;
mod extract;
mod logs;
mod objects;
mod plan;
mod reachability;
mod run;
mod story;
mod volume;
mod watch;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(super) use docs::Docs;
pub use exec::ExecRequest;
pub use logs::{LogRecord, LogSource};
pub use run::RunView;
pub use volume::Restoring;

use super::{
    Token,
    error::{ApiError, ErrorCode},
};
use roadstead_control::control::handle::Handle;

/// A request's body may have so many bytes: a fleet's manifests fit in.
const BODY_LIMIT_BYTES: usize = 8 << 20;
/// What-if questions computed at once: each may keep a core busy.
const PLANS_AT_ONCE: usize = 2;
/// Log and exec requests at once.
const STREAMS_AT_ONCE: usize = 64;

/// What the routes share.
#[derive(Clone)]
pub(super) struct Api {
    handle: Handle,
    shutdown: CancellationToken,
    plans: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// One row of the table of routes.
pub(super) struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the test against the OpenAPI document"))]
    pub method: Method,
    pub path: &'static str,
    handler: MethodRouter<Api>,
}

pub(super) fn table() -> Vec<Route> {
    let read = |path, handler| Route { method: Method::GET, path, handler };
    let write = |path, handler| Route { method: Method::POST, path, handler };
    vec![
        read("/v1/openapi.json", get(docs::openapi_json)),
        read("/v1/status", get(plan::status)),
        read("/metrics", get(objects::metrics)),
        read("/v1/clusters", get(objects::clusters)),
        read("/v1/clusters/{name}", get(objects::cluster)),
        read("/v1/hosts", get(objects::hosts)),
        read("/v1/hosts/{name}", get(objects::host)),
        read("/v1/services", get(objects::services)),
        read("/v1/services/{name}", get(objects::service)),
        read("/v1/scheduledtasks", get(objects::scheduled_tasks)),
        read("/v1/scheduledtasks/{name}", get(objects::scheduled_task)),
        read("/v1/tasks", get(objects::tasks)),
        read("/v1/tasks/{name}", get(objects::task)),
        read("/v1/tasks/{name}/reachability", get(reachability::reachability)),
        read("/v1/taskdefinitions", get(objects::task_definitions)),
        read("/v1/taskdefinitions/{name}", get(objects::task_definition)),
        read("/v1/deployments", get(objects::deployments)),
        read("/v1/deployments/{name}", get(objects::deployment)),
        read("/v1/subnets", get(objects::subnets)),
        read("/v1/subnets/{name}", get(objects::subnet)),
        read("/v1/securitygroups", get(objects::security_groups)),
        read("/v1/securitygroups/{name}", get(objects::security_group)),
        read("/v1/targetgroups", get(objects::target_groups)),
        read("/v1/targetgroups/{name}", get(objects::target_group)),
        read("/v1/loadbalancers", get(objects::load_balancers)),
        read("/v1/loadbalancers/{name}", get(objects::load_balancer)),
        read("/v1/certificates", get(objects::certificates)),
        read("/v1/certificates/authority", get(objects::authority)),
        read("/v1/volumes", get(objects::volumes)),
        read("/v1/volumes/{name}/content", get(volume::content)),
        write("/v1/volumes/{name}/content", post(volume::restore)),
        read("/v1/events", get(story::events)),
        read("/v1/why/{kind}/{name}", get(story::why)),
        read("/v1/watch", get(watch::watch)),
        read("/v1/logs/{kind}/{name}", get(logs::logs)),
        write("/v1/exec/{kind}/{name}", post(exec::exec)),
        write("/v1/plan", post(plan::plan)),
        write("/v1/run", post(run::run)),
        write("/v1/commands", post(command::command)),
    ]
}

mod docs {
    use super::*;

    /// All routes and types, for the OpenAPI document.
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(
            title = "Roadstead",
            description = "What the controller tells and takes. Errors are `{\"error\": {code, message, hint}}`."
        ),
        paths(
            openapi_json,
            plan::status,
            objects::metrics,
            objects::clusters,
            objects::cluster,
            objects::hosts,
            objects::host,
            objects::services,
            objects::service,
            objects::scheduled_tasks,
            objects::scheduled_task,
            objects::tasks,
            objects::task,
            reachability::reachability,
            objects::task_definitions,
            objects::task_definition,
            objects::deployments,
            objects::deployment,
            objects::subnets,
            objects::subnet,
            objects::security_groups,
            objects::security_group,
            objects::target_groups,
            objects::target_group,
            objects::load_balancers,
            objects::load_balancer,
            objects::certificates,
            objects::authority,
            objects::volumes,
            volume::content,
            volume::restore,
            story::events,
            story::why,
            watch::watch,
            logs::logs,
            exec::exec,
            plan::plan,
            run::run,
            command::command,
        ),
        components(schemas(super::super::error::ErrorBody, LogRecord))
    )]
    pub(in crate::api) struct Docs;

    /// This document.
    #[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, description = "OpenAPI 3.1", body = Object)))]
    pub(super) async fn openapi_json() -> Json<utoipa::openapi::OpenApi> {
        Json(crate::api::openapi())
    }
}

/// The whole API. With a token, every request must carry it.
pub fn router(handle: Handle, token: Option<Token>, shutdown: CancellationToken) -> Router {
    let api = Api {
        handle,
        shutdown,
        plans: Arc::new(Semaphore::new(PLANS_AT_ONCE)),
        streams: Arc::new(Semaphore::new(STREAMS_AT_ONCE)),
    };
    let router = table().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler));
    router
        .fallback(|request: Request| async move { ApiError::new(ErrorCode::NotFound, format!("no route {}", request.uri().path())).hint("GET /v1/openapi.json lists the routes") })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, Json(serde_json::json!({ "error": { "code": "badRequest", "message": "this route does not take that method" } }))) })
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(middleware::from_fn_with_state(token, authorise))
        .with_state(api)
}

async fn authorise(State(token): State<Option<Token>>, request: Request, next: Next) -> Response {
    let presented =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match token.is_none_or(|token| token.accepts(presented)) {
        true => next.run(request).await,
        false => ApiError::new(ErrorCode::Unauthorised, "the request carries no valid token")
            .hint("set ROADSTEAD_TOKEN to the controller's")
            .into_response(),
    }
}
