//! Which statements are logged, and where.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::units::Scalar;

/// Which statements are logged whatever time they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Statements {
    /// None.
    #[default]
    Off,
    /// Those that fail.
    Errors,
    /// All.
    All,
}

impl Scalar for Statements {
    const FORM: &'static str = "off, errors or all";
    fn scan(text: &str) -> Option<Self> {
        match text {
            "errors" => Some(Self::Errors),
            "all" => Some(Self::All),
            text => (!bool::scan(text)?).then_some(Self::Off),
        }
    }
}

impl fmt::Display for Statements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Errors => "errors",
            Self::All => "all",
        })
    }
}

/// How long a statement takes at least that is logged for that; `None` logs none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Threshold(pub Option<Duration>);

impl Scalar for Threshold {
    const FORM: &'static str = "a number of milliseconds, a duration with units (250ms, 5s), or -1";
    fn scan(text: &str) -> Option<Self> {
        match text.parse::<i32>() {
            Ok(-1) => Some(Self(None)),
            Ok(milliseconds) => Some(Self(Some(Duration::from_millis(milliseconds.try_into().ok()?)))),
            Err(_) => Some(Self(Some(Duration::scan(text)?))),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("-1"),
            Some(duration) => write!(f, "{}ms", duration.as_millis()),
        }
    }
}

macro_rules! from_str {
    ($($type:ty),+) => {
        $(impl std::str::FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::scan(text).ok_or_else(|| format!("must be {}", Self::FORM))
            }
        })+
    };
}

from_str!(Statements, Threshold);

/// What the query log is to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryLog {
    /// Which statements, whatever their time.
    pub statements: Statements,
    /// Which of the others, for their time.
    pub threshold: Threshold,
    /// Whether their text is logged.
    pub text: bool,
    /// Where to, if not to the log of everything else.
    pub file: Option<PathBuf>,
}

impl QueryLog {
    /// Is anything logged at all?
    pub fn is_on(&self) -> bool {
        self.statements != Statements::Off || self.threshold.0.is_some()
    }

    /// Is a statement logged that took so long?
    pub fn wants(&self, duration: Duration, failed: bool) -> bool {
        match self.statements {
            Statements::All => true,
            Statements::Errors if failed => true,
            _ => self.threshold.0.is_some_and(|threshold| duration >= threshold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_written_as_in_postgresql_or_with_units() {
        let scan = |text| Threshold::scan(text).map(|threshold| threshold.0);
        assert_eq!(scan("-1"), Some(None));
        assert_eq!(scan("0"), Some(Some(Duration::ZERO)));
        assert_eq!(scan("250"), Some(Some(Duration::from_millis(250))));
        assert_eq!(scan("5s"), Some(Some(Duration::from_secs(5))));
        assert_eq!((scan("-2"), scan("soon"), scan("")), (None, None, None));
        for text in ["-1", "0", "1h"] {
            let threshold = Threshold::scan(text);
            assert_eq!(Threshold::scan(&threshold.unwrap().to_string()), threshold);
        }
    }

    #[test]
    fn statements_are_logged_for_their_kind_or_for_their_time() {
        let (short, long) = (Duration::from_millis(1), Duration::from_secs(1));
        let log = |statements, threshold| QueryLog {
            statements: Statements::scan(statements).unwrap(),
            threshold: Threshold::scan(threshold).unwrap(),
            ..QueryLog::default()
        };
        let wanted = |log: QueryLog| {
            [(short, false), (short, true), (long, false)]
                .map(|(duration, failed)| log.wants(duration, failed))
        };
        assert_eq!(wanted(log("off", "-1")), [false, false, false]);
        assert_eq!(wanted(log("errors", "-1")), [false, true, false]);
        assert_eq!(wanted(log("errors", "500")), [false, true, true]);
        assert_eq!(wanted(log("off", "0")), [true, true, true]);
        assert_eq!(wanted(log("all", "-1")), [true, true, true]);
    }
}
