//! CREATE DATABASE and DROP DATABASE: who may, what becomes of files and
//! sessions, and that it does not matter which worker has what.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use duckgres::engine::{Instance, Options};

use crate::support::message::*;
use crate::support::programs::status;
use crate::support::server::limit_files;
use crate::support::session::V3_0;
use crate::support::transport::Road;
use crate::support::{Answer, Server, Session, Transport, eventually};

const PASSWORD: &str = "correct horse";

/// A server with so many workers, alice, bob, who may use every database, and the
/// administrator root; `None` when the tests are run against PostgreSQL.
fn server(workers: u32, arguments: &[&str]) -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's files and workers");
        return None;
    }
    let yaml = format!(
        "users:\n  alice: {PASSWORD}\n  bob: {{password: {PASSWORD}, databases: '*'}}\n  \
         root: {{password: {PASSWORD}, admin: on}}\n"
    );
    let workers = workers.to_string();
    let mut all = vec!["--worker-count", &workers];
    all.extend(arguments);
    Some(Server::configured(&yaml, ("root", PASSWORD), &all))
}

/// Connects to the database, or says why not.
fn connect(server: &Server, user: &str, database: &str) -> Result<Session, String> {
    let mut session = Session::on(Road::open(server, Transport::Tcp).unwrap());
    session.send(&startup(V3_0, &[("user", user), ("database", database)]));
    session.authenticate(PASSWORD).unwrap();
    let mut parameters = 0;
    loop {
        match session.next() {
            Answer::Error(report) => return Err(report.sqlstate().to_owned()),
            Answer::ReadyForQuery(_) => return Ok(session),
            Answer::BackendKeyData { process, secret } => session.key = (process, secret),
            _ => parameters += 1,
        }
        assert!(parameters < 100);
    }
}

/// The files of a database, wherever they are in the data directory.
fn files(server: &Server, database: &str) -> Vec<PathBuf> {
    let directories = [server.data(), server.data().join("tmp")];
    let mut files: Vec<PathBuf> = directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.strip_prefix(database)
                .is_some_and(|rest| rest.starts_with('.'))
        })
        .collect();
    files.sort();
    files
}

fn knows(server: &Server, database: &str) -> bool {
    let status = status(server);
    let databases = status["databases"].as_array().unwrap();
    databases.iter().any(|seen| seen["name"] == database)
}

