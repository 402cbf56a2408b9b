//! Which worker serves which database.
//!
//! A database file has one owner. Who that is follows from what the workers
//! report and from the sessions that this process has sent them; all of it is
//! in one table, so that two sessions which ask at the same moment get the same
//! answer, and no worker is asked while a client waits. An assignment lives
//! while the worker has sessions for it, or sessions on their way to it, or says
//! that the database is open; then a little longer, for reports that are older
//! than what has been decided since.
//!
//! The table can be wrong for a moment, after a restart for example. The lease on
//! the file then has a worker refuse, and the question is asked again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long an assignment outlives its last session and its last mention.
const GRACE: Duration = Duration::from_secs(2);

/// Who may serve a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A file: one worker at a time.
    Owner,
    /// A database that every worker may open: the one with the fewest sessions.
    Shared,
}

/// What to do with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This worker serves it; the session is counted as its own from now on.
    Use(u16),
    /// Wait for a change of the table, or until then, and ask again.
    Wait(Option<Instant>),
}

/// What is waited for, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the owner of a database that is away.
    pub owner: Duration,
    /// For the first report of every worker, before a database that nobody has
    /// mentioned is given to one of them.
    pub first_reports: Duration,
}

/// What is known of all workers and databases.
pub struct Table {
    workers: BTreeMap<u16, Seen>,
    assignments: HashMap<String, Assignment>,
    patience: Patience,
    complete_by: Instant,
}

#[derive(Default)]
struct Seen {
    /// Takes sessions. A worker that does not is away, or is leaving.
    ready: bool,
    /// Since when it is not ready.
    away_since: Option<Instant>,
    has_reported: bool,
    /// Gets no more databases than it has.
    retiring: bool,
    /// Its sessions, those on their way included, by database.
    sessions: HashMap<String, usize>,
    open: HashSet<String>,
}

impl Seen {
    fn load(&self) -> usize {
        self.sessions.values().sum()
    }
}

struct Assignment {
    worker: u16,
    /// When there was a reason for it last.
    wanted: Instant,
}

impl Table {
    /// A table of workers that have not reported yet. Those that are `retiring`
    /// keep the databases that they have and get no others.
    pub fn new(workers: impl IntoIterator<Item = (u16, bool)>, patience: Patience, now: Instant) -> Self {
        let seen = |retiring| Seen {
            away_since: Some(now),
            retiring,
            ..Seen::default()
        };
        Self {
            workers: workers
                .into_iter()
                .map(|(id, retiring)| (id, seen(retiring)))
                .collect(),
            assignments: HashMap::new(),
            patience,
            complete_by: now + patience.first_reports,
        }
    }

    /// Adds a worker that has not reported yet, or takes back its retirement; true
    /// if that may change a decision.
    pub fn enlist(&mut self, worker: u16, now: Instant) -> bool {
        match self.workers.get_mut(&worker) {
            Some(seen) => std::mem::take(&mut seen.retiring),
            None => {
                let seen = Seen {
                    away_since: Some(now),
                    ..Seen::default()
                };
                self.workers.insert(worker, seen);
                true
            }
        }
    }

    /// The worker gets no more databases than it has.
    pub fn retire(&mut self, worker: u16) {
        if let Some(seen) = self.workers.get_mut(&worker) {
            seen.retiring = true;
        }
    }

    /// Does this worker keep what it has and get nothing new?
    pub fn is_retiring(&self, worker: u16) -> bool {
        self.workers.get(&worker).is_some_and(|seen| seen.retiring)
    }

    /// Takes in what a worker reports; true if that may change a decision.
    pub fn reported(&mut self, worker: u16, open: &[String], ready: bool, now: Instant) -> bool {
        let Some(seen) = self.workers.get_mut(&worker) else {
            return false;
        };
        let mut changed = !seen.has_reported || seen.ready != ready;
        seen.has_reported = true;
        if ready {
            seen.away_since = None;
        } else if seen.ready {
            seen.away_since = Some(now);
        }
        seen.ready = ready;
        if open.len() == seen.open.len() && open.iter().all(|name| seen.open.contains(name)) {
            return changed;
        }
        changed = true;
        let before = std::mem::replace(&mut seen.open, open.iter().cloned().collect());
        for name in before.iter().filter(|name| !open.contains(name)) {
            if let Some(assignment) = self.assignments.get_mut(name)
                && assignment.worker == worker
            {
                assignment.wanted = now;
            }
        }
        // It holds the lease, whatever was decided.
        for name in open.iter().filter(|name| !before.contains(*name)) {
            let wanted = Assignment { worker, wanted: now };
            self.assignments.insert(name.clone(), wanted);
        }
        self.forget_unwanted(now);
        changed
    }

