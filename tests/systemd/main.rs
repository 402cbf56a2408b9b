//! duckgres under a really booted systemd, Debian 12's and Debian 13's.
//!
//! ```text
//! machine     a small Debian that boots in a second, with the units of this tree
//! units       what can be said of the units without booting
//! boot        the first connection, workers found, files kept apart, the end
//! handshakes  what survives that has only begun
//! lives       what survives the restart and death of which process
//! packages    installed, upgraded, removed, by dpkg and by rpm
//! readme      the operator's tasks, by the README's own lines
//! reload      another process takes the control plane's place
//! rolling     restarts of all workers, one after the other
//! survival    sessions that go on in the next process of their worker
//! pinned      those that cannot yet, and are waited for
//! crowd       sixty-four of them, of all kinds of clients, again and again
//! trial       all of it, under load
//! ```
//!
//! A machine is a container of systemd-nspawn on a root file system that is made
//! once (`root.sh`, in ~/.cache/duckgres/roots). Both need root; without it, or
//! without the programs, a test says why and passes.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps fails with a line number, which is what it should do"
)]

mod boot;
mod crowd;
mod handshakes;
mod lives;
mod machine;
mod packages;
mod pinned;
mod readme;
mod reload;
mod rolling;
#[allow(dead_code, unused_imports, reason = "the other tests need more of it")]
#[path = "../support/mod.rs"]
mod support;
mod survival;
mod trial;
mod units;
