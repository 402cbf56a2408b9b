//! Bytes to rows of fields.
//!
//! One state machine reads both formats, a byte at a time where a byte means
//! something and in runs where it does not. All that it keeps between two
//! calls is the row that is not complete yet, so memory is bounded by the
//! bytes of one call and by the limit of a row.

use super::{CopyFormat, CopyHeader, CopyOptions};
use crate::encode::EncodeError;
use crate::encode::error::excerpt;

/// Rows that were read and wait to be used.
#[derive(Debug, Default)]
pub struct CopyRows {
    columns: usize,
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// Where a field ends in the bytes, and whether it is null.
#[derive(Clone, Copy, Debug)]
struct Field {
    end: usize,
    null: bool,
}

impl CopyRows {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.fields.len().checked_div(self.columns).unwrap_or(0)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// How many bytes the fields have.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// A field: valid UTF-8 without NUL, `None` for null.
    ///
    /// # Panics
    /// When there is no such row or column.
    pub fn field(&self, row: usize, column: usize) -> Option<&[u8]> {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        let index = row * self.columns + column;
        let field = self.fields[index];
        let start = match index {
            0 => 0,
            index => self.fields[index - 1].end,
        };
        (!field.null).then(|| &self.bytes[start..field.end])
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }
}

/// Reads COPY data, cut anywhere.
pub struct CopyParser {
    options: CopyOptions,
    columns: Vec<String>,
    /// The bytes that end a run.
    special: [bool; 256],
    state: State,
    line_end: LineEnd,
    /// The line that is being read, from 1.
    line: u64,
    /// Whether the next row is the header.
    header: bool,
    row: Vec<u8>,
    fields: Vec<Field>,
    /// Raw bytes of the field so far, as many as matter for the null string.
    raw: usize,
    /// Whether the raw bytes so far are those of the null string.
    maybe_null: bool,
    /// Whether the field has a quote.
    quoted: bool,
    /// Whether the row has any raw byte.
    begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    /// After a carriage return outside of quotes.
    Return,
    /// Text: after a backslash.
    Backslash,
    /// Text: in `\123`, with the digits so far and their number.
    Octal(u8, u8),
    /// Text: in `\x41`, likewise.
    Hex(u8, u8),
    /// Text: after `\.` at the start of a line.
    Marker,
    /// CSV: in quotes.
    Quoted,
    /// CSV: in quotes after the escape, or after a quote that may be one.
    QuotedEscape,
    /// After the marker of the end of data.
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    Unknown,
    Newline,
    Return,
    ReturnNewline,
}

impl CopyParser {
    /// A parser for a table with these columns. Fails when the options cannot
    /// stand together.
    pub fn new(options: CopyOptions, columns: Vec<String>) -> Result<Self, EncodeError> {
        options.check()?;
        let mut special = [false; 256];
        let marks: &[u8] = match options.format {
            CopyFormat::Text => b"\\",
            CopyFormat::Csv => &[options.quote],
        };
        for byte in marks.iter().chain(b"\n\r").chain([&options.delimiter]) {
            special[usize::from(*byte)] = true;
        }
        Ok(Self {
            header: options.header != CopyHeader::Off,
            options,
            columns,
            special,
            state: State::Plain,
            line_end: LineEnd::Unknown,
            line: 1,
            row: Vec::new(),
            fields: Vec::new(),
            raw: 0,
            maybe_null: true,
            quoted: false,
            begun: false,
        })
    }

    /// Reads all of `bytes` and appends the rows that are complete to `rows`.
    /// After an error the parser must not be used again.
    pub fn feed(&mut self, bytes: &[u8], rows: &mut CopyRows) -> Result<(), EncodeError> {
        rows.columns = self.columns.len();
        let mut rest = bytes;
        while let Some((byte, tail)) = rest.split_first() {
            match self.state {
                State::Done => return Ok(()),
                State::Plain if !self.special[usize::from(*byte)] => {
                    let run = rest.iter().position(|byte| self.special[usize::from(*byte)]);
                    let (run, tail) = rest.split_at(run.unwrap_or(rest.len()));
                    self.raw_bytes(run);
                    self.take(run)?;
                    rest = tail;
                }
                State::Quoted => {
                    let (quote, escape) = (self.options.quote, self.options.escape);
                    let end = |byte: &u8| *byte == quote || *byte == escape;
                    let run = rest.iter().position(end).unwrap_or(rest.len());
                    let (run, tail) = rest.split_at(run);
                    self.line += run.iter().filter(|byte| **byte == b'\n').count() as u64;
                    self.take(run)?;
                    rest = match tail.split_first() {
                        Some((byte, tail)) => {
                            self.state = match *byte == escape {
                                true => State::QuotedEscape,
                                false => State::Plain,
                            };
                            tail
                        }
                        None => tail,
                    };
                }
                // These may leave the byte to the next state.
                State::Return => {
                    if self.after_return(*byte, rows)? {
                        rest = tail;
                    }
                }
                State::Octal(value, count) => match byte {
                    b'0'..=b'7' if count < 3 => {
                        self.raw_bytes(&[*byte]);
                        self.state = State::Octal((value << 3) | (byte - b'0'), count + 1);
                        rest = tail;
                    }
                    _ => self.literal(value)?,
                },
                State::Hex(value, count) => match char::from(*byte).to_digit(16) {
                    Some(digit) if count < 2 => {
                        self.raw_bytes(&[*byte]);
                        self.state = State::Hex((value << 4) | digit as u8, count + 1);
                        rest = tail;
                    }
                    // `\x` without digits is an x.
                    _ => self.literal(if count == 0 { b'x' } else { value })?,
                },
                State::QuotedEscape => {
                    if self.after_quoted_escape(*byte)? {
                        rest = tail;
                    }
                }
                State::Plain => {
                    self.special_byte(*byte, rows)?;
                    rest = tail;
                }
                State::Backslash => {
                    self.after_backslash(*byte)?;
                    rest = tail;
                }
                State::Marker => {
                    if !matches!(byte, b'\n' | b'\r') {
                        return Err(self.error("end-of-copy marker corrupt"));
                    }
                    self.state = State::Done;
                }
            }
        }
        Ok(())
    }

