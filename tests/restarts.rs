//! Workers that the control plane has started, and that are told to restart.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::programs::run;
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

#[test]
fn a_child_that_is_told_to_end_is_followed_by_the_next() {
    if against_postgres() {
        return;
    }
    let server = Server::duckgres(&[]);
    let mut session = Session::over(&server, Transport::Tls13);
    session.execute("create table r_here as select 42 as i");
    drop(session);
    let before = server.worker_process(1);
    kill(Pid::from_raw(before.try_into().unwrap()), Signal::SIGTERM).unwrap();
    eventually("the next process", || {
        (server.worker_process(1) != before).then_some(())
    });
    let mut session = Session::over(&server, Transport::Tls13);
    assert_eq!(session.rows("select i from r_here"), ["42"]);
}
