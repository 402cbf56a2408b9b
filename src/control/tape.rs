//! What another process needs to do a connection's handshake again.
//!
//! From accept to handoff, what the server says is a function of the
//! configuration, of what the client has sent, and of what was drawn (random
//! numbers, ephemeral keys, signatures, a nonce). The client's bytes stay in the
//! socket until the handoff: they are only looked at (see [`Kept`](super::keep::Kept)).
//! So what must be written down are the draws, and how much of what the server
//! says has already gone out. It stands in a memfd, which outlives the process
//! in systemd's file descriptor store, and is wiped at the end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use zeroize::Zeroizing;

use crate::tls::{Draw, Draws};

/// Version 1 of what follows.
const MAGIC: [u8; 8] = *b"duckgr\0\x01";
/// Whether the handshake may be done again: 1 if so.
const OPEN_AT: u64 = 8;
/// How many bytes have been sent, 8 bytes in this machine's order.
const SENT_AT: u64 = 16;
/// The draws, each after its length in two bytes; behind the last one zeros.
const DRAWS_AT: usize = 24;
/// Draws come to 2 KiB: the largest are the share of a post-quantum key exchange,
/// and a signature.
const SIZE: usize = 8 * 1024;

const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW);

/// The tape of one connection.
pub struct Tape {
    file: File,
    /// Where the next draw stands, or will.
    next: Mutex<usize>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> io::Result<Tape> {
        let fd = memfd_create(
            "duckgres-handshake",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        ftruncate(&fd, SIZE as u64)?;
        fcntl_add_seals(&fd, SEALS)?;
        let tape = Tape {
            file: fd.into(),
            next: Mutex::new(DRAWS_AT),
        };
        tape.file.write_all_at(&[&MAGIC[..], &[1]].concat(), 0)?;
        Ok(tape)
    }

    /// A tape that another process has begun. `None` if its handshake must not be
    /// done again: it had come to its end.
    ///
    /// # Errors
    /// It is none, or one of another version.
    pub fn open(fd: OwnedFd) -> io::Result<Option<Tape>> {
        let invalid = |message| io::Error::new(io::ErrorKind::InvalidData, message);
        // Any other file fails here with EINVAL: reading it might block.
        let seals = fcntl_get_seals(&fd).map_err(|_| invalid("a handshake's tape is not a memfd"))?;
        let file = File::from(fd);
        if !seals.contains(SEALS) || file.metadata()?.len() != SIZE as u64 {
            return Err(invalid("a handshake's tape is not sealed, or of another size"));
        }
        let mut head = [0; DRAWS_AT];
        file.read_exact_at(&mut head, 0)?;
        if head == [0; DRAWS_AT] {
            return Ok(None);
        }
        if head[..8] != MAGIC {
            return Err(invalid("a handshake's tape is of another version"));
        }
        let tape = Tape {
            file,
            next: Mutex::new(DRAWS_AT),
        };
        Ok((head[OPEN_AT as usize] == 1).then_some(tape))
    }

    /// The memfd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// How many bytes have been sent.
    pub fn sent(&self) -> io::Result<u64> {
        let mut sent = [0; 8];
        self.file.read_exact_at(&mut sent, SENT_AT)?;
        Ok(u64::from_ne_bytes(sent))
    }

    /// So many bytes have been sent altogether.
    pub fn set_sent(&self, sent: u64) -> io::Result<()> {
        self.file.write_all_at(&sent.to_ne_bytes(), SENT_AT)
    }

    /// From now on nobody may do the handshake again.
    pub fn end(&self) -> io::Result<()> {
        self.file.write_all_at(&[0], OPEN_AT)
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
        if written {
            *next = behind;
        } else {
            self.end().ok()?;
        }
        Some(draw)
    }
}

impl Drop for Tape {
    /// Whoever still holds the memfd finds nothing in it.
    fn drop(&mut self) {
        let _ = self.file.write_all_at(&[0; SIZE], 0);
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
    fn a_handshake_at_its_end_is_not_done_again() {
        let tape = Tape::new().unwrap();
        tape.end().unwrap();
        assert!(again(&tape).is_none());
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
