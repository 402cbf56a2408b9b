//! A consistent copy of a database that is in use.
//!
//! Between two checkpoints DuckDB adds to a database file and its WAL, and changes
//! nothing of what the file's header leads to. So the beginning of the WAL, then the
//! file, are together the database as it was when the WAL was read, as long as there
//! was no checkpoint meanwhile: a transaction that has written keeps checkpoints away,
//! and the header shows if that was not enough. The copy is opened, which replays its
//! WAL, and closed again. Until it is complete it is in a directory of its own, because
//! it must have the database's name for that; what a process that died has left there
//! is removed by the next one.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{Connection, Error, Instance, Lease, LeaseError, Options};

/// The headers of a database file: its own, and two of which the later one counts.
const HEADERS: usize = 3 * 4096;

/// Between two times that it is asked whether to go on.
const PIECE: u64 = 4 << 20;

/// Takes part in a transaction that keeps checkpoints away, and never exists.
const WRITE: &str = "CREATE TABLE \"~backup\" (i INTEGER)";

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The instance was opened without a directory for it, or has no file.
    #[error("this database is not backed up here")]
    Nowhere,
    /// Only one copy of a database is made at a time.
    #[error("a backup of this database is being made")]
    Running,
    /// There would not be room for it: in bytes, what it needs, and what is free.
    #[error("{0} bytes are needed, and {1} are free")]
    Space(u64, u64),
    /// Whoever asked for it wants no more.
    #[error("stopped")]
    Stopped,
    /// There was a checkpoint, which nobody could have made.
    #[error("the database changed its file meanwhile")]
    Changed,
    /// The operating system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// DuckDB did.
    #[error("{0}")]
    Engine(#[from] Error),
}

/// Where an instance's database is, and where the copies go.
#[derive(Debug)]
pub(super) struct Place {
    database: PathBuf,
    directory: PathBuf,
    /// How the copy is opened.
    options: Options,
    /// The database file. To close any descriptor of a file gives up all of the
    /// process's POSIX locks on it (fcntl(2)), which are DuckDB's: so this one is kept
    /// for as long as the instance is open.
    file: Mutex<Option<Arc<File>>>,
}

impl Place {
    pub(super) fn new(database: &Path, directory: &Path, options: &Options) -> Place {
        Place {
            database: database.to_owned(),
            directory: directory.to_owned(),
            options: Options {
                memory_limit: options.memory_limit,
                threads: Some(1),
                extension_directory: options.extension_directory.clone(),
                extensions: options.extensions.clone(),
                ..Options::default()
            },
            file: Mutex::default(),
        }
    }

