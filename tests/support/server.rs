//! Servers to test against: duckgres as this build made it, or PostgreSQL
//! (`postgres`).
//!
//! Most tests share one server, started by the first and stopped when the test
//! program ends. That end is a test as well: a server that panicked anywhere
//! on the way, or does not stop when asked, fails the run. A test that kills
//! something, or looks at a process from outside, starts a server of its own.

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{env, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use super::processes::{is_running, resident_bytes};
use super::{PATIENCE, Session, Transport, eventually};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Duckgres,
    Postgres,
}

/// A running server and what a client must know to log in. Dropping it stops it.
pub struct Server {
    pub kind: Kind,
    pub port: u16,
    /// The directory of the Unix socket.
    pub sockets: PathBuf,
    pub user: String,
    pub password: String,
    pub database: String,
    /// The server's certificate, PEM.
    pub certificate: PathBuf,
    /// The command line that the server printed for its user. Empty for PostgreSQL.
    pub invitation: String,
    pub(super) process: Child,
    /// The process that took its place; 0: none has.
    pub(super) successor: AtomicU32,
    /// What it was started with.
    pub(super) arguments: Vec<String>,
    /// Holds everything the server writes. Removed when the server is dropped.
    pub(super) home: TempDir,
}

/// The password of the users `u0` to `u9`.
const USERS_PASSWORD: &str = "not-a-secret";

static SHARED: Mutex<Option<&'static Server>> = Mutex::new(None);

