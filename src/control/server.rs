//! From a configuration to a running server, and to its end.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::accept::accept;
use super::admission::Admission;
use super::auth::Authenticator;
use super::certificate::{self, Certificate};
use super::connection::{Front, serve};
use super::data_dir::DataDir;
use super::doors::Doors;
use super::error::StartError;
use super::keep::{Keeper, Kept};
use super::ledger::SessionEvent;
use super::limits::{Limits, Policy};
use super::logins::Logins;
use super::negotiate::TlsOffer;
use super::observe::Observer;
use super::peer::Peers;
use super::proxy::Proxies;
use super::scrape;
use super::service;
use super::socket::Socket;
use super::standalone::{self, psql_command};
use super::status::ControlSocket;
use super::supervise::find_program;
use super::workers::Workers;
use crate::config::{Config, Mode, TlsMode, WorkerConfig};
use crate::systemd::{activation, notify};

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Asked to stop; every session was drained or its time was over.
    Drained,
    /// Asked twice; sessions were cut.
    Forced,
}

/// What `check-config` can see beyond the configuration itself, without
/// changing anything: the certificate, its key, the worker's program.
pub fn check(config: &Config) -> Vec<StartError> {
    let certificate = match config.settings.tls_cert {
        Some(_) => certificate::load(config).err(),
        None => None,
    };
    let program = match config.settings.worker_sockets {
        Some(_) => None,
        None => find_program(config.settings.worker_binary.as_deref()).err(),
    };
    certificate.into_iter().chain(program).collect()
}

/// How long connections may take to be handed over, when the next process waits
/// for this one's end and the sessions go on without either.
const LAST_LOGINS: Duration = Duration::from_secs(2);

/// Runs the server until SIGINT or SIGTERM; a second signal cuts the drain short.
/// Must be called once, because it takes what systemd has passed.
pub async fn run(config: Config) -> Result<Ended, StartError> {
    if config.settings.mode == Mode::Worker {
        return Err(become_worker(&config));
    }
    let started = Instant::now();
    let mut signals = Signals::new()?;
    raise_descriptor_limit();
    config.notes.iter().for_each(|note| warn!("{note}"));
    let settings = &config.settings;

    let data_dir = DataDir::open(&config.data_dir)?;
    let certificate = certificate::load(&config)?;
    let local = standalone::users(&config, &data_dir)?;
    let logins = Logins::new(&local.users, settings.auth_cleartext, data_dir.secret()?);

    // Doors open before the workers are ready: who comes early waits in the queue.
    let mut inherited = activation::take()?;
    let mut doors = Doors::open(&config, &mut inherited).await?;
    let keeper = keeper();
    let kept = keeper
        .as_ref()
        .map_or_else(Vec::new, |keeper| keeper.take_up(&mut inherited));
    for stranger in inherited {
        warn!(
            name = stranger.name,
            "systemd has passed something that is no door"
        );
    }

    let metrics = scrape::open(settings.metrics_address)?;
    let mut control_socket = ControlSocket::bind(data_dir.path())?;

    let (close, closing) = watch::channel(false);
    let (stop, stopping) = watch::channel(false);
    let (events, session_events) = mpsc::unbounded_channel();
    let mut workers = tokio::select! {
        started = Workers::start(&config, &data_dir, events, stopping.clone()) => started?,
        () = signals.next() => return Ok(Ended::Forced),
    };
    let limits = Limits::new(Policy::new(settings));
    limits.follow_sessions();
    tokio::spawn(follow_sessions(session_events, limits.clone()));
    let observer = Arc::new(Observer {
        pool: workers.pool.clone(),
        limits: limits.clone(),
        started,
        data_dir: config.data_dir.clone(),
        max_connections: settings.max_connections,
        metrics: metrics.as_ref().map(|(_, address)| *address),
    });
    control_socket.serve(observer.clone());
    if let Some((listener, _)) = metrics {
        tokio::spawn(scrape::serve(listener, observer.clone()));
    }
    let front = Arc::new(Front {
        tls: TlsOffer {
            config: certificate.as_ref().map(|certificate| certificate.config.clone()),
            required: config.tls_mode_of(doors.are_local()) == TlsMode::Require,
        },
        proxies: Proxies::new(settings.trusted_proxies.clone()),
        keeper,
        limits,
        authenticator: Authenticator::new(
            logins,
            Peers::new(settings.auth_peer, settings.auth_peer_map.clone()),
            certificate.as_ref().map(|certificate| certificate.pem.as_slice()),
        ),
        admission: Admission::new(settings.max_connections),
        authentication_timeout: settings.authentication_timeout,
        data_dir: match settings.worker_sockets {
            Some(_) => None,
            None => Some(data_dir.path().to_path_buf()),
        },
        pool: workers.pool.clone(),
        stopping: stopping.clone(),
    });
    let doorway = Arc::new(Semaphore::new(front.admission.doorway()));
    resume(kept, &front);
    let mut loops = JoinSet::new();
    let mut knocks = Vec::new();
    for listener in std::mem::take(&mut doors.listeners) {
        let (knock, knocked) = mpsc::channel(1);
        knocks.push(knock);
        loops.spawn(accept(
            listener,
            front.clone(),
            doorway.clone(),
            knocked,
            closing.clone(),
        ));
    }
    announce(&config, &doors, certificate.as_ref(), &local);
    notify::ready(&service::summary(&observer));
    tokio::spawn(service::report(observer, knocks));

    signals.next().await;
    info!("stopping; a second signal ends running statements at once");
    notify::stopping("stopping");
    close.send_replace(true);
    let mut closed = async || while loops.join_next().await.is_some() {};
    if settings.worker_sockets.is_some() {
        let _ = tokio::time::timeout(LAST_LOGINS, closed()).await;
    }
    stop.send_replace(true);
    closed().await;
    drop(doors);
    let ended = tokio::select! {
        () = workers.stop(settings.shutdown_timeout) => Ended::Drained,
        // It ends no later than it has promised, which systemd need not know.
        () = notify::take_time() => Ended::Forced,
        () = signals.next() => Ended::Forced,
    };
    if ended == Ended::Forced {
        workers.kill().await;
    }
    info!("stopped");
    Ok(ended)
}

