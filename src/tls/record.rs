//! One direction of the record layer: seals or opens single records.
//!
//! RFC 8446 section 5 and, for TLS 1.2, RFC 5246 section 6.2.3.3 with RFC 5288
//! (AES-GCM) and RFC 7905 (ChaCha20-Poly1305). A sequence number is used up
//! before the AEAD sees it, so that not even a failure can use it twice.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use super::alert::Alert;
use super::state::{Direction, Suite, Version};

pub(super) const NONCE: usize = 12;
pub(super) const HEADER: usize = 5;
/// Application data in one record (RFC 8446 section 5.1).
pub(super) const MAX_PLAIN: usize = 1 << 14;
/// TLS 1.2 allows the longer one, 2^14 + 2048.
pub(super) const MAX_RECORD: usize = HEADER + MAX_PLAIN + 2048;
/// Far above every limit in use and far below an overflow.
pub(super) const MAX_SEQUENCE: u64 = 1 << 60;

const TAG: usize = 16;
/// RFC 5288: the half of the nonce that travels with each TLS 1.2 record.
const EXPLICIT_NONCE: usize = 8;
/// RFC 8446 section 5.5: 2^24.5 full-size records with AES-GCM.
const AES_GCM_RECORDS: u64 = 1 << 24;
/// Records that may still say why, after the limit for application data.
const RESERVE: u64 = 64;

pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

/// The AEAD refused its input, its key, or its nonce is used up.
#[derive(Debug)]
pub(super) struct SealError;

/// Checks a record's header, and returns the length of what follows it.
pub(super) fn body_length(header: &[u8; HEADER], version: Version) -> Result<usize, Alert> {
    let [kind, major, minor, high, low] = *header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let longest = match version {
        Version::Tls13 => {
            // After the handshake every record looks like application data;
            // legacy_record_version "MUST be ignored for all purposes".
            if kind != APPLICATION_DATA {
                return Err(Alert::UNEXPECTED_MESSAGE);
            }
            MAX_PLAIN + 256
        }
        Version::Tls12 => {
            if !matches!(kind, ALERT | HANDSHAKE | APPLICATION_DATA) {
                return Err(Alert::UNEXPECTED_MESSAGE);
            }
            if (major, minor) != (3, 3) {
                return Err(Alert::PROTOCOL_VERSION);
            }
            MAX_PLAIN + 2048
        }
    };
    if length > longest {
        Err(Alert::RECORD_OVERFLOW)
    } else {
        Ok(length)
    }
}

struct Keys {
    aead: LessSafeKey,
    nonce_base: Zeroizing<[u8; NONCE]>,
}

