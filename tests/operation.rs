//! The server as its operator sees it: starting, stopping, limits, files, and
//! what happens when a process dies.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::message::*;
use crate::support::programs::run;
use crate::support::session::V3_0;
use crate::support::transport::{Road, tcp};
use crate::support::{Server, Session, Transport, eventually};
use crate::wire::ENDLESS;

/// The process that runs the queries.
#[track_caller]
pub fn worker(server: &Server) -> u32 {
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process that has just been forked still has its parent's name.
    let worker = || {
        server
            .processes()
            .into_iter()
            .find(|pid| name(*pid).trim() == "duckgres-worker")
    };
    eventually("the server has a worker", worker)
}

/// A server with these arguments; `None` when the tests are run against PostgreSQL.
fn private(arguments: &[&str]) -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's processes");
        return None;
    }
    Some(Server::duckgres(arguments))
}

#[test]
fn a_stop_ends_idle_sessions_with_a_reason_and_leaves_in_good_order() {
    let Some(mut server) = private(&[]) else { return };
    let mut sessions: Vec<Session> = Transport::ALL
        .into_iter()
        .map(|transport| Session::over(&server, transport))
        .collect();
    assert!(server.stop().success());
    for session in &mut sessions {
        assert_eq!(session.last_words(), ["Error FATAL 57P01"]);
    }
    assert!(!server.socket().exists(), "the Unix socket is gone");
}

#[test]
fn a_stop_lets_running_statements_finish() {
    // More than the sockets' buffers hold.
    let Some(mut server) = private(&["--shutdown-timeout", "300s"]) else {
        return;
    };
    let mut session = Session::over(&server, Transport::Tcp);
    session.send(&query(
        "select repeat('x', 1000) as a from generate_series(1, 30000) g(i)",
    ));
    session.take(2);
    server.signal(Signal::SIGTERM);
    let rest = session.last_words();
    assert_eq!(rest.len(), 30_000 - 1 + 3, "{:?}", rest.last_chunk::<3>());
    assert_eq!(
        rest[rest.len() - 3..],
        [
            "CommandComplete SELECT 30000",
            "ReadyForQuery I",
            "Error FATAL 57P01"
        ]
    );
    assert!(server.exit_status().success());
}

