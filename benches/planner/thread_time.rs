//! The processor time of this thread instead of the time on the wall: a busy machine measures the same as a quiet one.

use std::{fs, time::Duration};

use criterion::measurement::{Measurement, ValueFormatter, WallTime};

/// As the kernel counts it; good to a few milliseconds, of which a sample takes many.
pub(super) struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let counted = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
        let on_processor = counted.split_whitespace().next().and_then(|ns| ns.parse().ok());
        Duration::from_nanos(on_processor.expect("nanoseconds first"))
    }

    fn end(&self, started: Duration) -> Duration {
        self.start().saturating_sub(started)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        static WALL: WallTime = WallTime;
        WALL.formatter()
    }
}
