//! What containers print: of a task or of all tasks of a service, one JSON record a line.

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{convert::Infallible, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    exec::too_many,
    extract::{Named, Params, Subject, subject},
};
use crate::api::error::{ApiError, ErrorBody, ErrorCode};
use roadstead_control::engine::{LogLine, LogOptions, OutputStream};
use roadstead_core::model::{
    name::{ContainerName, HostName, RuntimeId, ServiceName, TaskId},
    state::State as Durable,
    task::{LastStatus, Task},
    time::Timestamp,
};

mod follow;
mod past;

/// Records on their way to a client; when it does not read them, the hosts wait.
const QUEUE: usize = 256;
/// Containers read at once by one request.
const MAX_SOURCES: usize = 128;

#[derive(Clone, Deserialize, IntoParams)]
pub(super) struct LogQuery {
    /// Only this container of each task.
    container: Option<String>,
    /// Go on with what will be printed, also by tasks that start later.
    #[serde(default)]
    follow: bool,
    /// Only lines from here on, RFC 3339.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Only so many lines of the past, of each container.
    tail: Option<u32>,
}

/// One line that a container printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRecord {
    /// Task.
    pub task: String,
    /// Container.
    pub container: String,
    /// Host.
    pub host: String,
    /// When, by the host's clock.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// stdout, stderr; notice: the controller says something about the stream.
    #[schema(value_type = String)]
    pub stream: LogSource,
    /// Without its end.
    pub line: String,
}

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// The container.
    Stdout,
    /// The container.
    Stderr,
    /// The controller.
    Notice,
}

/// A container to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    task: TaskId,
    container: ContainerName,
    host: HostName,
    id: RuntimeId,
    started_at: Option<Timestamp>,
}

/// What a request reads.
#[derive(Clone)]
enum Wanted {
    Service(ServiceName),
    Task(TaskId),
}

impl Source {
    fn record(&self, line: LogLine) -> LogRecord {
        let stream = match line.stream {
            OutputStream::Stdout => LogSource::Stdout,
            OutputStream::Stderr => LogSource::Stderr,
        };
        self.say(stream, line.at, String::from_utf8_lossy(&line.bytes).into_owned())
    }

    fn notice(&self, text: impl Into<String>) -> LogRecord {
        self.say(LogSource::Notice, None, text.into())
    }

    fn say(&self, stream: LogSource, at: Option<Timestamp>, line: String) -> LogRecord {
        LogRecord {
            task: self.task.to_string(),
            container: self.container.to_string(),
            host: self.host.to_string(),
            at,
            stream,
            line,
        }
    }
}

impl LogQuery {
    fn options(&self) -> LogOptions {
        LogOptions { follow: self.follow, since: self.since, tail: self.tail }
    }
}

/// The containers there are to read now.
fn sources(state: &Durable, wanted: &Wanted, container: Option<&str>) -> Vec<Source> {
    let of_task = |task: &Task| -> Vec<Source> {
        let chosen =
            task.defined_containers().filter(|(name, _)| container.is_none_or(|wanted| wanted == name.as_str()));
        let there = chosen.filter_map(|(name, container)| {
            let id = container.runtime_id.clone()?;
            Some(Source {
                task: task.id.clone(),
                container: name.clone(),
                host: task.host.clone(),
                id,
                started_at: container.started_at,
            })
        });
        there.collect()
    };
    let mut sources: Vec<Source> = match wanted {
        Wanted::Task(id) => state.tasks.get(id).map(|task| of_task(task)).unwrap_or_default(),
        Wanted::Service(service) => {
            let tasks =
                state.tasks.values().filter(|task| task.service == *service && task.last_status != LastStatus::Stopped);
            tasks.flat_map(|task| of_task(task)).collect()
        }
    };
    sources.truncate(MAX_SOURCES);
    sources
}

/// What a task, or every task of a service, prints: newline-delimited JSON.
#[utoipa::path(get, path = "/v1/logs/{kind}/{name}", params(("kind" = String, Path, description = "service, task"), ("name" = String, Path), LogQuery), responses((status = 200, content_type = "application/x-ndjson", body = LogRecord), (status = 404, body = ErrorBody)))]
pub(super) async fn logs(
    State(api): State<Api>,
    Named((kind, name)): Named<(String, String)>,
    Params(query): Params<LogQuery>,
) -> Result<Response, ApiError> {
    let wanted = {
        let snapshot = api.handle.snapshot();
        let state = &snapshot.world.state;
        let wanted = match subject(state, &kind, &name)? {
            Subject::Service(service) => Wanted::Service(service),
            Subject::Task(task) => Wanted::Task(task.id.clone()),
        };
        check_container(state, &wanted, query.container.as_deref())?;
        wanted
    };
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| too_many())?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let _permit = permit;
        let shutdown = api.shutdown.clone();
        let client = sender.clone();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = client.closed() => {}
            () = async { if query.follow { follow::run(&api, &wanted, &query, sender).await } else { past::run(&api, &wanted, &query, sender).await } } => {}
        }
    });
    let lines = ReceiverStream::new(receiver).map(|record| Ok::<_, Infallible>(ndjson(&record)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn check_container(state: &Durable, wanted: &Wanted, container: Option<&str>) -> Result<(), ApiError> {
    let Some(container) = container else { return Ok(()) };
    let mut tasks = state.tasks.values().filter(|task| match wanted {
        Wanted::Task(id) => task.id == *id,
        Wanted::Service(service) => task.service == *service,
    });
    let Some(first) = tasks.next() else { return Ok(()) };
    let has = |task: &Task| task.defined_containers().any(|(name, _)| name.as_str() == container);
    if has(first) || tasks.any(|task| has(task)) {
        return Ok(());
    }
    let names: Vec<&str> = first.defined_containers().map(|(name, _)| name.as_str()).collect();
    Err(ApiError::new(ErrorCode::NotFound, format!("there is no container {container:?}"))
        .hint(format!("there is {}", names.join(", "))))
}

fn ndjson(record: &LogRecord) -> Bytes {
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
