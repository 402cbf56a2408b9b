//! The workers, as the control plane knows them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info, warn};

use super::backend_id::BackendIds;
use super::fatal::Fatal;
use super::ledger::{Ledger, Passage};
use super::observe::Tally;
use super::placement::Placement;
use crate::proto::worker_client::WorkerClient;
use crate::proto::{ConfigureRequest, DrainRequest, HealthRequest, LeaveRequest, Report, ShutdownRequest};

/// A report with 100,000 sessions has some megabytes.
const LARGEST_REPORT: usize = 64 << 20;

/// How long a process may take until its first report.
pub const FIRST_REPORT_WITHIN: Duration = Duration::from_secs(60);

/// Before a worker counts as hung, it is looked at again after this long.
const SECOND_LOOK_AFTER: Duration = Duration::from_secs(2);

/// What the workers are to go by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Orders {
    /// The settings.
    pub settings: ConfigureRequest,
    /// Whether they are told. Otherwise another control plane is on duty, and the
    /// workers are only listened to.
    pub given: bool,
}

impl Orders {
    /// Not given yet.
    pub fn new(settings: ConfigureRequest) -> Self {
        Self {
            settings,
            given: false,
        }
    }
}

/// One worker: the same one through all its processes.
pub struct Worker {
    /// Its number.
    pub id: u16,
    /// The path of its handoff socket.
    pub handoff: PathBuf,
    /// The ids of its sessions.
    pub ids: BackendIds,
    /// What happened to it.
    pub tally: Tally,
    rpc: WorkerClient<Channel>,
    ledger: Arc<Ledger>,
    report: watch::Sender<Option<Report>>,
    orders: watch::Receiver<Orders>,
    /// When it was heard of last; in the future while a process is starting.
    heard: Mutex<Instant>,
}

impl Worker {
    /// The worker behind these two sockets, and its watch. Whenever `orders`
    /// change, it is told. Must be called inside a runtime.
    pub fn new(
        id: u16,
        handoff: PathBuf,
        rpc: &Path,
        ledger: Arc<Ledger>,
        orders: watch::Receiver<Orders>,
    ) -> Arc<Self> {
        let mut start = [0; 4];
        // Without randomness ids begin at zero, which is as correct.
        let _ = aws_lc_rs::rand::fill(&mut start);
        let rpc = WorkerClient::new(connect(rpc)).max_decoding_message_size(LARGEST_REPORT);
        let worker = Arc::new(Self {
            id,
            handoff,
            ids: BackendIds::new(id, u32::from_be_bytes(start)),
            tally: Tally::default(),
            rpc,
            ledger,
            report: watch::Sender::new(None),
            orders: orders.clone(),
            heard: Mutex::new(Instant::now() + FIRST_REPORT_WITHIN),
        });
        tokio::spawn(watch_health(Arc::downgrade(&worker), orders));
        worker
    }

    /// Its management interface.
    pub fn rpc(&self) -> WorkerClient<Channel> {
        self.rpc.clone()
    }

    /// Waits until the worker has reported.
    pub async fn ready(&self, within: Duration) -> bool {
        let mut report = self.report.subscribe();
        let ready = report.wait_for(Option::is_some);
        matches!(tokio::time::timeout(within, ready).await, Ok(Ok(_)))
    }

    /// Its last report; none while no process of it answers.
    pub fn report(&self) -> Option<Report> {
        self.report.borrow().clone()
    }

    /// A process is being started: it has time to report.
    pub fn process_begins(&self) {
        self.hear(FIRST_REPORT_WITHIN);
    }

    /// The process is gone, and its sessions with it.
    pub fn process_ended(&self) {
        self.ledger.process_ended(self.id);
    }

    /// Returns, with the reason, when the worker says that it hangs or has said
    /// nothing for `patience`. With a patience of zero never.
    pub async fn hung(&self, patience: Duration) -> String {
        if patience.is_zero() {
            return std::future::pending().await;
        }
        let mut report = self.report.subscribe();
        let says_so = |report: &Option<Report>| report.as_ref().is_some_and(|report| !report.hung.is_empty());
        loop {
            let due = *self.heard() + patience;
            tokio::select! {
                Ok(_) = report.wait_for(says_so) => {}
                () = tokio::time::sleep_until(due) => {}
            }
            if *self.heard() + patience > Instant::now() && !says_so(&report.borrow()) {
                continue;
            }
            // This process, or the whole machine, may have stood still itself.
            // Then the reports that it has missed come now.
            tokio::time::sleep((patience / 2).min(SECOND_LOOK_AFTER)).await;
            if *self.heard() + patience <= Instant::now() {
                return "it does not report".to_owned();
            }
            if let Some(report) = report.borrow().as_ref().filter(|report| !report.hung.is_empty()) {
                return format!("DuckDB does not answer in database \"{}\"", report.hung);
            }
        }
    }

