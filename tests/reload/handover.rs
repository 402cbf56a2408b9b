//! What clients notice of a reload: nothing.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::against_postgres;
use crate::support::message::*;
use crate::support::processes::is_running;
use crate::support::programs::run;
use crate::support::session::V3_0;
use crate::support::{PATIENCE, Server, Session, Transport, eventually};

#[test]
fn twenty_reloads_are_noticed_by_no_client() {
    if against_postgres() {
        return;
    }
    let mut server = Server::with_workers(2, &[]);
    let workers = [server.worker_process(1), server.worker_process(2)];
    let mut sessions: Vec<Session> = (0..8)
        .map(|i| Session::of(&server, &format!("u{i}"), Transport::ALL[i % 4]))
        .collect();
    let (done, connects, statements) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let slowest = thread::scope(|scope| {
        for (i, session) in sessions.iter_mut().enumerate() {
            let (done, statements) = (&done, &statements);
            scope.spawn(move || {
                session.execute(&format!("create temp table w_mine as select {i} as i"));
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(session.rows("select i from w_mine"), [i.to_string()]);
                    statements.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let loops: Vec<_> = [Transport::Tls13, Transport::Tls13, Transport::Unix]
            .into_iter()
            .map(|transport| {
                let (done, connects, server) = (&done, &connects, &server);
                scope.spawn(move || {
                    let mut slowest = Duration::ZERO;
                    while !done.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let mut session = Session::of(server, "u9", transport);
                        assert_eq!(session.rows("select 1 as a"), ["1"]);
                        slowest = slowest.max(began.elapsed());
                        connects.fetch_add(1, Ordering::Relaxed);
                    }
                    slowest
                })
            })
            .collect();
        let reloaded = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..20 {
                let before = connects.load(Ordering::Relaxed);
                server.reload();
                eventually("clients connect to the new process", || {
                    (connects.load(Ordering::Relaxed) > before + 6).then_some(())
                });
            }
        }));
        done.store(true, Ordering::Relaxed);
        reloaded.unwrap();
        loops.into_iter().map(|one| one.join().unwrap()).max().unwrap()
    });
    println!(
        "20 reloads: {} connects, the slowest in {slowest:?}; {} statements of 8 sessions",
        connects.into_inner(),
        statements.into_inner()
    );
    assert_eq!(
        [server.worker_process(1), server.worker_process(2)],
        workers,
        "they were left alone"
    );
    // All of it is the last one's now.
    assert_eq!(server.owner(), server.pid());
    assert!(server.stop().success());
    for session in &mut sessions {
        assert_eq!(session.last_words(), ["Error FATAL 57P01"]);
    }
    assert!(workers.iter().all(|process| !is_running(*process)));
    assert!(!server.socket().exists());
    assert!(!server.data().join("run/control.sock").exists());
}

#[test]
fn who_is_logging_in_finishes_with_the_old_process_which_then_leaves() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(1, &[]);
    let old = server.pid();
    let mut late = Session::open(&server, Transport::Tls13);
    late.send(&startup(V3_0, &[("user", "u0"), ("database", "u0")]));
    server.reload();
    assert!(is_running(old), "somebody is on the way in");
    server.assert_serving_to("u1");
    late.authenticate(&server.password).unwrap();
    late.become_ready();
    assert_eq!(late.rows("select 1 as a"), ["1"]);
    eventually("the old process leaves", || (!is_running(old)).then_some(()));
    assert_eq!(late.rows("select 1 as a"), ["1"]);
    // The new one knows of the session that the old one has placed.
    let status = run(
        std::process::Command::new(env!("CARGO_BIN_EXE_duckgres"))
            .args(["status", "--json", "--data-dir"])
            .arg(server.data()),
        "",
    );
    assert!(
        status
            .success()
            .contains("\"users\":[{\"name\":\"u0\",\"sessions\":1}]")
    );
}

#[test]
fn a_signal_reloads_as_well() {
    if against_postgres() {
        return;
    }
    let mut server = Server::duckgres(&[]);
    let old = server.pid();
    server.signal(Signal::SIGHUP);
    let new = eventually("another process has the data directory", || {
        Some(server.owner()).filter(|owner| *owner != old)
    });
    server.succeeded_by(new);
    server.assert_serving();
    assert!(server.stop().success());
}

#[test]
fn workers_are_supervised_by_the_new_process() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(2, &[]);
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    session.execute("create table r_kept as select 42 as i");
    server.reload();
    server.reload();
    let process = server.worker_process(session.worker());
    kill(Pid::from_raw(process as i32), Signal::SIGKILL).unwrap();
    assert_eq!(session.last_words(), [] as [&str; 0]);
    let mut again = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(again.rows("select i from r_kept"), ["42"]);
    let next = server.worker_process(again.worker());
    assert_ne!(next, process);
    server.reload();
    assert_eq!(server.worker_process(again.worker()), next);
    assert_eq!(again.rows("select i from r_kept"), ["42"]);
}

#[test]
fn systemd_is_told_of_the_new_process_which_is_no_child_of_the_old_one() {
    if against_postgres() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Server::in_environment(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let message = |with: &str| {
        let mut buffer = [0; 4096];
        loop {
            let count = manager.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.contains(with) {
                return text;
            }
        }
    };
    message("READY=1");
    let old = server.pid();
    server.reload();
    let told = message("MAINPID=");
    let lines: Vec<&str> = told.lines().collect();
    let new = format!("MAINPID={}", server.pid());
    assert!(
        lines.contains(&new.as_str()) && lines.contains(&"READY=1"),
        "{told}"
    );
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let parent = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
    assert_ne!(parent, old.to_string());
    server.assert_serving();
}
