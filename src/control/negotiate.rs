//! From the first byte to the startup message: TLS, GSS, cancel requests.
//!
//! Each request for encryption is answered at most once. After the answer to
//! SSLRequest every byte is the TLS handshake's: what a client, or somebody on
//! the way, stuffed behind the request fails there and is never used
//! (CVE-2021-23214 is what happens otherwise).

use std::sync::Arc;
use std::time::Duration;

use super::fatal::{End, Fatal, message};
use super::startup::{self, Cancel, Packet, Startup};
use super::wire::Wire;
use crate::tls::{self, Entry};

/// What TLS is offered.
pub struct TlsOffer {
    /// The handshake's configuration; `None` offers no TLS.
    pub config: Option<Arc<rustls::ServerConfig>>,
    /// Whether plaintext sessions over TCP are refused.
    pub required: bool,
}

/// What a connection turned out to be.
pub enum Opening {
    /// A client that asks for a session.
    Session(Box<Startup>, TlsFacts),
    /// A client that asks for the end of another session's statement.
    Cancel(Cancel),
}

/// What is known about the TLS session; empty without one.
#[derive(Default)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's name.
    pub cipher: &'static str,
}

/// The first byte of a TLS handshake record. As the first byte of a length
/// word it would announce 350 MB.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a client that is not welcome may take to say what it wants.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// Negotiates until the client has said what it wants. A newer client has then
/// been told which version it gets.
pub async fn negotiate(wire: &mut Wire, offer: &TlsOffer) -> Result<Opening, End> {
    let mut facts = TlsFacts::default();
    let (mut first, mut may_ask_tls, mut may_ask_gss) = (true, true, true);
    loop {
        let mut word = [0; 4];
        wire.read_exact(&mut word).await?;
        if word[0] == TLS_HANDSHAKE && std::mem::take(&mut first) {
            facts = handshake(wire, offer, &word, Entry::Direct).await?;
            (may_ask_tls, may_ask_gss) = (false, false);
            continue;
        }
        first = false;
        let mut packet = vec![0; startup::length(word)?];
        wire.read_exact(&mut packet).await?;
        match startup::parse(&packet, may_ask_tls, may_ask_gss)? {
            Packet::Tls => {
                may_ask_tls = false;
                if offer.config.is_some() && !wire.socket().is_local() {
                    wire.write_all(b"S").await?;
                    facts = handshake(wire, offer, &[], Entry::SslRequest).await?;
                    may_ask_gss = false;
                } else {
                    wire.write_all(b"N").await?;
                }
            }
            Packet::Gss => {
                may_ask_gss = false;
                wire.write_all(b"N").await?;
            }
            Packet::Cancel(cancel) => return Ok(Opening::Cancel(cancel)),
            Packet::Startup(startup) => {
                if offer.required && !wire.is_secure() && !wire.socket().is_local() {
                    let message =
                        "connection requires TLS (sslmode=require, or sslmode=verify-full with sslrootcert)";
                    return Err(Fatal::new("28000", message).into());
                }
                if let Some(body) = startup.negotiation() {
                    wire.write_all(&message(b'v', &body)).await?;
                }
                return Ok(Opening::Session(startup, facts));
            }
        }
    }
}

/// Hears a client out that is not welcome, as cheaply as it goes, so that it
/// can be told why: an error may answer the startup message, and SSLRequest too
/// (54.2.10; libpq then says only that there was one), but TLS is not begun.
pub async fn turn_away(wire: &mut Wire, fatal: Fatal) -> End {
    let hear = async {
        let mut may_ask_gss = true;
        loop {
            let mut word = [0; 4];
            wire.read_exact(&mut word).await?;
            let mut packet = vec![0; startup::length(word)?];
            wire.read_exact(&mut packet).await?;
            match startup::parse(&packet, true, may_ask_gss)? {
                Packet::Gss => {
                    may_ask_gss = false;
                    wire.write_all(b"N").await?;
                }
                Packet::Cancel(_) => return Ok(false),
                Packet::Tls | Packet::Startup(_) => return Ok(true),
            }
        }
    };
    let heard: Result<Result<bool, End>, _> = tokio::time::timeout(HEARD_WITHIN, hear).await;
    let told = matches!(heard, Ok(Ok(true)));
    End::Unwelcome { fatal, told }
}

async fn handshake(
    wire: &mut Wire,
    offer: &TlsOffer,
    already_read: &[u8],
    entry: Entry,
) -> Result<TlsFacts, End> {
    let Some(config) = offer.config.as_ref().filter(|_| !wire.socket().is_local()) else {
        return Err(End::silent("TLS is not offered here"));
    };
    let draws = wire.socket().draws();
    let accepted = tls::accept(wire.socket(), already_read, config, entry, &draws)
        .await
        .map_err(|error| End::silent(error.to_string()))?;
    wire.secure(accepted.state)?;
    Ok(TlsFacts {
        version: accepted.version,
        cipher: accepted.cipher,
    })
}
