//! [`DockerEngine`]: Docker Engine 20.10 and later, through bollard over a [`Transport`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error;
use bollard::models::{EventMessage, SystemInfo};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::call::{Call, Terms};
use super::details::{Details, Touched};
use super::error::clip;
use super::version::ApiVersion;
use super::wire::Wire;
use super::{
    Content, Created, Engine, EngineError, EngineEvent, EngineInfo, EngineStream, EventAction, ExecId, ExecOptions,
    ExecSession, ImageFacts, Inspected, LogLine, LogOptions, Progress, Verify, VerifyVolume, create, exec, images,
    logs, view,
};
use crate::host::{Lane, Transport};
use roadstead_core::model::container::{ContainerConfig, ContainerView};
use roadstead_core::model::name::RuntimeId;
use roadstead_core::model::observed::EngineIdentity;
use roadstead_core::model::storage::StoredImage;
use roadstead_core::model::time::Timestamp;
use roadstead_core::model::volume::VolumeClaim;

/// How long to wait and how much to take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For a question, and for a stream to begin.
    pub read: Duration,
    /// For a list with all its inspects.
    pub list: Duration,
    /// For each inspect of a list: without an answer by then, its details stay unknown.
    pub inspect: Duration,
    /// For all inspects of a list.
    pub inspects: Duration,
    /// For a create: Docker prepares the file system in it.
    pub create: Duration,
    /// For a start: about 250 ms of CPU each, so a queue of them takes a while.
    pub start: Duration,
    /// For a stop, beyond the container's own time to end.
    pub stop_margin: Duration,
    /// For a remove: it deletes files.
    pub remove: Duration,
    /// For a registry to answer the engine a question.
    pub registry: Duration,
    /// For a pull to show any progress.
    pub pull_progress: Duration,
    /// Size of one answer.
    pub answer_bytes: u64,
    /// Size of one item of a stream, unread bytes of the next included.
    pub item_bytes: u64,
    /// Containers on one host.
    pub containers: usize,
    /// Volumes of ours on one host.
    pub volumes: usize,
    /// Images on one host.
    pub images: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(10),
            list: Duration::from_secs(60),
            inspect: Duration::from_millis(2_500),
            inspects: Duration::from_secs(6),
            create: Duration::from_secs(30),
            start: Duration::from_secs(60),
            stop_margin: Duration::from_secs(15),
            remove: Duration::from_secs(30),
            registry: Duration::from_secs(30),
            pull_progress: Duration::from_secs(60),
            answer_bytes: 32 << 20,
            item_bytes: 4 << 20,
            containers: 10_000,
            volumes: 10_000,
            images: 10_000,
        }
    }
}

