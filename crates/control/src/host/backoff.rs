//! Pauses between attempts: doubling, capped, with jitter. Pure: the caller brings the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Says how long to wait after each failure.
///
/// The pause doubles from `base` to `cap`; jitter takes up to half of it away, so that many hosts
/// that were lost together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
    rng: StdRng,
}

impl Backoff {
    /// A back-off from `base` to `cap`; the same seed gives the same pauses.
    pub fn new(base: Duration, cap: Duration, seed: u64) -> Self {
        Self { base, cap, failures: 0, rng: StdRng::seed_from_u64(seed) }
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and returns the pause before the next attempt.
    pub fn failed(&mut self) -> Duration {
        let factor = 2u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let full = self.base.saturating_mul(factor).min(self.cap);
        full.mul_f64(self.rng.random_range(0.5..=1.0))
    }

    /// Tells that a connection held for `lived` has ended, and returns the pause before the next
    /// attempt: none after one that held longer than the cap, else it counts as a failure, so that a
    /// host which accepts and drops us is not hammered.
    pub fn ended(&mut self, lived: Duration) -> Duration {
        if lived < self.cap {
            return self.failed();
        }
        self.failures = 0;
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_to_the_cap_and_lose_at_most_half() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        for full_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let full = Duration::from_millis(full_ms);
            let pause = backoff.failed();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
        }
        assert_eq!(backoff.failures(), 8);
    }

    #[test]
    fn a_thousand_failures_stay_at_the_cap() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        assert!((0..1000).all(|_| backoff.failed() <= CAP));
    }

    #[test]
    fn the_seed_decides() {
        let pauses = |seed| {
            let mut backoff = Backoff::new(BASE, CAP, seed);
            (0..6).map(|_| backoff.failed()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }

    #[test]
    fn only_a_connection_that_held_forgives() {
        let mut backoff = Backoff::new(BASE, CAP, 7);
        backoff.failed();
        assert!(backoff.ended(Duration::from_millis(10)) > Duration::ZERO);
        assert_eq!(backoff.failures(), 2);
        assert_eq!(backoff.ended(CAP), Duration::ZERO);
        assert_eq!(backoff.failures(), 0);
    }
}
