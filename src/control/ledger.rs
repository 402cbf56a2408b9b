//! Which sessions there are, and which worker has which database.
//!
//! One table under one lock, fed from two sides: what this process sends to the
//! workers, and what they report. A session is entered before it is offered to a
//! worker and struck out when the worker says that it has ended, when the
//! worker's process is gone, or when the offer failed. So limits hold for a
//! session's whole life, and nothing is counted twice or for ever: every stream
//! of reports begins with all the sessions that the worker has.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::backend_id::worker_of;
use super::placement::{Decision, Patience, Placement, Table};
use crate::proto::Report;

/// How long after its acceptance a session may be missing in a list of all
/// sessions: the list may have been on its way already.
const GRACE: Duration = Duration::from_secs(10);

/// What happened to a session that others keep count of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Another control plane has placed it, before this one or beside it.
    Adopted {
        /// Its backend id.
        backend_id: i32,
        /// Where its client is: "203.0.113.7:50312", or "local" on a Unix socket.
        address: String,
    },
    /// It has ended. Comes once for each session that was accepted or adopted.
    Ended {
        /// Its backend id.
        backend_id: i32,
    },
}

/// The table.
pub struct Ledger {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    events: mpsc::UnboundedSender<SessionEvent>,
}

struct State {
    table: Table,
    sessions: HashMap<i32, Entry>,
    /// Each worker's process: its id and start time.
    processes: HashMap<u16, (u32, u64)>,
}

struct Entry {
    user: String,
    database: String,
    worker: u16,
    /// When the worker took it; `None` while it is being offered.
    accepted: Option<Instant>,
    /// It has ended before its offer was answered.
    over: bool,
}

