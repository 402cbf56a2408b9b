//! The only door to DuckDB.
//!
//! An [`Instance`] is one open database file, a [`Connection`] one session's way
//! into it, a [`Prepared`] statement runs and yields [`Rows`], which are read
//! chunk by chunk: a result is never held in memory as a whole. Each type owns
//! the DuckDB object behind it and keeps alive what that object needs, so that
//! the order in which they are dropped does not matter.
//!
//! DuckDB is C++ behind a C interface; all `unsafe` code that concerns it is in
//! this module. The safe `duckdb` crate is not used for statements: it executes
//! on prepare and loses the type of an error.

mod backup;
pub mod chunk;
mod connection;
mod copy_in;
mod error;
mod helpers;
mod host;
mod instance;
mod lease;
mod sqlstate;
mod statement;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod types;
pub mod value;

pub use backup::BackupError;
pub use chunk::{Chunk, HugeInt, Interval, ListEntry, Strings, UHugeInt, Validity, Vector};
pub use connection::{Connection, Interrupt, Metrics};
pub use copy_in::{Appender, INPUT as COPY_INPUT};
pub use error::Error;
pub use host::{Cell, CellType, Host, Signal, View};
pub use instance::{Instance, Options};
pub use lease::{Lease, LeaseError};
pub use sqlstate::sqlstate;
pub use statement::{Column, Kind, Outcome, Prepared, Rows};
pub use types::LogicalType;
pub use value::Value;

/// DuckDB's version as the library says it, for example "v1.5.5".
pub fn library_version() -> String {
    // SAFETY: the function takes nothing and returns a static C string.
    let version = unsafe { std::ffi::CStr::from_ptr(duckdb::ffi::duckdb_library_version()) };
    version.to_string_lossy().into_owned()
}
