//! A control plane on a free port, and the worker behind it: its handoff socket
//! and its gRPC service are real, its sessions are a dozen lines.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use crate::config::{Config, Flags, Network, Password, PeerMap, User, Users};
use crate::control::accept::{Listener, accept};
use crate::control::admission::Admission;
use crate::control::auth::Authenticator;
use crate::control::connection::Front;
use crate::control::duty::Duty;
use crate::control::fatal::message;
use crate::control::ledger::Ledger;
use crate::control::limits::{Limits, Policy};
use crate::control::listen::{self, UnixSocket};
use crate::control::logins::Logins;
use crate::control::negotiate::TlsOffer;
use crate::control::peer::Peers;
use crate::control::placement::Patience;
use crate::control::pool::{Orders, Pool, Queue, Worker};
use crate::control::proxy::Proxies;
use crate::control::sockets::{Listening, WorkerSockets};
use crate::control::{certificate, connection};
use crate::handoff::{self, Reason, Session, SessionState};
use crate::proto::worker_server::{self, WorkerServer};
use crate::proto::{
    Answer, CancelReply, CancelRequest, ConfigureReply, ConfigureRequest, DrainReply, DrainRequest, Findings,
    HealthRequest, Inquiry, LeaveReply, LeaveRequest, MetricsReply, MetricsRequest, Question, Report,
    ShutdownReply, ShutdownRequest,
};
use crate::tls::Channel;

pub const PASSWORD: &str = "correct horse";

/// What a test can choose.
pub struct Choices {
    pub tls: bool,
    pub tls_required: bool,
    pub max_connections: u32,
    pub authentication_timeout: Duration,
    /// How many handoffs are refused first, and why.
    pub refusals: (u32, Reason),
    pub limits: Policy,
    pub proxies: Vec<Network>,
    /// The worker takes the message and dies before it answers.
    pub ambiguous: bool,
    /// How many may wait for a worker.
    pub queue_length: u32,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            tls: true,
            tls_required: false,
            max_connections: 0,
            authentication_timeout: Duration::from_secs(20),
            refusals: (0, Reason::Unspecified),
            limits: Policy {
                max_failed_attempts: 0,
                window: Duration::from_secs(300),
                ban: Duration::from_secs(900),
                max_connections: 0,
                ipv6_prefix: 64,
            },
            proxies: Vec::new(),
            ambiguous: false,
            queue_length: 10,
        }
    }
}

pub struct Rig {
    pub port: u16,
    pub unix_path: PathBuf,
    pub certificate: Vec<u8>,
    pub front: Arc<connection::Front>,
    pub stop: watch::Sender<bool>,
    pub report: watch::Sender<Report>,
    sessions: mpsc::Receiver<Box<SessionState>>,
    cancels: mpsc::Receiver<CancelRequest>,
    _unix: UnixSocket,
    _sockets: WorkerSockets,
    directory: tempfile::TempDir,
}

impl Rig {
    pub async fn start(choices: Choices) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().to_path_buf();
        let values = vec![("data-dir".to_owned(), data_dir.to_str().unwrap().to_owned())];
        let config =
            Config::load(&Flags { config: None, values }).unwrap_or_else(|problems| panic!("{problems}"));
        let certificate = certificate::load(&config).unwrap().unwrap();

        let mut sockets = WorkerSockets::at(&data_dir.join("run/worker-1")).unwrap();
        let (session_sender, sessions) = mpsc::channel();
        let (cancel_sender, cancels) = mpsc::channel();
        let report = watch::Sender::new(Report {
            worker_id: 1,
            ..Report::default()
        });
        take_sessions(&sockets.bind().unwrap(), &choices, session_sender);
        manage(
            &sockets.bind().unwrap(),
            Management {
                report: report.subscribe(),
                cancels: cancel_sender,
            },
        );

