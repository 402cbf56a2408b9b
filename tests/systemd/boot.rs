//! From boot to shutdown.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::machine::{Machine, on_each_release};
use crate::support::message::{query, startup};
use crate::support::session::V3_0;
use crate::support::transport::Road;
use crate::support::{Session, eventually};

on_each_release!(
    the_examples_do_what_they_say,
    credentials_are_for_root_to_read_and_a_restart_reads_them_anew,
    the_first_connection_after_boot_is_answered,
    status_tells_what_an_operator_wants_to_know,
    a_worker_that_is_enabled_later_is_found,
    users_files_are_kept_apart,
    the_worker_has_no_network_and_the_control_plane_no_databases,
    the_configuration_reaches_workers_that_cannot_read_it,
    the_journal_has_the_fields,
    a_stop_of_the_target_ends_everything_and_a_start_begins_anew,
    a_stop_of_the_target_ends_what_only_its_sockets_have_started,
    a_stop_cuts_statements_that_take_longer_than_was_promised,
    the_running_services_are_exposed_to_little,
);

/// Nothing runs but systemd with its sockets; the first client starts it all.
fn the_first_connection_after_boot_is_answered(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    for unit in ["duckgres.service", "duckgres-worker@1.service"] {
        assert_eq!(machine.property(unit, "ActiveState"), "inactive", "{unit}");
    }
    let mut session = machine.connect("u0");
    session.execute("create table t as select 42 as i");
    assert_eq!(machine.connect_locally("u0").rows("select i from t"), ["42"]);
    assert_eq!(session.rows("select i from t"), ["42"]);
    for unit in ["duckgres.service", "duckgres-worker@1.service"] {
        assert_eq!(machine.property(unit, "ActiveState"), "active", "{unit}");
        assert_eq!(machine.property(unit, "NRestarts"), "0", "{unit}");
    }
}

fn status_tells_what_an_operator_wants_to_know(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    let _sessions = [
        machine.connect("u0"),
        machine.connect("u1"),
        machine.connect("u1"),
    ];
    machine.await_property(
        "duckgres.service",
        "StatusText",
        "1 of 1 worker, 3 sessions in 2 databases",
    );
    machine.await_property(
        "duckgres-worker@1.service",
        "StatusText",
        "3 sessions, 2 databases open",
    );
    let shown = machine.run(&["systemctl", "status", "duckgres.service"]).out;
    assert!(shown.contains("3 sessions in 2 databases"), "{shown}");
    // Nobody has to know where its data directory is.
    let asked = machine.run(&["duckgres", "status"]).success();
    assert!(asked.contains("ready"), "{asked}");
    // Its workers are not its own to restart.
    let refused = machine.run(&["duckgres", "restart-workers"]);
    assert!(!refused.status.success());
    let command = "systemctl restart 'duckgres-worker@*.service'";
    assert!(refused.err.contains(command), "{refused:?}");
}

fn a_worker_that_is_enabled_later_is_found(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    let first = machine.connect("u0");
    assert_eq!(first.worker(), 1);
    machine.systemctl(&["enable", "--now", "duckgres-worker@4.socket"]);
    // It is started by being looked at.
    machine.await_property("duckgres-worker@4.service", "ActiveState", "active");
    machine.await_property(
        "duckgres.service",
        "StatusText",
        "2 of 2 workers, 1 session in 1 database",
    );
    assert_eq!(machine.connect("u1").worker(), 4);
    // And one that is taken away is not counted on.
    machine.systemctl(&["disable", "--now", "duckgres-worker@4.socket"]);
    machine.await_property(
        "duckgres.service",
        "StatusText",
        "1 of 1 worker, 1 session in 1 database",
    );
    assert_eq!(machine.connect("u1").worker(), 1);
}

