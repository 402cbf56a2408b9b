//! Databases that come and go by SQL, or go to another worker.
//!
//! Whatever is done to a whole database is done with its lease and a
//! [`Reservation`]: sessions that come meanwhile are sent away as if another
//! process had the database, and ask again until it is free or gone.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Databases, Entry, Slot, State};
use crate::engine::{Instance, Lease, LeaseError, Options};
use crate::session::DatabaseError;
use crate::worker::{LOOK_AGAIN, database_path, spill, terminate};

/// What DuckDB has beside a database file, by the ends of their names.
const BESIDE: [&str; 3] = [".wal", ".wal.checkpoint", ".wal.recovery"];

/// Asked now and then whether to give up.
pub(in crate::worker) type Stopped<'a> = &'a (dyn Fn() -> bool + Sync);

/// A database that nobody can claim. Its lease is held until this is dropped.
struct Reservation {
    databases: Arc<Databases>,
    name: String,
    slot: Arc<Slot>,
    /// It has been closed, or never was open.
    closed: bool,
}

impl Databases {
    /// Makes an empty database and closes it again.
    pub(in crate::worker) async fn create(self: &Arc<Self>, name: &str) -> Result<(), DatabaseError> {
        let path = database_path(&self.data_dir, name);
        let reservation = self.reserve_new(name, &path)?;
        let lease = reservation.slot.lease.clone();
        tokio::task::spawn_blocking(move || make(&path, lease))
            .await
            .map_err(io::Error::other)??;
        tracing::info!(database = name, "created");
        Ok(())
    }

    /// Removes a database when it has no sessions, for which it waits until
    /// `deadline` or until `stopped`. With `force` they are ended.
    pub(in crate::worker) async fn remove(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        deadline: Instant,
        stopped: Stopped<'_>,
    ) -> Result<(), DatabaseError> {
        let mut reservation = self.reserve(name)?;
        reservation.vacate(force, deadline, stopped).await?;
        reservation.close().await?;
        let path = database_path(&self.data_dir, name);
        let spill = self.lock().options.temp_directory.clone();
        let (name, slot) = (name.to_owned(), reservation.slot.clone());
        let removed = tokio::task::spawn_blocking(move || {
            if let Some(root) = spill {
                spill::remove(&root, &name);
            }
            unmake(&path, &slot.lease)?;
            tracing::info!(database = name, "dropped");
            Ok(())
        });
        removed.await.map_err(io::Error::other)?
    }

    /// Gives a database to whoever takes its lease next, under the conditions of
    /// [`Databases::remove`]. False if it is not ours.
    pub(in crate::worker) async fn release(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        deadline: Instant,
    ) -> Result<bool, DatabaseError> {
        if !self.lock().entries.contains_key(name) {
            return Ok(false);
        }
        let mut reservation = self.reserve(name)?;
        reservation.vacate(force, deadline, &|| false).await?;
        reservation.close().await?;
        tracing::info!(database = name, "closed: another worker asks for it");
        Ok(true)
    }

    /// Reserves the name of a database that is to be made.
    fn reserve_new(self: &Arc<Self>, name: &str, path: &Path) -> Result<Reservation, DatabaseError> {
        let mut state = self.lock();
        if state.entries.contains_key(name) || path.try_exists()? {
            return Err(DatabaseError::Exists);
        }
        let lease = match Lease::take(path) {
            Ok(lease) => lease,
            // Somebody is making it, or has not yet removed all of it.
            Err(LeaseError::Held(_)) => return Err(DatabaseError::Exists),
            Err(LeaseError::Io(_, error)) => return Err(error.into()),
        };
        if path.try_exists()? {
            return Err(DatabaseError::Exists);
        }
        Ok(self.enter(&mut state, name, lease))
    }

