//! Cluster by itself.

use crate::{
    manifest::{
        node::at,
        report::{Scope, quote},
    },
    model::{
        quantity::Seconds,
        spec::{ClusterSpec, cluster::ImageCleanup},
    },
};

use super::{awsvpc, logging, volumes};

/// Checks when images are removed.
fn image_cleanup(cleanup: ImageCleanup, scope: &mut Scope<'_>) {
    let (high, low) = (cleanup.high_threshold_percent, cleanup.low_threshold_percent);
    if !(1..=100).contains(&high) {
        let message = format!("{high} % is no threshold for a disk");
        scope.error(at!["imageCleanup", "highThresholdPercent"], "out-of-range", message).label("from 1 to 100");
    } else if low >= high {
        let message = format!("images would be removed above {high} % until the disk is {low} % full");
        let path = if scope.node.find(at!["imageCleanup", "lowThresholdPercent"]).is_some() {
            at!["imageCleanup", "lowThresholdPercent"]
        } else {
            at!["imageCleanup", "highThresholdPercent"]
        };
        let help = "`lowThresholdPercent` must be less than `highThresholdPercent`";
        scope.error(path, "image-cleanup", message).help(help);
    }
    if cleanup.keep_revisions == 0 {
        let message = "the images of the newest revision cannot be given up";
        scope.error(at!["imageCleanup", "keepRevisions"], "out-of-range", message).label("at least 1");
    }
}

/// Of a cluster or a service: when a silent host is suspected, and when it counts as lost.
pub(super) fn host_loss(suspect_after: Option<Seconds>, lost_after: Option<Seconds>, scope: &mut Scope<'_>) {
    let none = Some(Seconds(0));
    if suspect_after == none {
        scope
            .error(at!["hostLoss", "suspectAfter"], "out-of-range", "a host cannot be suspected after 0 s")
            .label("at least 1s");
    }
    if suspect_after.is_none() && lost_after == none {
        scope
            .error(at!["hostLoss", "lostAfter"], "out-of-range", "a host cannot count as lost after 0 s")
            .label("at least 1s");
    }
    if let (Some(suspect_after), Some(lost_after)) = (suspect_after, lost_after)
        && suspect_after >= lost_after
    {
        let message = format!(
            "a host is suspected after {} s and would count as lost after {} s already",
            suspect_after.0, lost_after.0
        );
        let path = if scope.node.find(at!["hostLoss", "lostAfter"]).is_some() {
            at!["hostLoss", "lostAfter"]
        } else {
            at!["hostLoss", "suspectAfter"]
        };
        scope.error(path, "host-loss", message).help("`lostAfter` must be longer than `suspectAfter`");
    }
}

/// Checks a cluster.
pub fn cluster(spec: &ClusterSpec, scope: &mut Scope<'_>) {
    host_loss(Some(spec.host_loss.suspect_after), Some(spec.host_loss.lost_after), scope);
    image_cleanup(spec.image_cleanup, scope);
    awsvpc::cluster(spec, scope);
    if let Some(log) = &spec.logging {
        logging::cluster(log, at!["logging"], scope);
    }
    for (name, place) in &spec.file_systems {
        let (server, folder) = place.split_once(":/").unwrap_or((place, ""));
        if !volumes::is_server(server) || folder.contains(|c: char| c == ',' || c.is_control()) {
            scope
                .error(
                    at!["fileSystems", name.as_str()],
                    "file-system",
                    format!("{} is no NFS server and folder", quote(place)),
                )
                .help("such as `nas.example.com` or `nas.example.com:/export`");
        }
    }
}
