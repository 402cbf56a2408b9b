//! A value in PostgreSQL's binary form (the `*send` functions of the types),
//! with its length before it.

use std::ops::Range;

use super::bignum::BigNum;
use super::block::{Cells, Fit};
use super::column::{Column, Context, Data, Step};
use super::writer::{Slot, Writer, put};
use super::{EncodeError, array, json, number, text, time};

impl Column<'_> {
    /// Appends the length and the value of a row that is not null.
    #[inline(always)]
    pub(super) fn binary(&self, row: usize, w: &mut Writer, context: &mut Context) -> Step {
        match &self.data {
            Data::I64(values) => w.fixed(true, values[row].to_be_bytes()),
            Data::I32(values) => w.fixed(true, values[row].to_be_bytes()),
            Data::F64(values) => w.fixed(true, values[row].to_be_bytes()),
            Data::Text(values) | Data::Json(values) => w.string(true, values, row),
            Data::Date(values) => w.fixed(
                true,
                in_range(time::date_binary(values[row]), "date")?.to_be_bytes(),
            ),
            Data::Timestamp(values, unit) => {
                w.fixed(
                    true,
                    in_range(time::timestamp_binary(unit.micros(values[row])), "timestamp")?.to_be_bytes(),
                );
            }
            Data::TimestampTz(values) => w.fixed(
                true,
                in_range(time::timestamp_binary(values[row]), "timestamp")?.to_be_bytes(),
            ),
            Data::Decimal64(values, scale) => decimal(w, values[row], *scale),
            Data::Decimal32(values, scale) => decimal(w, values[row].into(), *scale),
            Data::Bool(values) => w.fixed(true, [u8::from(values[row] != 0)]),
            _ => return self.rare_binary(row, w, context),
        }
        Ok(())
    }

    /// Fills a cell for each of these rows when the type's values are short
    /// and often seen.
    pub(super) fn binary_cells(&self, rows: Range<usize>, cells: &mut Cells) -> Fit {
        let validity = self.validity;
        match &self.data {
            Data::Bool(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, [u8::from(value != 0)]))
            }),
            Data::I16(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, value.to_be_bytes()))
            }),
            Data::I32(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, value.to_be_bytes()))
            }),
            Data::I64(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, value.to_be_bytes()))
            }),
            Data::F64(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, value.to_be_bytes()))
            }),
            Data::Decimal16(values, scale) => {
                cells.fill::<24, _>(validity, values, rows, |out, at, value| {
                    Some(decimal_at(out, at, value.into(), *scale))
                })
            }
            Data::Decimal32(values, scale) => {
                cells.fill::<24, _>(validity, values, rows, |out, at, value| {
                    Some(decimal_at(out, at, value.into(), *scale))
                })
            }
            Data::Decimal64(values, scale) => {
                cells.fill::<24, _>(validity, values, rows, |out, at, value| {
                    Some(decimal_at(out, at, value, *scale))
                })
            }
            Data::Date(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, time::date_binary(value)?.to_be_bytes()))
            }),
            Data::Timestamp(values, unit) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                let micros = time::timestamp_binary(unit.micros(value))?;
                Some(put(out, at, micros.to_be_bytes()))
            }),
            Data::TimestampTz(values) => cells.fill::<16, _>(validity, values, rows, |out, at, value| {
                Some(put(out, at, time::timestamp_binary(value)?.to_be_bytes()))
            }),
            _ => Fit::No,
        }
    }

    #[inline(never)]
    pub(super) fn rare_binary(&self, row: usize, w: &mut Writer, context: &mut Context) -> Step {
        match &self.data {
            Data::I8(values) => w.fixed(true, i16::from(values[row]).to_be_bytes()),
            Data::I16(values) => w.fixed(true, values[row].to_be_bytes()),
            Data::U8(values) => w.fixed(true, i16::from(values[row]).to_be_bytes()),
            Data::U16(values) => w.fixed(true, i32::from(values[row]).to_be_bytes()),
            Data::U32(values) => w.fixed(true, i64::from(values[row]).to_be_bytes()),
            Data::U64(values) => numeric(w, false, values[row].into(), 0),
            Data::I128(values) => huge(w, values[row].get(), 0),
            Data::U128(values) => numeric(w, false, values[row].get(), 0),
            Data::F32(values) => w.fixed(true, values[row].to_be_bytes()),
            Data::Decimal16(values, scale) => decimal(w, values[row].into(), *scale),
            Data::Decimal128(values, scale) => huge(w, values[row].get(), *scale),
            Data::Uuid(values) => w.fixed(true, text::uuid_bytes(values[row].get())),
            Data::Time(values, divisor) => w.fixed(true, (values[row] / divisor).to_be_bytes()),
            Data::TimeTz(values) => w.value(true, |out, at| {
                let (micros, east) = time::split_time_tz(values[row]);
                let at = put(out, at, micros.to_be_bytes());
                // PostgreSQL counts zones to the west.
                put(out, at, (-east).to_be_bytes())
            }),
            Data::Interval(values) => w.value(true, |out, at| {
                let interval = values[row];
                let at = put(out, at, interval.micros.to_be_bytes());
                let at = put(out, at, interval.days.to_be_bytes());
                put(out, at, interval.months.to_be_bytes())
            }),
            _ => {
                let mark = w.begin();
                self.long_binary(row, w, context)?;
                w.end(mark);
            }
        }
        Ok(())
    }

    /// Appends a value that varies in length, without the length.
    fn long_binary(&self, row: usize, w: &mut Writer, context: &mut Context) -> Step {
        match &self.data {
            Data::BigNum(values) => BigNum::read(values.get(row).unwrap_or_default())?.binary(w),
            Data::Blob(values) => w.bytes(values.get(row).unwrap_or_default()),
            Data::Bit(values) => bits(w, values.get(row).unwrap_or_default()),
            Data::Enum8(values, labels) => w.bytes(text::label(labels, values[row].into())),
            Data::Enum16(values, labels) => w.bytes(text::label(labels, values[row].into())),
            Data::Enum32(values, labels) => w.bytes(text::label(labels, values[row] as usize)),
            Data::List(..) | Data::Array(..) => array::binary(self, row, w, context)?,
            // The binary form of json is its text.
            Data::Struct(_) | Data::Map(..) | Data::Union(..) => json::value(self, row, w, context)?,
            // All that has a size, and nulls.
            _ => {}
        }
        Ok(())
    }
}

