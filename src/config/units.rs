//! The forms in which settings are written: sizes, durations, choices, paths.
//!
//! Each form says in one phrase how it is written; help texts, error messages
//! and the reference all use that phrase.

use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A form in which one value is written as one word.
pub(crate) trait Scalar: Sized {
    /// How it is written, to go on after "must be".
    const FORM: &'static str;
    /// Reads the word; what is wrong is said by [`Scalar::FORM`].
    fn scan(text: &str) -> Option<Self>;
}

/// A number of bytes, written with a unit: `512MB`, `1.5GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Scalar for Size {
    const FORM: &'static str = "a size with a unit (512MB, 4GB, 1.5GiB)";

    fn scan(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text.trim())?;
        // As in DuckDB: KB is 1000 bytes, KiB is 1024.
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "b" | "byte" | "bytes" => 1,
            "kb" => 1000,
            "mb" => 1000_u64.pow(2),
            "gb" => 1000_u64.pow(3),
            "tb" => 1000_u64.pow(4),
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            _ => return None,
        };
        let bytes = number * factor as f64;
        (bytes >= 1.0 && bytes < i64::MAX as f64).then_some(Self(bytes as u64))
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::scan(text).ok_or_else(|| format!("must be {}", Self::FORM))
    }
}

impl fmt::Display for Size {
    /// In bytes, in a form that DuckDB and [`Size::from_str`] read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

impl Scalar for Duration {
    const FORM: &'static str = "a duration with units (500ms, 30s, 5min, 1h30m, 7d)";

    fn scan(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let unit_length = rest[number_end..].trim_start();
            let gap = rest.len() - number_end - unit_length.len();
            let unit_end = unit_length
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(unit_length.len());
            let seconds = match &unit_length[..unit_end] {
                "ms" => 0.001,
                "s" | "sec" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return None,
            };
            let number: f64 = rest[..number_end].parse().ok()?;
            // Keeps millisecond counts far below what timers and polls can hold.
            if number * seconds > 1e9 {
                return None;
            }
            total += Duration::try_from_secs_f64(number * seconds).ok()?;
            rest = rest[number_end + gap + unit_end..].trim_start();
        }
        Some(total)
    }
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

impl Scalar for String {
    const FORM: &'static str = "text";
    fn scan(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Scalar for bool {
    const FORM: &'static str = "on or off";
    fn scan(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" => Some(true),
            "off" | "false" | "no" => Some(false),
            _ => None,
        }
    }
}

impl Scalar for u16 {
    const FORM: &'static str = "a number from 0 to 65535";
    fn scan(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for u32 {
    const FORM: &'static str = "a whole number, 0 or more";
    fn scan(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for NonZeroU32 {
    const FORM: &'static str = "a whole number, 1 or more";
    fn scan(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Scalar for PathBuf {
    const FORM: &'static str = "a path";
    fn scan(text: &str) -> Option<Self> {
        let usable = !text.is_empty() && !text.contains('\0');
        // Made absolute at once: workers and later reloads run elsewhere.
        usable.then(|| std::path::absolute(text).unwrap_or_else(|_| Path::new(text).to_path_buf()))
    }
}

/// Defines an enum whose variants are written as words.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident, $form:literal { $($(#[doc = $doc:literal])+ $variant:ident = $($word:literal)|+,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl Scalar for $name {
            const FORM: &'static str = $form;
            fn scan(text: &str) -> Option<Self> {
                match text { $($($word)|+ => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

choice! {
    /// What this process is.
    Mode, "standalone, control-plane or worker" {
        /// Control plane and worker from one command, ready without configuration.
        Standalone = "standalone",
        /// The control plane with its workers; users and certificate are configured.
        ControlPlane = "control-plane",
        /// One worker, started by something else (systemd, a container).
        Worker = "worker",
    }
}

choice! {
    /// Whether connections are encrypted.
    TlsMode, "disable, allow or require" {
        /// No TLS is offered.
        Disable = "disable",
        /// The client chooses.
        Allow = "allow",
        /// Connections over TCP without TLS are refused.
        Require = "require",
    }
}

choice! {
    /// The oldest TLS version that is spoken.
    TlsVersion, "1.2 or 1.3" {
        /// TLS 1.2 and newer.
        Tls12 = "1.2" | "TLSv1.2",
        /// TLS 1.3 only.
        Tls13 = "1.3" | "TLSv1.3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_duckdb() {
        assert_eq!(Size::scan("4GB"), Some(Size(4_000_000_000)));
        assert_eq!(Size::scan("1.5 GiB"), Some(Size(1_610_612_736)));
        assert_eq!(Size::scan("512mb"), Some(Size(512_000_000)));
        assert_eq!(Size::scan(&Size(12345).to_string()), Some(Size(12345)));
        for wrong in [
            "",
            "4",
            "GB",
            "-1GB",
            "4XB",
            "1e400GB",
            "99999999TB",
            "0GB",
            "1.2.3GB",
            "NaNGB",
        ] {
            assert_eq!(Size::scan(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_need_units_and_may_be_compound() {
        assert_eq!(Duration::scan("30s"), Some(Duration::from_secs(30)));
        assert_eq!(Duration::scan("5min"), Some(Duration::from_secs(300)));
        assert_eq!(Duration::scan("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(Duration::scan("1 h 30 s"), Some(Duration::from_secs(3630)));
        assert_eq!(Duration::scan("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(Duration::scan("0s"), Some(Duration::ZERO));
        for wrong in [
            "",
            "30",
            "s",
            "-1s",
            "5 parsecs",
            "1h30",
            "99999999999d",
            "é",
            "1é",
        ] {
            assert_eq!(Duration::scan(wrong), None, "{wrong}");
        }
    }
}