    fn file(&self) -> io::Result<Arc<File>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let opened = Arc::new(File::open(&self.database)?);
        Ok(file.insert(opened).clone())
    }

    /// Gives the copy a name that says what it is and when it was made, and that no
    /// file has.
    fn publish(&self, part: &Path) -> io::Result<PathBuf> {
        let stem = self.database.file_stem().unwrap_or_default();
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut serial = 0;
        loop {
            let mut name = stem.to_owned();
            name.push(format!("-{now}"));
            if serial > 0 {
                name.push(format!("-{serial}"));
            }
            name.push(".duckdb");
            let path = self.directory.join(name);
            match renameat2(AT_FDCWD, part, AT_FDCWD, &path, RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => return Ok(path),
                Err(Errno::EEXIST) => serial += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path: OsString = path.to_owned().into();
    path.push(end);
    path.into()
}

/// What keeps checkpoints away.
struct Hold(Connection);

impl Hold {
    fn new(instance: &Arc<Instance>) -> Result<Hold, Error> {
        let connection = instance.connect()?;
        connection.run("BEGIN")?;
        connection.run(WRITE)?;
        Ok(Hold(connection))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // Nothing was written, and the connection goes with it.
        let _ = self.0.run("ROLLBACK");
    }
}

/// Where a copy is made. What is there when this is dropped is removed.
struct Unfinished {
    directory: PathBuf,
    file: PathBuf,
    lease: Lease,
}

impl Unfinished {
    fn new(place: &Place) -> Result<Unfinished, BackupError> {
        let name = place.database.file_name().unwrap_or_default();
        let directory = with_end(&place.directory.join(name), ".part");
        make_private(&place.directory)?;
        let lease = Lease::take(&directory).map_err(|error| match error {
            LeaseError::Held(_) => BackupError::Running,
            LeaseError::Io(_, error) => error.into(),
        })?;
        let file = directory.join(name);
        let unfinished = Unfinished {
            directory,
            file,
            lease,
        };
        unfinished.clear()?;
        make_private(&unfinished.directory)?;
        Ok(unfinished)
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = self.clear().and_then(|()| self.lease.unlink()) {
            tracing::warn!(directory = %self.directory.display(), %error, "an unfinished backup is left behind");
        }
    }
}

fn make_private(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

impl Instance {
    /// Makes a copy of the database with all that is committed now, and returns its
    /// path. Others go on meanwhile; their WAL grows for so long. `stopped` is asked
    /// now and then whether to give up.
    ///
    /// # Errors
    /// See [`BackupError`]; nothing is left then.
    pub fn backup(self: &Arc<Self>, stopped: &dyn Fn() -> bool) -> Result<PathBuf, BackupError> {
        let place = self.backups().ok_or(BackupError::Nowhere)?;
        let unfinished = Unfinished::new(place)?;
        let file = place.file()?;
        // What is in the file already need not be replayed. Writers may be in the way.
        let _ = self.connect()?.run("CHECKPOINT");
        let hold = Hold::new(self)?;
        let headers = headers(&file)?;
        let wal = match File::open(with_end(&place.database, ".wal")) {
            Ok(wal) => Some(wal),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let logged = wal.as_ref().map_or(Ok(0), length)?;
        check_space(&place.directory, length(&file)? + 2 * logged)?;
        if let Some(wal) = &wal {
            copy(
                wal,
                &create(&with_end(&unfinished.file, ".wal"))?,
                logged,
                stopped,
            )?;
        }
        let copied = create(&unfinished.file)?;
        copy(&file, &copied, length(&file)?, stopped)?;
        if headers != self::headers(&file)? || headers != self::headers(&File::open(&unfinished.file)?)? {
            return Err(BackupError::Changed);
        }
        drop(hold);
        drop(copied);
        // Opened and closed it is one file, and known to be readable.
        let opened = Instance::open_copy(&unfinished.file, &place.options)?;
        if stopped() {
            return Err(BackupError::Stopped);
        }
        opened.connect()?.run("CHECKPOINT")?;
        drop(opened);
        if with_end(&unfinished.file, ".wal").try_exists()? {
            return Err(BackupError::Changed);
        }
        File::open(&unfinished.file)?.sync_all()?;
        let path = place.publish(&unfinished.file)?;
        File::open(&place.directory)?.sync_all()?;
        Ok(path)
    }
}

fn length(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.len())
}

fn headers(file: &File) -> io::Result<Vec<u8>> {
    let mut headers = vec![0; HEADERS];
    file.read_exact_at(&mut headers, 0)?;
    Ok(headers)
}

fn check_space(directory: &Path, needed: u64) -> Result<(), BackupError> {
    let found = nix::sys::statvfs::statvfs(directory).map_err(io::Error::from)?;
    let free = found.blocks_available() * found.fragment_size();
    match free < needed {
        true => Err(BackupError::Space(needed, free)),
        false => Ok(()),
    }
}

/// Copies so many bytes from the beginning, by reference where the file system can.
fn copy(mut from: &File, mut to: &File, length: u64, stopped: &dyn Fn() -> bool) -> Result<(), BackupError> {
    let mut left = length;
    from.seek(SeekFrom::Start(0))?;
    while left > 0 {
        if stopped() {
            return Err(BackupError::Stopped);
        }
        match io::copy(&mut from.take(left.min(PIECE)), &mut to)? {
            0 => return Err(BackupError::Changed),
            copied => left -= copied,
        }
    }
    Ok(())
}
