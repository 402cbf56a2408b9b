//! What systemd and a service tell each other.

pub mod activation;
pub mod fdstore;
pub mod job;
pub mod notify;
