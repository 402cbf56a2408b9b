//! Intervals as clients write them: PostgreSQL's own style (`1 year 2 mons
//! -3 days 04:05:06`), with units in any spelling, `ago`, and ISO 8601's
//! durations (`P1Y2M3DT4H5M6.7S`).
//!
//! Fractions go over into smaller units as PostgreSQL does it: of a year into
//! months, of a month into days of 30, of a day into time.

use super::text::trim;
use crate::encode::EncodeError;
use crate::encode::error::excerpt;
use crate::engine::Interval;

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Reads an interval.
pub(super) fn read(text: &str) -> Result<Interval, EncodeError> {
    let word = trim(text).to_ascii_lowercase();
    let sum = match word
        .strip_prefix('p')
        .filter(|rest| rest.starts_with(|c: char| !c.is_alphabetic() || c == 't'))
    {
        Some(duration) => iso(duration),
        None => verbose(&word),
    };
    let sum = sum.ok_or_else(|| EncodeError::invalid_datetime("interval", text))?;
    sum.finish()
        .ok_or_else(|| EncodeError::IntervalOutOfRange(excerpt(text)))
}

/// The parts, in numbers that no sum of a text's fields leaves.
#[derive(Default)]
struct Sum {
    months: i128,
    days: i128,
    micros: i128,
    /// Whether a field was beyond its own range, as a 60th minute.
    beyond: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Months(i64),
    Days(i64),
    Micros(i64),
}

impl Sum {
    /// Adds a number of units; the fraction is between -1 and 1.
    fn add(&mut self, whole: i64, fraction: f64, unit: Unit) {
        match unit {
            Unit::Months(factor) => {
                self.months += i128::from(whole) * i128::from(factor);
                match factor {
                    1 => self.add_days(fraction * 30.0),
                    factor => self.months += (fraction * factor as f64).round_ties_even() as i128,
                }
            }
            Unit::Days(factor) => {
                self.days += i128::from(whole) * i128::from(factor);
                match factor {
                    1 => self.micros += (fraction * DAY as f64).round_ties_even() as i128,
                    factor => self.add_days(fraction * factor as f64),
                }
            }
            Unit::Micros(factor) => {
                self.micros += i128::from(whole) * i128::from(factor);
                self.micros += (fraction * factor as f64).round_ties_even() as i128;
            }
        }
    }

    fn add_days(&mut self, days: f64) {
        self.days += days.trunc() as i128;
        self.micros += (days.fract() * DAY as f64).round_ties_even() as i128;
    }

    fn finish(self) -> Option<Interval> {
        if self.beyond {
            return None;
        }
        Some(Interval {
            months: self.months.try_into().ok()?,
            days: self.days.try_into().ok()?,
            micros: self.micros.try_into().ok()?,
        })
    }
}

/// A number with its sign: the whole part, and the fraction with that sign.
fn number(text: &str) -> Option<(i64, f64)> {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let fraction: f64 = if fraction.is_empty() {
        0.0
    } else {
        format!("0.{fraction}").parse().ok()?
    };
    Some(if negative {
        (-whole, -fraction)
    } else {
        (whole, fraction)
    })
}

fn unit(name: &str) -> Option<Unit> {
    Some(match name {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" | "microsecon" => {
            Unit::Micros(1)
        }
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" | "millisecon" => {
            Unit::Micros(1000)
        }
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Micros(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Micros(MINUTE),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Micros(HOUR),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1200),
        "mil" | "mils" | "millennia" | "millennium" => Unit::Months(12_000),
        _ => return None,
    })
}

