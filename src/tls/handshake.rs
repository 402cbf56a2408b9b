//! The server's side of a TLS handshake, done by rustls, ending in a [`TlsState`].
//!
//! Two things make the session portable. rustls hands out the TLS 1.3 traffic
//! secrets only through its key log, so each connection gets one that keeps them
//! for a moment. And rustls is fed record by record, read from the socket with
//! exact lengths: when it is done nothing of the session has been lost in its
//! buffers, and what the client sent next is still in the socket.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::{Acceptor, ServerConfig, ServerConnection};
use rustls::{CipherSuite, ConnectionTrafficSecrets, KeyLog, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::alert::Alert;
use super::certificate::ALPN;
use super::draws::{self, Draws};
use super::record::{self, HEADER};
use super::state::{Direction, Suite, TlsState, Version};

/// A ClientHello and a Finished need 2 KiB, unusually large ones 10.
const MAX_HANDSHAKE: usize = 64 * 1024;

/// How the client has come to TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// After SSLRequest: ALPN is optional, but if offered must have "postgresql".
    SslRequest,
    /// At once: ALPN "postgresql" is required (PostgreSQL 17, "direct TLS"), which
    /// keeps clients of other protocols from being led here.
    Direct,
}

/// A finished handshake.
#[derive(Debug)]
pub struct Accepted {
    /// The session, ready for [`Channel::resume`](super::Channel::resume).
    pub state: TlsState,
    /// The application protocol, if one was negotiated: "postgresql".
    pub alpn: Option<Vec<u8>>,
    /// "TLSv1.3" or "TLSv1.2", as pg_stat_ssl shows it.
    pub version: &'static str,
    /// The name that OpenSSL, and so pg_stat_ssl, gives the cipher suite.
    pub cipher: &'static str,
}

/// Why there is no TLS session. An alert has been sent where TLS has one.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The socket failed.
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(#[from] io::Error),
    /// The client went away.
    #[error("the client closed the connection during the TLS handshake")]
    Closed,
    /// The first byte is not that of a TLS handshake.
    #[error("the client does not speak TLS")]
    NotTls,
    /// More bytes than any honest handshake has.
    #[error("the client's TLS handshake is too long")]
    TooLong,
    /// The client sent data before the server had answered it.
    #[error("the client sent data ahead of the TLS handshake")]
    EarlyData,
    /// Direct TLS without ALPN "postgresql".
    #[error("direct TLS without the ALPN protocol \"postgresql\"")]
    NoAlpn,
    /// The peers did not agree, or the client made an error.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[from] rustls::Error),
    /// The session could not be taken out of the handshake.
    #[error("the TLS session cannot be taken over: {0}")]
    Secrets(&'static str),
}

/// Does the handshake on `io`. `already_read` is what the caller has read from the
/// socket since the client began to speak TLS; nothing from before belongs in it.
/// What the server draws comes from `draws`. The caller sets the deadline; a future
/// that is dropped leaves no secrets behind.
///
/// # Errors
/// See [`HandshakeError`]; the connection is then of no further use.
pub async fn accept<S>(
    io: &mut S,
    already_read: &[u8],
    config: &Arc<ServerConfig>,
    entry: Entry,
    draws: &Arc<dyn Draws>,
) -> Result<Accepted, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let capture = Arc::new(Capture::default());
    let mut config = ServerConfig::clone(config);
    config.key_log = capture.clone();
    config.enable_secret_extraction = true;

    let mut records = Records {
        io,
        already_read,
        budget: MAX_HANDSHAKE,
        body: Vec::new(),
    };
    let mut connection = hello(&mut records, Arc::new(config), entry, draws).await?;
    loop {
        flush(&mut connection, records.io).await?;
        if !connection.is_handshaking() {
            break;
        }
        records.next().await?;
        let mut record = &records.body[..];
        while !record.is_empty() {
            // Zero bytes would mean that rustls has seen a close_notify.
            if connection.read_tls(&mut record)? == 0 {
                return Err(HandshakeError::Closed);
            }
            if let Err(error) = draws::with(draws, || connection.process_new_packets().map(drop)) {
                // The alert; the error that caused it counts, not whether it arrives.
                let _ = flush(&mut connection, records.io).await;
                return Err(error.into());
            }
        }
    }
    if !records.already_read.is_empty() {
        return Err(HandshakeError::EarlyData);
    }

    let alpn = connection.alpn_protocol().map(<[u8]>::to_vec);
    let (version, cipher) = names(&connection)?;
    let state = extract(connection, &capture)?;
    Ok(Accepted {
        state,
        alpn,
        version,
        cipher,
    })
}

/// Reads the ClientHello, and refuses early what need not be computed.
async fn hello<S>(
    records: &mut Records<'_, S>,
    config: Arc<ServerConfig>,
    entry: Entry,
    draws: &Arc<dyn Draws>,
) -> Result<ServerConnection, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    loop {
        records.next().await?;
        let mut record = &records.body[..];
        while !record.is_empty() {
            if acceptor.read_tls(&mut record)? == 0 {
                return Err(HandshakeError::Closed);
            }
            let refused = match acceptor.accept() {
                Ok(None) => continue,
                Ok(Some(accepted)) => {
                    let offered = accepted.client_hello().alpn();
                    let named = offered.is_some_and(|mut names| names.any(|name| name == ALPN));
                    if entry == Entry::Direct && !named {
                        let alert = Alert::NO_APPLICATION_PROTOCOL.code();
                        send_alert(records.io, &[record::ALERT, 3, 3, 0, 2, 2, alert]).await;
                        return Err(HandshakeError::NoAlpn);
                    }
                    match draws::with(draws, || accepted.into_connection(config)) {
                        Ok(connection) => return Ok(connection),
                        Err(refused) => refused,
                    }
                }
                Err(refused) => refused,
            };
            let (error, mut alert) = refused;
            let mut bytes = Vec::new();
            alert.write_all(&mut bytes)?;
            send_alert(records.io, &bytes).await;
            return Err(error.into());
        }
    }
}

