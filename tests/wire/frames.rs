//! Frames that lie. Each is answered or refused; none costs memory, and none
//! costs anybody else their session.

use crate::support::message::*;
use crate::support::{Server, Session, Transport};

/// PostgreSQL hangs up without a word where duckgres says FATAL 08P01 first.
fn assert_refused(session: &mut Session, case: &str) {
    let last = session.last_words();
    let silent = Server::shared().is_postgres() && last.is_empty();
    assert!(silent || last == ["Error FATAL 08P01"], "{case}: {last:?}");
}

#[test]
fn a_length_below_four_ends_the_session() {
    for length in [3, 2, 1, 0, -1, -4, i32::MIN] {
        for kind in [b'Q', b'P', b'B', b'S', b'd', b'X'] {
            let mut session = Session::new();
            session.try_send(&lying(kind, length, b"select 1\0")).ok();
            assert_refused(&mut session, &format!("{} {length}", kind as char));
        }
    }
    Server::shared().assert_serving();
}

#[test]
fn a_length_of_two_gigabytes_ends_the_session_at_once() {
    for transport in [Transport::Tcp, Transport::Tls13] {
        for kind in [
            b'Q', b'P', b'B', b'D', b'E', b'S', b'C', b'H', b'F', b'f', b'c', b'X',
        ] {
            let mut session = Session::over(Server::shared(), transport);
            session.try_send(&lying(kind, i32::MAX, b"select 1\0")).ok();
            assert_refused(&mut session, &format!("{} over {transport:?}", kind as char));
        }
    }
    Server::shared().assert_serving();
}

#[test]
fn messages_that_cannot_be_long_are_refused_when_they_claim_to_be() {
    for kind in [b'D', b'E', b'S', b'C', b'H', b'c', b'X'] {
        let mut session = Session::new();
        session.try_send(&lying(kind, 1 << 20, b"x")).ok();
        assert_refused(&mut session, &format!("{}", kind as char));
    }
}

/// A length may be true one day; until the bytes come it must cost nothing.
#[test]
fn memory_is_taken_for_bytes_that_came_not_for_bytes_that_were_announced() {
    let server = Server::start();
    let mut warm = Session::over(&server, Transport::Tcp);
    warm.execute("select 1");
    let before = server.resident_bytes();
    let sessions: Vec<Session> = (0..8)
        .map(|_| {
            let mut session = Session::over(&server, Transport::Tcp);
            session.try_send(&lying(b'Q', (1 << 30) - 16, b"select 1 ")).ok();
            session
        })
        .collect();
    // Its answer comes after the server has looked at all of the above.
    assert_eq!(warm.rows("select 1 as a"), ["1"]);
    let grown = server.resident_bytes().saturating_sub(before);
    // A PostgreSQL session is a process and takes some megabytes by itself.
    let allowed = if server.is_postgres() { 256 } else { 64 };
    assert!(
        grown < allowed << 20,
        "8 GiB announced, {} MiB taken",
        grown >> 20
    );
    drop(sessions);
    server.assert_serving();
}

#[test]
fn an_unknown_message_type_ends_the_session() {
    for kind in [b'z', b'?', 0, 0xff, b'T', b'Z', b'R'] {
        let mut session = Session::new();
        session.send(&framed(kind, b""));
        assert_eq!(
            session.last_words(),
            ["Error FATAL 08P01"],
            "{}",
            kind.escape_ascii()
        );
    }
    Server::shared().assert_serving();
}

#[test]
fn messages_of_the_login_have_no_place_in_a_session() {
    let mut session = Session::new();
    session.send(&sasl_response(b"x"));
    assert_eq!(session.last_words(), ["Error FATAL 08P01"]);
}

#[test]
fn copy_messages_outside_of_a_copy_are_ignored() {
    let mut session = Session::new();
    session.send(&[copy_data(b"1\n"), copy_done(), copy_fail("x")].concat());
    assert_eq!(session.rows("select 1 as a"), ["1"]);
    assert_eq!(
        session.run(&[copy_data(b"1\n"), copy_done(), sync()]),
        ["ReadyForQuery I"]
    );
}

