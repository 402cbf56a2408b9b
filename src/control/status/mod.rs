//! `duckgres status`, `duckgres reload` and `duckgres restart-workers`: what the server is
//! doing, and to be another, asked over a Unix socket in the data directory.
//!
//! The socket has mode 0600, and whoever connects is looked at as well
//! (SO_PEERCRED): the server's own user and root are answered, nobody else.
//! Like the metrics it can be asked at any time and costs nothing in between.

mod show;
mod table;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::error;

pub use show::{Ask, StatusError, reload, restart_workers, show};

use super::data_dir::private_directory;
use super::duty::Duty;
use super::error::StartError;
use super::observe::Observer;
use super::reload;
use super::restart::Bell;
use super::sockets::address;
use crate::proto::control_server::{Control, ControlServer};
use crate::proto::{
    BanStatus, DatabaseStatus, ReloadReply, ReloadRequest, RestartWorkersRequest, StatusReply, StatusRequest,
    UserStatus, WorkerRestarted, WorkerStatus,
};

const NAME: &str = "control.sock";

const BACKLOG: i32 = 16;

/// How long answers may take that were asked for before the end.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// The socket that the operator's tool asks; removed when dropped, if it is ours.
/// Only the owner of the data directory may make it.
pub struct ControlSocket {
    listener: Arc<UnixListener>,
    path: PathBuf,
    ours: bool,
    /// The server, and how it is told to finish what it has begun.
    answering: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
}

impl ControlSocket {
    /// Listens in the data directory.
    pub fn bind(data_dir: &Path) -> Result<Self, StartError> {
        let run = data_dir.join("run");
        private_directory(&run).map_err(StartError::path(&run))?;
        let path = run.join(NAME);
        let listener = listen(&run).map_err(StartError::path(&path))?;
        Ok(Self::new(listener, path, true))
    }

    /// The socket that another process of this server has bound. Its file is left
    /// alone until [`ControlSocket::take_over`].
    pub fn inherit(data_dir: &Path, listener: OwnedFd) -> std::io::Result<Self> {
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let path = data_dir.join("run").join(NAME);
        Ok(Self::new(UnixListener::from_std(listener)?, path, false))
    }

    fn new(listener: UnixListener, path: PathBuf, ours: bool) -> Self {
        Self {
            listener: Arc::new(listener),
            path,
            ours,
            answering: None,
        }
    }

    /// The other process has left: the file is ours to remove.
    pub fn take_over(&mut self) {
        self.ours = true;
    }

