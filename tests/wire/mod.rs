//! The PostgreSQL protocol, message by message.
//!
//! Each test sends raw bytes and compares what comes back as a transcript, one
//! line per message. The statements are such that PostgreSQL and DuckDB give
//! the same answer to them.

mod cancel;
mod concurrency;
mod copy_in;
mod copy_out;
mod cursors;
mod databases;
mod dead_peer;
mod disconnect;
mod encryption;
mod extended;
mod frames;
mod limits;
mod login;
mod parameters;
mod portals;
mod settings;
mod simple;
mod timeouts;
mod transactions;

pub use disconnect::ENDLESS;

/// Type oids used in Parse messages.
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