/// A Docker Engine on one host.
pub struct DockerEngine {
    wire: Arc<Wire>,
    pub(super) limits: Limits,
    /// Agreed with this engine; `None` until asked, and again after it refused the version.
    version: Mutex<Option<ApiVersion>>,
    details: tokio::sync::Mutex<Details>,
    touched: Arc<Mutex<Touched>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DockerEngine {
    /// The engine behind `socket` (absolute path on the host). Nothing is sent yet.
    pub fn new(transport: Arc<dyn Transport>, socket: PathBuf, limits: Limits) -> Self {
        Self {
            wire: Arc::new(Wire::new(transport, socket)),
            limits,
            version: Mutex::default(),
            details: tokio::sync::Mutex::default(),
            touched: Arc::default(),
        }
    }

    pub(super) fn question(&self) -> Terms {
        Terms { lane: Lane::Calls, deadline: self.limits.read, limit_bytes: self.limits.answer_bytes, changes: false }
    }

    pub(super) fn change(&self, deadline: Duration) -> Terms {
        Terms { deadline, changes: true, ..self.question() }
    }

    fn stream(&self, lane: Lane) -> Terms {
        Terms { lane, limit_bytes: self.limits.item_bytes, ..self.question() }
    }

    /// Asks `/version`, which needs no version, and agrees on one.
    async fn negotiate(&self) -> Result<(ApiVersion, String), EngineError> {
        let call = Call::new(&self.wire, None, "ask for the engine's version", self.question());
        let docker = call.docker()?;
        let answer = call.run(docker.version()).await?;
        let newest = answer.api_version.unwrap_or_default();
        let version = ApiVersion::negotiate(&newest, answer.min_api_version.as_deref())?;
        *lock(&self.version) = Some(version);
        Ok((version, clip(&answer.version.unwrap_or_default(), 64)))
    }

    pub(super) fn agreed_version(&self) -> Option<ApiVersion> {
        *lock(&self.version)
    }

    pub(super) async fn call(&self, what: impl Into<String>, terms: Terms) -> Result<Call, EngineError> {
        let known = *lock(&self.version);
        let version = match known {
            Some(version) => version,
            None => self.negotiate().await?.0,
        };
        Ok(Call::new(&self.wire, Some(version), what, terms))
    }

    /// Runs a call; an engine that was replaced by one of another version is asked anew next time.
    pub(super) async fn run<T>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, EngineError> {
        let result = call.run(work).await;
        if let Err(EngineError::UnsupportedVersion { .. }) = result {
            *lock(&self.version) = None;
        }
        result
    }

    async fn system_info(&self) -> Result<SystemInfo, EngineError> {
        let call = self.call("ask for the engine's setup", self.question()).await?;
        let docker = call.docker()?;
        self.run(&call, docker.info()).await
    }

    /// Who holds a name that we wanted.
    async fn name_taken(&self, name: &str) -> EngineError {
        let nobody = |_: &BTreeMap<String, String>| roadstead_core::model::ownership::Owner::Foreign;
        let holder = self.inspect(name, &nobody).await.ok().flatten();
        let (existing, labels) = holder.map(|holder| (holder.view.id, holder.labels)).unzip();
        EngineError::NameTaken { name: name.to_owned(), existing, labels: labels.unwrap_or_default() }
    }
}

#[async_trait]
impl Engine for DockerEngine {
    async fn identify(&self) -> Result<EngineIdentity, EngineError> {
        let (api_version, engine_version) = self.negotiate().await?;
        let info = self.system_info().await?;
        let architecture = info.architecture.unwrap_or_default();
        Ok(EngineIdentity {
            engine_id: clip(&info.id.unwrap_or_default(), 256),
            machine_id: None,
            engine_version,
            api_version: api_version.to_string(),
            architecture: match architecture.as_str() {
                "x86_64" | "amd64" => "X86_64".into(),
                "aarch64" | "arm64" => "ARM64".into(),
                other => clip(other, 64),
            },
            operating_system: clip(&info.operating_system.unwrap_or_default(), 256),
            cpus: info.ncpu.and_then(|cpus| u32::try_from(cpus).ok()).unwrap_or_default(),
            memory_mib: info.mem_total.and_then(|bytes| u32::try_from(bytes >> 20).ok()).unwrap_or_default(),
        })
    }

    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let info = self.system_info().await?;
        let warnings = info.warnings.unwrap_or_default();
        Ok(EngineInfo {
            data_root: clip(&info.docker_root_dir.unwrap_or_default(), 1024),
            storage_driver: clip(&info.driver.unwrap_or_default(), 64),
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            warnings: warnings.iter().take(64).map(|warning| clip(warning, 1024)).collect(),
        })
    }

    async fn ping(&self) -> Result<(), EngineError> {
        let call = Call::new(&self.wire, None, "ping", self.question());
        let docker = call.docker()?;
        call.run(docker.ping()).await.map(drop)
    }

