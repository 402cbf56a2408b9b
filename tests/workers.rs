//! Several workers behind one front door: who serves which database, and what
//! survives whose death.

use std::collections::HashSet;
use std::fs;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use duckgres::engine::{Instance, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::message::*;
use crate::support::processes::is_running;
use crate::support::programs::status;
use crate::support::server::limit_files;
use crate::support::session::V3_0;
use crate::support::tracer::{Frozen, thread_of};
use crate::support::transport::Road;
use crate::support::{Answer, Server, Session, Transport, eventually};

/// Rows without end, so that the first of them shows that the query runs.
const ENDLESS_ROWS: &str =
    "select a.i as a from generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(j)";

/// A server with so many workers; `None` when the tests are run against PostgreSQL.
fn server(workers: u32, arguments: &[&str]) -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's workers");
        return None;
    }
    Some(Server::with_workers(workers, arguments))
}

fn signal(process: u32, signal: Signal) {
    kill(Pid::from_raw(process.try_into().unwrap()), signal).unwrap();
}

fn user(i: usize) -> String {
    format!("u{i}")
}

#[test]
fn databases_are_spread_and_all_sessions_of_one_share_a_process() {
    let Some(server) = server(4, &[]) else { return };
    let first: Vec<Session> = (0..4)
        .map(|i| Session::of(&server, &user(i), Transport::Tcp))
        .collect();
    let workers: HashSet<u32> = first.iter().map(Session::worker).collect();
    assert_eq!(
        workers,
        HashSet::from([1, 2, 3, 4]),
        "each has a worker to itself"
    );
    for (i, session) in first.iter().enumerate() {
        for transport in Transport::ALL {
            let again = Session::of(&server, &user(i), transport);
            assert_eq!(again.worker(), session.worker(), "{transport:?}");
        }
    }
    let processes: HashSet<u32> = workers.iter().map(|id| server.worker_process(*id)).collect();
    assert_eq!(processes.len(), 4);
    let family = server.processes();
    for (id, process) in workers.iter().map(|id| (id, server.worker_process(*id))) {
        assert!(family.contains(&process));
        let arguments = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap();
        assert!(arguments.contains(&format!("--id={id}\0")), "{arguments}");
    }
}