#[test]
fn the_end_of_the_patience_ends_running_statements() {
    let Some(mut server) = private(&["--shutdown-timeout", "1s"]) else {
        return;
    };
    let mut session = Session::over(&server, Transport::Tcp);
    session.send(&query(ENDLESS));
    let mut in_transaction = Session::over(&server, Transport::Tls13);
    in_transaction.execute("begin");
    server.stop();
    for session in [&mut session, &mut in_transaction] {
        let last = session.last_words();
        assert!(
            last.last()
                .is_some_and(|answer| answer.starts_with("Error FATAL 57P01")),
            "{last:?}"
        );
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let Some(mut server) = private(&["--shutdown-timeout", "10m"]) else {
        return;
    };
    let mut session = Session::over(&server, Transport::Tcp);
    session.send(&query(ENDLESS));
    server.signal(Signal::SIGINT);
    eventually("the server has heard the first", || {
        server.log().contains("stopping").then_some(())
    });
    server.stop();
}

#[test]
fn nobody_gets_in_while_the_server_stops() {
    let Some(mut server) = private(&["--shutdown-timeout", "10m"]) else {
        return;
    };
    let mut session = Session::over(&server, Transport::Tcp);
    session.send(&query(ENDLESS));
    server.signal(Signal::SIGTERM);
    eventually("new clients are turned away", || {
        let Ok(road) = Road::open(&server, Transport::Tcp) else {
            return Some(());
        };
        let mut late = Session::on(road);
        late.try_send(&startup(V3_0, &[("user", &server.user)])).ok();
        let last = late.last_words();
        (last.is_empty() || last == ["Error FATAL 57P03"]).then_some(())
    });
    server.stop();
}

#[test]
fn a_worker_that_died_is_replaced_and_nothing_committed_is_lost() {
    let Some(server) = private(&[]) else { return };
    let mut session = Session::over(&server, Transport::Tls13);
    session.execute("create table op_killed (i int)");
    for i in 0..50 {
        session.execute(&format!("insert into op_killed values ({i})"));
    }
    session.execute("begin");
    session.execute("insert into op_killed values (1000)");
    let first = worker(&server);
    kill(Pid::from_raw(first.try_into().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(session.last_words(), [] as [&str; 0], "its sessions break");
    eventually("there is another worker", || {
        Some(worker(&server)).filter(|now| *now != first)
    });
    let mut again = Session::over(&server, Transport::Tls13);
    assert_eq!(again.rows("select count(*), max(i) from op_killed"), ["50|49"]);
}

#[test]
fn secrets_are_readable_by_their_owner_alone() {
    let Some(server) = private(&[]) else { return };
    let data = server.data();
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(""), 0o700);
    for name in ["pgpass", "server.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert!(
        !server.log().contains(&server.password),
        "the password is not in the log"
    );
    for pid in server.processes() {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            let holds = text
                .windows(server.password.len())
                .any(|part| part == server.password.as_bytes());
            assert!(!holds, "the password is not in {file}");
        }
    }
}

#[test]
fn two_servers_cannot_share_a_data_directory() {
    let Some(server) = private(&[]) else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    command.args(["--port", "0", "--data-dir"]).arg(server.data());
    let output = run(&mut command, "");
    assert!(!output.status.success());
    assert!(
        output.err.contains(server.data().to_str().unwrap()),
        "it says which: {}",
        output.err
    );
    server.assert_serving();
}

#[test]
fn a_port_that_is_taken_is_said_to_be() {
    let Some(server) = private(&[]) else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    let data = server.scratch("another");
    command
        .args(["--port", &server.port.to_string(), "--data-dir"])
        .arg(data);
    let output = run(&mut command, "");
    assert!(!output.status.success());
    assert!(output.err.contains(&server.port.to_string()), "{}", output.err);
}

#[test]
fn there_are_only_so_many_connections() {
    let Some(server) = private(&["--max-connections", "3"]) else {
        return;
    };
    let sessions: Vec<Session> = (0..3).map(|_| Session::over(&server, Transport::Tcp)).collect();
    for transport in Transport::ALL {
        let refused = eventually("an answer", || {
            let mut session = Session::on(Road::open(&server, transport).ok()?);
            session.try_send(&startup(V3_0, &[("user", &server.user)])).ok();
            Some(session.last_words())
        });
        assert_eq!(refused, ["Error FATAL 53300"], "{transport:?}");
    }
    drop(sessions);
    eventually("there is room again", || {
        let mut session = Session::on(Road::open(&server, Transport::Tcp).ok()?);
        session.try_send(&startup(V3_0, &[("user", &server.user)])).ok()?;
        session.authenticate(&server.password).ok()
    });
}

#[test]
fn plaintext_is_refused_where_encryption_is_required() {
    let Some(server) = private(&["--tls-mode", "require"]) else {
        return;
    };
    let mut session = Session::open(&server, Transport::Tcp);
    session.send(&startup(V3_0, &[("user", &server.user)]));
    assert_eq!(session.last_words(), ["Error FATAL 28000"]);
    Session::over(&server, Transport::Tls13);
    Session::over(&server, Transport::Unix);
}

#[test]
fn encryption_is_not_offered_where_it_is_switched_off() {
    let Some(server) = private(&["--tls-mode", "disable"]) else {
        return;
    };
    let mut socket = tcp(&server).unwrap();
    socket.write_all(&ssl_request()).unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    Session::over(&server, Transport::Tcp);
}

#[test]
fn an_old_tls_version_is_refused_when_told_so() {
    let Some(server) = private(&["--tls-min-version", "1.3"]) else {
        return;
    };
    assert!(Road::open(&server, Transport::Tls12).is_err());
    Session::over(&server, Transport::Tls13);
}

#[test]
fn a_client_that_says_nothing_is_sent_away() {
    let Some(server) = private(&["--authentication-timeout", "1s"]) else {
        return;
    };
    for first in [
        &b""[..],
        &[0, 0],
        &ssl_request(),
        &startup(V3_0, &[("user", &server.user)]),
    ] {
        let mut socket = tcp(&server).unwrap();
        socket.write_all(first).unwrap();
        // Reading ends: the server has closed the connection.
        socket.read_to_end(&mut Vec::new()).unwrap();
    }
    server.assert_serving();
}

/// Sessions in their hundreds cost sockets, not threads.
#[test]
fn idle_sessions_take_no_thread_each() {
    let Some(server) = private(&[]) else { return };
    let threads = || {
        let tasks = server
            .processes()
            .into_iter()
            .map(|pid| fs::read_dir(format!("/proc/{pid}/task")).unwrap().count());
        tasks.sum::<usize>()
    };
    let mut sessions: Vec<Session> = (0..8).map(|_| Session::over(&server, Transport::Tcp)).collect();
    let few = threads();
    sessions.extend((0..150).map(|_| Session::over(&server, Transport::Tcp)));
    for session in &mut sessions {
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
    eventually("threads go where sessions are idle", || {
        (threads() < few + 60).then_some(())
    });
}

/// DuckDB itself does not open such a file again.
#[test]
fn a_schema_with_a_type_and_a_table_of_it_survives_the_death_of_the_worker() {
    if Server::shared().is_postgres() {
        println!("skipped: PostgreSQL has no worker");
        return;
    }
    let server = Server::with_workers(1, &[]);
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    session.execute("create schema s");
    session.execute("create type s.mood as enum ('sad', 'happy')");
    session.execute("create table s.t (m s.mood default 'happy')");
    session.execute("begin");
    session.execute("create schema other");
    session.execute("create type other.mood as enum ('so', 'la')");
    session.execute("commit");
    session.execute("create table t as select 'la'::other.mood as m");
    session.execute("insert into s.t values ('sad'), (default)");
    kill(Pid::from_raw(server.worker_process(1) as i32), Signal::SIGKILL).unwrap();
    assert_eq!(session.last_words(), [] as [&str; 0]);
    let mut again = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(again.rows("select m from s.t order by m"), ["sad", "happy"]);
    assert_eq!(again.rows("select m from t"), ["la"]);
}
