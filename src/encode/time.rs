//! Dates, times, timestamps and intervals in PostgreSQL's ISO forms.
//!
//! The calendar is the proleptic Gregorian one; year 0 is 1 BC. DuckDB's
//! infinities are the largest number and its negative; PostgreSQL's binary
//! forms have the smallest number for the latter.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::number::{ASCII, ascii4, ascii8, digits8, int, uint};
use super::writer::{Slot, put};
use crate::engine::Interval;

pub(super) const MICROS_PER_SECOND: i64 = 1_000_000;
pub(super) const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's day 0.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * MICROS_PER_DAY;
/// The Gregorian calendar, weekdays too, repeats after 400 years.
const CYCLE_DAYS: i64 = 146_097;

pub(super) const DATE_INFINITY: i32 = i32::MAX;
pub(super) const TIMESTAMP_INFINITY: i64 = i64::MAX;

/// Enough cycles of 400 years to make every `i32` day positive.
const CYCLES: i64 = 14_800;

/// The year (0 is 1 BC) that begins with March, and the day of that year, of a
/// day that is counted from 1970-01-01. Leap days end such a year.
/// After Neri and Schneider, "Euclidean affine functions and their application
/// to calendar algorithms" (2022), with 64-bit days for DuckDB's range.
#[inline(always)]
fn march_year(days: i32) -> (i32, u32) {
    // Day 0 is 1 March of year 0.
    let day = (i64::from(days) + 719_468 + CYCLES * CYCLE_DAYS) as u64;
    let quarters = 4 * day + 3;
    let century = quarters / 146_097;
    let quarters = (quarters % 146_097) as u32 | 3;
    let product = 2_939_745 * u64::from(quarters);
    let year_of_century = (product >> 32) as u32;
    let day_of_year = (product as u32) / 2_939_745 / 4;
    let year = (100 * century + u64::from(year_of_century)) as i64 - 400 * CYCLES;
    (year as i32, day_of_year)
}

/// Year, month and day of such a year and day.
#[inline(always)]
const fn civil_of(year: i32, day_of_year: u32) -> (i32, u32, u32) {
    let months = 2_141 * day_of_year + 197_913;
    let (month, day) = (months >> 16, (months & 0xffff) / 2_141 + 1);
    match day_of_year >= 306 {
        true => (year + 1, month - 12, day),
        false => (year, month, day),
    }
}

/// Year (0 is 1 BC), month and day of a day that is counted from 1970-01-01.
#[inline(always)]
pub(super) fn civil(days: i32) -> (i32, u32, u32) {
    let (year, day_of_year) = march_year(days);
    civil_of(year, day_of_year)
}

/// For each day of a year that begins with March `-MM-DD`, the first character
/// in the lowest byte, and in the highest one whether the year is the next.
static MONTHS_AND_DAYS: [u64; 366] = {
    let mut texts = [0; 366];
    let mut day_of_year = 0;
    while day_of_year < texts.len() {
        let (next, month, day) = civil_of(0, day_of_year as u32);
        let (month, day) = (month as u8, day as u8);
        texts[day_of_year] = u64::from_le_bytes([
            b'-',
            b'0' + month / 10,
            b'0' + month % 10,
            b'-',
            b'0' + day / 10,
            b'0' + day % 10,
            0,
            next as u8,
        ]);
        day_of_year += 1;
    }
    texts
};

