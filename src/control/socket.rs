//! The client's socket, TCP or Unix.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// An accepted connection.
pub enum Socket {
    /// Over TCP, with the client's address.
    Tcp(TcpStream, SocketAddr),
    /// Over the Unix socket.
    Unix(UnixStream),
}

impl Socket {
    /// Whether it is a Unix socket, which needs no encryption.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The client's address for logs: `203.0.113.7:50312`, or `local`.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(_, address) => address.to_string(),
            Self::Unix(_) => "local".into(),
        }
    }

    /// Replaces the address by that of the client behind a proxy. Unix sockets
    /// have none.
    pub fn set_address(&mut self, client: SocketAddr) {
        if let Self::Tcp(_, address) = self {
            *address = client;
        }
    }

    /// The effective user that has connected to the Unix socket.
    pub fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Tcp(..) => None,
            Self::Unix(stream) => stream.peer_cred().ok().map(|peer| peer.uid()),
        }
    }

    /// The socket itself, non-blocking, no longer watched by this process.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream, _) => stream.into_std().map(OwnedFd::from),
            Self::Unix(stream) => stream.into_std().map(OwnedFd::from),
        }
    }

    /// Takes the socket back after [`Socket::into_fd`].
    pub fn from_fd(fd: OwnedFd, peer: Option<SocketAddr>) -> io::Result<Self> {
        Ok(match peer {
            Some(address) => Self::Tcp(TcpStream::from_std(fd.into())?, address),
            None => Self::Unix(UnixStream::from_std(fd.into())?),
        })
    }

    /// The address of a TCP client.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
