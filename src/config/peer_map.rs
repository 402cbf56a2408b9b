//! Which users of the operating system may log in as which users of the server.

use std::collections::BTreeMap;

use super::names;
use super::node::{Content, Node, Problem};
use super::units::Scalar;
use super::value::Value;

/// The value of `auth.peer_map`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMap(BTreeMap<String, Vec<UserName>>);

/// A user's name, or `*` for every user.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UserName(String);

impl Scalar for UserName {
    const FORM: &'static str = "a user name, or * for every user";

    fn scan(text: &str) -> Option<Self> {
        names::check(text).is_ok().then(|| Self(text.to_owned()))
    }
}

impl PeerMap {
    /// Whether this user of the operating system may log in as `user`. Who is
    /// not in the map may log in under their own name.
    pub fn allows(&self, os_user: &str, user: &str) -> bool {
        match self.0.get(os_user) {
            Some(users) => users.iter().any(|UserName(name)| name == "*" || name == user),
            None => os_user == user,
        }
    }

    /// All users that the map names.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        let names = self.0.values().flatten().map(|UserName(name)| name.as_str());
        names.filter(|name| *name != "*")
    }
}

impl Value for PeerMap {
    const FORM: &'static str = "a map from operating system users to lists of users";

    fn read(node: &Node) -> Result<Self, Vec<Problem>> {
        let entries = match &node.content {
            Content::Nothing => return Ok(Self::default()),
            Content::Text(text) if text.is_empty() => return Ok(Self::default()),
            Content::Map(entries) => entries,
            _ => {
                let message = format!("must be {}", Self::FORM);
                return Err(vec![Problem::new(&node.origin, message)]);
            }
        };
        let mut map = BTreeMap::new();
        let mut problems = Vec::new();
        for entry in entries {
            match Vec::read(&entry.value) {
                Ok(users) => drop(map.insert(entry.key.clone(), users)),
                Err(wrong) => problems.extend(wrong),
            }
        }
        match problems.is_empty() {
            true => Ok(Self(map)),
            false => Err(problems),
        }
    }
}
