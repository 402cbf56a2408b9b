//! Who can log in, and what a stranger is told instead.
//!
//! An unknown user gets a challenge that looks like anybody's: a salt that
//! stays the same for the name, the same rounds, the same work, and in the end
//! the same refusal. Salts of users whose password stands in the configuration
//! are made in the same way, so that not even adding a user changes what a
//! stranger sees.

use std::collections::HashMap;

use pgwire::api::auth::sasl::scram::ScramSecret;
use zeroize::Zeroizing;

use crate::config::{Credential, SCRAM_ITERATIONS, Users, Verifier, hmac};

/// The verifiers of all users.
pub struct Logins {
    verifiers: HashMap<String, Verifier>,
    secret: Zeroizing<[u8; 32]>,
}

impl Logins {
    /// Derives the verifiers. `secret` is the server's own, random, and kept
    /// between starts.
    pub fn new(users: &Users, secret: Zeroizing<[u8; 32]>) -> Self {
        let mut logins = Self {
            verifiers: HashMap::new(),
            secret,
        };
        for (name, credential) in users {
            let verifier = match credential {
                Credential::Verifier(verifier) => verifier.clone(),
                Credential::Password(password) => Verifier::derive(password, &logins.salt(name)),
            };
            logins.verifiers.insert(name.clone(), verifier);
        }
        logins
    }

    /// What the proof of `user` is checked against. The proof of an unknown
    /// user cannot be right: nobody knows what hashes to a random key.
    pub fn secret_of(&self, user: &str) -> ScramSecret {
        let mock = Verifier {
            iterations: SCRAM_ITERATIONS,
            salt: self.salt(user),
            stored_key: self.derive("stored", user),
            server_key: self.derive("server", user),
        };
        let verifier = self.verifiers.get(user).unwrap_or(&mock);
        ScramSecret::Verifier {
            salt: verifier.salt.clone(),
            iterations: verifier.iterations as usize,
            stored_key: verifier.stored_key.to_vec(),
            server_key: verifier.server_key.to_vec(),
        }
    }

    fn salt(&self, user: &str) -> Vec<u8> {
        self.derive("salt", user)[..16].to_vec()
    }

    fn derive(&self, purpose: &str, user: &str) -> [u8; 32] {
        hmac(self.secret.as_slice(), format!("{purpose}\0{user}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Password;

    #[test]
    fn a_stranger_cannot_tell_whether_a_user_exists() {
        let secret = Zeroizing::new([7; 32]);
        let users = Users::from([("alice".into(), Credential::Password(Password::new("x".into())))]);
        let some = Logins::new(&users, secret.clone());
        let none = Logins::new(&Users::new(), secret);
        let shown = |logins: &Logins, user| match logins.secret_of(user) {
            ScramSecret::Verifier { salt, iterations, .. } => (salt, iterations),
            ScramSecret::SaltedPassword { .. } => panic!("not a verifier"),
        };
        assert_eq!(shown(&some, "alice"), shown(&none, "alice"));
        assert_eq!(shown(&some, "bob"), shown(&some, "bob"));
        assert_ne!(shown(&some, "bob"), shown(&some, "eve"));
    }
}
