//! What both binaries do first.

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
}
