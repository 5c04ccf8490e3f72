//! Values as the columns hold them.

use serde::{Serialize, de::DeserializeOwned};

use super::StoreError;
use roadstead_core::model::time::Timestamp;

/// As JSON.
pub(super) fn to_json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused { what: format!("not JSON: {error}") })
}

/// From JSON; `whose` says in which row it stands.
pub(super) fn from_json<T: DeserializeOwned>(json: &str, whose: impl FnOnce() -> String) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::corrupt(format_args!("{}: {error}", whose())))
}

/// A number as SQLite holds it: what is beyond its range becomes its greatest.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number as SQLite holds it, back.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// A time as SQLite holds it.
pub(super) fn ms(at: Timestamp) -> i64 {
    integer(at.0)
}

/// A time as SQLite holds it, back.
pub(super) fn timestamp(ms: i64) -> Timestamp {
    Timestamp(unsigned(ms))
}
