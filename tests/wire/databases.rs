//! CREATE DATABASE and DROP DATABASE: where they may stand and what they say.

use crate::support::message::*;
use crate::support::{Answer, Session};

const CREATED: [&str; 2] = ["CommandComplete CREATE DATABASE", "ReadyForQuery I"];
const DROPPED: [&str; 2] = ["CommandComplete DROP DATABASE", "ReadyForQuery I"];

#[test]
fn a_database_is_made_and_dropped_once() {
    let mut session = Session::new();
    assert_eq!(session.query("create database wire_once"), CREATED);
    let error = session.error("create database wire_once");
    assert_eq!(error.sqlstate(), "42P04");
    assert_eq!(error.message(), "database \"wire_once\" already exists");
    assert_eq!(session.query("drop database wire_once"), DROPPED);
    let error = session.error("drop database wire_once");
    assert_eq!(error.sqlstate(), "3D000");
    assert_eq!(error.message(), "database \"wire_once\" does not exist");
}

#[test]
fn names_are_folded_unless_quoted() {
    let mut session = Session::new();
    session.execute("create database \"Wire Folded\"");
    assert_eq!(session.error("drop database \"wire folded\"").sqlstate(), "3D000");
    session.execute("create database WIRE_FOLDED");
    session.execute("drop database \"wire_folded\"");
    session.execute("drop database \"Wire Folded\"");
}

#[test]
fn a_missing_database_is_skipped_with_a_notice_if_that_was_asked_for() {
    let mut session = Session::new();
    session.send(&query("drop database if exists wire_missing"));
    let answers = session.answers();
    let Answer::Notice(notice) = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!((notice.severity(), notice.sqlstate()), ("NOTICE", "00000"));
    assert_eq!(
        notice.message(),
        "database \"wire_missing\" does not exist, skipping"
    );
    assert_eq!(answers[1].to_string(), DROPPED[0]);
    session.execute("set client_min_messages = warning");
    assert_eq!(session.query("drop database if exists wire_missing"), DROPPED);
}

#[test]
fn neither_runs_inside_a_transaction_block() {
    let mut session = Session::new();
    for command in ["CREATE DATABASE", "DROP DATABASE"] {
        let sql = &format!("{command} wire_block");
        session.execute("begin");
        let error = session.error(sql);
        assert_eq!(error.sqlstate(), "25001");
        assert_eq!(
            error.message(),
            format!("{command} cannot run inside a transaction block")
        );
        assert_eq!(session.error(sql).sqlstate(), "25P02");
        session.execute("rollback");
        for string in [
            format!("select 1; {sql}"),
            format!("{sql}; select 1"),
            format!("begin; {sql}; commit"),
        ] {
            assert_eq!(session.error(&string).sqlstate(), "25001", "{string}");
            session.query("rollback");
        }
    }
}

#[test]
fn neither_runs_where_transactions_only_read() {
    let mut session = Session::new();
    session.execute("set default_transaction_read_only = on");
    for command in ["CREATE DATABASE", "DROP DATABASE"] {
        let error = session.error(&format!("{command} wire_read_only"));
        assert_eq!(error.sqlstate(), "25006");
        assert_eq!(
            error.message(),
            format!("cannot execute {command} in a read-only transaction")
        );
    }
}

#[test]
fn the_extended_protocol_runs_them_too() {
    let mut session = Session::new();
    for (sql, tag) in [
        ("create database wire_extended", CREATED[0]),
        ("drop database wire_extended", DROPPED[0]),
    ] {
        assert_eq!(
            session.run(&[
                parse_statement("", sql),
                bind("", "", &[]),
                describe_portal(""),
                execute("", 0),
                sync()
            ]),
            ["ParseComplete", "BindComplete", "NoData", tag, "ReadyForQuery I"]
        );
    }
}

#[test]
fn the_database_that_is_open_cannot_be_dropped() {
    let mut session = Session::new();
    let own = session.rows("select current_database()").remove(0);
    for force in ["", "with (force)"] {
        let error = session.error(&format!("drop database \"{own}\" {force}"));
        assert_eq!(error.sqlstate(), "55006");
        assert_eq!(error.message(), "cannot drop the currently open database");
    }
}

#[test]
fn options_are_those_that_programs_send() {
    let mut session = Session::new();
    for options in [
        "encoding 'UTF8' template template0",
        "with encoding = 'unicode'",
        "with owner = default connection limit = -1",
        "with template = template0 encoding = 'UTF8' locale = 'C' strategy = wal_log",
    ] {
        session.execute(&format!("create database wire_options {options}"));
        session.execute("drop database wire_options with (force)");
    }
    for (sql, sqlstate) in [
        ("create database wire_options colour = 'red'", "42601"),
        (
            "create database wire_options encoding 'UTF8' encoding 'UTF8'",
            "42601",
        ),
        ("create database", "42601"),
        ("drop database wire_options with (quietly)", "42601"),
        ("drop database wire_options cascade", "42601"),
    ] {
        assert_eq!(session.error(sql).sqlstate(), sqlstate, "{sql}");
    }
}
