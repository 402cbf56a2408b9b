//! All sessions at rest at once, so that they can go on in another process.
//!
//! A session is held between two messages and outside of a transaction; one that is
//! busy comes to that by itself. Those that are held wait for those that are not, so
//! this must be short: it is tried when nothing is known to be in the way, and given up
//! after [`LIMIT`]. Then all go on, and it is tried again.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::registry::{InTheWay, Registry, Resting};
use super::{Worker, service, stop_statement};
use crate::session::Stop;
use crate::systemd::notify;

/// So long may all sessions wait for the last one. Who has been busy for longer is
/// waited for while the others go on.
const LIMIT: Duration = Duration::from_secs(2);

/// How often it is looked who is in the way.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a session whose time is over may take to end, and the others to become
/// values.
const LAST: Duration = Duration::from_secs(10);

/// Holds all sessions, when that is possible within the limit; when `patience` is over,
/// those that can be held. Cancel safe: [`lower`] lets them go on.
pub(super) async fn raise(worker: &Worker, patience: Duration) {
    let (began, deadline) = (Instant::now(), Instant::now() + patience);
    let (mut tries, mut said) = (0, InTheWay::default());
    loop {
        let mut pause = LOOK_EVERY;
        let found = worker.registry.in_the_way(LIMIT);
        if found.is_empty() {
            tries += 1;
            let tried = Instant::now();
            let held = hold_all(worker, Instant::now() + LIMIT, true).await;
            let milliseconds = tried.elapsed().as_millis();
            if held {
                let waited_milliseconds = began.elapsed().as_millis() as u64;
                tracing::info!(
                    tries,
                    "all sessions are at rest, within {milliseconds} ms, {waited_milliseconds} ms after the \
                     worker's turn came"
                );
                return;
            }
            let found = worker.registry.in_the_way(Duration::ZERO);
            tracing::info!(
                tries,
                "sessions go on after {milliseconds} ms, some do not come to rest: {found}"
            );
            lower(worker);
            // They have waited in vain; they shall not spend their lives so.
            pause = pause.max(2 * tried.elapsed());
        } else if found != said {
            said = found;
            tracing::info!("the restart waits for sessions: {found}");
            notify::status(&service::summary(worker));
            worker.registry.touch();
        }
        if Instant::now() + pause >= deadline {
            break;
        }
        sleep(pause).await;
    }
    sleep_until(deadline).await;
    hold_all(worker, Instant::now() + LIMIT, false).await;
    let left = worker.registry.in_the_way(Duration::ZERO);
    tracing::warn!(tries, "no more time to come to rest, sessions end: {left}");
}

/// Lets all sessions go on.
pub(super) fn lower(worker: &Worker) {
    worker.registry.let_go();
    worker.gate.open();
}

/// True if all sessions are held. `give_up` before `deadline`, when somebody will not
/// come to rest until then.
async fn hold_all(worker: &Worker, deadline: Instant, give_up: bool) -> bool {
    let registry = &worker.registry;
    registry.hold();
    let held = async {
        worker.gate.close().await;
        let at_rest = |resting: &Resting| resting.held == resting.sessions;
        let _ = registry.resting().wait_for(at_rest).await;
    };
    let hopeless = async {
        if !give_up {
            return std::future::pending().await;
        }
        let mut resting = registry.resting();
        while !is_hopeless(registry) {
            let changed = resting.wait_for(|resting| resting.pinned > 0);
            let _ = tokio::time::timeout(LOOK_EVERY, changed).await;
        }
    };
    tokio::select! {
        biased;
        held = timeout_at(deadline, held) => held.is_ok(),
        () = hopeless => false,
    }
}

fn is_hopeless(registry: &Registry) -> bool {
    registry.resting_now().pinned > 0 || !registry.in_the_way(LIMIT).is_empty()
}

/// Makes values of the sessions that are held. Those that are not end.
pub(super) async fn freeze(worker: &Worker) {
    let began = Instant::now();
    let registry = &worker.registry;
    registry.freeze();
    let mut resting = registry.resting();
    let over = |resting: &Resting| resting.frozen == resting.sessions;
    // Those that still run a statement have had their time.
    for handle in registry.end_busy() {
        tokio::spawn(async move { stop_statement(&handle, Stop::Shutdown).await });
    }
    if timeout_at(began + LAST, resting.wait_for(over)).await.is_err() {
        let Resting { sessions, frozen, .. } = registry.resting_now();
        tracing::error!(sessions = sessions - frozen, "do not stop, and are cut off");
    }
    let Resting { frozen, .. } = registry.resting_now();
    let milliseconds = began.elapsed().as_millis();
    tracing::info!("{frozen} sessions are frozen, after {milliseconds} ms");
}
