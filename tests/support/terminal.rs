//! A terminal with a program in it, for what only happens there: Ctrl-C.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::{PATIENCE, eventually};

pub struct Terminal {
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    /// Everything that the program has shown.
    pub shown: String,
    child: Child,
}

impl Terminal {
    /// Starts the program in a terminal of its own. What is typed is not echoed.
    pub fn start(command: &mut Command) -> Terminal {
        Terminal::with_echo(command, false)
    }

    /// The same, but the terminal echoes for as long as the program lets it.
    pub fn echoing(command: &mut Command) -> Terminal {
        Terminal::with_echo(command, true)
    }

    fn with_echo(command: &mut Command, echo: bool) -> Terminal {
        let pty = openpty(None, None).unwrap();
        let mut modes = tcgetattr(&pty.slave).unwrap();
        modes.local_flags.set(LocalFlags::ECHO, echo);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).unwrap();
        let slave = pty.slave.as_raw_fd();
        command.stdin(pty.slave.try_clone().unwrap());
        command.stdout(pty.slave.try_clone().unwrap());
        command.stderr(pty.slave.try_clone().unwrap());
        command.env("TERM", "dumb");
        // SAFETY: both calls are async-signal-safe, and `slave` is open in the
        // child until it executes the program.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() < 0 || libc::ioctl(slave, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().unwrap();
        let (send, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails when the last program has left the terminal.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            keyboard,
            screen,
            shown: String::new(),
            child,
        }
    }

    /// Whether the terminal shows what is typed.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.keyboard)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ECHO)
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&mut self) {
        self.keyboard.write_all(b"\x03").unwrap();
    }

    /// Types a line and Enter.
    pub fn type_line(&mut self, line: &str) {
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Waits until the program shows the text.
    #[track_caller]
    pub fn await_text(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.look_for(text, Duration::from_millis(100)) {
            assert!(
                Instant::now() < deadline,
                "{text:?} is not shown, but this:\n{}",
                self.shown
            );
        }
    }

    /// Presses Ctrl-C, again and again, until the program shows the text: one
    /// that comes before the statement began has nothing to stop.
    #[track_caller]
    pub fn interrupt_until(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.keyboard.write_all(b"\x03").unwrap();
            if self.look_for(text, Duration::from_millis(500)) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{text:?} is not shown, but this:\n{}",
                self.shown
            );
        }
    }

    /// Waits for the program to leave by itself.
    #[track_caller]
    pub fn exit_status(&mut self) -> ExitStatus {
        eventually("the program leaves its terminal", || {
            self.child.try_wait().unwrap()
        })
    }

    /// Types the end of input and waits for the program to leave.
    #[track_caller]
    pub fn end(mut self) -> ExitStatus {
        self.keyboard.write_all(b"\x04").unwrap();
        self.exit_status()
    }

    fn look_for(&mut self, text: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(end) = self.shown.find(text).map(|start| start + text.len()) {
                // What was found once is not found again.
                self.shown.drain(..end);
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
                Err(_) => return false,
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
