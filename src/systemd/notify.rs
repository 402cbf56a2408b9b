//! What a service says to systemd: sd_notify(3). Where nobody has asked to be
//! told (`NOTIFY_SOCKET`), all of it does nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PipeFlags;
use sd_notify::NotifyState;

/// Where systemd listens: a path, or with `@` a name in the abstract namespace.
fn address() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

/// Whether somebody listens.
pub fn is_asked_for() -> bool {
    address().is_some()
}

/// A socket of the caller's own, connected, for what has descriptors with it; `None`
/// if nobody listens.
pub fn socket() -> Option<io::Result<UnixDatagram>> {
    address().map(|address| connect(&address))
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// The service serves; `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Another line for `systemctl status`.
pub fn status(status: &str) {
    say(&[NotifyState::Status(status)]);
}

/// The service serves as that process from now on; for a message of another one, the
/// service must say `NotifyAccess=all`. In one datagram, so that there is no moment
/// without a main process that is ready.
pub fn main_process(id: u32) {
    say(&[NotifyState::MainPid(id), NotifyState::Ready]);
}

/// The service begins to stop.
pub fn stopping(status: &str) {
    say(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Starting or stopping takes longer than the unit says: it has so long from now,
/// or until it says this again.
fn extend_timeout(by: Duration) {
    let microseconds = u32::try_from(by.as_micros()).unwrap_or(u32::MAX);
    say(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// How much time [`take_time`] asks for at once.
const MORE_TIME: Duration = Duration::from_secs(20);

/// Asks for more time as long as it is polled.
pub async fn take_time() {
    loop {
        extend_timeout(MORE_TIME);
        tokio::time::sleep(MORE_TIME / 4).await;
    }
}

/// Waits until systemd has looked at all that it was told before.
///
/// # Errors
/// It has not in time, or is not there.
pub fn barrier(patience: Duration) -> io::Result<()> {
    let (near, far) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[far.as_fd()])?;
    // Its copy is now the only one, and is closed when it gets there.
    drop(far);
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&near, PollFlags::HUP)], Some(&patience))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// The service is well. To be said several times in each [`watchdog_interval`],
/// by whoever has just seen that it is true.
pub fn alive() {
    say(&[NotifyState::Watchdog]);
}

/// After how long a silence systemd kills this process; `None` if it does not.
/// Source: sd_watchdog_enabled(3).
pub fn watchdog_interval() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    interval(
        variable("WATCHDOG_USEC").as_deref(),
        variable("WATCHDOG_PID").as_deref(),
        std::process::id(),
    )
}

/// Without a process id it is whoever has inherited the variable.
fn interval(microseconds: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let microseconds = microseconds?.parse().ok().filter(|n| *n > 0)?;
    Some(Duration::from_micros(microseconds))
}

fn say(states: &[NotifyState<'_>]) {
    // Lost is what is said to a systemd that is not there any more.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_found_at_a_path_and_under_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = path.to_str().unwrap();
        let listening = [
            (name.to_owned(), SocketAddr::from_pathname(&path)),
            (format!("@{name}"), SocketAddr::from_abstract_name(name)),
        ];
        for (address, bound) in listening {
            let systemd = UnixDatagram::bind_addr(&bound.unwrap()).unwrap();
            connect(OsStr::new(&address)).unwrap().send(b"READY=1").unwrap();
            let mut heard = [0; 100];
            assert_eq!(systemd.recv(&mut heard).unwrap(), 7, "{address}");
        }
        assert!(connect(OsStr::new("@duckgres: nobody")).is_err());
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval(Some("1000000"), Some("17"), 17), second);
        assert_eq!(interval(Some("1000000"), None, 17), second);
        assert_eq!(interval(Some("1000000"), Some("18"), 17), None);
        for off in [None, Some("0"), Some(""), Some("-1")] {
            assert_eq!(interval(off, None, 17), None, "{off:?}");
        }
    }
}
