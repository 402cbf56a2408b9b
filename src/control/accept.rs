//! The accept loop: one task per connection.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, accept_with};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use super::connection::{Front, serve};
use super::duty::Duty;
use super::keep::{self, Keeper};
use super::service::Knock;
use super::socket::Socket;

/// What every accepted socket is.
pub const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Something that connections come from: a TCP port, or a Unix socket.
#[derive(Clone)]
pub struct Listener(Arc<AsyncFd<OwnedFd>>);

impl Listener {
    /// Takes a listening socket. Must be called inside a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        SockRef::from(&socket).set_nonblocking(true)?;
        // SAFETY: an OwnedFd always answers with the one descriptor that it keeps
        // open until it is dropped, and nothing takes it out of the AsyncFd.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(Arc::new(socket)))
    }

    /// The address of a TCP port.
    pub fn address(&self) -> Option<SocketAddr> {
        SockRef::from(self).local_addr().ok()?.as_socket()
    }

    /// The path of a Unix socket.
    pub fn path(&self) -> Option<PathBuf> {
        let address = SockRef::from(self).local_addr().ok()?;
        address.as_pathname().map(Path::to_path_buf)
    }

    /// Accepts a connection, and keeps it if there is a keeper.
    async fn accept(&self, keeper: Option<&Arc<Keeper>>) -> io::Result<Socket> {
        let mut prepared = keeper.and_then(Keeper::prepare);
        let accept = |listener: &OwnedFd| keep::accept(listener.as_fd(), &mut prepared);
        let (socket, kept) = self.0.async_io(Interest::READABLE, accept).await?;
        Socket::accepted(socket, kept)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
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
    while let Ok(socket) = accept_with(&listener, FLAGS) {
        if let Ok(socket) = Socket::accepted(socket, None) {
            tokio::spawn(serve(front.clone(), socket));
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