    /// A worker does not report any more.
    pub fn lost(&mut self, worker: u16, now: Instant) {
        if let Some(seen) = self.workers.get_mut(&worker) {
            seen.ready = false;
            seen.away_since.get_or_insert(now);
        }
    }

    /// A worker's process has ended. A retiring worker has no other.
    pub fn ended(&mut self, worker: u16, now: Instant) {
        self.lost(worker, now);
        if self.workers.get(&worker).is_some_and(|seen| seen.retiring) {
            self.workers.remove(&worker);
        }
    }

    /// Decides who serves a session of `database`, and counts it.
    pub fn place(&mut self, database: &str, placement: Placement, now: Instant) -> Decision {
        let decision = match placement {
            Placement::Owner => self.owner(database, now),
            Placement::Shared => self.fewest_sessions(),
        };
        if let Decision::Use(worker) = decision {
            self.begin(database, worker, now);
        }
        decision
    }

    fn owner(&mut self, database: &str, now: Instant) -> Decision {
        if let Some(worker) = self.assigned(database, now) {
            let seen = self.workers.get(&worker);
            match seen.and_then(|seen| seen.away_since) {
                None if seen.is_some() => return Decision::Use(worker),
                Some(since) if now < since + self.patience.owner => {
                    return Decision::Wait(Some(since + self.patience.owner));
                }
                // Gone for too long. Sessions that it may still have keep it from
                // losing the database: the lease decides.
                _ => drop(self.assignments.remove(database)),
            }
        }
        // A worker that has not reported yet may have it open.
        if now < self.complete_by && self.workers.values().any(|seen| !seen.has_reported) {
            return Decision::Wait(Some(self.complete_by));
        }
        self.least_loaded()
    }

    fn assigned(&self, database: &str, now: Instant) -> Option<u16> {
        let decided = self
            .assignments
            .get(database)
            .filter(|assignment| self.is_wanted(database, assignment, now))
            .map(|assignment| assignment.worker);
        let said = || {
            let has = |seen: &Seen| seen.open.contains(database);
            self.workers.iter().find(|(_, seen)| has(seen)).map(|(id, _)| *id)
        };
        decided.or_else(said)
    }

    fn is_wanted(&self, database: &str, assignment: &Assignment, now: Instant) -> bool {
        let used = |seen: &Seen| seen.sessions.contains_key(database) || seen.open.contains(database);
        now < assignment.wanted + GRACE || self.workers.get(&assignment.worker).is_some_and(used)
    }

    fn candidates(&self) -> impl Iterator<Item = (u16, &Seen)> {
        let fit = |seen: &Seen| seen.ready && !seen.retiring;
        self.workers
            .iter()
            .filter(move |(_, seen)| fit(seen))
            .map(|(id, seen)| (*id, seen))
    }

    /// For a database that nobody has: fewest sessions, then fewest databases,
    /// then the lowest number.
    fn least_loaded(&self) -> Decision {
        let mut databases: HashMap<u16, usize> = HashMap::new();
        for assignment in self.assignments.values() {
            *databases.entry(assignment.worker).or_default() += 1;
        }
        let load = |id: u16, seen: &Seen| (seen.load(), databases.get(&id).copied().unwrap_or_default(), id);
        let least = self.candidates().min_by_key(|(id, seen)| load(*id, seen));
        least.map_or(Decision::Wait(None), |(id, _)| Decision::Use(id))
    }

    /// For a shared database.
    fn fewest_sessions(&self) -> Decision {
        let fewest = self.candidates().min_by_key(|(id, seen)| (seen.load(), *id));
        fewest.map_or(Decision::Wait(None), |(id, _)| Decision::Use(id))
    }

