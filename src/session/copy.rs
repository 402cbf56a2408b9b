//! COPY FROM STDIN and COPY TO STDOUT: the data travels in CopyData messages.
//!
//! Both ways are streamed. What comes in is parsed as PostgreSQL does, handed to
//! the engine as text in batches and cast there, within one transaction; what
//! goes out is encoded chunk by chunk. Source: PostgreSQL manual, section 55.2.6
//! "COPY Operations".

use super::client::{Frame, Wait};
use super::error::{Failure, Gone, SessionError};
use super::message::{self, Message};
use super::portal::check_stop;
use super::transaction::State;
use super::{Session, reply};
use crate::encode::copy::{CopyEncoder, CopyFormat, CopyHeader, CopyOptions, CopyParser, CopyRows, ForceColumns};
use crate::engine::{Appender, Column, LogicalType};
use crate::sql;
use crate::sql::copy::{CopyStatement, Direction, OptionValue, Subject};
use std::time::Duration;

/// How long input is waited for before the session looks whether it is to stop.
const TICK: Duration = Duration::from_millis(200);

impl Session {
    /// Runs a COPY and returns its tag.
    pub(super) fn run_copy(&mut self, copy: &CopyStatement) -> Result<String, Failure> {
        self.refuse_if_failed()?;
        self.quiesce()?;
        let handle = self.handle.clone();
        let _running = handle.begin();
        let rows = match copy.direction {
            Direction::Out => self.copy_out(copy)?,
            Direction::In => self.copy_in(copy)?,
        };
        Ok(format!("COPY {rows}"))
    }

    fn copy_out(&mut self, copy: &CopyStatement) -> Result<u64, Failure> {
        let query = match &copy.subject {
            Subject::Query(query) => {
                self.policy.check(query)?;
                query.clone()
            }
            Subject::Table { name, columns } => format!("SELECT {} FROM {name}", column_list(columns, "*")),
        };
        let prepared = self.connection.prepare(&query)?;
        let mut rows = match prepared.kind() {
            crate::engine::Kind::Select => prepared.stream()?,
            crate::engine::Kind::Modify => prepared.execute()?,
            _ => return Err(SessionError::new("0A000", "COPY query must be a SELECT").into()),
        };
        let columns = rows.columns();
        let options = options(copy, &columns)?;
        let types: Vec<LogicalType> = columns.iter().map(|column| column.data_type.clone()).collect();
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let header = options.header != CopyHeader::Off;
        let mut encoder = CopyEncoder::new(&types, options, &self.settings.encoding())?;
        reply::copy_response(&mut self.client.output, b'H', columns.len());
        if header {
            encoder.header(&names, &mut self.client.output);
        }
        let mut total = 0;
        while let Some(chunk) = rows.next_chunk()? {
            let mut next = 0;
            while next < chunk.len() {
                let end = chunk.len().min(next + 256);
                encoder.encode(&chunk, next..end, &mut self.client.output)?;
                next = end;
                self.client.relieve(&self.handle)?;
            }
            total += chunk.len() as u64;
            check_stop(&self.handle)?;
        }
        check_stop(&self.handle)?;
        reply::bare(&mut self.client.output, b'c');
        Ok(total)
    }

    fn copy_in(&mut self, copy: &CopyStatement) -> Result<u64, Failure> {
        let Subject::Table { name, columns } = &copy.subject else {
            return Err(SessionError::new("42601", "COPY FROM needs a table").into());
        };
        let query = format!("SELECT {} FROM {name}", column_list(columns, "*"));
        let columns = self.connection.prepare(&query)?.columns();
        let options = options(copy, &columns)?;
        let own_transaction = self.transaction.state() == State::Idle;
        if own_transaction {
            self.transaction.begin_implicit(&self.connection)?;
        }
        let mut appender = Appender::new(&self.connection, &insert(name, &columns), columns.len())?;
        let names = columns.iter().map(|column| column.name.clone()).collect();
        let mut parser = CopyParser::new(options, names)?;
        reply::copy_response(&mut self.client.output, b'G', columns.len());
        self.client.flush(&self.handle)?;
        let mut frame = Frame::default();
        let mut batch = CopyRows::default();
        let mut shaper = Shaper::new(&columns);
        let mut rows = 0;
        loop {
            self.next_copy_frame(&mut frame)?;
            match message::parse(frame.kind, &frame.body)? {
                Message::CopyData(data) => {
                    parser.feed(data, &mut batch)?;
                    rows += shaper.append(&mut batch, &mut appender)?;
                    check_stop(&self.handle)?;
                }
                Message::CopyDone => break,
                Message::CopyFail(reason) => {
                    return Err(SessionError::new("57014", format!("COPY from stdin failed: {reason}")).into());
                }
                // Clients may send these without looking whether a COPY began.
                Message::Flush | Message::Sync => {}
                Message::Terminate => return Err(Gone::Left.into()),
                _ => {
                    return Err(SessionError::protocol(format!(
                        "unexpected message type 0x{:02X} during COPY from stdin",
                        frame.kind
                    ))
                    .into());
                }
            }
        }
        parser.finish(&mut batch)?;
        rows += shaper.append(&mut batch, &mut appender)?;
        appender.finish()?;
        if own_transaction && self.transaction.state() == State::Implicit {
            self.commit()?;
        }
        Ok(rows)
    }