        let ledger = ledger();
        let worker = worker(&sockets, ledger.clone());
        assert!(worker.ready(Duration::from_secs(10)).await);
        let alice = User::with_password("alice", Password::new(PASSWORD.into()));
        let users = Users::from([("alice".to_owned(), alice)]);
        let logins = Logins::new(&users, false, Zeroizing::new([1; 32]));
        let peers = Peers::new(false, PeerMap::default());
        let (stop, stopping) = watch::channel(false);
        let front = Arc::new(Front {
            tls: TlsOffer {
                config: choices.tls.then(|| certificate.config.clone()),
                required: choices.tls_required,
            },
            authenticator: Authenticator::new(logins, peers, Some(&certificate.pem)),
            proxies: Proxies::new(choices.proxies),
            keeper: None,
            limits: Limits::new(choices.limits),
            admission: Admission::new(choices.max_connections),
            authentication_timeout: choices.authentication_timeout,
            data_dir: Some(data_dir.clone()),
            pool: Pool::new(
                [worker],
                ledger,
                Queue {
                    length: choices.queue_length,
                    timeout: Duration::from_secs(1),
                },
                stopping.clone(),
            ),
            stopping: stopping.clone(),
        });
        let (tcp, port) = listen::tcp(&["127.0.0.1".to_owned()], 0, &mut Vec::new())
            .await
            .unwrap();
        let unix = UnixSocket::bind(&data_dir.join("run"), port, &mut None).unwrap();
        let unix_path = unix.path().to_path_buf();
        let doorway = Arc::new(Semaphore::new(front.admission.doorway()));
        let unix_listener = unix.listener().clone();
        for listener in tcp
            .into_iter()
            .map(|listener| Listener::new(listener.into_std().unwrap().into()).unwrap())
            .chain([unix_listener])
        {
            let knocks = tokio::sync::mpsc::channel(1).1;
            tokio::spawn(accept(
                (listener, tokio::sync::mpsc::channel(1).0),
                front.clone(),
                doorway.clone(),
                knocks,
                Duty::always(),
                stopping.clone(),
            ));
        }
        Self {
            port,
            unix_path,
            certificate: certificate.pem,
            front,
            stop,
            report,
            sessions,
            cancels,
            _unix: unix,
            _sockets: sockets,
            directory,
        }
    }

    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// The next session that the worker has taken, without its TLS state.
    pub fn session(&self) -> Box<SessionState> {
        self.sessions.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    pub fn no_session(&self) -> bool {
        self.sessions.recv_timeout(Duration::from_millis(200)).is_err()
    }

    pub fn cancel(&self) -> Option<CancelRequest> {
        self.cancels.recv_timeout(Duration::from_secs(1)).ok()
    }
}

/// A ledger of worker 1 that nobody follows.
pub fn ledger() -> Arc<Ledger> {
    let patience = Patience {
        owner: Duration::from_secs(1),
        first_reports: Duration::from_secs(1),
    };
    Ledger::new([(1, false)], patience, tokio::sync::mpsc::unbounded_channel().0)
}

/// Worker 1 behind these sockets.
pub fn worker(sockets: &WorkerSockets, ledger: Arc<Ledger>) -> Arc<Worker> {
    let orders = watch::channel(Orders::default()).1;
    Worker::new(1, sockets.handoff_path(), &sockets.rpc_path(), ledger, orders)
}

fn take_sessions(sockets: &Listening, choices: &Choices, sender: mpsc::Sender<Box<SessionState>>) {
    let fd = sockets.handoff.try_clone().unwrap();
    let uid = nix::unistd::geteuid().as_raw();
    let listener = handoff::Listener::from_fd(fd, &[uid]).unwrap();
    let (refusals, reason) = choices.refusals;
    let (refusals, ambiguous) = (AtomicU32::new(refusals), choices.ambiguous);
    tokio::spawn(async move {
        loop {
            let offer = listener
                .accept()
                .await
                .unwrap()
                .receive(Duration::from_secs(5))
                .await
                .unwrap()
                .offer()
                .unwrap();
            if ambiguous {
                drop(offer);
            } else if refusals
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                offer.refuse(reason, "not now").await.unwrap();
            } else {
                let Session { socket, mut state } = offer.accept().await.unwrap();
                let channel = state.tls.take().map(|tls| Channel::resume(tls).unwrap());
                let hello = hello(&state);
                sender.send(Box::new(state)).unwrap();
                std::thread::spawn(move || converse(socket, channel, &hello));
            }
        }
    });
}

