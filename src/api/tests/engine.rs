//! An engine that only prints and runs commands.

use std::{collections::BTreeMap, io, sync::Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::io::ReaderStream;

use roadstead_control::engine::{
    Content, Created, Engine, EngineError, EngineEvent, EngineInfo, EngineStream, ExecId, ExecOptions, ExecOutput,
    ExecSession, ImageFacts, Inspected, LogLine, LogOptions, OutputStream, Progress, Verify, VerifyVolume,
};
use roadstead_core::model::{
    container::{ContainerConfig, ContainerView},
    name::RuntimeId,
    observed::EngineIdentity,
    storage::StoredImage,
    time::Timestamp,
    volume::VolumeClaim,
};

/// Prints `lines` as (milliseconds, text); a command prints its arguments, then its input, and ends with 7.
#[derive(Default)]
pub struct Script {
    pub lines: Vec<(u64, &'static str)>,
    pub resized: Mutex<Vec<(u16, u16)>>,
}

fn unused<T>() -> Result<T, EngineError> {
    Err(EngineError::NotFound { what: "this test".to_owned() })
}

#[async_trait]
impl Engine for Script {
    async fn identify(&self) -> Result<EngineIdentity, EngineError> {
        unused()
    }
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        unused()
    }
    async fn ping(&self) -> Result<(), EngineError> {
        unused()
    }
    async fn list(&self, _: Verify<'_>) -> Result<BTreeMap<RuntimeId, ContainerView>, EngineError> {
        unused()
    }
    async fn image(&self, _: &str) -> Result<Option<ImageFacts>, EngineError> {
        unused()
    }
    async fn images(&self) -> Result<BTreeMap<String, StoredImage>, EngineError> {
        unused()
    }
    async fn remove_image(&self, _: &str) -> Result<(), EngineError> {
        unused()
    }
    async fn registry_digest(&self, _: &str) -> Result<String, EngineError> {
        unused()
    }
    async fn pull(&self, _: &str, _: Progress<'_>) -> Result<(), EngineError> {
        unused()
    }
    async fn create(&self, _: &ContainerConfig) -> Result<Created, EngineError> {
        unused()
    }
    async fn start(&self, _: &RuntimeId) -> Result<(), EngineError> {
        unused()
    }
    async fn stop(&self, _: &RuntimeId, _: u32) -> Result<(), EngineError> {
        unused()
    }
    async fn remove(&self, _: &RuntimeId, _: bool) -> Result<(), EngineError> {
        unused()
    }
    async fn volumes(&self, _: VerifyVolume<'_>) -> Result<BTreeMap<String, VolumeClaim>, EngineError> {
        unused()
    }

    async fn remove_volume(&self, _: &str) -> Result<(), EngineError> {
        unused()
    }

    async fn has_volume(&self, _: &str) -> Result<bool, EngineError> {
        unused()
    }

    async fn download(&self, _: &RuntimeId, _: &str) -> Result<EngineStream<Bytes>, EngineError> {
        unused()
    }

    async fn upload(&self, _: &RuntimeId, _: &str, _: Content) -> Result<(), EngineError> {
        unused()
    }

    async fn inspect(&self, _: &str, _: Verify<'_>) -> Result<Option<Inspected>, EngineError> {
        unused()
    }
    async fn events(&self, _: Option<Timestamp>) -> Result<EngineStream<EngineEvent>, EngineError> {
        unused()
    }

    async fn logs(&self, _: &RuntimeId, options: LogOptions) -> Result<EngineStream<LogLine>, EngineError> {
        let skip = options.tail.map_or(0, |tail| self.lines.len().saturating_sub(tail as usize));
        let lines = self.lines.iter().skip(skip).map(|(at, text)| {
            Ok(LogLine {
                stream: OutputStream::Stdout,
                at: Some(Timestamp(*at)),
                bytes: Bytes::from_static(text.as_bytes()),
            })
        });
        let past = stream::iter(lines.collect::<Vec<_>>());
        Ok(if options.follow { past.chain(stream::pending()).boxed() } else { past.boxed() })
    }

    async fn exec(&self, _: &RuntimeId, options: ExecOptions) -> Result<ExecSession, EngineError> {
        let (input, mut command) = duplex(64);
        let (mut out, output) = duplex(64);
        tokio::spawn(async move {
            out.write_all(format!("{}\n", options.argv.join(" ")).as_bytes()).await?;
            let mut buffer = [0; 64];
            while let length @ 1.. = command.read(&mut buffer).await? {
                out.write_all(&buffer[..length]).await?;
            }
            Ok::<_, io::Error>(())
        });
        let output = ReaderStream::new(output)
            .map(|bytes| Ok(ExecOutput { stream: OutputStream::Stdout, bytes: bytes.unwrap() }));
        Ok(ExecSession { id: ExecId("e".to_owned()), input: Box::pin(input), output: output.boxed() })
    }

    async fn exec_resize(&self, _: &ExecId, rows: u16, columns: u16) -> Result<(), EngineError> {
        self.resized.lock().unwrap().push((rows, columns));
        Ok(())
    }

    async fn exec_exit_code(&self, _: &ExecId) -> Result<Option<i64>, EngineError> {
        Ok(Some(7))
    }
}
