//! Changes as statements: one function a change.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::{SqliteConnection, query, query_scalar};

use super::{
    StoreError, desired,
    doc::{ms, to_json, unsigned},
    lenient,
};
use crate::crash_point::{Point, reach};
use roadstead_core::model::{
    decision::Decision,
    name::{HostName, RevisionId, ScheduleName, ServiceName, TaskId},
    observed::HostObservation,
    small_map::SmallMap,
    spec::{TaskDefinitionSpec, task_definition::Protocol},
    state::{Change, Event, EventLevel, EventSubject, FleetRecord, Revision},
    task::{LastStatus, Task},
    volume::{VolumeId, VolumeRecord},
};

/// Puts a row that is a name and a document, new or in the place of one.
macro_rules! into {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (name, doc) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET doc = excluded.doc"
        )
    };
}

/// Writes everything of one commit; gives the ids of the events.
pub(super) async fn all(
    connection: &mut SqliteConnection,
    changes: &[Change],
    decision: Option<&Decision>,
) -> Result<Vec<u64>, StoreError> {
    let mut event_ids = Vec::new();
    for change in changes {
        match change {
            Change::Desired(wanted) => desired::replace(connection, wanted).await?,
            Change::Revision(revision) => put_revision(connection, revision).await?,
            Change::RevisionRemoved(id) => remove_revision(connection, id).await?,
            Change::Host(host) => put_doc(connection, into!("hosts"), host.name.as_str(), host).await?,
            Change::HostRemoved(name) => remove_host(connection, name).await?,
            Change::Service(service) => put_doc(connection, into!("services"), service.name.as_str(), service).await?,
            Change::ServiceRemoved(name) => remove_service(connection, name).await?,
            Change::Schedule(schedule) => {
                put_doc(connection, into!("schedules"), schedule.name.as_str(), schedule).await?
            }
            Change::ScheduleRemoved(name) => remove_schedule(connection, name).await?,
            Change::Task(task) => put_task(connection, task).await?,
            Change::TaskRemoved(id) => remove_task(connection, id).await?,
            Change::Observation(observation) => put_observation(connection, observation).await?,
            Change::Volume(volume) => put_volume(connection, volume).await?,
            Change::VolumeRemoved(id) => remove_volume(connection, id).await?,
            Change::Subnet(subnet) => put_doc(connection, into!("subnets"), subnet.name.as_str(), subnet).await?,
            Change::SubnetRemoved(name) => {
                query("DELETE FROM subnets WHERE name = ?").bind(name.as_str()).execute(&mut *connection).await?;
            }
            Change::Certificate(record) => {
                put_doc(connection, into!("certificates"), record.id.as_str(), record).await?
            }
            Change::CertificateRemoved(id) => {
                query("DELETE FROM certificates WHERE name = ?").bind(id.as_str()).execute(&mut *connection).await?;
            }
            Change::AcmeAccount(account) => {
                put_doc(connection, into!("acme_accounts"), &account.directory, account).await?
            }
            Change::AcmeOrder(order) => put_doc(connection, into!("acme_orders"), order.id.as_str(), order).await?,
            Change::AcmeOrderRemoved(id) => {
                query("DELETE FROM acme_orders WHERE name = ?").bind(id.as_str()).execute(&mut *connection).await?;
            }
            Change::Fleet(fleet) => put_fleet(connection, fleet).await?,
            Change::Event(event) => event_ids.push(add_event(connection, event).await?),
        }
    }
    if let Some(decision) = decision {
        add_decision(connection, decision).await?;
        reach(Point::DecisionWritten);
    }
    Ok(event_ids)
}

async fn put_revision(connection: &mut SqliteConnection, revision: &Revision) -> Result<(), StoreError> {
    let spec = match &revision.spec {
        Some(spec) => Some(as_stored(connection, &revision.id, spec).await?),
        None => None,
    };
    query(
        "INSERT INTO revisions (family, number, hash, spec, images, created_at) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (family, number) DO UPDATE
         SET hash = excluded.hash, spec = excluded.spec, images = excluded.images, created_at = excluded.created_at",
    )
    .bind(revision.id.family.as_str())
    .bind(revision.id.number)
    .bind(&revision.hash)
    .bind(spec)
    .bind(to_json(&revision.images)?)
    .bind(ms(revision.created_at))
    .execute(connection)
    .await
    .map_err(|error| match StoreError::from(error) {
        StoreError::Refused { what } => StoreError::Refused { what: format!("revision {}: {what}", revision.id) },
        other => other,
    })?;
    Ok(())
}