    /// Returns when that process has reported, with the number of its sessions.
    pub async fn reported_by(&self, process: u32) -> u32 {
        let by = |report: &Option<Report>| report.as_ref().is_some_and(|report| report.process_id == process);
        let mut reports = self.report.subscribe();
        let report = reports.wait_for(by).await;
        // The sender is this worker's own.
        report.map_or(0, |report| report.as_ref().map_or(0, |report| report.sessions))
    }

    /// Returns when the worker reports that it has no sessions.
    pub async fn vacant(&self) {
        let none = |report: &Report| report.sessions == 0 && report.to_give_away == 0;
        let vacant = |report: &Option<Report>| report.as_ref().is_some_and(none);
        if self.report.subscribe().wait_for(vacant).await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when the worker reports that it has sessions for others.
    pub async fn gives_away(&self) {
        let some = |report: &Option<Report>| report.as_ref().is_some_and(|report| report.to_give_away > 0);
        if self.report.subscribe().wait_for(some).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether this process gives the worker its orders.
    pub fn is_ours(&self) -> bool {
        self.orders.borrow().given
    }

    /// Returns when a process answers.
    pub async fn ready_to_leave(&self) {
        if self.report.subscribe().wait_for(Option::is_some).await.is_err() {
            std::future::pending().await
        }
    }

    /// Has the worker leave for good, its sessions to others.
    pub async fn leave(&self) {
        let left = tokio::time::timeout(Duration::from_secs(5), self.rpc().leave(LeaveRequest {})).await;
        if let Ok(Err(status)) = left {
            warn!(worker = self.id, code = ?status.code(), "does not leave before its sessions have ended");
        }
    }

    /// Has the process end without waiting for anything.
    pub async fn shut_down(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(5), self.rpc().shutdown(ShutdownRequest {})).await;
    }

    /// Lets statements finish for `grace`, then ends what is left.
    pub async fn drain(&self, grace: Duration) {
        if self.report().is_none() {
            return;
        }
        let grace_milliseconds = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        // Closing the databases writes a checkpoint, which takes its time too.
        let deadline = grace + Duration::from_secs(30);
        let mut rpc = self.rpc();
        match tokio::time::timeout(deadline, rpc.drain(DrainRequest { grace_milliseconds })).await {
            Ok(Ok(reply)) => match reply.into_inner().cut_short {
                0 => debug!(worker = self.id, "drained"),
                sessions => warn!(worker = self.id, sessions, "drained; sessions were cut short"),
            },
            Ok(Err(status)) => debug!(worker = self.id, code = ?status.code(), "gone before it was drained"),
            Err(_) => warn!(worker = self.id, "did not drain in time"),
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, in_advance: Duration) {
        *self.heard() = Instant::now() + in_advance;
    }

    /// True if it is this worker's.
    fn take_in(&self, report: Report) -> bool {
        if report.worker_id != u32::from(self.id) {
            warn!(
                worker = self.id,
                reported = report.worker_id,
                "a worker reports a number that is not its own"
            );
            return false;
        }
        self.hear(Duration::ZERO);
        self.ledger.reported(self.id, &report);
        let process = report.process_id;
        if self.report.send_replace(Some(report)).is_none() {
            info!(worker = self.id, process, "ready");
        }
        true
    }
}

/// A channel that connects when it is used, and again after each loss.
fn connect(path: &Path) -> Channel {
    let path = path.to_path_buf();
    // The address only fills the request's header; the socket is the path's.
    Endpoint::from_static("http://worker").connect_with_connector_lazy(tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    }))
}

