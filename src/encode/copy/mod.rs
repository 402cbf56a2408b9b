//! COPY's text and CSV formats, both ways.
//!
//! [`CopyEncoder`] turns chunks into lines, [`CopyParser`] bytes, cut
//! anywhere, into rows of fields. What a field means is not its business: it
//! gives the text that the client wrote, and null where the client wrote the
//! null string. The rules are those of `COPY` in PostgreSQL 15.

mod encoder;
mod parser;
#[cfg(test)]
mod tests;

use super::EncodeError;

pub use encoder::CopyEncoder;
pub use parser::{CopyParser, CopyRows};

/// The options of a COPY statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// `FORMAT`.
    pub format: CopyFormat,
    /// `DELIMITER`, one byte.
    pub delimiter: u8,
    /// `NULL`: what stands for null.
    pub null: String,
    /// `HEADER`.
    pub header: CopyHeader,
    /// `QUOTE`, of CSV.
    pub quote: u8,
    /// `ESCAPE`, of CSV: what comes before a quote inside quotes.
    pub escape: u8,
    /// `FORCE_QUOTE`, of CSV out.
    pub force_quote: ForceColumns,
    /// `FORCE_NOT_NULL`, of CSV in: the null string is text in these columns.
    pub force_not_null: ForceColumns,
    /// `FORCE_NULL`, of CSV in: the null string is null here even in quotes.
    pub force_null: ForceColumns,
    /// How many bytes a row may have on the way in.
    pub row_limit: usize,
}

/// The format of COPY data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyFormat {
    /// Fields between tabs, escapes with a backslash.
    Text,
    /// Fields between commas, quotes around what needs them.
    Csv,
}

/// What the first line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyHeader {
    /// Data.
    #[default]
    Off,
    /// The names of the columns; read over on the way in.
    On,
    /// The names of the columns, which must be those of the table.
    Match,
}

/// The columns, by position, that an option is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ForceColumns {
    #[default]
    None,
    All,
    Some(Vec<usize>),
}

impl ForceColumns {
    fn has(&self, column: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(columns) => columns.contains(&column),
        }
    }
}

impl CopyOptions {
    /// The options when a statement names none but the format.
    pub fn new(format: CopyFormat) -> Self {
        let csv = format == CopyFormat::Csv;
        Self {
            format,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".to_owned() },
            header: CopyHeader::Off,
            quote: b'"',
            escape: b'"',
            force_quote: ForceColumns::None,
            force_not_null: ForceColumns::None,
            force_null: ForceColumns::None,
            row_limit: 256 << 20,
        }
    }

    /// Whether the options can stand together; the encoder and the parser ask.
    pub fn check(&self) -> Result<(), EncodeError> {
        let error = |message: &str| Err(EncodeError::CopyOption(message.to_owned()));
        let null = self.null.as_bytes();
        let line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        if line_end(&self.delimiter) {
            return error("delimiter cannot be newline or carriage return");
        }
        if null.iter().any(line_end) {
            return error("null representation cannot use newline or carriage return");
        }
        if !self.delimiter.is_ascii() || !self.quote.is_ascii() || !self.escape.is_ascii() {
            return error("delimiter, quote and escape must be single one-byte characters");
        }
        if null.contains(&self.delimiter) {
            return error("delimiter character must not appear in the NULL specification");
        }
        match self.format {
            CopyFormat::Text => {
                if matches!(self.delimiter, b'\\' | b'.' | b'a'..=b'z' | b'0'..=b'9') {
                    return error("delimiter cannot be a backslash, a point, a lower-case letter or a digit");
                }
            }
            CopyFormat::Csv => {
                if self.delimiter == self.quote {
                    return error("delimiter and quote must be different");
                }
                if line_end(&self.quote) || line_end(&self.escape) {
                    return error("quote and escape cannot be newline or carriage return");
                }
                if null.contains(&self.quote) {
                    return error("CSV quote character must not appear in the NULL specification");
                }
            }
        }
        Ok(())
    }
}
