//! A block of rows, column by column.
//!
//! A row of a wide table changes its type with every value, so a loop over
//! rows decides anew for every value what to do, and its instructions wait for
//! each other's branches. Values that are short in their wire form are instead
//! written a column at a time, by one loop that is made for the type, each with
//! its length into a *cell* of fixed size. Rows are then put together from
//! cells by copies of fixed size: a cell is copied whole, and what is behind
//! the value is overwritten by the next. A block is small enough for its cells
//! to stay in the processor's first cache in the meantime.

use std::ops::Range;

use super::column::{Column, Context, Data};
use super::writer::{Slot, Writer};
use crate::engine::{Strings, Validity};

/// The most rows of a block.
const ROWS: usize = 64;
/// The fewest rows of a block, and the fewest that are worth cells.
const FEWEST: usize = 8;
/// The values of a block, unless the rows are so wide that [`FEWEST`] have more.
const VALUES: usize = 2048;

/// The size of the largest cell.
const LARGEST: usize = 48;
/// The longest strings that are copied without asking for their length.
const MEDIUM: usize = 48;
/// The most that a column takes in a row when it is not [`Part::Direct`], and
/// what a copy of fixed size writes behind it.
pub(super) const PART: usize = 64;

/// How many rows the next block should have when so many are left.
pub(super) fn rows(left: usize, columns: usize) -> usize {
    left.min((VALUES / columns.max(1)).clamp(FEWEST, ROWS))
}

/// The values of one column in a block in their wire form.
pub(super) struct Cells {
    /// Of fixed size, so that few accesses need a check. A writing function is
    /// given a whole slot also for the last cell.
    bytes: Option<Box<[u8; ROWS * LARGEST + size_of::<Slot>()]>>,
    /// What counts of each cell.
    sizes: [u8; ROWS],
    fit: Fit,
}

/// Whether a column's values fit in cells, and in which.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Cells16,
    Cells24,
    Cells32,
    Cells48,
    /// There is a value that does not fit, or cannot be sent at all.
    No,
}

impl Cells {
    pub(super) fn new() -> Self {
        Self {
            bytes: None,
            sizes: [0; ROWS],
            fit: Fit::No,
        }
    }

    /// Fills a cell of `SIZE` bytes for each of the rows: the length in four
    /// bytes, and what `write` writes from the given position on. It gives
    /// the position behind that, or `None` for what cannot be sent.
    #[inline(always)]
    pub(super) fn fill<const SIZE: usize, T: Copy>(
        &mut self,
        validity: Validity<'_>,
        values: &[T],
        rows: Range<usize>,
        mut write: impl FnMut(&mut Slot, usize, T) -> Option<usize>,
    ) -> Fit {
        let bytes = self
            .bytes
            .get_or_insert_with(|| Box::new([0; ROWS * LARGEST + size_of::<Slot>()]));
        let values = values[rows.clone()].iter().zip(&mut self.sizes);
        for (index, (value, size)) in values.enumerate() {
            let Some(slot) = bytes[index * SIZE..].first_chunk_mut::<{ size_of::<Slot>() }>() else {
                return Fit::No;
            };
            if validity.is_valid(rows.start + index) {
                let Some(end) = write(slot, 4, *value).filter(|end| *end <= SIZE) else {
                    return Fit::No;
                };
                slot[..4].copy_from_slice(&((end - 4) as u32).to_be_bytes());
                *size = end as u8;
            } else {
                slot[..4].copy_from_slice(&(-1i32).to_be_bytes());
                *size = 4;
            }
        }
        match SIZE {
            16 => Fit::Cells16,
            24 => Fit::Cells24,
            32 => Fit::Cells32,
            48 => Fit::Cells48,
            _ => Fit::No,
        }
    }
}

/// Copies these columns' cells of a row of the block to this position, where
/// there is room, and gives the position behind them.
#[inline(always)]
pub(super) fn copy<const SIZE: usize>(run: &[Cells], index: usize, w: &mut Writer, mut at: usize) -> usize {
    let room = w.room();
    for cells in run {
        let bytes = cells.bytes.as_deref();
        if let Some(cell) = bytes.and_then(|bytes| bytes[index * SIZE..].first_chunk::<SIZE>()) {
            room[at..at + SIZE].copy_from_slice(cell);
        }
        at += usize::from(cells.sizes[index]);
    }
    at
}

