//! What SQL gives back: types and their values, as PostgreSQL writes them.

mod duckdb_types;
mod plans;
mod types;
mod values;
