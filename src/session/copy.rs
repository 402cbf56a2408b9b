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
use super::run::explain;
use super::transaction::State;
use super::{Session, reply};
use crate::encode::copy::{
    CopyEncoder, CopyFormat, CopyHeader, CopyOptions, CopyParser, CopyRows, ForceColumns,
};
use crate::encode::{self, Format};
use crate::engine::{Appender, Column, Connection, LogicalType};
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
        let last_wish = self.is_last_wish();
        let timeout = self.settings.timeouts().statement;
        let handle = self.handle.clone();
        let _running = handle.begin(last_wish, timeout);
        let rows = match copy.direction {
            Direction::Out => self.copy_out(copy),
            Direction::In => self.copy_in(copy),
        };
        let rows = rows.map_err(|failure| explain(failure, handle.stopped()))?;
        if copy.direction == Direction::Out {
            self.client.traffic.rows += rows;
        }
        Ok(format!("COPY {rows}"))
    }

    fn copy_out(&mut self, copy: &CopyStatement) -> Result<u64, Failure> {
        let query = match &copy.subject {
            Subject::Query(query) => query.clone(),
            Subject::Table { name, columns } => format!("SELECT {} FROM {name}", column_list(columns, "*")),
        };
        self.policy.check(&query)?;
        let query = match sql::rewrite(&query) {
            Some(rewritten) => {
                self.connection.instance().make_catalogs()?;
                rewritten
            }
            None => query,
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
        self.policy.check(&query)?;
        let columns = self.connection.prepare(&query)?.columns();
        let options = options(copy, &columns)?;
        let own_transaction = self.transaction.state() == State::Idle;
        if own_transaction {
            self.transaction.begin_implicit(&self.connection)?;
        }
        let mut intake = Intake::new(
            name,
            &columns,
            &options,
            &self.connection,
            self.settings.encoding(),
        )?;
        let names = columns.iter().map(|column| column.name.clone()).collect();
        let mut parser = CopyParser::new(options, names)?;
        reply::copy_response(&mut self.client.output, b'G', columns.len());
        self.client.flush(&self.handle)?;
        let mut frame = Frame::default();
        loop {
            self.next_copy_frame(&mut frame)?;
            match message::parse(frame.kind, &frame.body)? {
                Message::CopyData(data) => {
                    parser.feed(data, &mut intake.batch)?;
                    intake.move_on_if_full()?;
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
        parser.finish(&mut intake.batch)?;
        intake.move_on()?;
        let rows = intake.rows;
        drop(intake);
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
        Some("binary") => {
            return Err(SessionError::new(
                "0A000",
                "COPY format \"binary\" is not supported",
            ));
        }
        Some(other) => {
            return Err(SessionError::new(
                "22023",
                format!("COPY format \"{other}\" not recognized"),
            ));
        }
    });
    for (name, value) in &copy.options {
        match (name.as_str(), value) {
            ("format" | "freeze", _) => {}
            ("delimiter", OptionValue::One(text)) => options.delimiter = one_byte(name, text)?,
            ("quote", OptionValue::One(text)) => options.quote = one_byte(name, text)?,
            ("escape", OptionValue::One(text)) => options.escape = one_byte(name, text)?,
            ("null", OptionValue::One(text)) => options.null = text.clone(),
            ("encoding", OptionValue::One(text))
                if ["utf8", "utf-8"].contains(&text.to_lowercase().as_str()) => {}
            ("header", OptionValue::One(word)) if word.eq_ignore_ascii_case("match") => {
                options.header = CopyHeader::Match;
            }
            ("header", value) => {
                options.header = match value.as_bool() {
                    Some(true) => CopyHeader::On,
                    Some(false) => CopyHeader::Off,
                    None => {
                        return Err(SessionError::new(
                            "22023",
                            "header requires a Boolean value or \"match\"",
                        ));
                    }
                };
            }
            ("force_quote", value) => options.force_quote = forced(value, columns)?,
            ("force_not_null", value) => options.force_not_null = forced(value, columns)?,
            ("force_null", value) => options.force_null = forced(value, columns)?,
            _ => {
                return Err(SessionError::new(
                    "42601",
                    format!("option \"{name}\" not recognized"),
                ));
            }
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
        _ => Err(SessionError::new(
            "0A000",
            format!("COPY {option} must be a single one-byte character"),
        )),
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
        OptionValue::Columns(names) => Ok(ForceColumns::Some(
            names.iter().map(position).collect::<Result<_, _>>()?,
        )),
        _ => Err(SessionError::new("42601", "a column list is expected")),
    }
}

/// Rows on their way into the table, a batch at a time. A batch is kept until
/// the engine has taken it, so that an error can be traced to its line.
struct Intake<'a> {
    table: &'a str,
    columns: &'a [Column],
    settings: encode::Settings,
    batch: CopyRows,
    appender: Appender,
    /// A field's text for the engine, column by column.
    shaped: Vec<Shaped>,
    rows: u64,
    /// The number of the batch's first line.
    line: u64,
    /// Fields may hold line ends.
    csv: bool,
}

impl<'a> Intake<'a> {
    const ROWS: usize = 40 * 1024;
    const BYTES: usize = 16 << 20;

    fn new(
        table: &'a str,
        columns: &'a [Column],
        options: &CopyOptions,
        connection: &Connection,
        settings: encode::Settings,
    ) -> Result<Intake<'a>, Failure> {
        Ok(Intake {
            table,
            columns,
            settings,
            batch: CopyRows::default(),
            appender: Appender::new(connection, &insert(table, columns), columns.len())?,
            shaped: columns.iter().map(|_| Shaped::default()).collect(),
            rows: 0,
            line: if options.header == CopyHeader::Off { 1 } else { 2 },
            csv: options.format == CopyFormat::Csv,
        })
    }

    fn move_on_if_full(&mut self) -> Result<(), Failure> {
        let full = self.batch.len() >= Self::ROWS || self.batch.size() >= Self::BYTES;
        if full { self.move_on() } else { Ok(()) }
    }

    /// Moves the batch into the table.
    fn move_on(&mut self) -> Result<(), Failure> {
        self.append().map_err(|failure| self.trace(failure))?;
        self.rows += self.batch.len() as u64;
        self.line += self.lines(self.batch.len());
        self.batch.clear();
        Ok(())
    }

    fn append(&mut self) -> Result<(), Failure> {
        for row in 0..self.batch.len() {
            for (index, (column, shaped)) in self.columns.iter().zip(&mut self.shaped).enumerate() {
                let Some(field) = self.batch.field(row, index) else {
                    continue;
                };
                shaped.text.clear();
                shaped.used = shape(field, &column.data_type, &self.settings, &mut shaped.text)?;
            }
            let fields = self.shaped.iter().enumerate().map(|(index, shaped)| {
                let field = self.batch.field(row, index)?;
                Some(if shaped.used { &shaped.text } else { field })
            });
            self.appender.append(fields)?;
        }
        Ok(self.appender.flush()?)
    }

    /// Finds the field that is no value of its column, and says where it is.
    fn trace(&self, failure: Failure) -> Failure {
        for row in 0..self.batch.len() {
            for (index, column) in self.columns.iter().enumerate() {
                let Some(field) = self.batch.field(row, index) else {
                    continue;
                };
                let oid = encode::pg_type(&column.data_type).oid;
                let decoded = encode::decode_parameter(
                    oid,
                    Format::Text,
                    Some(field),
                    &column.data_type,
                    &self.settings,
                );
                if let Err(error) = decoded {
                    let mut error = SessionError::from(error);
                    let text: String = String::from_utf8_lossy(field).chars().take(100).collect();
                    let line = self.line + self.lines(row);
                    error.context = Some(
                        format!(
                            "COPY {}, line {line}, column {}: \"{text}\"",
                            self.table, column.name
                        )
                        .into(),
                    );
                    return error.into();
                }
            }
        }
        failure
    }

    /// The number of lines of the batch's first `rows` rows.
    fn lines(&self, rows: usize) -> u64 {
        let within = |row: usize| {
            let fields = (0..self.columns.len()).filter_map(move |column| self.batch.field(row, column));
            fields
                .map(|field| field.iter().filter(|byte| **byte == b'\n').count())
                .sum::<usize>()
        };
        let extra = if self.csv { (0..rows).map(within).sum() } else { 0 };
        (rows + extra) as u64
    }
}

/// A field's text in the form that the engine reads, if that is another one.
#[derive(Default)]
struct Shaped {
    used: bool,
    text: Vec<u8>,
}

/// Puts PostgreSQL's text form of a value into one that DuckDB's cast takes;
/// false if they are the same.
fn shape(
    field: &[u8],
    data_type: &LogicalType,
    settings: &encode::Settings,
    out: &mut Vec<u8>,
) -> Result<bool, SessionError> {
    match data_type {
        LogicalType::Blob => blob(field, out)?,
        LogicalType::List(element) | LogicalType::Array(element, _) => list(field, element, settings, out)?,
        LogicalType::Interval => canonical(field, data_type, settings, out)?,
        LogicalType::Date
        | LogicalType::Timestamp
        | LogicalType::TimestampS
        | LogicalType::TimestampMs
        | LogicalType::TimestampNs
        | LogicalType::TimestampTz
        | LogicalType::TimeTz
            // Digits mean the same to both; eras, zones and words do not.
            if field.iter().any(u8::is_ascii_alphabetic) =>
        {
            canonical(field, data_type, settings, out)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The value as we read it, in DuckDB's text form.
fn canonical(
    field: &[u8],
    data_type: &LogicalType,
    settings: &encode::Settings,
    out: &mut Vec<u8>,
) -> Result<(), SessionError> {
    let oid = encode::pg_type(data_type).oid;
    let value = encode::decode_parameter(oid, Format::Text, Some(field), data_type, settings)?;
    out.extend_from_slice(value.to_text().as_bytes());
    Ok(())
}

/// bytea in its hex or its escape form as DuckDB escapes bytes. Source:
/// PostgreSQL manual, section 8.4.
fn blob(field: &[u8], out: &mut Vec<u8>) -> Result<(), SessionError> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let invalid = || SessionError::new("22P02", "invalid input syntax for type bytea");
    let mut push = |byte: u8| {
        out.extend([
            b'\\',
            b'x',
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    };
    if let Some(digits) = field.strip_prefix(b"\\x") {
        let mut nibbles = digits.iter().filter(|byte| !byte.is_ascii_whitespace());
        while let Some(high) = nibbles.next() {
            let nibble = |byte: &u8| char::from(*byte).to_digit(16);
            match (nibble(high), nibbles.next().and_then(nibble)) {
                // Both are below 16.
                (Some(high), Some(low)) => push((high * 16 + low) as u8),
                _ => return Err(invalid()),
            }
        }
        return Ok(());
    }
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => (b'\\', tail),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), tail)
            }
            (b'\\', _) => return Err(invalid()),
            (byte, tail) => (*byte, tail),
        };
        push(byte);
        rest = tail;
    }
    Ok(())
}

