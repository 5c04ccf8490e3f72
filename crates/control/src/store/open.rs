//! Opening: settings, checks and migrations.

use std::{
    fs::{DirBuilder, OpenOptions, Permissions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, SqlSafeStr, SqliteConnection, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{StoreError, lenient};
use crate::crash_point::{Point, reach};

/// Every migration, oldest first. Released ones are never edited; a new one gets a file and a row.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "initial", include_str!("../../migrations/0001_initial.sql")),
    (2, "volumes", include_str!("../../migrations/0002_volumes.sql")),
    (3, "schedules", include_str!("../../migrations/0003_schedules.sql")),
    (4, "images", include_str!("../../migrations/0004_images.sql")),
    (5, "subnets", include_str!("../../migrations/0005_subnets.sql")),
    (6, "certificates", include_str!("../../migrations/0006_certificates.sql")),
    (7, "acme", include_str!("../../migrations/0007_acme.sql")),
];

/// The first SQLite without the WAL-reset bug, <https://www.sqlite.org/releaselog/3_51_3.html>.
const OLDEST_SQLITE: (u32, u32, u32) = (3, 51, 3);

/// How long a statement waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a reader waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Readers at once.
const MAX_READERS: u32 = 4;

/// What the write-ahead log shrinks to after a checkpoint, in bytes.
const WAL_KEPT_BYTES: &str = "16777216";

/// Makes the data folder, readable by its owner only.
pub(super) fn make_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| StoreError::io(dir, error))
}

/// Makes the database's file, readable by its owner only (SQLite's files beside it inherit that); returns its path.
pub(super) fn make_file(dir: &Path) -> Result<PathBuf, StoreError> {
    let path = dir.join("roadstead.db");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    match file.and_then(|file| file.set_permissions(Permissions::from_mode(0o600))) {
        Ok(()) => Ok(path),
        Err(error) => Err(StoreError::io(&path, error)),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT).foreign_keys(true).disable_statement_logging()
}

/// The writer's settings. FULL: a committed intent survives a power cut (S8).
pub(super) fn writer_options(path: &Path) -> SqliteConnectOptions {
    options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", WAL_KEPT_BYTES)
}

/// Connections that cannot write.
pub(super) fn readers(path: &Path) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(MAX_READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_lazy_with(options(path).read_only(true))
}

/// A connection that may be used: SQLite is new enough, the file is sound, its schema is ours.
pub(super) async fn checked_writer(options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    let mut connection = options.connect().await?;
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await?;
    check_version(&version)?;
    let answer: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
    if answer != "ok" {
        return Err(StoreError::corrupt(answer));
    }
    reach(Point::DatabaseOpened);
    migrate(&mut connection).await?;
    lenient::forget_unreadable(&mut connection).await?;
    reach(Point::Migrated);
    Ok(connection)
}

pub(super) fn check_version(found: &str) -> Result<(), StoreError> {
    let mut parts = found.split('.').map(|part| part.parse().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    if (part(), part(), part()) >= OLDEST_SQLITE {
        return Ok(());
    }
    let (major, minor, patch) = OLDEST_SQLITE;
    Err(StoreError::SqliteTooOld { found: found.to_owned(), needed: format!("{major}.{minor}.{patch}") })
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let known = MIGRATIONS.last().map_or(0, |(version, ..)| *version);
    let migrations = MIGRATIONS
        .iter()
        .map(|&(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(connection).await.map_err(|error| StoreError::migrating(error, known))
}
