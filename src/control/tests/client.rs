//! A client that sends exactly the bytes it is told to.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::tls::server_end_point;

pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
pub const GSSENC_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub struct Client {
    stream: Box<dyn Stream>,
    binding: Option<Vec<u8>>,
}

/// A message, or the ErrorResponse's code and text.
pub type Answer = Result<(u8, Vec<u8>), (String, String)>;

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

impl Client {
    pub fn plain(port: u16) -> Self {
        Self {
            stream: Box::new(connect(port)),
            binding: None,
        }
    }

    pub fn local(path: &Path) -> Self {
        Self {
            stream: Box::new(UnixStream::connect(path).unwrap()),
            binding: None,
        }
    }

    /// TLS after SSLRequest; `stuffed` goes into the same segment as the request.
    pub fn tls(port: u16, certificate: &[u8], stuffed: &[u8]) -> io::Result<Self> {
        let mut stream = connect(port);
        stream.write_all(&[&SSL_REQUEST, stuffed].concat())?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"S");
        Self::handshake(stream, certificate, &[])
    }

    /// TLS from the first byte on.
    pub fn direct(port: u16, certificate: &[u8], alpn: &[&str]) -> io::Result<Self> {
        Self::handshake(connect(port), certificate, alpn)
    }

    fn handshake(mut stream: TcpStream, certificate: &[u8], alpn: &[&str]) -> io::Result<Self> {
        let der = CertificateDer::from_pem_slice(certificate).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut tls = ClientConnection::new(Arc::new(config), "127.0.0.1".try_into().unwrap()).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let binding = server_end_point(&der);
        Ok(Self {
            stream: Box::new(StreamOwned::new(tls, stream)),
            binding,
        })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    pub fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// Whether the server closes without another byte.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }

    pub fn startup(&mut self, version: u32, parameters: &[(&str, &str)]) {
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
        packet.extend_from_slice(&body);
        self.send(&packet);
    }

    pub fn cancel(&mut self, id: i32, key: &[u8]) {
        let mut packet = (12 + key.len() as u32).to_be_bytes().to_vec();
        packet.extend_from_slice(&80_877_102_u32.to_be_bytes());
        packet.extend_from_slice(&id.to_be_bytes());
        packet.extend_from_slice(key);
        self.send(&packet);
    }

    pub fn message(&mut self) -> Answer {
        let kind = self.byte();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        self.stream.read_exact(&mut body).unwrap();
        if kind != b'E' {
            return Ok((kind, body));
        }
        let field = |name: u8| {
            let field = body
                .split(|byte| *byte == 0)
                .find(|field| field.first() == Some(&name));
            String::from_utf8(field.unwrap()[1..].to_vec()).unwrap()
        };
        assert_eq!(field(b'S'), "FATAL");
        Err((field(b'C'), field(b'M')))
    }

    pub fn respond(&mut self, body: &[u8]) {
        let mut packet = vec![b'p'];
        packet.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        packet.extend_from_slice(body);
        self.send(&packet);
    }

    fn authentication(&mut self, expected: u32) -> Result<Vec<u8>, (String, String)> {
        let (kind, body) = self.message()?;
        assert_eq!(kind, b'R');
        assert_eq!(body[..4], expected.to_be_bytes());
        Ok(body[4..].to_vec())
    }

    /// The mechanisms that the server offers.
    pub fn mechanisms(&mut self) -> Result<Vec<String>, (String, String)> {
        let body = self.authentication(10)?;
        let names = body.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names
            .map(|name| String::from_utf8(name.to_vec()).unwrap())
            .collect())
    }

    /// Logs in with the strongest mechanism.
    pub fn log_in(&mut self, password: &str) -> Result<(), (String, String)> {
        let offered = self.mechanisms()?;
        let (mechanism, binding) = match &self.binding {
            Some(hash) => (
                "SCRAM-SHA-256-PLUS",
                ChannelBinding::tls_server_end_point(hash.clone()),
            ),
            None => ("SCRAM-SHA-256", ChannelBinding::unsupported()),
        };
        assert!(offered.iter().any(|name| name == mechanism), "{offered:?}");
        let mut scram = ScramSha256::new(password.as_bytes(), binding);
        let mut initial = format!("{mechanism}\0").into_bytes();
        initial.extend_from_slice(&(scram.message().len() as u32).to_be_bytes());
        initial.extend_from_slice(scram.message());
        self.respond(&initial);
        scram.update(&self.authentication(11)?).unwrap();
        let proof = scram.message().to_vec();
        self.respond(&proof);
        scram.finish(&self.authentication(12)?).unwrap();
        self.authentication(0).map(drop)
    }

    /// Startup, login, and the worker's hello: the backend id and key.
    pub fn session(&mut self, version: u32) -> (i32, Vec<u8>) {
        self.startup(version, &[("user", "alice")]);
        self.log_in(super::rig::PASSWORD).unwrap();
        let (kind, body) = self.message().unwrap();
        assert_eq!(kind, b'K');
        assert_eq!(self.message().unwrap(), (b'Z', b"I".to_vec()));
        (
            i32::from_be_bytes(body[..4].try_into().unwrap()),
            body[4..].to_vec(),
        )
    }

    /// A query and its (empty) answer.
    pub fn query(&mut self) {
        self.send(b"Q\0\0\0\x06;\0");
        assert_eq!(self.message().unwrap().0, b'I');
        assert_eq!(self.message().unwrap().0, b'Z');
    }
}
