//! Where sessions wait for a process that is not there yet.
//!
//! A pocket is a pair of `SOCK_SEQPACKET` sockets. What is put into it stands in the
//! kernel, in the queue of the socket that it is taken from, and that socket is all
//! that somebody must keep meanwhile: one descriptor, however many sessions there
//! are. The kernel gives each message to one taker. So no session is had twice and no
//! nonce of its TLS state is used twice, whoever is killed at whatever moment; what
//! has not been taken yet is still there for the next one.
//!
//! A message is 8 bytes and what belongs to them:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | "DGPK" |
//! | 1 | format, 1 |
//! | 1 | kind: 1 a note, 2 sessions |
//! | 2 | how many descriptors there are, besides a memfd, big endian |
//!
//! A note's bytes follow; its descriptors mean what it says. The first descriptor of
//! sessions is a memfd with their states, each after its length in four bytes; the
//! others are their sockets, in the same order. The memfd has a fixed size but is not
//! sealed against writing: it is wiped before anything is done with what it held.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use zeroize::Zeroizing;

use super::session::{Session, SessionState};
use super::state::StateError;

const MAGIC: [u8; 4] = *b"DGPK";
const FORMAT: u8 = 1;
const NOTE: u8 = 1;
const SESSIONS: u8 = 2;
const HEADER: usize = 8;
/// The longest note.
const LONGEST: usize = 64 * 1024;
/// The kernel's limit of descriptors in one message (unix(7), SCM_MAX_FD).
const DESCRIPTORS: usize = 253;
/// So many sessions are in one message at most.
pub const BATCH: usize = 200;
/// States of one message together: a bound on what the taker allocates.
const LARGEST: u64 = 4 << 30;
/// The queue's size, if the system permits: it is counted in messages of a KiB, of
/// which the default has room for two hundred.
const ROOM: usize = 1 << 20;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// The end that is kept, and taken from. Not to be closed by whoever has put
/// something into it before somebody else keeps it: that would end the sessions.
#[derive(Debug)]
pub struct Pocket {
    socket: OwnedFd,
}

/// The end that one puts things into.
#[derive(Debug)]
pub struct Opening {
    socket: OwnedFd,
}

/// What is taken from a pocket at once.
#[derive(Debug)]
pub enum Content {
    /// Whatever the two processes have to tell each other.
    Note(Vec<u8>, Vec<OwnedFd>),
    /// Sessions, the taker's from now on. One that cannot be read is closed.
    Sessions(Vec<Result<Session, StateError>>),
}

impl Pocket {
    /// An empty one.
    ///
    /// # Errors
    /// Of socketpair(2).
    pub fn new() -> io::Result<(Pocket, Opening)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, opening) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Less is enough for thousands of sessions.
        let _ = sockopt::set_socket_send_buffer_size(&opening, ROOM);
        Ok((Pocket { socket }, Opening { socket: opening }))
    }

    /// One that somebody has kept.
    pub fn from_fd(socket: OwnedFd) -> Pocket {
        Pocket { socket }
    }

    /// Takes the next thing out; `None` if there is nothing more.
    ///
    /// # Errors
    /// Of recvmsg(2), or what was taken is damaged, or of another version: sessions in
    /// it are closed. What else there is can still be taken, but for an error whose
    /// kind is not [`io::ErrorKind::InvalidData`].
    pub fn take(&self) -> io::Result<Option<Content>> {
        let mut buffer = vec![0; HEADER + LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            flags,
        ) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if received.bytes == 0 && descriptors.is_empty() {
            // Nobody has the other end any more.
            return Ok(None);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(invalid("a message was cut, there may be no descriptors left"));
        }
        let bytes = buffer.get(..received.bytes).unwrap_or_default();
        read(bytes, descriptors).map(Some)
    }
}

impl AsFd for Pocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Opening {
    /// Puts a note in, with descriptors, at most 253.
    ///
    /// # Errors
    /// It is too long, or of sendmsg(2). Nothing was put in.
    pub fn put_note(&self, note: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if note.len() > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.put_message(NOTE, descriptors.len(), note, descriptors)
    }

