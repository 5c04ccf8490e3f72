//! The Docker verbs we need, by host. [`Engine`] is the seam; [`DockerEngine`] speaks to a real
//! engine through a [`Transport`](crate::host::Transport), `sim::FakeEngine` behaves like one.
//!
//! Rules that every implementation keeps, and that one conformance suite checks on both:
//! every call ends within its deadline; a failure says whether the engine may still act on it;
//! a list is complete or an error; verbs can be repeated without harm.

mod archive;
mod call;
mod create;
mod details;
mod docker;
mod error;
mod exec;
mod images;
mod logs;
mod look;
mod networks;
mod version;
mod view;
mod volumes;
mod wire;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use tokio::io::AsyncWrite;

pub use archive::Content;
pub use create::{ALL_SYSTEM_PATHS, body as create_body};
pub use docker::check_name;
pub use docker::{DockerEngine, Limits};
pub use error::EngineError;
pub use networks::{NetworkThere, VerifyNetwork};

use roadstead_core::model::container::{ContainerConfig, ContainerView};
use roadstead_core::model::name::RuntimeId;
use roadstead_core::model::observed::EngineIdentity;
use roadstead_core::model::ownership::Owner;
use roadstead_core::model::storage::StoredImage;
use roadstead_core::model::time::Timestamp;
use roadstead_core::model::volume::VolumeClaim;

/// Tells whose a container with these labels is. Only labels of ours are shown to it.
pub type Verify<'a> = &'a (dyn Fn(&BTreeMap<String, String>) -> Owner + Sync);

/// Tells what our labels say of the volume of this name, if they are ours.
pub type VerifyVolume<'a> = &'a (dyn Fn(&str, &BTreeMap<String, String>) -> Option<VolumeClaim> + Sync);

/// Hears about each step of a pull.
pub type Progress<'a> = &'a (dyn Fn(PullProgress) + Sync);

/// A stream that ends with its first error. Dropping it ends the work behind it.
pub type EngineStream<T> = Pin<Box<dyn Stream<Item = Result<T, EngineError>> + Send>>;

/// One host's container engine.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Who the engine says it is. `machine_id` is not the engine's to tell and stays `None`.
    async fn identify(&self) -> Result<EngineIdentity, EngineError>;

    /// How the engine is set up, for a person who checks a host.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Whether the engine answers at all.
    async fn ping(&self) -> Result<(), EngineError>;

    /// Every container there is, of any owner. Details (exit code, starts, restarts, memory kills)
    /// are filled in for ours only. At rest this is one request.
    async fn list(&self, verify: Verify<'_>) -> Result<BTreeMap<RuntimeId, ContainerView>, EngineError>;

    /// What the host has under this reference; `None` when nothing.
    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, EngineError>;

    /// Every image there is, by content id: all of them or an error. One request.
    async fn images(&self) -> Result<BTreeMap<String, StoredImage>, EngineError>;

    /// Removes the image of this content id with its names. Fine when it is gone. One that a container has, or that has names
    /// in several repositories, is a [`EngineError::Conflict`].
    async fn remove_image(&self, id: &str) -> Result<(), EngineError>;

    /// The digest that a registry has under this reference. Nothing is pulled.
    async fn registry_digest(&self, reference: &str) -> Result<String, EngineError>;

    /// Pulls an image. Gives up after a time without progress, however long the whole takes.
    async fn pull(&self, reference: &str, progress: Progress<'_>) -> Result<(), EngineError>;

    /// Pulls an image unless the host has it.
    async fn ensure_image(&self, reference: &str, progress: Progress<'_>) -> Result<(), EngineError> {
        match self.image(reference).await? {
            Some(_) => Ok(()),
            None => self.pull(reference, progress).await,
        }
    }

    /// Makes a container and does not start it. Its name is the lock.
    async fn create(&self, config: &ContainerConfig) -> Result<Created, EngineError>;

    /// Starts it. Fine when it runs already. A failed start leaves the container behind.
    async fn start(&self, id: &RuntimeId) -> Result<(), EngineError>;

    /// SIGTERM, and SIGKILL after `timeout_s` seconds. Fine when it does not run or is gone.
    async fn stop(&self, id: &RuntimeId, timeout_s: u32) -> Result<(), EngineError>;

    /// Removes it with its anonymous volumes. Fine when it is gone or going. A running one is a
    /// [`EngineError::Conflict`] unless `force`d.
    async fn remove(&self, id: &RuntimeId, force: bool) -> Result<(), EngineError>;

    /// Every volume that is ours, by name: all of them or an error. One request.
    async fn volumes(&self, verify: VerifyVolume<'_>) -> Result<BTreeMap<String, VolumeClaim>, EngineError>;

    /// Removes a volume with its data. Fine when it is gone. One that a container has is a [`EngineError::Conflict`].
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;

    /// Whether there is a volume of this name, whoever made it.
    async fn has_volume(&self, name: &str) -> Result<bool, EngineError>;

    /// A file or folder of a container as a tar stream, its own name being the first; the container need not run.
    async fn download(&self, id: &RuntimeId, path: &str) -> Result<EngineStream<Bytes>, EngineError>;

    /// Unpacks a tar stream in a folder of a container that need not run. It fails when nothing moves for a while.
    async fn upload(&self, id: &RuntimeId, path: &str, content: Content) -> Result<(), EngineError>;

    /// One container by id or exact name; `None` when there is none.
    async fn inspect(&self, id_or_name: &str, verify: Verify<'_>) -> Result<Option<Inspected>, EngineError>;

    /// What happens to containers, from `since` (the engine's memory of the past is short) or from now
    /// on: nothing after the return is missed while the stream lives. A hint; lists are the truth.
    async fn events(&self, since: Option<Timestamp>) -> Result<EngineStream<EngineEvent>, EngineError>;

    /// What a container printed, line by line.
    async fn logs(&self, id: &RuntimeId, options: LogOptions) -> Result<EngineStream<LogLine>, EngineError>;

    /// Runs a command inside a running container.
    async fn exec(&self, id: &RuntimeId, options: ExecOptions) -> Result<ExecSession, EngineError>;

    /// Tells a command's terminal its size.
    async fn exec_resize(&self, exec: &ExecId, rows: u16, columns: u16) -> Result<(), EngineError>;

    /// The exit code of a command; `None` while it runs.
    async fn exec_exit_code(&self, exec: &ExecId) -> Result<Option<i64>, EngineError>;
}

/// How an engine is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineInfo {
    /// Where it keeps images and containers, on the host.
    pub data_root: String,
    /// overlay2, vfs …
    pub storage_driver: String,
    /// Whether containers outlive a stop of the engine.
    pub live_restore: bool,
    /// The engine's own complaints.
    pub warnings: Vec<String>,
}

/// A container that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: RuntimeId,
    /// What the engine did not like, yet did.
    pub warnings: Vec<String>,
}

/// One container, closely looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// As in a list, with details whoever owns it.
    pub view: ContainerView,
    /// Its labels of ours, the digest included.
    pub labels: BTreeMap<String, String>,
    /// Where its host reaches it; `None` without a network of its own.
    pub address: Option<IpAddr>,
}

