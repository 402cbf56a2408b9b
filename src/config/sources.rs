//! Flags, environment and file brought together by precedence.

use std::collections::HashMap;
use std::path::Path;

use zeroize::Zeroizing;

use super::node::{Content, Entry, Node, Origin, Problem, parse_yaml};
use super::settings::{ELSEWHERE, SETTINGS, Setting, setting};
use super::value::Value;

/// The settings that a credential may hold.
const FROM_CREDENTIALS: [&str; 3] = ["tls.cert", "tls.key", "users"];

/// For each setting the value that wins. Later additions never displace
/// earlier ones: add flags, then the environment, then credentials, then the file.
#[derive(Default)]
pub(crate) struct Sources {
    given: HashMap<&'static str, Node>,
}

impl Sources {
    /// Adds a value unless a stronger source has given one.
    pub fn add(&mut self, setting: &'static Setting, node: Node) {
        self.given.entry(setting.name).or_insert(node);
    }

    /// Adds the variables that settings have. Returns a note for each other
    /// variable with our prefix: not an error, because orchestrators make
    /// such variables of their own (`DUCKGRES_SERVICE_HOST`).
    pub fn add_environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Vec<String> {
        let mut notes = Vec::new();
        for (name, value) in variables.filter(|(name, _)| name.starts_with("DUCKGRES_")) {
            match SETTINGS.iter().find(|setting| setting.env == name) {
                Some(setting) => self.add(setting, Node::text(Origin::Environment(name), &value)),
                // The latter is between two control planes, at a reload.
                None if ["DUCKGRES_CONFIG", "DUCKGRES_PREDECESSOR_FD"].contains(&name.as_str()) => {}
                None => {
                    let near = nearest(&name, SETTINGS.iter().map(|setting| setting.env));
                    notes.push(format!(
                        "environment variable {name} has no meaning{}",
                        suggestion(near)
                    ));
                }
            }
        }
        notes
    }

    /// Adds systemd's credentials, which have the names of the settings that they
    /// are for: `tls.cert` and `tls.key` are used where they are, `users` is a YAML
    /// map like the setting. Source: systemd.exec(5), CREDENTIALS.
    pub fn add_credentials(&mut self, directory: &Path, problems: &mut Vec<Problem>) {
        for setting in SETTINGS
            .iter()
            .filter(|setting| FROM_CREDENTIALS.contains(&setting.name))
        {
            let path = directory.join(setting.name);
            if !path.is_file() {
                continue;
            }
            let origin = Origin::File(path.clone(), 0);
            if setting.name != "users" {
                self.add(setting, Node::text(origin, &path.display().to_string()));
                continue;
            }
            let source = match std::fs::read_to_string(&path) {
                Ok(source) => Zeroizing::new(source),
                Err(error) => {
                    problems.push(Problem::new(&origin, format!("cannot be read ({error})")));
                    continue;
                }
            };
            match parse_yaml(&path, &source) {
                Ok(node) => self.add(setting, node),
                Err(problem) => problems.push(problem),
            }
        }
    }

    /// Adds a YAML file's values.
    pub fn add_file(&mut self, path: &Path, problems: &mut Vec<Problem>) {
        let source = match std::fs::read_to_string(path) {
            Ok(source) => source,
            Err(error) => {
                let message = format!("cannot be read ({error})");
                return problems.push(Problem::new(&Origin::File(path.to_path_buf(), 0), message));
            }
        };
        match parse_yaml(path, &source) {
            Ok(Node {
                content: Content::Map(entries),
                ..
            }) => self.add_entries("", entries, problems),
            Ok(node) => problems.push(Problem::new(&node.origin, "must be a map of settings")),
            Err(problem) => problems.push(problem),
        }
    }

    fn add_entries(&mut self, prefix: &str, entries: Vec<Entry>, problems: &mut Vec<Problem>) {
        for entry in entries {
            let name = format!("{prefix}{}", entry.key);
            let inside = format!("{name}.");
            let group = SETTINGS.iter().any(|setting| setting.name.starts_with(&inside));
            if let Some(setting) = setting(&name) {
                // Twice in this file; a credential is another one, and wins.
                if let Some(Origin::File(path, line)) = self.given.get(setting.name).map(|node| &node.origin)
                    && matches!(&entry.origin, Origin::File(this, _) if this == path)
                {
                    let message = format!("{name} is the same as {} on line {line}", setting.name);
                    problems.push(Problem::new(&entry.origin, message));
                }
                self.add(setting, entry.value);
            } else if group {
                match entry.value.content {
                    Content::Map(entries) => self.add_entries(&inside, entries, problems),
                    Content::Nothing => {}
                    _ => problems.push(Problem::new(&entry.origin, format!("{name} must be a map"))),
                }
            } else if ELSEWHERE.contains(&entry.key.as_str()) {
                let message =
                    format!("{name} is a setting of the Go duckgres that has no meaning here; remove it");
                problems.push(Problem::new(&entry.origin, message));
            } else {
                let names = SETTINGS
                    .iter()
                    .flat_map(|setting| setting.aliases.iter().chain([&setting.name]));
                let message = format!(
                    "unknown key {name:?}{}",
                    suggestion(nearest(&name, names.copied()))
                );
                problems.push(Problem::new(&entry.origin, message));
            }
        }
    }

    /// The value of a setting: what was given, or else, and after a problem
    /// with it so that the rest can be checked too, the default.
    pub fn read<T: Value>(
        &self,
        name: &'static str,
        default: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        match self.given.get(name).map(T::read) {
            Some(Ok(value)) => return Some(value),
            Some(Err(wrong)) => problems.extend(wrong.into_iter().map(|problem| match problem.origin {
                // A flag or variable names the setting already.
                Origin::Flag(_) | Origin::Environment(_) => problem,
                _ => Problem {
                    message: format!("{name}: {}", problem.message),
                    ..problem
                },
            })),
            None => {}
        }
        T::read(&Node::text(Origin::Default, default)).ok()
    }

    /// Where a setting's value was written.
    pub fn origin(&self, name: &str) -> Origin {
        self.given
            .get(name)
            .map_or(Origin::Default, |node| node.origin.clone())
    }
}

fn suggestion(near: Option<&str>) -> String {
    near.map(|name| format!("; did you mean {name:?}?"))
        .unwrap_or_default()
}

/// The candidate with the smallest edit distance, if it is small enough to be
/// a slip of the fingers.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .filter(|candidate| !candidate.is_empty())
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance in bytes, two swapped neighbours counting as one edit
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let substituted = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = substituted.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}
