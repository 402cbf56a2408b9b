//! What systemd and a service tell each other.

pub mod activation;
pub mod notify;
