//! The lease on a database file: a lock of our own beside it.
//!
//! DuckDB's lock is a POSIX record lock on the database file itself, which the
//! kernel drops as soon as any descriptor of that file is closed in the process,
//! and SQL can open and close files (`read_blob`). An open file description lock
//! (fcntl(2), F_OFD_SETLK) on a file that nobody else opens has no such hole. It
//! is held as long as the value lives, and dies with the process, unless somebody
//! keeps a copy of the descriptor for the process after it ([`Lease::take_up`]).
//!
//! The file is removed together with its database. Who waits with the old file in
//! hand would then hold a lock that nobody else sees, so a lock counts only if the
//! path still names the file that is locked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The right to open one database file.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    file: File,
}

/// Why a lease was not given.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another process has the database open.
    #[error("the database is in use by another process ({0})")]
    Held(PathBuf),
    /// The lease file could not be opened or locked.
    #[error("cannot lock {0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

impl Lease {
    /// Takes the lease of `database`, without waiting.
    pub fn take(database: &Path) -> Result<Lease, LeaseError> {
        let path = beside(database);
        loop {
            let file = open(&path).map_err(|error| LeaseError::Io(path.clone(), error))?;
            // Otherwise it was removed between the two.
            if lock_and_check(&path, &file)? {
                return Ok(Lease { path, file });
            }
        }
    }

    /// Goes on with the lease of `database` that an earlier process has held:
    /// `descriptor` is a copy of [its own](AsFd). Nobody else can have had it
    /// meanwhile.
    ///
    /// # Errors
    /// The descriptor is that of another file, or of one that is gone, or another
    /// process holds the lock on it after all.
    pub fn take_up(database: &Path, descriptor: OwnedFd) -> Result<Lease, LeaseError> {
        let (path, file) = (beside(database), File::from(descriptor));
        match lock_and_check(&path, &file)? {
            true => Ok(Lease { path, file }),
            false => Err(LeaseError::Io(path, io::ErrorKind::NotFound.into())),
        }
    }

    /// Removes the lease's file, when there is no database any more that it would
    /// be for. From then on it keeps nobody out: who comes next makes a new one.
    pub fn unlink(&self) -> io::Result<()> {
        match names(&self.path, &self.file)? {
            true => std::fs::remove_file(&self.path),
            false => Ok(()),
        }
    }
}

/// The open file that is locked. The lock lives as long as any copy of it.
impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".lease");
    path.into()
}

/// True if the file is locked now and still the lease's.
fn lock_and_check(path: &Path, file: &File) -> Result<bool, LeaseError> {
    match lock(file) {
        Ok(()) => {}
        Err(Errno::EAGAIN | Errno::EACCES) => return Err(LeaseError::Held(path.to_owned())),
        Err(error) => return Err(LeaseError::Io(path.to_owned(), error.into())),
    }
    names(path, file).map_err(|error| LeaseError::Io(path.to_owned(), error))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn lock(file: &File) -> Result<(), Errno> {
    let whole_file = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file)).map(drop)
}

/// Is this the file at `path`?
fn names(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_given_once_at_a_time_even_within_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("x.duckdb");
        let first = Lease::take(&database).unwrap();
        assert!(matches!(Lease::take(&database), Err(LeaseError::Held(_))));
        drop(first);
        Lease::take(&database).unwrap();
    }

    #[test]
    fn a_lease_goes_on_in_a_copy_of_its_descriptor() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("x.duckdb");
        let first = Lease::take(&database).unwrap();
        let kept = first.as_fd().try_clone_to_owned().unwrap();
        drop(first);
        assert!(matches!(Lease::take(&database), Err(LeaseError::Held(_))));
        let second = Lease::take_up(&database, kept).unwrap();
        assert!(matches!(Lease::take(&database), Err(LeaseError::Held(_))));
        let other = second.as_fd().try_clone_to_owned().unwrap();
        assert!(Lease::take_up(&directory.path().join("y.duckdb"), other).is_err());
        second.unlink().unwrap();
        let stale = second.as_fd().try_clone_to_owned().unwrap();
        assert!(Lease::take_up(&database, stale).is_err());
        drop(second);
        Lease::take(&database).unwrap();
    }

    #[test]
    fn a_lease_whose_file_is_removed_is_given_again_with_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("x.duckdb");
        let first = Lease::take(&database).unwrap();
        first.unlink().unwrap();
        let second = Lease::take(&database).unwrap();
        drop(first);
        assert!(matches!(Lease::take(&database), Err(LeaseError::Held(_))));
        drop(second);
    }

    /// Threads take the lease, look whether they are alone, and remove its file:
    /// those who opened it before must not take theirs for the lease.
    #[test]
    fn a_removed_lease_is_never_held_beside_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("x.duckdb");
        let holders = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut taken = 0;
                    while taken < 500 {
                        let Ok(lease) = Lease::take(&database) else {
                            std::thread::yield_now();
                            continue;
                        };
                        assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        taken += 1;
                        (0..20).for_each(|_| std::thread::yield_now());
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        lease.unlink().unwrap();
                    }
                });
            }
        });
    }
}
