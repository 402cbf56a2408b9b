//! The side of the process that is replaced.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::channel::{self, Channel, MOST_DESCRIPTORS};
use super::program::Program;
use super::successor::VARIABLE;
use super::{Request, estate, state};
use crate::control::process::Process;
use crate::control::serve::Server;
use crate::control::store::Kept;
use crate::proto::{
    self, CarriedState, FromPredecessor, FromSuccessor, Go, Late, ReloadReply, from_predecessor,
    from_successor::Word,
};
use crate::systemd::notify;

/// How long a process that was ready may take to accept.
const SERVING_WITHIN: Duration = Duration::from_secs(5);

/// How long a process may take to exit that has closed its end.
const ENDED_WITHIN: Duration = Duration::from_secs(1);

/// What systemd says to one process and not to the next.
const FOR_ONE_PROCESS: [&str; 6] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "WATCHDOG_PID",
    "MAINPID",
];

/// Why there was no reload. The server goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Something of the operating system's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The program is not there, or is none.
    #[error("cannot start {}: {source}", path.display())]
    Start {
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The new process says why.
    #[error("{0}")]
    Refused(String),
    /// The new process has ended without a word of its own.
    #[error("{} ended before it was ready{}; what it said stands in the log", path.display(), status.map(|status| format!(" ({status})")).unwrap_or_default())]
    Ended {
        /// The program.
        path: PathBuf,
        /// How, if that is known.
        status: Option<ExitStatus>,
    },
    /// The new process hangs.
    #[error("the new process was not ready within {0:?} (reload_timeout)")]
    Silent(Duration),
    /// It was ready and died.
    #[error("the new process was lost when it was to take over")]
    Lost,
    /// Whoever asked for it has gone.
    #[error("nobody waits for it any more")]
    GivenUp,
    /// The server is told to stop.
    #[error("the server is stopping")]
    Stopping,
    /// One at a time.
    #[error("another reload is under way")]
    Busy,
    /// Its end would be the container's.
    #[error("this process is its container's first: restart the container instead")]
    FirstProcess,
}

/// Another process serves now.
pub struct Handover {
    /// What whoever asked is told.
    pub reply: ReloadReply,
    channel: Arc<Channel>,
    carried: CarriedState,
    when: Instant,
}

