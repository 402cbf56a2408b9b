//! What lives longer than one control plane: its listening sockets and its locks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{SockRef, Type};
use tokio::net::TcpListener;
use tracing::warn;

use super::channel::{Channel, MOST_DESCRIPTORS};
use crate::control::accept::Listener;
use crate::control::data_dir::DataDir;
use crate::control::doors::{CLIENT_NAMES, Doors, METRICS_NAMES, UNIX_NAME};
use crate::control::listen::UnixSocket;
use crate::control::sockets::Listening;
use crate::control::store::Store;
use crate::control::workers::{self, Workers};
use crate::proto::passed::What;
use crate::proto::{FromPredecessor, Offer, Passed, from_predecessor};
use crate::systemd::activation;

/// What there is already when a server begins. Each part is taken by whoever wants
/// it; the rest is closed when the server is on duty.
#[derive(Default)]
pub struct Estate {
    /// The lock of the data directory.
    pub data_dir_lock: Option<OwnedFd>,
    /// For clients, opened by a socket unit.
    pub unit: Vec<Listener>,
    /// For clients, our own.
    pub tcp: Vec<TcpListener>,
    /// For clients on this machine.
    pub unix: Option<UnixSocket>,
    /// For Prometheus.
    pub metrics: Vec<TcpListener>,
    /// For the operator's tool.
    pub control: Option<OwnedFd>,
    /// Of the workers.
    pub workers: workers::Inherited,
}

impl Estate {
    /// What systemd has passed: the listeners of socket units, and our own that it
    /// has kept.
    pub fn of_systemd(passed: Vec<activation::Inherited>) -> io::Result<Self> {
        let mut estate = Self::default();
        for activation::Inherited { name, fd } in passed {
            if !is_listener(&fd) {
                warn!(name, "systemd has passed something that is no door");
            } else if name == UNIX_NAME {
                match UnixSocket::found(fd) {
                    Ok(socket) => estate.unix = Some(socket),
                    Err(error) => warn!("a Unix socket that systemd has kept is not used: {error}"),
                }
            } else if name.starts_with(CLIENT_NAMES) {
                estate.tcp.push(tcp(fd)?);
            } else if name.starts_with(METRICS_NAMES) {
                estate.metrics.push(tcp(fd)?);
            } else {
                estate.unit.push(Listener::new(fd)?);
            }
        }
        Ok(estate)
    }

    /// Sorts what an offer has.
    pub fn sort(passed: Vec<Passed>, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        if passed.len() != descriptors.len() {
            return Err(invalid("the offer has not as many descriptors as it says"));
        }
        let mut estate = Self::default();
        let (mut unix, mut unix_lock) = (None, None);
        let (mut handoffs, mut rpcs) = (Vec::new(), Vec::new());
        for (about, fd) in passed.into_iter().zip(descriptors) {
            let worker = u16::try_from(about.worker).unwrap_or_default();
            match about.what() {
                What::DataDirLock => estate.data_dir_lock = Some(fd),
                What::Unit => estate.unit.push(Listener::new(fd)?),
                What::Tcp => estate.tcp.push(tcp(fd)?),
                What::Metrics => estate.metrics.push(tcp(fd)?),
                What::Unix => unix = Some((PathBuf::from(OsStr::from_bytes(&about.path)), fd)),
                What::UnixLock => unix_lock = Some(fd),
                What::Control => estate.control = Some(fd),
                What::WorkerHandoff => handoffs.push((worker, fd)),
                What::WorkerRpc => rpcs.push((worker, fd)),
                What::WorkerNotify => drop(estate.workers.notify.insert(worker, fd)),
                // Of a later version, which gets along without our taking it.
                What::Unspecified => {}
            }
        }
        if let (Some((path, listener)), Some(lock)) = (unix, unix_lock) {
            estate.unix = Some(UnixSocket::inherit(path, listener, lock)?);
        }
        for (worker, handoff) in handoffs {
            if let Some(index) = rpcs.iter().position(|(of, _)| *of == worker) {
                let (_, rpc) = rpcs.swap_remove(index);
                estate.workers.sockets.insert(worker, Listening { handoff, rpc });
            }
        }
        Ok(estate)
    }
}

