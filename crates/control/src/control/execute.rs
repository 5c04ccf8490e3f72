//! Carrying out one order on one host. No choice is made here; names are the lock.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    crash_point::{Point, reach},
    engine::{Engine, EngineError},
};
use roadstead_core::model::{
    action::{Action, ActionResult, Answer, LaunchStep, PrunedImage, StopStep, Verb},
    container::{ContainerConfig, ContainerState, MountSource},
    image::{ImagePullPolicy, has_digest},
    name::{ContainerName, HostName, RuntimeId},
    ownership::{Claim, FleetKey},
};

use super::{
    images::{self, Images},
    pulls::{HostPulls, PullBoard},
    seams::Clock,
};

/// Starts at once on one host: starting is bound by its CPUs, and more at once end no sooner. At least and at most.
const LAUNCHES_PER_HOST: (usize, usize) = (2, 8);
/// Stops at once on one host: they mostly wait for a container to end, each up to its own `stopTimeout`.
const STOPS_PER_HOST: usize = 64;
/// Removals at once on one host.
const REMOVALS_PER_HOST: usize = 16;

/// What one host may be asked at once.
#[derive(Clone)]
pub(super) struct HostSlots {
    launches: Arc<Semaphore>,
    stops: Arc<Semaphore>,
    removals: Arc<Semaphore>,
    pulls: HostPulls,
}

impl HostSlots {
    /// For a host with this many logical CPUs.
    ///
    /// `storage_hint` asks for a look at its images.
    pub(super) fn new(cpus: u32, storage_hint: Arc<Notify>) -> Self {
        let (least, most) = LAUNCHES_PER_HOST;
        let launches = usize::try_from(cpus).unwrap_or(most).clamp(least, most);
        Self {
            launches: Arc::new(Semaphore::new(launches)),
            stops: Arc::new(Semaphore::new(STOPS_PER_HOST)),
            removals: Arc::new(Semaphore::new(REMOVALS_PER_HOST)),
            pulls: HostPulls::new(storage_hint),
        }
    }
}

/// Everything an order needs.
pub(super) struct Execution {
    pub(super) action: Action,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) slots: HostSlots,
    pub(super) board: PullBoard,
    pub(super) key: FleetKey,
    pub(super) clock: Clock,
    /// Of a launch: its order does not stand any more, and no further step is taken.
    pub(super) overtaken: CancellationToken,
}

impl Execution {
    /// Carries it out; the engine's own deadlines bound each step.
    pub(super) async fn run(self) -> Answer {
        let verb = self.action.verb.name();
        let span = tracing::info_span!("order", ?verb, task = %self.action.task, service = %self.action.service, host = %self.action.host);
        async {
            let result = match &self.action.verb {
                Verb::Resolve { images, fresh } => self.images().resolve(images, *fresh).await,
                Verb::Launch { containers } => {
                    let slot = self.slots.launches.acquire().await.ok();
                    self.launch(containers, slot).await
                }
                Verb::Stop { containers } | Verb::Tidy { containers } => {
                    let _slot = self.slots.stops.acquire().await;
                    self.stop(containers).await
                }
                Verb::Remove { containers } => {
                    let _slot = self.slots.removals.acquire().await;
                    self.remove(containers).await
                }
                Verb::Sweep { volumes } => {
                    let _slot = self.slots.removals.acquire().await;
                    self.sweep(volumes).await
                }
                Verb::Prune { images } => {
                    let _slot = self.slots.removals.acquire().await;
                    self.prune(images).await
                }
            };
            match &result {
                ActionResult::Done { .. } | ActionResult::Resolved { .. } | ActionResult::Pruned { .. } => {
                    tracing::debug!("done");
                }
                ActionResult::Partly { reason, .. } => tracing::warn!(%reason, "done in part"),
                ActionResult::Failed { reason, .. } => tracing::warn!(%reason, "failed"),
                ActionResult::Removed { reason, .. } => tracing::warn!(%reason, "somebody removed it"),
                ActionResult::NotSent { reason } => tracing::warn!(%reason, "not sent"),
                ActionResult::Unknown { reason } => tracing::warn!(%reason, "outcome unknown"),
            }
            Answer { key: self.action.key(), host: self.action.host.clone(), at: self.clock.now(), result }
        }
        .instrument(span)
        .await
    }

    fn images(&self) -> Images {
        let (pulls, board) = (self.slots.pulls.clone(), self.board.clone());
        Images::new(Arc::clone(&self.engine), pulls, board, self.action.task.clone())
    }

