//! One session's way into an instance.

use std::cell::Cell;
use std::ptr;
use std::sync::{Arc, Weak};

use duckdb::ffi;

use super::host::connection_id;
use super::instance::c_string;
use super::statement::Prepared;
use super::{Error, Instance};

/// A connection. It runs one statement at a time; starting another closes the
/// result that was being read.
#[derive(Debug)]
pub struct Connection {
    pub(super) shared: Arc<Shared>,
    // One thread at a time: Send, but not Sync.
    metrics: Cell<Metrics>,
    has_run_helpers: Cell<bool>,
}

/// How much DuckDB measures of each operator of a connection's statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// All that it knows of, as it does by itself. To prepare for that takes a
    /// third of the time of a small statement.
    All,
    /// Nothing that only EXPLAIN ANALYZE shows.
    Least,
}

/// The connection object and the instance that it needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) raw: ffi::duckdb_connection,
    /// Names it within its instance.
    id: u64,
    pub(super) instance: Arc<Instance>,
}

// SAFETY: a DuckDB connection may be used from any thread, one at a time; it is
// used through `Connection` and what borrows from it, which are not Sync, and by
// `Interrupt`, whose one function DuckDB allows at any time from any thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        self.instance.introductions().remove(self.id);
        // SAFETY: connected in `open`, disconnected only here.
        unsafe { ffi::duckdb_disconnect(&mut self.raw) };
    }
}

/// Stops the statement that a connection is running, from another thread.
#[derive(Debug, Clone)]
pub struct Interrupt {
    // It keeps no database open.
    shared: Weak<Shared>,
}

impl Interrupt {
    /// Asks the running statement to stop. Does nothing to an idle connection, or
    /// one that is gone, and nothing to a statement that begins afterwards.
    pub fn interrupt(&self) {
        if let Some(shared) = self.shared.upgrade() {
            // SAFETY: the connection is alive as long as `shared`.
            unsafe { ffi::duckdb_interrupt(shared.raw) };
        }
    }
}

impl Connection {
    pub(super) fn open(instance: Arc<Instance>, database: ffi::duckdb_database) -> Result<Connection, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the database is open as long as `instance`; raw is an out parameter.
        match unsafe { ffi::duckdb_connect(database, &mut raw) } {
            ffi::DuckDBSuccess => {
                let mut context = ptr::null_mut();
                // SAFETY: the connection is alive; context is an out parameter, and ours.
                let id = unsafe {
                    ffi::duckdb_connection_get_client_context(raw, &mut context);
                    connection_id(context)
                };
                Ok(Connection {
                    shared: Arc::new(Shared { raw, id, instance }),
                    metrics: Cell::new(Metrics::All),
                    has_run_helpers: Cell::new(false),
                })
            }
            _ => Err(Error::new("Connection", "DuckDB refused a connection")),
        }
    }

    /// Tells the instance's [`Host`](super::Host) by which number it knows this
    /// connection.
    pub fn introduce(&self, number: i32) {
        self.instance().introductions().insert(self.shared.id, number);
    }

    /// The instance that it belongs to.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.shared.instance
    }

    /// The handle for stopping this connection's statements.
    pub fn interrupt_handle(&self) -> Interrupt {
        Interrupt {
            shared: Arc::downgrade(&self.shared),
        }
    }

    /// Parses a statement and does nothing else with it.
    pub fn parse(&self, sql: &str) -> Result<(), Error> {
        self.extract(sql).map(drop)
    }

    fn extract(&self, sql: &str) -> Result<(Extracted, ffi::idx_t), Error> {
        let sql = c_string(sql)?;
        let mut extracted = ptr::null_mut();
        // SAFETY: connection and string are alive; extracted is an out parameter.
        let count = unsafe { ffi::duckdb_extract_statements(self.shared.raw, sql.as_ptr(), &mut extracted) };
        let extracted = Extracted(extracted);
        if count == 0 {
            // SAFETY: the object was made by the call above and is alive.
            return Err(unsafe { Error::from_raw(ffi::duckdb_extract_statements_error(extracted.0)) });
        }
        Ok((extracted, count))
    }

    /// Parses, binds and plans one statement. Nothing runs yet, but for the
    /// helper statements that DuckDB itself makes out of a PIVOT.
    pub fn prepare(&self, sql: &str) -> Result<Prepared, Error> {
        let (extracted, count) = self.extract(sql)?;
        for index in 0..count - 1 {
            self.has_run_helpers.set(true);
            self.prepare_extracted(&extracted, index)?.execute()?;
        }
        self.prepare_extracted(&extracted, count - 1)
    }

    /// Has DuckDB run helper statements of its own, which leave temporary types?
    pub fn has_run_helpers(&self) -> bool {
        self.has_run_helpers.get()
    }

    /// To be called outside of a transaction, after one that changed something;
    /// `made_schema` says that it made a schema.
    ///
    /// DuckDB 1.5.5 does not open a file again whose WAL makes a schema, a type in it
    /// and a table with that type: it looks the type up before there is the schema. So
    /// a new schema is to be in the file, and not in the WAL, before there can be such a
    /// table. A checkpoint that others are in the way of is tried again after the next
    /// transaction.
    pub fn settle(&self, made_schema: bool) {
        let instance = self.instance();
        if made_schema {
            instance.unsettle();
        }
        if instance.is_unsettled() && self.run("CHECKPOINT").is_err() {
            instance.unsettle();
        }
    }

    fn prepare_extracted(&self, extracted: &Extracted, index: ffi::idx_t) -> Result<Prepared, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: connection and extracted statements are alive, the index is
        // below their count; raw is an out parameter, to be destroyed even on failure.
        let state =
            unsafe { ffi::duckdb_prepare_extracted_statement(self.shared.raw, extracted.0, index, &mut raw) };
        Prepared::from_raw(raw, state, self.shared.clone())
    }

    /// Changes what is measured from now on. Not to be called while a result is
    /// being read.
    pub fn measure(&self, metrics: Metrics) -> Result<(), Error> {
        if self.metrics.replace(metrics) != metrics {
            self.run(match metrics {
                Metrics::All => "RESET custom_profiling_settings",
                Metrics::Least => "SET custom_profiling_settings='{}'",
            })?;
            // Either statement also makes DuckDB print what it measures.
            self.run("PRAGMA disable_profiling")?;
        }
        Ok(())
    }

    /// Runs one statement and drops its result.
    pub fn run(&self, sql: &str) -> Result<(), Error> {
        self.prepare(sql)?.execute().map(drop)
    }
}

struct Extracted(ffi::duckdb_extracted_statements);

impl Drop for Extracted {
    fn drop(&mut self) {
        // SAFETY: made by duckdb_extract_statements, destroyed only here.
        unsafe { ffi::duckdb_destroy_extracted(&mut self.0) };
    }
}
