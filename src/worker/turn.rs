//! Rolling restarts: `systemctl restart 'duckgres-worker@*'` tells all workers to
//! stop at once, and they go one after the other.
//!
//! Whose turn it is has a lock on one file. It must outlast the process: it is put
//! into the unit's file descriptor store, where the worker's next process finds
//! and releases it as soon as it is ready. So a version that does not start keeps
//! the turn, and the other workers go on as they are. Only who is to come back
//! waits; a stop, for good or for a shutdown, needs no turn. When the unit of whoever
//! has the turn is stopped, systemd closes its store, and the next one has it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::systemd::{fdstore, job, notify};

/// The lock's name in the file descriptor store.
pub(super) const NAME: &str = "turn";

/// How often a worker that waits looks whether it still is to come back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits until this worker may stop; calls `waiting` if there is something to wait for.
/// True if it is to come back. The caller asks for more time meanwhile.
pub(super) async fn wait(lock: &Path, waiting: impl FnOnce()) -> bool {
    match job::is_restart().await {
        Ok(true) => {}
        Ok(false) => return false,
        Err(error) => {
            tracing::warn!("systemd cannot be asked for the job, so no turn is waited for: {error}");
            return false;
        }
    }
    waiting();
    tracing::info!("waiting for its turn to restart");
    let taken = tokio::select! {
        taken = take(lock) => taken,
        () = given_up() => return false,
    };
    let kept = taken.and_then(|turn| fdstore::keep(NAME, turn.as_fd()));
    match kept {
        Ok(()) => {
            // systemd must have it before this process, and its lock, are gone.
            if let Err(error) = notify::barrier(BARRIER) {
                tracing::warn!(%error, "systemd has not confirmed the turn");
            }
            tracing::info!("its turn");
        }
        Err(error) => tracing::warn!(%error, "the turn cannot be taken; not waiting for it"),
    }
    true
}

/// How long systemd may take to look at what it was sent.
const BARRIER: Duration = Duration::from_secs(5);

/// The lock, when nobody else has it any more. The open file is left open: it is
/// released by whoever closes the last copy.
async fn take(lock: &Path) -> io::Result<File> {
    let file = File::open(lock)?;
    let locked = tokio::task::spawn_blocking(move || Flock::lock(file, FlockArg::LockExclusive));
    match locked.await.map_err(io::Error::other)? {
        Ok(lock) => {
            let file = lock.try_clone()?;
            // Its drop would release the lock of all copies.
            std::mem::forget(lock);
            Ok(file)
        }
        Err((_, error)) => Err(error.into()),
    }
}

/// Comes back when the job has become another than a restart.
pub(super) async fn given_up() {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Ok(false) = job::is_restart().await {
            tracing::info!("no longer to be restarted, but stopped");
            return;
        }
    }
}

/// Ends the turn of this worker, which is ready again.
pub(super) fn end(turn: Option<OwnedFd>) {
    if turn.is_none() {
        return;
    }
    if let Err(error) = fdstore::remove(NAME) {
        tracing::warn!(%error, "the turn cannot be given on");
    }
}
