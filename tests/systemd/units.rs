//! What can be said of the units without booting.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::eventually;
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
        let text = fs::read_to_string(units().join(name)).unwrap();
        let text = text.replace("=/usr/bin/duckgres", "=/bin/true");
        let text = text.replace("=/bin/true-worker", "=/bin/true");
        fs::write(directory.path().join(name), text).unwrap();
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

#[test]
fn the_server_starts_with_the_first_connection_to_a_socket_of_systemds_tool() {
    const TOOL: &str = "systemd-socket-activate";
    if Command::new(TOOL).arg("--version").output().is_err() {
        println!("skipped: there is no {TOOL}");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    fs::write(path("duckgres.yaml"), "users:\n  alice: correct horse\n").unwrap();
    let mut tool = Command::new(TOOL)
        .arg("--listen")
        .arg(path(".s.PGSQL.5432"))
        .arg(env!("CARGO_BIN_EXE_duckgres"))
        .arg("--config")
        .arg(path("duckgres.yaml"))
        .arg("--data-dir")
        .arg(path("data"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the tool listens", || {
        path(".s.PGSQL.5432").exists().then_some(())
    });
    assert!(!path("data").exists(), "nobody has connected");
    let answer = Command::new("psql")
        .args(["--no-psqlrc", "-At", "-U", "alice", "-h"])
        .arg(place.path())
        .args(["-c", "select 40 + 2", "alice"])
        .env("PGPASSWORD", "correct horse")
        .output();
    // It has become the server, and drains.
    kill(Pid::from_raw(tool.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let ended = tool.wait().unwrap();
    let answer = answer.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "42\n", "{answer:?}");
    assert!(ended.success(), "{ended}");
}
