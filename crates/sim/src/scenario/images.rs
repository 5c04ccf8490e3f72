//! Some seeds have images removed from the hosts, whose disks are always a little too full.

use crate::rng::Rng;
use roadstead_core::model::{
    desired::{Desired, Manifest},
    quantity::Seconds,
    spec::{
        ClusterSpec,
        cluster::{DEFAULT_CLUSTER, ImageCleanup},
    },
};

/// Sets the draws of a seed apart from those for images, so that these do not change the others.
const APART: u64 = 0x0069_6d61_6765_7300;

pub(super) fn draw(seed: u64, desired: &mut Desired) {
    let mut rng = Rng::new(seed ^ APART);
    if !rng.chance(300) {
        return;
    }
    // A host begins with ten images, at one percent each, and 40 % in all.
    let image_cleanup = ImageCleanup {
        high_threshold_percent: rng.within(35, 39) as u32,
        low_threshold_percent: rng.within(30, 34) as u32,
        minimum_age: Seconds(rng.within(0, 20) as u32),
        keep_revisions: rng.within(1, 3) as u32,
    };
    let spec = ClusterSpec { image_cleanup, ..ClusterSpec::default() };
    let file = "cluster.yaml".to_owned();
    let manifest = Manifest { labels: Default::default(), annotations: Default::default(), file, line: 1, spec };
    desired.clusters.insert(DEFAULT_CLUSTER.into(), manifest);
}
