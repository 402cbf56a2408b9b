//! A value in PostgreSQL's binary form (the `*send` functions of the types).

use super::bignum::BigNum;
use super::column::{Column, Context, Data};
use super::writer::Writer;
use super::{EncodeError, array, json, number, text, time};

impl Column<'_> {
    /// Appends the value of a row that is not null.
    #[inline]
    pub(super) fn binary(
        &self,
        row: usize,
        w: &mut Writer,
        context: &mut Context,
    ) -> Result<(), EncodeError> {
        match &self.data {
            Data::I64(values) => w.array(values[row].to_be_bytes()),
            Data::I32(values) => w.array(values[row].to_be_bytes()),
            Data::F64(values) => w.array(values[row].to_be_bytes()),
            Data::Text(values) | Data::Json(values) => text::string(w, values, row),
            Data::Date(values) => w.array(time::date_binary(values[row])?.to_be_bytes()),
            Data::Timestamp(values, unit) => {
                w.array(time::timestamp_binary(unit.micros(values[row]))?.to_be_bytes());
            }
            Data::TimestampTz(values) => w.array(time::timestamp_binary(values[row])?.to_be_bytes()),
            Data::Decimal64(values, scale) => decimal(w, values[row], *scale),
            Data::Decimal32(values, scale) => decimal(w, i64::from(values[row]), *scale),
            Data::Bool(values) => w.byte(u8::from(values[row] != 0)),
            _ => return self.rare_binary(row, w, context),
        }
        Ok(())
    }

    #[inline(never)]
    fn rare_binary(&self, row: usize, w: &mut Writer, context: &mut Context) -> Result<(), EncodeError> {
        match &self.data {
            Data::I8(values) => w.array(i16::from(values[row]).to_be_bytes()),
            Data::I16(values) => w.array(values[row].to_be_bytes()),
            Data::U8(values) => w.array(i16::from(values[row]).to_be_bytes()),
            Data::U16(values) => w.array(i32::from(values[row]).to_be_bytes()),
            Data::U32(values) => w.array(i64::from(values[row]).to_be_bytes()),
            Data::U64(values) => number::numeric_binary_unsigned(w, false, values[row].into(), 0),
            Data::I128(values) => number::numeric_binary(w, values[row].get(), 0),
            Data::U128(values) => number::numeric_binary_unsigned(w, false, values[row].get(), 0),
            Data::BigNum(values) => BigNum::read(values.get(row).unwrap_or_default())?.binary(w),
            Data::F32(values) => w.array(values[row].to_be_bytes()),
            Data::Decimal16(values, scale) => decimal(w, i64::from(values[row]), *scale),
            Data::Decimal128(values, scale) => number::numeric_binary(w, values[row].get(), *scale),
            Data::Blob(values) => w.bytes(values.get(row).unwrap_or_default()),
            Data::Bit(values) => bits(w, values.get(row).unwrap_or_default()),
            Data::Uuid(values) => w.array(text::uuid_bytes(values[row].get())),
            Data::Enum8(values, labels) => w.bytes(text::label(labels, values[row].into())),
            Data::Enum16(values, labels) => w.bytes(text::label(labels, values[row].into())),
            Data::Enum32(values, labels) => w.bytes(text::label(labels, values[row] as usize)),
            Data::Time(values, divisor) => w.array((values[row] / divisor).to_be_bytes()),
            Data::TimeTz(values) => {
                let (micros, east) = time::split_time_tz(values[row]);
                w.array(micros.to_be_bytes());
                // PostgreSQL counts zones to the west.
                w.array((-east).to_be_bytes());
            }
            Data::Interval(values) => {
                let interval = values[row];
                w.array(interval.micros.to_be_bytes());
                w.array(interval.days.to_be_bytes());
                w.array(interval.months.to_be_bytes());
            }
            Data::List(..) | Data::Array(..) => array::binary(self, row, w, context)?,
            // The binary form of json is its text.
            Data::Struct(_) | Data::Map(..) | Data::Union(..) => json::value(self, row, w, context)?,
            // All that `binary` has handled, and nulls.
            _ => {}
        }
        Ok(())
    }
}

#[inline]
fn decimal(w: &mut Writer, unscaled: i64, scale: u8) {
    number::numeric_binary_unsigned(w, unscaled < 0, unscaled.unsigned_abs().into(), scale);
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
