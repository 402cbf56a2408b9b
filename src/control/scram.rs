//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677; protocol
//! documentation, 54.3.1).
//!
//! -PLUS binds the exchange to the TLS session and is offered only inside one:
//! libpq gives up when a plaintext connection offers it. The server's nonce is a
//! [draw](crate::tls::Draws) of the connection, so that another process can go
//! on with an exchange that this one has begun.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::auth::{read_response, request};
use super::fatal::{End, Fatal};
use super::limits::Permit;
use super::wire::Wire;
use crate::config::{Verifier, hmac};
use crate::tls;

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";

const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// As many random bytes as PostgreSQL puts into a nonce.
const NONCE: usize = 18;

/// The server's side of the exchange, for plaintext and for TLS connections.
pub struct Scram {
    /// The `tls-server-end-point` of the certificate.
    end_point: Option<Vec<u8>>,
}

impl Scram {
    /// `certificate` is the server's, PEM. If its signature algorithm has no
    /// channel binding (Ed25519, RSA-PSS), -PLUS is not offered.
    pub fn new(certificate: Option<&[u8]>) -> Self {
        let end_point = certificate.and_then(|pem| {
            let chain = tls::certificates(pem).ok()?;
            let end_point = tls::server_end_point(chain.first()?);
            if end_point.is_none() {
                tracing::warn!(
                    "SCRAM-SHA-256-PLUS is not offered: the certificate allows no channel binding"
                );
            }
            end_point
        });
        Self { end_point }
    }

    /// Asks for a proof of the password that `verifier` is of. Gives what the
    /// client is told before AuthenticationOk, or `None` if the proof is wrong.
    pub async fn exchange(
        &self,
        wire: &mut Wire,
        verifier: Verifier,
        permit: &Permit,
    ) -> Result<Option<Vec<u8>>, End> {
        let end_point = self.end_point.as_deref().filter(|_| wire.is_secure());
        let mut mechanisms = Vec::new();
        if end_point.is_some() {
            mechanisms.extend_from_slice(PLUS.as_bytes());
            mechanisms.push(0);
        }
        mechanisms.extend_from_slice(PLAIN.as_bytes());
        mechanisms.extend_from_slice(&[0, 0]);
        wire.write_all(&request(SASL, &mechanisms)).await?;

        let initial = read_response(wire).await?;
        let (mechanism, first) = split_initial(&initial).ok_or_else(malformed)?;
        let plus = match mechanism {
            PLUS if end_point.is_some() => true,
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
        let first = ClientFirst::parse(first).ok_or_else(malformed)?;
        first.check(plus, end_point.is_some())?;
        let nonce = draw_nonce(wire)?;
        let challenge = Challenge::new(&first, &nonce, &verifier);
        wire.write_all(&request(SASL_CONTINUE, challenge.message.as_bytes()))
            .await?;

        let proof = read_response(wire).await?;
        permit.check()?;
        let bound = end_point.filter(|_| plus);
        match challenge.answer(&proof, bound).ok_or_else(malformed)? {
            Answer::Right(signature) => Ok(Some(request(SASL_FINAL, signature.as_bytes()))),
            Answer::Wrong => Ok(None),
        }
    }
}

fn draw_nonce(wire: &mut Wire) -> Result<String, Fatal> {
    let drawn = wire.socket().draws().draw(&mut || {
        let mut bytes = Zeroizing::new(vec![0; NONCE]);
        aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| bytes)
    });
    let drawn = drawn.ok_or_else(|| Fatal::new("XX000", "could not generate random nonce"))?;
    Ok(STANDARD.encode(drawn.as_slice()))
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

/// What the client says about channel binding.
#[derive(Debug, PartialEq, Eq)]
enum Binding<'a> {
    /// It cannot.
    Unable,
    /// It could, but thinks that the server cannot.
    Unasked,
    /// It does, in this way.
    By(&'a str),
}

/// client-first-message (RFC 5802, section 7).
#[derive(Debug, PartialEq, Eq)]
struct ClientFirst<'a> {
    binding: Binding<'a>,
    /// Whether it wants to be somebody else than who it logs in as.
    authorization: bool,
    /// gs2-header.
    header: &'a str,
    /// client-first-message-bare.
    bare: &'a str,
    nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let message = std::str::from_utf8(message).ok()?;
        let (flag, rest) = message.split_once(',')?;
        let (authorization, bare) = rest.split_once(',')?;
        let binding = match flag.split_once('=') {
            None if flag == "n" => Binding::Unable,
            None if flag == "y" => Binding::Unasked,
            Some(("p", name)) => Binding::By(name),
            _ => return None,
        };
        // The user's name is that of the startup message; what stands here is
        // not looked at. A mandatory extension (m=) has no name before it.
        let mut attributes = bare.split(',');
        attributes.next()?.strip_prefix("n=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        // What may be printed, but for the comma that is not there.
        let printable = !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        printable.then_some(Self {
            binding,
            authorization: !authorization.is_empty(),
            header: &message[..message.len() - bare.len()],
            bare,
            nonce,
        })
    }

