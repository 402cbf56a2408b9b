//! Parameters of `Bind` to DuckDB values.
//!
//! A parameter is read as the type that the client declared, else as the one
//! that DuckDB deduced for its place, first into a [`Datum`] of Rust types.
//! That becomes the value; where it fits, a value of exactly the deduced type,
//! because DuckDB plans a statement anew when a parameter has another type
//! than before. What only DuckDB's own casts can read (structs, enums, …) is
//! handed on as VARCHAR. Every length in binary data is checked against the
//! bytes at hand before anything is allocated.

mod array;
mod binary;
mod datetime;
mod interval;
mod kind;
mod numeric;
mod text;

use super::error::excerpt;
use super::pg_type::{oid, pg_type};
use super::{EncodeError, Format, Settings};
use crate::engine::{Interval, LogicalType, Value};
use kind::Kind;
use numeric::Numeric;

/// A decoded parameter.
#[derive(Clone, Debug, PartialEq)]
enum Datum {
    Null,
    Bool(bool),
    /// An integer and the width that its type has.
    Int(i64, Kind),
    Huge(i128),
    UHuge(u128),
    Float4(f32),
    Float8(f64),
    Numeric(Numeric),
    Text(String),
    Bytes(Vec<u8>),
    /// Bits from the top of the first byte on, and their number.
    Bit(Vec<u8>, usize),
    Uuid(u128),
    Date(i32),
    Time(i64),
    /// Microseconds, and seconds east of UTC.
    TimeTz(i64, i32),
    Timestamp(i64),
    TimestampTz(i64),
    Interval(Interval),
    List(Kind, Vec<Datum>),
}

/// Decodes one parameter of `Bind`.
///
/// `oid` is the type that the client declared, 0 or `unknown` (705) when it
/// declared none; `bytes` is `None` for NULL; `target` is the type that DuckDB
/// deduced for the parameter, [`LogicalType::Unknown`] when it could not.
/// Errors have the SQLSTATE that PostgreSQL gives for such input.
pub fn decode_parameter(
    oid: u32,
    format: Format,
    bytes: Option<&[u8]>,
    target: &LogicalType,
    settings: &Settings,
) -> Result<Value, EncodeError> {
    let Some(bytes) = bytes else {
        let declared = match target {
            LogicalType::Unknown | LogicalType::Any => super::type_for_oid(oid),
            _ => None,
        };
        return Ok(Value::null_of(declared.as_ref().unwrap_or(target)));
    };
    let undeclared = matches!(oid, 0 | oid::UNKNOWN);
    let datum = match format {
        Format::Text => {
            let kind = if undeclared {
                Kind::of_type(target)
            } else {
                Kind::of_oid(oid)
            };
            let text = utf8(bytes)?;
            match kind {
                // DuckDB's own list literals are for DuckDB's own cast.
                Some(Kind::Array(_)) if undeclared && !text.trim_start().starts_with('{') => {
                    Datum::Text(text.to_owned())
                }
                Some(kind) => text::read(&kind, text, settings)?,
                None => Datum::Text(text.to_owned()),
            }
        }
        Format::Binary => {
            let oid = match undeclared {
                true => pg_type(target).oid,
                false => oid,
            };
            match Kind::of_oid(oid) {
                Some(kind) => binary::read(&kind, bytes)?,
                None => {
                    return Err(EncodeError::UnsupportedParameter(format!(
                        "with OID {oid} in binary"
                    )));
                }
            }
        }
    };
    value(&datum, target)
}

/// Text as PostgreSQL takes it: UTF-8 without NUL.
fn utf8(bytes: &[u8]) -> Result<&str, EncodeError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let start = error.valid_up_to();
        let length = error.error_len().unwrap_or(bytes.len() - start);
        let shown: Vec<_> = bytes[start..start + length]
            .iter()
            .map(|byte| format!("0x{byte:02x}"))
            .collect();
        EncodeError::InvalidUtf8(shown.join(" "))
    })?;
    match text.contains('\0') {
        true => Err(EncodeError::InvalidUtf8("0x00".to_owned())),
        false => Ok(text),
    }
}

