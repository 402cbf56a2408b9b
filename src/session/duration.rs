//! Times as parameters have them: `30s`, `1min`, `1500` (milliseconds).
//!
//! Source: PostgreSQL manual, section 20.1.1 "Parameter Names and Values".

use std::time::Duration;

/// From the longest; none is the unit without a name.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// PostgreSQL keeps milliseconds in 31 bits.
const LONGEST: f64 = i32::MAX as f64;

/// A time with its unit; `Some(None)` is 0, which means no limit.
pub fn parse(text: &str) -> Option<Option<Duration>> {
    let text = text.trim();
    let end = text
        .find(|c: char| !matches!(c, '0'..='9' | '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" => 1.0,
        "us" => 0.001,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1 as f64,
    };
    let milliseconds = (number * factor).round();
    if milliseconds > LONGEST {
        return None;
    }
    Some((milliseconds > 0.0).then(|| Duration::from_millis(milliseconds as u64)))
}

/// In the largest unit that needs no fraction.
pub fn show(time: Duration) -> String {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    UNITS
        .iter()
        .find(|(_, unit)| milliseconds >= *unit && milliseconds % unit == 0)
        .map_or_else(
            || "0".to_owned(),
            |(name, unit)| format!("{}{name}", milliseconds / unit),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown_as_postgresql_does() {
        for (text, shown) in [
            ("0", "0"),
            ("1500", "1500ms"),
            ("60000", "1min"),
            ("1.5s", "1500ms"),
            ("90 s", "90s"),
            ("2h", "2h"),
            ("24h", "1d"),
            ("100us", "0"),
        ] {
            let time = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(show(time.unwrap_or_default()), shown, "{text}");
        }
        for text in ["", "s", "-1", "1 week", "1e3", "30d", "1..2", "1S"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
