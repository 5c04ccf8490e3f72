//! The copy of a volume from one host to another, or from beside it, through the controller: as a tar stream, read back and compared before
//! anybody relies on it. Containers that are made and never started lend the volumes to the engines' archive calls.
//!
//! Whatever happens, only the copy is written to, so a copy can be begun again at any time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, EngineStream, Inspected};
use roadstead_core::{
    model::{
        container::{ContainerConfig, MountConfig, MountSource, VolumeConfig},
        hex::hex,
        name::{HostName, RuntimeId},
        ownership::{FleetKey, Owner, PREFIX},
        spec::task_definition::NetworkMode,
        time::Timestamp,
        volume::{VolumeClaim, VolumeId},
    },
    plan::absorb::{CopyDone, CopyFailed},
};

/// Where a lending container has the volume; also the folder in every archive of one.
pub(super) const MOUNTED_AT: &str = "/volume";

/// Volumes that are read, copied or replaced just now, and how far that is.
#[derive(Clone, Debug)]
pub struct Copies {
    running: Arc<Mutex<BTreeMap<VolumeId, Arc<AtomicU64>>>>,
    /// Signs what is made for them.
    pub(super) key: FleetKey,
}

impl Copies {
    /// None.
    pub fn new(key: FleetKey) -> Self {
        Self { running: Arc::default(), key }
    }

    /// Whether there is none.
    pub(super) fn is_idle(&self) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Bytes that were copied so far, if it is copied just now.
    pub fn bytes(&self, id: &VolumeId) -> Option<u64> {
        let copies = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        copies.get(id).map(|bytes| bytes.load(Ordering::Relaxed))
    }

    /// Whoever reads, copies or replaces a volume does so alone: `None` while another does.
    pub(super) fn claim(&self, id: &VolumeId) -> Option<Claimed> {
        let mut copies = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if copies.contains_key(id) {
            return None;
        }
        let bytes = Arc::new(AtomicU64::new(0));
        copies.insert(id.clone(), Arc::clone(&bytes));
        Some(Claimed { copies: self.clone(), id: id.clone(), bytes })
    }
}

/// A volume that is read, copied or replaced just now: until this is dropped, also with a request whose client went away.
#[derive(Debug)]
pub(super) struct Claimed {
    copies: Copies,
    id: VolumeId,
    /// How far it is.
    pub(super) bytes: Arc<AtomicU64>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.copies.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// What a second reader of a volume is told.
pub(super) fn in_use(id: &VolumeId) -> EngineError {
    EngineError::Conflict { message: format!("volume {id} is being read or copied just now") }
}

/// One copy.
pub(super) struct Copy {
    pub(super) id: VolumeId,
    /// Which move.
    pub(super) since: Timestamp,
    /// The volume that is copied: itself, or one beside it that takes its place.
    pub(super) source: String,
    pub(super) from: Arc<dyn Engine>,
    pub(super) to: Arc<dyn Engine>,
    pub(super) to_host: HostName,
    /// Any that the engines have or can get; nothing of it is run.
    pub(super) image: String,
    pub(super) key: FleetKey,
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
}

fn for_good(reason: String) -> CopyFailed {
    CopyFailed { reason, for_good: true }
}

fn again(error: EngineError) -> CopyFailed {
    CopyFailed { reason: error.to_string(), for_good: false }
}

impl Copy {
    /// Makes it; leaves nothing behind but a copy that is the same.
    pub(super) async fn run(self) -> Result<CopyDone, CopyFailed> {
        let done = tokio::select! {
            biased;
            // What is to be restored must not be left half-way.
            () = self.stop.cancelled() => Err(CopyFailed {
                reason: "it was cancelled".to_owned(),
                for_good: self.source == self.id.name,
            }),
            done = self.make() => done,
        };
        let lent: &[(&Arc<dyn Engine>, bool)] = match done {
            // What was filled stays anchored for a while: see `leftovers`.
            Ok(_) => &[(&self.from, true)],
            Err(_) => &[(&self.from, true), (&self.from, false), (&self.to, true), (&self.to, false)],
        };
        for (engine, is_read) in lent {
            if let Err(error) = clear_one(&***engine, &self.id, *is_read).await {
                tracing::warn!(volume = %self.id, %error, "a container that lent the volume is left");
            }
        }
        if done.is_err() && self.is_own_copy().await.unwrap_or_default() {
            let _ = self.to.remove_volume(&self.id.name).await;
        }
        done
    }

