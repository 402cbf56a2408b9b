//! Whole messages with descriptors between two control planes (unix(7),
//! `SOCK_SEQPACKET`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use prost::Message;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many descriptors one message has at most; the kernel's limit is 253.
pub const MOST_DESCRIPTORS: usize = 200;

/// The longest message: so many names of sockets, or a reason for people.
const LONGEST: usize = 128 * 1024;

/// One end.
pub struct Channel(AsyncFd<OwnedFd>);

/// Both ends, close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Whether this can be an end of a channel.
pub fn is_one(fd: &OwnedFd) -> bool {
    sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET) && sockopt::socket_acceptconn(fd) == Ok(false)
}

/// Sends a message with at most one descriptor, outside of a runtime.
pub fn send_now(fd: &OwnedFd, message: &impl Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let bytes = message.encode_to_vec();
    let descriptors = Vec::from_iter(descriptor);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    net::sendmsg(fd, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

impl Channel {
    /// Must be called inside a runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        // SAFETY: an OwnedFd always answers with the one descriptor that it keeps
        // open until it is dropped, and nothing takes it out of the AsyncFd.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Sends a message. On an error nothing was sent.
    pub async fn send(&self, message: &impl Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        if bytes.len() > LONGEST || descriptors.len() > MOST_DESCRIPTORS {
            return Err(io::Error::other("a message of a reload is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let send = |fd: &OwnedFd| Ok(net::sendmsg(fd, &[IoSlice::new(&bytes)], &mut control, flags)?);
        self.0.async_io(Interest::WRITABLE, send).await.map(|_| ())
    }

    /// The next message with its descriptors, close-on-exec; `None` when the other
    /// side is gone.
    pub async fn receive<M: Message + Default>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let (bytes, descriptors) = match self.0.async_io(Interest::READABLE, receive).await {
            // The other side has closed without reading all. It is said once, and before
            // what the other side has said itself.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.0.async_io(Interest::READABLE, receive).await?
            }
            received => received?,
        };
        // No message of the conversation is empty.
        if bytes.is_empty() {
            return Ok(None);
        }
        let message =
            M::decode(bytes.as_slice()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((message, descriptors)))
    }
}

fn receive(fd: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS + 1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = net::recvmsg(
        fd.as_fd(),
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        flags,
    )?;
    let mut descriptors = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message of a reload was cut: too few descriptors may be open",
        ));
    }
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Failed, Hello};

    #[tokio::test]
    async fn messages_arrive_whole_with_their_descriptors_and_the_end_is_seen() {
        let (here, there) = pair().unwrap();
        assert!(is_one(&here));
        assert!(!is_one(&tempfile::tempfile().unwrap().into()));
        let hello = Hello {
            process_id: 17,
            ..Hello::default()
        };
        let file = tempfile::tempfile().unwrap();
        send_now(&there, &hello, Some(file.as_fd())).unwrap();
        let (here, there) = (Channel::new(here).unwrap(), Channel::new(there).unwrap());
        let many = vec![file.as_fd(); MOST_DESCRIPTORS];
        let long = Failed {
            reason: "x".repeat(100_000),
        };
        there.send(&long, &many).await.unwrap();
        assert!(
            there
                .send(&long, &[file.as_fd(); MOST_DESCRIPTORS + 1])
                .await
                .is_err()
        );
        let (message, descriptors) = here.receive::<Hello>().await.unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (hello.clone(), 1));
        let (message, descriptors) = here.receive::<Failed>().await.unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (long, MOST_DESCRIPTORS));
        // Also when something is left unread on the other side.
        here.send(&hello, &[]).await.unwrap();
        there.send(&hello, &[]).await.unwrap();
        drop(there);
        assert!(here.receive::<Hello>().await.unwrap().is_some());
        assert!(here.receive::<Failed>().await.unwrap().is_none());
    }
}
