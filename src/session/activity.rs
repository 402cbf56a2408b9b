//! What a session does, for others to know: the query log, the counters of
//! pg_stat_database, and what pg_stat_activity shows of the moment.

use std::fmt;
use std::sync::MutexGuard;
use std::time::{Duration, Instant, SystemTime};

use super::Session;
use super::error::{Failure, Gone};
use super::reply::Status;
use super::transaction::State;

/// So much of a statement is shown, as by PostgreSQL's default for
/// `track_activity_query_size`.
const SHOWN: usize = 1023;

/// Told of what a session has done, on the session's own thread: it must not
/// block.
pub trait Observer: fmt::Debug + Send + Sync {
    /// A statement has ended, or a part of it that was executed by itself.
    fn statement_ended(&self, statement: &Ended<'_>);

    /// A transaction has ended, be it one of a single statement.
    fn transaction_ended(&self, committed: bool);
}

/// A statement that is over.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Its text. It may hold what nobody else is to read.
    pub text: &'a str,
    /// From its message to its answer.
    pub duration: Duration,
    /// The rows that it has sent or changed.
    pub rows: u64,
    /// How it failed, if it did.
    pub sqlstate: Option<&'static str>,
}

/// What a session is doing. Source: PostgreSQL manual, section 28.2.3
/// "pg_stat_activity".
#[derive(Debug, Clone)]
pub struct Activity {
    /// "active", "idle", "idle in transaction", "idle in transaction (aborted)".
    pub state: &'static str,
    /// When the state began.
    pub state_change: SystemTime,
    /// The running statement, or else the last one, cut to 1023 bytes.
    pub query: String,
    /// When that statement began.
    pub query_start: Option<SystemTime>,
    /// When the transaction began that is open now.
    pub transaction_start: Option<SystemTime>,
    /// What the client calls itself.
    pub application_name: String,
}

impl Default for Activity {
    fn default() -> Activity {
        Activity {
            state: "idle",
            state_change: SystemTime::now(),
            query: String::new(),
            query_start: None,
            transaction_start: None,
            application_name: String::new(),
        }
    }
}

impl Activity {
    fn begin(&mut self, text: &str, in_transaction: bool) {
        let now = SystemTime::now();
        self.query.clear();
        self.query.push_str(beginning(text, SHOWN));
        self.query_start = Some(now);
        if !in_transaction || self.transaction_start.is_none() {
            self.transaction_start = Some(now);
        }
        if self.state != "active" {
            self.state = "active";
            self.state_change = now;
        }
    }

    fn ready(&mut self, status: Status) {
        self.state = match status {
            Status::Idle => "idle",
            Status::Block => "idle in transaction",
            Status::Failed => "idle in transaction (aborted)",
        };
        self.state_change = SystemTime::now();
        if matches!(status, Status::Idle) {
            self.transaction_start = None;
        }
    }
}

/// As much of the beginning as fits into so many bytes.
fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// A statement that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    at: Instant,
    /// No transaction was open.
    alone: bool,
}

impl Session {
    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.handle.activity_mut()
    }

    /// A statement begins; [`Session::note_end`] must follow.
    pub(super) fn note_begin(&mut self, text: &str) -> Begun {
        let alone = self.transaction.state() == State::Idle;
        self.activity().begin(text, !alone);
        self.transaction_told = false;
        Begun {
            at: Instant::now(),
            alone,
        }
    }

    /// The statement has ended, with so many rows.
    pub(super) fn note_end(&mut self, text: &str, begun: Begun, result: Result<u64, &Failure>) {
        let (rows, sqlstate) = match result {
            Ok(rows) => (rows, None),
            Err(failure) => (0, Some(sqlstate(failure))),
        };
        if begun.alone && self.transaction.state() == State::Idle && !self.transaction_told {
            self.observer.transaction_ended(sqlstate.is_none());
        }
        let duration = begun.at.elapsed();
        self.policy.counters.ran(duration);
        self.observer.statement_ended(&Ended {
            text,
            duration,
            rows,
            sqlstate,
        });
    }

    /// A step that only counts as a statement if it fails.
    pub(super) fn note_failure<T>(&mut self, text: &str, since: Instant, result: &Result<T, Failure>) {
        if let Err(failure) = result {
            self.observer.statement_ended(&Ended {
                text,
                duration: since.elapsed(),
                rows: 0,
                sqlstate: Some(sqlstate(failure)),
            });
        }
    }

    /// A transaction of several statements has ended.
    pub(super) fn note_transaction(&mut self, committed: bool) {
        self.transaction_told = true;
        self.observer.transaction_ended(committed);
    }

    /// The session waits for its client.
    pub(super) fn note_ready(&mut self) {
        let status = self.transaction.status();
        self.activity().ready(status);
    }

    /// The client has said what it is.
    pub(super) fn note_application_name(&mut self, name: &str) {
        name.clone_into(&mut self.activity().application_name);
    }
}

fn sqlstate(failure: &Failure) -> &'static str {
    match failure {
        Failure::Report(error) | Failure::Gone(Gone::Ended(error)) => error.sqlstate,
        // connection_failure
        Failure::Gone(_) => "08006",
    }
}

/// The number of rows that a command tag ends with.
pub(super) fn rows_of(tag: &str) -> u64 {
    tag.rsplit(' ')
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_statement_is_cut_between_two_characters() {
        let mut activity = Activity::default();
        activity.begin(&"ä".repeat(1000), false);
        assert_eq!(activity.query, "ä".repeat(511));
        activity.begin("", false);
        assert_eq!(activity.query, "");
    }

    #[test]
    fn a_transaction_begins_with_its_first_statement_and_ends_with_its_last() {
        let mut activity = Activity::default();
        activity.begin("begin", false);
        let start = activity.transaction_start;
        activity.ready(Status::Block);
        assert_eq!(activity.state, "idle in transaction");
        activity.begin("select 1", true);
        assert_eq!((activity.transaction_start, activity.state), (start, "active"));
        activity.ready(Status::Failed);
        activity.begin("rollback", true);
        activity.ready(Status::Idle);
        assert_eq!((activity.transaction_start, activity.state), (None, "idle"));
    }

    #[test]
    fn a_tag_tells_the_rows() {
        assert_eq!(
            ["SELECT 3", "INSERT 0 12", "CREATE TABLE"].map(rows_of),
            [3, 12, 0]
        );
    }
}
