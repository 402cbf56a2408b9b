//! Makes and removes databases when a session asks for it.
//!
//! A database that another worker has open, without sessions perhaps, is closed
//! there first: the control plane passes the request on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::LOOK_AGAIN;
use super::activity::Transactions;
use super::databases::{Databases, Stopped};
use super::questions::Questions;
use crate::proto::inquiry::Matter;
use crate::proto::released::Outcome;
use crate::proto::{ReleaseRequest, Released};
use crate::session::{self, DatabaseError};

/// How long sessions may take to leave a database that is to be removed. As in
/// PostgreSQL: one that has just hung up may not be gone yet.
const VACATED_WITHIN: Duration = Duration::from_secs(5);

/// How long a worker may take to close a database, which writes a checkpoint.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// When the lease is tried again that somebody has of whom nothing is known.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// See [`session::Keeper`].
#[derive(Debug)]
pub(super) struct Keeper {
    databases: Arc<Databases>,
    transactions: Arc<Transactions>,
    questions: Arc<Questions>,
    runtime: tokio::runtime::Handle,
}

impl Keeper {
    /// To be made inside the runtime.
    pub(super) fn new(
        databases: Arc<Databases>,
        transactions: Arc<Transactions>,
        questions: Arc<Questions>,
    ) -> Keeper {
        Keeper {
            databases,
            transactions,
            questions,
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// Closes a database for another worker, if it is open here.
    pub(super) async fn release(&self, request: &ReleaseRequest) -> Released {
        let deadline = Instant::now() + Duration::from_millis(request.patience_milliseconds.into());
        let name = &request.database;
        let released = self.databases.release(name, request.force, deadline).await;
        let (outcome, sessions) = match released {
            Ok(true) => {
                self.transactions.forget(name);
                (Outcome::Closed, 0)
            }
            Ok(false) => (Outcome::NotHere, 0),
            Err(DatabaseError::InUse(sessions)) => (Outcome::InUse, sessions),
            Err(_) => (Outcome::Busy, 0),
        };
        Released {
            outcome: outcome.into(),
            sessions,
        }
    }

    /// Has the other workers close a database, and returns when it is worth while
    /// to try again.
    async fn ask_for_release(&self, name: &str, force: bool, deadline: Instant) -> Result<(), DatabaseError> {
        let patience = deadline.saturating_duration_since(Instant::now());
        let request = ReleaseRequest {
            database: name.to_owned(),
            force,
            patience_milliseconds: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        };
        let within = patience + CLOSED_WITHIN;
        let findings = self.questions.ask(Matter::Release(request), within).await;
        let mut closed = false;
        for released in findings.into_iter().filter_map(|findings| findings.released) {
            match released.outcome() {
                Outcome::InUse => return Err(DatabaseError::InUse(released.sessions)),
                Outcome::Closed => closed = true,
                Outcome::NotHere | Outcome::Busy => {}
            }
        }
        if !closed {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        Ok(())
    }

    async fn remove_here(&self, name: &str, force: bool, stopped: Stopped<'_>) -> Result<(), DatabaseError> {
        let deadline = Instant::now() + VACATED_WITHIN;
        let stop = async {
            while !stopped() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::pin!(stop);
        loop {
            match self.databases.remove(name, force, deadline, stopped).await {
                Err(DatabaseError::Elsewhere) if Instant::now() < deadline => {}
                result => return result,
            }
            tokio::select! {
                released = self.ask_for_release(name, force, deadline) => released?,
                () = &mut stop => return Err(DatabaseError::Stopped),
            }
        }
    }
}

impl session::Keeper for Keeper {
    fn create(&self, name: &str) -> Result<(), DatabaseError> {
        self.runtime.block_on(self.databases.create(name))
    }

    fn remove(&self, name: &str, force: bool, stopped: Stopped<'_>) -> Result<(), DatabaseError> {
        self.runtime.block_on(self.remove_here(name, force, stopped))?;
        self.transactions.forget(name);
        Ok(())
    }
}
