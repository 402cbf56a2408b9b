//! Who is here: every session of this worker by its backend id.

mod hold;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, mpsc, watch};

pub(super) use hold::{Hold, InTheWay, Rest, Resting, Standing};

use crate::proto::{Asker, LiveSession};
use crate::session::{Activity, Handle};

/// The sessions of a worker.
#[derive(Debug)]
pub(super) struct Registry {
    sessions: Mutex<Sessions>,
    /// Changes with every event that a health report tells of.
    events: watch::Sender<State>,
    /// What parked sessions wait for: it changes rarely, or all of them would be
    /// woken by each other.
    standing: watch::Sender<Standing>,
    resting: watch::Sender<Resting>,
}

#[derive(Debug, Default)]
struct Sessions {
    by_id: HashMap<i32, Entry>,
    /// Those who are told which sessions end.
    followers: Vec<mpsc::UnboundedSender<Change>>,
    /// Nobody is to be told of their end any more.
    left_to_next: bool,
}

/// What followers are told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    Begun(LiveSession),
    Ended(i32),
}

#[derive(Debug)]
struct Entry {
    about: LiveSession,
    since: SystemTime,
    /// Sees and stops the sessions of all users.
    admin: bool,
    /// `None` while the session is on its way in.
    handle: Option<Arc<Handle>>,
    /// Wakes it when it is idle.
    wake: Arc<Notify>,
    rest: Rest,
}

/// A session as another one sees it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) about: LiveSession,
    pub(super) since: SystemTime,
    pub(super) activity: Activity,
}

/// The session is another user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Denied;

impl Entry {
    fn may_be_seen_by(&self, asker: &Asker) -> bool {
        asker.admin || self.about.user == asker.user
    }
}

impl Sessions {
    fn handles(&self) -> impl Iterator<Item = &Arc<Handle>> {
        self.by_id.values().filter_map(|entry| entry.handle.as_ref())
    }

    fn tell(&mut self, change: &Change) {
        self.followers
            .retain(|follower| follower.send(change.clone()).is_ok());
    }

    fn live(&self) -> Vec<LiveSession> {
        self.by_id.values().map(|entry| entry.about.clone()).collect()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    serial: u64,
    sessions: usize,
    waiting: bool,
    leaving: bool,
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
            standing: watch::Sender::default(),
            resting: watch::Sender::default(),
        }
    }
}

impl Registry {
    /// Takes a place for a session; it is given back when the value is dropped.
    pub(super) fn reserve(self: &Arc<Self>, about: LiveSession) -> Result<Place, Full> {
        let mut sessions = self.lock();
        if self.events.borrow().draining {
            return Err(Full::Draining);
        }
        let backend_id = about.backend_id;
        if sessions.by_id.contains_key(&backend_id) {
            return Err(Full::InUse);
        }
        sessions.tell(&Change::Begun(about.clone()));
        let wake = Arc::new(Notify::new());
        let entry = Entry {
            about,
            since: SystemTime::now(),
            admin: false,
            handle: None,
            wake: wake.clone(),
            rest: Rest::Busy,
        };
        sessions.by_id.insert(backend_id, entry);
        self.changed(&sessions);
        Ok(Place {
            registry: self.clone(),
            backend_id,
            wake,
        })
    }

    pub(super) fn get(&self, backend_id: i32) -> Option<Arc<Handle>> {
        self.lock().by_id.get(&backend_id)?.handle.clone()
    }

    pub(super) fn handles(&self) -> Vec<Arc<Handle>> {
        self.lock().handles().cloned().collect()
    }

    /// Those of one database.
    pub(super) fn handles_of(&self, database: &str) -> Vec<Arc<Handle>> {
        let sessions = self.lock();
        let of_database = |entry: &&Entry| entry.about.database == database;
        let entries = sessions.by_id.values().filter(of_database);
        entries.filter_map(|entry| entry.handle.clone()).collect()
    }

    /// How many sessions there are.
    pub(super) fn count(&self) -> usize {
        self.events.borrow().sessions
    }

    /// How many sessions are running a statement.
    pub(super) fn running(&self) -> usize {
        self.lock().handles().filter(|handle| handle.is_running()).count()
    }

    /// How many sessions have a transaction open.
    pub(super) fn pinned(&self) -> usize {
        self.lock().handles().filter(|handle| handle.is_pinned()).count()
    }

    /// The sessions that there are now.
    pub(super) fn live(&self) -> Vec<LiveSession> {
        self.lock().live()
    }

    /// The sessions that there are now, and from now on those that come and go.
    pub(super) fn follow(&self) -> (Vec<LiveSession>, mpsc::UnboundedReceiver<Change>) {
        let (follower, changes) = mpsc::unbounded_channel();
        let mut sessions = self.lock();
        sessions.followers.retain(|follower| !follower.is_closed());
        sessions.followers.push(follower);
        (sessions.live(), changes)
    }

    /// Ends the sessions of a database whose instance cannot be used any more:
    /// idle ones at once, the others at their next message.
    pub(super) fn end_sessions_of(&self, database: &str) {
        let sessions = self.lock();
        let of_database = |entry: &&Entry| entry.about.database == database;
        for entry in sessions.by_id.values().filter(of_database) {
            if let Some(handle) = &entry.handle {
                handle.end();
                entry.wake.notify_one();
            }
        }
    }

    /// This session, as one that asks about others.
    pub(super) fn asker(&self, backend_id: i32) -> Option<Asker> {
        let sessions = self.lock();
        let entry = sessions.by_id.get(&backend_id)?;
        Some(Asker {
            user: entry.about.user.clone(),
            database: entry.about.database.clone(),
            admin: entry.admin,
        })
    }