/// Follows the reports of a worker's processes for as long as the worker is known.
async fn watch_health(worker: std::sync::Weak<Worker>, mut orders: watch::Receiver<Orders>) {
    let Some(rpc) = worker.upgrade().map(|worker| worker.rpc()) else {
        return;
    };
    loop {
        if let Err(status) = follow(&worker, rpc.clone(), &mut orders).await {
            debug!(code = ?status.code(), "a worker's reports are interrupted: {}", status.message());
        }
        let Some(worker) = worker.upgrade() else { return };
        worker.report.send_replace(None);
        worker.ledger.lost(worker.id);
        drop(worker);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Follows one stream of reports to its end.
async fn follow(
    worker: &std::sync::Weak<Worker>,
    mut rpc: WorkerClient<Channel>,
    orders: &mut watch::Receiver<Orders>,
) -> Result<(), tonic::Status> {
    let order = orders.borrow_and_update().clone();
    let heartbeat_milliseconds = heartbeat(&order.settings);
    configure(&mut rpc, order).await?;
    let request = HealthRequest {
        heartbeat_milliseconds,
    };
    let mut reports = rpc.health(request).await?.into_inner();
    loop {
        tokio::select! {
            report = reports.message() => {
                let (Some(report), Some(worker)) = (report?, worker.upgrade()) else {
                    return Ok(());
                };
                if !worker.take_in(report) {
                    return Ok(());
                }
            }
            Ok(()) = orders.changed() => {
                let order = orders.borrow_and_update().clone();
                configure(&mut rpc, order).await?;
            }
        }
    }
}

/// A worker that is older than this program may not know the call: it goes by
/// what it was started with.
async fn configure(rpc: &mut WorkerClient<Channel>, order: Orders) -> Result<(), tonic::Status> {
    if !order.given {
        return Ok(());
    }
    match rpc.configure(order.settings).await {
        Err(status) if status.code() != tonic::Code::Unimplemented => Err(status),
        _ => Ok(()),
    }
}

/// Several heartbeats fit into the time after which silence means something.
fn heartbeat(order: &ConfigureRequest) -> u32 {
    match order.hang_milliseconds {
        0 => 5_000,
        limit => u32::try_from((limit / 4).clamp(50, 5_000)).unwrap_or(5_000),
    }
}

/// How clients wait for a worker.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// How many may wait at the same time.
    pub length: u32,
    /// How long each may.
    pub timeout: Duration,
}

/// All workers.
pub struct Pool {
    workers: RwLock<BTreeMap<u16, Arc<Worker>>>,
    ledger: Arc<Ledger>,
    queue: Queue,
    places: Semaphore,
    /// Turns true when the server stops.
    stopping: watch::Receiver<bool>,
}

impl Pool {
    /// A pool of these workers, which share `ledger`.
    pub fn new(
        workers: impl IntoIterator<Item = Arc<Worker>>,
        ledger: Arc<Ledger>,
        queue: Queue,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let places = usize::try_from(queue.length).unwrap_or(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            workers: RwLock::new(workers.into_iter().map(|worker| (worker.id, worker)).collect()),
            ledger,
            queue,
            places: Semaphore::new(places.min(Semaphore::MAX_PERMITS)),
            stopping,
        })
    }

    /// The worker of this number.
    pub fn worker(&self, id: u16) -> Option<Arc<Worker>> {
        self.read().get(&id).cloned()
    }

    /// All of them, in the order of their numbers.
    pub fn workers(&self) -> Vec<Arc<Worker>> {
        self.read().values().cloned().collect()
    }

    /// One more.
    pub fn add(&self, worker: Arc<Worker>) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        workers.insert(worker.id, worker);
    }

    /// One that is gone for good.
    pub fn remove(&self, id: u16) {
        let mut workers = self.workers.write().unwrap_or_else(PoisonError::into_inner);
        workers.remove(&id);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u16, Arc<Worker>>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who has what.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Until when a client that comes now may wait for a worker.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.queue.timeout
    }

    /// The worker that serves `database`: at once if one is ready, else in the
    /// queue until `deadline`.
    pub async fn place(&self, database: &str, deadline: Instant) -> Result<(Arc<Worker>, Passage), Fatal> {
        let mut changes = self.ledger.changes();
        let mut stopping = self.stopping.clone();
        let mut place = None;
        loop {
            changes.mark_unchanged();
            let again = match self.ledger.place(database, Placement::Owner) {
                Ok(passage) => match self.worker(passage.worker()) {
                    Some(worker) => return Ok((worker, passage)),
                    None => deadline,
                },
                Err(until) => until.map_or(deadline, |until| deadline.min(until.into())),
            };
            if place.is_none() {
                place = Some(self.places.try_acquire().map_err(|_| {
                    Fatal::new(
                        "53300",
                        "sorry, too many clients are waiting for a worker already",
                    )
                })?);
            }
            if Instant::now() >= deadline {
                return Err(Fatal::cannot_connect_now(
                    "no worker could take the session in time; the database system may be starting up",
                ));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(again) => {}
                _ = stopping.wait_for(|stopping| *stopping) => {
                    return Err(Fatal::cannot_connect_now("the database system is shutting down"));
                }
            }
        }
    }

    /// How many sessions the workers have, those on their way included.
    pub fn sessions(&self) -> u32 {
        u32::try_from(self.ledger.sessions()).unwrap_or(u32::MAX)
    }

    /// Drains every worker.
    pub async fn drain(&self, grace: Duration) {
        let drains: Vec<_> = self
            .workers()
            .into_iter()
            .map(|worker| tokio::spawn(async move { worker.drain(grace).await }))
            .collect();
        for drain in drains {
            let _ = drain.await;
        }
    }
}
