//! How much memory DuckDB may use, and how it is shared.
//!
//! DuckDB itself takes 80 % of the machine, whatever the control group allows,
//! and for every instance anew. Here there is one budget: what the machine or the
//! control group has, less the room for what DuckDB's limit does not count (rows
//! on their way, threads, allocations of its own). Each worker has an equal part
//! of it, and in a worker each open database an equal part of the worker's.
//! Source: systemd.resource-control(5), MemoryMax=; the kernel's cgroup-v2
//! documentation, memory.max.

use std::fs;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;

/// By so much a worker was seen to exceed DuckDB's limit.
const ROOM: u64 = 400 * MIB;

/// A database always has so much, however many there are: with less, DuckDB can
/// do little.
const LEAST: u64 = 32 * MIB;

/// What each of `workers` may give to DuckDB when nobody said, if the machine's
/// memory can be found out.
pub(super) fn budget(workers: u32) -> Option<u64> {
    let machine = meminfo_total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit(&text, Path::new("/sys/fs/cgroup")));
    let available = group.map_or(machine, |group| group.min(machine));
    Some(part(available, workers))
}

/// 70 %, or less where that would leave a worker less than its room; half at least.
fn part(available: u64, workers: u32) -> u64 {
    let workers = u64::from(workers.max(1));
    let room = (available / 10 * 3).max(ROOM.saturating_mul(workers));
    (available - room.min(available / 2)) / workers
}

/// What each of `open` databases has of a worker's budget.
pub(super) fn share(budget: u64, open: usize) -> u64 {
    (budget / (open.max(1) as u64)).max(LEAST)
}

/// MemTotal in bytes.
fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The tightest memory.max on the way from our control group to the root.
fn group_limit(own_groups: &str, root: &Path) -> Option<u64> {
    let own = own_groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let directory: PathBuf = root.join(own);
    directory
        .ancestors()
        .take_while(|ancestor| ancestor.starts_with(root))
        .filter_map(|ancestor| {
            fs::read_to_string(ancestor.join("memory.max"))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_in_bytes() {
        assert_eq!(meminfo_total("MemFree: 1 kB\n"), None);
        assert_eq!(
            meminfo_total("MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
    }

    #[test]
    fn workers_and_databases_have_equal_parts_and_room_is_left() {
        const GIB: u64 = 1024 * MIB;
        assert_eq!(part(100 * GIB, 1) / GIB, 70);
        assert_eq!(part(100 * GIB, 7) / GIB, 10);
        assert_eq!(part(2 * GIB, 2), (2 * GIB - 2 * ROOM) / 2);
        assert_eq!(part(512 * MIB, 4), 64 * MIB);
        assert_eq!(share(4 * GIB, 0), 4 * GIB);
        assert_eq!(share(4 * GIB, 4), GIB);
        assert_eq!(share(GIB, 1000), LEAST);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("a/b");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(root.path().join("memory.max"), "5000\n").unwrap();
        assert_eq!(
            group_limit("1:name=systemd:/x\n0::/a/b\n", root.path()),
            Some(1000)
        );
        assert_eq!(group_limit("1:memory:/x\n", root.path()), None);
    }
}
