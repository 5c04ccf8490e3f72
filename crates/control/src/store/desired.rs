//! The manifests in force, one row an object.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::SqliteConnection;

use super::{
    StoreError,
    doc::{from_json, to_json},
    lenient,
};
use roadstead_core::model::desired::{Desired, Manifest};

const CLUSTER: &str = "Cluster";
const HOST: &str = "Host";
const TASK_DEFINITION: &str = "TaskDefinition";
const SERVICE: &str = "Service";
const SCHEDULED_TASK: &str = "ScheduledTask";
const SUBNET: &str = "Subnet";
const SECURITY_GROUP: &str = "SecurityGroup";
const TARGET_GROUP: &str = "TargetGroup";
const LOAD_BALANCER: &str = "LoadBalancer";

/// (kind, name).
type Key = (String, String);

/// A row but for its key.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    file: String,
    line: u32,
    labels: String,
    annotations: String,
    spec: String,
}

/// Makes the rows say `desired`; those that say it already are not touched.
pub(super) async fn replace(connection: &mut SqliteConnection, desired: &Desired) -> Result<(), StoreError> {
    let wanted = rows(desired)?;
    let present = stored(connection).await?;
    for (kind, name) in present.keys().filter(|key| !wanted.contains_key(*key)) {
        sqlx::query("DELETE FROM desired WHERE kind = ? AND name = ?")
            .bind(kind)
            .bind(name)
            .execute(&mut *connection)
            .await?;
    }
    for (key @ (kind, name), row) in &wanted {
        if present.get(key) == Some(row) {
            continue;
        }
        sqlx::query(
            "INSERT OR REPLACE INTO desired (kind, name, file, line, labels, annotations, spec) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(kind)
        .bind(name)
        .bind(&row.file)
        .bind(row.line)
        .bind(&row.labels)
        .bind(&row.annotations)
        .bind(&row.spec)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// The rows as one value.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Arc<Desired>, StoreError> {
    let mut desired = Desired::default();
    for ((kind, name), row) in stored(connection).await? {
        match kind.as_str() {
            CLUSTER => put(&mut desired.clusters, name, row)?,
            HOST => put(&mut desired.hosts, name, row)?,
            TASK_DEFINITION => put(&mut desired.task_definitions, name, row)?,
            SERVICE => put(&mut desired.services, name, row)?,
            SCHEDULED_TASK => put(&mut desired.scheduled_tasks, name, row)?,
            SUBNET => put(&mut desired.subnets, name, row)?,
            SECURITY_GROUP => put(&mut desired.security_groups, name, row)?,
            TARGET_GROUP => put(&mut desired.target_groups, name, row)?,
            LOAD_BALANCER => put(&mut desired.load_balancers, name, row)?,
            _ => return Err(StoreError::corrupt(format_args!("desired {kind} {name}: no such kind"))),
        }
    }
    Ok(Arc::new(desired))
}

fn put<N, S>(map: &mut BTreeMap<N, Manifest<S>>, name: String, row: Row) -> Result<(), StoreError>
where
    N: From<String> + Ord,
    S: DeserializeOwned,
{
    let whose = || format!("desired {name} of {}", row.file);
    let manifest = Manifest {
        labels: from_json(&row.labels, whose)?,
        annotations: from_json(&row.annotations, whose)?,
        spec: lenient::spec(&row.spec, whose)?,
        line: row.line,
        file: row.file,
    };
    map.insert(name.into(), manifest);
    Ok(())
}

fn rows(desired: &Desired) -> Result<BTreeMap<Key, Row>, StoreError> {
    let Desired {
        clusters,
        hosts,
        task_definitions,
        services,
        scheduled_tasks,
        subnets,
        security_groups,
        target_groups,
        load_balancers,
    } = desired;
    let mut rows = BTreeMap::new();
    add(&mut rows, CLUSTER, clusters)?;
    add(&mut rows, HOST, hosts)?;
    add(&mut rows, TASK_DEFINITION, task_definitions)?;
    add(&mut rows, SERVICE, services)?;
    add(&mut rows, SCHEDULED_TASK, scheduled_tasks)?;
    add(&mut rows, SUBNET, subnets)?;
    add(&mut rows, SECURITY_GROUP, security_groups)?;
    add(&mut rows, TARGET_GROUP, target_groups)?;
    add(&mut rows, LOAD_BALANCER, load_balancers)?;
    Ok(rows)
}

fn add<N, S>(rows: &mut BTreeMap<Key, Row>, kind: &str, map: &BTreeMap<N, Manifest<S>>) -> Result<(), StoreError>
where
    N: AsRef<str>,
    S: Serialize,
{
    for (name, manifest) in map {
        let row = Row {
            file: manifest.file.clone(),
            line: manifest.line,
            labels: to_json(&manifest.labels)?,
            annotations: to_json(&manifest.annotations)?,
            spec: to_json(&manifest.spec)?,
        };
        rows.insert((kind.to_owned(), name.as_ref().to_owned()), row);
    }
    Ok(())
}

async fn stored(connection: &mut SqliteConnection) -> Result<BTreeMap<Key, Row>, StoreError> {
    let rows: Vec<(String, String, String, u32, String, String, String)> =
        sqlx::query_as("SELECT kind, name, file, line, labels, annotations, spec FROM desired")
            .fetch_all(connection)
            .await?;
    let rows = rows.into_iter().map(|(kind, name, file, line, labels, annotations, spec)| {
        ((kind, name), Row { file, line, labels, annotations, spec })
    });
    Ok(rows.collect())
}
