//! A command inside a container, over an upgraded connection.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{FromRequest, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio_util::codec::{FramedRead, FramedWrite};
use utoipa::ToSchema;

use super::{
    Api,
    extract::{Named, Subject, subject},
};
use crate::api::{
    error::{ApiError, ErrorBody, ErrorCode},
    frame::{Frame, FrameCodec, PROTOCOL},
};
use roadstead_control::engine::{
    Engine, EngineError, EngineStream, ExecId, ExecOptions, ExecOutput, ExecSession, OutputStream,
};
use roadstead_core::model::{
    container::{ContainerState, HealthStatus},
    name::{HostName, RuntimeId, ServiceName},
    state::State as Durable,
    task::{LastStatus, Task},
};

/// After the output's end, so long until the engine knows the exit code.
const EXIT_CODE_DEADLINE: Duration = Duration::from_secs(10);
const EXIT_CODE_PAUSE: Duration = Duration::from_millis(50);
/// After the last frame, so long for the client to close the connection.
const LINGER: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExecRequest {
    /// Program and arguments; no shell.
    pub argv: Vec<String>,
    /// The container's name in the task; the first essential one when absent.
    pub container: Option<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Give it a standard input.
    pub stdin: bool,
    /// The terminal's size: rows, columns.
    pub size: Option<(u16, u16)>,
}

/// Where it runs.
struct Place {
    host: HostName,
    id: RuntimeId,
}

/// Runs a command; of a service, in one of its running tasks. The connection is upgraded to frames of one byte kind
/// (0 stdin, 1 stdout, 2 stderr, 3 resize, 4 exit, 5 error), four bytes length, payload.
#[utoipa::path(post, path = "/v1/exec/{kind}/{name}", params(("kind" = String, Path, description = "service, task"), ("name" = String, Path)), request_body = ExecRequest, responses((status = 101, description = "roadstead-exec/1"), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(super) async fn exec(
    State(api): State<Api>,
    Named((kind, name)): Named<(String, String)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let upgrade = take_upgrade(&mut request)?;
    let Json(wanted): Json<ExecRequest> = Json::from_request(request, &()).await?;
    if wanted.argv.first().is_none_or(String::is_empty) {
        return Err(ApiError::new(ErrorCode::BadRequest, "no command was given"));
    }
    let place = {
        let snapshot = api.handle.snapshot();
        let state = &snapshot.world.state;
        let task = match subject(state, &kind, &name)? {
            Subject::Task(task) => task,
            Subject::Service(service) => running_task(state, &service)?,
        };
        place(task, wanted.container.as_deref())?
    };
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| too_many())?;
    let engine = api.handle.engines.borrow().get(&place.host).cloned();
    let engine =
        engine.ok_or_else(|| ApiError::new(ErrorCode::Unavailable, format!("host {} is not connected", place.host)))?;
    let options = ExecOptions {
        argv: wanted.argv,
        tty: wanted.tty,
        stdin: wanted.stdin,
        environment: BTreeMap::new(),
        user: None,
        working_directory: None,
    };
    let session = engine.exec(&place.id, options).await?;
    if let (true, Some((rows, columns))) = (wanted.tty, wanted.size) {
        // The command may have ended already: then nobody needs the size.
        let _ = engine.exec_resize(&session.id, rows, columns).await;
    }
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = api.shutdown.cancelled() => {}
            () = relay(upgrade, engine, session) => {}
        }
    });
    Ok((StatusCode::SWITCHING_PROTOCOLS, [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)])
        .into_response())
}

pub(super) fn too_many() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "too many log and exec requests at once")
        .hint("end some of them, or try again later")
}

fn take_upgrade(request: &mut Request) -> Result<OnUpgrade, ApiError> {
    let asks = |headers: &HeaderMap| {
        headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
    };
    let wrong = || ApiError::new(ErrorCode::BadRequest, format!("this route needs the header `Upgrade: {PROTOCOL}`"));
    if !asks(request.headers()) {
        return Err(wrong());
    }
    request.extensions_mut().remove::<OnUpgrade>().ok_or_else(wrong)
}

fn running_task<'a>(state: &'a Durable, service: &ServiceName) -> Result<&'a Task, ApiError> {
    let running = state
        .tasks
        .values()
        .map(AsRef::as_ref)
        .filter(|task: &&Task| task.service == *service && task.last_status == LastStatus::Running);
    running
        .min_by_key(|task| (task.health_status == HealthStatus::Unhealthy, !task.is_wanted(), task.created_at))
        .ok_or_else(|| {
            ApiError::new(ErrorCode::Refused, format!("no task of service {service} runs"))
                .hint(format!("`roadstead why {service}` says why"))
        })
}

