//! Prepared statements and the rows that they yield.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::Arc;

use duckdb::ffi;

use super::connection::Shared;
use super::helpers::Running;
use super::instance::take_string;
use super::{Chunk, Error, LogicalType, Value};

/// A statement that is planned and can be run any number of times.
#[derive(Debug)]
pub struct Prepared {
    raw: ffi::duckdb_prepared_statement,
    // Behind `raw`, so that the connection outlives the statement.
    connection: Arc<Shared>,
}

// SAFETY: used by one thread at a time (the type is not Sync); DuckDB ties
// statements to connections, not to threads.
unsafe impl Send for Prepared {}

/// A result column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: LogicalType,
}

/// What a statement is, as far as anyone here cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only reads, and may therefore be streamed: its end cannot fail to commit.
    Select,
    /// INSERT, UPDATE, DELETE, MERGE.
    Modify,
    /// Changes the catalog: CREATE, DROP, ALTER and their like.
    Define,
    /// EXPLAIN.
    Explain,
    /// ATTACH, DETACH, LOAD, EXPORT, COPY DATABASE: never for a client.
    Forbidden,
    /// DuckDB's own SET, PRAGMA and RESET.
    Setting,
    /// Everything else: COPY of files, CALL, CHECKPOINT, …
    Other,
}

/// How a statement ended, when it did not yield rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It yields rows.
    Rows,
    /// It changed this many rows.
    Changed(u64),
    /// It has nothing to say.
    Nothing,
}

impl Prepared {
    pub(super) fn from_raw(
        raw: ffi::duckdb_prepared_statement,
        state: ffi::duckdb_state,
        connection: Arc<Shared>,
    ) -> Result<Prepared, Error> {
        let prepared = Prepared { raw, connection };
        match state {
            ffi::DuckDBSuccess => Ok(prepared),
            // SAFETY: the statement object exists even when preparing failed.
            _ => Err(unsafe { Error::from_raw(ffi::duckdb_prepare_error(prepared.raw)) }),
        }
    }

    /// What kind of statement it is.
    pub fn kind(&self) -> Kind {
        // SAFETY: the statement is alive.
        match unsafe { ffi::duckdb_prepared_statement_type(self.raw) } {
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_SELECT => Kind::Select,
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXPLAIN => Kind::Explain,
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_INSERT
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_UPDATE
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_DELETE
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_MERGE_INTO => Kind::Modify,
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_CREATE
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_CREATE_FUNC
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_ALTER
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_DROP => Kind::Define,
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_ATTACH
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_DETACH
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_LOAD
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXPORT
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXTENSION
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_COPY_DATABASE
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_UPDATE_EXTENSIONS => Kind::Forbidden,
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_SET
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_PRAGMA => Kind::Setting,
            _ => Kind::Other,
        }
    }

    /// The number of parameters, counted by the highest `$n`.
    pub fn parameter_count(&self) -> usize {
        // SAFETY: the statement is alive.
        unsafe { ffi::duckdb_nparams(self.raw) as usize }
    }

    /// What DuckDB deduced for parameter `index`, counted from 0;
    /// [`LogicalType::Unknown`] if it could not.
    pub fn parameter_type(&self, index: usize) -> LogicalType {
        // SAFETY: the statement is alive; an index out of range yields null.
        let raw = RawType(unsafe { ffi::duckdb_param_logical_type(self.raw, index as ffi::idx_t + 1) });
        raw.read()
    }

    /// The columns it will yield, without running it.
    pub fn columns(&self) -> Vec<Column> {
        // SAFETY: the statement is alive.
        let count = unsafe { ffi::duckdb_prepared_statement_column_count(self.raw) };
        (0..count)
            .map(|index| {
                // SAFETY: the index is below the count; the name is ours to free.
                let name = unsafe {
                    take_string(ffi::duckdb_prepared_statement_column_name(self.raw, index).cast_mut())
                };
                // SAFETY: as above; the type is ours to destroy.
                let raw =
                    RawType(unsafe { ffi::duckdb_prepared_statement_column_logical_type(self.raw, index) });
                Column {
                    name,
                    data_type: raw.read(),
                }
            })
            .collect()
    }

    /// Gives parameter `index`, counted from 0, its value for the next run.
    pub fn bind(&self, index: usize, value: &Value) -> Result<(), Error> {
        // SAFETY: statement and value are alive; DuckDB copies the value.
        match unsafe { ffi::duckdb_bind_value(self.raw, index as ffi::idx_t + 1, value.as_raw()) } {
            ffi::DuckDBSuccess => Ok(()),
            // SAFETY: the statement is alive.
            _ => Err(unsafe { Error::from_raw(ffi::duckdb_prepare_error(self.raw)) }),
        }
    }

