//! Clients of a machine, in its network.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::{SupportedProtocolVersion, version};

use super::{Machine, stage};
use crate::support::message::ssl_request;
use crate::support::session::V3_0;
use crate::support::transport::{Road, tls_config};
use crate::support::{PATIENCE, Session, message};

/// The machine's network, for threads to connect from.
pub struct Network {
    namespace: OwnedFd,
    certificate: PathBuf,
}

impl Machine {
    /// Its network.
    pub fn network(&self) -> Network {
        Network {
            namespace: File::open(format!("/proc/{}/ns/net", self.leader()))
                .unwrap()
                .into(),
            certificate: self.etc("duckgres/server.crt"),
        }
    }

    /// A program of the host, in the machine's network.
    pub fn command_in_network(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let leader = self.leader().to_string();
        command.args(["--target", &leader, "--net"]).arg(program);
        command
    }

    /// Logged in over TCP, TLS and SCRAM, idle.
    #[track_caller]
    pub fn connect(&self, user: &str) -> Session {
        self.network().connect(user)
    }

    /// Logged in over the Unix socket, by password.
    #[track_caller]
    pub fn connect_locally(&self, user: &str) -> Session {
        let path = self.path("/run/duckgres/.s.PGSQL.5432");
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        log_in(Session::on(Road::Unix(socket)), user)
    }
}

impl Network {
    /// Connected from inside, and not a word said.
    pub fn tcp(&self) -> io::Result<TcpStream> {
        // A thread that has changed its network namespace is not changed back: it ends.
        let namespace = &self.namespace;
        let connect = || {
            // SAFETY: setns(2) reads the descriptor, which is open, and changes
            // nothing but this thread's network.
            if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            TcpStream::connect("127.0.0.1:5432")
        };
        let socket = std::thread::scope(|scope| scope.spawn(connect).join().unwrap())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    /// Logged in over TCP, TLS and SCRAM, idle.
    #[track_caller]
    pub fn connect(&self, user: &str) -> Session {
        self.log_in_over(self.tcp().unwrap(), &version::TLS13, user)
    }

    /// Logged in over TCP and TLS of that version, or without TLS.
    #[track_caller]
    pub fn connect_over(&self, version: Option<&'static SupportedProtocolVersion>, user: &str) -> Session {
        let socket = self.tcp().unwrap();
        match version {
            Some(version) => self.log_in_over(socket, version, user),
            None => log_in(Session::on(Road::Tcp(socket)), user),
        }
    }

    /// The same on a connection that there is.
    #[track_caller]
    pub fn log_in_over(
        &self,
        mut socket: TcpStream,
        version: &'static SupportedProtocolVersion,
        user: &str,
    ) -> Session {
        let mut answer = [0];
        io::Write::write_all(&mut socket, &ssl_request()).unwrap();
        io::Read::read_exact(&mut socket, &mut answer).unwrap();
        assert_eq!(answer, *b"S", "the server offers TLS");
        let config = tls_config(&self.certificate, &[version], &[]);
        log_in(Session::on(Road::secure(socket, config).unwrap()), user)
    }
}

#[track_caller]
fn log_in(mut session: Session, user: &str) -> Session {
    session.send(&message::startup(V3_0, &[("user", user), ("database", user)]));
    session
        .authenticate(stage::PASSWORD)
        .unwrap_or_else(|report| panic!("{report:?}"));
    session.become_ready();
    session
}