    /// Whether it fits to the mechanism, and to what the server has offered.
    fn check(&self, plus: bool, offered: bool) -> Result<(), Fatal> {
        if self.authorization {
            let message = "client uses authorization identity, but it is not supported";
            return Err(Fatal::new("0A000", message));
        }
        match self.binding {
            Binding::By("tls-server-end-point") if plus => Ok(()),
            Binding::By(_) if plus => Err(Fatal::protocol("unsupported SCRAM channel-binding type")),
            Binding::Unable if !plus => Ok(()),
            // Somebody on the way has taken -PLUS off the list.
            Binding::Unasked if offered => {
                let message = "SCRAM channel binding negotiation error";
                Err(Fatal::new("28000", message))
            }
            Binding::Unasked if !plus => Ok(()),
            // The mechanism's name and the message must agree.
            _ => Err(malformed()),
        }
    }
}

/// server-first-message, and what the client's proof is checked with.
struct Challenge {
    message: String,
    bare: String,
    header: String,
    nonce: String,
    verifier: Verifier,
}

enum Answer {
    /// server-final-message.
    Right(String),
    Wrong,
}

impl Challenge {
    fn new(first: &ClientFirst<'_>, server_nonce: &str, verifier: &Verifier) -> Self {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let salt = STANDARD.encode(&verifier.salt);
        Self {
            message: format!("r={nonce},s={salt},i={}", verifier.iterations),
            bare: first.bare.to_owned(),
            header: first.header.to_owned(),
            nonce,
            verifier: verifier.clone(),
        }
    }

    /// Checks client-final-message; `None` if it is none, or one to another
    /// challenge or connection.
    fn answer(&self, message: &[u8], end_point: Option<&[u8]>) -> Option<Answer> {
        let message = std::str::from_utf8(message).ok()?;
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let proof = <[u8; 32]>::try_from(STANDARD.decode(proof).ok()?).ok()?;
        let mut attributes = without_proof.split(',');
        let binding = STANDARD.decode(attributes.next()?.strip_prefix("c=")?).ok()?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let expected = [self.header.as_bytes(), end_point.unwrap_or_default()].concat();
        if binding != expected || nonce != self.nonce {
            return None;
        }
        let signed = format!("{},{},{without_proof}", self.bare, self.message);
        let mask = hmac(&self.verifier.stored_key, signed.as_bytes());
        let mut client_key = Zeroizing::new(proof);
        client_key
            .iter_mut()
            .zip(mask)
            .for_each(|(byte, mask)| *byte ^= mask);
        let right = digest(&SHA256, client_key.as_slice())
            .as_ref()
            .ct_eq(&self.verifier.stored_key);
        Some(match bool::from(right) {
            false => Answer::Wrong,
            true => {
                let signature = hmac(&self.verifier.server_key, signed.as_bytes());
                Answer::Right(format!("v={}", STANDARD.encode(signature)))
            }
        })
    }
}

fn malformed() -> Fatal {
    Fatal::protocol("malformed SCRAM message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Password;

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

    /// The exchange of RFC 7677, section 3.
    fn example() -> Challenge {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive(&Password::new("pencil".into()), &salt);
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        Challenge::new(&first, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", &verifier)
    }

    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_exchange_is_that_of_the_rfc() {
        let challenge = example();
        assert_eq!(
            challenge.message,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let Some(Answer::Right(signature)) = challenge.answer(FINAL.as_bytes(), None) else {
            panic!("the proof is right");
        };
        assert_eq!(signature, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_wrong_proof_is_wrong_and_one_for_another_exchange_is_none() {
        let challenge = example();
        let wrong = FINAL.replace("p=dHzb", "p=dHzc");
        assert!(matches!(
            challenge.answer(wrong.as_bytes(), None),
            Some(Answer::Wrong)
        ));
        for other in [
            FINAL.replace("biws", "eSws"),
            FINAL.replace("k0", "k1"),
            FINAL.replace("dVQ=", "dVQ"),
            FINAL.replace("p=dHzb", "p="),
            FINAL.replace(",p=", ",q="),
            String::new(),
        ] {
            assert!(challenge.answer(other.as_bytes(), None).is_none(), "{other}");
        }
        assert!(challenge.answer(FINAL.as_bytes(), Some(b"bound")).is_none());
    }

    #[test]
    fn what_the_client_says_about_binding_must_fit_to_what_was_offered() {
        let code = |message: &str, plus, offered| {
            let first = ClientFirst::parse(message.as_bytes()).unwrap();
            first.check(plus, offered).err().map(|fatal| fatal.code)
        };
        assert_eq!(code("n,,n=,r=x", false, true), None);
        assert_eq!(code("y,,n=,r=x", false, false), None);
        assert_eq!(code("p=tls-server-end-point,,n=,r=x", true, true), None);
        assert_eq!(code("y,,n=,r=x", false, true), Some("28000"));
        assert_eq!(code("y,,n=,r=x", true, true), Some("28000"));
        assert_eq!(code("n,,n=,r=x", true, true), Some("08P01"));
        assert_eq!(code("p=tls-unique,,n=,r=x", true, true), Some("08P01"));
        assert_eq!(code("p=tls-server-end-point,,n=,r=x", false, true), Some("08P01"));
        assert_eq!(code("n,a=bob,n=,r=x", false, false), Some("0A000"));
    }

    #[test]
    fn a_first_message_that_is_none_is_refused() {
        for wrong in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=",
            "n,,n=,r=",
            "x,,n=,r=x",
            "n,,r=x,n=",
            "n,,m=1,n=,r=x",
            "q=1,,n=,r=x",
            "n,,n=,r=\u{e4}",
            "n,,n=,r=a b",
        ] {
            assert!(ClientFirst::parse(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(ClientFirst::parse(b"n,,n=\xff,r=x").is_none());
    }
}
