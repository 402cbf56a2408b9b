//! Dates, times and timestamps as clients write them: ISO 8601 in all its
//! usual shapes and PostgreSQL's others (`Jan 8, 1999`, `1/8/1999`, `20200131
//! 040506`, zones by offset, name and abbreviation, BC, AM and PM).
//!
//! The text is cut into words; what a word is shows in its characters, not in
//! its place. Order of numbers where nothing else tells: month, day, year.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Datum;
use super::kind::Kind;
use super::text::trim;
use crate::encode::error::excerpt;
use crate::encode::time::{
    DATE_INFINITY, MICROS_PER_DAY, MICROS_PER_SECOND, TIMESTAMP_INFINITY, Zone, civil, days_from_civil,
};
use crate::encode::{EncodeError, Settings};

/// The finite timestamps of DuckDB, 290309-12-22 BC to 294247-01-10.
pub(super) const TIMESTAMPS: RangeInclusive<i64> = -9_223_372_022_400_000_000..=i64::MAX - 1;

/// Reads a value of one of the five kinds that are made of dates and times.
pub(super) fn read(kind: &Kind, text: &str, settings: &Settings) -> Result<Datum, EncodeError> {
    let has_date = !matches!(kind, Kind::Time | Kind::TimeTz);
    let word = trim(text).to_ascii_lowercase();
    match word.as_str() {
        "infinity" | "-infinity" if has_date => {
            let sign = if word.starts_with('-') { -1 } else { 1 };
            return Ok(match kind {
                Kind::Date => Datum::Date(DATE_INFINITY * sign),
                Kind::Timestamp => Datum::Timestamp(TIMESTAMP_INFINITY * i64::from(sign)),
                _ => Datum::TimestampTz(TIMESTAMP_INFINITY * i64::from(sign)),
            });
        }
        "epoch" if has_date => {
            return Ok(match kind {
                Kind::Date => Datum::Date(0),
                Kind::Timestamp => Datum::Timestamp(0),
                _ => Datum::TimestampTz(0),
            });
        }
        _ => {}
    }
    let mut session = Zone::new(&settings.time_zone);
    let mut parts = Parts::default();
    parts.read(kind, text, &word, &mut session)?;
    let out_of_range = || EncodeError::DatetimeFieldOutOfRange(excerpt(text));
    if !has_date {
        let micros = match parts.micros {
            Some(micros) if micros <= MICROS_PER_DAY => micros,
            Some(_) => return Err(out_of_range()),
            None => return Err(EncodeError::invalid_datetime(kind.name(), text)),
        };
        if *kind == Kind::Time {
            return Ok(Datum::Time(micros));
        }
        let days = match parts.date() {
            Some(date) => date.ok_or_else(out_of_range)?,
            None => Timestamp::now().as_microsecond().div_euclid(MICROS_PER_DAY),
        };
        let moment = days.saturating_mul(MICROS_PER_DAY).saturating_add(micros);
        let east = parts.offset(moment, &mut session);
        return Ok(Datum::TimeTz(micros, east));
    }
    let days = match parts.date() {
        Some(date) => date.ok_or_else(out_of_range)?,
        None => return Err(EncodeError::invalid_datetime(kind.name(), text)),
    };
    if *kind == Kind::Date {
        let range = i64::from(-DATE_INFINITY + 1)..i64::from(DATE_INFINITY);
        return match range.contains(&days) {
            true => Ok(Datum::Date(days as i32)),
            false => Err(EncodeError::DatetimeOutOfRange("date")),
        };
    }
    let local = days
        .checked_mul(MICROS_PER_DAY)
        .and_then(|micros| micros.checked_add(parts.micros.unwrap_or(0)));
    let micros = match (kind, local, &parts.zone) {
        (Kind::Timestamp, local, _) => local,
        (_, Some(local), Some(ZoneWord::Offset(east))) => {
            local.checked_sub(i64::from(*east) * MICROS_PER_SECOND)
        }
        (_, Some(local), Some(ZoneWord::Named(zone))) => Zone::new(zone).utc_of(local),
        (_, Some(local), None) => session.utc_of(local),
        (_, None, _) => None,
    };
    match micros.filter(|micros| TIMESTAMPS.contains(micros)) {
        Some(micros) if *kind == Kind::Timestamp => Ok(Datum::Timestamp(micros)),
        Some(micros) => Ok(Datum::TimestampTz(micros)),
        None => Err(EncodeError::DatetimeOutOfRange("timestamp")),
    }
}

