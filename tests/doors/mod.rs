//! Who is let in: bans, connections of one address, load balancers, ways to log
//! in, and which databases a user may connect to.
//!
//! Every address of 127.0.0.0/8 is this machine's, so one machine can be many
//! clients.

mod credentials;
mod grants;
mod limits;
mod proxy;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::support::message::{Report, startup};
use crate::support::session::V3_0;
use crate::support::transport::Road;
use crate::support::{PATIENCE, Server, Session};

/// A user name that every server here knows, and its password.
const ALICE: (&str, &str) = ("alice", "correct horse");

/// A server with alice and what else the file says; `None` when the tests are
/// run against PostgreSQL.
fn with_alice(more: &str, arguments: &[&str]) -> Option<Server> {
    let yaml = format!("{more}\nusers:\n  alice: {}\n", ALICE.1);
    configured(&yaml, arguments)
}

/// A server with this file, in which alice is a user; `None` when the tests are
/// run against PostgreSQL.
fn configured(yaml: &str, arguments: &[&str]) -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's configuration");
        return None;
    }
    Some(Server::configured(yaml, ALICE, arguments))
}

/// A TCP connection that comes from 127.0.0.`last`.
fn tcp_from(server: &Server, last: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    socket.bind(&from.into()).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port));
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A plaintext connection from there on which a session has been asked for.
fn knock_from(server: &Server, last: u8, user: &str) -> Session {
    let mut session = Session::on(Road::Tcp(tcp_from(server, last)));
    session.try_send(&startup(V3_0, &[("user", user)])).ok();
    session
}

/// Logs in over plaintext from there, and says hello.
fn log_in_from(server: &Server, last: u8) -> Result<Session, Report> {
    let mut session = knock_from(server, last, &server.user);
    session.authenticate(&server.password)?;
    session.become_ready();
    Ok(session)
}