/// An image on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its content id.
    pub id: String,
    /// `sha256:…` in the repository that it was asked for by; `None` when it never was in a registry under that name.
    pub digest: Option<String>,
}

/// A step of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer, or empty for the image as a whole.
    pub layer: String,
    /// `Downloading`, `Extracting` …
    pub status: String,
    /// Bytes done, of layers in work.
    pub current_bytes: Option<u64>,
    /// Bytes in all, where known.
    pub total_bytes: Option<u64>,
}

/// Something happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// The container.
    pub id: RuntimeId,
    /// Its name then.
    pub name: String,
    /// What happened.
    pub action: EventAction,
    /// When, by the engine's clock.
    pub at: Timestamp,
}

/// What happened; Docker's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventAction {
    /// Made.
    Create,
    /// Its process was started.
    Start,
    /// Its process ended.
    Die {
        /// Exit code, where given.
        exit_code: Option<i64>,
    },
    /// The kernel killed a process of it for memory, not always the main one.
    Oom,
    /// A signal was sent to it.
    Kill,
    /// It ended because somebody stopped it.
    Stop,
    /// Removed.
    Destroy,
    /// Its health changed.
    Health,
    /// Anything else, in Docker's word.
    Other(String),
}

/// What to read of a container's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what it will print.
    pub follow: bool,
    /// Only lines from here on; whole seconds, rounded down.
    pub since: Option<Timestamp>,
    /// Only so many lines of the past.
    pub tail: Option<u32>,
}

/// Which of its two outputs a process wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputStream {
    /// Standard output; with a terminal, everything.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was written to.
    pub stream: OutputStream,
    /// When, by the engine's clock.
    pub at: Option<Timestamp>,
    /// The line without its end; what exceeds 64 KiB comes as further lines.
    pub bytes: Bytes,
}

/// A command to run inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and arguments; no shell.
    pub argv: Vec<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Give it a standard input.
    pub stdin: bool,
    /// More variables.
    pub environment: BTreeMap<String, String>,
    /// `user[:group]`, else the container's.
    pub user: Option<String>,
    /// Else the container's.
    pub working_directory: Option<String>,
}

/// Names a command that was started by [`Engine::exec`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExecId(pub String);

/// A piece of a command's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Where it was written to.
    pub stream: OutputStream,
    /// Raw bytes.
    pub bytes: Bytes,
}

/// A running command.
pub struct ExecSession {
    /// For its size and exit code.
    pub id: ExecId,
    /// Its standard input; shut down to end it.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// Its output, until it ends.
    pub output: EngineStream<ExecOutput>,
}
