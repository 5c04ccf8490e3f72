//! Images on one host: what a reference stands for, and having it there.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    crash_point::{Point, reach},
    engine::{Engine, EngineError, PullProgress},
};
use roadstead_core::model::{
    action::ActionResult,
    image::{ImagePullPolicy, ImageRequest, ResolvedImage, repository},
    name::TaskId,
};

use super::{
    execute::failed_launch,
    pulls::{HostPulls, PullBoard},
};

/// The images of one host, for one task.
pub struct Images {
    engine: Arc<dyn Engine>,
    pulls: HostPulls,
    board: PullBoard,
    task: TaskId,
}

impl Images {
    /// What it pulls is seen on the board under the task.
    pub fn new(engine: Arc<dyn Engine>, pulls: HostPulls, board: PullBoard, task: TaskId) -> Self {
        Self { engine, pulls, board, task }
    }

    /// What each of the images stands for; `fresh` asks the registry also for what is there.
    pub async fn resolve(&self, requests: &[ImageRequest], fresh: bool) -> ActionResult {
        let mut images = BTreeMap::new();
        for request in requests {
            match self.resolve_one(request, fresh).await {
                Ok(image) => images.insert(request.reference.clone(), image),
                Err(error) => return failed_launch(&error, Vec::new()),
            };
        }
        ActionResult::Resolved { images }
    }

    async fn resolve_one(&self, request: &ImageRequest, fresh: bool) -> Result<ResolvedImage, EngineError> {
        let there = self.here(&request.reference).await?;
        match (request.policy, there) {
            (ImagePullPolicy::Never, Some(there)) => Ok(there),
            (ImagePullPolicy::Never, None) => Err(never(&request.reference)),
            (ImagePullPolicy::IfNotPresent, Some(there)) if !fresh || there.digest().is_none() => Ok(there),
            (ImagePullPolicy::Always, _) => self.ask_registry(&request.reference).await,
            (ImagePullPolicy::IfNotPresent, there) => match self.ask_registry(&request.reference).await {
                Err(error) if may_pass(&error) => match there {
                    Some(there) => Ok(there),
                    None => self.last(request).await?.ok_or(error),
                },
                other => other,
            },
        }
    }

    /// What the host has under a reference.
    async fn here(&self, reference: &str) -> Result<Option<ResolvedImage>, EngineError> {
        let facts = self.engine.image(reference).await?;
        Ok(facts.map(|facts| facts.digest.map_or(ResolvedImage::Local(facts.id), ResolvedImage::Digest)))
    }

    /// What a reference last stood for, if the host has that.
    async fn last(&self, request: &ImageRequest) -> Result<Option<ResolvedImage>, EngineError> {
        let Some(digest) = &request.last_digest else { return Ok(None) };
        let there = self.engine.image(&format!("{}@{digest}", repository(&request.reference))).await?;
        Ok(there.map(|_| ResolvedImage::Digest(digest.clone())))
    }

    async fn ask_registry(&self, reference: &str) -> Result<ResolvedImage, EngineError> {
        match self.engine.registry_digest(reference).await {
            Ok(digest) => return Ok(ResolvedImage::Digest(digest)),
            Err(
                error @ (EngineError::RateLimited { .. }
                | EngineError::Unreachable(_)
                | EngineError::OutcomeUnknown { .. }),
            ) => return Err(error),
            // Not every engine, nor every registry, knows the question.
            Err(error) => tracing::debug!(reference, %error, "the registry does not tell: the image is pulled"),
        }
        self.pull(reference, false).await?;
        self.here(reference).await?.ok_or_else(|| gone(reference))
    }

    /// Pulls an image when it is its turn; `unless_there` means that somebody may have done so meanwhile.
    pub(super) async fn pull(&self, reference: &str, unless_there: bool) -> Result<(), EngineError> {
        let posted = self.board.post(&self.task, reference);
        let _turn = self.pulls.turn(reference).await;
        if unless_there && self.engine.image(reference).await?.is_some() {
            return Ok(());
        }
        posted.begin();
        tracing::info!(image = %reference, "pulling");
        let progress = |step: PullProgress| posted.note(&step);
        reach(Point::BeforePull);
        let pulled = self.engine.pull(reference, &progress).await;
        // Also of one that failed the disk may be full by now.
        self.pulls.note_end();
        pulled?;
        reach(Point::Pulled);
        Ok(())
    }
}

/// The registry, or the way to it, may be better another time.
fn may_pass(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::RateLimited { .. } | EngineError::RegistryUnavailable { .. } | EngineError::OutcomeUnknown { .. }
    )
}

/// Nobody may pull it, and it is not there.
pub(super) fn never(reference: &str) -> EngineError {
    EngineError::ImageMissing {
        image: reference.to_owned(),
        message: "not on this host, and its imagePullPolicy is NEVER: load it there, or let it be pulled".to_owned(),
    }
}

fn gone(reference: &str) -> EngineError {
    EngineError::ImageMissing { image: reference.to_owned(), message: "was pulled and is gone again".to_owned() }
}
