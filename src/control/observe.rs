//! What can be seen of this server: its workers, its sessions, its limits.
//!
//! Gathered when somebody asks and not before; a worker that does not answer
//! costs [`ANSWER_WITHIN`] and shows what is known without it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::limits::Limits;
use super::pool::{Pool, Worker};
use crate::histogram::Histogram;
use crate::process;
use crate::proto::{self, MetricsReply, MetricsRequest, Report};

/// How long a worker may take to say what it has counted.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Upper bounds in seconds for handoffs, which take a fraction of a millisecond
/// when all is well.
const HANDOFF_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0,
];

/// What this process has counted about a worker.
#[derive(Debug)]
pub struct Tally {
    handoffs: Histogram,
    failed_handoffs: AtomicU64,
    restarts: AtomicU64,
    moved: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            handoffs: Histogram::new(HANDOFF_SECONDS),
            failed_handoffs: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            moved: AtomicU64::new(0),
        }
    }
}

impl Tally {
    /// A session was offered; the worker has it, or not, after this long.
    pub fn offered(&self, taken: bool, duration: Duration) {
        if taken {
            self.handoffs.observe(duration);
        } else {
            self.failed_handoffs.fetch_add(1, Relaxed);
        }
    }

    /// Its process was replaced.
    pub fn restarted(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    /// It has a session now that a worker had which leaves.
    pub fn moved(&self) {
        self.moved.fetch_add(1, Relaxed);
    }

    /// How many sessions it has got from workers that left.
    pub fn moved_sessions(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// Adds what another control plane has counted about the worker.
    pub fn add(&self, handoffs: &proto::Histogram, failed_handoffs: u64, restarts: u64, moved: u64) {
        self.handoffs.add(handoffs);
        self.failed_handoffs.fetch_add(failed_handoffs, Relaxed);
        self.restarts.fetch_add(restarts, Relaxed);
        self.moved.fetch_add(moved, Relaxed);
    }

    /// How long the handoffs took that arrived.
    pub fn handoffs(&self) -> proto::Histogram {
        self.handoffs.snapshot()
    }

    /// How many did not arrive.
    pub fn failed_handoffs(&self) -> u64 {
        self.failed_handoffs.load(Relaxed)
    }

    /// How often its process was replaced.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }
}

/// A worker, as it is seen now.
pub struct SeenWorker {
    /// Itself.
    pub worker: Arc<Worker>,
    /// Its last report; none while no process of it reports.
    pub report: Option<Report>,
    /// What it has counted; none if it did not answer in time.
    pub counted: Option<MetricsReply>,
    /// It is not configured any more, and kept for its sessions only.
    pub retiring: bool,
}

impl SeenWorker {
    async fn look(worker: Arc<Worker>, retiring: bool) -> Self {
        let mut rpc = worker.rpc();
        let counted = match tokio::time::timeout(ANSWER_WITHIN, rpc.metrics(MetricsRequest {})).await {
            Ok(Ok(reply)) => Some(reply.into_inner()),
            _ => None,
        };
        Self {
            report: worker.report(),
            worker,
            counted,
            retiring,
        }
    }

    /// In a word, how it is.
    pub fn state(&self) -> &'static str {
        match (&self.report, &self.counted) {
            (None, _) => "starting",
            (Some(report), _) if !report.hung.is_empty() => "hung",
            (Some(_), None) => "not answering",
            (Some(report), _) if report.to_give_away > 0 => "leaving",
            (Some(report), _) if report.draining => "draining",
            (Some(report), _) if report.waiting => "waiting",
            _ if self.retiring => "retiring",
            (Some(report), _) if report.leaving => "leaving",
            _ => "ready",
        }
    }

    /// How many of its sessions are on their way to another process.
    pub fn frozen(&self) -> u32 {
        let frozen = |report: &Report| report.frozen.max(report.to_give_away);
        self.report.as_ref().map_or(0, frozen)
    }

    /// What its leaving waits for: "2 transaction, 1 temporary". Empty if it does not.
    pub fn in_the_way(&self) -> String {
        let pinned = self.report.iter().flat_map(|report| &report.pinned);
        let pinned: Vec<String> = pinned
            .map(|pinned| format!("{} {}", pinned.sessions, pinned.reason))
            .collect();
        pinned.join(", ")
    }

    /// Its process, if that is still the one that has reported.
    pub fn process(&self) -> Option<(u32, u64)> {
        let name = self
            .report
            .as_ref()
            .map(|report| (report.process_id, report.start_time))?;
        // It has just answered; or it can be seen, which a hardened service may not.
        let lives = self.counted.is_some() || process::start_time(name.0) == Some(name.1);
        lives.then_some(name)
    }

    /// How long its process has run.
    pub fn uptime(&self) -> Option<Duration> {
        match &self.counted {
            Some(counted) => Some(Duration::from_secs(counted.uptime_seconds)),
            None => process::age(self.process()?.1),
        }
    }

    /// The memory that its process has resident, in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        match &self.counted {
            Some(counted) => Some(counted.resident_bytes),
            None => process::resident_bytes(self.process()?.0),
        }
    }
}

/// How the sessions are spread.
#[derive(Debug, Default)]
pub struct Census {
    /// All of them.
    pub sessions: u32,
    /// By worker.
    pub workers: HashMap<u16, u32>,
    /// By database and worker.
    pub databases: BTreeMap<(String, u16), u32>,
    /// By user.
    pub users: BTreeMap<String, u32>,
}

/// Looks at the server.
pub struct Observer {
    /// The workers.
    pub pool: Arc<Pool>,
    /// Who was refused and is banned.
    pub limits: Arc<Limits>,
    /// Since when this process serves.
    pub started: Instant,
    /// Where databases are.
    pub data_dir: PathBuf,
    /// How many sessions there may be; 0: any number.
    pub max_connections: u32,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
}

impl Observer {
    /// Every worker, in the order of their numbers, after at most [`ANSWER_WITHIN`].
    pub async fn workers(&self) -> Vec<SeenWorker> {
        let mut looks = JoinSet::new();
        for worker in self.pool.workers() {
            let retiring = self.pool.ledger().is_retiring(worker.id);
            looks.spawn(SeenWorker::look(worker, retiring));
        }
        let mut seen = looks.join_all().await;
        seen.sort_by_key(|seen| seen.worker.id);
        seen
    }

    /// The sessions, counted.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        self.pool.ledger().visit(|user, database, worker| {
            census.sessions += 1;
            *census.workers.entry(worker).or_default() += 1;
            match census.users.get_mut(user) {
                Some(count) => *count += 1,
                None => _ = census.users.insert(user.to_owned(), 1),
            }
            *census.databases.entry((database.to_owned(), worker)).or_default() += 1;
        });
        census
    }
}
