//! Hosts as `DescribeContainerInstances` prints them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::zone_of;
use roadstead_control::control::handle::Snapshot;
use roadstead_core::{
    model::{
        name::HostName,
        network::SubnetRecord,
        observed::HostContact,
        report::Waiting,
        spec::cluster::DEFAULT_CLUSTER,
        storage::{DiskUse, StorageSeen},
        task::LastStatus,
        world::{HostStatus, Subject},
    },
    plan,
};

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// Name.
    pub name: String,
    /// As declared; none when it is no longer declared.
    pub address: Option<String>,
    /// Cluster.
    pub cluster: String,
    /// Zone, when it has one.
    pub availability_zone: Option<String>,
    /// ACTIVE, CORDONED, DRAINING, SUSPECT, LOST, UNTRUSTED.
    #[schema(value_type = String)]
    pub status: HostStatus,
    /// Whether it answered when it was last asked.
    pub connected: bool,
    /// Why it is not ACTIVE, not connected, or what it lacks.
    pub reason: Option<String>,
    /// Docker's version, once seen.
    pub engine_version: Option<String>,
    /// X86_64, ARM64, once seen.
    pub architecture: Option<String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// What tasks may have.
    pub registered_resources: Resources,
    /// What is left of it.
    pub remaining_resources: Resources,
    /// How full its disk is, and how many images are on it, once looked at.
    pub disk: Option<DiskView>,
    /// Its part of the task network, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<HostNetworkView>,
    /// Tasks that are RUNNING.
    pub running_tasks_count: u32,
    /// Tasks on their way there.
    pub pending_tasks_count: u32,
}

/// A host's part of the task network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostNetworkView {
    /// READY, NOT_READY.
    #[schema(value_type = String)]
    pub status: NetworkStatus,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its slice of each subnet.
    pub slices: BTreeMap<String, String>,
}

/// Whether a host's part of the task network is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NetworkStatus {
    /// Tasks may start there.
    Ready,
    /// Those that have an address of their own wait.
    NotReady,
}

/// The disk under Docker's data root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskView {
    /// Docker's data root.
    pub data_root: String,
    /// How full its file system is, as `df` says; none when the host does not tell.
    pub used_percent: Option<u32>,
    /// MiB that are taken.
    pub used_mib: Option<u64>,
    /// MiB that are or may be taken.
    pub size_mib: Option<u64>,
    /// Images on the host.
    pub images_count: usize,
    /// Why it is not known how full it is; then no image is removed there.
    pub reason: Option<String>,
}

/// CPU and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Units; 1024 are one vCPU.
    pub cpu: u32,
    /// MiB.
    pub memory: u32,
}

/// All hosts: declared ones, and those that still hold something.
pub fn list(snapshot: &Snapshot, cluster: Option<&str>) -> Vec<HostView> {
    let state = &snapshot.world.state;
    let names: BTreeSet<&HostName> = state.desired.hosts.keys().chain(state.hosts.keys()).collect();
    let views = names.into_iter().filter_map(|name| view(snapshot, name));
    views.filter(|view| cluster.is_none_or(|cluster| cluster == view.cluster)).collect()
}

/// One host; `None` when nothing is known of it.
pub fn view(snapshot: &Snapshot, name: &HostName) -> Option<HostView> {
    let state = &snapshot.world.state;
    let manifest = state.desired.hosts.get(name);
    let record = state.hosts.get(name);
    if manifest.is_none() && record.is_none() {
        return None;
    }
    let contact = snapshot.world.contacts.get(name);
    let status = plan::host_status(&snapshot.world, name);
    let seen = state.observations.get(name).map(|seen| &seen.identity);
    let identity = seen.or_else(|| record.and_then(|record| record.identity.as_ref()));
    let reserved = manifest.map(|manifest| manifest.spec.reserved).unwrap_or_default();
    let registered = identity.map(|identity| Resources {
        cpu: identity.cpus.saturating_mul(1024).saturating_sub(reserved.cpu.0),
        memory: identity.memory_mib.saturating_sub(reserved.memory.0),
    });
    let registered = registered.unwrap_or_default();
    let mut remaining = registered;
    let (mut running, mut pending) = (0, 0);
    for task in state.tasks.values().filter(|task| task.host == *name) {
        if task.last_status != LastStatus::Stopped {
            remaining.cpu = remaining.cpu.saturating_sub(task.cpu);
            remaining.memory = remaining.memory.saturating_sub(task.memory);
        }
        match task.last_status {
            LastStatus::Running => running += 1,
            LastStatus::Provisioning | LastStatus::Pending | LastStatus::Activating => pending += 1,
            LastStatus::Deactivating | LastStatus::Stopping | LastStatus::Deprovisioning | LastStatus::Stopped => {}
        }
    }
    Some(HostView {
        name: name.to_string(),
        address: manifest.map(|manifest| manifest.spec.address.clone()),
        cluster: manifest.map_or_else(|| DEFAULT_CLUSTER.to_owned(), |manifest| manifest.spec.cluster.to_string()),
        availability_zone: zone_of(state, name),
        status,
        connected: contact.is_some_and(is_connected),
        reason: reason(status, contact, manifest.is_some()).or_else(|| waits(snapshot, name)),
        engine_version: identity.map(|identity| identity.engine_version.clone()),
        architecture: identity.map(|identity| identity.architecture.clone()),
        labels: manifest.map(|manifest| manifest.labels.clone()).unwrap_or_default(),
        registered_resources: registered,
        remaining_resources: remaining,
        disk: snapshot.world.storage.get(name).map(disk),
        network: network(snapshot, name),
        running_tasks_count: running,
        pending_tasks_count: pending,
    })
}

