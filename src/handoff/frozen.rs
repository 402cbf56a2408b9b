//! What a session carries with it besides its beginning: the part of
//! [`SessionState`](super::SessionState) that only sessions have which have run.

use std::hint::black_box;
use std::mem;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use zeroize::{Zeroize, Zeroizing};

use super::state::{StateError, present};
use crate::proto::{self, Setting};

/// The oldest format of [`Frozen`] that is read. Fields that came later are optional,
/// and mean without a value what was so before there were any.
const OLDEST: u32 = 1;

/// The format that is written. It goes up with every change that an older reader would
/// misunderstand, which includes fields that it would leave out. A text, so that of two
/// programs it can be told which takes up the sessions of the other without running
/// them: `grep -ao 'frozen sessions, format [0-9]*' duckgres-worker`.
#[used]
static WRITTEN: [u8; 28] = *b"frozen sessions, format 0002";

/// The formats of [`Frozen`] that this program reads. The last one is what it writes.
pub fn frozen_versions() -> RangeInclusive<u32> {
    // What the program's file says counts, and not what the compiler has read.
    let digits = black_box(&WRITTEN).iter().filter(|byte| byte.is_ascii_digit());
    OLDEST..=digits.fold(0, |number, digit| 10 * number + u32::from(digit - b'0'))
}

/// A session between two messages and outside of a transaction. Made by
/// [`Session::freeze`](crate::session::Session::freeze).
pub struct Frozen {
    /// Parameters that differ from their defaults.
    pub values: Vec<(String, String)>,
    /// What RESET goes back to where that is not the default.
    pub startup: Vec<(String, String)>,
    /// Where DuckDB looks for names, in its own words, if anybody has said.
    pub search_path: Option<String>,
    /// The prepared statements, those of the protocol and those of SQL.
    pub statements: Vec<FrozenStatement>,
    /// What SET VARIABLE has set.
    pub variables: Vec<FrozenVariable>,
    /// Its temporary tables and views; none in format 1.
    pub temporary: Option<FrozenTemporary>,
    /// Messages are passed over up to the next Sync.
    pub skip_until_sync: bool,
    /// Bytes for the socket that come before any others; over TLS, records.
    pub unsent_output: Zeroizing<Vec<u8>>,
    /// When the session began.
    pub began: SystemTime,
    /// When it was frozen.
    pub frozen: SystemTime,
    /// Since when it has been idle.
    pub state_change: SystemTime,
    /// The last statement, cut to what pg_stat_activity shows.
    pub query: String,
    /// When that began.
    pub query_start: Option<SystemTime>,
}

/// A prepared statement without its plan.
pub struct FrozenStatement {
    /// Empty for the unnamed one.
    pub name: String,
    /// Its text.
    pub sql: String,
    /// The parameter types that the client declared; 0 is undeclared.
    pub declared: Vec<u32>,
    /// The scale of its numeric parameters.
    pub numeric_scale: u8,
    /// SHA-256 of the row by which the client may know it.
    pub row: Option<[u8; 32]>,
}

/// A variable of SQL's.
pub struct FrozenVariable {
    /// Its name.
    pub name: String,
    /// Its type in SQL.
    pub sql_type: String,
    /// A text that is its value when cast to the type; `None` is NULL.
    pub value: Option<String>,
}

/// Temporary tables and views.
pub struct FrozenTemporary {
    /// Statements that make the tables, in their order.
    pub definitions: Vec<String>,
    /// What is in the tables.
    pub rows: Vec<FrozenRows>,
    /// Statements for when the rows are there, in their order.
    pub finishing: Vec<String>,
}

/// The rows of a temporary table.
pub struct FrozenRows {
    /// Its name.
    pub table: String,
    /// How many columns it has.
    pub columns: u32,
    /// Row after row its fields, each a text of DuckDB's behind its length in four bytes,
    /// little endian; of NULL the length is 2³² - 1.
    pub fields: Zeroizing<Vec<u8>>,
}

impl FrozenTemporary {
    /// In bytes, about.
    pub fn size(&self) -> usize {
        let statements = self.definitions.iter().chain(&self.finishing);
        let statements: usize = statements.map(|statement| statement.len() + 64).sum();
        let rows: usize = self.rows.iter().map(|rows| rows.fields.len() + 64).sum();
        statements + rows
    }

