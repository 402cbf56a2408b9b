//! Is there a control plane?
//!
//! One that listens to the reports is there; one that was killed is not, and
//! the worker goes on without it, because its sessions need nothing from it.
//! Only a worker that has no sessions either, for long enough, is of no use to
//! anybody.

use std::time::Duration;

use tokio::sync::watch;

use super::registry::Registry;

/// Who listens, and how long nobody may.
#[derive(Debug)]
pub(super) struct Attendance {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    listeners: usize,
    /// `None` waits for ever.
    patience: Option<Duration>,
}

impl Default for Attendance {
    fn default() -> Attendance {
        Attendance {
            state: watch::Sender::new(State::default()),
        }
    }
}

/// Somebody listens until this is dropped.
#[derive(Debug)]
pub(super) struct Listening<'a>(&'a Attendance);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.listeners -= 1);
    }
}

impl Attendance {
    /// How long a worker without sessions waits for a control plane.
    pub(super) fn configure(&self, patience: Option<Duration>) {
        self.state.send_modify(|state| state.patience = patience);
    }

    /// Whether somebody listens.
    pub(super) fn is_attended(&self) -> bool {
        self.state.borrow().listeners > 0
    }

    /// Somebody begins to listen.
    pub(super) fn attend(&self) -> Listening<'_> {
        self.state.send_modify(|state| state.listeners += 1);
        Listening(self)
    }

    /// Returns when nobody has listened for too long and there are no sessions.
    pub(super) async fn orphaned(&self, registry: &Registry) {
        let mut state = self.state.subscribe();
        loop {
            let State { listeners, patience } = *state.borrow_and_update();
            let waited = async {
                match patience {
                    Some(patience) if listeners == 0 => tokio::time::sleep(patience).await,
                    _ => std::future::pending().await,
                }
                registry.empty().await;
            };
            tokio::select! {
                () = waited => return,
                _ = state.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::LiveSession;
    use std::sync::Arc;

    #[tokio::test]
    async fn only_a_worker_without_listeners_and_sessions_is_an_orphan() {
        let (attendance, registry) = (Attendance::default(), Arc::new(Registry::default()));
        let orphaned = |milliseconds| {
            tokio::time::timeout(
                Duration::from_millis(milliseconds),
                attendance.orphaned(&registry),
            )
        };
        assert!(orphaned(50).await.is_err(), "nobody said how long to wait");

        attendance.configure(Some(Duration::from_millis(20)));
        let listening = attendance.attend();
        assert!(orphaned(100).await.is_err(), "somebody listens");
        drop(listening);
        let place = registry.reserve(LiveSession::default()).unwrap();
        assert!(orphaned(100).await.is_err(), "there is a session");
        drop(place);
        assert!(orphaned(10_000).await.is_ok());
    }
}
