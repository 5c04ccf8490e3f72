//! An archive on its way back into a volume: first into another one beside it, on the same host, from which it is read back and
//! compared. Only then does it take the volume's place, as a copy between two volumes of one host.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use tokio::sync::{mpsc, watch};

use super::{
    copy::{Copies, clear, in_use, lend, mount, read},
    handle::{CommandEnvelope, Snapshot, order},
};
use crate::engine::{Engine, EngineError};
use roadstead_core::{
    model::{
        container::VolumeConfig,
        hex::hex,
        time::Timestamp,
        volume::{VolumeClaim, VolumeId},
    },
    plan::absorb::{self, CopyDone, VolumeVerb},
    turn::{Command, CommandError},
};

const STAGED: &str = "rs-restore-";

/// The volume that an archive is put into first: another one each time, so that no late request for one meets the next.
fn staged_name(id: &VolumeId, now: Timestamp) -> String {
    format!("{STAGED}{}-{}", id.name, now.0)
}

/// Whether a volume that is ours is one of those.
pub(super) fn is_staged(name: &str) -> bool {
    name.starts_with(STAGED)
}

/// Why an archive does not take the place of a volume's data.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It could not be put beside the volume.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The controller does not want it.
    #[error(transparent)]
    Order(#[from] CommandError),
}

/// Puts an archive of the folder `volume/` beside a volume, compares what is there with what came, and orders that it takes the
/// place of the volume's data. Gives the order's answer.
///
/// # Errors
/// Why not. [`EngineError::Conflict`] while the volume is read or copied already.
pub async fn restore_archive(
    (snapshots, commands, copies): (&watch::Receiver<Arc<Snapshot>>, &mpsc::Sender<CommandEnvelope>, &Copies),
    engine: &dyn Engine,
    id: &VolumeId,
    image: &str,
    archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<(String, CopyDone), RestoreError> {
    // Until the order is answered: another archive would be put into the same volume beside it.
    let claimed = copies.claim(id).ok_or_else(|| in_use(id))?;
    let snapshot = Arc::clone(&snapshots.borrow());
    let record = snapshot.world.state.volumes.get(id);
    let known = record.ok_or_else(|| CommandError::NotFound(format!("no volume {id} has a place")))?;
    absorb::may_restore(&snapshot.world.state, known).map_err(CommandError::from)?;
    let from = staged_name(id, snapshot.world.now);
    let claim = VolumeClaim::Shared { cluster: id.cluster.clone(), moved_at: None };
    let labels = copies.key.sign_volume(&known.host, &claim.to_labels(&from, &BTreeMap::new()));
    let volume = VolumeConfig { name: from.clone(), labels, no_copy: true, ..VolumeConfig::default() };
    let done = stage(&claimed.bytes, engine, id, image, volume, archive).await?;
    let verb = VolumeVerb::Restore { from: from.clone() };
    match order(commands, Command::Volume { volume: id.clone(), verb }).await {
        Ok(message) => Ok((message, done)),
        // Without an answer it may be carried out yet, and then needs what was put there.
        Err(error @ CommandError::Unavailable(_)) => Err(error.into()),
        Err(refused) => {
            let _ = engine.remove_volume(&from).await;
            Err(refused.into())
        }
    }
}

/// Puts an archive beside a volume, and compares; leaves nothing where that fails.
async fn stage(
    bytes: &Arc<AtomicU64>,
    engine: &dyn Engine,
    id: &VolumeId,
    image: &str,
    volume: VolumeConfig,
    archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<CopyDone, EngineError> {
    let name = volume.name.clone();
    let staged = async {
        engine.ensure_image(image, &|_| {}).await?;
        clear(engine, id).await?;
        let lender = lend(engine, id, image, mount(volume, false)).await?;
        let sum = Arc::new(Mutex::new((Context::new(&SHA256), 0_u64)));
        let (noted, counted) = (Arc::clone(&sum), Arc::clone(bytes));
        let pieces = archive.inspect(move |piece| {
            if let Ok(piece) = piece {
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.0.update(piece);
                noted.1 += piece.len() as u64;
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            }
        });
        engine.upload(&lender, "/", Box::pin(pieces)).await?;
        let sent = {
            let sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            CopyDone { bytes: sum.1, sha256: hex(sum.0.clone().finish().as_ref()) }
        };
        match read(engine, &lender, bytes).await? {
            back if back == sent => Ok(sent),
            _ => Err(EngineError::Refused {
                status: 422,
                message: "what was read back is not what was sent: only what `roadstead volume backup` wrote is taken"
                    .to_owned(),
            }),
        }
    };
    let staged = staged.await;
    if let Err(error) = clear(engine, id).await {
        tracing::warn!(volume = %id, %error, "the container that lent the volume is left");
    }
    if staged.is_err() {
        let _ = engine.remove_volume(&name).await;
    }
    staged
}