impl Server {
    /// The server that the tests of this run share.
    pub fn shared() -> &'static Server {
        let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        shared.get_or_insert_with(|| {
            // A child is told of its parent's death when the thread that
            // started it ends, so this thread never does.
            let (send, started) = mpsc::channel();
            thread::spawn(move || {
                send.send(Server::start()).ok();
                loop {
                    thread::park();
                }
            });
            let server = started.recv().expect("the shared server starts");
            // SAFETY: the function may run at exit: it only uses what outlives main.
            unsafe { libc::atexit(stop_shared) };
            Box::leak(Box::new(server))
        })
    }

    /// A server of one's own, of the kind that `DUCKGRES_TEST_AGAINST` asks for.
    pub fn start() -> Server {
        match env::var("DUCKGRES_TEST_AGAINST").as_deref() {
            Ok("postgres") => Server::postgres().unwrap_or_else(|missing| panic!("{missing}")),
            Ok(other) => panic!("DUCKGRES_TEST_AGAINST={other}: only postgres is known"),
            Err(_) => Server::duckgres(&[]),
        }
    }

    /// `duckgres --port 0 --data-dir <new>` and further arguments.
    pub fn duckgres(arguments: &[&str]) -> Server {
        Server::duckgres_in(
            TempDir::with_prefix("duckgres-test-").unwrap(),
            arguments,
            None,
            &[],
        )
    }

    /// With these environment variables.
    pub fn in_environment(variables: &[(&str, &str)]) -> Server {
        Server::duckgres_in(
            TempDir::with_prefix("duckgres-test-").unwrap(),
            &[],
            None,
            variables,
        )
    }

    /// With this configuration file, which has a user of this name and password.
    pub fn configured(yaml: &str, login: (&str, &str), arguments: &[&str]) -> Server {
        let home = TempDir::with_prefix("duckgres-test-").unwrap();
        let file = home.path().join("duckgres.yaml");
        fs::write(&file, yaml).unwrap();
        let mut all = vec!["--config", file.to_str().unwrap()];
        all.extend(arguments);
        Server::duckgres_in(home, &all, Some(login), &[])
    }

    /// A control plane with several workers, and the users `u0` to `u9`. `user`
    /// and `database` are those of `u0`.
    pub fn with_workers(count: u32, arguments: &[&str]) -> Server {
        let home = TempDir::with_prefix("duckgres-test-").unwrap();
        let file = |name: &str| home.path().join(name);
        let users: String = (0..10).map(|i| format!("  u{i}: {USERS_PASSWORD}\n")).collect();
        fs::write(file("duckgres.yaml"), format!("users:\n{users}")).unwrap();
        fs::set_permissions(file("duckgres.yaml"), Permissions::from_mode(0o600)).unwrap();
        let certified =
            rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        fs::write(file("server.crt"), certified.cert.pem()).unwrap();
        fs::write(file("server.key"), certified.signing_key.serialize_pem()).unwrap();
        fs::set_permissions(file("server.key"), Permissions::from_mode(0o600)).unwrap();
        let paths = [
            ("--config", "duckgres.yaml"),
            ("--cert", "server.crt"),
            ("--key", "server.key"),
        ]
        .map(|(flag, name)| [flag.to_owned(), file(name).display().to_string()]);
        let count = count.to_string();
        let mut all = vec!["--mode", "control-plane", "--worker-count", &count];
        all.extend(paths.iter().flatten().map(String::as_str));
        all.extend(arguments);
        Server::duckgres_in(home, &all, None, &[])
    }

    /// The same server once more, with what it has stored, after `stop` or `die`.
    pub fn start_again(self) -> Server {
        let arguments = self.arguments.clone();
        self.start_again_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same with other arguments than before.
    pub fn start_again_with(mut self, arguments: &[&str]) -> Server {
        let home = std::mem::replace(&mut self.home, TempDir::new().unwrap());
        drop(self);
        Server::duckgres_in(home, arguments, None, &[])
    }

    /// What the server was started with.
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// Kills the control plane.
    pub fn die(&mut self) {
        self.signal(Signal::SIGKILL);
        self.reap();
    }

    /// The process of that worker, by what the server has noted of it.
    #[track_caller]
    pub fn worker_process(&self, worker: u32) -> u32 {
        let note = self.data().join(format!("run/worker-{worker}/process"));
        eventually("the worker has a process", || {
            let note = fs::read_to_string(&note).ok()?;
            note.split(' ').next()?.parse().ok()
        })
    }

    fn duckgres_in(
        home: TempDir,
        arguments: &[&str],
        login: Option<(&str, &str)>,
        environment: &[(&str, &str)],
    ) -> Server {
        let data = home.path().join("data");
        let log = home.path().join("log");
        let program = home.path().join("duckgres");
        if !program.exists() {
            symlink(env!("CARGO_BIN_EXE_duckgres"), &program).unwrap();
        }
        let mut command = Command::new(&program);
        command
            .args(["--port", "0", "--data-dir"])
            .arg(&data)
            .arg("--unix-socket-dir")
            .arg(home.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        // These tests log in wrongly and often, all from one address, by password
        // also over the Unix socket, and their servers have nobody to wait for.
        for (flag, value) in [
            ("--max-failed-attempts", "0"),
            ("--max-connections-per-ip", "0"),
            ("--auth-peer", "off"),
            ("--shutdown-timeout", "5s"),
            // Many servers, one port.
            ("--metrics-address", "off"),
            // Should a test fail between a control plane and the next.
            ("--orphan-timeout", "20s"),
        ] {
            if !arguments.contains(&flag) {
                command.args([flag, value]);
            }
        }
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("DUCKGRES_")) {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        let mut process = spawn(&mut command);
        let invitation = first_line_with(&mut process, "psql 'postgresql://", &log);
        let address = invitation
            .split_once("://")
            .and_then(|(_, rest)| rest.split(['/', '?', '\'']).next())
            .expect("a host and a port in the printed line");
        let port = address
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("a port");
        let (user, password) = match login {
            Some((user, password)) => (user.to_owned(), password.to_owned()),
            None if data.join("pgpass").exists() => (os_user(), own_password(&data)),
            None => ("u0".to_owned(), USERS_PASSWORD.to_owned()),
        };
        let own_certificate = home.path().join("server.crt");
        let certificate = match own_certificate.exists() {
            true => own_certificate,
            false => data.join("server.crt"),
        };
        Server {
            kind: Kind::Duckgres,
            port,
            sockets: home.path().to_path_buf(),
            database: user.clone(),
            user,
            password,
            certificate,
            invitation,
            process,
            successor: AtomicU32::new(0),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            home,
        }
    }

    /// The path of the Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.sockets.join(format!(".s.PGSQL.{}", self.port))
    }

    pub fn is_postgres(&self) -> bool {
        self.kind == Kind::Postgres
    }

    pub fn pid(&self) -> u32 {
        self.successor().unwrap_or_else(|| self.process.id())
    }

    fn successor(&self) -> Option<u32> {
        Some(self.successor.load(Ordering::SeqCst)).filter(|process| *process != 0)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read(self.home.path().join("log")).map_or_else(
            |error| error.to_string(),
            |log| String::from_utf8_lossy(&log).into_owned(),
        )
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Waits for the end of a server that was killed.
    pub fn reap(&mut self) {
        self.process.wait().unwrap();
        if let Some(successor) = self.successor() {
            eventually("the server is gone", || (!is_running(successor)).then_some(()));
        }
    }

    /// A file that is gone when the server is.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Asks the server to stop, now rather than after the last client, and waits.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.exit_status()
    }

    /// Waits for the end of a server that was asked to stop. Asking twice would
    /// mean not to wait for running statements.
    #[track_caller]
    pub fn exit_status(&mut self) -> ExitStatus {
        if let Some(successor) = self.successor() {
            eventually("the server has stopped", || {
                (!is_running(successor)).then_some(())
            });
        }
        eventually("the server has stopped", || self.process.try_wait().unwrap())
    }

    fn ask_to_stop(&self) {
        let signal = match self.kind {
            Kind::Duckgres => Signal::SIGTERM,
            // "Fast shutdown"; SIGTERM would wait for the clients.
            Kind::Postgres => Signal::SIGINT,
        };
        self.signal(signal);
    }

    /// The memory that all processes of this server have resident.
    pub fn resident_bytes(&self) -> u64 {
        self.processes().into_iter().map(resident_bytes).sum()
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).ok();
    }

    /// Whether a new client can still log in and work.
    #[track_caller]
    pub fn assert_serving(&self) {
        let mut session = Session::over(self, Transport::Tcp);
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let runs = match self.successor() {
            Some(successor) => is_running(successor),
            None => matches!(self.process.try_wait(), Ok(None)),
        };
        if runs {
            self.stop();
        }
        if thread::panicking() {
            eprintln!("--- log of the server of this test ---\n{}", self.log());
        } else {
            assert!(
                !self.log().contains("panicked at"),
                "the server panicked:\n{}",
                self.log()
            );
        }
    }
}

