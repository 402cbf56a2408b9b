//! Processes, as /proc shows them.

use std::fs;

use super::Server;

/// A process that is there and is no zombie.
pub fn is_running(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The memory that a process has resident for itself; 0 when it is gone.
/// Pages of files, such as libduckdb's code, are shared and do not count.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0) << 10
}

impl Server {
    /// The processes of this server: itself and all its descendants.
    pub fn processes(&self) -> Vec<u32> {
        let mut family = vec![self.pid()];
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                // The command's name is in parentheses and may contain anything.
                let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
                Some((pid, parent))
            })
            .collect();
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            family.extend(
                parents
                    .iter()
                    .filter(|(_, of)| *of == parent)
                    .map(|(pid, _)| *pid),
            );
            next += 1;
        }
        family
    }
}
