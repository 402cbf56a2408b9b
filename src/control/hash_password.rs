//! `duckgres hash-password`: from a password to what the configuration needs of it.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::{Zeroize, Zeroizing};

use crate::config::{Password, Verifier};

/// The longest password that is read, in bytes: what a PasswordMessage holds.
const MAX_BYTES: usize = 9_000;

/// Bytes of salt, as in PostgreSQL.
const SALT: usize = 16;

/// Why there is no verifier.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The two that were typed are not the same.
    #[error("the passwords differ")]
    Differ,
    /// Nothing was typed, or the input has no line.
    #[error("the password is empty")]
    Empty,
    /// More than a client can send.
    #[error("the password is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Clients send passwords as UTF-8 without zero bytes.
    #[error("the password is not UTF-8 text")]
    NotText,
    /// Control-C, or a request to end.
    #[error("interrupted")]
    Interrupted,
    /// The operating system gives no random numbers.
    #[error("the operating system has no random numbers")]
    Random,
    /// The terminal or the input cannot be used.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<nix::Error> for HashError {
    fn from(error: nix::Error) -> Self {
        Self::Io(error.into())
    }
}

/// The verifier of a password, in PostgreSQL's form: asked for twice and
/// without echo on a terminal, else the first line of standard input.
pub fn hash_password() -> Result<Zeroizing<String>, HashError> {
    let stdin = io::stdin();
    let password = match stdin.is_terminal() {
        true => ask_twice()?,
        false => first_line(stdin.lock())?,
    };
    let mut salt = [0; SALT];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| HashError::Random)?;
    Ok(Verifier::derive(&password, &salt).to_text())
}

fn ask_twice() -> Result<Password, HashError> {
    let quiet = Quiet::begin()?;
    let first = quiet.ask("Password: ")?;
    let second = quiet.ask("Again: ")?;
    match first.expose() == second.expose() {
        true => Ok(first),
        false => Err(HashError::Differ),
    }
}

fn first_line(input: impl BufRead) -> Result<Password, HashError> {
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_BYTES + 2));
    // One more than can be right, and the end of the line.
    input.take(MAX_BYTES as u64 + 2).read_until(b'\n', &mut line)?;
    password(line)
}

fn password(mut line: Zeroizing<Vec<u8>>) -> Result<Password, HashError> {
    if line.ends_with(b"\n") {
        line.pop();
        // A file from elsewhere.
        line.pop_if(|byte| *byte == b'\r');
    }
    if line.is_empty() {
        return Err(HashError::Empty);
    }
    if line.len() > MAX_BYTES {
        return Err(HashError::TooLong);
    }
    if line.contains(&0) {
        return Err(HashError::NotText);
    }
    let text = String::from_utf8(std::mem::take(&mut line)).map_err(|error| {
        error.into_bytes().zeroize();
        HashError::NotText
    })?;
    Ok(Password::new(text))
}

/// The terminal while it does not show what is typed. Signals that would end
/// or stop the process are held back until the terminal is itself again.
struct Quiet {
    before: Termios,
    mask: SigSet,
    signals: SignalFd,
}

impl Quiet {
    fn begin() -> Result<Self, HashError> {
        let mut held = SigSet::empty();
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGTSTP,
        ] {
            held.add(signal);
        }
        let signals = SignalFd::with_flags(&held, SfdFlags::SFD_CLOEXEC)?;
        let before = tcgetattr(io::stdin())?;
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&held), Some(&mut mask))?;
        let quiet = Self {
            before,
            mask,
            signals,
        };
        let mut modes = quiet.before.clone();
        modes.local_flags.remove(LocalFlags::ECHO);
        modes.local_flags.insert(LocalFlags::ECHONL | LocalFlags::ICANON);
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &modes)?;
        Ok(quiet)
    }

    fn ask(&self, prompt: &str) -> Result<Password, HashError> {
        let mut terminal = io::stderr();
        terminal.write_all(prompt.as_bytes())?;
        terminal.flush()?;
        let stdin = io::stdin();
        let mut events = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut events, PollTimeout::NONE)?;
        if events[0].any() == Some(true) {
            // The prompt's line is ended as Enter would have.
            let _ = terminal.write_all(b"\n");
            return Err(HashError::Interrupted);
        }
        // In this mode a terminal gives a line at once, and no more.
        let mut line = Zeroizing::new(vec![0; MAX_BYTES + 2]);
        let count = nix::unistd::read(&stdin, &mut line)?;
        line.truncate(count);
        password(line)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.before);
        // A signal that was held back is delivered now and does what it does.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        let read = |input: &[u8]| first_line(input).map(|password| password.expose().to_owned());
        assert_eq!(read(b"secret").unwrap(), "secret");
        assert_eq!(read(b" secret \nmore\n").unwrap(), " secret ");
        assert_eq!(read(b"secret\r\n").unwrap(), "secret");
        assert_eq!(read("pässwort\n".as_bytes()).unwrap(), "pässwort");
        assert_eq!(read(&[b'x'; MAX_BYTES]).unwrap().len(), MAX_BYTES);
        assert!(matches!(read(b""), Err(HashError::Empty)));
        assert!(matches!(read(b"\nsecret"), Err(HashError::Empty)));
        assert!(matches!(read(&[b'x'; MAX_BYTES + 1]), Err(HashError::TooLong)));
        assert!(matches!(read(&[b'x'; 1 << 20]), Err(HashError::TooLong)));
        assert!(matches!(read(b"\xff\n"), Err(HashError::NotText)));
        assert!(matches!(read(b"a\0b\n"), Err(HashError::NotText)));
    }
}
