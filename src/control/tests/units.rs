//! Workers that somebody else runs come and go with their sockets.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::rig::{Management, manage};
use crate::control::ledger::Ledger;
use crate::control::placement::Patience;
use crate::control::pool::{Orders, Pool, Queue};
use crate::control::sockets::{HANDOFF, RPC, WorkerSockets};
use crate::control::units::Units;
use crate::proto::Report;

/// Worker 3 behind sockets in `directory`; what it reports can be changed.
fn worker(directory: &Path) -> (WorkerSockets, watch::Sender<Report>) {
    let mut sockets = WorkerSockets::at(directory).unwrap();
    let (report, reported) = watch::channel(Report {
        worker_id: 3,
        process_id: 1,
        ..Report::default()
    });
    let management = Management {
        report: reported,
        cancels: std::sync::mpsc::channel().0,
    };
    manage(&sockets.bind().unwrap(), management);
    (sockets, report)
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_there_as_long_as_its_sockets_and_its_process() {
    let directory = tempfile::tempdir().unwrap();
    let patience = Patience {
        owner: Duration::from_secs(1),
        first_reports: Duration::ZERO,
    };
    let queue = Queue {
        length: 1,
        timeout: Duration::from_secs(10),
    };
    let ledger = Ledger::new([], patience, mpsc::unbounded_channel().0);
    let (_stop, stopping) = watch::channel(false);
    let pool = Pool::new([], ledger, queue, stopping);
    let orders = watch::Sender::new(Orders::default());
    let mut units = Units::new(directory.path(), pool.clone(), orders.clone());
    units.look();
    assert!(pool.workers().is_empty());

    let place = directory.path().join("3");
    let (_sockets, report) = worker(&place);
    units.look();
    assert_eq!(orders.borrow().settings.worker_count, 1, "they share the machine");
    let (placed, passage) = pool.place("a", pool.deadline()).await.ok().unwrap();
    assert_eq!(placed.id, 3);
    drop(passage);

    let now = || placed.report().map(|report| report.process_id);
    eventually("the first process is known", || now() == Some(1)).await;
    units.look();
    report.send_modify(|report| report.process_id = 2);
    eventually("the next process reports", || now() == Some(2)).await;
    units.look();
    assert_eq!(placed.tally.restarts(), 1);

    // Its unit is being stopped: it still has sessions, and gets no others.
    [HANDOFF, RPC]
        .iter()
        .for_each(|name| std::fs::remove_file(place.join(name)).unwrap());
    units.look();
    assert!(pool.worker(3).is_some());
    let soon = tokio::time::Instant::now() + Duration::from_millis(50);
    assert!(pool.place("b", soon).await.is_err());

    drop(report);
    eventually("it is forgotten when its reports end", || {
        units.look();
        pool.worker(3).is_none()
    })
    .await;
}
