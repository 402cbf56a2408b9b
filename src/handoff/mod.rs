//! A session as a value, and how it moves to another process.
//!
//! One `SOCK_SEQPACKET` connection carries one session: a single message with the
//! client's socket (`SCM_RIGHTS`) and the [`SessionState`], then a single reply.
//! At each moment a session has exactly one owner:
//!
//! - Until the message is sent it is the sender's, and every error gives it back.
//! - A refusal gives it back too: the receiver keeps nothing.
//! - If no reply comes, nobody knows who has it. The sender then gives it up, in
//!   silence: an alert or a close_notify could use a nonce that the receiver uses
//!   as well. If the receiver has it, it goes on there, even if the sender died.
//!
//! A session whose handshake another process could do again comes with its
//! [`Tape`], and is the receiver's only if that can still be claimed.
//!
//! A worker that leaves for good has its sessions collected ([`Collection`]), many on
//! one connection.

mod collect;
mod frozen;
pub(crate) mod memfd;
mod receive;
mod send;
mod session;
mod socket;
mod state;
mod tape;

pub mod envelope;
pub mod pocket;

pub use crate::proto::refused::Reason;
pub use collect::{Collection, Collector, Fate};
pub use frozen::{Frozen, FrozenRows, FrozenStatement, FrozenTemporary, FrozenVariable, frozen_versions};
pub use receive::{Arrival, Incoming, Listener, Offer, ReceiveError};
pub use send::{OfferError, offer, offer_with};
pub use session::{CancelKey, CancelKeyLength, PeerFacts, Session, SessionState};
pub use socket::bind;
pub use state::StateError;
pub use tape::{Tape, discard};

#[cfg(test)]
mod tests;
