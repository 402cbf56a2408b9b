//! Passwords and verifiers, in types that cannot be printed.
//!
//! Neither type implements `Debug` or `Display`, so a secret cannot reach a log
//! or an error message by accident; both are erased when dropped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// How verifiers that the server keeps begin (`pg_authid.rolpassword`).
pub const SCRAM_PREFIX: &str = "SCRAM-SHA-256$";

/// PBKDF2 rounds of verifiers made here: PostgreSQL's default.
pub const SCRAM_ITERATIONS: u32 = 4096;

/// A password in the clear.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes the password over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The password itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What a server keeps to check a password without knowing it (RFC 5802):
/// it lets nobody log in, but it can be attacked by guessing, so it is a secret.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Verifier {
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// The salt, in bytes.
    pub salt: Vec<u8>,
    /// H(ClientKey).
    pub stored_key: [u8; 32],
    /// HMAC(SaltedPassword, "Server Key").
    pub server_key: [u8; 32],
}

impl Verifier {
    /// The verifier of `password` (prepared with SASLprep) with this salt.
    pub fn derive(password: &Password, salt: &[u8]) -> Self {
        Self::with_rounds(password, salt, SCRAM_ITERATIONS)
    }

    /// Whether this is the verifier of `password`. Takes as long as deriving
    /// it, and no longer for a password that is nearly right.
    pub fn matches(&self, password: &Password) -> bool {
        let other = Self::with_rounds(password, &self.salt, self.iterations);
        self.stored_key.ct_eq(&other.stored_key).into()
    }

    fn with_rounds(password: &Password, salt: &[u8], iterations: u32) -> Self {
        let mut salted = scram::gen_salted_password(password.expose(), salt, iterations as usize);
        let mut verifier = Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: [0; 32],
            server_key: hmac(&salted, b"Server Key"),
        };
        let mut client_key = hmac(&salted, b"Client Key");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &client_key);
        verifier.stored_key.copy_from_slice(digest.as_ref());
        client_key.zeroize();
        salted.zeroize();
        verifier
    }

    /// Reads PostgreSQL's form, `SCRAM-SHA-256$<iterations>:<salt>$<stored>:<server>`.
    pub fn parse(text: &str) -> Option<Self> {
        let (parameters, keys) = text.strip_prefix(SCRAM_PREFIX)?.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let iterations = iterations
            .parse()
            .ok()
            .filter(|rounds| (1..=10_000_000).contains(rounds))?;
        let salt = STANDARD.decode(salt).ok().filter(|salt| !salt.is_empty())?;
        let key = |text: &str| <[u8; 32]>::try_from(STANDARD.decode(text).ok()?).ok();
        Some(Self {
            iterations,
            salt,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// PostgreSQL's form, as [`Verifier::parse`] reads it.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "{SCRAM_PREFIX}{}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key)
        ))
    }
}

/// HMAC-SHA-256.
pub(crate) fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::hmac::sign(&key, data).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_survives_its_text_form() {
        let verifier = Verifier::derive(&Password::new("pencil".into()), b"0123456789abcdef");
        let text = verifier.to_text();
        assert!(text.starts_with("SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$"));
        let again = Verifier::parse(&text).unwrap();
        assert_eq!(again.stored_key, verifier.stored_key);
        assert_eq!(again.server_key, verifier.server_key);
    }

    #[test]
    fn a_verifier_equals_the_one_of_postgresql() {
        // The example of RFC 7677, section 3: the server's signature proves the server key.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive(&Password::new("pencil".into()), &salt);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = STANDARD.encode(hmac(&verifier.server_key, message.as_bytes()));
        assert_eq!(signature, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn a_verifier_matches_its_password_alone_whatever_its_rounds() {
        let text = "SCRAM-SHA-256$1:c2FsdA==$";
        let verifier = Verifier::with_rounds(&Password::new("pencil".into()), b"salt", 1);
        assert!(verifier.to_text().starts_with(text));
        assert!(verifier.matches(&Password::new("pencil".into())));
        assert!(!verifier.matches(&Password::new("Pencil".into())));
        assert!(!verifier.matches(&Password::new(String::new())));
    }

    #[test]
    fn a_damaged_verifier_is_refused() {
        for text in [
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA",
            "SCRAM-SHA-256$0:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "md5abc",
        ] {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }
}
