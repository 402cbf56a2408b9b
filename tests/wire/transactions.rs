//! Transactions as the protocol shows them: the status in every ReadyForQuery,
//! what a failed transaction refuses, and the transactions that nobody began.

use crate::support::Session;
use crate::support::message::*;

fn with_table(name: &str) -> Session {
    let mut session = Session::new();
    session.execute(&format!("create table {name} (i int primary key)"));
    session
}

#[test]
fn the_status_is_idle_in_transaction_or_failed() {
    let mut session = with_table("tx_status");
    assert_eq!(
        session.query("begin"),
        ["CommandComplete BEGIN", "ReadyForQuery T"]
    );
    assert_eq!(
        session.query("insert into tx_status values (1)"),
        ["CommandComplete INSERT 0 1", "ReadyForQuery T"]
    );
    assert_eq!(session.run(&[sync()]), ["ReadyForQuery T"]);
    assert_eq!(session.query(""), ["EmptyQueryResponse", "ReadyForQuery T"]);
    assert_eq!(session.query("select nosuch"), ["Error 42703", "ReadyForQuery E"]);
    assert_eq!(session.run(&[sync()]), ["ReadyForQuery E"]);
    assert_eq!(session.query(""), ["EmptyQueryResponse", "ReadyForQuery E"]);
    assert_eq!(
        session.query("rollback"),
        ["CommandComplete ROLLBACK", "ReadyForQuery I"]
    );
    assert_eq!(session.run(&[sync()]), ["ReadyForQuery I"]);
    assert_eq!(session.rows("select count(*) from tx_status"), ["0"]);
}

/// DuckDB itself goes on after errors that it found before execution.
#[test]
fn any_error_fails_the_transaction_whether_found_by_parser_binder_or_execution() {
    let mut session = with_table("tx_any_error");
    for (statement, state) in [
        ("selec 1", "42601"),
        ("select nosuch", "42703"),
        ("select * from nosuch", "42P01"),
        ("select nosuch(1)", "42883"),
        ("insert into tx_any_error values (1)", "23505"),
        ("select cast('x' as int)", "22P02"),
        ("set nosuch = 1", "42704"),
        ("deallocate nosuch", "26000"),
    ] {
        session.execute("begin; delete from tx_any_error; insert into tx_any_error values (1)");
        assert_eq!(
            session.query(statement),
            [format!("Error {state}"), "ReadyForQuery E".into()],
            "{statement}"
        );
        assert_eq!(
            session.query("select 1 as a"),
            ["Error 25P02", "ReadyForQuery E"],
            "{statement}"
        );
        assert_eq!(
            session.query("rollback"),
            ["CommandComplete ROLLBACK", "ReadyForQuery I"]
        );
    }
    assert_eq!(session.rows("select count(*) from tx_any_error"), ["0"]);
}

