//! Volumes of a machine: their labels, and what is in them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Machine, missing, out_of_space};
use roadstead_control::engine::{EngineError, VerifyVolume, check_name};
use roadstead_core::model::{
    container::{ContainerConfig, MountConfig, MountSource, VolumeConfig},
    name::RuntimeId,
    volume::VolumeClaim,
};

/// What a volume holds: of which write each of its pieces is. All of one, unless it is torn; none in a new volume.
pub(crate) type Pieces = Vec<u64>;

/// A write leaves so many pieces.
const PIECES: usize = 3;
/// What an archive begins with.
const FOLDER: &[u8] = b"volume/";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FakeVolume {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) content: Pieces,
    /// The container for which it was made.
    pub(crate) made_for: String,
}

/// What the nth write leaves.
pub(crate) fn written(number: u64) -> Pieces {
    vec![number; PIECES]
}

/// A volume's content as the pieces of an archive.
pub(crate) fn archive(content: &[u64]) -> Vec<Bytes> {
    let head = std::iter::once(Bytes::from_static(FOLDER));
    head.chain(content.iter().map(|number| Bytes::copy_from_slice(&number.to_be_bytes()))).collect()
}

/// What was in a volume that was read as this; `None` of what is no archive.
pub(crate) fn unpacked(archive: &[Bytes]) -> Option<Pieces> {
    let (head, pieces) = archive.split_first()?;
    let numbers = pieces.iter().map(|piece| Some(u64::from_be_bytes(piece.as_ref().try_into().ok()?)));
    if head.as_ref() == FOLDER { numbers.collect() } else { None }
}

pub(super) fn mounted(config: &ContainerConfig) -> impl Iterator<Item = &VolumeConfig> {
    mounts(config).map(|(volume, _)| volume)
}

fn mounts(config: &ContainerConfig) -> impl Iterator<Item = (&VolumeConfig, &MountConfig)> {
    config.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Volume(volume) => Some((volume, mount)),
        MountSource::Host(_) => None,
    })
}

/// The volumes that a container of this config may write to.
pub(crate) fn writable(config: &ContainerConfig) -> impl Iterator<Item = &str> {
    mounts(config).filter(|(_, mount)| !mount.read_only).map(|(volume, _)| volume.name.as_str())
}

impl Machine {
    /// What a new container mounts and is not there is made.
    pub(super) fn make_volumes(&mut self, config: &ContainerConfig) -> Result<(), EngineError> {
        if let Some(missing) =
            mounted(config).find(|volume| volume.must_exist && !self.volumes.contains_key(&volume.name))
        {
            let message = format!("there is no volume `{}` on this host", missing.name);
            return Err(EngineError::Refused { status: 404, message });
        }
        for volume in mounted(config) {
            let made_for = config.name.to_string();
            let new = || FakeVolume { labels: volume.labels.clone(), content: Vec::new(), made_for };
            self.volumes.entry(volume.name.clone()).or_insert_with(new);
        }
        Ok(())
    }

    /// A task's volumes stay when its last container goes: what a real engine is asked for with that is left to the sweep.
    pub(super) fn remove_volume(&mut self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let user = self.containers.iter().find(|(_, c)| mounted(&c.config).any(|volume| volume.name == name));
        if let Some((id, _)) = user {
            return Err(EngineError::Conflict { message: format!("remove {name}: volume is in use - [{id}]") });
        }
        self.volumes.remove(name);
        Ok(())
    }

    pub(crate) fn our_volumes(&self, verify: VerifyVolume<'_>) -> BTreeMap<String, VolumeClaim> {
        let claimed = self.volumes.iter().map(|(name, volume)| (name, verify(name, &volume.labels)));
        claimed.filter_map(|(name, claim)| Some((name.clone(), claim?))).collect()
    }

    /// A task wrote.
    pub(crate) fn write(&mut self, volume: &str, number: u64) {
        self.volumes.entry(volume.to_owned()).or_default().content = written(number);
    }

    /// One piece of the archive of what a container has mounted there, as it is now; `None` after the last.
    pub(crate) fn archive_piece(&self, id: &RuntimeId, path: &str, index: usize) -> Result<Option<Bytes>, EngineError> {
        let config = self.config(id).ok_or_else(|| missing(id))?;
        let found = mounts(config).find(|(_, mount)| mount.target == path);
        let volume = found.and_then(|(volume, _)| self.volumes.get(&volume.name)).ok_or_else(|| missing(id))?;
        Ok(archive(&volume.content).get(index).cloned())
    }

    /// One piece of an archive is unpacked over whatever a container has mounted for writing.
    pub(super) fn unpack(&mut self, id: &RuntimeId, index: usize, piece: &Bytes) -> Result<(), EngineError> {
        let config = &self.containers.get(id).ok_or_else(|| missing(id))?.config;
        let name = writable(config).next().ok_or_else(|| missing(id))?;
        if self.disk_full {
            return Err(out_of_space());
        }
        let volume = self.volumes.get_mut(name).ok_or_else(|| missing(id))?;
        let number = piece.as_ref().try_into().ok().map(u64::from_be_bytes);
        if let Some((number, at)) = number.zip(index.checked_sub(1)) {
            volume.content.resize(volume.content.len().max(at + 1), 0);
            volume.content[at] = number;
        }
        Ok(())
    }
}
