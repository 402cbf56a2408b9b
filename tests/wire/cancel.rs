//! Cancelling the running statement, from outside of its connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::disconnect::ENDLESS;
use crate::support::message::*;
use crate::support::session::V3_2;
use crate::support::{Answer, Server, Session, Transport};

/// Rows without end, so that the first of them shows that the query runs.
const ENDLESS_ROWS: &str =
    "select a.i as a from generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(j)";

/// Presses the key until the statement stops: a cancel that arrives before the
/// statement does has nothing to stop.
fn cancel_until_it_stops(session: &mut Session, transport: Transport) -> Vec<String> {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (key, stopped) = (session.key.clone(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = Stop(&stopped);
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                Session::cancel(&key, Server::shared(), transport);
                thread::sleep(Duration::from_millis(50));
            }
        });
        session.transcript()
    })
}

/// Reads rows until the error that ends them.
fn drain_cancelled(session: &mut Session) {
    loop {
        match session.next() {
            Answer::DataRow(_) => {}
            other => {
                assert_eq!(other.to_string(), "Error 57014");
                return;
            }
        }
    }
}

#[test]
fn a_running_query_is_cancelled_and_the_session_goes_on() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        // Twice: a cancel must not be used up by the first.
        for i in 0..2 {
            session.send(&query(ENDLESS));
            assert_eq!(
                cancel_until_it_stops(&mut session, Transport::Tcp).last_chunk(),
                Some(&["Error 57014".to_string(), "ReadyForQuery I".to_string()]),
                "{transport:?}"
            );
            session.settle();
            assert_eq!(session.rows(&format!("select {i} as a")), [i.to_string()]);
        }
    }
}

#[test]
fn the_request_is_heard_over_every_road() {
    for transport in Transport::ALL {
        let mut session = Session::new();
        session.send(&query(ENDLESS_ROWS));
        session.take(2);
        Session::cancel(&session.key, Server::shared(), transport);
        drain_cancelled(&mut session);
        assert_eq!(session.transcript(), ["ReadyForQuery I"]);
        assert_eq!(session.rows("select 1 as a"), ["1"], "{transport:?}");
    }
}

/// PostgreSQL 15 has short keys only, and grants 3.0 here.
#[test]
fn the_long_key_of_protocol_3_2_cancels_as_well() {
    for transport in [Transport::Tcp, Transport::Tls13] {
        let mut session = Session::with(Server::shared(), Transport::Tls13, V3_2, &[]);
        session.send(&query(ENDLESS_ROWS));
        session.take(2);
        Session::cancel(&session.key, Server::shared(), transport);
        drain_cancelled(&mut session);
        assert_eq!(session.transcript(), ["ReadyForQuery I"]);
    }
}

#[test]
fn a_wrong_key_does_nothing() {
    let mut session = Session::new();
    session.send(&query(
        "select a.i as a from generate_series(1, 1000) a(i), generate_series(1, 1000) b(j)",
    ));
    session.take(2);
    let (process, secret) = session.key.clone();
    let mut wrong = secret.clone();
    wrong[0] ^= 1;
    for key in [
        (process, wrong),
        (process, vec![0; 4]),
        (process, vec![0; 32]),
        (process, Vec::new()),
        (process, secret[..3].to_vec()),
        (process, [&secret[..], &secret[..]].concat()),
        (process, vec![0; 256]),
        (process.wrapping_add(1), secret.clone()),
        (0, secret.clone()),
        (-1, secret),
    ] {
        Session::cancel(&key, Server::shared(), Transport::Tcp);
    }
    let transcript = session.transcript();
    assert_eq!(transcript.len(), 1_000_000 - 1 + 2);
    assert_eq!(transcript[transcript.len() - 2], "CommandComplete SELECT 1000000");
}

