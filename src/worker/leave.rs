//! Leaving for good: the worker's sessions go on in other workers.
//!
//! All are frozen at once, as for a restart (`barrier`); then the databases are closed
//! and their leases given back, so that others can open them. The control plane is told
//! how many sessions there are, comes for them ([`Collector`]), and places each like a
//! new one. Where nobody can have them they end: the whole server stops, or there is no
//! other worker.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::drive::PATIENCE;
use super::{Worker, barrier, frozen, service};
use crate::handoff::{Collector, OfferError};
use crate::proto::refused::Reason;
use crate::systemd::notify;

/// Sessions on their way to other workers.
#[derive(Debug)]
pub(super) struct Exit {
    /// Has the control plane said so?
    ordered: watch::Sender<bool>,
    collectors: mpsc::Sender<Collector>,
    collected: Mutex<mpsc::Receiver<Collector>>,
    /// How many are to be given away.
    left: watch::Sender<usize>,
}

impl Default for Exit {
    fn default() -> Exit {
        let (collectors, collected) = mpsc::channel(1);
        Exit {
            ordered: watch::Sender::new(false),
            collectors,
            collected: Mutex::new(collected),
            left: watch::Sender::new(0),
        }
    }
}

impl Exit {
    /// The control plane wants the worker to leave.
    pub(super) fn order(&self) {
        self.ordered.send_replace(true);
    }

    /// Returns when it does.
    pub(super) async fn ordered(&self) {
        let _ = self.ordered.subscribe().wait_for(|ordered| *ordered).await;
    }

    /// Somebody has come for sessions. Sent away if there are none.
    pub(super) fn receive(&self, collector: Collector) {
        if self.left() > 0 {
            let _ = self.collectors.try_send(collector);
        }
    }

    /// How many sessions are to be given away.
    pub(super) fn left(&self) -> usize {
        *self.left.borrow()
    }
}

impl Worker {
    /// Has all sessions go on in other workers; false if there are none, or nobody to
    /// bring them there, or the worker is to be drained instead.
    pub(super) async fn leave_to_others(self: &Arc<Self>) -> bool {
        // The control plane would not say so without another worker.
        let ordered = *self.exit.ordered.borrow();
        let others = ordered || self.orders().is_some_and(|orders| orders.worker_count > 1);
        if !others || !self.attendance.is_attended() || self.registry.is_draining() {
            return false;
        }
        let within = match ordered {
            true => self.restart_within(),
            // The whole machine may be waiting.
            false => self.grace(),
        };
        self.registry.begin_to_leave();
        notify::status(&service::summary(self));
        let more_time = tokio::spawn(notify::take_time());
        let mut standing = self.registry.standing();
        let at_rest = tokio::select! {
            () = barrier::raise(self, within) => true,
            _ = standing.wait_for(|standing| standing.draining) => false,
        };
        if at_rest {
            notify::stopping("leaving sessions to other workers");
            barrier::freeze(self).await;
            self.give_away().await;
        } else {
            barrier::lower(self);
        }
        more_time.abort();
        at_rest
    }

    async fn give_away(self: &Arc<Self>) {
        let mut sessions = self.freezer.take();
        let (count, deadline) = (sessions.len(), Instant::now() + self.grace());
        self.exit.left.send_replace(count);
        // They are not gone: others have them next.
        self.registry.leave_to_next();
        self.freezer.dismiss();
        self.databases.close().await;
        // From here on nobody new comes in, but who collects.
        self.registry.begin_drain();
        self.registry.touch();
        self.gate.open();
        let mut collected = self.exit.collected.lock().await;
        'collectors: while !sessions.is_empty() {
            let Ok(Some(collector)) = timeout_at(deadline, collected.recv()).await else {
                tracing::warn!("nobody has come for the sessions");
                break;
            };
            while let Some(session) = sessions.pop() {
                match collector.give(session, PATIENCE).await {
                    Ok(()) => {}
                    Err(OfferError::Refused {
                        session,
                        reason,
                        message,
                    }) => {
                        sessions.push(*session);
                        tracing::warn!(message, "a session cannot go on in another worker");
                        if reason == Reason::Draining {
                            break 'collectors;
                        }
                        // The others may.
                        let refused = sessions.pop();
                        frozen::end(refused);
                    }
                    Err(OfferError::Unreachable { session, source }) => {
                        tracing::warn!(error = %source, "who came for the sessions has gone");
                        sessions.push(*session);
                        break;
                    }
                    Err(error @ OfferError::Ambiguous { .. }) => {
                        tracing::warn!(%error, "a session is lost");
                        break;
                    }
                }
                self.exit.left.send_replace(sessions.len());
            }
        }
        tracing::info!(
            moved = count - sessions.len(),
            ended = sessions.len(),
            "left sessions to other workers"
        );
        frozen::end(sessions);
        self.exit.left.send_replace(0);
        self.registry.touch();
    }
}
