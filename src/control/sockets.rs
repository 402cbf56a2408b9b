//! A worker's two sockets.
//!
//! The control plane binds them and keeps them open for the worker's whole
//! series of processes, as systemd does with a socket unit: what clients queue
//! there while no process runs is taken up by the next one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use super::data_dir::private_directory;
use super::listen::fits;

const BACKLOG: i32 = 1024;

/// The listening sockets of one worker, in a directory of their own.
pub struct WorkerSockets {
    /// SOCK_SEQPACKET: takes sessions over.
    pub handoff: OwnedFd,
    /// SOCK_STREAM: management.
    pub rpc: OwnedFd,
    directory: PathBuf,
    handle: OwnedFd,
}

const HANDOFF: &str = "handoff.sock";
const RPC: &str = "rpc.sock";

impl WorkerSockets {
    /// Binds both in `directory`, which is made (mode 0700) and must be ours.
    /// Sockets of an earlier control plane are replaced: the data directory's
    /// lock says that it is gone.
    pub fn bind(directory: &Path) -> io::Result<Self> {
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
        let at = |name| address(directory, &handle, name);
        Ok(Self {
            handoff: listen(&at(HANDOFF), Type::SEQPACKET)?,
            rpc: listen(&at(RPC), Type::STREAM)?,
            directory: directory.to_path_buf(),
            handle,
        })
    }

    /// Where this process reaches the handoff socket.
    pub fn handoff_path(&self) -> PathBuf {
        address(&self.directory, &self.handle, HANDOFF)
    }

    /// Where this process reaches the management socket.
    pub fn rpc_path(&self) -> PathBuf {
        address(&self.directory, &self.handle, RPC)
    }
}

impl Drop for WorkerSockets {
    fn drop(&mut self) {
        for name in [HANDOFF, RPC] {
            let _ = std::fs::remove_file(self.directory.join(name));
        }
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// The socket's path; where that is too long for a socket's address, a short
/// one that leads through this process's handle of the directory.
fn address(directory: &Path, handle: &OwnedFd, name: &str) -> PathBuf {
    let plain = directory.join(name);
    match fits(&plain) {
        true => plain,
        false => PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_fd().as_raw_fd())),
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
            let sockets = WorkerSockets::bind(&directory).unwrap();
            std::os::unix::net::UnixStream::connect(sockets.rpc_path()).unwrap();
            assert!(fits(&sockets.handoff_path()));
            // A control plane that was killed has left its sockets behind.
            std::mem::forget(sockets);
            drop(WorkerSockets::bind(&directory).unwrap());
            assert!(!directory.exists());
        }
    }
}