#[derive(Clone)]
enum ZoneWord {
    /// Seconds east of UTC.
    Offset(i32),
    Named(TimeZone),
}

/// What the words of a text said.
#[derive(Default)]
struct Parts {
    year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    /// The day of the year, instead of month and day.
    day_of_year: Option<u32>,
    micros: Option<i64>,
    afternoon: Option<bool>,
    before_christ: bool,
    zone: Option<ZoneWord>,
    /// A day that was named by a word like `today`, from 1970 on.
    fixed_day: Option<i64>,
}

impl Parts {
    fn read(&mut self, kind: &Kind, text: &str, word: &str, session: &mut Zone) -> Result<(), EncodeError> {
        let invalid = || EncodeError::invalid_datetime(kind.name(), text);
        let words = split(word).ok_or_else(invalid)?;
        if words.is_empty() {
            return Err(invalid());
        }
        let textual_month = words.iter().any(|word| month(word).is_some());
        for (index, word) in words.iter().enumerate() {
            let first = word.as_bytes().first().copied().unwrap_or_default();
            let result = if first == b'+' || (first == b'-' && index > 0) {
                self.offset_word(word, text)
            } else if word.contains(':') {
                self.clock(word, text)
            } else if first.is_ascii_digit()
                || word
                    .split_once('-')
                    .is_some_and(|(name, _)| month(name).is_some())
            {
                Ok(self.number(word, kind, textual_month))
            } else {
                self.name(word, session)
            };
            if !result? {
                return Err(invalid());
            }
        }
        if let Some(afternoon) = self.afternoon {
            const HOUR: i64 = 3600 * MICROS_PER_SECOND;
            self.micros = match self.micros {
                Some(micros) if micros < 13 * HOUR => {
                    Some(micros % (12 * HOUR) + if afternoon { 12 * HOUR } else { 0 })
                }
                Some(_) => return Err(EncodeError::DatetimeFieldOutOfRange(excerpt(text))),
                None => return Err(invalid()),
            };
        }
        Ok(())
    }

    /// The day, from 1970 on: `None` when there is no whole date, `Some(None)`
    /// when it is none of the calendar.
    fn date(&self) -> Option<Option<i64>> {
        if let Some(day) = self.fixed_day {
            return Some(Some(day));
        }
        let year = self.year?;
        let (month, day) = match self.day_of_year {
            Some(_) => (1, 1),
            None => (self.month?, self.day?),
        };
        let year = match (self.before_christ, year) {
            (_, 0) => return Some(None),
            (true, year) => 1 - year,
            (false, year) => year,
        };
        let days = days_from_civil(year, month.clamp(1, 12), day.max(1));
        let days = days + i64::from(self.day_of_year.unwrap_or(1)) - 1;
        let valid = match self.day_of_year {
            Some(number) => (1..=366).contains(&number),
            None => i32::try_from(days).is_ok_and(|days| civil(days) == (year, month, day)),
        };
        Some(valid.then_some(days))
    }

    fn offset(&self, moment: i64, session: &mut Zone) -> i32 {
        let at = |zone: &mut Zone| {
            let utc = zone.utc_of(moment).unwrap_or(moment);
            zone.offset(utc)
        };
        match &self.zone {
            Some(ZoneWord::Offset(east)) => *east,
            Some(ZoneWord::Named(zone)) => at(&mut Zone::new(zone)),
            None => at(session),
        }
    }

