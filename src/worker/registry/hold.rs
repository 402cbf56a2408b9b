//! Who is at rest, and who is in the way of all being so.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::{Place, Registry, Sessions};
use crate::session::{Handle, Pin};

/// What sessions are to do that have nothing to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct Standing {
    /// They end.
    pub(in crate::worker) draining: bool,
    pub(in crate::worker) hold: Hold,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) enum Hold {
    /// They go on when their clients want something.
    #[default]
    Free,
    /// They begin nothing.
    Held,
    /// They become values; those that cannot end.
    Freezing,
}

/// How a session keeps still.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) enum Rest {
    /// Not at all.
    #[default]
    Busy,
    /// It is held, and can be frozen.
    Held,
    /// It is held, and something keeps it here.
    Pinned(Pin),
    Frozen,
}

/// How many of the sessions keep still, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct Resting {
    pub(in crate::worker) sessions: usize,
    pub(in crate::worker) held: usize,
    pub(in crate::worker) pinned: usize,
    pub(in crate::worker) frozen: usize,
}

/// How many sessions cannot be frozen for how long already, by why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct InTheWay {
    pub(in crate::worker) transactions: usize,
    pub(in crate::worker) statements: usize,
    /// Temporary tables and the like, or too much to carry.
    pub(in crate::worker) bound: usize,
    /// They are not here yet: their database is being opened.
    pub(in crate::worker) beginning: usize,
}

impl InTheWay {
    pub(in crate::worker) fn is_empty(self) -> bool {
        self == InTheWay::default()
    }

    /// Each reason's name for metrics, and how many.
    pub(in crate::worker) fn by_reason(self) -> [(&'static str, usize); 4] {
        [
            ("transaction", self.transactions),
            ("statement", self.statements),
            ("temporary", self.bound),
            ("beginning", self.beginning),
        ]
    }
}

impl fmt::Display for InTheWay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (count, what) in [
            (self.transactions, "in a transaction"),
            (self.statements, "running a statement"),
            (self.bound, "with temporary tables"),
            (self.beginning, "just beginning"),
        ] {
            if count > 0 {
                write!(formatter, "{separator}{count} {what}")?;
                separator = ", ";
            }
        }
        Ok(())
    }
}

impl Rest {
    fn count(self, resting: &mut Resting) -> Option<&mut usize> {
        match self {
            Rest::Busy => None,
            Rest::Held => Some(&mut resting.held),
            Rest::Pinned(_) => Some(&mut resting.pinned),
            Rest::Frozen => Some(&mut resting.frozen),
        }
    }
}

impl Registry {
    /// Changes when sessions that are parked have something else to do.
    pub(in crate::worker) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Who keeps still.
    pub(in crate::worker) fn resting(&self) -> watch::Receiver<Resting> {
        self.resting.subscribe()
    }

    /// The same at this moment. Of a watched value nothing may be borrowed while the
    /// sessions are locked by somebody else: they are counted under that lock.
    pub(in crate::worker) fn resting_now(&self) -> Resting {
        *self.resting.borrow()
    }

    /// Keeps all sessions, also those still to come in, from beginning anything.
    pub(in crate::worker) fn hold(&self) {
        let sessions = self.lock();
        sessions.handles().for_each(|handle| handle.hold());
        self.standing.send_modify(|standing| standing.hold = Hold::Held);
    }

    /// Lets them go on.
    pub(in crate::worker) fn let_go(&self) {
        let sessions = self.lock();
        sessions.handles().for_each(|handle| handle.release());
        self.standing.send_modify(|standing| standing.hold = Hold::Free);
    }

    /// Has those that are held become values.
    pub(in crate::worker) fn freeze(&self) {
        self.standing
            .send_modify(|standing| standing.hold = Hold::Freezing);
    }

    /// Has the others end, and returns them.
    pub(in crate::worker) fn end_busy(&self) -> Vec<Arc<Handle>> {
        let sessions = self.lock();
        let mut ending = Vec::new();
        for entry in sessions.by_id.values() {
            if let (Some(handle), Rest::Busy | Rest::Pinned(_)) = (&entry.handle, entry.rest) {
                handle.end();
                entry.wake.notify_one();
                ending.push(handle.clone());
            }
        }
        ending
    }

    /// Who cannot be frozen and has been like that for more than `patience`.
    pub(in crate::worker) fn in_the_way(&self, patience: Duration) -> InTheWay {
        let sessions = self.lock();
        let mut found = InTheWay::default();
        let since = SystemTime::now().checked_sub(patience);
        for entry in sessions.by_id.values() {
            match (&entry.handle, entry.rest) {
                (_, Rest::Pinned(Pin::Temporary | Pin::Size)) => found.bound += 1,
                (None, _) => found.beginning += 1,
                (Some(handle), _) => match handle.busy_since() {
                    Some((start, _)) if since.is_none_or(|since| start > since) => {}
                    None => {}
                    Some((_, true)) => found.statements += 1,
                    Some((_, false)) => found.transactions += 1,
                },
            }
        }
        found
    }

    /// From now on sessions that are gone from here are so only because the process
    /// ends: they go on in the next one.
    pub(in crate::worker) fn leave_to_next(&self) {
        self.lock().left_to_next = true;
    }

    /// To be called with the sessions locked, whenever their number has changed.
    pub(super) fn count_sessions(&self, sessions: &Sessions) {
        self.resting
            .send_modify(|resting| resting.sessions = sessions.by_id.len());
    }

    pub(super) fn hold_new(&self, handle: &Handle) {
        if self.standing.borrow().hold != Hold::Free {
            handle.hold();
        }
    }

    pub(super) fn count_rest(&self, before: Rest, now: Rest) {
        self.resting.send_if_modified(|resting| {
            if let Some(count) = before.count(resting) {
                *count -= 1;
            }
            if let Some(count) = now.count(resting) {
                *count += 1;
            }
            before != now
        });
    }
}

impl Place {
    /// The session is no longer held. What it is pinned by it still has.
    pub(in crate::worker) fn is_free(&self) {
        let rest = {
            let sessions = self.registry.lock();
            sessions.by_id.get(&self.backend_id).map(|entry| entry.rest)
        };
        if rest == Some(Rest::Held) {
            self.rests(Rest::Busy);
        }
    }

    /// The session began then, in an earlier process.
    pub(in crate::worker) fn began(&self, at: SystemTime) {
        if let Some(entry) = self.registry.lock().by_id.get_mut(&self.backend_id) {
            entry.since = at;
        }
    }

    /// Says how the session keeps still.
    pub(in crate::worker) fn rests(&self, rest: Rest) {
        let mut sessions = self.registry.lock();
        if let Some(entry) = sessions.by_id.get_mut(&self.backend_id) {
            let before = std::mem::replace(&mut entry.rest, rest);
            self.registry.count_rest(before, rest);
        }
    }
}
