//! The databases that this worker has open: one instance each.
//!
//! An instance is opened by the first session that wants it and stays open. One
//! that an error has invalidated is not used again: its sessions end, and when
//! the last is gone the file is opened anew.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::database_path;
use crate::engine::{Instance, Options};
use crate::session::SessionError;

/// All open databases, by name.
#[derive(Debug)]
pub(super) struct Databases {
    data_dir: PathBuf,
    options: Options,
    /// The outer lock is held for look-ups only, an inner one while its database
    /// is being opened, so that opening one does not hold up the others.
    open: Mutex<HashMap<String, Slot>>,
}

/// A database that is open, closed, or (while the lock is held) being opened.
type Slot = Arc<Mutex<Option<Arc<Instance>>>>;

impl Databases {
    pub(super) fn new(data_dir: PathBuf, options: Options) -> Databases {
        Databases {
            data_dir,
            options,
            open: Mutex::default(),
        }
    }

    /// The instance of database `name`, opened now if need be. A file that does
    /// not exist is created only if `create`.
    pub(super) async fn open(&self, name: &str, create: bool) -> Result<Arc<Instance>, SessionError> {
        let slot = self.open.lock().await.entry(name.to_owned()).or_default().clone();
        let mut slot = slot.lock().await;
        if let Some(instance) = slot.as_ref() {
            if !instance.is_dead() {
                return Ok(instance.clone());
            }
            *slot = None;
        }
        let path = database_path(&self.data_dir, name);
        if !create && !path.exists() {
            return Err(SessionError::fatal(
                "3D000",
                format!("database \"{name}\" does not exist"),
            ));
        }
        let options = self.options.clone();
        let opened = tokio::task::spawn_blocking(move || Instance::open(&path, &options)).await;
        match opened {
            Ok(Ok(instance)) => {
                *slot = Some(instance.clone());
                Ok(instance)
            }
            Ok(Err(error)) => {
                tracing::error!(database = name, %error, "cannot open");
                let message = format!("database \"{name}\" cannot be opened at the moment");
                let mut refusal = SessionError::fatal("57P03", message);
                refusal.detail = Some(error.message.into());
                Err(refusal)
            }
            Err(_) => Err(SessionError::fatal(
                "XX000",
                format!("opening database \"{name}\" failed"),
            )),
        }
    }

    /// The names of the open databases.
    pub(super) async fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (name, slot) in self.open.lock().await.iter() {
            // A slot that is locked is being opened.
            if slot.try_lock().is_ok_and(|slot| slot.is_some()) {
                names.push(name.clone());
            }
        }
        names.sort();
        names
    }

    /// Closes all of them: DuckDB checkpoints what has no sessions any more.
    pub(super) async fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock().await);
        let _ = tokio::task::spawn_blocking(move || drop(open)).await;
    }
}
