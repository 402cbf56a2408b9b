//! Management: what the control plane asks of a worker, over gRPC.
//!
//! Source of the contract: proto/worker.proto.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::{Worker, stop_statement};
use crate::proto::worker_server::{Worker as Service, WorkerServer};
use crate::proto::{CancelReply, CancelRequest, DrainReply, DrainRequest, HealthRequest, Report};
use crate::session::Stop;

/// Serves the rpc socket until the task is aborted.
pub(super) async fn serve(worker: Arc<Worker>, socket: OwnedFd) -> io::Result<()> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true)?;
    let allowed = [0, nix::unistd::geteuid().as_raw()];
    let incoming = UnixListenerStream::new(UnixListener::from_std(listener)?).filter(move |connection| {
        // An accept that failed is passed on; a stranger is not.
        connection.as_ref().map_or(true, |stream| {
            stream.peer_cred().is_ok_and(|peer| allowed.contains(&peer.uid()))
        })
    });
    tonic::transport::Server::builder()
        .add_service(WorkerServer::new(Management { worker }))
        .serve_with_incoming(incoming)
        .await
        .map_err(io::Error::other)
}

struct Management {
    worker: Arc<Worker>,
}

impl Management {
    async fn report(worker: &Worker) -> Report {
        let handles = worker.registry.handles();
        let (sessions, accepted) = worker.registry.counts();
        Report {
            worker_id: u32::from(worker.id),
            sessions: sessions as u32,
            accepted,
            running: handles.iter().filter(|handle| handle.is_running()).count() as u32,
            open_databases: worker.databases.names().await,
            draining: worker.registry.is_draining(),
        }
    }
}

#[tonic::async_trait]
impl Service for Management {
    type HealthStream = Pin<Box<dyn Stream<Item = Result<Report, Status>> + Send>>;

    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<Self::HealthStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let worker = self.worker.clone();
        tokio::spawn(async move {
            loop {
                let change = worker.registry.changes();
                if sender.send(Ok(Self::report(&worker).await)).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = change => {}
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
}
