//! The value that a TLS session is between two records, and its encoding.
//!
//! Layout of format 1, all numbers big endian:
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 2 | format, 1 |
//! | 2 | 2 | protocol version, 0x0303 or 0x0304 |
//! | 4 | 2 | cipher, as the number of the TLS 1.3 suite that has it |
//! | 6 | 1 | records without application data, in a row |
//! | 7 | 1 | length of the handshake fragment, 0 to 4 |
//! | 8 | 4 | handshake fragment, zero padded |
//! | 12 | 8 | next sequence number, client to server |
//! | 20 | 8 | next sequence number, server to client |
//! | 28 | 48 | secret, client to server, zero padded |
//! | 76 | 48 | secret, server to client, zero padded |
//! | 124 | 4 | length of the partial record |
//! | 128 | 8 | check: SHA-256 of everything else, cut |
//! | 136 | … | the partial record, header included |
//!
//! The check is no protection against an attacker (who could read the secrets).
//! It keeps a damaged sequence number from becoming a reused nonce.

use std::fmt;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::record;

const FORMAT: u16 = 1;
const SECRET_FIELD: usize = 48;
const CHECK_AT: usize = 128;
const FIXED: usize = 136;
pub(super) const MAX_FRAGMENT: usize = 4;

/// A TLS protocol version that sessions can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Version {
    /// RFC 5246, with AEAD suites only.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// The AEAD of a session. In TLS 1.3 it also fixes the hash of the key schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suite {
    /// AES-128-GCM (with SHA-256).
    Aes128Gcm,
    /// AES-256-GCM (with SHA-384).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (with SHA-256).
    ChaCha20Poly1305,
}

impl Suite {
    fn code(self) -> u16 {
        match self {
            Suite::Aes128Gcm => 0x1301,
            Suite::Aes256Gcm => 0x1302,
            Suite::ChaCha20Poly1305 => 0x1303,
        }
    }

    pub(super) fn key_length(self) -> usize {
        match self {
            Suite::Aes128Gcm => 16,
            Suite::Aes256Gcm | Suite::ChaCha20Poly1305 => 32,
        }
    }

    /// Bytes of secret per direction: TLS 1.3 keeps the traffic secret, TLS 1.2
    /// the key and a 12-byte nonce base.
    pub(super) fn secret_length(self, version: Version) -> usize {
        match (version, self) {
            (Version::Tls12, _) => self.key_length() + record::NONCE,
            (Version::Tls13, Suite::Aes256Gcm) => 48,
            (Version::Tls13, _) => 32,
        }
    }
}

/// One direction: its secret and the sequence number of its next record.
pub(super) struct Direction {
    pub(super) secret: Zeroizing<Vec<u8>>,
    pub(super) sequence: u64,
}

/// A TLS session after its handshake, between two records: all that is needed to
/// go on in another process. Made by [`accept`](super::accept), driven by
/// [`Channel`](super::Channel). Secrets are wiped when it is dropped.
///
/// It has one owner, because two would encrypt with the same nonces:
///
/// ```compile_fail,E0277
/// fn copied<T: Clone>() {}
/// copied::<duckgres::tls::TlsState>();
/// ```
pub struct TlsState {
    pub(super) version: Version,
    pub(super) suite: Suite,
    pub(super) client: Direction,
    pub(super) server: Direction,
    pub(super) idle_records: u8,
    pub(super) fragment: Vec<u8>,
    pub(super) partial: Vec<u8>,
}

/// Why bytes are not the state of a TLS session.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Written by another version of the program.
    #[error("TLS state of unknown format {0}")]
    Format(u16),
    /// Cut, damaged, or not written by [`TlsState::encode`].
    #[error("damaged TLS state: {0}")]
    Damaged(&'static str),
}