fn hello(state: &SessionState) -> Vec<u8> {
    let mut key_data = state.backend_id.to_be_bytes().to_vec();
    key_data.extend_from_slice(state.cancel_key.as_bytes());
    [message(b'K', &key_data), message(b'Z', b"I")].concat()
}

/// Says hello, then answers every query with nothing.
fn converse(socket: OwnedFd, mut channel: Option<Channel>, hello: &[u8]) {
    // Unix sockets read and write alike.
    let mut stream = TcpStream::from(socket);
    stream.set_nonblocking(false).unwrap();
    let say = |channel: &mut Option<Channel>, stream: &mut TcpStream, bytes: &[u8]| {
        let mut out = bytes.to_vec();
        if let Some(channel) = channel {
            out.clear();
            channel.seal(bytes, &mut out).unwrap();
        }
        stream.write_all(&out).is_ok()
    };
    let mut alive = say(&mut channel, &mut stream, hello);
    let mut plain = Vec::new();
    while alive {
        let mut chunk = [0; 4096];
        let Ok(count @ 1..) = stream.read(&mut chunk) else {
            return;
        };
        match &mut channel {
            Some(channel) => drop(
                channel
                    .receive(&chunk[..count], &mut plain, &mut Vec::new())
                    .unwrap(),
            ),
            None => plain.extend_from_slice(&chunk[..count]),
        }
        while plain.len() >= 5 {
            let length = u32::from_be_bytes([plain[1], plain[2], plain[3], plain[4]]) as usize + 1;
            if plain.len() < length {
                break;
            }
            let kind = plain[0];
            plain.drain(..length);
            match kind {
                b'Q' => {
                    let answer = [message(b'I', b""), message(b'Z', b"I")].concat();
                    alive = say(&mut channel, &mut stream, &answer);
                }
                _ => return,
            }
        }
    }
}

pub struct Management {
    pub report: watch::Receiver<Report>,
    pub cancels: mpsc::Sender<CancelRequest>,
}

pub fn manage(sockets: &Listening, management: Management) {
    let socket = std::os::unix::net::UnixListener::from(sockets.rpc.try_clone().unwrap());
    socket.set_nonblocking(true).unwrap();
    let incoming = UnixListenerStream::new(UnixListener::from_std(socket).unwrap());
    let server = tonic::transport::Server::builder().add_service(WorkerServer::new(management));
    tokio::spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
}

#[tonic::async_trait]
impl worker_server::Worker for Management {
    type HealthStream = Pin<Box<dyn Stream<Item = Result<Report, Status>> + Send>>;
    type QuestionsStream = tokio_stream::Empty<Result<Question, Status>>;

    async fn questions(
        &self,
        _: Request<Streaming<Answer>>,
    ) -> Result<Response<Self::QuestionsStream>, Status> {
        Err(Status::unimplemented("as an older worker"))
    }

    async fn inquire(&self, _: Request<Inquiry>) -> Result<Response<Findings>, Status> {
        Err(Status::unimplemented("as an older worker"))
    }

    async fn health(&self, _: Request<HealthRequest>) -> Result<Response<Self::HealthStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut report = self.report.clone();
        tokio::spawn(async move {
            loop {
                let current = report.borrow_and_update().clone();
                if sender.send(Ok(current)).await.is_err() || report.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn configure(&self, _: Request<ConfigureRequest>) -> Result<Response<ConfigureReply>, Status> {
        Ok(Response::new(ConfigureReply {}))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        Err(Status::unimplemented("as an older worker"))
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Result<Response<ShutdownReply>, Status> {
        Ok(Response::new(ShutdownReply {}))
    }

    async fn cancel_query(&self, request: Request<CancelRequest>) -> Result<Response<CancelReply>, Status> {
        self.cancels.send(request.into_inner()).unwrap();
        Ok(Response::new(CancelReply {}))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainReply>, Status> {
        Ok(Response::new(DrainReply { cut_short: 0 }))
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        Ok(Response::new(MetricsReply::default()))
    }
}
