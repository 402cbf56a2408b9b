//! statement_timeout, idle_session_timeout, idle_in_transaction_session_timeout.

use super::ENDLESS;
use crate::support::Session;

#[test]
fn a_statement_that_takes_too_long_is_canceled_and_the_session_goes_on() {
    let mut session = Session::new();
    session.query("set statement_timeout = '50ms'");
    for _ in 0..2 {
        assert_eq!(session.error(ENDLESS).sqlstate(), "57014");
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
    session.query("set statement_timeout = 0");
    assert_eq!(session.rows("show statement_timeout"), ["0"]);
}

#[test]
fn the_message_says_that_it_was_the_timeout() {
    let mut session = Session::new();
    session.query("set statement_timeout = 20");
    assert_eq!(
        session.error(ENDLESS).message(),
        "canceling statement due to statement timeout"
    );
}

#[test]
fn copy_to_the_client_is_canceled_too() {
    let mut session = Session::new();
    session.query("set statement_timeout = '50ms'");
    let transcript = session.query(&format!("copy ({ENDLESS}) to stdout"));
    assert_eq!(transcript.last().unwrap(), "ReadyForQuery I");
    assert_eq!(transcript[transcript.len() - 2], "Error 57014");
}

#[test]
fn a_timeout_of_one_statement_is_not_that_of_the_next() {
    let mut session = Session::new();
    session.query("set statement_timeout = '1h'");
    assert_eq!(session.rows("select 1 as a"), ["1"]);
    session.query("set statement_timeout = '50ms'");
    assert_eq!(session.query(ENDLESS).last().unwrap(), "ReadyForQuery I");
    session.query("set statement_timeout = '1h'");
    assert_eq!(
        session.rows("select count(*) as a from generate_series(1, 1000000)"),
        ["1000000"]
    );
}

#[test]
fn a_session_that_is_idle_for_too_long_is_ended() {
    let mut session = Session::new();
    session.query("set idle_session_timeout = '100ms'");
    assert_eq!(session.last_words(), ["Error FATAL 57P05"]);
}

#[test]
fn a_transaction_that_is_idle_for_too_long_ends_its_session_and_leaves_nothing() {
    let mut other = Session::new();
    other.query("create table timeouts_left (a int)");
    let mut session = Session::new();
    session.query("set idle_in_transaction_session_timeout = '100ms'");
    session.query("begin");
    session.query("insert into timeouts_left values (1)");
    assert_eq!(session.last_words(), ["Error FATAL 25P03"]);
    assert_eq!(other.rows("select count(*) as a from timeouts_left"), ["0"]);
    other.query("drop table timeouts_left");
}

#[test]
fn timeouts_are_shown_with_their_unit() {
    let mut session = Session::new();
    for (value, shown) in [
        ("1500", "1500ms"),
        ("'90s'", "90s"),
        ("'60 s'", "1min"),
        ("0", "0"),
    ] {
        session.query(&format!("set idle_session_timeout = {value}"));
        assert_eq!(session.rows("show idle_session_timeout"), [shown]);
    }
    assert_eq!(
        session.query("set idle_session_timeout = '1 fortnight'"),
        ["Error 22023", "ReadyForQuery I"]
    );
}
