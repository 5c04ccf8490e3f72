//! Content of containers as tar streams, in and out. The container need not run: its volumes are mounted for the while.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::call::Terms;
use super::docker::check_name;
use super::{DockerEngine, EngineError, EngineStream};
use crate::host::Lane;
use roadstead_core::model::name::RuntimeId;

/// What is put into a container, piece by piece; an error ends the request without an answer.
pub type Content = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// No archive takes longer than this.
const LONGEST: Duration = Duration::from_secs(12 * 60 * 60);
/// Nothing may stand still for longer than this.
const STALL: Duration = Duration::from_secs(60);
/// How often that is looked at.
const STALL_LOOK: Duration = Duration::from_secs(5);

impl DockerEngine {
    pub(super) async fn archive_of(&self, id: &RuntimeId, path: &str) -> Result<EngineStream<Bytes>, EngineError> {
        check_name(id.as_str())?;
        let call = self.call(format!("read {path} of {id:.12}"), self.archive_terms(false)).await?;
        let docker = call.docker()?;
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let pieces = call.stream(Box::pin(docker.download_from_container(id.as_str(), Some(options)))).await?;
        let what = format!("read {path} of {id:.12}");
        let bounded = futures_util::stream::unfold(Some(pieces), move |pieces| {
            let what = what.clone();
            async move {
                let mut pieces = pieces?;
                match tokio::time::timeout(STALL, pieces.next()).await {
                    Ok(Some(Ok(piece))) => Some((Ok(piece), Some(pieces))),
                    Ok(Some(Err(error))) => Some((Err(error), None)),
                    Ok(None) => None,
                    Err(_) => {
                        let reason = format!("nothing came for {STALL:?}");
                        Some((Err(EngineError::OutcomeUnknown { what, reason }), None))
                    }
                }
            }
        });
        Ok(Box::pin(bounded))
    }

    pub(super) async fn put_archive(&self, id: &RuntimeId, path: &str, content: Content) -> Result<(), EngineError> {
        check_name(id.as_str())?;
        let what = format!("write {path} of {id:.12}");
        let call = self.call(what.clone(), self.archive_terms(true)).await?;
        let docker = call.docker()?;
        let options = UploadToContainerOptionsBuilder::new().path(path).build();
        let (counted, moved) = counted(content);
        let upload = docker.upload_to_container(id.as_str(), Some(options), bollard::body_try_stream(counted));
        tokio::select! {
            biased;
            done = self.run(&call, upload) => done,
            reason = stands_still(&moved) => Err(EngineError::OutcomeUnknown { what, reason }),
        }
    }

    pub(super) fn archive_terms(&self, changes: bool) -> Terms {
        Terms {
            lane: Lane::Bulk,
            deadline: if changes { LONGEST } else { self.limits.read },
            limit_bytes: self.limits.item_bytes,
            changes,
        }
    }
}

/// The same content, and how many pieces of it were taken.
pub(super) fn counted(content: Content) -> (Content, Arc<AtomicU64>) {
    let moved = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&moved);
    let counted = content.inspect(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    (Box::pin(counted), moved)
}

/// Resolves, in words, when the count did not move for a while.
pub(super) async fn stands_still(moved: &AtomicU64) -> String {
    let (mut last, mut since) = (0, tokio::time::Instant::now());
    loop {
        tokio::time::sleep(STALL_LOOK).await;
        let now = moved.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, tokio::time::Instant::now());
        } else if since.elapsed() >= STALL {
            return format!("it took nothing for {STALL:?}");
        }
    }
}
