//! A value as it was written, and where.
//!
//! Files, environment and flags all become [`Node`]s, so that every setting is
//! read by one piece of code and every complaint can say where the value came
//! from. Nodes may hold passwords: they have no `Debug`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a file, on a line counted from 1.
    File(PathBuf, u64),
    /// In an environment variable of this name.
    Environment(String),
    /// In a flag of this name, without dashes.
    Flag(String),
    /// Nowhere: it is the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Default => write!(f, "default"),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, and what would be right: one sentence without a full stop.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(origin: &Origin, message: impl Into<String>) -> Self {
        Self {
            origin: origin.clone(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Origin::Default => write!(f, "{}", self.message),
            _ => write!(f, "{}: {}", self.origin, self.message),
        }
    }
}

/// A value as written.
pub(crate) struct Node {
    pub origin: Origin,
    pub content: Content,
}

pub(crate) enum Content {
    /// Nothing after the colon, `~` or `null`.
    Nothing,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

pub(crate) struct Entry {
    pub key: String,
    pub origin: Origin,
    pub value: Node,
}

impl Node {
    pub fn text(origin: Origin, text: &str) -> Self {
        Self {
            origin,
            content: Content::Text(text.to_owned()),
        }
    }
}

/// Reads a YAML document. An empty one is an empty map.
pub(crate) fn parse_yaml(path: &Path, source: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        // A snippet would print lines of the file, passwords with them.
        with_snippet: false,
    };
    let empty = Spanned::new(
        Raw::Map(Vec::new()),
        serde_saphyr::Location::UNKNOWN,
        serde_saphyr::Location::UNKNOWN,
    );
    let blank = source
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let root = match blank {
        true => empty,
        false => serde_saphyr::from_str_with_options::<Spanned<Raw>>(source, options).map_err(|error| {
            let error = error.without_snippet();
            let line = error.location().map_or(0, |location| location.line());
            Problem {
                origin: Origin::File(path.to_path_buf(), line),
                message: format!("is not valid YAML: {error}"),
            }
        })?,
    };
    Ok(root.into_node(path, source))
}

/// The shape of a document. Plain scalars that YAML takes for numbers or
/// booleans stand as written: the setting decides what they are, so that a
/// password `0123` or `yes` stays what was typed.
enum Raw {
    Nothing,
    Plain,
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

trait IntoNode {
    fn into_node(self, path: &Path, source: &str) -> Node;
}

impl IntoNode for Spanned<Raw> {
    fn into_node(self, path: &Path, source: &str) -> Node {
        let origin = |location: serde_saphyr::Location| Origin::File(path.to_path_buf(), location.line());
        let content = match self.value {
            Raw::Nothing => Content::Nothing,
            Raw::Plain => Content::Text(written(self.defined, source).unwrap_or_default()),
            Raw::Text(text) => Content::Text(text),
            Raw::List(items) => Content::List(
                items
                    .into_iter()
                    .map(|item| item.into_node(path, source))
                    .collect(),
            ),
            Raw::Map(entries) => Content::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry {
                        origin: origin(key.referenced),
                        key: key.value,
                        value: value.into_node(path, source),
                    })
                    .collect(),
            ),
        };
        Node {
            origin: origin(self.referenced),
            content,
        }
    }
}

fn written(location: serde_saphyr::Location, source: &str) -> Option<String> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    Some(source.get(start..end)?.trim().to_owned())
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Nothing)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Node, Problem> {
        parse_yaml(Path::new("duckgres.yaml"), source)
    }

    #[test]
    fn plain_scalars_stand_as_they_were_written() {
        let document = parse("a: 0123\nb: yes\nc: 1_000\nd: \"0x10\"\ne: 1.50\nf:\ng: 0xff # why\n").unwrap();
        let Content::Map(entries) = document.content else {
            panic!("not a map")
        };
        let written: Vec<String> = entries
            .iter()
            .map(|entry| match &entry.value.content {
                Content::Text(text) => text.clone(),
                Content::Nothing => "(nothing)".into(),
                _ => panic!("not a scalar"),
            })
            .collect();
        assert_eq!(
            written,
            ["0123", "yes", "1_000", "0x10", "1.50", "(nothing)", "0xff"]
        );
        assert_eq!(entries[2].origin, Origin::File("duckgres.yaml".into(), 3));
    }

    #[test]
    fn nested_values_know_their_lines() {
        let document = parse("tls:\n  cert: a\n  key: b\nextensions:\n  - json\n  - icu\n").unwrap();
        let Content::Map(entries) = document.content else {
            panic!("not a map")
        };
        let Content::Map(tls) = &entries[0].value.content else {
            panic!("not a map")
        };
        assert_eq!(tls[1].origin, Origin::File("duckgres.yaml".into(), 3));
        let Content::List(list) = &entries[1].value.content else {
            panic!("not a list")
        };
        assert_eq!(list[1].origin, Origin::File("duckgres.yaml".into(), 6));
    }

    #[test]
    fn an_error_names_the_line_and_shows_no_text_of_the_file() {
        let problem = parse("users:\n  alice: hunter2\n  alice: hunter3\n")
            .err()
            .unwrap();
        assert_eq!(problem.origin, Origin::File("duckgres.yaml".into(), 3));
        assert!(!problem.message.contains("hunter"), "{problem}");
        let problem = parse("users:\n  alice: \"hunter2\n").err().unwrap();
        assert!(!problem.to_string().contains("hunter"), "{problem}");
    }

    #[test]
    fn an_empty_document_is_an_empty_map() {
        for source in ["", "\n", "# nothing\n  # here\n"] {
            let Content::Map(entries) = parse(source).unwrap().content else {
                panic!("not a map")
            };
            assert!(entries.is_empty());
        }
    }
}
