//! Cluster by itself.

use crate::{
    manifest::{
        node::at,
        report::{Scope, quote},
    },
    model::spec::ClusterSpec,
};

use super::{logging, volumes};

/// Checks a cluster.
pub fn cluster(spec: &ClusterSpec, scope: &mut Scope<'_>) {
    let loss = spec.host_loss;
    if loss.suspect_after.0 == 0 {
        scope
            .error(at!["hostLoss", "suspectAfter"], "out-of-range", "a host cannot be suspected after 0 s")
            .label("at least 1s");
    }
    if loss.suspect_after >= loss.lost_after {
        let message = format!(
            "a host is suspected after {} s and would count as lost after {} s already",
            loss.suspect_after.0, loss.lost_after.0
        );
        let path = if scope.node.find(at!["hostLoss", "lostAfter"]).is_some() {
            at!["hostLoss", "lostAfter"]
        } else {
            at!["hostLoss", "suspectAfter"]
        };
        scope.error(path, "host-loss", message).help("`lostAfter` must be longer than `suspectAfter`");
    }
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