/// A revision is never altered: what another version wrote stays to the letter when it says the same.
async fn as_stored(
    connection: &mut SqliteConnection,
    id: &RevisionId,
    spec: &TaskDefinitionSpec,
) -> Result<String, StoreError> {
    let stored: Option<Option<String>> = query_scalar("SELECT spec FROM revisions WHERE family = ? AND number = ?")
        .bind(id.family.as_str())
        .bind(id.number)
        .fetch_optional(connection)
        .await?;
    let text = to_json(spec)?;
    let says_the_same = |stored: &String| {
        *stored == text
            || lenient::spec::<TaskDefinitionSpec>(stored, || id.to_string()).is_ok_and(|read| read == *spec)
    };
    Ok(stored.flatten().filter(says_the_same).unwrap_or(text))
}

async fn remove_revision(connection: &mut SqliteConnection, id: &RevisionId) -> Result<(), StoreError> {
    query("DELETE FROM revisions WHERE family = ? AND number = ?")
        .bind(id.family.as_str())
        .bind(id.number)
        .execute(connection)
        .await?;
    Ok(())
}

async fn remove_host(connection: &mut SqliteConnection, name: &HostName) -> Result<(), StoreError> {
    query("DELETE FROM hosts WHERE name = ?").bind(name.as_str()).execute(&mut *connection).await?;
    query("DELETE FROM observations WHERE host = ?").bind(name.as_str()).execute(connection).await?;
    Ok(())
}

async fn remove_service(connection: &mut SqliteConnection, name: &ServiceName) -> Result<(), StoreError> {
    query("DELETE FROM services WHERE name = ?").bind(name.as_str()).execute(connection).await?;
    Ok(())
}

async fn remove_schedule(connection: &mut SqliteConnection, name: &ScheduleName) -> Result<(), StoreError> {
    query("DELETE FROM schedules WHERE name = ?").bind(name.as_str()).execute(connection).await?;
    Ok(())
}

/// A whole record by its name; `sql` is of [`into`].
async fn put_doc(
    connection: &mut SqliteConnection,
    sql: &'static str,
    name: &str,
    record: &impl Serialize,
) -> Result<(), StoreError> {
    query(sql).bind(name).bind(to_json(record)?).execute(connection).await?;
    Ok(())
}

async fn put_task(connection: &mut SqliteConnection, task: &Task) -> Result<(), StoreError> {
    let without_containers = Task { containers: SmallMap::default(), ..task.clone() };
    query("INSERT INTO tasks (id, doc) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc")
        .bind(task.id.as_str())
        .bind(to_json(&without_containers)?)
        .execute(&mut *connection)
        .await?;
    query("DELETE FROM containers WHERE task = ?").bind(task.id.as_str()).execute(&mut *connection).await?;
    for (name, container) in task.containers.iter() {
        query("INSERT INTO containers (task, name, doc) VALUES (?, ?, ?)")
            .bind(task.id.as_str())
            .bind(name.as_str())
            .bind(to_json(container)?)
            .execute(&mut *connection)
            .await?;
    }
    put_allocations(connection, task).await
}

