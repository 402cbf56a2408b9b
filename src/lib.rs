//! DuckDB as a PostgreSQL server that systemd owns and that nothing interrupts.
//!
//! Follow a connection and you have the map of this crate. Each module knows
//! only those below it:
//!
//! - [`config`]: every setting, its default, its unit, its documentation
//! - [`control`]: the control plane: accept, negotiate, authenticate, place
//! - [`handoff`]: a session as a value, and how it moves to another process
//! - [`tls`]: a TLS session that can be moved: state, record layer, handshake
//! - [`worker`]: takes sessions over, runs them on threads, parks idle ones
//! - [`session`]: the message loop of one session
//! - [`sql`]: what the server must know of a statement before DuckDB sees it
//! - [`encode`]: chunks to DataRow bytes, parameters and COPY data to values
//! - [`engine`]: the only door to DuckDB
//! - [`systemd`]: what systemd and a service tell each other
//!
//! Beside them: [`process`] and [`log`], what both binaries do first; [`histogram`], what
//! both count durations with; [`proto`], the contract between them.

pub mod config;
pub mod control;
pub mod encode;
pub mod engine;
pub mod handoff;
pub mod histogram;
pub mod log;
pub mod process;
pub mod session;
pub mod sql;
pub mod systemd;
pub mod tls;
pub mod worker;

/// The contract between the two processes, generated from `proto/`.
#[allow(missing_docs, clippy::all, reason = "generated code")]
pub mod proto {
    tonic::include_proto!("duckgres.v1");
}
