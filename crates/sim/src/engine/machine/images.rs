//! Images of a fake host, and what its registry has.

use std::collections::BTreeMap;

use roadstead_control::engine::{EngineError, ImageFacts};
use roadstead_core::model::{image, storage::StoredImage};

use super::{Machine, out_of_space};

/// The size of every image: a hundredth of the disk.
const IMAGE_BYTES: u64 = 1 << 10;

/// What a registry answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registry {
    /// It has the image.
    Has,
    /// It does not know the image.
    Missing,
    /// It wants other credentials.
    Unauthorised,
    /// It has had enough.
    RateLimited,
    /// It does not answer.
    Away,
}

impl Machine {
    pub(super) fn pull(&mut self, image: &str) -> Result<(), EngineError> {
        let digest = self.registry_digest(image)?;
        if self.disk_full {
            return Err(out_of_space());
        }
        self.images.insert(image.to_owned(), Some(digest));
        Ok(())
    }

    /// What its registry has under a reference, by tag or by digest.
    pub(crate) fn registry_digest(&self, image: &str) -> Result<String, EngineError> {
        let asked = image::digest(image);
        let of_digest = |(reference, answer): (&String, &Registry)| {
            let is_it = image::same_repository(reference, image) && self.pushed_digest(reference) == asked?;
            is_it.then_some(*answer)
        };
        let answer = match asked {
            None => self.registry.get(image).copied(),
            Some(_) => self.registry.iter().find_map(of_digest),
        };
        let said = |words: &str| (image.to_owned(), words.to_owned());
        Err(match answer.unwrap_or(Registry::Missing) {
            Registry::Has => return Ok(asked.map_or_else(|| self.pushed_digest(image), str::to_owned)),
            Registry::Missing => {
                let (image, message) = said("manifest unknown");
                EngineError::ImageMissing { image, message }
            }
            Registry::Unauthorised => {
                let (image, message) = said("unauthorized: authentication required");
                EngineError::Unauthorised { image, message }
            }
            Registry::RateLimited => {
                let (image, message) = said("toomanyrequests: too many pulls");
                EngineError::RateLimited { image, message }
            }
            Registry::Away => {
                let (image, message) = said("dial tcp 192.0.2.1:443: i/o timeout");
                EngineError::RegistryUnavailable { image, message }
            }
        })
    }

    /// The digest under which a reference was last pushed.
    fn pushed_digest(&self, reference: &str) -> String {
        content_id(&format!("{reference} push {}", self.pushes.get(reference).copied().unwrap_or_default()))
    }

    /// Somebody pushes other content under a reference.
    pub(crate) fn push_anew(&mut self, reference: &str) {
        *self.pushes.entry(reference.to_owned()).or_default() += 1;
    }

    /// Puts an image there as if it had been pulled.
    pub(crate) fn have_pulled(&mut self, reference: &str) {
        self.registry.insert(reference.to_owned(), Registry::Has);
        self.images.insert(reference.to_owned(), Some(self.pushed_digest(reference)));
    }

    /// By tag, by digest or by id.
    pub(crate) fn image(&self, image: &str) -> Option<ImageFacts> {
        let facts = |reference: &str, digest: &Option<String>| {
            let id = content_id(digest.as_deref().unwrap_or(reference));
            ImageFacts { id, digest: digest.clone() }
        };
        if let Some(digest) = self.images.get(image) {
            return Some(facts(image, digest));
        }
        if let Some(asked) = image::digest(image) {
            let mut known = self.images.iter().filter(|(_, digest)| digest.as_deref() == Some(asked));
            let found = known.find(|(reference, _)| image::same_repository(reference, image));
            return found.map(|(reference, digest)| facts(reference, digest));
        }
        self.images.iter().map(|(reference, digest)| facts(reference, digest)).find(|facts| facts.id == image)
    }

    /// All of them by content id.
    pub(crate) fn stored_images(&self) -> BTreeMap<String, StoredImage> {
        let mut stored: BTreeMap<String, StoredImage> = BTreeMap::new();
        for (reference, digest) in &self.images {
            let id = content_id(digest.as_deref().unwrap_or(reference));
            let image = stored.entry(id).or_default();
            image.size_bytes = IMAGE_BYTES;
            if image::digest(reference).is_none() {
                image.tags.push(reference.clone());
            }
            let pinned = digest.iter().map(|digest| format!("{}@{digest}", image::repository(reference)));
            image.digests.extend(pinned);
            image.digests.dedup();
        }
        stored
    }

    pub(super) fn remove_image(&mut self, id: &str) -> Result<(), EngineError> {
        let is_id = id.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64);
        if !is_id {
            return Err(EngineError::Refused { status: 400, message: format!("`{id}` is no image id") });
        }
        if let Some((user, _)) = self.containers.iter().find(|(_, container)| container.image_id == id) {
            let message = format!("conflict: unable to delete {id:.19} - container {user:.12} is using it");
            return Err(EngineError::Conflict { message });
        }
        self.images.retain(|reference, digest| content_id(digest.as_deref().unwrap_or(reference)) != id);
        Ok(())
    }

    /// As `df -Pk` tells it.
    pub(crate) fn disk(&self) -> String {
        let used = if self.disk_full { 100 } else { (30 + self.stored_images().len()).min(99) };
        let (head, left) = ("Filesystem 1024-blocks Used Available Capacity Mounted on", 100 - used);
        format!("{head}\n/dev/vda1 100 {used} {left} {used}% /\n")
    }

    pub(super) fn image_id(&self, image: &str) -> Option<String> {
        self.image(image).map(|facts| facts.id)
    }
}

/// The same reference has the same content everywhere in a fake fleet (FNV-1a).
fn content_id(image: &str) -> String {
    if image.starts_with("sha256:") {
        return image.to_owned();
    }
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("sha256:{:064x}", image.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
}
