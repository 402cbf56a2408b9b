//! Connections that ended sessions have left, for the next sessions of a database.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::handoff::SessionState;
use crate::session::Spare;

/// More are not kept.
const MOST: usize = 16;

/// What nobody has wanted for so long goes when the next one comes.
const LONGEST: Duration = Duration::from_secs(60);

/// The spare connections of an open instance. They keep it open, so they go before it
/// is closed, and there are none before it is opened.
#[derive(Debug, Default)]
pub(in crate::worker) struct Spares(Mutex<Option<Vec<(Instant, Spare)>>>);

impl Spares {
    /// The instance is open.
    pub(super) fn open(&self) {
        self.lock().get_or_insert_default();
    }

    /// The instance is to be closed. It takes time to let connections go.
    pub(super) fn close(&self) {
        let spares = self.lock().take();
        drop(spares);
    }

    /// The one used last that suits this session.
    pub(in crate::worker) fn take(&self, state: &SessionState) -> Option<Spare> {
        let mut spares = self.lock();
        let spares = spares.as_mut()?;
        let at = spares.iter().rposition(|(_, spare)| spare.suits(state))?;
        Some(spares.remove(at).1)
    }

    /// Keeps one, in the place of the one that has been waiting longest if need be.
    pub(in crate::worker) fn put(&self, spare: Spare) {
        let now = Instant::now();
        let mut spares = self.lock();
        let gone: Vec<_> = match spares.as_mut() {
            Some(spares) => {
                spares.push((now, spare));
                let is_old = |(since, _): &(Instant, Spare)| now.duration_since(*since) > LONGEST;
                let old = spares.iter().take_while(|spare| is_old(spare)).count();
                let many = spares.len().saturating_sub(MOST);
                spares.drain(..old.max(many)).collect()
            }
            None => vec![(now, spare)],
        };
        // Others do not wait for what takes time.
        drop(spares);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<(Instant, Spare)>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
