//! The log: to the journal in its own form where standard error is the journal,
//! otherwise to standard error as lines of text.
//!
//! Names, messages and settings of clients get into it, so a line is a line
//! whatever they hold: control characters are written as escapes. What a client
//! proves itself with, and the text of its statements, never gets here.

use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::prelude::*;

/// Starts logging. `level` is a level or a filter as tracing_subscriber
/// understands it. In the journal each field of an event is a field of its own,
/// with the prefix `DUCKGRES_`.
pub fn start(level: &str) {
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    if is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let prefix = Some("DUCKGRES".to_owned());
        return registry.with(journal.with_field_prefix(prefix)).init();
    }
    let text = tracing_subscriber::fmt::layer()
        .fmt_fields(debug_fn(write_field).delimited(" "))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Nobody may be reading any more: then nothing is logged, and nothing else happens.
        .log_internal_errors(false);
    registry.with(text).init();
}

/// Is standard error connected to the journal? Source: systemd.exec(5),
/// JOURNAL_STREAM.
fn is_journal() -> bool {
    let stat = nix::sys::stat::fstat(std::io::stderr().as_fd());
    let stream = std::env::var("JOURNAL_STREAM");
    stat.is_ok_and(|stat| stream.is_ok_and(|stream| names(&stream, stat.st_dev, stat.st_ino)))
}

/// Does `stream` ("device:inode") name this file?
fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(one, other)| one.parse() == Ok(device) && other.parse() == Ok(inode))
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    fmt::Write::write_fmt(&mut Escaped(writer), format_args!("{value:?}"))
}

/// Passes text on, control characters as Rust writes them.
struct Escaped<'a, W: fmt::Write>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let plain = part.trim_end_matches(char::is_control);
            self.0.write_str(plain)?;
            for control in part[plain.len()..].chars() {
                write!(self.0, "{}", control.escape_default())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_client_calls_itself_cannot_begin_a_line_or_colour_the_screen() {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let name = "eve\n2026-01-01 INFO all is well\u{1b}[31m\u{9b}";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(name, shown = %name, "refused: {name}");
        });
        let log = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(!log.trim_end().contains(char::is_control), "{log:?}");
        assert!(
            log.contains(r"refused: eve\n2026-01-01 INFO all is well\u{1b}[31m\u{9b}"),
            "{log}"
        );
    }

    #[test]
    fn the_journal_is_known_by_its_device_and_inode() {
        assert!(names("9:1234", 9, 1234));
        assert!(!names("9:1234", 9, 1235) && !names("8:1234", 9, 1234));
        assert!(!names("", 0, 0) && !names("9", 9, 0) && !names("a:b", 0, 0));
    }
}
