//! Management: what the control plane asks of a worker, over gRPC.
//!
//! Source of the contract: proto/worker.proto.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::registry::Change;
use super::remote::Settings;
use super::{Worker, memory, some_time, stop_statement};
use crate::engine::Signal;
use crate::proto::inquiry::Matter;
use crate::proto::worker_server::{Worker as Service, WorkerServer};
use crate::proto::{
    Answer, CancelReply, CancelRequest, ConfigureReply, ConfigureRequest, DrainReply, DrainRequest, Findings,
    HealthRequest, Inquiry, LeaveReply, LeaveRequest, LiveSession, MetricsReply, MetricsRequest, Pinned,
    Question, Report, ShutdownReply, ShutdownRequest,
};
use crate::session::{Stop, Timeouts};

/// Between two reports there is at least so much time: many changes, one report.
const BREATH: Duration = Duration::from_millis(10);

/// How often a report has all sessions in it.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);

/// 100,000 sessions of other workers, each with a statement.
const LARGEST_ANSWER: usize = 256 << 20;

/// Serves the rpc socket until the task is aborted.
pub(super) async fn serve(worker: Arc<Worker>, socket: OwnedFd) -> io::Result<()> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true)?;
    let allowed = worker.masters.clone();
    let incoming = UnixListenerStream::new(UnixListener::from_std(listener)?).filter(move |connection| {
        // An accept that failed is passed on; a stranger is not.
        connection.as_ref().map_or(true, |stream| {
            stream.peer_cred().is_ok_and(|peer| allowed.contains(&peer.uid()))
        })
    });
    tonic::transport::Server::builder()
        .add_service(WorkerServer::new(Management { worker }).max_decoding_message_size(LARGEST_ANSWER))
        .serve_with_incoming(incoming)
        .await
        .map_err(io::Error::other)
}

struct Management {
    worker: Arc<Worker>,
}

/// Of this process.
static START_TIME: LazyLock<u64> =
    LazyLock::new(|| crate::process::start_time(std::process::id()).unwrap_or_default());

fn report(worker: &Worker, snapshot: bool, live: Vec<LiveSession>, ended: Vec<i32>) -> Report {
    Report {
        worker_id: u32::from(worker.id),
        sessions: worker.registry.count() as u32,
        running: worker.registry.running() as u32,
        open_databases: worker.databases.names(),
        draining: worker.registry.is_draining(),
        process_id: std::process::id(),
        start_time: *START_TIME,
        snapshot,
        live,
        ended,
        hung: worker.probe.hung().unwrap_or_default(),
        waiting: worker.registry.is_waiting(),
        leaving: worker.registry.is_leaving(),
        frozen: worker.registry.resting_now().frozen as u32,
        to_give_away: worker.exit.left() as u32,
        pinned: match worker.registry.is_leaving() {
            true => pinned(worker),
            false => Vec::new(),
        },
    }
}

fn pinned(worker: &Worker) -> Vec<Pinned> {
    let reasons = worker.registry.in_the_way(Duration::ZERO).by_reason();
    let pinned = reasons.into_iter().map(|(reason, sessions)| Pinned {
        reason: reason.to_owned(),
        sessions: sessions as u32,
    });
    pinned.filter(|pinned| pinned.sessions > 0).collect()
}

/// What the worker goes by from now on.
pub(super) fn go_by(worker: &Arc<Worker>, request: ConfigureRequest) {
    worker.set_orders(request.clone());
    // A child's arguments are the configuration of the day; those of a unit are
    // what somebody has said about this very worker.
    let memory_limit = match request.memory_limit_bytes {
        0 => worker
            .memory_limit
            .filter(|_| request.own_group)
            .or_else(|| memory::budget(request.worker_count, request.own_group)),
        bytes => Some(bytes),
    };
    let threads = match request.threads {
        0 => worker.threads.filter(|_| request.own_group),
        threads => Some(threads as usize),
    };
    let remote = request.remote.map(|remote| Settings::read(remote, worker));
    worker
        .databases
        .configure(some_time(request.database_idle_milliseconds), |options| {
            options.memory_limit = memory_limit;
            options.temp_quota = (request.temp_quota_bytes > 0).then_some(request.temp_quota_bytes);
            options.threads = threads;
            if let Some(remote) = &remote {
                options.extensions.clone_from(&remote.extensions);
                options
                    .extension_directory
                    .clone_from(&remote.extension_directory);
                options.file_access = remote.file_access.to_vec();
            }
        });
    if let Some(remote) = remote {
        worker.policy.set_file_access(remote.file_access);
        if let Err(error) = worker.query_log.configure(&remote.query_log) {
            tracing::error!(%error, "the query log cannot be written as configured");
        }
    }
    worker.probe.configure(some_time(request.hang_milliseconds));
    worker
        .attendance
        .configure(some_time(request.orphan_milliseconds));
    worker.policy.set_timeouts(Timeouts {
        statement: some_time(request.statement_timeout_milliseconds),
        idle_session: some_time(request.idle_session_timeout_milliseconds),
        idle_in_transaction: some_time(request.idle_in_transaction_session_timeout_milliseconds),
    });
    worker.configured.send_replace(true);
}