    async fn make(&self) -> Result<CopyDone, CopyFailed> {
        let name = &self.id.name;
        for engine in [&self.from, &self.to] {
            clear(&**engine, &self.id).await.map_err(again)?;
            engine.ensure_image(&self.image, &|_| {}).await.map_err(again)?;
        }
        let replaces = self.source != *name;
        if replaces && !self.from.has_volume(&self.source).await.map_err(again)? {
            return Err(for_good(format!("volume {} is gone from {}", self.source, self.to_host)));
        }
        if self.to.has_volume(name).await.map_err(again)? {
            if !replaces && !self.is_own_copy().await.map_err(again)? {
                let host = &self.to_host;
                return Err(for_good(format!(
                    "host {host} has a volume {name} already: if nobody needs it, `docker volume rm {name}` there"
                )));
            }
            self.to.remove_volume(name).await.map_err(again)?;
        }
        let source = lend(&*self.from, &self.id, &self.image, source_volume(&self.source)).await.map_err(again)?;
        let target = lend(&*self.to, &self.id, &self.image, self.target_volume()).await.map_err(again)?;
        let sent = self.pour(&source, &target).await?;
        let back = read(&*self.to, &target, &self.bytes).await.map_err(again)?;
        match sent == back {
            true => Ok(sent),
            false => Err(CopyFailed {
                reason: format!("what was read back from {} is not what was sent there", self.to_host),
                for_good: false,
            }),
        }
    }

    /// From one volume into the other.
    async fn pour(&self, source: &RuntimeId, target: &RuntimeId) -> Result<CopyDone, CopyFailed> {
        let sum = Arc::new(Mutex::new((Context::new(&SHA256), 0_u64, None)));
        let pieces = self.from.download(source, MOUNTED_AT).await.map_err(again)?;
        let (noted, bytes) = (Arc::clone(&sum), Arc::clone(&self.bytes));
        let counted = pieces.map(move |piece| {
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            match piece {
                Ok(piece) => {
                    noted.0.update(&piece);
                    noted.1 += piece.len() as u64;
                    bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                    Ok(piece)
                }
                Err(error) => {
                    let told = std::io::Error::other(error.to_string());
                    noted.2 = Some(error);
                    Err(told)
                }
            }
        });
        let written = self.to.upload(target, "/", Box::pin(counted)).await;
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        // Why nothing more came says more than that nothing more came.
        if let Some(error) = sum.2.take() {
            return Err(again(error));
        }
        written.map_err(again)?;
        Ok(CopyDone { bytes: sum.1, sha256: hex(sum.0.clone().finish().as_ref()) })
    }

    /// Whether what is on the other host was made by this very move.
    async fn is_own_copy(&self) -> Result<bool, EngineError> {
        let verify = |name: &str, labels: &BTreeMap<String, String>| self.key.volume_of(&self.to_host, name, labels);
        let made = self.to.volumes(&verify).await?;
        Ok(made.get(&self.id.name) == Some(&self.claim()))
    }

    fn claim(&self) -> VolumeClaim {
        VolumeClaim::Shared { cluster: self.id.cluster.clone(), moved_at: Some(self.since) }
    }

