//! The server's certificate and key: configured, or made on first start.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use zeroize::Zeroizing;

use super::data_dir::write_private;
use super::error::StartError;
use crate::config::{Config, TlsMode, TlsVersion};
use crate::tls::{self, Version};

/// A certificate and its key, as TLS uses them.
pub struct Certificate {
    /// The certificate's file.
    pub path: PathBuf,
    /// Its content, PEM.
    pub pem: Vec<u8>,
    /// Whether it is our own, for this machine's loopback addresses.
    pub self_signed: bool,
    /// The configuration of handshakes with it.
    pub config: Arc<rustls::ServerConfig>,
}

/// The configured certificate; otherwise a self-signed one in the data directory;
/// none if TLS is off.
pub fn load(config: &Config) -> Result<Option<Certificate>, StartError> {
    if config.tls_mode() == TlsMode::Disable {
        return Ok(None);
    }
    let minimum = match config.settings.tls_min_version {
        TlsVersion::Tls12 => Version::Tls12,
        TlsVersion::Tls13 => Version::Tls13,
    };
    match (&config.settings.tls_cert, &config.settings.tls_key) {
        (Some(certificate), Some(key)) => {
            if fs::metadata(key).map_err(StartError::path(key))?.mode() & 0o004 != 0 {
                return Err(StartError::ExposedKey(key.clone()));
            }
            read(certificate, key, minimum, false).map(Some)
        }
        _ => {
            let certificate = config.data_dir.join("server.crt");
            let key = config.data_dir.join("server.key");
            if !certificate.exists() || !key.exists() {
                make(&certificate, &key)?;
            }
            read(&certificate, &key, minimum, true).map(Some)
        }
    }
}

fn read(path: &Path, key: &Path, minimum: Version, self_signed: bool) -> Result<Certificate, StartError> {
    let pem = fs::read(path).map_err(StartError::path(path))?;
    let key_pem = Zeroizing::new(fs::read(key).map_err(StartError::path(key))?);
    let config = tls::server_config(&pem, &key_pem, minimum).map_err(|source| StartError::Certificate {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(Certificate {
        path: path.to_path_buf(),
        pem,
        self_signed,
        config,
    })
}

/// Makes a certificate for this machine's loopback addresses. It is its own
/// root, and no other certificate's: it cannot sign.
fn make(certificate: &Path, key: &Path) -> Result<(), StartError> {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from);
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "duckgres on localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // It is trusted by being given, not by its age.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2120, 1, 1);
    let pem = params.self_signed(&pair)?.pem();
    let store = |path: &Path, bytes: &[u8]| -> Result<(), StartError> {
        write_private(path, bytes).map_err(StartError::path(path))
    };
    // The certificate is what says that the pair is complete: it comes last.
    match fs::remove_file(certificate) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StartError::path(certificate)(error));
        }
        _ => {}
    }
    store(key, Zeroizing::new(pair.serialize_pem()).as_bytes())?;
    store(certificate, pem.as_bytes())
}
