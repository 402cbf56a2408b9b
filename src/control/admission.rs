//! The global limit on connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::fatal::Fatal;

/// Counts those who are on their way in, against the limit that they share
/// with the sessions that workers have.
pub struct Admission {
    limit: u32,
    entering: AtomicU32,
}

/// A place, held until dropped.
pub struct Ticket(Arc<Admission>);

impl Admission {
    /// `limit` connections at the same time; 0 sets no limit.
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit,
            entering: AtomicU32::new(0),
        })
    }

    /// A place beside the sessions that exist, or 53300. `sessions` counts
    /// them, those included that are being handed over.
    pub fn enter(self: &Arc<Self>, sessions: impl FnOnce() -> u32) -> Result<Ticket, Fatal> {
        // In this order: who gave a ticket back before has been counted among
        // the sessions before, and is seen there.
        let before = self.entering.fetch_add(1, Ordering::Acquire);
        let ticket = Ticket(self.clone());
        match self.limit != 0 && before.saturating_add(sessions()) >= self.limit {
            true => Err(Fatal::too_many_connections()),
            false => Ok(ticket),
        }
    }

    /// How many connections may be open before they have said who they are:
    /// twice the limit, as in PostgreSQL, so that cancel requests and refusals
    /// still get through when all places are taken.
    pub fn doorway(&self) -> usize {
        match self.limit {
            0 => tokio::sync::Semaphore::MAX_PERMITS,
            limit => limit as usize * 2 + 16,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.entering.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_together_with_sessions_and_given_back() {
        let admission = Admission::new(3);
        let first = admission.enter(|| 0).ok().unwrap();
        let second = admission.enter(|| 1).ok().unwrap();
        assert_eq!(admission.enter(|| 1).err().unwrap().code, "53300");
        drop(first);
        assert!(admission.enter(|| 1).is_ok());
        drop(second);
        assert!(Admission::new(0).enter(|| u32::MAX).is_ok());
    }

    #[test]
    fn who_moves_from_the_door_to_a_worker_is_counted_at_every_moment() {
        let admission = Admission::new(4);
        let sessions = AtomicU32::new(0);
        let most = AtomicU32::new(0);
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let Ok(ticket) = admission.enter(|| sessions.load(Ordering::Relaxed)) else {
                            continue;
                        };
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        sessions.fetch_add(1, Ordering::Relaxed);
                        drop(ticket);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        sessions.fetch_sub(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!((1..=4).contains(&most.into_inner()));
        assert_eq!(admission.entering.load(Ordering::Relaxed), 0);
    }
}
