//! The two servers, started for this run and stopped after it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::client::{Address, Client, Result};

const POSTGRES: &str = "/usr/lib/postgresql/15/bin";

/// A server that runs as long as this value lives.
pub struct Server {
    pub name: &'static str,
    pub address: Address,
    process: Child,
    /// The process that serves sessions, where it is one for all of them.
    worker: Option<u32>,
    _directory: tempfile::TempDir,
}

impl Server {
    /// The process whose processor time a session costs.
    pub fn process_of(&self, session: &Client) -> u32 {
        self.worker.unwrap_or(session.backend_pid.unsigned_abs())
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self._directory.path()
    }

    /// The resident memory of its processes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let mut pages = 0;
        for pid in [Some(self.process.id()), self.worker].into_iter().flatten() {
            let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
            pages += statm.split(' ').nth(1).ok_or("statm")?.parse::<u64>()?;
        }
        Ok(pages * 4096)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT: duckgres drains, PostgreSQL does a fast shutdown.
        let pid = nix::unistd::Pid::from_raw(self.process.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let _ = self.process.wait();
    }
}

/// duckgres as it comes, with `database` as its user's own.
pub fn duckgres(database: &Path) -> Result<Server> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?
        .ok_or("who am I?")?
        .name;
    fs::copy(database, directory.path().join(format!("{user}.duckdb")))?;
    let mut process = Command::new(env!("CARGO_BIN_EXE_duckgres"))
        .args([
            "--port",
            "0",
            "--host",
            "127.0.0.1",
            "--log-level",
            "warn",
            // All clients have one address here.
            "--max-connections-per-ip",
            "0",
            "--max-connections",
            "0",
            "--metrics-address",
            "off",
            "--data-dir",
        ])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = process.stdout.take().ok_or("no standard output")?;
    let mut server = Server {
        name: "duckgres",
        address: Address {
            port: 0,
            user: user.clone(),
            password: String::new(),
            certificate: Vec::new(),
        },
        worker: None,
        process,
        _directory: directory,
    };
    let line = BufReader::new(stdout)
        .lines()
        .map_while(std::result::Result::ok)
        .find(|line| line.contains("postgresql://"))
        .ok_or("duckgres did not start")?;
    let port = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split('/').next())
        .ok_or("no port")?
        .parse()?;
    let passfile = fs::read_to_string(server._directory.path().join("pgpass"))?;
    let password = passfile
        .trim_end()
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let certificate = certificate(&server._directory.path().join("server.crt"))?;
    server.worker = Some(worker_of(server.process.id())?);
    server.address = Address {
        port,
        user,
        password,
        certificate,
    };
    Ok(server)
}

/// The worker is a child of whichever thread started it.
fn worker_of(control: u32) -> Result<u32> {
    for task in fs::read_dir(format!("/proc/{control}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        if let Some(pid) = children.split_whitespace().next() {
            return Ok(pid.parse()?);
        }
    }
    Err("duckgres has no worker".into())
}

/// A private PostgreSQL with memory for everything, the same certificate, and
/// nothing in it. An error says why there is none.
pub fn postgres(like: &Server) -> Result<Server> {
    if !Path::new(POSTGRES).join("postgres").exists() {
        return Err(format!("no PostgreSQL 15 in {POSTGRES}").into());
    }
    let directory = tempfile::Builder::new().prefix("duckgres-bench-").tempdir()?;
    let (user, password) = ("bench", "bench");
    let owner = if nix::unistd::geteuid().is_root() {
        // PostgreSQL does not run as root.
        Some(nix::unistd::User::from_name("postgres")?.ok_or("no user postgres to run PostgreSQL as")?)
    } else {
        None
    };
    let command = |program: &str| {
        let mut command = Command::new(Path::new(POSTGRES).join(program));
        command.current_dir("/").stdout(Stdio::null());
        if let Some(owner) = &owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw());
        }
        command
    };
    let give = |path: &PathBuf| match &owner {
        Some(owner) => chown(path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())),
        None => Ok(()),
    };
    let path = |name: &str| directory.path().join(name);
    fs::write(path("password"), password)?;
    fs::copy(like._directory.path().join("server.crt"), path("server.crt"))?;
    fs::copy(like._directory.path().join("server.key"), path("server.key"))?;
    for file in ["password", "server.crt", "server.key", ""] {
        give(&path(file))?;
    }
    let made = command("initdb")
        .args([
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth=scram-sha-256",
            "--username",
            user,
        ])
        .arg("--pwfile")
        .arg(path("password"))
        .arg("--pgdata")
        .arg(path("data"))
        .status()?;
    if !made.success() {
        return Err("initdb failed".into());
    }
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let process = command("postgres")
        .arg("-D")
        .arg(path("data"))
        .args(["-c", "listen_addresses=127.0.0.1", "-c", &format!("port={port}")])
        .args([
            "-c",
            &format!("unix_socket_directories={}", directory.path().display()),
        ])
        .args([
            "-c",
            "shared_buffers=4GB",
            "-c",
            "fsync=off",
            "-c",
            "max_wal_size=8GB",
            "-c",
            "ssl=on",
        ])
        .args(["-c", &format!("ssl_cert_file={}", path("server.crt").display())])
        .args(["-c", &format!("ssl_key_file={}", path("server.key").display())])
        .args(["-c", "autovacuum=off", "-c", "log_min_messages=panic"])
        .spawn()?;
    let address = Address {
        port,
        user: user.to_owned(),
        password: password.to_owned(),
        certificate: like.address.certificate.clone(),
    };
    let server = Server {
        name: "PostgreSQL 15",
        address,
        process,
        worker: None,
        _directory: directory,
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut administrator = loop {
        match Client::connect_to(&server.address, "postgres", false) {
            Ok(client) => break client,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    administrator.run(&format!("create database {user}"))?;
    Ok(server)
}

fn certificate(path: &Path) -> Result<Vec<u8>> {
    Ok(CertificateDer::from_pem_file(path)
        .map_err(|error| error.to_string())?
        .to_vec())
}
