//! Rows as [`State`].

use std::{collections::BTreeMap, sync::Arc};

use serde::de::DeserializeOwned;
use sqlx::{SqliteConnection, query_as};

use super::{
    StoreError, desired,
    doc::{from_json, timestamp},
    lenient,
};
use roadstead_core::model::{
    acme::{AcmeAccount, AcmeOrder},
    certificate::CertificateRecord,
    name::{Family, HostName, RevisionId, TaskId},
    network::SubnetRecord,
    observed::HostObservation,
    schedule::ScheduleRecord,
    state::{FleetRecord, HostRecord, Revision, ServiceRecord, State},
    task::Task,
    volume::VolumeRecord,
};

/// Everything, through one transaction's eyes.
pub(super) async fn state(connection: &mut SqliteConnection) -> Result<State, StoreError> {
    let hosts: Vec<HostRecord> = docs(connection, "host", "SELECT name, doc FROM hosts").await?;
    let services: Vec<ServiceRecord> = docs(connection, "service", "SELECT name, doc FROM services").await?;
    let volumes: Vec<VolumeRecord> = docs(connection, "volume", "SELECT name, doc FROM volumes").await?;
    let schedules: Vec<ScheduleRecord> = docs(connection, "schedule", "SELECT name, doc FROM schedules").await?;
    let subnets: Vec<SubnetRecord> = docs(connection, "subnet", "SELECT name, doc FROM subnets").await?;
    let certificates: Vec<CertificateRecord> =
        docs(connection, "certificate", "SELECT name, doc FROM certificates").await?;
    let accounts: Vec<AcmeAccount> = docs(connection, "account", "SELECT name, doc FROM acme_accounts").await?;
    let orders: Vec<AcmeOrder> = docs(connection, "order", "SELECT name, doc FROM acme_orders").await?;
    Ok(State {
        desired: desired::load(connection).await?,
        revisions: revisions(connection).await?.into(),
        hosts: hosts.into_iter().map(|host| (host.name.clone(), host)).collect(),
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        schedules: schedules.into_iter().map(|schedule| (schedule.name.clone(), schedule)).collect(),
        tasks: tasks(connection).await?.into(),
        observations: observations(connection).await?.into(),
        volumes: volumes.into_iter().map(|volume| (volume.id.clone(), volume)).collect(),
        subnets: subnets.into_iter().map(|subnet| (subnet.name.clone(), subnet)).collect(),
        certificates: certificates.into_iter().map(|record| (record.id.clone(), record)).collect(),
        acme_accounts: accounts.into_iter().map(|account| (account.directory.clone(), account)).collect(),
        acme_orders: orders.into_iter().map(|order| (order.id.clone(), order)).collect(),
        fleet: fleet(connection).await?,
    })
}

async fn docs<T: DeserializeOwned>(
    connection: &mut SqliteConnection,
    kind: &str,
    select: &'static str,
) -> Result<Vec<T>, StoreError> {
    let rows: Vec<(String, String)> = query_as(select).fetch_all(connection).await?;
    rows.iter().map(|(name, doc)| from_json(doc, || format!("{kind} {name}"))).collect()
}

async fn revisions(connection: &mut SqliteConnection) -> Result<BTreeMap<Family, BTreeMap<u32, Revision>>, StoreError> {
    let rows: Vec<(String, u32, String, Option<String>, String, i64)> =
        query_as("SELECT family, number, hash, spec, images, created_at FROM revisions").fetch_all(connection).await?;
    let mut revisions: BTreeMap<Family, BTreeMap<u32, Revision>> = BTreeMap::new();
    for (family, number, hash, spec, images, created_at) in rows {
        let id = RevisionId { family: family.into(), number };
        let spec = spec.map(|spec| lenient::spec(&spec, || format!("revision {id}"))).transpose()?;
        let images = from_json(&images, || format!("the images of revision {id}"))?;
        let revision = Revision { id, hash, spec, images, created_at: timestamp(created_at) };
        revisions.entry(revision.id.family.clone()).or_default().insert(number, revision);
    }
    Ok(revisions)
}

async fn tasks(connection: &mut SqliteConnection) -> Result<BTreeMap<TaskId, Arc<Task>>, StoreError> {
    let tasks: Vec<Task> = docs(connection, "task", "SELECT id, doc FROM tasks").await?;
    let mut tasks: BTreeMap<TaskId, Task> = tasks.into_iter().map(|task| (task.id.clone(), task)).collect();
    let containers: Vec<(String, String, String)> =
        query_as("SELECT task, name, doc FROM containers").fetch_all(connection).await?;
    for (id, name, doc) in containers {
        let container = from_json(&doc, || format!("container {name} of task {id}"))?;
        let Some(task) = tasks.get_mut(id.as_str()) else {
            return Err(StoreError::corrupt(format_args!("container {name} of task {id}: no such task")));
        };
        task.containers.insert(name.into(), container);
    }
    Ok(tasks.into_iter().map(|(id, task)| (id, Arc::new(task))).collect())
}

async fn observations(
    connection: &mut SqliteConnection,
) -> Result<BTreeMap<HostName, Arc<HostObservation>>, StoreError> {
    let rows: Vec<(String, i64, i64, String, String)> =
        query_as("SELECT host, started_at, finished_at, identity, containers FROM observations")
            .fetch_all(connection)
            .await?;
    let mut observations = BTreeMap::new();
    for (host, started_at, finished_at, identity, containers) in rows {
        let whose = || format!("observation of {host}");
        let observation = HostObservation {
            started_at: timestamp(started_at),
            finished_at: timestamp(finished_at),
            identity: from_json(&identity, whose)?,
            containers: from_json(&containers, whose)?,
            host: host.into(),
        };
        observations.insert(observation.host.clone(), Arc::new(observation));
    }
    Ok(observations)
}

async fn fleet(connection: &mut SqliteConnection) -> Result<FleetRecord, StoreError> {
    let doc: Option<(String,)> = query_as("SELECT doc FROM fleet").fetch_optional(connection).await?;
    doc.map_or_else(|| Ok(FleetRecord::default()), |(doc,)| from_json(&doc, || "fleet".to_owned()))
}
