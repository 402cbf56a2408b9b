//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; protocol
//! documentation, 54.3.1).
//!
//! -PLUS binds the exchange to the TLS session and is offered only inside one:
//! libpq gives up when a plaintext connection offers it. Whatever goes wrong is
//! fatal to the connection, and a stranger learns no more than from a wrong
//! password (see [`Logins`]).

use pgwire::api::auth::sasl::scram::ScramServerAuth;
use pgwire::error::PgWireError;
use zeroize::Zeroizing;

use super::fatal::{End, Fatal, message};
use super::logins::Logins;
use super::wire::Wire;

/// The longest message that is read before a client is authenticated, without
/// its type byte.
const MAX_MESSAGE: usize = 10_000;

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";

const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;
const OK: u32 = 0;

/// The server's side of the exchange, for plaintext and for TLS connections.
pub struct Authenticator {
    logins: Logins,
    plain: ScramServerAuth,
    bound: Option<ScramServerAuth>,
}

impl Authenticator {
    /// `certificate` is the server's, PEM. If its signature algorithm has no
    /// channel binding (Ed25519, RSA-PSS), -PLUS is not offered.
    pub fn new(logins: Logins, certificate: Option<&[u8]>) -> Self {
        let bound = certificate.and_then(|pem| {
            let mut scram = ScramServerAuth::new();
            match scram.configure_certificate(pem) {
                Ok(()) => Some(scram),
                Err(error) => {
                    tracing::warn!(%error, "SCRAM-SHA-256-PLUS is not offered: the certificate allows no channel binding");
                    None
                }
            }
        });
        Self {
            logins,
            plain: ScramServerAuth::new(),
            bound,
        }
    }

    /// Authenticates `user`; afterwards the client has AuthenticationOk.
    pub async fn authenticate(&self, wire: &mut Wire, user: &str) -> Result<(), End> {
        let bound = self.bound.as_ref().filter(|_| wire.is_secure());
        let scram = bound.unwrap_or(&self.plain);
        let mut mechanisms = Vec::new();
        if bound.is_some() {
            mechanisms.extend_from_slice(PLUS.as_bytes());
            mechanisms.push(0);
        }
        mechanisms.extend_from_slice(PLAIN.as_bytes());
        mechanisms.extend_from_slice(&[0, 0]);
        wire.write_all(&request(SASL, &mechanisms)).await?;

        let initial = read_response(wire).await?;
        let (mechanism, first) = split_initial(&initial).ok_or_else(malformed)?;
        let plus = match mechanism {
            PLUS if bound.is_some() => true,
            PLAIN => false,
            _ => {
                return Err(
                    Fatal::protocol("client selected an invalid SASL authentication mechanism").into(),
                );
            }
        };
        let late;
        let first = match first {
            Some(first) => first,
            None => {
                wire.write_all(&request(SASL_CONTINUE, &[])).await?;
                late = read_response(wire).await?;
                &late
            }
        };
        // The mechanism's name and the message must agree on the binding.
        if first.starts_with(b"p") != plus {
            return Err(malformed().into());
        }
        let secret = self.logins.secret_of(user);
        let (challenge, waiting) = scram
            .on_client_first_message_with_secret(first, secret)
            .map_err(|error| refusal(error, user))?;
        wire.write_all(&request(SASL_CONTINUE, challenge.as_bytes()))
            .await?;

        let proof = read_response(wire).await?;
        let outcome = waiting
            .on_client_final_message(&proof)
            .map_err(|error| refusal(error, user))?;
        let mut answer = request(SASL_FINAL, outcome.as_bytes());
        answer.extend_from_slice(&request(OK, &[]));
        wire.write_all(&answer).await?;
        Ok(())
    }
}

fn request(kind: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes(), data].concat())
}

async fn read_response(wire: &mut Wire) -> Result<Zeroizing<Vec<u8>>, End> {
    let mut header = [0; 5];
    wire.read_exact(&mut header).await?;
    let [kind, length @ ..] = header;
    if kind != b'p' {
        let message = format!("expected SASL response, got message type {kind}");
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

/// SASLInitialResponse: the mechanism's name, and the first message unless the
/// client waits to be asked for it.
fn split_initial(body: &[u8]) -> Option<(&str, Option<&[u8]>)> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let mechanism = std::str::from_utf8(&body[..end]).ok()?;
    let (length, data) = body[end + 1..].split_first_chunk::<4>()?;
    match i32::from_be_bytes(*length) {
        -1 if data.is_empty() => Some((mechanism, None)),
        length if usize::try_from(length) == Ok(data.len()) => Some((mechanism, Some(data))),
        _ => None,
    }
}

fn malformed() -> Fatal {
    Fatal::protocol("malformed SCRAM message")
}

fn refusal(error: PgWireError, user: &str) -> Fatal {
    match error {
        PgWireError::InvalidPassword(_) => Fatal::new(
            "28P01",
            format!("password authentication failed for user \"{user}\""),
        ),
        error => {
            tracing::debug!(%error, user, "the SCRAM exchange failed");
            malformed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initial_response_must_be_exactly_as_long_as_it_says() {
        let body =
            |length: i32, data: &[u8]| [b"SCRAM-SHA-256\0".as_slice(), &length.to_be_bytes(), data].concat();
        assert_eq!(
            split_initial(&body(2, b"ab")),
            Some((PLAIN, Some(b"ab".as_slice())))
        );
        assert_eq!(split_initial(&body(-1, b"")), Some((PLAIN, None)));
        for wrong in [
            body(3, b"ab"),
            body(1, b"ab"),
            body(-1, b"a"),
            body(-2, b""),
            body(i32::MAX, b""),
        ] {
            assert_eq!(split_initial(&wrong), None);
        }
        assert_eq!(split_initial(b"SCRAM-SHA-256"), None);
        assert_eq!(split_initial(b"SCRAM-SHA-256\0\0"), None);
    }
}
