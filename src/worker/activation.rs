//! The sockets that a worker is started with.
//!
//! They are passed as systemd passes them, by systemd or by the control plane:
//! `LISTEN_FDS`, with the names `handoff` and `rpc`. They outlive the worker, so
//! that what arrives while it is restarted waits in their backlog. Source:
//! sd_listen_fds(3).

use std::os::fd::OwnedFd;

use super::WorkerError;
use crate::systemd::activation;

/// A worker's two listening sockets.
#[derive(Debug)]
pub struct Sockets {
    /// SOCK_SEQPACKET: sessions arrive here.
    pub handoff: OwnedFd,
    /// SOCK_STREAM: gRPC.
    pub rpc: OwnedFd,
}

/// Takes the sockets over from the environment. To be called once, first thing.
pub fn inherited_sockets() -> Result<Sockets, WorkerError> {
    let inherited = activation::take()
        .map_err(|error| WorkerError::Activation(format!("cannot take over sockets: {error}")))?;
    let (mut handoff, mut rpc) = (None, None);
    for socket in inherited {
        match socket.name.as_str() {
            "handoff" => handoff = Some(socket.fd),
            "rpc" => rpc = Some(socket.fd),
            name => return Err(WorkerError::Activation(format!("unexpected socket {name:?}"))),
        }
    }
    match (handoff, rpc) {
        (Some(handoff), Some(rpc)) => Ok(Sockets { handoff, rpc }),
        _ => Err(WorkerError::Activation(
            "the sockets handoff and rpc were not passed".to_owned(),
        )),
    }
}
