//! A server that is ready to serve, from what was gathered to its end.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::accept::{accept, accept_rest};
use super::admission::Admission;
use super::auth::Authenticator;
use super::certificate::{self, Certificate};
use super::connection::{Front, serve};
use super::data_dir::DataDir;
use super::doors::{Doors, UNIX_NAME, client_name, metrics_name};
use super::duty::Roster;
use super::error::StartError;
use super::keep::{Keeper, Kept};
use super::ledger::SessionEvent;
use super::limits::{Limits, Policy};
use super::logins::Logins;
use super::negotiate::TlsOffer;
use super::observe::Observer;
use super::peer::Peers;
use super::proxy::Proxies;
use super::reload::Desk;
use super::reload::estate::Estate;
use super::scrape;
use super::service;
use super::socket::Socket;
use super::standalone::{self, LocalUsers};
use super::workers::{Inherited, Workers};
use crate::config::{Config, TlsMode};
use crate::systemd::fdstore;

/// What a server needs from the disk.
pub struct Ground {
    /// The data directory, ours.
    pub data_dir: DataDir,
    /// The certificate, unless TLS is off.
    pub certificate: Option<Certificate>,
    /// Who may log in.
    pub users: LocalUsers,
    logins: Logins,
}

impl Ground {
    /// Reads all of it. The data directory may be part of the estate.
    pub fn prepare(config: &Config, estate: &mut Estate) -> Result<Self, StartError> {
        let settings = &config.settings;
        let data_dir = match estate.data_dir_lock.take() {
            Some(lock) => DataDir::inherit(&config.data_dir, lock)?,
            None => DataDir::open(&config.data_dir)?,
        };
        let certificate = certificate::load(config)?;
        let users = standalone::users(config, &data_dir)?;
        let logins = Logins::new(&users.users, settings.auth_cleartext, data_dir.secret()?);
        Ok(Self {
            data_dir,
            certificate,
            users,
            logins,
        })
    }
}

/// A server with its workers, whose doors are open and not answered yet.
pub struct Server {
    /// The workers.
    pub workers: Workers,
    /// Whether this process is on duty.
    pub roster: Roster,
    front: Arc<Front>,
    observer: Arc<Observer>,
    doors: Doors,
    answering: JoinSet<()>,
    scraping: JoinSet<()>,
    /// Ends when no task accepts from the clients' doors any more.
    closed: Option<mpsc::Receiver<()>>,
    close: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    data_dir: DataDir,
}

impl Server {
    /// Has the workers ready. Those that are inherited are another process's until
    /// this one is on duty.
    pub async fn start(
        config: &Config,
        ground: Ground,
        doors: Doors,
        inherited: Inherited,
        keeper: Option<Arc<Keeper>>,
        roster: Roster,
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        let settings = &config.settings;
        let data_dir = ground.data_dir;
        let (stop, stopping) = watch::channel(false);
        let (events, session_events) = mpsc::unbounded_channel();
        let workers = Workers::start(
            config,
            &data_dir,
            inherited,
            roster.duty(),
            events,
            stopping.clone(),
        )
        .await?;
        let limits = Limits::new(Policy::new(settings));
        limits.follow_sessions();
        tokio::spawn(follow_sessions(session_events, limits.clone()));
        let observer = Arc::new(Observer {
            pool: workers.pool.clone(),
            limits: limits.clone(),
            started,
            data_dir: config.data_dir.clone(),
            max_connections: settings.max_connections,
            metrics: doors.metrics.as_ref().map(|(_, address)| *address),
        });
        let certificate = ground.certificate.as_ref();
        let front = Arc::new(Front {
            tls: TlsOffer {
                config: certificate.map(|certificate| certificate.config.clone()),
                required: config.tls_mode_of(doors.are_local()) == TlsMode::Require,
            },
            proxies: Proxies::new(settings.trusted_proxies.clone()),
            keeper,
            limits,
            authenticator: Authenticator::new(
                ground.logins,
                Peers::new(settings.auth_peer, settings.auth_peer_map.clone()),
                certificate.map(|certificate| certificate.pem.as_slice()),
            ),
            admission: Admission::new(settings.max_connections),
            authentication_timeout: settings.authentication_timeout,
            data_dir: match settings.worker_sockets {
                Some(_) => None,
                None => Some(data_dir.path().to_path_buf()),
            },
            pool: workers.pool.clone(),
            stopping,
        });
        Ok(Self {
            workers,
            roster,
            front,
            observer,
            doors,
            answering: JoinSet::new(),
            scraping: JoinSet::new(),
            closed: None,
            close: watch::Sender::new(false),
            stop,
            data_dir,
        })
    }

