//! Programs that are no part of this repository: psql and Python.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{PATIENCE, eventually};

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

/// A program under way, its outputs collected as they come.
pub struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    err: thread::JoinHandle<String>,
    seen: String,
}

impl Running {
    /// Starts the program and has it read `input`.
    pub fn start(command: &mut Command, input: &str) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let (send, out) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let err = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        Running { child, out, err, seen: String::new() }
    }

    /// Waits for a line of standard output.
    #[track_caller]
    pub fn await_line(&mut self, expected: &str) {
        loop {
            let line = self.out.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line {expected:?} came"));
            self.seen += &format!("{line}\n");
            if line == expected {
                return;
            }
        }
    }

    /// Presses Ctrl-C until the program is through: one that comes before the
    /// statement began has nothing to cancel.
    #[track_caller]
    pub fn interrupt(mut self) -> Output {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        eventually("the program ends after Ctrl-C", || {
            kill(pid, Signal::SIGINT).ok();
            self.child.try_wait().unwrap()
        });
        self.finish()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let status = eventually("the program ends", || self.child.try_wait().unwrap());
        let mut out = self.seen;
        self.out.iter().for_each(|line| out += &format!("{line}\n"));
        Output { status, out, err: self.err.join().unwrap() }
    }
}

/// psql without anybody's start file, quiet, unaligned, rows only.
pub fn psql(conninfo: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["-X", "-q", "-A", "-t", "-d", conninfo]).env_remove("PGPASSWORD").env("PGGSSENCMODE", "prefer");
    command
}

/// The Python of the client tests.
#[track_caller]
pub fn python() -> Command {
    let path = env::var_os("DUCKGRES_TEST_PYTHON")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: `./dev test` makes it, or DUCKGRES_TEST_PYTHON names a Python with the packages of \
         tests/requirements.txt",
        path.display()
    );
    Command::new(path)
}

/// Runs a program to its end.
#[track_caller]
pub fn run(command: &mut Command, input: &str) -> Output {
    Running::start(command, input).finish()
}
