//! How much memory DuckDB may use when nobody said.
//!
//! DuckDB itself takes 80 % of the machine, whatever the control group allows,
//! and its limit is not all that the process uses: encoded rows, other
//! allocations and the code come on top. Source: systemd.resource-control(5),
//! MemoryMax=; the kernel's cgroup-v2 documentation, memory.max.

use std::fs;
use std::path::{Path, PathBuf};

/// The share of what there is, in percent.
const SHARE: u64 = 70;

/// A limit in the form that DuckDB reads, if the machine's memory can be found out.
pub(super) fn default_limit() -> Option<String> {
    let machine = meminfo_total(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| group_limit(&text, Path::new("/sys/fs/cgroup")));
    let available = group.map_or(machine, |group| group.min(machine));
    Some(format!("{}MiB", available / 100 * SHARE / (1 << 20)))
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
        .filter_map(|ancestor| fs::read_to_string(ancestor.join("memory.max")).ok()?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_read_in_bytes() {
        assert_eq!(meminfo_total("MemFree: 1 kB\n"), None);
        assert_eq!(meminfo_total("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().join("a/b");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(root.path().join("memory.max"), "5000\n").unwrap();
        assert_eq!(group_limit("1:name=systemd:/x\n0::/a/b\n", root.path()), Some(1000));
        assert_eq!(group_limit("1:memory:/x\n", root.path()), None);
    }
}
