//! The data plane: takes sessions over, runs them, puts idle ones aside.
//!
//! A worker is given its two sockets by whoever supervises it, systemd or the
//! control plane, and knows neither passwords nor keys. Sessions arrive on the
//! handoff socket, management on the rpc socket. One DuckDB instance serves all
//! sessions of a database.
//!
//! A thread belongs to a session only while its client keeps it busy; an idle
//! session costs its socket and its state (`drive`). So the number of clients
//! is not the number of threads, and yet a client in a loop is served without a
//! change of thread.

mod activation;
mod activity;
mod barrier;
mod databases;
mod drive;
mod frozen;
mod gate;
mod keeper;
mod leave;
mod memory;
mod orphan;
mod probe;
mod query_log;
mod questions;
mod registry;
mod remote;
mod rpc;
mod service;
mod spill;
mod turn;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::Sender;

pub use activation::{Sockets, inherited_sockets};

use crate::config::WorkerConfig;
use crate::engine::Options;
use crate::proto::ConfigureRequest;
use crate::session::{Handle, Policy, Stop};
use crate::systemd::{job, notify};
use databases::Databases;
use registry::Registry;

/// How long running statements may go on when the worker is told to stop by a
/// signal, and nobody said.
const GRACE: Duration = Duration::from_secs(30);

/// How long a restart waits for sessions to come to rest, when nobody said.
const RESTART_WITHIN: Duration = Duration::from_secs(300);

/// How long closing the databases may take beyond that, until the worker asks
/// systemd for no more time.
const LAST_CHECKPOINTS: Duration = Duration::from_secs(120);

/// How long a session that waits in the handoff socket when the worker starts,
/// waits for the control plane's first word.
const FIRST_ORDER: Duration = Duration::from_secs(5);

/// How often it is looked whether a session that is to end is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a worker cannot run.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It was not started with its sockets.
    #[error("{0}; a worker is started by systemd or by duckgres, not by hand")]
    Activation(String),
    /// A directory, socket or signal handler could not be had.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] std::io::Error),
    /// The control plane is to run as a user that does not exist.
    #[error("there is no user {0:?}: see --control-user")]
    NoUser(String),
}

/// What all parts of a worker share.
#[derive(Debug)]
struct Worker {
    id: u16,
    data_dir: PathBuf,
    /// The users who may hand over sessions and give orders.
    masters: Vec<u32>,
    databases: Arc<Databases>,
    probe: Arc<probe::Probe>,
    attendance: orphan::Attendance,
    registry: Arc<Registry>,
    policy: Arc<Policy>,
    query_log: query_log::Current,
    transactions: Arc<activity::Transactions>,
    answers: Arc<activity::Answers>,
    keeper: Arc<keeper::Keeper>,
    questions: Arc<questions::Questions>,
    watch: watch::Watch,
    /// What it was told when it was started, for what the control plane does not say.
    memory_limit: Option<u64>,
    threads: Option<usize>,
    /// The control plane's last word.
    orders: Mutex<Option<ConfigureRequest>>,
    gate: Arc<gate::Gate>,
    freezer: frozen::Freezer,
    exit: leave::Exit,
    /// Has the control plane said what to go by?
    configured: Sender<bool>,
}

/// What becomes of a worker whose process ends.
enum Going {
    /// It has a next process.
    Back,
    /// It has none, but others may go on with its sessions.
    Away,
    /// Nor have they.
    Over,
}