    /// Runs it to its end.
    pub fn execute(&self) -> Result<Rows, Error> {
        // SAFETY: the statement is alive, the result an out parameter that is
        // filled in even on failure.
        self.run(|result| unsafe { ffi::duckdb_execute_prepared(self.raw, result) })
    }

    /// Starts it; its rows are computed as they are read. To be used only for
    /// statements whose end cannot fail, see [`Kind::Select`].
    pub fn stream(&self) -> Result<Rows, Error> {
        // SAFETY: as in `execute`.
        self.run(|result| unsafe { ffi::duckdb_execute_prepared_streaming(self.raw, result) })
    }

    fn run(&self, start: impl FnOnce(*mut ffi::duckdb_result) -> ffi::duckdb_state) -> Result<Rows, Error> {
        let mut result = MaybeUninit::<ffi::duckdb_result>::zeroed();
        let running = self.connection.instance.begin();
        let state = start(result.as_mut_ptr());
        // SAFETY: zeroed is a valid (empty) result, and DuckDB filled it in.
        let result = unsafe { result.assume_init() };
        let mut rows = Rows {
            result,
            connection: self.connection.clone(),
            running,
            ended: false,
        };
        match state {
            ffi::DuckDBSuccess => Ok(rows),
            _ => Err(rows.error()),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: made by a prepare function, destroyed only here.
        unsafe { ffi::duckdb_destroy_prepare(&mut self.raw) };
    }
}

/// A logical type that is ours to destroy.
struct RawType(ffi::duckdb_logical_type);

impl RawType {
    fn read(&self) -> LogicalType {
        if self.0.is_null() {
            return LogicalType::Unknown;
        }
        // SAFETY: not null and alive.
        unsafe { LogicalType::from_raw(self.0) }
    }
}

impl Drop for RawType {
    fn drop(&mut self) {
        // SAFETY: given to us by DuckDB, destroyed only here; null is allowed.
        unsafe { ffi::duckdb_destroy_logical_type(&mut self.0) };
    }
}

/// The result of a run, read chunk by chunk.
#[derive(Debug)]
pub struct Rows {
    result: ffi::duckdb_result,
    // The result belongs to the connection's context.
    connection: Arc<Shared>,
    running: Option<Running>,
    ended: bool,
}

// SAFETY: as for `Prepared`.
unsafe impl Send for Rows {}

impl Rows {
    /// What the statement did.
    pub fn outcome(&mut self) -> Outcome {
        // SAFETY: the result is alive; it is passed by value as the interface
        // wants it, without giving it away.
        match unsafe { ffi::duckdb_result_return_type(self.result) } {
            ffi::duckdb_result_type_DUCKDB_RESULT_TYPE_CHANGED_ROWS => {
                // SAFETY: the result is alive.
                Outcome::Changed(unsafe { ffi::duckdb_rows_changed(&mut self.result) })
            }
            ffi::duckdb_result_type_DUCKDB_RESULT_TYPE_QUERY_RESULT => Outcome::Rows,
            _ => Outcome::Nothing,
        }
    }

    /// The columns.
    pub fn columns(&mut self) -> Vec<Column> {
        // SAFETY: the result is alive.
        let count = unsafe { ffi::duckdb_column_count(&mut self.result) };
        (0..count)
            .map(|index| {
                // SAFETY: the index is below the count; the name belongs to the result.
                let name = unsafe { ffi::duckdb_column_name(&mut self.result, index) };
                let name = if name.is_null() {
                    String::new()
                } else {
                    // SAFETY: not null, a C string that lives as long as the result.
                    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
                };
                // SAFETY: the index is below the count; the type is ours to destroy.
                let raw = RawType(unsafe { ffi::duckdb_column_logical_type(&mut self.result, index) });
                Column {
                    name,
                    data_type: raw.read(),
                }
            })
            .collect()
    }

    /// The next chunk, never an empty one; `None` at the end.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, Error> {
        if self.running.is_none() {
            self.running = self.connection.instance.begin();
        }
        while !self.ended {
            // SAFETY: the result is alive and passed by value as the interface
            // wants it; a chunk that comes back is ours.
            let raw = unsafe { ffi::duckdb_fetch_chunk(self.result) };
            if raw.is_null() {
                self.ended = true;
                // SAFETY: the result is alive.
                let message = unsafe { ffi::duckdb_result_error(&mut self.result) };
                if !message.is_null() {
                    return Err(self.error());
                }
                break;
            }
            // SAFETY: not null, and owned by nobody else.
            let chunk = unsafe { Chunk::from_raw(raw) };
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// No more chunks are wanted for the time being.
    pub fn rest(&mut self) {
        self.running = None;
    }

    fn error(&mut self) -> Error {
        // SAFETY: the result is alive, and so is its message.
        unsafe { Error::from_raw(ffi::duckdb_result_error(&mut self.result)) }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: filled in by an execute function, destroyed only here.
        unsafe { ffi::duckdb_destroy_result(&mut self.result) };
    }
}
