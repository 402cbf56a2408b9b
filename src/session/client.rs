//! The client's side of a session: frames in, bytes out, over TLS or not.
//!
//! The socket is non-blocking and waited for with poll(2), so that a session can
//! run on any thread, leave it between two messages, and still notice while it
//! writes that it is to stop. A buffer grows with what has arrived, never with
//! what a length field claims.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use zeroize::Zeroizing;

use super::counters::Traffic;
use super::error::{Failure, Gone, SessionError};
use super::handle::Handle;
use super::message::check_header;
use super::peer::{Liveness, Peer};
use crate::tls::{Channel, Progress, TlsError, TlsState};

/// Output is sent when this much has gathered.
pub const FLUSH_AT: usize = 128 * 1024;
/// Buffers larger than this are given back when they are empty.
const KEEP: usize = 256 * 1024;
const READ: usize = 64 * 1024;
/// How long a thread waits for the socket before it looks whether the session
/// is to stop.
const TICK: Duration = Duration::from_millis(200);

thread_local! {
    /// Where a thread reads to, before it is known whose session's buffer takes it.
    /// A session's own buffer would have to be zeroed for each read, or kept while
    /// the session is idle.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// What came of waiting for input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// There is more input.
    Input,
    /// Nothing arrived in time.
    Timeout,
}

/// A client's socket with its buffers and its TLS state.
pub struct Client {
    socket: OwnedFd,
    tls: Option<Box<Channel>>,
    input: Vec<u8>,
    consumed: usize,
    /// Messages for the client. Whoever appends to it calls [`Client::relieve`]
    /// or [`Client::flush`] sooner or later.
    pub output: Vec<u8>,
    /// Sealed, and from `written` on not yet written; emptied when it all is.
    sealed: Vec<u8>,
    written: usize,
    liveness: Liveness,
    closed: bool,
    /// What was sent and not yet added to the counters.
    pub traffic: Traffic,
}

/// A complete message, copied out of the input so that the session can work
/// while it looks at it.
#[derive(Debug, Default)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its body.
    pub body: Vec<u8>,
}

