//! The data directory: private, and one server's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use zeroize::Zeroizing;

use super::error::StartError;

const LOCK: &str = "duckgres.lock";
const SECRET: &str = "auth.secret";

/// The data directory, ours until dropped.
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing (mode 0700) and takes it. The lock
    /// is the kernel's (OFD): it ends with this process, however that ends.
    pub fn open(path: &Path) -> Result<Self, StartError> {
        private_directory(path).map_err(StartError::path(path))?;
        let metadata = fs::metadata(path).map_err(StartError::path(path))?;
        if metadata.mode() & 0o022 != 0 {
            return Err(StartError::Exposed(path.to_path_buf()));
        }
        let file = path.join(LOCK);
        let mut lock = lock_file(&file).map_err(StartError::path(&file))?;
        if !try_lock(&lock).map_err(StartError::path(&file))? {
            let mut owner = String::new();
            // The number is a help for the reader; the lock does not depend on it.
            let _ = lock.read_to_string(&mut owner);
            let owner = owner
                .trim()
                .parse::<u32>()
                .map_or(String::new(), |pid| format!(" (process {pid})"));
            return Err(StartError::DataDirInUse {
                path: path.to_path_buf(),
                owner,
            });
        }
        let data_dir = Self {
            path: path.to_path_buf(),
            lock,
        };
        data_dir.sign().map_err(StartError::path(&file))?;
        Ok(data_dir)
    }

    /// The directory that another process of this server has locked with this
    /// file: whoever of the two lives longer keeps it.
    pub fn inherit(path: &Path, lock: OwnedFd) -> Result<Self, StartError> {
        let lock = File::from(lock);
        let name = path.join(LOCK);
        let file = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let ours = lock.metadata().map(file).map_err(StartError::path(&name))?;
        if fs::metadata(&name).map(file).ok() != Some(ours) {
            return Err(StartError::OtherDataDir(path.to_path_buf()));
        }
        Ok(Self {
            path: path.to_path_buf(),
            lock,
        })
    }

    /// Notes for people that it is this process which has it.
    pub fn sign(&self) -> io::Result<()> {
        let number = format!("{}\n", std::process::id());
        self.lock.write_all_at(number.as_bytes(), 0)?;
        self.lock.set_len(number.len() as u64)
    }

    /// What keeps others out.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The random secret of this server, made once.
    pub fn secret(&self) -> Result<Zeroizing<[u8; 32]>, StartError> {
        let path = self.path.join(SECRET);
        let mut secret = Zeroizing::new([0; 32]);
        match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) if bytes.len() == secret.len() => secret.copy_from_slice(&bytes),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StartError::Path { path, source: error });
            }
            _ => {
                aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| StartError::Random)?;
                write_private(&path, secret.as_slice()).map_err(StartError::path(&path))?;
            }
        }
        Ok(secret)
    }
}

/// Makes a directory and those above it that are missing, for ourselves only.
pub fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only we can read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

/// Opens a lock file without changing it.
pub fn lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Locks a file as long as it is open; false if somebody else has it.
pub fn try_lock(file: &File) -> io::Result<bool> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole)) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_data_directory_is_private_and_has_one_server() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let second = DataDir::open(&path).err().unwrap().to_string();
        assert!(
            second.contains(&format!("(process {})", std::process::id())),
            "{second}"
        );
        drop(first);
        let third = DataDir::open(&path).unwrap();
        // Two processes of one server share the lock.
        let lock = third.lock().try_clone_to_owned().unwrap();
        assert!(matches!(
            DataDir::inherit(&path.join("none"), lock.try_clone().unwrap()),
            Err(StartError::OtherDataDir(_))
        ));
        DataDir::open(parent.path()).unwrap();
        assert!(matches!(
            DataDir::inherit(parent.path(), lock.try_clone().unwrap()),
            Err(StartError::OtherDataDir(_))
        ));
        let inherited = DataDir::inherit(&path, lock).unwrap();
        drop(third);
        assert!(DataDir::open(&path).is_err());
        drop(inherited);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(
            DataDir::open(directory.path()),
            Err(StartError::Exposed(_))
        ));
    }

    #[test]
    fn the_secret_stays_the_same_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(directory.path()).unwrap();
        assert_eq!(data_dir.secret().unwrap(), data_dir.secret().unwrap());
        assert_eq!(
            fs::metadata(directory.path().join(SECRET)).unwrap().mode() & 0o777,
            0o600
        );
    }
}
