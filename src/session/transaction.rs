//! PostgreSQL's transaction states over DuckDB's transactions.
//!
//! DuckDB does not abort a transaction when a statement cannot be parsed or
//! bound, and lets an aborted one be "committed". PostgreSQL does neither, and
//! clients rely on it; so the state that counts is kept here, and DuckDB is told
//! to begin, commit and roll back. Source: PostgreSQL manual, section 55.2.2.1
//! "Multiple Statements in a Simple Query" and 55.2.4 "Pipelining".

use super::reply::Status;
use crate::engine::{Connection, Error, Prepared};

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No transaction; a statement is one by itself.
    Idle,
    /// Begun by the server for several statements that belong together.
    Implicit,
    /// Begun by the client.
    Block,
    /// Failed; only its end is accepted.
    Failed,
}

/// A session's transaction.
#[derive(Debug)]
pub struct Transaction {
    state: State,
    /// The catalog was changed in it, which becomes visible when it commits.
    pub changed_catalog: bool,
    /// A schema was made in it, see [`Connection::settle`].
    pub made_schema: bool,
    /// The instance's generation when it began: plans that others made later may
    /// know things that this transaction must not see.
    pub generation: u64,
    begin: Option<Prepared>,
    commit: Option<Prepared>,
    rollback: Option<Prepared>,
}

impl Transaction {
    /// No transaction.
    pub fn new() -> Transaction {
        Transaction {
            state: State::Idle,
            changed_catalog: false,
            made_schema: false,
            generation: 0,
            begin: None,
            commit: None,
            rollback: None,
        }
    }

    /// Where the session stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// What ReadyForQuery says about it.
    pub fn status(&self) -> Status {
        match self.state {
            State::Idle | State::Implicit => Status::Idle,
            State::Block => Status::Block,
            State::Failed => Status::Failed,
        }
    }

    /// Is there a transaction that outlasts the statement?
    pub fn is_open(&self) -> bool {
        self.state != State::Idle
    }

    /// Begins one for the server's own reasons.
    pub fn begin_implicit(&mut self, connection: &Connection) -> Result<(), Error> {
        self.start(connection, State::Implicit)
    }

    /// BEGIN. Within an implicit transaction it turns that into a block.
    pub fn begin_block(&mut self, connection: &Connection, read_only: bool) -> Result<(), Error> {
        match self.state {
            State::Idle if read_only => {
                connection.run("BEGIN TRANSACTION READ ONLY")?;
                self.generation = connection.instance().generation();
                self.state = State::Block;
                Ok(())
            }
            State::Idle => self.start(connection, State::Block),
            _ => {
                self.state = State::Block;
                Ok(())
            }
        }
    }

    fn start(&mut self, connection: &Connection, state: State) -> Result<(), Error> {
        self.generation = connection.instance().generation();
        run_cached(connection, &mut self.begin, "BEGIN TRANSACTION")?;
        self.state = state;
        Ok(())
    }

    /// Commits; after an error there is no transaction any more.
    pub fn commit(&mut self, connection: &Connection) -> Result<(), Error> {
        self.state = State::Idle;
        let result = run_cached(connection, &mut self.commit, "COMMIT");
        if result.is_err() {
            // A commit that fails has rolled back already, or must be now.
            let _ = run_cached(connection, &mut self.rollback, "ROLLBACK");
        }
        if std::mem::take(&mut self.changed_catalog) {
            connection.instance().catalog_changed();
        }
        let made_schema = std::mem::take(&mut self.made_schema);
        connection.settle(made_schema && result.is_ok());
        result
    }

    /// Rolls back; whether DuckDB had one does not matter.
    pub fn rollback(&mut self, connection: &Connection) {
        self.state = State::Idle;
        self.made_schema = false;
        let _ = run_cached(connection, &mut self.rollback, "ROLLBACK");
        if std::mem::take(&mut self.changed_catalog) {
            connection.instance().catalog_changed();
        }
    }

    /// A statement failed: a block waits for its end, everything else is over.
    /// True if an implicit transaction was rolled back.
    pub fn fail(&mut self, connection: &Connection) -> bool {
        match self.state {
            State::Idle | State::Failed => false,
            State::Implicit => {
                self.rollback(connection);
                true
            }
            State::Block => {
                self.state = State::Failed;
                false
            }
        }
    }
}

fn run_cached(connection: &Connection, cache: &mut Option<Prepared>, sql: &str) -> Result<(), Error> {
    let prepared = match cache.take() {
        Some(prepared) => prepared,
        None => connection.prepare(sql)?,
    };
    prepared.execute().map(drop)?;
    *cache = Some(prepared);
    Ok(())
}
