//! Who is at the other end of the Unix socket, and as whom they may log in.
//!
//! The kernel knows (SO_PEERCRED), so no password is needed. Who may not log in
//! this way is asked for one, where PostgreSQL would refuse: one socket serves
//! both.

use nix::unistd::{Uid, User};
use tracing::debug;

use crate::config::PeerMap;

/// The rules of peer authentication.
pub struct Peers {
    enabled: bool,
    map: PeerMap,
}

impl Peers {
    /// `auth.peer` and `auth.peer_map`.
    pub fn new(enabled: bool, map: PeerMap) -> Self {
        Self { enabled, map }
    }

    /// Whether the peer may be `user` on its own word. `uid`: the effective
    /// user that has connected; none over TCP.
    pub async fn admits(&self, uid: Option<u32>, user: &str) -> bool {
        let Some(uid) = uid.filter(|_| self.enabled) else {
            return false;
        };
        // The user database may be on another machine.
        let found = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid))).await;
        let Ok(Ok(Some(os_user))) = found else {
            debug!(uid, "a peer that the system knows no user for");
            return false;
        };
        self.map.allows(&os_user.name, user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_peer_is_who_the_system_says_it_is() {
        let peers = Peers::new(true, PeerMap::default());
        assert!(peers.admits(Some(0), "root").await);
        assert!(!peers.admits(Some(0), "alice").await);
        assert!(!peers.admits(None, "root").await);
        // No system has this user.
        assert!(!peers.admits(Some(u32::MAX - 1), "root").await);
        let off = Peers::new(false, PeerMap::default());
        assert!(!off.admits(Some(0), "root").await);
    }
}
