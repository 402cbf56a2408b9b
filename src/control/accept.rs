//! The accept loop: one task per connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::connection::{Front, serve};
use super::duty::Duty;
use super::keep::Keeper;
use super::service::Knock;
use super::socket::Socket;

/// Something that connections come from.
#[derive(Clone)]
pub enum Listener {
    /// A TCP port.
    Tcp(Arc<TcpListener>),
    /// The Unix socket.
    Unix(Arc<UnixListener>),
}

impl Listener {
    /// Accepts a connection, and keeps it in the next moment.
    async fn accept(&self, keeper: Option<&Arc<Keeper>>) -> io::Result<Socket> {
        let prepared = keeper.and_then(Keeper::prepare);
        let keep = |fd: BorrowedFd<'_>| prepared.and_then(|prepared| prepared.keep(fd));
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let kept = keep(stream.as_fd());
                prepare(&SockRef::from(&stream))?;
                Ok(Socket::tcp(stream, address).kept_by(kept))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let kept = keep(stream.as_fd());
                Ok(Socket::unix(stream).kept_by(kept))
            }
        }
    }
}

/// Answers go out at once, and a peer that has vanished is noticed in about a minute.
fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}

/// How long connections may take to say goodbye when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Accepts while this process is on duty, until `closing` turns true; then waits
/// until every connection is handed over or, when the server stops, has been told. A
/// panic in a connection's task ends that connection; when the doorway is full,
/// clients wait in the kernel's queue. Every knock is answered, also then. `open` is
/// dropped with the listener.
pub async fn accept(
    (listener, open): (Listener, mpsc::Sender<()>),
    front: Arc<Front>,
    doorway: Arc<Semaphore>,
    mut knocks: mpsc::Receiver<Knock>,
    mut duty: Duty,
    mut closing: watch::Receiver<bool>,
) {
    let mut stopping = front.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = duty.during(async {
                // The semaphore is never closed.
                let place = doorway.clone().acquire_owned().await.ok();
                (listener.accept(front.keeper.as_ref()).await, place)
            }) => accepted,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "a connection was lost to a defect");
                }
                continue;
            }
            Some(knock) = knocks.recv() => {
                let _ = knock.send(());
                continue;
            }
            _ = closing.wait_for(|closing| *closing) => break,
        };
        let Some(accepted) = accepted else { continue };
        match accepted {
            (Ok(socket), place) => {
                let front = front.clone();
                connections.spawn(async move {
                    serve(front, socket).await;
                    drop(place);
                });
            }
            (Err(error), _) if is_transient(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            (Err(error), _) => {
                // Out of descriptors or memory: connections that end make room.
                warn!(%error, "cannot accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop((listener, open));
    let farewells = async { while connections.join_next().await.is_some() {} };
    let told = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        () = farewells => {}
        () = told => {}
    }
}

/// Serves those who wait at a door that is being closed.
pub fn accept_rest(listener: TcpListener, front: &Arc<Front>) {
    let Ok(listener) = listener.into_std() else { return };
    // Non-blocking: it ends with an error when nobody waits any more.
    while let Ok((stream, address)) = listener.accept() {
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream.and_then(|stream| prepare(&SockRef::from(&stream)).map(|()| stream)) {
            tokio::spawn(serve(front.clone(), Socket::tcp(stream, address)));
        }
    }
}

/// Errors of one connection rather than of the listener (accept(2), ERRORS).
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}
