//! Who can log in, and what a stranger is told instead.
//!
//! An unknown user gets a challenge that looks like anybody's: a salt that
//! stays the same for the name, the same rounds, the same work, and in the end
//! the same refusal. Salts of users whose password stands in the configuration
//! are made in the same way, so that not even adding a user changes what a
//! stranger sees. A verifier from elsewhere with other rounds than PostgreSQL's
//! default does show, as it does in PostgreSQL.

use std::collections::HashMap;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::config::{Credential, Databases, SCRAM_ITERATIONS, Users, Verifier, hmac};

/// A user who has logged in.
#[derive(Debug)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// Where the user may connect to.
    pub databases: Databases,
    /// Whether the user may create databases and see everybody's sessions.
    pub admin: bool,
}

/// All users, with their verifiers.
pub struct Logins {
    known: HashMap<String, Known>,
    /// Whether strangers are asked for the password itself.
    cleartext: bool,
    secret: Zeroizing<[u8; 32]>,
}

struct Known {
    account: Arc<Account>,
    /// Without one no password is right.
    verifier: Option<Verifier>,
    cleartext: bool,
}

impl Logins {
    /// Derives the verifiers. `cleartext` is `auth.cleartext`; `secret` is the
    /// server's own, random, and kept between starts.
    pub fn new(users: &Users, cleartext: bool, secret: Zeroizing<[u8; 32]>) -> Self {
        let mut logins = Self {
            known: HashMap::new(),
            cleartext,
            secret,
        };
        for (name, user) in users {
            let verifier = user.credential.as_ref().map(|credential| match credential {
                Credential::Verifier(verifier) => verifier.clone(),
                Credential::Password(password) => Verifier::derive(password, &logins.salt(name)),
            });
            let account = Arc::new(Account {
                name: name.clone(),
                databases: user.databases.clone(),
                admin: user.admin,
            });
            let known = Known {
                account,
                verifier,
                cleartext: user.cleartext.unwrap_or(cleartext),
            };
            logins.known.insert(name.clone(), known);
        }
        logins
    }

    /// The user of this name, if there is one. Whoever asks has made sure of
    /// the name.
    pub fn account(&self, user: &str) -> Option<Arc<Account>> {
        self.known.get(user).map(|known| known.account.clone())
    }

    /// Whether the password itself is to be asked for, where it can be.
    pub fn wants_cleartext(&self, user: &str) -> bool {
        self.known
            .get(user)
            .map_or(self.cleartext, |known| known.cleartext)
    }

    /// What the password of `user` is checked against. That of an unknown user
    /// cannot be right: nobody knows what hashes to a random key.
    pub fn verifier_of(&self, user: &str) -> Verifier {
        // Made in any case, so that it takes the same time in any case.
        let mock = Verifier {
            iterations: SCRAM_ITERATIONS,
            salt: self.salt(user),
            stored_key: self.derive("stored", user),
            server_key: self.derive("server", user),
        };
        let verifier = self.known.get(user).and_then(|known| known.verifier.as_ref());
        verifier.unwrap_or(&mock).clone()
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
    use crate::config::{Password, User};

    fn password(text: &str) -> Password {
        Password::new(text.into())
    }

    #[test]
    fn a_stranger_cannot_tell_whether_a_user_exists() {
        let secret = Zeroizing::new([7; 32]);
        let users = Users::from([("alice".into(), User::with_password("alice", password("x")))]);
        let some = Logins::new(&users, false, secret.clone());
        let none = Logins::new(&Users::new(), false, secret);
        let shown = |logins: &Logins, user| {
            let verifier = logins.verifier_of(user);
            (verifier.salt.clone(), verifier.iterations)
        };
        assert_eq!(shown(&some, "alice"), shown(&none, "alice"));
        assert_eq!(shown(&some, "bob"), shown(&some, "bob"));
        assert_ne!(shown(&some, "bob"), shown(&some, "eve"));
    }

    #[test]
    fn only_the_right_password_of_a_user_who_has_one_is_right() {
        let without = User {
            credential: None,
            ..User::with_password("bob", password("x"))
        };
        let users = Users::from([
            ("alice".into(), User::with_password("alice", password("x"))),
            ("bob".into(), without),
        ]);
        let logins = Logins::new(&users, false, Zeroizing::new([7; 32]));
        let right = |user, text| logins.verifier_of(user).matches(&password(text));
        assert!(right("alice", "x"));
        assert!(!right("alice", "y") && !right("alice", "") && !right("bob", "x") && !right("bob", ""));
        assert!(!right("eve", "x") && !right("eve", ""));
    }

    #[test]
    fn the_password_itself_is_asked_for_where_it_is_configured() {
        let with = |cleartext| User {
            cleartext,
            ..User::with_password("", password("x"))
        };
        let users = Users::from([
            ("on".into(), with(Some(true))),
            ("off".into(), with(Some(false))),
            ("default".into(), with(None)),
        ]);
        for default in [false, true] {
            let logins = Logins::new(&users, default, Zeroizing::new([7; 32]));
            assert!(logins.wants_cleartext("on") && !logins.wants_cleartext("off"));
            assert_eq!(logins.wants_cleartext("default"), default);
            assert_eq!(logins.wants_cleartext("stranger"), default);
        }
    }
}
