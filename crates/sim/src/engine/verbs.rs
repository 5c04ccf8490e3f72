//! [`Engine`] for [`FakeEngine`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio_stream::wrappers::BroadcastStream;

use super::{Answer, FakeEngine, Printed, Request, no_answer};
use roadstead_control::engine::{
    Content, Created, Engine, EngineError, EngineEvent, EngineInfo, EngineStream, ExecId, ExecOptions, ExecOutput,
    ExecSession, ImageFacts, Inspected, LogLine, LogOptions, OutputStream, Progress, PullProgress, Verify,
    VerifyVolume,
};
use roadstead_core::model::container::{ContainerConfig, ContainerState, ContainerView};
use roadstead_core::model::name::RuntimeId;
use roadstead_core::model::observed::EngineIdentity;
use roadstead_core::model::storage::StoredImage;
use roadstead_core::model::time::Timestamp;
use roadstead_core::model::volume::VolumeClaim;

#[async_trait]
impl Engine for FakeEngine {
    async fn identify(&self) -> Result<EngineIdentity, EngineError> {
        self.ask("identify", |inner| Ok(inner.machine.identity.clone()))
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.ask("info", |inner| Ok(inner.machine.info.clone()))
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.ask("ping", |_| Ok(()))
    }

    async fn list(&self, verify: Verify<'_>) -> Result<BTreeMap<RuntimeId, ContainerView>, EngineError> {
        self.ask("list", |inner| Ok(inner.machine.list(verify)))
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, EngineError> {
        self.ask("inspect image", |inner| Ok(inner.machine.image(reference)))
    }

    async fn images(&self) -> Result<BTreeMap<String, StoredImage>, EngineError> {
        self.ask("list images", |inner| Ok(inner.machine.stored_images()))
    }

    async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        self.change("remove an image", Request::RemoveImage(id.to_owned())).map(drop)
    }

    async fn registry_digest(&self, reference: &str) -> Result<String, EngineError> {
        self.ask("ask the registry", |inner| inner.machine.registry_digest(reference))
    }

    async fn pull(&self, reference: &str, progress: Progress<'_>) -> Result<(), EngineError> {
        self.change(&format!("pull {reference}"), Request::Pull(reference.to_owned()))?;
        progress(PullProgress {
            layer: String::new(),
            status: "Downloaded".into(),
            current_bytes: None,
            total_bytes: None,
        });
        Ok(())
    }

    async fn create(&self, config: &ContainerConfig) -> Result<Created, EngineError> {
        let request = Request::Create(Box::new(config.clone()));
        match self.change(&format!("create {}", config.name), request)? {
            Answer::Created(created) => Ok(created),
            Answer::Done | Answer::Network(_) => Err(no_answer("create")),
        }
    }

    async fn start(&self, id: &RuntimeId) -> Result<(), EngineError> {
        self.change(&format!("start {id:.12}"), Request::Start(id.clone())).map(drop)
    }

    async fn stop(&self, id: &RuntimeId, _timeout_s: u32) -> Result<(), EngineError> {
        self.change(&format!("stop {id:.12}"), Request::Stop(id.clone())).map(drop)
    }

    async fn remove(&self, id: &RuntimeId, force: bool) -> Result<(), EngineError> {
        let request = Request::Remove { id: id.clone(), force };
        self.change(&format!("remove {id:.12}"), request).map(drop)
    }

    async fn volumes(&self, verify: VerifyVolume<'_>) -> Result<BTreeMap<String, VolumeClaim>, EngineError> {
        self.ask("list volumes", |inner| Ok(inner.machine.our_volumes(verify)))
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.change(&format!("remove volume {name}"), Request::RemoveVolume(name.to_owned())).map(drop)
    }