    /// Counts a session of a worker.
    pub fn begin(&mut self, database: &str, worker: u16, now: Instant) {
        let Some(seen) = self.workers.get_mut(&worker) else {
            return;
        };
        *seen.sessions.entry(database.to_owned()).or_default() += 1;
        self.assignments
            .entry(database.to_owned())
            .or_insert(Assignment { worker, wanted: now });
    }

    /// Takes back a [`Table::begin`].
    pub fn end(&mut self, database: &str, worker: u16, now: Instant) {
        let Some(seen) = self.workers.get_mut(&worker) else {
            return;
        };
        if let Some(count) = seen.sessions.get_mut(database) {
            *count -= 1;
            if *count == 0 {
                seen.sessions.remove(database);
            }
        }
        if let Some(assignment) = self.assignments.get_mut(database)
            && assignment.worker == worker
        {
            assignment.wanted = now;
        }
    }

    /// A worker did not take a session: whoever has the database, this worker
    /// does not, unless it says so.
    pub fn refused(&mut self, database: &str, worker: u16) {
        let says_so = |seen: &Seen| seen.open.contains(database);
        let assigned = self.assignments.get(database).map(|assignment| assignment.worker);
        if assigned == Some(worker) && !self.workers.get(&worker).is_some_and(says_so) {
            self.assignments.remove(database);
        }
    }

    /// A worker has closed this database and does not open it again.
    pub fn gives_up(&mut self, database: &str, worker: u16) {
        if self
            .assignments
            .get(database)
            .is_some_and(|assignment| assignment.worker == worker)
        {
            self.assignments.remove(database);
        }
        if let Some(seen) = self.workers.get_mut(&worker) {
            seen.open.remove(database);
        }
    }

    fn forget_unwanted(&mut self, now: Instant) {
        let mut assignments = std::mem::take(&mut self.assignments);
        assignments.retain(|database, assignment| self.is_wanted(database, assignment, now));
        self.assignments = assignments;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        owner: Duration::from_secs(10),
        first_reports: Duration::from_secs(5),
    };