    fn encode(&self) -> Vec<u8> {
        let rows = self.rows.iter().map(|rows| {
            let mut message = proto::FrozenRows {
                table: rows.table.clone(),
                columns: rows.columns,
                fields: rows.fields.to_vec(),
            };
            let bytes = message.encode_to_vec();
            message.fields.zeroize();
            bytes
        });
        let mut message = proto::FrozenTemporary {
            definitions: self.definitions.clone(),
            rows: rows.collect(),
            finishing: self.finishing.clone(),
        };
        let bytes = message.encode_to_vec();
        message.rows.zeroize();
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<FrozenTemporary, StateError> {
        let mut message = proto::FrozenTemporary::decode(bytes)?;
        let rows = decoded(&message.rows, FrozenRows::decode);
        message.rows.zeroize();
        Ok(FrozenTemporary {
            definitions: message.definitions,
            rows: rows?,
            finishing: message.finishing,
        })
    }
}

impl FrozenRows {
    fn decode(bytes: &[u8]) -> Result<FrozenRows, StateError> {
        let message = proto::FrozenRows::decode(bytes)?;
        let fields = Zeroizing::new(message.fields);
        let one = 4 * message.columns as usize;
        if !fields.is_empty() && (one == 0 || one > fields.len()) {
            return Err(StateError::Field("rows of a temporary table"));
        }
        Ok(FrozenRows {
            table: present(message.table, "temporary table")?,
            columns: message.columns,
            fields,
        })
    }
}

/// Wipes what may hold a client's data; prost does not.
pub(super) fn wipe(message: &mut proto::Frozen) {
    message.unsent_output.zeroize();
    message.statements.zeroize();
    message.variables.zeroize();
    message.temporary.zeroize();
    message.query.zeroize();
}

impl Frozen {
    pub(super) fn to_message(&self) -> proto::Frozen {
        proto::Frozen {
            version: *frozen_versions().end(),
            values: settings(&self.values),
            startup: settings(&self.startup),
            search_path: self.search_path.clone(),
            statements: self.statements.iter().map(FrozenStatement::encode).collect(),
            variables: self.variables.iter().map(FrozenVariable::encode).collect(),
            temporary: self.temporary.as_ref().map(FrozenTemporary::encode),
            skip_until_sync: self.skip_until_sync,
            unsent_output: self.unsent_output.to_vec(),
            began: micros(self.began),
            frozen: micros(self.frozen),
            state_change: micros(self.state_change),
            query: self.query.clone(),
            query_start: self.query_start.map(micros),
        }
    }

    /// Takes the message apart. Its version comes first: of another one, nothing
    /// else can be judged.
    pub(super) fn from_message(message: &mut proto::Frozen) -> Result<Frozen, StateError> {
        if !frozen_versions().contains(&message.version) {
            return Err(StateError::Version(message.version));
        }
        Ok(Frozen {
            values: pairs(mem::take(&mut message.values))?,
            startup: pairs(mem::take(&mut message.startup))?,
            search_path: message.search_path.take(),
            statements: decoded(&message.statements, FrozenStatement::decode)?,
            variables: decoded(&message.variables, FrozenVariable::decode)?,
            temporary: message
                .temporary
                .as_deref()
                .map(FrozenTemporary::decode)
                .transpose()?,
            skip_until_sync: message.skip_until_sync,
            unsent_output: Zeroizing::new(mem::take(&mut message.unsent_output)),
            began: time(message.began),
            frozen: time(message.frozen),
            state_change: time(message.state_change),
            query: mem::take(&mut message.query),
            query_start: message.query_start.map(time),
        })
    }
}

/// Allocates once and no more than it needs: a vector that grows by doubling would
/// take much for many empty messages.
fn decoded<T>(
    messages: &[Vec<u8>],
    decode: impl Fn(&[u8]) -> Result<T, StateError>,
) -> Result<Vec<T>, StateError> {
    let mut all = Vec::with_capacity(messages.len());
    for bytes in messages {
        all.push(decode(bytes)?);
    }
    Ok(all)
}

impl FrozenStatement {
    fn encode(&self) -> Vec<u8> {
        proto::FrozenStatement {
            name: self.name.clone(),
            sql: self.sql.clone(),
            declared: self.declared.clone(),
            numeric_scale: self.numeric_scale.into(),
            row: self.row.map_or_else(Vec::new, |row| row.to_vec()),
        }
        .encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<FrozenStatement, StateError> {
        let message = proto::FrozenStatement::decode(bytes)?;
        Ok(FrozenStatement {
            name: message.name,
            sql: message.sql,
            declared: message.declared,
            numeric_scale: u8::try_from(message.numeric_scale)
                .ok()
                .filter(|scale| *scale <= 38)
                .ok_or(StateError::Field("scale of numbers"))?,
            row: match &message.row[..] {
                [] => None,
                row => Some(
                    row.try_into()
                        .map_err(|_| StateError::Field("description of a row"))?,
                ),
            },
        })
    }
}

impl FrozenVariable {
    fn encode(&self) -> Vec<u8> {
        proto::FrozenVariable {
            name: self.name.clone(),
            r#type: self.sql_type.clone(),
            value: self.value.clone(),
        }
        .encode_to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<FrozenVariable, StateError> {
        let message = proto::FrozenVariable::decode(bytes)?;
        Ok(FrozenVariable {
            name: present(message.name, "variable")?,
            sql_type: present(message.r#type, "variable")?,
            value: message.value,
        })
    }
}

fn settings(pairs: &[(String, String)]) -> Vec<Setting> {
    pairs
        .iter()
        .map(|(name, value)| Setting {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

pub(super) fn pairs(settings: Vec<Setting>) -> Result<Vec<(String, String)>, StateError> {
    let mut pairs = Vec::with_capacity(settings.len());
    for Setting { name, value } in settings {
        // Both go into messages that end strings with a zero byte.
        if value.contains('\0') {
            return Err(StateError::Field("setting"));
        }
        pairs.push((present(name, "setting")?, value));
    }
    Ok(pairs)
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn time(micros: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_micros(micros))
        .unwrap_or(UNIX_EPOCH)
}
