//! Behind a load balancer that speaks the PROXY protocol.

use std::io::{Read, Write};

use super::{log_in_from, tcp_from, with_alice};
use crate::support::message::{Report, ssl_request, startup};
use crate::support::session::V3_0;
use crate::support::transport::{Road, tls_config};
use crate::support::{Server, Session, Transport, eventually};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The address of the balancer: 127.0.0.9.
const BALANCER: u8 = 9;
const TRUSTED: &str = "proxy_protocol:\n  trusted_addresses: [127.0.0.8/31, \"2001:db8::/32\"]\n";

fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

/// The header for the client 203.0.113.`last`, port 50312, with some of what
/// balancers like to add.
fn client(last: u8) -> Vec<u8> {
    let addresses = [203, 0, 113, last, 127, 0, 0, 1, 0xc4, 0x88, 0x15, 0x38];
    header(
        1,
        0x11,
        &[&addresses[..], b"\x20\0\x05\x01\0\0\0\0\x04\0\x02ab"].concat(),
    )
}

fn behind(server: &Server, header: &[u8], password: &str) -> Result<Session, Report> {
    let mut socket = tcp_from(server, BALANCER);
    socket.write_all(header).unwrap();
    let mut session = Session::on(Road::Tcp(socket));
    session.send(&startup(V3_0, &[("user", "alice")]));
    session.authenticate(password)?;
    session.become_ready();
    Ok(session)
}

/// What a connection from there gets for these bytes until it is closed.
fn answer(server: &Server, from: u8, bytes: &[u8]) -> Vec<u8> {
    let mut socket = tcp_from(server, from);
    // It may be closed before all is said.
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

#[test]
fn the_clients_address_is_the_one_in_the_header_however_it_is_split() {
    let Some(server) = with_alice(TRUSTED, &[]) else {
        return;
    };
    behind(&server, &client(7), &server.password).unwrap();
    eventually("the log has the client's address", || {
        server.log().contains("peer=203.0.113.7:50312").then_some(())
    });

    // A byte at a time, and everything at once, with TLS behind it.
    for size in [1, 1000] {
        let mut socket = tcp_from(&server, BALANCER);
        for bytes in [client(8), ssl_request()].concat().chunks(size) {
            socket.write_all(bytes).unwrap();
        }
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"S");
        let config = tls_config(&server.certificate, &[&rustls::version::TLS13], &[]);
        let mut session = Session::on(Road::secure(socket, config).unwrap());
        session.send(&startup(V3_0, &[("user", "alice")]));
        session
            .authenticate_bound(&server.password, &server.certificate)
            .unwrap();
        session.become_ready();
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }

    let v6 = [
        &[0x20, 1, 0xd, 0xb8][..],
        &[0; 11],
        &[7],
        &[1; 16],
        &[0xc4, 0x88, 0x15, 0x38],
    ]
    .concat();
    behind(&server, &header(1, 0x21, &v6), &server.password).unwrap();
    eventually("the log has the client's address", || {
        server.log().contains("peer=[2001:db8::7]:50312").then_some(())
    });
}

#[test]
fn a_balancer_may_speak_for_itself() {
    let Some(server) = with_alice(TRUSTED, &[]) else {
        return;
    };
    for header in [header(0, 0, b""), header(0, 0x11, &[1; 12]), header(1, 0, b"")] {
        behind(&server, &header, &server.password).unwrap();
    }
    eventually("the log has the balancer's address", || {
        (server.log().matches("peer=127.0.0.9:").count() == 3).then_some(())
    });
}

#[test]
fn limits_apply_to_the_client_and_not_to_the_balancer() {
    let arguments = ["--max-failed-attempts", "2"];
    let Some(server) = with_alice(TRUSTED, &arguments) else {
        return;
    };
    for _ in 0..2 {
        let report = behind(&server, &client(7), "wrong").err().unwrap();
        assert_eq!(report.sqlstate(), "28P01");
    }
    let report = behind(&server, &client(7), &server.password).err().unwrap();
    assert_eq!(report.sqlstate(), "28000");
    assert!(report.message().contains("203.0.113.7"), "{report:?}");
    behind(&server, &client(8), &server.password).unwrap();
}

#[test]
fn a_header_is_refused_from_everybody_else_and_required_from_the_balancer() {
    let Some(server) = with_alice(TRUSTED, &[]) else {
        return;
    };
    let startup = startup(V3_0, &[("user", "alice")]);
    assert_eq!(answer(&server, 1, &[client(7), startup.clone()].concat()), b"");
    log_in_from(&server, 1).unwrap();

    for bytes in [
        ssl_request(),
        startup,
        b"PROXY TCP4 203.0.113.7 127.0.0.1 50312 5432\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        assert_eq!(answer(&server, BALANCER, &bytes), b"", "{}", bytes.escape_ascii());
    }
    // The Unix socket has no balancer in front of it.
    Session::over(&server, Transport::Unix);
}

#[test]
fn headers_that_lie_are_refused() {
    let Some(server) = with_alice(TRUSTED, &[]) else {
        return;
    };
    for bytes in [
        header(2, 0x11, &[1; 12]),
        header(1, 0x12, &[1; 12]),
        header(1, 0x11, &[1; 11]),
        header(1, 0x21, &[1; 12]),
        header(0, 0, &[1; 5000]),
        [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat(),
        [&SIGNATURE[..11], b"\r!\x11\0\x0c"].concat(),
    ] {
        assert_eq!(answer(&server, BALANCER, &bytes), b"", "{}", bytes.escape_ascii());
    }
    behind(&server, &client(7), &server.password).unwrap();
}

#[test]
fn a_balancer_that_does_not_finish_its_header_is_sent_away() {
    let Some(server) = with_alice(TRUSTED, &["--authentication-timeout", "1s"]) else {
        return;
    };
    for length in [0, 1, 12, 16, 20] {
        assert_eq!(answer(&server, BALANCER, &client(7)[..length]), b"", "{length}");
    }
}