    /// Says that there is no more; a last line may lack its end.
    pub fn finish(&mut self, rows: &mut CopyRows) -> Result<(), EncodeError> {
        rows.columns = self.columns.len();
        match self.state {
            State::Done | State::Marker => return Ok(()),
            State::Return => return self.end_row(rows),
            State::Octal(value, _) => self.literal(value)?,
            State::Hex(value, count) => self.literal(if count == 0 { b'x' } else { value })?,
            State::Backslash => self.literal(b'\\')?,
            State::Quoted => return Err(self.error("unterminated CSV quoted field")),
            State::QuotedEscape if self.options.escape != self.options.quote => {
                return Err(self.error("unterminated CSV quoted field"));
            }
            State::QuotedEscape | State::Plain => {}
        }
        match self.begun {
            true => self.end_row(rows),
            false => Ok(()),
        }
    }

    /// Whether the end of the data was marked; what follows is not read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The line that is being read, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    fn error(&self, message: impl Into<String>) -> EncodeError {
        EncodeError::Copy {
            line: self.line,
            message: message.into(),
        }
    }

    /// Notes raw bytes of a field for the comparison with the null string.
    fn raw_bytes(&mut self, bytes: &[u8]) {
        self.begun = true;
        if self.maybe_null {
            let null = self.options.null.as_bytes();
            self.maybe_null = null[self.raw..].starts_with(bytes);
            if self.maybe_null {
                self.raw += bytes.len();
            }
        }
    }

