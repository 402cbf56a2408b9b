//! Portals: their names, how long they live, and how they behave when several
//! are open at once.

use super::INT4;
use crate::support::Session;
use crate::support::message::*;

const SERIES: &str = "select i as a from generate_series(1, 10) g(i) order by i";

fn rows(from: i32, to: i32) -> Vec<String> {
    (from..=to).map(|i| format!("DataRow {i}")).collect()
}

#[test]
fn a_portal_name_can_be_taken_only_once() {
    let mut session = Session::new();
    assert_eq!(
        session.run(&[
            parse_statement("", "select 1 as a"),
            bind("p", "", &[]),
            bind("p", "", &[]),
            sync()
        ]),
        ["ParseComplete", "BindComplete", "Error 42P03", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[
            parse_statement("", "select 1 as a"),
            bind("p", "", &[]),
            close_portal("p"),
            bind("p", "", &[]),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CloseComplete",
            "BindComplete",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn the_unnamed_portal_is_replaced_by_the_next_bind() {
    let transcript = Session::new().run(&[
        parse_as("", "select $1 as a", &[INT4]),
        bind("", "", &["1"]),
        bind("", "", &["2"]),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(transcript[3], "DataRow 2");
}

#[test]
fn portals_end_with_the_transaction() {
    let mut session = Session::new();
    session.run(&[
        parse_statement("", SERIES),
        bind("p", "", &[]),
        execute("p", 1),
        sync(),
    ]);
    assert_eq!(
        session.run(&[execute("p", 1), sync()]),
        ["Error 34000", "ReadyForQuery I"],
        "Sync ended the implicit one"
    );

    session.execute("begin");
    session.run(&[
        parse_statement("", SERIES),
        bind("p", "", &[]),
        bind("", "", &[]),
        sync(),
    ]);
    assert_eq!(
        session.run(&[execute("p", 1), sync()]),
        ["DataRow 1", "PortalSuspended", "ReadyForQuery T"],
        "in a transaction they outlive it"
    );
    session.execute("commit");
    assert_eq!(
        session.run(&[execute("p", 1), sync()]),
        ["Error 34000", "ReadyForQuery I"]
    );

    session.execute("begin");
    session.run(&[parse_statement("", SERIES), bind("p", "", &[]), sync()]);
    session.execute("rollback");
    assert_eq!(
        session.run(&[execute("p", 1), sync()]),
        ["Error 34000", "ReadyForQuery I"]
    );
}

#[test]
fn a_closed_portal_is_gone() {
    assert_eq!(
        Session::new().run(&[
            parse_statement("", SERIES),
            bind("p", "", &[]),
            execute("p", 1),
            close_portal("p"),
            execute("p", 1),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "DataRow 1",
            "PortalSuspended",
            "CloseComplete",
            "Error 34000",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn two_portals_take_turns() {
    let mut session = Session::new();
    session.execute("begin");
    session.run(&[
        parse_statement(
            "up",
            "select i as a from generate_series(1, 5000) g(i) order by i",
        ),
        parse_statement(
            "down",
            "select -i as a from generate_series(1, 5000) g(i) order by i",
        ),
        bind("p", "up", &[]),
        bind("q", "down", &[]),
        sync(),
    ]);
    let mut next = 1;
    for limit in [1, 2, 3, 2000, 46, 900, 2048] {
        let mut expected: Vec<String> = (next..next + limit).map(|i| format!("DataRow {i}")).collect();
        expected.push("PortalSuspended".into());
        expected.extend((next..next + limit).map(|i| format!("DataRow -{i}")));
        expected.push("PortalSuspended".into());
        expected.push("ReadyForQuery T".into());
        assert_eq!(
            session.run(&[execute("p", limit), execute("q", limit), sync()]),
            expected
        );
        next += limit;
    }
    assert_eq!(next, 5001);
    assert_eq!(
        session.run(&[execute("p", 1), execute("q", 1), sync()]),
        [
            "CommandComplete SELECT 0",
            "CommandComplete SELECT 0",
            "ReadyForQuery T"
        ]
    );
    session.execute("commit");
}

#[test]
fn other_statements_may_run_while_a_portal_is_suspended() {
    let mut session = Session::new();
    session.execute("create table por_meanwhile (i int)");
    session.execute("begin");
    session.run(&[
        parse_statement("", "select i as a from generate_series(1, 10000) g(i) order by i"),
        bind("p", "", &[]),
        sync(),
    ]);
    for from in [1, 3001, 6001] {
        let mut expected = rows(from, from + 2999);
        expected.extend(["PortalSuspended".into(), "ReadyForQuery T".into()]);
        assert_eq!(session.run(&[execute("p", 3000), sync()]), expected);
        session.execute("insert into por_meanwhile values (1)");
        assert_eq!(session.rows("select count(*) >= 1 from por_meanwhile"), ["t"]);
    }
    let mut expected = rows(9001, 10000);
    expected.extend(["CommandComplete SELECT 1000".into(), "ReadyForQuery T".into()]);
    assert_eq!(session.run(&[execute("p", 0), sync()]), expected);
    session.execute("commit");
    assert_eq!(session.rows("select count(*) from por_meanwhile"), ["3"]);
}

#[test]
fn a_portal_shows_the_data_of_the_moment_it_was_bound() {
    let mut session = Session::new();
    session.execute("create table por_snapshot (i int); insert into por_snapshot values (1), (2), (3)");
    session.execute("begin");
    session.run(&[
        parse_statement("", "select i as a from por_snapshot order by i"),
        bind("p", "", &[]),
        execute("p", 1),
        sync(),
    ]);
    session.execute("delete from por_snapshot");
    assert_eq!(
        session.run(&[execute("p", 0), sync()]),
        [
            "DataRow 2",
            "DataRow 3",
            "CommandComplete SELECT 2",
            "ReadyForQuery T"
        ]
    );
    session.execute("rollback");
}

#[test]
fn an_error_in_one_portal_fails_the_transaction_and_ends_the_others() {
    let mut session = Session::new();
    session.execute("begin");
    session.run(&[
        parse_statement("good", SERIES),
        parse_statement(
            "bad",
            "select cast(case when i = 2 then 'x' else '1' end as int) as a from generate_series(1, 3) g(i)",
        ),
        bind("p", "good", &[]),
        bind("q", "bad", &[]),
        execute("p", 1),
        sync(),
    ]);
    let transcript = session.run(&[execute("q", 0), sync()]);
    assert_eq!(
        transcript[transcript.len() - 2..],
        ["Error 22P02", "ReadyForQuery E"]
    );
    assert_eq!(
        session.run(&[execute("p", 1), sync()]),
        ["Error 25P02", "ReadyForQuery E"]
    );
    session.execute("rollback");
}

#[test]
fn a_query_message_destroys_the_unnamed_portal_but_no_named_one() {
    let mut session = Session::new();
    session.execute("begin");
    session.run(&[
        parse_statement("", SERIES),
        bind("", "", &[]),
        bind("p", "", &[]),
        sync(),
    ]);
    session.query("select 1 as a");
    assert_eq!(
        session.run(&[execute("p", 1), sync()]),
        ["DataRow 1", "PortalSuspended", "ReadyForQuery T"]
    );
    assert_eq!(
        session.run(&[execute("", 1), sync()]),
        ["Error 34000", "ReadyForQuery E"]
    );
    session.execute("rollback");
}

#[test]
fn a_portal_works_on_after_its_statement_was_closed() {
    let mut session = Session::new();
    session.execute("begin");
    let transcript = session.run(&[
        parse_statement("s", SERIES),
        bind("p", "s", &[]),
        execute("p", 2),
        close_statement("s"),
        execute("p", 1),
        sync(),
    ]);
    assert_eq!(
        transcript[5..],
        ["CloseComplete", "DataRow 3", "PortalSuspended", "ReadyForQuery T"]
    );
    session.execute("rollback");
}

#[test]
fn a_portal_without_rows_can_be_executed_only_once() {
    let mut session = Session::new();
    session.execute("create table por_once (i int)");
    assert_eq!(
        session.run(&[
            parse_statement("", "insert into por_once values (1)"),
            bind("p", "", &[]),
            execute("p", 0),
            execute("p", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "CommandComplete INSERT 0 1",
            "Error 55000",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(session.rows("select count(*) from por_once"), ["0"]);
}

#[test]
fn sql_cursors_and_portals_are_the_same_thing() {
    let mut session = Session::new();
    session.execute("begin");
    session.execute(&format!("declare c cursor for {SERIES}"));
    assert_eq!(session.rows("fetch 2 from c"), ["1", "2"]);
    assert_eq!(
        session.run(&[execute("c", 1), sync()]),
        ["DataRow 3", "PortalSuspended", "ReadyForQuery T"]
    );
    assert_eq!(
        session.query("close c"),
        ["CommandComplete CLOSE CURSOR", "ReadyForQuery T"]
    );
    session.execute("rollback");
}
