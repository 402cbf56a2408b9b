//! What the server tells: to its operator in its logs, to its users in
//! pg_stat_activity and pg_stat_database, and how they stop each other's
//! sessions.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::message::*;
use crate::support::session::V3_0;
use crate::support::{Server, Session, Transport, eventually};
use crate::wire::ENDLESS;

const PASSWORD: &str = "correct horse";

/// A server with alice, bob and the administrator root, all with one password;
/// `None` when the tests are run against PostgreSQL.
fn server(arguments: &[&str]) -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's logs and users");
        return None;
    }
    let yaml = format!(
        "users:\n  alice: {PASSWORD}\n  bob: {{password: {PASSWORD}, databases: [alice, bob]}}\n  \
         root: {{password: {PASSWORD}, admin: on}}\n"
    );
    Some(Server::configured(&yaml, ("alice", PASSWORD), arguments))
}

/// A session of this user in alice's database.
fn guest(server: &Server, user: &str) -> Session {
    let mut session = Session::open(server, Transport::Tls13);
    session.send(&startup(V3_0, &[("user", user), ("database", "alice")]));
    session.authenticate(PASSWORD).unwrap();
    session.become_ready();
    session
}

/// The lines of a query log, once there are so many.
#[track_caller]
fn lines(file: &Path, count: usize) -> Vec<Value> {
    eventually("the lines are written", || {
        let text = fs::read_to_string(file).ok()?;
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn the_query_log_has_a_line_for_each_statement_and_no_text() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries");
    let Some(server) = server(&["--query-log", "all", "--query-log-file", file.to_str().unwrap()]) else {
        return;
    };
    let mut session = Session::over(&server, Transport::Tcp);
    session.query("select i as a from range(3) r(i)");
    session.query("select nosuch; select 1");
    session.query("create table told (i int); insert into told values (1), (2)");
    session.run(&[
        parse_statement("", "select $1::int"),
        bind("", "", &["5"]),
        execute("", 0),
        sync(),
    ]);
    session.run(&[parse_statement("", "selekt"), sync()]);
    let lines = lines(&file, 6);
    let told: Vec<(u64, &str)> = lines
        .iter()
        .map(|line| (line["rows"].as_u64().unwrap(), line["sqlstate"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            (3, "00000"),
            (0, "42703"),
            (0, "00000"),
            (2, "00000"),
            (1, "00000"),
            (0, "42601")
        ]
    );
    for line in &lines {
        assert_eq!(
            (&line["user"], &line["database"]),
            (&"alice".into(), &"alice".into())
        );
        assert_eq!(line["backend_id"], session.key.0);
        assert!(
            line["duration_ms"].as_f64().is_some_and(|time| time > 0.0),
            "{line}"
        );
        assert!(
            line["time"].as_str().is_some() && line.get("text").is_none(),
            "{line}"
        );
    }
}

#[test]
fn the_query_log_has_the_text_where_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries");
    let arguments = [
        "--log-min-duration-statement",
        "0",
        "--query-log-text",
        "on",
        "--query-log-file",
        file.to_str().unwrap(),
    ];
    let Some(server) = server(&arguments) else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("select 'a\nb'");
    session.run(&[
        parse_statement("", "select 2"),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ]);
    let texts: Vec<Value> = lines(&file, 2).iter().map(|line| line["text"].clone()).collect();
    assert_eq!(texts, ["select 'a\nb'", "select 2"]);
}

#[test]
fn a_password_in_a_statement_that_fails_is_not_logged() {
    let Some(server) = server(&["--query-log", "errors"]) else {
        return;
    };
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("select 'hunter1'");
    session.error("create user alice password 'hunter2'");
    session.error("select 'hunter3'::int");
    let log = eventually("both are logged", || {
        let log = server.log();
        (log.matches("duckgres::query_log").count() == 2).then_some(log)
    });
    assert!(log.contains("sqlstate=\"22P02\""), "{log}");
    assert!(!log.contains("hunter"), "{log}");
}

#[test]
fn only_slow_statements_are_logged_where_a_time_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("queries");
    let arguments = [
        "--log-min-duration-statement",
        "200ms",
        "--query-log-file",
        file.to_str().unwrap(),
    ];
    let Some(server) = server(&arguments) else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("select 1");
    session.execute("set statement_timeout = '300ms'");
    session.error(ENDLESS);
    let lines = lines(&file, 1);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["sqlstate"], "57014");
    assert!(lines[0]["duration_ms"].as_f64().is_some_and(|time| time >= 200.0));
}

#[test]
fn an_operator_can_follow_the_servers_life_in_its_log() {
    let Some(mut server) = server(&[]) else { return };
    drop(Session::over(&server, Transport::Tcp));
    assert!(server.stop().success());
    let log = server.log();
    let events = [
        "started the worker",
        "listening",
        "connected",
        "opened database=\"alice\"",
        "stopping",
        "closed all databases",
        "stopped",
    ];
    for event in events {
        assert!(log.contains(event), "{event}: {log}");
    }
    assert_eq!(log.matches("closed all databases").count(), 1, "{log}");
}

#[test]
fn a_session_knows_its_own_number() {
    let Some(server) = server(&[]) else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    let number = session.key.0.to_string();
    assert_eq!(session.rows("select pg_backend_pid()"), [number.as_str()]);
    let own = "select pid, usename, datname, state, query, backend_type, client_addr from pg_catalog.pg_stat_activity";
    assert_eq!(
        session.rows(own),
        [format!(
            "{number}|alice|alice|active|{own}|client backend|127.0.0.1"
        )]
    );
}

