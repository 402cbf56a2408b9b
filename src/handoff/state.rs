//! [`SessionState`] to and from the bytes of a `proto::AcceptConnection`.
//!
//! These bytes hold a cancel key and TLS secrets: every buffer on the way is wiped.

use std::mem;

use prost::Message;
use zeroize::{Zeroize, Zeroizing};

use super::frozen::{Frozen, frozen_versions, pairs, wipe};
use super::session::{CancelKey, CancelKeyLength, PeerFacts, SessionState};
use crate::proto::{self, AcceptConnection, Setting};
use crate::tls;

/// Why bytes are not the state of a session.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not a message of this protocol.
    #[error("{0}")]
    Decode(#[from] prost::DecodeError),
    /// A cancel key of a length that keys do not have.
    #[error("{0}")]
    CancelKey(#[from] CancelKeyLength),
    /// The TLS state is damaged or of another version.
    #[error("{0}")]
    Tls(#[from] tls::StateError),
    /// A session frozen by another version of the program, whose format is this.
    #[error("the session was frozen in format {0}, this side reads {known:?}", known = frozen_versions())]
    Version(u32),
    /// A field has no value, or one that no session can have.
    #[error("the session's {0} is missing or impossible")]
    Field(&'static str),
}

/// Wipes the secrets of a message, which prost itself does not.
struct Wiped(AcceptConnection);

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.cancel_key.zeroize();
        self.0.unread_input.zeroize();
        self.0.tls_state.zeroize();
        if let Some(frozen) = &mut self.0.frozen {
            wipe(frozen);
        }
    }
}

impl SessionState {
    /// The payload, after a header of `header_length` bytes that `header` makes of
    /// the payload's length. The buffer has its final size from the beginning: a
    /// vector that grows leaves copies behind.
    pub(super) fn encode_after(
        &self,
        header_length: usize,
        header: impl FnOnce(usize, &mut Vec<u8>),
    ) -> Zeroizing<Vec<u8>> {
        let message = Wiped(AcceptConnection {
            backend_id: self.backend_id,
            cancel_key: self.cancel_key.as_bytes().to_vec(),
            protocol_minor: self.protocol_minor,
            user: self.user.clone(),
            database: self.database.clone(),
            settings: self
                .settings
                .iter()
                .map(|(name, value)| Setting {
                    name: name.clone(),
                    value: value.clone(),
                })
                .collect(),
            unread_input: self.unread_input.to_vec(),
            tls_state: self
                .tls
                .as_ref()
                .map_or_else(Vec::new, |tls| tls.encoded().to_vec()),
            peer: Some(proto::PeerFacts {
                address: self.peer.address.clone(),
                tls_version: self.peer.tls_version.clone(),
                tls_cipher: self.peer.tls_cipher.clone(),
            }),
            create_database: self.create_database,
            admin: self.admin,
            frozen: self.frozen.as_ref().map(Frozen::to_message),
        });
        let length = message.0.encoded_len();
        let mut out = Zeroizing::new(Vec::with_capacity(header_length + length));
        header(length, &mut out);
        message.0.encode_raw(&mut *out);
        out
    }

    /// The bytes for [`SessionState::decode`]. They hold secrets, and may be read
    /// once: two owners of a TLS session would use the same nonces.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        self.encode_after(0, |_, _| {})
    }

    /// Reads the payload of an [`envelope`](super::envelope). Accepts any bytes
    /// and never panics.
    pub fn decode(payload: &[u8]) -> Result<SessionState, StateError> {
        let mut message = Wiped(AcceptConnection::decode(payload)?);
        let message = &mut message.0;
        // First of all: what another version has written may not make sense here.
        let frozen = match &mut message.frozen {
            Some(frozen) => Some(Frozen::from_message(frozen)?),
            None => None,
        };
        let tls = match &message.tls_state[..] {
            [] => None,
            bytes => Some(tls::TlsState::decode(bytes)?),
        };
        let settings = pairs(mem::take(&mut message.settings))?;
        let peer = message.peer.take().ok_or(StateError::Field("peer"))?;
        if !matches!(message.protocol_minor, 0 | 2) {
            return Err(StateError::Field("protocol version"));
        }
        Ok(SessionState {
            backend_id: message.backend_id,
            cancel_key: CancelKey::new(&message.cancel_key)?,
            protocol_minor: message.protocol_minor,
            user: present(mem::take(&mut message.user), "user")?,
            database: present(mem::take(&mut message.database), "database")?,
            settings,
            unread_input: Zeroizing::new(mem::take(&mut message.unread_input)),
            tls,
            peer: PeerFacts {
                address: peer.address,
                tls_version: peer.tls_version,
                tls_cipher: peer.tls_cipher,
            },
            create_database: message.create_database,
            admin: message.admin,
            frozen,
        })
    }
}

pub(super) fn present(text: String, field: &'static str) -> Result<String, StateError> {
    match text.is_empty() || text.contains('\0') {
        true => Err(StateError::Field(field)),
        false => Ok(text),
    }
}
