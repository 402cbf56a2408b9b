//! What another process needs to do a connection's handshake again.
//!
//! From accept to handoff, what the server says is a function of the
//! configuration, of what the client has sent, and of what was drawn (random
//! numbers, ephemeral keys, signatures, a nonce). The client's bytes stay in the
//! socket until somebody owns the session: they are only looked at. So what must
//! be written down are the draws, and how much of what the server says has
//! already gone out. It stands in a memfd, which outlives the process in systemd's
//! file descriptor store, and is wiped at the end.
//!
//! Two processes may come to have the same connection: a worker, in the queue of
//! its handoff socket, and a control plane that has found it in the store. The
//! tape decides between them. [`Tape::claim`] succeeds once for all processes, and
//! whoever has claimed it may take bytes from the socket and send new ones.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use zeroize::Zeroizing;

use crate::tls::{Draw, Draws};

/// Version 1 of what follows.
const MAGIC: [u8; 8] = *b"duckgr\0\x01";
/// Whether it has been sent to a worker: 1 if so.
const OFFERED_AT: u64 = 8;
/// How many of the client's bytes were used, 4 bytes in this machine's order.
const USED_AT: u64 = 12;
/// How many bytes have been sent, 8 bytes in this machine's order.
const SENT_AT: u64 = 16;
/// The draws, each after its length in two bytes; behind the last one zeros.
const DRAWS_AT: usize = 24;
/// Draws come to 2 KiB: the largest are the share of a post-quantum key exchange,
/// and a signature.
const SIZE: usize = 8 * 1024;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// The tape of one connection.
#[derive(Debug)]
pub struct Tape {
    file: File,
    /// Where the next draw stands, or will.
    next: Mutex<usize>,
    claimed: AtomicBool,
}

impl Tape {
    /// An empty tape.
    ///
    /// # Errors
    /// There is no memory or no descriptor for it.
    pub fn new() -> io::Result<Tape> {
        let fd = memfd_create(
            "duckgres-handshake",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        ftruncate(&fd, SIZE as u64)?;
        fcntl_add_seals(&fd, SEALS)?;
        let tape = Self::at_beginning(fd.into());
        tape.file.write_all_at(&MAGIC, 0)?;
        Ok(tape)
    }

    /// A tape that another process has begun. `None` if its handshake must not be
    /// done again: somebody has claimed it.
    ///
    /// # Errors
    /// It is none, or one of another version.
    pub fn open(fd: OwnedFd) -> io::Result<Option<Tape>> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        // Any other file fails here with EINVAL: reading it might block.
        let seals = fcntl_get_seals(&fd).map_err(|_| invalid("a handshake's tape is not a memfd"))?;
        let tape = Self::at_beginning(fd.into());
        if !seals.contains(SEALS) || tape.file.metadata()?.len() != SIZE as u64 {
            return Err(invalid("a handshake's tape is not sealed, or of another size"));
        }
        let mut magic = [0; MAGIC.len()];
        tape.file.read_exact_at(&mut magic, 0)?;
        match magic {
            MAGIC => Ok((!seals.contains(SealFlags::SEAL)).then_some(tape)),
            // Wiped.
            [0, 0, 0, 0, 0, 0, 0, 0] => Ok(None),
            _ => Err(invalid("a handshake's tape is of another version")),
        }
    }

    fn at_beginning(file: File) -> Tape {
        Tape {
            file,
            next: Mutex::new(DRAWS_AT),
            claimed: AtomicBool::new(false),
        }
    }

    /// The memfd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many bytes have been sent, as far as it was written down: the last ones
    /// may be missing.
    ///
    /// # Errors
    /// Of reading.
    pub fn sent(&self) -> io::Result<u64> {
        let mut sent = [0; 8];
        self.file.read_exact_at(&mut sent, SENT_AT)?;
        Ok(u64::from_ne_bytes(sent))
    }

    /// So many bytes have been sent altogether.
    ///
    /// # Errors
    /// Of writing.
    pub fn set_sent(&self, sent: u64) -> io::Result<()> {
        self.file.write_all_at(&sent.to_ne_bytes(), SENT_AT)
    }

    /// The handshake is done; it has used so many of the client's bytes, and what
    /// came of it is about to be sent to a worker.
    ///
    /// # Errors
    /// Of writing.
    pub fn offer(&self, used: u32) -> io::Result<()> {
        self.file.write_all_at(&used.to_ne_bytes(), USED_AT)?;
        self.file.write_all_at(&[1], OFFERED_AT)
    }

    /// Whether a worker may have it.
    ///
    /// # Errors
    /// Of reading.
    pub fn is_offered(&self) -> io::Result<bool> {
        let mut offered = [0];
        self.file.read_exact_at(&mut offered, OFFERED_AT)?;
        Ok(offered != [0])
    }

