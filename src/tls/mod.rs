//! A TLS session that can be moved to another process between any two records.
//!
//! rustls does the handshake, once, in the control plane ([`accept`]). From then
//! on the session is a value, [`TlsState`], and whoever owns the value drives it
//! with a [`Channel`]: a record layer without I/O, so that blocking and async
//! callers share it and so that it can be tested at every byte border.
//!
//! Using a key and a nonce twice breaks AES-GCM completely. It cannot happen
//! here: a state has one owner, is moved and never cloned, and is consumed by
//! every operation that gives it away.

mod alert;
mod certificate;
mod channel;
mod draws;
mod handshake;
mod record;
mod state;

pub use alert::Alert;
pub use certificate::{ConfigError, certificates, server_config, server_end_point};
pub use channel::{Channel, Progress, TlsError};
pub use draws::{Draw, Draws, Fresh};
pub use handshake::{Accepted, Entry, HandshakeError, accept};
pub use state::{StateError, Suite, TlsState, Version};

#[cfg(test)]
pub(crate) mod tests;
