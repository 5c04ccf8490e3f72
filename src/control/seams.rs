//! Where time comes from.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::model::time::Timestamp;

/// The controller's clock: the wall's time when it started, moved on by the monotonic clock. A wall clock that is set
/// while the controller runs moves nothing here, so it cannot make hosts look silent.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Timestamp,
    since: Instant,
}

impl Clock {
    /// From the system's clocks.
    pub fn system() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Timestamp(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)), since: Instant::now() }
    }

    /// Never earlier than `newest`, the latest time that is on record: a wall clock that was set back between two runs would
    /// put everything known into the future.
    pub fn not_before(self, newest: Timestamp) -> Self {
        Self { started: self.started.max(newest), ..self }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.started.plus_ms(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