impl Client {
    /// Takes over a socket, what was already read from it, what is still to be
    /// written to it as it is, and its TLS state.
    pub fn new(
        socket: OwnedFd,
        mut unread: Zeroizing<Vec<u8>>,
        mut unsent: Zeroizing<Vec<u8>>,
        tls: Option<Channel>,
    ) -> io::Result<Client> {
        let flags = nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_GETFL)?;
        let flags = nix::fcntl::OFlag::from_bits_retain(flags) | nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        let tls = tls.map(Box::new);
        let mut client = Client {
            socket,
            tls,
            input: std::mem::take(&mut *unread),
            consumed: 0,
            output: Vec::new(),
            sealed: std::mem::take(&mut *unsent),
            written: 0,
            liveness: Liveness::default(),
            closed: false,
            traffic: Traffic::default(),
        };
        // Records that arrived together with the handshake's end.
        client.open(&[]).map_err(io::Error::other)?;
        Ok(client)
    }

    /// The socket, for waiting.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// How it is found out that the client is gone without a word.
    pub fn set_liveness(&mut self, liveness: Liveness) {
        liveness.apply(self.socket());
        self.liveness = liveness;
    }

    /// How the client is, as far as the kernel knows.
    pub fn peer(&self) -> Peer {
        self.liveness.look(self.socket())
    }

    /// Moves the next complete message into `frame`, if it has arrived.
    pub fn next_frame(&mut self, frame: &mut Frame) -> Result<bool, SessionError> {
        let Some((kind, length)) = self.peek_header()? else {
            return Ok(false);
        };
        let Some(body) = self.input.get(self.consumed + 5..self.consumed + 5 + length) else {
            return Ok(false);
        };
        if frame.body.capacity() > KEEP {
            frame.body = Vec::new();
        }
        frame.kind = kind;
        frame.body.clear();
        frame.body.extend_from_slice(body);
        self.consumed += 5 + length;
        if self.consumed == self.input.len() {
            self.consumed = 0;
            self.input.clear();
            if self.input.capacity() > KEEP {
                self.input = Vec::new();
            }
        }
        Ok(true)
    }

    /// The type of the next message, if its header has arrived.
    pub fn peek_kind(&self) -> Option<u8> {
        self.input
            .get(self.consumed..)
            .filter(|rest| rest.len() >= 5)
            .map(|rest| rest[0])
    }

    /// Is there a Terminate among the messages that have arrived? Looks further
    /// on the socket only if `closed`, when no more can come than is there.
    pub fn terminate_follows(&mut self, closed: bool) -> bool {
        while closed && !self.closed && matches!(self.fill(Duration::ZERO), Ok(Wait::Input)) {}
        let mut rest = self.input.get(self.consumed..).unwrap_or_default();
        while let [kind, a, b, c, d, ..] = *rest {
            let length = check_header(kind, i32::from_be_bytes([a, b, c, d]));
            if kind == b'X' {
                return length.is_ok();
            }
            rest = length
                .ok()
                .and_then(|length| rest.get(5 + length..))
                .unwrap_or_default();
        }
        false
    }

    fn peek_header(&self) -> Result<Option<(u8, usize)>, SessionError> {
        match self.input.get(self.consumed..self.consumed + 5) {
            Some(&[kind, a, b, c, d]) => {
                check_header(kind, i32::from_be_bytes([a, b, c, d])).map(|length| Some((kind, length)))
            }
            _ => Ok(None),
        }
    }

    /// Reads more input, waiting at most `patience` for it.
    pub fn fill(&mut self, patience: Duration) -> Result<Wait, Gone> {
        if self.consumed > 0 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        loop {
            if self.closed {
                return Err(if self.input.is_empty() {
                    Gone::Left
                } else {
                    Gone::Vanished
                });
            }
            match self.read() {
                Ok(0) => {
                    self.closed = true;
                }
                Ok(_) => return Ok(Wait::Input),
                Err(Failure::Gone(Gone::Io(error))) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.poll(PollFlags::POLLIN, patience)? {
                        return Ok(Wait::Timeout);
                    }
                }
                Err(Failure::Gone(gone)) => return Err(gone),
                Err(Failure::Report(error)) => return Err(Gone::Ended(error)),
            }
        }
    }

    /// One read(2); the number of bytes it brought, 0 at the end.
    fn read(&mut self) -> Result<usize, Failure> {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = match nix::unistd::read(&self.socket, scratch) {
                Ok(count) => count,
                Err(Errno::ECONNRESET | Errno::EPIPE | Errno::ETIMEDOUT) => return Err(Gone::Vanished.into()),
                Err(Errno::EINTR) => return Err(Gone::Io(io::ErrorKind::WouldBlock.into()).into()),
                Err(error) => return Err(Gone::Io(error.into()).into()),
            };
            if self.tls.is_none() {
                self.input.extend_from_slice(&scratch[..count]);
            } else if count > 0 {
                self.open(&scratch[..count])?;
            }
            Ok(count)
        })
    }

    fn open(&mut self, ciphertext: &[u8]) -> Result<(), Gone> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let progress = tls.receive(ciphertext, &mut self.input, &mut self.sealed);
        if !self.sealed.is_empty() {
            // An answer to a KeyUpdate, or an alert that explains the error
            // below; if it cannot be written at once it goes with the next output.
            let _ = self.write_some();
        }
        if progress? == Progress::Closed {
            self.closed = true;
        }
        Ok(())
    }

    /// Sends the output if there is enough of it. To be called between rows.
    pub fn relieve(&mut self, handle: &Handle) -> Result<(), Gone> {
        if self.output.len() < FLUSH_AT {
            Ok(())
        } else {
            self.flush(handle)
        }
    }

    /// Sends all output, waiting for the client to take it.
    pub fn flush(&mut self, handle: &Handle) -> Result<(), Gone> {
        self.write_all(handle, false)
    }

    /// The same between two statements, where a session that is held can leave the
    /// rest for later.
    pub fn flush_at_rest(&mut self, handle: &Handle) -> Result<(), Gone> {
        self.write_all(handle, true)
    }

    fn write_all(&mut self, handle: &Handle, at_rest: bool) -> Result<(), Gone> {
        self.seal()?;
        while !self.write_some()? {
            if at_rest && handle.is_held() {
                return Ok(());
            }
            self.await_room(handle)?;
        }
        if self.output.capacity() == 0 {
            std::mem::swap(&mut self.output, &mut self.sealed);
        }
        Ok(())
    }

    /// Sends all output and then these messages, which are not copied on the way.
    pub fn send(&mut self, messages: &[u8], handle: &Handle) -> Result<(), Gone> {
        self.flush(handle)?;
        if let Some(tls) = &mut self.tls {
            tls.seal(messages, &mut self.sealed)?;
            return self.flush(handle);
        }
        let mut rest = messages;
        while !rest.is_empty() {
            match self.write(rest)? {
                Some(count) => rest = &rest[count..],
                None => self.await_room(handle)?,
            }
        }
        Ok(())
    }

    /// Waits a while until the client has taken something.
    fn await_room(&self, handle: &Handle) -> Result<(), Gone> {
        if handle.is_client_gone() {
            return Err(Gone::Vanished);
        }
        if !self.poll(PollFlags::POLLOUT, TICK)? && self.peer() == Peer::Dead {
            return Err(Gone::Vanished);
        }
        Ok(())
    }

    /// Turns the output into what is to be written.
    fn seal(&mut self) -> Result<(), Gone> {
        if self.tls.is_none() && self.sealed.is_empty() {
            std::mem::swap(&mut self.output, &mut self.sealed);
        }
        if !self.output.is_empty() {
            match &mut self.tls {
                Some(tls) => tls.seal(&self.output, &mut self.sealed)?,
                None => self.sealed.extend_from_slice(&self.output),
            }
            self.output.clear();
        }
        Ok(())
    }

    /// Sends what the client takes at once; the rest stays.
    pub fn offer(&mut self) -> Result<(), Gone> {
        self.seal()?;
        self.write_some().map(drop)
    }

    /// Is there output that the client has not taken?
    pub fn has_unsent(&self) -> bool {
        !self.output.is_empty() || self.written < self.sealed.len()
    }

    /// Is there a message, or what can never become one?
    pub fn has_frame(&self) -> bool {
        match self.peek_header() {
            Ok(Some((_, length))) => self.input.len() - self.consumed >= 5 + length,
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// How many bytes wait to be used or to be sent.
    pub fn waiting(&self) -> usize {
        self.input.len() - self.consumed + self.output.len() + self.sealed.len() - self.written
    }

    /// Can nothing follow from the client, or nothing be sent to it?
    pub fn is_over(&self) -> bool {
        self.closed || self.tls.as_ref().is_some_and(|tls| tls.check().is_err())
    }

    /// The TLS state, for another process. To be called when [`Client::offer`] has
    /// succeeded. On an error the client is over.
    pub fn take_tls(&mut self) -> Result<Option<TlsState>, TlsError> {
        let Some(tls) = self.tls.take() else {
            return Ok(None);
        };
        let state = tls.into_state();
        if state.is_err() {
            self.closed = true;
            self.consumed = self.input.len();
            self.written = self.sealed.len();
        }
        state.map(Some)
    }

    /// What remains when the TLS state is taken out: the socket, the plaintext that
    /// was not used, and what the socket has not taken yet.
    pub fn into_rest(mut self) -> (OwnedFd, Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>) {
        self.input.drain(..self.consumed);
        self.sealed.drain(..self.written);
        (
            self.socket,
            Zeroizing::new(self.input),
            Zeroizing::new(self.sealed),
        )
    }

    /// Writes until all is written (true) or the socket is full (false).
    fn write_some(&mut self) -> Result<bool, Gone> {
        while self.written < self.sealed.len() {
            // Out of the client while it is written from.
            let sealed = std::mem::take(&mut self.sealed);
            let written = self.write(&sealed[self.written..]);
            self.sealed = sealed;
            match written? {
                Some(count) => self.written += count,
                None => return Ok(false),
            }
        }
        self.sealed.clear();
        self.written = 0;
        Ok(true)
    }

    /// One write to the socket; `None` if it is full.
    fn write(&mut self, bytes: &[u8]) -> Result<Option<usize>, Gone> {
        loop {
            let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
            match nix::sys::socket::send(std::os::fd::AsRawFd::as_raw_fd(&self.socket), bytes, flags) {
                Ok(count) => {
                    self.traffic.bytes += count as u64;
                    return Ok(Some(count));
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET | Errno::EPIPE | Errno::ETIMEDOUT) => return Err(Gone::Vanished),
                Err(error) => return Err(Gone::Io(error.into())),
            }
        }
    }

    /// Sends what is there without waiting, and says goodbye over TLS.
    pub fn close(mut self) {
        let output = std::mem::take(&mut self.output);
        if let Some(tls) = &mut self.tls {
            if !output.is_empty() && tls.seal(&output, &mut self.sealed).is_err() {
                return;
            }
            tls.close(&mut self.sealed);
        } else {
            self.sealed.extend_from_slice(&output);
        }
        let deadline = Instant::now() + TICK;
        while let Ok(false) = self.write_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !matches!(self.poll(PollFlags::POLLOUT, left), Ok(true)) {
                return;
            }
        }
    }

    fn poll(&self, events: PollFlags, patience: Duration) -> Result<bool, Gone> {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(Gone::Io(error.into())),
        }
    }
}
