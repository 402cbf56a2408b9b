//! The roads to a server: TCP, a Unix socket, TLS 1.2 and 1.3, and TLS from the
//! first byte on. Blocking, with a deadline on every read and write.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};

use super::{PATIENCE, Server, message};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transport {
    Tcp,
    Unix,
    Tls13,
    Tls12,
    /// TLS without an SSLRequest, with ALPN `postgresql`. PostgreSQL has it since 17.
    DirectTls,
}

impl Transport {
    /// All that PostgreSQL 15 has as well.
    pub const ALL: [Transport; 4] = [
        Transport::Tcp,
        Transport::Unix,
        Transport::Tls13,
        Transport::Tls12,
    ];
}

/// A connection on which nothing of the PostgreSQL protocol has been said yet,
/// apart from what it takes to get TLS.
pub enum Road {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Road {
    pub fn open(server: &Server, transport: Transport) -> io::Result<Road> {
        let versions = match transport {
            Transport::Unix => {
                let socket = UnixStream::connect(server.socket())?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                return Ok(Road::Unix(socket));
            }
            Transport::Tcp => return Ok(Road::Tcp(tcp(server)?)),
            Transport::Tls12 => &[&version::TLS12],
            Transport::Tls13 | Transport::DirectTls => &[&version::TLS13],
        };
        let mut socket = tcp(server)?;
        if transport != Transport::DirectTls {
            socket.write_all(&message::ssl_request())?;
            let mut answer = [0];
            socket.read_exact(&mut answer)?;
            assert_eq!(answer, *b"S", "the server offers TLS");
        }
        let alpn: &[&[u8]] = if transport == Transport::DirectTls {
            &[b"postgresql"]
        } else {
            &[]
        };
        Road::secure(socket, tls_config(&server.certificate, versions, alpn))
    }

    /// Runs the TLS handshake on a socket whose server is ready for it.
    pub fn secure(socket: TcpStream, config: ClientConfig) -> io::Result<Road> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            if let (0, 0) = stream.conn.complete_io(&mut stream.sock)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Road::Tls(Box::new(stream)))
    }

    /// Leaves without a word: no Terminate, no close_notify, and with unread
    /// input a reset instead of an orderly end.
    pub fn vanish(self) {
        let _ = match &self {
            Road::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Road::Unix(socket) => socket.shutdown(Shutdown::Both),
            Road::Tls(stream) => stream.sock.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Road {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Road::Tcp(socket) => socket.read(buffer),
            Road::Unix(socket) => socket.read(buffer),
            Road::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Road {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Road::Tcp(socket) => socket.write(bytes),
            Road::Unix(socket) => socket.write(bytes),
            Road::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Road::Tcp(socket) => socket.flush(),
            Road::Unix(socket) => socket.flush(),
            Road::Tls(stream) => stream.flush(),
        }
    }
}

/// A bare TCP connection to the server.
pub fn tcp(server: &Server) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", server.port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Trusts the server's own certificate and nothing else, and checks the name.
pub fn tls_config(
    certificate: &Path,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(certificate_der(certificate)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

/// The first certificate of a PEM file.
pub fn certificate_der(path: &Path) -> CertificateDer<'static> {
    let pem = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    CertificateDer::from_pem_slice(&pem).unwrap()
}