impl fmt::Debug for TlsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsState")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl TlsState {
    /// The bytes of this state, to be given to the next owner and to nobody else.
    pub fn encode(self) -> Zeroizing<Vec<u8>> {
        self.encoded()
    }

    /// The bytes of a state that stays. Only for a handoff, which gives the state
    /// back to its caller if, and only if, the other process has refused it.
    pub(crate) fn encoded(&self) -> Zeroizing<Vec<u8>> {
        // The exact capacity: a vector that grows leaves unwiped copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(FIXED + self.partial.len()));
        let version: u16 = match self.version {
            Version::Tls12 => 0x0303,
            Version::Tls13 => 0x0304,
        };
        out.extend_from_slice(&FORMAT.to_be_bytes());
        out.extend_from_slice(&version.to_be_bytes());
        out.extend_from_slice(&self.suite.code().to_be_bytes());
        out.push(self.idle_records);
        out.push(self.fragment.len() as u8);
        padded(&mut out, &self.fragment, MAX_FRAGMENT);
        out.extend_from_slice(&self.client.sequence.to_be_bytes());
        out.extend_from_slice(&self.server.sequence.to_be_bytes());
        padded(&mut out, &self.client.secret, SECRET_FIELD);
        padded(&mut out, &self.server.secret, SECRET_FIELD);
        out.extend_from_slice(&(self.partial.len() as u32).to_be_bytes());
        let check = check(&out, &self.partial);
        out.extend_from_slice(&check);
        out.extend_from_slice(&self.partial);
        out
    }

    /// The inverse of [`TlsState::encode`]. Accepts any bytes and never panics.
    pub fn decode(bytes: &[u8]) -> Result<TlsState, StateError> {
        let damaged = StateError::Damaged;
        let mut input = Reader(bytes);
        let format = u16::from_be_bytes(input.array()?);
        if format != FORMAT {
            return Err(StateError::Format(format));
        }
        let version = match u16::from_be_bytes(input.array()?) {
            0x0303 => Version::Tls12,
            0x0304 => Version::Tls13,
            _ => return Err(damaged("protocol version")),
        };
        let suite = match u16::from_be_bytes(input.array()?) {
            0x1301 => Suite::Aes128Gcm,
            0x1302 => Suite::Aes256Gcm,
            0x1303 => Suite::ChaCha20Poly1305,
            _ => return Err(damaged("cipher")),
        };
        let [idle_records, fragment_length] = input.array()?;
        let fragment = unpadded(input.take(MAX_FRAGMENT)?, fragment_length.into())?.to_vec();
        let client_sequence = u64::from_be_bytes(input.array()?);
        let server_sequence = u64::from_be_bytes(input.array()?);
        let secret_length = suite.secret_length(version);
        let client_secret = Zeroizing::new(unpadded(input.take(SECRET_FIELD)?, secret_length)?.to_vec());
        let server_secret = Zeroizing::new(unpadded(input.take(SECRET_FIELD)?, secret_length)?.to_vec());
        let partial_length = u32::from_be_bytes(input.array()?) as usize;
        let found: [u8; FIXED - CHECK_AT] = input.array()?;
        let partial = input.0;
        if partial.len() != partial_length || partial_length >= record::MAX_RECORD {
            return Err(damaged("length of the partial record"));
        }
        if found != check(&bytes[..CHECK_AT], partial) {
            return Err(damaged("check"));
        }
        if client_sequence >= record::MAX_SEQUENCE || server_sequence >= record::MAX_SEQUENCE {
            return Err(damaged("sequence number"));
        }
        Ok(TlsState {
            version,
            suite,
            client: Direction {
                secret: client_secret,
                sequence: client_sequence,
            },
            server: Direction {
                secret: server_secret,
                sequence: server_sequence,
            },
            idle_records,
            fragment,
            partial: partial.to_vec(),
        })
    }
}

fn padded(out: &mut Vec<u8>, bytes: &[u8], field: usize) {
    out.extend_from_slice(bytes);
    out.resize(out.len() + field - bytes.len(), 0);
}

fn unpadded(field: &[u8], length: usize) -> Result<&[u8], StateError> {
    let (content, padding) = field
        .split_at_checked(length)
        .ok_or(StateError::Damaged("length"))?;
    match padding.iter().all(|&byte| byte == 0) {
        true => Ok(content),
        false => Err(StateError::Damaged("padding")),
    }
}

fn check(fixed: &[u8], partial: &[u8]) -> [u8; FIXED - CHECK_AT] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(fixed);
    context.update(partial);
    let mut out = [0; FIXED - CHECK_AT];
    out.copy_from_slice(&context.finish().as_ref()[..FIXED - CHECK_AT]);
    out
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], StateError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(StateError::Damaged("cut"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(StateError::Damaged("cut"))?;
        self.0 = rest;
        Ok(*taken)
    }
}
