//! Rows on their way into a table, in bulk.
//!
//! The appender runs a query over batches of text columns (`INSERT INTO t SELECT
//! CAST(…) FROM rows`), so that casts, defaults, constraints and errors are those
//! of SQL. It needs a transaction around it: what was flushed stays.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Arc;

use duckdb::ffi;

use super::connection::{Connection, Shared};
use super::instance::c_string;
use super::{Error, error};

/// Appends rows of nullable text to a query's input.
#[derive(Debug)]
pub struct Appender {
    raw: ffi::duckdb_appender,
    chunk: ffi::duckdb_data_chunk,
    columns: usize,
    filled: u64,
    capacity: u64,
    _connection: Arc<Shared>,
}

// SAFETY: used by one thread at a time (the type is not Sync).
unsafe impl Send for Appender {}

/// The name of the input in an appender's query.
pub const INPUT: &str = "appended_data";

impl Appender {
    /// `query` reads from [`INPUT`], whose columns are `col1`, `col2`, … of type
    /// VARCHAR.
    pub fn new(connection: &Connection, query: &str, columns: usize) -> Result<Appender, Error> {
        let query = c_string(query)?;
        let names: Vec<CString> = (1..=columns)
            .map(|n| c_string(&format!("col{n}")))
            .collect::<Result<_, _>>()?;
        let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let kept_names = &mut names;
        // SAFETY: the constant is a type without parameters; destroyed below.
        let mut varchar = unsafe { ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR) };
        let mut types = vec![varchar; columns];
        let mut raw = ptr::null_mut();
        // SAFETY: all arrays have `columns` entries and live through the call;
        // raw is an out parameter, to be destroyed even on failure.
        let state = unsafe {
            ffi::duckdb_appender_create_query(
                connection.shared.raw,
                query.as_ptr(),
                columns as ffi::idx_t,
                types.as_mut_ptr(),
                c"appended_data".as_ptr(),
                kept_names.as_mut_ptr(),
                &mut raw,
            )
        };
        // SAFETY: as many types as columns, alive; the chunk is ours.
        let chunk = unsafe { ffi::duckdb_create_data_chunk(types.as_mut_ptr(), columns as ffi::idx_t) };
        // SAFETY: created above, destroyed once.
        unsafe { ffi::duckdb_destroy_logical_type(&mut varchar) };
        // SAFETY: takes nothing.
        let capacity = unsafe { ffi::duckdb_vector_size() };
        let appender = Appender {
            raw,
            chunk,
            columns,
            filled: 0,
            capacity,
            _connection: connection.shared.clone(),
        };
        match state {
            ffi::DuckDBSuccess => Ok(appender),
            _ => Err(appender.error()),
        }
    }

    /// Appends one row; `None` is NULL. The number of fields must be that of the
    /// columns.
    pub fn append<'a>(
        &mut self,
        fields: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
    ) -> Result<(), Error> {
        debug_assert_eq!(fields.len(), self.columns);
        for (column, field) in fields.take(self.columns).enumerate() {
            // SAFETY: the column is below the chunk's column count.
            let vector = unsafe { ffi::duckdb_data_chunk_get_vector(self.chunk, column as ffi::idx_t) };
            match field {
                Some(text) => {
                    // SAFETY: `filled` is below the vector's capacity; DuckDB copies the text.
                    unsafe {
                        ffi::duckdb_vector_assign_string_element_len(
                            vector,
                            self.filled,
                            text.as_ptr().cast(),
                            text.len() as ffi::idx_t,
                        );
                    }
                }
                // SAFETY: as above; the mask is made writable before it is written.
                None => unsafe {
                    ffi::duckdb_vector_ensure_validity_writable(vector);
                    ffi::duckdb_validity_set_row_invalid(
                        ffi::duckdb_vector_get_validity(vector),
                        self.filled,
                    );
                },
            }
        }
        self.filled += 1;
        if self.filled == self.capacity {
            self.append_chunk()
        } else {
            Ok(())
        }
    }

    fn append_chunk(&mut self) -> Result<(), Error> {
        // SAFETY: both are alive; the size is at most the capacity.
        let state = unsafe {
            ffi::duckdb_data_chunk_set_size(self.chunk, self.filled);
            ffi::duckdb_append_data_chunk(self.raw, self.chunk)
        };
        // SAFETY: the chunk is alive.
        unsafe { ffi::duckdb_data_chunk_reset(self.chunk) };
        self.filled = 0;
        match state {
            ffi::DuckDBSuccess => Ok(()),
            _ => Err(self.error()),
        }
    }

    /// Sends all that was appended through the query. After an error only
    /// dropping the appender is left.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.filled > 0 {
            self.append_chunk()?;
        }
        // SAFETY: the appender is alive.
        match unsafe { ffi::duckdb_appender_flush(self.raw) } {
            ffi::DuckDBSuccess => Ok(()),
            _ => Err(self.error()),
        }
    }

    fn error(&self) -> error::Error {
        // SAFETY: the appender is alive; the error data is ours to destroy, its
        // message lives as long.
        unsafe {
            let mut data = ffi::duckdb_appender_error_data(self.raw);
            let error = Error::from_raw(ffi::duckdb_error_data_message(data));
            ffi::duckdb_destroy_error_data(&mut data);
            error
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        // SAFETY: both were created in `new` and are destroyed only here. Rows
        // that `flush` has not sent are dropped, or else destroying the
        // appender would send them.
        unsafe {
            ffi::duckdb_appender_clear(self.raw);
            ffi::duckdb_appender_destroy(&mut self.raw);
            ffi::duckdb_destroy_data_chunk(&mut self.chunk);
        }
    }
}