fn place(task: &Task, container: Option<&str>) -> Result<Place, ApiError> {
    let chosen = task.defined_containers().find(|(name, row)| match container {
        Some(wanted) => name.as_str() == wanted,
        None => row.essential,
    });
    let Some((name, container)) = chosen else {
        let names: Vec<&str> = task.defined_containers().map(|(name, _)| name.as_str()).collect();
        return Err(ApiError::new(
            ErrorCode::NotFound,
            format!("task {} has no container {:?}", task.id, container.unwrap_or_default()),
        )
        .hint(format!("it has {}", names.join(", "))));
    };
    match (&container.runtime_id, container.state) {
        (Some(id), Some(ContainerState::Running)) => Ok(Place { host: task.host.clone(), id: id.clone() }),
        (None, _)
        | (
            _,
            None
            | Some(
                ContainerState::Created
                | ContainerState::Paused
                | ContainerState::Restarting
                | ContainerState::Removing
                | ContainerState::Exited
                | ContainerState::Dead,
            ),
        ) => Err(ApiError::new(ErrorCode::Refused, format!("container {name} of task {} does not run", task.id))),
    }
}

async fn relay(upgrade: OnUpgrade, engine: Arc<dyn Engine>, session: ExecSession) {
    let Ok(connection) = upgrade.await else { return };
    let (mut reader, writer) = split(TokioIo::new(connection));
    let ExecSession { id, input, output } = session;
    let mut frames = FramedWrite::new(writer, FrameCodec);
    // Both at once: a command that waits for room in its output must not keep its input from it, nor the other way.
    let last = tokio::select! {
        () = feed(&mut reader, input, engine.as_ref(), &id) => return,
        last = drain(output, &mut frames, engine.as_ref(), &id) => last,
    };
    if frames.send(last).await.is_ok() && frames.close().await.is_ok() {
        // A close with unread input would take the last frames from the client: it closes first.
        let _ = tokio::time::timeout(LINGER, tokio::io::copy(&mut reader, &mut tokio::io::sink())).await;
    }
}

/// From the client to the command; returns when the client is gone.
async fn feed(reader: impl AsyncRead + Unpin, input: impl AsyncWrite + Unpin, engine: &dyn Engine, id: &ExecId) {
    let mut frames = FramedRead::new(reader, FrameCodec);
    let mut input = Some(input);
    while let Some(Ok(frame)) = frames.next().await {
        match frame {
            Frame::Stdin(bytes) if bytes.is_empty() => {
                if let Some(mut input) = input.take() {
                    let _ = input.shutdown().await;
                }
            }
            Frame::Stdin(bytes) => {
                let gone = match &mut input {
                    Some(input) => input.write_all(&bytes).await.is_err() || input.flush().await.is_err(),
                    None => false,
                };
                if gone {
                    input = None;
                }
            }
            Frame::Resize { rows, columns } => {
                let _ = engine.exec_resize(id, rows, columns).await;
            }
            Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) | Frame::Error(_) => return,
        }
    }
}

/// From the command to the client; returns the last frame.
async fn drain(
    mut output: EngineStream<ExecOutput>,
    frames: &mut FramedWrite<impl AsyncWrite + Unpin, FrameCodec>,
    engine: &dyn Engine,
    id: &ExecId,
) -> Frame {
    while let Some(piece) = output.next().await {
        let frame = match piece {
            Ok(ExecOutput { stream: OutputStream::Stdout, bytes }) => Frame::Stdout(bytes),
            Ok(ExecOutput { stream: OutputStream::Stderr, bytes }) => Frame::Stderr(bytes),
            Err(error) => return Frame::Error(error.to_string()),
        };
        if let Err(error) = frames.send(frame).await {
            return Frame::Error(error.to_string());
        }
    }
    match tokio::time::timeout(EXIT_CODE_DEADLINE, exit_code(engine, id)).await {
        Ok(Ok(code)) => Frame::Exit(code),
        Ok(Err(error)) => Frame::Error(format!("the command ended, its exit code is unknown: {error}")),
        Err(_) => Frame::Error("the command closed its output and did not end".to_owned()),
    }
}

async fn exit_code(engine: &dyn Engine, id: &ExecId) -> Result<i64, EngineError> {
    loop {
        if let Some(code) = engine.exec_exit_code(id).await? {
            return Ok(code);
        }
        tokio::time::sleep(EXIT_CODE_PAUSE).await;
    }
}
