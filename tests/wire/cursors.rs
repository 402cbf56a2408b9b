//! Cursors in SQL: DECLARE, FETCH, CLOSE, which are portals by another name.

use crate::support::Session;
use crate::support::message::*;

const SERIES: &str = "select i as a from generate_series(1, 10) g(i) order by i";

fn with_cursor() -> Session {
    let mut session = Session::new();
    session.execute("begin");
    assert_eq!(
        session.query(&format!("declare c cursor for {SERIES}")),
        ["CommandComplete DECLARE CURSOR", "ReadyForQuery T"]
    );
    session
}

#[test]
fn fetch_takes_the_next_rows() {
    let mut session = with_cursor();
    let transcript = session.query("fetch 2 from c");
    assert!(transcript[0].starts_with("RowDescription a:"), "{transcript:?}");
    assert_eq!(
        transcript[1..],
        [
            "DataRow 1",
            "DataRow 2",
            "CommandComplete FETCH 2",
            "ReadyForQuery T"
        ]
    );
    for (fetch, expected) in [
        ("fetch c", &["3"][..]),
        ("fetch next from c", &["4"]),
        ("fetch forward 2 in c", &["5", "6"]),
        ("fetch forward from c", &["7"]),
        ("fetch all from c", &["8", "9", "10"]),
        ("fetch 1 from c", &[]),
    ] {
        assert_eq!(session.rows(fetch), expected, "{fetch}");
    }
    assert_eq!(
        session.query("close c"),
        ["CommandComplete CLOSE CURSOR", "ReadyForQuery T"]
    );
    assert_eq!(
        session.query("fetch 1 from c"),
        ["Error 34000", "ReadyForQuery E"]
    );
}

#[test]
fn a_cursor_needs_a_transaction() {
    let mut session = Session::new();
    assert_eq!(
        session.query(&format!("declare c cursor for {SERIES}")),
        ["Error 25P01", "ReadyForQuery I"]
    );
    let mut session = with_cursor();
    session.execute("commit");
    assert_eq!(
        session.query("fetch 1 from c"),
        ["Error 34000", "ReadyForQuery I"]
    );
}

#[test]
fn a_cursor_name_can_be_taken_only_once() {
    let mut session = with_cursor();
    assert_eq!(
        session.query("declare c cursor for select 1"),
        ["Error 42P03", "ReadyForQuery E"]
    );
}

#[test]
fn cursors_and_portals_are_the_same_thing() {
    let mut session = with_cursor();
    assert_eq!(session.rows("fetch 2 from c"), ["1", "2"]);
    assert_eq!(
        session.run(&[execute("c", 1), sync()]),
        ["DataRow 3", "PortalSuspended", "ReadyForQuery T"]
    );
    assert_eq!(
        session.run(&[close_portal("c"), sync()]),
        ["CloseComplete", "ReadyForQuery T"]
    );
    assert_eq!(
        session.query("fetch 1 from c"),
        ["Error 34000", "ReadyForQuery E"]
    );
}

#[test]
fn cursors_take_turns_with_each_other_and_with_statements() {
    let mut session = with_cursor();
    session.execute("declare d cursor for select -i as a from generate_series(1, 5000) g(i) order by i");
    session.execute("create temporary table cursors_meanwhile (i int)");
    for i in 1..=4 {
        assert_eq!(session.rows("fetch 1 from c"), [i.to_string()]);
        session.execute("insert into cursors_meanwhile values (1)");
        assert_eq!(session.rows("fetch 1000 from d").len(), 1000);
    }
    assert_eq!(session.rows("fetch all from d").len(), 1000);
    assert_eq!(session.rows("select count(*) from cursors_meanwhile"), ["4"]);
    session.execute("rollback");
}

#[test]
fn the_query_of_a_cursor_may_have_parameters() {
    let mut session = Session::new();
    session.execute("begin");
    session.run(&[
        parse_as(
            "",
            "declare c cursor for select $1 + i as a from generate_series(1, 3) g(i) order by i",
            &[23],
        ),
        bind("", "", &["10"]),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(session.rows("fetch all from c"), ["11", "12", "13"]);
    session.execute("rollback");
}

#[test]
fn fetch_can_be_prepared_and_described() {
    let mut session = with_cursor();
    let transcript = session.run(&[
        parse_statement("f", "fetch 2 from c"),
        describe_statement("f"),
        bind("", "f", &[]),
        execute("", 0),
        bind("", "f", &[]),
        execute("", 0),
        sync(),
    ]);
    assert!(transcript[2].starts_with("RowDescription a:"), "{transcript:?}");
    assert_eq!(
        transcript[3..],
        [
            "BindComplete",
            "DataRow 1",
            "DataRow 2",
            "CommandComplete FETCH 2",
            "BindComplete",
            "DataRow 3",
            "DataRow 4",
            "CommandComplete FETCH 2",
            "ReadyForQuery T"
        ]
    );
    session.execute("rollback");
}
