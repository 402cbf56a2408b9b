//! The client's end of a TLS session whose secrets are known: it seals what no
//! real client would.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf};
use duckgres::tls::TlsState;

/// The versions and ciphers that sessions can have.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub tls13: bool,
    /// 0 AES-128-GCM, 1 AES-256-GCM, 2 ChaCha20-Poly1305.
    pub cipher: u8,
}

impl Kind {
    pub fn new(byte: u8) -> Kind {
        Kind {
            tls13: byte & 1 == 0,
            cipher: (byte >> 1) % 3,
        }
    }

    fn key_length(self) -> usize {
        if self.cipher == 0 { 16 } else { 32 }
    }

    fn secret_length(self) -> usize {
        match (self.tls13, self.cipher) {
            (false, _) => self.key_length() + 12,
            (true, 1) => 48,
            (true, _) => 32,
        }
    }

    /// The server's end, as it is after the handshake (format: src/tls/state.rs).
    pub fn server(self) -> Vec<u8> {
        let mut state = vec![0; 136];
        state[..8].copy_from_slice(&[
            0,
            1,
            3,
            if self.tls13 { 4 } else { 3 },
            0x13,
            1 + self.cipher,
            0,
            0,
        ]);
        state[28..28 + self.secret_length()].fill(CLIENT);
        state[76..76 + self.secret_length()].fill(SERVER);
        sign(&mut state);
        state
    }
}

const CLIENT: u8 = 0x11;
const SERVER: u8 = 0x22;

/// Makes the check of an encoded state right.
pub fn sign(state: &mut [u8]) {
    if state.len() >= 136 {
        let content = [&state[..128], &state[136..]].concat();
        let check = digest::digest(&digest::SHA256, &content);
        state[128..136].copy_from_slice(&check.as_ref()[..8]);
    }
}

/// The state behind `bytes`, which must be one.
pub fn decode(bytes: &[u8]) -> TlsState {
    TlsState::decode(bytes).unwrap_or_else(|error| panic!("{error}"))
}

pub struct Peer {
    kind: Kind,
    secret: Vec<u8>,
    key: LessSafeKey,
    base: [u8; 12],
    sequence: u64,
}

impl Peer {
    pub fn new(kind: Kind) -> Peer {
        Self::with(kind, vec![CLIENT; kind.secret_length()])
    }

    fn with(kind: Kind, secret: Vec<u8>) -> Peer {
        let mut key = vec![0; kind.key_length()];
        let mut base = [0; 12];
        if kind.tls13 {
            expand(kind, &secret, b"key", &mut key);
            expand(kind, &secret, b"iv", &mut base);
        } else {
            key.copy_from_slice(&secret[..kind.key_length()]);
            base.copy_from_slice(&secret[kind.key_length()..]);
        }
        let algorithm =
            [&aead::AES_128_GCM, &aead::AES_256_GCM, &aead::CHACHA20_POLY1305][usize::from(kind.cipher)];
        let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
        Peer {
            kind,
            secret,
            key,
            base,
            sequence: 0,
        }
    }

    /// One record of this content type; `padding` zero bytes in TLS 1.3.
    pub fn seal(&mut self, content_type: u8, content: &[u8], padding: usize) -> Vec<u8> {
        let mut nonce = self.base;
        for (byte, mask) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= mask;
        }
        let mut inner = content.to_vec();
        let mut record;
        let aad: Vec<u8>;
        if self.kind.tls13 {
            inner.push(content_type);
            inner.resize(inner.len() + padding, 0);
            record = vec![23, 3, 3];
            record.extend_from_slice(&(inner.len() as u16 + 16).to_be_bytes());
            aad = record.clone();
        } else {
            let explicit = if self.kind.cipher == 2 {
                &[][..]
            } else {
                &nonce[4..]
            };
            record = vec![content_type, 3, 3];
            record.extend_from_slice(&((explicit.len() + inner.len()) as u16 + 16).to_be_bytes());
            record.extend_from_slice(explicit);
            let mut bytes = self.sequence.to_be_bytes().to_vec();
            bytes.extend_from_slice(&[content_type, 3, 3]);
            bytes.extend_from_slice(&(inner.len() as u16).to_be_bytes());
            aad = bytes;
        }
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(aad), &mut inner)
            .unwrap();
        record.append(&mut inner);
        record
    }

    /// Goes on with the next key.
    pub fn update(&mut self) {
        let mut next = vec![0; self.secret.len()];
        expand(self.kind, &self.secret, b"traffic upd", &mut next);
        *self = Self::with(self.kind, next);
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(kind: Kind, secret: &[u8], label: &[u8], out: &mut [u8]) {
    let algorithm = if kind.cipher == 1 {
        hkdf::HKDF_SHA384
    } else {
        hkdf::HKDF_SHA256
    };
    let lengths = [
        (out.len() as u16).to_be_bytes().to_vec(),
        vec![6 + label.len() as u8],
    ]
    .concat();
    let info = [&lengths[..], b"tls13 ", label, &[0]];
    hkdf::Prk::new_less_safe(algorithm, secret)
        .expand(&info, Length(out.len()))
        .unwrap()
        .fill(out)
        .unwrap();
}
