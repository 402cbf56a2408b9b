//! Temporary tables and views on their way to another process: the statements that make
//! them again, and their rows as texts.
//!
//! That these say all is not taken for granted. It is tried when they are packed, on
//! another connection to the same database, which has temporary objects of its own; if
//! what comes about is not the same in all that can be seen of it, the session stays
//! where it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use zeroize::Zeroizing;

use super::error::SessionError;
use crate::engine::{Appender, COPY_INPUT, Connection, Error};
use crate::handoff::{FrozenRows, FrozenTemporary};
use crate::sql::{quote_identifier, quote_literal};

/// What one session's rows may have in bytes, as texts.
const LARGEST: usize = 16 << 20;

/// What those of all sessions of a process may have together.
const LARGEST_OF_ALL: usize = 256 << 20;

/// In place of a field's length.
const NULL: u32 = u32::MAX;

/// Memory for what sessions carry along.
#[derive(Debug, Default)]
pub struct Room(AtomicUsize);

/// A part of it, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    pub(super) fn take(self: &Arc<Room>, bytes: usize) -> Option<Taken> {
        let more = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= LARGEST_OF_ALL);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Taken {
            room: self.clone(),
            bytes,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why what there is cannot be carried along.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bound {
    /// It has no form that is known to say all.
    #[error("of a kind that is not carried")]
    Kind,
    /// It is too much.
    #[error("too large")]
    Size,
    /// It does not become the same again.
    #[error("not the same again")]
    Different,
    /// DuckDB does not do it.
    #[error("{}", .0.message)]
    Engine(SessionError),
}

impl From<Error> for Bound {
    fn from(error: Error) -> Bound {
        Bound::Engine(error.into())
    }
}

impl From<SessionError> for Bound {
    fn from(error: SessionError) -> Bound {
        Bound::Engine(error)
    }
}

/// What dies with its connection and is not carried along. What a PIVOT leaves is made
/// again by the next one. DuckDB writes a sequence's next value and not its last one, of
/// a macro no statement at all, and of what refers to other rows no order.
const NOT_CARRIED: &str = "SELECT '' WHERE \
    EXISTS (FROM duckdb_sequences() WHERE temporary) OR \
    EXISTS (FROM duckdb_functions() WHERE database_name = 'temp' AND NOT internal) OR \
    EXISTS (FROM duckdb_types() WHERE database_name = 'temp' AND NOT internal \
        AND NOT starts_with(type_name, '__pivot_enum_')) OR \
    EXISTS (FROM duckdb_schemas() WHERE database_name = 'temp' AND NOT internal) OR \
    EXISTS (FROM duckdb_tables() WHERE temporary AND NOT internal \
        AND (schema_name <> 'main' OR contains(sql, 'GENERATED ALWAYS AS') OR contains(sql, 'FOREIGN KEY')))";

const TABLES: &str = "SELECT table_name, sql FROM duckdb_tables() \
    WHERE temporary AND NOT internal ORDER BY table_oid";

/// What is made when the rows are there: indexes, views, comments.
const FINISHING: &str = "SELECT text FROM ( \
    SELECT 1 AS step, index_oid AS place, sql AS text FROM duckdb_indexes() \
        WHERE database_name = 'temp' AND sql IS NOT NULL UNION ALL \
    SELECT 2, view_oid, sql FROM duckdb_views() WHERE temporary AND NOT internal UNION ALL \
    SELECT 3, table_oid, format('COMMENT ON TABLE temp.main.{} IS {}', \
        '\"' || replace(table_name, '\"', '\"\"') || '\"', '''' || replace(comment, '''', '''''') || '''') \
        FROM duckdb_tables() WHERE temporary AND NOT internal AND comment IS NOT NULL UNION ALL \
    SELECT 4, view_oid, format('COMMENT ON VIEW temp.main.{} IS {}', \
        '\"' || replace(view_name, '\"', '\"\"') || '\"', '''' || replace(comment, '''', '''''') || '''') \
        FROM duckdb_views() WHERE temporary AND NOT internal AND comment IS NOT NULL UNION ALL \
    SELECT 5, index_oid, format('COMMENT ON INDEX temp.main.{} IS {}', \
        '\"' || replace(index_name, '\"', '\"\"') || '\"', '''' || replace(comment, '''', '''''') || '''') \
        FROM duckdb_indexes() WHERE database_name = 'temp' AND comment IS NOT NULL UNION ALL \
    SELECT 6, table_oid, format('COMMENT ON COLUMN temp.main.{}.{} IS {}', \
        '\"' || replace(table_name, '\"', '\"\"') || '\"', '\"' || replace(column_name, '\"', '\"\"') || '\"', \
        '''' || replace(comment, '''', '''''') || '''') \
        FROM duckdb_columns() WHERE database_name = 'temp' AND NOT internal AND comment IS NOT NULL \
    ) ORDER BY step, place";

/// All that can be seen of temporary objects, but for rows.
const SEEN: [&str; 5] = [
    "SELECT schema_name, table_name, sql, comment, has_primary_key::VARCHAR FROM duckdb_tables() \
        WHERE temporary AND NOT internal ORDER BY table_name",
    "SELECT table_name, column_name, data_type, column_default, is_nullable::VARCHAR, comment \
        FROM duckdb_columns() WHERE database_name = 'temp' AND NOT internal ORDER BY table_name, column_index",
    "SELECT table_name, constraint_text, constraint_name FROM duckdb_constraints() \
        WHERE database_name = 'temp' ORDER BY table_name, constraint_text, constraint_name",
    "SELECT index_name, table_name, sql, comment, is_unique::VARCHAR FROM duckdb_indexes() \
        WHERE database_name = 'temp' ORDER BY index_name",
    "SELECT view_name, sql, comment FROM duckdb_views() WHERE temporary AND NOT internal ORDER BY view_name",
];

/// Packs the temporary objects of a connection that runs nothing. `prepare` has another
/// one understand statements as this one does.
pub(super) fn pack(
    connection: &Connection,
    prepare: impl FnOnce(&Connection) -> Result<(), Error>,
) -> Result<Option<FrozenTemporary>, Bound> {
    if !texts(connection, NOT_CARRIED)?.is_empty() {
        return Err(Bound::Kind);
    }
    let mut packed = FrozenTemporary {
        definitions: Vec::new(),
        rows: Vec::new(),
        finishing: texts(connection, FINISHING)?.into_iter().flatten().collect(),
    };
    let (mut names, mut room) = (Vec::new(), LARGEST);
    let mut tables = texts(connection, TABLES)?.into_iter();
    while let (Some(Some(name)), Some(Some(sql))) = (tables.next(), tables.next()) {
        packed.definitions.push(sql);
        names.push(name);
    }
    if names.is_empty() && packed.finishing.is_empty() {
        return Ok(None);
    }
    for name in &names {
        let rows = read(connection, name, room)?;
        room -= rows.fields.len();
        packed.rows.push(rows);
    }
    let rehearsal = connection.instance().connect()?;
    prepare(&rehearsal)?;
    unpack(&rehearsal, &packed)?;
    match seen(connection, &names)? == seen(&rehearsal, &names)? {
        true => Ok(Some(packed)),
        false => Err(Bound::Different),
    }
}

/// Makes them again, on a connection that has none.
pub(super) fn unpack(connection: &Connection, packed: &FrozenTemporary) -> Result<(), SessionError> {
    for definition in &packed.definitions {
        connection.run(definition)?;
    }
    for rows in packed.rows.iter().filter(|rows| !rows.fields.is_empty()) {
        connection.run("BEGIN TRANSACTION")?;
        write(connection, rows)?;
        connection.run("COMMIT")?;
    }
    for statement in &packed.finishing {
        connection.run(statement)?;
    }
    Ok(())
}

fn table(name: &str) -> String {
    format!("temp.main.{}", quote_identifier(name))
}

/// The rows in their order, of no more than `room` bytes.
fn read(connection: &Connection, name: &str, room: usize) -> Result<FrozenRows, Bound> {
    let query = format!("SELECT CAST(COLUMNS(*) AS VARCHAR) FROM {}", table(name));
    let mut result = connection.prepare(&query)?.stream()?;
    let (mut columns, mut fields) = (0, Zeroizing::new(Vec::new()));
    while let Some(chunk) = result.next_chunk()? {
        columns = chunk.column_count();
        let vectors: Vec<_> = (0..columns)
            .map(|column| chunk.column(column).strings())
            .collect();
        for row in 0..chunk.len() {
            for strings in &vectors {
                let field = strings.as_ref().ok_or(Bound::Kind)?.get(row);
                let length = field.map_or(Some(NULL), |text| u32::try_from(text.len()).ok());
                fields.extend_from_slice(&length.ok_or(Bound::Size)?.to_le_bytes());
                fields.extend_from_slice(field.unwrap_or_default());
            }
            if fields.len() > room {
                return Err(Bound::Size);
            }
        }
    }
    Ok(FrozenRows {
        table: name.to_owned(),
        columns: u32::try_from(columns).map_err(|_| Bound::Size)?,
        fields,
    })
}

fn write(connection: &Connection, rows: &FrozenRows) -> Result<(), SessionError> {
    let insert = format!("INSERT INTO {} SELECT * FROM {COPY_INPUT}", table(&rows.table));
    let columns = rows.columns as usize;
    let mut appender = Appender::new(connection, &insert, columns)?;
    let mut rest = rows.fields.as_slice();
    let mut row = Vec::with_capacity(columns.min(rest.len()));
    while !rest.is_empty() {
        row.clear();
        for _ in 0..columns {
            let field = take_field(&mut rest);
            row.push(field.ok_or_else(|| SessionError::new("XX001", "the rows are cut off"))?);
        }
        appender.append(row.iter().copied())?;
    }
    Ok(appender.flush()?)
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == NULL {
        *rest = after;
        return Some(None);
    }
    let (field, after) = after.split_at_checked(length as usize)?;
    *rest = after;
    Some(Some(field))
}

/// All that can be seen of the temporary objects, with digests of these tables' rows.
fn seen(connection: &Connection, tables: &[String]) -> Result<Vec<Option<String>>, Error> {
    let mut all = Vec::new();
    for query in SEEN {
        all.push(Some(query.to_owned()));
        all.extend(texts(connection, query)?);
    }
    for name in tables {
        let digest = format!(
            "SELECT {}, count(*)::VARCHAR, sum(hash(\"a row\")::HUGEINT)::VARCHAR FROM {} AS \"a row\"",
            quote_literal(name),
            table(name)
        );
        all.extend(texts(connection, &digest)?);
    }
    Ok(all)
}

/// The fields of all rows, one after the other. All are texts.
fn texts(connection: &Connection, query: &str) -> Result<Vec<Option<String>>, Error> {
    let mut result = connection.prepare(query)?.execute()?;
    let mut all = Vec::new();
    while let Some(chunk) = result.next_chunk()? {
        let vectors: Vec<_> = (0..chunk.column_count())
            .map(|column| chunk.column(column).strings())
            .collect();
        for row in 0..chunk.len() {
            for strings in &vectors {
                let text = strings.as_ref().and_then(|strings| strings.get(row));
                all.push(text.map(|text| String::from_utf8_lossy(text).into_owned()));
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_for_all_sessions_is_shared_and_given_back() {
        let room = Arc::new(Room::default());
        let most = room.take(LARGEST_OF_ALL - 1).unwrap();
        assert!(room.take(2).is_none());
        let last = room.take(1).unwrap();
        assert!(room.take(1).is_none());
        drop((most, last));
        assert!(room.take(LARGEST_OF_ALL).is_some());
    }

    #[test]
    fn fields_that_are_cut_off_are_not_taken() {
        let fields = [0, 0, 0, 0, 255, 255, 255, 255, 2, 0, 0, 0, b'x'];
        let mut rest = &fields[..];
        assert_eq!(take_field(&mut rest), Some(Some(&b""[..])));
        assert_eq!(take_field(&mut rest), Some(None));
        assert_eq!(take_field(&mut rest), None);
    }
}
