//! What a handshake draws, so that it can be done twice.
//!
//! A handshake is a function of the configuration, of what the client sends, and
//! of what the server draws: random numbers, ephemeral keys, signatures. Whoever
//! remembers the draws can do a handshake again that another process has begun,
//! come to the same bytes, and go on where that one was. rustls asks its
//! provider for all of them; this provider asks the [`Draws`] of the connection
//! that is being worked on, which it finds by the thread: rustls works on one
//! message at a time and does not wait in between.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::agreement::{self, ECDH_P256, ECDH_P384, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret,
    SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, NamedGroup, SignatureAlgorithm, SignatureScheme};
use zeroize::Zeroizing;

/// A draw: secret, most of them.
pub type Draw = Zeroizing<Vec<u8>>;

/// A connection's draws.
pub trait Draws: Send + Sync {
    /// The next draw: what was drawn in its place before, if somebody has;
    /// otherwise `fresh`, which is remembered before it is used. `None` if there
    /// is neither.
    fn draw(&self, fresh: &mut dyn FnMut() -> Option<Draw>) -> Option<Draw>;
}

/// Draws that nobody remembers.
pub struct Fresh;

impl Draws for Fresh {
    fn draw(&self, fresh: &mut dyn FnMut() -> Option<Draw>) -> Option<Draw> {
        fresh()
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Draws>>> = const { RefCell::new(None) };
}

/// Does a step of a handshake with these draws.
pub(super) fn with<T>(draws: &Arc<dyn Draws>, step: impl FnOnce() -> T) -> T {
    /// Also when the step panics.
    struct Restore(Option<Arc<dyn Draws>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(draws.clone())));
    step()
}

fn draw(mut fresh: impl FnMut() -> Option<Draw>) -> Option<Draw> {
    let draws = CURRENT.with_borrow(Clone::clone);
    match draws {
        Some(draws) => draws.draw(&mut fresh),
        None => fresh(),
    }
}

/// The provider, which is that of aws-lc-rs but for the draws.
pub(super) fn provider() -> CryptoProvider {
    static GROUPS: [Group; 4] = [
        Group(rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768),
        Group(rustls::crypto::aws_lc_rs::kx_group::X25519),
        Group(rustls::crypto::aws_lc_rs::kx_group::SECP256R1),
        Group(rustls::crypto::aws_lc_rs::kx_group::SECP384R1),
    ];
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // Those of them, and in that order.
    provider.kx_groups = provider
        .kx_groups
        .iter()
        .filter_map(|group| GROUPS.iter().find(|ours| ours.name() == group.name()))
        .map(|group| group as &dyn SupportedKxGroup)
        .collect();
    provider.secure_random = &Random;
    provider
}

#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        let length = buffer.len();
        let drawn = draw(|| {
            let mut bytes = Zeroizing::new(vec![0; length]);
            aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| bytes)
        });
        match drawn {
            Some(bytes) if bytes.len() == length => {
                buffer.copy_from_slice(&bytes);
                Ok(())
            }
            _ => Err(GetRandomFailed),
        }
    }
}

#[derive(Debug)]
struct Group(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for Group {
    /// TLS 1.2: the public key goes out before the client's arrives, so what is
    /// drawn is the private one.
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let algorithm = match self.0.name() {
            NamedGroup::X25519 => &agreement::X25519,
            NamedGroup::secp256r1 => &ECDH_P256,
            NamedGroup::secp384r1 => &ECDH_P384,
            _ => return self.0.start(),
        };
        let secret = draw(|| {
            let fresh = PrivateKey::generate(algorithm).ok()?;
            let bytes = match self.0.name() {
                NamedGroup::X25519 => {
                    AsBigEndian::<Curve25519SeedBin>::as_be_bytes(&fresh).map(|bytes| bytes.as_ref().to_vec())
                }
                _ => AsBigEndian::<EcPrivateKeyBin>::as_be_bytes(&fresh).map(|bytes| bytes.as_ref().to_vec()),
            };
            bytes.ok().map(Zeroizing::new)
        })
        .ok_or(Error::FailedToGetRandomBytes)?;
        let unusable = |_| Error::General("the ephemeral key cannot be used".into());
        let private = PrivateKey::from_private_key(algorithm, &secret)
            .map_err(|_| Error::General("the ephemeral key cannot be used".into()))?;
        let public = private.compute_public_key().map_err(unusable)?.as_ref().to_vec();
        Ok(Box::new(Exchange {
            group: self.0.name(),
            private,
            public,
        }))
    }

    /// TLS 1.3: the client's share is there, and the exchange is one step.
    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let mut failed = None;
        let drawn = draw(|| match self.0.start_and_complete(peer) {
            Ok(done) => {
                let secret = done.secret.secret_bytes();
                let mut bytes = Zeroizing::new(Vec::with_capacity(2 + done.pub_key.len() + secret.len()));
                bytes.extend_from_slice(&u16::try_from(done.pub_key.len()).ok()?.to_be_bytes());
                bytes.extend_from_slice(&done.pub_key);
                bytes.extend_from_slice(secret);
                Some(bytes)
            }
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let Some(drawn) = drawn else {
            return Err(failed.unwrap_or(Error::FailedToGetRandomBytes));
        };
        let (public, secret) = drawn
            .split_first_chunk::<2>()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()))
            .ok_or(Error::FailedToGetRandomBytes)?;
        Ok(CompletedKeyExchange {
            group: self.0.name(),
            pub_key: public.to_vec(),
            secret: SharedSecret::from(secret),
        })
    }

    fn ffdhe_group(&self) -> Option<rustls::ffdhe_groups::FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }

    fn usable_for_version(&self, version: rustls::ProtocolVersion) -> bool {
        self.0.usable_for_version(version)
    }
}

struct Exchange {
    group: NamedGroup,
    private: PrivateKey,
    public: Vec<u8>,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = UnparsedPublicKey::new(self.private.algorithm(), peer);
        let invalid = Error::PeerMisbehaved(rustls::PeerMisbehaved::InvalidKeyShare);
        agreement::agree(&self.private, peer, invalid, |secret| {
            Ok(SharedSecret::from(secret))
        })
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        self.group
    }
}

/// The server's key. Its signatures are draws: most schemes are randomised.
pub(super) struct Key {
    key: Arc<dyn SigningKey>,
    certificates: [u8; 32],
}

impl Key {
    /// The key of this chain.
    pub(super) fn new(key: Arc<dyn SigningKey>, chain: &[CertificateDer<'_>]) -> Key {
        let mut hash = digest::Context::new(&digest::SHA256);
        chain.iter().for_each(|certificate| hash.update(certificate));
        let mut certificates = [0; 32];
        certificates.copy_from_slice(hash.finish().as_ref());
        Key { key, certificates }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(DrawingSigner {
            signer: self.key.choose_scheme(offered)?,
            certificates: self.certificates,
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[derive(Debug)]
struct DrawingSigner {
    signer: Box<dyn Signer>,
    certificates: [u8; 32],
}

impl Signer for DrawingSigner {
    /// What was signed with other certificates is of no use: the client has seen
    /// those.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut failed = None;
        let drawn = draw(|| match self.signer.sign(message) {
            Ok(signature) => Some(Zeroizing::new([&self.certificates[..], &signature].concat())),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        match drawn.as_ref().and_then(|drawn| drawn.split_first_chunk::<32>()) {
            Some((certificates, signature)) if *certificates == self.certificates => Ok(signature.to_vec()),
            Some(_) => Err(Error::General(
                "the certificate was changed during the handshake".into(),
            )),
            None => Err(failed.unwrap_or(Error::FailedToGetRandomBytes)),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}
