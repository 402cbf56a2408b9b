//! What survives the restart and death of which process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::{Machine, on_each_release};
use crate::support::message::query;
use crate::support::{Session, eventually};

/// Connects again and again and queries in sessions that go on, while `events`
/// happen. All of it must succeed.
pub fn under_load(machine: &Machine, events: impl FnOnce()) {
    let network = machine.network();
    let mut sessions: Vec<Session> = (0..32).map(|i| network.connect(&format!("u{}", i % 4))).collect();
    let (done, connects, statements) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let slowest = thread::scope(|scope| {
        for session in &mut sessions {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(session.rows("select 40 + 2"), ["42"]);
                    statements.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
        let connecting = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert_eq!(network.connect("u0").rows("select 1"), ["1"]);
                slowest = slowest.max(start.elapsed());
                connects.fetch_add(1, Ordering::Relaxed);
            }
            slowest
        });
        let progress = || {
            (
                connects.load(Ordering::Relaxed),
                statements.load(Ordering::Relaxed),
            )
        };
        let more = || {
            let before = progress();
            eventually("the load goes on", || {
                let now = progress();
                (now.0 >= before.0 + 3 && now.1 >= before.1 + 100).then_some(())
            });
        };
        // Also when it fails, or the threads would go on for ever.
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more();
            events();
            more();
        }));
        done.store(true, Ordering::Relaxed);
        let slowest = connecting.join().unwrap();
        happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        slowest
    });
    println!(
        "{} connects, {} statements, slowest connect {slowest:?}",
        connects.into_inner(),
        statements.into_inner()
    );
}

pub fn booted(machine: &mut Machine, workers: &[u32]) {
    let workers: Vec<String> = workers
        .iter()
        .map(|id| format!("duckgres-worker@{id}.socket"))
        .collect();
    let mut units = vec!["duckgres.socket"];
    units.extend(workers.iter().map(String::as_str));
    machine.enable(&units);
    machine.boot();
}

/// The unit has another main process than before, and is active.
#[track_caller]
pub fn another_process(machine: &Machine, unit: &str, before: u32) -> u32 {
    eventually("another process is active", || {
        let process = machine.property(unit, "MainPID").parse().unwrap();
        let active = machine.property(unit, "ActiveState") == "active";
        (active && process != 0 && process != before).then_some(process)
    })
}

on_each_release!(
    a_restart_of_the_control_plane_is_felt_by_nobody,
    a_killed_control_plane_leaves_sessions_and_comes_back,
    a_killed_worker_is_restarted_and_the_other_goes_on,
    a_worker_that_stands_still_is_replaced,
    a_control_plane_that_stands_still_is_replaced,
    the_watchdogs_leave_the_idle_and_the_busy_alone,
    a_worker_that_is_stopped_drains_first,
);

fn a_restart_of_the_control_plane_is_felt_by_nobody(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    let workers = || ["1", "2"].map(|id| machine.main_process(&format!("duckgres-worker@{id}.service")));
    drop(machine.connect("u0"));
    let before = workers();
    under_load(&machine, || {
        for _ in 0..5 {
            machine.systemctl(&["restart", "duckgres.service"]);
        }
        machine.systemctl(&["daemon-reload"]);
        machine.systemctl(&["restart", "duckgres.service"]);
        machine.systemctl(&["daemon-reexec"]);
        machine.systemctl(&["restart", "duckgres.service"]);
    });
    assert_eq!(workers(), before, "the workers were left alone");
}

fn a_killed_control_plane_leaves_sessions_and_comes_back(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let mut session = machine.connect("u0");
    session.execute("create temp table t as select 42 as i");
    let before = machine.main_process("duckgres.service");
    machine.signal("duckgres.service", "KILL");
    assert_eq!(session.rows("select i from t"), ["42"]);
    assert_eq!(machine.connect("u0").rows("select 1"), ["1"]);
    assert_eq!(session.rows("select i from t"), ["42"]);
    another_process(&machine, "duckgres.service", before);
}

