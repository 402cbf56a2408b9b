//! `numeric` parameters.
//!
//! DuckDB's DECIMAL has 38 digits, PostgreSQL's numeric up to 131,072: what
//! fits becomes a DECIMAL of exactly its own width and scale, and the rest is
//! left to DuckDB's cast from text where the place says what it should become.

use super::Datum;
use super::text::trim;
use crate::encode::EncodeError;
use crate::engine::{LogicalType, Value};

const MAX_DIGITS: usize = 38;

/// A `numeric` as it was sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Numeric {
    /// `unscaled` × 10^-`scale`, with at most 38 digits.
    Decimal {
        unscaled: i128,
        scale: u8,
    },
    NotANumber,
    /// An infinity; the flag is for the negative one.
    Infinite(bool),
    /// A number with more digits, as text.
    Long(String),
}

impl Numeric {
    /// Reads the text form.
    pub(super) fn parse(text: &str) -> Result<Self, EncodeError> {
        let invalid = || EncodeError::invalid_text("numeric", text);
        let number = trim(text);
        let (negative, unsigned) = match number.strip_prefix(['-', '+']) {
            Some(rest) => (number.starts_with('-'), rest),
            None => (false, number),
        };
        match unsigned.to_ascii_lowercase().as_str() {
            "nan" if unsigned.len() == number.len() => return Ok(Self::NotANumber),
            "infinity" | "inf" => return Ok(Self::Infinite(negative)),
            _ => {}
        }
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let exponent: i32 = exponent.parse().map_err(|_| invalid())?;
                (mantissa, exponent)
            }
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
            return Err(invalid());
        }
        let scale = i64::try_from(fraction.len()).unwrap_or(i64::MAX) - i64::from(exponent);
        let digits = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0');
        Ok(Self::from_digits(negative, digits, scale).unwrap_or_else(|| Self::Long(number.to_owned())))
    }

    /// Reads the binary form (`numeric_recv`).
    pub(super) fn read(bytes: &[u8]) -> Result<Self, EncodeError> {
        let invalid = || EncodeError::InvalidBinary("numeric");
        let (head, groups) = bytes.split_first_chunk::<8>().ok_or_else(invalid)?;
        let field = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let (count, weight, sign, shown) = (field(0), field(2) as i16, field(4), field(6));
        if groups.len() != usize::from(count) * 2 || shown > 0x3fff {
            return Err(invalid());
        }
        let negative = match sign {
            0 => false,
            0x4000 => true,
            0xc000 => return Ok(Self::NotANumber),
            0xd000 => return Ok(Self::Infinite(false)),
            0xf000 => return Ok(Self::Infinite(true)),
            _ => return Err(invalid()),
        };
        let mut digits = Vec::with_capacity(groups.len() * 2);
        for group in groups.chunks_exact(2) {
            let group = u16::from_be_bytes([group[0], group[1]]);
            if group > 9999 {
                return Err(invalid());
            }
            digits.extend(
                [group / 1000, group / 100 % 10, group / 10 % 10, group % 10].map(|digit| digit as u8),
            );
        }
        let mut scale = (i64::from(count) - i64::from(weight) - 1) * 4;
        // The last group may have digits beyond those that count.
        while scale > i64::from(shown) && !digits.is_empty() {
            digits.pop();
            scale -= 1;
        }
        // Or zeros that count are not in it.
        let zeros = i64::from(shown) - scale;
        if zeros > 0 && zeros <= MAX_DIGITS as i64 {
            digits.resize(digits.len() + zeros as usize, 0);
            scale += zeros;
        }
        if digits.is_empty() {
            scale = i64::from(shown);
        }
        match Self::from_digits(negative, digits.iter().copied(), scale) {
            Some(number) => Ok(number),
            None => {
                let digits: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
                let sign = if negative { "-" } else { "" };
                Ok(Self::Long(format!("{sign}{digits}e{}", -scale)))
            }
        }
    }

    /// `None` when there are more digits than a DECIMAL has.
    fn from_digits(negative: bool, digits: impl Iterator<Item = u8>, scale: i64) -> Option<Self> {
        const MAX: i128 = 10i128.pow(MAX_DIGITS as u32);
        let mut unscaled = 0i128;
        for digit in digits {
            unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(digit))?;
            if unscaled >= MAX {
                return None;
            }
        }
        let mut scale = scale;
        if unscaled == 0 {
            scale = scale.clamp(0, MAX_DIGITS as i64);
        }
        // Zeros at the end that make the scale too large say nothing.
        while scale > MAX_DIGITS as i64 && unscaled % 10 == 0 {
            unscaled /= 10;
            scale -= 1;
        }
        while scale < 0 {
            unscaled = unscaled.checked_mul(10).filter(|number| *number < MAX)?;
            scale += 1;
        }
        if scale > MAX_DIGITS as i64 {
            return None;
        }
        Some(Self::Decimal {
            unscaled: if negative { -unscaled } else { unscaled },
            scale: scale as u8,
        })
    }

    pub(super) fn value(&self, target: &LogicalType) -> Result<Value, EncodeError> {
        let out_of_range = |text: &str| EncodeError::out_of_range("numeric", text);
        match self {
            Self::NotANumber => Ok(Value::double(f64::NAN)),
            Self::Infinite(negative) => Ok(Value::double(if *negative {
                f64::NEG_INFINITY
            } else {
                f64::INFINITY
            })),
            Self::Long(text) => match target {
                LogicalType::Decimal { .. }
                | LogicalType::Double
                | LogicalType::Float
                | LogicalType::BigNum => Ok(Value::varchar(text)),
                // These two have a digit more than a DECIMAL.
                LogicalType::HugeInt => whole(text)
                    .parse()
                    .map(Value::hugeint)
                    .map_err(|_| out_of_range(text)),
                LogicalType::UHugeInt => whole(text)
                    .parse()
                    .map(Value::uhugeint)
                    .map_err(|_| out_of_range(text)),
                _ => Err(out_of_range(text)),
            },
            Self::Decimal { unscaled, scale } => {
                let exact = match target {
                    LogicalType::Decimal { width, scale: wanted } if wanted >= scale => 10i128
                        .checked_pow(u32::from(wanted - scale))
                        .and_then(|power| unscaled.checked_mul(power))
                        .and_then(|unscaled| Value::decimal(unscaled, *width, *wanted)),
                    _ if *scale == 0 => super::integer(*unscaled, target),
                    _ => None,
                };
                match exact {
                    Some(value) => Ok(value),
                    None => Value::decimal(*unscaled, width(*unscaled, *scale), *scale)
                        .ok_or_else(|| out_of_range(&unscaled.to_string())),
                }
            }
        }
    }
}

/// A number's digits without an exponent that changes nothing.
fn whole(text: &str) -> &str {
    text.strip_suffix("e0").unwrap_or(text)
}

/// How many digits a number has, and at least those of its scale.
fn width(unscaled: i128, scale: u8) -> u8 {
    let digits = unscaled
        .unsigned_abs()
        .checked_ilog10()
        .map_or(1, |log| log as u8 + 1);
    digits.max(scale).max(1)
}

/// The DECIMAL that holds all these numbers; DOUBLE when there is none.
pub(super) fn common_type(elements: &[Datum]) -> LogicalType {
    let (mut whole, mut fraction) = (0, 0);
    for element in elements {
        match element {
            Datum::Numeric(Numeric::Decimal { unscaled, scale }) => {
                whole = whole.max(width(*unscaled, *scale) - scale);
                fraction = fraction.max(*scale);
            }
            Datum::Null => {}
            _ => return LogicalType::Double,
        }
    }
    match (whole + fraction).max(1) {
        width if usize::from(width) <= MAX_DIGITS => LogicalType::Decimal {
            width,
            scale: fraction,
        },
        _ => LogicalType::Double,
    }
}
