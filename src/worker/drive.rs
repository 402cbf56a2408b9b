//! From an offered session to its end: threads for the busy, none for the idle.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Worker;
use super::activity::Witness;
use super::databases::{Claim, Spares, Unclaimed};
use super::frozen::Going;
use super::query_log::Who;
use super::registry::{Full, Hold, Place, Rest, Standing};
use crate::engine::Instance;
use crate::handoff::{Arrival, Incoming, Listener, Offer, Reason, Session as Frozen, SessionState};
use crate::proto::LiveSession;
use crate::session::{Gone, Pause, Peer, Pin, Session, SessionError};

/// How long a sender may take for its message once it has connected: as long as it
/// waits for the answer. On a machine that has too much to do it may take long.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is asked about a client that has not got all that it was sent.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Takes in what is offered on the handoff socket, for as long as that works, when
/// the gate is open.
pub(super) async fn intake(worker: Arc<Worker>, socket: OwnedFd) -> io::Result<()> {
    let listener = Listener::from_fd(socket, &worker.masters)?;
    loop {
        worker.gate.opened().await;
        let incoming = tokio::select! {
            biased;
            incoming = listener.accept() => incoming?,
            () = worker.gate.to_be_closed() => continue,
        };
        let entering = worker.gate.enter();
        let worker = worker.clone();
        tokio::spawn(async move {
            if let Some((session, place, claim)) = receive(&worker, incoming).await {
                // It is among the sessions now.
                drop(entering);
                begin(worker, session, place, claim, None).await;
            }
        });
    }
}

/// What is needed to begin with a session.
type Received = (Frozen, Place, Result<Claim, SessionError>);

async fn receive(worker: &Arc<Worker>, incoming: Incoming) -> Option<Received> {
    let offer = match incoming.receive(PATIENCE).await {
        Ok(Arrival::Offer(offer)) => *offer,
        Ok(Arrival::Collector(collector)) => {
            worker.exit.receive(collector);
            return None;
        }
        Err(error) => {
            tracing::warn!(%error, "a handoff was not understood");
            return None;
        }
    };
    let place = match worker.registry.reserve(about(&offer.session.state)) {
        Ok(place) => place,
        Err(full) => {
            let (reason, message) = match full {
                Full::InUse => (Reason::BackendIdInUse, "the backend id is in use"),
                Full::Draining => (Reason::Draining, "the worker is being drained"),
            };
            refuse(offer, reason, message).await;
            return None;
        }
    };
    // Who has the database is known before the session is taken; opening it may
    // take longer than a sender waits.
    let state = &offer.session.state;
    let claim = match worker.databases.claim(&state.database, state.create_database) {
        Ok(claim) => Ok(claim),
        Err(Unclaimed::Refused(error)) => Err(error),
        Err(Unclaimed::Elsewhere) => {
            drop(place);
            let message = "another process has the database open";
            refuse(offer, Reason::DatabaseElsewhere, message).await;
            return None;
        }
    };
    match offer.accept().await {
        Ok(session) => Some((session, place, claim)),
        Err(error) => {
            tracing::warn!(%error, "the control plane did not wait for the answer");
            None
        }
    }
}

/// A session as others are told of it.
pub(super) fn about(state: &SessionState) -> LiveSession {
    LiveSession {
        backend_id: state.backend_id,
        user: state.user.clone(),
        database: state.database.clone(),
        address: state.peer.address.clone(),
    }
}

async fn refuse(offer: Offer, reason: Reason, message: &str) {
    if let Err(error) = offer.refuse(reason, message).await {
        tracing::warn!(%error, "a refusal did not reach the control plane");
    }
}