/// The user of the operating system that runs the tests.
pub fn os_user() -> String {
    let user = User::from_uid(geteuid()).unwrap();
    user.expect("a user of this name").name
}

/// The password that a server without users has made for that user.
fn own_password(data: &Path) -> String {
    let passwords = fs::read_to_string(data.join("pgpass")).expect("the password file");
    let line = passwords.lines().find(|line| !line.starts_with('#'));
    let password = line.and_then(|line| line.splitn(5, ':').nth(4));
    password.expect("host:port:database:user:password").to_owned()
}

/// Stops the shared server and makes the run fail if it was not well to the end.
extern "C" fn stop_shared() {
    let Some(shared) = SHARED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .take()
    else {
        return;
    };
    // SAFETY: `shared()` leaked this box, nobody else is left to use it: the
    // tests are over, and this runs once.
    let mut server = unsafe { Box::from_raw(std::ptr::from_ref(shared).cast_mut()) };
    server.ask_to_stop();
    // Nothing may panic here: there is no test left to catch it.
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        match server.process.try_wait() {
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(25)),
            Ok(Some(status)) => break status.to_string(),
            Ok(None) => {
                server.process.kill().ok();
                break format!("still running {PATIENCE:?} after it was asked to stop");
            }
            Err(error) => break error.to_string(),
        }
    };
    let log = server.log();
    fs::remove_dir_all(server.home.path()).ok();
    std::mem::forget(server);
    if ended != "exit status: 0" || log.contains("panicked at") {
        eprintln!("the shared server was not well ({ended}); its log:\n{log}");
        // SAFETY: ends the process without running further handlers.
        unsafe { libc::_exit(101) };
    }
}

/// Lets a process write no file beyond this size; `None`: any. It is told that the
/// file is too large, as it would be told that a disk is full.
pub fn limit_files(process: u32, bytes: Option<u64>) {
    let process = rustix::process::Pid::from_raw(process.try_into().unwrap());
    let limit = rustix::process::Rlimit {
        current: bytes,
        maximum: None,
    };
    rustix::process::prlimit(process, rustix::process::Resource::Fsize, limit).unwrap();
}

/// Starts a child that is stopped when the thread that started it is gone.
pub(super) fn spawn(command: &mut Command) -> Child {
    // SAFETY: prctl and signal are async-signal-safe; the closure does nothing else.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT);
            // See `limit_files`: by default it would be the process's end.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            Ok(())
        });
    }
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()))
}

/// The first line of standard output that contains the text; the rest is read
/// and forgotten, so that the child never blocks.
fn first_line_with(process: &mut Child, text: &'static str, log: &Path) -> String {
    let output = BufReader::new(process.stdout.take().unwrap());
    let (send, found) = mpsc::channel();
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if line.contains(text) {
                send.send(line).ok();
            }
        }
    });
    found.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        process.kill().ok();
        process.wait().ok();
        let log = fs::read_to_string(log).unwrap_or_default();
        panic!("the server did not print a line with {text}; its log:\n{log}")
    })
}