fn a_killed_worker_is_restarted_and_the_other_goes_on(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    let mut victim = machine.connect("u0");
    victim.execute("create table t as select 42 as i");
    let mut other = machine.connect("u1");
    other.execute("create temp table t as select 43 as i");
    assert_ne!(victim.worker(), other.worker());
    let unit = format!("duckgres-worker@{}.service", victim.worker());
    let before = machine.main_process(&unit);
    machine.signal(&unit, "KILL");
    assert_eq!(victim.last_words(), [] as [&str; 0]);
    assert_eq!(machine.connect("u0").rows("select i from t"), ["42"]);
    assert_eq!(other.rows("select i from t"), ["43"]);
    another_process(&machine, &unit, before);
}

fn a_worker_that_stands_still_is_replaced(mut machine: Machine) {
    machine.write(
        "systemd/system/duckgres-worker@.service.d/test.conf",
        "[Service]\nWatchdogSec=5s\n",
    );
    booted(&mut machine, &[1]);
    drop(machine.connect("u0"));
    let unit = "duckgres-worker@1.service";
    let before = machine.main_process(unit);
    machine.signal(unit, "STOP");
    another_process(&machine, unit, before);
    assert_eq!(machine.connect("u0").rows("select 1"), ["1"]);
    let said = machine.journal(&["--unit", unit]);
    assert!(
        said.contains("Watchdog timeout") || said.contains("watchdog"),
        "{said}"
    );
}

fn a_control_plane_that_stands_still_is_replaced(mut machine: Machine) {
    machine.write(
        "systemd/system/duckgres.service.d/test.conf",
        "[Service]\nWatchdogSec=5s\n",
    );
    booted(&mut machine, &[1]);
    let mut session = machine.connect("u0");
    let unit = "duckgres.service";
    let before = machine.main_process(unit);
    machine.signal(unit, "STOP");
    another_process(&machine, unit, before);
    assert_eq!(machine.connect("u0").rows("select 1"), ["1"]);
    assert_eq!(session.rows("select 1"), ["1"]);
}

/// Longer than the watchdogs wait, nothing is done in one session, and in others
/// statements run that have no end, more than there are processors.
fn the_watchdogs_leave_the_idle_and_the_busy_alone(mut machine: Machine) {
    for unit in ["duckgres.service", "duckgres-worker@.service"] {
        machine.write(
            &format!("systemd/system/{unit}.d/test.conf"),
            "[Service]\nWatchdogSec=6s\n",
        );
    }
    booted(&mut machine, &[1]);
    let mut idle = machine.connect("u0");
    let busy: Vec<Session> = (0..4)
        .map(|_| {
            let mut session = machine.connect("u0");
            let endless = "from range(10000000) a(i), range(10000000) b(j) where (a.i * b.j) % 7 = 1";
            session.send(&query(&format!("select count(*) {endless}")));
            session
        })
        .collect();
    thread::sleep(Duration::from_secs(9));
    for unit in ["duckgres.service", "duckgres-worker@1.service"] {
        assert_eq!(machine.property(unit, "NRestarts"), "0", "{unit}");
    }
    assert_eq!(idle.rows("select 1"), ["1"]);
    busy.into_iter().for_each(Session::vanish);
}

/// Also if that takes longer than the unit says: the worker asks for more time.
fn a_worker_that_is_stopped_drains_first(mut machine: Machine) {
    machine.write(
        "systemd/system/duckgres-worker@.service.d/test.conf",
        "[Service]\nTimeoutStopSec=2s\n",
    );
    booted(&mut machine, &[1]);
    let mut idle = machine.connect("u0");
    idle.execute("create table t (i int)");
    let mut busy = machine.connect("u0");
    let long = "from range(16000) a(i), range(16000) b(j) where (a.i * b.j) % 7 = 1";
    busy.send(&query(&format!("insert into t select count(*) {long}")));
    let running = "select count(*) from pg_stat_activity where state = 'active' and query like 'insert%'";
    eventually("the statement runs", || {
        (idle.rows(running) == ["1"]).then_some(())
    });
    machine.systemctl(&["stop", "duckgres-worker@1.service"]);
    assert_eq!(idle.last_words(), ["Error FATAL 57P01"]);
    machine.systemctl(&["start", "duckgres-worker@1.service"]);
    // Its statement was finished, and committed.
    assert_eq!(machine.connect("u0").rows("select count(*) from t"), ["1"]);
}
