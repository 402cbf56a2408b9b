//! Sessions that cannot go on in another process yet, and the others meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lives::{another_process, booted};
use crate::machine::{Machine, Release, on_each_release};
use crate::support::message::query;
use crate::support::{Answer, eventually};
use crate::survival::{BUSY, Marked, crowd, quantiles, unit};

on_each_release!(
    a_long_transaction_and_a_long_statement_hold_up_nobody_and_finish,
    who_cannot_be_taken_along_is_told_so_in_the_end,
);

/// A worker's STATUS= begins with this.
#[track_caller]
fn says(machine: &Machine, id: u32, what: &str) {
    eventually(&format!("it says {what:?}"), || {
        machine
            .property(&unit(id), "StatusText")
            .contains(what)
            .then_some(())
    });
}

fn a_long_transaction_and_a_long_statement_hold_up_nobody_and_finish(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let mut in_transaction = machine.connect("u0");
    in_transaction.execute("create table t (i int)");
    in_transaction.execute("begin");
    in_transaction.execute("insert into t values (1)");
    let mut busy = machine.connect("u1");
    busy.send(&query(&format!("select count(*) {BUSY}")));
    let mut other = Marked::new(machine.connect("u0"), 7);
    let before = machine.main_process(&unit(1));
    machine.systemctl(&["restart", "--no-block", &unit(1)]);
    says(&machine, 1, "in a transaction");
    let began = Instant::now();
    for _ in 0..200 {
        other.check();
    }
    println!("200 checks meanwhile took {:?}", began.elapsed());
    assert_eq!(machine.main_process(&unit(1)), before);
    let answer = busy.transcript();
    assert!(
        answer.iter().any(|line| line.starts_with("DataRow")),
        "{answer:?}"
    );
    other.check();
    assert_eq!(
        machine.main_process(&unit(1)),
        before,
        "there is the transaction still"
    );
    in_transaction.execute("insert into t values (2)");
    in_transaction.execute("commit");
    another_process(&machine, &unit(1), before);
    other.check();
    assert_eq!(in_transaction.rows("select count(*) from t"), ["2"]);
    assert_eq!(busy.rows("select 1"), ["1"]);
    println!("{}", quantiles(other.pauses));
}

/// Thirty seconds and twenty, which are the clients' own: each does something every
/// second.
#[test]
fn a_transaction_of_thirty_seconds_and_a_query_of_twenty_finish_and_nobody_waits_for_them() {
    const SECOND: Duration = Duration::from_secs(1);
    let Some(mut machine) = Machine::stage(Release::Trixie) else {
        return;
    };
    booted(&mut machine, &[1]);
    let network = machine.network();
    let mut in_transaction = network.connect("u0");
    in_transaction.execute("create table t (i int)");
    in_transaction.execute("begin");
    in_transaction.execute("insert into t values (0)");
    let mut querying = network.connect_over(None, "u1");
    querying.send(&query("select repeat('x', 1000) from range(200000)"));
    let mut others = crowd(&network, 6, 2);
    let before = machine.main_process(&unit(1));
    machine.systemctl(&["restart", "--no-block", &unit(1)]);
    says(&machine, 1, "1 in a transaction, 1 running a statement");
    let checks = AtomicUsize::new(0);
    let queried = AtomicBool::new(false);
    thread::scope(|scope| {
        let (machine, checks, queried) = (&machine, &checks, &queried);
        let ends = scope.spawn(move || {
            for number in 1..30 {
                let checked = checks.load(Ordering::Relaxed);
                thread::sleep(SECOND);
                in_transaction.execute(&format!("insert into t values ({number})"));
                eventually("others go on", || {
                    (checks.load(Ordering::Relaxed) > checked).then_some(())
                });
            }
            eventually("the query is over", || {
                queried.load(Ordering::Relaxed).then_some(())
            });
            assert_eq!(machine.main_process(&unit(1)), before);
            in_transaction.execute("commit");
            in_transaction
        });
        let queries = scope.spawn(move || {
            let mut rows = 0;
            loop {
                match querying.next_or_end().expect("an answer") {
                    Answer::DataRow(_) => rows += 1,
                    Answer::ReadyForQuery(_) => break,
                    _ => continue,
                }
                if rows % 10_000 == 0 {
                    thread::sleep(SECOND);
                }
            }
            assert_eq!(rows, 200_000);
            assert_eq!(
                machine.main_process(&unit(1)),
                before,
                "there is the transaction still"
            );
            queried.store(true, Ordering::Relaxed);
            querying
        });
        while !ends.is_finished() {
            others.iter_mut().for_each(Marked::check);
            checks.fetch_add(1, Ordering::Relaxed);
        }
        another_process(machine, &unit(1), before);
        others.iter_mut().for_each(Marked::check);
        let rows = ends.join().unwrap().rows("select count(*) from t");
        assert_eq!(rows, ["30"]);
        assert_eq!(queries.join().unwrap().rows("select 1"), ["1"]);
    });
    println!(
        "{}",
        quantiles(others.into_iter().flat_map(|one| one.pauses).collect())
    );
}

fn who_cannot_be_taken_along_is_told_so_in_the_end(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let yaml = machine.etc("duckgres/duckgres.yaml");
    let text = std::fs::read_to_string(&yaml).unwrap();
    std::fs::write(&yaml, format!("{text}drain_timeout: 4s\n")).unwrap();
    machine.systemctl(&["reload-or-restart", "duckgres.service"]);
    let mut bound = machine.connect("u0");
    bound.execute("create temp table t (i int, j int generated always as (i)); insert into t values (1)");
    let mut in_transaction = machine.connect("u0");
    in_transaction.execute("begin");
    let mut other = Marked::new(machine.connect("u0"), 7);
    let before = machine.main_process(&unit(1));
    machine.systemctl(&["restart", "--no-block", &unit(1)]);
    says(&machine, 1, "1 with temporary tables");
    other.check();
    assert_eq!(bound.rows("select i from t"), ["1"]);
    assert_eq!(bound.last_words(), ["Error FATAL 57P01"]);
    assert_eq!(in_transaction.last_words(), ["Error FATAL 57P01"]);
    another_process(&machine, &unit(1), before);
    other.check();
}