#[test]
fn a_query_without_its_nul_is_refused_and_the_session_goes_on() {
    let mut session = Session::new();
    for body in [&b""[..], b"select 1"] {
        assert_eq!(
            session.run(&[framed(b'Q', body)]),
            ["Error 08P01", "ReadyForQuery I"]
        );
    }
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

#[test]
fn bytes_of_the_next_message_are_not_borrowed() {
    let mut session = Session::new();
    // A Query of no bytes, followed by one that has some.
    session.send(&[lying(b'Q', 4, b""), query("select 2 as a")].concat());
    assert_eq!(session.transcript(), ["Error 08P01", "ReadyForQuery I"]);
    assert_eq!(session.transcript()[1], "DataRow 2");
}

#[test]
fn a_bind_cut_short_anywhere_is_refused_and_skipped_to_sync() {
    let mut session = Session::new();
    session.run(&[parse_as("s", "select $1 + $2 as a", &[23, 23]), sync()]);
    let whole = Bind {
        portal: "p",
        statement: "s",
        formats: &[0, 0],
        values: &[Some(b"1"), Some(b"2")],
        results: &[0],
    }
    .body();
    for length in 0..whole.len() {
        assert_eq!(
            session.run(&[framed(b'B', &whole[..length]), execute("p", 0), sync()]),
            ["Error 08P01", "ReadyForQuery I"],
            "{length} of {} bytes",
            whole.len()
        );
    }
    assert_eq!(
        session.run(&[framed(b'B', &whole), execute("p", 0), sync()])[1],
        "DataRow 3"
    );
    let long = [whole.as_slice(), b"x"].concat();
    assert_eq!(
        session.run(&[framed(b'B', &long), sync()]),
        ["Error 08P01", "ReadyForQuery I"]
    );
}

#[test]
fn counts_and_lengths_inside_a_bind_are_not_believed() {
    let mut session = Session::new();
    session.run(&[parse_as("s", "select $1 as a", &[25]), sync()]);
    let head = b"p\0s\0";
    for (case, tail) in [
        ("65535 formats", &b"\xff\xff"[..]),
        ("65535 formats, one of them there", b"\xff\xff\0\0"),
        ("65535 values", b"\0\0\xff\xff"),
        ("a value of 2 GiB", b"\0\0\0\x01\x7f\xff\xff\xffx\0\0"),
        ("a value of length -2", b"\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        (
            "a value of the least length there is",
            b"\0\0\0\x01\x80\0\0\0\0\0",
        ),
        ("65535 result formats", b"\0\0\0\x01\0\0\0\x01x\xff\xff"),
    ] {
        let body = [&head[..], tail].concat();
        assert_eq!(
            session.run(&[framed(b'B', &body), sync()]),
            ["Error 08P01", "ReadyForQuery I"],
            "{case}"
        );
    }
    assert_eq!(
        session.run(&[bind("", "s", &["x"]), execute("", 0), sync()])[1],
        "DataRow x"
    );
}

#[test]
fn other_messages_cut_short_are_refused_and_skipped_to_sync() {
    let mut session = Session::new();
    for (case, message) in [
        ("Parse without anything", framed(b'P', b"")),
        ("Parse without a query", framed(b'P', b"\0")),
        ("Parse without a count", framed(b'P', b"\0select 1\0")),
        (
            "Parse that counts too many types",
            framed(b'P', b"\0select 1\0\xff\xff\0\0\0\x17"),
        ),
        ("Parse with more behind it", framed(b'P', b"\0select 1\0\0\0x")),
        ("Describe of nothing", framed(b'D', b"")),
        ("Describe of a name without its NUL", framed(b'D', b"Sname")),
        ("Describe of something that is neither", framed(b'D', b"X\0")),
        ("Execute without a limit", framed(b'E', b"\0")),
        ("Execute with half a limit", framed(b'E', b"\0\0\0")),
        ("Execute with more behind it", framed(b'E', b"\0\0\0\0\0\0")),
        ("Close of nothing", framed(b'C', b"")),
        ("Close of something that is neither", framed(b'C', b"X\0")),
    ] {
        assert_eq!(
            session.run(&[message, sync()]),
            ["Error 08P01", "ReadyForQuery I"],
            "{case}"
        );
    }
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

#[test]
fn names_of_statements_and_portals_may_be_long_and_strange() {
    let mut session = Session::new();
    for name in ["Ünï códe", "with\"quotes'", &"x".repeat(5000)] {
        let transcript = session.run(&[
            parse_statement(name, "select 1 as a"),
            bind(name, name, &[]),
            execute(name, 0),
            sync(),
        ]);
        assert_eq!(transcript[2], "DataRow 1");
    }
}

#[test]
fn a_function_call_is_refused_and_the_session_goes_on() {
    let server = Server::shared();
    let mut session = Session::new();
    // int4 abs(int4) is function 1397. PostgreSQL still has this protocol.
    let call = framed(
        b'F',
        &[&1397u32.to_be_bytes()[..], b"\0\0\0\x01\0\0\0\x02-7\0\0"].concat(),
    );
    if !server.is_postgres() {
        assert_eq!(session.run(&[call]), ["Error 0A000", "ReadyForQuery I"]);
    }
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}