fn in_range<T>(value: Option<T>, name: &'static str) -> Result<T, Box<EncodeError>> {
    value.ok_or_else(|| Box::new(EncodeError::DatetimeOutOfRange(name)))
}

#[inline(always)]
fn decimal_at(out: &mut Slot, at: usize, unscaled: i64, scale: u8) -> usize {
    number::numeric_binary(out, at, unscaled < 0, unscaled.unsigned_abs().into(), scale)
}

#[inline]
fn decimal(w: &mut Writer, unscaled: i64, scale: u8) {
    numeric(w, unscaled < 0, unscaled.unsigned_abs().into(), scale);
}

fn huge(w: &mut Writer, unscaled: i128, scale: u8) {
    numeric(w, unscaled < 0, unscaled.unsigned_abs(), scale);
}

fn numeric(w: &mut Writer, negative: bool, number: u128, scale: u8) {
    w.value(true, |out, at| {
        number::numeric_binary(out, at, negative, number, scale)
    });
}

/// `varbit`: the number of bits, then the bits from the top of the first
/// byte on, filled up with zeros.
fn bits(w: &mut Writer, stored: &[u8]) {
    let (count, bytes) = text::split_bits(stored);
    w.array((count as u32).to_be_bytes());
    let padding = bytes.len() * 8 - count;
    for (index, byte) in bytes.iter().enumerate() {
        let next = bytes.get(index + 1).copied().unwrap_or(0);
        w.byte(((u16::from_be_bytes([*byte, next]) << padding) >> 8) as u8);
    }
}
