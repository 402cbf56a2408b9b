//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; protocol
//! documentation, 54.3.1).
//!
//! -PLUS binds the exchange to the TLS session and is offered only inside one:
//! libpq gives up when a plaintext connection offers it.

use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth};
use pgwire::error::PgWireError;

use super::auth::{read_response, request};
use super::fatal::{End, Fatal};
use super::limits::Permit;
use super::wire::Wire;

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";

const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// The server's side of the exchange, for plaintext and for TLS connections.
pub struct Scram {
    plain: ScramServerAuth,
    bound: Option<ScramServerAuth>,
}

impl Scram {
    /// `certificate` is the server's, PEM. If its signature algorithm has no
    /// channel binding (Ed25519, RSA-PSS), -PLUS is not offered.
    pub fn new(certificate: Option<&[u8]>) -> Self {
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
            plain: ScramServerAuth::new(),
            bound,
        }
    }

    /// Asks for a proof of the password that `secret` is of. Gives what the
    /// client is told before AuthenticationOk, or `None` if the proof is wrong.
    pub async fn exchange(
        &self,
        wire: &mut Wire,
        secret: ScramSecret,
        permit: &Permit,
    ) -> Result<Option<Vec<u8>>, End> {
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
        let (challenge, waiting) = scram
            .on_client_first_message_with_secret(first, secret)
            .map_err(broken)?;
        wire.write_all(&request(SASL_CONTINUE, challenge.as_bytes()))
            .await?;

        let proof = read_response(wire).await?;
        permit.check()?;
        match waiting.on_client_final_message(&proof) {
            Ok(outcome) => Ok(Some(request(SASL_FINAL, outcome.as_bytes()))),
            Err(PgWireError::InvalidPassword(_)) => Ok(None),
            Err(error) => Err(broken(error).into()),
        }
    }
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

fn broken(error: PgWireError) -> Fatal {
    tracing::debug!(%error, "the SCRAM exchange failed");
    malformed()
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
