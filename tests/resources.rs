//! Memory and disk: how the databases of a worker share them, and what happens
//! at the limit.

use std::fs;

use crate::support::message::*;
use crate::support::{Server, Session, Transport, eventually};

fn is_postgres() -> bool {
    if Server::shared().is_postgres() {
        println!("skipped: this is about DuckDB's limits");
        return true;
    }
    false
}

/// What DuckDB says of that setting.
fn setting(session: &mut Session, name: &str) -> String {
    session
        .rows(&format!(
            "select value from duckdb_settings() where name = '{name}'"
        ))
        .remove(0)
}

/// Needs more than a hundred megabytes, in memory or on disk.
const LARGE: &str = "select max(r), count(h) from \
    (select row_number() over (order by h) as r, h from (select md5(i::varchar) as h from range(1500000) t(i)))";

#[test]
fn open_databases_of_a_worker_have_equal_parts_of_its_memory() {
    if is_postgres() {
        return;
    }
    let arguments = ["--memory-limit", "1GiB", "--database-idle-timeout", "200ms"];
    let server = Server::with_workers(1, &arguments);
    let mut first = Session::of(&server, "u0", Transport::Tcp);
    first.execute("create table res_kept as select 42 as i");
    assert_eq!(setting(&mut first, "memory_limit"), "1.0 GiB");
    let mut second = Session::of(&server, "u1", Transport::Tcp);
    for session in [&mut first, &mut second] {
        eventually("each has half", || {
            (setting(session, "memory_limit") == "512.0 MiB").then_some(())
        });
    }
    let third = Session::of(&server, "u2", Transport::Tcp);
    let fourth = Session::of(&server, "u3", Transport::Tcp);
    eventually("each has a quarter", || {
        (setting(&mut first, "memory_limit") == "256.0 MiB").then_some(())
    });
    drop((second, third, fourth));
    eventually("what is closed needs no memory", || {
        (setting(&mut first, "memory_limit") == "1.0 GiB").then_some(())
    });
    assert_eq!(first.rows("select i from res_kept"), ["42"]);
}

#[test]
fn a_running_query_may_be_too_large_for_its_new_share_and_ends_well() {
    if is_postgres() {
        return;
    }
    let server = Server::with_workers(1, &["--memory-limit", "600MiB"]);
    let mut first = Session::of(&server, "u0", Transport::Tcp);
    first.send(&query(LARGE));
    let others: Vec<Session> = (1..6)
        .map(|i| Session::of(&server, &format!("u{i}"), Transport::Tcp))
        .collect();
    assert_eq!(first.transcript()[1], "DataRow 1500000|1500000");
    eventually("it has its share in the end", || {
        (setting(&mut first, "memory_limit") == "100.0 MiB").then_some(())
    });
    drop(others);
}

#[test]
fn a_query_larger_than_memory_spills_into_a_directory_of_its_database() {
    if is_postgres() {
        return;
    }
    let server = Server::with_workers(1, &["--memory-limit", "60MiB"]);
    let spill = server.data().join("tmp/u0.spill");
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    assert_eq!(
        setting(&mut session, "temp_directory"),
        spill.display().to_string()
    );
    session.send(&query(LARGE));
    eventually("it spills", || {
        fs::read_dir(&spill)
            .is_ok_and(|mut files| files.next().is_some())
            .then_some(())
    });
    assert_eq!(session.transcript()[1], "DataRow 1500000|1500000");
    eventually("nothing is left", || {
        fs::read_dir(&spill)
            .is_ok_and(|mut files| files.next().is_none())
            .then_some(())
    });
}

#[test]
fn the_quota_on_disk_is_told_to_every_database() {
    if is_postgres() {
        return;
    }
    let server = Server::with_workers(1, &["--max-temp-directory-size", "20MiB"]);
    for user in ["u0", "u1"] {
        let mut session = Session::of(&server, user, Transport::Tcp);
        assert_eq!(setting(&mut session, "max_temp_directory_size"), "20.0 MiB");
    }
}

#[test]
fn what_exceeds_the_quota_on_disk_fails_and_the_session_goes_on() {
    if is_postgres() {
        return;
    }
    let limits = ["--memory-limit", "100MB", "--max-temp-directory-size", "20MiB"];
    let server = Server::with_workers(1, &limits);
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    // Random, so that it cannot be compressed.
    let report =
        session.error("create temp table x as select random() as r, uuid() as u from range(8000000)");
    assert_eq!(report.sqlstate(), "53100", "{}", report.message());
    assert_eq!(session.rows("select 1 as a"), ["1"]);
    session.execute("create temp table x as select 1 as a");
}

#[test]
fn clients_cannot_change_the_limits_on_memory_and_disk() {
    if is_postgres() {
        return;
    }
    let server = Server::with_workers(1, &["--memory-limit", "1GiB", "--threads", "2"]);
    let mut session = Session::of(&server, "u0", Transport::Tcp);
    let names = [
        "memory_limit",
        "threads",
        "temp_directory",
        "max_temp_directory_size",
    ];
    let before = names.map(|name| setting(&mut session, name));
    for name in [
        "memory_limit",
        "max_memory",
        "\"memory_limit\"",
        "threads",
        "max_temp_directory_size",
    ] {
        for sql in [
            format!("set {name} = '7'"),
            format!("set global {name} = '7GB'"),
            format!("set session {name} = '7GB'"),
            format!("/**/ set /**/ {name} to '7GB'"),
            format!("reset {name}"),
            format!("reset global {name}"),
            format!("pragma {name} = '7GB'"),
            format!("pragma {name}('7GB')"),
            format!("call pragma_{name}('7GB')"),
            format!("explain analyze set {name} = '7GB'"),
            format!("explain analyze set global {name} = '7GB'"),
            format!("explain (analyze, format json) set global {name} = '7GB'"),
            format!("explain analyze reset global {name}"),
            format!("explain analyze pragma {name} = '7GB'"),
            format!("prepare p as set global {name} = '7GB'"),
            format!("prepare p as pragma {name} = '7GB'"),
            format!("select set_config('{name}', '7GB', false)"),
            format!("from query('set global {name} = ''7GB''')"),
            format!("copy (set global {name} = '7GB') to stdout"),
            format!("with s as (set global {name} = '7GB') select 1"),
        ] {
            let transcript = session.query(&sql);
            assert!(transcript[0].starts_with("Error "), "{sql}: {transcript:?}");
            session.query("rollback");
            let parsed = session.run(&[
                parse_statement("", &sql),
                bind("", "", &[]),
                execute("", 0),
                sync(),
            ]);
            assert!(
                parsed.iter().any(|answer| answer.starts_with("Error ")),
                "{sql}: {parsed:?}"
            );
        }
        let transcript = session.query(&format!("select 1 as a; set global {name} = '7GB'"));
        assert!(transcript[3].starts_with("Error "), "{transcript:?}");
    }
    assert_eq!(names.map(|name| setting(&mut session, name)), before);
}
