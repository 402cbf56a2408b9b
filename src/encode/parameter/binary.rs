//! PostgreSQL's binary input forms (the `*recv` functions of the types).

use super::kind::Kind;
use super::numeric::Numeric;
use super::{Datum, utf8};
use crate::encode::time::{DATE_INFINITY, EPOCH_DAYS, EPOCH_MICROS, MICROS_PER_DAY, TIMESTAMP_INFINITY};
use crate::encode::{EncodeError, oid};
use crate::engine::Interval;

/// PostgreSQL's limit of dimensions (`MAXDIM`).
const MAX_DIMENSIONS: usize = 6;
/// The largest displacement of a zone, in seconds; DuckDB has the same.
const LARGEST_OFFSET: i32 = 16 * 3600 - 1;

/// Reads a value of this kind.
pub(super) fn read(kind: &Kind, bytes: &[u8]) -> Result<Datum, EncodeError> {
    let invalid = || EncodeError::InvalidBinary(kind.name());
    Ok(match kind {
        Kind::Bool => match bytes {
            [byte] => Datum::Bool(*byte != 0),
            _ => return Err(invalid()),
        },
        Kind::Int2 => Datum::Int(i16::from_be_bytes(exact(kind, bytes)?).into(), Kind::Int2),
        Kind::Int4 => Datum::Int(i32::from_be_bytes(exact(kind, bytes)?).into(), Kind::Int4),
        Kind::Int8 => Datum::Int(i64::from_be_bytes(exact(kind, bytes)?), Kind::Int8),
        Kind::Oid => Datum::Int(u32::from_be_bytes(exact(kind, bytes)?).into(), Kind::Oid),
        Kind::Float4 => Datum::Float4(f32::from_be_bytes(exact(kind, bytes)?)),
        Kind::Float8 => Datum::Float8(f64::from_be_bytes(exact(kind, bytes)?)),
        Kind::Numeric => Datum::Numeric(Numeric::read(bytes)?),
        Kind::Text | Kind::Json => Datum::Text(utf8(bytes)?.to_owned()),
        Kind::Jsonb => match bytes.split_first() {
            Some((1, text)) => Datum::Text(utf8(text)?.to_owned()),
            _ => return Err(invalid()),
        },
        Kind::Char => match bytes {
            [0] => Datum::Text(String::new()),
            [_] => Datum::Text(utf8(bytes)?.to_owned()),
            _ => return Err(invalid()),
        },
        Kind::Bytea => Datum::Bytes(bytes.to_vec()),
        Kind::Bit => {
            let (count, bits) = bytes.split_first_chunk::<4>().ok_or_else(invalid)?;
            let count = usize::try_from(i32::from_be_bytes(*count)).map_err(|_| invalid())?;
            if bits.len() != count.div_ceil(8) {
                return Err(invalid());
            }
            Datum::Bit(bits.to_vec(), count)
        }
        Kind::Uuid => Datum::Uuid(u128::from_be_bytes(exact(kind, bytes)?)),
        Kind::Date => Datum::Date(match i32::from_be_bytes(exact(kind, bytes)?) {
            i32::MAX => DATE_INFINITY,
            i32::MIN => -DATE_INFINITY,
            days => days
                .checked_add(EPOCH_DAYS)
                .filter(|days| *days != DATE_INFINITY)
                .ok_or(EncodeError::DatetimeOutOfRange("date"))?,
        }),
        Kind::Time => Datum::Time(time_of_day(i64::from_be_bytes(exact(kind, bytes)?))?),
        Kind::TimeTz => {
            let bytes: [u8; 12] = exact(kind, bytes)?;
            let (micros, west) = bytes.split_at(8);
            let micros = time_of_day(i64::from_be_bytes(exact(kind, micros)?))?;
            let west = i32::from_be_bytes(exact(kind, west)?);
            if !(-LARGEST_OFFSET..=LARGEST_OFFSET).contains(&west) {
                return Err(EncodeError::ZoneDisplacement(west.to_string()));
            }
            Datum::TimeTz(micros, -west)
        }
        Kind::Timestamp => Datum::Timestamp(timestamp(i64::from_be_bytes(exact(kind, bytes)?))?),
        Kind::TimestampTz => Datum::TimestampTz(timestamp(i64::from_be_bytes(exact(kind, bytes)?))?),
        Kind::Interval => {
            let bytes: [u8; 16] = exact(kind, bytes)?;
            let (micros, rest) = bytes.split_at(8);
            let (days, months) = rest.split_at(4);
            Datum::Interval(Interval {
                months: i32::from_be_bytes(exact(kind, months)?),
                days: i32::from_be_bytes(exact(kind, days)?),
                micros: i64::from_be_bytes(exact(kind, micros)?),
            })
        }
        Kind::Array(element) => array(element, bytes)?,
        // No oid stands for these.
        Kind::Int1 | Kind::Huge | Kind::UInt1 | Kind::UInt2 | Kind::UInt4 | Kind::UInt8 | Kind::UHuge => {
            return Err(invalid());
        }
    })
}

