//! One connection, from accept to handoff.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::admission::{Admission, Ticket};
use super::auth::Authenticator;
use super::authorize::{Access, authorize};
use super::cancel;
use super::fatal::{End, Fatal};
use super::handover::hand_over;
use super::keep::Keeper;
use super::limits::{Limits, Permit, Rejected};
use super::negotiate::{Opening, TlsFacts, TlsOffer, negotiate, turn_away};
use super::pool::Pool;
use super::proxy::Proxies;
use super::socket::Socket;
use super::startup::{Cancel, Startup};
use super::wire::Wire;

/// What all connections share.
pub struct Front {
    /// The TLS that is offered.
    pub tls: TlsOffer,
    /// The load balancers that tell whose connection it is.
    pub proxies: Proxies,
    /// Keeps connections in handshake for the next process, where there is a
    /// service manager to keep them with.
    pub keeper: Option<Arc<Keeper>>,
    /// The limits on each address.
    pub limits: Arc<Limits>,
    /// Finds out who a client is.
    pub authenticator: Authenticator,
    /// The limit on connections.
    pub admission: Arc<Admission>,
    /// From connecting to being logged in.
    pub authentication_timeout: Duration,
    /// Where database files are, if this process can see them.
    pub data_dir: Option<PathBuf>,
    /// The workers.
    pub pool: Arc<Pool>,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

enum Admitted {
    Session(Box<Session>),
    Cancel(Cancel),
}

/// A session that only lacks a worker.
struct Session {
    startup: Startup,
    facts: TlsFacts,
    access: Access,
    ticket: Ticket,
    permit: Permit,
}

/// Serves a connection until it is handed over or closed.
pub async fn serve(front: Arc<Front>, socket: Socket) {
    let mut wire = Wire::new(socket);
    let mut stopping = front.stopping.clone();
    let admitted = tokio::select! {
        admitted = tokio::time::timeout(front.authentication_timeout, admit(&front, &mut wire)) => {
            // As PostgreSQL does, too slow a client is not told why.
            admitted.unwrap_or_else(|_| Err(End::Silent("too slow to authenticate".into())))
        }
        _ = stopping.wait_for(|stopping| *stopping) => {
            Err(Fatal::cannot_connect_now("the database system is shutting down").into())
        }
    };
    // A proxy may have said whose connection it is.
    let peer = wire.socket().peer();
    match admitted {
        Ok(Admitted::Session(session)) => {
            let Session {
                startup,
                facts,
                access,
                ticket,
                permit,
            } = *session;
            let (user, database) = (startup.user.clone(), startup.database.clone());
            match hand_over(&front.pool, wire, startup, facts, access, ticket).await {
                Ok(backend_id) => {
                    permit.hand_over(backend_id);
                    info!(%peer, user, database, backend_id, "connected");
                }
                Err((wire, end)) => refuse(wire, end, &peer).await,
            }
        }
        Ok(Admitted::Cancel(request)) => {
            // Done again it might hit another statement.
            let _ = wire.socket().commit();
            cancel::forward(&front.pool, request).await;
            // The client waits for the end of the connection and nothing else.
            let _ = wire.close().await;
        }
        Err(end) => refuse(Some(wire), end, &peer).await,
    }
}

async fn admit(front: &Front, wire: &mut Wire) -> Result<Admitted, End> {
    front.proxies.introduce(wire).await?;
    let address = wire.socket().address().map(|address| address.ip());
    let visitor = match front.limits.knock(address) {
        Ok(visitor) => visitor,
        Err(rejected @ Rejected::Banned(..)) => return Err(turn_away(wire, rejected.into()).await),
        Err(rejected) => return Err(rejected.into()),
    };
    let (startup, facts) = match negotiate(wire, &front.tls).await? {
        Opening::Cancel(request) => return Ok(Admitted::Cancel(request)),
        Opening::Session(startup, facts) => (startup, facts),
    };
    let permit = visitor.admit()?;
    let ticket = front.admission.enter(|| front.pool.sessions())?;
    let account = front
        .authenticator
        .authenticate(wire, &startup.user, &permit)
        .await?;
    let access = authorize(&account, &startup.database, front.data_dir.as_deref())?;
    Ok(Admitted::Session(Box::new(Session {
        startup: *startup,
        facts,
        access,
        ticket,
        permit,
    })))
}

/// Ends a connection, and tells the client why if it is to know.
async fn refuse(wire: Option<Wire>, end: End, peer: &str) {
    match &end {
        End::Fatal(fatal) => warn!(%peer, code = fatal.code, "refused: {}", fatal.message),
        End::Unwelcome { fatal, .. } => debug!(%peer, code = fatal.code, "turned away: {}", fatal.message),
        End::Silent(reason) => info!(%peer, "closed: {reason}"),
        End::Io(error) => debug!(%peer, "lost: {error}"),
    }
    let Some(mut wire) = wire else { return };
    let farewell = async {
        if let End::Fatal(fatal) | End::Unwelcome { fatal, told: true } = &end {
            wire.write_all(&fatal.encode()).await?;
        }
        wire.close().await
    };
    // A client that does not read keeps nobody waiting.
    let _ = tokio::time::timeout(Duration::from_secs(5), farewell).await;
}