    /// A word that begins with a digit and is no time of day; says whether
    /// it has a meaning.
    fn number(&mut self, word: &str, kind: &Kind, textual_month: bool) -> bool {
        let parts: Vec<&str> = word.split(['-', '/', '.']).collect();
        if let [digits] = parts[..] {
            return self.digits(digits, kind, textual_month);
        }
        let number = |digits: &str| match digits.len() {
            1..=9 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u32>().ok(),
            _ => None,
        };
        // `040506.789`, a time; `2020.123`, a day of a year.
        if word.contains('.') && parts.len() == 2 {
            let has_date = self.date().is_some() || matches!(kind, Kind::Time | Kind::TimeTz);
            if has_date && parts[0].len() == 6 {
                return self.compact_time(parts[0], parts[1]);
            }
        }
        if self.year.is_some() || self.fixed_day.is_some() {
            return false;
        }
        if let [year, day] = parts[..]
            && (year.len() == 4 && day.len() == 3)
        {
            let (Some(year), Some(day)) = (number(year), number(day)) else {
                return false;
            };
            self.year = Some(year as i32);
            self.day_of_year = Some(day);
            return true;
        }
        let [a, b, c] = parts[..] else {
            return false;
        };
        // A month by its name takes any of the three places.
        if let (Some(named), Some(day), Some(year)) = (month(a), number(b), number(c)) {
            self.month = Some(named);
            self.set_day(day).set_year(c, year);
            return true;
        }
        if let Some(named) = month(b) {
            let (Some(first), Some(last)) = (number(a), number(c)) else {
                return false;
            };
            self.month = Some(named);
            match a.len() > 2 {
                true => self.set_year(a, first).set_day(last),
                false => self.set_day(first).set_year(c, last),
            };
            return true;
        }
        let (Some(first), Some(second), Some(third)) = (number(a), number(b), number(c)) else {
            return false;
        };
        if a.len() > 2 {
            self.set_year(a, first).month = Some(second);
            self.set_day(third);
        } else {
            self.month = Some(first);
            self.set_day(second).set_year(c, third);
        }
        true
    }

