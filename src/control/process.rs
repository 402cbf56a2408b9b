//! A worker's process: one that this control plane started, or one that outlived
//! an earlier control plane.
//!
//! A process gets its sockets as systemd would pass them and its settings as
//! arguments. A note beside the sockets says which process it is, so that the
//! next control plane finds it: by id and start time, because ids are used
//! again. Such a process is nobody's child here; a pidfd (pidfd_open(2)) tells of
//! its end, and no signal can reach another.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use super::data_dir::write_private;
use super::sockets::{Listening, NotifyAddress};
use super::store::Kept;
use crate::config::WorkerConfig;
use crate::process::start_time;
use crate::systemd::{activation, job};

/// A running process.
pub enum Process {
    /// Our own child; killed when dropped.
    Child(Child),
    /// Somebody else's; goes on when dropped.
    Adopted {
        /// Its process id.
        id: u32,
        /// What tells of its end.
        pidfd: AsyncFd<OwnedFd>,
    },
}

/// What a worker's process is started with.
pub struct Start<'a> {
    /// The program.
    pub path: &'a Path,
    /// What it is told.
    pub config: &'a WorkerConfig,
    /// Where sessions and orders come from.
    pub sockets: &'a Listening,
    /// What an earlier process has had kept.
    pub kept: &'a [Kept],
    /// How many descriptors are kept at most.
    pub limit: usize,
    /// Where its supervisor listens to it.
    pub notify: NotifyAddress<'a>,
    /// The file that says which process it is.
    pub note: &'a Path,
}

/// What names a process: its id and its start time.
pub type Name = (u32, u64);

impl Process {
    /// Starts the program, and notes which process it is.
    pub fn spawn(start: Start<'_>) -> io::Result<Self> {
        let mut command = Command::new(start.path);
        command
            .args(start.config.to_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            // Ctrl-C in a terminal is for the control plane, which then drains.
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            if is_for_us_alone(&name) {
                command.env_remove(name);
            }
        }
        let sockets = [
            ("handoff", start.sockets.handoff.as_fd()),
            ("rpc", start.sockets.rpc.as_fd()),
        ];
        let kept = start.kept.iter().map(|kept| (kept.name(), kept.as_fd()));
        let named: Vec<_> = sockets.into_iter().chain(kept).collect();
        let directory = match start.notify {
            NotifyAddress::Path(path) => {
                command.env("NOTIFY_SOCKET", path);
                None
            }
            NotifyAddress::In(directory, name) => {
                let number = activation::FIRST as usize + named.len();
                command.env("NOTIFY_SOCKET", format!("/proc/self/fd/{number}/{name}"));
                Some(directory)
            }
        };
        command
            .env("FDSTORE", start.limit.to_string())
            .env(job::STARTED_AGAIN, "1");
        let _reserved = pass(&mut command, &named, directory)?;
        let child = command.spawn()?;
        if let Some((id, begun)) = child.id().and_then(|id| Some((id, start_time(id)?))) {
            write_private(start.note, format!("{id} {begun} {}\n", boot()).as_bytes())?;
        }
        Ok(Self::Child(child))
    }

    /// Its process id; `None` when it has been waited for.
    pub fn id(&self) -> Option<u32> {
        match self {
            Self::Child(child) => child.id(),
            Self::Adopted { id, .. } => Some(*id),
        }
    }

    /// Takes up a process that is running already; `None` if it is not any more.
    pub fn adopt((id, start): Name) -> Option<Self> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(id).ok()?)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Asked after the pidfd was made: if the id was used again, the start is another.
        if start_time(id) != Some(start) {
            return None;
        }
        Self::of_pidfd(id, pidfd).ok()
    }

    /// Takes up the process that this pidfd is of.
    pub fn of_pidfd(id: u32, pidfd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd always answers with the one descriptor that it keeps
        // open until it is dropped, and nothing takes it out of the AsyncFd.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self::Adopted { id, pidfd })
    }

    /// Returns when the process has ended, with how if that is known.
    pub async fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        match self {
            Self::Child(child) => child.wait().await.map(Some),
            Self::Adopted { pidfd, .. } => pidfd.readable().await.map(|_| None),
        }
    }

    /// The worker that a note beside its sockets names.
    pub fn find(note: &Path) -> Option<Self> {
        read_note(note).and_then(Self::adopt)
    }

    /// Sends SIGTERM: the worker drains and exits.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM, rustix::process::Signal::TERM);
    }

    /// Sends SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL, rustix::process::Signal::KILL);
    }

    fn signal(&self, to_child: Signal, to_adopted: rustix::process::Signal) {
        // Gone already is as good.
        match self {
            Self::Child(child) => {
                // A child that has not been waited for keeps its id.
                if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
                    let _ = kill(Pid::from_raw(id), to_child);
                }
            }
            Self::Adopted { pidfd, .. } => {
                let _ = pidfd_send_signal(pidfd.get_ref(), to_adopted);
            }
        }
    }
}