#[test]
fn a_failed_transaction_refuses_everything_but_its_end() {
    let mut session = with_table("tx_refuses");
    session.run(&[parse_statement("before", "select 1 as a"), sync()]);
    session.query("begin; select nosuch");
    for sql in [
        "select 1 as a",
        "insert into tx_refuses values (1)",
        "begin",
        "create table tx_x (i int)",
    ] {
        assert_eq!(session.query(sql), ["Error 25P02", "ReadyForQuery E"], "{sql}");
    }
    assert_eq!(
        session.run(&[parse_statement("", "select 1"), sync()]),
        ["Error 25P02", "ReadyForQuery E"]
    );
    assert_eq!(
        session.run(&[bind("", "before", &[]), sync()]),
        ["Error 25P02", "ReadyForQuery E"]
    );
    assert_eq!(
        session.run(&[describe_statement("before"), sync()]),
        ["Error 25P02", "ReadyForQuery E"]
    );
    assert_eq!(
        session.run(&[
            parse_statement("", "rollback"),
            bind("", "", &[]),
            execute("", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete ROLLBACK",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn commit_of_a_failed_transaction_answers_rollback() {
    let mut session = with_table("tx_commit_failed");
    session.query("begin; insert into tx_commit_failed values (1)");
    session.query("select nosuch");
    assert_eq!(
        session.query("commit"),
        ["CommandComplete ROLLBACK", "ReadyForQuery I"]
    );
    session.query("begin; insert into tx_commit_failed values (1)");
    session.query("select nosuch");
    assert_eq!(
        session.run(&[
            parse_statement("", "commit"),
            bind("", "", &[]),
            execute("", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete ROLLBACK",
            "ReadyForQuery I"
        ]
    );
    session.query("begin; select nosuch");
    assert_eq!(
        session.query("end"),
        ["CommandComplete ROLLBACK", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from tx_commit_failed"), ["0"]);
}

#[test]
fn the_end_of_a_failed_transaction_may_be_followed_by_more_in_the_same_message() {
    let mut session = Session::new();
    session.query("begin; select nosuch");
    assert_eq!(
        session.query("rollback; select 1 as a"),
        [
            "CommandComplete ROLLBACK",
            "RowDescription a:int4",
            "DataRow 1",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn begin_in_a_transaction_and_its_end_without_one_only_warn() {
    let mut session = Session::new();
    session.execute("begin");
    assert_eq!(
        session.query("begin"),
        ["Notice WARNING 25001", "CommandComplete BEGIN", "ReadyForQuery T"]
    );
    session.execute("commit");
    assert_eq!(
        session.query("commit"),
        [
            "Notice WARNING 25P01",
            "CommandComplete COMMIT",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(
        session.query("rollback"),
        [
            "Notice WARNING 25P01",
            "CommandComplete ROLLBACK",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn the_statements_of_one_message_stand_or_fall_together() {
    let mut session = with_table("tx_implicit");
    session.query("insert into tx_implicit values (1); insert into tx_implicit values (2); select nosuch");
    assert_eq!(session.rows("select count(*) from tx_implicit"), ["0"]);
    session.query("insert into tx_implicit values (1); insert into tx_implicit values (1)");
    assert_eq!(session.rows("select count(*) from tx_implicit"), ["0"]);
    session.execute("insert into tx_implicit values (1); insert into tx_implicit values (2)");
    assert_eq!(session.rows("select count(*) from tx_implicit"), ["2"]);
}

#[test]
fn changes_of_the_schema_fall_with_the_message_too() {
    let mut session = Session::new();
    session.query("create table tx_ddl (i int); insert into tx_ddl values (1); select nosuch");
    assert_eq!(
        session.query("select * from tx_ddl"),
        ["Error 42P01", "ReadyForQuery I"]
    );
}

#[test]
fn begin_inside_a_message_takes_what_was_before_it_along() {
    let mut session = with_table("tx_begin_inside");
    assert_eq!(
        session
            .query("insert into tx_begin_inside values (1); begin; insert into tx_begin_inside values (2)"),
        [
            "CommandComplete INSERT 0 1",
            "CommandComplete BEGIN",
            "CommandComplete INSERT 0 1",
            "ReadyForQuery T"
        ]
    );
    session.execute("rollback");
    assert_eq!(session.rows("select count(*) from tx_begin_inside"), ["0"]);
}

#[test]
fn commit_inside_a_message_keeps_what_was_before_it() {
    let mut session = with_table("tx_commit_inside");
    assert_eq!(
        session.query(
            "begin; insert into tx_commit_inside values (1); commit;
             insert into tx_commit_inside values (2); select nosuch"
        ),
        [
            "CommandComplete BEGIN",
            "CommandComplete INSERT 0 1",
            "CommandComplete COMMIT",
            "CommandComplete INSERT 0 1",
            "Error 42703",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(session.rows("select i from tx_commit_inside"), ["1"]);
}

#[test]
fn commit_and_rollback_end_the_implicit_transaction_of_a_message_with_a_warning() {
    let mut session = with_table("tx_end_implicit");
    assert_eq!(
        session.query("insert into tx_end_implicit values (1); commit; select nosuch"),
        [
            "CommandComplete INSERT 0 1",
            "Notice WARNING 25P01",
            "CommandComplete COMMIT",
            "Error 42703",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(session.rows("select i from tx_end_implicit"), ["1"]);
    assert_eq!(
        session.query(
            "insert into tx_end_implicit values (2); rollback; insert into tx_end_implicit values (3)"
        ),
        [
            "CommandComplete INSERT 0 1",
            "Notice WARNING 25P01",
            "CommandComplete ROLLBACK",
            "CommandComplete INSERT 0 1",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(
        session.rows("select i from tx_end_implicit order by i"),
        ["1", "3"]
    );
}

#[test]
fn a_transaction_begun_in_a_message_that_fails_stays_failed() {
    let mut session = Session::new();
    assert_eq!(
        session.query("begin; select nosuch; select 1 as a"),
        ["CommandComplete BEGIN", "Error 42703", "ReadyForQuery E"]
    );
    assert_eq!(
        session.query("commit"),
        ["CommandComplete ROLLBACK", "ReadyForQuery I"]
    );
}

#[test]
fn the_statements_up_to_a_sync_stand_or_fall_together() {
    let mut session = with_table("tx_sync");
    let insert = |i: &str| {
        [
            parse_statement("", &format!("insert into tx_sync values ({i})")),
            bind("", "", &[]),
            execute("", 0),
        ]
        .concat()
    };
    assert_eq!(
        session.run(&[insert("1"), insert("nosuch"), insert("2"), sync()]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete INSERT 0 1",
            "Error 42703",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(session.rows("select count(*) from tx_sync"), ["0"]);

    // A Sync between them is a commit between them.
    session.send(&[insert("1"), sync(), insert("nosuch"), sync()].concat());
    assert_eq!(session.transcript().last().unwrap(), "ReadyForQuery I");
    assert_eq!(session.transcript(), ["Error 42703", "ReadyForQuery I"]);
    assert_eq!(session.rows("select i from tx_sync"), ["1"]);
}

#[test]
fn an_implicit_transaction_is_idle_to_the_outside() {
    let mut session = with_table("tx_idle_outside");
    assert_eq!(
        session.run(&[
            parse_statement("", "insert into tx_idle_outside values (1)"),
            bind("", "", &[]),
            execute("", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete INSERT 0 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn nobody_sees_what_a_pipeline_did_before_its_sync() {
    let mut session = with_table("tx_unseen");
    let mut other = Session::new();
    session.send(
        &[
            parse_statement("", "insert into tx_unseen values (1)"),
            bind("", "", &[]),
            execute("", 0),
            flush(),
        ]
        .concat(),
    );
    assert_eq!(
        session.take(3),
        ["ParseComplete", "BindComplete", "CommandComplete INSERT 0 1"]
    );
    assert_eq!(other.rows("select count(*) from tx_unseen"), ["0"]);
    assert_eq!(session.run(&[sync()]), ["ReadyForQuery I"]);
    assert_eq!(other.rows("select count(*) from tx_unseen"), ["1"]);
}

#[test]
fn begin_in_a_pipeline_opens_a_transaction_that_outlives_the_sync() {
    let mut session = with_table("tx_begin_pipeline");
    let run = |sql: &str| [parse_statement("", sql), bind("", "", &[]), execute("", 0)].concat();
    session.send(
        &[
            run("begin"),
            run("insert into tx_begin_pipeline values (1)"),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(session.transcript().last().unwrap(), "ReadyForQuery T");
    session.send(&[run("insert into tx_begin_pipeline values (1)"), sync()].concat());
    assert_eq!(
        session.transcript(),
        ["ParseComplete", "BindComplete", "Error 23505", "ReadyForQuery E"]
    );
    assert_eq!(
        session.query("commit"),
        ["CommandComplete ROLLBACK", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from tx_begin_pipeline"), ["0"]);
}

#[test]
fn a_read_only_transaction_refuses_to_write() {
    let mut session = with_table("tx_read_only");
    session.execute("begin transaction read only");
    assert_eq!(
        session.query("insert into tx_read_only values (1)"),
        ["Error 25006", "ReadyForQuery E"]
    );
    session.execute("rollback");
}

#[test]
fn a_session_that_ends_in_a_transaction_leaves_nothing_behind() {
    let mut session = with_table("tx_abandoned");
    session.execute("begin; insert into tx_abandoned values (1)");
    session.send(&terminate());
    assert_eq!(session.last_words(), [] as [&str; 0]);
    // The same key can be taken as soon as the server has cleaned up.
    let mut other = Session::new();
    crate::support::eventually("the abandoned row is gone", || {
        other
            .query("insert into tx_abandoned values (1)")
            .contains(&"CommandComplete INSERT 0 1".into())
            .then_some(())
    });
}