    /// A word of digits only.
    fn digits(&mut self, digits: &str, kind: &Kind, textual_month: bool) -> bool {
        if digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return false;
        }
        let Ok(number) = digits.parse::<u32>() else {
            return false;
        };
        let has_date = self.date().is_some() || matches!(kind, Kind::Time | Kind::TimeTz);
        match digits.len() {
            8 if self.year.is_none() && !textual_month => {
                self.year = Some((number / 10_000) as i32);
                self.month = Some(number / 100 % 100);
                self.set_day(number % 100);
            }
            6 | 4 if has_date && self.micros.is_none() => return self.compact_time(digits, ""),
            6 if self.year.is_none() && !textual_month => {
                self.set_year("00", number / 10_000).month = Some(number / 100 % 100);
                self.set_day(number % 100);
            }
            1 | 2 if textual_month && self.day.is_none() => {
                self.set_day(number);
            }
            _ if textual_month && self.year.is_none() => {
                self.set_year(digits, number);
            }
            _ => return false,
        }
        true
    }

    fn set_year(&mut self, digits: &str, year: u32) -> &mut Self {
        // Two digits are of the years 1970 to 2069.
        let century = match (digits.len() <= 2, year) {
            (true, 0..70) => 2000,
            (true, _) => 1900,
            (false, _) => 0,
        };
        self.year = i32::try_from(year).ok().map(|year| year + century);
        self
    }

    fn set_day(&mut self, day: u32) -> &mut Self {
        self.day = Some(day);
        self
    }

    /// `HHMMSS` and `HHMM`, with a fraction or none.
    fn compact_time(&mut self, digits: &str, fraction: &str) -> bool {
        let (Ok(number), Some(fraction)) = (digits.parse::<u32>(), fraction_micros(fraction)) else {
            return false;
        };
        let number = if digits.len() == 4 { number * 100 } else { number };
        let micros = time_of_day(number / 10_000, number / 100 % 100, number % 100, fraction);
        micros.is_some() && self.set_time(micros)
    }

    fn set_time(&mut self, micros: Option<i64>) -> bool {
        let first = self.micros.is_none();
        self.micros = micros;
        first
    }

    /// `HH:MM` and `HH:MM:SS.fraction`.
    fn clock(&mut self, word: &str, text: &str) -> Result<bool, EncodeError> {
        let (clock, fraction) = word.split_once('.').unwrap_or((word, ""));
        let Some(fraction) = fraction_micros(fraction) else {
            return Ok(false);
        };
        let mut fields = [0u32; 3];
        let mut count = 0;
        for digits in clock.split(':') {
            let valid = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            match (fields.get_mut(count), digits.parse()) {
                (Some(place), Ok(number)) if valid => *place = number,
                _ => return Ok(false),
            }
            count += 1;
        }
        if count < 2 {
            return Ok(false);
        }
        match time_of_day(fields[0], fields[1], fields[2], fraction) {
            Some(micros) => Ok(self.set_time(Some(micros))),
            None => Err(EncodeError::DatetimeFieldOutOfRange(excerpt(text))),
        }
    }

    /// `+02`, `-0530`, `+05:30`, `-00:44:30`.
    fn offset_word(&mut self, word: &str, text: &str) -> Result<bool, EncodeError> {
        let sign = if word.starts_with('-') { -1 } else { 1 };
        let digits = &word[1..];
        let mut fields = [0i32; 3];
        if digits.contains(':') {
            for (index, part) in digits.split(':').enumerate() {
                let (Some(place), true) = (fields.get_mut(index), (1..=2).contains(&part.len())) else {
                    return Ok(false);
                };
                match part.parse::<u8>() {
                    Ok(number) => *place = number.into(),
                    Err(_) => return Ok(false),
                }
            }
        } else {
            if digits.len() > 6 {
                return Err(EncodeError::ZoneDisplacement(excerpt(text)));
            }
            let Ok(number) = digits.parse::<u32>() else {
                return Ok(false);
            };
            let number = number as i32;
            fields = match digits.len() {
                1 | 2 => [number, 0, 0],
                3 | 4 => [number / 100, number % 100, 0],
                _ => [number / 10_000, number / 100 % 100, number % 100],
            };
        }
        let [hours, minutes, seconds] = fields;
        if hours > 15 || minutes > 59 || seconds > 59 {
            return Err(EncodeError::ZoneDisplacement(excerpt(text)));
        }
        let east = sign * (hours * 3600 + minutes * 60 + seconds);
        // An offset after a zone that is none of its own: `UTC+2`.
        match self.zone.replace(ZoneWord::Offset(east)) {
            None => Ok(true),
            Some(_) => Ok(false),
        }
    }

    /// A word of letters.
    fn name(&mut self, word: &str, session: &mut Zone) -> Result<bool, EncodeError> {
        if let Some(number) = month(word) {
            return Ok(self.month.replace(number).is_none());
        }
        match word {
            "ad" => {}
            "bc" => self.before_christ = true,
            "am" => self.afternoon = Some(false),
            "pm" => self.afternoon = Some(true),
            "t" | "at" | "on" | "," => {}
            // jiff has a zone of this name, PostgreSQL has none.
            "unknown" => return Ok(false),
            "z" | "zulu" | "utc" | "gmt" | "ut" => {
                return Ok(self.zone.replace(ZoneWord::Offset(0)).is_none());
            }
            "allballs" => {
                self.micros = Some(0);
                self.zone = Some(ZoneWord::Offset(0));
            }
            "now" | "today" | "tomorrow" | "yesterday" => {
                let now = Timestamp::now().as_microsecond();
                let local = now + i64::from(session.offset(now)) * MICROS_PER_SECOND;
                let day = local.div_euclid(MICROS_PER_DAY);
                self.fixed_day = Some(match word {
                    "tomorrow" => day + 1,
                    "yesterday" => day - 1,
                    _ => day,
                });
                if word == "now" {
                    self.micros = Some(local.rem_euclid(MICROS_PER_DAY));
                }
            }
            word if WEEKDAYS
                .iter()
                .any(|day| word.len() >= 3 && day.starts_with(word)) => {}
            word => {
                let zone = match ABBREVIATIONS.binary_search_by_key(&word, |(name, _)| name) {
                    Ok(index) => ZoneWord::Offset(ABBREVIATIONS[index].1 * 900),
                    Err(_) => match TimeZone::get(word) {
                        Ok(zone) => ZoneWord::Named(zone),
                        Err(_) if word.contains('/') => {
                            return Err(EncodeError::UnknownTimeZone(excerpt(word)));
                        }
                        Err(_) => return Ok(false),
                    },
                };
                return Ok(self.zone.replace(zone).is_none());
            }
        }
        Ok(true)
    }
}

