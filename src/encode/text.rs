//! A value in PostgreSQL's text form.

use super::bignum::BigNum;
use super::column::{Column, Context, Data};
use super::writer::Writer;
use super::{EncodeError, array, json, number, time};
use crate::engine::Strings;

const HEX: &[u8; 16] = b"0123456789abcdef";

impl Column<'_> {
    /// Appends the text of a row that is not null.
    #[inline]
    pub(super) fn text(&self, row: usize, w: &mut Writer, context: &mut Context) -> Result<(), EncodeError> {
        match &self.data {
            Data::I64(values) => number::int(w, values[row]),
            Data::I32(values) => number::int(w, i64::from(values[row])),
            Data::Text(values) | Data::Json(values) => string(w, values, row),
            Data::F64(values) => context.float(w, values[row]),
            Data::Date(values) => time::date(w, values[row]),
            Data::Timestamp(values, unit) => time::timestamp(w, unit.micros(values[row]), b' '),
            Data::TimestampTz(values) => time::timestamp_tz(w, values[row], &mut context.zone, b' '),
            Data::Decimal64(values, scale) => number::decimal(w, values[row], *scale),
            Data::Decimal32(values, scale) => number::decimal(w, i64::from(values[row]), *scale),
            Data::Bool(values) => w.byte(if values[row] != 0 { b't' } else { b'f' }),
            _ => return self.rare_text(row, w, context),
        }
        Ok(())
    }

    #[inline(never)]
    fn rare_text(&self, row: usize, w: &mut Writer, context: &mut Context) -> Result<(), EncodeError> {
        match &self.data {
            Data::I8(values) => number::int(w, i64::from(values[row])),
            Data::I16(values) => number::int(w, i64::from(values[row])),
            Data::U8(values) => number::uint(w, u64::from(values[row])),
            Data::U16(values) => number::uint(w, u64::from(values[row])),
            Data::U32(values) => number::uint(w, u64::from(values[row])),
            Data::U64(values) => number::uint(w, values[row]),
            Data::I128(values) => number::int128(w, values[row].get()),
            Data::U128(values) => number::uint128(w, values[row].get()),
            Data::BigNum(values) => BigNum::read(values.get(row).unwrap_or_default())?.text(w),
            Data::F32(values) => context.float(w, values[row]),
            Data::Decimal16(values, scale) => number::decimal(w, i64::from(values[row]), *scale),
            Data::Decimal128(values, scale) => number::decimal128(w, values[row].get(), *scale),
            Data::Blob(values) => bytea(w, values.get(row).unwrap_or_default()),
            Data::Bit(values) => bits(w, values.get(row).unwrap_or_default()),
            Data::Uuid(values) => uuid(w, uuid_bytes(values[row].get())),
            Data::Enum8(values, labels) => w.bytes(label(labels, values[row].into())),
            Data::Enum16(values, labels) => w.bytes(label(labels, values[row].into())),
            Data::Enum32(values, labels) => w.bytes(label(labels, values[row] as usize)),
            Data::Time(values, divisor) => time::time(w, values[row] / divisor),
            Data::TimeTz(values) => time::time_tz(w, values[row]),
            Data::Interval(values) => time::interval(w, values[row]),
            Data::List(..) | Data::Array(..) => array::text(self, row, w, context)?,
            Data::Struct(_) | Data::Map(..) | Data::Union(..) => json::value(self, row, w, context)?,
            // All that `text` has handled, and nulls.
            _ => {}
        }
        Ok(())
    }
}

/// Appends a string; a short one as a block of known size.
#[inline(always)]
pub(super) fn string(w: &mut Writer, values: &Strings<'_>, row: usize) {
    match values.short(row) {
        Some((bytes, length)) => {
            *w.slot() = bytes;
            w.advance(length);
        }
        None => w.bytes(values.get(row).unwrap_or_default()),
    }
}

pub(super) fn label(labels: &[String], code: usize) -> &[u8] {
    labels.get(code).map_or(b"", |label| label.as_bytes())
}

fn hex(w: &mut Writer, bytes: &[u8]) {
    for byte in bytes {
        w.array([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
}

fn bytea(w: &mut Writer, bytes: &[u8]) {
    w.bytes(b"\\x");
    hex(w, bytes);
}

/// The bytes of a UUID in order; DuckDB flips the first bit, so that UUIDs
/// sort as signed numbers.
pub(super) fn uuid_bytes(stored: i128) -> [u8; 16] {
    ((stored as u128) ^ (1 << 127)).to_be_bytes()
}

fn uuid(w: &mut Writer, bytes: [u8; 16]) {
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    w.array(text);
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
