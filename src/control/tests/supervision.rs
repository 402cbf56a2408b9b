//! A worker's processes come and go; the worker stays.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::rig::{Management, ledger, manage, worker};
use crate::config::WorkerConfig;
use crate::control::StartError;
use crate::control::duty::Duty;
use crate::control::restart::RestartError;
use crate::control::sockets::WorkerSockets;
use crate::control::store::{Budget, Store};
use crate::control::supervise::{Program, Supervisor};
use crate::proto::Report;

/// A program that notes its process id, runs `body`, and is told nothing.
fn program(directory: &Path, body: &str) -> Program {
    let path = directory.join("program");
    let pids = directory.join("pids");
    std::fs::write(
        &path,
        format!("#!/bin/sh\necho $$ >> {}\n{body}\n", pids.display()),
    )
    .unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = WorkerConfig {
        id: 1,
        data_dir: PathBuf::from("/nonexistent"),
        extension_directory: None,
        extensions: Vec::new(),
        memory_limit: None,
        threads: None,
        temp_directory: None,
        file_access: Vec::new(),
        log_level: "info".into(),
        query_log: Default::default(),
        log_min_duration_statement: Default::default(),
        query_log_text: false,
        query_log_file: None,
        control_user: None,
        turn: None,
    };
    let sockets = WorkerSockets::at(&directory.join("worker-1")).unwrap();
    Program {
        path,
        config,
        store: Store::bind(&sockets.notify_path(), Budget::of_this_process()).unwrap(),
        sockets,
        hang_timeout: Duration::ZERO,
        retiring: false,
        shared: false,
    }
}

fn pids(directory: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(directory.join("pids")).unwrap_or_default();
    text.lines()
        .map(|line| Pid::from_raw(line.parse().unwrap()))
        .collect()
}

fn is_running(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_process_is_replaced_and_the_last_one_is_told_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = program(directory.path(), "exec sleep 1000");
    // Reports come from here, whatever the program does.
    let report = watch::Sender::new(Report {
        worker_id: 1,
        ..Report::default()
    });
    manage(
        &program.sockets.bind().unwrap(),
        Management {
            report: report.subscribe(),
            cancels: mpsc::channel().0,
        },
    );
    let worker = worker(&program.sockets, ledger());
    let mut supervisor = Supervisor::start(program, worker, Duty::always()).await.unwrap();

    eventually("started", || pids(directory.path()).len() == 1).await;
    kill(pids(directory.path())[0], Signal::SIGKILL).unwrap();
    eventually("restarted", || pids(directory.path()).len() == 2).await;
    let second = pids(directory.path())[1];
    assert!(is_running(second));
    supervisor.stop().await;
    assert!(!is_running(second));
    assert!(!directory.path().join("worker-1").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_does_not_end_is_killed_when_there_is_no_more_patience() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = program(directory.path(), "trap '' TERM\nwhile :; do sleep 0.1; done");
    let report = watch::Sender::new(Report {
        worker_id: 1,
        ..Report::default()
    });
    manage(
        &program.sockets.bind().unwrap(),
        Management {
            report: report.subscribe(),
            cancels: mpsc::channel().0,
        },
    );
    let worker = worker(&program.sockets, ledger());
    let mut supervisor = Supervisor::start(program, worker, Duty::always()).await.unwrap();
    eventually("started", || pids(directory.path()).len() == 1).await;
    assert!(
        tokio::time::timeout(Duration::from_millis(200), supervisor.stop())
            .await
            .is_err()
    );
    supervisor.kill();
    supervisor.stop().await;
    assert!(!is_running(pids(directory.path())[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_process_that_fails_is_not_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let program = program(directory.path(), "exit 3");
    let worker = worker(&program.sockets, ledger());
    let error = Supervisor::start(program, worker, Duty::always())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(error, StartError::WorkerEnded(status) if status.code() == Some(3)),
        "{error}"
    );
    assert_eq!(pids(directory.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_duckdb_does_not_answer_is_killed_and_one_that_recovers_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = program(directory.path(), "exec sleep 1000");
    program.hang_timeout = Duration::from_secs(1);
    let report = watch::Sender::new(Report {
        worker_id: 1,
        ..Report::default()
    });
    manage(
        &program.sockets.bind().unwrap(),
        Management {
            report: report.subscribe(),
            cancels: mpsc::channel().0,
        },
    );
    let worker = worker(&program.sockets, ledger());
    let mut supervisor = Supervisor::start(program, worker, Duty::always()).await.unwrap();
    eventually("started", || pids(directory.path()).len() == 1).await;
    // Heartbeats, and in one of them a moment's trouble.
    for hung in ["", "a", "", "", "", "", "", ""] {
        report.send_modify(|report| report.hung = hung.into());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(pids(directory.path()).len(), 1);
    for _ in 0..8 {
        report.send_modify(|report| report.hung = "a".into());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    report.send_modify(|report| report.hung = String::new());
    eventually("replaced", || pids(directory.path()).len() == 2).await;
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_has_had_kept_comes_to_the_next_with_its_sockets() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["w".to_owned(), "w".repeat(120)] {
        let directory = directory.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        let passed = directory.join("passed");
        let body = format!(
            "echo $LISTEN_FDNAMES >> {0}\ntest -S $NOTIFY_SOCKET && echo heard >> {0}\nexec sleep 1000",
            passed.display()
        );
        let mut program = program(&directory, &body);
        let report = watch::Sender::new(Report {
            worker_id: 1,
            ..Report::default()
        });
        manage(
            &program.sockets.bind().unwrap(),
            Management {
                report: report.subscribe(),
                cancels: mpsc::channel().0,
            },
        );
        let store = program.store.clone();
        let worker = worker(&program.sockets, ledger());
        let mut supervisor = Supervisor::start(program, worker, Duty::always()).await.unwrap();
        let lines = || std::fs::read_to_string(&passed).unwrap_or_default();
        eventually("started", || lines().lines().count() == 2).await;
        let kept = || OwnedFd::from(tempfile::tempfile().unwrap());
        store.take_over([("z".to_owned(), kept()), ("lease".to_owned(), kept())]);
        kill(*pids(&directory).last().unwrap(), Signal::SIGKILL).unwrap();
        eventually("restarted", || lines().lines().count() == 4).await;
        let lines = lines();
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            ["handoff:rpc", "heard", "handoff:rpc:z:lease", "heard"]
        );
        supervisor.stop().await;
        assert!(store.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_is_asked_for_is_over_when_the_next_process_serves_or_has_failed() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = program(directory.path(), "exec sleep 1000");
    let report = watch::Sender::new(Report {
        worker_id: 1,
        ..Report::default()
    });
    manage(
        &program.sockets.bind().unwrap(),
        Management {
            report: report.subscribe(),
            cancels: mpsc::channel().0,
        },
    );
    let worker = worker(&program.sockets, ledger());
    let mut supervisor = Supervisor::start(program, worker, Duty::always()).await.unwrap();
    eventually("started", || pids(directory.path()).len() == 1).await;
    let bell = supervisor.bell.clone();
    let asked = tokio::spawn(async move { bell.ring().await });
    eventually("restarted", || pids(directory.path()).len() == 2).await;
    kill(pids(directory.path())[1], Signal::SIGKILL).unwrap();
    assert_eq!(asked.await.unwrap(), Err(RestartError::Ended));
    eventually("and again", || pids(directory.path()).len() == 3).await;
    supervisor.stop().await;
    assert_eq!(supervisor.bell.ring().await, Err(RestartError::NotOurs));
}