/// Adds `H:MM`, `H:MM:SS.f` or `MM:SS.f`, with a sign for all of it.
fn clock(text: &str, sum: &mut Sum) -> Option<()> {
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let parts: Vec<&str> = digits.split(':').collect();
    let (hours, minutes, seconds) = match parts[..] {
        [minutes, seconds] if seconds.contains('.') => ("0", minutes, seconds),
        [hours, minutes] => (hours, minutes, "0"),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    let plain = |text: &str| {
        number(text)
            .filter(|(_, fraction)| *fraction == 0.0)
            .map(|(whole, _)| whole)
    };
    let unsigned = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    if !unsigned(hours) || !unsigned(minutes) || !unsigned(seconds) {
        return None;
    }
    let (hours, minutes) = (plain(hours)?, plain(minutes)?);
    let (seconds, fraction) = number(seconds)?;
    sum.beyond |= minutes > 59 || seconds > 60;
    let whole = i128::from(hours) * i128::from(HOUR)
        + i128::from(minutes) * i128::from(MINUTE)
        + i128::from(seconds) * i128::from(SECOND);
    let micros = whole + (fraction * SECOND as f64).round_ties_even() as i128;
    sum.micros += if negative { -micros } else { micros };
    Some(())
}

/// Numbers with units, and times of day.
fn verbose(text: &str) -> Option<Sum> {
    let mut words = Vec::new();
    for word in text
        .split(|c: char| matches!(c, ' ' | '\t'..='\r' | ','))
        .filter(|word| !word.is_empty())
    {
        let word = word.strip_prefix('@').unwrap_or(word);
        // `3days`: the number ends where the letters begin.
        let end = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        let (number, name) = word.split_at(end);
        words.extend([number, name].into_iter().filter(|word| !word.is_empty()));
    }
    let ago = words.last() == Some(&"ago");
    if ago {
        words.pop();
    }
    if words.is_empty() {
        return None;
    }
    let mut sum = Sum::default();
    // From the end, because the unit of a number stands behind it. A number
    // without one is of seconds; before a time of day, of days.
    let mut pending = None;
    let mut seen = Vec::new();
    let mut default = Unit::Micros(SECOND);
    for word in words.iter().rev() {
        if word.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let unit = unit(word)?;
            if pending.replace(unit).is_some() || seen.contains(&unit) {
                return None;
            }
            seen.push(unit);
        } else if word.contains(':') {
            if pending.is_some() {
                return None;
            }
            clock(word, &mut sum)?;
            default = Unit::Days(1);
        } else if let Some((years, months)) = year_month(word) {
            if pending.is_some() {
                return None;
            }
            sum.months += i128::from(years) * 12 + i128::from(months);
        } else {
            let (whole, fraction) = number(word)?;
            sum.add(whole, fraction, pending.take().unwrap_or(default));
        }
    }
    if pending.is_some() {
        return None;
    }
    Some(match ago {
        true => Sum {
            months: -sum.months,
            days: -sum.days,
            micros: -sum.micros,
            ..sum
        },
        false => sum,
    })
}

/// SQL's `Y-M`.
fn year_month(word: &str) -> Option<(i64, i64)> {
    let negative = word.starts_with('-');
    let (years, months) = word.strip_prefix(['-', '+']).unwrap_or(word).split_once('-')?;
    let (years, months): (u32, u32) = (years.parse().ok()?, months.parse().ok()?);
    let sign = if negative { -1 } else { 1 };
    (months < 12).then_some((sign * i64::from(years), sign * i64::from(months)))
}

/// ISO 8601 behind the `P`.
fn iso(text: &str) -> Option<Sum> {
    let mut sum = Sum::default();
    let mut in_time = false;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('t') {
            if in_time {
                return None;
            }
            in_time = true;
            rest = time;
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (whole, fraction) = number(&rest[..end])?;
        let unit = match (&rest[end..end + 1], in_time) {
            ("y", false) => Unit::Months(12),
            ("m", false) => Unit::Months(1),
            ("w", false) => Unit::Days(7),
            ("d", false) => Unit::Days(1),
            ("h", true) => Unit::Micros(HOUR),
            ("m", true) => Unit::Micros(MINUTE),
            ("s", true) => Unit::Micros(SECOND),
            _ => return None,
        };
        sum.add(whole, fraction, unit);
        rest = &rest[end + 1..];
    }
    Some(sum)
}
