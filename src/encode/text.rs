//! A value in PostgreSQL's text form.
//!
//! `FRAMED` is whether the value's length goes before it, as in `DataRow`;
//! inside of arrays, JSON and COPY lines it does not.

use std::ops::Range;

use super::bignum::BigNum;
use super::block::{Cells, Fit};
use super::column::{Column, Context, Data, Step};
use super::writer::{Slot, Writer, put};
use super::{array, json, number, time};

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Column<'_> {
    /// Appends the text of a row that is not null.
    #[inline(always)]
    pub(super) fn text<const FRAMED: bool>(&self, row: usize, w: &mut Writer, context: &mut Context) -> Step {
        match &self.data {
            Data::I64(values) => w.value(FRAMED, |out, at| number::int(out, at, values[row])),
            Data::I32(values) => w.value(FRAMED, |out, at| number::int(out, at, values[row].into())),
            Data::Text(values) | Data::Json(values) => w.string(FRAMED, values, row),
            Data::F64(values) => {
                w.value(FRAMED, |out, at| {
                    number::float(out, at, values[row], context.extra_float_digits)
                });
            }
            Data::Date(values) => w.value(FRAMED, |out, at| time::date(out, at, values[row])),
            Data::Timestamp(values, unit) => {
                w.value(FRAMED, |out, at| {
                    time::timestamp(out, at, unit.micros(values[row]), b' ')
                });
            }
            Data::TimestampTz(values) => w.value(FRAMED, |out, at| {
                time::timestamp_tz(out, at, values[row], &mut context.zone, b' ')
            }),
            Data::Decimal64(values, scale) => {
                w.value(FRAMED, |out, at| number::decimal(out, at, values[row], *scale));
            }
            Data::Decimal32(values, scale) => {
                w.value(FRAMED, |out, at| {
                    number::decimal(out, at, values[row].into(), *scale)
                });
            }
            Data::Bool(values) => w.fixed(FRAMED, [if values[row] != 0 { b't' } else { b'f' }]),
            _ if FRAMED => {
                let mark = w.begin();
                self.rare_text(row, w, context)?;
                w.end(mark);
            }
            _ => return self.rare_text(row, w, context),
        }
        Ok(())
    }

    /// Fills a cell for each of these rows when the type's texts are short
    /// and often seen.
    pub(super) fn text_cells(&self, rows: Range<usize>, cells: &mut Cells, context: &mut Context) -> Fit {
        let validity = self.validity;
        match &self.data {
            Data::Bool(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, [if value != 0 { b't' } else { b'f' }]))
            }),
            Data::I16(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(number::int(out, at, value.into()))
            }),
            Data::I32(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(number::int(out, at, value.into()))
            }),
            Data::I64(values) => cells.fill::<24, _>(validity, values, rows, |out, at, value| {
                Some(number::int(out, at, value))
            }),
            Data::Decimal16(values, scale) => {
                cells.fill::<24, _>(validity, values, rows, |out, at, value| {
                    Some(number::decimal(out, at, value.into(), *scale))
                })
            }
            Data::Decimal32(values, scale) => {
                cells.fill::<24, _>(validity, values, rows, |out, at, value| {
                    Some(number::decimal(out, at, value.into(), *scale))
                })
            }
            Data::Decimal64(values, scale) => {
                cells.fill::<24, _>(validity, values, rows, |out, at, value| {
                    Some(number::decimal(out, at, value, *scale))
                })
            }
            Data::F64(values) => cells.fill::<32, _>(validity, values, rows, |out, at, value| {
                Some(number::float(out, at, value, context.extra_float_digits))
            }),
            Data::Date(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(time::date(out, at, value))
            }),
            Data::Timestamp(values, unit) => cells.fill::<32, _>(validity, values, rows, |out, at, value| {
                Some(time::timestamp(out, at, unit.micros(value), b' '))
            }),
            Data::TimestampTz(values) => cells.fill::<48, _>(validity, values, rows, |out, at, value| {
                Some(time::timestamp_tz(out, at, value, &mut context.zone, b' '))
            }),
            _ => Fit::No,
        }
    }

    /// As above without a frame; one copy of the code for the places where
    /// speed is not decided.
    #[inline(never)]
    pub(super) fn bare_text(&self, row: usize, w: &mut Writer, context: &mut Context) -> Step {
        self.text::<false>(row, w, context)
    }

    #[inline(never)]
    fn rare_text(&self, row: usize, w: &mut Writer, context: &mut Context) -> Step {
        match &self.data {
            Data::I8(values) => w.value(false, |out, at| number::int(out, at, values[row].into())),
            Data::I16(values) => w.value(false, |out, at| number::int(out, at, values[row].into())),
            Data::U8(values) => w.value(false, |out, at| number::uint(out, at, values[row].into())),
            Data::U16(values) => w.value(false, |out, at| number::uint(out, at, values[row].into())),
            Data::U32(values) => w.value(false, |out, at| number::uint(out, at, values[row].into())),
            Data::U64(values) => w.value(false, |out, at| number::uint(out, at, values[row])),
            Data::I128(values) => w.value(false, |out, at| number::int128(out, at, values[row].get())),
            Data::U128(values) => w.value(false, |out, at| number::uint128(out, at, values[row].get())),
            Data::BigNum(values) => BigNum::read(values.get(row).unwrap_or_default())?.text(w),
            Data::F32(values) => {
                w.value(false, |out, at| {
                    number::float(out, at, values[row], context.extra_float_digits)
                });
            }
            Data::Decimal16(values, scale) => {
                w.value(false, |out, at| {
                    number::decimal(out, at, values[row].into(), *scale)
                });
            }
            Data::Decimal128(values, scale) => {
                w.value(false, |out, at| {
                    number::decimal128(out, at, values[row].get(), *scale)
                });
            }
            Data::Blob(values) => bytea(w, values.get(row).unwrap_or_default()),
            Data::Bit(values) => bits(w, values.get(row).unwrap_or_default()),
            Data::Uuid(values) => w.value(false, |out, at| uuid(out, at, uuid_bytes(values[row].get()))),
            Data::Enum8(values, labels) => w.bytes(label(labels, values[row].into())),
            Data::Enum16(values, labels) => w.bytes(label(labels, values[row].into())),
            Data::Enum32(values, labels) => w.bytes(label(labels, values[row] as usize)),
            Data::Time(values, divisor) => {
                w.value(false, |out, at| time::time(out, at, values[row] / divisor))
            }
            Data::TimeTz(values) => w.value(false, |out, at| time::time_tz(out, at, values[row])),
            Data::Interval(values) => w.value(false, |out, at| time::interval(out, at, values[row])),
            Data::List(..) | Data::Array(..) => array::text(self, row, w, context)?,
            Data::Struct(_) | Data::Map(..) | Data::Union(..) => json::value(self, row, w, context)?,
            // All that `text` has handled, and nulls.
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn label(labels: &[String], code: usize) -> &[u8] {
    labels.get(code).map_or(b"", |label| label.as_bytes())
}

fn bytea(w: &mut Writer, bytes: &[u8]) {
    w.bytes(b"\\x");
    for byte in bytes {
        w.array([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

/// The bytes of a UUID in order; DuckDB flips the first bit, so that UUIDs
/// sort as signed numbers.
pub(super) fn uuid_bytes(stored: i128) -> [u8; 16] {
    ((stored as u128) ^ (1 << 127)).to_be_bytes()
}

fn uuid(out: &mut Slot, at: usize, bytes: [u8; 16]) -> usize {
    let mut text = [b'-'; 36];
    let mut place = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            place += 1;
        }
        text[place] = HEX[usize::from(byte >> 4)];
        text[place + 1] = HEX[usize::from(byte & 15)];
        place += 2;
    }
    put(out, at, text)
}

/// DuckDB's bit string: how many bits of padding (ones) are in front of the
/// first byte, then the bytes. Gives the number of bits, and the bytes.
pub(super) fn split_bits(stored: &[u8]) -> (usize, &[u8]) {
    match stored.split_first() {
        Some((padding, bytes)) => ((bytes.len() * 8).saturating_sub(usize::from(*padding)), bytes),
        None => (0, &[]),
    }
}

fn bits(w: &mut Writer, stored: &[u8]) {
    let (count, bytes) = split_bits(stored);
    let padding = bytes.len() * 8 - count;
    for index in padding..padding + count {
        w.byte(b'0' + ((bytes[index / 8] >> (7 - index % 8)) & 1));
    }
}