/// What the planner says that the host waits for.
fn waits(snapshot: &Snapshot, name: &HostName) -> Option<String> {
    let is_of = |waiting: &&Waiting| matches!(&waiting.subject, Subject::Host(host) if host == name);
    snapshot.report.waiting.iter().find(is_of).map(|waiting| waiting.reason.clone())
}

/// A declared host's part of the task network; none where there is none.
pub(super) fn network(snapshot: &Snapshot, name: &HostName) -> Option<HostNetworkView> {
    let state = &snapshot.world.state;
    let manifest = state.desired.hosts.get(name)?;
    if !plan::network::has_part(state, &manifest.spec.cluster) {
        return None;
    }
    let slice = |record: &SubnetRecord| record.slice_of(name).map(|slice| slice.to_string());
    let slices = state.subnets.values().filter_map(|record| Some((record.name.to_string(), slice(record)?))).collect();
    let (status, reason) = match snapshot.world.networks.get(name) {
        None => (NetworkStatus::NotReady, Some("it was not looked at yet".to_owned())),
        Some(seen) => match (&seen.problem, &seen.confirmed) {
            (Some(problem), _) => (NetworkStatus::NotReady, Some(problem.clone())),
            (None, None) => (NetworkStatus::NotReady, Some("its rules are not in force yet".to_owned())),
            (None, Some(_)) => (NetworkStatus::Ready, None),
        },
    };
    Some(HostNetworkView { status, reason, slices })
}

fn disk(seen: &StorageSeen) -> DiskView {
    let mib = |bytes: u64| bytes >> 20;
    DiskView {
        data_root: seen.data_root.clone(),
        used_percent: seen.disk.map(DiskUse::used_percent),
        used_mib: seen.disk.map(|disk| mib(disk.used_bytes)),
        size_mib: seen.disk.map(|disk| mib(disk.total_bytes())),
        images_count: seen.images.len(),
        reason: seen.disk.is_none().then(|| "`df` does not tell how full it is: no image is removed".to_owned()),
    }
}

fn is_connected(contact: &HostContact) -> bool {
    contact.engine_answered_at.is_some() && contact.error.is_none() && contact.untrusted.is_none()
}

fn reason(status: HostStatus, contact: Option<&HostContact>, declared: bool) -> Option<String> {
    let told = contact.and_then(|contact| contact.untrusted.clone().or_else(|| contact.error.clone()));
    if told.is_some() || !declared {
        return told.or_else(|| Some("no longer declared in the manifests".to_owned()));
    }
    match status {
        HostStatus::Active => match contact {
            Some(contact) if contact.engine_answered_at.is_some() => None,
            Some(_) | None => Some("not connected yet".to_owned()),
        },
        HostStatus::Cordoned => Some("takes no new tasks: a person cordoned it".to_owned()),
        HostStatus::Draining => Some("its tasks move elsewhere: a person drains it".to_owned()),
        HostStatus::Suspect => Some("silent for a while".to_owned()),
        HostStatus::Lost => Some("silent for too long: its tasks are replaced".to_owned()),
        HostStatus::Untrusted => Some("not who it should be: no command is sent to it".to_owned()),
    }
}