/// An array literal as a list literal: other brackets, every element shaped, and
/// quotes around all but NULL, so that nothing in them means something to DuckDB.
fn list(
    field: &[u8],
    element: &LogicalType,
    settings: &encode::Settings,
    out: &mut Vec<u8>,
) -> Result<(), SessionError> {
    // Nesting is in the type as well as in the text; only the leaves matter.
    let mut leaf = element;
    while let LogicalType::List(inner) | LogicalType::Array(inner, _) = leaf {
        leaf = inner;
    }
    let mut bytes = field.iter().copied().peekable();
    let mut text = Vec::new();
    let mut shaped = Vec::new();
    while let Some(byte) = bytes.next() {
        text.clear();
        match byte {
            b'{' => out.push(b'['),
            b'}' => out.push(b']'),
            b',' | b' ' | b'\t' | b'\n' => out.push(byte),
            _ => {
                let quoted = byte == b'"';
                if quoted {
                    while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                        text.extend(if byte == b'\\' { bytes.next() } else { Some(byte) });
                    }
                } else {
                    text.push(byte);
                    while let Some(byte) = bytes.next_if(|byte| !matches!(byte, b',' | b'}' | b'{')) {
                        text.push(byte);
                    }
                }
                if !quoted && text.eq_ignore_ascii_case(b"null") {
                    out.extend_from_slice(&text);
                    continue;
                }
                shaped.clear();
                let used = shape(&text, leaf, settings, &mut shaped)?;
                out.push(b'"');
                for byte in if used { &shaped } else { &text } {
                    if matches!(byte, b'"' | b'\\') {
                        out.push(b'\\');
                    }
                    out.push(*byte);
                }
                out.push(b'"');
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(field: &str, data_type: &LogicalType) -> Result<String, SessionError> {
        let mut out = Vec::new();
        shape(
            field.as_bytes(),
            data_type,
            &encode::Settings::default(),
            &mut out,
        )?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn array_literals_become_list_literals() {
        let texts = LogicalType::List(Box::new(LogicalType::Varchar));
        assert_eq!(shaped("{1,NULL,3}", &texts).unwrap(), r#"["1",NULL,"3"]"#);
        let nested = LogicalType::List(Box::new(texts));
        assert_eq!(
            shaped(r#"{{a,"b,}c"},{"\"",d}}"#, &nested).unwrap(),
            r#"[["a","b,}c"],["\"","d"]]"#
        );
        assert_eq!(shaped("{}", &nested).unwrap(), "[]");
    }

    #[test]
    fn both_forms_of_bytea_become_escapes() {
        assert_eq!(shaped("\\xAB01", &LogicalType::Blob).unwrap(), "\\xAB\\x01");
        assert_eq!(
            shaped("a\\\\\\377", &LogicalType::Blob).unwrap(),
            "\\x61\\x5C\\xFF"
        );
        for wrong in ["\\9", "\\xA", "\\xAG"] {
            assert_eq!(
                shaped(wrong, &LogicalType::Blob).unwrap_err().sqlstate,
                "22P02",
                "{wrong}"
            );
        }
    }

    #[test]
    fn eras_and_intervals_are_read_as_postgresql_writes_them() {
        assert_eq!(shaped("2020-01-01", &LogicalType::Date).unwrap(), "");
        assert_eq!(
            shaped("0044-03-15 BC", &LogicalType::Date).unwrap(),
            "0044-03-15 (BC)"
        );
        assert_eq!(
            shaped("1 mon -1 days", &LogicalType::Interval).unwrap(),
            "1 month -1 day"
        );
    }
}
