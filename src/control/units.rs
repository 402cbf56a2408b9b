//! Workers that systemd runs. They are found by their sockets, which
//! duckgres-worker@.socket makes; this process connects to them, which starts
//! the worker, and neither binds, starts, kills nor replaces anything.
//!
//! The directory is looked at again and again, so that
//! `systemctl enable --now duckgres-worker@4.socket` needs no restart. A worker
//! whose sockets are gone gets no more databases, and is forgotten when its
//! process has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::backend_id::MAX_WORKER;
use super::collect;
use super::pool::{Orders, Pool, Worker};
use super::process::Name;
use super::questions;
use super::sockets::{HANDOFF, RPC};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps the pool in step with the directory.
pub struct Units {
    directory: PathBuf,
    pool: Arc<Pool>,
    orders: watch::Sender<Orders>,
    /// The processes that were seen last.
    processes: BTreeMap<u16, Name>,
    /// What was wrong with the directory, which is said once.
    unreadable: Option<io::ErrorKind>,
}

impl Units {
    /// Whatever the pool has is kept as the directory says, and told `orders`, with
    /// the number of workers in them.
    pub fn new(directory: &Path, pool: Arc<Pool>, orders: watch::Sender<Orders>) -> Self {
        Self {
            directory: directory.to_path_buf(),
            pool,
            orders,
            processes: BTreeMap::new(),
            unreadable: None,
        }
    }

    /// Looks for as long as the server runs.
    pub async fn keep_looking(mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    /// Looks once. Must be called inside a runtime.
    pub fn look(&mut self) {
        let present = match present(&self.directory) {
            Ok(present) => present,
            // What cannot be seen has not gone.
            Err(error) => {
                if self.unreadable.replace(error.kind()) != Some(error.kind()) {
                    warn!(%error, "cannot look for workers in {}", self.directory.display());
                }
                return;
            }
        };
        self.unreadable = None;
        // They share the machine's memory.
        let count = u32::try_from(present.len()).unwrap_or(u32::MAX);
        self.orders.send_if_modified(|orders| {
            let changed = orders.settings.worker_count != count;
            orders.settings.worker_count = count;
            changed
        });
        for id in &present {
            // Before it can report, or the report would be nobody's.
            self.pool.ledger().enlist(*id);
            if self.pool.worker(*id).is_none() {
                info!(worker = id, "found the worker's sockets");
                self.add(*id);
            }
        }
        for worker in self.pool.workers() {
            self.count_restarts(&worker);
            if !present.contains(&worker.id) {
                self.dismiss(&worker);
            }
        }
    }

    fn add(&self, id: u16) {
        let directory = self.directory.join(id.to_string());
        self.pool.add(Worker::new(
            id,
            directory.join(HANDOFF),
            &directory.join(RPC),
            self.pool.ledger().clone(),
            self.orders.subscribe(),
        ));
        questions::pass_on(&self.pool, id);
        collect::from(&self.pool, id);
    }

    fn dismiss(&mut self, worker: &Worker) {
        self.pool.ledger().retire(worker.id);
        if worker.report().is_some() {
            return;
        }
        info!(worker = worker.id, "the worker and its sockets are gone");
        worker.process_ended();
        self.pool.remove(worker.id);
        self.processes.remove(&worker.id);
    }

    fn count_restarts(&mut self, worker: &Worker) {
        let Some(report) = worker.report() else { return };
        let process = (report.process_id, report.start_time);
        let before = self.processes.insert(worker.id, process);
        if before.is_some_and(|before| before != process) {
            worker.tally.restarted();
        }
    }
}

/// The numbers of the workers that have both sockets.
fn present(directory: &Path) -> io::Result<BTreeSet<u16>> {
    let mut present = BTreeSet::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(number);
        let path = entry.path();
        if let Some(id) = number
            && [HANDOFF, RPC].iter().all(|name| path.join(name).exists())
        {
            present.insert(id);
        }
    }
    Ok(present)
}

/// As duckgres-worker@.service takes it from its name: `7`, not `07` or `+7`.
fn number(name: &str) -> Option<u16> {
    let id = name.parse().ok().filter(|id| (1..=MAX_WORKER).contains(id))?;
    (id.to_string() == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_a_number_with_two_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let make = |id: &str, names: &[&str]| {
            let place = directory.path().join(id);
            std::fs::create_dir(&place).unwrap();
            names
                .iter()
                .for_each(|name| std::fs::write(place.join(name), "").unwrap());
        };
        make("1", &[HANDOFF, RPC]);
        make("2", &[RPC]);
        for wrong in ["0", "03", "1024", "x", "-1"] {
            make(wrong, &[HANDOFF, RPC]);
        }
        make("1023", &[HANDOFF, RPC]);
        assert_eq!(
            present(directory.path()).unwrap(),
            BTreeSet::from([1, MAX_WORKER])
        );
        assert!(present(&directory.path().join("nowhere")).is_err());
    }
}
