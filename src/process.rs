//! What both binaries do first, and what processes know of each other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::SysconfVar;
use rustix::time::{ClockId, clock_gettime};

/// Makes this process leave no core dump and refuse to be traced by others of
/// its user: its memory holds keys. Source: prctl(2), PR_SET_DUMPABLE.
pub fn keep_secrets_out_of_core_dumps() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("duckgres: a crash may leave secrets in a core dump: {error}");
    }
}

/// When a process was started, in clock ticks since boot (proc(5), stat, field
/// 22); together with its id this names it. `None` if there is no such process.
pub fn start_time(process_id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // The command's name is in parentheses and may contain anything; after it
    // comes field 3.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// How long ago a process was started whose [`start_time`] this is.
pub fn age(start_time: u64) -> Option<Duration> {
    let ticks = nix::unistd::sysconf(SysconfVar::CLK_TCK).ok()??;
    // Not from /proc/uptime, which a hardened unit does not see.
    let now = clock_gettime(ClockId::Boottime);
    let uptime = now.tv_sec as f64 + now.tv_nsec as f64 / 1e9;
    let started = start_time as f64 / ticks as f64;
    Some(Duration::try_from_secs_f64(uptime - started).unwrap_or_default())
}

/// The memory that a process has resident, in bytes (proc(5), statm, field 2).
/// `None` if there is no such process.
pub fn resident_bytes(process_id: u32) -> Option<u64> {
    let page = u64::try_from(nix::unistd::sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    let statm = std::fs::read_to_string(format!("/proc/{process_id}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * page)
}

/// A time as processes tell it each other: microseconds since 1970; what was
/// before is 0.
pub fn unix_micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_start_time_and_one_that_is_not_there_has_none() {
        let own = start_time(std::process::id());
        assert!(own.is_some_and(|ticks| ticks > 0));
        assert_eq!(own, start_time(std::process::id()));
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn a_process_has_an_age_and_memory() {
        let own = std::process::id();
        let age = age(start_time(own).unwrap()).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(resident_bytes(own).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(resident_bytes(u32::MAX), None);
    }
}
