//! Chunks to `DataRow` messages (protocol, "Message Formats").

use std::ops::Range;

use super::column::{self, Column, Context};
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
        let [high, low] = (columns.len() as u16).to_be_bytes();
        let w = &mut self.writer;
        for row in rows {
            let start = w.position();
            w.array([b'D', 0, 0, 0, 0, high, low]);
            for (binary, column) in &columns {
                if column.is_null(row) {
                    w.array((-1i32).to_be_bytes());
                    continue;
                }
                let mark = w.begin();
                let result = match binary {
                    false => column.text(row, w, &mut self.context),
                    true => column.binary(row, w, &mut self.context),
                };
                if result.is_err() {
                    w.truncate(start);
                    w.drain_into(out);
                    return result;
                }
                w.end(mark);
            }
            let length = w.position() - start - 1;
            if length > LARGEST_ROW {
                w.truncate(start);
                w.drain_into(out);
                return Err(EncodeError::RowTooLarge);
            }
            w.end_message(start + 1);
            if w.is_full() {
                w.drain_into(out);
            }
        }
        w.drain_into(out);
        Ok(())
    }
}
