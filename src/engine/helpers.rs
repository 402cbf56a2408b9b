//! The engine's threads, lent to it only while a statement is long.
//!
//! DuckDB's own background threads are woken by every statement, however small,
//! and on a machine with few processors they push its client and its session
//! aside: a `select 1` takes twice as long with them. Here a statement begins
//! on its session's thread alone. When it has run for a tick, the other threads
//! join in ([`ffi::duckdb_execute_tasks_state`]), until no statement is that old.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use duckdb::ffi;

/// After this a statement is helped, at the latest after two of it.
const TICK: Duration = Duration::from_millis(1);
/// How long helpers stay when they are no longer needed, at most.
const STAY: Duration = Duration::from_millis(10);
/// After so many ticks without a statement the clock stops.
const QUIET: u32 = 50;
/// DuckDB keeps a wake-up for every task of the statements that nobody helped.
/// After so many statements the helpers come to take them away.
const UNSWEPT: u64 = 10_000;

/// The threads that help with an instance's statements.
pub(super) struct Helpers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    begun: AtomicU64,
    ended: AtomicU64,
    /// The present tick, in the upper half, and how many of the running
    /// statements have begun in it.
    young: AtomicU64,
    /// The clock stands and is to be started by the next statement.
    asleep: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stop: bool,
    rounds: u64,
    round: Option<Arc<Round>>,
}

/// A statement that is running; it ends when this is dropped.
pub(super) struct Running {
    shared: Arc<Shared>,
    tick: u64,
}

impl Helpers {
    /// `count` threads for this database, idle.
    ///
    /// # Safety
    /// `database` is open until the value is dropped.
    pub(super) unsafe fn start(database: ffi::duckdb_database, count: usize) -> io::Result<Helpers> {
        let mut helpers = Helpers {
            shared: Arc::default(),
            threads: Vec::new(),
        };
        if count == 0 {
            return Ok(helpers);
        }
        for _ in 0..count {
            let shared = helpers.shared.clone();
            helpers.spawn("engine-helper", move || help(&shared))?;
        }
        let shared = helpers.shared.clone();
        let database = Database(database);
        helpers.spawn("engine-clock", move || keep_time(&shared, &database))?;
        Ok(helpers)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        self.threads.push(thread);
        Ok(())
    }

