//! What a reload brings, and what it carries over.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::against_postgres;
use crate::support::message::*;
use crate::support::processes::is_running;
use crate::support::session::V3_0;
use crate::support::transport::Road;
use crate::support::{Server, Session, Transport, eventually};

fn metrics(server: &Server) -> String {
    let log = server.log();
    let (_, rest) = log.rsplit_once("metrics are served on http://").unwrap();
    let address = rest.split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn value(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
}

fn log_in(server: &Server, user: &str, password: &str) -> Result<Session, String> {
    let mut session = Session::open(server, Transport::Tcp);
    session.try_send(&startup(V3_0, &[("user", user)])).ok();
    match session.authenticate(password) {
        Ok(()) => {
            session.become_ready();
            Ok(session)
        }
        Err(report) => Err(report.sqlstate().to_owned()),
    }
}

#[test]
fn bans_and_counters_go_on() {
    if against_postgres() {
        return;
    }
    let arguments = ["--max-failed-attempts", "3", "--metrics-address", "127.0.0.1:0"];
    let server = Server::with_workers(1, &arguments);
    Session::of(&server, "u0", Transport::Tls13);
    assert_eq!(log_in(&server, "u0", "wrong").err().unwrap(), "28P01");
    assert_eq!(log_in(&server, "u0", "wrong").err().unwrap(), "28P01");
    let before = metrics(&server);
    server.reload();
    let after = metrics(&server);
    for name in [
        "duckgres_auth_failures_total",
        "duckgres_worker_handoffs_total{worker=\"1\"}",
        "duckgres_worker_handoff_seconds_sum{worker=\"1\"}",
        "duckgres_worker_restarts_total{worker=\"1\"}",
    ] {
        assert_eq!(value(&after, name), value(&before, name), "{name}");
    }
    // The third, counted by another process than the first two.
    assert_eq!(log_in(&server, "u0", "wrong").err().unwrap(), "28P01");
    assert_eq!(log_in(&server, "u0", &server.password).err().unwrap(), "28000");
    server.reload();
    assert_eq!(log_in(&server, "u0", &server.password).err().unwrap(), "28000");
    let after = metrics(&server);
    assert_eq!(value(&after, "duckgres_auth_failures_total"), 3.0);
    assert_eq!(value(&after, "duckgres_rate_limit_rejects_total"), 2.0);
    assert_eq!(value(&after, "duckgres_rate_limited_ips"), 1.0);
}

#[test]
fn who_fails_with_the_old_process_is_banned_by_the_new_one() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(1, &["--max-failed-attempts", "1"]);
    let old = server.pid();
    let mut late = Session::open(&server, Transport::Tcp);
    late.send(&startup(V3_0, &[("user", "u0")]));
    server.reload();
    assert_eq!(late.authenticate("wrong").unwrap_err().sqlstate(), "28P01");
    drop(late);
    eventually("the old process leaves", || (!is_running(old)).then_some(()));
    eventually("its last word arrives", || {
        let refused = log_in(&server, "u0", &server.password).err();
        (refused.as_deref() == Some("28000")).then_some(())
    });
}

#[test]
fn connections_of_an_address_count_on() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(1, &["--max-connections-per-ip", "2"]);
    let first = log_in(&server, "u0", &server.password).unwrap();
    let _second = log_in(&server, "u0", &server.password).unwrap();
    server.reload();
    assert_eq!(log_in(&server, "u0", &server.password).err().unwrap(), "53300");
    drop(first);
    eventually("its place is free", || {
        log_in(&server, "u0", &server.password).ok()
    });
}

#[test]
fn the_certificate_and_the_users_are_read_anew() {
    if against_postgres() {
        return;
    }
    let mut server = Server::with_workers(1, &[]);
    let mut session = Session::of(&server, "u0", Transport::Tls13);
    let file = server.scratch("duckgres.yaml");
    fs::write(&file, "users:\n  u0: another-secret\n  new: not-a-secret\n").unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let old_certificate = server.scratch("old.crt");
    fs::rename(&server.certificate, &old_certificate).unwrap();
    fs::write(&server.certificate, certified.cert.pem()).unwrap();
    fs::write(
        server.scratch("server.key"),
        certified.signing_key.serialize_pem(),
    )
    .unwrap();
    // Until then nothing has changed.
    assert!(Road::open(&server, Transport::Tls13).is_err());
    assert!(log_in(&server, "u0", "not-a-secret").is_ok());
    server.reload();
    Session::of(&server, "new", Transport::Tls13);
    assert_eq!(log_in(&server, "u0", "not-a-secret").err().unwrap(), "28P01");
    assert!(log_in(&server, "u0", "another-secret").is_ok());
    assert_eq!(session.rows("select 1 as a"), ["1"]);
    server.certificate = old_certificate;
    assert!(Road::open(&server, Transport::Tls13).is_err());
}

#[test]
fn doors_are_opened_and_closed_as_the_configuration_says() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(1, &[]);
    let file = server.scratch("duckgres.yaml");
    let users = fs::read_to_string(&file).unwrap();
    let (port, socket) = (server.port, server.socket());
    // Wider, on the same port, which is ours already.
    fs::write(&file, format!("{users}host: \"*\"\n")).unwrap();
    server.reload();
    assert!(std::net::TcpStream::connect(("127.0.0.2", port)).is_ok());
    assert!(socket.exists());
    fs::write(&file, format!("{users}host: 127.0.0.1\n")).unwrap();
    server.reload();
    assert!(std::net::TcpStream::connect(("127.0.0.2", port)).is_err());
    server.assert_serving_to("u0");
    // No TCP at all: only the Unix socket is left.
    fs::write(&file, format!("{users}host: []\n")).unwrap();
    server.reload();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn workers_come_and_go_with_a_reload() {
    if against_postgres() {
        return;
    }
    let yaml = "users:\n  u0: not-a-secret\n  u1: not-a-secret\n";
    let server = Server::configured(yaml, ("u0", "not-a-secret"), &[]);
    let file = server.scratch("duckgres.yaml");
    let first = Session::of(&server, "u0", Transport::Tcp);
    fs::write(&file, format!("{yaml}worker_count: 2\n")).unwrap();
    server.reload();
    let mut second = Session::of(&server, "u1", Transport::Tcp);
    assert_eq!((first.worker(), second.worker()), (1, 2));
    let retiring = server.worker_process(2);
    fs::write(&file, yaml).unwrap();
    server.reload();
    eventually("it leaves, and its session to the other", || {
        (!is_running(retiring)).then_some(())
    });
    assert_eq!(second.rows("select 1 as a"), ["1"]);
    assert_eq!(Session::of(&server, "u1", Transport::Tcp).worker(), 1);
}
