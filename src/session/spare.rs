//! What an ended session leaves for the next one.
//!
//! To plan its first statement is most of what DuckDB does for a short session. A
//! session that ended well and left nothing in its connection gives it back, with
//! the plans of its last statements; one of the same user that begins in the same
//! way goes on with it. What a session could leave there (temporary objects,
//! variables, settings, the seed of `random`) keeps the connection from being used
//! again, and so does an error, of which nobody can say what it left.

use super::Session;
use super::statement::PlanCache;
use super::transaction::State;
use crate::engine::Connection;
use crate::handoff::SessionState;

/// So many plans stay with a connection that nobody uses.
const PLANS: usize = 4;

/// What a session begins on: a new connection, or what another session has left.
#[derive(Debug)]
pub struct Ground {
    pub(super) connection: Connection,
    pub(super) plans: PlanCache,
    pub(super) statements_run: u32,
    /// The connection has the settings of the session's beginning.
    pub(super) is_set: bool,
}

impl From<Connection> for Ground {
    fn from(connection: Connection) -> Ground {
        Ground {
            connection,
            plans: PlanCache::default(),
            statements_run: 0,
            is_set: false,
        }
    }
}

/// A connection as good as new for some sessions.
#[derive(Debug)]
pub struct Spare {
    ground: Ground,
    user: String,
    settings: Box<[(String, String)]>,
}

impl Spare {
    /// Would this session find it as it finds a new connection?
    pub fn suits(&self, state: &SessionState) -> bool {
        state.frozen.is_none()
            && self.user == state.user
            && *self.settings == *state.settings
            && !self.ground.connection.instance().is_dead()
    }
}

impl From<Spare> for Ground {
    fn from(spare: Spare) -> Ground {
        spare.ground
    }
}

impl Session {
    /// Ends a session whose client has [left](super::Gone::Left): what it leaves for
    /// others, if its connection is as it was at the beginning.
    pub fn into_spare(mut self) -> Option<Spare> {
        let settings = self.begun_with.take()?;
        let untouched = self.transaction.state() == State::Idle
            && !self.has_failed
            && !self.traces.any
            && !self.connection.has_run_helpers()
            && self.settings.epoch() == self.epoch_begun_with
            && !self.handle.is_ending();
        if !untouched {
            return None;
        }
        let Session {
            client,
            connection,
            portals,
            statements,
            mut plans,
            statements_run,
            owner,
            ..
        } = self;
        // The client does not wait for what is left to do.
        drop(client);
        drop((portals, statements));
        plans.truncate(PLANS);
        Some(Spare {
            ground: Ground {
                connection,
                plans,
                statements_run,
                is_set: true,
            },
            user: owner.user,
            settings,
        })
    }
}
