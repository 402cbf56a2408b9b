//! From a configuration to a running server, and to its end.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::certificate;
use super::doors::Doors;
use super::duty::Roster;
use super::error::StartError;
use super::keep::Keeper;
use super::reload::estate::Estate;
use super::reload::{self, Desk, Predecessor, Program, ReloadError, Request};
use super::serve::{Ground, Server};
use super::standalone::psql_command;
use super::supervise::find_program;
use crate::config::{Config, Mode, WorkerConfig};
use crate::systemd::{activation, notify};

/// How the server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Asked to stop; every session was drained or its time was over.
    Drained,
    /// Asked twice; sessions were cut.
    Forced,
    /// Another process of this server goes on in its place. Nothing that this
    /// process has is its own any more, neither files nor workers: it must exit
    /// without tidying up.
    Replaced,
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
/// With a predecessor it takes that one's place. SIGHUP, and `duckgres reload`, have
/// another process take this one's. Must be called once, because it takes what
/// systemd has passed.
pub async fn run(config: Config, predecessor: Option<&Predecessor>) -> Result<Ended, StartError> {
    match (config.settings.mode, predecessor) {
        (Mode::Worker, None) => return Err(become_worker(&config)),
        (Mode::Worker, Some(_)) => return Err(StartError::OtherMode),
        _ => {}
    }
    // Before a new version can have been installed.
    let program = Program::own()?;
    let mut signals = Signals::new()?;
    let mut hang_up = signal(SignalKind::hangup())?;
    raise_descriptor_limit();
    config.notes.iter().for_each(|note| warn!("{note}"));

    let (post, mut estate) = match predecessor {
        Some(predecessor) => {
            let (post, estate) = predecessor.meet().await?;
            (Some(post), estate)
        }
        None => (None, Estate::default()),
    };
    let keeper = keeper();
    let mut kept = Vec::new();
    if post.is_none() {
        let mut passed = activation::take()?;
        kept = keeper
            .as_ref()
            .map_or_else(Vec::new, |keeper| keeper.take_up(&mut passed));
        estate = Estate::of_systemd(passed)?;
    }
    let ground = Ground::prepare(&config, &mut estate)?;
    let doors = Doors::open(&config, &ground.data_dir, &mut estate).await?;
    let invitation = Invitation::new(&config, &ground, &doors);
    let roster = Roster::new();
    if post.is_none() {
        roster.begin();
    }
    let inherited = std::mem::take(&mut estate.workers);
    let mut server = tokio::select! {
        started = Server::start(&config, ground, doors, inherited, keeper, roster) => started?,
        () = signals.next() => return Ok(Ended::Forced),
        () = async {
            match &post {
                Some(post) => post.given_up().await,
                None => std::future::pending().await,
            }
        } => return Err(StartError::GivenUp),
    };
    let (desk, mut requests) = Desk::open();
    server.resume(kept);
    server.answer(desk);
    match post {
        None => {
            server.wind_up(estate);
            invitation.announce();
            notify::ready(&server.summary());
        }
        Some(post) => {
            tokio::select! {
                taken = post.take(server.limits(), &server.workers) => taken?,
                () = signals.next() => return Ok(Ended::Forced),
            }
            server.roster.begin();
            server.wind_up(estate);
            post.serving(server.limits().clone(), server.workers.pool.clone())
                .await;
            info!("serves in the place of the process before");
        }
    }

    loop {
        let mut request = tokio::select! {
            () = signals.next() => break,
            _ = hang_up.recv() => Request::of_a_signal(),
            Some(request) = requests.recv() => request,
        };
        let timeout = config.settings.reload_timeout;
        match reload::attempt(
            &server,
            &program,
            timeout,
            &mut request,
            &mut requests,
            signals.next(),
        )
        .await
        {
            Ok(handover) => {
                server.let_go().await;
                request.answer(Ok(handover.reply.clone()));
                let settings = &config.settings;
                let longest = settings.authentication_timeout + settings.worker_queue_timeout;
                server
                    .leave(async {
                        tokio::select! {
                            () = tokio::time::sleep(longest) => {}
                            () = signals.next() => {}
                        }
                    })
                    .await;
                handover.finish(&server).await;
                // Files, locks and workers are the other's: nothing is tidied up.
                std::mem::forget(server);
                return Ok(Ended::Replaced);
            }
            Err(error) => {
                error!("no reload, this process goes on: {error}");
                request.answer(Err(error.to_string()));
                if matches!(error, ReloadError::Stopping) {
                    break;
                }
            }
        }
    }
    info!("stopping; a second signal ends running statements at once");
    notify::stopping("stopping");
    let last_logins = match config.settings.worker_sockets {
        Some(_) => LAST_LOGINS,
        None => Duration::ZERO,
    };
    server.close(last_logins).await;
    let ended = tokio::select! {
        () = server.workers.stop(config.settings.shutdown_timeout) => Ended::Drained,
        // It ends no later than it has promised, which systemd need not know.
        () = notify::take_time() => Ended::Forced,
        () = signals.next() => Ended::Forced,
    };
    if ended == Ended::Forced {
        server.workers.kill().await;
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

/// What is said once the server is ready, to whoever has started it; systemd only
/// wants to know that it is, and has said the rest itself.
struct Invitation {
    text: Option<String>,
    addresses: String,
    socket: Option<String>,
}

impl Invitation {
    fn new(config: &Config, ground: &Ground, doors: &Doors) -> Self {
        let addresses: Vec<String> = doors.addresses.iter().map(SocketAddr::to_string).collect();
        Self {
            text: (!doors.of_a_unit).then(|| invite(config, ground, doors)),
            addresses: addresses.join(", "),
            socket: doors.unix.as_ref().map(|path| path.display().to_string()),
        }
    }

    fn announce(self) {
        let Self {
            text,
            addresses,
            socket,
        } = self;
        info!(
            version = env!("CARGO_PKG_VERSION"),
            addresses, socket, "listening"
        );
        if let Some(text) = text {
            // Nobody may be reading it.
            let _ = std::io::stdout().write_all(text.as_bytes());
            let _ = std::io::stdout().flush();
        }
    }
}

fn invite(config: &Config, ground: &Ground, doors: &Doors) -> String {
    let (host, unix) = (&config.settings.host, doors.unix.as_deref());
    let port = doors
        .addresses
        .first()
        .map_or(config.settings.port, SocketAddr::port);
    let mut text = format!("duckgres {} is ready.\n", env!("CARGO_PKG_VERSION"));
    text += &format!("  Data       {}\n", config.data_dir.display());
    if !host.is_empty() {
        text += &format!("  TCP        {} port {port}\n", host.join(", "));
    }
    if let Some(path) = unix {
        text += &format!("  Socket     {}\n", path.display());
    }
    if let Some(command) = psql_command(host, port, unix, ground.certificate.as_ref(), &ground.users) {
        text += &format!("\nConnect with:\n\n  {command}\n\n");
    }
    text
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
