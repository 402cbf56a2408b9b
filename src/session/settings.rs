//! The session's parameters: what SET changes and SHOW tells.
//!
//! PostgreSQL's own parameters are kept here; those that DuckDB must know as
//! well are handed on. A SET inside a transaction is undone with it, a SET LOCAL
//! at its end. Source: PostgreSQL manual, chapter 20 and SET.

mod frozen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use frozen::Thawed;

use super::duration;
use super::error::SessionError;
use super::peer::Liveness;
use crate::encode;
use crate::sql::{Scope, policy, quote_literal};

/// A parameter that the server knows.
struct Known {
    /// As SHOW ALL and ParameterStatus write it.
    name: &'static str,
    default: &'static str,
    kind: Kind,
    /// Told to the client at the start and whenever it changes.
    reported: bool,
}

enum Kind {
    /// Cannot be set.
    Fixed,
    Bool,
    Integer,
    /// Milliseconds; 0 is no limit.
    Timeout(TimeoutOf),
    /// A number that the connection's socket is told.
    Liveness(LivenessOf),
    Text,
    /// One of these, in any case.
    Choice(&'static [&'static str]),
    /// Only this value (or one that begins with it) is supported.
    Only(&'static str),
    TimeZone,
    /// DuckDB keeps it under this name.
    Engine(&'static str),
}

const fn known(name: &'static str, default: &'static str, kind: Kind) -> Known {
    Known {
        name,
        default,
        kind,
        reported: false,
    }
}

const fn reported(name: &'static str, default: &'static str, kind: Kind) -> Known {
    Known {
        name,
        default,
        kind,
        reported: true,
    }
}

/// The version that clients take the server for.
pub const SERVER_VERSION: &str = "15.13";

const ISOLATION: Kind = Kind::Choice(&[
    "serializable",
    "repeatable read",
    "read committed",
    "read uncommitted",
]);
const MESSAGE_LEVELS: Kind = Kind::Choice(&[
    "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "notice", "info", "warning", "error",
]);

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    reported("application_name", "", Kind::Text),
    known("backslash_quote", "safe_encoding", Kind::Text),
    known("bytea_output", "hex", Kind::Only("hex")),
    known("check_function_bodies", "on", Kind::Bool),
    reported("client_encoding", "UTF8", Kind::Choice(&["UTF8", "UTF-8", "UNICODE", "SQL_ASCII"])),
    known("client_min_messages", "notice", MESSAGE_LEVELS),
    reported("DateStyle", "ISO, MDY", Kind::Only("iso")),
    known("default_transaction_isolation", "repeatable read", ISOLATION),
    reported("default_transaction_read_only", "off", Kind::Bool),
    known("escape_string_warning", "on", Kind::Bool),
    known("extra_float_digits", "1", Kind::Integer),
    known("idle_in_transaction_session_timeout", "0", Kind::Timeout(TimeoutOf::IdleInTransaction)),
    known("idle_session_timeout", "0", Kind::Timeout(TimeoutOf::IdleSession)),
    reported("in_hot_standby", "off", Kind::Fixed),
    reported("integer_datetimes", "on", Kind::Fixed),
    known("integer_division", "false", Kind::Engine("integer_division")),
    reported("IntervalStyle", "postgres", Kind::Only("postgres")),
    reported("is_superuser", "off", Kind::Fixed),
    known("jit", "off", Kind::Bool),
    known("lc_messages", "C", Kind::Text),
    known("lc_monetary", "C", Kind::Text),
    known("lc_numeric", "C", Kind::Text),
    known("lc_time", "C", Kind::Text),
    known("lock_timeout", "0", Kind::Text),
    known("max_identifier_length", "63", Kind::Fixed),
    known("row_security", "on", Kind::Bool),
    known("schema", "main", Kind::Engine("schema")),
    known("search_path", "main", Kind::Engine("search_path")),
    reported("server_encoding", "UTF8", Kind::Fixed),
    reported("server_version", SERVER_VERSION, Kind::Fixed),
    known("server_version_num", "150013", Kind::Fixed),
    reported("session_authorization", "", Kind::Fixed),
    reported("standard_conforming_strings", "on", Kind::Only("on")),
    known("statement_timeout", "0", Kind::Timeout(TimeoutOf::Statement)),
    known("synchronous_commit", "on", Kind::Text),
    known("tcp_keepalives_count", "3", Kind::Liveness(LivenessOf::Count)),
    known("tcp_keepalives_idle", "30", Kind::Liveness(LivenessOf::Idle)),
    known("tcp_keepalives_interval", "10", Kind::Liveness(LivenessOf::Interval)),
    known("tcp_user_timeout", "1min", Kind::Liveness(LivenessOf::UserTimeout)),
    reported("TimeZone", "UTC", Kind::TimeZone),
    known("transaction_isolation", "repeatable read", ISOLATION),
    known("transaction_read_only", "off", Kind::Bool),
    known("xmloption", "content", Kind::Text),
];

