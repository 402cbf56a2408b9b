//! Backend ids: the "process ids" that clients see in BackendKeyData.
//!
//! An id names its worker in its upper bits, so that a CancelRequest reaches
//! exactly one worker without any table, before and after restarts of either
//! side. The lower bits count; a worker that still has a session of the same
//! number refuses the handoff, and the next number is taken.

use std::sync::atomic::{AtomicU32, Ordering};

const COUNTER_BITS: u32 = 21;
const COUNTER_MASK: u32 = (1 << COUNTER_BITS) - 1;

/// The largest worker number: ids stay positive.
pub const MAX_WORKER: u16 = (1 << (31 - COUNTER_BITS)) - 1;

/// The ids of one worker's sessions.
pub struct BackendIds {
    worker: u16,
    next: AtomicU32,
}

impl BackendIds {
    /// The ids of worker 1 to [`MAX_WORKER`]. They begin anywhere, so that a
    /// restarted control plane rarely meets the ids of sessions that live on.
    pub fn new(worker: u16, start: u32) -> Self {
        debug_assert!((1..=MAX_WORKER).contains(&worker));
        Self {
            worker,
            next: AtomicU32::new(start),
        }
    }

    /// The next id, always positive.
    pub fn next(&self) -> i32 {
        let counter = self.next.fetch_add(1, Ordering::Relaxed) & COUNTER_MASK;
        // Ten bits of worker above 21 bits of counter leave the sign bit clear.
        (u32::from(self.worker) << COUNTER_BITS | counter) as i32
    }
}

/// The worker that an id names; `None` if no such id is ever given out.
pub fn worker_of(id: i32) -> Option<u16> {
    let worker = u32::try_from(id).ok()? >> COUNTER_BITS;
    u16::try_from(worker).ok().filter(|worker| *worker > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_positive_and_names_its_worker_also_when_the_counter_wraps() {
        for worker in [1, 2, 700, MAX_WORKER] {
            for start in [0, 5, COUNTER_MASK, u32::MAX - 1] {
                let ids = BackendIds::new(worker, start);
                for _ in 0..4 {
                    let id = ids.next();
                    assert!(id > 0);
                    assert_eq!(worker_of(id), Some(worker));
                }
            }
        }
    }

    #[test]
    fn ids_repeat_only_after_two_million() {
        let ids = BackendIds::new(3, u32::MAX - 10);
        let first = ids.next();
        let repeated = (1..=COUNTER_MASK).map(|_| ids.next()).any(|id| id == first);
        assert!(!repeated);
        assert_eq!(ids.next(), first);
    }

    #[test]
    fn foreign_ids_name_no_worker() {
        assert_eq!(worker_of(-5), None);
        assert_eq!(worker_of(0), None);
        assert_eq!(worker_of(12345), None);
    }
}
