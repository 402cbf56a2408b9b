//! What a worker tells systemd while it runs.

use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use crate::systemd::notify;

/// Between two lines for `systemctl status` there is at least so much time.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Tells how the worker is, whenever that changes.
pub(super) async fn report(worker: Arc<Worker>) {
    if !notify::is_asked_for() {
        return;
    }
    let mut shown = String::new();
    loop {
        let change = worker.registry.changes();
        let line = summary(&worker);
        if line != shown && !worker.registry.is_draining() {
            notify::status(&line);
            shown = line;
        }
        change.await;
        tokio::time::sleep(STATUS_EVERY).await;
    }
}

/// Says that the worker is alive whenever every database has answered, and the
/// runtime has come round to saying so.
pub(super) async fn stay_alive(worker: Arc<Worker>) {
    if notify::watchdog_interval().is_none() {
        return;
    }
    let mut rounds = worker.probe.rounds();
    while rounds.changed().await.is_ok() {
        notify::alive();
    }
}

/// The worker in a line.
pub(super) fn summary(worker: &Worker) -> String {
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let waiting = if worker.registry.is_waiting() {
        "waiting for its turn to restart; ".to_owned()
    } else if worker.registry.is_leaving() {
        match worker.registry.in_the_way(Duration::ZERO) {
            nobody if nobody.is_empty() => "restarting; ".to_owned(),
            found => format!("restarting, waits for sessions: {found}; "),
        }
    } else {
        String::new()
    };
    format!(
        "{waiting}{}, {} open",
        counted(worker.registry.count(), "session"),
        counted(worker.databases.names().len(), "database"),
    )
}
