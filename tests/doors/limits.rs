//! Bans and connections of one address.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::{knock_from, log_in_from, tcp_from, with_alice};
use crate::support::message::{ssl_request, startup};
use crate::support::session::V3_0;
use crate::support::transport::Road;
use crate::support::{Server, Session, Transport, eventually};
use crate::wire::ENDLESS;

fn fail_from(server: &Server, last: u8, user: &str) {
    let report = knock_from(server, last, user).authenticate("wrong").unwrap_err();
    assert_eq!(report.sqlstate(), "28P01");
}

#[test]
fn an_address_that_fails_to_log_in_is_banned_and_nobody_else_is() {
    let Some(server) = with_alice("", &["--max-failed-attempts", "3"]) else {
        return;
    };
    let mut inside = log_in_from(&server, 1).unwrap();
    let mut early = knock_from(&server, 1, "alice");
    early.expect_authentication(10).unwrap();
    // Strangers count like wrong passwords, or one could tell them apart.
    for user in ["alice", "nosuch", "alice"] {
        fail_from(&server, 1, user);
    }

    let mut banned = knock_from(&server, 1, "alice");
    let report = banned.expect_authentication(10).unwrap_err();
    assert_eq!((report.severity(), report.sqlstate()), ("FATAL", "28000"));
    assert_eq!(
        report.message(),
        "connections from 127.0.0.1 are refused after too many failed logins"
    );
    assert!(report.field('D').starts_with("The ban ends in "), "{report:?}");
    assert_eq!(banned.last_words(), [] as [&str; 0]);

    // TLS is not begun with them.
    let mut secure = tcp_from(&server, 1);
    secure.write_all(&ssl_request()).unwrap();
    let mut answer = Vec::new();
    secure.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first(), Some(&b'E'), "{}", answer.escape_ascii());

    // Who was asked for a password before the ban began is too late.
    early.send(&crate::support::message::sasl_initial(
        "SCRAM-SHA-256",
        b"n,,n=,r=clientnonceclientnonce",
    ));
    early.expect_authentication(11).unwrap();
    early.send(&crate::support::message::sasl_response(b"whatever it is"));
    assert_eq!(early.last_words(), ["Error FATAL 28000"]);

    log_in_from(&server, 2).unwrap();
    Session::over(&server, Transport::Unix);
    assert_eq!(inside.rows("select 1 as a"), ["1"], "sessions stay");
    let line = "banned after failed logins network=127.0.0.1 failures=3";
    assert_eq!(server.log().matches(line).count(), 1, "{}", server.log());
}

#[test]
fn a_ban_ends() {
    let arguments = ["--max-failed-attempts", "2", "--ban-duration", "2s"];
    let Some(server) = with_alice("", &arguments) else {
        return;
    };
    fail_from(&server, 1, "alice");
    let before = Instant::now();
    fail_from(&server, 1, "alice");
    eventually("the address is let in again", || {
        let mut session = knock_from(&server, 1, "alice");
        match session.authenticate(&server.password) {
            Ok(()) => Some(()),
            Err(report) => {
                assert_eq!(report.sqlstate(), "28000");
                None
            }
        }
    });
    assert!(before.elapsed() >= Duration::from_secs(2));
    // And has all its attempts again.
    fail_from(&server, 1, "alice");
    log_in_from(&server, 1).unwrap();
}

#[test]
fn failures_over_the_unix_socket_ban_nobody() {
    let Some(server) = with_alice("", &["--max-failed-attempts", "1"]) else {
        return;
    };
    for _ in 0..3 {
        let mut session = Session::open(&server, Transport::Unix);
        session.send(&startup(V3_0, &[("user", "alice")]));
        assert_eq!(session.authenticate("wrong").unwrap_err().sqlstate(), "28P01");
    }
    Session::over(&server, Transport::Unix);
    log_in_from(&server, 1).unwrap();
}

#[test]
fn one_address_has_only_so_many_connections_and_can_still_cancel() {
    let Some(server) = with_alice("", &["--max-connections-per-ip", "2"]) else {
        return;
    };
    let mut busy = Session::over(&server, Transport::Unix);
    busy.send(&crate::support::message::query(ENDLESS));

    let mut two: Vec<Session> = (0..2).map(|_| knock_from(&server, 1, "alice")).collect();
    for session in &mut two {
        session.expect_authentication(10).unwrap();
    }
    let report = knock_from(&server, 1, "alice")
        .expect_authentication(10)
        .unwrap_err();
    assert_eq!(report.sqlstate(), "53300");
    assert_eq!(report.message(), "too many connections from 127.0.0.1");
    for transport in [Transport::Tls13, Transport::Tls12] {
        let mut session = Session::on(Road::open(&server, transport).unwrap());
        session.try_send(&startup(V3_0, &[("user", "alice")])).ok();
        assert_eq!(session.last_words(), ["Error FATAL 53300"], "{transport:?}");
    }
    log_in_from(&server, 2).unwrap();
    Session::over(&server, Transport::Unix);

    Session::cancel(&busy.key, &server, Transport::Tcp);
    assert!(busy.transcript().iter().any(|answer| answer == "Error 57014"));

    two.pop();
    eventually("there is room again", || log_in_from(&server, 1).ok());
}
