//! `duckgres reload`: another process takes the control plane's place.

mod carried;
mod failures;
mod handover;

use crate::support::Server;

/// The same everywhere: this is about duckgres alone.
fn against_postgres() -> bool {
    let postgres = Server::shared().is_postgres();
    if postgres {
        println!("skipped: PostgreSQL reloads otherwise");
    }
    postgres
}
