//! One worker's processes: started, restarted, stopped.
//!
//! A process gets its sockets as systemd would pass them, its settings as
//! arguments, and as standard input a pipe that nobody writes to: when the
//! control plane is gone, however it went, the pipe ends, and the worker drains
//! and exits.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::error::StartError;
use super::pool::Worker;
use super::sockets::WorkerSockets;
use crate::config::WorkerConfig;
use crate::systemd::activation;

/// How long the first process may take until it reports.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a drained process may take to exit.
const EXIT_WITHIN: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A process that lives as long counts as well, and the next is started at once.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// What is needed to start the worker's next process.
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// What it is told.
    pub config: WorkerConfig,
    /// Where sessions and orders come from.
    pub sockets: WorkerSockets,
}

/// Keeps a worker running until told otherwise.
pub struct Supervisor {
    stop: watch::Sender<Stop>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    No,
    WhenDone,
    Now,
}

impl Supervisor {
    /// Starts the first process and waits until it is ready. If that fails,
    /// nothing is tried again: a person is waiting for the reason.
    pub async fn start(program: Program, worker: &Arc<Worker>) -> Result<Self, StartError> {
        let mut process = spawn(&program).map_err(|source| StartError::Spawn {
            path: program.path.clone(),
            source,
        })?;
        tokio::select! {
            ready = worker.ready(READY_WITHIN) => if !ready { return Err(StartError::WorkerSilent) },
            ended = process.child.wait() => return Err(StartError::WorkerEnded(ended?)),
        }
        let (stop, stopped) = watch::channel(Stop::No);
        let task = tokio::spawn(keep_running(program, process, stopped));
        Ok(Self { stop, task })
    }

    /// Ends the process: its standard input closes, it drains and exits. One
    /// that does not is killed. Also ends the sockets.
    pub async fn stop(&mut self) {
        self.stop.send_if_modified(|stop| {
            *stop == Stop::No && std::mem::replace(stop, Stop::WhenDone) == Stop::No
        });
        let _ = (&mut self.task).await;
    }

    /// Ends the process at once. A [`Supervisor::stop`] that is waiting returns.
    pub fn kill(&self) {
        self.stop.send_replace(Stop::Now);
    }
}

async fn keep_running(program: Program, mut process: Process, mut stop: watch::Receiver<Stop>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        tokio::select! {
            ended = process.child.wait() => match ended {
                Ok(status) => error!(worker = program.config.id, %status, "the worker ended; starting it again"),
                Err(error) => error!(worker = program.config.id, %error, "the worker was lost; starting it again"),
            },
            () = told(&mut stop, |stop| stop != Stop::No) => return end(process, stop).await,
        }
        if started.elapsed() >= HEALTHY_AFTER {
            pause = FIRST_PAUSE;
        }
        process = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = told(&mut stop, |stop| stop != Stop::No) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match spawn(&program) {
                Ok(process) => break process,
                Err(error) => error!(worker = program.config.id, %error, "the worker cannot be started"),
            }
        };
    }
}

/// Waits for an order; a supervisor that is gone has given them all.
async fn told(stop: &mut watch::Receiver<Stop>, order: impl Fn(Stop) -> bool) {
    let _ = stop.wait_for(|stop| order(*stop)).await;
}

async fn end(process: Process, mut stop: watch::Receiver<Stop>) {
    let Process { mut child, lifeline } = process;
    drop(lifeline);
    tokio::select! {
        _ = child.wait() => return,
        () = tokio::time::sleep(EXIT_WITHIN) => warn!("the worker does not exit; killing it"),
        () = told(&mut stop, |stop| stop == Stop::Now) => {}
    }
    // Gone already is as good.
    let _ = child.kill().await;
}

/// A worker's process, and the pipe whose end tells it that this one is gone.
/// Waiting for a [`Child`] closes its standard input, so the pipe is kept apart.
struct Process {
    child: Child,
    lifeline: Option<ChildStdin>,
}

fn spawn(program: &Program) -> io::Result<Process> {
    let mut command = Command::new(&program.path);
    command
        .args(program.config.to_args())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        // Ctrl-C in a terminal is for the control plane, which then drains.
        .process_group(0);
    for (name, _) in std::env::vars_os() {
        if is_for_us_alone(&name) {
            command.env_remove(name);
        }
    }
    let _reserved = pass(
        &mut command,
        [
            ("handoff", program.sockets.handoff.as_fd()),
            ("rpc", program.sockets.rpc.as_fd()),
        ],
    )?;
    let mut child = command.spawn()?;
    let lifeline = child.stdin.take();
    Ok(Process { child, lifeline })
}

