//! How long answers take, counted by length.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest of each bucket but the last, which has no end.
pub const BOUNDS_MS: [u64; BUCKETS - 1] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
/// How many buckets there are.
pub const BUCKETS: usize = 14;

/// How many answers took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Latency([u64; BUCKETS]);

impl Latency {
    /// So many in each bucket.
    pub fn new(counts: [u64; BUCKETS]) -> Self {
        Self(counts)
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self(std::array::from_fn(|bucket| self.0[bucket].saturating_add(other.0[bucket])))
    }

    /// What came since `before`; a counter that went back began anew.
    pub fn since(self, before: Self) -> Self {
        let began_anew = self.0.iter().zip(before.0).any(|(now, before)| *now < before);
        if began_anew { self } else { Self(std::array::from_fn(|bucket| self.0[bucket] - before.0[bucket])) }
    }

    /// So many per cent of the answers took no longer than this, in milliseconds; estimated within a bucket, as Prometheus'
    /// `histogram_quantile` does. `None` when nothing was counted.
    pub fn percentile_ms(&self, percent: u32) -> Option<u64> {
        let (total, percent) = (u128::from(self.total()), u128::from(percent.min(100)));
        // In hundredths of an answer.
        let rank = total * percent;
        let mut below = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            let count = u128::from(*count) * 100;
            if count > 0 && below + count >= rank {
                let from = bucket.checked_sub(1).map_or(0, |before| BOUNDS_MS[before]);
                // Of what took longer than any bound, only that is known.
                let Some(to) = BOUNDS_MS.get(bucket) else { return Some(from) };
                let into = u128::from(to - from) * (rank - below) / count;
                return Some(from + u64::try_from(into).unwrap_or(0));
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency(counts: &[(usize, u64)]) -> Latency {
        let mut all = [0; BUCKETS];
        counts.iter().for_each(|(bucket, count)| all[*bucket] = *count);
        Latency(all)
    }

    #[test]
    fn a_percentile_is_estimated_within_its_bucket() {
        for (counts, percent, ms) in [
            (&[][..], 50, None),
            (&[(0, 100)], 99, Some(0)),
            (&[(5, 100)], 50, Some(35)),
            (&[(5, 100)], 100, Some(50)),
            (&[(5, 99), (8, 1)], 50, Some(35)),
            (&[(5, 99), (8, 1)], 99, Some(50)),
            (&[(5, 98), (8, 2)], 99, Some(350)),
            (&[(5, 1), (13, 1)], 99, Some(10_000)),
            (&[(13, u64::MAX)], 1, Some(10_000)),
            (&[(3, u64::MAX), (13, u64::MAX)], 50, Some(7)),
        ] {
            assert_eq!(latency(counts).percentile_ms(percent), ms, "{counts:?} {percent}");
        }
    }

    #[test]
    fn a_counter_that_went_back_began_anew() {
        let (before, now) = (latency(&[(1, 5), (2, 5)]), latency(&[(1, 6), (2, 5)]));
        assert_eq!(now.since(before), latency(&[(1, 1)]));
        assert_eq!(latency(&[(1, 9)]).since(before), latency(&[(1, 9)]));
        assert_eq!(now.plus(before), latency(&[(1, 11), (2, 10)]));
        assert!(now.since(now).is_empty() && !now.is_empty());
    }
}
