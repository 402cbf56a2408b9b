//! PostgreSQL's text input forms (the `*in` functions of the types).

use super::interval;
use super::kind::Kind;
use super::numeric::Numeric;
use super::{Datum, array, datetime, excerpt};
use crate::encode::{EncodeError, Settings};

/// Reads a value of this kind.
pub(super) fn read(kind: &Kind, text: &str, settings: &Settings) -> Result<Datum, EncodeError> {
    match kind {
        Kind::Bool => boolean(text).map(Datum::Bool),
        Kind::Int1
        | Kind::Int2
        | Kind::Int4
        | Kind::Int8
        | Kind::Huge
        | Kind::UInt1
        | Kind::UInt2
        | Kind::UInt4
        | Kind::UInt8
        | Kind::UHuge
        | Kind::Oid => integer(kind, text),
        Kind::Float4 => float(kind, text).map(Datum::Float4),
        Kind::Float8 => float(kind, text).map(Datum::Float8),
        Kind::Numeric => Numeric::parse(text).map(Datum::Numeric),
        Kind::Text | Kind::Json | Kind::Jsonb => Ok(Datum::Text(text.to_owned())),
        Kind::Char => Ok(Datum::Text(text.chars().take(1).collect())),
        Kind::Bytea => bytea(text).map(Datum::Bytes),
        Kind::Bit => bits(text),
        Kind::Uuid => uuid(text).map(Datum::Uuid),
        Kind::Date | Kind::Time | Kind::TimeTz | Kind::Timestamp | Kind::TimestampTz => {
            datetime::read(kind, text, settings)
        }
        Kind::Interval => interval::read(text).map(Datum::Interval),
        Kind::Array(element) => array::read(element, text, settings),
    }
}

/// Without the white space that PostgreSQL ignores around numbers.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| matches!(c, ' ' | '\t'..='\r'))
}

fn boolean(text: &str) -> Result<bool, EncodeError> {
    let word = trim(text).to_ascii_lowercase();
    let begins = |full: &str, least: usize| word.len() >= least && full.starts_with(&word);
    if word == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Ok(true)
    } else if word == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Ok(false)
    } else {
        Err(EncodeError::invalid_text("boolean", text))
    }
}

fn integer(kind: &Kind, text: &str) -> Result<Datum, EncodeError> {
    let number = trim(text);
    let digits = number.strip_prefix(['-', '+']).unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EncodeError::invalid_text(kind.name(), text));
    }
    let out_of_range = || EncodeError::out_of_range(kind.name(), text);
    if *kind == Kind::UHuge && !number.starts_with('-') {
        return digits.parse().map(Datum::UHuge).map_err(|_| out_of_range());
    }
    let value: i128 = number.parse().map_err(|_| out_of_range())?;
    let (least, most) = match kind {
        Kind::Int1 => (i8::MIN.into(), i8::MAX.into()),
        Kind::Int2 => (i16::MIN.into(), i16::MAX.into()),
        Kind::Int4 => (i32::MIN.into(), i32::MAX.into()),
        Kind::UInt1 => (0, u8::MAX.into()),
        Kind::UInt2 => (0, u16::MAX.into()),
        Kind::UInt4 => (0, u32::MAX.into()),
        // PostgreSQL takes the negative ones as their complement.
        Kind::Oid => (i32::MIN.into(), u32::MAX.into()),
        Kind::UInt8 => (0, u64::MAX.into()),
        Kind::Huge => (i128::MIN, i128::MAX),
        Kind::UHuge => (0, 0),
        _ => (i64::MIN.into(), i64::MAX.into()),
    };
    if !(least..=most).contains(&value) {
        return Err(out_of_range());
    }
    Ok(match (kind, i64::try_from(value)) {
        (Kind::Oid, Ok(value)) => Datum::Int(i64::from(value as u32), Kind::Oid),
        (Kind::Huge | Kind::UHuge, _) | (_, Err(_)) => Datum::Huge(value),
        (kind, Ok(value)) => Datum::Int(value, kind.clone()),
    })
}

trait ParseFloat: std::str::FromStr {
    fn is_suspect(&self) -> bool;
}

impl ParseFloat for f32 {
    fn is_suspect(&self) -> bool {
        *self == 0.0 || self.is_infinite()
    }
}

impl ParseFloat for f64 {
    fn is_suspect(&self) -> bool {
        *self == 0.0 || self.is_infinite()
    }
}

fn float<F: ParseFloat>(kind: &Kind, text: &str) -> Result<F, EncodeError> {
    let number = trim(text);
    let value: F = number
        .parse()
        .map_err(|_| EncodeError::invalid_text(kind.name(), text))?;
    // Zero and infinity must have been meant, not rounded to.
    if value.is_suspect() {
        let mantissa = number.split(['e', 'E']).next().unwrap_or(number);
        if mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9')) {
            return Err(EncodeError::out_of_range(kind.name(), text));
        }
    }
    Ok(value)
}

pub(super) fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// Both input forms, hex and escape.
fn bytea(text: &str) -> Result<Vec<u8>, EncodeError> {
    let invalid = || EncodeError::invalid_text("bytea", text);
    let mut bytes = Vec::with_capacity(text.len() / 2);
    if let Some(hex) = text.strip_prefix("\\x") {
        let invalid = || EncodeError::InvalidHex(excerpt(hex));
        let mut digits = hex.bytes();
        while let Some(byte) = digits.next() {
            if matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                continue;
            }
            let high = hex_digit(byte).ok_or_else(invalid)?;
            let low = digits.next().and_then(hex_digit).ok_or_else(invalid)?;
            bytes.push((high << 4) | low);
        }
        return Ok(bytes);
    }
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                tail
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                tail
            }
            (b'\\', _) => return Err(invalid()),
            (byte, tail) => {
                bytes.push(*byte);
                tail
            }
        };
    }
    Ok(bytes)
}

fn bits(text: &str) -> Result<Datum, EncodeError> {
    let invalid = || EncodeError::invalid_text("bit varying", text);
    let mut bytes = Vec::new();
    let mut count = 0;
    let mut push = |bit: u8| {
        if count % 8 == 0 {
            bytes.push(0);
        }
        if let Some(last) = bytes.last_mut() {
            *last |= bit << (7 - count % 8);
        }
        count += 1;
    };
    if let Some(hex) = text.strip_prefix(['x', 'X']) {
        for byte in hex.bytes() {
            let digit = hex_digit(byte).ok_or_else(invalid)?;
            for shift in (0..4).rev() {
                push((digit >> shift) & 1);
            }
        }
    } else {
        for byte in text.strip_prefix(['b', 'B']).unwrap_or(text).bytes() {
            match byte {
                b'0' | b'1' => push(byte - b'0'),
                _ => return Err(invalid()),
            }
        }
    }
    Ok(Datum::Bit(bytes, count))
}

/// 32 hex digits, hyphens after any group of four, braces around it or not.
fn uuid(text: &str) -> Result<u128, EncodeError> {
    let invalid = || EncodeError::invalid_text("uuid", text);
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(invalid)?,
        None => text,
    };
    let mut value = 0u128;
    let mut digits = 0;
    let mut may_hyphen = false;
    for byte in inner.bytes() {
        if byte == b'-' && may_hyphen && digits < 32 {
            may_hyphen = false;
            continue;
        }
        let digit = hex_digit(byte).filter(|_| digits < 32).ok_or_else(invalid)?;
        value = (value << 4) | u128::from(digit);
        digits += 1;
        may_hyphen = digits % 4 == 0;
    }
    match digits {
        32 => Ok(value),
        _ => Err(invalid()),
    }
}
