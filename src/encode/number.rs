//! Numbers as PostgreSQL prints them, and `numeric`'s binary form.
//!
//! Integers go eight digits at a time through one 64-bit register instead of
//! digit by digit: the halves of a number are divided side by side in lanes of
//! the register. Floats take their shortest digits from `zmij`; PostgreSQL's
//! choice between fixed and exponent form is made here.

use super::writer::Writer;

const ASCII: u64 = 0x3030_3030_3030_3030;
const E8: u64 = 100_000_000;
const E16: u64 = E8 * E8;

/// The eight decimal digits of a number below 10^8, one a byte, the first
/// digit in the lowest byte.
#[inline(always)]
pub(super) fn digits8(number: u32) -> u64 {
    debug_assert!(u64::from(number) < E8);
    // Two lanes of four digits, then four of two, then eight of one. The
    // multiplications divide by 100 and by 10 in all lanes at once.
    let lanes = u64::from(number / 10_000) | (u64::from(number % 10_000) << 32);
    let hundreds = ((lanes * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let lanes = hundreds | ((lanes - hundreds * 100) << 16);
    let tens = ((lanes * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((lanes - tens * 10) << 8)
}

/// Like [`digits8`], in ASCII and as bytes.
#[inline(always)]
pub(super) fn ascii8(number: u32) -> [u8; 8] {
    (digits8(number) | ASCII).to_le_bytes()
}

/// Writes a number below 10^8 without leading zeros at the front of `out`
/// and says how many digits it has; bytes behind them are clobbered.
#[inline(always)]
fn leading(out: &mut [u8], number: u32) -> usize {
    let digits = digits8(number);
    // The last digit counts even if it is 0.
    let skip = ((digits | (1 << 56)).trailing_zeros() / 8) as usize;
    out[..8].copy_from_slice(&((digits | ASCII) >> (8 * skip)).to_le_bytes());
    8 - skip
}

/// Writes a number at the front of `out` (24 bytes or more; all of them may
/// be clobbered) and says how many digits it has.
#[inline(always)]
fn unsigned(out: &mut [u8], number: u64) -> usize {
    if number < E8 {
        return leading(out, number as u32);
    }
    if number < E16 {
        let count = leading(out, (number / E8) as u32);
        out[count..count + 8].copy_from_slice(&ascii8((number % E8) as u32));
        return count + 8;
    }
    let (top, rest) = (number / E16, number % E16);
    let count = leading(out, top as u32);
    out[count..count + 8].copy_from_slice(&ascii8((rest / E8) as u32));
    out[count + 8..count + 16].copy_from_slice(&ascii8((rest % E8) as u32));
    count + 16
}

#[inline]
pub(super) fn int(w: &mut Writer, number: i64) {
    let slot = w.slot::<32>();
    slot[0] = b'-';
    let sign = usize::from(number < 0);
    let count = unsigned(&mut slot[sign..], number.unsigned_abs());
    w.advance(sign + count);
}

#[inline]
pub(super) fn uint(w: &mut Writer, number: u64) {
    let count = unsigned(w.slot::<32>(), number);
    w.advance(count);
}

pub(super) fn uint128(w: &mut Writer, number: u128) {
    const E16: u128 = self::E16 as u128;
    if let Ok(small) = u64::try_from(number) {
        return uint(w, small);
    }
    // 39 digits at most: 7 + 16 + 16.
    let (rest, low) = (number / E16, (number % E16) as u64);
    let (high, middle) = (rest / E16, (rest % E16) as u64);
    match high {
        0 => uint(w, middle),
        high => {
            uint(w, high as u64);
            padded16(w, middle);
        }
    }
    padded16(w, low);
}

/// A number below 10^16 with leading zeros.
fn padded16(w: &mut Writer, number: u64) {
    w.array(ascii8((number / E8) as u32));
    w.array(ascii8((number % E8) as u32));
}

pub(super) fn int128(w: &mut Writer, number: i128) {
    if number < 0 {
        w.byte(b'-');
    }
    uint128(w, number.unsigned_abs());
}

/// A decimal with `scale` digits after the point.
#[inline]
pub(super) fn decimal(w: &mut Writer, unscaled: i64, scale: u8) {
    if scale == 0 {
        return int(w, unscaled);
    }
    let number = unscaled.unsigned_abs();
    let scale = usize::from(scale);
    // All digits with leading zeros, so that point and first digit can be
    // found by position: 24, and as much again that may be read behind them.
    let mut digits = [0u8; 48];
    let low = (number % E8) as u32;
    digits[16..24].copy_from_slice(&ascii8(low));
    let zeros = if number < E8 {
        digits[..16].copy_from_slice(&[b'0'; 16]);
        16 + ((digits8(low) | (1 << 56)).trailing_zeros() / 8) as usize
    } else {
        let rest = number / E8;
        let (high, middle) = (rest / E8, rest % E8);
        digits[..8].copy_from_slice(&ascii8(high as u32));
        digits[8..16].copy_from_slice(&ascii8(middle as u32));
        match high {
            0 => 8 + (digits8(middle as u32).trailing_zeros() / 8) as usize,
            high => (digits8(high as u32).trailing_zeros() / 8) as usize,
        }
    };
    let point = 24 - scale;
    let first = zeros.min(point - 1);
    let whole = point - first;
    let sign = usize::from(unscaled < 0);
    let slot = w.slot::<56>();
    slot[0] = b'-';
    slot[sign..sign + 24].copy_from_slice(&digits[first..first + 24]);
    slot[sign + whole] = b'.';
    slot[sign + whole + 1..sign + whole + 25].copy_from_slice(&digits[point..point + 24]);
    w.advance(sign + whole + 1 + scale);
}

pub(super) fn decimal128(w: &mut Writer, unscaled: i128, scale: u8) {
    if let Ok(small) = i64::try_from(unscaled)
        && scale < 20
    {
        return decimal(w, small, scale);
    }
    if scale == 0 {
        return int128(w, unscaled);
    }
    if unscaled < 0 {
        w.byte(b'-');
    }
    let power = 10u128.pow(u32::from(scale));
    let number = unscaled.unsigned_abs();
    uint128(w, number / power);
    w.byte(b'.');
    let mark = w.position();
    // A leading 1 keeps the zeros that the fraction begins with.
    uint128(w, number % power + power);
    // Its place is taken by moving the digits over it.
    let scale = usize::from(scale);
    let mut digits = [0; 40];
    digits[..scale].copy_from_slice(&w.since(mark)[1..]);
    w.truncate(mark);
    w.bytes(&digits[..scale]);
}

/// `numeric`'s binary form: digits to the base of 10,000.
pub(super) fn numeric_binary(w: &mut Writer, unscaled: i128, scale: u8) {
    numeric_binary_unsigned(w, unscaled < 0, unscaled.unsigned_abs(), scale);
}

#[inline]
pub(super) fn numeric_binary_unsigned(w: &mut Writer, negative: bool, number: u128, scale: u8) {
    // The groups count from the point on: fill the fraction to whole groups.
    let fill = (4 - scale % 4) % 4;
    let power = [1u64, 10, 100, 1000][usize::from(fill)];
    let mut groups = [0u16; 12];
    let mut first = groups.len();
    let mut next = |group: u16| {
        first -= 1;
        groups[first] = group;
    };
    match u64::try_from(number)
        .ok()
        .and_then(|number| number.checked_mul(power))
    {
        Some(mut rest) => {
            while rest != 0 {
                next((rest % 10_000) as u16);
                rest /= 10_000;
            }
        }
        None => {
            // Up to 39 digits times 1000 is more than 128 bits hold.
            let low = (number % u128::from(E16)) * u128::from(power);
            let high = (number / u128::from(E16)) * u128::from(power) + low / u128::from(E16);
            let mut low = (low % u128::from(E16)) as u64;
            for _ in 0..4 {
                next((low % 10_000) as u16);
                low /= 10_000;
            }
            let mut high = high;
            while high != 0 {
                next((high % 10_000) as u16);
                high /= 10_000;
            }
        }
    }
    let count = groups.len() - first;
    let fraction = (i32::from(scale) + i32::from(fill)) / 4;
    let weight = count as i32 - fraction - 1;
    let significant = &groups[first..];
    let trailing = significant.iter().rev().take_while(|group| **group == 0).count();
    let leading = significant.iter().take_while(|group| **group == 0).count();
    let slot = w.slot::<32>();
    let (count, weight) = match count == trailing {
        true => (0, 0),
        false => (count - trailing - leading, weight - leading as i32),
    };
    slot[..2].copy_from_slice(&(count as u16).to_be_bytes());
    slot[2..4].copy_from_slice(&(weight as i16).to_be_bytes());
    slot[4..6].copy_from_slice(&if negative { 0x4000u16 } else { 0 }.to_be_bytes());
    slot[6..8].copy_from_slice(&u16::from(scale).to_be_bytes());
    for (place, group) in slot[8..]
        .chunks_exact_mut(2)
        .zip(&significant[leading.min(significant.len())..])
    {
        place.copy_from_slice(&group.to_be_bytes());
    }
    w.advance(8 + 2 * count);
}

/// How a float type prints.
pub(super) trait Float: zmij::Float + Copy {
    /// The decimal exponents from here on take the exponent form.
    const FIXED_BELOW: i32;
    /// Ten to that power.
    const LIMIT: f64;
    /// The digits that any decimal keeps (`FLT_DIG`, `DBL_DIG`).
    const DIGITS: i32;
    fn wide(self) -> f64;
}

impl Float for f32 {
    const FIXED_BELOW: i32 = 6;
    const LIMIT: f64 = 1e6;
    const DIGITS: i32 = 6;
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Float for f64 {
    const FIXED_BELOW: i32 = 15;
    const LIMIT: f64 = 1e15;
    const DIGITS: i32 = 15;
    fn wide(self) -> f64 {
        self
    }
}

/// A float as `float4out` and `float8out` print it.
#[inline]
pub(super) fn float<F: Float>(w: &mut Writer, number: F, extra_digits: i32) {
    let wide = number.wide();
    if !wide.is_finite() {
        let name: &[u8] = match wide {
            _ if wide.is_nan() => b"NaN",
            _ if wide > 0.0 => b"Infinity",
            _ => b"-Infinity",
        };
        return w.bytes(name);
    }
    if extra_digits <= 0 {
        return rounded_float(w, wide, (F::DIGITS + extra_digits).max(1) as usize);
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(number).as_bytes();
    // Fixed form without an exponent, below the limit: as it is, but for the
    // ".0" of whole numbers.
    let magnitude = wide.abs();
    if (1e-3..F::LIMIT).contains(&magnitude) && shortest.len() <= 24 {
        let length = shortest.strip_suffix(b".0").unwrap_or(shortest).len();
        let slot = w.slot::<24>();
        slot[..shortest.len()].copy_from_slice(shortest);
        return w.advance(length);
    }
    reformat(w, shortest, F::FIXED_BELOW);
}

/// `%.*g` with this many digits.
#[cold]
fn rounded_float(w: &mut Writer, number: f64, digits: usize) {
    let text = format!("{number:.*e}", digits - 1);
    reformat(w, text.as_bytes(), digits as i32);
}

/// Prints a number that is given in any usual form in PostgreSQL's: fixed for
/// exponents from -4 to below `fixed_below`, else as in `1.5e+20`.
#[cold]
fn reformat(w: &mut Writer, text: &[u8], fixed_below: i32) {
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match text.iter().position(|byte| *byte == b'e') {
        Some(at) => {
            let exponent = std::str::from_utf8(&text[at + 1..])
                .ok()
                .and_then(|text| text.parse().ok());
            (&text[..at], exponent.unwrap_or(0))
        }
        None => (text, 0),
    };
    let point = mantissa
        .iter()
        .position(|byte| *byte == b'.')
        .unwrap_or(mantissa.len());
    let mut digits = [0u8; 40];
    let mut count = 0;
    let mut leading = 0;
    for digit in mantissa.iter().filter(|byte| **byte != b'.') {
        match (count, *digit) {
            (0, b'0') => leading += 1,
            (_, digit) if count < digits.len() => {
                digits[count] = digit;
                count += 1;
            }
            _ => {}
        }
    }
    if sign {
        w.byte(b'-');
    }
    let exponent: i32 = exponent + point as i32 - leading - 1;
    while count > 0 && digits[count - 1] == b'0' {
        count -= 1;
    }
    let digits = &digits[..count];
    if digits.is_empty() {
        return w.byte(b'0');
    }
    if (-4..0).contains(&exponent) {
        w.bytes(&b"0.000"[..1 + (-exponent) as usize]);
        w.bytes(digits);
    } else if (0..fixed_below).contains(&exponent) {
        let whole = exponent as usize + 1;
        if count <= whole {
            w.bytes(digits);
            for _ in count..whole {
                w.byte(b'0');
            }
        } else {
            w.bytes(&digits[..whole]);
            w.byte(b'.');
            w.bytes(&digits[whole..]);
        }
    } else {
        w.byte(digits[0]);
        if count > 1 {
            w.byte(b'.');
            w.bytes(&digits[1..]);
        }
        w.bytes(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            w.byte(b'0');
        }
        uint(w, u64::from(exponent.unsigned_abs()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> String {
        let mut w = Writer::default();
        write(&mut w);
        String::from_utf8(w.since(0).to_vec()).unwrap()
    }

    #[test]
    fn integers_of_every_length_have_the_digits_that_the_standard_library_prints() {
        let mut numbers = vec![0u64, u64::MAX, u64::MAX - 1];
        for power in 0..20 {
            let power = 10u64.pow(power);
            numbers.extend([
                power - 1,
                power,
                power + 1,
                power.saturating_mul(9),
                power / 7 * 3,
            ]);
        }
        for number in numbers {
            assert_eq!(written(|w| uint(w, number)), number.to_string());
            let signed = number as i64;
            assert_eq!(written(|w| int(w, signed)), signed.to_string());
            let long = u128::from(number) * u128::from(u64::MAX - 3);
            assert_eq!(written(|w| uint128(w, long)), long.to_string());
        }
        for number in [
            i128::MIN,
            i128::MAX,
            10i128.pow(38),
            -(10i128.pow(32)),
            10i128.pow(16) + 1,
            -1,
        ] {
            assert_eq!(written(|w| int128(w, number)), number.to_string());
        }
        for number in 0..100_000u32 {
            assert_eq!(ascii8(number * 999), format!("{:08}", number * 999).as_bytes());
        }
    }

    #[test]
    fn decimals_keep_their_scale() {
        for (number, scale, text) in [
            (0i64, 2u8, "0.00"),
            (5, 1, "0.5"),
            (-5, 3, "-0.005"),
            (12345, 2, "123.45"),
            (-100, 2, "-1.00"),
            (i64::MAX, 18, "9.223372036854775807"),
            (i64::MIN, 1, "-922337203685477580.8"),
            (i64::MAX, 19, "0.9223372036854775807"),
            (100_000_000, 8, "1.00000000"),
            (99_999_999, 8, "0.99999999"),
            (1_0000_0000_0000_0000, 4, "1000000000000.0000"),
            (42, 0, "42"),
        ] {
            assert_eq!(written(|w| decimal(w, number, scale)), text);
            assert_eq!(written(|w| decimal128(w, number.into(), scale)), text);
        }
        let most = 10i128.pow(38) - 1;
        assert_eq!(
            written(|w| decimal128(w, most, 38)),
            format!("0.{}", "9".repeat(38))
        );
        assert_eq!(
            written(|w| decimal128(w, -most, 37)),
            format!("-9.{}", "9".repeat(37))
        );
        assert_eq!(
            written(|w| decimal128(w, 7, 38)),
            format!("0.{}7", "0".repeat(37))
        );
        assert_eq!(
            written(|w| decimal128(w, 10i128.pow(37), 20)),
            "100000000000000000.00000000000000000000"
        );
    }
}
