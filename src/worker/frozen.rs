//! Sessions on their way from one process of this worker to the next.
//!
//! They are put into a [`Pocket`], which the supervisor keeps (systemd's file
//! descriptor store, sd_notify(3)) while the worker has no process. The leases of the
//! databases are in it too, so that nobody can take them meanwhile, and what the
//! worker goes by, so that the next process need not wait for the control plane.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::databases::Unclaimed;
use super::{Worker, drive, rpc};
use crate::engine::Lease;
use crate::handoff::pocket::{BATCH, Content, Pocket};
use crate::handoff::{Session as Frozen, StateError, frozen_versions};
use crate::histogram::Histogram;
use crate::proto::{self, Heritage};
use crate::session::{Session, SessionError};
use crate::systemd::{fdstore, notify};

/// The pocket's name in the file descriptor store.
pub(super) const NAME: &str = "sessions";

/// How long the supervisor may take to look at what it was sent.
const BARRIER: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets in seconds.
const PAUSES: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// Turns sessions into values, and counts those that became sessions again.
#[derive(Debug)]
pub(super) struct Freezer {
    /// A thousand at once would need a thousand threads.
    turns: Arc<Semaphore>,
    frozen: Mutex<Vec<Frozen>>,
    pauses: Histogram,
    /// What held sessions' places is not needed any more.
    dismissed: watch::Sender<bool>,
}

impl Default for Freezer {
    fn default() -> Freezer {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Freezer {
            turns: Arc::new(Semaphore::new(2 * processors)),
            frozen: Mutex::default(),
            pauses: Histogram::new(PAUSES),
            dismissed: watch::Sender::new(false),
        }
    }
}

impl Freezer {
    /// Waits for its turn to have a thread.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().acquire_owned().await.ok()
    }

    /// Keeps the session's value, for [`leave`]. The session comes back if something
    /// keeps it here after all; it does not if freezing it has panicked.
    pub(super) async fn freeze(&self, session: Session) -> Result<(), Option<Box<Session>>> {
        let _turn = self.turn().await;
        let frozen = tokio::task::spawn_blocking(move || session.freeze()).await;
        match frozen {
            Ok(Ok(session)) => {
                let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
                frozen.push(session);
                Ok(())
            }
            Ok(Err((session, pin))) => {
                tracing::warn!(%pin, "a session that seemed to be at rest cannot go on in another process");
                Err(Some(session))
            }
            Err(_) => Err(None),
        }
    }

    /// Lets go of what the frozen sessions had here: their places, their claims.
    pub(super) fn dismiss(&self) {
        self.dismissed.send_replace(true);
    }

    /// Returns when a frozen session's place is not needed any more.
    pub(super) async fn dismissed(&self) {
        let _ = self.dismissed.subscribe().wait_for(|dismissed| *dismissed).await;
    }

    pub(super) fn take(&self) -> Vec<Frozen> {
        std::mem::take(&mut *self.frozen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A session goes on that was frozen then.
    pub(super) fn thawed(&self, since: SystemTime) {
        // The clock may have been set back.
        self.pauses.observe(since.elapsed().unwrap_or_default());
    }

    /// How long sessions were neither here nor there.
    pub(super) fn pauses(&self) -> proto::Histogram {
        self.pauses.snapshot()
    }
}

/// Leaves the frozen sessions and the leases to the next process. If that cannot be,
/// the sessions are ended: in either case this process has none any more.
pub(super) fn leave(worker: &Worker) {
    let began = Instant::now();
    let sessions = worker.freezer.take();
    let count = sessions.len();
    match put(worker, sessions).and_then(store) {
        Ok(()) => {
            worker.registry.leave_to_next();
            tracing::info!(
                "{count} sessions are left to the next process, within {} ms",
                began.elapsed().as_millis()
            );
        }
        Err((error, sessions)) => {
            tracing::error!(%error, "{count} sessions cannot be left to the next process: they end");
            end(sessions);
        }
    }
}

/// An error, and the sessions that are still ours.
type NotLeft = (std::io::Error, Vec<Frozen>);

fn put(worker: &Worker, mut sessions: Vec<Frozen>) -> Result<Pocket, NotLeft> {
    let (pocket, opening) = match Pocket::new() {
        Ok(both) => both,
        Err(error) => return Err((error, sessions)),
    };
    let leases = worker.databases.leases();
    let mut settings = worker.orders();
    // The settings go also if there is no lease.
    for leases in leases.chunks(BATCH).chain(leases.is_empty().then_some(&[][..])) {
        let heritage = Heritage {
            settings: settings.take(),
            leases: leases.iter().map(|(name, _)| name.clone()).collect(),
        };
        let descriptors: Vec<_> = leases.iter().map(|(_, lease)| lease.as_fd()).collect();
        if let Err(error) = opening.put_note(&heritage.encode_to_vec(), &descriptors) {
            return Err((error, sessions));
        }
    }
    while !sessions.is_empty() {
        let rest = sessions.split_off(sessions.len().min(BATCH));
        let batch = std::mem::replace(&mut sessions, rest);
        if let Err((batch, error)) = opening.put(batch) {
            sessions.extend(batch);
            sessions.extend(take_back(&pocket));
            return Err((error, sessions));
        }
    }
    Ok(pocket)
}

/// Has the supervisor keep it. From then on the sessions are the next process's.
fn store(pocket: Pocket) -> Result<(), NotLeft> {
    let kept = fdstore::keep(NAME, pocket.as_fd()).and_then(|()| notify::barrier(BARRIER));
    match kept {
        Ok(()) => Ok(()),
        Err(error) => {
            // It may have come to be kept all the same: then empty.
            let _ = fdstore::remove(NAME);
            Err((error, take_back(&pocket)))
        }
    }
}

fn take_back(pocket: &Pocket) -> Vec<Frozen> {
    let mut sessions = Vec::new();
    while let Ok(Some(content)) = pocket.take() {
        if let Content::Sessions(taken) = content {
            sessions.extend(taken.into_iter().flatten());
        }
    }
    sessions
}

/// Tells the clients that their sessions are over.
pub(super) fn end(sessions: impl IntoIterator<Item = Frozen>) {
    let error = SessionError::fatal("57P01", "terminating connection due to administrator command");
    for Frozen { socket, state } in sessions {
        Session::refuse(socket, state, &error);
    }
}

/// Takes up what an earlier process of this worker has left, before anybody else is
/// served. The sessions have their places at once, and go on when their databases are
/// open. To be called inside the runtime.
pub(super) fn take_up(worker: &Arc<Worker>, pocket: Option<OwnedFd>) {
    let Some(pocket) = pocket.map(Pocket::from_fd) else {
        return;
    };
    let (mut sessions, mut lost) = (Vec::new(), Lost::default());
    loop {
        match pocket.take() {
            Ok(Some(Content::Note(note, descriptors))) => inherit(worker, &note, descriptors),
            Ok(Some(Content::Sessions(taken))) => {
                for session in taken {
                    match session {
                        Ok(session) => sessions.push(session),
                        Err(error) => lost.count(error),
                    }
                }
            }
            Ok(None) => break,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                tracing::warn!(%error, "what an earlier process has left cannot be read");
            }
            Err(error) => {
                tracing::error!(%error, "what an earlier process has left cannot be taken up");
                break;
            }
        }
    }
    // What could be taken is taken.
    if let Err(error) = fdstore::remove(NAME) {
        tracing::warn!(%error, "an empty pocket stays in the store");
    }
    lost.say();
    let count = sessions.len();
    tracing::info!("{count} sessions are taken up from an earlier process");
    let going = Arc::new(Going {
        count,
        began: Instant::now(),
    });
    for session in sessions {
        go_on(worker, session, going.clone());
    }
}

