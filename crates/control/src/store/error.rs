//! Errors by what the caller does about them.

use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

/// Why the store did not do what was asked. After any of them nothing of the request is in force, with one exception:
/// after [`StoreError::Io`] from a commit, only [`super::Store::load`] tells.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Give up: another controller works in this folder (S7).
    #[error("{} is in use by another controller{}: stop it first, or give this one a folder of its own", dir.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Locked {
        /// The data folder.
        dir: PathBuf,
        /// Who holds it, when it said so.
        pid: Option<u32>,
    },
    /// Give up: a person has to act.
    #[error(
        "the database is damaged: {what}. Stop the controller, move roadstead.db, roadstead.db-wal and roadstead.db-shm \
         out of the data folder and start it again: it adopts what runs and restarts nothing"
    )]
    Corrupt {
        /// What is wrong with it.
        what: String,
    },
    /// Give up: this build is not safe to use.
    #[error("SQLite {found} can corrupt databases in WAL mode: build with {needed} or later")]
    SqliteTooOld {
        /// What is linked.
        found: String,
        /// The first good one.
        needed: String,
    },
    /// Give up: it was written by a newer Roadstead.
    #[error(
        "the database has schema {found}, this Roadstead knows {known}: run the newer version again, or move roadstead.db \
         out of the data folder and start again; what runs is then adopted"
    )]
    NewerSchema {
        /// The database's schema version.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// Wait for room: do nothing that needs a row.
    #[error("the disk of the data folder is full: nothing is started or stopped until there is room")]
    Full,
    /// Try again.
    #[error("the database is busy: {what}")]
    Busy {
        /// What was waited for.
        what: String,
    },
    /// Drop the changes and plan again: they break a rule of the schema.
    #[error("refused by the database: {what}")]
    Refused {
        /// The rule.
        what: String,
    },
    /// Load again before the next decision: the operating system or SQLite failed.
    #[error("the database failed: {what}")]
    Io {
        /// In the words of whoever failed.
        what: String,
    },
}

impl StoreError {
    /// Whether it may go well later: the caller loads again, decides anew and tries again.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Full | Self::Busy { .. } | Self::Refused { .. } | Self::Io { .. } => true,
            Self::Locked { .. } | Self::Corrupt { .. } | Self::SqliteTooOld { .. } | Self::NewerSchema { .. } => false,
        }
    }

    /// From the operating system, about `path`.
    pub(super) fn io(path: &Path, error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full;
        }
        Self::Io { what: format!("{}: {error}", path.display()) }
    }

    pub(super) fn corrupt(what: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.to_string() }
    }

    /// From running the migrations, of which `known` is the newest.
    pub(super) fn migrating(error: MigrateError, known: i64) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            MigrateError::VersionMissing(found) => Self::NewerSchema { found, known },
            other => Self::corrupt(other),
        }
    }
}

/// SQLite's primary result codes: <https://www.sqlite.org/rescode.html>.
mod code {
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const TOO_BIG: i32 = 18;
    pub const CONSTRAINT: i32 = 19;
    pub const NOT_A_DATABASE: i32 = 26;
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let what = error.to_string();
        match error {
            sqlx::Error::PoolTimedOut => return Self::Busy { what },
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => return Self::Corrupt { what },
            _ => {}
        }
        let Some(error) = error.as_database_error() else {
            return Self::Io { what };
        };
        let extended: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or_default();
        let what = error.message().to_owned();
        match extended & 0xff {
            code::BUSY | code::LOCKED => Self::Busy { what },
            code::CORRUPT | code::NOT_A_DATABASE => Self::Corrupt { what },
            code::FULL => Self::Full,
            code::TOO_BIG | code::CONSTRAINT => Self::Refused { what },
            _ => Self::Io { what },
        }
    }
}
