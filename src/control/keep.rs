//! Connections in handshake outlive the control plane.
//!
//! Each is put into systemd's file descriptor store (sd_notify(3), `FDSTORE=1`)
//! as soon as it is accepted, with the [`Tape`] of what was drawn for it. The
//! client's bytes are looked at with `MSG_PEEK` and stay in the socket. If this
//! process is killed, the next one finds both, does the handshake again up to
//! where it was without saying anything twice, and goes on. The worker has the
//! session when it has claimed the tape, so that it never has two owners, whenever
//! who was killed.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, getsockopt, recv, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, accept_with, sendmsg};

use super::accept::FLAGS;
use crate::handoff::{Tape, discard};
use crate::systemd::activation::Inherited;

/// What the names of kept connections in the store begin with.
const PREFIX: &str = "h-";

/// More connections than these are not kept at once: half of the unit's
/// `FileDescriptorStoreMax=`, and few enough for all names to fit into
/// `LISTEN_FDNAMES`, without which the service could not be started again.
const LIMIT: usize = 1000;

/// Nor more in a second than this, after [`BURST`] at once: systemd puts what services
/// tell it before everything else, so that strangers who only connect, again and
/// again, would keep it from answering its operator.
const PER_SECOND: u32 = 100;

/// See [`PER_SECOND`].
const BURST: u32 = 200;

/// A client that has sent so much goes on without being kept: its bytes would
/// fill the socket.
const MOST: usize = 32 * 1024;

/// Keeps connections in the file descriptor store.
pub struct Keeper {
    systemd: UnixDatagram,
    /// Differs from process to process, as long as names of both are in use.
    series: u32,
    next: AtomicU64,
    count: Arc<AtomicUsize>,
    pace: Mutex<Pace>,
    /// Names that are to be forgotten. A thread of its own sends them: systemd
    /// may be slow, and this must not be lost.
    forget: Sender<String>,
}

impl Keeper {
    /// `systemd` is a datagram socket that is connected to `NOTIFY_SOCKET`.
    pub fn new(systemd: UnixDatagram) -> io::Result<Arc<Keeper>> {
        let (forget, forgotten) = channel();
        let way = systemd.try_clone()?;
        std::thread::Builder::new()
            .name("forget".into())
            .spawn(move || forget_all(&way, &forgotten))?;
        Ok(Arc::new(Keeper {
            systemd,
            series: std::process::id(),
            next: AtomicU64::new(0),
            count: Arc::default(),
            pace: Mutex::new(Pace(Instant::now())),
            forget,
        }))
    }

    /// Prepares to keep the next connection, for [`accept`]. `None` if that is not
    /// possible now: the connection goes on without.
    pub fn prepare(self: &Arc<Self>) -> Option<Prepared> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{:x}.{number:x}", self.series);
        Some(Prepared {
            tape: Tape::new().ok()?,
            message: format!("FDSTORE=1\nFDNAME={name}"),
            name,
            keeper: self.clone(),
        })
    }

    /// Takes the connections that another process has kept out of what systemd has
    /// passed, to be served from their beginning. What cannot be gone on with is closed.
    pub fn take_up(self: &Arc<Self>, inherited: &mut Vec<Inherited>) -> Vec<(OwnedFd, Box<Kept>)> {
        let mut found = BTreeMap::<String, Vec<OwnedFd>>::new();
        for Inherited { name, fd } in inherited.extract_if(.., |one| one.name.starts_with(PREFIX)) {
            found.entry(name).or_default().push(fd);
        }
        found
            .into_iter()
            .filter_map(|(name, descriptors)| {
                let entry = self.entry(name);
                // Their order is not kept.
                let (sockets, tapes): (Vec<_>, Vec<_>) = descriptors
                    .into_iter()
                    .partition(|fd| getsockopt(fd, sockopt::SockType).is_ok());
                let (Ok([socket]), Ok([tape])) = (<[_; 1]>::try_from(sockets), <[_; 1]>::try_from(tapes))
                else {
                    return None;
                };
                match Kept::resume(&socket, tape, entry) {
                    Ok(kept) => Some((socket, Box::new(kept?))),
                    Err(error) => {
                        tracing::warn!(%error, "a connection in handshake cannot be gone on with");
                        None
                    }
                }
            })
            .collect()
    }

    /// Whether one more is not too much for systemd.
    fn has_room(&self) -> bool {
        let pace = || self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.load(Ordering::Relaxed) < LIMIT && pace().allows(Instant::now())
    }

    fn entry(&self, name: String) -> Entry {
        self.count.fetch_add(1, Ordering::Relaxed);
        Entry {
            name,
            count: self.count.clone(),
            forget: self.forget.clone(),
        }
    }
}

/// When all that was kept would have been kept at a steady pace.
struct Pace(Instant);

impl Pace {
    fn allows(&self, now: Instant) -> bool {
        self.0 < now + Duration::from_secs(1) * BURST / PER_SECOND
    }

    fn count(&mut self, now: Instant) {
        self.0 = self.0.max(now) + Duration::from_secs(1) / PER_SECOND;
    }
}

