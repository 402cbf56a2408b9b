//! Who is here: every session of this worker by its backend id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::session::Handle;

/// The sessions of a worker.
#[derive(Debug)]
pub(super) struct Registry {
    /// `None` is a session that is on its way in.
    sessions: Mutex<HashMap<i32, Option<Arc<Handle>>>>,
    /// Changes with every event that a health report tells of.
    events: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    serial: u64,
    accepted: u64,
    sessions: usize,
    draining: bool,
    drained: bool,
}

/// Why a session cannot come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Its backend id is taken.
    InUse,
    /// The worker is being drained.
    Draining,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry {
            sessions: Mutex::default(),
            events: watch::Sender::new(State::default()),
        }
    }
}

impl Registry {
    /// Takes a place for a session; it is given back when the value is dropped.
    pub(super) fn reserve(self: &Arc<Self>, backend_id: i32) -> Result<Place, Full> {
        let mut sessions = self.lock();
        if self.events.borrow().draining {
            return Err(Full::Draining);
        }
        if sessions.contains_key(&backend_id) {
            return Err(Full::InUse);
        }
        sessions.insert(backend_id, None);
        self.events.send_modify(|state| {
            state.accepted += 1;
            state.sessions = sessions.len();
            state.serial += 1;
        });
        Ok(Place {
            registry: self.clone(),
            backend_id,
        })
    }

    pub(super) fn get(&self, backend_id: i32) -> Option<Arc<Handle>> {
        self.lock().get(&backend_id).cloned().flatten()
    }

    pub(super) fn handles(&self) -> Vec<Arc<Handle>> {
        self.lock().values().flatten().cloned().collect()
    }

    /// How many sessions there are, and how many there have ever been.
    pub(super) fn counts(&self) -> (usize, u64) {
        let state = self.events.borrow();
        (state.sessions, state.accepted)
    }

    /// No session may come in any more; returns those that are here.
    pub(super) fn begin_drain(&self) -> Vec<Arc<Handle>> {
        let sessions = self.lock();
        self.events.send_modify(|state| {
            state.draining = true;
            state.serial += 1;
        });
        sessions.values().flatten().cloned().collect()
    }

    /// All that a drain has to do is done.
    pub(super) fn finish_drain(&self) {
        self.events.send_modify(|state| state.drained = true);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.events.borrow().draining
    }

    /// Returns when a drain has begun.
    pub(super) async fn draining(&self) {
        let _ = self.events.subscribe().wait_for(|state| state.draining).await;
    }

    /// Returns when a drain that was asked for is over.
    pub(super) async fn drained(&self) {
        let _ = self.events.subscribe().wait_for(|state| state.drained).await;
    }

    /// Returns when there is no session.
    pub(super) async fn empty(&self) {
        let _ = self
            .events
            .subscribe()
            .wait_for(|state| state.sessions == 0)
            .await;
    }

    /// Wakes whenever something changed.
    pub(super) fn changes(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.events.subscribe();
        receiver.mark_unchanged();
        async move {
            let _ = receiver.changed().await;
        }
    }

    fn changed(&self, sessions: &HashMap<i32, Option<Arc<Handle>>>) {
        self.events.send_modify(|state| {
            state.sessions = sessions.len();
            state.serial += 1;
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Option<Arc<Handle>>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the registry.
#[derive(Debug)]
pub(super) struct Place {
    registry: Arc<Registry>,
    backend_id: i32,
}

impl Place {
    /// The session is running now and can be reached through `handle`.
    pub(super) fn fill(&self, handle: Arc<Handle>) {
        let mut sessions = self.registry.lock();
        if self.registry.is_draining() {
            handle.end();
        }
        sessions.insert(self.backend_id, Some(handle));
        self.registry.changed(&sessions);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        sessions.remove(&self.backend_id);
        self.registry.changed(&sessions);
    }
}
