//! Chunks to PostgreSQL's wire forms, and what clients send to DuckDB values.
//!
//! [`RowEncoder`] turns a chunk into framed `DataRow` messages, text or binary
//! per column; [`decode_parameter`] turns a parameter of `Bind` into a value;
//! [`copy`] does both for COPY. The forms are PostgreSQL's, to the byte, also
//! where DuckDB prints something else: a driver must not notice what runs
//! below. A type that PostgreSQL has nothing for is sent as JSON when it is
//! made of parts, and is otherwise an error that names it.
//!
//! Nothing here allocates per value, and nothing is sized by a number that a
//! client sent before that number was checked against the bytes at hand.

mod array;
mod bignum;
mod binary;
mod block;
mod column;
pub mod copy;
mod error;
mod json;
mod number;
mod parameter;
mod pg_type;
mod row;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod writer;

pub use error::EncodeError;
pub use parameter::decode_parameter;
pub use pg_type::{PgType, oid, pg_type, sql_name, type_for_oid};
pub use row::{Format, RowEncoder};
pub use settings::Settings;