/// How long a session may do what; `None` is as long as it likes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Run a statement (`statement_timeout`).
    pub statement: Option<Duration>,
    /// Say nothing outside of a transaction (`idle_session_timeout`).
    pub idle_session: Option<Duration>,
    /// Say nothing inside one (`idle_in_transaction_session_timeout`).
    pub idle_in_transaction: Option<Duration>,
}

/// A field of [`Timeouts`].
#[derive(Debug, Clone, Copy)]
enum TimeoutOf {
    Statement,
    IdleSession,
    IdleInTransaction,
}

/// A field of [`Liveness`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LivenessOf {
    Idle,
    Interval,
    Count,
    UserTimeout,
}

impl LivenessOf {
    /// Keeps the value, if it is one, and says how it is shown.
    fn set(self, liveness: &mut Liveness, value: &str) -> Option<String> {
        let seconds = || value.trim().parse().ok().filter(|seconds| *seconds <= 32_767);
        match self {
            Self::Idle => liveness.idle = Duration::from_secs(seconds()?),
            Self::Interval => liveness.interval = Duration::from_secs(seconds()?),
            Self::Count => liveness.count = value.trim().parse().ok().filter(|count| *count <= 127)?,
            Self::UserTimeout => {
                liveness.user_timeout = duration::parse(value)?.unwrap_or_default();
                return Some(duration::show(liveness.user_timeout));
            }
        }
        Some(value.trim().to_owned())
    }
}

impl Timeouts {
    fn field(&mut self, which: TimeoutOf) -> &mut Option<Duration> {
        match which {
            TimeoutOf::Statement => &mut self.statement,
            TimeoutOf::IdleSession => &mut self.idle_session,
            TimeoutOf::IdleInTransaction => &mut self.idle_in_transaction,
        }
    }
}

/// The parameters of one session.
#[derive(Debug)]
pub struct Settings {
    /// What differs from the defaults, by the name's canonical form.
    values: BTreeMap<String, String>,
    /// What RESET goes back to where it is not the default.
    startup: BTreeMap<String, String>,
    /// Values from before the transaction, for ROLLBACK.
    before_transaction: BTreeMap<String, Option<String>>,
    /// Those of them that COMMIT restores as well, because SET LOCAL made them.
    local: BTreeMap<String, Option<String>>,
    time_zone: jiff::tz::TimeZone,
    timeouts: Timeouts,
    liveness: Liveness,
    /// What the server allows at most.
    limits: Timeouts,
    epoch: u64,
}

/// What must follow from a changed parameter.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// A statement that tells DuckDB.
    pub engine: Option<String>,
    /// [`Settings::liveness`] is another.
    pub liveness: bool,
    /// The canonical name and value, if the client is to be told.
    pub report: Option<(&'static str, String)>,
}

impl Settings {
    /// The defaults, for a session of `user`, whose timeouts the client may lower
    /// but not raise.
    pub fn new(user: &str, mut limits: Timeouts) -> Settings {
        let mut values = BTreeMap::from([("session_authorization".to_owned(), user.to_owned())]);
        for known in KNOWN {
            if let Kind::Timeout(which) = known.kind
                && let Some(limit) = limits.field(which)
            {
                values.insert(known.name.to_owned(), duration::show(*limit));
            }
        }
        Settings {
            startup: values.clone(),
            values,
            before_transaction: BTreeMap::new(),
            local: BTreeMap::new(),
            time_zone: jiff::tz::TimeZone::UTC,
            timeouts: limits,
            liveness: Liveness::default(),
            limits,
            epoch: 0,
        }
    }

    /// Sets a parameter from the startup message, which RESET then goes back to.
    pub fn set_at_start(&mut self, name: &str, value: &str) -> Result<Change, SessionError> {
        let change = self.assign(name, Some(value))?;
        if let Some(value) = self.values.get(&canonical(name)) {
            self.startup.insert(canonical(name), value.clone());
        }
        Ok(change)
    }

