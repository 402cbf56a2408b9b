//! The control plane: the front door, and the supervisor of the workers.
//!
//! It accepts connections, negotiates TLS and the protocol's version,
//! authenticates, decides which worker serves the database, hands the session
//! over and forgets it. It never sees a query or a row, has no DuckDB in it, and
//! alone reads the TLS key and the verifiers.
//!
//! A connection's way: [`accept`] → [`proxy`] → [`limits`] → [`negotiate`] → [`auth`] →
//! [`authorize`] → [`handover`]. Until it is authenticated a client can make the server keep at
//! most 10,000 bytes of a message or two TLS records, for at most the
//! authentication timeout.

pub mod accept;
pub mod admission;
pub mod auth;
pub mod authorize;
pub mod backend_id;
pub mod cancel;
pub mod certificate;
mod collect;
pub mod connection;
pub mod data_dir;
pub mod doors;
pub mod duty;
mod error;
pub mod fatal;
pub mod handover;
mod hash_password;
mod keep;
pub mod ledger;
pub mod limits;
pub mod listen;
pub mod logins;
pub mod metrics;
pub mod negotiate;
pub mod observe;
pub mod options;
mod passfile;
pub mod peer;
pub mod placement;
pub mod pool;
pub mod process;
pub mod proxy;
mod psql;
mod questions;
pub mod reload;
pub mod restart;
pub mod scram;
pub mod scrape;
pub mod serve;
pub mod service;
pub mod socket;
pub mod sockets;
pub mod standalone;
pub mod startup;
pub mod status;
pub mod store;
pub mod supervise;
#[cfg(test)]
mod tests;
pub mod units;
pub mod wire;
pub mod workers;

mod server;

pub use error::StartError;
pub use hash_password::hash_password;
pub use psql::{PsqlError, become_psql};
pub use reload::Predecessor;
pub use server::{Ended, check, run};
