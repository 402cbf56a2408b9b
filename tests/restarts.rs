//! Workers that the control plane has started, and that are told to restart.

use std::collections::HashSet;
use std::os::unix::fs::symlink;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use duckgres::handoff::frozen_versions;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::seen::scrape;
use crate::support::message;
use crate::support::processes::is_running;
use crate::support::programs::{run, status, worker_of_next_version};
use crate::support::{Server, Session, Transport, eventually};

/// Whether the tests are run against PostgreSQL.
fn against_postgres() -> bool {
    let skipped = Server::shared().is_postgres();
    if skipped {
        println!("skipped: this is about duckgres's workers");
    }
    skipped
}

/// `duckgres restart-workers` for this server.
fn restart_workers(server: &Server) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_duckgres"));
    command
        .args(["restart-workers", "--data-dir"])
        .arg(server.data())
        .env_remove("DUCKGRES_CONFIG");
    command
}

#[test]
fn workers_are_restarted_one_after_the_other_and_each_is_told_of() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(3, &[]);
    let before: Vec<u32> = (1..=3).map(|id| server.worker_process(id)).collect();
    let said = run(&mut restart_workers(&server), "").success();
    let after: Vec<u32> = (1..=3).map(|id| server.worker_process(id)).collect();
    assert!(before.iter().all(|process| !after.contains(process)));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    for ((line, id), process) in lines.iter().zip(1..).zip(&after) {
        assert!(line.starts_with(&format!("worker {id} restarted in ")), "{said}");
        assert!(line.contains(&format!("process {process}, 0 sessions")), "{said}");
    }
    server.assert_serving_to("u1");
}

#[test]
fn a_worker_whose_program_does_not_start_leaves_the_others_as_they_are() {
    if against_postgres() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("worker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_duckgres-worker"), &program).unwrap();
    let server = Server::with_workers(2, &["--worker-binary", program.to_str().unwrap()]);
    let second = server.worker_process(2);
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink("/bin/false", &program).unwrap();
    let outcome = run(&mut restart_workers(&server), "");
    assert!(!outcome.status.success());
    let failed = outcome
        .err
        .contains("worker 1: its new process ended before it served");
    assert!(failed, "{outcome:?}");
    assert_eq!(server.worker_process(2), second);
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_duckgres-worker"), &program).unwrap();
    // It is tried again and again meanwhile.
    server.assert_serving_to("u1");
    run(&mut restart_workers(&server), "").success();
    assert_ne!(server.worker_process(2), second);
}

/// A session with a setting and a prepared statement, which must go on having them.
struct Marked {
    session: Session,
    marker: String,
}

impl Marked {
    fn new(server: &Server, user: &str, transport: Transport, marker: usize) -> Self {
        let mut session = Session::of(server, user, transport);
        let marker = format!("r{marker}");
        session.execute(&format!("set application_name = '{marker}'"));
        session.execute(&format!("prepare r_marked as select '{marker}' as a"));
        session.execute(&format!(
            "create temp table r_mine as select '{marker}' as a; create index r_by_a on r_mine (a)"
        ));
        Self { session, marker }
    }

    #[track_caller]
    fn check(&mut self) {
        let Self { session, marker } = self;
        assert_eq!(session.rows("execute r_marked"), [marker.as_str()]);
        assert_eq!(session.rows("show application_name"), [marker.as_str()]);
        assert_eq!(session.rows("select a from r_mine"), [marker.as_str()]);
    }
}

fn terminate(process: u32) {
    kill(Pid::from_raw(process.try_into().unwrap()), Signal::SIGTERM).unwrap();
}

/// Has the worker's process end, and waits for the next one's note.
#[track_caller]
fn restart_by_signal(server: &Server, worker: u32) {
    let before = server.worker_process(worker);
    terminate(before);
    eventually("the next process", || {
        (server.worker_process(worker) != before).then_some(())
    });
}

