//! What duckgres promises, by promise. One binary, so that one server serves
//! them all and a change costs one link.
//!
//! ```text
//! first_use   the README's promise: one command, one pasted line, real data
//! support/    servers to test against, a protocol client that speaks raw bytes
//! wire/       the PostgreSQL protocol, message by message, and what it refuses
//! sql/        types and values, compared with PostgreSQL's
//! clients/    psql, psycopg and tokio-postgres at their daily work
//! memory      what results and idle readers cost
//! across      what users see and stop in other workers
//! backups     a copy of a database while it is in use
//! databases   made and removed by SQL
//! doors       who is let in: limits, proxies, logins, grants
//! handbook    man pages, completions, rules and dashboards, made and checked
//! races       what raced or crashed in earlier designs, each by name
//! reload      another process takes the place of the control plane
//! resources   memory and disk, shared by the databases
//! operation   starting, stopping, limits, files, processes that die
//! safety      what SQL may not do
//! seen        metrics, and `duckgres status`
//! spares      what an ended session leaves for the next one
//! thaw        a session that goes on where another has stopped
//! told        logs, and what users see and stop of each other
//! workers     several workers: who serves what, and what survives whose death
//! ```
//!
//! The tests were written against PostgreSQL 15, and it is still asked:
//! `DUCKGRES_TEST_AGAINST=postgres cargo test --test tests` starts a private
//! cluster (of what is in /usr/lib/postgresql, or in the directory that
//! `DUCKGRES_TEST_POSTGRES_BIN` names) and expects the very same answers of it.
//! Where the two differ for a reason, the test says which and why.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with a line number, which is what it should do"
)]

mod across;
mod backups;
mod clients;
mod databases;
mod doors;
mod first_use;
mod handbook;
mod memory;
mod operation;
mod races;
mod reload;
mod resources;
mod restarts;
mod safety;
mod seen;
mod spares;
mod sql;
mod support;
mod thaw;
mod told;
mod wire;
mod workers;
