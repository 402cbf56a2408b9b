//! The query log: one line for each statement that is to be logged.
//!
//! A session only puts a line into a bounded queue; a thread of its own writes.
//! When that cannot keep up, lines are dropped and counted, and the count is
//! logged: no statement waits for its log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::config::QueryLog as Config;
use crate::session::Ended;

/// So many lines may wait to be written.
const QUEUE: usize = 4096;

/// So much of a statement's text is logged.
const LONGEST_TEXT: usize = 16 << 10;

/// How often it is looked whether the file was moved away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long the end of the worker waits for the last lines.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// Where sessions put their lines.
#[derive(Debug)]
pub(super) struct QueryLog {
    config: Config,
    queue: SyncSender<Entry>,
    dropped: Arc<AtomicU64>,
}

/// The log of the configuration that holds now.
#[derive(Debug, Default)]
pub(super) struct Current(RwLock<Option<Arc<QueryLog>>>);

impl Current {
    /// What sessions that begin now are to use.
    pub(super) fn get(&self) -> Option<Arc<QueryLog>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes by this configuration from now on; by the last one if that is not possible.
    pub(super) fn configure(&self, config: &Config) -> std::io::Result<()> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let same = current.as_ref().map(|log| &log.config) == Some(config).filter(|config| config.is_on());
        if !same {
            *current = QueryLog::start(config)?.map(Arc::new);
        }
        Ok(())
    }
}

/// Whose statements they are.
#[derive(Debug, Clone)]
pub(super) struct Who {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) backend_id: i32,
}

#[derive(Debug)]
enum Entry {
    Line(Box<Line>),
    /// What came before is to be written now.
    Flush(Sender<()>),
}

#[derive(Debug)]
struct Line {
    time: jiff::Timestamp,
    who: Arc<Who>,
    duration: Duration,
    rows: u64,
    sqlstate: &'static str,
    text: Option<String>,
}