#[test]
fn sessions_of_the_only_child_go_on_when_it_is_told_to_end() {
    if against_postgres() {
        return;
    }
    let server = Server::duckgres(&[]);
    let mut sessions: Vec<Marked> = Transport::ALL
        .into_iter()
        .zip(0..)
        .map(|(transport, i)| Marked::new(&server, &server.user, transport, i))
        .collect();
    sessions[0]
        .session
        .execute("create table r_here as select 42 as i");
    for _ in 0..3 {
        restart_by_signal(&server, 1);
        for one in &mut sessions {
            one.check();
            assert_eq!(one.session.rows("select i from r_here"), ["42"]);
        }
    }
    let mut late = Session::over(&server, Transport::Tls13);
    assert_eq!(late.rows("select i from r_here"), ["42"]);
}

#[test]
fn a_rolled_set_of_workers_under_load_is_noticed_by_no_client() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(3, &[]);
    let done = AtomicBool::new(false);
    let statements = AtomicU64::new(0);
    let working = Barrier::new(13);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|i| {
                let (server, done, statements, working) = (&server, &done, &statements, &working);
                scope.spawn(move || {
                    let user = format!("u{}", i % 6);
                    let mut one = Marked::new(server, &user, Transport::ALL[i % 4], i);
                    let table = format!("r_rolled{i}");
                    one.session.execute(&format!("create table {table} (i int)"));
                    working.wait();
                    let mut written = 0;
                    while !done.load(Ordering::Relaxed) {
                        one.check();
                        one.session
                            .execute(&format!("insert into {table} values ({written})"));
                        written += 1;
                        let rows = one
                            .session
                            .rows(&format!("select count(*), count(distinct i) from {table}"));
                        assert_eq!(rows, [format!("{written}|{written}")]);
                        statements.fetch_add(4, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        working.wait();
        let rolled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..2 {
                let before = statements.load(Ordering::Relaxed);
                print!("{}", run(&mut restart_workers(&server), "").success());
                eventually("clients work with the new processes", || {
                    (statements.load(Ordering::Relaxed) > before + 48).then_some(())
                });
            }
        }));
        done.store(true, Ordering::Relaxed);
        rolled.unwrap();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn sessions_are_kept_over_a_reload_between_two_processes_of_their_worker() {
    if against_postgres() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("worker");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_duckgres-worker"), &program).unwrap();
    let server = Server::with_workers(1, &["--worker-binary", program.to_str().unwrap()]);
    let mut one = Marked::new(&server, "u0", Transport::Tls13, 1);
    let mut two = Marked::new(&server, "u1", Transport::Tls12, 2);
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink("/bin/false", &program).unwrap();
    let before = server.worker_process(1);
    terminate(before);
    eventually("the worker has ended", || (!is_running(before)).then_some(()));
    // What is said meanwhile is answered later.
    one.session.send(&message::query("select 17 as a"));
    server.reload();
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_duckgres-worker"), &program).unwrap();
    assert!(one.session.transcript().contains(&"DataRow 17".to_owned()));
    one.check();
    two.check();
}

/// Puts a link to `to` in the place of a program, as a package manager would.
fn install(program: &Path, to: &Path) {
    let new = program.with_extension("new");
    symlink(to, &new).unwrap();
    std::fs::rename(&new, program).unwrap();
}

#[test]
fn sessions_go_up_to_the_next_version_and_an_older_one_says_that_it_cannot_read_them() {
    if against_postgres() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (ours, program) = (env!("CARGO_BIN_EXE_duckgres-worker"), home.path().join("worker"));
    let next = worker_of_next_version(home.path());
    install(&program, Path::new(ours));
    let server = Server::with_workers(2, &["--worker-binary", program.to_str().unwrap()]);
    let mut sessions: Vec<Marked> = (0..8)
        .map(|i| Marked::new(&server, &format!("u{}", i % 2), Transport::ALL[i / 2], i))
        .collect();
    sessions[0]
        .session
        .execute("create table r_kept as select 42 as i");
    install(&program, &next);
    // Into it, and from one of its processes to another.
    for _ in 0..2 {
        run(&mut restart_workers(&server), "").success();
        sessions.iter_mut().for_each(Marked::check);
    }
    install(&program, Path::new(ours));
    run(&mut restart_workers(&server), "").success();
    for one in &mut sessions {
        assert_eq!(one.session.last_words(), [] as [&str; 0]);
    }
    let known = frozen_versions();
    let said = format!(
        "4 sessions of an earlier process are closed: a newer version of the program has frozen them, in \
         format {}, and this one reads formats {} to {}",
        known.end() + 1,
        known.start(),
        known.end()
    );
    assert_eq!(server.log().matches(&said).count(), 2, "{}", server.log());
    let mut again = Session::of(&server, "u0", Transport::Tls13);
    assert_eq!(again.rows("select i from r_kept"), ["42"]);
    Marked::new(&server, "u1", Transport::Tls12, 9).check();
}

#[test]
fn a_worker_found_by_the_next_control_plane_restarts_with_its_sessions() {
    if against_postgres() {
        return;
    }
    let mut server = Server::with_workers(2, &[]);
    let mut one = Marked::new(&server, "u0", Transport::Tls13, 1);
    server.die();
    let server = server.start_again();
    one.check();
    restart_by_signal(&server, one.session.worker());
    one.check();
    run(&mut restart_workers(&server), "").success();
    one.check();
}

#[test]
fn a_server_that_stops_ends_its_sessions_as_ever() {
    if against_postgres() {
        return;
    }
    let mut server = Server::with_workers(2, &[]);
    let mut one = Marked::new(&server, "u0", Transport::Tls13, 1);
    run(&mut restart_workers(&server), "").success();
    one.check();
    assert!(server.stop().success());
    assert_eq!(one.session.last_words(), ["Error FATAL 57P01"]);
}

/// As `duckgres status` says, of all workers.
fn moved_sessions(server: &Server) -> u64 {
    let status = status(server);
    let workers = status["workers"].as_array().unwrap();
    let moved = workers
        .iter()
        .map(|worker| worker["moved_sessions"].as_u64().unwrap());
    moved.sum()
}

const ENDLESS: &str = "select count(*) from range(1000000) a, range(1000000) b";

#[test]
fn sessions_that_have_moved_are_stopped_by_those_who_may_wherever_they_are() {
    if against_postgres() {
        return;
    }
    let users: String = (0..9).map(|i| format!("  u{i}: not-a-secret\n")).collect();
    let yaml = format!("users:\n  root: {{password: not-a-secret, admin: on}}\n{users}");
    let of = |count: u32| format!("{yaml}worker_count: {count}\n");
    let server = Server::configured(&of(3), ("root", "not-a-secret"), &[]);
    let mut root = Session::of(&server, "root", Transport::Tls13);
    let mut sessions: Vec<Marked> = (0..9)
        .map(|i| Marked::new(&server, &format!("u{i}"), Transport::ALL[i % 4], i))
        .collect();
    let leaving = server.worker_process(3);
    std::fs::write(server.scratch("duckgres.yaml"), of(2)).unwrap();
    server.reload();
    eventually("it leaves", || (!is_running(leaving)).then_some(()));
    sessions.retain(|one| one.session.worker() == 3);
    // Those of other workers are two at least; they may be in root's own, and are in both.
    assert!(sessions.len() >= 2, "{}", sessions.len());
    for one in &mut sessions {
        one.check();
        let key = one.session.key.clone();
        let running = format!(
            "select count(*) from pg_stat_activity where state = 'active' and pid = {}",
            key.0
        );
        for by_request in [false, true] {
            one.session.send(&message::query(ENDLESS));
            eventually("it runs", || (root.rows(&running) == ["1"]).then_some(()));
            // One that comes before the statement has really begun concerns nothing.
            eventually("it is cancelled", || {
                match by_request {
                    true => Session::cancel(&key, &server, Transport::Tls13),
                    false => drop(root.rows(&format!("select pg_cancel_backend({})", key.0))),
                }
                (root.rows(&running) == ["0"]).then_some(())
            });
            let answer = one.session.transcript();
            assert!(answer[0].contains("57014"), "{answer:?}");
            one.session.settle();
        }
        one.check();
        let ended = root.rows(&format!("select pg_terminate_backend({})", key.0));
        assert_eq!(ended, ["t"]);
        assert_eq!(one.session.last_words(), ["Error FATAL 57P01"]);
    }
}

#[test]
fn what_a_restart_waits_for_is_seen_and_how_long_sessions_have_paused() {
    if against_postgres() {
        return;
    }
    let server = Server::duckgres(&["--metrics-address", "127.0.0.1:0"]);
    let mut busy = Marked::new(&server, &server.user, Transport::Tls13, 1);
    let mut bound = Marked::new(&server, &server.user, Transport::Tls12, 2);
    busy.session.execute("begin");
    bound
        .session
        .execute("create temp table r_bound (a int, b int generated always as (a))");
    thread::scope(|scope| {
        let restarting = scope.spawn(|| run(&mut restart_workers(&server), "").success());
        let waits_for = |what: &str, reason: &str| {
            eventually(what, || {
                let status = status(&server);
                let worker = &status["workers"][0];
                let said = worker["in_the_way"].as_str()?;
                (worker["state"] == "leaving" && said.contains(what)).then_some(())
            });
            let reason = format!("reason=\"{reason}\"");
            eventually(&reason, || {
                let text = scrape(&server);
                let mut lines = text.lines();
                lines
                    .any(|line| {
                        line.starts_with("duckgres_worker_sessions_pinned{")
                            && line.contains(&reason)
                            && line.ends_with(" 1")
                    })
                    .then_some(())
            });
        };
        waits_for("1 transaction", "transaction");
        busy.session.execute("commit");
        waits_for("1 temporary", "temporary");
        bound.session.execute("drop table r_bound");
        let said = restarting.join().unwrap();
        assert!(said.contains("2 sessions"), "{said}");
    });
    busy.check();
    bound.check();
    eventually("both have paused", || {
        let count = "duckgres_session_pause_seconds_count{worker=\"1\"} 2\n";
        scrape(&server).contains(count).then_some(())
    });
    let status = status(&server);
    assert_eq!(status["workers"][0]["state"], "ready");
    assert_eq!(status["workers"][0]["in_the_way"], "");
}

#[test]
fn sessions_of_workers_that_are_not_configured_any_more_move_to_the_others() {
    if against_postgres() {
        return;
    }
    let users: String = (0..6).map(|i| format!("  u{i}: not-a-secret\n")).collect();
    let yaml = format!("users:\n{users}");
    let server = Server::configured(&format!("{yaml}worker_count: 3\n"), ("u0", "not-a-secret"), &[]);
    let mut sessions: Vec<Marked> = (0..24)
        .map(|i| Marked::new(&server, &format!("u{}", i % 6), Transport::ALL[i / 6], i))
        .collect();
    let workers: HashSet<u32> = sessions.iter().map(|one| one.session.worker()).collect();
    assert_eq!(workers, HashSet::from([1, 2, 3]));
    for one in &mut sessions[..6] {
        one.session.execute("create table r_moved as select 42 as i");
    }
    let leaving: Vec<u32> = (2..=3).map(|id| server.worker_process(id)).collect();
    std::fs::write(server.scratch("duckgres.yaml"), &yaml).unwrap();
    server.reload();
    eventually("they leave", || {
        leaving.iter().all(|process| !is_running(*process)).then_some(())
    });
    for one in &mut sessions {
        one.check();
        assert_eq!(one.session.rows("select i from r_moved"), ["42"]);
    }
    let moved = sessions.iter().filter(|one| one.session.worker() != 1).count();
    assert_eq!(moved_sessions(&server), moved as u64);
    server.reload();
    assert_eq!(
        moved_sessions(&server),
        moved as u64,
        "another process goes on counting"
    );
    // Whoever moved is found by the id that it was given.
    let moved = sessions.iter_mut().find(|one| one.session.worker() == 3).unwrap();
    let key = moved.session.key.clone();
    moved.session.send(&message::query(
        "select count(*) from range(1000000) a, range(1000000) b",
    ));
    let answered = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !answered.load(Ordering::Relaxed) {
                Session::cancel(&key, &server, Transport::Tls13);
            }
        });
        let answer = moved.session.transcript();
        answered.store(true, Ordering::Relaxed);
        assert!(answer[0].contains("57014"), "{answer:?}");
    });
    Marked::new(&server, "u5", Transport::Tls13, 99).check();
}
