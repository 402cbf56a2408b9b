//! The session as a value.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use aws_lc_rs::rand;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::frozen::Frozen;
use crate::tls::TlsState;

/// A client's socket and all that is known about its session, at a message
/// boundary. It has one owner: it is moved, never copied.
///
/// ```compile_fail,E0382
/// # async fn moved(session: duckgres::handoff::Session, worker: &std::path::Path) {
/// # let deadline = std::time::Duration::from_secs(1);
/// let _ = duckgres::handoff::offer(worker, session, deadline).await;
/// // It may be another process's by now.
/// drop(session.socket);
/// # }
/// ```
///
/// ```compile_fail,E0277
/// fn copied<T: Clone>() {}
/// copied::<duckgres::handoff::Session>();
/// ```
#[derive(Debug)]
pub struct Session {
    /// The client's own socket, a stream socket. Dropping it does not say goodbye.
    pub socket: OwnedFd,
    /// Everything else.
    pub state: SessionState,
}

/// What another process needs, besides the socket, to go on with a session.
pub struct SessionState {
    /// BackendKeyData's process id; names the worker too.
    pub backend_id: i32,
    /// BackendKeyData's secret.
    pub cancel_key: CancelKey,
    /// Minor version of protocol 3 in force: 0 or 2.
    pub protocol_minor: u32,
    /// The authenticated user.
    pub user: String,
    /// The database, never empty.
    pub database: String,
    /// Settings of the startup message, in the order in which they were given.
    /// None for a frozen session, which has them among its own.
    pub settings: Vec<(String, String)>,
    /// Plaintext that was read from the client and not yet used.
    pub unread_input: Zeroizing<Vec<u8>>,
    /// The TLS session, `None` on a plaintext connection.
    pub tls: Option<TlsState>,
    /// Facts for logs and pg_stat_activity.
    pub peer: PeerFacts,
    /// May the database file be created when it does not exist?
    pub create_database: bool,
    /// Is it an administrator's, who sees and may end everybody's sessions?
    pub admin: bool,
    /// What the session has become since it began; `None` for one that has not,
    /// whose client has not been greeted yet.
    pub frozen: Option<Frozen>,
}

impl fmt::Debug for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionState")
            .field("backend_id", &self.backend_id)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What is known about a client, for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// "203.0.113.7:50312", or "local" on a Unix socket.
    pub address: String,
    /// "TLSv1.3", "TLSv1.2", or empty.
    pub tls_version: String,
    /// The cipher suite by OpenSSL's name, or empty.
    pub tls_cipher: String,
}

/// The secret that entitles to cancel a session's statement: 4 to 256 bytes
/// (protocol 3.2, BackendKeyData; protocol 3.0 knows only 4). Compared in constant
/// time, wiped when dropped, not shown by `Debug`.
#[derive(Clone)]
pub struct CancelKey(Zeroizing<Vec<u8>>);

/// A cancel key that is shorter than 4 bytes or longer than 256.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cancel key has 4 to 256 bytes, not {0}")]
pub struct CancelKeyLength(usize);

impl CancelKey {
    /// A key with these bytes.
    pub fn new(bytes: &[u8]) -> Result<CancelKey, CancelKeyLength> {
        match bytes.len() {
            4..=256 => Ok(CancelKey(Zeroizing::new(bytes.to_vec()))),
            length => Err(CancelKeyLength(length)),
        }
    }

    /// A new key of `length` bytes: 4 for protocol 3.0, 32 from 3.2 on.
    ///
    /// # Errors
    /// A length that keys do not have, or a random generator that fails.
    pub fn random(length: usize) -> io::Result<CancelKey> {
        let mut key = CancelKey::new(&vec![0; length]).map_err(io::Error::other)?;
        rand::fill(&mut key.0).map_err(|_| io::Error::other("the random generator failed"))?;
        Ok(key)
    }

    /// The bytes, for BackendKeyData.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Is this the key that a CancelRequest has brought?
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(presented).into()
    }
}

impl PartialEq for CancelKey {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

impl Eq for CancelKey {}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelKey(..)")
    }
}