    fn target_volume(&self) -> MountConfig {
        let name = &self.id.name;
        let labels = self.key.sign_volume(&self.to_host, &self.claim().to_labels(name, &BTreeMap::new()));
        mount(VolumeConfig { name: name.clone(), labels, no_copy: true, ..VolumeConfig::default() }, false)
    }
}

/// A volume's content as a tar stream, for as long as this lives.
pub struct Reading {
    /// Its pieces; an error is the last.
    pub pieces: EngineStream<Bytes>,
    engine: Arc<dyn Engine>,
    id: VolumeId,
    _claimed: Claimed,
}

/// Begins to read a volume. Who writes to it meanwhile makes it what a crash at that moment would leave.
///
/// # Errors
/// As the engine has them; [`EngineError::Conflict`] while the volume is read or copied already.
pub async fn read_volume(
    copies: &Copies,
    engine: Arc<dyn Engine>,
    id: &VolumeId,
    image: &str,
) -> Result<Reading, EngineError> {
    let claimed = copies.claim(id).ok_or_else(|| in_use(id))?;
    let opened = async {
        engine.ensure_image(image, &|_| {}).await?;
        // Nobody reads it: what is there was left by a controller that died.
        clear_one(&*engine, id, true).await?;
        let lender = lend(&*engine, id, image, source_volume(&id.name)).await?;
        engine.download(&lender, MOUNTED_AT).await
    };
    match opened.await {
        Ok(pieces) => Ok(Reading { pieces, engine, id: id.clone(), _claimed: claimed }),
        Err(error) => {
            let _ = clear_one(&*engine, id, true).await;
            Err(error)
        }
    }
}

impl Reading {
    /// Clears up after it.
    pub async fn end(self) {
        drop(self.pieces);
        if let Err(error) = clear_one(&*self.engine, &self.id, true).await {
            tracing::warn!(volume = %self.id, %error, "the container that lent the volume is left");
        }
    }
}

fn source_volume(name: &str) -> MountConfig {
    mount(VolumeConfig { name: name.to_owned(), must_exist: true, no_copy: true, ..VolumeConfig::default() }, true)
}

pub(super) fn mount(volume: VolumeConfig, read_only: bool) -> MountConfig {
    MountConfig { source: MountSource::Volume(volume), target: MOUNTED_AT.to_owned(), read_only }
}

/// Of a container that lends a volume to be read, or to be written to: one engine may have both.
fn lender_name(id: &VolumeId, is_read: bool) -> String {
    format!("rs-{}-{}", if is_read { "copy" } else { "fill" }, id.name)
}

fn lender_label() -> String {
    format!("{PREFIX}lends")
}

/// Whether a container may be called so because it lends a volume.
pub(super) fn is_lender(name: &str) -> bool {
    name.starts_with("rs-copy-") || filled(name).is_some()
}

/// The volume that is, or was, filled through a container that is called so.
pub(super) fn filled(name: &str) -> Option<&str> {
    name.strip_prefix("rs-fill-")
}

/// Whether it does.
pub(super) fn lends_something(found: &Inspected) -> bool {
    found.labels.contains_key(&lender_label())
}

/// Makes a container that has the volume, and is never started.
pub(super) async fn lend(
    engine: &dyn Engine,
    id: &VolumeId,
    image: &str,
    volume: MountConfig,
) -> Result<RuntimeId, EngineError> {
    let config = ContainerConfig {
        name: lender_name(id, volume.read_only),
        image: image.to_owned(),
        command: vec!["never-started".to_owned()],
        labels: BTreeMap::from([(lender_label(), id.to_string())]),
        network_mode: NetworkMode::None,
        mounts: vec![volume],
        ..ContainerConfig::default()
    };
    Ok(engine.create(&config).await?.id)
}

/// Removes what an earlier copy of the volume left.
pub(super) async fn clear(engine: &dyn Engine, id: &VolumeId) -> Result<(), EngineError> {
    clear_one(engine, id, true).await?;
    clear_one(engine, id, false).await
}

async fn clear_one(engine: &dyn Engine, id: &VolumeId, is_read: bool) -> Result<(), EngineError> {
    let nobody = |_: &BTreeMap<String, String>| Owner::Foreign;
    match engine.inspect(&lender_name(id, is_read), &nobody).await? {
        Some(found) if found.labels.get(&lender_label()) == Some(&id.to_string()) => {
            engine.remove(&found.view.id, false).await
        }
        Some(_) | None => Ok(()),
    }
}

/// What a lending container's volume reads as.
pub(super) async fn read(engine: &dyn Engine, lender: &RuntimeId, bytes: &AtomicU64) -> Result<CopyDone, EngineError> {
    let mut pieces = engine.download(lender, MOUNTED_AT).await?;
    let (mut context, mut length) = (Context::new(&SHA256), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        context.update(&piece);
        length += piece.len() as u64;
        bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
    Ok(CopyDone { bytes: length, sha256: hex(context.finish().as_ref()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_read_by_one_at_a_time_and_free_when_that_one_goes_away() {
        let copies = Copies::new(FleetKey::new([7; 32]));
        let id = |name: &str| VolumeId { cluster: "default".into(), name: name.to_owned() };
        let claimed = copies.claim(&id("data")).unwrap();
        claimed.bytes.fetch_add(5, Ordering::Relaxed);
        assert_eq!(copies.bytes(&id("data")), Some(5));
        assert!(copies.claim(&id("data")).is_none() && !copies.is_idle());
        assert!(copies.claim(&id("other")).is_some());
        drop(claimed);
        assert!(copies.is_idle() && copies.claim(&id("data")).is_some());
    }
}