    fn ready(workers: u16) -> (Table, Instant) {
        let now = Instant::now();
        let mut table = Table::new((1..=workers).map(|id| (id, false)), PATIENCE, now);
        for id in 1..=workers {
            assert!(table.reported(id, &[], true, now));
        }
        (table, now)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn place(table: &mut Table, database: &str, now: Instant) -> Decision {
        table.place(database, Placement::Owner, now)
    }

    #[test]
    fn all_sessions_of_a_database_go_to_the_same_worker_from_the_first_on() {
        let (mut table, now) = ready(4);
        for _ in 0..100 {
            assert_eq!(place(&mut table, "a", now), Decision::Use(1));
        }
    }

    #[test]
    fn a_new_database_goes_to_the_fewest_sessions_then_databases_then_number() {
        let (mut table, now) = ready(3);
        assert_eq!(place(&mut table, "a", now), Decision::Use(1));
        assert_eq!(place(&mut table, "a", now), Decision::Use(1));
        assert_eq!(place(&mut table, "b", now), Decision::Use(2));
        assert_eq!(place(&mut table, "c", now), Decision::Use(3));
        // 2 has a session less than 1, and as many as 3, but a database more.
        table.reported(2, &names(&["b", "idle"]), true, now);
        assert_eq!(place(&mut table, "d", now), Decision::Use(3));
    }

    #[test]
    fn who_has_a_database_open_is_its_owner_whatever_the_load() {
        let (mut table, now) = ready(2);
        table.reported(2, &names(&["a"]), true, now);
        for _ in 0..10 {
            assert_eq!(place(&mut table, "a", now), Decision::Use(2));
        }
    }

    #[test]
    fn an_assignment_ends_with_its_last_reason_and_a_moment_later() {
        let (mut table, now) = ready(2);
        assert_eq!(place(&mut table, "a", now), Decision::Use(1));
        // A report from before the session came.
        table.reported(1, &[], true, now);
        assert_eq!(place(&mut table, "busy", now), Decision::Use(2));
        assert_eq!(place(&mut table, "busy", now), Decision::Use(2));
        table.reported(1, &names(&["a"]), true, now);
        table.end("a", 1, now);
        for _ in 0..3 {
            table.begin("other", 1, now);
        }
        let later = now + GRACE * 10;
        assert_eq!(
            place(&mut table, "a", later),
            Decision::Use(1),
            "it is open there"
        );
        table.end("a", 1, later);
        table.reported(1, &[], true, later);
        assert_eq!(place(&mut table, "a", later), Decision::Use(1), "too early");
        table.end("a", 1, later);
        let free = later + GRACE;
        assert_eq!(place(&mut table, "a", free), Decision::Use(2));
    }

    #[test]
    fn an_owner_that_is_away_is_waited_for_and_then_replaced() {
        let (mut table, now) = ready(2);
        table.reported(1, &names(&["a"]), true, now);
        table.lost(1, now);
        let limit = now + PATIENCE.owner;
        assert_eq!(place(&mut table, "a", now), Decision::Wait(Some(limit)));
        table.lost(1, now + Duration::from_secs(9));
        assert_eq!(
            place(&mut table, "b", now),
            Decision::Use(2),
            "others do not wait"
        );
        assert_eq!(place(&mut table, "a", limit), Decision::Use(2));
        // The old owner was only silent.
        table.reported(1, &names(&["a"]), true, limit);
        table.refused("a", 2);
        assert_eq!(place(&mut table, "a", limit), Decision::Use(1));
    }

    #[test]
    fn an_owner_that_comes_back_keeps_its_databases() {
        let (mut table, now) = ready(2);
        assert_eq!(place(&mut table, "a", now), Decision::Use(1));
        table.lost(1, now);
        table.end("a", 1, now);
        assert!(matches!(place(&mut table, "a", now), Decision::Wait(Some(_))));
        assert!(table.reported(1, &[], true, now));
        assert_eq!(place(&mut table, "a", now), Decision::Use(1));
    }

    #[test]
    fn unknown_databases_wait_for_the_first_reports_but_not_for_ever() {
        let now = Instant::now();
        let mut table = Table::new([(1, false), (2, false)], PATIENCE, now);
        table.reported(1, &names(&["a"]), true, now);
        let limit = now + PATIENCE.first_reports;
        assert_eq!(place(&mut table, "a", now), Decision::Use(1));
        assert_eq!(place(&mut table, "b", now), Decision::Wait(Some(limit)));
        assert_eq!(place(&mut table, "b", limit), Decision::Use(1));
    }

    #[test]
    fn without_a_ready_worker_there_is_nothing_but_waiting() {
        let (mut table, now) = ready(2);
        table.lost(1, now);
        table.reported(2, &[], false, now);
        assert_eq!(place(&mut table, "a", now), Decision::Wait(None));
        assert!(table.reported(2, &[], true, now));
        assert_eq!(place(&mut table, "a", now), Decision::Use(2));
    }

    #[test]
    fn a_retiring_worker_keeps_what_it_has_and_gets_nothing_new() {
        let now = Instant::now();
        let mut table = Table::new([(1, false), (7, true)], PATIENCE, now);
        table.reported(1, &[], true, now);
        table.reported(7, &names(&["a"]), true, now);
        for _ in 0..5 {
            assert_eq!(place(&mut table, "b", now), Decision::Use(1));
        }
        assert_eq!(place(&mut table, "a", now), Decision::Use(7));
        table.ended(7, now);
        assert_eq!(place(&mut table, "a", now), Decision::Use(1), "nobody comes back");
    }

    #[test]
    fn a_refusal_frees_the_database_unless_the_worker_says_that_it_has_it() {
        let (mut table, now) = ready(2);
        assert_eq!(place(&mut table, "a", now), Decision::Use(1));
        table.refused("a", 1);
        table.end("a", 1, now);
        table.reported(2, &names(&["a"]), true, now);
        assert_eq!(place(&mut table, "a", now), Decision::Use(2));
        table.refused("a", 2);
        assert_eq!(place(&mut table, "a", now), Decision::Use(2));
    }

    #[test]
    fn a_shared_database_goes_to_the_fewest_sessions() {
        let (mut table, now) = ready(2);
        let decisions: Vec<Decision> = (0..4)
            .map(|_| table.place("lake", Placement::Shared, now))
            .collect();
        assert_eq!(decisions, [1, 2, 1, 2].map(Decision::Use));
    }
}
