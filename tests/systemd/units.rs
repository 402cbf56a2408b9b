//! What can be said of the units without booting.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::programs::run;

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

fn analyze() -> Option<Command> {
    if Command::new("systemd-analyze").arg("--version").output().is_ok() {
        return Some(Command::new("systemd-analyze"));
    }
    println!("skipped: systemd-analyze is missing");
    None
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(mut analyze) = analyze() else { return };
    // With instances, and with programs that exist, whether installed here or not.
    let directory = tempfile::tempdir().unwrap();
    for name in [
        "duckgres.socket",
        "duckgres.service",
        "duckgres.target",
        "duckgres-worker@.socket",
        "duckgres-worker@.service",
    ] {
        let text = std::fs::read_to_string(units().join(name)).unwrap();
        let text = text.replace("=/usr/bin/duckgres", "=/bin/true");
        let text = text.replace("=/bin/true-worker", "=/bin/true");
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    analyze.args(["verify", "--man=no"]);
    for name in [
        "duckgres.target",
        "duckgres.service",
        "duckgres.socket",
        "duckgres-worker@1.socket",
        "duckgres-worker@1.service",
    ] {
        analyze.arg(directory.path().join(name));
    }
    let output = run(&mut analyze, "");
    // Of other units on this machine there may be much to say.
    let ours: Vec<&str> = output
        .err
        .lines()
        .filter(|line| line.contains("duckgres"))
        .collect();
    assert!(ours.is_empty(), "{ours:#?}");
}

#[test]
fn the_services_are_exposed_to_little() {
    let limits = [("duckgres.service", 15), ("duckgres-worker@.service", 10)];
    for (name, tenths) in limits {
        let Some(mut analyze) = analyze() else { return };
        analyze.args(["security", "--offline=yes", "--no-pager"]);
        analyze
            .arg(format!("--threshold={tenths}"))
            .arg(units().join(name));
        let output = run(&mut analyze, "");
        println!("{}", output.out.lines().last().unwrap_or_default());
        assert!(output.status.success(), "{name}:\n{}", output.out);
    }
}