/// The value for a place of type `target`: of that type if it can be so
/// without loss, else of the datum's own.
fn value(datum: &Datum, target: &LogicalType) -> Result<Value, EncodeError> {
    Ok(match datum {
        Datum::Null => Value::null_of(target),
        Datum::Bool(value) => Value::boolean(*value),
        Datum::Int(number, kind) => integer(i128::from(*number), target).unwrap_or_else(|| match kind {
            Kind::Int2 => Value::smallint(*number as i16),
            Kind::Int4 => Value::integer(*number as i32),
            Kind::Oid => Value::uinteger(*number as u32),
            _ => Value::bigint(*number),
        }),
        Datum::Huge(number) => integer(*number, target).unwrap_or_else(|| Value::hugeint(*number)),
        Datum::UHuge(number) => match (i128::try_from(*number), target) {
            (Ok(number), target) if *target != LogicalType::UHugeInt => {
                integer(number, target).unwrap_or_else(|| Value::hugeint(number))
            }
            _ => Value::uhugeint(*number),
        },
        Datum::Float4(number) => match target {
            LogicalType::Double => Value::double(f64::from(*number)),
            _ => Value::float(*number),
        },
        Datum::Float8(number) => Value::double(*number),
        Datum::Numeric(number) => number.value(target)?,
        Datum::Text(text) => Value::varchar(text),
        Datum::Bytes(bytes) => Value::blob(bytes),
        Datum::Bit(bytes, bits) => {
            // DuckDB has no empty bit string.
            Value::bit(bytes, *bits).ok_or_else(|| EncodeError::invalid_text("bit varying", ""))?
        }
        Datum::Uuid(number) => Value::uuid(*number),
        Datum::Date(days) => Value::date(*days),
        // DuckDB has no cast between the two.
        Datum::Time(micros) if *target == LogicalType::TimeNs => Value::time_ns(micros * 1000),
        Datum::Time(micros) => Value::time(*micros),
        Datum::TimeTz(micros, east) => Value::time_tz(*micros, *east),
        Datum::Timestamp(micros) => Value::timestamp(*micros),
        Datum::TimestampTz(micros) => Value::timestamp_tz(*micros),
        Datum::Interval(interval) => Value::interval(*interval),
        Datum::List(..) => {
            let child = element_type(datum, target);
            list(datum, &child)?
        }
    })
}

/// The type of the elements of the list value that a list datum becomes.
fn element_type(datum: &Datum, target: &LogicalType) -> LogicalType {
    let Datum::List(kind, elements) = datum else {
        return LogicalType::Varchar;
    };
    let wanted = match target {
        LogicalType::List(child) | LogicalType::Array(child, _) => Some(child.as_ref()),
        _ => None,
    };
    if elements.iter().any(|element| matches!(element, Datum::List(..))) {
        let inner = elements.iter().find(|element| matches!(element, Datum::List(..)));
        let unknown = LogicalType::Unknown;
        let child = inner.map(|inner| element_type(inner, wanted.unwrap_or(&unknown)));
        return LogicalType::List(Box::new(child.unwrap_or(LogicalType::Varchar)));
    }
    match (kind, wanted) {
        (Kind::Numeric, Some(wanted @ (LogicalType::Double | LogicalType::Float))) => wanted.clone(),
        (Kind::Numeric, _) => numeric::common_type(elements),
        (Kind::Text | Kind::Json, Some(wanted @ LogicalType::Json)) => wanted.clone(),
        (kind, _) => kind.natural_type(),
    }
}

fn list(datum: &Datum, child: &LogicalType) -> Result<Value, EncodeError> {
    let Datum::List(_, elements) = datum else {
        return value(datum, child);
    };
    let values = elements
        .iter()
        .map(|element| match (element, child) {
            (Datum::List(..), LogicalType::List(inner)) => list(element, inner),
            (element, child) => value(element, child),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Value::list(child, &values).ok_or_else(|| EncodeError::OutOfRange {
        kind: "array",
        text: excerpt(&format!("{child}[]")),
    })
}

/// An integer as a value of an integer type that can hold it.
fn integer(number: i128, target: &LogicalType) -> Option<Value> {
    fn fit<T: TryFrom<i128>>(number: i128, make: fn(T) -> Value) -> Option<Value> {
        T::try_from(number).ok().map(make)
    }
    match target {
        LogicalType::TinyInt => fit(number, Value::tinyint),
        LogicalType::SmallInt => fit(number, Value::smallint),
        LogicalType::Integer => fit(number, Value::integer),
        LogicalType::BigInt => fit(number, Value::bigint),
        LogicalType::HugeInt => fit(number, Value::hugeint),
        LogicalType::UTinyInt => fit(number, Value::utinyint),
        LogicalType::USmallInt => fit(number, Value::usmallint),
        LogicalType::UInteger => fit(number, Value::uinteger),
        LogicalType::UBigInt => fit(number, Value::ubigint),
        LogicalType::UHugeInt => fit(number, Value::uhugeint),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
