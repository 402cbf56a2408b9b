//! The workers, as the control plane knows them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, info, warn};

use super::backend_id::BackendIds;
use crate::proto::worker_client::WorkerClient;
use crate::proto::{DrainRequest, HealthRequest, Report};

/// One worker: the same one through all its processes.
pub struct Worker {
    /// Its number.
    pub id: u16,
    /// The path of its handoff socket.
    pub handoff: PathBuf,
    /// The ids of its sessions.
    pub ids: BackendIds,
    rpc: WorkerClient<Channel>,
    report: watch::Sender<Option<Report>>,
    /// Sessions handed over to its process; what its report has accepted of
    /// them is counted there.
    handed_over: AtomicU64,
}

impl Worker {
    /// The worker behind these two sockets, and its watch. Must be called
    /// inside a runtime.
    pub fn new(id: u16, handoff: PathBuf, rpc: &Path) -> Arc<Self> {
        let mut start = [0; 4];
        // Without randomness ids begin at zero, which is as correct.
        let _ = aws_lc_rs::rand::fill(&mut start);
        let worker = Arc::new(Self {
            id,
            handoff,
            ids: BackendIds::new(id, u32::from_be_bytes(start)),
            rpc: WorkerClient::new(connect(rpc)),
            report: watch::Sender::new(None),
            handed_over: AtomicU64::new(0),
        });
        tokio::spawn(watch_health(Arc::downgrade(&worker)));
        worker
    }

    /// Its management interface.
    pub fn rpc(&self) -> WorkerClient<Channel> {
        self.rpc.clone()
    }

    /// Waits until the worker has reported and may take sessions.
    pub async fn ready(&self, within: Duration) -> bool {
        let mut report = self.report.subscribe();
        let ready = report.wait_for(Option::is_some);
        matches!(tokio::time::timeout(within, ready).await, Ok(Ok(_)))
    }

    /// Its last report; none while no process of it answers.
    pub fn report(&self) -> Option<Report> {
        self.report.borrow().clone()
    }

    /// Counts a session that is being handed over, until a report counts it.
    pub fn expect_session(&self) {
        self.handed_over.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes back an [`Worker::expect_session`] for a session that did not come.
    pub fn expect_no_session(&self) {
        let less = |count: u64| count.checked_sub(1);
        let _ = self
            .handed_over
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn sessions(&self) -> u32 {
        let report = self.report.borrow();
        let (sessions, accepted) = report
            .as_ref()
            .map_or((0, 0), |report| (report.sessions, report.accepted));
        let on_the_way = self.handed_over.load(Ordering::Relaxed).saturating_sub(accepted);
        sessions.saturating_add(u32::try_from(on_the_way).unwrap_or(u32::MAX))
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
async fn watch_health(worker: std::sync::Weak<Worker>) {
    let Some(mut rpc) = worker.upgrade().map(|worker| worker.rpc()) else {
        return;
    };
    loop {
        if let Ok(reports) = rpc.health(HealthRequest {}).await {
            let mut reports = reports.into_inner();
            while let Ok(Some(report)) = reports.message().await {
                let Some(worker) = worker.upgrade() else { return };
                if report.worker_id != u32::from(worker.id) {
                    warn!(
                        worker = worker.id,
                        reported = report.worker_id,
                        "a worker reports a number that is not its own"
                    );
                    break;
                }
                // A process that was running already may know more of them.
                worker.handed_over.fetch_max(report.accepted, Ordering::Relaxed);
                if worker.report.send_replace(Some(report)).is_none() {
                    info!(worker = worker.id, "ready");
                }
            }
        }
        let Some(worker) = worker.upgrade() else { return };
        // The next process counts from nothing.
        worker.handed_over.store(0, Ordering::Relaxed);
        worker.report.send_replace(None);
        drop(worker);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All workers; never empty.
pub struct Pool {
    first: Arc<Worker>,
    others: Vec<Arc<Worker>>,
}

impl Pool {
    /// A pool of one.
    pub fn new(first: Arc<Worker>) -> Arc<Self> {
        Arc::new(Self {
            first,
            others: Vec::new(),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Worker>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The worker of this number.
    pub fn worker(&self, id: u16) -> Option<&Arc<Worker>> {
        self.all().find(|worker| worker.id == id)
    }

    /// The worker that serves a database: one owner for each database file.
    pub fn place(&self, _database: &str) -> &Arc<Worker> {
        &self.first
    }

    /// How many sessions the workers have.
    pub fn sessions(&self) -> u32 {
        self.all().map(|worker| worker.sessions()).sum()
    }

    /// Drains every worker.
    pub async fn drain(&self, grace: Duration) {
        let drains: Vec<_> = self
            .all()
            .cloned()
            .map(|worker| tokio::spawn(async move { worker.drain(grace).await }))
            .collect();
        for drain in drains {
            let _ = drain.await;
        }
    }
}
