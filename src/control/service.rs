//! What the control plane tells systemd while it runs: a line for `systemctl
//! status`, and that it is alive.
//!
//! Alive means that the loop behind every door answers: what comes in is
//! accepted, or waits for a place. A server that is merely full is well; one
//! whose threads all stand still says nothing, and systemd replaces it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::duty::Duty;
use super::observe::Observer;
use crate::systemd::notify;

/// Somebody asks whether anybody is behind the door.
pub type Knock = oneshot::Sender<()>;

/// How often the line is looked at again; it is sent when it is another one.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Tells while this process is on duty, until the runtime ends; nothing if systemd has not asked. `doors` are
/// those of every accept loop.
pub async fn report(observer: Arc<Observer>, doors: Vec<mpsc::Sender<Knock>>, mut duty: Duty) {
    if !notify::is_asked_for() {
        return;
    }
    // systemd.service(5) recommends half of it; two may be late then.
    let interval = notify::watchdog_interval().map(|interval| interval / 3);
    let pause = interval.unwrap_or(STATUS_EVERY).min(STATUS_EVERY);
    let mut shown = String::new();
    let mut due = Instant::now();
    loop {
        // Another process speaks for the service meanwhile.
        duty.begins().await;
        if let Some(interval) = interval
            && Instant::now() >= due
        {
            due = Instant::now() + interval;
            if all_answer(&doors).await {
                notify::alive();
            }
        }
        let line = summary(&observer);
        if line != shown {
            notify::status(&line);
            shown = line;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Whether every loop answers. One that stands still keeps this waiting, and
/// systemd without word, which is the point.
async fn all_answer(doors: &[mpsc::Sender<Knock>]) -> bool {
    for door in doors {
        let (knock, answer) = oneshot::channel();
        if door.send(knock).await.is_err() || answer.await.is_err() {
            return false;
        }
    }
    true
}

/// The server in a line.
pub fn summary(observer: &Observer) -> String {
    let workers = observer.pool.workers();
    let reports: Vec<_> = workers.iter().filter_map(|worker| worker.report()).collect();
    let ready = reports.iter().filter(|report| !report.draining).count();
    let waiting = reports
        .iter()
        .filter(|report| report.waiting && !report.draining)
        .count();
    let roll = match waiting {
        0 => String::new(),
        waiting => format!("restarting them one by one, {waiting} to go; "),
    };
    let census = observer.census();
    format!(
        "{roll}{ready} of {}, {} in {}",
        counted(workers.len(), "worker"),
        counted(census.sessions as usize, "session"),
        counted(census.databases.len(), "database"),
    )
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_door_that_nobody_is_behind_is_enough_to_be_silent() {
        let (open, mut behind) = mpsc::channel::<Knock>(1);
        tokio::spawn(async move {
            while let Some(knock) = behind.recv().await {
                let _ = knock.send(());
            }
        });
        assert!(all_answer(std::slice::from_ref(&open)).await);
        let (closed, gone) = mpsc::channel::<Knock>(1);
        drop(gone);
        assert!(!all_answer(&[open, closed]).await);
    }
}
