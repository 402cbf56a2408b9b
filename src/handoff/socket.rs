//! The `SOCK_SEQPACKET` socket: whole messages with descriptors (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroizing;

use super::envelope;

/// The longest message of the protocol, and one byte to see that one is longer.
const BUFFER: usize = envelope::HEADER + envelope::MAX_INLINE + 1;
/// Room for more descriptors than a message may have, so that too many are seen.
const DESCRIPTORS: usize = 4;
const BACKLOG: i32 = 4096;

/// One message as it came.
pub(super) struct Message {
    buffer: Zeroizing<Vec<u8>>,
    length: usize,
    /// Close-on-exec, owned: those that nobody takes are closed.
    pub(super) descriptors: Vec<OwnedFd>,
    /// The kernel has cut the bytes or the descriptors.
    pub(super) truncated: bool,
}

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd always answers with the one descriptor that it keeps open
    // until it is dropped, and nothing takes it out of the AsyncFd.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// A connected socket.
#[derive(Debug)]
pub(super) struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    pub(super) async fn connect(path: &Path) -> io::Result<Stream> {
        let address = net::SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let mut pause = Duration::from_millis(1);
        loop {
            match net::connect(&socket, &address) {
                Ok(()) => return Ok(Stream(watch(socket)?)),
                // The backlog is full. The kernel has no event for its having room.
                Err(Errno::AGAIN) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends one message. On an error nothing was sent.
    pub(super) async fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let send = |fd: &OwnedFd| {
            let bytes = [IoSlice::new(message)];
            Ok(net::sendmsg(fd, &bytes, &mut control, flags)?)
        };
        // A seqpacket socket takes a message whole or not at all.
        self.0.async_io(Interest::WRITABLE, send).await.map(|_| ())
    }

    /// Waits for the next message; `None` when the other side has closed.
    pub(super) async fn receive(&self) -> io::Result<Option<Message>> {
        let message = self.0.async_io(Interest::READABLE, receive_now).await?;
        // No message of the protocol is empty, so this is the end of the stream.
        let end = message.length == 0 && message.descriptors.is_empty() && !message.truncated;
        Ok(if end { None } else { Some(message) })
    }

    /// The effective user that has connected (SO_PEERCRED).
    pub(super) fn peer_uid(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(self.0.get_ref())?.uid.as_raw())
    }
}

fn receive_now(fd: &OwnedFd) -> io::Result<Message> {
    // Most messages are far shorter than the longest, and every byte of the buffer is
    // zeroed before and wiped after. TRUNC: as long as it is, not as was read.
    let peek = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let (_, length) = net::recv(fd, &mut [0u8; 0][..], peek)?;
    let mut buffer = Zeroizing::new(vec![0; length.clamp(1, BUFFER)]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = {
        let mut bytes = [IoSliceMut::new(&mut buffer)];
        net::recvmsg(fd, &mut bytes, &mut control, flags)?
    };
    let mut descriptors = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received);
        }
    }
    Ok(Message {
        length: received.bytes.min(buffer.len()),
        buffer,
        descriptors,
        truncated: received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC),
    })
}

/// A listening socket.
pub(super) struct Acceptor(AsyncFd<OwnedFd>);

impl Acceptor {
    pub(super) fn from_fd(fd: OwnedFd) -> io::Result<Acceptor> {
        let fits = sockopt::socket_domain(&fd)? == AddressFamily::UNIX
            && sockopt::socket_type(&fd)? == SocketType::SEQPACKET
            && sockopt::socket_acceptconn(&fd)?;
        if !fits {
            let message = "the handoff socket is not a listening Unix socket of type SOCK_SEQPACKET";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        Ok(Acceptor(watch(fd)?))
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = |fd: &OwnedFd| Ok(net::accept_with(fd, flags)?);
        let socket = self.0.async_io(Interest::READABLE, accept).await?;
        Ok(Stream(watch(socket)?))
    }
}

/// A listening handoff socket at `path`, for a supervisor to give to its worker.
/// Who may connect is decided by the directory: it must be closed to other users
/// before, because the file's own mode is set only after it exists.
pub fn bind(path: &Path) -> io::Result<OwnedFd> {
    let address = net::SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    net::bind(&socket, &address)?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Is this a connected socket of a stream, as clients have?
pub(super) fn is_client_socket(fd: &OwnedFd) -> bool {
    sockopt::socket_type(fd) == Ok(SocketType::STREAM) && sockopt::socket_acceptconn(fd) == Ok(false)
}
