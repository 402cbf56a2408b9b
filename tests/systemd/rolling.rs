//! `systemctl restart 'duckgres-worker@*'`: one worker after the other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lives::{another_process, booted};
use crate::machine::{Machine, on_each_release};
use crate::support::eventually;

const ALL: &str = "duckgres-worker@*";
const LOCK: &str = "/run/duckgres/turn";
const WORKERS: [u32; 3] = [1, 2, 3];

on_each_release!(
    a_rolling_restart_takes_one_worker_at_a_time,
    workers_serve_until_it_is_their_turn,
    clients_connect_all_the_time,
    a_broken_version_stops_the_roll_at_the_first_worker,
    a_stop_waits_for_no_turn,
    nobody_waits_for_a_holder_that_is_stopped,
    nobody_waits_for_one_that_is_killed_while_it_waits,
    a_single_worker_needs_no_turn,
);

fn unit(id: u32) -> String {
    format!("duckgres-worker@{id}.service")
}

fn processes(machine: &Machine) -> [u32; 3] {
    WORKERS.map(|id| machine.main_process(&unit(id)))
}

/// Three workers, each with a database and running.
fn three(machine: &mut Machine) -> [u32; 3] {
    booted(machine, &WORKERS);
    let users = ["u0", "u1", "u2"];
    let sessions = users.map(|user| machine.connect(user));
    let mut workers: Vec<u32> = sessions.iter().map(|session| session.worker()).collect();
    workers.sort_unstable();
    assert_eq!(workers, WORKERS);
    processes(machine)
}

/// When each worker was not ready, by what systemd has noted.
fn absences(machine: &Machine) -> Vec<(u64, u64)> {
    let mut absences: Vec<(u64, u64)> = WORKERS
        .iter()
        .map(|id| {
            let noted = |property| machine.property(&unit(*id), property).parse().unwrap();
            // Between the old process's end and the new one's READY=1.
            (
                noted("InactiveEnterTimestampMonotonic"),
                noted("ActiveEnterTimestampMonotonic"),
            )
        })
        .collect();
    absences.sort_unstable();
    absences
}

fn a_rolling_restart_takes_one_worker_at_a_time(mut machine: Machine) {
    let mut before = three(&mut machine);
    for _ in 0..3 {
        machine.systemctl(&["restart", ALL]);
        let after = processes(&machine);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after));
        before = after;
        let absences = absences(&machine);
        for pair in absences.windows(2) {
            let [(_, back), (gone, _)] = pair else {
                unreachable!()
            };
            assert!(back <= gone, "two were away together: {absences:?}");
        }
        for user in ["u0", "u1", "u2"] {
            assert_eq!(machine.connect(user).rows("select 1"), ["1"]);
        }
    }
}

fn workers_serve_until_it_is_their_turn(mut machine: Machine) {
    let before = three(&mut machine);
    let mut sessions: BTreeMap<u32, _> = ["u0", "u1", "u2"]
        .map(|user| machine.connect(user))
        .map(|session| (session.worker(), session))
        .into();
    // In a transaction, the first one holds up the others.
    let mut busy = machine.connect("u0");
    let first = busy.worker();
    busy.execute("begin");
    machine.systemctl(&["restart", "--no-block", &unit(first)]);
    eventually("it waits for the transaction", || {
        let status = machine.property(&unit(first), "StatusText");
        status.contains("1 in a transaction").then_some(())
    });
    machine.systemctl(&["restart", "--no-block", ALL]);
    let others = || WORKERS.iter().filter(|id| **id != first);
    others().for_each(|id| waits(&machine, *id));
    for session in sessions.values_mut() {
        assert_eq!(session.rows("select 40 + 2"), ["42"]);
    }
    assert_eq!(processes(&machine), before, "all of them have served");
    busy.execute("commit");
    for id in WORKERS {
        another_process(&machine, &unit(id), before[id as usize - 1]);
    }
    for session in sessions.values_mut() {
        assert_eq!(session.rows("select 40 + 2"), ["42"]);
    }
    assert_eq!(busy.rows("select 40 + 2"), ["42"]);
}

