//! An archive on its way back into a volume: first into another one beside it, on the same host, from which it is read back and
//! compared. Only then does it take the volume's place, as a copy between two volumes of one host.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::copy::{Copies, clear, lend, mount, read};
use crate::engine::{Engine, EngineError};
use roadstead_core::{
    model::{container::VolumeConfig, hex::hex, volume::VolumeId},
    plan::absorb::CopyDone,
};

/// The volume that an archive is put into first. It bears no label of ours, so that nobody takes it for a task's.
pub fn staged_name(id: &VolumeId) -> String {
    format!("rs-restore-{}", id.name)
}

/// Puts an archive of the folder `volume/` beside a volume, and compares what is there with what came.
///
/// # Errors
/// As the engine has them, and then nothing is left; [`EngineError::Conflict`] while the volume is read or copied already,
/// [`EngineError::Refused`] when what was read back is something else.
pub async fn stage_archive(
    copies: &Copies,
    engine: &dyn Engine,
    id: &VolumeId,
    image: &str,
    archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<CopyDone, EngineError> {
    if copies.bytes(id).is_some() {
        let message = format!("volume {} is being read or copied just now", id.name);
        return Err(EngineError::Conflict { message });
    }
    let bytes = copies.begin(id);
    let staged = async {
        engine.ensure_image(image, &|_| {}).await?;
        clear(engine, id).await?;
        engine.remove_volume(&staged_name(id)).await?;
        let volume = VolumeConfig { name: staged_name(id), no_copy: true, ..VolumeConfig::default() };
        let lender = lend(engine, id, image, mount(volume, false)).await?;
        let sum = Arc::new(Mutex::new((Context::new(&SHA256), 0_u64)));
        let (noted, counted) = (Arc::clone(&sum), Arc::clone(&bytes));
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
        match read(engine, &lender, &bytes).await? {
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
        let _ = engine.remove_volume(&staged_name(id)).await;
    }
    copies.end(id);
    staged
}
