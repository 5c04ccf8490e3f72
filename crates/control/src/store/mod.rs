//! The only SQL: everything durable in one SQLite file.
//!
//! [`Store::load`] after [`Store::commit`] of some changes is [`State::apply`] of the same changes.
//! One connection writes, a few that cannot write read, WAL lets them do so at once.

mod desired;
mod doc;
mod error;
mod history;
mod lenient;
mod load;
mod lock;
mod open;
mod write;

#[cfg(test)]
mod tests;

use std::{path::Path, time::Duration};

use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::{sync::Mutex, time::timeout};

use crate::crash_point::{Point, reach};
use roadstead_core::model::{
    decision::Decision,
    state::{Change, State},
};

pub use error::StoreError;
pub use history::{Keep, MAX_ROWS_READ};

/// How long a commit waits for the one before it.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);

/// The database of one controller, and the lock that keeps others out.
#[derive(Debug)]
pub struct Store {
    readers: SqlitePool,
    // Empty after a failure: a connection whose transaction went wrong is thrown away, the next commit makes a new one.
    writer: Mutex<Option<SqliteConnection>>,
    writer_options: SqliteConnectOptions,
    // Last: dropped after the connections.
    _lock: lock::Lock,
}

impl Store {
    /// Opens `dir`'s database, making both when they are not there (0700, 0600), and brings its schema up to date.
    ///
    /// Refused with [`StoreError::Locked`] while another controller has it.
    pub async fn open(dir: &Path) -> Result<Self, StoreError> {
        open::make_dir(dir)?;
        let lock = lock::Lock::take(dir)?;
        reach(Point::Locked);
        let path = open::make_file(dir)?;
        let writer_options = open::writer_options(&path);
        let writer = open::checked_writer(&writer_options).await?;
        Ok(Self { readers: open::readers(&path), writer: Mutex::new(Some(writer)), writer_options, _lock: lock })
    }

    /// Everything durable, as of one moment.
    pub async fn load(&self) -> Result<State, StoreError> {
        let mut snapshot = self.readers.begin().await?;
        load::state(&mut snapshot).await
    }

    /// Writes `changes` in order, and the decision they come from, in one transaction: all or nothing, and on the disk
    /// when this returns. Gives the ids of the events among them.
    ///
    /// A dropped future commits or does not; nothing in between.
    pub async fn commit(&self, changes: &[Change], decision: Option<&Decision>) -> Result<Vec<u64>, StoreError> {
        if changes.is_empty() && decision.is_none() {
            return Ok(Vec::new());
        }
        self.write(async |connection| write::all(connection, changes, decision).await).await
    }

    /// Closes in order: the log is folded into the database and the lock released.
    pub async fn close(self) -> Result<(), StoreError> {
        self.readers.close().await;
        if let Some(writer) = self.writer.into_inner() {
            writer.close().await?;
        }
        Ok(())
    }

    /// One write transaction.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let turn = timeout(TURN_TIMEOUT, self.writer.lock());
        let mut slot =
            turn.await.map_err(|_| StoreError::Busy { what: "an earlier commit does not end".to_owned() })?;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.writer_options.connect().await?,
        };
        match transaction(&mut connection, work).await {
            Ok(done) => {
                *slot = Some(connection);
                Ok(done)
            }
            Err(error) => {
                // Some errors end SQLite's transaction by themselves, some leave it open: closing settles both.
                if let Err(error) = connection.close_hard().await {
                    tracing::warn!(%error, "closing the database after a failed commit");
                }
                Err(error)
            }
        }
    }
}

async fn transaction<T>(
    connection: &mut SqliteConnection,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let done = work(&mut transaction).await?;
    transaction.commit().await?;
    Ok(done)
}