    /// Makes the connection the caller's own; false if it is somebody else's.
    ///
    /// # Errors
    /// Of fcntl(2), `F_ADD_SEALS`.
    pub fn claim(&self) -> io::Result<bool> {
        // The one seal that can be set once: it forbids all others, itself too.
        match fcntl_add_seals(&self.file, SealFlags::SEAL) {
            Ok(()) => {
                self.claimed.store(true, Ordering::Relaxed);
                Ok(true)
            }
            Err(Errno::PERM) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether this process has claimed the connection.
    pub fn is_mine(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Claims the connection, and takes what the handshake has used out of the
    /// socket; false if it is somebody else's.
    pub(super) fn take(&self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let mut used = [0; 4];
        self.file.read_exact_at(&mut used, USED_AT)?;
        Ok(self.claim()? && discard(socket, u32::from_ne_bytes(used) as usize).map(|()| true)?)
    }

    /// Nobody will do the handshake again.
    fn forget(&self) {
        // It can still be claimed.
        let _ = self.file.write_all_at(&[0; MAGIC.len()], 0);
    }

    /// The draw at this position, and where the next one stands.
    fn at(&self, position: usize) -> Option<(Draw, usize)> {
        let mut length = [0; 2];
        self.file.read_exact_at(&mut length, position as u64).ok()?;
        let length = usize::from(u16::from_ne_bytes(length));
        let mut draw = Zeroizing::new(vec![0; length]);
        self.file.read_exact_at(&mut draw, position as u64 + 2).ok()?;
        (length > 0).then_some((draw, position + 2 + length))
    }
}

/// Takes so many bytes, which have arrived, out of a socket.
///
/// # Errors
/// They have not.
pub fn discard(socket: BorrowedFd<'_>, mut count: usize) -> io::Result<()> {
    let mut bytes = Zeroizing::new([0; 4096]);
    while count > 0 {
        let part = count.min(bytes.len());
        match recv(socket, &mut bytes[..part], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((taken, _)) => count -= taken,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Draws for Tape {
    fn draw(&self, fresh: &mut dyn FnMut() -> Option<Draw>) -> Option<Draw> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((draw, behind)) = self.at(*next) {
            *next = behind;
            return Some(draw);
        }
        let draw = fresh()?;
        let behind = *next + 2 + draw.len();
        let length = u16::try_from(draw.len()).ok().filter(|_| behind + 2 <= SIZE);
        // The length last: a draw that is not whole has not been drawn. One that
        // cannot be written down makes the handshake one that is not done again.
        let written = length.is_some_and(|length| {
            let at = *next as u64;
            let write = |bytes: &[u8], at| self.file.write_all_at(bytes, at);
            write(&draw, at + 2).is_ok() && write(&length.to_ne_bytes(), at).is_ok()
        });
        match written {
            true => *next = behind,
            false => self.forget(),
        }
        Some(draw)
    }
}

impl Drop for Tape {
    /// When the one who has claimed it is done, others find nothing in the memfd.
    fn drop(&mut self) {
        if *self.claimed.get_mut() {
            let _ = self.file.write_all_at(&[0; SIZE], 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(tape: &Tape, text: &str) -> String {
        let draw = tape.draw(&mut || Some(Zeroizing::new(text.into()))).unwrap();
        String::from_utf8(draw.to_vec()).unwrap()
    }

    fn again(tape: &Tape) -> Option<Tape> {
        Tape::open(tape.fd().try_clone_to_owned().unwrap()).unwrap()
    }

    #[test]
    fn what_was_drawn_is_drawn_again_in_its_order_and_then_anew() {
        let tape = Tape::new().unwrap();
        assert_eq!(
            (draw(&tape, "one"), draw(&tape, "two")),
            ("one".into(), "two".into())
        );
        tape.set_sent(17).unwrap();
        let next = again(&tape).unwrap();
        assert_eq!(next.sent().unwrap(), 17);
        assert_eq!((draw(&next, "x"), draw(&next, "y")), ("one".into(), "two".into()));
        assert_eq!(draw(&next, "three"), "three");
        let third = again(&next).unwrap();
        let all = [draw(&third, ""), draw(&third, ""), draw(&third, "")];
        assert_eq!(all, ["one", "two", "three"]);
    }

    #[test]
    fn a_connection_is_claimed_once_and_its_handshake_not_done_again() {
        let tape = Tape::new().unwrap();
        let other = again(&tape).unwrap();
        assert!(other.claim().unwrap());
        assert!(!tape.claim().unwrap() && !other.claim().unwrap());
        assert!(again(&tape).is_none());
    }

    #[test]
    fn who_takes_a_connection_takes_what_the_handshake_has_used_and_no_more() {
        let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut client, b"handshake, query").unwrap();
        let tape = Tape::new().unwrap();
        let other = again(&tape).unwrap();
        tape.offer(11).unwrap();
        assert!(other.is_offered().unwrap());
        assert!(other.take(server.as_fd()).unwrap());
        assert!(!tape.take(server.as_fd()).unwrap());
        let mut rest = [0; 16];
        assert_eq!(std::io::Read::read(&mut &server, &mut rest).unwrap(), 5);
        assert_eq!(&rest[..5], b"query");
    }

    #[test]
    fn more_draws_than_there_is_room_for_are_the_end_of_it() {
        let tape = Tape::new().unwrap();
        for _ in 0..9 {
            draw(&tape, &"x".repeat(1000));
        }
        assert!(again(&tape).is_none());
    }

    #[test]
    fn a_tape_is_wiped_and_no_other_file_is_one() {
        let tape = Tape::new().unwrap();
        draw(&tape, "secret");
        drop(again(&tape));
        assert_eq!(
            draw(&again(&tape).unwrap(), "x"),
            "secret",
            "only when it is over"
        );
        assert!(tape.claim().unwrap());
        let kept = tape.fd().try_clone_to_owned().unwrap();
        drop(tape);
        let mut content = vec![1; SIZE];
        File::from(kept.try_clone().unwrap())
            .read_exact_at(&mut content, 0)
            .unwrap();
        assert!(content.iter().all(|byte| *byte == 0));
        assert!(Tape::open(kept).unwrap().is_none());
        assert!(Tape::open(tempfile::tempfile().unwrap().into()).is_err());
    }
}