    fn next_copy_frame(&mut self, frame: &mut Frame) -> Result<(), Failure> {
        loop {
            if self.client.next_frame(frame).map_err(|error| Failure::Gone(self.end(error)))? {
                return Ok(());
            }
            check_stop(&self.handle)?;
            if self.handle.is_ending() {
                return Err(super::portal::shutdown().into());
            }
            let _: Wait = self.client.fill(TICK)?;
        }
    }
}

fn column_list(columns: &[String], all: &str) -> String {
    if columns.is_empty() {
        return all.to_owned();
    }
    columns.iter().map(|column| sql::quote_identifier(column)).collect::<Vec<_>>().join(", ")
}

/// The statement that takes rows of text into the table.
fn insert(table: &str, columns: &[Column]) -> String {
    let names: Vec<String> = columns.iter().map(|column| sql::quote_identifier(&column.name)).collect();
    let casts: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let input = format!("col{}", index + 1);
            match &column.data_type {
                LogicalType::Varchar => input,
                // Shaped to hexadecimal digits.
                LogicalType::Blob => format!("unhex({input})"),
                other => format!("CAST({input} AS {})", crate::encode::sql_name(other)),
            }
        })
        .collect();
    format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {}",
        names.join(", "),
        casts.join(", "),
        crate::engine::COPY_INPUT
    )
}

fn options(copy: &CopyStatement, columns: &[Column]) -> Result<CopyOptions, SessionError> {
    let format = copy.options.iter().rev().find_map(|(name, value)| match value {
        OptionValue::One(format) if name == "format" => Some(format.to_lowercase()),
        _ => None,
    });
    // The format decides the defaults of the other options.
    let mut options = CopyOptions::new(match format.as_deref() {
        None | Some("text") => CopyFormat::Text,
        Some("csv") => CopyFormat::Csv,
        Some("binary") => return Err(SessionError::new("0A000", "COPY format \"binary\" is not supported")),
        Some(other) => {
            return Err(SessionError::new("22023", format!("COPY format \"{other}\" not recognized")));
        }
    });
    for (name, value) in &copy.options {
        match (name.as_str(), value) {
            ("format" | "freeze", _) => {}
            ("delimiter", OptionValue::One(text)) => options.delimiter = one_byte(name, text)?,
            ("quote", OptionValue::One(text)) => options.quote = one_byte(name, text)?,
            ("escape", OptionValue::One(text)) => options.escape = one_byte(name, text)?,
            ("null", OptionValue::One(text)) => options.null = text.clone(),
            ("encoding", OptionValue::One(text)) if ["utf8", "utf-8"].contains(&text.to_lowercase().as_str()) => {}
            ("header", OptionValue::One(word)) if word.eq_ignore_ascii_case("match") => {
                options.header = CopyHeader::Match;
            }
            ("header", value) => {
                options.header = match value.as_bool() {
                    Some(true) => CopyHeader::On,
                    Some(false) => CopyHeader::Off,
                    None => return Err(SessionError::new("22023", "header requires a Boolean value or \"match\"")),
                };
            }
            ("force_quote", value) => options.force_quote = forced(value, columns)?,
            ("force_not_null", value) => options.force_not_null = forced(value, columns)?,
            ("force_null", value) => options.force_null = forced(value, columns)?,
            _ => return Err(SessionError::new("0A000", format!("COPY option \"{name}\" is not supported"))),
        }
    }
    let given = |wanted: &str| copy.options.iter().any(|(name, _)| name == wanted);
    if given("quote") && !given("escape") {
        options.escape = options.quote;
    }
    Ok(options)
}

fn one_byte(option: &str, text: &str) -> Result<u8, SessionError> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(SessionError::new("0A000", format!("COPY {option} must be a single one-byte character"))),
    }
}

