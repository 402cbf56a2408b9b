//! A DuckDB in memory for the tests of this crate's lower layers.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr;

use duckdb::ffi;

use super::{Chunk, LogicalType, Value};

/// An instance in memory with one connection.
pub(crate) struct Database {
    database: ffi::duckdb_database,
    connection: ffi::duckdb_connection,
}

impl Database {
    pub(crate) fn open() -> Self {
        let mut database = ptr::null_mut();
        let mut connection = ptr::null_mut();
        // SAFETY: out pointers to locals; a null path is an instance in memory.
        unsafe {
            assert_eq!(
                ffi::duckdb_open(ptr::null(), &mut database),
                ffi::duckdb_state_DuckDBSuccess
            );
            assert_eq!(
                ffi::duckdb_connect(database, &mut connection),
                ffi::duckdb_state_DuckDBSuccess
            );
        }
        Self { database, connection }
    }

    /// Runs one statement and gives all of its result.
    pub(crate) fn query(&self, sql: &str) -> (Vec<LogicalType>, Vec<Chunk>) {
        self.query_with(sql, &[])
    }

    /// The same with parameters.
    pub(crate) fn query_with(&self, sql: &str, parameters: &[Value]) -> (Vec<LogicalType>, Vec<Chunk>) {
        let text = CString::new(sql).unwrap();
        // SAFETY: the connection is live; results and statements are destroyed
        // once, after their last use; error texts are read before that.
        unsafe {
            let mut statement = ptr::null_mut();
            if ffi::duckdb_prepare(self.connection, text.as_ptr(), &mut statement)
                != ffi::duckdb_state_DuckDBSuccess
            {
                panic!(
                    "{sql}: {:?}",
                    CStr::from_ptr(ffi::duckdb_prepare_error(statement))
                );
            }
            for (index, value) in parameters.iter().enumerate() {
                ffi::duckdb_bind_value(statement, index as u64 + 1, value.as_raw());
            }
            let mut result = MaybeUninit::<ffi::duckdb_result>::zeroed();
            let state = ffi::duckdb_execute_prepared_streaming(statement, result.as_mut_ptr());
            let mut result = result.assume_init();
            if state != ffi::duckdb_state_DuckDBSuccess {
                panic!(
                    "{sql}: {:?}",
                    CStr::from_ptr(ffi::duckdb_result_error(&mut result))
                );
            }
            let types = (0..ffi::duckdb_column_count(&mut result))
                .map(|index| {
                    let mut raw = ffi::duckdb_column_logical_type(&mut result, index);
                    let logical = LogicalType::from_raw(raw);
                    ffi::duckdb_destroy_logical_type(&mut raw);
                    logical
                })
                .collect();
            let mut chunks = Vec::new();
            loop {
                let raw = ffi::duckdb_fetch_chunk(result);
                if raw.is_null() {
                    break;
                }
                chunks.push(Chunk::from_raw(raw));
            }
            ffi::duckdb_destroy_result(&mut result);
            ffi::duckdb_destroy_prepare(&mut statement);
            (types, chunks)
        }
    }

    /// The only chunk of a result.
    pub(crate) fn chunk(&self, sql: &str) -> Chunk {
        let (_, mut chunks) = self.query(sql);
        assert_eq!(chunks.len(), 1, "{sql}");
        chunks.remove(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: both are live and destroyed once, the connection first.
        unsafe {
            ffi::duckdb_disconnect(&mut self.connection);
            ffi::duckdb_close(&mut self.database);
        }
    }
}
