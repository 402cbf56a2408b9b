//! A client that costs as little as a client can: it counts messages and looks
//! at none, so that what is measured is the server.

use std::error::Error;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

const READ: usize = 256 * 1024;

/// Where a server is and how to log in.
#[derive(Clone, Debug)]
pub struct Address {
    pub port: u16,
    pub user: String,
    pub password: String,
    /// The certificate it must show, DER.
    pub certificate: Vec<u8>,
}

/// What came before a ReadyForQuery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub rows: u64,
    /// Bytes of DataRow messages, headers included.
    pub bytes: u64,
}

pub struct Client {
    stream: Stream,
    buffer: Vec<u8>,
    filled: std::ops::Range<usize>,
    pub backend_pid: i32,
}

enum Stream {
    Plain(TcpStream),
    // rustls reads 4 KiB at a time; the buffer makes large reads of them.
    Tls(Box<ClientConnection>, BufReader<TcpStream>),
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(connection, stream) => loop {
                match connection.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
                connection.read_tls(stream)?;
                connection.process_new_packets().map_err(io::Error::other)?;
            },
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(connection, stream) => {
                connection.writer().write_all(bytes)?;
                while connection.wants_write() {
                    connection.write_tls(stream.get_mut())?;
                }
                Ok(())
            }
        }
    }
}

impl Client {
    /// Connects to the user's own database, logs in with SCRAM-SHA-256 and waits
    /// for ReadyForQuery.
    pub fn connect(address: &Address, tls: bool) -> Result<Client> {
        Self::connect_to(address, &address.user, tls)
    }

    /// The same to another database.
    pub fn connect_to(address: &Address, database: &str, tls: bool) -> Result<Client> {
        let socket = TcpStream::connect(("127.0.0.1", address.port))?;
        socket.set_nodelay(true)?;
        let stream = if tls {
            Self::start_tls(socket, address)?
        } else {
            Stream::Plain(socket)
        };
        let mut client = Client {
            stream,
            buffer: vec![0; READ],
            filled: 0..0,
            backend_pid: 0,
        };
        let mut startup = Vec::new();
        startup.extend_from_slice(&(3_u32 << 16).to_be_bytes());
        for text in ["user", &address.user, "database", database, ""] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        let mut packet = (startup.len() as u32 + 4).to_be_bytes().to_vec();
        packet.append(&mut startup);
        client.stream.write(&packet)?;
        client.log_in(&address.password)?;
        Ok(client)
    }

    fn start_tls(mut socket: TcpStream, address: &Address) -> Result<Stream> {
        socket.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])?;
        let mut answer = [0];
        socket.read_exact(&mut answer)?;
        if answer != *b"S" {
            return Err("the server does not do TLS".into());
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pinned = Pinned {
            certificate: address.certificate.clone(),
            provider: provider.clone(),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pinned))
            .with_no_client_auth();
        let mut connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Stream::Tls(
            Box::new(connection),
            BufReader::with_capacity(READ, socket),
        ))
    }

    fn log_in(&mut self, password: &str) -> Result<()> {
        let mut scram = None;
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'R' => match u32::from_be_bytes(body[..4].try_into()?) {
                    0 => {}
                    10 => {
                        let state = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                        let mut answer = SCRAM_SHA_256.as_bytes().to_vec();
                        answer.push(0);
                        answer.extend_from_slice(&(state.message().len() as u32).to_be_bytes());
                        answer.extend_from_slice(state.message());
                        self.send(&message(b'p', &answer))?;
                        scram = Some(state);
                    }
                    11 => {
                        let state = scram.as_mut().ok_or("SCRAM begins in the middle")?;
                        state.update(&body[4..])?;
                        let answer = message(b'p', state.message());
                        self.send(&answer)?;
                    }
                    12 => scram.as_mut().ok_or("SCRAM ends too early")?.finish(&body[4..])?,
                    other => return Err(format!("authentication method {other}").into()),
                },
                b'K' => self.backend_pid = i32::from_be_bytes(body[..4].try_into()?),
                b'E' => return Err(describe(&body).into()),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Sends messages.
    pub fn send(&mut self, messages: &[u8]) -> Result<()> {
        Ok(self.stream.write(messages)?)
    }

    /// Reads to the next ReadyForQuery and counts the rows before it.
    pub fn drain(&mut self) -> Result<Counted> {
        let mut counted = Counted::default();
        loop {
            self.need(5)?;
            let header = &self.buffer[self.filled.start..self.filled.start + 5];
            let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize + 1;
            match header[0] {
                b'D' => {
                    counted.rows += 1;
                    counted.bytes += length as u64;
                }
                b'Z' => {
                    self.skip(length)?;
                    return Ok(counted);
                }
                b'E' => {
                    let (_, body) = self.message()?;
                    return Err(describe(&body).into());
                }
                _ => {}
            }
            self.skip(length)?;
        }
    }

    /// A statement by the simple protocol, to its end.
    pub fn run(&mut self, sql: &str) -> Result<Counted> {
        self.send(&query(sql))?;
        self.drain()
    }

    /// Reads `COPY … TO STDOUT` from here and writes it to `COPY … FROM STDIN`
    /// there; the messages are the same in both directions.
    pub fn pump(&mut self, to: &mut Client) -> Result<()> {
        let mut batch = Vec::new();
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'd' => batch.extend_from_slice(&message(b'd', &body)),
                b'E' => return Err(describe(&body).into()),
                b'Z' => break,
                _ => {}
            }
            if batch.len() > READ {
                to.send(&batch)?;
                batch.clear();
            }
        }
        batch.extend_from_slice(&message(b'c', b""));
        to.send(&batch)?;
        to.drain().map(drop)
    }

    /// Reads one message whole.
    pub fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        self.need(5)?;
        let header = &self.buffer[self.filled.start..self.filled.start + 5];
        let kind = header[0];
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize - 4;
        self.filled.start += 5;
        let mut body = Vec::new();
        while body.len() < length {
            self.need(1)?;
            let count = self.filled.len().min(length - body.len());
            body.extend_from_slice(&self.buffer[self.filled.start..self.filled.start + count]);
            self.filled.start += count;
        }
        Ok((kind, body))
    }

    fn skip(&mut self, mut length: usize) -> Result<()> {
        while length > self.filled.len() {
            length -= self.filled.len();
            self.filled = 0..0;
            self.need(1)?;
        }
        self.filled.start += length;
        Ok(())
    }

    /// Reads until so many bytes are there (a few, never a whole buffer).
    fn need(&mut self, count: usize) -> Result<()> {
        while self.filled.len() < count {
            if self.filled.start > 0 {
                self.buffer.copy_within(self.filled.clone(), 0);
                self.filled = 0..self.filled.len();
            }
            match self.stream.read(&mut self.buffer[self.filled.end..])? {
                0 => return Err("the server closed the connection".into()),
                read => self.filled.end += read,
            }
        }
        Ok(())
    }
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

/// Parse of a statement with this name.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// Bind to the unnamed portal, Execute, Sync; all columns in one format.
pub fn execute(name: &str, binary: bool) -> Vec<u8> {
    let mut bind = format!("\0{name}\0").into_bytes();
    bind.extend_from_slice(&[0, 0, 0, 0, 0, 1, 0, u8::from(binary)]);
    [
        message(b'B', &bind),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ]
    .concat()
}

/// The fields of an ErrorResponse in one line.
fn describe(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace('\0', " ")
}

/// Accepts one certificate and no other.
#[derive(Debug)]
struct Pinned {
    certificate: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match end_entity.as_ref() == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General("another certificate than expected".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