    /// SET; `None` is DEFAULT. `in_transaction` tells whether there is one to
    /// undo it with.
    pub fn set(
        &mut self,
        scope: Scope,
        name: &str,
        value: Option<&str>,
        in_transaction: bool,
    ) -> Result<Change, SessionError> {
        let key = canonical(name);
        let before = self.values.get(&key).cloned();
        let default = self.startup.get(&key).cloned();
        let change = self.assign(name, value.or(default.as_deref()))?;
        if in_transaction {
            self.before_transaction
                .entry(key.clone())
                .or_insert_with(|| before.clone());
            match scope {
                Scope::Local => {
                    self.local.entry(key).or_insert(before);
                }
                Scope::Session => {
                    self.local.remove(&key);
                }
            }
        }
        Ok(change)
    }

    /// RESET ALL.
    pub fn reset_all(&mut self, in_transaction: bool) -> Vec<Change> {
        let names: Vec<String> = self
            .values
            .keys()
            .filter(|name| !is_fixed(name))
            .cloned()
            .collect();
        names
            .iter()
            .filter_map(|name| self.set(Scope::Session, name, None, in_transaction).ok())
            .collect()
    }

    /// The transaction ended; what is to be undone is undone.
    pub fn end_transaction(&mut self, committed: bool) -> Vec<Change> {
        let local = std::mem::take(&mut self.local);
        let before = std::mem::take(&mut self.before_transaction);
        let undo = if committed { local } else { before };
        undo.iter()
            .filter_map(|(name, value)| self.assign(name, value.as_deref()).ok())
            .collect()
    }

    /// SHOW.
    pub fn show(&self, name: &str) -> Option<String> {
        let key = canonical(name);
        match self.values.get(&key) {
            Some(value) => Some(value.clone()),
            None => find(name).map(|known| known.default.to_owned()),
        }
    }

    /// SHOW ALL: all parameters by name.
    pub fn all(&self) -> Vec<(String, String)> {
        let mut all: BTreeMap<String, String> = KNOWN
            .iter()
            .map(|known| (known.name.to_owned(), known.default.to_owned()))
            .collect();
        all.extend(
            self.values
                .iter()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        all.into_iter().collect()
    }

    /// The parameters that a client is told at the start.
    pub fn reported(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        KNOWN.iter().filter(|known| known.reported).map(|known| {
            (
                known.name,
                self.values
                    .get(known.name)
                    .cloned()
                    .unwrap_or_else(|| known.default.to_owned()),
            )
        })
    }

    /// Is every transaction to be read only?
    pub fn read_only_by_default(&self) -> bool {
        self.show("default_transaction_read_only")
            .is_some_and(|value| value == "on")
    }

    /// How long the session may do what.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// How a dead client is found.
    pub fn liveness(&self) -> Liveness {
        self.liveness
    }

    /// What the encoder must know.
    pub fn encoding(&self) -> encode::Settings {
        let extra_float_digits = self
            .values
            .get("extra_float_digits")
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(1);
        encode::Settings {
            time_zone: self.time_zone.clone(),
            extra_float_digits,
        }
    }

    /// Changes whenever a parameter does: plans made before may be out of date.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn assign(&mut self, name: &str, value: Option<&str>) -> Result<Change, SessionError> {
        let Some(known) = find(name) else {
            // A customized option has a class; anybody may invent one.
            if !name.contains('.') {
                return Err(SessionError::new(
                    "42704",
                    format!("unrecognized configuration parameter \"{name}\""),
                ));
            }
            self.store(canonical(name), value.map(str::to_owned));
            return Ok(Change::default());
        };
        let Some(value) = value else {
            match known.kind {
                Kind::TimeZone => self.time_zone = jiff::tz::TimeZone::UTC,
                Kind::Timeout(which) => *self.timeouts.field(which) = None,
                Kind::Liveness(which) => drop(which.set(&mut self.liveness, known.default)),
                _ => {}
            }
            let mut change = known.change(known.default);
            if self.show(known.name).as_deref() == Some(known.default) {
                change.report = None;
            }
            self.store(known.name.to_owned(), None);
            return Ok(change);
        };
        let invalid = || {
            SessionError::new(
                "22023",
                format!("invalid value for parameter \"{}\": \"{value}\"", known.name),
            )
        };
        let value = match &known.kind {
            Kind::Fixed => {
                return Err(SessionError::new(
                    "55P02",
                    format!("parameter \"{}\" cannot be changed", known.name),
                ));
            }
            Kind::Bool => bool_value(value).map(str::to_owned).ok_or_else(|| {
                SessionError::new(
                    "22023",
                    format!("parameter \"{}\" requires a Boolean value", known.name),
                )
            })?,
            Kind::Integer => value
                .trim()
                .parse::<i32>()
                .map(|number| number.to_string())
                .map_err(|_| invalid())?,
            Kind::Timeout(which) => {
                let wanted = duration::parse(value).ok_or_else(invalid)?;
                let limit = *self.limits.field(*which);
                if limit.is_some_and(|limit| wanted.is_none_or(|wanted| wanted > limit)) {
                    return Err(SessionError::new(
                        "42501",
                        format!("permission denied to raise parameter \"{}\"", known.name),
                    )
                    .with_hint("The server's configuration has the highest value that is allowed."));
                }
                *self.timeouts.field(*which) = wanted;
                duration::show(wanted.unwrap_or_default())
            }
            Kind::Liveness(which) => which.set(&mut self.liveness, value).ok_or_else(invalid)?,
            Kind::Engine(_) if policy::names_the_catalogs(value) => return Err(invalid()),
            Kind::Text | Kind::Engine(_) => value.to_owned(),
            Kind::Choice(choices) => {
                let choice = choices
                    .iter()
                    .find(|choice| choice.eq_ignore_ascii_case(value))
                    .ok_or_else(invalid)?;
                // Names of the same encoding.
                if known.name == "client_encoding" {
                    "UTF8".to_owned()
                } else {
                    (*choice).to_owned()
                }
            }
            Kind::Only(only) => {
                if !value.to_lowercase().starts_with(only) {
                    return Err(SessionError::new(
                        "0A000",
                        format!(
                            "{} \"{value}\" is not supported, only \"{}\" is",
                            known.name, known.default
                        ),
                    ));
                }
                known.default.to_owned()
            }
            Kind::TimeZone => {
                let (zone, name) = time_zone(value).ok_or_else(invalid)?;
                self.time_zone = zone;
                name
            }
        };
        let mut change = known.change(&value);
        if self.show(known.name).as_ref() == Some(&value) {
            change.report = None;
        }
        self.store(known.name.to_owned(), Some(value));
        Ok(change)
    }

