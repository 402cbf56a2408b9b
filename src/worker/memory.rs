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

use nix::unistd::SysconfVar;

const MIB: u64 = 1 << 20;

/// By so much a worker was seen to exceed DuckDB's limit.
const ROOM: u64 = 400 * MIB;

/// A database always has so much, however many there are: with less, DuckDB can
/// do little.
const LEAST: u64 = 32 * MIB;

/// What each of `workers` may give to DuckDB when nobody said, if the machine's
/// memory can be found out. With a control group of its own (`own_group`) a
/// worker has that group's limit to itself; those of the groups above it, and the
/// machine, are everybody's.
pub(super) fn budget(workers: u32, own_group: bool) -> Option<u64> {
    let machine = machine_memory()?;
    let limits = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .map(|text| group_limits(&text, Path::new("/sys/fs/cgroup")))
        .unwrap_or_default();
    Some(of_limits(machine, &limits, workers, own_group))
}

/// `limits` are those of the control groups, our own first.
fn of_limits(machine: u64, limits: &[Option<u64>], workers: u32, own_group: bool) -> u64 {
    let (own, shared) = limits.split_at(limits.len().min(usize::from(own_group)));
    let shared = shared
        .iter()
        .flatten()
        .fold(machine, |least, limit| least.min(*limit));
    let shared = part(shared, workers);
    own.iter()
        .flatten()
        .fold(shared, |least, limit| least.min(part(*limit, 1)))
}

/// In bytes. Not from /proc/meminfo, which a hardened unit does not see.
fn machine_memory() -> Option<u64> {
    let number = |name| u64::try_from(nix::unistd::sysconf(name).ok()??).ok();
    Some(number(SysconfVar::_PHYS_PAGES)? * number(SysconfVar::PAGE_SIZE)?)
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

/// memory.max of our control group and of each above it.
fn group_limits(own_groups: &str, root: &Path) -> Vec<Option<u64>> {
    let Some(own) = own_groups.lines().find_map(|line| line.strip_prefix("0::/")) else {
        return Vec::new();
    };
    let directory: PathBuf = root.join(own);
    let limit = |group: &Path| {
        let text = fs::read_to_string(group.join("memory.max")).ok()?;
        text.trim().parse().ok()
    };
    directory
        .ancestors()
        .take_while(|ancestor| ancestor.starts_with(root))
        .map(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_known() {
        assert!(machine_memory().is_some_and(|bytes| bytes > 64 * MIB));
    }

    #[test]
    fn a_limit_of_ones_own_is_not_shared() {
        const GIB: u64 = 1024 * MIB;
        let limits = [Some(10 * GIB), None, Some(40 * GIB)];
        assert_eq!(of_limits(100 * GIB, &limits, 4, true), 7 * GIB);
        assert_eq!(of_limits(100 * GIB, &limits, 4, false), part(10 * GIB, 4));
        assert_eq!(of_limits(100 * GIB, &limits, 8, true), part(40 * GIB, 8));
        assert_eq!(of_limits(100 * GIB, &[None], 4, true), part(100 * GIB, 4));
        assert_eq!(of_limits(100 * GIB, &[], 4, true), part(100 * GIB, 4));
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
    fn control_groups_have_limits_from_our_own_upwards() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("a/b");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        let limits = |groups| group_limits(groups, root.path());
        assert_eq!(limits("1:name=systemd:/x\n0::/a/b\n"), [None, Some(1000), None]);
        assert_eq!(limits("1:memory:/x\n"), []);
    }
}
