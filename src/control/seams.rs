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

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.started.plus_ms(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