fn forced(value: &OptionValue, columns: &[Column]) -> Result<ForceColumns, SessionError> {
    let position = |name: &String| {
        columns
            .iter()
            .position(|column| column.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| SessionError::new("42703", format!("column \"{name}\" does not exist")))
    };
    match value {
        OptionValue::All => Ok(ForceColumns::All),
        OptionValue::Columns(names) => Ok(ForceColumns::Some(names.iter().map(position).collect::<Result<_, _>>()?)),
        _ => Err(SessionError::new("42601", "a column list is expected")),
    }
}

/// Puts PostgreSQL's text forms into those that DuckDB's casts take.
struct Shaper {
    shapes: Vec<Shape>,
    shaped: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    AsIs,
    Hexadecimal,
    List,
}

impl Shaper {
    fn new(columns: &[Column]) -> Shaper {
        let shape = |column: &Column| match column.data_type {
            LogicalType::Blob => Shape::Hexadecimal,
            LogicalType::List(_) | LogicalType::Array(..) => Shape::List,
            _ => Shape::AsIs,
        };
        Shaper { shapes: columns.iter().map(shape).collect(), shaped: vec![Vec::new(); columns.len()] }
    }

    /// Moves all rows of `batch` on; returns their number.
    fn append(&mut self, batch: &mut CopyRows, appender: &mut Appender) -> Result<u64, Failure> {
        for row in 0..batch.len() {
            for (column, shape) in self.shapes.iter().enumerate() {
                if let (Some(field), false) = (batch.field(row, column), *shape == Shape::AsIs) {
                    let shaped = &mut self.shaped[column];
                    shaped.clear();
                    match shape {
                        Shape::Hexadecimal => hexadecimal(field, shaped)?,
                        _ => list(field, shaped),
                    }
                }
            }
            let fields = self.shapes.iter().enumerate().map(|(column, shape)| {
                let field = batch.field(row, column)?;
                Some(if *shape == Shape::AsIs { field } else { &self.shaped[column] })
            });
            appender.append(fields)?;
        }
        let rows = batch.len() as u64;
        batch.clear();
        Ok(rows)
    }
}

/// bytea in its hex or its escape form, as hexadecimal digits. Source:
/// PostgreSQL manual, section 8.4.
fn hexadecimal(field: &[u8], out: &mut Vec<u8>) -> Result<(), SessionError> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if let Some(digits) = field.strip_prefix(b"\\x") {
        out.extend(digits.iter().filter(|byte| !byte.is_ascii_whitespace()));
        return Ok(());
    }
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let byte = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                rest = tail;
                b'\\'
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                rest = tail;
                (a - b'0') * 64 + (b - b'0') * 8 + (c - b'0')
            }
            (b'\\', _) => return Err(SessionError::new("22P02", "invalid input syntax for type bytea")),
            (byte, tail) => {
                rest = tail;
                *byte
            }
        };
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    Ok(())
}

/// An array literal as a list literal: other brackets, and quotes around every
/// element but NULL, so that nothing in them means something to DuckDB.
fn list(field: &[u8], out: &mut Vec<u8>) {
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' => out.push(b'['),
            b'}' => out.push(b']'),
            b',' | b' ' | b'\t' | b'\n' => out.push(byte),
            b'"' => {
                out.push(b'"');
                while let Some(byte) = bytes.next() {
                    out.push(byte);
                    match byte {
                        b'"' => break,
                        b'\\' => out.extend(bytes.next()),
                        _ => {}
                    }
                }
            }
            first => {
                let mut element = vec![first];
                while let Some(byte) = bytes.next_if(|byte| !matches!(byte, b',' | b'}' | b'{')) {
                    element.push(byte);
                }
                if element.eq_ignore_ascii_case(b"null") {
                    out.extend_from_slice(&element);
                } else {
                    out.push(b'"');
                    out.extend_from_slice(&element);
                    out.push(b'"');
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_literals_become_list_literals() {
        let shaped = |text: &str| {
            let mut out = Vec::new();
            list(text.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shaped("{1,NULL,3}"), r#"["1",NULL,"3"]"#);
        assert_eq!(shaped(r#"{{a,"b,}c"},{"\"",d}}"#), r#"[["a","b,}c"],["\"","d"]]"#);
        assert_eq!(shaped("{}"), "[]");
    }

    #[test]
    fn both_forms_of_bytea_become_digits() {
        let digits = |text: &str| {
            let mut out = Vec::new();
            hexadecimal(text.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(digits("\\xAB01").unwrap(), "AB01");
        assert_eq!(digits("a\\\\\\377").unwrap(), "615cff");
        assert_eq!(digits("\\9").unwrap_err().sqlstate, "22P02");
    }
}