    /// Starts go on while an image is pulled: `slot` is given back for that long.
    async fn launch<'s>(&'s self, steps: &[LaunchStep], mut slot: Option<SemaphorePermit<'s>>) -> ActionResult {
        let mut containers: Vec<(ContainerName, RuntimeId)> = Vec::new();
        let mut lacking: Vec<String> = Vec::new();
        for step in steps {
            match self.launch_one(step, &mut containers, &mut slot).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(
                    ActionResult::Failed { reason, containers: made }
                    | ActionResult::Removed { reason, containers: made },
                ) if !step.needed => {
                    lacking.push(format!("{}: {reason}", step.container));
                    containers = made;
                }
                Err(end) => return end,
            }
        }
        match lacking.is_empty() {
            true => ActionResult::Done { containers },
            false => ActionResult::Partly { reason: lacking.join("; "), containers },
        }
    }

    /// One step of a launch; false when it was overtaken, and how the launch ends where it failed.
    async fn launch_one<'s>(
        &'s self,
        step: &LaunchStep,
        containers: &mut Vec<(ContainerName, RuntimeId)>,
        slot: &mut Option<SemaphorePermit<'s>>,
    ) -> Result<bool, ActionResult> {
        if self.is_overtaken() {
            return Ok(false);
        }
        let id = match &step.runtime_id {
            Some(id) => id.clone(),
            None => match self.create(step, slot).await {
                Ok(Some(id)) => id,
                Ok(None) => return Ok(false),
                Err(error) => return Err(failed_launch(&error, std::mem::take(containers))),
            },
        };
        containers.push((step.container.clone(), id.clone()));
        if !step.start {
            return Ok(true);
        }
        if self.is_overtaken() {
            return Ok(false);
        }
        reach(Point::BeforeStart);
        match self.engine.start(&id).await {
            Ok(()) => {
                reach(Point::Started);
                Ok(true)
            }
            Err(error @ EngineError::NotFound { .. }) => {
                Err(ActionResult::Removed { reason: error.to_string(), containers: std::mem::take(containers) })
            }
            Err(error) => Err(failed_launch(&error, std::mem::take(containers))),
        }
    }

    /// Whether to leave a launch where it is: what exists of it is told, as at its end.
    fn is_overtaken(&self) -> bool {
        let is_overtaken = self.overtaken.is_cancelled();
        if is_overtaken {
            tracing::info!("its task is not wanted any more: the launch goes no further");
        }
        is_overtaken
    }

    /// Creates it, or adopts what bears its name and is it; `None` when the launch was overtaken meanwhile.
    async fn create<'s>(
        &'s self,
        step: &LaunchStep,
        slot: &mut Option<SemaphorePermit<'s>>,
    ) -> Result<Option<RuntimeId>, EngineError> {
        let labels = self.key.sign(&self.action.host, &step.config.name, &step.config.labels);
        let mut config = ContainerConfig { labels, ..step.config.clone() };
        for mount in &mut config.mounts {
            if let MountSource::Volume(volume) = &mut mount.source {
                volume.labels = self.key.sign_volume(&self.action.host, &volume.labels);
            }
        }
        reach(Point::BeforeCreate);
        if step.pull == ImagePullPolicy::Always && !has_digest(&config.image) {
            self.fetch(&config.image, false, slot).await?;
            if self.is_overtaken() {
                return Ok(None);
            }
        }
        let first = match self.engine.create(&config).await {
            Err(EngineError::ImageMissing { image, .. }) if step.pull == ImagePullPolicy::Never => {
                Err(images::never(&image))
            }
            Err(EngineError::ImageMissing { .. }) => {
                self.fetch(&config.image, true, slot).await?;
                if self.is_overtaken() {
                    return Ok(None);
                }
                self.engine.create(&config).await
            }
            other => other,
        };
        match first {
            Ok(created) => {
                reach(Point::Created);
                for warning in created.warnings {
                    tracing::warn!(%warning, "the engine warns");
                }
                Ok(Some(created.id))
            }
            Err(EngineError::NameTaken { name, .. }) => self.adopt(step, name).await.map(Some),
            Err(error) => Err(error),
        }
    }

    async fn fetch<'s>(
        &'s self,
        image: &str,
        unless_there: bool,
        slot: &mut Option<SemaphorePermit<'s>>,
    ) -> Result<(), EngineError> {
        drop(slot.take());
        let images = self.images();
        tokio::select! {
            pulled = images.pull(image, unless_there) => pulled?,
            // Nobody waits for it any more; an engine gives a pull up when its client goes.
            () = self.overtaken.cancelled() => {}
        }
        *slot = self.slots.launches.acquire().await.ok();
        Ok(())
    }

    async fn adopt(&self, step: &LaunchStep, name: String) -> Result<RuntimeId, EngineError> {
        reach(Point::NameTaken);
        let verify = |labels: &BTreeMap<String, String>| self.key.owner_of(&self.action.host, labels);
        let found = self.engine.inspect(&name, &verify).await?;
        reach(Point::NameInspected);
        let wanted = Claim::from_labels(&step.config.labels);
        match found {
            Some(found) if found.view.owner.ours().is_some() && found.view.owner.ours() == wanted.as_ref() => {
                if found.view.state == ContainerState::Removing {
                    return Err(EngineError::OutcomeUnknown {
                        what: format!("create {name}"),
                        reason: "it is just being removed".to_owned(),
                    });
                }
                tracing::info!(%name, "it exists already and is ours: adopted");
                Ok(found.view.id)
            }
            Some(found) => Err(EngineError::NameTaken { name, existing: Some(found.view.id), labels: found.labels }),
            // Gone between the refusal and the look: the same order again will do.
            None => Err(EngineError::OutcomeUnknown {
                what: format!("create {name}"),
                reason: "the name was taken a moment ago".to_owned(),
            }),
        }
    }

    async fn stop(&self, steps: &[StopStep]) -> ActionResult {
        for wave in steps.chunk_by(|one, next| one.wave == next.wave) {
            let stops = wave.iter().map(|step| async {
                reach(Point::BeforeStop);
                self.engine.stop(&step.runtime_id, step.timeout_s).await?;
                reach(Point::Stopped);
                Ok::<(), EngineError>(())
            });
            if let Some(error) = join_all(stops).await.into_iter().find_map(Result::err) {
                return failed_end(&error);
            }
        }
        let removed: Vec<RuntimeId> =
            steps.iter().filter(|step| step.remove).map(|step| step.runtime_id.clone()).collect();
        self.remove(&removed).await
    }

    async fn remove(&self, ids: &[RuntimeId]) -> ActionResult {
        for id in ids {
            reach(Point::BeforeRemove);
            // Never by force: whatever came to life in between is stopped properly first.
            if let Err(error) = self.engine.remove(id, false).await {
                return failed_end(&error);
            }
            reach(Point::Removed);
        }
        ActionResult::Done { containers: Vec::new() }
    }

    async fn sweep(&self, volumes: &[String]) -> ActionResult {
        for volume in volumes {
            if let Err(error) = self.engine.remove_volume(volume).await {
                return failed_end(&error);
            }
        }
        ActionResult::Done { containers: Vec::new() }
    }

    async fn prune(&self, images: &[PrunedImage]) -> ActionResult {
        let (mut removed, mut in_use) = (Vec::new(), Vec::new());
        for image in images {
            match self.engine.remove_image(&image.id).await {
                Ok(()) => removed.push(image.clone()),
                Err(EngineError::Conflict { message }) => {
                    tracing::info!(id = %image.id, reason = %message, "this image stays");
                    in_use.push(image.id.clone());
                }
                Err(error) if removed.is_empty() => return failed_end(&error),
                Err(error) => {
                    // The next look shows what is left.
                    tracing::warn!(id = %image.id, %error, "this image and those after it stay for now");
                    break;
                }
            }
        }
        ActionResult::Pruned { images: removed, in_use, why: self.action.reason.clone() }
    }
}