    /// Every listening socket.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// The data directory.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// What addresses may do.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.front.limits
    }

    /// Whatever is left of the estate is not wanted. Who waits there is served still.
    pub fn wind_up(&mut self, estate: Estate) {
        self.doors.take_over();
        if let Err(error) = self.data_dir.sign() {
            warn!(%error, "the lock of the data directory names another process");
        }
        let address = |listener: &TcpListener| listener.local_addr().ok();
        for listener in estate.tcp {
            forget(address(&listener).map(client_name));
            accept_rest(listener, &self.front);
        }
        for listener in estate.metrics {
            forget(address(&listener).map(metrics_name));
        }
        if let Some(mut unix) = estate.unix {
            if self.doors.own_unix.is_none() {
                forget(Some(UNIX_NAME.to_owned()));
            }
            unix.take_over();
        }
    }

    /// Goes on with connections that an earlier process has left in their handshake.
    pub fn resume(&self, kept: Vec<(OwnedFd, Box<Kept>)>) {
        if !kept.is_empty() {
            info!(connections = kept.len(), "going on with handshakes");
        }
        for (fd, kept) in kept {
            match Socket::accepted(fd, Some(kept)) {
                Ok(socket) => drop(tokio::spawn(serve(self.front.clone(), socket))),
                Err(error) => debug!(%error, "a connection in handshake is gone"),
            }
        }
    }

    /// Answers at every door while this process is on duty, and tells systemd that
    /// it does. Requests for a reload go to the desk.
    pub fn answer(&mut self, desk: Desk) {
        let Self { front, observer, .. } = self;
        let duty = self.roster.duty();
        let bells = self.workers.bells();
        self.doors
            .control
            .serve(observer.clone(), desk, bells, duty.clone());
        if let Some((listener, _)) = &self.doors.metrics {
            let serve = scrape::serve(listener.clone(), observer.clone(), duty.clone());
            self.scraping.spawn(serve);
        }
        let doorway = Arc::new(Semaphore::new(front.admission.doorway()));
        let (open, closed) = mpsc::channel(1);
        self.closed = Some(closed);
        let mut knocks = Vec::new();
        for listener in self.doors.listeners.iter().cloned() {
            let (knock, knocked) = mpsc::channel(1);
            knocks.push(knock);
            self.answering.spawn(accept(
                (listener, open.clone()),
                front.clone(),
                doorway.clone(),
                knocked,
                duty.clone(),
                self.close.subscribe(),
            ));
        }
        tokio::spawn(service::report(observer.clone(), knocks, duty));
    }

    /// The server in a line.
    pub fn summary(&self) -> String {
        service::summary(&self.observer)
    }

    /// Accepts nobody any more. Returns when all who were on their way have been
    /// told; before, for so long, they may still be handed over.
    pub async fn close(&mut self, last_logins: Duration) {
        self.close.send_replace(true);
        let mut closed = async || while self.answering.join_next().await.is_some() {};
        let _ = tokio::time::timeout(last_logins, closed()).await;
        self.stop.send_replace(true);
        closed().await;
        // Who comes now is refused, unless the doors are systemd's.
        self.doors.listeners.clear();
        self.doors.own_unix = None;
    }

    /// Another process serves. Returns when this one holds no door of the clients'
    /// open any more, lest they queue where nobody accepts.
    pub async fn let_go(&mut self) {
        self.roster.end();
        self.close.send_replace(true);
        self.doors.listeners.clear();
        if let Some(closed) = &mut self.closed {
            closed.recv().await;
        }
    }

    /// After [`Server::let_go`]: returns when all who were on their way have been
    /// handed over, or when `enough` does and they have been told to go.
    pub async fn leave(&mut self, enough: impl Future<Output = ()>) {
        self.doors.control.finish().await;
        let stop = self.stop.clone();
        let rest = async {
            while self.scraping.join_next().await.is_some() {}
            while self.answering.join_next().await.is_some() {}
        };
        tokio::pin!(rest);
        tokio::select! {
            () = &mut rest => {}
            () = enough => {
                stop.send_replace(true);
                rest.await;
            }
        }
    }
}

/// Has systemd close its copy of a listener that is not wanted.
fn forget(name: Option<String>) {
    if let Some(Err(error)) = name.as_deref().map(fdstore::remove) {
        warn!(%error, name, "systemd keeps a listener that is not wanted");
    }
}

/// Tells of the sessions that workers have those who count them.
async fn follow_sessions(mut events: mpsc::UnboundedReceiver<SessionEvent>, limits: Arc<Limits>) {
    while let Some(event) = events.recv().await {
        match event {
            SessionEvent::Adopted { backend_id, address } => {
                debug!(backend_id, address, "a session goes on");
                if let Ok(address) = address.parse::<SocketAddr>() {
                    limits.session_found(backend_id, address.ip());
                }
            }
            SessionEvent::Ended { backend_id } => limits.session_ended(backend_id),
        }
    }
}