fn forget_all(systemd: &UnixDatagram, names: &Receiver<String>) {
    for name in names {
        let message = format!("FDSTOREREMOVE=1\nFDNAME={name}");
        if let Err(error) = systemd.send(message.as_bytes()) {
            tracing::debug!(%error, "systemd cannot be told to forget a connection");
        }
    }
}

/// A place in the store for a connection that has not come yet.
pub struct Prepared {
    keeper: Arc<Keeper>,
    name: String,
    message: String,
    tape: Tape,
}

/// Accepts a connection, and keeps it if that was prepared, which is then used up.
/// It is not kept if systemd is busy, or would be: that must not keep clients waiting.
///
/// A process that is killed between the two system calls loses the connection, and
/// there is no one call that does both. So there is nothing between them that could
/// take time: no other call, no allocation, no lock, and no address, which accept(2)
/// would have to copy. What remains is the way back from the one call and into the
/// other, microseconds, unless the processor is taken from this thread right there.
/// It would take another process to close that: one that accepts in this one's stead,
/// or has its descriptors too. It could be killed as well, and mostly would be,
/// because who kills a service kills all of it.
///
/// # Errors
/// Of accept(2); `WouldBlock` if nobody waits.
pub fn accept(
    listener: BorrowedFd<'_>,
    prepared: &mut Option<Prepared>,
) -> io::Result<(OwnedFd, Option<Box<Kept>>)> {
    let Some(ready) = prepared.as_ref().filter(|ready| ready.keeper.has_room()) else {
        return Ok((accept_with(listener, FLAGS)?, None));
    };
    let text = [IoSlice::new(ready.message.as_bytes())];
    let tape = ready.tape.fd();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let socket = accept_with(listener, FLAGS)?;
    let descriptors = [socket.as_fd(), tape];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(&ready.keeper.systemd, &text, &mut control, flags);
    let prepared = prepared.take().filter(|_| sent.is_ok());
    Ok((socket, prepared.map(Prepared::kept)))
}

impl Prepared {
    /// It is in the store.
    fn kept(self) -> Box<Kept> {
        let pace = &self.keeper.pace;
        pace.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(Instant::now());
        Box::new(Kept {
            _entry: self.keeper.entry(self.name),
            tape: Arc::new(self.tape),
            seen: 0,
            said: 0,
            sent: 0,
            offered: false,
            scratch: Vec::new(),
        })
    }
}

/// A name in the store; dropped, it is removed.
struct Entry {
    name: String,
    count: Arc<AtomicUsize>,
    forget: Sender<String>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        let _ = self.forget.send(std::mem::take(&mut self.name));
    }
}

/// A connection that is kept until this is dropped.
pub struct Kept {
    /// What is drawn for it.
    pub tape: Arc<Tape>,
    _entry: Entry,
    /// How much of the client's bytes has been used; they are all still in the socket.
    seen: usize,
    /// How much this process has said.
    said: u64,
    /// How much of it the client has been sent, by this process or another.
    sent: u64,
    /// Another process may have sent it to a worker.
    offered: bool,
    scratch: Vec<u8>,
}

impl Kept {
    /// What another process has kept; `None` if the connection is somebody else's
    /// by now.
    fn resume(socket: &OwnedFd, tape: OwnedFd, entry: Entry) -> io::Result<Option<Kept>> {
        let Some(tape) = Tape::open(tape)? else {
            return Ok(None);
        };
        let sent = match bytes_sent(socket) {
            Some(sent) => sent,
            None => tape.sent()?,
        };
        Ok(Some(Kept {
            offered: tape.is_offered()?,
            tape: Arc::new(tape),
            _entry: entry,
            seen: 0,
            said: 0,
            sent,
            scratch: Vec::new(),
        }))
    }

    /// How many of the client's bytes have been used.
    pub fn used(&self) -> u32 {
        self.seen.try_into().unwrap_or(u32::MAX)
    }

    /// Whether the connection may be somebody else's. Then it must be
    /// [committed](Kept::commit) before anything is done that no other process must do
    /// too.
    pub fn is_offered(&self) -> bool {
        self.offered
    }

