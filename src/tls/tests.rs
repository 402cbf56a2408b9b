//! The record layer against rustls as the client, in memory.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::record::{self, Opener, Sealer};
use super::state::Direction;
use super::*;

mod faults;
mod handshake;
mod peer;
mod state;

static FRESH: LazyLock<Arc<dyn Draws>> = LazyLock::new(|| Arc::new(Fresh));

struct Identity {
    cert_pem: String,
    key_pem: String,
    der: Vec<u8>,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    Identity {
        cert_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
        der: made.cert.der().to_vec(),
    }
});

const ALL: [(Version, Suite); 6] = [
    (Version::Tls13, Suite::Aes128Gcm),
    (Version::Tls13, Suite::Aes256Gcm),
    (Version::Tls13, Suite::ChaCha20Poly1305),
    (Version::Tls12, Suite::Aes128Gcm),
    (Version::Tls12, Suite::Aes256Gcm),
    (Version::Tls12, Suite::ChaCha20Poly1305),
];

fn config() -> Arc<rustls::ServerConfig> {
    server_config(
        IDENTITY.cert_pem.as_bytes(),
        IDENTITY.key_pem.as_bytes(),
        Version::Tls12,
    )
    .unwrap()
}

fn client_config(version: Version, suite: Suite, alpn: &[&[u8]]) -> ClientConfig {
    use rustls::crypto::aws_lc_rs::cipher_suite as cs;
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites = vec![match (version, suite) {
        (Version::Tls13, Suite::Aes128Gcm) => cs::TLS13_AES_128_GCM_SHA256,
        (Version::Tls13, Suite::Aes256Gcm) => cs::TLS13_AES_256_GCM_SHA384,
        (Version::Tls13, Suite::ChaCha20Poly1305) => cs::TLS13_CHACHA20_POLY1305_SHA256,
        (Version::Tls12, Suite::Aes128Gcm) => cs::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        (Version::Tls12, Suite::Aes256Gcm) => cs::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        (Version::Tls12, Suite::ChaCha20Poly1305) => cs::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    }];
    let versions: &[_] = match version {
        Version::Tls12 => &[&rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.der.clone().into()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

fn new_client(config: ClientConfig) -> ClientConnection {
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Drives the client's handshake; `piece` is how many bytes it writes at a time.
async fn drive(client: &mut ClientConnection, io: &mut DuplexStream, piece: usize) -> Result<(), String> {
    let mut buffer = [0; 4096];
    loop {
        for part in take_tls(client).chunks(piece) {
            io.write_all(part).await.map_err(|error| error.to_string())?;
        }
        if !client.is_handshaking() {
            return Ok(());
        }
        let count = io.read(&mut buffer).await.map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("closed".to_owned());
        }
        give_tls(client, &buffer[..count]).map_err(|error| error.to_string())?;
    }
}

fn take_tls(client: &mut ClientConnection) -> Vec<u8> {
    let mut out = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut out).unwrap();
    }
    out
}

fn give_tls(client: &mut ClientConnection, mut bytes: &[u8]) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}

fn negotiate(
    config_of_client: ClientConfig,
    entry: Entry,
    piece: usize,
) -> (ClientConnection, Result<Accepted, HandshakeError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut client = new_client(config_of_client);
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let config = config();
        let server = async {
            let accepted = accept(&mut far, b"", &config, entry, &FRESH).await;
            drop(far);
            accepted
        };
        let (accepted, _) = tokio::join!(server, drive(&mut client, &mut near, piece));
        (client, accepted)
    })
}

/// A connected pair: rustls on one side, this record layer on the other.
struct Pair {
    client: ClientConnection,
    server: Channel,
    /// What the server has decrypted.
    plain: Vec<u8>,
}

fn pair(version: Version, suite: Suite) -> Pair {
    let (client, accepted) = negotiate(client_config(version, suite, &[]), Entry::SslRequest, 4096);
    let server = Channel::resume(accepted.unwrap().state).unwrap();
    assert_eq!((server.version(), server.suite()), (version, suite));
    Pair {
        client,
        server,
        plain: Vec::new(),
    }
}

impl Pair {
    fn write(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(plain).unwrap();
        take_tls(&mut self.client)
    }

    /// Gives the server bytes, and the client what the server answers.
    fn deliver(&mut self, bytes: &[u8]) -> Progress {
        let mut out = Vec::new();
        let progress = self.server.receive(bytes, &mut self.plain, &mut out).unwrap();
        give_tls(&mut self.client, &out).unwrap();
        progress
    }