/// How the values of a column, or of neighbours that go the same way, get into
/// the rows of one block.
pub(super) enum Part<'a, 'chunk> {
    Cells16(&'a [Cells]),
    Cells24(&'a [Cells]),
    Cells32(&'a [Cells]),
    Cells48(&'a [Cells]),
    /// Strings up to 12 bytes.
    Short(Strings<'chunk>),
    /// Strings up to [`MEDIUM`] bytes.
    Medium(Strings<'chunk>),
    /// Value by value; the flag is whether in binary.
    Direct(&'a Column<'chunk>, bool),
}

/// Finds the way for each column, beside which stands whether it is in binary,
/// and fills its cells.
pub(super) fn prepare<'a, 'chunk>(
    columns: &'a [(bool, Column<'chunk>)],
    rows: Range<usize>,
    cells: &'a mut [Cells],
    context: &mut Context,
) -> Vec<Part<'a, 'chunk>> {
    let few = rows.len() < FEWEST;
    for ((binary, column), cells) in columns.iter().zip(&mut *cells) {
        cells.fit = match binary {
            _ if few => Fit::No,
            false => column.text_cells(rows.clone(), cells, context),
            true => column.binary_cells(rows.clone(), cells),
        };
    }
    let mut parts = Vec::with_capacity(columns.len());
    let mut columns = columns.iter();
    for run in cells.chunk_by(|one, next| one.fit == next.fit) {
        let columns = columns.by_ref().take(run.len());
        match run[0].fit {
            Fit::Cells16 => parts.push(Part::Cells16(run)),
            Fit::Cells24 => parts.push(Part::Cells24(run)),
            Fit::Cells32 => parts.push(Part::Cells32(run)),
            Fit::Cells48 => parts.push(Part::Cells48(run)),
            Fit::No => {
                parts.extend(columns.map(|(binary, column)| match &column.data {
                    Data::Text(strings) | Data::Json(strings) if !few => {
                        match strings.longest(rows.clone()) {
                            0..=12 => Part::Short(*strings),
                            13..=MEDIUM => Part::Medium(*strings),
                            _ => Part::Direct(column, *binary),
                        }
                    }
                    _ => Part::Direct(column, *binary),
                }));
                continue;
            }
        }
        // These columns are in the run.
        columns.for_each(drop);
    }
    parts
}

/// Copies a string of up to 12 bytes, with its length, to this position.
#[inline(always)]
pub(super) fn short(strings: &Strings<'_>, row: usize, w: &mut Writer, at: usize) -> usize {
    let Some((padded, length)) = strings.padded(row) else {
        return null(w, at);
    };
    let slot = w.room_at::<16>(at);
    slot[..4].copy_from_slice(&(length as u32).to_be_bytes());
    slot[4..].copy_from_slice(padded.first_chunk::<12>().unwrap_or(&[0; 12]));
    at + 4 + length
}

/// The same for up to [`MEDIUM`] bytes: the lengths of neighbours differ, and
/// so a branch on them would often be guessed wrongly. Four pieces of 12 bytes
/// cover all lengths, when they overlap as much as is needed.
#[inline(always)]
pub(super) fn medium(strings: &Strings<'_>, row: usize, w: &mut Writer, at: usize) -> usize {
    let Some((padded, length)) = strings.padded(row) else {
        return null(w, at);
    };
    let slot = w.room_at::<{ 4 + MEDIUM }>(at);
    slot[..4].copy_from_slice(&(length as u32).to_be_bytes());
    let text = &mut slot[4..];
    let last = padded.len() - 12;
    let second = last.min(12);
    for piece in [0, second, last - second, last] {
        if let (Some(from), Some(to)) = (
            padded[piece..].first_chunk::<12>(),
            text[piece..].first_chunk_mut::<12>(),
        ) {
            *to = *from;
        }
    }
    at + 4 + length
}

#[inline(always)]
fn null(w: &mut Writer, at: usize) -> usize {
    *w.room_at(at) = (-1i32).to_be_bytes();
    at + 4
}
