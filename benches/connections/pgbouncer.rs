//! A PgBouncer before the PostgreSQL of this run.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Address, Client, Result};
use crate::servers::Server;

const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// Runs as long as this value lives.
pub struct PgBouncer {
    pub address: Address,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An error says why there is none.
pub fn start(postgres: &Server, certified: &Server) -> Result<PgBouncer> {
    if !std::path::Path::new(PROGRAM).exists() {
        return Err(format!("no {PROGRAM} (Debian's package pgbouncer)").into());
    }
    let directory = tempfile::Builder::new().prefix("duckgres-bench-").tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let Address { user, password, .. } = &postgres.address;
    fs::write(path("users"), format!("\"{user}\" \"{password}\"\n"))?;
    fs::copy(certified.directory().join("server.crt"), path("server.crt"))?;
    fs::copy(certified.directory().join("server.key"), path("server.key"))?;
    let configuration = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = session\n\
         default_pool_size = 64\nmin_pool_size = 40\nmax_client_conn = 1000\n\
         client_tls_sslmode = allow\nclient_tls_cert_file = {}\nclient_tls_key_file = {}\n\
         log_connections = 0\nlog_disconnections = 0\nserver_reset_query =\n",
        postgres.address.port,
        path("users").display(),
        path("server.crt").display(),
        path("server.key").display(),
    );
    fs::write(path("pgbouncer.ini"), configuration)?;
    let mut command = Command::new(PROGRAM);
    command
        .args(["-q".as_ref(), path("pgbouncer.ini").as_os_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        // It does not run as root.
        let owner =
            nix::unistd::User::from_name("postgres")?.ok_or("no user postgres to run PgBouncer as")?;
        for name in ["users", "server.crt", "server.key", "pgbouncer.ini", ""] {
            chown(path(name), Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
    }
    let process = command.spawn()?;
    let bouncer = PgBouncer {
        address: Address {
            port,
            ..postgres.address.clone()
        },
        process,
        _directory: directory,
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = Client::connect(&bouncer.address, false) {
        if Instant::now() > deadline {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(bouncer)
}