fn exact<const N: usize>(kind: &Kind, bytes: &[u8]) -> Result<[u8; N], EncodeError> {
    bytes
        .try_into()
        .map_err(|_| EncodeError::InvalidBinary(kind.name()))
}

fn time_of_day(micros: i64) -> Result<i64, EncodeError> {
    match (0..=MICROS_PER_DAY).contains(&micros) {
        true => Ok(micros),
        false => Err(EncodeError::DatetimeOutOfRange("time")),
    }
}

fn timestamp(micros: i64) -> Result<i64, EncodeError> {
    match micros {
        i64::MAX => Ok(TIMESTAMP_INFINITY),
        i64::MIN => Ok(-TIMESTAMP_INFINITY),
        micros => micros
            .checked_add(EPOCH_MICROS)
            .filter(|micros| super::datetime::TIMESTAMPS.contains(micros))
            .ok_or(EncodeError::DatetimeOutOfRange("timestamp")),
    }
}

/// `array_recv`: dimensions, a flag, the element type, then length and lower
/// bound of each dimension, then the elements.
fn array(element: &Kind, bytes: &[u8]) -> Result<Datum, EncodeError> {
    const KIND: &str = "array";
    let mut rest = bytes;
    let mut word = || -> Result<i32, EncodeError> {
        let (word, tail) = rest
            .split_first_chunk::<4>()
            .ok_or(EncodeError::InvalidBinary(KIND))?;
        rest = tail;
        Ok(i32::from_be_bytes(*word))
    };
    let invalid = EncodeError::InvalidBinary(KIND);
    let dimensions = usize::try_from(word()?)
        .ok()
        .filter(|count| *count <= MAX_DIMENSIONS);
    let dimensions = dimensions.ok_or_else(|| invalid.clone())?;
    if !matches!(word()?, 0 | 1) {
        return Err(invalid);
    }
    let declared = word()? as u32;
    // The names of one type may differ (text and varchar), the forms not.
    if Kind::of_oid(declared).as_ref() != Some(element) && declared != oid::UNKNOWN {
        return Err(invalid);
    }
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        lengths.push(usize::try_from(word()?).map_err(|_| invalid.clone())?);
        word()?;
    }
    let total = lengths
        .iter()
        .try_fold(1usize, |total, length| total.checked_mul(*length));
    let total = match lengths.is_empty() {
        true => 0,
        // Each element takes its length, four bytes, at least.
        false => total
            .filter(|total| *total <= rest.len() / 4)
            .ok_or_else(|| invalid.clone())?,
    };
    let mut elements = Vec::with_capacity(total);
    for _ in 0..total {
        let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(|| invalid.clone())?;
        rest = tail;
        elements.push(match i32::from_be_bytes(*length) {
            -1 => Datum::Null,
            length => {
                let length = usize::try_from(length).map_err(|_| invalid.clone())?;
                let (bytes, tail) = rest.split_at_checked(length).ok_or_else(|| invalid.clone())?;
                rest = tail;
                read(element, bytes)?
            }
        });
    }
    if !rest.is_empty() {
        return Err(invalid);
    }
    // The last dimension is the innermost.
    for length in lengths.iter().skip(1).rev() {
        let mut lists = Vec::with_capacity(elements.len() / (*length).max(1));
        let mut elements_left = elements.into_iter().peekable();
        while elements_left.peek().is_some() {
            lists.push(Datum::List(
                element.clone(),
                elements_left.by_ref().take(*length).collect(),
            ));
        }
        elements = lists;
    }
    Ok(Datum::List(element.clone(), elements))
}