    /// A statement begins.
    pub(super) fn begin(&self) -> Option<Running> {
        if self.threads.is_empty() {
            return None;
        }
        let shared = self.shared.clone();
        shared.begun.fetch_add(1, SeqCst);
        let tick = shared.young.fetch_add(1, SeqCst) >> 32;
        if shared.asleep.swap(false, SeqCst) {
            // Behind the lock, so that the clock is either waiting or will look again.
            drop(shared.lock());
            shared.changed.notify_all();
        }
        Some(Running { shared, tick })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.ended.fetch_add(1, SeqCst);
        let _ = self.shared.young.fetch_update(SeqCst, SeqCst, |young| {
            (young >> 32 == self.tick).then(|| young.wrapping_sub(1))
        });
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has stopped too.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> u64 {
        let ended = self.ended.load(SeqCst);
        self.begun.load(SeqCst).saturating_sub(ended)
    }

    /// The next tick begins: is a statement running that began before the last?
    /// Statements that begin or end at this very moment may be taken for others;
    /// the next tick knows better.
    fn tick(&self) -> bool {
        let tick = (self.young.load(SeqCst) >> 32).wrapping_add(1);
        let young = self.young.swap(tick << 32, SeqCst) & u64::from(u32::MAX);
        self.running() > young
    }
}

/// Opens a round of helping when a statement has become old, and ends it when
/// there is none.
fn keep_time(shared: &Shared, database: &Database) {
    let mut quiet = 0;
    let mut swept = 0;
    let mut state = shared.lock();
    while !state.stop {
        if quiet == QUIET && state.round.is_none() {
            shared.asleep.store(true, SeqCst);
            while shared.asleep.load(SeqCst) && shared.running() == 0 && !state.stop {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            shared.asleep.store(false, SeqCst);
            quiet = 0;
            continue;
        }
        let pause = if state.round.is_some() { STAY } else { TICK };
        let waited = shared.changed.wait_timeout(state, pause);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let old = shared.tick();
        let begun = shared.begun.load(SeqCst);
        quiet = if shared.running() == 0 { quiet + 1 } else { 0 };
        match &state.round {
            None if old || begun - swept > UNSWEPT => {
                swept = begun;
                state.rounds += 1;
                state.round = Some(Arc::new(Round::new(database)));
                shared.changed.notify_all();
            }
            Some(round) if !old => {
                round.finish();
                state.round = None;
            }
            _ => {}
        }
    }
    if let Some(round) = state.round.take() {
        round.finish();
    }
}

/// Takes part in every round.
fn help(shared: &Shared) {
    let mut helped = 0;
    let mut state = shared.lock();
    while !state.stop {
        match state.round.clone() {
            Some(round) if state.rounds != helped => {
                helped = state.rounds;
                drop(state);
                round.help();
                drop(round);
                state = shared.lock();
            }
            _ => state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }
}

struct Database(ffi::duckdb_database);

// SAFETY: DuckDB's database object is made to be shared by threads.
unsafe impl Send for Database {}

/// One stretch of helping.
struct Round(ffi::duckdb_task_state);

// SAFETY: the functions of a task state are made to be called from several threads.
unsafe impl Send for Round {}
// SAFETY: as above.
unsafe impl Sync for Round {}

impl Round {
    fn new(database: &Database) -> Round {
        // SAFETY: the database is open as long as its clock runs, by the contract
        // of `Helpers::start`.
        Round(unsafe { ffi::duckdb_create_task_state(database.0) })
    }

    /// Executes tasks, of whatever statement, until the round is finished.
    fn help(&self) {
        // SAFETY: the state is alive.
        unsafe { ffi::duckdb_execute_tasks_state(self.0) };
    }

    fn finish(&self) {
        // SAFETY: the state is alive.
        unsafe { ffi::duckdb_finish_execution(self.0) };
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed only here, when no thread helps any more.
        unsafe { ffi::duckdb_destroy_task_state(self.0) };
    }
}

impl fmt::Debug for Helpers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Helpers")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::{Instance, Options};
    use super::*;

    #[test]
    fn a_long_statement_is_helped_and_afterwards_nobody_is_kept() {
        let options = Options {
            threads: Some(3),
            ..Options::default()
        };
        let instance = Instance::in_memory(&options).unwrap();
        let connection = instance.connect().unwrap();
        let shared = instance.helpers().shared.clone();
        connection
            .run("select sum(hash(i)) from range(60000000) t(i)")
            .unwrap();
        assert!(shared.lock().rounds > 0, "nobody helped");
        let patience = Instant::now() + Duration::from_secs(30);
        while shared.lock().round.is_some() || !shared.asleep.load(SeqCst) {
            assert!(Instant::now() < patience, "the helpers do not leave");
            std::thread::sleep(TICK);
        }
        // The clock starts again.
        connection
            .run("select sum(hash(i)) from range(60000000) t(i)")
            .unwrap();
        assert!(shared.lock().rounds > 1, "nobody helped the second time");
    }

    #[test]
    fn a_statement_that_ends_in_a_later_tick_does_not_count_as_young() {
        let helpers = Helpers {
            shared: Arc::default(),
            threads: vec![std::thread::spawn(|| ())],
        };
        let shared = helpers.shared.clone();
        let old = helpers.begin().unwrap();
        assert!(!shared.tick(), "it began in the tick that is over");
        let young = helpers.begin().unwrap();
        assert!(shared.tick(), "it is a tick old now");
        drop(old);
        drop(young);
        assert!(!shared.tick());
        assert_eq!(shared.running(), 0);
        let young = helpers.begin().unwrap();
        drop(young);
        assert_eq!(shared.young.load(SeqCst) & u64::from(u32::MAX), 0);
    }
}