    /// Answers while this process is on duty, until the runtime ends.
    pub fn serve(&mut self, observer: Arc<Observer>, reloads: reload::Desk, bells: Vec<Bell>, duty: Duty) {
        let (connections, incoming) = mpsc::channel(1);
        tokio::spawn(accept(self.listener.clone(), connections, duty));
        let allowed = [0, geteuid().as_raw()];
        let incoming = ReceiverStream::new(incoming).filter(move |connection| {
            // An accept that failed is passed on; a stranger is not.
            connection.as_ref().map_or(true, |stream| {
                stream.peer_cred().is_ok_and(|peer| allowed.contains(&peer.uid()))
            })
        });
        let (finish, finished) = oneshot::channel();
        let server = tonic::transport::Server::builder()
            .add_service(ControlServer::new(Answers {
                observer,
                reloads,
                bells,
                rolling: Arc::default(),
            }))
            .serve_with_incoming_shutdown(incoming, async {
                let _ = finished.await;
            });
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                error!(%error, "the operator's tool is not answered any more");
            }
        });
        self.answering = Some((task, finish));
    }

    /// Gives the answers that are being waited for, and no more.
    pub async fn finish(&mut self) {
        if let Some((task, finish)) = self.answering.take() {
            let _ = finish.send(());
            let _ = tokio::time::timeout(FINISH_WITHIN, task).await;
        }
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

async fn accept(
    listener: Arc<UnixListener>,
    connections: mpsc::Sender<std::io::Result<UnixStream>>,
    mut duty: Duty,
) {
    loop {
        let Some(accepted) = duty.during(listener.accept()).await else {
            continue;
        };
        if accepted.is_err() {
            // Out of descriptors: connections that end make room.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if connections
            .send(accepted.map(|(stream, _)| stream))
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // So is the data directory.
        if self.ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn listen(run: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(run.join(NAME)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let handle: OwnedFd = std::fs::File::open(run)?.into();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(address(run, handle.as_fd(), NAME))?)?;
    // Nobody can connect before it listens.
    std::fs::set_permissions(
        run.join(NAME),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

struct Answers {
    observer: Arc<Observer>,
    reloads: reload::Desk,
    /// Of the workers that may be restarted here.
    bells: Vec<Bell>,
    /// Held by who restarts them.
    rolling: Arc<tokio::sync::Mutex<()>>,
}

#[tonic::async_trait]
impl Control for Answers {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(status(&self.observer).await))
    }

    async fn reload(&self, _: Request<ReloadRequest>) -> Result<Response<ReloadReply>, Status> {
        match self.reloads.ask().await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(reason) => Err(Status::failed_precondition(reason)),
        }
    }

    type RestartWorkersStream = ReceiverStream<Result<WorkerRestarted, Status>>;

    async fn restart_workers(
        &self,
        _: Request<RestartWorkersRequest>,
    ) -> Result<Response<Self::RestartWorkersStream>, Status> {
        let refuse = |why: &str| Err(Status::failed_precondition(why));
        if self.bells.is_empty() {
            return refuse("the workers are systemd's: systemctl restart 'duckgres-worker@*.service'");
        }
        let Ok(turn) = self.rolling.clone().try_lock_owned() else {
            return refuse("they are being restarted already");
        };
        let (progress, shown) = mpsc::channel(1);
        let bells = self.bells.clone();
        tokio::spawn(async move {
            let _turn = turn;
            for bell in bells {
                let restarted = bell.ring().await.map(|restarted| WorkerRestarted {
                    worker: restarted.worker.into(),
                    process_id: restarted.process,
                    sessions: restarted.sessions,
                    milliseconds: u32::try_from(restarted.took.as_millis()).unwrap_or(u32::MAX),
                });
                let restarted = restarted
                    .map_err(|error| Status::failed_precondition(format!("worker {}: {error}", bell.worker)));
                let failed = restarted.is_err();
                if progress.send(restarted).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(shown)))
    }
}

async fn status(observer: &Observer) -> StatusReply {
    let workers = observer.workers().await;
    let mut census = observer.census();
    for seen in &workers {
        for name in seen.report.iter().flat_map(|report| &report.open_databases) {
            census
                .databases
                .entry((name.clone(), seen.worker.id))
                .or_default();
        }
    }
    let workers = workers.iter().map(|seen| WorkerStatus {
        id: seen.worker.id.into(),
        process_id: seen.process().map(|(id, _)| id),
        state: seen.state().to_owned(),
        version: seen.counted.as_ref().map(|counted| counted.version.clone()),
        engine_version: seen
            .counted
            .as_ref()
            .map(|counted| counted.engine_version.clone()),
        uptime_seconds: seen.uptime().map(|uptime| uptime.as_secs()),
        sessions: census.workers.get(&seen.worker.id).copied().unwrap_or_default(),
        pinned_sessions: seen.counted.as_ref().map(|counted| counted.pinned_sessions),
        databases: seen
            .report
            .as_ref()
            .map(|report| report.open_databases.len() as u32),
        resident_bytes: seen.resident_bytes(),
        restarts: seen.worker.tally.restarts(),
        frozen_sessions: seen.frozen(),
        moved_sessions: seen.worker.tally.moved_sessions(),
        in_the_way: seen.in_the_way(),
    });
    let bans = observer.limits.banned().into_iter().map(|ban| BanStatus {
        network: ban.network.to_string(),
        // Rounded up: who comes back when it is over is let in.
        seconds_left: ban.left.as_millis().div_ceil(1000) as u64,
    });
    StatusReply {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process_id: std::process::id(),
        uptime_seconds: observer.started.elapsed().as_secs(),
        data_dir: observer.data_dir.display().to_string(),
        metrics_url: observer
            .metrics
            .map_or_else(String::new, |address| format!("http://{address}/metrics")),
        sessions: census.sessions,
        max_connections: observer.max_connections,
        workers: workers.collect(),
        databases: census
            .databases
            .into_iter()
            .map(|((name, worker), sessions)| DatabaseStatus {
                name,
                worker: worker.into(),
                sessions,
            })
            .collect(),
        users: census
            .users
            .into_iter()
            .map(|(name, sessions)| UserStatus { name, sessions })
            .collect(),
        bans: bans.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn the_socket_is_private_and_reachable_however_long_its_path_is() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["short".to_owned(), "x".repeat(150)] {
            let data_dir = parent.path().join(name);
            let path = data_dir.join("run").join(NAME);
            let socket = ControlSocket::bind(&data_dir).unwrap();
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
            show::connect(&data_dir.join("run")).await.unwrap();
            // A server that was killed has left its socket behind.
            std::mem::forget(socket);
            drop(ControlSocket::bind(&data_dir).unwrap());
            assert!(!path.exists());
        }
    }
}
