//! Clients that are gone without a word: their host died, or the cable did.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::message::*;
use crate::support::session::V3_0;
use crate::support::transport::Road;
use crate::support::{PATIENCE, Server, Session, eventually};

/// A network namespace that is joined to ours by a line of its own.
struct Line {
    name: String,
    number: u32,
}

impl Line {
    /// None where that is not permitted.
    fn lay(number: u32) -> Option<Line> {
        let name = format!("duckgres-{}-{number}", std::process::id());
        let line = Line { name, number };
        let name = &line.name;
        let laid = ip(&format!("netns add {name}"))
            && ip(&format!(
                "link add dgt{number} type veth peer name dgc{number} netns {name}"
            ))
            && ip(&format!("addr add {} dev dgt{number}", line.address(1) + "/30"))
            && ip(&format!("link set dgt{number} up"))
            && ip(&format!(
                "-n {name} addr add {} dev dgc{number}",
                line.address(2) + "/30"
            ))
            && ip(&format!("-n {name} link set dgc{number} up"));
        if !laid {
            println!("skipped: network namespaces need root and the command ip");
        }
        laid.then_some(line)
    }

    fn address(&self, end: u32) -> String {
        let place = std::process::id() % 4096 * 16 + self.number * 4 + end;
        format!("10.213.{}.{}", place / 256, place % 256)
    }

    /// A connection from the far end.
    fn connect(&self, port: u16) -> TcpStream {
        let path = format!("/run/netns/{}", self.name);
        let address = self.address(1);
        thread::spawn(move || {
            let namespace = File::open(path).unwrap();
            // SAFETY: changes this thread alone, which ends here.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0);
            TcpStream::connect((address, port)).unwrap()
        })
        .join()
        .unwrap()
    }

    fn cut(&self) {
        assert!(ip(&format!("link set dgt{} down", self.number)));
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        ip(&format!("link del dgt{}", self.number));
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

/// A session from the far end of a line, whose death shows by what it holds.
fn far_session(server: &Server, line: &Line) -> Session {
    let socket = line.connect(server.port);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut session = Session::on(Road::Tcp(socket));
    session.send(&startup(
        V3_0,
        &[("user", &server.user), ("database", &server.database)],
    ));
    session.authenticate(&server.password).unwrap();
    session.become_ready();
    for setting in [
        "tcp_keepalives_idle = 1",
        "tcp_keepalives_interval = 1",
        "tcp_keepalives_count = 2",
        "tcp_user_timeout = '2s'",
    ] {
        session.execute(&format!("set {setting}"));
    }
    session.execute("begin");
    session.execute("insert into held values (1)");
    session
}

/// What a dead session held is free again.
fn is_freed(server: &Server) {
    eventually("the dead session's transaction is rolled back", || {
        let transcript =
            Session::over(server, crate::support::Transport::Unix).query("insert into held values (1)");
        transcript[0].starts_with("CommandComplete").then_some(())
    });
}

fn server() -> Server {
    let server = Server::duckgres(&["--host", "*", "--tls-mode", "allow"]);
    Session::over(&server, crate::support::Transport::Unix).execute("create table held (a int primary key)");
    server
}

#[test]
fn an_idle_client_whose_host_died_is_found() {
    let Some(line) = Line::lay(1) else { return };
    let server = server();
    let session = far_session(&server, &line);
    line.cut();
    is_freed(&server);
    drop(session);
}

#[test]
fn a_client_whose_host_died_while_rows_were_sent_is_found() {
    let Some(line) = Line::lay(2) else { return };
    let server = server();
    let mut session = far_session(&server, &line);
    session.send(&query("select i as a from generate_series(1, 100000000) g(i)"));
    assert!(session.read_some(1000) > 0);
    line.cut();
    is_freed(&server);
}

#[test]
fn a_client_that_lives_may_take_its_time_to_read() {
    let mut session = Session::new();
    session.execute("set tcp_user_timeout = '500ms'");
    session.send(&query(
        "select repeat('x', 1000) as a from generate_series(1, 60000)",
    ));
    session.take(2);
    // Nothing happens that could be awaited: that is what is tested.
    thread::sleep(Duration::from_secs(3));
    let answers = session.answers();
    assert_eq!(
        answers[answers.len() - 2].to_string(),
        "CommandComplete SELECT 60000"
    );
}

#[test]
fn how_a_dead_client_is_found_can_be_set_and_shown() {
    let mut session = Session::new();
    session.execute("set tcp_keepalives_idle = 7");
    assert_eq!(session.rows("show tcp_keepalives_idle"), ["7"]);
    session.execute("set tcp_user_timeout = 30000");
    assert_eq!(session.rows("show tcp_user_timeout"), ["30s"]);
    assert_eq!(
        session.query("set tcp_keepalives_count = 'some'"),
        ["Error 22023", "ReadyForQuery I"]
    );
}