#[test]
fn a_hundred_first_connections_at_once_get_the_same_worker() {
    let Some(server) = server(4, &[]) else { return };
    let start = Barrier::new(100);
    let workers: HashSet<u32> = thread::scope(|scope| {
        let connect = || {
            start.wait();
            let mut session = Session::of(&server, "u0", Transport::Tcp);
            assert_eq!(session.rows("select 1 as a"), ["1"]);
            session.worker()
        };
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(connect)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(workers.len(), 1, "{workers:?}");
}

#[test]
fn a_killed_worker_comes_back_while_the_others_go_on() {
    let Some(server) = server(4, &[]) else { return };
    let mut victim = Session::of(&server, "u0", Transport::Tls13);
    victim.execute("create table w_killed (i int)");
    victim.execute("insert into w_killed values (1)");
    let mut others: Vec<Session> = (1..4)
        .map(|i| Session::of(&server, &user(i), Transport::Tls13))
        .collect();
    for other in &mut others {
        other.execute("begin");
        other.execute("create temp table w_here (i int)");
    }
    let killed = server.worker_process(victim.worker());
    signal(killed, Signal::SIGKILL);
    assert_eq!(victim.last_words(), [] as [&str; 0]);
    for other in &mut others {
        assert_eq!(other.rows("select count(*) from w_here"), ["0"]);
    }
    let mut again = Session::of(&server, "u0", Transport::Tls13);
    assert_eq!(again.rows("select i from w_killed"), ["1"]);
    assert_ne!(server.worker_process(again.worker()), killed);
    for other in &mut others {
        other.execute("commit");
    }
}

#[test]
fn a_control_plane_that_is_killed_is_missed_by_nobody() {
    let Some(mut server) = server(4, &[]) else { return };
    let mut sessions: Vec<Session> = (0..100)
        .map(|i| Session::of(&server, &user(i % 4), Transport::ALL[i / 4 % 4]))
        .collect();
    let owners: Vec<u32> = sessions[..4].iter().map(Session::worker).collect();
    let processes: Vec<u32> = (1..=4).map(|id| server.worker_process(id)).collect();
    let (done, working) = (AtomicBool::new(false), Barrier::new(101));
    let mut server = thread::scope(|scope| {
        for session in &mut sessions {
            scope.spawn(|| {
                session.execute("create temp table w_mine as select 42 as i");
                working.wait();
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(session.rows("select count(*) from range(100000)"), ["100000"]);
                    assert_eq!(session.rows("select i from w_mine"), ["42"]);
                }
            });
        }
        working.wait();
        server.die();
        let again = server.start_again();
        // The new control plane knows who has what, and takes it up where it was.
        for (i, owner) in owners.iter().enumerate() {
            let mut session = Session::of(&again, &user(i), Transport::Tcp);
            assert_eq!(session.worker(), *owner);
            assert_eq!(session.rows("select 1 as a"), ["1"]);
        }
        done.store(true, Ordering::Relaxed);
        again
    });
    let now: Vec<u32> = (1..=4).map(|id| server.worker_process(id)).collect();
    assert_eq!(now, processes);
    // Keys of before still work.
    let session = &mut sessions[0];
    session.send(&query(ENDLESS_ROWS));
    session.take(2);
    Session::cancel(&session.key, &server, Transport::Tcp);
    drain_cancelled(session);
    // So does a stop: adopted workers drain like all others, and leave.
    assert!(server.stop().success());
    for session in &mut sessions {
        assert_eq!(session.last_words(), ["Error FATAL 57P01"]);
    }
    assert!(processes.iter().all(|process| !is_running(*process)));
}

/// Reads what is left up to the ReadyForQuery after the error.
fn drain_cancelled(session: &mut Session) {
    loop {
        match session.next() {
            Answer::DataRow(_) => {}
            other => {
                assert_eq!(other.to_string(), "Error 57014");
                assert_eq!(session.transcript(), ["ReadyForQuery I"]);
                return;
            }
        }
    }
}

#[test]
fn an_adopted_worker_that_dies_is_replaced() {
    let Some(mut server) = server(2, &[]) else { return };
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    session.execute("create table w_adopted (i int)");
    server.die();
    let server = server.start_again();
    let process = server.worker_process(session.worker());
    signal(process, Signal::SIGKILL);
    assert_eq!(session.last_words(), [] as [&str; 0]);
    let mut again = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(again.rows("select count(*) from w_adopted"), ["0"]);
    assert_ne!(server.worker_process(again.worker()), process);
}

#[test]
fn a_session_given_to_a_worker_that_dies_before_it_answers_is_served_by_the_next() {
    let Some(server) = server(4, &[]) else { return };
    let mut first = Session::of(&server, "u0", Transport::Tcp);
    first.execute("create table w_between (i int)");
    let process = server.worker_process(first.worker());
    signal(process, Signal::SIGSTOP);
    let mut second = Session::open(&server, Transport::Tls13);
    second.send(&startup(V3_0, &[("user", "u0")]));
    second.authenticate(&server.password).unwrap();
    // It lies in the worker's socket now, or soon; nothing tells from outside.
    thread::sleep(Duration::from_millis(300));
    signal(process, Signal::SIGKILL);
    second.become_ready();
    assert_eq!(second.rows("select count(*) from w_between"), ["0"]);
    assert_eq!(second.worker(), first.worker());
    assert_ne!(server.worker_process(second.worker()), process);
}

#[test]
fn a_cancel_reaches_the_one_session_that_it_names() {
    let Some(server) = server(4, &[]) else { return };
    let mut sessions: Vec<Session> = (0..4)
        .map(|i| Session::of(&server, &user(i), Transport::Tcp))
        .collect();
    for session in &mut sessions {
        session.send(&query(ENDLESS_ROWS));
        session.take(2);
    }
    // The right session with another's secret, and nobody's session.
    Session::cancel(
        &(sessions[1].key.0, sessions[0].key.1.clone()),
        &server,
        Transport::Tcp,
    );
    Session::cancel(
        &((9 << 21) | 1, sessions[0].key.1.clone()),
        &server,
        Transport::Tcp,
    );
    Session::cancel(&sessions[2].key, &server, Transport::Tls13);
    drain_cancelled(&mut sessions[2]);
    for i in [0, 1, 3] {
        let rows = sessions[i].take(50_000);
        assert!(rows.iter().all(|row| row.starts_with("DataRow ")), "{i} goes on");
    }
}

/// Takes many seconds, and nothing of it is sent before its end.
const LONG_SORT: &str = "select i from range(200000000) t(i) order by hash(i) offset 199999999";

#[test]
fn a_long_sort_is_cancelled_in_one_of_four_workers_and_in_no_other() {
    let Some(server) = server(4, &["--memory-limit", "400MiB"]) else {
        return;
    };
    let mut sorting: Vec<Session> = (0..4)
        .map(|i| Session::of(&server, &user(i), Transport::ALL[i]))
        .collect();
    let workers: HashSet<u32> = sorting.iter().map(Session::worker).collect();
    assert_eq!(workers, HashSet::from([1, 2, 3, 4]));
    let processes: Vec<u32> = (1..=4).map(|id| server.worker_process(id)).collect();
    let mut watchers: Vec<Session> = (0..4)
        .map(|i| Session::of(&server, &user(i), Transport::Tcp))
        .collect();
    let mut is_sorting = |i: usize| {
        let sorting = "select count(*) from pg_stat_activity where state = 'active' and query like '%order by%' \
                       and pid <> pg_backend_pid()";
        watchers[i].rows(sorting) == ["1"]
    };
    for (i, session) in sorting.iter_mut().enumerate() {
        session.execute(&format!("create temp table w_sort as select {i} as i"));
        session.send(&query(LONG_SORT));
        eventually("it sorts", || is_sorting(i).then_some(()));
    }
    for cancelled in [2, 0, 3, 1] {
        let session = &mut sorting[cancelled];
        Session::cancel(&session.key, &server, Transport::Tls13);
        assert_eq!(session.transcript(), ["Error 57014", "ReadyForQuery I"]);
        assert_eq!(session.rows("select i from w_sort"), [cancelled.to_string()]);
        if cancelled == 2 {
            for other in [0, 1, 3] {
                assert!(is_sorting(other), "{other} goes on");
            }
        }
    }
    let now: Vec<u32> = (1..=4).map(|id| server.worker_process(id)).collect();
    assert_eq!(now, processes);
}

#[test]
fn an_instance_that_duckdb_gives_up_is_used_by_nobody_any_more() {
    let Some(server) = server(1, &[]) else { return };
    let mut session = Session::of(&server, "u0", Transport::Tls13);
    session.execute("create table w_kept as select i from range(1000) t(i)");
    let mut idle = Session::of(&server, "u0", Transport::Tcp);
    let mut in_transaction = Session::of(&server, "u0", Transport::Tls12);
    in_transaction.execute("begin; select count(*) from w_kept");
    let mut neighbour = Session::of(&server, "u1", Transport::Tcp);
    let process = server.worker_process(session.worker());

    // A checkpoint that fails halfway is what DuckDB does not go on after. Its blocks
    // lie further back; the log has room.
    limit_files(process, Some(20_000));
    session.send(&query("force checkpoint"));
    assert_eq!(session.last_words(), ["Error FATAL XX000"]);
    for other in [&mut idle, &mut in_transaction] {
        assert_eq!(other.last_words(), ["Error FATAL 57P01"]);
    }
    limit_files(process, None);

    assert_eq!(neighbour.rows("select 1 as a"), ["1"]);
    let mut again = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(again.rows("select count(*) from w_kept"), ["1000"]);
    again.execute("insert into w_kept values (1)");
    again.execute("checkpoint");
    assert_eq!(server.worker_process(again.worker()), process);
    let log = server.log();
    assert_eq!(log.matches("DuckDB gives up").count(), 1, "{log}");
    assert_eq!(log.matches("opened database=\"u0\"").count(), 2, "{log}");
}

#[test]
fn a_commit_that_cannot_be_written_is_no_conflict_and_not_the_end() {
    let Some(server) = server(1, &[]) else { return };
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    session.execute("create table w_written as select 1 as i");
    let process = server.worker_process(1);
    limit_files(process, Some(0));
    // 40001 would have clients try again and again.
    assert_eq!(
        session.error("insert into w_written values (2)").sqlstate(),
        "58030"
    );
    limit_files(process, None);
    assert_eq!(session.rows("select i from w_written"), ["1"]);
    session.execute("insert into w_written values (3)");
    assert_eq!(session.rows("select sum(i)::int from w_written"), ["4"]);
}

#[test]
fn an_idle_database_is_closed_and_another_can_open_its_file() {
    let arguments = ["--database-idle-timeout", "100ms", "--worker-queue-timeout", "1s"];
    let Some(server) = server(2, &arguments) else {
        return;
    };
    let file = server.data().join("u0.duckdb");
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    session.execute("create table w_idle as select 42 as i");
    assert!(
        Instance::open(&file, &Options::default()).is_err(),
        "it is in use"
    );
    drop(session);
    let ours = eventually("the file is free", || {
        Instance::open(&file, &Options::default()).ok()
    });
    ours.connect()
        .unwrap()
        .run("insert into w_idle values (43)")
        .unwrap();
    // Now it is the server that has to wait, and not for ever.
    let mut refused = Session::on(Road::open(&server, Transport::Tcp).unwrap());
    refused.send(&startup(V3_0, &[("user", "u0")]));
    refused.authenticate(&server.password).unwrap();
    assert_eq!(refused.last_words(), ["Error FATAL 57P03"]);
    Session::of(&server, "u1", Transport::Tcp);
    drop(ours);
    let mut again = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(again.rows("select count(*) from w_idle"), ["2"]);
}

#[test]
fn a_worker_that_hangs_is_replaced() {
    let Some(server) = server(2, &["--hang-timeout", "2s"]) else {
        return;
    };
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    let mut other = Session::of(&server, "u1", Transport::Tcp);
    let process = server.worker_process(session.worker());
    signal(process, Signal::SIGSTOP);
    assert_eq!(session.last_words(), [] as [&str; 0]);
    let mut again = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(again.rows("select 1 as a"), ["1"]);
    assert!(!is_running(process));
    assert_eq!(other.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_worker_whose_duckdb_does_not_answer_is_replaced() {
    let Some(server) = server(2, &["--hang-timeout", "2s"]) else {
        return;
    };
    let mut session = Session::of(&server, "u0", Transport::Tls13);
    session.execute("create table w_hung as select 42 as i");
    let mut other = Session::of(&server, "u1", Transport::Tcp);
    let process = server.worker_process(session.worker());
    let probe = thread_of(process, "probe").unwrap();
    // DuckDB seeds each new connection: this is in the middle of the question.
    let frozen = match Frozen::at(probe, libc::SYS_getrandom) {
        Ok(frozen) => frozen,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            println!("skipped: workers can be traced by root alone ({error})");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    // All else in the process goes on, until it is killed.
    frozen.killed();
    assert_eq!(session.last_words(), [] as [&str; 0]);
    let mut again = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(again.rows("select i from w_hung"), ["42"]);
    assert_ne!(server.worker_process(again.worker()), process);
    assert_eq!(other.rows("select 1 as a"), ["1"]);
    let reason = "DuckDB does not answer in database \"u0\"";
    assert!(server.log().contains(reason), "{}", server.log());
}

#[test]
fn a_worker_that_nobody_comes_back_for_leaves_with_its_last_session() {
    let Some(mut server) = server(2, &["--orphan-timeout", "1s"]) else {
        return;
    };
    let mut session = Session::of(&server, "u0", Transport::Tls13);
    let needed = server.worker_process(session.worker());
    let unneeded = server.worker_process(3 - session.worker());
    server.die();
    eventually("the one without sessions leaves", || {
        (!is_running(unneeded)).then_some(())
    });
    assert_eq!(session.rows("select 1 as a"), ["1"]);
    assert!(is_running(needed));
    drop(session);
    eventually("the other one follows", || (!is_running(needed)).then_some(()));
}

#[test]
fn a_worker_that_is_not_configured_any_more_stays_for_an_open_transaction() {
    let Some(mut server) = server(2, &[]) else { return };
    let mut sessions: Vec<Session> = (0..2)
        .map(|i| Session::of(&server, &user(i), Transport::Tcp))
        .collect();
    sessions.sort_by_key(Session::worker);
    let retiring = server.worker_process(2);
    sessions[1].execute("begin");
    server.die();
    let arguments: Vec<String> = server.arguments().to_vec();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let count = arguments
        .iter()
        .position(|argument| *argument == "--worker-count")
        .unwrap();
    arguments[count + 1] = "1";
    let server = server.start_again_with(&arguments);
    assert_eq!(sessions[1].rows("select 1 as a"), ["1"]);
    assert_eq!(Session::of(&server, "u5", Transport::Tcp).worker(), 1);
    let states: Vec<_> = status(&server)["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| {
            (
                worker["id"].as_u64().unwrap(),
                worker["state"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(states, [(1, "ready".to_owned()), (2, "retiring".to_owned())]);
    sessions[1].execute("commit");
    eventually("it leaves", || (!is_running(retiring)).then_some(()));
    for session in &mut sessions {
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
}
