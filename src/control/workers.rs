//! All workers of this server: started or found, told their settings, stopped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::backend_id::MAX_WORKER;
use super::data_dir::DataDir;
use super::error::StartError;
use super::ledger::{Ledger, SessionEvent};
use super::placement::Patience;
use super::pool::{Pool, Queue, Worker};
use super::process::{Process, read_note};
use super::questions;
use super::sockets::WorkerSockets;
use super::supervise::{Program, Supervisor};
use crate::config::{Config, Settings, WorkerConfig};
use crate::proto::ConfigureRequest;

/// How long databases that no worker has mentioned wait, after a start, for
/// workers that have not reported yet.
const FIRST_REPORTS: Duration = Duration::from_secs(10);

/// The workers and their supervisors.
pub struct Workers {
    /// Where sessions go.
    pub pool: Arc<Pool>,
    supervisors: Vec<Supervisor>,
    orders: watch::Sender<ConfigureRequest>,
}

impl Workers {
    /// Takes up the workers that an earlier control plane has left, starts those
    /// that are missing, and returns when they are ready. What happens to
    /// sessions is told to `events`.
    pub async fn start(
        config: &Config,
        program: &Path,
        data_dir: &DataDir,
        events: mpsc::UnboundedSender<SessionEvent>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let settings = &config.settings;
        // Checked with the rest of the configuration.
        let count = u16::try_from(settings.worker_count.get()).unwrap_or(MAX_WORKER);
        let run = data_dir.path().join("run");
        let mut places = Vec::new();
        for (id, retiring) in (1..=count)
            .map(|id| (id, false))
            .chain(left_over(&run, count).into_iter().map(|id| (id, true)))
        {
            let directory = directory(&run, id);
            let sockets = WorkerSockets::at(&directory).map_err(StartError::path(&directory))?;
            places.push((id, retiring, sockets));
        }
        let patience = Patience {
            owner: settings.owner_timeout,
            first_reports: FIRST_REPORTS,
        };
        let ledger = Ledger::new(
            places.iter().map(|(id, retiring, _)| (*id, *retiring)),
            patience,
            events,
        );
        let (orders, ordered) = watch::channel(orders(settings));
        let (mut workers, mut starting) = (Vec::new(), JoinSet::new());
        for (id, retiring, sockets) in places {
            let worker = Worker::new(
                id,
                sockets.handoff_path(),
                &sockets.rpc_path(),
                ledger.clone(),
                ordered.clone(),
            );
            let program = Program {
                path: program.to_path_buf(),
                config: WorkerConfig::new(id, config),
                sockets,
                hang_timeout: settings.hang_timeout,
                retiring,
            };
            starting.spawn(Supervisor::start(program, worker.clone()));
            workers.push(worker);
        }
        let mut supervisors = Vec::new();
        while let Some(started) = starting.join_next().await {
            supervisors.push(started.map_err(std::io::Error::other)??);
        }
        let queue = Queue {
            length: settings.worker_queue_length,
            timeout: settings.worker_queue_timeout,
        };
        let pool = Pool::new(workers, ledger, queue, stopping);
        questions::pass_on(&pool);
        Ok(Self {
            pool,
            supervisors,
            orders,
        })
    }

    /// Tells every worker, now and when it is started again, to go by these settings.
    pub fn configure(&self, settings: &Settings) {
        let new = orders(settings);
        self.orders.send_if_modified(|orders| {
            let changed = *orders != new;
            *orders = new;
            changed
        });
    }

    /// Drains the workers for at most `grace`, then ends them.
    pub async fn stop(&mut self, grace: Duration) {
        self.supervisors.iter().for_each(Supervisor::let_go);
        self.pool.drain(grace).await;
        self.end().await;
    }

    /// Ends the workers at once. A [`Workers::stop`] that was given up before
    /// has done its part.
    pub async fn kill(&mut self) {
        self.supervisors.iter().for_each(Supervisor::kill);
        self.end().await;
    }

    async fn end(&mut self) {
        self.supervisors.iter().for_each(Supervisor::finish);
        for supervisor in &mut self.supervisors {
            supervisor.stop().await;
        }
    }
}

fn orders(settings: &Settings) -> ConfigureRequest {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    ConfigureRequest {
        memory_limit_bytes: settings.memory_limit.map_or(0, |size| size.0),
        worker_count: settings.worker_count.get(),
        temp_quota_bytes: settings.max_temp_directory_size.map_or(0, |size| size.0),
        threads: settings.threads.map_or(0, |threads| threads.get()),
        database_idle_milliseconds: milliseconds(settings.database_idle_timeout),
        hang_milliseconds: milliseconds(settings.hang_timeout),
        orphan_milliseconds: milliseconds(settings.orphan_timeout),
        statement_timeout_milliseconds: milliseconds(settings.statement_timeout),
        idle_session_timeout_milliseconds: milliseconds(settings.idle_session_timeout),
        idle_in_transaction_session_timeout_milliseconds: milliseconds(
            settings.idle_in_transaction_session_timeout,
        ),
    }
}

fn directory(run: &Path, id: u16) -> PathBuf {
    run.join(format!("worker-{id}"))
}

/// Workers that an earlier configuration had and that are still running.
fn left_over(run: &Path, count: u16) -> Vec<u16> {
    let entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("worker-")?.parse::<u16>().ok();
    entries
        .filter_map(|entry| number(entry.file_name()))
        .filter(|id| *id > count && *id <= MAX_WORKER)
        .filter(|id| {
            let note = read_note(&directory(run, *id).join("process"));
            note.and_then(Process::adopt).is_some()
        })
        .collect()
}