#[tonic::async_trait]
impl Service for Management {
    type HealthStream = Pin<Box<dyn Stream<Item = Result<Report, Status>> + Send>>;
    type QuestionsStream = Pin<Box<dyn Stream<Item = Result<Question, Status>> + Send>>;

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureReply>, Status> {
        go_by(&self.worker, request.into_inner());
        Ok(Response::new(ConfigureReply {}))
    }

    async fn health(&self, request: Request<HealthRequest>) -> Result<Response<Self::HealthStream>, Status> {
        let heartbeat = some_time(request.into_inner().heartbeat_milliseconds.into());
        let heartbeat = heartbeat.unwrap_or(Duration::from_secs(1)).max(BREATH);
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let worker = self.worker.clone();
        tokio::spawn(async move {
            let _attended = worker.attendance.attend();
            let (live, mut changes) = worker.registry.follow();
            let mut live = Some(live);
            let mut last_snapshot = Instant::now();
            loop {
                let change = worker.registry.changes();
                if last_snapshot.elapsed() >= SNAPSHOT_EVERY {
                    live = Some(worker.registry.live());
                    last_snapshot = Instant::now();
                }
                let (mut begun, mut ended) = (Vec::new(), Vec::new());
                while let Ok(change) = changes.try_recv() {
                    match change {
                        Change::Begun(session) => begun.push(session),
                        Change::Ended(id) => ended.push(id),
                    }
                }
                let snapshot = live.is_some();
                // Those may have come after the snapshot was taken.
                let live = live.take().into_iter().flatten().chain(begun).collect();
                let report = report(&worker, snapshot, live, ended);
                if sender.send(Ok(report)).await.is_err() {
                    return;
                }
                tokio::time::sleep(BREATH).await;
                tokio::select! {
                    () = change => {}
                    () = tokio::time::sleep(heartbeat) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel_query(&self, request: Request<CancelRequest>) -> Result<Response<CancelReply>, Status> {
        let request = request.into_inner();
        if let Some(handle) = self.worker.registry.get(request.backend_id)
            && handle.cancel_key().matches(&request.cancel_key)
        {
            stop_statement(&handle, Stop::Cancel).await;
        }
        Ok(Response::new(CancelReply {}))
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        let grace = Duration::from_millis(u64::from(request.into_inner().grace_milliseconds));
        let cut_short = self.worker.drain(grace).await;
        Ok(Response::new(DrainReply { cut_short }))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        self.worker.exit.order();
        Ok(Response::new(LeaveReply {}))
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Result<Response<ShutdownReply>, Status> {
        let worker = self.worker.clone();
        tokio::spawn(async move { worker.drain(Duration::ZERO).await });
        Ok(Response::new(ShutdownReply {}))
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        let counters = &self.worker.policy.counters;
        Ok(Response::new(MetricsReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            engine_version: crate::engine::library_version(),
            pinned_sessions: self.worker.registry.pinned() as u32,
            query_seconds: Some(counters.statement_seconds()),
            query_errors: counters.errors(),
            rows_sent: counters.rows_sent(),
            bytes_sent: counters.bytes_sent(),
            resident_bytes: crate::process::resident_bytes(std::process::id()).unwrap_or_default(),
            uptime_seconds: crate::process::age(*START_TIME).unwrap_or_default().as_secs(),
            pause_seconds: Some(self.worker.freezer.pauses()),
            pinned: pinned(&self.worker),
        }))
    }

    async fn questions(
        &self,
        request: Request<Streaming<Answer>>,
    ) -> Result<Response<Self::QuestionsStream>, Status> {
        let questions = self.worker.questions.clone();
        let asked = UnboundedReceiverStream::new(questions.open()).map(Ok);
        let mut answers = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(answer)) = answers.message().await {
                questions.answered(answer);
            }
        });
        Ok(Response::new(Box::pin(asked)))
    }

    async fn inquire(&self, request: Request<Inquiry>) -> Result<Response<Findings>, Status> {
        let answers = &self.worker.answers;
        let mut findings = Findings::default();
        match request.into_inner().matter {
            Some(Matter::Sessions(asker)) => findings.sessions = answers.sessions(&asker),
            Some(Matter::Databases(asker)) => findings.databases = answers.databases(&asker),
            Some(Matter::Signal(request)) => {
                let signal = match request.terminate {
                    true => Signal::Terminate,
                    false => Signal::Cancel,
                };
                let asker = request.asker.unwrap_or_default();
                findings.set_signalled(answers.stop(signal, request.backend_id, &asker));
            }
            Some(Matter::Release(request)) => {
                findings.released = Some(self.worker.keeper.release(&request).await);
            }
            None => return Err(Status::unimplemented("not a question that this worker knows")),
        }
        Ok(Response::new(findings))
    }
}
