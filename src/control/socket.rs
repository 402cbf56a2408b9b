//! The client's socket, TCP or Unix, perhaps kept (`keep`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
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
    /// A non-blocking connection from which nothing has been taken, kept by this process
    /// or by one before it.
    ///
    /// # Errors
    /// The client has gone.
    pub fn accepted(fd: OwnedFd, kept: Option<Box<Kept>>) -> io::Result<Self> {
        let socket = SockRef::from(&fd);
        let client = socket.peer_addr()?.as_socket();
        if client.is_some() {
            prepare(&socket)?;
        }
        Ok(Self {
            kept,
            ..Self::from_fd(fd, client)?
        })
    }

    /// Where this connection's draws come from.
    pub fn draws(&self) -> Arc<dyn Draws> {
        match &self.kept {
            Some(kept) => kept.tape.clone(),
            None => Arc::new(Fresh),
        }
    }

    /// No longer kept: what was read from it is taken out of it.
    ///
    /// # Errors
    /// It is another process's, which nothing that is done here reaches, or it has failed.
    pub fn commit(&mut self) -> io::Result<()> {
        if let Some(kept) = &mut self.kept {
            kept.commit(self.stream.fd())?;
            self.kept = None;
        }
        Ok(())
    }

    /// To be asked before anything is done that no other process must do too.
    fn own(&mut self) -> io::Result<()> {
        match self.kept.as_ref().is_some_and(|kept| kept.is_offered()) {
            true => self.commit(),
            false => Ok(()),
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
        let stream = match peer {
            Some(address) => Stream::Tcp(TcpStream::from_std(fd.into())?, address),
            None => Stream::Unix(UnixStream::from_std(fd.into())?),
        };
        Ok(Self { stream, kept: None })
    }

    /// The address of a TCP client.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(_, address) => Some(*address),
            Stream::Unix(_) => None,
        }
    }
}

/// Answers go out at once, and a peer that has vanished is noticed in about a minute.
fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
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
        socket.own()?;
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
        socket.own()?;
        match &mut socket.stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net;
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{RecvFlags, recv};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::control::keep::{self, Keeper};
    use crate::handoff::Tape;

    /// A kept connection, its client, the tape as another process has it, and systemd.
    fn kept() -> (Socket, net::TcpStream, Tape, UnixDatagram) {
        let (ours, systemd) = UnixDatagram::pair().unwrap();
        let keeper = Keeper::new(ours).unwrap();
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (fd, kept) = keep::accept(listener.as_fd(), &mut keeper.prepare()).unwrap();
        let tape = kept.as_ref().unwrap().tape.fd().try_clone_to_owned().unwrap();
        let tape = Tape::open(tape).unwrap().unwrap();
        (Socket::accepted(fd, kept).unwrap(), client, tape, systemd)
    }

    #[tokio::test]
    async fn nothing_reaches_a_client_whose_session_another_process_has_claimed() {
        let (mut socket, mut client, other, _systemd) = kept();
        client.write_all(&[7; 60 * 1024]).unwrap();
        assert!(other.claim().unwrap());
        // Until so much was read that it is no longer kept, if it can be had.
        let mut read = [0; 16 * 1024];
        while socket.read(&mut read).await.is_ok() {}
        assert!(socket.write_all(b"not from here").await.is_err());
        assert!(socket.shutdown().await.is_err());
        client.set_nonblocking(true).unwrap();
        let nothing = client.read(&mut read).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let mut there = [0; 100 * 1024];
        let count = recv(socket.stream.fd(), &mut there, RecvFlags::PEEK);
        assert_eq!(count.unwrap().0, 60 * 1024, "all of it is the other's to take");
    }

    #[tokio::test]
    async fn a_connection_that_nobody_else_wants_goes_on_when_too_much_was_said_to_keep_it() {
        let (mut socket, mut client, other, _systemd) = kept();
        let much: Vec<u8> = (0..60 * 1024).map(|i: u32| i.to_le_bytes()[0]).collect();
        client.write_all(&much).unwrap();
        let mut read = vec![0; much.len()];
        let (first, second) = read.split_at_mut(50 * 1024);
        socket.read_exact(first).await.unwrap();
        socket.read_exact(second).await.unwrap();
        assert!(read == much && socket.kept.is_none());
        assert!(!other.claim().unwrap());
        socket.write_all(b"welcome").await.unwrap();
        let mut heard = [0; 7];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"welcome");
    }
}
