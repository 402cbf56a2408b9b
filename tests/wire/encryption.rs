//! The way into TLS, and that nothing said in the clear is ever believed
//! inside.

use std::io::{Read, Write};

use rustls::version;

use crate::support::message::*;
use crate::support::session::V3_0;
use crate::support::transport::{Road, tcp, tls_config};
use crate::support::{Server, Session, Transport};

fn startup_of(server: &Server) -> Vec<u8> {
    startup(V3_0, &[("user", &server.user), ("database", &server.database)])
}

/// CVE-2021-23214: a man in the middle puts messages behind the SSLRequest and
/// hopes that the server takes them for the client's.
#[test]
fn plaintext_stuffed_behind_the_ssl_request_is_never_used() {
    let server = Server::shared();
    for stuffing in [startup_of(server), query("select 1"), vec![0], ssl_request()] {
        let mut socket = tcp(server).unwrap();
        socket.write_all(&[ssl_request(), stuffing].concat()).unwrap();
        let mut answer = [0];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *b"S");
        let config = tls_config(&server.certificate, &[&version::TLS13, &version::TLS12], &[]);
        // duckgres takes it for a broken handshake; PostgreSQL notices afterwards.
        if let Ok(road) = Road::secure(socket, config) {
            assert_eq!(Session::on(road).last_words(), ["Error FATAL 08P01"]);
        }
    }
    server.assert_serving();
}

/// The same, with the stuffing a little later than the SSLRequest.
#[test]
fn plaintext_between_the_ssl_request_and_the_handshake_is_never_used() {
    let server = Server::shared();
    let mut socket = tcp(server).unwrap();
    socket.write_all(&ssl_request()).unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).unwrap();
    socket.write_all(&startup_of(server)).unwrap();
    let config = tls_config(&server.certificate, &[&version::TLS13, &version::TLS12], &[]);
    assert!(Road::secure(socket, config).is_err());
    server.assert_serving();
}

/// A TLS record whose plaintext follows the handshake in the clear.
#[test]
fn plaintext_after_the_handshake_ends_the_connection() {
    let server = Server::shared();
    let Road::Tls(mut stream) = Road::open(server, Transport::Tls13).unwrap() else {
        unreachable!()
    };
    stream.sock.write_all(&startup_of(server)).unwrap();
    let mut rest = Vec::new();
    stream.sock.read_to_end(&mut rest).ok();
    // An alert (0x15) is all that may come, besides records of TLS 1.3 (0x17).
    assert!(
        rest.is_empty() || rest[0] == 0x15 || rest[0] == 0x17,
        "{}",
        rest.escape_ascii()
    );
    server.assert_serving();
}

#[test]
fn tls_cannot_be_asked_for_twice() {
    let server = Server::shared();
    let mut session = Session::open(server, Transport::Tls13);
    session.send(&ssl_request());
    let last = session.bytes_to_the_end();
    assert!(last.first() != Some(&b'S'), "{}", last.escape_ascii());
}

#[test]
fn a_session_in_tls_works_with_records_of_one_byte() {
    let server = Server::shared();
    for transport in [Transport::Tls13, Transport::Tls12] {
        let mut session = Session::open(server, transport);
        for byte in startup_of(server) {
            session.send(&[byte]);
        }
        session.authenticate(&server.password).unwrap();
        session.become_ready();
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
}

/// The startup message, and even more, may come in the same segment as the end
/// of the handshake; a server must not lose it on the way to its worker.
#[test]
fn what_arrives_together_with_the_end_of_the_handshake_is_not_lost() {
    let server = Server::shared();
    for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
        let mut socket = tcp(server).unwrap();
        socket.write_all(&ssl_request()).unwrap();
        let mut answer = [0];
        socket.read_exact(&mut answer).unwrap();
        let config = std::sync::Arc::new(tls_config(&server.certificate, versions, &[]));
        let mut connection = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        // rustls holds this back until the handshake is over, and sends it with Finished.
        connection.writer().write_all(&startup_of(server)).unwrap();
        let mut session = Session::on(Road::Tls(Box::new(rustls::StreamOwned::new(connection, socket))));
        session.authenticate(&server.password).unwrap();
        session.become_ready();
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
}

#[test]
fn a_client_that_does_not_trust_the_certificate_gets_nowhere() {
    let server = Server::shared();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let path = server.scratch("stranger.crt");
    std::fs::write(&path, other.cert.pem()).unwrap();
    let mut socket = tcp(server).unwrap();
    socket.write_all(&ssl_request()).unwrap();
    socket.read_exact(&mut [0]).unwrap();
    assert!(Road::secure(socket, tls_config(&path, &[&version::TLS13], &[])).is_err());
    server.assert_serving();
}

#[test]
fn garbage_instead_of_a_handshake_is_refused() {
    let server = Server::shared();
    for garbage in [
        &b"\x16\x03\x01\xff\xff"[..],
        b"\x16\x03\x01\0\x01\x02",
        b"\0\0\0\0\0\0\0\0",
        b"\x80\x2e\x01\x03\x01",
    ] {
        let mut socket = tcp(server).unwrap();
        socket.write_all(&ssl_request()).unwrap();
        socket.read_exact(&mut [0]).unwrap();
        socket.write_all(garbage).unwrap();
        // The server may have hung up already.
        socket.shutdown(std::net::Shutdown::Write).ok();
        socket.read_to_end(&mut Vec::new()).ok();
    }
    server.assert_serving();
}

#[test]
fn tls_from_the_first_byte_needs_the_protocol_name() {
    let server = Server::shared();
    if server.is_postgres() {
        println!("skipped: PostgreSQL has direct TLS since version 17");
        return;
    }
    let mut session = Session::over(server, Transport::DirectTls);
    assert_eq!(session.rows("select 1 as a"), ["1"]);

    for alpn in [&[][..], &[&b"h2"[..]]] {
        let config = tls_config(&server.certificate, &[&version::TLS13], alpn);
        let road = Road::secure(tcp(server).unwrap(), config);
        // The refusal may reach a TLS 1.3 client after its own Finished.
        let refused = road.map_or(true, |mut road| {
            road.write_all(&startup_of(server)).is_err() || !matches!(road.read(&mut [0]), Ok(1..))
        });
        assert!(refused, "{alpn:?} is not postgresql");
    }
}

#[test]
fn close_notify_ends_a_session_cleanly() {
    for transport in [Transport::Tls13, Transport::Tls12] {
        let mut session = Session::over(Server::shared(), transport);
        session.close_notify();
        assert_eq!(session.last_words(), [] as [&str; 0]);
    }
    Server::shared().assert_serving();
}

#[test]
fn a_client_may_change_its_keys_in_the_middle() {
    let mut session = Session::over(Server::shared(), Transport::Tls13);
    for i in 1..=5 {
        session.refresh_keys();
        assert_eq!(session.rows(&format!("select {i} as a")), [i.to_string()]);
    }
}
