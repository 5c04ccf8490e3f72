//! Specs that another version wrote: what this one cannot read of them is left out, and never keeps the controller from
//! starting.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sqlx::{Connection, SqliteConnection};

use super::StoreError;
use roadstead_core::model::{name::RevisionId, spec::TaskDefinitionSpec};

/// Without these an object of a spec is none: they come before its other fields.
const REQUIRED: [&str; 5] = ["name", "image", "address", "taskDefinition", "schedule"];
/// Without these it would be something else.
const ESSENTIAL: [&str; 1] = ["containerDefinitions"];

/// Reads a spec, if need be without the fields that do not fit; `whose` says in which row it stands.
pub(super) fn spec<T: DeserializeOwned>(json: &str, whose: impl FnOnce() -> String) -> Result<T, StoreError> {
    let error = match serde_json::from_str(json) {
        Ok(spec) => return Ok(spec),
        Err(error) => error,
    };
    let whose = whose();
    let rest = serde_json::from_str(json).ok().and_then(|whole| prune(whole, &fits::<T>));
    let spec = rest.and_then(|rest| serde_json::from_value(rest).ok());
    let spec = spec.ok_or_else(|| StoreError::corrupt(format_args!("{whose}: {error}")))?;
    tracing::warn!(%whose, %error, "another version wrote it: what cannot be read of it is left out");
    Ok(spec)
}

/// Forgets the content of revisions that cannot be read even so, and says so in an event: their tasks run on, and the
/// manifests give the content of what is still wanted.
pub(super) async fn forget_unreadable(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let rows: Vec<(String, u32, String, String, String, i64)> =
        sqlx::query_as("SELECT family, number, hash, spec, images, created_at FROM revisions WHERE spec IS NOT NULL")
            .fetch_all(&mut *connection)
            .await?;
    for (family, number, hash, json, images, created_at) in rows {
        let id = RevisionId { family: family.into(), number };
        let whose = format!("revision {id}");
        if spec::<TaskDefinitionSpec>(&json, || whose).is_ok() {
            continue;
        }
        let message = format!("the content of {id} cannot be read by this version: what runs of it runs on");
        tracing::warn!("{message}");
        let mut transaction = connection.begin().await?;
        // A revision is never altered, so its row is made anew.
        sqlx::query("DELETE FROM revisions WHERE family = ? AND number = ?")
            .bind(id.family.as_str())
            .bind(number)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO revisions (family, number, hash, spec, images, created_at) VALUES (?, ?, ?, NULL, ?, ?)",
        )
        .bind(id.family.as_str())
        .bind(number)
        .bind(hash)
        .bind(images)
        .bind(created_at)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "INSERT INTO events (at, subject_kind, subject_name, level, reason, message)
             VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER), 'fleet', '', 'WARNING', 'RevisionUnreadable', ?)",
        )
        .bind(&message)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
    }
    Ok(())
}

fn fits<T: DeserializeOwned>(value: Value) -> bool {
    serde_json::from_value::<T>(value).is_ok()
}

/// What fits of a value: of an object, the fields that do.
fn prune(value: Value, fits: &dyn Fn(Value) -> bool) -> Option<Value> {
    if fits(value.clone()) {
        return Some(value);
    }
    match value {
        Value::Object(fields) => {
            let (mut kept, others): (Map<String, Value>, Vec<(String, Value)>) = split(fields);
            for (name, field) in others {
                let with = |field: Value| {
                    let mut with = kept.clone();
                    with.insert(name.clone(), field);
                    Value::Object(with)
                };
                match prune(field, &|field| fits(with(field))) {
                    Some(field) => {
                        kept.insert(name, field);
                    }
                    None if ESSENTIAL.contains(&name.as_str()) => return None,
                    None => {}
                }
            }
            Some(Value::Object(kept)).filter(|kept| fits(kept.clone()))
        }
        // Each must fit: an element is never left out.
        Value::Array(elements) => {
            let alone = |element: Value| fits(Value::Array(vec![element]));
            let elements: Option<Vec<Value>> = elements.into_iter().map(|element| prune(element, &alone)).collect();
            elements.map(Value::Array).filter(|elements| fits(elements.clone()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn split(fields: Map<String, Value>) -> (Map<String, Value>, Vec<(String, Value)>) {
    let (required, others): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|(name, _)| REQUIRED.contains(&name.as_str()));
    (required.into_iter().collect(), others)
}
