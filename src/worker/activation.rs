//! The sockets that a worker is started with.
//!
//! They are passed as systemd passes them, by systemd or by the control plane:
//! `LISTEN_FDS`. A socket unit gives all its sockets one name, so they are told
//! apart by what they are. They outlive the worker, so that what arrives while it
//! is restarted waits in their backlog. Source: sd_listen_fds(3).

use std::os::fd::OwnedFd;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{SockRef, Type};

use super::{WorkerError, frozen, turn};
use crate::systemd::activation;

/// A worker's two listening sockets.
#[derive(Debug)]
pub struct Sockets {
    /// SOCK_SEQPACKET: sessions arrive here.
    pub handoff: OwnedFd,
    /// SOCK_STREAM: gRPC.
    pub rpc: OwnedFd,
    /// The right to be the worker that restarts, if an earlier process has got it.
    pub turn: Option<OwnedFd>,
    /// The sessions that an earlier process has left, if it has.
    pub sessions: Option<OwnedFd>,
}

/// Takes the sockets over from the environment. To be called once, first thing.
pub fn inherited_sockets() -> Result<Sockets, WorkerError> {
    let inherited = activation::take()
        .map_err(|error| WorkerError::Activation(format!("cannot take over sockets: {error}")))?;
    sort(inherited)
}

fn sort(inherited: Vec<activation::Inherited>) -> Result<Sockets, WorkerError> {
    let (mut handoff, mut rpc, mut turn, mut sessions) = (None, None, None, None);
    for activation::Inherited { name, fd } in inherited {
        let place = match listening(&fd) {
            Some(Type::SEQPACKET) => &mut handoff,
            Some(Type::STREAM) => &mut rpc,
            _ if name == turn::NAME => &mut turn,
            _ if name == frozen::NAME => &mut sessions,
            // A later version may have stored more with systemd than this one knows.
            _ => {
                tracing::warn!(name, "systemd has passed something that is no socket of a worker");
                continue;
            }
        };
        if place.replace(fd).is_some() {
            return Err(WorkerError::Activation(format!("one socket too many: {name:?}")));
        }
    }
    match (handoff, rpc) {
        (Some(handoff), Some(rpc)) => Ok(Sockets {
            handoff,
            rpc,
            turn,
            sessions,
        }),
        _ => Err(WorkerError::Activation(
            "the two sockets, SOCK_SEQPACKET and SOCK_STREAM, were not passed".to_owned(),
        )),
    }
}

/// The type of a Unix socket that listens.
fn listening(fd: &OwnedFd) -> Option<Type> {
    let socket = SockRef::from(fd);
    let listens = getsockopt(fd, sockopt::AcceptConn) == Ok(true);
    (listens && socket.local_addr().ok()?.is_unix()).then_some(socket.r#type().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, SockAddr, Socket};

    #[test]
    fn sockets_of_one_name_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let bound = |name: &str, kind| {
            let socket = Socket::new(Domain::UNIX, kind, None).unwrap();
            socket
                .bind(&SockAddr::unix(directory.path().join(name)).unwrap())
                .unwrap();
            socket.listen(1).unwrap();
            activation::Inherited {
                name: "duckgres-worker@1.socket".into(),
                fd: socket.into(),
            }
        };
        let other = activation::Inherited {
            name: "turn".into(),
            fd: tempfile::tempfile().unwrap().into(),
        };
        let all = vec![bound("a", Type::STREAM), other, bound("b", Type::SEQPACKET)];
        let sockets = sort(all).unwrap();
        assert_eq!(listening(&sockets.handoff), Some(Type::SEQPACKET));
        assert_eq!(listening(&sockets.rpc), Some(Type::STREAM));
        assert!(sockets.turn.is_some());
        assert!(sort(vec![bound("c", Type::STREAM)]).is_err());
        assert!(sort(vec![bound("d", Type::STREAM), bound("e", Type::STREAM)]).is_err());
    }
}
