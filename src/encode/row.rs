//! Chunks to `DataRow` messages (protocol, "Message Formats").

use std::ops::Range;

use super::block::{self, Cells, Part};
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
    /// For each column.
    cells: Vec<Cells>,
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
            cells: types.iter().map(|_| Cells::new()).collect(),
        })
    }

    /// Another encoder for the same result, for another thread.
    pub fn another(&self) -> Self {
        Self {
            types: self.types.clone(),
            formats: self.formats.clone(),
            context: self.context.another(),
            writer: Writer::default(),
            cells: self.types.iter().map(|_| Cells::new()).collect(),
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
        self.write(chunk, rows, Some(out))
    }

    /// The same into a buffer of the encoder's own, from which a large result is
    /// sent without being copied: see [`RowEncoder::gathered`].
    ///
    /// # Panics
    /// As [`RowEncoder::encode`].
    pub fn gather(&mut self, chunk: &Chunk, rows: Range<usize>) -> Result<(), EncodeError> {
        self.write(chunk, rows, None)
    }

    /// The whole messages that [`RowEncoder::gather`] has made.
    pub fn gathered(&self) -> &[u8] {
        self.writer.since(0)
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.writer.clear();
    }

    fn write(
        &mut self,
        chunk: &Chunk,
        rows: Range<usize>,
        mut out: Option<&mut Vec<u8>>,
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
        let mut next = rows.start;
        while next < rows.end {
            let end = next + block::rows(rows.end - next, columns.len());
            let context = &mut self.context;
            let parts = block::prepare(&columns, next..end, &mut self.cells, context);
            let to = out.as_deref_mut();
            let result = assemble(&parts, columns.len(), next..end, &mut self.writer, context, to);
            if let Some(out) = &mut out {
                self.writer.drain_into(out);
            }
            result?;
            next = end;
        }
        Ok(())
    }
}

/// Writes these rows, which are a block, from what was prepared for them; to
/// `out`, if there is one, only what is too much to hold back.
fn assemble(
    parts: &[Part<'_, '_>],
    columns: usize,
    rows: Range<usize>,
    w: &mut Writer,
    context: &mut Context,
    mut out: Option<&mut Vec<u8>>,
) -> Step {
    let [high, low] = (columns as u16).to_be_bytes();
    let room = 8 + columns * block::PART;
    for (index, row) in rows.enumerate() {
        w.reserve(room);
        let start = w.position();
        *w.room_at(start) = [b'D', 0, 0, 0, 0, high, low, 0];
        // Not in the writer, but in a register: see there.
        let mut at = start + 7;
        for part in parts {
            at = match part {
                Part::Cells16(run) => block::copy::<16>(run, index, w, at),
                Part::Cells24(run) => block::copy::<24>(run, index, w, at),
                Part::Cells32(run) => block::copy::<32>(run, index, w, at),
                Part::Cells48(run) => block::copy::<48>(run, index, w, at),
                Part::Short(strings) => block::short(strings, row, w, at),
                Part::Medium(strings) => block::medium(strings, row, w, at),
                Part::Direct(column, binary) => {
                    w.seek(at);
                    if let Err(error) = column.framed(*binary, row, w, context) {
                        w.truncate(start);
                        return Err(error);
                    }
                    w.reserve(room);
                    w.position()
                }
            };
        }
        w.seek(at);
        if at - start > LARGEST_ROW {
            w.truncate(start);
            return Err(Box::new(EncodeError::RowTooLarge));
        }
        w.end_message(start + 1);
        if w.is_full()
            && let Some(out) = &mut out
        {
            w.drain_into(out);
        }
    }
    Ok(())
}

impl Column<'_> {
    /// Appends the length and the value of a row, which may be null.
    #[inline(never)]
    fn framed(&self, binary: bool, row: usize, w: &mut Writer, context: &mut Context) -> Step {
        if self.is_null(row) {
            w.array((-1i32).to_be_bytes());
            return Ok(());
        }
        match binary {
            false => self.text::<true>(row, w, context),
            true => self.binary(row, w, context),
        }
    }
}
