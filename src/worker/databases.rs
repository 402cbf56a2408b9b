//! The databases that this worker has open: one instance each.
//!
//! A session claims its database before it is taken in: the claim holds the
//! lease, so a worker that is not the owner can still refuse. The first claim
//! opens the instance, which stays open until nobody has claimed it for a
//! while. One that an error has invalidated is not used again: its sessions
//! end, and when the last is gone the file is opened anew.
//!
//! The worker's memory is shared by what is open, in equal parts that change
//! whenever a database is opened or closed.

mod change;
mod spares;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub(super) use change::Stopped;
pub(super) use spares::Spares;

use super::database_path;
use super::registry::Registry;
use super::{memory, spill};
use crate::engine::{Instance, Lease, LeaseError, Options};
use crate::session::SessionError;

/// How long an instance that is to be closed may be kept by those who still use it.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

/// When shares that could not be set are tried again: a statement may need more
/// than the new share at the moment.
const SHARED_WITHIN: Duration = Duration::from_secs(1);

/// Between two times that all shares are set: many databases that are opened at
/// once need it once.
const BREATH: Duration = Duration::from_millis(100);

/// So many databases at least may be opened at the same time.
const OPENED_AT_ONCE: usize = 8;

/// All open databases, by name.
#[derive(Debug)]
pub(super) struct Databases {
    data_dir: PathBuf,
    registry: Arc<Registry>,
    state: Mutex<State>,
    /// Wakes [`Databases::close_idle`].
    reconsider: Notify,
    /// Wakes [`Databases::keep_shares`].
    divide: Notify,
    /// Opening is work for a processor. If a hundred were opened at once, nobody
    /// else would get one: not even who takes in sessions for databases that are
    /// open. It may also take long (a WAL), hence more than there are processors.
    opening: Semaphore,
}

#[derive(Debug)]
struct State {
    /// Of each, but that the memory is all databases' together, and the temporary
    /// directory the one in which each has its own.
    options: Options,
    /// How long a database stays open without a session.
    idle_timeout: Option<Duration>,
    entries: HashMap<String, Entry>,
    /// The worker is about to exit.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    slot: Arc<Slot>,
    claims: usize,
    /// It is being made, removed, or given up: nobody can claim it.
    reserved: bool,
    /// When the last claim was given back.
    idle_since: Instant,
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.claims == 0 && !self.reserved
    }
}

/// A database whose lease is ours: open, closed, or (while the instance's lock is
/// held) on its way from one to the other.
#[derive(Debug)]
struct Slot {
    /// Every instance of this file shares it until DuckDB has closed the file.
    lease: Arc<Lease>,
    instance: tokio::sync::Mutex<Option<Arc<Instance>>>,
    /// Of that instance.
    spares: Arc<Spares>,
}

/// Why a database cannot be claimed.
#[derive(Debug)]
pub(super) enum Unclaimed {
    /// Another process has it.
    Elsewhere,
    /// No worker can have it; the client is to be told.
    Refused(SessionError),
}

impl Databases {
    pub(super) fn new(data_dir: PathBuf, options: Options, registry: Arc<Registry>) -> Databases {
        Databases {
            data_dir,
            registry,
            state: Mutex::new(State {
                options,
                idle_timeout: None,
                entries: HashMap::new(),
                closed: false,
            }),
            reconsider: Notify::new(),
            divide: Notify::new(),
            opening: Semaphore::new(opened_at_once()),
        }
    }

    /// What applies from now on: `change` gets the options of the instances that
    /// are opened later; their memory and `idle_timeout` hold for the open ones too.
    pub(super) fn configure(&self, idle_timeout: Option<Duration>, change: impl FnOnce(&mut Options)) {
        let mut state = self.lock();
        state.idle_timeout = idle_timeout;
        change(&mut state.options);
        self.reconsider.notify_one();
        self.divide.notify_one();
    }

    /// Makes database `name` ours for a session. A file that does not exist is
    /// created only if `create`.
    pub(super) fn claim(self: &Arc<Self>, name: &str, create: bool) -> Result<Claim, Unclaimed> {
        let mut state = self.lock();
        if !state.entries.contains_key(name) {
            let path = database_path(&self.data_dir, name);
            let lease = Arc::new(take_lease(name, &path, create)?);
            let slot = Arc::new(Slot::new(lease));
            let entry = Entry {
                slot,
                claims: 0,
                reserved: false,
                idle_since: Instant::now(),
            };
            state.entries.insert(name.to_owned(), entry);
            self.registry.touch();
        }
        // To be asked again: soon it is free, or does not exist.
        let Some(entry) = state.entries.get_mut(name).filter(|entry| !entry.reserved) else {
            return Err(Unclaimed::Elsewhere);
        };
        entry.claims += 1;
        Ok(Claim {
            databases: self.clone(),
            name: name.to_owned(),
            slot: entry.slot.clone(),
        })
    }

