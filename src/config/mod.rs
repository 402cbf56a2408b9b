//! The configuration: `duckgres.yaml`, `DUCKGRES_*` variables and flags.
//!
//! Flags win over the environment, the environment over systemd's credentials,
//! those over the file, the file over defaults; names are those of the Go duckgres where it has the setting. Each
//! setting is defined once, in [`SETTINGS`]. Loading reports every problem it
//! finds, with its place, and never only the first; unknown keys are problems.
//! Secrets have types that cannot be printed.

pub mod cli;
mod load;
pub mod names;
mod network;
mod node;
mod peer_map;
mod query_log;
mod secret;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod units;
mod users;
mod value;
mod worker;

pub use load::{Config, Flags, Problems, is_loopback};
pub use network::{Ipv6Prefix, MetricsAddress, Network};
pub use node::{Origin, Problem};
pub use peer_map::PeerMap;
pub use query_log::{QueryLog, Statements, Threshold};
pub(crate) use secret::hmac;
pub use secret::{Password, SCRAM_ITERATIONS, Verifier};
pub use settings::{SETTINGS, Setting, Settings, reference, setting};
pub use units::{Mode, Size, TlsMode, TlsVersion};
pub use users::{Credential, Databases, User, Users};
pub use worker::WorkerConfig;