    /// Appends bytes to the field.
    fn take(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if self.row.len() + bytes.len() > self.options.row_limit {
            return Err(self.error(format!("row is larger than {} bytes", self.options.row_limit)));
        }
        self.row.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends a byte that an escape stood for.
    fn literal(&mut self, byte: u8) -> Result<(), EncodeError> {
        self.state = State::Plain;
        self.take(&[byte])
    }

    /// A byte outside of quotes that means something.
    fn special_byte(&mut self, byte: u8, rows: &mut CopyRows) -> Result<(), EncodeError> {
        match byte {
            byte if byte == self.options.delimiter => {
                self.begun = true;
                self.end_field()
            }
            b'\n' => match self.line_end {
                LineEnd::Unknown | LineEnd::Newline => {
                    self.line_end = LineEnd::Newline;
                    self.end_row(rows)
                }
                _ => Err(self.stray("newline")),
            },
            b'\r' => match self.line_end {
                LineEnd::Newline => Err(self.stray("carriage return")),
                LineEnd::Return => self.end_row(rows),
                _ => {
                    self.state = State::Return;
                    Ok(())
                }
            },
            b'\\' if self.options.format == CopyFormat::Text => {
                self.state = State::Backslash;
                Ok(())
            }
            _ => {
                // The quote of CSV; it may also open inside of a field.
                self.begun = true;
                self.quoted = true;
                self.state = State::Quoted;
                Ok(())
            }
        }
    }

    fn stray(&self, what: &str) -> EncodeError {
        match self.options.format {
            CopyFormat::Text => self.error(format!("literal {what} found in data")),
            CopyFormat::Csv => self.error(format!("unquoted {what} found in data")),
        }
    }

    /// Whether the byte after a carriage return belongs to the line's end.
    fn after_return(&mut self, byte: u8, rows: &mut CopyRows) -> Result<bool, EncodeError> {
        self.state = State::Plain;
        let newline = byte == b'\n';
        match (self.line_end, newline) {
            (LineEnd::Unknown, true) => self.line_end = LineEnd::ReturnNewline,
            (LineEnd::Unknown, false) => self.line_end = LineEnd::Return,
            (LineEnd::ReturnNewline, false) => return Err(self.stray("carriage return")),
            _ => {}
        }
        self.end_row(rows)?;
        Ok(newline)
    }

    fn after_backslash(&mut self, byte: u8) -> Result<(), EncodeError> {
        if byte == b'.' {
            if self.begun {
                return Err(self.error("end-of-copy marker corrupt"));
            }
            self.state = State::Marker;
            return Ok(());
        }
        self.raw_bytes(&[b'\\', byte]);
        match byte {
            b'0'..=b'7' => self.state = State::Octal(byte - b'0', 1),
            b'x' => self.state = State::Hex(0, 0),
            b'b' => return self.literal(0x08),
            b'f' => return self.literal(0x0c),
            b'n' => return self.literal(b'\n'),
            b'r' => return self.literal(b'\r'),
            b't' => return self.literal(b'\t'),
            b'v' => return self.literal(0x0b),
            byte => {
                self.line += u64::from(byte == b'\n');
                return self.literal(byte);
            }
        }
        Ok(())
    }

    /// Whether the byte after an escape in quotes is what was escaped.
    fn after_quoted_escape(&mut self, byte: u8) -> Result<bool, EncodeError> {
        let (quote, escape) = (self.options.quote, self.options.escape);
        if byte == quote || byte == escape {
            self.state = State::Quoted;
            self.take(&[byte])?;
            return Ok(true);
        }
        if quote == escape {
            // It was the closing quote.
            self.state = State::Plain;
        } else {
            self.state = State::Quoted;
            self.take(&[escape])?;
        }
        Ok(false)
    }

    fn end_field(&mut self) -> Result<(), EncodeError> {
        let column = self.fields.len();
        let start = self.fields.last().map_or(0, |field| field.end);
        let mut null = self.maybe_null && self.raw == self.options.null.len();
        if self.quoted {
            // Only FORCE_NULL looks for the null string in quotes.
            null = self.options.force_null.has(column) && self.row[start..] == *self.options.null.as_bytes();
        }
        null &= !(self.options.format == CopyFormat::Csv && self.options.force_not_null.has(column));
        if null {
            self.row.truncate(start);
        }
        self.fields.push(Field {
            end: self.row.len(),
            null,
        });
        self.raw = 0;
        self.maybe_null = true;
        self.quoted = false;
        if self.fields.len() > self.columns.len().max(1) && !self.header {
            return Err(self.error("extra data after last expected column"));
        }
        if self.fields.len() > 100_000 {
            return Err(self.error("too many fields in the header line"));
        }
        Ok(())
    }

    fn end_row(&mut self, rows: &mut CopyRows) -> Result<(), EncodeError> {
        self.state = State::Plain;
        let csv = self.options.format == CopyFormat::Csv;
        if csv && self.fields.is_empty() && !self.quoted && self.row == b"\\." {
            self.state = State::Done;
            return Ok(());
        }
        self.end_field()?;
        if self.header {
            self.header = false;
            self.check_header()?;
        } else {
            if let Some(missing) = self.columns.get(self.fields.len()) {
                return Err(self.error(format!("missing data for column \"{missing}\"")));
            }
            self.check_utf8()?;
            let base = rows.bytes.len();
            rows.bytes.extend_from_slice(&self.row);
            rows.fields.extend(self.fields.iter().map(|field| Field {
                end: base + field.end,
                null: field.null,
            }));
        }
        self.row.clear();
        self.fields.clear();
        self.begun = false;
        self.line += 1;
        Ok(())
    }

    fn check_header(&self) -> Result<(), EncodeError> {
        if self.options.header != CopyHeader::Match {
            return Ok(());
        }
        if self.fields.len() != self.columns.len() {
            return Err(self.error(format!(
                "wrong number of fields in header line: got {}, expected {}",
                self.fields.len(),
                self.columns.len()
            )));
        }
        let mut start = 0;
        for (index, (field, expected)) in self.fields.iter().zip(&self.columns).enumerate() {
            let name = &self.row[start..field.end];
            start = field.end;
            if field.null || name != expected.as_bytes() {
                return Err(self.error(format!(
                    "column name mismatch in header line field {}: got \"{}\", expected \"{expected}\"",
                    index + 1,
                    excerpt(&String::from_utf8_lossy(name)),
                )));
            }
        }
        Ok(())
    }

    fn check_utf8(&self) -> Result<(), EncodeError> {
        let plain = self.row.is_ascii() && !self.row.contains(&0);
        let mut start = 0;
        for field in self.fields.iter().filter(|_| !plain) {
            let bytes = &self.row[start..field.end];
            start = field.end;
            if std::str::from_utf8(bytes).is_err() || bytes.contains(&0) {
                let at = std::str::from_utf8(bytes)
                    .map_err(|error| error.valid_up_to())
                    .err();
                let at = at
                    .or_else(|| bytes.iter().position(|byte| *byte == 0))
                    .unwrap_or(0);
                let message = format!("0x{:02x}, COPY line {}", bytes[at], self.line);
                return Err(EncodeError::InvalidUtf8(message));
            }
        }
        Ok(())
    }
}