/// Settings are given as arguments; systemd's words to us are not the worker's.
fn is_for_us_alone(name: &OsString) -> bool {
    let systemd = [
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "FDSTORE",
    ];
    name.to_str()
        .is_some_and(|name| name.starts_with("DUCKGRES_") || systemd.contains(&name))
}

/// Passes descriptors as sd_listen_fds(3) has it. What is returned must live
/// until the process has been started: it keeps the target numbers taken in
/// this process, so that no pipe of the start itself has one of them.
fn pass<const N: usize>(
    command: &mut Command,
    named: [(&str, BorrowedFd<'_>); N],
) -> io::Result<Vec<OwnedFd>> {
    let end = activation::FIRST + N as i32;
    let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    command
        .env("LISTEN_FDS", N.to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    let sources: Vec<OwnedFd> = named
        .iter()
        .map(|(_, fd)| duplicate(*fd, end))
        .collect::<io::Result<_>>()?;
    let mut reserved = Vec::new();
    while let Some((_, fd)) = named.first() {
        let spare = duplicate(*fd, activation::FIRST)?;
        if spare.as_raw_fd() >= end {
            break;
        }
        reserved.push(spare);
    }
    // SAFETY: between fork and exec only dup2(2) and close_range(2) run, which are
    // async-signal-safe; the closure owns its sources and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            for (source, target) in sources.iter().zip(activation::FIRST..) {
                // SAFETY: the source is open, and the target is no descriptor that
                // anything in this child uses (see `reserved`). The copy stays
                // open in the new program.
                if libc::dup2(source.as_raw_fd(), target) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            // Nothing else is passed on, not even what this process was started
            // with by mistake. Kernels before 5.11 refuse, and nothing is lost.
            // SAFETY: only marks descriptors to be closed at exec.
            libc::syscall(libc::SYS_close_range, end, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        });
    }
    Ok(reserved)
}

/// A close-on-exec copy with a number of at least `least`.
fn duplicate(fd: BorrowedFd<'_>, least: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(least))?;
    // SAFETY: fcntl has just made this descriptor, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// The worker's program: as configured, or from where packages and builds put it.
pub fn find_program(configured: Option<&Path>) -> Result<PathBuf, StartError> {
    const NAME: &str = "duckgres-worker";
    let candidates: Vec<PathBuf> = match configured {
        Some(path) => vec![path.to_path_buf()],
        None => {
            let own = std::env::current_exe().ok();
            let beside = own.as_deref().and_then(Path::parent);
            let near = [
                NAME,
                "../libexec/duckgres-worker",
                "../lib/duckgres/duckgres-worker",
            ];
            let near = near.iter().filter_map(|place| Some(beside?.join(place)));
            let search = std::env::var_os("PATH").unwrap_or_default();
            near.chain(std::env::split_paths(&search).map(|place| place.join(NAME)))
                .collect()
        }
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(StartError::NoWorkerBinary(candidates)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn descriptors_arrive_as_systemd_passes_them() {
        let (first, second) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let mut command = Command::new("sh");
        command
            .args([
                "-c",
                "echo $LISTEN_FDS $LISTEN_FDNAMES; echo one >&3; echo two >&4; ls /proc/self/fd | wc -l",
            ])
            .stdout(Stdio::piped());
        let reserved = pass(&mut command, [("a", first.as_fd()), ("b", second.as_fd())]).unwrap();
        let output = command.output().await.unwrap();
        drop(reserved);
        // Standard descriptors, the two, and the one with which ls lists them.
        assert_eq!(
            String::from_utf8(output.stdout)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["2", "a:b", "6"]
        );
        for (file, expected) in [(first, "one\n"), (second, "two\n")] {
            use std::io::Seek;
            let mut file = file;
            file.rewind().unwrap();
            let mut text = String::new();
            tokio::fs::File::from_std(file)
                .read_to_string(&mut text)
                .await
                .unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = find_program(Some(Path::new("/nonexistent/w"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no duckgres-worker in /nonexistent/w: set worker_binary"
        );
    }
}
