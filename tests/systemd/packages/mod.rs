//! Installed, upgraded and removed as an operator does it, on a Debian without duckgres.
//!
//! rpm is Debian's own program, on Debian: what the package requires is waived there
//! (`--nodeps`); its files and scripts are what is tested.

mod deb;
pub mod made;
mod rpm;

use std::fs;
use std::path::Path;

use crate::lives::{another_process, under_load};
use crate::machine::Machine;
use crate::support::eventually;
use crate::support::programs::Output;

const UNIT: &str = "duckgres.service";
const BINARY: &str = "/usr/bin/duckgres";

fn worker(id: u32) -> String {
    format!("duckgres-worker@{id}.service")
}

/// Has a package manager of the machine take a file of the host.
#[track_caller]
fn install(machine: &Machine, package: &Path, words: &[&str]) -> Output {
    let inside = format!("/root/{}", package.file_name().unwrap().to_str().unwrap());
    fs::copy(package, machine.path(&inside)).unwrap();
    let output = machine.run(&[words, &[inside.as_str()]].concat());
    fs::remove_file(machine.path(&inside)).unwrap();
    assert!(output.status.success(), "{output:#?}");
    output
}

/// What an installation alone has to give: users, doors on this machine only, a
/// certificate, and an administrator without a password.
#[track_caller]
fn assert_serves_its_administrator(machine: &Machine) {
    let ask = ["--no-psqlrc", "--no-align", "--tuples-only", "--command"];
    let question = "select usename, 40 + 2 from pg_stat_activity where pid = pg_backend_pid()";
    let root = [&["duckgres", "psql"], &ask[..], &[question]].concat();
    assert_eq!(machine.run(&root).success(), "duckgres|42\n");
    let user = [
        &[
            "runuser",
            "--user",
            "duckgres",
            "--",
            "psql",
            "--host",
            "/run/duckgres",
        ],
        &ask[..],
        &[question],
    ]
    .concat();
    assert_eq!(machine.run(&user).success(), "duckgres|42\n");
    for unit in ["duckgres.target", "duckgres.socket", UNIT, &worker(1)] {
        assert_eq!(machine.property(unit, "ActiveState"), "active", "{unit}");
        assert_eq!(machine.property(unit, "UnitFileState"), "enabled", "{unit}");
    }
    let doors = machine.property("duckgres.socket", "Listen");
    let mut doors: Vec<&str> = doors.lines().collect();
    doors.sort_unstable();
    assert_eq!(
        doors,
        [
            "/run/duckgres/.s.PGSQL.5432 (Stream)",
            "127.0.0.1:5432 (Stream)",
            "[::1]:5432 (Stream)"
        ]
    );
    machine
        .run(&["test", "-s", "/var/lib/duckgres/control/server.crt"])
        .success();
    let modes = [
        "stat",
        "--format=%a %U %G %n",
        "/etc/duckgres",
        "/etc/duckgres/duckgres.yaml",
    ];
    assert_eq!(
        machine.run(&modes).success(),
        "750 root duckgres /etc/duckgres\n640 root duckgres /etc/duckgres/duckgres.yaml\n"
    );
}

/// Ten users, three workers, and a table that must never be lost.
#[track_caller]
fn settle(machine: &Machine) {
    let text = fs::read_to_string(machine.etc("duckgres/duckgres.yaml")).unwrap();
    machine.configure(&text);
    machine.systemctl(&["reload", UNIT]);
    machine.systemctl(&["enable", "--now", &worker(2), &worker(3)]);
    machine.await_property(UNIT, "StatusText", "3 of 3 workers, 0 sessions in 0 databases");
    let mut session = machine.connect("u0");
    session.execute("create table kept as select 42 as i");
}

/// The processes of control plane and workers, and which start of the unit it is.
#[derive(Debug, PartialEq)]
struct Processes {
    control: u32,
    workers: [u32; 3],
    start: String,
}

impl Processes {
    #[track_caller]
    fn of(machine: &Machine) -> Processes {
        Processes {
            control: machine.main_process(UNIT),
            workers: [1, 2, 3].map(|id| machine.main_process(&worker(id))),
            start: machine.property(UNIT, "InvocationID"),
        }
    }

    /// All of them are others than before, and of the program that is there now.
    #[track_caller]
    fn replaced(machine: &Machine, before: &Processes) -> Processes {
        for (id, process) in (1..).zip(before.workers) {
            another_process(machine, &worker(id), process);
        }
        let after = Processes::of(machine);
        assert_ne!(after.control, before.control);
        let program = machine.run(&["readlink", &format!("/proc/{}/exe", after.control)]);
        assert_eq!(program.success().trim(), BINARY);
        after
    }
}

/// Says that it does not start, and is right.
#[track_caller]
fn assert_the_old_one_goes_on(machine: &Machine, said: &Output, before: &Processes) {
    assert!(
        said.err
            .contains("THE NEW VERSION DOES NOT START. The old one goes on"),
        "{said:#?}"
    );
    assert_eq!(&Processes::of(machine), before);
}

/// Nothing runs, nobody listens, no unit and no program is there; the databases are.
#[track_caller]
fn assert_gone(machine: &Machine) {
    eventually("no process is left", || {
        let users = "duckgres,duckgres-worker";
        let left = machine.run(&["sh", "-c", &format!("! ps -o comm= -u {users}")]);
        left.status.success().then_some(())
    });
    assert!(machine.network().tcp().is_err(), "nobody listens");
    for path in [
        BINARY,
        "/usr/lib/duckgres",
        "/usr/lib/systemd/system/duckgres.service",
    ] {
        assert!(!machine.succeeds(&["test", "-e", path]), "{path}");
    }
    assert_eq!(machine.property(UNIT, "LoadState"), "not-found");
    machine
        .run(&["test", "-s", "/var/lib/duckgres/data/u0.duckdb"])
        .success();
}

/// To the next versions and back, under load: no connect fails, no session ends, no
/// statement fails. Broken versions do not change that.
#[track_caller]
fn upgraded(machine: &Machine, packages: &made::Packages, install: &dyn Fn(&Path) -> Output) {
    let configuration = fs::read(machine.etc("duckgres/duckgres.yaml")).unwrap();
    let mut before = Processes::of(machine);
    under_load(machine, || {
        // With another unit file: it takes a restart to have that in effect.
        install(&packages.next);
        let after = Processes::replaced(machine, &before);
        assert_ne!(after.start, before.start, "it was restarted");
        let environment = fs::read_to_string(machine.path(&format!("/proc/{}/environ", after.control)));
        assert!(environment.unwrap().contains(made::NEW_IN_THE_UNIT));
        // With the same one: a reload.
        install(&packages.third);
        before = Processes::replaced(machine, &after);
        assert_eq!(before.start, after.start, "it was reloaded");
        for broken in [&packages.broken, &packages.broken_worker] {
            let said = install(broken);
            assert_the_old_one_goes_on(machine, &said, &before);
        }
        // And back.
        install(&packages.first);
        let after = Processes::replaced(machine, &before);
        let environment = fs::read_to_string(machine.path(&format!("/proc/{}/environ", after.control)));
        assert!(!environment.unwrap().contains(made::NEW_IN_THE_UNIT));
    });
    assert_eq!(
        fs::read(machine.etc("duckgres/duckgres.yaml")).unwrap(),
        configuration
    );
    let status = machine.run(&["duckgres", "status"]).success();
    assert!(status.contains("ready"), "{status}");
}
