//! Clients that leave without saying so, at every step of a connection's life.

use std::io::Write;
use std::net::Shutdown;

use crate::support::message::*;
use crate::support::session::V3_0;
use crate::support::transport::tcp;
use crate::support::{Server, Session, Transport, eventually};

/// Long enough to outlast any test, in DuckDB and in PostgreSQL.
pub const ENDLESS: &str =
    "select count(*) as a from generate_series(1, 1000000) a(i), generate_series(1, 1000000) b(j)
     where (i + j) % 1000003 = 1000002";

#[test]
fn a_client_may_leave_at_every_step_of_the_login() {
    let server = Server::shared();
    let hello = startup(V3_0, &[("user", &server.user), ("database", &server.database)]);
    let steps: [&[u8]; 6] = [
        b"",
        &[0],
        &ssl_request(),
        &[ssl_request(), b"\x16\x03\x01".to_vec()].concat(),
        &hello[..hello.len() / 2],
        &hello,
    ];
    for bytes in steps {
        for orderly in [true, false] {
            let mut socket = tcp(server).unwrap();
            socket.write_all(bytes).unwrap();
            let how = if orderly { Shutdown::Write } else { Shutdown::Both };
            socket.shutdown(how).ok();
        }
    }
    let mut session = Session::open(server, Transport::Tcp);
    session.send(&hello);
    session.expect_authentication(10).unwrap();
    session.vanish();
    let mut session = Session::open(server, Transport::Tls13);
    session.send(&hello);
    session.expect_authentication(10).unwrap();
    session.send(&sasl_initial("SCRAM-SHA-256", b"n,,n=,r=clientnonceclientnonce"));
    session.vanish();
    Session::open(server, Transport::Tls12).vanish();
    server.assert_serving();
}

#[test]
fn a_client_may_leave_right_after_the_login() {
    for transport in Transport::ALL {
        Session::over(Server::shared(), transport).vanish();
    }
    Server::shared().assert_serving();
}

#[test]
fn a_client_may_leave_in_the_middle_of_a_message() {
    for transport in Transport::ALL {
        let whole = [
            parse_statement("", "select 1"),
            bind("", "", &[]),
            execute("", 0),
            sync(),
        ]
        .concat();
        for length in [1, 4, 5, 12, whole.len() - 1] {
            let mut session = Session::over(Server::shared(), transport);
            session.send(&whole[..length]);
            session.vanish();
        }
    }
    Server::shared().assert_serving();
}

#[test]
fn a_client_may_leave_in_the_middle_of_a_result() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        session.send(&query(
            "select a.i from generate_series(1, 1000000) a(i), generate_series(1, 1000) b(j)",
        ));
        session.take(3);
        session.vanish();
    }
    Server::shared().assert_serving();
}

#[test]
fn a_client_may_leave_in_the_middle_of_a_copy() {
    let mut session = Session::new();
    session.execute("create table dis_copy (i int)");
    for transport in Transport::ALL {
        let mut other = Session::over(Server::shared(), transport);
        other.send(&[query("copy dis_copy from stdin"), copy_data(b"1\n2\n")].concat());
        other.take(1);
        other.vanish();
        let mut other = Session::over(Server::shared(), transport);
        other.send(&query(
            "copy (select i from generate_series(1, 10000000) g(i)) to stdout",
        ));
        other.take(3);
        other.vanish();
    }
    assert_eq!(session.rows("select count(*) from dis_copy"), ["0"]);
}

/// While the query runs, its transaction keeps others from changing the row.
#[test]
fn a_client_that_vanishes_stops_its_query() {
    for transport in [Transport::Tcp, Transport::Tls13, Transport::Unix] {
        let mut other = Session::new();
        other.execute("drop table if exists dis_vanish; create table dis_vanish (i int primary key, v int)");
        other.execute("insert into dis_vanish values (1, 0)");
        let mut session = Session::over(Server::shared(), transport);
        session.execute("begin; update dis_vanish set v = 1");
        session.send(&query(ENDLESS));
        session.vanish();
        eventually(
            &format!("the query of the client that vanished from {transport:?} ends, and its transaction"),
            || {
                // PostgreSQL waits for the row, DuckDB reports a conflict.
                let transcript = other.query("update dis_vanish set v = 2");
                (transcript == ["CommandComplete UPDATE 1", "ReadyForQuery I"]).then_some(())
            },
        );
    }
}

#[test]
fn a_client_that_hangs_up_after_sending_queries_had_them_executed_or_not_but_breaks_nothing() {
    let server = Server::shared();
    let mut other = Session::new();
    other.execute("create table dis_hangup (i int)");
    for _ in 0..20 {
        let mut session = Session::over(server, Transport::Tcp);
        let pipeline: Vec<u8> = (0..50)
            .flat_map(|i| query(&format!("insert into dis_hangup values ({i})")))
            .collect();
        session.send(&pipeline);
        session.vanish();
    }
    server.assert_serving();
}

#[test]
fn a_terminate_behind_a_pipeline_lets_the_pipeline_finish() {
    let mut session = Session::new();
    session.execute("create table dis_terminate (i int)");
    let mut pipeline: Vec<u8> = (0..20)
        .flat_map(|i| query(&format!("insert into dis_terminate values ({i})")))
        .collect();
    pipeline.extend(terminate());
    session.send(&pipeline);
    assert_eq!(session.last_words().len(), 40);
    assert_eq!(Session::new().rows("select count(*) from dis_terminate"), ["20"]);
}
