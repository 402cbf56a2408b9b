//! What SQL can find out about sessions: pg_stat_activity, pg_stat_database,
//! pg_cancel_backend and pg_terminate_backend.
//!
//! A user sees and stops sessions of the same user, an administrator all of
//! them. Those of other workers are asked for when somebody looks (`questions`);
//! a worker that does not answer is left out. The columns are those of
//! PostgreSQL 15, so that tools find what they ask for; what does not exist
//! here is NULL. Source: PostgreSQL manual, sections 28.2.3, 28.2.17 and 9.27.2.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use super::query_log::{QueryLog, Who};
use super::questions::Questions;
use super::registry::{Denied, Registry, Seen};
use super::{stop_statement, terminate};
use crate::engine::{Cell, CellType, Host, Signal, View};
use crate::process::unix_micros;
use crate::proto::inquiry::Matter;
use crate::proto::{Asker, DatabaseActivity, Findings, SessionActivity, SignalRequest, Signalled};
use crate::session::{Ended, Observer, Stop};

use CellType::{BigInt, Integer, Text, Time};

/// How long the other workers may take to answer a statement.
const OTHERS_WITHIN: Duration = Duration::from_secs(1);

static VIEWS: [View; 3] = [
    View {
        name: "pg_stat_activity",
        columns: &[
            ("datid", Integer),
            ("datname", Text),
            ("pid", Integer),
            ("leader_pid", Integer),
            ("usesysid", Integer),
            ("usename", Text),
            ("application_name", Text),
            ("client_addr", Text),
            ("client_hostname", Text),
            ("client_port", Integer),
            ("backend_start", Time),
            ("xact_start", Time),
            ("query_start", Time),
            ("state_change", Time),
            ("wait_event_type", Text),
            ("wait_event", Text),
            ("state", Text),
            ("backend_xid", Text),
            ("backend_xmin", Text),
            ("query_id", BigInt),
            ("query", Text),
            ("backend_type", Text),
        ],
    },
    View {
        name: "pg_stat_database",
        columns: &[
            ("datid", Integer),
            ("datname", Text),
            ("numbackends", Integer),
            ("xact_commit", BigInt),
            ("xact_rollback", BigInt),
            ("blks_read", BigInt),
            ("blks_hit", BigInt),
            ("tup_returned", BigInt),
            ("tup_fetched", BigInt),
            ("tup_inserted", BigInt),
            ("tup_updated", BigInt),
            ("tup_deleted", BigInt),
            ("conflicts", BigInt),
            ("temp_files", BigInt),
            ("temp_bytes", BigInt),
            ("deadlocks", BigInt),
            ("stats_reset", Time),
        ],
    },
    // What `sql::catalog` must know of who asks.
    View {
        name: "duckgres_session",
        columns: &[("user", Text), ("admin", Integer)],
    },
];

/// The transactions of each database since the worker was started.
#[derive(Debug, Default)]
pub(super) struct Transactions(Mutex<HashMap<String, Arc<Counters>>>);

#[derive(Debug, Default)]
struct Counters {
    committed: AtomicU64,
    rolled_back: AtomicU64,
}

impl Transactions {
    /// How many of a database were committed and rolled back.
    fn ended(&self, database: &str) -> (u64, u64) {
        let databases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        databases.get(database).map_or((0, 0), |counters| {
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (count(&counters.committed), count(&counters.rolled_back))
        })
    }

    /// There is no such database any more.
    pub(super) fn forget(&self, database: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(database);
    }

    fn of(&self, database: &str) -> Arc<Counters> {
        let mut databases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match databases.get(database) {
            Some(counters) => counters.clone(),
            None => databases.entry(database.to_owned()).or_default().clone(),
        }
    }
}

/// Sees what one session does.
#[derive(Debug)]
pub(super) struct Witness {
    who: Arc<Who>,
    log: Option<Arc<QueryLog>>,
    counters: Arc<Counters>,
}