pub(super) fn failed_launch(error: &EngineError, containers: Vec<(ContainerName, RuntimeId)>) -> ActionResult {
    let reason = error.to_string();
    match error {
        // The registry has had enough of the host for now: that is nobody's failure, and passes.
        EngineError::Unreachable(_) | EngineError::RateLimited { .. } if containers.is_empty() => {
            ActionResult::NotSent { reason }
        }
        EngineError::Unreachable(_)
        | EngineError::RateLimited { .. }
        | EngineError::OutcomeUnknown { .. }
        | EngineError::Malformed { .. }
        | EngineError::UnsupportedVersion { .. }
        | EngineError::Conflict { .. } => ActionResult::Unknown { reason },
        EngineError::NameTaken { name, .. } => ActionResult::Failed {
            reason: format!("the name {name} is taken on the host by a container that is not ours; it was left alone"),
            containers,
        },
        EngineError::PortTaken { .. }
        | EngineError::ImageMissing { .. }
        | EngineError::RegistryUnavailable { .. }
        | EngineError::Unauthorised { .. }
        | EngineError::OutOfSpace { .. }
        | EngineError::NotFound { .. }
        | EngineError::Refused { .. }
        | EngineError::ServerError { .. } => ActionResult::Failed { reason, containers },
    }
}

fn failed_end(error: &EngineError) -> ActionResult {
    let reason = error.to_string();
    if error.outcome_unknown() {
        ActionResult::Unknown { reason }
    } else if matches!(error, EngineError::Unreachable(_)) {
        ActionResult::NotSent { reason }
    } else {
        ActionResult::Failed { reason, containers: Vec::new() }
    }
}

/// An answer for an order whose host is not connected.
pub(super) fn not_connected(action: &Action, clock: &Clock) -> Answer {
    Answer {
        key: action.key(),
        host: HostName::clone(&action.host),
        at: clock.now(),
        result: ActionResult::NotSent { reason: format!("host {} is not connected", action.host) },
    }
}

/// An answer for an order whose execution died of a defect: nobody knows what was sent.
pub(super) fn died(action: &Action, clock: &Clock, error: &str) -> Answer {
    tracing::error!(task = %action.task, host = %action.host, error, "carrying out an order died");
    Answer {
        key: action.key(),
        host: action.host.clone(),
        at: clock.now(),
        result: ActionResult::Unknown { reason: error.to_owned() },
    }
}

#[cfg(test)]
mod tests;
