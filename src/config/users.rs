//! The users of the configuration.

use std::collections::BTreeMap;

use super::names;
use super::node::{Content, Node, Problem};
use super::secret::{Password, SCRAM_PREFIX, Verifier};
use super::value::Value;

/// How a user proves who they are.
#[derive(Clone)]
pub enum Credential {
    /// The password itself, as the Go duckgres has it.
    Password(Password),
    /// What PostgreSQL keeps of a password.
    Verifier(Verifier),
}

/// Who may log in, by name.
pub type Users = BTreeMap<String, Credential>;

const KEYS: [&str; 2] = ["password", "verifier"];

impl Value for Users {
    const FORM: &'static str = "a map from user names to passwords or to maps with `password` or `verifier`";

    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let entries = match &node.content {
            Content::Nothing => return Ok(Self::new()),
            Content::Text(text) if text.is_empty() => return Ok(Self::new()),
            Content::Map(entries) => entries,
            _ => {
                return Err(vec![Problem::new(
                    &node.origin,
                    format!("must be {}", Self::FORM),
                )]);
            }
        };
        let mut users = Self::new();
        let mut problems = Vec::new();
        for entry in entries {
            if let Err(reason) = names::check(&entry.key) {
                problems.push(Problem::new(
                    &entry.origin,
                    format!("the user name {:?} {reason}", entry.key),
                ));
                continue;
            }
            match credential(&entry.value) {
                Ok(credential) => {
                    users.insert(entry.key.clone(), credential);
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        if problems.is_empty() {
            Ok(users)
        } else {
            Err(problems)
        }
    }
}

fn credential(node: &Node) -> Result<Credential, Vec<Problem>> {
    let wrong = |message: &str| Err(vec![Problem::new(&node.origin, message)]);
    match &node.content {
        Content::Text(text) if text.is_empty() => wrong("the password is empty"),
        // As ALTER ROLE ... PASSWORD does: what looks like a verifier is one.
        Content::Text(text) if text.starts_with(SCRAM_PREFIX) => verifier(node, text),
        Content::Text(text) => Ok(Credential::Password(Password::new(text.clone()))),
        Content::Map(entries) => {
            let unknown: Vec<Problem> = entries
                .iter()
                .filter(|entry| !KEYS.contains(&entry.key.as_str()))
                .map(|entry| {
                    let key = &entry.key;
                    Problem::new(
                        &entry.origin,
                        format!("unknown key {key:?}; a user has `password` or `verifier`"),
                    )
                })
                .collect();
            if !unknown.is_empty() {
                return Err(unknown);
            }
            match entries.as_slice() {
                [entry] => match &entry.value.content {
                    Content::Text(text) if entry.key == "verifier" => verifier(&entry.value, text),
                    _ => credential(&entry.value),
                },
                _ => wrong("must have either `password` or `verifier`"),
            }
        }
        _ => wrong("must be a password, or a map with `password` or `verifier`"),
    }
}

fn verifier(node: &Node, text: &str) -> Result<Credential, Vec<Problem>> {
    match Verifier::parse(text) {
        Some(verifier) => Ok(Credential::Verifier(verifier)),
        None => {
            let message =
                "is not a verifier of the form SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>";
            Err(vec![Problem::new(&node.origin, message)])
        }
    }
}