impl Witness {
    pub(super) fn new(who: Who, log: Option<Arc<QueryLog>>, transactions: &Transactions) -> Witness {
        Witness {
            counters: transactions.of(&who.database),
            who: Arc::new(who),
            log,
        }
    }
}

impl Observer for Witness {
    fn statement_ended(&self, statement: &Ended<'_>) {
        if let Some(log) = &self.log {
            log.log(&self.who, statement);
        }
    }

    fn transaction_ended(&self, committed: bool) {
        let counter = match committed {
            true => &self.counters.committed,
            false => &self.counters.rolled_back,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Answers SQL's questions, and those of other workers about this one.
#[derive(Debug)]
pub(super) struct Answers {
    registry: Arc<Registry>,
    transactions: Arc<Transactions>,
    questions: Arc<Questions>,
    runtime: tokio::runtime::Handle,
}

impl Answers {
    /// To be made inside the runtime.
    pub(super) fn new(
        registry: Arc<Registry>,
        transactions: Arc<Transactions>,
        questions: Arc<Questions>,
    ) -> Answers {
        Answers {
            registry,
            transactions,
            questions,
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// The sessions of this worker that `asker` may see.
    pub(super) fn sessions(&self, asker: &Asker) -> Vec<SessionActivity> {
        self.registry.seen_by(asker).into_iter().map(told).collect()
    }

    /// What this worker knows of the databases that `asker` may see.
    pub(super) fn databases(&self, asker: &Asker) -> Vec<DatabaseActivity> {
        let databases = self.registry.databases_seen_by(asker);
        let told = |(name, sessions): (String, u32)| {
            let (committed, rolled_back) = self.transactions.ended(&name);
            DatabaseActivity {
                name,
                sessions,
                committed,
                rolled_back,
            }
        };
        databases.into_iter().map(told).collect()
    }

    /// Stops the session `target` for `asker` if it is one of this worker.
    pub(super) fn stop(&self, signal: Signal, target: i32, asker: &Asker) -> Signalled {
        let handle = match self.registry.reachable(target, asker) {
            Ok(Some(handle)) => handle,
            Ok(None) => return Signalled::NoSuchSession,
            Err(Denied) => return Signalled::Denied,
        };
        let _runtime = self.runtime.enter();
        match signal {
            Signal::Cancel => drop(tokio::spawn(async move {
                stop_statement(&handle, Stop::Cancel).await
            })),
            Signal::Terminate => terminate(&self.registry, handle),
        }
        Signalled::Done
    }

    /// Blocks: called on threads of sessions and of the engine.
    fn ask(&self, matter: Matter) -> Vec<Findings> {
        self.runtime.block_on(self.questions.ask(matter, OTHERS_WITHIN))
    }
}

impl Host for Answers {
    fn views(&self) -> &'static [View] {
        &VIEWS
    }

    fn rows(&self, view: &'static View, asking: i32) -> Vec<Vec<Cell>> {
        let Some(asker) = self.registry.asker(asking) else {
            return Vec::new();
        };
        match view.name {
            "duckgres_session" => {
                let admin = Cell::Number(asker.admin.into());
                vec![vec![Cell::Text(asker.user), admin]]
            }
            "pg_stat_activity" => {
                let mut sessions = self.sessions(&asker);
                for findings in self.ask(Matter::Sessions(asker)) {
                    sessions.extend(findings.sessions);
                }
                sessions.into_iter().map(session_row).collect()
            }
            _ => {
                let mut databases = BTreeMap::<String, DatabaseActivity>::new();
                let here = self.databases(&asker);
                let there = self.ask(Matter::Databases(asker));
                for found in there.into_iter().flat_map(|there| there.databases).chain(here) {
                    let sum = databases.entry(found.name.clone()).or_default();
                    sum.sessions += found.sessions;
                    sum.committed += found.committed;
                    sum.rolled_back += found.rolled_back;
                    sum.name = found.name;
                }
                databases.into_values().map(database_row).collect()
            }
        }
    }

    fn signal(&self, signal: Signal, target: i32, asking: i32) -> Result<bool, String> {
        let Some(asker) = self.registry.asker(asking) else {
            return Ok(false);
        };
        let mut done = self.stop(signal, target, &asker);
        if done == Signalled::NoSuchSession {
            let request = SignalRequest {
                asker: Some(asker),
                backend_id: target,
                terminate: signal == Signal::Terminate,
            };
            let there = self.ask(Matter::Signal(request));
            done = there.first().map_or(done, Findings::signalled);
        }
        match done {
            Signalled::Done => Ok(true),
            Signalled::NoSuchSession => Ok(false),
            Signalled::Denied => Err("permission denied to stop a session of another user".to_owned()),
        }
    }
}

fn told(seen: Seen) -> SessionActivity {
    let Seen {
        about,
        since,
        activity,
    } = seen;
    SessionActivity {
        session: Some(about),
        since: unix_micros(since),
        state: activity.state.to_owned(),
        state_change: unix_micros(activity.state_change),
        query: activity.query,
        query_start: activity.query_start.map(unix_micros),
        transaction_start: activity.transaction_start.map(unix_micros),
        application_name: activity.application_name,
    }
}

fn session_row(activity: SessionActivity) -> Vec<Cell> {
    let about = activity.session.unwrap_or_default();
    let time = |micros: u64| Cell::Time(UNIX_EPOCH + Duration::from_micros(micros));
    let some_time = |micros: Option<u64>| micros.map_or(Cell::Null, time);
    // On a Unix socket there is neither address nor port; PostgreSQL says so.
    let address = about.address.parse::<std::net::SocketAddr>().ok();
    vec![
        Cell::Null,
        Cell::Text(about.database),
        Cell::Number(about.backend_id.into()),
        Cell::Null,
        Cell::Null,
        Cell::Text(about.user),
        Cell::Text(activity.application_name),
        address.map_or(Cell::Null, |address| Cell::Text(address.ip().to_string())),
        Cell::Null,
        Cell::Number(address.map_or(-1, |address| address.port().into())),
        time(activity.since),
        some_time(activity.transaction_start),
        some_time(activity.query_start),
        time(activity.state_change),
        Cell::Null,
        Cell::Null,
        Cell::Text(activity.state),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Text(activity.query),
        Cell::Text("client backend".to_owned()),
    ]
}

fn database_row(database: DatabaseActivity) -> Vec<Cell> {
    let mut row = vec![
        Cell::Null,
        Cell::Text(database.name),
        Cell::Number(database.sessions.into()),
        Cell::Number(database.committed.cast_signed()),
        Cell::Number(database.rolled_back.cast_signed()),
    ];
    row.resize(VIEWS[1].columns.len(), Cell::Null);
    row
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::proto::LiveSession;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let seen = |address: &str| Seen {
            about: LiveSession {
                address: address.into(),
                ..LiveSession::default()
            },
            since: SystemTime::now(),
            activity: crate::session::Activity::default(),
        };
        let row = session_row(told(seen("[2001:db8::1]:5")));
        assert_eq!(row.len(), VIEWS[0].columns.len());
        let cell = |row: &[Cell], name| {
            let at = VIEWS[0].columns.iter().position(|(column, _)| *column == name);
            row[at.unwrap()].clone()
        };
        assert_eq!(cell(&row, "client_addr"), Cell::Text("2001:db8::1".into()));
        assert_eq!(cell(&row, "client_port"), Cell::Number(5));
        assert_eq!(cell(&row, "state"), Cell::Text("idle".into()));
        let row = session_row(told(seen("local")));
        assert_eq!(
            (cell(&row, "client_addr"), cell(&row, "client_port")),
            (Cell::Null, Cell::Number(-1))
        );
    }
}
