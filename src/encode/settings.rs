//! The session settings that change how values look on the wire.

use jiff::tz::TimeZone;

/// What a session may set and an encoder or decoder must know. DateStyle is
/// always ISO, MDY; IntervalStyle postgres; bytea_output hex.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The zone in which `timestamptz` is shown, and read when it names none.
    pub time_zone: TimeZone,
    /// PostgreSQL's `extra_float_digits`, -15 to 3: above 0, the default,
    /// floats are printed with the fewest digits that read back the same.
    pub extra_float_digits: i32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            time_zone: TimeZone::UTC,
            extra_float_digits: 1,
        }
    }
}
