//! Whether sessions may come in. Those that come while they may not wait in the
//! handoff socket, for this process or its next one.

use std::sync::Arc;

use tokio::sync::watch;

/// Between the handoff socket and the registry.
#[derive(Debug)]
pub(super) struct Gate {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Nobody is to come in.
    shut: bool,
    /// Whoever stands at the gate knows it.
    idle: bool,
    /// They have come in and are not among the sessions yet.
    entering: usize,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            state: watch::Sender::new(State {
                shut: false,
                idle: true,
                entering: 0,
            }),
        }
    }
}

/// Somebody is on the way in until this is dropped.
#[derive(Debug)]
pub(super) struct Entering(Arc<Gate>);

impl Drop for Entering {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.entering -= 1);
    }
}

impl Gate {
    /// Returns when somebody may come in, for whoever stands at the gate.
    pub(super) async fn opened(&self) {
        let mut state = self.state.subscribe();
        loop {
            let mut shut = false;
            self.state.send_modify(|state| {
                shut = state.shut;
                state.idle = shut;
            });
            if !shut {
                return;
            }
            let _ = state.wait_for(|state| !state.shut).await;
        }
    }

    /// Returns when the gate is to be closed.
    pub(super) async fn to_be_closed(&self) {
        let _ = self.state.subscribe().wait_for(|state| state.shut).await;
    }

    /// Somebody comes in.
    pub(super) fn enter(self: &Arc<Self>) -> Entering {
        self.state.send_modify(|state| state.entering += 1);
        Entering(self.clone())
    }

    /// Closes it; returns when those who had come in are sessions, or gone.
    pub(super) async fn close(&self) {
        self.state.send_modify(|state| state.shut = true);
        let empty = |state: &State| state.idle && state.entering == 0;
        let _ = self.state.subscribe().wait_for(empty).await;
    }

    /// Opens it again.
    pub(super) fn open(&self) {
        self.state.send_modify(|state| state.shut = false);
    }
}
