//! Clusters.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use roadstead_control::control::handle::Snapshot;
use roadstead_core::model::{name::ClusterName, spec::cluster::DEFAULT_CLUSTER, task::LastStatus};

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Name.
    pub name: String,
    /// Always ACTIVE.
    pub status: String,
    /// Hosts in it.
    pub registered_hosts_count: u32,
    /// Services in it.
    pub active_services_count: u32,
    /// Tasks that are RUNNING.
    pub running_tasks_count: u32,
    /// Tasks on their way there.
    pub pending_tasks_count: u32,
    /// A host silent this long is SUSPECT, in seconds.
    pub suspect_after_s: u32,
    /// A host silent this long is LOST, in seconds.
    pub lost_after_s: u32,
}

/// All clusters: `default`, and the declared ones.
pub fn list(snapshot: &Snapshot) -> Vec<ClusterView> {
    let desired = &snapshot.world.state.desired;
    let default = ClusterName::from(DEFAULT_CLUSTER);
    let names: BTreeSet<&ClusterName> = desired.clusters.keys().chain([&default]).collect();
    names.into_iter().map(|name| view(snapshot, name)).collect()
}

fn view(snapshot: &Snapshot, name: &ClusterName) -> ClusterView {
    let state = &snapshot.world.state;
    let loss = state.desired.cluster(name).host_loss;
    let mut view = ClusterView {
        name: name.to_string(),
        status: "ACTIVE".to_owned(),
        registered_hosts_count: 0,
        active_services_count: 0,
        running_tasks_count: 0,
        pending_tasks_count: 0,
        suspect_after_s: loss.suspect_after.0,
        lost_after_s: loss.lost_after.0,
    };
    for host in state.desired.hosts.values() {
        view.registered_hosts_count += u32::from(host.spec.cluster == *name);
    }
    for service in state.desired.services.values() {
        view.active_services_count += u32::from(service.spec.cluster == *name);
    }
    for task in state.tasks.values().filter(|task| task.cluster == *name) {
        match task.last_status {
            LastStatus::Running => view.running_tasks_count += 1,
            LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => view.pending_tasks_count += 1,
            LastStatus::Deactivating | LastStatus::Stopping | LastStatus::Deprovisioning | LastStatus::Stopped => {}
        }
    }
    view
}
