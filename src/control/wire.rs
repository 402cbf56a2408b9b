//! A connection before it is a session: exact reads, in plaintext or TLS.
//!
//! In plaintext never a byte more is taken from the socket than was asked for,
//! so nothing that was sent in the clear can be used after TLS has begun, and
//! nothing has to be given back when TLS begins. In TLS whole records are
//! taken; what the session has not used yet goes with it to the worker.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

use super::socket::Socket;
use crate::tls::{Channel, Progress, TlsState};

/// How much ciphertext is taken from the socket at once. It also bounds what a
/// client can make the server keep before it is authenticated.
const CHUNK: usize = 16 * 1024;

/// A connection, and the TLS session on it if there is one.
pub struct Wire {
    socket: Socket,
    tls: Option<Box<Channel>>,
    /// Decrypted and not yet used.
    plain: Zeroizing<Vec<u8>>,
}

/// What is left of a connection when its session moves on.
pub struct Parts {
    /// The client's socket.
    pub socket: Socket,
    /// Decrypted and not yet used.
    pub unread: Zeroizing<Vec<u8>>,
    /// The TLS session.
    pub tls: Option<TlsState>,
}

impl Wire {
    /// A connection on which nothing has been read.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            tls: None,
            plain: Zeroizing::default(),
        }
    }

    /// The socket, for a TLS handshake on it.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Goes on in TLS.
    pub fn secure(&mut self, state: TlsState) -> io::Result<()> {
        self.tls = Some(Box::new(Channel::resume(state).map_err(io::Error::other)?));
        Ok(())
    }

    /// Whether TLS is in force.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Fills the buffer, or fails with `UnexpectedEof`.
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let Some(channel) = &mut self.tls else {
            return self.socket.read_exact(buffer).await.map(drop);
        };
        while self.plain.len() < buffer.len() {
            let mut chunk = [0; CHUNK];
            let count = self.socket.read(&mut chunk).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut reply = Vec::new();
            let progress = channel.receive(&chunk[..count], &mut self.plain, &mut reply);
            // An alert says why, also when the record was refused.
            self.socket.write_all(&reply).await?;
            if matches!(progress.map_err(io::Error::other)?, Progress::Closed)
                && self.plain.len() < buffer.len()
            {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        buffer.copy_from_slice(&self.plain[..buffer.len()]);
        self.plain.drain(..buffer.len());
        Ok(())
    }

    /// Sends all of it.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.write_all(bytes).await,
            Some(channel) => {
                let mut sealed = Vec::new();
                channel.seal(bytes, &mut sealed).map_err(io::Error::other)?;
                self.socket.write_all(&sealed).await
            }
        }
    }

    /// Says goodbye and closes the sending side.
    pub async fn close(mut self) -> io::Result<()> {
        if let Some(channel) = &mut self.tls {
            let mut goodbye = Vec::new();
            channel.close(&mut goodbye);
            self.socket.write_all(&goodbye).await?;
        }
        self.socket.shutdown().await
    }

    /// Leaves the connection, if it is kept, to the next process.
    pub fn leave(self) -> Result<(), Self> {
        let Self { socket, tls, plain } = self;
        socket.leave().map_err(|socket| Self { socket, tls, plain })
    }

    /// Takes the connection apart, to be handed over.
    pub fn into_parts(self) -> io::Result<Parts> {
        let tls = self
            .tls
            .map(|channel| channel.into_state())
            .transpose()
            .map_err(io::Error::other)?;
        Ok(Parts {
            socket: self.socket,
            unread: self.plain,
            tls,
        })
    }

    /// Puts a connection together again.
    pub fn from_parts(parts: Parts) -> io::Result<Self> {
        let mut wire = Self {
            plain: parts.unread,
            ..Self::new(parts.socket)
        };
        parts.tls.map_or(Ok(()), |state| wire.secure(state))?;
        Ok(wire)
    }
}
