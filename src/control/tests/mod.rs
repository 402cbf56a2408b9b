//! The control plane as clients see it, with a worker that only says hello.

mod client;
mod doors;
mod limits;
mod login;
mod negotiation;
pub(super) mod rig;
mod supervision;
mod units;
