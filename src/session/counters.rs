//! What the sessions of a process have done, in numbers that only grow.
//!
//! A statement costs a handful of relaxed additions. What a session sends it
//! first counts for itself ([`Traffic`]), so that rows cost nothing shared.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::histogram::Histogram;
use crate::proto;

/// Upper bounds of the buckets in seconds: from a cached point query to a report.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Shared by all sessions of a process.
#[derive(Debug)]
pub struct Counters {
    statements: Histogram,
    errors: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            statements: Histogram::new(SECONDS),
            errors: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }
}

/// What one session has sent since it was last added up.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub rows: u64,
    pub bytes: u64,
}

impl Counters {
    /// A statement has run, to its end or to an error.
    pub(super) fn ran(&self, duration: Duration) {
        self.statements.observe(duration);
    }

    /// A client was told of an error.
    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&self, traffic: &mut Traffic) {
        let Traffic { rows, bytes } = std::mem::take(traffic);
        if rows > 0 {
            self.rows.fetch_add(rows, Relaxed);
        }
        if bytes > 0 {
            self.bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// How long statements took, from their Query or Execute message to their
    /// last row.
    pub fn statement_seconds(&self) -> proto::Histogram {
        self.statements.snapshot()
    }

    /// Errors that clients were told of.
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    /// Rows that were sent, those of COPY included.
    pub fn rows_sent(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Bytes that were written to clients, as they went over the network.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}
