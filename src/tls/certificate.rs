//! The server's certificate: reading it, and what channel binding needs of it.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::draws;
use super::state::Version;

/// The ALPN name of the PostgreSQL protocol.
pub(super) const ALPN: &[u8] = b"postgresql";

/// Why there is no TLS with this certificate and key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The certificate file is not PEM.
    #[error("the certificate cannot be read: {0}")]
    Certificate(#[source] pem::Error),
    /// The certificate file has no certificate in it.
    #[error("there is no certificate in the certificate file")]
    NoCertificate,
    /// The key file is not PEM or has no private key in it.
    #[error("the private key cannot be read: {0}")]
    Key(#[source] pem::Error),
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
}

/// The certificates of a PEM file, the server's own first.
pub fn certificates(cert_pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<_, _>>()
        .map_err(ConfigError::Certificate)?;
    if found.is_empty() {
        Err(ConfigError::NoCertificate)
    } else {
        Ok(found)
    }
}

/// The configuration that [`accept`](super::accept) needs, from a PEM file of the
/// certificate and its chain and one of its private key.
///
/// Sessions are never resumed and there is no early data: a resumption secret
/// would let a worker that knows one session read others. `minimum` is the
/// lowest protocol version to offer.
///
/// # Errors
/// The files are not what they should be, or do not belong together.
pub fn server_config(
    cert_pem: &[u8],
    key_pem: &[u8],
    minimum: Version,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let chain = certificates(cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(ConfigError::Key)?;
    let versions: &[&rustls::SupportedProtocolVersion] = match minimum {
        Version::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(draws::provider());
    let mut certified = CertifiedKey::from_der(chain, key, &provider).map_err(ConfigError::Unusable)?;
    certified.key = Arc::new(draws::Key::new(certified.key, &certified.cert));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(ConfigError::Unusable)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The `tls-server-end-point` channel binding of a DER certificate (RFC 5929
/// section 4.1): its hash by the hash function of its signature, SHA-256 in the
/// place of MD5 and SHA-1.
///
/// `None` where the signature has no hash function of its own (Ed25519), where it
/// is RSA-PSS, which the SCRAM implementation does not know, or where this is no
/// certificate: then SCRAM-SHA-256-PLUS must not be offered.
pub fn server_end_point(cert_der: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match signature_algorithm(cert_der)? {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04 | 0x05 | 0x0b]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02] => &digest::SHA256,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03] => &digest::SHA384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04] => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, cert_der).as_ref().to_vec())
}

/// Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, … }, … }
/// (RFC 5280 section 4.1). Returns the OID's content.
fn signature_algorithm(cert_der: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (certificate, _) = element(SEQUENCE, cert_der)?;
    let (_, after_tbs) = element(SEQUENCE, certificate)?;
    let (algorithm, _) = element(SEQUENCE, after_tbs)?;
    Some(element(OBJECT_IDENTIFIER, algorithm)?.0)
}

/// The content of the DER element at the start of `input`, and what follows it.
fn element(tag: u8, input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = input.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if length < 0x80 {
        return rest.split_at_checked(length.into());
    }
    let (digits, rest) = rest.split_at_checked((length & 0x7f).into())?;
    if digits.len() > 4 {
        return None;
    }
    let length = digits
        .iter()
        .fold(0_usize, |sum, &digit| sum << 8 | usize::from(digit));
    rest.split_at_checked(length)
}
