//! The only door to DuckDB.

pub mod chunk;
#[cfg(test)]
pub(crate) mod testing;
pub mod types;
pub mod value;

pub use chunk::{Chunk, HugeInt, Interval, ListEntry, Strings, UHugeInt, Validity, Vector};
pub use types::LogicalType;
pub use value::Value;
