//! Brings the sessions of a worker that leaves for good to other workers.
//!
//! The worker says in its reports how many there are, all of closed databases. Each is
//! placed like a new one, offered, and only then does the worker that had it hear that
//! it is gone. Its backend id stays: from then on the ledger says where it is.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::pool::{Pool, Worker};
use crate::handoff::{self, Collection, OfferError, Reason, Session};

/// How long a worker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How long it is tried to place a session.
const PLACED_WITHIN: Duration = Duration::from_secs(5);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Brings away what this worker of the pool wants to give, for as long as it is there.
/// Must be called inside a runtime.
pub fn from(pool: &Arc<Pool>, worker: u16) {
    let pool = Arc::downgrade(pool);
    tokio::spawn(async move {
        while let Some(worker) = find(&pool, worker) {
            worker.gives_away().await;
            if let Some(pool) = pool.upgrade()
                && worker.is_ours()
            {
                collect(&pool, &worker).await;
            }
            drop(worker);
            tokio::time::sleep(PAUSE).await;
        }
    });
}

fn find(pool: &Weak<Pool>, worker: u16) -> Option<Arc<Worker>> {
    pool.upgrade()?.worker(worker)
}

async fn collect(pool: &Arc<Pool>, worker: &Worker) {
    let mut collection = match Collection::open(&worker.handoff, ANSWER_WITHIN).await {
        Ok(collection) => collection,
        Err(error) => return warn!(worker = worker.id, %error, "its sessions cannot be collected"),
    };
    let (mut moved, mut refused) = (0, 0);
    loop {
        let told = match collection.next().await {
            Ok(Some((session, fate))) => match bring(pool, worker.id, session).await {
                Ok(()) => {
                    moved += 1;
                    fate.taken().await
                }
                Err(message) => {
                    refused += 1;
                    fate.refused(Reason::Draining, message).await
                }
            },
            Ok(None) => break,
            Err(error) => {
                warn!(worker = worker.id, %error, "collecting its sessions has failed");
                break;
            }
        };
        if let Err(error) = told {
            warn!(worker = worker.id, %error, "it has not heard what became of a session");
            break;
        }
    }
    info!(
        worker = worker.id,
        moved, refused, "moved its sessions to other workers"
    );
}

/// Brings a session to another worker. It is nobody's here afterwards.
async fn bring(pool: &Pool, from: u16, mut session: Session) -> Result<(), &'static str> {
    let deadline = Instant::now() + PLACED_WITHIN;
    let (id, user, database) = (
        session.state.backend_id,
        session.state.user.clone(),
        session.state.database.clone(),
    );
    let address = session.state.peer.address.clone();
    loop {
        pool.ledger().gives_up(from, &database);
        let Ok((worker, passage)) = pool.place(&database, deadline).await else {
            return Err("no other worker can take it");
        };
        match handoff::offer(&worker.handoff, session, ANSWER_WITHIN).await {
            Ok(()) => {
                passage.moved(id, &user, &address);
                worker.tally.moved();
                return Ok(());
            }
            // The other worker may have it: it is given up here and there.
            Err(OfferError::Ambiguous { source }) => {
                warn!(worker = worker.id, error = %source, "a session on its way to it may be lost");
                return Ok(());
            }
            Err(OfferError::Refused {
                session: back,
                reason,
                message,
            }) => {
                warn!(
                    worker = worker.id,
                    ?reason,
                    message,
                    "a moved session was refused"
                );
                passage.refused();
                session = *back;
            }
            Err(OfferError::Unreachable {
                session: back,
                source,
            }) => {
                warn!(worker = worker.id, error = %source, "the worker cannot be reached");
                session = *back;
            }
        }
        if Instant::now() >= deadline {
            return Err("no other worker has taken it");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