    async fn list(&self, verify: Verify<'_>) -> Result<BTreeMap<RuntimeId, ContainerView>, EngineError> {
        let mut details = self.details.lock().await;
        let touched = std::mem::take(&mut *lock(&self.touched));
        let look = self.look(verify, &mut details, &touched);
        let result = match tokio::time::timeout(self.limits.list, look).await {
            Ok(result) => result,
            Err(_) => Err(EngineError::OutcomeUnknown {
                what: "list containers".into(),
                reason: format!("not complete in {:?}", self.limits.list),
            }),
        };
        if result.is_err() {
            lock(&self.touched).merge(touched);
        }
        result
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, EngineError> {
        images::check_reference(reference)?;
        let call = self.call(format!("inspect image {reference}"), self.question()).await?;
        let docker = call.docker()?;
        match self.run(&call, docker.inspect_image(reference)).await {
            Ok(answer) => {
                images::facts(reference, answer).map(Some).ok_or_else(|| call.malformed("an image without an id"))
            }
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    async fn images(&self) -> Result<BTreeMap<String, StoredImage>, EngineError> {
        self.stored_images().await
    }

    async fn remove_image(&self, id: &str) -> Result<(), EngineError> {
        self.remove_one_image(id).await
    }

    async fn registry_digest(&self, reference: &str) -> Result<String, EngineError> {
        images::check_reference(reference)?;
        let terms = Terms { deadline: self.limits.registry, ..self.question() };
        let call = self.call(format!("ask the registry of {reference}"), terms).await?.for_image(reference);
        let docker = call.docker()?;
        let answer = self.run(&call, docker.inspect_registry_image(&images::tagged(reference), None)).await?;
        images::checked_digest(answer.descriptor.digest.as_deref())
            .ok_or_else(|| call.malformed("an image without a digest"))
    }

    async fn pull(&self, reference: &str, progress: Progress<'_>) -> Result<(), EngineError> {
        images::check_reference(reference)?;
        let terms = Terms {
            changes: true,
            // Docker answers only once the registry has: that too is progress to wait for.
            deadline: self.limits.pull_progress,
            ..self.stream(Lane::Streams)
        };
        let call = self.call(format!("pull {reference}"), terms).await?;
        images::pull(call, reference, progress).await
    }

    async fn create(&self, config: &ContainerConfig) -> Result<Created, EngineError> {
        let body = create::body(config)?;
        for volume in create::needed_volumes(config) {
            self.volume_must_exist(&volume.name).await?;
        }
        let call = self.call(format!("create {}", config.name), self.change(self.limits.create)).await?;
        let docker = call.docker()?;
        let options = CreateContainerOptionsBuilder::new().name(&config.name).build();
        match self.run(&call, docker.create_container(Some(options), body)).await {
            Ok(answer) => Ok(Created {
                id: view::runtime_id(&answer.id).map_err(|reason| call.malformed(&reason))?,
                warnings: answer.warnings.iter().take(16).map(|warning| clip(warning, 1024)).collect(),
            }),
            Err(EngineError::Conflict { .. }) => Err(self.name_taken(&config.name).await),
            // A create names nothing else that can be missing.
            Err(EngineError::NotFound { .. }) => {
                Err(EngineError::ImageMissing { image: config.image.clone(), message: "not on this host".into() })
            }
            Err(other) => Err(other),
        }
    }

    async fn start(&self, id: &RuntimeId) -> Result<(), EngineError> {
        let call = self.call(format!("start {id:.12}"), self.change(self.limits.start)).await?;
        check_name(id.as_str())?;
        let docker = call.docker()?;
        self.run(&call, docker.start_container(id.as_str(), None::<StartContainerOptions>)).await
    }

    async fn stop(&self, id: &RuntimeId, timeout_s: u32) -> Result<(), EngineError> {
        let deadline = Duration::from_secs(timeout_s.into()) + self.limits.stop_margin;
        let call = self.call(format!("stop {id:.12}"), self.change(deadline)).await?;
        check_name(id.as_str())?;
        let docker = call.docker()?;
        let timeout_s = i32::try_from(timeout_s).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(timeout_s).build();
        match self.run(&call, docker.stop_container(id.as_str(), Some(options))).await {
            Err(EngineError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    async fn remove(&self, id: &RuntimeId, force: bool) -> Result<(), EngineError> {
        check_name(id.as_str())?;
        let volumes = self.task_volumes_of(id).await?;
        let call = self.call(format!("remove {id:.12}"), self.change(self.limits.remove)).await?;
        let docker = call.docker()?;
        let options = RemoveContainerOptionsBuilder::new().v(true).force(force).build();
        match self.run(&call, docker.remove_container(id.as_str(), Some(options))).await {
            Err(EngineError::NotFound { .. }) => Ok(()),
            Err(EngineError::Conflict { message }) if message.contains("already in progress") => Ok(()),
            other => other,
        }?;
        self.remove_volumes(&volumes).await;
        Ok(())
    }

    async fn volumes(&self, verify: VerifyVolume<'_>) -> Result<BTreeMap<String, VolumeClaim>, EngineError> {
        self.our_volumes(verify).await
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.remove_one_volume(name).await
    }

    async fn has_volume(&self, name: &str) -> Result<bool, EngineError> {
        self.volume_exists(name).await
    }

    async fn download(&self, id: &RuntimeId, path: &str) -> Result<EngineStream<Bytes>, EngineError> {
        self.archive_of(id, path).await
    }

    async fn upload(&self, id: &RuntimeId, path: &str, content: Content) -> Result<(), EngineError> {
        self.put_archive(id, path, content).await
    }

    async fn inspect(&self, id_or_name: &str, verify: Verify<'_>) -> Result<Option<Inspected>, EngineError> {
        check_name(id_or_name)?;
        let call = self.call(format!("inspect {id_or_name:.64}"), self.question()).await?;
        let docker = call.docker()?;
        let work = docker.inspect_container(id_or_name, None::<InspectContainerOptions>);
        let answer = match self.run(&call, work).await {
            Err(EngineError::NotFound { .. }) => return Ok(None),
            other => other?,
        };
        let inspected = view::from_inspect(answer, verify).map_err(|reason| call.malformed(&reason))?;
        // Docker also answers to the beginning of an id.
        let asked = inspected.view.id.as_str() == id_or_name || inspected.view.name == id_or_name;
        Ok(asked.then_some(inspected))
    }

    async fn events(&self, since: Option<Timestamp>) -> Result<EngineStream<EngineEvent>, EngineError> {
        let call = self.call("follow events", self.stream(Lane::Streams)).await?;
        let docker = call.docker()?;
        let mut options =
            EventsOptionsBuilder::new().filters(&std::collections::HashMap::from([("type", vec!["container"])]));
        if let Some(Timestamp(ms)) = since {
            options = options.since(&format!("{}.{:03}", ms / 1000, ms % 1000));
        }
        let messages = call.stream(docker.events(Some(options.build()))).await?;
        let touched = Arc::clone(&self.touched);
        let events = messages.try_filter_map(move |message| {
            let event = event(message);
            if let Some(event) = &event {
                lock(&touched).add(&event.id);
            }
            std::future::ready(Ok(event))
        });
        Ok(Box::pin(events))
    }

    async fn logs(&self, id: &RuntimeId, options: LogOptions) -> Result<EngineStream<LogLine>, EngineError> {
        check_name(id.as_str())?;
        let call = self.call(format!("logs of {id:.12}"), self.stream(Lane::Bulk)).await?;
        let docker = call.docker()?;
        let output = call.stream(docker.logs(id.as_str(), Some(logs::query(&options)))).await?;
        Ok(logs::lines(output))
    }

    async fn exec(&self, id: &RuntimeId, options: ExecOptions) -> Result<ExecSession, EngineError> {
        check_name(id.as_str())?;
        let call = self.call(format!("prepare a command in {id:.12}"), self.change(self.limits.read)).await?;
        let docker = call.docker()?;
        let created = self.run(&call, docker.create_exec(id.as_str(), exec::config(&options))).await?;
        let exec = ExecId(created.id);
        check_name(&exec.0)?;
        let terms = Terms { changes: true, ..self.stream(Lane::Streams) };
        let call = self.call(format!("run a command in {id:.12}"), terms).await?;
        exec::start(call, exec, options.tty).await
    }

    async fn exec_resize(&self, exec: &ExecId, rows: u16, columns: u16) -> Result<(), EngineError> {
        let call = self.call("resize a terminal", self.change(self.limits.read)).await?;
        let docker = call.docker()?;
        self.run(&call, docker.resize_exec(&exec.0, exec::size(rows, columns))).await
    }

    async fn exec_exit_code(&self, exec: &ExecId) -> Result<Option<i64>, EngineError> {
        let call = self.call("ask for an exit code", self.question()).await?;
        let docker = call.docker()?;
        let answer = self.run(&call, docker.inspect_exec(&exec.0)).await?;
        let running = answer.running.unwrap_or_default();
        Ok(answer.exit_code.filter(|_| !running))
    }
}

/// Docker's own rule for names. Ids and names become parts of request paths.
pub fn check_name(name: &str) -> Result<(), EngineError> {
    let sane = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if begins && (2..=255).contains(&name.len()) && name.bytes().all(sane) {
        return Ok(());
    }
    Err(EngineError::Refused { status: 400, message: format!("`{}` is no container name", clip(name, 80)) })
}

fn event(message: EventMessage) -> Option<EngineEvent> {
    let actor = message.actor?;
    let id = view::runtime_id(actor.id.as_deref()?).ok()?;
    let attributes = actor.attributes.unwrap_or_default();
    let action = message.action.unwrap_or_default();
    let action = match action.as_str() {
        "create" => EventAction::Create,
        "start" => EventAction::Start,
        "die" => EventAction::Die { exit_code: attributes.get("exitCode").and_then(|code| code.parse().ok()) },
        "oom" => EventAction::Oom,
        "kill" => EventAction::Kill,
        "stop" => EventAction::Stop,
        "destroy" => EventAction::Destroy,
        other if other.starts_with("health_status") => EventAction::Health,
        // What health checks do every few seconds tells nothing.
        other if other.starts_with("exec_") => return None,
        other => EventAction::Other(clip(other, 64)),
    };
    let at_ms = message.time_nano.map(|ns| ns / 1_000_000).or(message.time.map(|s| s.saturating_mul(1000)));
    Some(EngineEvent {
        id,
        name: clip(attributes.get("name").map_or("", String::as_str), 512),
        action,
        at: Timestamp(at_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default()),
    })
}