    /// Puts sessions in, at most [`BATCH`].
    ///
    /// # Errors
    /// Of memfd_create(2), write(2), sendmsg(2): the sessions are still the caller's.
    pub fn put(&self, sessions: Vec<Session>) -> Result<(), (Vec<Session>, io::Error)> {
        match self.put_all(&sessions) {
            // They are whose the pocket is.
            Ok(()) => Ok(()),
            Err(error) => Err((sessions, error)),
        }
    }
}

impl Opening {
    fn put_all(&self, sessions: &[Session]) -> io::Result<()> {
        if sessions.len() > BATCH {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let states = write_states(sessions)?;
        let sockets = sessions.iter().map(|session| session.socket.as_fd());
        let descriptors: Vec<BorrowedFd<'_>> = std::iter::once(states.as_fd()).chain(sockets).collect();
        self.put_message(SESSIONS, sessions.len(), &[], &descriptors)
    }

    fn put_message(
        &self,
        kind: u8,
        count: usize,
        text: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let count = u16::try_from(count).map_err(io::Error::other)?;
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&MAGIC);
        header[4..6].copy_from_slice(&[FORMAT, kind]);
        header[6..].copy_from_slice(&count.to_be_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let bytes = [IoSlice::new(&header), IoSlice::new(text)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A seqpacket socket takes a message whole or not at all.
        net::sendmsg(&self.socket, &bytes, &mut control, flags)?;
        Ok(())
    }
}

/// A memfd with all states, each after its length.
fn write_states(sessions: &[Session]) -> io::Result<File> {
    let fd = memfd_create(
        "duckgres-sessions",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let (file, mut end) = (File::from(fd), 0);
    for session in sessions {
        let state = session.state.encode();
        let length = u32::try_from(state.len()).map_err(io::Error::other)?;
        file.write_all_at(&length.to_be_bytes(), end)?;
        file.write_all_at(&state, end + 4)?;
        end += 4 + u64::from(length);
    }
    fcntl_add_seals(&file, SEALS)?;
    Ok(file)
}

fn read(bytes: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<Content> {
    let (header, text) = bytes
        .split_first_chunk::<HEADER>()
        .ok_or_else(|| invalid("a message is too short"))?;
    let [m0, m1, m2, m3, format, kind, count @ ..] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(invalid("a message is of something else"));
    }
    if format != FORMAT {
        return Err(invalid("a message is of another version"));
    }
    let count = usize::from(u16::from_be_bytes(count));
    match kind {
        NOTE if descriptors.len() == count => Ok(Content::Note(text.to_vec(), descriptors)),
        SESSIONS if descriptors.len() == count + 1 => {
            let mut descriptors = descriptors.into_iter();
            let states = descriptors
                .next()
                .ok_or_else(|| invalid("a message has no states"))?;
            let states = read_states(states, count)?;
            let session = |(state, socket)| {
                let state: Result<SessionState, StateError> = state;
                state.map(|state| Session { socket, state })
            };
            let sessions = states.into_iter().zip(descriptors).map(session);
            Ok(Content::Sessions(sessions.collect()))
        }
        NOTE | SESSIONS => Err(invalid("a message has too few or too many descriptors")),
        _ => Err(invalid("a message is of an unknown kind")),
    }
}

/// The states of a message. They are nowhere else from then on.
fn read_states(fd: OwnedFd, count: usize) -> io::Result<Vec<Result<SessionState, StateError>>> {
    // Any other file fails here with EINVAL: reading it might block.
    let seals = fcntl_get_seals(&fd).map_err(|_| invalid("the states are not in a memfd"))?;
    let file = File::from(fd);
    let length = file.metadata()?.len();
    if !seals.contains(SEALS) || length > LARGEST {
        return Err(invalid("the states' memfd is not sealed, or too large"));
    }
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = Zeroizing::new(vec![0; length]);
    file.read_exact_at(&mut bytes, 0)?;
    file.write_all_at(&vec![0; length], 0)?;
    let (mut states, mut rest) = (Vec::with_capacity(count), &bytes[..]);
    for _ in 0..count {
        let cut = || invalid("the states are cut");
        let (length, more) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (state, more) = more.split_at_checked(length).ok_or_else(cut)?;
        states.push(SessionState::decode(state));
        rest = more;
    }
    Ok(states)
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::tests::session;

    #[test]
    fn what_is_put_in_is_taken_once_in_its_order() {
        let (pocket, opening) = Pocket::new().unwrap();
        let (left, mut peers): (Vec<_>, Vec<_>) = (0..3).map(|_| session()).unzip();
        opening
            .put_note(b"first", &[tempfile::tempfile().unwrap().as_fd()])
            .unwrap();
        opening.put(left).unwrap();
        drop(opening);
        let Ok(Some(Content::Note(text, descriptors))) = pocket.take() else {
            panic!()
        };
        assert_eq!((&text[..], descriptors.len()), (&b"first"[..], 1));
        // Whoever has a copy of it takes from the same.
        let other = Pocket::from_fd(pocket.as_fd().try_clone_to_owned().unwrap());
        let Ok(Some(Content::Sessions(taken))) = other.take() else {
            panic!()
        };
        assert_eq!(taken.len(), 3);
        for (number, (session, peer)) in taken.into_iter().zip(&mut peers).enumerate() {
            let session = session.unwrap();
            assert_eq!(session.state.user, "ada");
            let mut socket = std::os::unix::net::UnixStream::from(session.socket);
            io::Write::write_all(&mut socket, &[number as u8]).unwrap();
            let mut byte = [0];
            io::Read::read_exact(peer, &mut byte).unwrap();
            assert_eq!(usize::from(byte[0]), number);
        }
        assert!(matches!(pocket.take(), Ok(None)));
        assert!(matches!(other.take(), Ok(None)));
    }

    #[test]
    fn states_are_wiped_when_they_are_taken() {
        let (one, _peer) = session();
        let states = write_states(&[one]).unwrap();
        let copy = states.try_clone().unwrap();
        let read = read_states(states.into(), 1).unwrap();
        assert!(read[0].is_ok());
        let mut left = vec![1; usize::try_from(copy.metadata().unwrap().len()).unwrap()];
        copy.read_exact_at(&mut left, 0).unwrap();
        assert!(left.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn what_cannot_be_put_in_is_still_its_owners() {
        let (pocket, opening) = Pocket::new().unwrap();
        let (many, _peers): (Vec<_>, Vec<_>) = (0..=BATCH).map(|_| session()).unzip();
        let (back, _) = opening.put(many).unwrap_err();
        assert_eq!(back.len(), BATCH + 1);
        assert!(matches!(pocket.take(), Ok(None)));
    }

    #[test]
    fn damage_is_an_error_and_no_panic() {
        let sealed = || {
            let (one, _peer) = session();
            OwnedFd::from(write_states(&[one]).unwrap())
        };
        let plain = || OwnedFd::from(tempfile::tempfile().unwrap());
        let kind = |bytes: &[u8], descriptors| match read(bytes, descriptors) {
            Err(error) => error.kind(),
            Ok(_) => panic!("{bytes:?} was taken"),
        };
        for (bytes, descriptors) in [
            (&b""[..], vec![]),
            (b"DGPK\x01\x02\0", vec![]),
            (b"nope\x01\x02\0\0", vec![]),
            (b"DGPK\x02\x01\0\0", vec![]),
            (b"DGPK\x01\x03\0\0", vec![]),
            (b"DGPK\x01\x01\0\x01", vec![]),
            (b"DGPK\x01\x02\0\0", vec![]),
            (b"DGPK\x01\x02\0\x01", vec![plain(), plain()]),
            (b"DGPK\x01\x02\0\x02", vec![sealed(), plain(), plain()]),
        ] {
            assert_eq!(kind(bytes, descriptors), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
