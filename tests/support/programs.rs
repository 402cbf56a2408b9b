//! Programs that tests run: psql, Python, and `duckgres status`.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Server};

/// What a program wrote, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Output {
    /// The standard output of a program that must have succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{self:#?}");
        self.out
    }
}

/// psql without anybody's start file, quiet, unaligned, rows only.
pub fn psql(conninfo: &str) -> Command {
    let mut command = Command::new("psql");
    command
        .args(["-X", "-q", "-A", "-t", "-P", "pager=off", "-d", conninfo])
        .env_remove("PGPASSWORD")
        .env("PGGSSENCMODE", "prefer");
    command
}

/// What `duckgres status` says.
#[track_caller]
pub fn status(server: &Server) -> serde_json::Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    command
        .args(["status", "--json", "--data-dir"])
        .arg(server.data())
        .env_remove("DUCKGRES_CONFIG");
    serde_json::from_str(&run(&mut command, "").success()).unwrap()
}

/// The worker of the next version: one that freezes sessions in the next format, and is
/// otherwise this build's.
#[track_caller]
pub fn program_of_next_version() -> Vec<u8> {
    let ours = Path::new(env!("CARGO_BIN_EXE_duckgres-worker"));
    let format = "frozen sessions, format 000";
    let mut grep = Command::new("grep");
    let found = run(grep.args(["-a", "-b", "-o", format]).arg(ours), "").success();
    let places: Vec<&str> = found.lines().collect();
    let [place] = places[..] else {
        panic!("the format stands in {} places", places.len());
    };
    let place: usize = place.split(':').next().unwrap().parse().unwrap();
    let mut program = fs::read(ours).unwrap();
    program[place + format.len()] += 1;
    program
}

/// The same as a file. `directory` also gets what it needs to be started from there.
#[track_caller]
pub fn worker_of_next_version(directory: &Path) -> PathBuf {
    let ours = Path::new(env!("CARGO_BIN_EXE_duckgres-worker"));
    let next = directory.join("bin/duckgres-worker");
    fs::create_dir(directory.join("bin")).unwrap();
    fs::write(&next, program_of_next_version()).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
    let libraries = ours.parent().unwrap().parent().unwrap().join("lib");
    symlink(libraries, directory.join("lib")).unwrap();
    next
}

/// The Python of the client tests.
#[track_caller]
pub fn python() -> Command {
    let path = env::var_os("DUCKGRES_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"),
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: `./dev test` makes it, or DUCKGRES_TEST_PYTHON names a Python with the packages of \
         tests/requirements.txt",
        path.display()
    );
    Command::new(path)
}

/// Runs a program to its end and has it read `input`.
#[track_caller]
pub fn run(command: &mut Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = collect(child.stdout.take().unwrap());
    let err = collect(child.stderr.take().unwrap());
    let deadline = Instant::now() + 6 * PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill().ok();
                child.wait().ok();
                panic!(
                    "{command:?} does not end; it wrote:\n{}{}",
                    out.join().unwrap(),
                    err.join().unwrap()
                );
            }
        }
    };
    Output {
        status,
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
