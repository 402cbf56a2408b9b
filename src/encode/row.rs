//! Chunks to `DataRow` messages (protocol, "Message Formats").

use std::ops::Range;

use super::column::{self, Column, Context, Step};
use super::writer::Writer;
use super::{EncodeError, Settings};
use crate::engine::{Chunk, LogicalType};

/// The form of a column or a parameter on the wire; the codes 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    #[default]
    Text,
    Binary,
}

/// `DataRow` messages carry their length in 32 bits; PostgreSQL's own limit
/// for a row is 1 GB.
const LARGEST_ROW: usize = 1 << 30;

/// Turns the chunks of one result into framed `DataRow` messages.
pub struct RowEncoder {
    types: Vec<LogicalType>,
    formats: Vec<Format>,
    context: Context,
    writer: Writer,
}

impl RowEncoder {
    /// An encoder for columns of these types. `formats` is as in `Bind`: none
    /// is text for all, one is for all, else one for each column. Fails when
    /// a type cannot be sent or the number of formats is another.
    pub fn new(types: &[LogicalType], formats: &[Format], settings: &Settings) -> Result<Self, EncodeError> {
        types.iter().try_for_each(column::check)?;
        let formats = match formats {
            [] => vec![Format::Text; types.len()],
            [all] => vec![*all; types.len()],
            each if each.len() == types.len() => each.to_vec(),
            _ => {
                return Err(EncodeError::FormatCount {
                    given: formats.len(),
                    columns: types.len(),
                });
            }
        };
        Ok(Self {
            types: types.to_vec(),
            formats,
            context: Context::new(settings),
            writer: Writer::default(),
        })
    }

    /// Another encoder for the same result, for another thread.
    pub fn another(&self) -> Self {
        Self {
            types: self.types.clone(),
            formats: self.formats.clone(),
            context: self.context.another(),
            writer: Writer::default(),
        }
    }

    /// Appends these rows of the chunk to `out`, each a whole message. After
    /// an error `out` ends with the last row before the one that has it.
    ///
    /// # Panics
    /// When the chunk has fewer rows or columns than were asked for.
    pub fn encode(
        &mut self,
        chunk: &Chunk,
        rows: Range<usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let rows_of = rows;
        let columns = self
            .types
            .iter()
            .zip(&self.formats)
            .enumerate()
            .map(|(index, (logical, format))| {
                Ok((
                    *format == Format::Binary,
                    Column::resolve(chunk.column(index), logical)?,
                ))
            })
            .collect::<Result<Vec<_>, EncodeError>>()?;
        let mut rows = Rows {
            columns: &columns,
            w: &mut self.writer,
            context: &mut self.context,
        };
        let result = match self.formats.first() {
            Some(first) if self.formats.iter().any(|format| format != first) => {
                rows.encode::<MIXED>(rows_of, out)
            }
            Some(Format::Binary) => rows.encode::<BINARY>(rows_of, out),
            _ => rows.encode::<TEXT>(rows_of, out),
        };
        self.writer.drain_into(out);
        Ok(result?)
    }
}

const TEXT: u8 = 0;
const BINARY: u8 = 1;
const MIXED: u8 = 2;

struct Rows<'a, 'chunk> {
    columns: &'a [(bool, Column<'chunk>)],
    w: &'a mut Writer,
    context: &'a mut Context,
}

impl Rows<'_, '_> {
    /// The loop over rows, once for each of the usual cases and once for a
    /// mixture of formats.
    fn encode<const FORMAT: u8>(&mut self, rows: Range<usize>, out: &mut Vec<u8>) -> Step {
        let [high, low] = (self.columns.len() as u16).to_be_bytes();
        let w = &mut *self.w;
        for row in rows {
            let start = w.position();
            w.array([b'D', 0, 0, 0, 0, high, low]);
            for (binary, column) in self.columns {
                if column.is_null(row) {
                    w.array((-1i32).to_be_bytes());
                    continue;
                }
                let result = match FORMAT == BINARY || (FORMAT == MIXED && *binary) {
                    false => column.text::<true>(row, w, self.context),
                    true => column.binary(row, w, self.context),
                };
                if result.is_err() {
                    w.truncate(start);
                    return result;
                }
            }
            if w.position() - start > LARGEST_ROW {
                w.truncate(start);
                return Err(Box::new(EncodeError::RowTooLarge));
            }
            w.end_message(start + 1);
            if w.is_full() {
                w.drain_into(out);
            }
        }
        Ok(())
    }
}
