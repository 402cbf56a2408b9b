//! All workers of this server: started or found, told their settings, stopped.
//! Those that systemd runs are only found and told (see [`units`](super::units)).

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::warn;

use super::backend_id::MAX_WORKER;
use super::collect;
use super::data_dir::DataDir;
use super::duty::Duty;
use super::error::StartError;
use super::ledger::{Ledger, SessionEvent};
use super::placement::Patience;
use super::pool::{Orders, Pool, Queue, Worker};
use super::process::Process;
use super::questions;
use super::restart::Bell;
use super::sockets::{Listening, Shared, WorkerSockets};
use super::store::{Budget, Store};
use super::supervise::{Program, Supervisor, find_program};
use super::units::Units;
use crate::config::{Config, Settings, WorkerConfig};
use crate::proto::{ConfigureRequest, Remote};

/// How long databases that no worker has mentioned wait, after a start, for
/// workers that have not reported yet.
const FIRST_REPORTS: Duration = Duration::from_secs(10);

/// How long workers of systemd's are waited for at a reload.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// The workers and their supervisors.
pub struct Workers {
    /// Where sessions go.
    pub pool: Arc<Pool>,
    supervisors: Vec<Supervisor>,
    sockets: Vec<(u16, Shared)>,
    stores: Vec<(u16, Arc<Store>)>,
}

/// What another control plane of this server hands over of its workers.
#[derive(Default)]
pub struct Inherited {
    /// Those that it looks after until this one is on duty.
    pub shared: HashSet<u16>,
    /// The sockets that it has bound for them.
    pub sockets: HashMap<u16, Listening>,
    /// The sockets at which it listens to them.
    pub notify: HashMap<u16, OwnedFd>,
}

impl Workers {
    /// Takes up the workers that an earlier control plane has left, starts those
    /// that are missing, and returns when they are ready; those of systemd's are
    /// not waited for. Those that are inherited are only looked at, and none gets
    /// orders, until `duty` begins. What happens to sessions is told to `events`.
    pub async fn start(
        config: &Config,
        data_dir: &DataDir,
        inherited: Inherited,
        duty: Duty,
        events: mpsc::UnboundedSender<SessionEvent>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        match &config.settings.worker_sockets {
            Some(directory) => {
                let workers = Self::follow(directory, &config.settings, duty, events, stopping);
                workers.look_at(&inherited.shared).await;
                Ok(workers)
            }
            None => Self::supervise(config, data_dir, inherited, duty, events, stopping).await,
        }
    }

    fn follow(
        directory: &Path,
        settings: &Settings,
        duty: Duty,
        events: mpsc::UnboundedSender<SessionEvent>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let ledger = Ledger::new([], patience(settings), events);
        let orders = watch::Sender::new(Orders::new(orders(settings)));
        tokio::spawn(give_orders(orders.clone(), duty));
        let pool = Pool::new([], ledger, queue(settings), stopping);
        let mut units = Units::new(directory, pool.clone(), orders.clone());
        units.look();
        if pool.workers().is_empty() {
            warn!(
                "there are no workers in {}: systemctl enable --now duckgres-worker@1.socket",
                directory.display()
            );
        }
        tokio::spawn(units.keep_looking());
        Self {
            pool,
            supervisors: Vec::new(),
            sockets: Vec::new(),
            stores: Vec::new(),
        }
    }

    /// Returns when those have reported, so that nobody waits for them later. They
    /// may be away: no reason not to go on.
    async fn look_at(&self, shared: &HashSet<u16>) {
        let reports = async {
            for worker in self.pool.workers() {
                if shared.contains(&worker.id) {
                    worker.ready(FIRST_LOOK).await;
                }
            }
        };
        let _ = tokio::time::timeout(FIRST_LOOK, reports).await;
    }