    /// Reserves a database, also one that has sessions.
    fn reserve(self: &Arc<Self>, name: &str) -> Result<Reservation, DatabaseError> {
        let path = database_path(&self.data_dir, name);
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(name) {
            if std::mem::replace(&mut entry.reserved, true) {
                return Err(DatabaseError::Elsewhere);
            }
            return Ok(Reservation {
                databases: self.clone(),
                name: name.to_owned(),
                slot: entry.slot.clone(),
                closed: false,
            });
        }
        if !path.try_exists()? {
            return Err(DatabaseError::Missing);
        }
        let lease = match Lease::take(&path) {
            Ok(lease) => lease,
            Err(LeaseError::Held(_)) => return Err(DatabaseError::Elsewhere),
            Err(LeaseError::Io(_, error)) => return Err(error.into()),
        };
        if !path.try_exists()? {
            let _ = lease.unlink();
            return Err(DatabaseError::Missing);
        }
        Ok(self.enter(&mut state, name, lease))
    }

    fn enter(self: &Arc<Self>, state: &mut State, name: &str, lease: Lease) -> Reservation {
        let slot = Arc::new(Slot::new(Arc::new(lease)));
        let entry = Entry {
            slot: slot.clone(),
            claims: 0,
            reserved: true,
            idle_since: Instant::now(),
        };
        state.entries.insert(name.to_owned(), entry);
        Reservation {
            databases: self.clone(),
            name: name.to_owned(),
            slot,
            closed: true,
        }
    }

    fn claims(&self, name: &str) -> usize {
        self.lock().entries.get(name).map_or(0, |entry| entry.claims)
    }
}

impl Reservation {
    /// Returns when the database has no sessions.
    async fn vacate(
        &self,
        force: bool,
        deadline: Instant,
        stopped: Stopped<'_>,
    ) -> Result<(), DatabaseError> {
        let registry = &self.databases.registry;
        let mut told = HashSet::new();
        loop {
            let claims = self.databases.claims(&self.name);
            if claims == 0 {
                return Ok(());
            }
            if stopped() {
                return Err(DatabaseError::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(DatabaseError::InUse(u32::try_from(claims).unwrap_or(u32::MAX)));
            }
            if force {
                // Again each time: some were on their way in.
                for handle in registry.handles_of(&self.name) {
                    if told.insert(handle.backend_id()) {
                        terminate(registry, handle);
                    }
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Closes the database, which has no sessions any more.
    async fn close(&mut self) -> Result<(), DatabaseError> {
        let mut instance = self.slot.instance.lock().await;
        self.closed = self.slot.close(&mut instance).await;
        match self.closed {
            true => Ok(()),
            false => Err(DatabaseError::Elsewhere),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.databases.lock();
        if self.closed {
            state.entries.remove(&self.name);
        } else if let Some(entry) = state.entries.get_mut(&self.name) {
            entry.reserved = false;
            entry.idle_since = Instant::now();
        }
        drop(state);
        self.databases.reconsider.notify_one();
        self.databases.divide.notify_one();
        self.databases.registry.touch();
    }
}

/// Makes a file that is a database, or leaves nothing.
fn make(path: &Path, lease: Arc<Lease>) -> Result<(), DatabaseError> {
    let options = Options {
        threads: Some(1),
        ..Options::default()
    };
    let made = Instance::open_leased(path, lease.clone(), &options)
        .map_err(DatabaseError::from)
        // Closing it writes what it has.
        .map(drop)
        .and_then(|()| Ok(sync_directory(path)?));
    if made.is_err() {
        let _ = unmake(path, &lease);
    }
    made
}

/// Removes a database's files. When the first is gone there is no database any
/// more: what an interruption leaves of the others is removed by DuckDB, or used
/// again, when one of that name is made.
fn unmake(path: &Path, lease: &Lease) -> Result<(), DatabaseError> {
    remove_file(path)?;
    for end in BESIDE {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        if let Err(error) = remove_file(Path::new(&beside)) {
            tracing::warn!(file = ?beside, %error, "not removed with its database");
        }
    }
    if let Err(error) = sync_directory(path).and_then(|()| lease.unlink()) {
        tracing::warn!(file = %path.display(), %error, "dropped, but not all that belongs to it");
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Without this a power failure can undo that a file was made or removed.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}
