//! What an engine keeps on its disk, and how full that is. As last looked at; in memory only.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    container::ContainerView,
    image::{self, Familiar},
    time::Timestamp,
};

/// One look at an engine's disk and images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageSeen {
    /// When the look began, by our clock.
    pub started_at: Timestamp,
    /// Docker's data root, on the host.
    pub data_root: String,
    /// How full its file system is; `None` when the host does not tell.
    pub disk: Option<DiskUse>,
    /// Every image there is, by content id.
    pub images: BTreeMap<String, StoredImage>,
    /// When each image was last seen in use; of one that was not yet, when it was first seen at all.
    pub used_at: BTreeMap<String, Timestamp>,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes that are taken.
    pub used_bytes: u64,
    /// Bytes that may still be taken; what is kept for root is in neither.
    pub available_bytes: u64,
}

/// An image on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredImage {
    /// `repository:tag`.
    pub tags: Vec<String>,
    /// `repository@digest`.
    pub digests: Vec<String>,
    /// Bytes, layers that it shares with others included.
    pub size_bytes: u64,
}

impl DiskUse {
    /// Bytes that are or may be taken.
    pub fn total_bytes(self) -> u64 {
        self.used_bytes.saturating_add(self.available_bytes)
    }

    /// How full, as `df` prints it: rounded up.
    pub fn used_percent(self) -> u32 {
        let percent = (u128::from(self.used_bytes) * 100).div_ceil(u128::from(self.total_bytes()).max(1));
        u32::try_from(percent).unwrap_or(100)
    }

    /// Bytes to free until no more than so many percent are taken.
    pub fn excess_bytes(self, percent: u32) -> u64 {
        let allowed = u128::from(self.total_bytes()) * u128::from(percent) / 100;
        self.used_bytes.saturating_sub(u64::try_from(allowed).unwrap_or(u64::MAX))
    }
}

impl StoredImage {
    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.digests.iter().chain(&self.tags).map(String::as_str)
    }
}

impl StorageSeen {
    /// Ids of the images that these containers are of: by the id that they show, or by what they were made from.
    pub fn in_use<'c>(&self, containers: impl IntoIterator<Item = &'c ContainerView>) -> BTreeSet<&str> {
        let names: BTreeMap<Familiar<'_>, &str> = self
            .images
            .iter()
            .flat_map(|(id, image)| image.names().map(|name| (image::familiar(name), id.as_str())))
            .collect();
        let ids = containers.into_iter().flat_map(|container| {
            let by_id = self.images.get_key_value(&container.image_id).map(|(id, _)| id.as_str());
            let by_name = names.get(&image::familiar(&container.image)).copied();
            [by_id, by_name]
        });
        ids.flatten().collect()
    }

    /// Notes when each image was last in use: now, or as the look before knew.
    pub fn note_uses<'c>(&mut self, before: Option<&Self>, containers: impl IntoIterator<Item = &'c ContainerView>) {
        let in_use = self.in_use(containers);
        let before = |id: &str| before.and_then(|before| before.used_at.get(id)).filter(|_| !in_use.contains(id));
        let used_at = |id: &String| (id.clone(), before(id).copied().unwrap_or(self.started_at));
        self.used_at = self.images.keys().map(used_at).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_is_what_df_prints() {
        for (used, available, percent, excess) in
            [(0, 0, 0, 0), (1, 999, 1, 0), (80, 20, 80, 0), (91, 9, 91, 11), (100, 0, 100, 20)]
        {
            let disk = DiskUse { used_bytes: used, available_bytes: available };
            assert_eq!((disk.used_percent(), disk.excess_bytes(80)), (percent, excess), "{used} {available}");
        }
        let huge = DiskUse { used_bytes: u64::MAX, available_bytes: u64::MAX };
        assert_eq!(huge.used_percent(), 100);
    }
}
