//! statement_timeout, idle_session_timeout, idle_in_transaction_session_timeout.

use super::ENDLESS;
use crate::support::session::V3_0;
use crate::support::{Server, Session, Transport};

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

/// A server that allows so much, which PostgreSQL would take for defaults.
fn limited(arguments: &[&str]) -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: in PostgreSQL anybody may raise these");
        return None;
    }
    Some(Server::duckgres(arguments))
}

#[test]
fn the_servers_limit_on_statements_holds_and_can_be_lowered_but_not_raised() {
    let Some(server) = limited(&["--statement-timeout", "2s"]) else {
        return;
    };
    let mut session = Session::over(&server, Transport::Tcp);
    assert_eq!(session.rows("show statement_timeout"), ["2s"]);
    assert_eq!(session.error(ENDLESS).sqlstate(), "57014");
    session.execute("set statement_timeout = '50ms'");
    assert_eq!(session.error(ENDLESS).sqlstate(), "57014");
    assert_eq!(session.rows("show statement_timeout"), ["50ms"]);
    session.execute("set statement_timeout = '2s'");
    for raised in ["'2001ms'", "'1h'", "0", "2001"] {
        let sql = format!("set statement_timeout = {raised}");
        assert_eq!(session.error(&sql).sqlstate(), "42501", "{sql}");
        let sql = format!("set local statement_timeout = {raised}");
        assert_eq!(session.query(&format!("begin; {sql}"))[1], "Error 42501", "{sql}");
        session.execute("rollback");
    }
    assert_eq!(session.rows("show statement_timeout"), ["2s"]);
    for back in [
        "reset statement_timeout",
        "set statement_timeout to default",
        "reset all",
        "discard all",
    ] {
        session.execute("set statement_timeout = '1s'");
        session.execute(back);
        assert_eq!(session.rows("show statement_timeout"), ["2s"], "{back}");
    }
    session.execute("begin; set statement_timeout = '1s'; rollback");
    assert_eq!(session.rows("show statement_timeout"), ["2s"]);
    assert_eq!(session.error(ENDLESS).sqlstate(), "57014");
    // Nor can it be raised on the way in.
    let with = |value| {
        let mut session = Session::open(&server, Transport::Tcp);
        let me = [("user", server.user.as_str()), ("options", value)];
        session.send(&crate::support::message::startup(V3_0, &me));
        session.authenticate(&server.password).unwrap();
        session
    };
    let mut lower = with("-c statement_timeout=100ms");
    lower.become_ready();
    assert_eq!(lower.error(ENDLESS).sqlstate(), "57014");
    assert_eq!(with("-c statement_timeout=0").last_words(), ["Error FATAL 42501"]);
}

#[test]
fn the_servers_limits_on_silence_hold() {
    let arguments = [
        "--idle-session-timeout",
        "1500ms",
        "--idle-in-transaction-session-timeout",
        "300ms",
    ];
    let Some(server) = limited(&arguments) else { return };
    let mut silent = Session::over(&server, Transport::Tls13);
    let mut open = Session::over(&server, Transport::Tcp);
    assert_eq!(open.error("set idle_session_timeout = 0").sqlstate(), "42501");
    assert_eq!(
        open.error("set idle_in_transaction_session_timeout = '1s'")
            .sqlstate(),
        "42501"
    );
    open.execute("begin");
    assert_eq!(open.last_words(), ["Error FATAL 25P03"]);
    assert_eq!(silent.last_words(), ["Error FATAL 57P05"]);
    // Whoever says something in time stays.
    let mut lively = Session::over(&server, Transport::Tcp);
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(lively.rows("select 1 as a"), ["1"]);
    }
}
