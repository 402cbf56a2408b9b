//! The users of the configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::node::{Content, Entry, Node, Problem};
use super::secret::{Password, SCRAM_PREFIX, Verifier};
use super::units::Scalar;
use super::value::Value;

/// How a user proves who they are.
#[derive(Clone)]
pub enum Credential {
    /// The password itself, as the Go duckgres has it.
    Password(Password),
    /// What PostgreSQL keeps of a password.
    Verifier(Verifier),
}

/// What is configured about one user.
#[derive(Clone)]
pub struct User {
    /// Without one no password is right: the user logs in over the Unix
    /// socket, or not at all.
    pub credential: Option<Credential>,
    /// Where the user may connect to.
    pub databases: Databases,
    /// Whether the user may create databases and see everybody's sessions.
    pub admin: bool,
    /// Whether the user is asked for the password itself inside TLS, instead
    /// of for a proof of it; `None` leaves it to `auth.cleartext`.
    pub cleartext: Option<bool>,
}

impl User {
    /// A user of this name with nothing but a password.
    pub fn with_password(name: &str, password: Password) -> Self {
        Self {
            credential: Some(Credential::Password(password)),
            databases: Databases::only(name),
            admin: false,
            cleartext: None,
        }
    }
}

/// A set of databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Databases {
    /// Every one that exists.
    All,
    /// Those of these names.
    Named(BTreeSet<String>),
}

impl Databases {
    /// One database.
    pub fn only(name: &str) -> Self {
        Self::Named(BTreeSet::from([name.to_owned()]))
    }

    /// Whether the database is one of them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// Who may log in, by name.
pub type Users = BTreeMap<String, User>;

impl Value for Users {
    const FORM: &'static str =
        "a map from user names to passwords, or to maps of password, verifier, databases, admin, cleartext";

    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let entries = match &node.content {
            Content::Nothing => return Ok(Self::new()),
            Content::Text(text) if text.is_empty() => return Ok(Self::new()),
            Content::Map(entries) => entries,
            _ => return Err(wrong(node, format!("must be {}", Self::FORM))),
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
            match user(&entry.key, &entry.value) {
                Ok(user) => drop(users.insert(entry.key.clone(), user)),
                Err(wrong) => problems.extend(wrong),
            }
        }
        match problems.is_empty() {
            true => Ok(users),
            false => Err(problems),
        }
    }
}

fn wrong(node: &Node, message: impl Into<String>) -> Vec<Problem> {
    vec![Problem::new(&node.origin, message)]
}

fn user(name: &str, node: &Node) -> Result<User, Vec<Problem>> {
    match &node.content {
        Content::Text(_) => Ok(User {
            credential: Some(password(node)?),
            databases: Databases::only(name),
            admin: false,
            cleartext: None,
        }),
        Content::Map(entries) => from_map(name, node, entries),
        _ => Err(wrong(
            node,
            "must be a password, or a map with `password` or `verifier`",
        )),
    }
}

fn from_map(name: &str, node: &Node, entries: &[Entry]) -> Result<User, Vec<Problem>> {
    let mut problems = Vec::new();
    let (mut credentials, mut databases, mut admin, mut cleartext) = (Vec::new(), None, false, None);
    for Entry { key, origin, value } in entries {
        let read = match key.as_str() {
            "password" => password(value).map(|it| credentials.push(it)),
            "verifier" => verifier(value).map(|it| credentials.push(it)),
            "databases" => databases_of(value).map(|it| databases = Some(it)),
            "admin" => bool::read(value).map(|it| admin = it),
            "cleartext" => bool::read(value).map(|it| cleartext = Some(it)),
            _ => {
                let message = format!(
                    "unknown key {key:?}; a user has password, verifier, databases, admin and cleartext"
                );
                Err(vec![Problem::new(origin, message)])
            }
        };
        problems.extend(
            read.err()
                .into_iter()
                .flatten()
                .map(|problem| match key.as_str() {
                    "databases" | "admin" | "cleartext" => Problem {
                        message: format!("{key} {}", problem.message),
                        ..problem
                    },
                    _ => problem,
                }),
        );
    }
    if credentials.len() > 1 || entries.is_empty() {
        problems.extend(wrong(node, "must have either `password` or `verifier`"));
    }
    match problems.is_empty() {
        true => Ok(User {
            credential: credentials.pop(),
            databases: databases.unwrap_or_else(|| match admin {
                true => Databases::All,
                false => Databases::only(name),
            }),
            admin,
            cleartext,
        }),
        false => Err(problems),
    }
}

fn password(node: &Node) -> Result<Credential, Vec<Problem>> {
    match &node.content {
        // As ALTER ROLE ... PASSWORD does: what looks like a verifier is one.
        Content::Text(text) if text.starts_with(SCRAM_PREFIX) => verifier(node),
        Content::Text(text) if !text.is_empty() => Ok(Credential::Password(Password::new(text.clone()))),
        Content::Text(_) | Content::Nothing => Err(wrong(node, "the password is empty")),
        _ => Err(wrong(node, "the password must be text")),
    }
}

fn verifier(node: &Node) -> Result<Credential, Vec<Problem>> {
    let parsed = match &node.content {
        Content::Text(text) => Verifier::parse(text),
        _ => None,
    };
    parsed.map(Credential::Verifier).ok_or_else(|| {
        wrong(
            node,
            "is not a verifier of the form SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>",
        )
    })
}

/// A database's name, or `*`.
struct DatabaseName(String);

impl Scalar for DatabaseName {
    const FORM: &'static str = "a database name, or * for every database";

    fn scan(text: &str) -> Option<Self> {
        names::check(text).is_ok().then(|| Self(text.to_owned()))
    }
}

fn databases_of(node: &Node) -> Result<Databases, Vec<Problem>> {
    let names: Vec<DatabaseName> = Vec::read(node)?;
    if names.is_empty() {
        return Err(wrong(node, "must name a database, or be * for every database"));
    }
    if names.iter().any(|DatabaseName(name)| name == "*") {
        return Ok(Databases::All);
    }
    Ok(Databases::Named(
        names.into_iter().map(|DatabaseName(name)| name).collect(),
    ))
}