/// The worker's process now: the one that was known here, or the one that the note
/// names because another control plane has started it meanwhile.
pub fn current(known: Option<Process>, note: &Path) -> Option<Process> {
    let noted = read_note(note);
    match (&known, noted) {
        // Our own child can be waited for; it is killed when it is dropped.
        (Some(Process::Child(child)), Some((id, _))) if child.id() == Some(id) => known,
        (_, Some(name)) => Process::adopt(name),
        (_, None) => known,
    }
}

/// Which process a note is about; `None` if the note is of an earlier boot.
pub fn read_note(path: &Path) -> Option<Name> {
    let note = std::fs::read_to_string(path).ok()?;
    let mut words = note.split_whitespace();
    let name = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (words.next()? == boot()).then_some(name)
}

/// Names the time since the machine was started, which start times count from.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned())
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

/// Passes descriptors as sd_listen_fds(3) has it, and one more behind them. What is
/// returned must live until the process has been started: it keeps the target numbers
/// taken in this process, so that no pipe of the start itself has one of them.
fn pass(
    command: &mut Command,
    named: &[(&str, BorrowedFd<'_>)],
    behind: Option<BorrowedFd<'_>>,
) -> io::Result<Vec<OwnedFd>> {
    let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
    command
        .env("LISTEN_FDS", named.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    let all = named.iter().map(|(_, fd)| *fd).chain(behind);
    // Copies, because the closure outlives what is borrowed here.
    let sources: Vec<OwnedFd> = all
        .map(|fd| duplicate(fd, activation::FIRST))
        .collect::<io::Result<_>>()?;
    let end = activation::FIRST + i32::try_from(sources.len()).map_err(io::Error::other)?;
    let mut reserved = Vec::new();
    while let Some(fd) = sources.first() {
        let spare = duplicate(fd.as_fd(), activation::FIRST)?;
        if spare.as_raw_fd() >= end {
            break;
        }
        reserved.push(spare);
    }
    let mut moved = vec![-1; sources.len()];
    // SAFETY: between fork and exec only fcntl(2), dup2(2) and close_range(2) run, which
    // are async-signal-safe; the closure owns its sources and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // Out of the way of the targets first: a source may have such a number.
            for (source, moved) in sources.iter().zip(&mut moved) {
                // SAFETY: the source is open.
                *moved = libc::fcntl(source.as_raw_fd(), libc::F_DUPFD_CLOEXEC, end);
                if *moved < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            for (source, target) in moved.iter().zip(activation::FIRST..) {
                // SAFETY: the source is open, and the target is no descriptor that
                // anything in this child uses: this process has all those numbers in
                // use for other things (see `reserved`), which end with the exec. The
                // copy stays open in the new program.
                if libc::dup2(*source, target) < 0 {
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
        let named = [("a", first.as_fd()), ("b", second.as_fd())];
        let reserved = pass(&mut command, &named, None).unwrap();
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

    #[tokio::test]
    async fn an_adopted_process_is_seen_to_end_and_its_successor_is_not_taken_for_it() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let name = (child.id(), start_time(child.id()).unwrap());
        assert!(Process::adopt((name.0, name.1 + 1)).is_none());
        let mut process = Process::adopt(name).unwrap();
        process.kill();
        assert!(process.ended().await.unwrap().is_none());
        child.wait().unwrap();
        assert!(Process::adopt(name).is_none());
    }

    #[test]
    fn a_note_that_is_none_names_no_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("process");
        assert_eq!(read_note(&path), None);
        for text in ["", "17", "17 x\n", "\0", "17 4711\n", "17 4711 another-boot\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_note(&path), None, "{text:?}");
        }
        std::fs::write(&path, format!("17 4711 {}\n", boot())).unwrap();
        assert_eq!(read_note(&path), Some((17, 4711)));
    }
}