/// The day of a date, counted from 1970-01-01. Month and day are in range.
pub(super) fn days_from_civil(year: i32, month: u32, day: u32) -> i64 {
    let (year, month) = match month <= 2 {
        true => (i64::from(year) - 1, month + 9),
        false => (i64::from(year), month - 3),
    };
    let cycle = year.div_euclid(400);
    let year = year.rem_euclid(400);
    let day_of_year = i64::from((153 * month + 2) / 5 + day - 1);
    cycle * CYCLE_DAYS + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// Writes `YYYY-MM-DD` without the mark of years before Christ and says
/// whether that mark is due.
#[inline(always)]
fn date_digits(out: &mut Slot, at: usize, days: i32) -> (usize, bool) {
    let (year, day_of_year) = march_year(days);
    let text = MONTHS_AND_DAYS[day_of_year as usize];
    let civil_year = year + (text >> 56) as i32;
    if (1..=9999).contains(&civil_year) {
        let at = put(out, at, ascii4(civil_year as u32));
        return (put(out, at, text.to_le_bytes()) - 2, false);
    }
    let (year, month, day) = civil_of(year, day_of_year);
    far_date_digits(out, at, year, month, day)
}

#[cold]
fn far_date_digits(out: &mut Slot, at: usize, year: i32, month: u32, day: u32) -> (usize, bool) {
    let (shown, before_christ) = match year <= 0 {
        true => (1 - year, true),
        false => (year, false),
    };
    let at = match shown {
        // Four digits at least.
        0..10_000 => put(out, at, ascii4(shown as u32)),
        _ => uint(out, at, shown as u64),
    };
    let digits = ascii8(month * 100 + day);
    (
        put(out, at, [b'-', digits[4], digits[5], b'-', digits[6], digits[7]]),
        before_christ,
    )
}

fn christ(out: &mut Slot, at: usize, before_christ: bool) -> usize {
    match before_christ {
        true => put(out, at, *b" BC"),
        false => at,
    }
}

#[inline(always)]
pub(super) fn date(out: &mut Slot, at: usize, days: i32) -> usize {
    match days {
        DATE_INFINITY => put(out, at, *b"infinity"),
        days if days == -DATE_INFINITY => put(out, at, *b"-infinity"),
        days => {
            let (at, before_christ) = date_digits(out, at, days);
            christ(out, at, before_christ)
        }
    }
}

/// `HH:MM:SS` with the fraction that there is; `micros` is of one day, or
/// 24:00:00.
#[inline]
pub(super) fn time(out: &mut Slot, at: usize, micros: i64) -> usize {
    let micros = micros as u64;
    let seconds = (micros / 1_000_000) as u32;
    let at = clock(out, at, seconds / 3600, seconds / 60 % 60, seconds % 60);
    fraction(out, at, (micros % 1_000_000) as u32)
}

#[inline(always)]
fn clock(out: &mut Slot, at: usize, hours: u32, minutes: u32, seconds: u32) -> usize {
    let digits = digits8(hours * 10_000 + minutes * 100 + seconds) | ASCII;
    let text = (digits >> 16 & 0xffff) | (digits >> 32 & 0xffff) << 24 | (digits >> 48) << 48;
    put(out, at, (text | 0x0000_3a00_003a_0000).to_le_bytes())
}

/// A point and up to six digits, without trailing zeros.
#[inline(always)]
fn fraction(out: &mut Slot, at: usize, micros: u32) -> usize {
    if micros == 0 {
        return at;
    }
    let digits = digits8(micros);
    let trailing = (digits.leading_zeros() / 8) as usize;
    let text = ((digits | ASCII) >> 16 << 8) | u64::from(b'.');
    put(out, at, text.to_le_bytes()) - 1 - trailing
}

/// A zone's offset in seconds east of UTC: `+02`, `+05:30`, `+00:53:28`; with
/// minutes always in XML schema's form, which JSON has.
#[inline]
fn offset(out: &mut Slot, at: usize, seconds: i32, minutes_always: bool) -> usize {
    let at = put(out, at, [if seconds < 0 { b'-' } else { b'+' }]);
    let seconds = seconds.unsigned_abs();
    let end = clock(out, at, seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (seconds % 60, seconds / 60 % 60) {
        (0, 0) if !minutes_always => end - 6,
        (0, _) => end - 3,
        _ => end,
    }
}

pub(super) fn time_tz(out: &mut Slot, at: usize, bits: u64) -> usize {
    let (micros, east) = split_time_tz(bits);
    let at = time(out, at, micros);
    offset(out, at, east, false)
}

/// DuckDB's TIMETZ: microseconds, and seconds east of UTC.
pub(super) fn split_time_tz(bits: u64) -> (i64, i32) {
    const LARGEST_OFFSET: i32 = 16 * 3600 - 1;
    ((bits >> 24) as i64, LARGEST_OFFSET - (bits & 0xff_ffff) as i32)
}

/// A timestamp, in microseconds; `separator` is between date and time.
#[inline]
pub(super) fn timestamp(out: &mut Slot, at: usize, micros: i64, separator: u8) -> usize {
    if is_infinite(micros) {
        return infinity(out, at, micros);
    }
    let (at, before_christ) = local(out, at, micros, separator);
    christ(out, at, before_christ)
}

/// A timestamp in the zone, with the zone's offset.
#[inline]
pub(super) fn timestamp_tz(out: &mut Slot, at: usize, micros: i64, zone: &mut Zone, separator: u8) -> usize {
    if is_infinite(micros) {
        return infinity(out, at, micros);
    }
    let east = zone.offset(micros);
    let shifted = micros.saturating_add(i64::from(east) * MICROS_PER_SECOND);
    let (at, before_christ) = local(out, at, shifted, separator);
    let at = offset(out, at, east, separator == b'T');
    christ(out, at, before_christ)
}

#[inline(always)]
fn is_infinite(micros: i64) -> bool {
    micros == TIMESTAMP_INFINITY || micros == -TIMESTAMP_INFINITY
}

#[cold]
fn infinity(out: &mut Slot, at: usize, micros: i64) -> usize {
    match micros > 0 {
        true => put(out, at, *b"infinity"),
        false => put(out, at, *b"-infinity"),
    }
}

#[inline(always)]
fn local(out: &mut Slot, at: usize, micros: i64, separator: u8) -> (usize, bool) {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let (at, before_christ) = date_digits(out, at, days as i32);
    let at = put(out, at, [separator]);
    (time(out, at, micros - days * MICROS_PER_DAY), before_christ)
}

/// An interval in the style `postgres`.
pub(super) fn interval(out: &mut Slot, at: usize, interval: Interval) -> usize {
    let Interval { months, days, micros } = interval;
    let begin = at;
    let mut at = at;
    // A part is marked with "+" only when the one before it was negative.
    let mut after_negative = false;
    for (amount, one, many) in [
        (months / 12, &b" year"[..], &b" years"[..]),
        (months % 12, b" mon", b" mons"),
        (days, b" day", b" days"),
    ] {
        if amount == 0 {
            continue;
        }
        if at > begin {
            at = put(out, at, *b" ");
        }
        if after_negative && amount > 0 {
            at = put(out, at, *b"+");
        }
        at = int(out, at, amount.into());
        let unit = if amount == 1 { one } else { many };
        out[at..at + unit.len()].copy_from_slice(unit);
        at += unit.len();
        after_negative = amount < 0;
    }
    if micros == 0 && at > begin {
        return at;
    }
    if at > begin {
        at = put(out, at, *b" ");
    }
    if micros < 0 {
        at = put(out, at, *b"-");
    } else if after_negative {
        at = put(out, at, *b"+");
    }
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    let hours = seconds / 3600;
    // Two digits at least.
    if hours < 10 {
        at = put(out, at, *b"0");
    }
    at = uint(out, at, hours);
    let digits = ascii8((seconds / 60 % 60 * 100 + seconds % 60) as u32);
    at = put(out, at, [b':', digits[4], digits[5], b':', digits[6], digits[7]]);
    fraction(out, at, (micros % 1_000_000) as u32)
}

/// A `date` of the binary protocol: days since 2000. `None` when out of range.
#[inline(always)]
pub(super) fn date_binary(days: i32) -> Option<i32> {
    match days {
        DATE_INFINITY => Some(i32::MAX),
        days if days == -DATE_INFINITY => Some(i32::MIN),
        days => days.checked_sub(EPOCH_DAYS),
    }
}

/// A `timestamp` of the binary protocol: microseconds since 2000. `None` when
/// out of range.
#[inline(always)]
pub(super) fn timestamp_binary(micros: i64) -> Option<i64> {
    match micros {
        TIMESTAMP_INFINITY => Some(i64::MAX),
        micros if micros == -TIMESTAMP_INFINITY => Some(i64::MIN),
        micros => micros.checked_sub(EPOCH_MICROS),
    }
}

/// A time zone that remembers the span between two changes of its offset in
/// which the last timestamp was: neighbours are mostly in the same one.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    zone: TimeZone,
    from: i64,
    until: i64,
    offset: i32,
}

/// The years that jiff knows, less one for safety at the ends.
const ZONE_FROM: i64 = -377_000_000_000 * MICROS_PER_SECOND;
const ZONE_UNTIL: i64 = 253_000_000_000 * MICROS_PER_SECOND;

impl Zone {
    pub(super) fn new(zone: &TimeZone) -> Self {
        Self {
            zone: zone.clone(),
            from: 0,
            until: 0,
            offset: 0,
        }
    }

    /// The offset in seconds east of UTC at a moment in microseconds.
    #[inline(always)]
    pub(super) fn offset(&mut self, micros: i64) -> i32 {
        if micros >= self.from && micros < self.until {
            return self.offset;
        }
        self.find(micros)
    }

    #[cold]
    #[inline(never)]
    fn find(&mut self, micros: i64) -> i32 {
        // Beyond the years that jiff has, the rules of the last ones repeat
        // with the calendar, and before them the first offset stays.
        let clamped = match micros {
            micros if micros < ZONE_FROM => ZONE_FROM,
            micros if micros >= ZONE_UNTIL => {
                let cycle = CYCLE_DAYS * MICROS_PER_DAY;
                ZONE_UNTIL - cycle + (micros - ZONE_UNTIL) % cycle
            }
            micros => micros,
        };
        let Ok(moment) = Timestamp::from_microsecond(clamped) else {
            return 0;
        };
        let offset = self.zone.to_offset(moment).seconds();
        if clamped == micros {
            let before = moment
                .checked_add(jiff::SignedDuration::from_nanos(1))
                .unwrap_or(moment);
            let bound =
                |transition: jiff::tz::TimeZoneTransition<'_>| transition.timestamp().as_microsecond();
            self.from = self
                .zone
                .preceding(before)
                .next()
                .map_or(ZONE_FROM, bound)
                .max(ZONE_FROM);
            self.until = self
                .zone
                .following(moment)
                .next()
                .map_or(ZONE_UNTIL, bound)
                .min(ZONE_UNTIL);
            self.offset = offset;
        }
        offset
    }

    /// Microseconds UTC of a local time. Of a time that the clock shows twice
    /// it is the later one, a time that it never shows counts with the offset
    /// before the change; both as PostgreSQL has it.
    pub(super) fn utc_of(&mut self, local: i64) -> Option<i64> {
        // The offsets a day before and after are the two that may apply.
        let before = self.offset(local.saturating_sub(MICROS_PER_DAY));
        let after = self.offset(local.saturating_add(MICROS_PER_DAY));
        let minus = |east: i32| local.checked_sub(i64::from(east) * MICROS_PER_SECOND);
        let late = minus(after)?;
        match before == after || self.offset(late) == after {
            true => Some(late),
            false => minus(before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_both_ways_over_duckdbs_whole_range() {
        for days in (-2_147_483_000..2_147_483_000i32)
            .step_by(100_003)
            .chain(-800_000..100_000)
        {
            let (year, month, day) = civil(days);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day), "{days}");
            assert_eq!(days_from_civil(year, month, day), i64::from(days));
        }
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(EPOCH_DAYS), (2000, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
    }
}