/// To every database, whichever worker has it and is on its way.
fn clients_connect_all_the_time(mut machine: Machine) {
    three(&mut machine);
    let network = machine.network();
    let done = AtomicBool::new(false);
    let connects = thread::scope(|scope| {
        let clients = ["u0", "u1", "u2"].map(|user| {
            let (network, done) = (&network, &done);
            scope.spawn(move || {
                let (mut connects, mut slowest) = (0, Duration::ZERO);
                while !done.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    // The session itself may be one that ends with its worker.
                    drop(network.connect(user));
                    slowest = slowest.max(start.elapsed());
                    connects += 1;
                }
                (connects, slowest)
            })
        });
        for _ in 0..3 {
            machine.systemctl(&["restart", ALL]);
        }
        done.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap())
    });
    println!("connects and the slowest: {connects:?}");
    assert!(connects.iter().all(|(connects, _)| *connects > 0));
}

fn a_broken_version_stops_the_roll_at_the_first_worker(mut machine: Machine) {
    let before = three(&mut machine);
    machine.replace_program("duckgres-worker", "#!/bin/sh\nexit 3\n");
    machine.systemctl(&["restart", "--no-block", ALL]);
    let failing = eventually("one fails, again and again", || {
        WORKERS
            .into_iter()
            .find(|id| machine.property(&unit(*id), "NRestarts").parse::<u32>().unwrap() >= 3)
    });
    let others: Vec<usize> = (0..3).filter(|index| WORKERS[*index] != failing).collect();
    for index in &others {
        assert_eq!(machine.main_process(&unit(WORKERS[*index])), before[*index]);
    }
    machine.restore_program("duckgres-worker");
    for id in WORKERS {
        another_process(&machine, &unit(id), before[id as usize - 1]);
    }
}

fn a_stop_waits_for_no_turn(mut machine: Machine) {
    three(&mut machine);
    hold_the_turn(&machine);
    machine.systemctl(&["restart", "--no-block", &unit(1)]);
    waits(&machine, 1);
    // Also one that waits already.
    machine.systemctl(&["stop", &unit(1), &unit(2)]);
    machine.systemctl(&["stop", "duckgres.target", &unit(3)]);
    for id in WORKERS {
        assert_eq!(machine.property(&unit(id), "ActiveState"), "inactive");
    }
}

fn is_free(machine: &Machine) -> bool {
    machine.succeeds(&["flock", "--nonblock", LOCK, "true"])
}

/// Somebody has the turn and does not give it on.
fn hold_the_turn(machine: &Machine) {
    let holder = [
        "systemd-run",
        "--unit=holder",
        "--collect",
        "flock",
        LOCK,
        "sleep",
        "infinity",
    ];
    machine.run(&holder).success();
    eventually("the turn is held", || (!is_free(machine)).then_some(()));
}

fn waits(machine: &Machine, id: u32) {
    eventually("it waits", || {
        let status = machine.property(&unit(id), "StatusText");
        status.starts_with("waiting for its turn").then_some(())
    });
}

fn nobody_waits_for_a_holder_that_is_stopped(mut machine: Machine) {
    let before = three(&mut machine);
    hold_the_turn(&machine);
    machine.systemctl(&["restart", "--no-block", ALL]);
    WORKERS.iter().for_each(|id| waits(&machine, *id));
    assert_eq!(processes(&machine), before);
    eventually("the control plane tells of it", || {
        let status = machine.property("duckgres.service", "StatusText");
        status
            .starts_with("restarting them one by one, 3 to go; 3 of 3 workers")
            .then_some(())
    });
    machine.systemctl(&["stop", "holder.service"]);
    for id in WORKERS {
        another_process(&machine, &unit(id), before[id as usize - 1]);
    }
}

fn nobody_waits_for_one_that_is_killed_while_it_waits(mut machine: Machine) {
    let before = three(&mut machine);
    hold_the_turn(&machine);
    machine.systemctl(&["restart", "--no-block", &unit(1)]);
    waits(&machine, 1);
    machine.signal(&unit(1), "KILL");
    another_process(&machine, &unit(1), before[0]);
    machine.systemctl(&["stop", "holder.service"]);
    machine.systemctl(&["restart", ALL]);
    let after = processes(&machine);
    assert!(before.iter().zip(after).all(|(before, after)| *before != after));
}

fn a_single_worker_needs_no_turn(mut machine: Machine) {
    booted(&mut machine, &[1]);
    drop(machine.connect("u0"));
    let before = machine.main_process(&unit(1));
    machine.systemctl(&["restart", ALL]);
    assert_ne!(machine.main_process(&unit(1)), before);
    // It was given back.
    eventually("the turn is free", || is_free(&machine).then_some(()));
}