/// Begins with a session, or goes on with one that was frozen, and runs it to its end.
pub(super) async fn begin(
    worker: Arc<Worker>,
    session: Frozen,
    place: Place,
    claim: Result<Claim, SessionError>,
    going: Option<Arc<Going>>,
) {
    let state = &session.state;
    let (backend_id, database, admin) = (state.backend_id, state.database.clone(), state.admin);
    let frozen = state.frozen.as_ref().map(|frozen| frozen.frozen);
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
    let spares = claim.as_ref().map(Claim::spares).unwrap_or_default();
    // Those who have begun come many at a time.
    let turn = match frozen {
        Some(_) => worker.freezer.turn().await,
        None => None,
    };
    let start = {
        let (worker, place, spares) = (worker.clone(), place.clone(), spares.clone());
        move || {
            let _until_here = (turn, going);
            let (policy, Frozen { socket, state }) = (worker.policy.clone(), session);
            let begun = match (spares.take(&state), frozen) {
                (Some(spare), None) => Session::start(socket, state, spare, policy, witness),
                _ => match (opened.and_then(|instance| Ok(instance.connect()?)), frozen) {
                    (Ok(connection), None) => Session::start(socket, state, connection, policy, witness),
                    (Ok(connection), Some(_)) => {
                        Session::thaw(Frozen { socket, state }, connection, policy, witness)
                    }
                    (Err(error), _) => {
                        Session::refuse(socket, state, &error);
                        return Err(error.to_string());
                    }
                },
            };
            let session = begun.map_err(|gone| gone.to_string())?;
            if let Some(since) = frozen {
                worker.freezer.thawed(since);
            }
            place.fill(session.handle().clone(), admin);
            if let Err(error) = worker.watch.add(session.socket(), session.handle().backend_id()) {
                tracing::warn!(%error, "a client that vanishes will not be noticed");
            }
            match frozen {
                Some(_) => Ok(session),
                // Its first statement is on its way, and finds this thread at work.
                None => run(session, &spares),
            }
        }
    };
    let end = drive(&worker, start, &place, &instance, &spares).await;
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
fn run(mut session: Session, spares: &Spares) -> Result<Session, String> {
    match session.run() {
        Pause::Idle => Ok(session),
        Pause::Over(gone @ Gone::Left) => {
            if let Some(spare) = session.into_spare() {
                spares.put(spare);
            }
            Err(gone.to_string())
        }
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
    spares: &Arc<Spares>,
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
            let spares = spares.clone();
            running = tokio::task::spawn_blocking(move || run(session, &spares));
            continue;
        }
        let session = match park(worker, session, place).await {
            Ok(Parked::Wanted(session)) => session,
            Ok(Parked::Still(session)) => match worker.freezer.freeze(session).await {
                Ok(()) => {
                    place.rests(Rest::Frozen);
                    // The next process has it, or another worker.
                    worker.freezer.dismissed().await;
                    return "frozen".to_owned();
                }
                Err(Some(session)) => {
                    session.handle().end();
                    *session
                }
                Err(None) => return "a panic".to_owned(),
            },
            Ok(Parked::TooLong(mut session)) => {
                let expired = tokio::task::spawn_blocking(move || session.expire().to_string());
                return expired.await.unwrap_or_else(|_| "a panic".to_owned());
            }
            Err(error) => return error.to_string(),
        };
        let spares = spares.clone();
        running = tokio::task::spawn_blocking(move || run(session, &spares));
    }
}

/// How a session's wait ended.
enum Parked {
    /// The client has something to say, or the worker has.
    Wanted(Session),
    /// The client has said nothing for too long.
    TooLong(Session),
    /// It is to be frozen.
    Still(Session),
}

/// Waits until the client has something to say, or the worker has.
async fn park(worker: &Worker, mut session: Session, place: &Place) -> io::Result<Parked> {
    let mut standing = worker.registry.standing();
    let began = Instant::now();
    loop {
        let now = *standing.borrow_and_update();
        if now.draining {
            return Ok(Parked::Wanted(session));
        }
        if now.hold == Hold::Free {
            place.is_free();
            session.unpack();
            if session.has_work() {
                break;
            }
        } else {
            let pin;
            (session, pin) = look(worker, session).await?;
            let rest = match pin {
                None if now.hold == Hold::Freezing => return Ok(Parked::Still(session)),
                None => Rest::Held,
                Some(Pin::Ending) => break,
                // It goes on, to where these end.
                Some(Pin::Transaction | Pin::Statement) => Rest::Busy,
                Some(pin) => Rest::Pinned(pin),
            };
            place.rests(rest);
            if rest != Rest::Busy {
                tokio::select! {
                    _ = standing.changed() => continue,
                    () = place.woken() => break,
                }
            }
        }
        let event;
        (session, event) = wait(session, &mut standing, place, began).await?;
        match event {
            Event::Wanted => break,
            Event::TooLong => return Ok(Parked::TooLong(session)),
            Event::Standing => {}
        }
    }
    place.rests(Rest::Busy);
    Ok(Parked::Wanted(session))
}

/// Whether something keeps the session here.
async fn look(worker: &Worker, mut session: Session) -> io::Result<(Session, Option<Pin>)> {
    if !session.pin_takes_time() {
        let pin = session.pin();
        return Ok((session, pin));
    }
    let _turn = worker.freezer.turn().await;
    let looked = tokio::task::spawn_blocking(move || {
        let pin = session.pin();
        (session, pin)
    });
    looked.await.map_err(io::Error::other)
}

/// What a session that waits for its client has got.
enum Event {
    Wanted,
    TooLong,
    /// The worker wants something else of all sessions.
    Standing,
}

async fn wait(
    session: Session,
    standing: &mut watch::Receiver<Standing>,
    place: &Place,
    began: Instant,
) -> io::Result<(Session, Event)> {
    let patience = session.patience();
    let too_long = async {
        match patience {
            Some(patience) => tokio::time::sleep_until(began + patience).await,
            None => std::future::pending().await,
        }
    };
    // SAFETY: the borrowed socket stays open and the same for as long as `socket`
    // lives, because the session it belongs to is held here and not touched.
    let socket = unsafe { AsyncFd::register_with_interest(session.socket(), Interest::READABLE) }?;
    tokio::pin!(too_long);
    let event = loop {
        let peer = session.peer();
        if peer == Peer::Dead {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        tokio::select! {
            biased;
            ready = socket.readable() => break ready.map(|_| Event::Wanted)?,
            _ = standing.changed() => break Event::Standing,
            () = place.woken() => break Event::Wanted,
            () = &mut too_long => break Event::TooLong,
            // Once it has all, the kernel's keepalive looks after it.
            () = tokio::time::sleep(LOOK_AGAIN), if peer == Peer::Waiting => {}
        }
    };
    drop(socket);
    Ok((session, event))
}