/// Microseconds since midnight. 24:00:00 ends a day, and a 60th second counts
/// into the next minute; other numbers are of no day.
fn time_of_day(hours: u32, minutes: u32, seconds: u32, fraction: i64) -> Option<i64> {
    let end = hours == 24 && minutes == 0 && seconds == 0 && fraction == 0;
    let seconds_valid = seconds < 60 || (seconds == 60 && fraction == 0);
    ((hours < 24 || end) && minutes < 60 && seconds_valid)
        .then(|| i64::from(hours * 3600 + minutes * 60 + seconds) * MICROS_PER_SECOND + fraction)
}

/// Microseconds of the digits behind a point, rounded at the seventh.
fn fraction_micros(digits: &str) -> Option<i64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut micros = 0;
    let mut bytes = digits.bytes();
    for _ in 0..6 {
        micros = micros * 10 + i64::from(bytes.next().unwrap_or(b'0') - b'0');
    }
    Some(micros + i64::from(bytes.next().is_some_and(|digit| digit >= b'5')))
}

/// Cuts a text, in lower case, into words: dates, times, offsets, names.
fn split(text: &str) -> Option<Vec<&str>> {
    let bytes = text.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let start = at;
        let run = |from: usize, accept: &dyn Fn(u8) -> bool| {
            from + bytes[from..].iter().take_while(|byte| accept(**byte)).count()
        };
        match byte {
            b' ' | b'\t'..=b'\r' | b',' => {
                at += 1;
                continue;
            }
            b'0'..=b'9' => {
                at = run(at, &|byte| byte.is_ascii_digit());
                match bytes.get(at) {
                    Some(b':') => at = run(at, &|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.')),
                    Some(b'-' | b'/' | b'.') => {
                        // A date, in which a month may be a name.
                        let separator = bytes[at];
                        let next = bytes.get(at + 1).copied().unwrap_or(b' ');
                        if next.is_ascii_alphanumeric() {
                            at = run(at + 1, &|byte| byte.is_ascii_digit());
                            if next.is_ascii_alphabetic() {
                                at = run(at, &|byte| byte.is_ascii_alphabetic());
                            }
                            if bytes.get(at) == Some(&separator) {
                                at = run(at + 1, &|byte| byte.is_ascii_digit());
                            }
                        }
                    }
                    _ => {}
                }
            }
            b'+' | b'-' => {
                at = run(at + 1, &|byte| byte.is_ascii_digit() || byte == b':');
                if at == start + 1 {
                    return None;
                }
            }
            b'a'..=b'z' => {
                at = run(at, &|byte| byte.is_ascii_alphabetic());
                // `jan-08-1999`.
                if bytes.get(at) == Some(&b'-') && month(&text[start..at]).is_some() {
                    at = run(at, &|byte| byte.is_ascii_digit() || byte == b'-');
                }
                // Names of zones have more in them: `america/port-au-prince`, `etc/gmt+5`.
                if bytes.get(at) == Some(&b'/') || bytes.get(at) == Some(&b'_') {
                    at = run(at, &|byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+')
                    });
                }
                // `jan.`, and the `t` between date and time.
                if bytes.get(at) == Some(&b'.') {
                    words.push(&text[start..at]);
                    at += 1;
                    continue;
                }
            }
            _ => return None,
        }
        words.push(&text[start..at]);
    }
    Some(words)
}

/// The number of a month by its name or the first three letters of it.
fn month(word: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    let found = MONTHS
        .iter()
        .position(|month| *month == word || month[..3] == *word || (*month == "september" && word == "sept"));
    found.map(|index| index as u32 + 1)
}

const WEEKDAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// Abbreviations of PostgreSQL's default set that mean one offset, in
/// quarters of an hour east of UTC. Sorted.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("acst", 38),
    ("adt", -12),
    ("aest", 40),
    ("akdt", -32),
    ("akst", -36),
    ("ast", -16),
    ("awst", 32),
    ("bst", 4),
    ("cdt", -20),
    ("cest", 8),
    ("cet", 4),
    ("cst", -24),
    ("edt", -16),
    ("eest", 12),
    ("eet", 8),
    ("est", -20),
    ("hkt", 32),
    ("hst", -40),
    ("ist", 8),
    ("jst", 36),
    ("kst", 36),
    ("mdt", -24),
    ("met", 4),
    ("msk", 12),
    ("mst", -28),
    ("nzdt", 52),
    ("nzst", 48),
    ("pdt", -28),
    ("pst", -32),
    ("wet", 0),
];
