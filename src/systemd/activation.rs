//! Sockets that were open before we were: sd_listen_fds(3).
//!
//! The variables are read as systemd sets them. `LISTEN_PID` must be this
//! process, so that variables inherited from an activated parent are not taken
//! for ours; it may also be missing: a supervisor that forks by itself (the
//! control plane) cannot know the number before the fork, and clears what it
//! has inherited instead.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first inherited descriptor (SD_LISTEN_FDS_START).
pub const FIRST: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A descriptor that was passed to this process, by its name.
#[derive(Debug)]
pub struct Inherited {
    /// Its name in `LISTEN_FDNAMES`; `unknown` if it has none.
    pub name: String,
    /// The descriptor, close-on-exec.
    pub fd: OwnedFd,
}

/// Takes the descriptors that were passed to this process. Empty if there are
/// none, and when called again.
///
/// # Errors
/// The variables are malformed, or name descriptors that are not open.
pub fn take() -> io::Result<Vec<Inherited>> {
    let variable = |name| std::env::var(name).ok();
    let count = match variable("LISTEN_FDS") {
        Some(count) if is_ours(variable("LISTEN_PID").as_deref(), std::process::id()) => count,
        _ => return Ok(Vec::new()),
    };
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    names(&count, variable("LISTEN_FDNAMES").as_deref().unwrap_or_default())?
        .into_iter()
        .zip(FIRST..)
        .map(|(name, number)| {
            // SAFETY: the protocol gives these numbers to this process alone, and
            // TAKEN has them claimed once. That the number is open is checked
            // before the descriptor is given out.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            match fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
                Ok(_) => Ok(Inherited { name, fd }),
                Err(error) => {
                    std::mem::forget(fd);
                    Err(io::Error::new(
                        io::Error::from(error).kind(),
                        format!("descriptor {number} is not open"),
                    ))
                }
            }
        })
        .collect()
}

fn is_ours(pid: Option<&str>, own: u32) -> bool {
    pid.is_none_or(|pid| pid.parse() == Ok(own))
}

fn names(count: &str, names: &str) -> io::Result<Vec<String>> {
    let invalid = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("LISTEN_FDS={count:?} is not a number of descriptors"),
        )
    };
    let count: usize = count.parse().map_err(|_| invalid())?;
    let limit = usize::try_from(RawFd::MAX - FIRST).unwrap_or_default();
    if count > limit {
        return Err(invalid());
    }
    let mut names = names
        .split(':')
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    Ok((0..count)
        .map(|_| names.next().unwrap_or_else(|| "unknown".into()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_the_names_of_their_places() {
        assert_eq!(names("2", "handoff:rpc").unwrap(), ["handoff", "rpc"]);
        assert_eq!(names("2", "").unwrap(), ["unknown", "unknown"]);
        assert_eq!(names("0", "a").unwrap().len(), 0);
        for wrong in ["", "-1", "two", "99999999999999"] {
            assert!(names(wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn variables_of_another_process_are_not_ours() {
        assert!(is_ours(Some("17"), 17));
        assert!(!is_ours(Some("17"), 18));
        assert!(!is_ours(Some(""), 18));
        assert!(is_ours(None, 18));
    }
}