fn users_files_are_kept_apart(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    drop(machine.connect("u0"));
    let (control, worker) = (machine.uid("duckgres"), machine.uid("duckgres-worker"));
    // As the worker's user, and in the very namespaces of the worker.
    let process = machine.main_process("duckgres-worker@1.service").to_string();
    let secrets = [
        "/etc/duckgres",
        "/etc/duckgres/duckgres.yaml",
        "/etc/duckgres/server.key",
        "/var/lib/duckgres/control",
        "/var/lib/duckgres/control/auth.secret",
    ];
    for path in secrets {
        let inside = machine.run(&["nsenter", "--target", &process, "--mount", "cat", path]);
        assert!(
            !inside.status.success(),
            "{path} in the worker's namespace: {inside:?}"
        );
        let read = machine.run(&[
            "setpriv",
            "--reuid",
            &worker.to_string(),
            "--regid",
            &worker.to_string(),
            "--clear-groups",
            "cat",
            path,
        ]);
        assert!(
            !read.status.success() && read.err.contains("Permission denied"),
            "{path}: {read:?}"
        );
    }
    // They are there: the control plane reads them.
    for path in &secrets[1..] {
        if path.ends_with("control") {
            continue;
        }
        machine
            .run(&[
                "setpriv",
                "--reuid",
                &control.to_string(),
                "--regid",
                &control.to_string(),
                "--clear-groups",
                "cat",
                path,
            ])
            .success();
    }
    let databases = machine.run(&[
        "setpriv",
        "--reuid",
        &control.to_string(),
        "--regid",
        &control.to_string(),
        "--clear-groups",
        "ls",
        "/var/lib/duckgres/data",
    ]);
    assert!(!databases.status.success(), "{databases:?}");
    // Nobody else hands sessions over.
    let sockets = machine.run(&[
        "setpriv",
        "--reuid",
        &worker.to_string(),
        "--regid",
        &worker.to_string(),
        "--clear-groups",
        "test",
        "-w",
        "/run/duckgres/worker/1/rpc.sock",
    ]);
    assert!(!sockets.status.success(), "{sockets:?}");
}

fn the_worker_has_no_network_and_the_control_plane_no_databases(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    drop(machine.connect("u0"));
    let process = machine.main_process("duckgres-worker@1.service").to_string();
    assert!(!machine.same_network("1", &process));
}

fn the_configuration_reaches_workers_that_cannot_read_it(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    let yaml = machine.etc("duckgres/duckgres.yaml");
    let text = std::fs::read_to_string(&yaml).unwrap()
        + "file_access: [/usr/share]\nquery_log: errors\nthreads: 1\nstatement_timeout: 77s\n";
    std::fs::write(&yaml, text).unwrap();
    machine.boot();
    let mut session = machine.connect("u0");
    assert_eq!(
        session.rows("select count(*) > 0 from read_text('/usr/share/common-licenses/GPL-3')"),
        ["t"]
    );
    assert_eq!(session.rows("select current_setting('threads')"), ["1"]);
    assert_eq!(session.rows("show statement_timeout"), ["77s"]);
    assert_eq!(session.error("select nowhere").field('C'), "42703");
    eventually("the failed statement is logged", || {
        let journal = machine.journal(&["DUCKGRES_SQLSTATE=42703", "--output=verbose"]);
        [
            "DUCKGRES_USER=u0",
            "DUCKGRES_DATABASE=u0",
            "_SYSTEMD_UNIT=duckgres-worker@1.service",
            "_COMM=duckgres-worker",
        ]
        .iter()
        .all(|field| journal.contains(field))
        .then_some(())
    });
}

fn the_journal_has_the_fields(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    drop(machine.connect("u3"));
    eventually("the login is in the journal", || {
        let journal = machine.journal(&["DUCKGRES_USER=u3", "--output=verbose"]);
        [
            "MESSAGE=connected",
            "DUCKGRES_DATABASE=u3",
            "DUCKGRES_BACKEND_ID=",
            "PRIORITY=",
            "_SYSTEMD_UNIT=duckgres.service",
        ]
        .iter()
        .all(|field| journal.contains(field))
        .then_some(())
    });
}