/// Sessions that were taken and cannot be read. Their clients are told nothing, because
/// over TLS there is nothing to tell it with.
#[derive(Default)]
struct Lost {
    of_other_version: usize,
    version: u32,
    damaged: usize,
    reason: Option<StateError>,
}

impl Lost {
    fn count(&mut self, error: StateError) {
        match error {
            StateError::Version(version) => {
                self.of_other_version += 1;
                self.version = version;
            }
            reason => {
                self.damaged += 1;
                self.reason.get_or_insert(reason);
            }
        }
    }

    fn say(&self) {
        let Lost {
            of_other_version,
            version,
            damaged,
            reason,
        } = self;
        if *of_other_version > 0 {
            let known = frozen_versions();
            let which = match version > known.end() {
                true => "a newer",
                false => "a much older",
            };
            tracing::warn!(
                "{of_other_version} sessions of an earlier process are closed: {which} version of the program \
                 has frozen them, in format {version}, and this one reads formats {} to {}",
                known.start(),
                known.end()
            );
        }
        if let Some(reason) = reason {
            tracing::warn!(%reason, "{damaged} sessions of an earlier process are closed: they are damaged");
        }
    }
}

fn inherit(worker: &Arc<Worker>, note: &[u8], descriptors: Vec<OwnedFd>) {
    let heritage = match Heritage::decode(note) {
        Ok(heritage) => heritage,
        Err(error) => return tracing::warn!(%error, "an earlier process's note cannot be read"),
    };
    if let Some(settings) = heritage.settings {
        rpc::go_by(worker, settings);
    }
    for (name, descriptor) in heritage.leases.iter().zip(descriptors) {
        let path = super::database_path(&worker.data_dir, name);
        match Lease::take_up(&path, descriptor) {
            Ok(lease) => worker.databases.take_up(name, lease),
            // Its sessions ask for it like others.
            Err(error) => tracing::warn!(database = name, %error, "its lease is not taken up"),
        }
    }
}

/// Sessions that are on their way back; all are when the last copy is dropped.
pub(super) struct Going {
    count: usize,
    began: Instant,
}

impl Drop for Going {
    fn drop(&mut self) {
        let Going { count, began } = self;
        tracing::info!("{count} sessions go on, after {} ms", began.elapsed().as_millis());
    }
}

fn go_on(worker: &Arc<Worker>, session: Frozen, going: Arc<Going>) {
    let state = &session.state;
    let place = match worker.registry.reserve(drive::about(state)) {
        Ok(place) => place,
        Err(error) => {
            return tracing::warn!(backend_id = state.backend_id, ?error, "a session cannot go on");
        }
    };
    if let Some(frozen) = &state.frozen {
        place.began(frozen.began);
    }
    let claim = worker
        .databases
        .claim(&state.database, false)
        .map_err(|unclaimed| match unclaimed {
            Unclaimed::Refused(error) => error,
            Unclaimed::Elsewhere => SessionError::fatal("57P03", "another process has opened the database"),
        });
    let session = drive::begin(worker.clone(), session, place, claim, Some(going));
    tokio::spawn(session);
}