    fn store(&mut self, key: String, value: Option<String>) {
        self.epoch += 1;
        match value {
            Some(value) => self.values.insert(key, value),
            None => self.values.remove(&key),
        };
    }
}

impl Known {
    fn change(&self, value: &str) -> Change {
        let engine = match self.kind {
            Kind::Engine(name) => Some(format!("SET {name} = {}", quote_literal(value))),
            Kind::TimeZone => Some(format!("SET TimeZone = {}", quote_literal(value))),
            _ => None,
        };
        Change {
            engine,
            liveness: matches!(self.kind, Kind::Liveness(_)),
            report: self.reported.then(|| (self.name, value.to_owned())),
        }
    }
}

fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name))
}

fn is_fixed(name: &str) -> bool {
    find(name).is_some_and(|known| matches!(known.kind, Kind::Fixed))
}

fn canonical(name: &str) -> String {
    find(name).map_or_else(|| name.to_lowercase(), |known| known.name.to_owned())
}

/// PostgreSQL takes any unambiguous prefix of these words.
fn bool_value(value: &str) -> Option<&'static str> {
    let value = value.trim().to_ascii_lowercase();
    let is = |word: &str, shortest: usize| value.len() >= shortest && word.starts_with(&value);
    if value == "1" || is("on", 2) || is("true", 1) || is("yes", 1) {
        Some("on")
    } else if value == "0" || is("off", 2) || is("false", 1) || is("no", 1) {
        Some("off")
    } else {
        None
    }
}

/// A zone by its name, or by hours as in `SET TIME ZONE -5`; both DuckDB and the
/// encoder must know it under the name that is returned.
fn time_zone(value: &str) -> Option<(jiff::tz::TimeZone, String)> {
    if let Ok(hours) = value.parse::<i8>() {
        let offset = jiff::tz::Offset::from_hours(hours).ok()?;
        // In the names of these zones, west is positive.
        let name = if hours == 0 {
            "UTC".to_owned()
        } else {
            format!("Etc/GMT{:+}", -i16::from(hours))
        };
        return Some((jiff::tz::TimeZone::fixed(offset), name));
    }
    let zone = jiff::tz::TimeZone::get(value).ok()?;
    let name = zone.iana_name().unwrap_or(value).to_owned();
    Some((zone, name))
}
