//! What SQL can find out about the sessions of this worker: pg_stat_activity,
//! pg_stat_database, pg_cancel_backend and pg_terminate_backend.
//!
//! A user sees and stops sessions of the same user, an administrator all of
//! them. Sessions of other workers are not among them. The columns are those of
//! PostgreSQL 15, so that tools find what they ask for; what does not exist
//! here is NULL. Source: PostgreSQL manual, sections 28.2.3, 28.2.17 and 9.27.2.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::query_log::{QueryLog, Who};
use super::registry::{Registry, Seen};
use super::stop_statement;
use crate::engine::{Cell, CellType, Host, Signal, View};
use crate::session::{Ended, Handle, Observer, Stop};

use CellType::{BigInt, Integer, Text, Time};

/// How often it is looked whether a session that is to end is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

static VIEWS: [View; 2] = [
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

/// Answers SQL's questions about this worker.
#[derive(Debug)]
pub(super) struct Answers {
    registry: Arc<Registry>,
    transactions: Arc<Transactions>,
    runtime: tokio::runtime::Handle,
}

impl Answers {
    /// To be made inside the runtime.
    pub(super) fn new(registry: Arc<Registry>, transactions: Arc<Transactions>) -> Answers {
        Answers {
            registry,
            transactions,
            runtime: tokio::runtime::Handle::current(),
        }
    }

    fn database(&self, name: String, sessions: usize) -> Vec<Cell> {
        let counters = self.transactions.of(&name);
        let count = |counter: &AtomicU64| Cell::Number(counter.load(Ordering::Relaxed).cast_signed());
        let mut row = vec![
            Cell::Null,
            Cell::Text(name),
            Cell::Number(sessions as i64),
            count(&counters.committed),
            count(&counters.rolled_back),
        ];
        row.resize(VIEWS[1].columns.len(), Cell::Null);
        row
    }
}

impl Host for Answers {
    fn views(&self) -> &'static [View] {
        &VIEWS
    }

    fn rows(&self, view: &'static View, asking: i32) -> Vec<Vec<Cell>> {
        match view.name {
            "pg_stat_activity" => self.registry.seen_by(asking).into_iter().map(session).collect(),
            _ => {
                let databases = self.registry.databases_seen_by(asking);
                databases
                    .into_iter()
                    .map(|(name, sessions)| self.database(name, sessions))
                    .collect()
            }
        }
    }

    fn signal(&self, signal: Signal, target: i32, asking: i32) -> Result<bool, String> {
        let Some(handle) = self.registry.reachable(target, asking)? else {
            return Ok(false);
        };
        let registry = self.registry.clone();
        match signal {
            Signal::Cancel => {
                self.runtime
                    .spawn(async move { stop_statement(&handle, Stop::Cancel).await });
            }
            Signal::Terminate => {
                registry.end(target);
                self.runtime
                    .spawn(async move { see_out(&registry, target, &handle).await });
            }
        }
        Ok(true)
    }
}

/// Stops what a session runs until it is gone: a statement may be about to begin
/// that an end at the next message would come too late for.
async fn see_out(registry: &Registry, backend_id: i32, handle: &Arc<Handle>) {
    let is_here = || {
        let current = registry.get(backend_id);
        current.is_some_and(|current| Arc::ptr_eq(&current, handle))
    };
    while is_here() {
        stop_statement(handle, Stop::Shutdown).await;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn session(seen: Seen) -> Vec<Cell> {
    let Seen {
        about,
        since,
        activity,
    } = seen;
    let time = |time: Option<SystemTime>| time.map_or(Cell::Null, Cell::Time);
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
        Cell::Time(since),
        time(activity.transaction_start),
        time(activity.query_start),
        Cell::Time(activity.state_change),
        Cell::Null,
        Cell::Null,
        Cell::Text(activity.state.to_owned()),
        Cell::Null,
        Cell::Null,
        Cell::Null,
        Cell::Text(activity.query),
        Cell::Text("client backend".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
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
        let row = session(seen("[2001:db8::1]:5"));
        assert_eq!(row.len(), VIEWS[0].columns.len());
        let cell = |row: &[Cell], name| {
            let at = VIEWS[0].columns.iter().position(|(column, _)| *column == name);
            row[at.unwrap()].clone()
        };
        assert_eq!(cell(&row, "client_addr"), Cell::Text("2001:db8::1".into()));
        assert_eq!(cell(&row, "client_port"), Cell::Number(5));
        assert_eq!(cell(&row, "state"), Cell::Text("idle".into()));
        let row = session(seen("local"));
        assert_eq!(
            (cell(&row, "client_addr"), cell(&row, "client_port")),
            (Cell::Null, Cell::Number(-1))
        );
    }
}
