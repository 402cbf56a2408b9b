//! From an authenticated connection to a session of a worker.
//!
//! The client has AuthenticationOk; everything after it is the worker's to
//! say. Until a worker has taken the session, the control plane can still say
//! why none does. Only when it cannot know whether the worker has it does it
//! just close: two owners of a TLS session must never be.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use tracing::warn;

use super::admission::Ticket;
use super::authorize::Access;
use super::fatal::{End, Fatal};
use super::keep::Kept;
use super::ledger::Passage;
use super::negotiate::TlsFacts;
use super::pool::{Pool, Worker};
use super::socket::Socket;
use super::startup::Startup;
use super::wire::{Parts, Wire};
use crate::handoff::{self, CancelKey, OfferError, PeerFacts, Reason, Session, SessionState};

/// How long a worker may take to answer. Its process may be dead and the next one
/// on its way: the session waits in the socket's queue.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How many numbers in a row can be taken by sessions that live on.
const ID_ATTEMPTS: usize = 100;

/// Between two attempts, for what is wrong to change.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

type Failure = (Option<Wire>, End);

/// Hands the session over; gives its backend id, or the connection back with
/// the reason.
pub async fn hand_over(
    pool: &Pool,
    wire: Wire,
    startup: Startup,
    facts: TlsFacts,
    access: Access,
    ticket: Ticket,
) -> Result<i32, Failure> {
    let deadline = pool.deadline();
    let mut placed = match pool.place(&startup.database, deadline).await {
        Ok(placed) => placed,
        Err(fatal) => return Err((Some(wire), fatal.into())),
    };
    let Parts { socket, unread, tls } = wire.into_parts().map_err(|error| (None, error.into()))?;
    let address = socket.address();
    let peer = PeerFacts {
        address: socket.peer(),
        tls_version: facts.version.to_owned(),
        tls_cipher: facts.cipher.to_owned(),
    };
    let minor = startup.minor();
    let cancel_key =
        CancelKey::random(if minor >= 2 { 32 } else { 4 }).map_err(|error| (None, error.into()))?;
    let (fd, kept) = socket.into_fd().map_err(|error| (None, error.into()))?;
    let mut session = Session {
        socket: fd,
        state: SessionState {
            backend_id: 0,
            cancel_key,
            protocol_minor: minor,
            create_database: access.create_database,
            admin: access.admin,
            user: startup.user,
            database: startup.database,
            settings: startup.settings,
            unread_input: unread,
            tls,
            peer,
            frozen: None,
        },
    };
    // From now on the place is counted among the worker's sessions.
    drop(ticket);
    let mut pause = FIRST_PAUSE;
    loop {
        let (worker, passage) = placed;
        session = match offer(&worker, session, kept.as_deref(), passage).await {
            Ok(backend_id) => return Ok(backend_id),
            Err(Missed::Lost(end)) => return Err((None, end)),
            Err(Missed::Kept(session)) => *session,
        };
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        placed = match pool.place(&session.state.database, deadline).await {
            Ok(placed) if tokio::time::Instant::now() < deadline => placed,
            Ok(_) => {
                let fatal = Fatal::cannot_connect_now("the database system is not accepting connections");
                return Err((take_back(session, kept, address), fatal.into()));
            }
            Err(fatal) => return Err((take_back(session, kept, address), fatal.into())),
        };
    }
}

/// A session that the worker did not take.
enum Missed {
    /// Another may.
    Kept(Box<Session>),
    /// It may have it nevertheless, so that nobody else can.
    Lost(End),
}

/// Offers the session to one worker.
async fn offer(
    worker: &Worker,
    mut session: Session,
    kept: Option<&Kept>,
    mut passage: Passage,
) -> Result<i32, Missed> {
    for _ in 0..ID_ATTEMPTS {
        let backend_id = worker.ids.next();
        if !passage.enter(backend_id, &session.state.user) {
            continue;
        }
        session.state.backend_id = backend_id;
        let offered = Instant::now();
        let tape = kept
            .filter(|kept| !kept.tape.is_mine())
            .map(|kept| (kept.tape.as_ref(), kept.used()));
        let outcome = handoff::offer_with(&worker.handoff, session, ANSWER_WITHIN, tape).await;
        worker.tally.offered(outcome.is_ok(), offered.elapsed());
        session = match outcome {
            Ok(()) => {
                passage.accepted();
                return Ok(backend_id);
            }
            // By a control plane that was killed before it heard so.
            Err(OfferError::Refused {
                reason: Reason::Taken,
                ..
            }) => {
                let end = End::Silent(format!("worker {} has it already", worker.id));
                return Err(Missed::Lost(end));
            }
            // A session of an earlier control plane that has not been reported yet.
            Err(OfferError::Refused {
                session,
                reason: Reason::BackendIdInUse,
                ..
            }) => *session,
            Err(OfferError::Refused {
                session,
                reason,
                message,
            }) => {
                warn!(worker = worker.id, ?reason, message, "a session was refused");
                passage.refused();
                return Err(Missed::Kept(session));
            }
            Err(OfferError::Unreachable { session, source }) => {
                warn!(worker = worker.id, error = %source, "the worker cannot be reached");
                return Err(Missed::Kept(session));
            }
            Err(error @ OfferError::Ambiguous { .. }) => {
                let end = End::Silent(format!("worker {}: {error}", worker.id));
                return Err(Missed::Lost(end));
            }
        };
    }
    warn!(worker = worker.id, "no backend id was free");
    Err(Missed::Kept(Box::new(session)))
}

/// The connection again, after a worker did not take it.
fn take_back(session: Session, kept: Option<Box<Kept>>, address: Option<SocketAddr>) -> Option<Wire> {
    if let Some(mut kept) = kept {
        kept.commit(session.socket.as_fd()).ok()?;
    }
    let restore = |fd: OwnedFd| -> std::io::Result<Wire> {
        Wire::from_parts(Parts {
            socket: Socket::from_fd(fd, address)?,
            unread: session.state.unread_input,
            tls: session.state.tls,
        })
    };
    restore(session.socket).ok()
}
