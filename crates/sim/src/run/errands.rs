//! What people ask of a controller that takes longer than an order: a volume is read, or an archive put back, over the same
//! functions as the API's. It ends with the controller that it was asked of.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use crate::{
    engine::machine::{Pieces, archive, unpacked},
    fleet::FakeFleet,
};
use roadstead_control::{
    control::{
        Copies,
        handle::{CommandEnvelope, Snapshot},
        image_for, read_volume, restore_archive,
    },
    engine::Engine,
};
use roadstead_core::model::{name::HostName, spec::cluster::DEFAULT_CLUSTER, volume::VolumeId};

/// Between two pieces of an archive that a person sends.
const PIECE: Duration = Duration::from_millis(100);

/// One of them.
#[derive(Clone, Debug)]
pub(crate) enum Errand {
    Backup {
        volume: String,
        /// After so long the person goes away.
        gone_after_ms: Option<u64>,
    },
    Restore {
        volume: String,
        /// After so many pieces the archive ends with an error.
        cut: Option<usize>,
    },
}

/// What the API has of a controller.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) commands: mpsc::Sender<CommandEnvelope>,
    pub(super) engines: watch::Receiver<Arc<std::collections::BTreeMap<HostName, Arc<dyn Engine>>>>,
    pub(super) copies: Copies,
}

pub(super) async fn run(fleet: FakeFleet, desk: Desk, errand: Errand) {
    match errand {
        Errand::Backup { volume, gone_after_ms: None } => backup(&fleet, &desk, volume).await,
        Errand::Backup { volume, gone_after_ms: Some(after_ms) } => {
            let _ = tokio::time::timeout(Duration::from_millis(after_ms), backup(&fleet, &desk, volume)).await;
        }
        Errand::Restore { volume, cut } => restore(&fleet, &desk, volume, cut).await,
    }
}

impl Desk {
    /// The engine that has a volume, and an image to lend it by.
    fn reach(&self, id: &VolumeId) -> Option<(HostName, Arc<dyn Engine>, String)> {
        let snapshot = Arc::clone(&self.snapshots.borrow());
        let record = snapshot.world.state.volumes.get(id).filter(|record| record.moving.is_none())?;
        let engine = self.engines.borrow().get(&record.host).map(Arc::clone)?;
        Some((record.host.clone(), engine, image_for(&snapshot.world, record)?))
    }
}

async fn backup(fleet: &FakeFleet, desk: &Desk, volume: String) {
    let id = VolumeId { cluster: DEFAULT_CLUSTER.into(), name: volume };
    let Some((host, engine, image)) = desk.reach(&id) else { return };
    let Ok(mut reading) = read_volume(&desk.copies, engine, &id, &image).await else { return };
    let before = fleet.ground(|ground| ground.content(&host, &id.name));
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut is_whole = true;
    while let Some(piece) = reading.pieces.next().await {
        match piece {
            Ok(piece) => pieces.push(piece),
            Err(_) => is_whole = false,
        }
    }
    reading.end().await;
    if is_whole && let Some(content) = unpacked(&pieces) {
        fleet.ground(|ground| ground.keep_backup(&host, &id.name, before, content));
    }
}

async fn restore(fleet: &FakeFleet, desk: &Desk, volume: String, cut: Option<usize>) {
    let id = VolumeId { cluster: DEFAULT_CLUSTER.into(), name: volume };
    let Some((_, engine, image)) = desk.reach(&id) else { return };
    let content = fleet.ground(|ground| {
        let content = ground.archive_of(&id.name);
        ground.checks.data.sends(&id.name, &content);
        content
    });
    let desk = (&desk.snapshots, &desk.commands, &desk.copies);
    if restore_archive(desk, &*engine, &id, &image, told(&content, cut)).await.is_ok() {
        fleet.ground(|ground| ground.count("archive put back"));
    }
}

fn told(content: &Pieces, cut: Option<usize>) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
    let mut pieces: Vec<io::Result<Bytes>> = archive(content).into_iter().map(Ok).collect();
    if let Some(cut) = cut {
        pieces.truncate(cut);
        pieces.push(Err(io::Error::other("the person went away")));
    }
    stream::iter(pieces).then(|piece| async {
        sleep(PIECE).await;
        piece
    })
}
