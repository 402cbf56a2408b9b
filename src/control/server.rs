//! From a configuration to a running server, and to its end.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::accept::{Listener, accept};
use super::admission::Admission;
use super::auth::Authenticator;
use super::certificate::{self, Certificate};
use super::connection::Front;
use super::data_dir::DataDir;
use super::error::StartError;
use super::ledger::SessionEvent;
use super::limits::{Limits, Policy};
use super::listen::{self, UnixSocket};
use super::logins::Logins;
use super::negotiate::TlsOffer;
use super::observe::Observer;
use super::peer::Peers;
use super::proxy::Proxies;
use super::scrape;
use super::standalone::{self, psql_command};
use super::status::ControlSocket;
use super::supervise::find_program;
use super::workers::Workers;
use crate::config::{Config, Mode, TlsMode, WorkerConfig};

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
    let program = find_program(config.settings.worker_binary.as_deref()).err();
    certificate.into_iter().chain(program).collect()
}

/// Runs the server until SIGINT or SIGTERM; a second signal cuts the drain short.
pub async fn run(config: Config) -> Result<Ended, StartError> {
    if config.settings.mode == Mode::Worker {
        return Err(become_worker(&config));
    }
    let started = Instant::now();
    let mut signals = Signals::new()?;
    raise_descriptor_limit();
    config.notes.iter().for_each(|note| warn!("{note}"));
    let settings = &config.settings;

    let program = find_program(settings.worker_binary.as_deref())?;
    let data_dir = DataDir::open(&config.data_dir)?;
    let certificate = certificate::load(&config)?;
    let local = standalone::users(&config, &data_dir)?;
    let logins = Logins::new(&local.users, settings.auth_cleartext, data_dir.secret()?);

    // Doors open before the workers are ready: who comes early waits in the queue.
    let (tcp, port) = listen::tcp(&settings.host, settings.port).await?;
    let mut unix = open_unix_socket(&config, port)?;

    let metrics = scrape::open(settings.metrics_address)?;
    let mut control_socket = ControlSocket::bind(data_dir.path())?;

    let (stop, stopping) = watch::channel(false);
    let (events, session_events) = mpsc::unbounded_channel();
    let mut workers = tokio::select! {
        started = Workers::start(&config, &program, &data_dir, events, stopping.clone()) => started?,
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
        tokio::spawn(scrape::serve(listener, observer));
    }
    let front = Arc::new(Front {
        tls: TlsOffer {
            config: certificate.as_ref().map(|certificate| certificate.config.clone()),
            required: config.tls_mode() == TlsMode::Require,
        },
        proxies: Proxies::new(settings.trusted_proxies.clone()),
        keeper: None,
        limits,
        authenticator: Authenticator::new(
            logins,
            Peers::new(settings.auth_peer, settings.auth_peer_map.clone()),
            certificate.as_ref().map(|certificate| certificate.pem.as_slice()),
        ),
        admission: Admission::new(settings.max_connections),
        authentication_timeout: settings.authentication_timeout,
        data_dir: data_dir.path().to_path_buf(),
        pool: workers.pool.clone(),
        stopping: stopping.clone(),
    });
    let doorway = Arc::new(Semaphore::new(front.admission.doorway()));
    let mut doors = JoinSet::new();
    let unix_listener = unix.as_mut().and_then(|socket| socket.listener.take());
    for listener in tcp
        .into_iter()
        .map(Listener::Tcp)
        .chain(unix_listener.map(Listener::Unix))
    {
        doors.spawn(accept(listener, front.clone(), doorway.clone(), stopping.clone()));
    }
    announce(
        &config,
        port,
        unix.as_ref().map(UnixSocket::path),
        certificate.as_ref(),
        &local,
    );

    signals.next().await;
    info!("stopping; a second signal ends running statements at once");
    stop.send_replace(true);
    while doors.join_next().await.is_some() {}
    drop(unix);
    let ended = tokio::select! {
        () = workers.stop(settings.shutdown_timeout) => Ended::Drained,
        () = signals.next() => Ended::Forced,
    };
    if ended == Ended::Forced {
        workers.kill().await;
    }
    info!("stopped");
    Ok(ended)
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

/// The Unix socket where it was asked for; otherwise in the user's runtime
/// directory or the data directory, and not at all if neither will do.
fn open_unix_socket(config: &Config, port: u16) -> Result<Option<UnixSocket>, StartError> {
    if let Some(directory) = &config.settings.unix_socket_dir {
        return UnixSocket::bind(directory, port).map(Some);
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let candidates = [
        runtime.map(|path| path.join("duckgres")),
        Some(config.data_dir.join("run")),
    ];
    let mut last = None;
    for directory in candidates.into_iter().flatten() {
        match UnixSocket::bind(&directory, port) {
            Ok(socket) => return Ok(Some(socket)),
            Err(error @ StartError::SocketInUse(_)) => return Err(error),
            Err(error) => last = Some(error),
        }
    }
    match last {
        // The only door.
        Some(error) if config.settings.host.is_empty() => Err(error),
        Some(error) => {
            warn!("no Unix socket: {error}");
            Ok(None)
        }
        None => Ok(None),
    }
}

fn announce(
    config: &Config,
    port: u16,
    unix: Option<&Path>,
    certificate: Option<&Certificate>,
    local: &standalone::LocalUsers,
) {
    let mut text = format!("duckgres {} is ready.\n", env!("CARGO_PKG_VERSION"));
    text += &format!("  Data       {}\n", config.data_dir.display());
    if !config.settings.host.is_empty() {
        text += &format!("  TCP        {} port {port}\n", config.settings.host.join(", "));
    }
    if let Some(path) = unix {
        text += &format!("  Socket     {}\n", path.display());
    }
    if let Some(command) = psql_command(&config.settings.host, port, unix, certificate, local) {
        text += &format!("\nConnect with:\n\n  {command}\n\n");
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        host = config.settings.host.join(", "),
        port,
        socket = unix.map(|path| path.display().to_string()),
        "listening"
    );
    // Nobody may be reading it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let _ = std::io::stdout().flush();
}

/// A session is a socket: workers inherit the limit. Nothing here uses select(2),
/// for which the low default exists.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "the limit on open files stays as it is");
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