    /// The sessions of this worker that `asker` may see.
    pub(super) fn seen_by(&self, asker: &Asker) -> Vec<Seen> {
        let sessions = self.lock();
        let visible = sessions
            .by_id
            .values()
            .filter(|entry| entry.may_be_seen_by(asker));
        visible
            .filter_map(|entry| {
                Some(Seen {
                    about: entry.about.clone(),
                    since: entry.since,
                    activity: entry.handle.as_ref()?.activity(),
                })
            })
            .collect()
    }

    /// The databases that `asker` may see, with their numbers of sessions here: its
    /// own, or for an administrator all that have some.
    pub(super) fn databases_seen_by(&self, asker: &Asker) -> BTreeMap<String, u32> {
        let mut databases = BTreeMap::<String, u32>::from([(asker.database.clone(), 0)]);
        for entry in self.lock().by_id.values() {
            if asker.admin || entry.about.database == asker.database {
                *databases.entry(entry.about.database.clone()).or_default() += 1;
            }
        }
        databases
    }

    /// The session `target`, for `asker` to stop, if it is here.
    ///
    /// # Errors
    /// It is not for `asker` to stop.
    pub(super) fn reachable(&self, target: i32, asker: &Asker) -> Result<Option<Arc<Handle>>, Denied> {
        match self.lock().by_id.get(&target) {
            Some(target) if target.may_be_seen_by(asker) => Ok(target.handle.clone()),
            Some(_) => Err(Denied),
            None => Ok(None),
        }
    }

    /// Ends a session: at once if it is idle, otherwise at its next message.
    pub(super) fn end(&self, backend_id: i32) {
        if let Some(Entry {
            handle: Some(handle),
            wake,
            ..
        }) = self.lock().by_id.get(&backend_id)
        {
            handle.end();
            wake.notify_one();
        }
    }

    /// Something that a report tells of has changed.
    pub(super) fn touch(&self) {
        self.events.send_modify(|state| state.serial += 1);
    }

    /// The worker is to stop as soon as it is its turn.
    pub(super) fn await_turn(&self) {
        self.events.send_modify(|state| {
            state.waiting = true;
            state.serial += 1;
        });
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.events.borrow().waiting
    }

    /// It is its turn, and it stops when its sessions are at rest.
    pub(super) fn begin_to_leave(&self) {
        self.events.send_modify(|state| {
            state.waiting = false;
            state.leaving = true;
            state.serial += 1;
        });
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.events.borrow().leaving
    }

    /// No session may come in any more; returns those that are here.
    pub(super) fn begin_drain(&self) -> Vec<Arc<Handle>> {
        let sessions = self.lock();
        self.events.send_modify(|state| {
            state.draining = true;
            state.serial += 1;
        });
        self.standing.send_modify(|standing| standing.draining = true);
        sessions.handles().cloned().collect()
    }

    /// All that a drain has to do is done.
    pub(super) fn finish_drain(&self) {
        self.events.send_modify(|state| state.drained = true);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.events.borrow().draining
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

    fn changed(&self, sessions: &Sessions) {
        self.events.send_modify(|state| {
            state.sessions = sessions.by_id.len();
            state.serial += 1;
        });
        self.count_sessions(sessions);
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the registry.
#[derive(Debug)]
pub(super) struct Place {
    registry: Arc<Registry>,
    backend_id: i32,
    wake: Arc<Notify>,
}

impl Place {
    /// The session is running now and can be reached through `handle`; is it an
    /// administrator's?
    pub(super) fn fill(&self, handle: Arc<Handle>, admin: bool) {
        let mut sessions = self.registry.lock();
        if self.registry.is_draining() {
            handle.end();
        }
        self.registry.hold_new(&handle);
        if let Some(entry) = sessions.by_id.get_mut(&self.backend_id) {
            entry.handle = Some(handle);
            entry.admin = admin;
        }
        self.registry.changed(&sessions);
    }

    /// Returns when the session is to look whether it should end.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.registry.lock();
        if let Some(entry) = sessions.by_id.remove(&self.backend_id) {
            self.registry.count_rest(entry.rest, Rest::Busy);
        }
        let id = self.backend_id;
        if !sessions.left_to_next {
            sessions.tell(&Change::Ended(id));
        }
        self.registry.changed(&sessions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(backend_id: i32) -> LiveSession {
        LiveSession {
            backend_id,
            database: "a".into(),
            ..LiveSession::default()
        }
    }

    #[test]
    fn a_follower_learns_who_is_here_and_then_who_comes_and_leaves() {
        let registry = Arc::new(Registry::default());
        let first = registry.reserve(about(1)).unwrap();
        let (live, mut changes) = registry.follow();
        assert_eq!(live, [about(1)]);
        let second = registry.reserve(about(2)).unwrap();
        assert_eq!(registry.count(), 2);
        drop((second, first));
        assert_eq!(
            (changes.try_recv(), changes.try_recv(), changes.try_recv()),
            (
                Ok(Change::Begun(about(2))),
                Ok(Change::Ended(2)),
                Ok(Change::Ended(1))
            )
        );
        assert!(registry.live().is_empty());
    }

    #[test]
    fn an_id_is_given_to_one_session_at_a_time() {
        let registry = Arc::new(Registry::default());
        let place = registry.reserve(about(1)).unwrap();
        assert_eq!(registry.reserve(about(1)).unwrap_err(), Full::InUse);
        drop(place);
        registry.reserve(about(1)).unwrap();
        registry.begin_drain();
        assert_eq!(registry.reserve(about(2)).unwrap_err(), Full::Draining);
    }
}
