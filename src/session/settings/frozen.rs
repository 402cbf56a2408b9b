//! Parameters that go on in another process.

use std::collections::BTreeMap;

use super::{Kind, Settings, Timeouts, canonical, duration, find, is_fixed};

/// What thawed parameters ask for.
#[derive(Debug)]
pub struct Thawed {
    /// The parameters.
    pub settings: Settings,
    /// Those that DuckDB must be told, by name, each with the statement that
    /// does it.
    pub engine: Vec<(&'static str, String)>,
    /// The names of those that this server does not know, or not with that value.
    pub dropped: Vec<String>,
}

type Pairs = Vec<(String, String)>;

impl Settings {
    /// What differs from the defaults, and what RESET goes back to. Outside of a
    /// transaction that is all there is.
    pub fn freeze(&self) -> (Pairs, Pairs) {
        let pairs = |map: &BTreeMap<String, String>| {
            map.iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        (pairs(&self.values), pairs(&self.startup))
    }

    /// How many bytes they are about.
    pub fn size(&self) -> usize {
        self.values
            .iter()
            .chain(&self.startup)
            .map(|(name, value)| name.len() + value.len() + 16)
            .sum()
    }

    /// Has the client said where names are looked for?
    pub fn sets_search_path(&self) -> bool {
        SEARCH_PATHS.iter().any(|name| self.values.contains_key(*name))
    }

    /// The parameters of a session of `user` that comes from another process. Of
    /// timeouts the smaller counts: the session's, or the server's limit.
    pub fn thaw(user: &str, limits: Timeouts, values: Pairs, startup: Pairs) -> Thawed {
        let mut settings = Settings::new(user, limits);
        let mut dropped = Vec::new();
        for (name, value) in startup {
            let value = settings.limited(&name, value);
            if is_fixed(&name) {
                continue;
            }
            match settings.assign(&name, Some(&value)) {
                Ok(_) => {
                    let name = canonical(&name);
                    if let Some(value) = settings.values.get(&name) {
                        settings.startup.insert(name, value.clone());
                    }
                }
                Err(_) => dropped.push(name),
            }
        }
        let mut engine = Vec::new();
        for (name, value) in values {
            let value = settings.limited(&name, value);
            if is_fixed(&name) {
                continue;
            }
            match settings.assign(&name, Some(&value)) {
                Ok(change) => {
                    if let (Some(statement), Some(known)) = (change.engine, find(&name))
                        && !SEARCH_PATHS.contains(&known.name)
                    {
                        engine.push((known.name, statement));
                    }
                }
                Err(_) if !dropped.contains(&name) => dropped.push(name),
                Err(_) => {}
            }
        }
        Thawed {
            settings,
            engine,
            dropped,
        }
    }

    /// Goes back to the default: DuckDB did not take the value.
    pub fn drop_value(&mut self, name: &str) {
        let _ = self.assign(name, None);
        self.startup.remove(&canonical(name));
    }

    fn limited(&mut self, name: &str, value: String) -> String {
        let Some(Kind::Timeout(which)) = find(name).map(|known| &known.kind) else {
            return value;
        };
        let limit = *self.limits.field(*which);
        match (duration::parse(&value), limit) {
            (Some(wanted), Some(limit)) if wanted.is_none_or(|wanted| wanted > limit) => {
                duration::show(limit)
            }
            _ => value,
        }
    }
}

/// Two names for one thing of DuckDB's, which tells itself what it is.
const SEARCH_PATHS: [&str; 2] = ["schema", "search_path"];