    async fn supervise(
        config: &Config,
        data_dir: &DataDir,
        mut inherited: Inherited,
        duty: Duty,
        events: mpsc::UnboundedSender<SessionEvent>,
        stopping: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let settings = &config.settings;
        let program = find_program(settings.worker_binary.as_deref())?;
        // Checked with the rest of the configuration.
        let count = u16::try_from(settings.worker_count.get()).unwrap_or(MAX_WORKER);
        let run = data_dir.path().join("run");
        let budget = Budget::of_this_process();
        let (mut places, mut stores) = (Vec::new(), Vec::new());
        for (id, retiring) in (1..=count)
            .map(|id| (id, false))
            .chain(left_over(&run, count).into_iter().map(|id| (id, true)))
        {
            let directory = directory(&run, id);
            let sockets = WorkerSockets::inherit(&directory, inherited.sockets.remove(&id))
                .map_err(StartError::path(&directory))?;
            let store = match inherited.notify.remove(&id) {
                Some(socket) => Store::inherit(socket, budget.clone()),
                None => Store::bind(&sockets.notify_path(), budget.clone()),
            };
            stores.push((id, store.map_err(StartError::path(&directory))?));
            places.push((id, retiring, sockets));
        }
        let ledger = Ledger::new(
            places.iter().map(|(id, retiring, _)| (*id, *retiring)),
            patience(settings),
            events,
        );
        let (orders, ordered) = watch::channel(Orders::new(orders(settings)));
        tokio::spawn(give_orders(orders, duty.clone()));
        let (mut workers, mut starting) = (Vec::new(), JoinSet::new());
        let shared = |(id, _, sockets): &(u16, bool, WorkerSockets)| (*id, sockets.shared());
        let shared = places.iter().map(shared).collect();
        for ((id, retiring, sockets), (_, store)) in places.into_iter().zip(&stores) {
            let worker = Worker::new(
                id,
                sockets.handoff_path(),
                &sockets.rpc_path(),
                ledger.clone(),
                ordered.clone(),
            );
            let program = Program {
                path: program.clone(),
                config: WorkerConfig::new(id, config),
                sockets,
                store: store.clone(),
                hang_timeout: settings.hang_timeout,
                retiring,
                shared: inherited.shared.contains(&id),
            };
            starting.spawn(Supervisor::start(program, worker.clone(), duty.clone()));
            workers.push(worker);
        }
        let mut supervisors = Vec::new();
        while let Some(started) = starting.join_next().await {
            supervisors.push(started.map_err(std::io::Error::other)??);
        }
        let pool = Pool::new(workers, ledger, queue(settings), stopping);
        for worker in pool.workers() {
            questions::pass_on(&pool, worker.id);
            collect::from(&pool, worker.id);
        }
        Ok(Self {
            pool,
            supervisors,
            sockets: shared,
            stores,
        })
    }

    /// The sockets that this process has bound or inherited, by the worker's number.
    pub fn sockets(&self) -> Vec<(u16, Arc<Listening>)> {
        let bound = |shared: &Shared| shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.sockets
            .iter()
            .filter_map(|(id, shared)| Some((*id, bound(shared)?)))
            .collect()
    }

    /// What its own workers have this process keep, by the worker's number.
    pub fn stores(&self) -> &[(u16, Arc<Store>)] {
        &self.stores
    }

    /// Where restarts of its own workers are asked for, in the order of their numbers;
    /// none if they are systemd's.
    pub fn bells(&self) -> Vec<Bell> {
        let mut bells: Vec<Bell> = self.supervisors.iter().map(|one| one.bell.clone()).collect();
        bells.sort_by_key(|bell| bell.worker);
        bells
    }

    /// Drains the workers for at most `grace`, then ends them. Those of systemd's
    /// go on.
    pub async fn stop(&mut self, grace: Duration) {
        if self.supervisors.is_empty() {
            return;
        }
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

/// Orders are given by who is on duty.
async fn give_orders(orders: watch::Sender<Orders>, mut duty: Duty) {
    loop {
        duty.begins().await;
        orders.send_modify(|orders| orders.given = true);
        duty.ends().await;
        orders.send_modify(|orders| orders.given = false);
    }
}

fn patience(settings: &Settings) -> Patience {
    Patience {
        owner: settings.owner_timeout,
        first_reports: FIRST_REPORTS,
    }
}

fn queue(settings: &Settings) -> Queue {
    Queue {
        length: settings.worker_queue_length,
        timeout: settings.worker_queue_timeout,
    }
}

/// What a worker is to go by. One of systemd's was told nothing when it was
/// started, cannot read the configuration, and is never an orphan.
fn orders(settings: &Settings) -> ConfigureRequest {
    let units = settings.worker_sockets.is_some();
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    ConfigureRequest {
        memory_limit_bytes: settings.memory_limit.map_or(0, |size| size.0),
        worker_count: settings.worker_count.get(),
        temp_quota_bytes: settings.max_temp_directory_size.map_or(0, |size| size.0),
        threads: settings.threads.map_or(0, |threads| threads.get()),
        database_idle_milliseconds: milliseconds(settings.database_idle_timeout),
        hang_milliseconds: milliseconds(settings.hang_timeout),
        orphan_milliseconds: match units {
            true => 0,
            false => milliseconds(settings.orphan_timeout),
        },
        statement_timeout_milliseconds: milliseconds(settings.statement_timeout),
        idle_session_timeout_milliseconds: milliseconds(settings.idle_session_timeout),
        idle_in_transaction_session_timeout_milliseconds: milliseconds(
            settings.idle_in_transaction_session_timeout,
        ),
        own_group: units,
        drain_milliseconds: milliseconds(settings.shutdown_timeout),
        restart_milliseconds: milliseconds(settings.drain_timeout),
        remote: units.then(|| remote(settings)),
    }
}

fn remote(settings: &Settings) -> Remote {
    let text = |path: &Path| path.display().to_string();
    Remote {
        extensions: settings.extensions.clone(),
        extension_directory: settings
            .extension_directory
            .as_deref()
            .map(text)
            .unwrap_or_default(),
        file_access: settings.file_access.iter().map(|path| text(path)).collect(),
        query_log: settings.query_log.to_string(),
        log_min_duration_statement: settings.log_min_duration_statement.to_string(),
        query_log_text: settings.query_log_text,
        query_log_file: settings.query_log_file.as_deref().map(text).unwrap_or_default(),
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
        .filter(|id| Process::find(&directory(run, *id).join("process")).is_some())
        .collect()
}
