//! `systemctl reload duckgres`: another process takes the control plane's place.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lives::{another_process, booted, under_load};
use crate::machine::{Machine, on_each_release};
use crate::support::eventually;

const UNIT: &str = "duckgres.service";

on_each_release!(
    twenty_reloads_are_felt_by_nobody,
    reloads_and_restarts_and_kills_take_turns,
    a_reload_that_fails_leaves_the_old_process,
    a_new_process_is_watched_like_the_first,
    the_listener_for_metrics_outlives_every_process,
);

#[track_caller]
fn reload(machine: &Machine) -> u32 {
    let before = machine.main_process(UNIT);
    machine.systemctl(&["reload", UNIT]);
    let after = machine.main_process(UNIT);
    assert_ne!(after, before);
    assert_eq!(machine.property(UNIT, "ActiveState"), "active");
    after
}

fn twenty_reloads_are_felt_by_nobody(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    let workers = || ["1", "2"].map(|id| machine.main_process(&format!("duckgres-worker@{id}.service")));
    drop(machine.connect("u0"));
    let before = workers();
    under_load(&machine, || {
        for _ in 0..20 {
            reload(&machine);
        }
    });
    assert_eq!(workers(), before, "the workers were left alone");
    assert_eq!(machine.property(UNIT, "NRestarts"), "0");
    let said = machine.journal(&["--output=cat"]);
    assert!(!said.contains("not our child"), "{said}");
}

fn reloads_and_restarts_and_kills_take_turns(mut machine: Machine) {
    booted(&mut machine, &[1]);
    drop(machine.connect("u0"));
    under_load(&machine, || {
        for _ in 0..3 {
            let process = reload(&machine);
            machine.signal(UNIT, "KILL");
            another_process(&machine, UNIT, process);
            reload(&machine);
            machine.systemctl(&["daemon-reload"]);
            machine.systemctl(&["restart", UNIT]);
            reload(&machine);
            machine.systemctl(&["daemon-reexec"]);
        }
    });
}

fn a_reload_that_fails_leaves_the_old_process(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let mut session = machine.connect("u0");
    let process = machine.main_process(UNIT);
    let configuration = machine.etc("duckgres/duckgres.yaml");
    let good = fs::read_to_string(&configuration).unwrap();
    let program = machine.program("duckgres");
    let kept = program.with_extension("kept");
    fs::rename(&program, &kept).unwrap();
    let install = |script: &str| {
        let new = program.with_extension("new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&new, &program).unwrap();
    };
    // The operator's tool is of the old version: a new one would be as broken.
    let tool = |machine: &Machine| {
        let environment = [
            "env",
            "DUCKGRES_DATA_DIR=/var/lib/duckgres/control",
            "/opt/duckgres/bin/duckgres.kept",
            "reload",
        ];
        machine.run(&environment)
    };
    for (script, reason) in [
        ("#!/bin/sh\nexit 3\n", "ended before it was ready"),
        ("#!/bin/sh\nkill -SEGV $$\n", "ended before it was ready"),
    ] {
        install(script);
        let failed = tool(&machine);
        assert!(
            !failed.status.success() && failed.err.contains(reason),
            "{failed:?}"
        );
        assert!(!machine.run(&["systemctl", "reload", UNIT]).status.success());
        assert_eq!(machine.main_process(UNIT), process);
        assert_eq!(machine.connect("u1").rows("select 1"), ["1"]);
    }
    fs::rename(&kept, &program).unwrap();
    fs::write(&configuration, format!("{good}\nmax_connections: many\n")).unwrap();
    assert!(!machine.run(&["systemctl", "reload", UNIT]).status.success());
    eventually("the reason is in the journal", || {
        let said = machine.journal(&["--unit", UNIT, "--output=cat"]);
        said.contains("the reload has failed, and the server goes on as before:")
            .then_some(())?;
        said.contains("max_connections: ").then_some(())
    });
    assert_eq!(machine.main_process(UNIT), process);
    assert_eq!(session.rows("select 1"), ["1"]);
    fs::write(&configuration, good).unwrap();
    reload(&machine);
    assert_eq!(session.rows("select 1"), ["1"]);
    assert_eq!(machine.connect("u1").rows("select 1"), ["1"]);
}

fn a_new_process_is_watched_like_the_first(mut machine: Machine) {
    machine.write(
        "systemd/system/duckgres.service.d/test.conf",
        "[Service]\nWatchdogSec=2s\n",
    );
    booted(&mut machine, &[1]);
    drop(machine.connect("u0"));
    let process = reload(&machine);
    let alive = || machine.property(UNIT, "WatchdogTimestampMonotonic");
    for _ in 0..3 {
        let before = alive();
        eventually("it says that it is alive", || (alive() != before).then_some(()));
    }
    assert_eq!(machine.main_process(UNIT), process);
    machine.signal(UNIT, "STOP");
    another_process(&machine, UNIT, process);
    assert_eq!(machine.connect("u0").rows("select 1"), ["1"]);
}

/// The socket that listens on the port of the metrics, by its inode.
fn metrics_listener(machine: &Machine) -> String {
    let table = machine.run(&["cat", "/proc/net/tcp"]).success();
    let line = table
        .lines()
        .find(|line| line.contains("0100007F:2382 00000000:0000 0A"));
    let line = line.unwrap_or_else(|| panic!("nobody listens on port 9090:\n{table}"));
    line.split_whitespace().nth(9).unwrap().to_owned()
}

fn the_listener_for_metrics_outlives_every_process(mut machine: Machine) {
    booted(&mut machine, &[1]);
    drop(machine.connect("u0"));
    let listener = metrics_listener(&machine);
    let process = machine.main_process(UNIT);
    machine.signal(UNIT, "KILL");
    another_process(&machine, UNIT, process);
    assert_eq!(metrics_listener(&machine), listener);
    reload(&machine);
    assert_eq!(metrics_listener(&machine), listener);
    machine.systemctl(&["restart", UNIT]);
    assert_eq!(metrics_listener(&machine), listener);
    // Not wanted any more: systemd closes its copy too.
    let configuration = machine.etc("duckgres/duckgres.yaml");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, format!("{text}\nmetrics:\n  address: off\n")).unwrap();
    reload(&machine);
    eventually("nobody has it", || {
        let table = machine.run(&["cat", "/proc/net/tcp"]).success();
        (!table.contains("0100007F:2382 00000000:0000 0A")).then_some(())
    });
}
