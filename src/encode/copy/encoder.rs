//! Chunks to lines.

use std::ops::Range;

use super::{CopyFormat, CopyOptions};
use crate::encode::column::{self, Column, Context, Data};
use crate::encode::writer::Writer;
use crate::encode::{EncodeError, Settings};
use crate::engine::{Chunk, LogicalType};

/// Turns the chunks of one result into COPY data.
pub struct CopyEncoder {
    types: Vec<LogicalType>,
    options: CopyOptions,
    /// The bytes that a field of text cannot have as they are, or that make
    /// CSV quote it.
    special: [bool; 256],
    context: Context,
    writer: Writer,
}

impl CopyEncoder {
    /// An encoder for columns of these types. Fails when a type cannot be
    /// sent or the options cannot stand together.
    pub fn new(
        types: &[LogicalType],
        options: CopyOptions,
        settings: &Settings,
    ) -> Result<Self, EncodeError> {
        options.check()?;
        types.iter().try_for_each(column::check)?;
        let mut special = [false; 256];
        let bytes: &[u8] = match options.format {
            CopyFormat::Text => b"\x08\x09\n\x0b\x0c\r\\",
            CopyFormat::Csv => &[b'\n', b'\r', options.quote],
        };
        for byte in bytes.iter().chain([&options.delimiter]) {
            special[usize::from(*byte)] = true;
        }
        Ok(Self {
            types: types.to_vec(),
            options,
            special,
            context: Context::new(settings),
            writer: Writer::default(),
        })
    }

    /// Appends the line with the names of the columns, as a `CopyData`
    /// message. The caller asks for it when the option `HEADER` is on.
    pub fn header(&mut self, names: &[&str], out: &mut Vec<u8>) {
        let w = &mut self.writer;
        w.byte(b'd');
        let mark = w.begin();
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                w.byte(self.options.delimiter);
            }
            let field = w.position();
            w.bytes(name.as_bytes());
            finish(
                w,
                field,
                &self.options,
                &self.special,
                false,
                names.len() == 1,
                &mut self.context.scratch,
            );
        }
        w.byte(b'\n');
        w.end_message(mark);
        w.drain_into(out);
    }

    /// Appends these rows of the chunk to `out`, each a `CopyData` message
    /// with one line, which is what clients of PostgreSQL rely on. After an
    /// error `out` ends with the last row before the one that has it.
    ///
    /// # Panics
    /// When the chunk has fewer rows or columns than were asked for.
    pub fn encode(
        &mut self,
        chunk: &Chunk,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let options = &self.options;
        // Numbers and dates have no special byte, unless the delimiter is one
        // that they are made of.
        let plain_delimiter = matches!(options.delimiter, b'\t' | b',' | b'|' | b';')
            && (options.format == CopyFormat::Text || matches!(options.quote, b'"' | b'\''));
        let columns = self
            .types
            .iter()
            .enumerate()
            .map(|(index, logical)| {
                let column = Column::resolve(chunk.column(index), logical)?;
                let force = options.force_quote.has(index);
                let as_is =
                    plain_delimiter && !force && is_plain(&column.data) && is_no_number(&options.null);
                Ok((column, as_is, force))
            })
            .collect::<Result<Vec<_>, EncodeError>>()?;
        let w = &mut self.writer;
        for row in rows {
            let start = w.position();
            w.byte(b'd');
            let mark = w.begin();
            for (index, (column, as_is, force)) in columns.iter().enumerate() {
                if index > 0 {
                    w.byte(options.delimiter);
                }
                if column.is_null(row) {
                    w.bytes(options.null.as_bytes());
                    continue;
                }
                let field = w.position();
                if let Err(error) = column.text::<false>(row, w, &mut self.context) {
                    w.truncate(start);
                    w.drain_into(out);
                    return Err(*error);
                }
                if !as_is {
                    let alone = columns.len() == 1;
                    finish(
                        w,
                        field,
                        options,
                        &self.special,
                        *force,
                        alone,
                        &mut self.context.scratch,
                    );
                }
            }
            w.byte(b'\n');
            if w.position() - mark > i32::MAX as usize {
                w.truncate(start);
                w.drain_into(out);
                return Err(EncodeError::RowTooLarge);
            }
            w.end_message(mark);
            if w.is_full() {
                w.drain_into(out);
            }
        }
        w.drain_into(out);
        Ok(())
    }
}

/// Whether no text of such values has a byte that escapes, quotes or usual
/// delimiters are for.
fn is_plain(data: &Data<'_>) -> bool {
    !matches!(
        data,
        Data::Text(_)
            | Data::Json(_)
            | Data::Blob(_)
            | Data::Enum8(..)
            | Data::Enum16(..)
            | Data::Enum32(..)
            | Data::List(..)
            | Data::Array(..)
            | Data::Struct(_)
            | Data::Map(..)
            | Data::Union(..)
    )
}

/// Whether the null string is none that a number or a date could be.
fn is_no_number(null: &str) -> bool {
    null.is_empty() || null.starts_with('\\')
}

/// Escapes or quotes the field that was written from `mark` on.
fn finish(
    w: &mut Writer,
    mark: usize,
    options: &CopyOptions,
    special: &[bool; 256],
    force: bool,
    alone: bool,
    scratch: &mut Vec<u8>,
) {
    let field = w.since(mark);
    let has_special = field.iter().any(|byte| special[usize::from(*byte)]);
    let csv = options.format == CopyFormat::Csv;
    let quote = csv
        && (has_special
            || force
            || field == options.null.as_bytes()
            // Alone on a line it would end the data.
            || (alone && field == b"\\."));
    if !quote && (csv || !has_special) {
        return;
    }
    scratch.clear();
    scratch.extend_from_slice(field);
    w.truncate(mark);
    if csv {
        w.byte(options.quote);
        for byte in scratch.iter() {
            if *byte == options.quote || *byte == options.escape {
                w.byte(options.escape);
            }
            w.byte(*byte);
        }
        w.byte(options.quote);
        return;
    }
    for byte in scratch.iter() {
        if !special[usize::from(*byte)] {
            w.byte(*byte);
            continue;
        }
        let escaped = match byte {
            byte if *byte == options.delimiter && *byte != b'\t' => *byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0b => b'v',
            0x0c => b'f',
            b'\r' => b'r',
            byte => *byte,
        };
        w.array([b'\\', escaped]);
    }
}