/// The host ports that `task` holds (S4).
async fn put_allocations(connection: &mut SqliteConnection, task: &Task) -> Result<(), StoreError> {
    query("DELETE FROM allocations WHERE task = ?").bind(task.id.as_str()).execute(&mut *connection).await?;
    if task.last_status == LastStatus::Stopped {
        return Ok(());
    }
    let bindings = task.containers.values().flat_map(|container| &container.ports);
    let held: BTreeSet<_> = bindings.map(|binding| (binding.host_port, binding.protocol)).collect();
    for (port, protocol) in held {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let insert = query("INSERT INTO allocations (host, port, protocol, task) VALUES (?, ?, ?, ?)")
            .bind(task.host.as_str())
            .bind(port)
            .bind(protocol)
            .bind(task.id.as_str())
            .execute(&mut *connection)
            .await;
        match insert.map_err(StoreError::from) {
            Ok(_) => {}
            Err(StoreError::Refused { what }) => {
                let holder = holder(connection, &task.host, port, protocol).await?;
                let why = holder.map_or(what, |holder| format!("task {holder} holds it"));
                let what = format!("port {port}/{protocol} of host {} for task {}: {why}", task.host, task.id);
                return Err(StoreError::Refused { what });
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

async fn holder(
    connection: &mut SqliteConnection,
    host: &HostName,
    port: u16,
    protocol: &str,
) -> Result<Option<String>, StoreError> {
    let holder = query_scalar("SELECT task FROM allocations WHERE host = ? AND port = ? AND protocol = ?")
        .bind(host.as_str())
        .bind(port)
        .bind(protocol)
        .fetch_optional(connection)
        .await?;
    Ok(holder)
}

async fn remove_task(connection: &mut SqliteConnection, id: &TaskId) -> Result<(), StoreError> {
    query("DELETE FROM tasks WHERE id = ?").bind(id.as_str()).execute(connection).await?;
    Ok(())
}

async fn put_observation(connection: &mut SqliteConnection, observation: &HostObservation) -> Result<(), StoreError> {
    query(
        "INSERT INTO observations (host, started_at, finished_at, identity, containers) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (host) DO UPDATE SET started_at = excluded.started_at, finished_at = excluded.finished_at,
         identity = excluded.identity, containers = excluded.containers",
    )
    .bind(observation.host.as_str())
    .bind(ms(observation.started_at))
    .bind(ms(observation.finished_at))
    .bind(to_json(&observation.identity)?)
    .bind(to_json(&observation.containers)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn put_volume(connection: &mut SqliteConnection, volume: &VolumeRecord) -> Result<(), StoreError> {
    query(
        "INSERT INTO volumes (cluster, name, doc) VALUES (?, ?, ?)
         ON CONFLICT (cluster, name) DO UPDATE SET doc = excluded.doc",
    )
    .bind(volume.id.cluster.as_str())
    .bind(&volume.id.name)
    .bind(to_json(volume)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn remove_volume(connection: &mut SqliteConnection, id: &VolumeId) -> Result<(), StoreError> {
    query("DELETE FROM volumes WHERE cluster = ? AND name = ?")
        .bind(id.cluster.as_str())
        .bind(&id.name)
        .execute(connection)
        .await?;
    Ok(())
}

async fn put_fleet(connection: &mut SqliteConnection, fleet: &FleetRecord) -> Result<(), StoreError> {
    query("INSERT INTO fleet (id, doc) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc")
        .bind(to_json(fleet)?)
        .execute(connection)
        .await?;
    Ok(())
}

async fn add_event(connection: &mut SqliteConnection, event: &Event) -> Result<u64, StoreError> {
    let (kind, name) = subject_columns(&event.subject);
    let level = match event.level {
        EventLevel::Normal => "NORMAL",
        EventLevel::Warning => "WARNING",
    };
    let done =
        query("INSERT INTO events (at, subject_kind, subject_name, level, reason, message) VALUES (?, ?, ?, ?, ?, ?)")
            .bind(ms(event.at))
            .bind(kind)
            .bind(name)
            .bind(level)
            .bind(&event.reason)
            .bind(&event.message)
            .execute(connection)
            .await?;
    Ok(unsigned(done.last_insert_rowid()))
}

/// A subject as (`subject_kind`, `subject_name`).
pub(super) fn subject_columns(subject: &EventSubject) -> (&'static str, &str) {
    match subject {
        EventSubject::Fleet => ("fleet", ""),
        EventSubject::Host(name) => ("host", name.as_str()),
        EventSubject::Service(name) => ("service", name.as_str()),
        EventSubject::Task(id) => ("task", id.as_str()),
        EventSubject::ScheduledTask(name) => ("scheduledtask", name.as_str()),
        EventSubject::File(path) => ("file", path),
    }
}

async fn add_decision(connection: &mut SqliteConnection, decision: &Decision) -> Result<(), StoreError> {
    query("INSERT INTO decisions (at, doc) VALUES (?, ?)")
        .bind(ms(decision.at))
        .bind(to_json(decision)?)
        .execute(connection)
        .await?;
    Ok(())
}