/// Keeps connections in handshake where systemd can keep them.
fn keeper() -> Option<Arc<Keeper>> {
    let systemd = notify::socket()?;
    match systemd.and_then(Keeper::new) {
        Ok(keeper) => Some(keeper),
        Err(error) => {
            warn!(%error, "connections in handshake would not survive this process");
            None
        }
    }
}

/// Goes on with connections that an earlier process has left in their handshake.
fn resume(kept: Vec<(OwnedFd, Box<Kept>)>, front: &Arc<Front>) {
    if !kept.is_empty() {
        info!(connections = kept.len(), "going on with handshakes");
    }
    for (fd, kept) in kept {
        match Socket::take_up(fd, kept) {
            Ok(socket) => drop(tokio::spawn(serve(front.clone(), socket))),
            Err(error) => debug!(%error, "a connection in handshake is gone"),
        }
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

/// Goes on as the worker's program, which keeps this process's sockets. Comes
/// back only with the reason why not.
fn become_worker(config: &Config) -> StartError {
    let path = match find_program(config.settings.worker_binary.as_deref()) {
        Ok(path) => path,
        Err(error) => return error,
    };
    // Checked with the rest of the configuration.
    let id = u16::try_from(config.settings.worker_id.get()).unwrap_or(u16::MAX);
    let arguments = WorkerConfig::new(id, config).to_args();
    let source = std::process::Command::new(&path).args(arguments).exec();
    StartError::Spawn { path, source }
}

/// Says how to connect, to whoever has started this; systemd only wants to know
/// that it is so, and has said the rest itself.
fn announce(
    config: &Config,
    doors: &Doors,
    certificate: Option<&Certificate>,
    local: &standalone::LocalUsers,
) {
    let version = env!("CARGO_PKG_VERSION");
    let addresses: Vec<String> = doors.addresses.iter().map(SocketAddr::to_string).collect();
    info!(
        version,
        addresses = addresses.join(", "),
        socket = doors.unix.as_ref().map(|path| path.display().to_string()),
        "listening"
    );
    if doors.inherited {
        return;
    }
    let (host, unix) = (&config.settings.host, doors.unix.as_deref());
    let port = doors
        .addresses
        .first()
        .map_or(config.settings.port, SocketAddr::port);
    let mut text = format!("duckgres {version} is ready.\n");
    text += &format!("  Data       {}\n", config.data_dir.display());
    if !host.is_empty() {
        text += &format!("  TCP        {} port {port}\n", host.join(", "));
    }
    if let Some(path) = unix {
        text += &format!("  Socket     {}\n", path.display());
    }
    if let Some(command) = psql_command(host, port, unix, certificate, local) {
        text += &format!("\nConnect with:\n\n  {command}\n\n");
    }
    // Nobody may be reading it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// A session is a socket: workers inherit the limit. Nothing here uses select(2),
/// for which the low default exists.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    match raised {
        // Nor is a service of systemd's allowed to: LimitNOFILE= has said it.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(error) => warn!(%error, "the limit on open files stays as it is"),
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
