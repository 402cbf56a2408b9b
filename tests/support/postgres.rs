//! The server that expected values are from: a private cluster of the PostgreSQL
//! that is installed.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;

use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use super::eventually;
use super::server::{Kind, Server, spawn};

impl Server {
    /// A new PostgreSQL cluster, or what is missing for one.
    pub fn postgres() -> Result<Server, String> {
        let binaries = postgres_binaries().ok_or("PostgreSQL is not installed in /usr/lib/postgresql")?;
        // PostgreSQL refuses to run as root.
        let account = match geteuid().is_root() {
            true => Some(
                User::from_name("postgres")
                    .ok()
                    .flatten()
                    .ok_or("there is no user postgres")?,
            ),
            false => None,
        };
        let as_account = |mut command: Command| {
            if let Some(account) = &account {
                command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
            }
            command.current_dir("/").stdin(Stdio::null());
            command
        };
        let own = |path: &Path, mode: u32| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            if let Some(account) = &account {
                chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw())).unwrap();
            }
        };

        let home = TempDir::with_prefix("duckgres-test-").unwrap();
        own(home.path(), 0o755);
        let file = |name: &str| home.path().join(name);
        let (user, password) = ("tester", "not a secret");
        fs::write(file("password"), password).unwrap();
        own(&file("password"), 0o600);
        let certified =
            rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        fs::write(file("server.crt"), certified.cert.pem()).unwrap();
        fs::write(file("server.key"), certified.signing_key.serialize_pem()).unwrap();
        own(&file("server.key"), 0o600);

        let data = file("data");
        let mut initdb = as_account(Command::new(binaries.join("initdb")));
        initdb.arg("-D").arg(&data).arg("--pwfile").arg(file("password"));
        initdb.args([
            "-U",
            user,
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-A",
            "scram-sha-256",
            "--no-sync",
        ]);
        succeed(initdb);
        let mut single = as_account(Command::new(binaries.join("postgres")));
        single
            .arg("--single")
            .arg("-D")
            .arg(&data)
            .arg("postgres")
            .stdin(Stdio::piped());
        single.stdout(Stdio::null()).stderr(Stdio::null());
        let mut single = single.spawn().unwrap();
        single
            .stdin
            .take()
            .unwrap()
            .write_all(b"create database tester\n")
            .unwrap();
        assert!(single.wait().unwrap().success());

        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let settings = [
            ("port", port.to_string()),
            ("listen_addresses", "127.0.0.1".into()),
            ("unix_socket_directories", home.path().display().to_string()),
            ("ssl", "on".into()),
            ("ssl_cert_file", file("server.crt").display().to_string()),
            ("ssl_key_file", file("server.key").display().to_string()),
            ("max_connections", "200".into()),
            ("fsync", "off".into()),
            // Otherwise PostgreSQL runs the queries of clients that are gone.
            ("client_connection_check_interval", "100ms".into()),
        ];
        let mut command = as_account(Command::new(binaries.join("postgres")));
        command.arg("-D").arg(&data);
        settings
            .iter()
            .for_each(|(name, value)| _ = command.arg("-c").arg(format!("{name}={value}")));
        command
            .stdout(Stdio::null())
            .stderr(File::create(file("log")).unwrap());
        let server = Server {
            kind: Kind::Postgres,
            port,
            sockets: home.path().to_path_buf(),
            user: user.into(),
            password: password.into(),
            database: user.into(),
            certificate: file("server.crt"),
            invitation: String::new(),
            process: spawn(&mut command),
            successor: AtomicU32::new(0),
            arguments: Vec::new(),
            home,
        };
        eventually("PostgreSQL is ready", || {
            server
                .log()
                .contains("database system is ready to accept connections")
                .then_some(())
        });
        Ok(server)
    }
}

/// Where initdb and postgres are: where `DUCKGRES_TEST_POSTGRES_BIN` says, or
/// version 15, which the expected values are from, or the newest there is.
fn postgres_binaries() -> Option<PathBuf> {
    if let Some(named) = env::var_os("DUCKGRES_TEST_POSTGRES_BIN") {
        return Some(named.into());
    }
    let installed = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let binaries = entry.path().join("bin");
        binaries
            .join("initdb")
            .exists()
            .then_some((version == 15, version, binaries))
    });
    installed.max().map(|(_, _, binaries)| binaries)
}

fn succeed(mut command: Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