    fn refused(&mut self, bytes: &[u8]) -> (TlsError, Option<AlertDescription>) {
        let mut out = Vec::new();
        let error = self.server.receive(bytes, &mut self.plain, &mut out).unwrap_err();
        let alert = match give_tls(&mut self.client, &out) {
            Err(rustls::Error::AlertReceived(alert)) => Some(alert),
            Ok(()) => None,
            Err(other) => panic!("{other}"),
        };
        (error, alert)
    }

    fn client_reads(&mut self, bytes: &[u8]) -> Vec<u8> {
        // rustls limits how much decrypted data it holds: read as it comes.
        let mut plain = Vec::new();
        for piece in bytes.chunks(8192) {
            give_tls(&mut self.client, piece).unwrap();
            let waiting = self
                .client
                .process_new_packets()
                .unwrap()
                .plaintext_bytes_to_read();
            let start = plain.len();
            plain.resize(start + waiting, 0);
            self.client.reader().read_exact(&mut plain[start..]).unwrap();
        }
        plain
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.server.seal(plain, &mut out).unwrap();
        out
    }

    /// Says something in both directions.
    fn converse(&mut self) {
        let question = self.write(b"select 1");
        self.plain.clear();
        assert_eq!(self.deliver(&question), Progress::Open);
        assert_eq!(self.plain, b"select 1");
        let answer = self.seal(b"one row");
        assert_eq!(self.client_reads(&answer), b"one row");
        self.plain.clear();
    }

    /// Moves the server's end through its encoded form.
    fn hop(self) -> Pair {
        let bytes = self.server.into_state().unwrap().encode();
        let server = Channel::resume(TlsState::decode(&bytes).unwrap()).unwrap();
        Pair { server, ..self }
    }
}

/// A state for the tests of other modules.
pub(crate) fn some_state() -> TlsState {
    hostile(Version::Tls13, Suite::Aes256Gcm)
        .server
        .into_state()
        .unwrap()
}

/// Content type and content.
type Record = (u8, Vec<u8>);

/// A pair of which both ends are ours, so that the client's can send anything.
struct Hostile {
    sealer: Sealer,
    server: Channel,
    /// The client's view of the server's direction.
    opener: Opener,
}

fn hostile(version: Version, suite: Suite) -> Hostile {
    let state = || {
        let direction = |fill: u8| Direction {
            secret: vec![fill; suite.secret_length(version)].into(),
            sequence: 7,
        };
        (direction(1), direction(2))
    };
    let (client, server) = state();
    let (client_again, server_again) = state();
    let state = TlsState {
        version,
        suite,
        client,
        server,
        idle_records: 0,
        fragment: Vec::new(),
        partial: Vec::new(),
    };
    Hostile {
        sealer: Sealer::new(version, suite, client_again).unwrap(),
        opener: Opener::new(version, suite, server_again).unwrap(),
        server: Channel::resume(state).unwrap(),
    }
}

impl Hostile {
    fn record(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.sealer.seal(kind, content, &mut out).unwrap();
        out
    }

    /// What the server says to these bytes: its result, and its answers.
    fn says(&mut self, bytes: &[u8]) -> (Result<Progress, TlsError>, Vec<Record>) {
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        let result = self.server.receive(bytes, &mut plain, &mut out);
        (result, self.answers(&out))
    }

    fn answers(&mut self, mut out: &[u8]) -> Vec<Record> {
        let mut answers = Vec::new();
        while let Some((header, rest)) = out.split_first_chunk::<{ record::HEADER }>() {
            let length = record::body_length(header, self.server.version()).unwrap();
            let mut content = Vec::new();
            let kind = self.opener.open(header, &rest[..length], &mut content).unwrap();
            if kind == record::HANDSHAKE && self.server.version() == Version::Tls13 {
                self.opener.update().unwrap();
            }
            answers.push((kind, content));
            out = &rest[length..];
        }
        answers
    }

    /// Sends bytes that must be refused with this alert, and nothing else.
    #[track_caller]
    fn must_refuse(mut self, bytes: &[u8], alert: Alert) {
        let (result, answers) = self.says(bytes);
        assert_eq!(result, Err(TlsError::Refused(alert)));
        assert_eq!(answers, [(record::ALERT, vec![2, alert.code()])]);
        let (result, answers) = self.says(b"");
        assert_eq!((result, answers), (Err(TlsError::Failed), vec![]));
        assert_eq!(self.server.seal(b"x", &mut Vec::new()), Err(TlsError::Failed));
        assert_eq!(self.server.into_state().unwrap_err(), TlsError::Failed);
    }
}