    /// Goes on with the lease that an earlier process has held.
    pub(super) fn take_up(&self, name: &str, lease: Lease) {
        let slot = Arc::new(Slot::new(Arc::new(lease)));
        let entry = Entry {
            slot,
            claims: 0,
            reserved: false,
            idle_since: Instant::now(),
        };
        self.lock().entries.insert(name.to_owned(), entry);
        self.reconsider.notify_one();
        self.registry.touch();
    }

    /// The leases that the next process is to go on with.
    pub(super) fn leases(&self) -> Vec<(String, Arc<Lease>)> {
        let state = self.lock();
        let entries = state.entries.iter().filter(|(_, entry)| !entry.reserved);
        let leases = entries.map(|(name, entry)| (name.clone(), entry.slot.lease.clone()));
        leases.collect()
    }

    /// The names of the databases whose sessions should come here: those whose lease
    /// is ours, but for what is just being made or removed.
    pub(super) fn names(&self) -> Vec<String> {
        let state = self.lock();
        let stays = |entry: &Entry| entry.claims > 0 || !entry.reserved;
        let entries = state.entries.iter().filter(|(_, entry)| stays(entry));
        let mut names: Vec<String> = entries.map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// The open instances. One that is just being opened or closed is left out.
    pub(super) fn instances(&self) -> Vec<(String, Weak<Instance>)> {
        let state = self.lock();
        let open = state.entries.iter().filter_map(|(name, entry)| {
            let instance = entry.slot.instance.try_lock().ok()?;
            Some((name.clone(), Arc::downgrade(instance.as_ref()?)))
        });
        open.collect()
    }

    /// The options for an instance of this database that is opened now.
    fn options(&self, name: &str) -> Result<Options, std::io::Error> {
        let state = self.lock();
        let (mut options, open) = (state.options.clone(), state.entries.len());
        drop(state);
        options.memory_limit = options.memory_limit.map(|budget| memory::share(budget, open));
        if let Some(root) = options.temp_directory {
            let directory = spill::prepare(&root, name)?;
            options.temp_quota = options.temp_quota.or_else(|| spill::quota(&directory));
            options.temp_directory = Some(directory);
        }
        Ok(options)
    }

    /// Gives every open database its share of the memory, whenever it changes.
    pub(super) async fn keep_shares(self: Arc<Self>) {
        loop {
            let changed = self.divide.notified();
            let shared = self.share_out().await;
            tokio::time::sleep(BREATH).await;
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(SHARED_WITHIN), if !shared => {}
            }
        }
    }

    /// False if some database does not have its share, or is not open yet.
    async fn share_out(&self) -> bool {
        let (budget, open) = {
            let state = self.lock();
            (state.options.memory_limit, state.entries.len())
        };
        let Some(budget) = budget else { return true };
        let share = memory::share(budget, open);
        let instances = self.instances();
        let all = instances.len() == open;
        let limit = move || {
            let mut all = all;
            for (name, instance) in instances {
                let Some(instance) = instance.upgrade().filter(|instance| !instance.is_dead()) else {
                    continue;
                };
                if let Err(error) = instance.limit_memory(share) {
                    tracing::debug!(database = name, share, error = error.message, "keeps its memory");
                    all = false;
                }
            }
            all
        };
        tokio::task::spawn_blocking(limit).await.unwrap_or(false)
    }