#[test]
fn what_a_session_does_can_be_seen() {
    let Some(server) = server(&[]) else { return };
    let mut busy = Session::with(&server, Transport::Tls13, V3_0, &[("application_name", "report")]);
    let mut watcher = Session::over(&server, Transport::Unix);
    let mut seen = |columns: &str| {
        watcher.rows(&format!(
            "select {columns} from pg_stat_activity where pid <> pg_backend_pid()"
        ))
    };
    assert_eq!(seen("application_name, state, query"), ["report|idle|"]);
    busy.execute("begin");
    assert_eq!(
        seen("state, query, xact_start is not null"),
        ["idle in transaction|begin|t"]
    );
    busy.error("selekt");
    assert_eq!(seen("state"), ["idle in transaction (aborted)"]);
    busy.execute("rollback");
    busy.execute("set application_name = 'other'");
    assert_eq!(
        seen("application_name, state, xact_start is null, query_start >= backend_start"),
        ["other|idle|t|t"]
    );
    busy.send(&query(ENDLESS));
    eventually("it is seen to run", || {
        (seen("state, left(query, 12)") == ["active|select count"]).then_some(())
    });
}

#[test]
fn a_user_sees_the_sessions_of_that_user_and_an_administrator_all() {
    let Some(server) = server(&[]) else { return };
    let mut alice = Session::over(&server, Transport::Tcp);
    let mut bob = guest(&server, "bob");
    let mut root = guest(&server, "root");
    alice.execute("select 'a secret of alice'");
    let users = "select usename from pg_stat_activity order by usename";
    assert_eq!(alice.rows(users), ["alice"]);
    assert_eq!(bob.rows(users), ["bob"]);
    assert_eq!(root.rows(users), ["alice", "bob", "root"]);
    let secret =
        "select count(*) from pg_stat_activity where query like '%a secret of%' and pid <> pg_backend_pid()";
    assert_eq!(bob.rows(secret), ["0"]);
    assert_eq!(root.rows(secret), ["1"]);
}

#[test]
fn a_view_over_the_sessions_shows_everybody_their_own() {
    let Some(server) = server(&[]) else { return };
    let mut alice = Session::over(&server, Transport::Tcp);
    let mut bob = guest(&server, "bob");
    alice.execute("create view told_sessions as select usename from pg_stat_activity");
    assert_eq!(alice.rows("from told_sessions"), ["alice"]);
    assert_eq!(bob.rows("from told_sessions"), ["bob"]);
}

#[test]
fn a_statement_is_cancelled_and_its_session_goes_on() {
    let Some(server) = server(&[]) else { return };
    let mut busy = Session::over(&server, Transport::Tls13);
    let mut other = Session::over(&server, Transport::Tcp);
    busy.send(&query(ENDLESS));
    let cancel = "select pg_cancel_backend(pid) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()";
    let active =
        "select left(query, 12) from pg_stat_activity where state = 'active' and pid <> pg_backend_pid()";
    eventually("it runs", || {
        (other.rows(active) == ["select count"]).then_some(())
    });
    // One that comes before the statement has really begun concerns nothing.
    eventually("it is cancelled", || {
        other.rows(cancel);
        other.rows(active).is_empty().then_some(())
    });
    let answers = busy.transcript();
    assert!(answers.contains(&"Error 57014".to_owned()), "{answers:?}");
    busy.settle();
    assert_eq!(busy.rows("select 1"), ["1"]);
    assert_eq!(
        other.rows("select pg_cancel_backend(1)"),
        ["f"],
        "there is no such session"
    );
}

#[test]
fn a_session_is_ended_whatever_it_does() {
    let Some(server) = server(&[]) else { return };
    let mut idle = Session::over(&server, Transport::Tls13);
    let mut root = guest(&server, "root");
    let mut in_transaction = Session::over(&server, Transport::Tcp);
    in_transaction.execute("begin");
    let mut busy = Session::over(&server, Transport::Tls12);
    busy.send(&query(ENDLESS));
    eventually("it runs", || {
        let running = "select count(*) from pg_stat_activity where state = 'active' and usename = 'alice'";
        (root.rows(running) == ["1"]).then_some(())
    });
    assert_eq!(
        root.rows("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'alice'"),
        ["t", "t", "t"]
    );
    for session in [&mut idle, &mut in_transaction, &mut busy] {
        let last = session.last_words();
        assert!(
            last.last().is_some_and(|answer| answer == "Error FATAL 57P01"),
            "{last:?}"
        );
    }
    eventually("they are gone", || {
        (root.rows("select count(*) from pg_stat_activity") == ["1"]).then_some(())
    });
}

#[test]
fn the_sessions_of_others_cannot_be_stopped() {
    let Some(server) = server(&[]) else { return };
    let mut alice = Session::over(&server, Transport::Tcp);
    let mut bob = guest(&server, "bob");
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let error = bob.error(&format!("select {function}({})", alice.key.0));
        assert_eq!(error.sqlstate(), "42501");
    }
    assert_eq!(alice.rows("select 1"), ["1"]);
}

#[test]
fn transactions_are_counted_by_database() {
    let Some(server) = server(&[]) else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    let _other = guest(&server, "bob");
    let counts =
        "select numbackends, xact_commit, xact_rollback from pg_stat_database where datname = 'alice'";
    assert_eq!(session.rows(counts), ["2|0|0"]);
    session.execute("begin; select 1; select 2; commit");
    session.execute("begin");
    session.error("selekt");
    session.execute("rollback");
    session.error("select 1; select nosuch");
    // The first look and the first block; the second block and the last line.
    assert_eq!(session.rows(counts), ["2|2|2"]);
    let mut root = Session::of(&server, "root", Transport::Tcp);
    assert_eq!(
        root.rows("select datname, numbackends from pg_stat_database order by 1"),
        ["alice|2", "root|1"]
    );
    assert_eq!(session.rows("select datname from pg_stat_database"), ["alice"]);
}
