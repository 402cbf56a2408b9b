//! From an authenticated connection to a session of a worker.
//!
//! The client has AuthenticationOk; everything after it is the worker's to
//! say. Until a worker has taken the session, the control plane can still say
//! why none does. Only when it cannot know whether the worker has it does it
//! just close: two owners of a TLS session must never be.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tracing::warn;

use super::admission::Ticket;
use super::authorize::Access;
use super::fatal::{End, Fatal};
use super::negotiate::TlsFacts;
use super::pool::{Pool, Worker};
use super::socket::Socket;
use super::startup::Startup;
use super::wire::{Parts, Wire};
use crate::handoff::{self, CancelKey, OfferError, PeerFacts, Reason, Session, SessionState};

/// How long a client waits for a worker that is being started.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a worker may take to answer. Its process may be dead and the next one
/// on its way: the session waits in the socket's queue.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How many numbers in a row can be taken by sessions that live on.
const ID_ATTEMPTS: usize = 100;

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
    let worker = pool.place(&startup.database);
    if !worker.ready(READY_WITHIN).await {
        return Err((
            Some(wire),
            Fatal::cannot_connect_now("the database system is starting up").into(),
        ));
    }
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
    let session = Session {
        socket: socket.into_fd().map_err(|error| (None, error.into()))?,
        state: SessionState {
            backend_id: worker.ids.next(),
            cancel_key,
            protocol_minor: minor,
            create_database: access.create_database,
            user: startup.user,
            database: startup.database,
            settings: startup.settings,
            unread_input: unread,
            tls,
            peer,
        },
    };
    // From now on the place is counted among the worker's sessions.
    worker.expect_session();
    drop(ticket);
    let outcome = offer(worker, session, address).await;
    if outcome.is_err() {
        worker.expect_no_session();
    }
    outcome
}

async fn offer(worker: &Worker, session: Session, address: Option<SocketAddr>) -> Result<i32, Failure> {
    let mut session = session;
    for _ in 0..ID_ATTEMPTS {
        let backend_id = session.state.backend_id;
        match handoff::offer(&worker.handoff, session, ANSWER_WITHIN).await {
            Ok(()) => {
                return Ok(backend_id);
            }
            Err(OfferError::Refused {
                session: returned,
                reason: Reason::BackendIdInUse,
                ..
            }) => {
                session = *returned;
                session.state.backend_id = worker.ids.next();
            }
            Err(OfferError::Refused {
                session,
                reason,
                message,
            }) => {
                warn!(worker = worker.id, ?reason, message, "a session was refused");
                let fatal = Fatal::cannot_connect_now("the database system is shutting down");
                return Err((take_back(*session, address), fatal.into()));
            }
            Err(OfferError::Unreachable { session, source }) => {
                warn!(worker = worker.id, error = %source, "the worker cannot be reached");
                let fatal = Fatal::cannot_connect_now("the database system is not accepting connections");
                return Err((take_back(*session, address), fatal.into()));
            }
            Err(error @ OfferError::Ambiguous { .. }) => {
                return Err((None, End::Silent(format!("worker {}: {error}", worker.id))));
            }
        }
    }
    let fatal = Fatal::too_many_connections();
    Err((take_back(session, address), fatal.into()))
}

/// The connection again, after a worker did not take it.
fn take_back(session: Session, address: Option<SocketAddr>) -> Option<Wire> {
    let restore = |fd: OwnedFd| -> std::io::Result<Wire> {
        Wire::from_parts(Parts {
            socket: Socket::from_fd(fd, address)?,
            unread: session.state.unread_input,
            tls: session.state.tls,
        })
    };
    restore(session.socket).ok()
}