#[test]
fn a_database_that_was_made_is_for_those_who_were_granted_it_until_it_is_dropped() {
    let Some(server) = server(4, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    assert_eq!(connect(&server, "bob", "sales").err().as_deref(), Some("3D000"));
    root.execute("create database sales");
    // It is closed again, and a database: anybody can open it.
    Instance::open(&server.data().join("sales.duckdb"), &Options::default()).unwrap();
    assert_eq!(connect(&server, "alice", "sales").err().as_deref(), Some("42501"));
    let mut bob = connect(&server, "bob", "sales").unwrap();
    bob.execute("create table orders as select 42 as number");
    assert_eq!(
        bob.rows("select current_database(), number from orders"),
        ["sales|42"]
    );
    drop(bob);
    root.execute("drop database sales");
    assert_eq!(files(&server, "sales"), [] as [PathBuf; 0]);
    assert_eq!(connect(&server, "bob", "sales").err().as_deref(), Some("3D000"));
    eventually("nothing shows it any more", || {
        (!knows(&server, "sales")).then_some(())
    });
    assert_eq!(
        root.rows("select count(*) from pg_database where datname = 'sales'"),
        ["0"]
    );
    // Another of that name has nothing of the first.
    root.execute("create database sales");
    let mut bob = connect(&server, "bob", "sales").unwrap();
    assert_eq!(bob.error("select number from orders").sqlstate(), "42P01");
}

#[test]
fn only_an_administrator_makes_and_drops_databases() {
    let Some(server) = server(1, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    root.execute("create database sales");
    let mut bob = connect(&server, "bob", "bob").unwrap();
    for sql in [
        "create database mine",
        "drop database sales",
        "drop database nosuch",
        "drop database if exists sales",
        "prepare p as drop database sales",
        "explain analyze drop database sales",
        "from query('drop database sales')",
    ] {
        let sqlstate = bob.error(sql).sqlstate().to_owned();
        assert!(
            ["42501", "42601"].contains(&sqlstate.as_str()),
            "{sql}: {sqlstate}"
        );
    }
    assert_eq!(files(&server, "mine"), [] as [PathBuf; 0]);
    connect(&server, "bob", "sales").unwrap();
}

#[test]
fn a_name_that_no_client_could_connect_to_is_refused() {
    let Some(server) = server(1, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    for name in ["../outside", "a/b", ".hidden", "", &"x".repeat(64)] {
        let error = root.error(&format!("create database \"{name}\""));
        assert_eq!(error.sqlstate(), "42602", "{name}: {}", error.message());
        let error = root.error(&format!("drop database \"{name}\""));
        assert_eq!(error.sqlstate(), "3D000", "{name}");
    }
    for (option, sqlstate) in [
        ("owner = bob", "0A000"),
        ("encoding = 'LATIN1'", "0A000"),
        ("template = alice", "0A000"),
        ("locale = 'de_DE.UTF-8'", "0A000"),
        ("connection limit = 3", "0A000"),
    ] {
        let error = root.error(&format!("create database sales {option}"));
        assert_eq!(error.sqlstate(), sqlstate, "{option}");
    }
    assert_eq!(files(&server, "sales"), [] as [PathBuf; 0]);
}

#[test]
fn a_database_that_is_used_is_not_dropped_whichever_worker_has_it() {
    let Some(server) = server(4, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    let (mut alice, mut bob) = (
        connect(&server, "alice", "alice").unwrap(),
        connect(&server, "bob", "alice").unwrap(),
    );
    assert_ne!(alice.worker(), root.worker());
    alice.execute("create table kept as select 42 as i");
    let refused = |root: &mut Session, detail: &str| {
        let error = root.error("drop database alice");
        assert_eq!(error.sqlstate(), "55006");
        assert_eq!(
            error.message(),
            "database \"alice\" is being accessed by other users"
        );
        assert_eq!(error.field('D'), detail);
    };
    refused(&mut root, "There are 2 other sessions using the database.");
    assert_eq!(bob.rows("select i from kept"), ["42"]);
    drop(bob);
    refused(&mut root, "There is 1 other session using the database.");
    assert_eq!(alice.rows("select i from kept"), ["42"]);
    // In the same worker it is no other.
    let mut neighbour = connect(&server, "root", "alice").unwrap();
    assert_eq!(neighbour.worker(), alice.worker());
    neighbour.execute("create database other");
    let _open = connect(&server, "bob", "other").unwrap();
    assert_eq!(neighbour.error("drop database other").sqlstate(), "55006");
    assert_eq!(
        neighbour.error("drop database alice").message(),
        "cannot drop the currently open database"
    );
}

#[test]
fn a_database_without_sessions_is_dropped_whichever_worker_has_it_open() {
    let Some(server) = server(4, &["--database-idle-timeout", "1h"]) else {
        return;
    };
    let mut root = connect(&server, "root", "root").unwrap();
    let mut owners = HashSet::new();
    // Others take room in the workers, so that all of them get one.
    let mut others = Vec::new();
    for i in 0..4 {
        root.execute(&format!("create database idle{i}"));
        let mut session = connect(&server, "bob", &format!("idle{i}")).unwrap();
        session.execute("create table t as select 42 as i");
        owners.insert(session.worker());
        root.execute(&format!("create database busy{i}"));
        others.push(connect(&server, "bob", &format!("busy{i}")).unwrap());
    }
    assert!(owners.len() > 1, "{owners:?}");
    for i in 0..4 {
        let name = format!("idle{i}");
        eventually("it is open and has no session", || {
            let status = status(&server);
            let databases = status["databases"].as_array().unwrap();
            databases
                .iter()
                .any(|seen| seen["name"] == name.as_str() && seen["sessions"] == 0)
                .then_some(())
        });
        root.execute(&format!("drop database {name}"));
        assert_eq!(files(&server, &name), [] as [PathBuf; 0]);
        assert_eq!(connect(&server, "bob", &name).err().as_deref(), Some("3D000"));
    }
    for other in &mut others {
        assert_eq!(other.rows("select 1 as a"), ["1"]);
    }
}

#[test]
fn a_forced_drop_ends_the_sessions_whatever_they_do_and_wherever_they_are() {
    let Some(server) = server(2, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    for database in ["here", "there"] {
        root.execute(&format!("create database {database}"));
    }
    let mut bystander = connect(&server, "alice", "alice").unwrap();
    let mut workers = HashSet::new();
    for database in ["here", "there"] {
        let mut idle = connect(&server, "bob", database).unwrap();
        let mut in_transaction = connect(&server, "bob", database).unwrap();
        in_transaction.execute("begin; create table t (i int)");
        let mut busy = connect(&server, "bob", database).unwrap();
        busy.send(&query(crate::wire::ENDLESS));
        workers.insert(idle.worker());
        assert_eq!(
            root.query(&format!("drop database {database} with (force)")),
            ["CommandComplete DROP DATABASE", "ReadyForQuery I"]
        );
        for session in [&mut idle, &mut in_transaction, &mut busy] {
            let last = session.last_words();
            assert_eq!(
                last.last().map(String::as_str),
                Some("Error FATAL 57P01"),
                "{last:?}"
            );
        }
        assert_eq!(files(&server, database), [] as [PathBuf; 0]);
        assert_eq!(connect(&server, "bob", database).err().as_deref(), Some("3D000"));
    }
    assert_eq!(workers.len(), 2);
    assert_eq!(bystander.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_drop_that_waits_can_be_cancelled() {
    let Some(server) = server(2, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    let mut alice = connect(&server, "alice", "alice").unwrap();
    for database in ["alice", "sales"] {
        let mut used = match database {
            "alice" => connect(&server, "bob", "alice").unwrap(),
            _ => {
                // Where root is, so that nobody else has to be asked.
                root.execute("create database sales");
                connect(&server, "bob", "sales").unwrap()
            }
        };
        root.send(&query(&format!("drop database {database}")));
        let seen = "select count(*) from pg_stat_activity where state = 'active' and query like 'drop%'";
        let mut watcher = connect(&server, "root", "root").unwrap();
        eventually("it waits", || (watcher.rows(seen) == ["1"]).then_some(()));
        Session::cancel(&root.key, &server, Transport::Tcp);
        assert_eq!(root.transcript(), ["Error 57014", "ReadyForQuery I"]);
        root.settle();
        assert_eq!(used.rows("select 1 as a"), ["1"]);
    }
    root.execute("set statement_timeout = '100ms'");
    assert_eq!(root.error("drop database alice").sqlstate(), "57014");
    assert_eq!(alice.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_file_that_somebody_else_has_open_is_not_dropped() {
    let Some(server) = server(1, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    root.execute("create database sales");
    let file = server.data().join("sales.duckdb");
    let ours = Instance::open(&file, &Options::default()).unwrap();
    let error = root.error("drop database sales");
    assert_eq!(
        (error.sqlstate(), error.field('D')),
        ("55006", "Another process has it open.")
    );
    assert!(file.exists());
    drop(ours);
    root.execute("drop database sales");
}

#[test]
fn what_cannot_be_made_says_why_and_leaves_nothing() {
    let Some(server) = server(1, &[]) else { return };
    let mut root = connect(&server, "root", "root").unwrap();
    // Not even root can open a directory for writing.
    let obstacle = server.data().join("sales.duckdb.lease");
    fs::create_dir(&obstacle).unwrap();
    let error = root.error("create database sales");
    assert_eq!(error.sqlstate(), "58030", "{}", error.message());
    assert!(error.message().contains("sales"), "{}", error.message());
    assert_eq!(files(&server, "sales"), std::slice::from_ref(&obstacle));
    fs::remove_dir(&obstacle).unwrap();
    // As if the disk were full, but for the log.
    limit_files(server.worker_process(1), Some(10_000));
    let error = root.error("create database sales");
    assert_eq!(error.sqlstate(), "58030", "{}", error.message());
    assert_eq!(files(&server, "sales"), [] as [PathBuf; 0]);
    limit_files(server.worker_process(1), None);
    root.execute("create database sales");
    connect(&server, "bob", "sales").unwrap();
}

/// Two administrators in two workers make and drop the same database, while
/// clients connect to it all the time: it is there or it is not, and who is in has
/// a database that works.
#[test]
fn who_connects_while_databases_come_and_go_gets_a_whole_one_or_none() {
    let Some(server) = server(4, &["--database-idle-timeout", "50ms"]) else {
        return;
    };
    let alice = connect(&server, "alice", "alice").unwrap();
    let (mut one, mut other) = (
        connect(&server, "root", "root").unwrap(),
        connect(&server, "root", "alice").unwrap(),
    );
    assert_ne!(one.worker(), other.worker());
    let (done, attempts) = (AtomicBool::new(false), AtomicU32::new(0));
    // Each client has tried since, or nearly so.
    let next_attempts = || {
        let enough = attempts.load(Ordering::Relaxed) + 6;
        eventually("the clients go on", || {
            (attempts.load(Ordering::Relaxed) >= enough).then_some(())
        });
    };
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (server, done, attempts) = (&server, &done, &attempts);
                scope.spawn(move || {
                    let (mut inside, mut outside) = (0, 0);
                    while !done.load(Ordering::Relaxed) {
                        match connect(server, "bob", "comes") {
                            Ok(mut session) => {
                                let table = format!("t{client}_{inside}");
                                session.execute(&format!("create table {table} as select {inside} as i"));
                                assert_eq!(
                                    session.rows(&format!("select i from {table}")),
                                    [inside.to_string()]
                                );
                                inside += 1;
                            }
                            Err(sqlstate) => {
                                assert_eq!(sqlstate, "3D000");
                                outside += 1;
                            }
                        }
                        attempts.fetch_add(1, Ordering::Relaxed);
                    }
                    (inside, outside)
                })
            })
            .collect();
        let administrators: Vec<_> = [&mut one, &mut other]
            .into_iter()
            .map(|root| {
                let next_attempts = &next_attempts;
                scope.spawn(move || {
                    for _ in 0..8 {
                        for (sql, expected) in [
                            ("create database comes", ["", "42P04"]),
                            ("drop database comes", ["", "3D000"]),
                        ] {
                            root.send(&query(sql));
                            let answers = root.answers();
                            let sqlstate = answers.iter().find_map(|answer| match answer {
                                Answer::Error(report) => Some(report.sqlstate().to_owned()),
                                _ => None,
                            });
                            let sqlstate = sqlstate.unwrap_or_default();
                            // Clients may be in it for longer than a drop waits.
                            let expected = expected.contains(&sqlstate.as_str()) || sqlstate == "55006";
                            assert!(expected, "{sql}: {answers:?}");
                            next_attempts();
                        }
                    }
                })
            })
            .collect();
        administrators
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Relaxed);
        let seen: Vec<(u32, u32)> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        seen
    });
    let (inside, outside) = seen
        .iter()
        .fold((0, 0), |sum, seen| (sum.0 + seen.0, sum.1 + seen.1));
    assert!(inside > 0 && outside > 0, "{seen:?}");
    println!("{inside} sessions, {outside} refusals");
    one.execute("drop database if exists comes with (force)");
    assert_eq!(files(&server, "comes"), [] as [PathBuf; 0]);
    drop(alice);
}
