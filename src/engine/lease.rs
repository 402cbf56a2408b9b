//! The lease on a database file: a lock of our own beside it.
//!
//! DuckDB's lock is a POSIX record lock on the database file itself, which the
//! kernel drops as soon as any descriptor of that file is closed in the process,
//! and SQL can open and close files (`read_blob`). An open file description lock
//! (fcntl(2), F_OFD_SETLK) on a file that nobody else opens has no such hole. It
//! is held as long as the value lives, and dies with the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// The right to open one database file.
#[derive(Debug)]
pub struct Lease {
    _file: File,
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
        let mut path = database.as_os_str().to_owned();
        path.push(".lease");
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| LeaseError::Io(path.clone(), error))?;
        let whole_file = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file)) {
            Ok(_) => Ok(Lease { _file: file }),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(LeaseError::Held(path)),
            Err(error) => Err(LeaseError::Io(path, error.into())),
        }
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
}
