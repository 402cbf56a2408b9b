//! How long things took, counted without a lock.
//!
//! One relaxed addition to a bucket and one to the sum for each observation; who
//! reads while others count may miss the last of them, and nothing else.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::proto;

/// Durations by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is longer than all of them.
    counts: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

impl Histogram {
    /// With buckets up to and including these seconds, in ascending order.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            nanoseconds: AtomicU64::new(0),
        }
    }

    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Relaxed);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// Adds what another histogram has counted; nothing if its buckets are others.
    pub fn add(&self, other: &proto::Histogram) {
        if other.bounds != self.bounds || other.counts.len() != self.counts.len() {
            return;
        }
        for (count, more) in self.counts.iter().zip(&other.counts) {
            count.fetch_add(*more, Relaxed);
        }
        let sum = Duration::try_from_secs_f64(other.sum).unwrap_or_default();
        let nanoseconds = u64::try_from(sum.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// What was counted until now.
    pub fn snapshot(&self) -> proto::Histogram {
        proto::Histogram {
            bounds: self.bounds.to_vec(),
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: Duration::from_nanos(self.nanoseconds.load(Relaxed)).as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_its_bound_and_the_last_has_none() {
        let histogram = Histogram::new(&[0.001, 0.5]);
        for milliseconds in [0, 1, 2, 500, 501, 100_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.bounds, [0.001, 0.5]);
        assert_eq!(snapshot.counts, [2, 2, 2]);
        assert!((snapshot.sum - 101.004).abs() < 1e-9);
    }

    #[test]
    fn what_another_has_counted_is_added_if_its_buckets_are_the_same() {
        let histogram = Histogram::new(&[0.001, 0.5]);
        histogram.observe(Duration::from_millis(2));
        let mut other = histogram.snapshot();
        histogram.add(&other);
        assert_eq!(histogram.snapshot().counts, [0, 2, 0]);
        assert!((histogram.snapshot().sum - 0.004).abs() < 1e-9);
        other.bounds = vec![0.001, 0.6];
        histogram.add(&other);
        assert_eq!(histogram.snapshot().counts, [0, 2, 0]);
    }
}
