//! A worker's two sockets.
//!
//! The control plane binds them and keeps them open for the worker's whole
//! series of processes, as systemd does with a socket unit: what clients queue
//! there while no process runs is taken up by the next one. A process that an
//! earlier control plane has left behind holds them itself; then they are left
//! alone until it has ended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::data_dir::private_directory;
use super::listen::fits;

const BACKLOG: i32 = 1024;

/// The place of one worker's sockets, a directory of their own.
pub struct WorkerSockets {
    listening: Shared,
    /// The files are this process's to remove.
    ours: bool,
    directory: PathBuf,
    handle: OwnedFd,
}

/// A worker's sockets, for who passes them on. Empty if they are not bound here.
pub type Shared = Arc<Mutex<Option<Arc<Listening>>>>;

/// The listening sockets.
pub struct Listening {
    /// SOCK_SEQPACKET: takes sessions over.
    pub handoff: OwnedFd,
    /// SOCK_STREAM: management.
    pub rpc: OwnedFd,
}

/// The name of the socket for sessions.
pub const HANDOFF: &str = "handoff.sock";
/// The name of the socket for orders.
pub const RPC: &str = "rpc.sock";
/// The name of the socket at which its supervisor listens to the worker.
const NOTIFY: &str = "notify.sock";
const NOTE: &str = "process";

/// Where a worker's process finds its supervisor's socket.
pub enum NotifyAddress<'a> {
    /// There.
    Path(PathBuf),
    /// By this name in a directory whose path is too long for a socket's address: the
    /// process needs the descriptor.
    In(BorrowedFd<'a>, &'static str),
}

impl WorkerSockets {
    /// Their place in `directory`, which is made (mode 0700) and must be ours.
    pub fn at(directory: &Path) -> io::Result<Self> {
        private_directory(directory)?;
        let metadata = std::fs::symlink_metadata(directory)?;
        if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory belongs to somebody else",
            ));
        }
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
        let handle: OwnedFd = std::fs::File::open(directory)?.into();
        Ok(Self {
            listening: Shared::default(),
            ours: false,
            directory: directory.to_path_buf(),
            handle,
        })
    }

    /// The same, with the sockets that another process of this server has bound;
    /// `None` if a worker of an earlier time listens to its own.
    pub fn inherit(directory: &Path, listening: Option<Listening>) -> io::Result<Self> {
        let sockets = Self::at(directory)?;
        *sockets.lock() = listening.map(Arc::new);
        Ok(sockets)
    }

    /// The other process has left: the files are ours to remove.
    pub fn take_over(&mut self) {
        let bound = self.lock().is_some();
        self.ours = bound;
    }

    /// The sockets, as they are at any time.
    pub fn shared(&self) -> Shared {
        self.listening.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Listening>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sockets, bound now if this process has not. Others of that name are
    /// replaced: no process may be left that listens to them.
    pub fn bind(&mut self) -> io::Result<Arc<Listening>> {
        let bound = self.lock().clone();
        let listening = match bound {
            Some(listening) => listening,
            None => Arc::new(Listening {
                handoff: listen(&self.handoff_path(), Type::SEQPACKET)?,
                rpc: listen(&self.rpc_path(), Type::STREAM)?,
            }),
        };
        *self.lock() = Some(listening.clone());
        self.ours = true;
        Ok(listening)
    }

    /// Whether a process listens to them.
    pub fn are_answered(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.rpc_path()).is_ok()
    }

    /// The file that says which process has them.
    pub fn note(&self) -> PathBuf {
        self.directory.join(NOTE)
    }

    /// Removes what is in the file system, when no process needs it any more.
    pub fn remove(self) {
        self.clear();
    }

    fn clear(&self) {
        for name in [HANDOFF, RPC, NOTIFY, NOTE] {
            let _ = std::fs::remove_file(self.directory.join(name));
        }
        let _ = std::fs::remove_dir(&self.directory);
    }

    /// Where this process reaches the handoff socket.
    pub fn handoff_path(&self) -> PathBuf {
        address(&self.directory, self.handle.as_fd(), HANDOFF)
    }

    /// Where this process binds the socket at which it listens to the worker.
    pub fn notify_path(&self) -> PathBuf {
        address(&self.directory, self.handle.as_fd(), NOTIFY)
    }

    /// Where the worker's process finds that socket.
    pub fn notify_address(&self) -> NotifyAddress<'_> {
        let plain = self.directory.join(NOTIFY);
        match fits(&plain) {
            true => NotifyAddress::Path(plain),
            false => NotifyAddress::In(self.handle.as_fd(), NOTIFY),
        }
    }

    /// Where this process reaches the management socket.
    pub fn rpc_path(&self) -> PathBuf {
        address(&self.directory, self.handle.as_fd(), RPC)
    }
}

impl Drop for WorkerSockets {
    fn drop(&mut self) {
        // Those that somebody else has bound may be in use.
        if self.ours {
            self.clear();
        }
    }
}

/// The socket's path; where that is too long for a socket's address, a short
/// one that leads through this process's handle of the directory.
pub fn address(directory: &Path, handle: BorrowedFd<'_>, name: &str) -> PathBuf {
    let plain = directory.join(name);
    match fits(&plain) {
        true => plain,
        false => PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd())),
    }
}

fn listen(path: &Path, kind: Type) -> io::Result<OwnedFd> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_reachable_however_long_the_path_is() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "x".repeat(120)] {
            let directory = parent.path().join(name);
            let mut sockets = WorkerSockets::at(&directory).unwrap();
            assert!(!sockets.are_answered());
            sockets.bind().unwrap();
            assert!(sockets.are_answered());
            assert!(fits(&sockets.handoff_path()));
            // A control plane that was killed has left its sockets behind.
            std::mem::forget(sockets);
            let mut next = WorkerSockets::at(&directory).unwrap();
            drop(WorkerSockets::at(&directory).unwrap());
            assert!(next.are_answered(), "looking is not touching");
            next.bind().unwrap();
            drop(next);
            assert!(!directory.exists());
        }
    }
}
