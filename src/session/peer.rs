//! Finds out that the other end of a connection is gone without a word.
//!
//! An idle connection is probed by the kernel (keepalive). While something is on
//! its way to the client the session looks itself. The kernel would do that too
//! (`TCP_USER_TIMEOUT`), but since Linux 5.11 it also ends connections whose
//! living client leaves its window closed for that time, which is its good right,
//! and that of a person who pages through a result: here only silence counts.
//! Source: tcp(7); RFC 9293, section 3.8.6.1.

use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

/// One packet may be lost.
const UNANSWERED: u8 = 2;

/// How a dead peer is found. Zero is the system's own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// How long nothing may be heard before the first probe.
    pub idle: Duration,
    /// From one probe to the next.
    pub interval: Duration,
    /// So many without an answer end the connection.
    pub count: u32,
    /// A peer that was sent something must let itself be heard within this time.
    pub user_timeout: Duration,
}

impl Default for Liveness {
    /// A dead peer is found in about a minute.
    fn default() -> Self {
        Liveness {
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(10),
            count: 3,
            user_timeout: Duration::from_secs(60),
        }
    }
}

impl Liveness {
    /// Sets it all. A Unix socket has none of it, and needs none.
    pub fn apply(&self, socket: BorrowedFd<'_>) {
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let _ = setsockopt(&socket, sockopt::KeepAlive, &true);
        if !self.idle.is_zero() {
            let _ = setsockopt(&socket, sockopt::TcpKeepIdle, &seconds(self.idle));
        }
        if !self.interval.is_zero() {
            let _ = setsockopt(&socket, sockopt::TcpKeepInterval, &seconds(self.interval));
        }
        if self.count > 0 {
            let _ = setsockopt(&socket, sockopt::TcpKeepCount, &self.count);
        }
    }

    /// What the kernel knows of the peer by now.
    pub fn look(&self, socket: BorrowedFd<'_>) -> Peer {
        let Some(info) = tcp_info(socket) else {
            return Peer::HasAll;
        };
        if info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0 {
            return Peer::HasAll;
        }
        let unanswered = info.tcpi_probes.max(info.tcpi_retransmits);
        let silent = Duration::from_millis(info.tcpi_last_ack_recv.into());
        if !self.user_timeout.is_zero() && unanswered >= UNANSWERED && silent >= self.user_timeout {
            Peer::Dead
        } else {
            Peer::Waiting
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// It has acknowledged all that was sent; or this is no TCP connection.
    HasAll,
    /// Something is on its way.
    Waiting,
    /// It has not answered for too long.
    Dead,
}

fn tcp_info(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    // SAFETY: the structure consists of numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: the descriptor is open; the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    (result == 0).then_some(info)
}