/// The error that caused the alert counts, not whether the alert arrives.
async fn send_alert<S: AsyncWrite + Unpin>(io: &mut S, alert: &[u8]) {
    if io.write_all(alert).await.is_ok() {
        let _ = io.flush().await;
    }
}

async fn flush<S: AsyncWrite + Unpin>(connection: &mut ServerConnection, io: &mut S) -> io::Result<()> {
    let mut out = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut out)?;
    }
    io.write_all(&out).await?;
    io.flush().await
}

/// The client's records, one at a time.
struct Records<'a, S> {
    io: &'a mut S,
    already_read: &'a [u8],
    budget: usize,
    /// The present record, header included.
    body: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Records<'_, S> {
    async fn next(&mut self) -> Result<(), HandshakeError> {
        let first = self.budget == MAX_HANDSHAKE;
        self.body.clear();
        if first {
            // A client that speaks something else shall not wait for four more bytes.
            self.read(1).await?;
            if self.body[0] != record::HANDSHAKE {
                return Err(HandshakeError::NotTls);
            }
        }
        self.read(HEADER).await?;
        let length = u16::from_be_bytes([self.body[3], self.body[4]]);
        let length = HEADER + usize::from(length);
        self.budget = self
            .budget
            .checked_sub(length)
            .filter(|_| length <= record::MAX_RECORD)
            .ok_or(HandshakeError::TooLong)?;
        self.read(length).await
    }

    /// Reads until the record has `length` bytes.
    async fn read(&mut self, length: usize) -> Result<(), HandshakeError> {
        let missing = length.saturating_sub(self.body.len());
        let (taken, rest) = self.already_read.split_at(missing.min(self.already_read.len()));
        self.body.extend_from_slice(taken);
        self.already_read = rest;
        let filled = self.body.len();
        if filled < length {
            self.body.resize(length, 0);
            self.io
                .read_exact(&mut self.body[filled..])
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => HandshakeError::Closed,
                    _ => error.into(),
                })?;
        }
        Ok(())
    }
}

/// Keeps the first TLS 1.3 traffic secrets until they are taken. It never writes
/// them anywhere.
#[derive(Default)]
struct Capture(Mutex<Captured>);

#[derive(Default)]
struct Captured {
    client: Zeroizing<Vec<u8>>,
    server: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Capture(..)")
    }
}

impl KeyLog for Capture {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let mut captured = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => captured.client = Zeroizing::new(secret.to_vec()),
            "SERVER_TRAFFIC_SECRET_0" => captured.server = Zeroizing::new(secret.to_vec()),
            _ => {}
        }
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

fn extract(connection: ServerConnection, capture: &Capture) -> Result<TlsState, HandshakeError> {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
        Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
        _ => return Err(HandshakeError::Secrets("unknown protocol version")),
    };
    let secrets = connection.dangerous_extract_secrets()?;
    let captured = std::mem::take(&mut *capture.0.lock().unwrap_or_else(PoisonError::into_inner));
    let (client_sequence, client) = secrets.rx;
    let (server_sequence, server) = secrets.tx;
    let (suite, client) = direction(version, client_sequence, &client, captured.client)?;
    let (_, server) = direction(version, server_sequence, &server, captured.server)?;
    Ok(TlsState {
        version,
        suite,
        client,
        server,
        idle_records: 0,
        fragment: Vec::new(),
        partial: Vec::new(),
    })
}

fn direction(
    version: Version,
    sequence: u64,
    keys: &ConnectionTrafficSecrets,
    captured: Zeroizing<Vec<u8>>,
) -> Result<(Suite, Direction), HandshakeError> {
    let (suite, key, nonce_base) = match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Suite::ChaCha20Poly1305, key, iv),
        _ => return Err(HandshakeError::Secrets("unknown cipher")),
    };
    let (key, nonce_base) = (key.as_ref(), nonce_base.as_ref());
    let secret = match version {
        Version::Tls13 => {
            // The key log is a debugging aid of rustls: trust it only as far as
            // its secrets lead to the keys that are in use.
            if !record::secret_gives(suite, &captured, key, nonce_base) {
                return Err(HandshakeError::Secrets("traffic secret and keys differ"));
            }
            captured
        }
        Version::Tls12 => {
            let mut secret = Zeroizing::new(Vec::with_capacity(suite.secret_length(version)));
            secret.extend_from_slice(key);
            secret.extend_from_slice(nonce_base);
            secret
        }
    };
    if secret.len() != suite.secret_length(version) {
        return Err(HandshakeError::Secrets("secret of unexpected length"));
    }
    Ok((suite, Direction { secret, sequence }))
}

fn names(connection: &ServerConnection) -> Result<(&'static str, &'static str), HandshakeError> {
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    let cipher = match suite {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) => "ECDHE-ECDSA-AES128-GCM-SHA256",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384) => "ECDHE-ECDSA-AES256-GCM-SHA384",
        Some(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256) => "ECDHE-ECDSA-CHACHA20-POLY1305",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) => "ECDHE-RSA-AES128-GCM-SHA256",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384) => "ECDHE-RSA-AES256-GCM-SHA384",
        Some(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256) => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return Err(HandshakeError::Secrets("unknown cipher suite")),
    };
    let version = if cipher.starts_with("TLS_") {
        "TLSv1.3"
    } else {
        "TLSv1.2"
    };
    Ok((version, cipher))
}