impl QueryLog {
    /// The log of this configuration, and its thread; `None` if nothing is logged.
    pub(super) fn start(config: &Config) -> std::io::Result<Option<QueryLog>> {
        if !config.is_on() {
            return Ok(None);
        }
        let target = config.file.as_deref().map(Target::open).transpose()?;
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            target,
            dropped: dropped.clone(),
        };
        std::thread::Builder::new()
            .name("query-log".into())
            .spawn(move || writer.write(&lines))?;
        Ok(Some(QueryLog {
            config: config.clone(),
            queue,
            dropped,
        }))
    }

    /// Logs a statement, if it is one to log. Never waits.
    pub(super) fn log(&self, who: &Arc<Who>, statement: &Ended<'_>) {
        if !self
            .config
            .wants(statement.duration, statement.sqlstate.is_some())
        {
            return;
        }
        let text = self.config.text.then(|| shortened(statement.text));
        let line = Line {
            time: jiff::Timestamp::now(),
            who: who.clone(),
            duration: statement.duration,
            rows: statement.rows,
            // successful_completion
            sqlstate: statement.sqlstate.unwrap_or("00000"),
            text,
        };
        if self.queue.try_send(Entry::Line(Box::new(line))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns when what was logged before is written, or could not be in time.
    pub(super) fn flush(&self) {
        let (done, flushed) = channel();
        let deadline = Instant::now() + FLUSH_WITHIN;
        let mut entry = Entry::Flush(done);
        while let Err(error) = self.queue.try_send(entry) {
            let std::sync::mpsc::TrySendError::Full(unsent) = error else {
                return;
            };
            if Instant::now() >= deadline {
                return;
            }
            entry = unsent;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = flushed.recv_timeout(FLUSH_WITHIN);
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= LONGEST_TEXT {
        return text.to_owned();
    }
    let end = (0..=LONGEST_TEXT).rev().find(|at| text.is_char_boundary(*at));
    format!("{}…", &text[..end.unwrap_or(0)])
}

struct Writer {
    /// `None` is the log of everything else.
    target: Option<Target>,
    dropped: Arc<AtomicU64>,
}

impl Writer {
    fn write(mut self, lines: &Receiver<Entry>) {
        loop {
            match lines.recv_timeout(LOOK_AGAIN) {
                Ok(Entry::Line(line)) => self.line(&line),
                Ok(Entry::Flush(done)) => {
                    self.tell_of_dropped();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.tell_of_dropped(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn line(&mut self, line: &Line) {
        let Line {
            time,
            who,
            duration,
            rows,
            sqlstate,
            text,
        } = line;
        let duration_ms = duration.as_micros() as f64 / 1000.0;
        let Who {
            user,
            database,
            backend_id,
        } = who.as_ref();
        let Some(target) = &mut self.target else {
            // Logged as debugging output, a string has its control characters escaped.
            return tracing::info!(
                target: "duckgres::query_log",
                duration_ms,
                rows,
                user,
                database,
                backend_id,
                sqlstate,
                text = text.as_deref(),
                "statement"
            );
        };
        let mut object = json!({
            "time": time.to_string(),
            "duration_ms": duration_ms,
            "rows": rows,
            "user": user,
            "database": database,
            "backend_id": backend_id,
            "sqlstate": sqlstate,
        });
        if let (Some(text), Some(fields)) = (text, object.as_object_mut()) {
            fields.insert("text".to_owned(), text.as_str().into());
        }
        if !target.append(&format!("{object}\n")) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell_of_dropped(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "statements are missing from the query log");
        }
    }
}

/// A file that lines are appended to, also by other workers, and that may be
/// moved away: then it is made anew.
struct Target {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl Target {
    fn open(path: &Path) -> std::io::Result<Target> {
        Ok(Target {
            path: path.to_path_buf(),
            file: Self::create(path)?,
            looked: Instant::now(),
        })
    }

    fn create(path: &Path) -> std::io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
    }

    /// False if the line could not be written.
    fn append(&mut self, line: &str) -> bool {
        if self.looked.elapsed() >= LOOK_AGAIN {
            self.looked = Instant::now();
            if self.was_moved()
                && let Ok(file) = Self::create(&self.path)
            {
                self.file = file;
            }
        }
        // One write for one line: several processes may append.
        self.file.write_all(line.as_bytes()).is_ok()
    }

    fn was_moved(&self) -> bool {
        let name = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let there = std::fs::metadata(&self.path).map(name).ok();
        there.is_none() || there != self.file.metadata().map(name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Statements;

    fn config(file: &Path, text: bool) -> Config {
        Config {
            statements: Statements::All,
            text,
            file: Some(file.to_path_buf()),
            ..Config::default()
        }
    }

    fn who() -> Arc<Who> {
        Arc::new(Who {
            user: "eve\n".into(),
            database: "d".into(),
            backend_id: 7,
        })
    }

    fn statement(text: &str) -> Ended<'_> {
        Ended {
            text,
            duration: Duration::from_micros(1500),
            rows: 2,
            sqlstate: None,
        }
    }

    #[test]
    fn a_line_is_one_object_and_has_no_text_unless_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        for (name, with_text) in [("a", false), ("b", true)] {
            let file = directory.path().join(name);
            let log = QueryLog::start(&config(&file, with_text)).unwrap().unwrap();
            log.log(&who(), &statement("select\n1"));
            log.flush();
            let written = std::fs::read_to_string(&file).unwrap();
            assert_eq!(written.lines().count(), 1, "{written}");
            let line: serde_json::Value = serde_json::from_str(&written).unwrap();
            let text = with_text.then_some("select\n1");
            assert_eq!(line.get("text").and_then(|text| text.as_str()), text);
            assert_eq!(
                (&line["duration_ms"], &line["rows"], &line["backend_id"]),
                (&json!(1.5), &json!(2), &json!(7))
            );
            assert_eq!(
                (&line["user"], &line["sqlstate"]),
                (&json!("eve\n"), &json!("00000"))
            );
            assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut target = Target::open(&path).unwrap();
        assert!(target.append("one\n") && !target.was_moved());
        std::fs::rename(&path, directory.path().join("log.1")).unwrap();
        assert!(target.was_moved());
        target.looked -= LOOK_AGAIN;
        assert!(target.append("two\n"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }

    #[test]
    fn what_does_not_fit_into_the_queue_is_counted_and_nobody_waits() {
        let (queue, lines) = sync_channel(1);
        let log = QueryLog {
            config: config(Path::new("/nowhere"), false),
            queue,
            dropped: Arc::default(),
        };
        for _ in 0..3 {
            log.log(&who(), &statement("select 1"));
        }
        assert_eq!(log.dropped.load(Ordering::Relaxed), 2);
        drop(lines);
    }

    #[test]
    fn a_text_without_end_is_cut() {
        assert_eq!(shortened("ä"), "ä");
        let cut = shortened(&"ä".repeat(LONGEST_TEXT));
        assert!(cut.len() <= LONGEST_TEXT + 4 && cut.ends_with("ä…"));
    }
}