impl Keys {
    fn derive(version: Version, suite: Suite, secret: &[u8]) -> Result<Keys, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        let key = &mut key[..suite.key_length()];
        let mut nonce_base = Zeroizing::new([0; NONCE]);
        match version {
            Version::Tls13 => {
                expand_label(suite, secret, b"key", key)?;
                expand_label(suite, secret, b"iv", &mut *nonce_base)?;
            }
            Version::Tls12 => {
                let (key_part, base) = secret.split_at_checked(key.len()).ok_or(SealError)?;
                key.copy_from_slice(key_part);
                *nonce_base = base.try_into().map_err(|_| SealError)?;
            }
        }
        let algorithm = match suite {
            Suite::Aes128Gcm => &aead::AES_128_GCM,
            Suite::Aes256Gcm => &aead::AES_256_GCM,
            Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| SealError)?;
        Ok(Keys {
            aead: LessSafeKey::new(key),
            nonce_base,
        })
    }

    /// RFC 8446 section 5.3. TLS 1.2 leaves it to the sender how to make the
    /// explicit half of AES-GCM's nonce different each time. rustls, which has
    /// sealed the first record, does it like this too: hence never a repetition.
    fn nonce(&self, sequence: u64) -> [u8; NONCE] {
        let mut nonce = *self.nonce_base;
        for (byte, mask) in nonce[NONCE - 8..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= mask;
        }
        nonce
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand_label(suite: Suite, secret: &[u8], label: &[u8], out: &mut [u8]) -> Result<(), SealError> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let algorithm = match suite {
        Suite::Aes256Gcm => hkdf::HKDF_SHA384,
        Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => hkdf::HKDF_SHA256,
    };
    let length = (out.len() as u16).to_be_bytes();
    let label_length = [(b"tls13 ".len() + label.len()) as u8];
    let info: [&[u8]; 5] = [&length, &label_length, b"tls13 ", label, &[0]];
    hkdf::Prk::new_less_safe(algorithm, secret)
        .expand(&info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .map_err(|_| SealError)
}

/// What both directions have: the current keys, where they come from, the count.
struct Half {
    version: Version,
    suite: Suite,
    keys: Keys,
    direction: Direction,
}

impl Half {
    fn new(version: Version, suite: Suite, direction: Direction) -> Result<Half, SealError> {
        let keys = Keys::derive(version, suite, &direction.secret)?;
        Ok(Half {
            version,
            suite,
            keys,
            direction,
        })
    }

    fn next_sequence(&mut self) -> Result<u64, SealError> {
        let sequence = self.direction.sequence;
        if sequence >= MAX_SEQUENCE {
            return Err(SealError);
        }
        self.direction.sequence += 1;
        Ok(sequence)
    }

    /// The next generation of keys (RFC 8446 section 7.2).
    fn update(&mut self) -> Result<(), SealError> {
        let mut next = Zeroizing::new(vec![0; self.direction.secret.len()]);
        expand_label(self.suite, &self.direction.secret, b"traffic upd", &mut next)?;
        self.keys = Keys::derive(self.version, self.suite, &next)?;
        self.direction = Direction {
            secret: next,
            sequence: 0,
        };
        Ok(())
    }

    /// RFC 5246 section 6.2.3.3.
    fn aad12(sequence: u64, kind: u8, length: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&sequence.to_be_bytes());
        aad[8..11].copy_from_slice(&[kind, 3, 3]);
        aad[11..].copy_from_slice(&(length as u16).to_be_bytes());
        aad
    }

    fn explicit_nonce(&self) -> usize {
        match (self.version, self.suite) {
            (Version::Tls13, _) | (_, Suite::ChaCha20Poly1305) => 0,
            (Version::Tls12, _) => EXPLICIT_NONCE,
        }
    }
}

/// The sending direction.
pub(super) struct Sealer {
    half: Half,
    limit: u64,
}

impl Sealer {
    pub(super) fn new(version: Version, suite: Suite, direction: Direction) -> Result<Sealer, SealError> {
        let limit = match suite {
            Suite::Aes128Gcm | Suite::Aes256Gcm => AES_GCM_RECORDS,
            Suite::ChaCha20Poly1305 => MAX_SEQUENCE - RESERVE,
        };
        Ok(Sealer {
            half: Half::new(version, suite, direction)?,
            limit,
        })
    }

    #[cfg(test)]
    pub(super) fn lower_limit(&mut self, limit: u64) {
        self.limit = self.limit.min(limit);
    }

    /// Has this key sealed as many records as it may?
    pub(super) fn at_limit(&self) -> bool {
        self.half.direction.sequence >= self.limit
    }

    /// Appends one record. `plain` is at most [`MAX_PLAIN`] bytes. On an error
    /// `out` is what it was.
    pub(super) fn seal(&mut self, kind: u8, plain: &[u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        if plain.len() > MAX_PLAIN || self.half.direction.sequence >= self.limit + RESERVE {
            return Err(SealError);
        }
        let sequence = self.half.next_sequence()?;
        let nonce = self.half.keys.nonce(sequence);
        let explicit = &nonce[NONCE - self.half.explicit_nonce()..];
        let before = out.len();

        let tag = match self.half.version {
            Version::Tls13 => {
                let [high, low] = ((plain.len() + 1 + TAG) as u16).to_be_bytes();
                let header = [APPLICATION_DATA, 3, 3, high, low];
                out.extend_from_slice(&header);
                out.extend_from_slice(plain);
                out.push(kind);
                self.encrypt(nonce, &header, &mut out[before + HEADER..])
            }
            Version::Tls12 => {
                let [high, low] = ((explicit.len() + plain.len() + TAG) as u16).to_be_bytes();
                out.extend_from_slice(&[kind, 3, 3, high, low]);
                out.extend_from_slice(explicit);
                out.extend_from_slice(plain);
                let aad = Half::aad12(sequence, kind, plain.len());
                self.encrypt(nonce, &aad, &mut out[before + HEADER + explicit.len()..])
            }
        };
        match tag {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(())
            }
            Err(error) => {
                out.truncate(before);
                Err(error)
            }
        }
    }