    /// Closes what nobody uses, for as long as the worker lives.
    pub(super) async fn close_idle(self: Arc<Self>) {
        loop {
            let reconsider = self.reconsider.notified();
            let (due, next) = self.due();
            for (name, slot) in due {
                self.close_one(&name, slot).await;
            }
            let pause = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = pause => {}
                () = reconsider => {}
            }
        }
    }

    /// What is to be closed now, and when to look again.
    fn due(&self) -> (Vec<(String, Arc<Slot>)>, Option<Instant>) {
        let state = self.lock();
        let now = Instant::now();
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        for (name, entry) in state.entries.iter().filter(|(_, entry)| entry.is_unused()) {
            let Some(at) = entry.slot.expiry(entry.idle_since, state.idle_timeout) else {
                continue;
            };
            if at <= now {
                due.push((name.clone(), entry.slot.clone()));
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        (due, next)
    }

    /// Closes a database if it still has no claim, and gives the lease back.
    async fn close_one(&self, name: &str, slot: Arc<Slot>) {
        let unused = |state: &State| {
            let entry = state.entries.get(name);
            entry.is_some_and(|entry| entry.is_unused() && Arc::ptr_eq(&entry.slot, &slot))
        };
        // A claim that comes now waits for this lock, and opens the file again.
        let mut instance = slot.instance.lock().await;
        if !unused(&self.lock()) {
            return;
        }
        let closed = slot.close(&mut instance).await;
        drop(instance);
        let mut state = self.lock();
        if closed && unused(&state) {
            state.entries.remove(name);
            // Who comes next finds neither an entry nor the lease taken.
            drop(slot);
            tracing::info!(database = name, "closed: nobody uses it");
            self.divide.notify_one();
        } else if let Some(entry) = state.entries.get_mut(name) {
            entry.idle_since = Instant::now();
        }
        drop(state);
        self.registry.touch();
    }

    fn give_back(&self, name: &str) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(name) else {
            return;
        };
        entry.claims -= 1;
        if entry.claims > 0 {
            return;
        }
        entry.idle_since = Instant::now();
        if entry.reserved {
            return;
        }
        let never_opened = entry.slot.instance.try_lock().is_ok_and(|slot| slot.is_none());
        if never_opened && Arc::strong_count(&entry.slot.lease) == 1 {
            state.entries.remove(name);
            self.registry.touch();
        }
        self.reconsider.notify_one();
    }

    /// Closes all of them: DuckDB checkpoints what has no sessions any more.
    pub(super) async fn close(&self) {
        let (entries, again) = {
            let mut state = self.lock();
            let again = std::mem::replace(&mut state.closed, true);
            (std::mem::take(&mut state.entries), again)
        };
        let databases = entries.len();
        let mut closing = tokio::task::JoinSet::new();
        for (_, entry) in entries {
            closing.spawn(async move {
                // Claims of sessions that are gone, or elsewhere, keep nothing open.
                let instance = entry.slot.instance.lock().await.take();
                let closed = move || {
                    entry.slot.spares.close();
                    drop((instance, entry));
                };
                let _ = tokio::task::spawn_blocking(closed).await;
            });
        }
        closing.join_all().await;
        // An order to stop may come in more than one way.
        if !again {
            tracing::info!(databases, "closed all databases");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn opened_at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    OPENED_AT_ONCE.max(2 * processors)
}

fn take_lease(name: &str, path: &Path, create: bool) -> Result<Lease, Unclaimed> {
    let missing = || {
        let message = format!("database \"{name}\" does not exist");
        Unclaimed::Refused(SessionError::fatal("3D000", message))
    };
    if !create && !path.exists() {
        return Err(missing());
    }
    let lease = Lease::take(path).map_err(|error| match error {
        LeaseError::Held(_) => Unclaimed::Elsewhere,
        LeaseError::Io(..) => Unclaimed::Refused(cannot_open(name, error.to_string())),
    })?;
    // Who had the lease until now may have removed the database.
    if !create && !path.exists() {
        let _ = lease.unlink();
        return Err(missing());
    }
    Ok(lease)
}

fn cannot_open(name: &str, reason: String) -> SessionError {
    tracing::error!(database = name, error = reason, "cannot open");
    let message = format!("database \"{name}\" cannot be opened at the moment");
    let mut refusal = SessionError::fatal("57P03", message);
    refusal.detail = Some(reason.into());
    refusal
}

impl Slot {
    /// Of a database that is closed.
    fn new(lease: Arc<Lease>) -> Slot {
        Slot {
            lease,
            instance: tokio::sync::Mutex::default(),
            spares: Arc::default(),
        }
    }

    /// When a database without claims is to be closed: one that is dead at once.
    fn expiry(&self, idle_since: Instant, timeout: Option<Duration>) -> Option<Instant> {
        match self.instance.try_lock() {
            Ok(instance) if instance.as_ref().is_some_and(|instance| instance.is_dead()) => Some(idle_since),
            _ => Some(idle_since + timeout?),
        }
    }

    /// Takes the instance down; true when DuckDB has closed the file. Two
    /// instances of one file in a process would not see each other's locks, so
    /// none may be opened before that.
    async fn close(&self, instance: &mut Option<Arc<Instance>>) -> bool {
        if let Some(instance) = instance.take() {
            // Closing writes a checkpoint.
            let spares = self.spares.clone();
            let closed = move || {
                spares.close();
                drop(instance);
            };
            let _ = tokio::task::spawn_blocking(closed).await;
        }
        let deadline = Instant::now() + CLOSED_WITHIN;
        while Arc::strong_count(&self.lease) > 1 {
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

/// A session's right to a database of this worker, given back when dropped. The
/// session's connection must be gone before.
#[derive(Debug)]
pub(super) struct Claim {
    databases: Arc<Databases>,
    name: String,
    slot: Arc<Slot>,
}

impl Claim {
    /// What earlier sessions have left to those of this database.
    pub(super) fn spares(&self) -> Arc<Spares> {
        self.slot.spares.clone()
    }

    /// The database's instance, opened now if need be.
    pub(super) async fn open(&self) -> Result<Arc<Instance>, SessionError> {
        let mut slot = self.slot.instance.lock().await;
        if let Some(instance) = slot.as_ref() {
            if !instance.is_dead() {
                return Ok(instance.clone());
            }
            self.databases.registry.end_sessions_of(&self.name);
        }
        if !self.slot.close(&mut slot).await {
            let message = format!("database \"{}\" is being closed after an error", self.name);
            return Err(SessionError::fatal("57P03", message));
        }
        let _turn = self.databases.opening.acquire().await;
        let (databases, name) = (self.databases.clone(), self.name.clone());
        let lease = self.slot.lease.clone();
        let began = Instant::now();
        let opened = tokio::task::spawn_blocking(move || {
            let options = databases
                .options(&name)
                .map_err(|error| format!("its temporary directory: {error}"))?;
            let path = database_path(&databases.data_dir, &name);
            Instance::open_leased(&path, lease, &options).map_err(|error| error.message)
        })
        .await;
        self.databases.divide.notify_one();
        match opened {
            Ok(Ok(instance)) => {
                *slot = Some(instance.clone());
                self.slot.spares.open();
                let milliseconds = began.elapsed().as_millis() as u64;
                tracing::info!(database = self.name, milliseconds, "opened");
                Ok(instance)
            }
            Ok(Err(reason)) => Err(cannot_open(&self.name, reason)),
            Err(_) => Err(SessionError::fatal(
                "XX000",
                format!("opening database \"{}\" failed", self.name),
            )),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.databases.give_back(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases(directory: &Path) -> Arc<Databases> {
        let registry = Arc::new(Registry::default());
        Arc::new(Databases::new(
            directory.to_path_buf(),
            Options::default(),
            registry,
        ))
    }

    async fn wait_until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_idle_database_is_closed_and_its_lease_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (databases(directory.path()), databases(directory.path()));
        tokio::spawn(first.clone().close_idle());
        first.configure(Some(Duration::from_millis(50)), |_| {});
        let claim = first.claim("a", true).unwrap();
        let instance = claim.open().await.unwrap();
        assert!(matches!(second.claim("a", true), Err(Unclaimed::Elsewhere)));
        drop((instance, claim));
        wait_until(|| first.names().is_empty()).await;
        second.claim("a", true).unwrap().open().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_database_in_use_stays_open_and_without_a_timeout_an_unused_one_too() {
        let directory = tempfile::tempdir().unwrap();
        let databases = databases(directory.path());
        tokio::spawn(databases.clone().close_idle());
        databases.configure(Some(Duration::from_millis(1)), |_| {});
        let claim = databases.claim("a", true).unwrap();
        let first = claim.open().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(Arc::ptr_eq(&first, &claim.open().await.unwrap()));
        databases.configure(None, |_| {});
        drop((first, claim));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(databases.names(), ["a"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dead_instance_is_never_given_out_and_the_file_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let databases = databases(directory.path());
        let claim = databases.claim("a", true).unwrap();
        let first = claim.open().await.unwrap();
        first.connect().unwrap().run("create table t (i int)").unwrap();
        first.mark_dead();
        let weak = Arc::downgrade(&first);
        drop(first);
        let second = claim.open().await.unwrap();
        assert!(weak.upgrade().is_none() && !second.is_dead());
        second.connect().unwrap().run("insert into t values (1)").unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_dead_instance_is_closed_when_its_last_session_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let databases = databases(directory.path());
        tokio::spawn(databases.clone().close_idle());
        let claim = databases.claim("a", true).unwrap();
        claim.open().await.unwrap().mark_dead();
        drop(claim);
        wait_until(|| databases.names().is_empty()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_claim_that_opens_nothing_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let databases = databases(directory.path());
        drop(databases.claim("a", true).unwrap());
        assert!(databases.names().is_empty());
        assert!(matches!(
            databases.claim("b", false),
            Err(Unclaimed::Refused(error)) if error.sqlstate == "3D000"
        ));
    }
}
