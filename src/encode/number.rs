//! Numbers as PostgreSQL prints them, and `numeric`'s binary form.
//!
//! Integers go eight digits at a time through one 64-bit register instead of
//! digit by digit: the halves of a number are divided side by side in lanes of
//! the register. Floats take their shortest digits from `zmij`; PostgreSQL's
//! choice between fixed and exponent form is made here.

use super::writer::{Slot, put};

/// What makes [`digits8`] ASCII.
pub(super) const ASCII: u64 = 0x3030_3030_3030_3030;
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

/// The same for the four digits of a number below 10^4.
#[inline(always)]
fn digits4(number: u32) -> u32 {
    debug_assert!(number < 10_000);
    let hundreds = (number * 5_243) >> 19;
    let lanes = hundreds | ((number - hundreds * 100) << 16);
    let tens = ((lanes * 103) >> 10) & 0x000f_000f;
    tens | ((lanes - tens * 10) << 8)
}

/// Like [`digits4`], in ASCII and as bytes.
#[inline(always)]
pub(super) fn ascii4(number: u32) -> [u8; 4] {
    (digits4(number) | ASCII as u32).to_le_bytes()
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

/// The same for a number below 10^4.
#[inline(always)]
fn leading4(out: &mut [u8], number: u32) -> usize {
    let digits = digits4(number);
    let skip = (digits | (1 << 24)).trailing_zeros() / 8;
    out[..4].copy_from_slice(&((digits | ASCII as u32) >> (8 * skip)).to_le_bytes());
    4 - skip as usize
}

/// Writes a number at the front of `out` (24 bytes or more; all of them may
/// be clobbered) and says how many digits it has.
#[inline(always)]
fn unsigned(out: &mut [u8], number: u64) -> usize {
    if number < 10_000 {
        return leading4(out, number as u32);
    }
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

#[inline(always)]
pub(super) fn int(out: &mut Slot, at: usize, number: i64) -> usize {
    out[at] = b'-';
    uint(out, at + usize::from(number < 0), number.unsigned_abs())
}

#[inline(always)]
pub(super) fn uint(out: &mut Slot, at: usize, number: u64) -> usize {
    at + unsigned(&mut out[at..], number)
}

pub(super) fn uint128(out: &mut Slot, at: usize, number: u128) -> usize {
    const E16: u128 = self::E16 as u128;
    if let Ok(small) = u64::try_from(number) {
        return uint(out, at, small);
    }
    // 39 digits at most: 7 + 16 + 16.
    let (rest, low) = (number / E16, (number % E16) as u64);
    let (high, middle) = (rest / E16, (rest % E16) as u64);
    let at = match high {
        0 => uint(out, at, middle),
        high => {
            let at = uint(out, at, high as u64);
            padded16(out, at, middle)
        }
    };
    padded16(out, at, low)
}

/// A number below 10^16 with leading zeros.
fn padded16(out: &mut Slot, at: usize, number: u64) -> usize {
    let at = put(out, at, ascii8((number / E8) as u32));
    put(out, at, ascii8((number % E8) as u32))
}

pub(super) fn int128(out: &mut Slot, at: usize, number: i128) -> usize {
    out[at] = b'-';
    uint128(out, at + usize::from(number < 0), number.unsigned_abs())
}

/// A decimal with `scale` digits after the point, at most 38.
#[inline(always)]
pub(super) fn decimal(out: &mut Slot, at: usize, unscaled: i64, scale: u8) -> usize {
    if scale == 0 {
        return int(out, at, unscaled);
    }
    let number = unscaled.unsigned_abs();
    let scale = usize::from(scale);
    if number < E8 / 10 && scale < 7 {
        // Eight digits in a register, the first in the lowest byte. It is 0 and
        // gives its place away, which makes room for the point.
        let digits = digits8(number as u32);
        let zeros = (digits.trailing_zeros() / 8) as usize;
        let point = 8 - scale;
        let first = zeros.min(point - 1);
        let fraction = u64::MAX << (8 * point);
        let digits = digits | ASCII;
        let text = (digits & !fraction) >> 8 | u64::from(b'.') << (8 * (point - 1)) | digits & fraction;
        out[at] = b'-';
        let at = at + usize::from(unscaled < 0);
        put(out, at, (text >> (8 * (first - 1))).to_le_bytes());
        return at + 9 - first;
    }
    if number < E16 && scale < 16 {
        // Sixteen digits in a register, the first in the lowest byte.
        let (high, low) = (digits8((number / E8) as u32), digits8((number % E8) as u32));
        let digits = (u128::from(low) << 64) | u128::from(high);
        let zeros = (digits.trailing_zeros() / 8) as usize;
        let digits = digits | (u128::from(ASCII) << 64) | u128::from(ASCII);
        let point = 16 - scale;
        let first = zeros.min(point - 1);
        out[at] = b'-';
        let at = at + usize::from(unscaled < 0);
        put(out, at, (digits >> (8 * first)).to_le_bytes());
        // Overwrites what the first has written of the fraction.
        let at = put(out, at + point - first, *b".");
        put(out, at, (digits >> (8 * point)).to_le_bytes());
        return at + scale;
    }
    long_decimal(out, at, unscaled.into(), scale as u8)
}

pub(super) fn decimal128(out: &mut Slot, at: usize, unscaled: i128, scale: u8) -> usize {
    match i64::try_from(unscaled) {
        Ok(small) => decimal(out, at, small, scale),
        Err(_) if scale == 0 => int128(out, at, unscaled),
        Err(_) => long_decimal(out, at, unscaled, scale),
    }
}

#[cold]
fn long_decimal(out: &mut Slot, at: usize, unscaled: i128, scale: u8) -> usize {
    out[at] = b'-';
    let at = at + usize::from(unscaled < 0);
    let power = 10u128.pow(u32::from(scale));
    let number = unscaled.unsigned_abs();
    let point = uint128(out, at, number / power);
    // A leading 1 keeps the zeros that the fraction begins with; the point
    // takes its place.
    let end = uint128(out, point, number % power + power);
    out[point] = b'.';
    end
}

/// `numeric`'s binary form (`numeric_send`): the number of digits to the base
/// of 10,000, the weight of the first, sign, scale, and the digits without
/// zeros at either end.
#[inline(always)]
pub(super) fn numeric_binary(out: &mut Slot, at: usize, negative: bool, number: u128, scale: u8) -> usize {
    // The digits count from the point on: fill the fraction to whole ones.
    let fill = (4 - scale % 4) % 4;
    let fraction = (i32::from(scale) + i32::from(fill)) / 4;
    static POWERS: [u64; 4] = [1, 10, 100, 1000];
    let power = POWERS[usize::from(fill)];
    match u64::try_from(number)
        .ok()
        .and_then(|number| number.checked_mul(power))
    {
        // Two digits. Conditions as numbers, because a branch on the value
        // would be guessed wrongly often.
        Some(number) if number < E8 => {
            let (high, low) = (number as u32 / 10_000, number as u32 % 10_000);
            let two = u32::from(high > 0);
            let count = (two + u32::from(low > 0)) as usize;
            let weight = if number == 0 { 0 } else { two as i32 - fraction };
            let at = numeric_head(out, at, count, weight, negative, scale);
            let digits = ((high << 16) | low) << (16 * (1 - two));
            put(out, at, digits.to_be_bytes());
            at + 2 * count
        }
        Some(number) if number < E16 => {
            // Four digits side by side in one register, the first on top.
            let (high, low) = (number / E8, number % E8);
            let (a, b, c, d) = (high / 10_000, high % 10_000, low / 10_000, low % 10_000);
            let digits = (a << 48) | (b << 32) | (c << 16) | d;
            let leading = digits.leading_zeros() / 16;
            let trailing = digits.trailing_zeros() / 16;
            let (count, weight) = match number {
                0 => (0, 0),
                _ => (4 - leading - trailing, 3 - leading as i32 - fraction),
            };
            let at = numeric_head(out, at, count as usize, weight, negative, scale);
            put(
                out,
                at,
                digits.checked_shl(16 * leading).unwrap_or(0).to_be_bytes(),
            );
            at + 2 * count as usize
        }
        _ => long_numeric_binary(out, at, negative, number, scale, power, fraction),
    }
}

#[inline(always)]
fn numeric_head(out: &mut Slot, at: usize, count: usize, weight: i32, negative: bool, scale: u8) -> usize {
    let sign = if negative { 0x4000 } else { 0 };
    let head = ((count as u64) << 48) | (u64::from(weight as u16) << 32) | (sign << 16) | u64::from(scale);
    put(out, at, head.to_be_bytes())
}

#[cold]
fn long_numeric_binary(
    out: &mut Slot,
    at: usize,
    negative: bool,
    number: u128,
    scale: u8,
    power: u64,
    fraction: i32,
) -> usize {
    // Up to 39 digits times 1000 is more than 128 bits hold.
    let low = (number % u128::from(E16)) * u128::from(power);
    let mut high = (number / u128::from(E16)) * u128::from(power) + low / u128::from(E16);
    let mut low = (low % u128::from(E16)) as u64;
    let mut digits = [0u16; 12];
    for (index, digit) in digits.iter_mut().rev().enumerate() {
        if index < 4 {
            *digit = (low % 10_000) as u16;
            low /= 10_000;
        } else {
            *digit = (high % 10_000) as u16;
            high /= 10_000;
        }
    }
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    let trailing = digits.iter().rev().take_while(|digit| **digit == 0).count();
    let weight = digits.len() as i32 - leading as i32 - fraction - 1;
    let significant = &digits[leading..digits.len() - trailing];
    let mut at = numeric_head(out, at, significant.len(), weight, negative, scale);
    for digit in significant {
        at = put(out, at, digit.to_be_bytes());
    }
    at
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
pub(super) fn float<F: Float>(out: &mut Slot, at: usize, number: F, extra_digits: i32) -> usize {
    let wide = number.wide();
    if !wide.is_finite() {
        let name: &[u8] = match wide {
            _ if wide.is_nan() => b"NaN",
            _ if wide > 0.0 => b"Infinity",
            _ => b"-Infinity",
        };
        return append(out, at, name);
    }
    if extra_digits <= 0 {
        return rounded_float(out, at, wide, (F::DIGITS + extra_digits).max(1) as usize);
    }
    if let Some(end) = cents::<F>(out, at, wide) {
        return end;
    }
    let mut buffer = zmij::Buffer::new();
    let shortest = buffer.format_finite(number).as_bytes();
    // Fixed form without an exponent, below the limit: as it is, but for the
    // ".0" of whole numbers.
    if (1e-3..F::LIMIT).contains(&wide.abs()) {
        let end = append(out, at, shortest);
        return end - if shortest.ends_with(b".0") { 2 } else { 0 };
    }
    reformat(out, at, shortest, F::FIXED_BELOW)
}

/// Prints a double that is a number of hundredths, as prices are, and says
/// where it ends.
///
/// When the double next to `hundredths / 100` is `number`, that quotient is
/// its shortest form: it has no more than 15 digits, and no two decimals of
/// 15 digits are read as the same double.
#[inline(always)]
fn cents<F: Float>(out: &mut Slot, at: usize, number: f64) -> Option<usize> {
    const LIMIT: f64 = 1e15;
    let scaled = number.abs() * 100.0;
    if F::DIGITS != 15 || !(1.0..LIMIT).contains(&scaled) {
        return None;
    }
    let hundredths = (scaled + 0.5) as u64;
    if hundredths as f64 / 100.0 != number.abs() {
        return None;
    }
    out[at] = b'-';
    let at = at + usize::from(number < 0.0);
    let (whole, fraction) = (hundredths / 100, (hundredths % 100) as u8);
    let end = uint(out, at, whole);
    let (tens, ones) = (fraction / 10, fraction % 10);
    put(out, end, [b'.', b'0' + tens, b'0' + ones]);
    Some(match (tens, ones) {
        (0, 0) => end,
        (_, 0) => end + 2,
        _ => end + 3,
    })
}

/// Writes a few bytes; 8 to 24 of them without a call.
#[inline(always)]
fn append(out: &mut Slot, at: usize, bytes: &[u8]) -> usize {
    let end = at + bytes.len();
    match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(head), Some(tail)) if bytes.len() <= 24 => {
            put(out, at, *head);
            if let Some(middle) = bytes.get(8..16) {
                out[at + 8..at + 16].copy_from_slice(middle);
            }
            put(out, end - 8, *tail);
        }
        _ => out[at..end].copy_from_slice(bytes),
    }
    end
}

/// `%.*g` with this many digits.
#[cold]
fn rounded_float(out: &mut Slot, at: usize, number: f64, digits: usize) -> usize {
    let text = format!("{number:.*e}", digits - 1);
    reformat(out, at, text.as_bytes(), digits as i32)
}

/// Prints a number that is given in any usual form in PostgreSQL's: fixed for
/// exponents from -4 to below `fixed_below`, else as in `1.5e+20`.
#[cold]
fn reformat(out: &mut Slot, at: usize, text: &[u8], fixed_below: i32) -> usize {
    let (negative, text) = match text.strip_prefix(b"-") {
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
    out[at] = b'-';
    let at = at + usize::from(negative);
    let exponent: i32 = exponent + point as i32 - leading - 1;
    while count > 0 && digits[count - 1] == b'0' {
        count -= 1;
    }
    let digits = &digits[..count];
    if digits.is_empty() {
        return put(out, at, *b"0");
    }
    if (-4..0).contains(&exponent) {
        let at = append(out, at, &b"0.000"[..1 + (-exponent) as usize]);
        return append(out, at, digits);
    }
    if (0..fixed_below).contains(&exponent) {
        let whole = exponent as usize + 1;
        if count <= whole {
            let end = append(out, at, digits);
            return append(out, end, &b"000000000000000"[..whole - count]);
        }
        let at = append(out, at, &digits[..whole]);
        let at = put(out, at, *b".");
        return append(out, at, &digits[whole..]);
    }
    let mut at = put(out, at, [digits[0]]);
    if count > 1 {
        at = put(out, at, *b".");
        at = append(out, at, &digits[1..]);
    }
    at = append(out, at, if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.abs() < 10 {
        at = put(out, at, *b"0");
    }
    uint(out, at, u64::from(exponent.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Slot, usize) -> usize) -> String {
        let mut slot = [b'?'; 96];
        let end = write(&mut slot, 3);
        String::from_utf8(slot[3..end].to_vec()).unwrap()
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
            assert_eq!(written(|out, at| uint(out, at, number)), number.to_string());
            let signed = number as i64;
            assert_eq!(written(|out, at| int(out, at, signed)), signed.to_string());
            let long = u128::from(number) * u128::from(u64::MAX - 3);
            assert_eq!(written(|out, at| uint128(out, at, long)), long.to_string());
        }
        for number in [
            i128::MIN,
            i128::MAX,
            10i128.pow(38),
            -(10i128.pow(32)),
            10i128.pow(16) + 1,
            -1,
        ] {
            assert_eq!(written(|out, at| int128(out, at, number)), number.to_string());
        }
        for number in 0..100_000u32 {
            assert_eq!(ascii8(number * 999), format!("{:08}", number * 999).as_bytes());
        }
    }

    #[test]
    fn doubles_read_back_the_same_and_have_no_shorter_form() {
        let mut seed = 88_172_645_463_325_252u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..200_000 {
            let random = next();
            let cents = (random >> (random % 60)) as f64 / 100.0;
            for number in [
                cents,
                -cents,
                cents * 1.1,
                f64::from_bits(random),
                (random >> 20) as f64,
            ] {
                if !number.is_finite() {
                    continue;
                }
                let text = written(|out, at| float(out, at, number, 1));
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{text}");
                let digits = |text: &str| {
                    let mantissa = text.split('e').next().unwrap_or(text);
                    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
                    digits.trim_start_matches('0').trim_end_matches('0').len()
                };
                assert_eq!(digits(&text), digits(&format!("{number:e}")), "{text}");
            }
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
            (9_999_999, 2, "99999.99"),
            (10_000_000, 2, "100000.00"),
            (-9_999_999, 6, "-9.999999"),
            (-9_999_999, 7, "-0.9999999"),
            (1, 6, "0.000001"),
            (10, 1, "1.0"),
        ] {
            assert_eq!(written(|out, at| decimal(out, at, number, scale)), text);
            assert_eq!(written(|out, at| decimal128(out, at, number.into(), scale)), text);
        }
        let most = 10i128.pow(38) - 1;
        assert_eq!(
            written(|out, at| decimal128(out, at, most, 38)),
            format!("0.{}", "9".repeat(38))
        );
        assert_eq!(
            written(|out, at| decimal128(out, at, -most, 37)),
            format!("-9.{}", "9".repeat(37))
        );
        assert_eq!(
            written(|out, at| decimal128(out, at, 7, 38)),
            format!("0.{}7", "0".repeat(37))
        );
        assert_eq!(
            written(|out, at| decimal128(out, at, 10i128.pow(37), 20)),
            "100000000000000000.00000000000000000000"
        );
    }
}
