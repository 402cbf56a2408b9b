//! What others may do to a running session: cancel its statement, end it, tell
//! it that its client is gone.
//!
//! A cancel concerns the statement in flight and no other. DuckDB forgets an
//! interrupt that arrives just before a statement starts, so whoever stops a
//! statement repeats it until [`Handle::nudge`] says that it is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::activity::Activity;
use super::deadline::Deadlines;
use crate::engine::Interrupt;
use crate::handoff::CancelKey;

/// After this an overdue statement is interrupted once more.
const AGAIN: Duration = Duration::from_millis(10);

/// The outside of a session, shared between it and the worker.
#[derive(Debug)]
pub struct Handle {
    backend_id: i32,
    cancel_key: CancelKey,
    interrupt: Interrupt,
    deadlines: Arc<Deadlines>,
    statement: Mutex<InFlight>,
    activity: Mutex<Activity>,
    client_gone: AtomicBool,
    ending: AtomicBool,
    held: AtomicBool,
    pinned: AtomicBool,
}

#[derive(Debug, Default)]
struct InFlight {
    /// Counts statements, so that a stop can be tied to one of them.
    serial: u64,
    running: bool,
    stop: Option<Stop>,
    /// When the statement has to be over.
    deadline: Option<Instant>,
    /// When this session's entry among the [`Deadlines`] is due.
    watched: Option<Instant>,
    /// The client has taken its leave already, behind this statement. It may
    /// close its end, and still wants what it asked for done.
    last_wish: bool,
}

/// Why a statement is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A CancelRequest with the right key.
    Cancel,
    /// `statement_timeout` is over.
    Timeout,
    /// The client's connection is gone.
    ClientGone,
    /// The server ends the session.
    Shutdown,
}

impl Handle {
    /// For a session that runs its statements on the connection of `interrupt`.
    pub fn new(
        backend_id: i32,
        cancel_key: CancelKey,
        interrupt: Interrupt,
        deadlines: Arc<Deadlines>,
    ) -> Handle {
        Handle {
            backend_id,
            cancel_key,
            interrupt,
            deadlines,
            statement: Mutex::default(),
            activity: Mutex::default(),
            client_gone: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            held: AtomicBool::new(false),
            pinned: AtomicBool::new(false),
        }
    }

    /// The session's backend id.
    pub fn backend_id(&self) -> i32 {
        self.backend_id
    }

    /// The session's key.
    pub fn cancel_key(&self) -> &CancelKey {
        &self.cancel_key
    }

    /// Is a statement running?
    pub fn is_running(&self) -> bool {
        self.lock().running
    }

    /// Is a transaction open, as far as the client was told?
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }

    pub(super) fn set_pinned(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::Relaxed);
    }

    /// What the session is doing.
    pub fn activity(&self) -> Activity {
        self.activity_mut().clone()
    }

    /// Since when the session has been in a transaction, be it of a single statement,
    /// and whether it is running a statement now.
    pub fn busy_since(&self) -> Option<(SystemTime, bool)> {
        let activity = self.activity_mut();
        Some((activity.transaction_start?, activity.state == "active"))
    }

    pub(super) fn activity_mut(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the statement in flight, if there is one; returns its serial for
    /// [`Handle::nudge`].
    pub fn stop(&self, why: Stop) -> Option<u64> {
        let mut statement = self.lock();
        if !statement.running || (why == Stop::ClientGone && statement.last_wish) {
            return None;
        }
        statement.stop.get_or_insert(why);
        self.interrupt.interrupt();
        Some(statement.serial)
    }

    /// Interrupts statement `serial` once more if it still runs.
    pub fn nudge(&self, serial: u64) -> bool {
        let statement = self.lock();
        let running = statement.running && statement.serial == serial;
        if running {
            self.interrupt.interrupt();
        }
        running
    }

    /// Notes that nobody will read the answer.
    pub fn client_is_gone(&self) -> Option<u64> {
        self.client_gone.store(true, Ordering::Release);
        self.stop(Stop::ClientGone)
    }

    /// Makes the session end at its next message boundary.
    pub fn end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Keeps the session from beginning anything: outside of a transaction,
    /// [`Session::run`](super::Session::run) comes back at the next message boundary
    /// although there is work left, also while a client does not read the answer
    /// to its last statement. It may take 200 ms for a session to notice.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Lets a session that was held go on; it wants to be run again.
    pub fn release(&self) {
        self.held.store(false, Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn is_client_gone(&self) -> bool {
        self.client_gone.load(Ordering::Acquire)
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// A statement begins; it ends when the guard is dropped. `last_wish` says
    /// that the client's Terminate stands behind it. A client that is gone
    /// without one gets no more statements. After `timeout` it is stopped.
    pub(super) fn begin(self: &Arc<Self>, last_wish: bool, timeout: Option<Duration>) -> Running<'_> {
        let mut statement = self.lock();
        statement.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if let Some(deadline) = statement.deadline
            && statement.watched.is_none_or(|watched| deadline < watched)
        {
            statement.watched = Some(deadline);
            self.deadlines.watch(self, deadline);
        }
        statement.serial += 1;
        statement.running = true;
        statement.last_wish = last_wish;
        statement.stop = (self.is_client_gone() && !last_wish).then_some(Stop::ClientGone);
        Running { handle: self }
    }

    /// This session's entry for the time `entry` is due: a statement that is over
    /// its time is stopped. Says when to look again.
    pub(super) fn overdue(&self, entry: Instant, now: Instant) -> Option<Instant> {
        let mut statement = self.lock();
        if statement.watched != Some(entry) {
            // An earlier one has taken its place.
            return None;
        }
        statement.watched = statement.deadline.filter(|_| statement.running);
        if let Some(deadline) = statement.watched
            && deadline <= now
        {
            statement.stop.get_or_insert(Stop::Timeout);
            self.interrupt.interrupt();
            // The engine forgets an interrupt that comes before it has begun.
            statement.watched = Some(now + AGAIN);
        }
        statement.watched
    }

    /// Is the statement in flight to stop, and why?
    pub(super) fn stopped(&self) -> Option<Stop> {
        self.lock().stop
    }

    fn lock(&self) -> MutexGuard<'_, InFlight> {
        self.statement.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Handle::begin`].
#[derive(Debug)]
pub(super) struct Running<'a> {
    handle: &'a Handle,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.handle.lock().running = false;
    }
}
