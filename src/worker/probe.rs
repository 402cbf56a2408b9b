//! Does DuckDB still answer? A thread of its own asks each open instance.
//!
//! The question is `select 1` on a connection of its own. DuckDB runs it on the
//! thread that asks, so it needs none of the threads that other queries share,
//! and it begins no transaction on the file, so it waits for no commit or
//! checkpoint: however busy an instance is, it answers. An instance that does
//! not has a lock that nobody gives back, and takes the sessions that come after
//! down with it. An error is an answer too.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::databases::Databases;
use crate::engine::Instance;

/// What is being asked, and since when.
#[derive(Debug, Default)]
pub(super) struct Probe {
    state: Mutex<State>,
    /// How often all have answered.
    rounds: watch::Sender<u64>,
    /// Somebody waits for a round at least so often.
    awaited: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    /// How long an answer may take.
    patience: Option<Duration>,
    asking: Option<(String, Instant)>,
}

impl Probe {
    /// Starts the thread that asks. A round is over well within `awaited`, if all
    /// answer.
    pub(super) fn start(databases: Arc<Databases>, awaited: Option<Duration>) -> io::Result<Arc<Probe>> {
        let probe = Arc::new(Probe {
            awaited,
            ..Probe::default()
        });
        let asking = probe.clone();
        std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn(move || {
                loop {
                    std::thread::sleep(asking.pause());
                    for (name, instance) in databases.instances() {
                        asking.ask(name, || {
                            if let Some(instance) = instance.upgrade() {
                                question(&instance);
                            }
                        });
                    }
                    asking.rounds.send_modify(|rounds| *rounds += 1);
                }
            })?;
        Ok(probe)
    }

    /// How long an answer may take; `None` asks no questions.
    pub(super) fn configure(&self, patience: Option<Duration>) {
        self.lock().patience = patience;
    }

    /// Changes whenever every instance has answered.
    pub(super) fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }

    /// The database whose instance has not answered in time.
    pub(super) fn hung(&self) -> Option<String> {
        let state = self.lock();
        let (name, since) = state.asking.as_ref()?;
        (since.elapsed() >= state.patience?).then(|| name.clone())
    }

    fn pause(&self) -> Duration {
        let patience = self.lock().patience;
        let pause = patience.map_or(Duration::from_secs(1), |patience| {
            (patience / 4).clamp(Duration::from_millis(50), Duration::from_secs(5))
        });
        self.awaited.map_or(pause, |awaited| pause.min(awaited / 4))
    }

    fn ask(&self, name: String, question: impl FnOnce()) {
        let mut state = self.lock();
        if state.patience.is_none() {
            return;
        }
        state.asking = Some((name, Instant::now()));
        drop(state);
        question();
        self.lock().asking = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn question(instance: &Arc<Instance>) {
    let answer = instance
        .connect()
        .and_then(|connection| connection.run("select 1"));
    if let Err(error) = answer {
        tracing::debug!(%error, "a probe was answered with an error");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Options;
    use std::sync::mpsc;

    #[test]
    fn an_instance_is_hung_while_its_answer_is_overdue() {
        let probe = Arc::new(Probe::default());
        probe.configure(Some(Duration::from_millis(20)));
        let (answer, waiting) = mpsc::channel::<()>();
        let asking = probe.clone();
        let thread = std::thread::spawn(move || asking.ask("a".to_owned(), || waiting.recv().unwrap()));
        while probe.hung().is_none() {
            std::thread::yield_now();
        }
        assert_eq!(probe.hung().as_deref(), Some("a"));
        answer.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!(probe.hung(), None);
    }

    #[test]
    fn a_round_is_over_when_all_have_answered() {
        let registry = Arc::new(crate::worker::registry::Registry::default());
        let databases = Databases::new("/nonexistent".into(), Options::default(), registry);
        // Nothing is open: each round is over at once.
        let probe = Probe::start(Arc::new(databases), Some(Duration::from_millis(40))).unwrap();
        let mut rounds = probe.rounds();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..3 {
            runtime.block_on(rounds.changed()).unwrap();
        }
    }

    #[test]
    fn without_a_deadline_nothing_is_asked() {
        Probe::default().ask("a".to_owned(), || panic!("asked"));
    }

    /// All of DuckDB's threads are busy, one transaction writes, and still the
    /// question is answered.
    #[test]
    fn a_busy_instance_answers() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            threads: Some(2),
            ..Options::default()
        };
        let instance = Instance::open(&directory.path().join("a.duckdb"), &options).unwrap();
        let mut stops = Vec::new();
        let mut busy = Vec::new();
        for i in 0..4 {
            let connection = instance.connect().unwrap();
            stops.push(connection.interrupt_handle());
            busy.push(std::thread::spawn(move || {
                connection.run(&format!(
                    "create table t{i} as select a.i from range(10000000) a(i), range(10000000) b(j)"
                ))
            }));
        }
        std::thread::sleep(Duration::from_millis(300));
        let asked = Instant::now();
        for _ in 0..10 {
            question(&instance);
        }
        // Far below any deadline that one would set, even on a loaded machine.
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        for thread in busy {
            while !thread.is_finished() {
                stops.iter().for_each(|stop| stop.interrupt());
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(thread.join().unwrap().is_err(), "it was still busy");
        }
    }
}
