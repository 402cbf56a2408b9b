//! One connection, from accept to handoff.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::admission::{Admission, Ticket};
use super::auth::Authenticator;
use super::authorize::authorize;
use super::cancel;
use super::fatal::{End, Fatal};
use super::handover::hand_over;
use super::negotiate::{Opening, TlsFacts, TlsOffer, negotiate};
use super::pool::Pool;
use super::socket::Socket;
use super::startup::{Cancel, Startup};
use super::wire::Wire;

/// What all connections share.
pub struct Front {
    /// The TLS that is offered.
    pub tls: TlsOffer,
    /// Checks passwords.
    pub authenticator: Authenticator,
    /// The limit on connections.
    pub admission: Arc<Admission>,
    /// From connecting to being logged in.
    pub authentication_timeout: Duration,
    /// Where database files are.
    pub data_dir: PathBuf,
    /// The workers.
    pub pool: Arc<Pool>,
    /// Turns true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

enum Admitted {
    Session(Box<Startup>, TlsFacts, Ticket),
    Cancel(Cancel),
}

/// Serves a connection until it is handed over or closed.
pub async fn serve(front: Arc<Front>, socket: Socket) {
    let peer = socket.peer();
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
    match admitted {
        Ok(Admitted::Session(startup, facts, ticket)) => {
            let (user, database) = (startup.user.clone(), startup.database.clone());
            match hand_over(&front.pool, wire, *startup, facts, ticket).await {
                Ok(backend_id) => info!(%peer, user, database, backend_id, "connected"),
                Err((wire, end)) => refuse(wire, end, &peer).await,
            }
        }
        Ok(Admitted::Cancel(request)) => {
            cancel::forward(&front.pool, request).await;
            // The client waits for the end of the connection and nothing else.
            let _ = wire.close().await;
        }
        Err(end) => refuse(Some(wire), end, &peer).await,
    }
}

async fn admit(front: &Front, wire: &mut Wire) -> Result<Admitted, End> {
    let (startup, facts) = match negotiate(wire, &front.tls).await? {
        Opening::Cancel(request) => return Ok(Admitted::Cancel(request)),
        Opening::Session(startup, facts) => (startup, facts),
    };
    let ticket = front.admission.enter(front.pool.sessions())?;
    front.authenticator.authenticate(wire, &startup.user).await?;
    authorize(&startup.user, &startup.database, &front.data_dir)?;
    Ok(Admitted::Session(startup, facts, ticket))
}

/// Ends a connection, and tells the client why if it is to know.
async fn refuse(wire: Option<Wire>, end: End, peer: &str) {
    match &end {
        End::Fatal(fatal) => warn!(%peer, code = fatal.code, "refused: {}", fatal.message),
        End::Silent(reason) => info!(%peer, "closed: {reason}"),
        End::Io(error) => debug!(%peer, "lost: {error}"),
    }
    let Some(mut wire) = wire else { return };
    let farewell = async {
        if let End::Fatal(fatal) = &end {
            wire.write_all(&fatal.encode()).await?;
        }
        wire.close().await
    };
    // A client that does not read keeps nobody waiting.
    let _ = tokio::time::timeout(Duration::from_secs(5), farewell).await;
}
