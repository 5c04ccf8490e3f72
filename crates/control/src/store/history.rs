//! What is kept for people: events and decisions. Nothing is decided from them.

use sqlx::{SqliteConnection, query, query_as};

use super::{
    Store, StoreError,
    doc::{from_json, integer, timestamp, unsigned},
    write::subject_columns,
};
use roadstead_core::model::{
    decision::Decision,
    state::{Event, EventLevel, EventSubject},
};

/// The most rows that one call reads.
pub const MAX_ROWS_READ: u32 = 1_000;

/// The most rows of one table that one [`Store::prune`] removes, so that no commit waits long for it.
const MAX_ROWS_PRUNED: u32 = 5_000;

/// How many of the newest rows [`Store::prune`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Events.
    pub events: u32,
    /// Decisions.
    pub decisions: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { events: 10_000, decisions: 1_000 }
    }
}

type EventRow = (i64, i64, String, String, String, String, String);

impl Store {
    /// Events with an id above `after_id`, about `subject` or about anything, oldest first, at most `limit`
    /// and [`MAX_ROWS_READ`].
    pub async fn events_after(
        &self,
        after_id: u64,
        subject: Option<&EventSubject>,
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let (kind, name) = subject.map(subject_columns).unzip();
        let rows: Vec<EventRow> = match kind {
            None => query_as(
                "SELECT id, at, subject_kind, subject_name, level, reason, message FROM events
                 WHERE id > ? ORDER BY id LIMIT ?",
            ),
            Some(kind) => query_as(
                "SELECT id, at, subject_kind, subject_name, level, reason, message FROM events
                 WHERE subject_kind = ? AND subject_name = ? AND id > ? ORDER BY id LIMIT ?",
            )
            .bind(kind)
            .bind(name),
        }
        .bind(integer(after_id))
        .bind(limit.min(MAX_ROWS_READ))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(event).collect()
    }

    /// The newest events, about `subject` or about anything, oldest first, at most `limit` and [`MAX_ROWS_READ`].
    pub async fn newest_events(&self, subject: Option<&EventSubject>, limit: u32) -> Result<Vec<Event>, StoreError> {
        let (kind, name) = subject.map(subject_columns).unzip();
        let rows: Vec<EventRow> = match kind {
            None => query_as(
                "SELECT id, at, subject_kind, subject_name, level, reason, message FROM events
                 ORDER BY id DESC LIMIT ?",
            ),
            Some(kind) => query_as(
                "SELECT id, at, subject_kind, subject_name, level, reason, message FROM events
                 WHERE subject_kind = ? AND subject_name = ? ORDER BY id DESC LIMIT ?",
            )
            .bind(kind)
            .bind(name),
        }
        .bind(limit.min(MAX_ROWS_READ))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().rev().map(event).collect()
    }

    /// The newest decisions, newest first, at most `limit` and [`MAX_ROWS_READ`].
    pub async fn decisions(&self, limit: u32) -> Result<Vec<Decision>, StoreError> {
        let rows: Vec<(i64, String)> = query_as("SELECT id, doc FROM decisions ORDER BY id DESC LIMIT ?")
            .bind(limit.min(MAX_ROWS_READ))
            .fetch_all(&self.readers)
            .await?;
        rows.into_iter()
            .map(|(id, doc)| {
                let decision: Decision = from_json(&doc, || format!("decision {id}"))?;
                Ok(Decision { id: unsigned(id), ..decision })
            })
            .collect()
    }

    /// Removes what is older than `keep` says, a bounded number at a time: call it now and then.
    pub async fn prune(&self, keep: Keep) -> Result<(), StoreError> {
        self.write(async |connection| prune(connection, keep).await).await
    }
}

async fn prune(connection: &mut SqliteConnection, keep: Keep) -> Result<(), StoreError> {
    query(
        "DELETE FROM events WHERE id IN (SELECT id FROM events
         WHERE id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?) ORDER BY id LIMIT ?)",
    )
    .bind(keep.events)
    .bind(MAX_ROWS_PRUNED)
    .execute(&mut *connection)
    .await?;
    query(
        "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions
         WHERE id <= (SELECT id FROM decisions ORDER BY id DESC LIMIT 1 OFFSET ?) ORDER BY id LIMIT ?)",
    )
    .bind(keep.decisions)
    .bind(MAX_ROWS_PRUNED)
    .execute(connection)
    .await?;
    Ok(())
}

fn event((id, at, kind, name, level, reason, message): EventRow) -> Result<Event, StoreError> {
    let subject = match kind.as_str() {
        "fleet" => EventSubject::Fleet,
        "host" => EventSubject::Host(name.into()),
        "service" => EventSubject::Service(name.into()),
        "task" => EventSubject::Task(name.into()),
        "scheduledtask" => EventSubject::ScheduledTask(name.into()),
        "file" => EventSubject::File(name),
        _ => return Err(StoreError::corrupt(format_args!("event {id} is about {kind}"))),
    };
    let level = match level.as_str() {
        "NORMAL" => EventLevel::Normal,
        "WARNING" => EventLevel::Warning,
        _ => return Err(StoreError::corrupt(format_args!("event {id} has level {level}"))),
    };
    Ok(Event { id: unsigned(id), at: timestamp(at), subject, level, reason, message })
}