    /// Reads the next bytes without taking them; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` until there are more.
    pub fn read(&mut self, socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
        // Asked first: bytes that came before the end are seen after it.
        let ended = is_at_end(socket)?;
        self.scratch.resize(self.seen + buffer.len(), 0);
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let count = recv(socket.as_raw_fd(), &mut self.scratch, flags)?;
        match self.scratch[..count].get(self.seen..) {
            Some(new) if !new.is_empty() => {
                buffer[..new.len()].copy_from_slice(new);
                self.seen += new.len();
                Ok(new.len())
            }
            _ if ended => Ok(0),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Whether there is too much to go on like this.
    pub fn is_full(&self) -> bool {
        self.seen > MOST
    }

    /// How many of the next `length` bytes the client has been sent already.
    pub fn repeated(&mut self, length: usize) -> usize {
        let repeated = usize::try_from(self.sent - self.said).map_or(length, |ahead| ahead.min(length));
        self.said += repeated as u64;
        repeated
    }

    /// So many more bytes have been sent.
    pub fn wrote(&mut self, count: usize) -> io::Result<()> {
        self.said += count as u64;
        self.sent = self.said;
        self.tape.set_sent(self.sent)
    }

    /// Makes the connection this process's own, and takes what was used out of the
    /// socket.
    ///
    /// # Errors
    /// It is somebody else's, or has failed.
    pub fn commit(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if self.tape.is_mine() {
            return Ok(());
        }
        match self.tape.claim()? {
            true => discard(socket, self.seen),
            false => {
                self.offered = true;
                Err(io::Error::other("the session is another process's"))
            }
        }
    }

    /// Leaves the connection to the next process.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

/// How many bytes a TCP connection has been given to send: those that the client
/// has acknowledged, and those that it has not. The kernel knows exactly what a
/// process that was killed could not write down any more.
fn bytes_sent(socket: &OwnedFd) -> Option<u64> {
    // SAFETY: all bytes zero is a value of this structure of numbers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    let pointer = std::ptr::from_mut(&mut info).cast();
    // SAFETY: the kernel writes at most `length` bytes, which are there.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            pointer,
            &mut length,
        )
    };
    let mut unacknowledged: libc::c_int = 0;
    // SAFETY: SIOCOUTQ writes one int (tcp(7)).
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut unacknowledged) };
    let known = got == 0 && asked == 0;
    known.then(|| info.tcpi_bytes_acked + u64::from(unacknowledged.unsigned_abs()))
}

/// Whether the client will send nothing more than is there.
fn is_at_end(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    poll(&mut asked, Some(&Timespec::default()))?;
    let over = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    Ok(asked[0].revents().intersects(over))
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Unless a worker has it, this is the end of it.
        let _ = self.tape.claim();
        // What is in there may be secret.
        zeroize::Zeroize::zeroize(&mut self.scratch);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::{ControlMessageOwned, recvmsg};

    use super::*;

    fn rig() -> (Arc<Keeper>, UnixDatagram, TcpListener) {
        let (ours, systemd) = UnixDatagram::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        systemd.set_nonblocking(true).unwrap();
        (Keeper::new(ours).unwrap(), systemd, listener)
    }

    #[test]
    fn who_is_accepted_is_in_the_store_at_once_and_out_of_it_at_the_end() {
        let (keeper, systemd, listener) = rig();
        let mut prepared = keeper.prepare();
        let nobody = accept(listener.as_fd(), &mut prepared);
        assert_eq!(nobody.err().unwrap().kind(), io::ErrorKind::WouldBlock);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_socket, kept) = accept(listener.as_fd(), &mut prepared).unwrap();
        assert!(kept.is_some() && prepared.is_none());
        let mut text = [0; 100];
        let mut space = nix::cmsg_space!([i32; 2]);
        let mut parts = [io::IoSliceMut::new(&mut text)];
        let flags = MsgFlags::empty();
        let message = recvmsg::<()>(systemd.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
        let stored: Vec<_> = message.cmsgs().unwrap().collect();
        assert!(matches!(&stored[..], [ControlMessageOwned::ScmRights(both)] if both.len() == 2));
        let length = message.bytes;
        let text = str::from_utf8(&text[..length]).unwrap().to_owned();
        let name = text.strip_prefix("FDSTORE=1\nFDNAME=").unwrap();
        drop(kept);
        systemd.set_nonblocking(false).unwrap();
        let mut end = [0; 100];
        let length = systemd.recv(&mut end).unwrap();
        let expected = format!("FDSTOREREMOVE=1\nFDNAME={name}");
        assert_eq!(str::from_utf8(&end[..length]), Ok(expected.as_str()));
    }

    #[test]
    fn strangers_who_only_connect_do_not_take_all_of_systemd_s_time() {
        let start = Instant::now();
        let mut pace = Pace(start);
        let kept_at = |pace: &mut Pace, now| {
            (0..10 * BURST)
                .take_while(|_| {
                    let allowed = pace.allows(now);
                    if allowed {
                        pace.count(now);
                    }
                    allowed
                })
                .count()
        };
        assert_eq!(kept_at(&mut pace, start), BURST as usize);
        let second = Duration::from_secs(1);
        assert_eq!(kept_at(&mut pace, start + second), PER_SECOND as usize);
        assert_eq!(kept_at(&mut pace, start + 60 * second), BURST as usize);
    }

    #[test]
    fn nobody_waits_for_a_systemd_that_is_busy() {
        let (keeper, systemd, listener) = rig();
        let mut clients = Vec::new();
        let mut connect = || {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            accept(listener.as_fd(), &mut keeper.prepare()).unwrap()
        };
        // Its queue has some length.
        let mut accepted = Vec::new();
        while let (socket, Some(kept)) = connect() {
            accepted.push((socket, kept));
        }
        assert!(!accepted.is_empty());
        drop(systemd);
        assert!(connect().1.is_none(), "nor for one that is gone");
    }
}