/// A stream socket that listens, of a family that clients can come through.
fn is_listener(fd: &OwnedFd) -> bool {
    let socket = SockRef::from(fd);
    socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
        && getsockopt(fd, sockopt::AcceptConn) == Ok(true)
        && socket
            .local_addr()
            .is_ok_and(|address| address.as_socket().is_some() || address.is_unix())
}

fn tcp(fd: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Offers all of it; the receiver gets copies.
pub(super) async fn offer(
    channel: &Channel,
    doors: &Doors,
    data_dir: &DataDir,
    workers: &Workers,
) -> io::Result<()> {
    let sockets = workers.sockets();
    let mut all = belongings(doors, data_dir, &sockets, workers.stores());
    let workers = workers.pool.workers();
    let workers: Vec<u32> = workers.iter().map(|worker| worker.id.into()).collect();
    loop {
        let rest = all.split_off(all.len().min(MOST_DESCRIPTORS));
        let (passed, descriptors): (Vec<Passed>, Vec<BorrowedFd<'_>>) = all.into_iter().unzip();
        let offer = Offer {
            form: super::FORM,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            passed,
            workers: workers.clone(),
            more: !rest.is_empty(),
        };
        let word = from_predecessor::Word::Offer(offer);
        channel
            .send(&FromPredecessor { word: Some(word) }, &descriptors)
            .await?;
        if rest.is_empty() {
            return Ok(());
        }
        all = rest;
    }
}

fn belongings<'a>(
    doors: &'a Doors,
    data_dir: &'a DataDir,
    workers: &'a [(u16, Arc<Listening>)],
    stores: &'a [(u16, Arc<Store>)],
) -> Vec<(Passed, BorrowedFd<'a>)> {
    let about = |what| Passed {
        what: what as i32,
        ..Passed::default()
    };
    let mut all = vec![
        (about(What::DataDirLock), data_dir.lock()),
        (about(What::Control), doors.control.as_fd()),
    ];
    for listener in &doors.listeners {
        let what = match listener {
            _ if doors.of_a_unit => What::Unit,
            tcp if tcp.address().is_some() => What::Tcp,
            // With its lock, below.
            _ => continue,
        };
        all.push((about(what), listener.as_fd()));
    }
    if let Some(unix) = &doors.own_unix {
        let path = unix.path().as_os_str().as_bytes().to_vec();
        let about_unix = Passed {
            path,
            ..about(What::Unix)
        };
        all.push((about_unix, unix.listener().as_fd()));
        all.push((about(What::UnixLock), unix.lock()));
    }
    if let Some((listener, _)) = &doors.metrics {
        all.push((about(What::Metrics), listener.as_fd()));
    }
    let of_worker = |what, worker: u16| Passed {
        worker: worker.into(),
        ..about(what)
    };
    for (worker, sockets) in workers {
        all.push((of_worker(What::WorkerHandoff, *worker), sockets.handoff.as_fd()));
        all.push((of_worker(What::WorkerRpc, *worker), sockets.rpc.as_fd()));
    }
    for (worker, store) in stores {
        all.push((of_worker(What::WorkerNotify, *worker), store.as_fd()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_unknown_is_left_and_halves_of_pairs_are_too() {
        let fd = || OwnedFd::from(tempfile::tempfile().unwrap());
        let about = |what: i32, worker| Passed {
            what,
            worker,
            ..Passed::default()
        };
        let passed = vec![
            about(99, 0),
            about(What::WorkerHandoff as i32, 1),
            about(What::WorkerHandoff as i32, 2),
            about(What::WorkerRpc as i32, 2),
            about(What::UnixLock as i32, 0),
        ];
        let descriptors = (0..5).map(|_| fd()).collect();
        let estate = Estate::sort(passed.clone(), descriptors).unwrap();
        assert!(estate.unix.is_none() && estate.data_dir_lock.is_none());
        assert_eq!(estate.workers.sockets.keys().collect::<Vec<_>>(), [&2]);
        assert!(Estate::sort(passed, vec![fd()]).is_err());
    }
}