fn a_stop_of_the_target_ends_everything_and_a_start_begins_anew(mut machine: Machine) {
    machine.enable(&[
        "duckgres.target",
        "duckgres.service",
        "duckgres-worker@1.service",
        "duckgres-worker@2.service",
    ]);
    machine.boot();
    let units = [
        "duckgres.service",
        "duckgres.socket",
        "duckgres-worker@1.service",
        "duckgres-worker@1.socket",
        "duckgres-worker@2.service",
        "duckgres-worker@2.socket",
    ];
    for round in 0..2 {
        for unit in units {
            machine.await_property(unit, "ActiveState", "active");
        }
        let mut idle = machine.connect("u0");
        let mut busy = machine.connect("u1");
        assert_eq!(idle.rows("select 1"), ["1"]);
        busy.execute("create or replace table t as select 1 as i");
        machine.systemctl(&["stop", "duckgres.target"]);
        assert_eq!(idle.last_words(), ["Error FATAL 57P01"], "round {round}");
        assert_eq!(busy.last_words(), ["Error FATAL 57P01"], "round {round}");
        // The stop has waited for all of them.
        for unit in units {
            assert_eq!(machine.property(unit, "ActiveState"), "inactive", "{unit}");
            assert_eq!(machine.property(unit, "Result"), "success", "{unit}");
        }
        let left = machine.run(&["find", "/run/duckgres", "-type", "s"]).success();
        assert_eq!(left, "", "no socket is left");
        assert!(machine.network().tcp().is_err(), "nobody listens");
        machine.systemctl(&["start", "duckgres.target"]);
    }
    assert_eq!(machine.connect("u1").rows("select i from t"), ["1"]);
}

/// Each drop-in goes where its first line says.
fn the_examples_do_what_they_say(mut machine: Machine) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/examples");
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        // This one has a test of its own.
        if path.ends_with("credentials.conf") {
            continue;
        }
        if let Some(place) = text.strip_prefix("# /etc/") {
            machine.write(place.split([',', '\n']).next().unwrap(), &text);
        }
    }
    fs::create_dir(machine.etc("exports")).unwrap();
    // The directory of the example does not exist in a machine.
    let files = "systemd/system/duckgres-worker@.service.d/files.conf";
    let text = fs::read_to_string(machine.etc(files)).unwrap();
    machine.write(files, &text.replace("/srv/exports", "/etc/exports"));
    let uid = machine.uid("duckgres-worker");
    chown(machine.etc("exports"), Some(uid), None).unwrap();
    let yaml = machine.etc("duckgres/duckgres.yaml");
    let text = fs::read_to_string(&yaml).unwrap()
        + "file_access: [/etc/exports]\nquery_log: all\nquery_log_file: /var/log/duckgres/queries\n";
    fs::write(yaml, text).unwrap();
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();

    // Every address, and so TLS is required.
    let listening = machine.property("duckgres.socket", "Listen");
    assert!(
        listening.contains("0.0.0.0:5432") && listening.contains("[::]:5432"),
        "{listening}"
    );
    let mut plain = Session::on(Road::Tcp(machine.network().tcp().unwrap()));
    plain.send(&startup(V3_0, &[("user", "u0"), ("database", "u0")]));
    assert_eq!(plain.last_words(), ["Error FATAL 28000"]);

    let mut session = machine.connect("u0");
    session.execute("copy (select 42 as a) to '/etc/exports/a.csv'");
    assert_eq!(session.rows("select a from '/etc/exports/a.csv'"), ["42"]);
    let unit = "duckgres-worker@1.service";
    assert_eq!(machine.property(unit, "MemoryMax"), (8_u64 << 30).to_string());
    let process = machine.main_process(unit).to_string();
    assert!(
        machine.same_network("1", &process),
        "it has the machine's network"
    );
    // Where a worker may write its query log without any drop-in.
    eventually("the query log is written", || {
        let log = fs::read_to_string(machine.path("/var/log/duckgres/queries")).ok()?;
        log.contains("\"user\":\"u0\"").then_some(())
    });
}