/// Runs a worker until it is told to stop and has drained.
pub async fn run(config: WorkerConfig, sockets: Sockets) -> Result<(), WorkerError> {
    let spool_directory = config
        .temp_directory
        .clone()
        .unwrap_or_else(|| config.data_dir.join("tmp"));
    std::fs::create_dir_all(&spool_directory).map_err(|error| WorkerError::Io("temp_directory", error))?;
    let masters = masters(config.control_user.as_deref())?;
    let query_log = query_log::Current::default();
    query_log
        .configure(&config.query_log())
        .map_err(|error| WorkerError::Io("query_log_file", error))?;
    let registry = Arc::new(Registry::default());
    let transactions = Arc::new(activity::Transactions::default());
    let questions = Arc::new(questions::Questions::default());
    let answers = Arc::new(activity::Answers::new(
        registry.clone(),
        transactions.clone(),
        questions.clone(),
    ));
    let options = Options {
        memory_limit: config
            .memory_limit
            .map(|size| size.0)
            .or_else(|| memory::budget(1, false)),
        threads: config.threads.map(|threads| threads.get() as usize),
        temp_directory: Some(spool_directory.clone()),
        temp_quota: None,
        extension_directory: config.extension_directory.clone(),
        extensions: config.extensions.clone(),
        file_access: config.file_access.clone(),
        backup_directory: Some(config.data_dir.join("backup")),
        host: Some(answers.clone()),
    };
    let databases = Arc::new(Databases::new(config.data_dir.clone(), options, registry.clone()));
    tokio::spawn(databases.clone().close_idle());
    tokio::spawn(databases.clone().keep_shares());
    let keeper = Arc::new(keeper::Keeper::new(
        databases.clone(),
        transactions.clone(),
        questions.clone(),
    ));
    let worker = Arc::new(Worker {
        id: config.id,
        data_dir: config.data_dir,
        masters,
        probe: probe::Probe::start(databases.clone(), notify::watchdog_interval())
            .map_err(|error| WorkerError::Io("probe", error))?,
        databases,
        attendance: orphan::Attendance::default(),
        registry: registry.clone(),
        policy: Arc::new(Policy {
            file_access: std::sync::RwLock::new(config.file_access.into()),
            spool_directory,
            keeper: Some(keeper.clone()),
            ..Policy::default()
        }),
        query_log,
        transactions,
        answers,
        keeper,
        questions,
        watch: watch::Watch::start(registry).map_err(|error| WorkerError::Io("epoll", error))?,
        memory_limit: config.memory_limit.map(|size| size.0),
        threads: config.threads.map(|threads| threads.get() as usize),
        orders: Mutex::default(),
        gate: Arc::default(),
        freezer: frozen::Freezer::default(),
        exit: leave::Exit::default(),
        configured: Sender::new(false),
    });
    // Before anybody else is served.
    frozen::take_up(&worker, sockets.sessions);
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| WorkerError::Io("SIGTERM", error))?;
    let rpc = tokio::spawn(rpc::serve(worker.clone(), sockets.rpc));
    let intake = tokio::spawn({
        let worker = worker.clone();
        async move {
            worker.first_order().await;
            drive::intake(worker, sockets.handoff).await
        }
    });
    notify::ready(&service::summary(&worker));
    turn::end(sockets.turn);
    tokio::spawn(service::report(worker.clone()));
    tokio::spawn(service::stay_alive(worker.clone()));
    tracing::info!(
        worker = worker.id,
        engine = crate::engine::library_version(),
        "ready"
    );

    let comes_back = async {
        match &config.turn {
            Some(lock) => {
                let waiting = || {
                    worker.registry.await_turn();
                    notify::status(&service::summary(&worker));
                };
                turn::wait(lock, waiting).await
            }
            None => notify::is_asked_for() && job::is_restart().await.unwrap_or(false),
        }
    };
    let told_to_stop = async {
        terminate.recv().await;
        tokio::select! {
            comes_back = comes_back => comes_back,
            // The bus may be slow, and its answer must not come too late.
            () = notify::take_time() => false,
        }
    };
    let going = tokio::select! {
        comes_back = told_to_stop => match comes_back {
            true => Going::Back,
            false => Going::Away,
        },
        () = worker.exit.ordered() => Going::Away,
        () = worker.attendance.orphaned(&worker.registry) => {
            tracing::warn!("no control plane came back, and there are no sessions");
            Going::Over
        }
        () = worker.registry.drained() => Going::Over,
        result = intake => {
            tracing::error!(?result, "the handoff socket failed");
            Going::Over
        }
    };
    let left = match going {
        Going::Back => worker.leave_to_next_process().await,
        Going::Away => worker.leave_to_others().await,
        Going::Over => false,
    };
    if !left {
        let grace = worker.grace();
        notify::stopping("draining");
        let more_time = tokio::spawn(tokio::time::timeout(
            grace + LAST_CHECKPOINTS,
            notify::take_time(),
        ));
        worker.drain(grace).await;
        more_time.abort();
    }
    rpc.abort();
    if let Some(log) = worker.query_log.get() {
        let _ = tokio::task::spawn_blocking(move || log.flush()).await;
    }
    Ok(())
}

/// The users whose word counts: root, our own, and the control plane's.
fn masters(control_user: Option<&str>) -> Result<Vec<u32>, WorkerError> {
    let mut masters = vec![0, nix::unistd::geteuid().as_raw()];
    if let Some(name) = control_user {
        let named = || nix::unistd::User::from_name(name).ok().flatten();
        let uid = name.parse().ok().or_else(|| Some(named()?.uid.as_raw()));
        masters.push(uid.ok_or_else(|| WorkerError::NoUser(name.to_owned()))?);
    }
    Ok(masters)
}