impl Ledger {
    /// The ledger of these workers (number, whether it is retiring). What happens
    /// to sessions is told to `events`.
    pub fn new(
        workers: impl IntoIterator<Item = (u16, bool)>,
        patience: Patience,
        events: mpsc::UnboundedSender<SessionEvent>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                table: Table::new(workers, patience, Instant::now()),
                sessions: HashMap::new(),
                processes: HashMap::new(),
            }),
            changed: watch::Sender::new(()),
            events,
        })
    }

    /// Wakes when a decision may be another one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// There is such a worker, or again.
    pub fn enlist(&self, worker: u16) {
        if self.lock().table.enlist(worker, Instant::now()) {
            self.changed.send_replace(());
        }
    }

    /// A worker gets no more databases, and when its process has ended it is none.
    pub fn retire(&self, worker: u16) {
        self.lock().table.retire(worker);
    }

    /// Decides who serves a session of `database`, or until when to wait.
    pub fn place(self: &Arc<Self>, database: &str, placement: Placement) -> Result<Passage, Option<Instant>> {
        match self.lock().table.place(database, placement, Instant::now()) {
            Decision::Wait(until) => Err(until),
            Decision::Use(worker) => Ok(Passage {
                ledger: self.clone(),
                database: database.to_owned(),
                worker,
                backend_id: None,
            }),
        }
    }

    /// Is this worker not configured any more, and kept for its sessions only?
    pub fn is_retiring(&self, worker: u16) -> bool {
        self.lock().table.is_retiring(worker)
    }

    /// The worker that has this session, or would have it if there were one.
    pub fn worker_of(&self, backend_id: i32) -> Option<u16> {
        let known = self.lock().sessions.get(&backend_id).map(|entry| entry.worker);
        known.or_else(|| worker_of(backend_id))
    }

    /// The worker has closed this database for good: others may have it.
    pub fn gives_up(&self, worker: u16, database: &str) {
        self.lock().table.gives_up(database, worker);
    }

    /// How many sessions there are, those on their way included.
    pub fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Shows every session to `visit`, those on their way included: its user, its
    /// database, its worker. The table is locked meanwhile.
    pub fn visit(&self, mut visit: impl FnMut(&str, &str, u16)) {
        for entry in self.lock().sessions.values() {
            visit(&entry.user, &entry.database, entry.worker);
        }
    }

    /// Takes in a report.
    pub fn reported(&self, worker: u16, report: &Report) {
        let now = Instant::now();
        let mut state = self.lock();
        let process = (report.process_id, report.start_time);
        let live: HashSet<i32> = report.live.iter().map(|session| session.backend_id).collect();
        if state
            .processes
            .insert(worker, process)
            .is_some_and(|before| before != process)
        {
            // Those that the new one has taken up go on.
            let gone = |id: i32, entry: &Entry| entry.accepted.is_some() && !live.contains(&id);
            self.strike_out(&mut state, worker, gone, now);
        }
        if report.snapshot {
            let missing = |id: i32, entry: &Entry| {
                let settled = entry.accepted.is_some_and(|at| now >= at + GRACE);
                settled && !live.contains(&id)
            };
            self.strike_out(&mut state, worker, missing, now);
        }
        for session in &report.live {
            // Its id may name the worker that it was moved from, which still lists it.
            if state.sessions.contains_key(&session.backend_id) {
                continue;
            }
            let entry = Entry {
                user: session.user.clone(),
                database: session.database.clone(),
                worker,
                accepted: Some(now),
                over: false,
            };
            state.sessions.insert(session.backend_id, entry);
            state.table.begin(&session.database, worker, now);
            self.tell(SessionEvent::Adopted {
                backend_id: session.backend_id,
                address: session.address.clone(),
            });
        }
        for id in &report.ended {
            match state.sessions.get_mut(id) {
                Some(entry) if entry.worker != worker => {}
                Some(entry) if entry.accepted.is_none() => entry.over = true,
                Some(_) => self.strike_one(&mut state, *id, now),
                None => {}
            }
        }
        let ready = !report.draining && report.hung.is_empty();
        let changed = state.table.reported(worker, &report.open_databases, ready, now);
        drop(state);
        if changed {
            self.changed.send_replace(());
        }
    }

    /// A worker does not report any more. Its sessions may well go on.
    pub fn lost(&self, worker: u16) {
        self.lock().table.lost(worker, Instant::now());
    }

    /// A worker's process is gone, and its sessions with it. Those that are still
    /// being offered wait in its socket for the next process.
    pub fn process_ended(&self, worker: u16) {
        let now = Instant::now();
        let mut state = self.lock();
        state.processes.remove(&worker);
        self.strike_out(&mut state, worker, |_, entry| entry.accepted.is_some(), now);
        state.table.ended(worker, now);
        drop(state);
        self.changed.send_replace(());
    }

    fn strike_out(&self, state: &mut State, worker: u16, which: impl Fn(i32, &Entry) -> bool, now: Instant) {
        let ids: Vec<i32> = state
            .sessions
            .iter()
            .filter(|(id, entry)| entry.worker == worker && which(**id, entry))
            .map(|(id, _)| *id)
            .collect();
        ids.into_iter().for_each(|id| self.strike_one(state, id, now));
    }

    fn strike_one(&self, state: &mut State, backend_id: i32, now: Instant) {
        if let Some(entry) = state.sessions.remove(&backend_id) {
            state.table.end(&entry.database, entry.worker, now);
            self.tell(SessionEvent::Ended { backend_id });
        }
    }

    fn tell(&self, event: SessionEvent) {
        // Nobody listens any more when the server stops.
        let _ = self.events.send(event);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session on its way to a worker, counted as the worker's. Dropped, it did
/// not arrive.
pub struct Passage {
    ledger: Arc<Ledger>,
    database: String,
    worker: u16,
    backend_id: Option<i32>,
}

impl Passage {
    /// Where it goes.
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// Enters the user's session under a backend id; false if the id is another's.
    pub fn enter(&mut self, backend_id: i32, user: &str) -> bool {
        let mut state = self.ledger.lock();
        if state.sessions.contains_key(&backend_id) {
            return false;
        }
        if let Some(before) = self.backend_id.replace(backend_id) {
            state.sessions.remove(&before);
        }
        let entry = Entry {
            user: user.to_owned(),
            database: self.database.clone(),
            worker: self.worker,
            accepted: None,
            over: false,
        };
        state.sessions.insert(backend_id, entry);
        true
    }

    /// The worker has it.
    pub fn accepted(mut self) {
        let now = Instant::now();
        let mut state = self.ledger.lock();
        let Some(id) = self.backend_id.take() else { return };
        match state.sessions.get_mut(&id) {
            Some(entry) if entry.over => self.ledger.strike_one(&mut state, id, now),
            Some(entry) => entry.accepted = Some(now),
            None => {}
        }
        // The entry has the count now.
        self.worker = 0;
    }

    /// The worker has it, and another one had it before, under this id.
    pub fn moved(mut self, backend_id: i32, user: &str, address: &str) {
        let now = Instant::now();
        let mut state = self.ledger.lock();
        let entry = Entry {
            user: user.to_owned(),
            database: self.database.clone(),
            worker: self.worker,
            accepted: Some(now),
            over: false,
        };
        match state.sessions.insert(backend_id, entry) {
            Some(before) => state.table.end(&before.database, before.worker, now),
            None => self.ledger.tell(SessionEvent::Adopted {
                backend_id,
                address: address.to_owned(),
            }),
        }
        // The entry has the count now.
        self.worker = 0;
    }

    /// The worker refused it: it may not be the database's owner.
    pub fn refused(self) {
        let mut state = self.ledger.lock();
        state.table.refused(&self.database, self.worker);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if self.worker == 0 {
            return;
        }
        let mut state = self.ledger.lock();
        if let Some(id) = self.backend_id {
            state.sessions.remove(&id);
        }
        state.table.end(&self.database, self.worker, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::backend_id::BackendIds;
    use crate::proto::LiveSession;

    const PATIENCE: Patience = Patience {
        owner: Duration::from_secs(10),
        first_reports: Duration::from_secs(5),
    };

    fn ledger() -> (Arc<Ledger>, mpsc::UnboundedReceiver<SessionEvent>) {
        let (events, received) = mpsc::unbounded_channel();
        let ledger = Ledger::new([(1, false), (2, false)], PATIENCE, events);
        ledger.reported(1, &report(1));
        ledger.reported(2, &report(1));
        (ledger, received)
    }

    fn report(process_id: u32) -> Report {
        Report {
            process_id,
            start_time: 1,
            ..Report::default()
        }
    }

    fn live(backend_id: i32) -> LiveSession {
        LiveSession {
            backend_id,
            database: "a".into(),
            address: "local".into(),
            ..LiveSession::default()
        }
    }

    fn send(ledger: &Arc<Ledger>, id: i32) -> Passage {
        let mut passage = ledger.place("a", Placement::Owner).ok().unwrap();
        assert!(passage.enter(id, "u"));
        passage
    }

    #[test]
    fn a_session_is_counted_from_its_offer_to_its_end() {
        let (ledger, mut events) = ledger();
        let id = BackendIds::new(1, 5).next();
        let passage = send(&ledger, id);
        assert_eq!(ledger.sessions(), 1);
        passage.accepted();
        assert_eq!(ledger.sessions(), 1);
        let ended = Report {
            ended: vec![id],
            ..report(1)
        };
        ledger.reported(1, &ended);
        ledger.reported(1, &ended);
        assert_eq!(ledger.sessions(), 0);
        assert_eq!(
            events.try_recv(),
            Ok(SessionEvent::Ended { backend_id: id }),
            "and this is told"
        );
        assert!(events.try_recv().is_err(), "once");
    }

    #[test]
    fn a_session_that_has_moved_is_its_new_workers_whatever_the_old_one_says() {
        let (ledger, mut events) = ledger();
        let id = BackendIds::new(1, 5).next();
        let passage = send(&ledger, id);
        let from = passage.worker();
        passage.accepted();
        ledger.gives_up(from, "a");
        let leaving = Report {
            draining: true,
            snapshot: true,
            live: vec![live(id)],
            ..report(1)
        };
        ledger.reported(from, &leaving);
        let passage = ledger.place("a", Placement::Owner).ok().unwrap();
        let to = passage.worker();
        assert_ne!(to, from);
        passage.moved(id, "u", "local");
        assert_eq!((ledger.worker_of(id), ledger.sessions()), (Some(to), 1));
        ledger.reported(from, &leaving);
        ledger.reported(
            from,
            &Report {
                ended: vec![id],
                ..leaving
            },
        );
        ledger.process_ended(from);
        assert_eq!((ledger.worker_of(id), ledger.sessions()), (Some(to), 1));
        assert!(events.try_recv().is_err(), "nothing has happened to it");
        ledger.process_ended(to);
        assert_eq!(events.try_recv(), Ok(SessionEvent::Ended { backend_id: id }));
        assert_eq!(ledger.worker_of(id), Some(1), "as its id says");
    }

    #[test]
    fn a_session_that_ends_before_its_offer_is_answered_ends_with_the_answer() {
        let (ledger, mut events) = ledger();
        let id = BackendIds::new(1, 5).next();
        let passage = send(&ledger, id);
        let ended = Report {
            ended: vec![id],
            ..report(1)
        };
        ledger.reported(1, &ended);
        assert!(events.try_recv().is_err());
        passage.accepted();
        assert_eq!(events.try_recv(), Ok(SessionEvent::Ended { backend_id: id }));
        assert_eq!(ledger.sessions(), 0);
    }

    #[test]
    fn an_offer_that_fails_leaves_nothing() {
        let (ledger, mut events) = ledger();
        drop(send(&ledger, BackendIds::new(1, 5).next()));
        send(&ledger, BackendIds::new(1, 6).next()).refused();
        assert_eq!(ledger.sessions(), 0);
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn an_id_is_not_given_to_two_sessions() {
        let (ledger, _events) = ledger();
        let id = BackendIds::new(1, 5).next();
        let _first = send(&ledger, id);
        let mut second = ledger.place("a", Placement::Owner).ok().unwrap();
        assert!(!second.enter(id, "u"));
        assert!(second.enter(id + 1, "u"));
        assert!(second.enter(id + 2, "u"), "another attempt");
        assert_eq!(ledger.sessions(), 2);
    }

    #[test]
    fn a_counter_that_wraps_passes_over_the_ids_of_sessions_that_live_on() {
        let (ledger, _events) = ledger();
        let old = BackendIds::new(1, 0);
        let lasting: Vec<i32> = (0..3).map(|_| old.next()).collect();
        for id in &lasting {
            send(&ledger, *id).accepted();
        }
        // The last id before the counter begins anew.
        let wrapping = BackendIds::new(1, (1 << 21) - 1);
        let mut passage = ledger.place("a", Placement::Owner).ok().unwrap();
        assert!(passage.enter(wrapping.next(), "u"));
        passage.accepted();
        let mut passage = ledger.place("a", Placement::Owner).ok().unwrap();
        let refused: Vec<i32> = (0..3)
            .map(|_| wrapping.next())
            .filter(|id| !passage.enter(*id, "u"))
            .collect();
        assert_eq!(refused, lasting);
        assert!(passage.enter(wrapping.next(), "u"));
    }

    #[test]
    fn sessions_of_an_earlier_control_plane_are_counted_and_keep_their_worker() {
        let (ledger, mut events) = ledger();
        let id = BackendIds::new(2, 5).next();
        let snapshot = Report {
            snapshot: true,
            live: vec![live(id)],
            open_databases: vec!["a".into()],
            ..report(1)
        };
        ledger.reported(2, &snapshot);
        ledger.reported(2, &snapshot);
        assert_eq!(ledger.sessions(), 1);
        let adopted = SessionEvent::Adopted {
            backend_id: id,
            address: "local".into(),
        };
        assert_eq!(events.try_recv(), Ok(adopted));
        assert!(events.try_recv().is_err(), "once");
        assert_eq!(ledger.place("a", Placement::Owner).ok().unwrap().worker(), 2);
    }

    #[test]
    fn sessions_that_another_control_plane_places_beside_this_one_are_counted() {
        let (ledger, mut events) = ledger();
        let own = send(&ledger, BackendIds::new(1, 5).next());
        let foreign = BackendIds::new(1, 900).next();
        let begun = Report {
            live: vec![live(foreign), live(BackendIds::new(1, 5).next())],
            ..report(1)
        };
        ledger.reported(1, &begun);
        own.accepted();
        assert_eq!(ledger.sessions(), 2);
        let ended = Report {
            ended: vec![foreign],
            ..report(1)
        };
        ledger.reported(1, &ended);
        assert_eq!(ledger.sessions(), 1);
        assert!(
            matches!(events.try_recv(), Ok(SessionEvent::Adopted { backend_id, .. }) if backend_id == foreign)
        );
        assert_eq!(events.try_recv(), Ok(SessionEvent::Ended { backend_id: foreign }));
    }

    #[test]
    fn what_a_new_process_does_not_have_has_ended_and_what_is_on_its_way_has_not() {
        let (ledger, mut events) = ledger();
        let id = BackendIds::new(1, 5).next();
        send(&ledger, id).accepted();
        let _on_its_way = send(&ledger, id + 1);
        ledger.reported(1, &report(2));
        assert_eq!(events.try_recv(), Ok(SessionEvent::Ended { backend_id: id }));
        assert_eq!(ledger.sessions(), 1);
        ledger.process_ended(1);
        assert_eq!(ledger.sessions(), 1);
    }

    #[test]
    fn a_list_that_is_older_than_a_session_does_not_end_it() {
        let (ledger, mut events) = ledger();
        send(&ledger, BackendIds::new(1, 5).next()).accepted();
        let snapshot = Report {
            snapshot: true,
            ..report(1)
        };
        ledger.reported(1, &snapshot);
        assert!(events.try_recv().is_err());
        assert_eq!(ledger.sessions(), 1);
    }

    #[test]
    fn a_hundred_that_ask_at_once_are_told_the_same() {
        let (ledger, _events) = ledger();
        let passages: Vec<Passage> = std::thread::scope(|scope| {
            let ask = || ledger.place("new", Placement::Owner).ok().unwrap();
            let threads: Vec<_> = (0..100).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let first = passages[0].worker();
        assert!(passages.iter().all(|passage| passage.worker() == first));
    }
}
