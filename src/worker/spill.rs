//! Where the work of one database goes that is larger than its memory.
//!
//! A directory of its own, which nothing is left in from an instance that died,
//! and of which a quota keeps room on the disk for the databases themselves.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The directory for `database` below `root`, emptied. The database must not be
/// open.
pub(super) fn prepare(root: &Path, database: &str) -> io::Result<PathBuf> {
    let directory = directory(root, database);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
    empty(&directory)?;
    Ok(directory)
}

/// Removes the directory of a database that is no more, if nothing else is in it.
pub(super) fn remove(root: &Path, database: &str) {
    let directory = directory(root, database);
    let removed = empty(&directory).and_then(|()| fs::remove_dir(&directory));
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %directory.display(), %error, "not removed with its database");
    }
}

fn directory(root: &Path, database: &str) -> PathBuf {
    root.join(format!("{database}.spill"))
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // By DuckDB's names: what else might be there is not ours to remove.
        if entry.file_name().to_string_lossy().starts_with("duckdb_temp_") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The quota when nobody said: half of what is free on the disk now.
pub(super) fn quota(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_instance_left_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let directory = prepare(root.path(), "a").unwrap();
        let left = directory.join("duckdb_temp_storage_S32K-0.tmp");
        let other = directory.join("other");
        let neighbour = prepare(root.path(), "b")
            .unwrap()
            .join("duckdb_temp_block-1.block");
        for file in [&left, &other, &neighbour] {
            fs::write(file, "x").unwrap();
        }
        assert_eq!(prepare(root.path(), "a").unwrap(), directory);
        assert!(!left.exists() && other.exists() && neighbour.exists());
        assert!(quota(&directory).unwrap() > 0);
        remove(root.path(), "a");
        assert!(other.exists());
        remove(root.path(), "b");
        assert!(!neighbour.parent().unwrap().exists());
    }
}