    fn encrypt(&self, nonce: [u8; NONCE], aad: &[u8], in_out: &mut [u8]) -> Result<aead::Tag, SealError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aead = &self.half.keys.aead;
        aead.seal_in_place_separate_tag(nonce, Aad::from(aad), in_out)
            .map_err(|_| SealError)
    }

    pub(super) fn update(&mut self) -> Result<(), SealError> {
        self.half.update()
    }

    pub(super) fn into_direction(self) -> Direction {
        self.half.direction
    }
}

/// The receiving direction.
pub(super) struct Opener {
    half: Half,
}

impl Opener {
    pub(super) fn new(version: Version, suite: Suite, direction: Direction) -> Result<Opener, SealError> {
        Ok(Opener {
            half: Half::new(version, suite, direction)?,
        })
    }

    /// Opens one record and appends its content to `plain`; returns its content
    /// type. The header has passed [`body_length`]. On an error nothing of the
    /// record is in `plain`.
    pub(super) fn open(
        &mut self,
        header: &[u8; HEADER],
        body: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<u8, Alert> {
        let sequence = self.half.next_sequence().map_err(|_| Alert::INTERNAL_ERROR)?;
        let explicit_length = self.half.explicit_nonce();
        let (explicit, sealed) = body
            .split_at_checked(explicit_length)
            .ok_or(Alert::BAD_RECORD_MAC)?;
        let length = sealed.len().checked_sub(TAG).ok_or(Alert::BAD_RECORD_MAC)?;
        let (ciphertext, tag) = sealed.split_at(length);

        let mut nonce = self.half.keys.nonce(sequence);
        nonce[NONCE - explicit_length..].copy_from_slice(explicit);
        let before = plain.len();
        plain.resize(before + length, 0);
        let out = &mut plain[before..];
        let opened = match self.half.version {
            Version::Tls13 => self.decrypt(nonce, header, ciphertext, tag, out),
            Version::Tls12 => {
                let aad = Half::aad12(sequence, header[0], length);
                self.decrypt(nonce, &aad, ciphertext, tag, out)
            }
        };
        let kind = opened.and_then(|()| self.content(header[0], plain, before));
        if kind.is_err() {
            plain.truncate(before);
        }
        kind
    }

    fn decrypt(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
        out: &mut [u8],
    ) -> Result<(), Alert> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aead = &self.half.keys.aead;
        aead.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, out)
            .map_err(|_| Alert::BAD_RECORD_MAC)
    }

    /// Takes off TLS 1.3's padding and content type (RFC 8446 section 5.4).
    fn content(&self, outer: u8, plain: &mut Vec<u8>, before: usize) -> Result<u8, Alert> {
        let inner = &plain[before..];
        match self.half.version {
            Version::Tls12 if inner.len() > MAX_PLAIN => Err(Alert::RECORD_OVERFLOW),
            Version::Tls12 => Ok(outer),
            Version::Tls13 if inner.len() > MAX_PLAIN + 1 => Err(Alert::RECORD_OVERFLOW),
            Version::Tls13 => {
                let last = inner.iter().rposition(|&byte| byte != 0);
                let last = last.ok_or(Alert::UNEXPECTED_MESSAGE)?;
                let kind = inner[last];
                plain.truncate(before + last);
                Ok(kind)
            }
        }
    }

    pub(super) fn update(&mut self) -> Result<(), SealError> {
        self.half.update()
    }

    pub(super) fn into_direction(self) -> Direction {
        self.half.direction
    }
}

/// Does this TLS 1.3 traffic secret give that key and nonce base?
pub(super) fn secret_gives(suite: Suite, secret: &[u8], key: &[u8], nonce_base: &[u8]) -> bool {
    let mut derived = Zeroizing::new([0; 32 + NONCE]);
    let (derived_key, derived_base) = derived[..suite.key_length() + NONCE].split_at_mut(suite.key_length());
    expand_label(suite, secret, b"key", derived_key).is_ok()
        && expand_label(suite, secret, b"iv", derived_base).is_ok()
        && derived_key == key
        && derived_base == nonce_base
}