    async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        self.ask("inspect volume", |inner| Ok(inner.machine.volumes.contains_key(name)))
    }

    async fn download(&self, id: &RuntimeId, path: &str) -> Result<EngineStream<Bytes>, EngineError> {
        let piece = |index| self.ask("read an archive", |inner| inner.machine.archive_piece(id, path, index));
        let mut pieces = Vec::new();
        while let Some(piece) = piece(pieces.len())? {
            pieces.push(piece);
        }
        Ok(Box::pin(stream::iter(pieces.into_iter().map(Ok))))
    }

    async fn upload(&self, id: &RuntimeId, _path: &str, mut content: Content) -> Result<(), EngineError> {
        let mut index = 0;
        while let Some(piece) = content.next().await {
            let piece = piece.map_err(|_| no_answer("write an archive"))?;
            self.change("write an archive", Request::Unpack { id: id.clone(), index, piece })?;
            index += 1;
        }
        Ok(())
    }

    async fn inspect(&self, id_or_name: &str, verify: Verify<'_>) -> Result<Option<Inspected>, EngineError> {
        self.ask("inspect", |inner| {
            let id = inner.machine.find(id_or_name);
            Ok(id.and_then(|id| inner.machine.inspect(&id, verify)))
        })
    }

    async fn events(&self, since: Option<Timestamp>) -> Result<EngineStream<EngineEvent>, EngineError> {
        let (past, live) = self.ask("follow events", |inner| {
            let past = since.map(|since| inner.machine.remembered(since)).unwrap_or_default();
            Ok((past, inner.events.subscribe()))
        })?;
        let live = BroadcastStream::new(live).map(|event| event.map_err(|_| no_answer("follow events")));
        Ok(until_error(stream::iter(past.into_iter().map(Ok)).chain(live)))
    }

    async fn logs(&self, id: &RuntimeId, options: LogOptions) -> Result<EngineStream<LogLine>, EngineError> {
        let (past, live) = self.ask(&format!("logs of {id:.12}"), |inner| {
            let Some(state) = inner.machine.state(id) else {
                let what = format!("logs of {id:.12}");
                return Err(EngineError::NotFound { what });
            };
            let lines = inner.lines.get(id).into_iter().flatten();
            let wanted = lines.filter(|line| line.at >= options.since.map(|Timestamp(ms)| Timestamp(ms / 1000 * 1000)));
            let mut past: Vec<LogLine> = wanted.cloned().collect();
            if let Some(tail) = options.tail {
                past.drain(..past.len().saturating_sub(tail as usize));
            }
            let follow = options.follow && state.is_live();
            Ok((past, follow.then(|| inner.output.subscribe())))
        })?;
        let past = stream::iter(past.into_iter().map(Ok));
        let Some(live) = live else {
            return Ok(Box::pin(past));
        };
        let id = id.clone();
        let live = BroadcastStream::new(live)
            .take_while({
                let id = id.clone();
                move |printed| std::future::ready(!matches!(printed, Ok(Printed::Ended(ended)) if *ended == id))
            })
            .filter_map(move |printed| {
                let line = match printed {
                    Ok(Printed::Line(of, line)) => (of == id).then_some(Ok(line)),
                    Ok(Printed::Ended(_)) => None,
                    Err(_) => Some(Err(no_answer("follow logs"))),
                };
                std::future::ready(line)
            });
        Ok(until_error(past.chain(live)))
    }

    async fn exec(&self, id: &RuntimeId, options: ExecOptions) -> Result<ExecSession, EngineError> {
        let (number, output) = self.ask(&format!("run a command in {id:.12}"), |inner| {
            match inner.machine.state(id) {
                Some(ContainerState::Running) => {}
                Some(state) => {
                    let message = format!("Container {id} is {state:?}, not running");
                    return Err(EngineError::Conflict { message });
                }
                None => return Err(EngineError::NotFound { what: "exec".into() }),
            }
            let (output, exit_code) = match inner.scripts.get(&options.argv) {
                Some(script) => (script.output.clone(), script.exit_code),
                None => {
                    let bytes = "OCI runtime exec failed: executable file not found\r\n".into();
                    let stream = OutputStream::Stdout;
                    (vec![ExecOutput { stream, bytes }], 127)
                }
            };
            inner.execs.push(exit_code);
            Ok((inner.execs.len() - 1, output))
        })?;
        Ok(ExecSession {
            id: ExecId(number.to_string()),
            input: Box::pin(tokio::io::sink()),
            output: Box::pin(stream::iter(output.into_iter().map(Ok))),
        })
    }

    async fn exec_resize(&self, exec: &ExecId, _rows: u16, _columns: u16) -> Result<(), EngineError> {
        self.exec_exit_code(exec).await.map(drop)
    }

    async fn exec_exit_code(&self, exec: &ExecId) -> Result<Option<i64>, EngineError> {
        self.ask("ask for an exit code", |inner| {
            let number: Option<usize> = exec.0.parse().ok();
            let code = number.and_then(|number| inner.execs.get(number));
            code.map(|code| Some(*code)).ok_or_else(|| EngineError::NotFound { what: "exec".into() })
        })
    }
}

/// The items up to the first error, which is the last.
fn until_error<T: Send + 'static>(
    items: impl futures_util::Stream<Item = Result<T, EngineError>> + Send + 'static,
) -> EngineStream<T> {
    let items = items.scan(false, |failed, item| {
        let ended = std::mem::replace(failed, item.is_err());
        std::future::ready((!ended).then_some(item))
    });
    Box::pin(items)
}