/// Has another process take over, or says why none has, and then this one is on
/// duty as before. Refuses `others` who ask meanwhile; gives up when `stop` returns.
pub async fn attempt(
    server: &Server,
    program: &Program,
    timeout: Duration,
    request: &mut Request,
    others: &mut mpsc::Receiver<Request>,
    stop: impl Future<Output = ()>,
) -> Result<Handover, ReloadError> {
    if std::process::id() == 1 {
        return Err(ReloadError::FirstProcess);
    }
    let mut starting = Starting::begin(program)?;
    let refuse_others = async {
        while let Some(other) = others.recv().await {
            other.answer(Err(ReloadError::Busy.to_string()));
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ready = starting.prepare(server) => ready?,
        () = tokio::time::sleep(timeout) => return Err(ReloadError::Silent(timeout)),
        () = request.given_up() => return Err(ReloadError::GivenUp),
        () = stop => return Err(ReloadError::Stopping),
        () = refuse_others => {}
    }
    starting.commit(server).await
}

/// A process on its way; killed when dropped.
struct Starting {
    path: PathBuf,
    channel: Arc<Channel>,
    /// What was started. Under systemd it only starts the process that stays.
    child: Option<Child>,
    /// The one that stays, once it has said hello.
    process: Option<Process>,
    reply: ReloadReply,
}

impl Starting {
    fn begin(program: &Program) -> Result<Self, ReloadError> {
        let (ours, theirs) = channel::pair()?;
        let child = start(program, theirs).map_err(|source| ReloadError::Start {
            path: program.path.clone(),
            source,
        })?;
        info!(program = %program.path.display(), process = child.id(), "reloading");
        Ok(Self {
            path: program.path.clone(),
            channel: Arc::new(Channel::new(ours)?),
            child: Some(child),
            process: None,
            reply: ReloadReply::default(),
        })
    }

    async fn prepare(&mut self, server: &Server) -> Result<(), ReloadError> {
        let heard = self.channel.receive::<FromSuccessor>().await?;
        let Some((
            FromSuccessor {
                word: Some(Word::Hello(hello)),
            },
            descriptors,
        )) = heard
        else {
            return Err(self.ended().await);
        };
        for pidfd in descriptors {
            self.process = Some(Process::of_pidfd(hello.process_id, pidfd)?);
        }
        self.reply = ReloadReply {
            process_id: hello.process_id,
            version: hello.version,
        };
        if let Some(child) = self
            .child
            .as_mut()
            .filter(|child| child.id() != Some(hello.process_id))
        {
            // Only then is the other one a child of the service manager.
            child.wait().await?;
            self.child = None;
        }
        let offered = estate::offer(&self.channel, server.doors(), server.data_dir(), &server.workers).await;
        match self.hear().await? {
            Some(Word::Ready(_)) => Ok(()),
            _ => match offered {
                Ok(()) => Err(self.ended().await),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// The next word; none if it has ended.
    async fn hear(&self) -> Result<Option<Word>, ReloadError> {
        let heard = self.channel.receive::<FromSuccessor>().await?;
        match heard.and_then(|(message, _)| message.word) {
            Some(Word::Failed(failed)) => Err(ReloadError::Refused(failed.reason)),
            word => Ok(word),
        }
    }

    async fn ended(&mut self) -> ReloadError {
        let status = match &mut self.child {
            Some(child) => tokio::time::timeout(ENDED_WITHIN, child.wait()).await.ok(),
            None => None,
        };
        ReloadError::Ended {
            path: self.path.clone(),
            status: status.and_then(Result::ok),
        }
    }

    /// From here on there is no giving up, only going back.
    async fn commit(mut self, server: &Server) -> Result<Handover, ReloadError> {
        server.roster.pause();
        let when = Instant::now();
        let carried = state::gather(server.limits(), &server.workers.pool, None);
        let kept: Vec<(u16, Kept)> = server
            .workers
            .stores()
            .iter()
            .flat_map(|(id, store)| store.kept().into_iter().map(|kept| (*id, kept)))
            .collect();
        if let Err(error) = self.pass_on(&carried, &kept).await {
            self.kill().await;
            server.roster.begin();
            // Others may have been told of the other one.
            notify::main_process(std::process::id());
            if let Err(error) = server.data_dir().sign() {
                debug!(%error, "the lock of the data directory names another process");
            }
            return Err(error);
        }
        // What it has now, clients and leases, must not be held open here.
        for (_, store) in server.workers.stores() {
            store.close();
        }
        // It goes on without us, also if it is our child.
        std::mem::forget(self.child.take());
        std::mem::forget(self.process.take());
        let reply = std::mem::take(&mut self.reply);
        info!(
            process = reply.process_id,
            version = reply.version,
            "another process serves now"
        );
        Ok(Handover {
            reply,
            channel: self.channel.clone(),
            carried,
            when,
        })
    }

    async fn pass_on(&mut self, carried: &CarriedState, kept: &[(u16, Kept)]) -> Result<(), ReloadError> {
        let memfd = state::write(carried)?;
        notify::main_process(self.reply.process_id);
        let (mut rest, mut memfd) = (kept, Some(memfd));
        loop {
            let (now, later) = rest.split_at(rest.len().min(MOST_DESCRIPTORS - 1));
            rest = later;
            let go = Go {
                kept: now
                    .iter()
                    .map(|(worker, kept)| proto::Kept {
                        worker: (*worker).into(),
                        name: kept.name().to_owned(),
                    })
                    .collect(),
                more: !rest.is_empty(),
            };
            let state = memfd.take();
            let descriptors = state.as_ref().map(AsFd::as_fd).into_iter();
            let descriptors: Vec<_> = descriptors
                .chain(now.iter().map(|(_, kept)| kept.as_fd()))
                .collect();
            let go = FromPredecessor {
                word: Some(from_predecessor::Word::Go(go)),
            };
            let sent = tokio::time::timeout(SERVING_WITHIN, self.channel.send(&go, &descriptors)).await;
            sent.ok().and_then(Result::ok).ok_or(ReloadError::Lost)?;
            if rest.is_empty() {
                break;
            }
        }
        match tokio::time::timeout(SERVING_WITHIN, self.hear()).await {
            Ok(Ok(Some(Word::Serving(_)))) => Ok(()),
            _ => Err(ReloadError::Lost),
        }
    }

    /// Returns when it cannot do anything any more.
    async fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
            let _ = process.ended().await;
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // The child is killed by its own drop.
        if let Some(process) = &self.process {
            process.kill();
        }
    }
}

impl Handover {
    /// The last connections are handed over: tells what was counted with them.
    pub async fn finish(self, server: &Server) {
        let earlier = Some((&self.carried, self.when));
        let carried = state::gather(server.limits(), &server.workers.pool, earlier);
        let late = FromPredecessor {
            word: Some(from_predecessor::Word::Late(Late {})),
        };
        let told = async {
            let memfd = state::write(&carried)?;
            self.channel.send(&late, &[memfd.as_fd()]).await
        };
        if let Err(error) = told.await {
            debug!(%error, "the last counts are lost");
        }
    }
}

/// Starts the program with the arguments and the environment of this process, and
/// the other end of the conversation.
fn start(program: &Program, theirs: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .env(VARIABLE, theirs.as_raw_fd().to_string());
    for name in FOR_ONE_PROCESS {
        command.env_remove(name);
    }
    // SAFETY: between fork and exec only fcntl(2) runs, which is async-signal-safe;
    // the closure owns the descriptor and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
            Ok(())
        });
    }
    command.spawn()
}