fn a_stop_of_the_target_ends_what_only_its_sockets_have_started(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    let mut session = machine.connect("u0");
    machine.systemctl(&["stop", "duckgres.target"]);
    assert_eq!(session.last_words(), ["Error FATAL 57P01"]);
    for unit in [
        "duckgres.service",
        "duckgres.socket",
        "duckgres-worker@1.service",
        "duckgres-worker@1.socket",
    ] {
        machine.await_property(unit, "ActiveState", "inactive");
    }
}

fn credentials_are_for_root_to_read_and_a_restart_reads_them_anew(mut machine: Machine) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/examples/credentials.conf");
    let example = fs::read_to_string(example).unwrap();
    machine.write("systemd/system/duckgres.service.d/credentials.conf", &example);
    let secret = machine.etc("duckgres/secret");
    fs::create_dir(&secret).unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o700)).unwrap();
    for name in ["server.crt", "server.key"] {
        let from = machine.etc("duckgres").join(name);
        fs::copy(&from, secret.join(name)).unwrap();
        chown(secret.join(name), Some(0), Some(0)).unwrap();
    }
    fs::remove_file(machine.etc("duckgres/server.key")).unwrap();
    machine.write("duckgres/secret/users.yaml", "u0: not-a-secret\n");
    machine.write("duckgres/duckgres.yaml", "log_level: info\n");
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    let mut session = machine.connect("u0");
    assert_eq!(session.rows("select 1"), ["1"]);

    machine.write("duckgres/secret/users.yaml", "u1: not-a-secret\n");
    drop(machine.connect("u0"));
    machine.systemctl(&["restart", "duckgres.service"]);
    drop(machine.connect("u1"));
    assert_eq!(session.rows("select 1"), ["1"]);
}

fn a_stop_cuts_statements_that_take_longer_than_was_promised(mut machine: Machine) {
    let yaml = machine.etc("duckgres/duckgres.yaml");
    let text = fs::read_to_string(&yaml).unwrap() + "shutdown_timeout: 1s\n";
    fs::write(&yaml, text).unwrap();
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    let mut busy = machine.connect("u0");
    let mut other = machine.connect("u0");
    busy.send(&query(
        "select count(*) from range(10000000) a(i), range(10000000) b(j) where (a.i * b.j) % 7 = 1",
    ));
    let running = "select count(*) from pg_stat_activity where state = 'active' and query like '%range%'";
    eventually("the statement runs", || {
        // Itself, and the other.
        (other.rows(running) == ["2"]).then_some(())
    });
    machine.systemctl(&["stop", "duckgres.target"]);
    let last = busy.last_words();
    assert!(
        last.last().is_some_and(|word| word == "Error FATAL 57P01"),
        "{last:?}"
    );
    let unit = "duckgres-worker@1.service";
    assert_eq!(machine.property(unit, "Result"), "success");
    assert_eq!(machine.property(unit, "ActiveState"), "inactive");
}

/// As this release's systemd sees them, which may know more settings.
fn the_running_services_are_exposed_to_little(mut machine: Machine) {
    machine.enable(&["duckgres.socket", "duckgres-worker@1.socket"]);
    machine.boot();
    drop(machine.connect("u0"));
    for (unit, tenths) in [("duckgres.service", "15"), ("duckgres-worker@1.service", "10")] {
        let threshold = format!("--threshold={tenths}");
        let output = machine.run(&["systemd-analyze", "security", "--no-pager", &threshold, unit]);
        println!("{}", output.out.lines().last().unwrap_or_default());
        assert!(output.status.success(), "{unit}:\n{}", output.out);
        let verify = machine.run(&["systemd-analyze", "verify", "--man=no", unit]);
        let ours: Vec<&str> = verify
            .err
            .lines()
            .filter(|line| line.contains("duckgres"))
            .collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
}