#[test]
fn a_cancel_stops_one_session_and_no_other() {
    let mut session = Session::new();
    let mut other = Session::new();
    other.send(&query(
        "select a.i as a from generate_series(1, 1000) a(i), generate_series(1, 1000) b(j)",
    ));
    other.take(2);
    session.send(&query(ENDLESS_ROWS));
    session.take(2);
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    drain_cancelled(&mut session);
    assert_eq!(other.transcript().len(), 1_000_000 - 1 + 2);
}

#[test]
fn a_cancel_while_nothing_runs_does_nothing() {
    let mut session = Session::new();
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    session.settle();
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_cancelled_statement_fails_its_transaction() {
    let mut session = Session::new();
    session.execute("create table can_tx (i int)");
    session.execute("begin; insert into can_tx values (1)");
    session.send(&query(ENDLESS_ROWS));
    session.take(2);
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    drain_cancelled(&mut session);
    assert_eq!(session.transcript(), ["ReadyForQuery E"]);
    session.settle();
    assert_eq!(session.query("select 1 as a"), ["Error 25P02", "ReadyForQuery E"]);
    assert_eq!(
        session.query("commit"),
        ["CommandComplete ROLLBACK", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from can_tx"), ["0"]);
}

#[test]
fn a_cancelled_execute_is_skipped_to_its_sync() {
    let mut session = Session::new();
    session.send(
        &[
            parse_statement("", ENDLESS_ROWS),
            bind("", "", &[]),
            execute("", 0),
            parse_statement("", "select 1"),
            sync(),
        ]
        .concat(),
    );
    session.take(3);
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    drain_cancelled(&mut session);
    assert_eq!(session.transcript(), ["ReadyForQuery I"]);
}

#[test]
fn the_rest_of_a_cancelled_message_is_not_executed() {
    let mut session = Session::new();
    session.execute("create table can_rest (i int)");
    session.send(&query(&format!(
        "{ENDLESS_ROWS}; insert into can_rest values (1)"
    )));
    session.take(2);
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    drain_cancelled(&mut session);
    assert_eq!(session.transcript(), ["ReadyForQuery I"]);
    session.settle();
    assert_eq!(session.rows("select count(*) from can_rest"), ["0"]);
}

#[test]
fn a_copy_out_is_cancelled() {
    let mut session = Session::new();
    session.send(&query(&format!("copy ({ENDLESS_ROWS}) to stdout")));
    session.take(2);
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    while let Answer::CopyData(_) | Answer::CopyDone = session.next() {}
    assert_eq!(session.transcript(), ["ReadyForQuery I"]);
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

/// PostgreSQL hears of it with the next piece of data only.
#[test]
fn a_copy_in_is_cancelled() {
    let mut session = Session::new();
    session.execute("create table can_copy (i int)");
    session.send(&query("copy can_copy from stdin"));
    session.take(1);
    session.send(&copy_data(b"1\n"));
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    session.send(&[copy_data(b"2\n"), copy_done()].concat());
    assert_eq!(session.transcript(), ["Error 57014", "ReadyForQuery I"]);
    assert_eq!(session.rows("select count(*) from can_copy"), ["0"]);
}

#[test]
fn a_query_that_waits_for_its_client_to_read_is_cancelled() {
    let mut session = Session::new();
    session.send(&query(ENDLESS_ROWS));
    session.take(2);
    // Nobody reads: the socket's buffers fill up and the server has to wait.
    Session::new().execute("select count(*) from generate_series(1, 1000000) g(i)");
    Session::cancel(&session.key, Server::shared(), Transport::Tcp);
    drain_cancelled(&mut session);
    assert_eq!(session.transcript(), ["ReadyForQuery I"]);
}

#[test]
fn a_cancel_request_that_is_too_long_or_too_short_is_ignored() {
    for length in [0, 1, 3, 257, 5000] {
        let mut messenger = Session::open(Server::shared(), Transport::Tcp);
        messenger.try_send(&cancel_request(1, &vec![7; length])).ok();
        let last = messenger.last_words();
        assert!(
            last.is_empty() || last == ["Error FATAL 08P01"],
            "{length}: {last:?}"
        );
    }
    Server::shared().assert_serving();
}
