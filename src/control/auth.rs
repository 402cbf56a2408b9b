//! Who the client is: by the Unix socket, by SCRAM, or, where it is configured
//! and inside TLS only, by the password itself (protocol documentation, 54.2.1).
//!
//! Whatever goes wrong is fatal to the connection, and a stranger learns no
//! more than from a wrong password (see [`Logins`]). Failed logins are told to
//! the [`Permit`], which is asked again before a proof is looked at: connections
//! that were opened before a ban are no way around it.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::fatal::{End, Fatal, message};
use super::limits::Permit;
use super::logins::{Account, Logins};
use super::peer::Peers;
use super::scram::Scram;
use super::wire::Wire;
use crate::config::Password;

/// The longest message that is read before a client is authenticated, without
/// its type byte.
const MAX_MESSAGE: usize = 10_000;

const OK: u32 = 0;
const CLEARTEXT_PASSWORD: u32 = 3;

/// Finds out who a client is.
pub struct Authenticator {
    logins: Logins,
    scram: Scram,
    peers: Peers,
}

impl Authenticator {
    /// `certificate` is the server's, PEM, for channel binding.
    pub fn new(logins: Logins, peers: Peers, certificate: Option<&[u8]>) -> Self {
        Self {
            logins,
            scram: Scram::new(certificate),
            peers,
        }
    }

    /// Authenticates `user`; afterwards the client has AuthenticationOk.
    pub async fn authenticate(
        &self,
        wire: &mut Wire,
        user: &str,
        permit: &Permit,
    ) -> Result<Arc<Account>, End> {
        let peer = self.peers.admits(wire.socket().peer_uid(), user).await;
        if let Some(account) = self.logins.account(user).filter(|_| peer) {
            wire.write_all(&request(OK, &[])).await?;
            return Ok(account);
        }
        let last_words = match wire.is_secure() && self.logins.wants_cleartext(user) {
            true => self.ask_password(wire, user, permit).await?,
            false => {
                let verifier = self.logins.verifier_of(user);
                self.scram.exchange(wire, verifier, permit).await?
            }
        };
        match (last_words, self.logins.account(user)) {
            (Some(mut answer), Some(account)) => {
                answer.extend_from_slice(&request(OK, &[]));
                wire.write_all(&answer).await?;
                Ok(account)
            }
            _ => {
                permit.login_failed();
                let message = format!("password authentication failed for user \"{user}\"");
                Err(Fatal::new("28P01", message).into())
            }
        }
    }

    /// Asks for the password itself. Like [`Scram::exchange`] it gives what the
    /// client is told before AuthenticationOk, which is nothing, or `None`.
    async fn ask_password(
        &self,
        wire: &mut Wire,
        user: &str,
        permit: &Permit,
    ) -> Result<Option<Vec<u8>>, End> {
        wire.write_all(&request(CLEARTEXT_PASSWORD, &[])).await?;
        let body = read_response(wire).await?;
        permit.check()?;
        let password = body
            .strip_suffix(b"\0")
            .filter(|password| !password.contains(&0))
            .ok_or_else(|| Fatal::protocol("invalid password packet size"))?;
        // What is not UTF-8 is nobody's password, and costs the same.
        let password = Password::new(String::from_utf8_lossy(password).into_owned());
        let verifier = self.logins.verifier_of(user);
        // Thousands of hashes: no connection is to wait for those of another.
        let right = tokio::task::spawn_blocking(move || verifier.matches(&password));
        Ok(right.await.unwrap_or(false).then(Vec::new))
    }
}

/// An authentication request of this kind.
pub(super) fn request(kind: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), data].concat())
}

/// The body of the client's next message, which must be an answer.
pub(super) async fn read_response(wire: &mut Wire) -> Result<Zeroizing<Vec<u8>>, End> {
    let mut header = [0; 5];
    wire.read_exact(&mut header).await?;
    let [kind, length @ ..] = header;
    if kind != b'p' {
        let message = format!("expected password response, got message type {kind}");
        return Err(Fatal::protocol(message).into());
    }
    let length = u32::from_be_bytes(length) as usize;
    if !(4..=MAX_MESSAGE).contains(&length) {
        return Err(Fatal::protocol("invalid message length").into());
    }
    let mut body = Zeroizing::new(vec![0; length - 4]);
    wire.read_exact(&mut body).await?;
    Ok(body)
}
