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
use crate::encode::copy::{Encoder, Options, Parser};
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
        let mut encoder = Encoder::new(&types, &options, &self.settings.encoding())?;
        reply::copy_response(&mut self.client.output, b'H', columns.len());
        let mut total = 0;
        encoder.header(&names, &mut self.client.output);
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
        let mut parser = Parser::new(columns.len(), &options)?;
        reply::copy_response(&mut self.client.output, b'G', columns.len());
        self.client.flush(&self.handle)?;
        let mut frame = Frame::default();
        let mut rows = 0_u64;
        let mut shaper = Shaper::new(&columns);
        loop {
            self.next_copy_frame(&mut frame)?;
            match message::parse(frame.kind, &frame.body)? {
                Message::CopyData(data) => {
                    parser.push(data);
                    while let Some(row) = parser.next_row()? {
                        appender.append(shaper.shape(row)?)?;
                        rows += 1;
                    }
                    check_stop(&self.handle)?;
                }
                Message::CopyDone => break,
                Message::CopyFail(reason) => {
                    return Err(
                        SessionError::new("57014", format!("COPY from stdin failed: {reason}")).into(),
                    );
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
        parser.finish();
        while let Some(row) = parser.next_row()? {
            appender.append(shaper.shape(row)?)?;
            rows += 1;
        }
        appender.finish()?;
        if own_transaction && self.transaction.state() == State::Implicit {
            self.commit()?;
        }
        Ok(rows)
    }

    fn next_copy_frame(&mut self, frame: &mut Frame) -> Result<(), Failure> {
        loop {
            if self
                .client
                .next_frame(frame)
                .map_err(|error| Failure::Gone(self.end(error)))?
            {
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
    columns
        .iter()
        .map(|column| sql::quote_identifier(column))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The statement that takes rows of text into the table.
fn insert(table: &str, columns: &[Column]) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|column| sql::quote_identifier(&column.name))
        .collect();
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

fn options(copy: &CopyStatement, columns: &[Column]) -> Result<Options, SessionError> {
    let mut options = Options::default();
    let names = |value: &OptionValue| -> Result<Vec<usize>, SessionError> {
        match value {
            OptionValue::All => Ok((0..columns.len()).collect()),
            OptionValue::Columns(wanted) => wanted
                .iter()
                .map(|name| {
                    columns
                        .iter()
                        .position(|column| column.name.eq_ignore_ascii_case(name))
                        .ok_or_else(|| {
                            SessionError::new("42703", format!("column \"{name}\" does not exist"))
                        })
                })
                .collect(),
            _ => Err(SessionError::new("42601", "a column list is expected")),
        }
    };
    // The format decides the defaults of the others.
    for (name, value) in &copy.options {
        if name == "format" {
            options = match value {
                OptionValue::One(format) => Options::for_format(&format.to_lowercase())?,
                _ => return Err(SessionError::new("42601", "COPY format requires a name")),
            };
        }
    }
    for (name, value) in &copy.options {
        match (name.as_str(), value) {
            ("format", _) => {}
            ("freeze", _) => {}
            ("delimiter", OptionValue::One(text)) => options.set_delimiter(text)?,
            ("null", OptionValue::One(text)) => options.set_null(text)?,
            ("quote", OptionValue::One(text)) => options.set_quote(text)?,
            ("escape", OptionValue::One(text)) => options.set_escape(text)?,
            ("encoding", OptionValue::One(text))
                if ["utf8", "utf-8"].contains(&text.to_lowercase().as_str()) => {}
            ("header", value) => {
                options.header = match (value, value.as_bool()) {
                    (_, Some(header)) => header,
                    (OptionValue::One(word), _) if word.eq_ignore_ascii_case("match") => true,
                    _ => {
                        return Err(SessionError::new(
                            "22023",
                            "header requires a Boolean value or \"match\"",
                        ));
                    }
                };
            }
            ("force_quote", value) => options.force_quote = names(value)?,
            ("force_not_null", value) => options.force_not_null = names(value)?,
            ("force_null", value) => options.force_null = names(value)?,
            _ => {
                return Err(SessionError::new(
                    "0A000",
                    format!("COPY option \"{name}\" is not supported"),
                ));
            }
        }
    }
    options.check()?;
    Ok(options)
}

/// Puts PostgreSQL's text forms into those that DuckDB's casts take.
struct Shaper<'a> {
    columns: &'a [Column],
    shaped: Vec<Vec<u8>>,
}

impl<'a> Shaper<'a> {
    fn new(columns: &'a [Column]) -> Shaper<'a> {
        Shaper {
            columns,
            shaped: vec![Vec::new(); columns.len()],
        }
    }

    fn shape<'b>(
        &'b mut self,
        row: crate::encode::copy::Row<'b>,
    ) -> Result<impl ExactSizeIterator<Item = Option<&'b [u8]>>, SessionError> {
        for (index, column) in self.columns.iter().enumerate() {
            let shaped = &mut self.shaped[index];
            shaped.clear();
            let Some(field) = row.get(index) else { continue };
            match &column.data_type {
                LogicalType::Blob => hexadecimal(field, shaped)?,
                LogicalType::List(_) | LogicalType::Array(..) => {
                    crate::encode::copy::list_literal(field, &column.data_type, shaped)?;
                }
                _ => {}
            }
        }
        let shaped = &self.shaped;
        Ok(self.columns.iter().enumerate().map(move |(index, column)| {
            let field = row.get(index)?;
            Some(match column.data_type {
                LogicalType::Blob | LogicalType::List(_) | LogicalType::Array(..) => shaped[index].as_slice(),
                _ => field,
            })
        }))
    }
}

/// bytea's hex form without its prefix, or its escape form as hex.
fn hexadecimal(field: &[u8], out: &mut Vec<u8>) -> Result<(), SessionError> {
    if let Some(digits) = field.strip_prefix(b"\\x") {
        out.extend_from_slice(digits);
        return Ok(());
    }
    for byte in crate::encode::copy::unescape_bytea(field)? {
        out.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    Ok(())
}
