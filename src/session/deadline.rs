//! Stops statements that take longer than `statement_timeout` allows.
//!
//! One thread for all sessions of a worker. A session has at most one entry in
//! its queue, which stays where it is while statements come and go: when its
//! time is up, the thread looks what the session is doing by then.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::handle::Handle;

/// The queue of deadlines, and the thread that keeps them.
#[derive(Default)]
pub struct Deadlines {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: BinaryHeap<Reverse<Entry>>,
    running: bool,
    stop: bool,
}

struct Entry {
    at: Instant,
    handle: Weak<Handle>,
}

impl Deadlines {
    /// Looks after this session at this time. The thread is started by the first.
    pub(super) fn watch(&self, handle: &Arc<Handle>, at: Instant) {
        let mut state = self.queue.lock();
        if !state.running {
            let queue = self.queue.clone();
            let started = std::thread::Builder::new()
                .name("deadlines".to_owned())
                .spawn(move || queue.keep());
            match started {
                Ok(_) => state.running = true,
                Err(error) => tracing::error!(%error, "statements are not stopped at their timeout"),
            }
        }
        let handle = Arc::downgrade(handle);
        state.entries.push(Reverse(Entry { at, handle }));
        if state.entries.peek().is_some_and(|first| first.0.at == at) {
            self.queue.changed.notify_one();
        }
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.queue.lock().stop = true;
        self.queue.changed.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self) {
        let mut state = self.lock();
        while !state.stop {
            let now = Instant::now();
            let wait = state
                .entries
                .peek()
                .map(|first| first.0.at.saturating_duration_since(now));
            state = match wait {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wait) if !wait.is_zero() => {
                    self.changed
                        .wait_timeout(state, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                Some(_) => {
                    let due = state.entries.pop();
                    // A session that begins a statement takes these locks in the other order.
                    drop(state);
                    let next = due.and_then(|Reverse(entry)| entry.look(now));
                    state = self.lock();
                    state.entries.extend(next.map(Reverse));
                    state
                }
            };
        }
    }
}

impl Entry {
    /// What is to be done about the session, and when to look again.
    fn look(self, now: Instant) -> Option<Entry> {
        let at = self.handle.upgrade()?.overdue(self.at, now)?;
        Some(Entry { at, ..self })
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deadlines").finish_non_exhaustive()
    }
}