impl Worker {
    /// How long statements may go on when a signal comes.
    fn grace(&self) -> Duration {
        let milliseconds = self.orders().map_or(0, |orders| orders.drain_milliseconds);
        some_time(milliseconds).unwrap_or(GRACE)
    }

    /// How long a restart waits for sessions to come to rest.
    fn restart_within(&self) -> Duration {
        let milliseconds = self.orders().map_or(0, |orders| orders.restart_milliseconds);
        some_time(milliseconds).unwrap_or(RESTART_WITHIN)
    }

    fn orders(&self) -> Option<ConfigureRequest> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.clone()
    }

    fn set_orders(&self, orders: ConfigureRequest) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders);
    }

    /// Has all sessions go on in the worker's next process; then this one is done. False
    /// if there is nothing to keep them meanwhile, or the worker is to be drained instead.
    async fn leave_to_next_process(self: &Arc<Self>) -> bool {
        let size = tokio::select! {
            size = job::store_size() => size,
            () = notify::take_time() => return false,
        };
        match size {
            // The sessions, and whose turn it is.
            Ok(size) if size >= 2 => {}
            Ok(_) => {
                tracing::warn!("FileDescriptorStoreMax= has no room for sessions: they end");
                return false;
            }
            Err(error) => {
                tracing::warn!(%error, "nobody keeps sessions for the next process: they end");
                return false;
            }
        }
        self.registry.begin_to_leave();
        notify::status(&service::summary(self));
        let within = self.restart_within();
        let more_time = tokio::spawn(tokio::time::timeout(
            within + LAST_CHECKPOINTS,
            notify::take_time(),
        ));
        let draining = async {
            let mut standing = self.registry.standing();
            let _ = standing.wait_for(|standing| standing.draining).await;
        };
        let at_rest = tokio::select! {
            () = barrier::raise(self, within) => true,
            () = turn::given_up() => false,
            () = draining => false,
        };
        if at_rest {
            notify::stopping("leaving sessions to the next process");
            barrier::freeze(self).await;
            let worker = self.clone();
            let leaving = tokio::task::spawn_blocking(move || frozen::leave(&worker));
            let _ = leaving.await;
            self.databases.close().await;
        } else {
            barrier::lower(self);
        }
        more_time.abort();
        at_rest
    }

    /// Sessions that are offered before would not have the timeouts of the others.
    async fn first_order(&self) {
        let mut configured = self.configured.subscribe();
        let _ = tokio::time::timeout(FIRST_ORDER, configured.wait_for(|configured| *configured)).await;
    }

    /// Ends all sessions: idle ones at once, busy ones when their statement is
    /// done or after `grace`; then closes the databases. Returns how many
    /// statements were cut short.
    async fn drain(&self, grace: Duration) -> u32 {
        for handle in self.registry.begin_drain() {
            handle.end();
        }
        let mut cut_short = 0;
        if tokio::time::timeout(grace, self.registry.empty()).await.is_err() {
            for handle in self.registry.handles() {
                cut_short += 1;
                tokio::spawn(async move { stop_statement(&handle, Stop::Shutdown).await });
            }
            // What does not stop even now is left to the end of the process.
            let _ = tokio::time::timeout(Duration::from_secs(5), self.registry.empty()).await;
        }
        self.databases.close().await;
        self.registry.finish_drain();
        cut_short
    }
}

/// A duration in which 0 stands for none.
fn some_time(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

/// Stops the statement that a session is running; returns when it has stopped.
async fn stop_statement(handle: &Handle, why: Stop) {
    if let Some(serial) = handle.stop(why) {
        keep_stopping(handle, serial).await;
    }
}

/// An interrupt that comes before the engine has begun is forgotten by it, so it
/// is repeated as long as the statement runs.
async fn keep_stopping(handle: &Handle, serial: u64) {
    let mut pause = Duration::from_millis(2);
    while handle.nudge(serial) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

/// Ends a session whatever it does. To be called inside the runtime.
fn terminate(registry: &Arc<Registry>, handle: Arc<Handle>) {
    let id = handle.backend_id();
    let registry = registry.clone();
    registry.end(id);
    tokio::spawn(async move {
        let is_here = || {
            let current = registry.get(id);
            current.is_some_and(|current| Arc::ptr_eq(&current, &handle))
        };
        // A statement may be about to begin that an end at the next message would
        // come too late for.
        while is_here() {
            stop_statement(&handle, Stop::Shutdown).await;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
}

/// The file of a database.
fn database_path(data_dir: &std::path::Path, name: &str) -> PathBuf {
    data_dir.join(format!("{name}.duckdb"))
}
