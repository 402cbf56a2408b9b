//! The client's socket, TCP or Unix, perhaps kept (`keep`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::keep::Kept;
use crate::tls::{Draws, Fresh};

/// An accepted connection.
pub struct Socket {
    stream: Stream,
    kept: Option<Box<Kept>>,
}

enum Stream {
    /// Over TCP, with the client's address.
    Tcp(TcpStream, SocketAddr),
    /// Over the Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Over TCP, with the client's address.
    pub fn tcp(stream: TcpStream, client: SocketAddr) -> Self {
        Self {
            stream: Stream::Tcp(stream, client),
            kept: None,
        }
    }

    /// Over the Unix socket.
    pub fn unix(stream: UnixStream) -> Self {
        Self {
            stream: Stream::Unix(stream),
            kept: None,
        }
    }

    /// The same connection, kept if it is.
    pub fn kept_by(mut self, kept: Option<Box<Kept>>) -> Self {
        self.kept = kept;
        self
    }

    /// A connection that another process has kept.
    ///
    /// # Errors
    /// The client has gone.
    pub fn take_up(fd: OwnedFd, kept: Box<Kept>) -> io::Result<Self> {
        let peer = socket2::SockRef::from(&fd).peer_addr()?.as_socket();
        Ok(Self::from_fd(fd, peer)?.kept_by(Some(kept)))
    }

    /// Where this connection's draws come from.
    pub fn draws(&self) -> Arc<dyn Draws> {
        match &self.kept {
            Some(kept) => kept.tape.clone(),
            None => Arc::new(Fresh),
        }
    }

    /// No longer kept: what was read from it is taken out of it.
    pub fn commit(&mut self) -> io::Result<()> {
        match self.kept.take() {
            Some(mut kept) => kept.commit(self.stream.fd()),
            None => Ok(()),
        }
    }

    /// Whether it is a Unix socket, which needs no encryption.
    pub fn is_local(&self) -> bool {
        matches!(self.stream, Stream::Unix(_))
    }

    /// The client's address for logs: `203.0.113.7:50312`, or `local`.
    pub fn peer(&self) -> String {
        match &self.stream {
            Stream::Tcp(_, address) => address.to_string(),
            Stream::Unix(_) => "local".into(),
        }
    }

    /// Replaces the address by that of the client behind a proxy. Unix sockets
    /// have none.
    pub fn set_address(&mut self, client: SocketAddr) {
        if let Stream::Tcp(_, address) = &mut self.stream {
            *address = client;
        }
    }

    /// The effective user that has connected to the Unix socket.
    pub fn peer_uid(&self) -> Option<u32> {
        match &self.stream {
            Stream::Tcp(..) => None,
            Stream::Unix(stream) => stream.peer_cred().ok().map(|peer| peer.uid()),
        }
    }

    /// Leaves the connection, if it is kept, to the next process.
    pub fn leave(mut self) -> Result<(), Self> {
        match self.kept.take() {
            Some(kept) => {
                kept.leave();
                Ok(())
            }
            None => Err(self),
        }
    }

    /// The socket itself, non-blocking, no longer watched by this process. What
    /// keeps it must be committed (`Kept::commit`), here or by a worker, before
    /// anybody reads from it.
    pub fn into_fd(self) -> io::Result<(OwnedFd, Option<Box<Kept>>)> {
        let fd = match self.stream {
            Stream::Tcp(stream, _) => stream.into_std().map(OwnedFd::from),
            Stream::Unix(stream) => stream.into_std().map(OwnedFd::from),
        }?;
        Ok((fd, self.kept))
    }

    /// Takes the socket back after [`Socket::into_fd`].
    pub fn from_fd(fd: OwnedFd, peer: Option<SocketAddr>) -> io::Result<Self> {
        Ok(match peer {
            Some(address) => Self::tcp(TcpStream::from_std(fd.into())?, address),
            None => Self::unix(UnixStream::from_std(fd.into())?),
        })
    }

    /// The address of a TCP client.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(_, address) => Some(*address),
            Stream::Unix(_) => None,
        }
    }
}

impl Stream {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream, _) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    /// Reads as soon as `read` does not answer `WouldBlock`.
    fn poll_reading(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let attempt = match self {
                Self::Tcp(stream, _) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || read(stream.as_fd()))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || read(stream.as_fd()))
                }
            };
            match attempt {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if socket.kept.as_ref().is_some_and(|kept| kept.is_full()) {
            socket.commit()?;
        }
        let Some(kept) = &mut socket.kept else {
            return match &mut socket.stream {
                Stream::Tcp(stream, _) => Pin::new(stream).poll_read(cx, buffer),
                Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            };
        };
        let room = buffer.initialize_unfilled();
        let count = ready!(socket.stream.poll_reading(cx, |fd| kept.read(fd, room)))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let repeated = socket.kept.as_mut().map_or(0, |kept| kept.repeated(bytes.len()));
        if repeated > 0 {
            return Poll::Ready(Ok(repeated));
        }
        if let Some(kept) = &socket.kept {
            kept.own()?;
        }
        let written = match &mut socket.stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        if let (Poll::Ready(Ok(count)), Some(kept)) = (&written, &mut socket.kept) {
            kept.wrote(*count)?;
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        if let Some(kept) = &socket.kept {
            kept.own()?;
        }
        match &mut socket.stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
