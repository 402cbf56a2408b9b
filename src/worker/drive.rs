//! From an offered session to its end: threads for the busy, none for the idle.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Worker;
use super::activity::Witness;
use super::databases::{Claim, Unclaimed};
use super::query_log::Who;
use super::registry::{Full, Place};
use crate::engine::Instance;
use crate::handoff::{Incoming, Listener, Offer, Reason};
use crate::proto::LiveSession;
use crate::session::{Pause, Peer, Session, SessionError};

/// How long a sender may take for its message once it has connected: as long as it
/// waits for the answer. On a machine that has too much to do it may take long.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is asked about a client that has not got all that it was sent.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Takes in what is offered on the handoff socket, for as long as that works.
pub(super) async fn intake(worker: Arc<Worker>, socket: OwnedFd) -> io::Result<()> {
    let listener = Listener::from_fd(socket, &worker.masters)?;
    loop {
        let incoming = listener.accept().await?;
        tokio::spawn(receive(worker.clone(), incoming));
    }
}

async fn receive(worker: Arc<Worker>, incoming: Incoming) {
    let offer = match incoming.receive(PATIENCE).await {
        Ok(offer) => offer,
        Err(error) => return tracing::warn!(%error, "a handoff was not understood"),
    };
    let state = &offer.session.state;
    let about = LiveSession {
        backend_id: state.backend_id,
        user: state.user.clone(),
        database: state.database.clone(),
        address: state.peer.address.clone(),
    };
    let place = match worker.registry.reserve(about) {
        Ok(place) => place,
        Err(Full::InUse) => return refuse(offer, Reason::BackendIdInUse, "the backend id is in use").await,
        Err(Full::Draining) => return refuse(offer, Reason::Draining, "the worker is being drained").await,
    };
    // Who has the database is known before the session is taken; opening it may
    // take longer than a sender waits.
    let claim = match worker.databases.claim(&state.database, state.create_database) {
        Ok(claim) => Ok(claim),
        Err(Unclaimed::Refused(error)) => Err(error),
        Err(Unclaimed::Elsewhere) => {
            drop(place);
            let message = "another process has the database open";
            return refuse(offer, Reason::DatabaseElsewhere, message).await;
        }
    };
    admit(worker, offer, place, claim).await;
}

async fn refuse(offer: Offer, reason: Reason, message: &str) {
    if let Err(error) = offer.refuse(reason, message).await {
        tracing::warn!(%error, "a refusal did not reach the control plane");
    }
}

async fn admit(worker: Arc<Worker>, offer: Offer, place: Place, claim: Result<Claim, SessionError>) {
    let session = match offer.accept().await {
        Ok(session) => session,
        Err(error) => return tracing::warn!(%error, "the control plane did not wait for the answer"),
    };
    let (socket, state) = (session.socket, session.state);
    let (backend_id, database, admin) = (state.backend_id, state.database.clone(), state.admin);
    let place = Arc::new(place);
    tracing::debug!(backend_id, user = state.user, database, "session begins");
    let who = Who {
        user: state.user.clone(),
        database: database.clone(),
        backend_id,
    };
    let witness = Arc::new(Witness::new(who, worker.query_log.get(), &worker.transactions));
    let opened = match &claim {
        Ok(claim) => claim.open().await,
        Err(error) => Err(error.clone()),
    };
    let instance = opened.as_ref().map(Arc::downgrade).unwrap_or_default();
    let begin = {
        let (worker, place) = (worker.clone(), place.clone());
        move || {
            let connection = opened.and_then(|instance| instance.connect().map_err(SessionError::from));
            let session = match connection {
                Ok(connection) => Session::start(socket, state, connection, worker.policy.clone(), witness)
                    .map_err(|gone| gone.to_string())?,
                Err(error) => {
                    Session::refuse(socket, state, &error);
                    return Err(error.to_string());
                }
            };
            place.fill(session.handle().clone(), admin);
            if let Err(error) = worker.watch.add(session.socket(), session.handle().backend_id()) {
                tracing::warn!(%error, "a client that vanishes will not be noticed");
            }
            // Its first statement is on its way, and finds this thread at work.
            run(session)
        }
    };
    let end = drive(&worker, begin, &place, &instance).await;
    tracing::debug!(backend_id, end, "session is over");
    if is_dead(&instance) {
        worker.registry.end_sessions_of(&database);
    }
    drop(place);
}

fn is_dead(instance: &Weak<Instance>) -> bool {
    instance.upgrade().is_some_and(|instance| instance.is_dead())
}

/// Runs a session until it has nothing to do, on a thread of its own. An error says
/// how it has ended.
fn run(mut session: Session) -> Result<Session, String> {
    match session.run() {
        Pause::Idle => Ok(session),
        // What a session leaves behind (its connection, a result) is taken down
        // here: it takes time, and does not belong on the runtime's threads.
        Pause::Over(gone) => Err(gone.to_string()),
    }
}

/// Begins a session and runs it to its end.
async fn drive(
    worker: &Worker,
    begin: impl FnOnce() -> Result<Session, String> + Send + 'static,
    place: &Place,
    instance: &Weak<Instance>,
) -> String {
    let mut running = tokio::task::spawn_blocking(begin);
    loop {
        let session = match running.await {
            Ok(Ok(session)) => session,
            Ok(Err(gone)) => return gone,
            Err(_) => return "a panic".to_owned(),
        };
        if is_dead(instance) {
            // The others are told when this one is over.
            session.handle().end();
            running = tokio::task::spawn_blocking(move || run(session));
            continue;
        }
        let session = match park(worker, session, place).await {
            Ok(Parked::Wanted(session)) => session,
            Ok(Parked::TooLong(mut session)) => {
                let expired = tokio::task::spawn_blocking(move || session.expire().to_string());
                return expired.await.unwrap_or_else(|_| "a panic".to_owned());
            }
            Err(error) => return error.to_string(),
        };
        running = tokio::task::spawn_blocking(move || run(session));
    }
}

/// How a session's wait ended.
enum Parked {
    /// The client has something to say, or the worker has.
    Wanted(Session),
    /// The client has said nothing for too long.
    TooLong(Session),
}

/// Waits until the client has something to say, or the worker has.
async fn park(worker: &Worker, session: Session, place: &Place) -> io::Result<Parked> {
    if worker.registry.is_draining() {
        return Ok(Parked::Wanted(session));
    }
    let patience = session.patience();
    let too_long = async {
        match patience {
            Some(patience) => tokio::time::sleep(patience).await,
            None => std::future::pending().await,
        }
    };
    // SAFETY: the borrowed socket stays open and the same for as long as `socket`
    // lives, because the session it belongs to is held here and not touched.
    let socket = unsafe { AsyncFd::register_with_interest(session.socket(), Interest::READABLE) }?;
    tokio::pin!(too_long);
    let expired = loop {
        let peer = session.peer();
        if peer == Peer::Dead {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        tokio::select! {
            biased;
            ready = socket.readable() => break ready.map(|_| false)?,
            () = worker.registry.draining() => break false,
            () = place.woken() => break false,
            () = &mut too_long => break true,
            // Once it has all, the kernel's keepalive looks after it.
            () = tokio::time::sleep(LOOK_AGAIN), if peer == Peer::Waiting => {}
        }
    };
    drop(socket);
    Ok(if expired {
        Parked::TooLong(session)
    } else {
        Parked::Wanted(session)
    })
}
