//! Sessions outlive the process that serves them.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use duckgres::handoff::frozen_versions;
use rustls::version;

use crate::lives::{another_process, booted};
use crate::machine::{Machine, Network, on_each_release};
use crate::support::message::{bind, execute, parse_as, parse_statement, query, sync};
use crate::support::programs::{program_of_next_version, python};
use crate::support::{Answer, Session, eventually};

pub const ALL: &str = "duckgres-worker@*";

on_each_release!(
    a_session_survives_the_restart_of_its_worker,
    psql_and_psycopg_notice_a_pause,
    sessions_go_up_to_the_next_version_and_an_older_one_says_that_it_cannot_read_them,
    every_acknowledged_commit_is_there_and_none_twice,
    what_was_on_its_way_is_answered_after_the_restart,
    any_number_of_sessions_survives,
    the_sessions_of_a_worker_that_is_stopped_go_on_in_the_others,
    a_killed_control_plane_loses_no_session_of_a_rolling_restart,
    a_killed_worker_loses_no_commit,
);

pub fn unit(id: u32) -> String {
    format!("duckgres-worker@{id}.service")
}

/// A session that knows who it is, in three ways that a server must keep.
pub struct Marked {
    pub session: Session,
    number: usize,
    pub pauses: Vec<Duration>,
}

impl Marked {
    #[track_caller]
    pub fn new(mut session: Session, number: usize) -> Marked {
        session.execute(&format!("set application_name = 'marked {number}'"));
        session.execute(&format!("prepare marker as select {number}"));
        let add = format!("select $1 + {number}");
        let prepared = session.run(&[parse_as("add", &add, &[23]), sync()]);
        assert_eq!(prepared, ["ParseComplete", "ReadyForQuery I"]);
        Marked {
            session,
            number,
            pauses: Vec::new(),
        }
    }

    /// Everything is as it was; how long that took to find out is noted.
    #[track_caller]
    pub fn check(&mut self) {
        let (number, began) = (self.number, Instant::now());
        let answer = self
            .session
            .run(&[bind("", "add", &["1000"]), execute("", 0), sync()]);
        assert!(
            answer.contains(&format!("DataRow {}", 1000 + number)),
            "{number}: {answer:?}"
        );
        self.pauses.push(began.elapsed());
        let marker = self.session.rows("execute marker");
        assert_eq!(marker, [number.to_string()]);
        let name = self.session.rows("show application_name");
        assert_eq!(name, [format!("marked {number}")]);
    }
}

/// The pauses among answers: median, 99 % and the longest.
pub fn quantiles(mut pauses: Vec<Duration>) -> String {
    pauses.sort_unstable();
    let at = |share: f64| pauses.get(((pauses.len() as f64 - 1.0) * share) as usize);
    format!(
        "{} answers, median {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        pauses.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        pauses.last()
    )
}

fn a_session_survives_the_restart_of_its_worker(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let network = machine.network();
    let over = |version| network.log_in_over(network.tcp().unwrap(), version, "u0");
    let sessions = [
        over(&version::TLS13),
        over(&version::TLS12),
        machine.connect_locally("u0"),
    ];
    let mut marked: Vec<Marked> = sessions
        .into_iter()
        .zip(1..)
        .map(|(s, n)| Marked::new(s, n))
        .collect();
    marked[0].session.execute("create table t as select 42 as i");
    for one in &mut marked {
        one.session.execute("create temp table mine as select 43 as i");
    }
    for _ in 0..3 {
        let before = machine.main_process(&unit(1));
        machine.systemctl(&["restart", &unit(1)]);
        assert_ne!(machine.main_process(&unit(1)), before);
        for one in &mut marked {
            one.check();
            assert_eq!(one.session.rows("select t.i, mine.i from t, mine"), ["42|43"]);
        }
        // The store is empty again.
        machine.await_property(&unit(1), "NFileDescriptorStore", "0");
    }
    let said = machine.journal(&["--unit", &unit(1)]);
    assert!(said.contains("all sessions are at rest"), "{said}");
}

fn the_sessions_of_a_worker_that_is_stopped_go_on_in_the_others(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    let network = machine.network();
    let over = |user| network.log_in_over(network.tcp().unwrap(), &version::TLS13, user);
    // One of them is the first worker's.
    let mut marked: Vec<Marked> = ["u0", "u1"]
        .into_iter()
        .zip(1..)
        .map(|(user, number)| Marked::new(over(user), number))
        .collect();
    for one in &mut marked {
        one.session.execute("create table t as select 42 as i");
        one.session.execute("create temp table mine as select 43 as i");
    }
    machine.systemctl(&["stop", "duckgres-worker@1.socket", &unit(1)]);
    assert_eq!(machine.property(&unit(1), "ActiveState"), "inactive");
    for one in &mut marked {
        one.check();
        assert_eq!(one.session.rows("select t.i, mine.i from t, mine"), ["42|43"]);
    }
    // New ones find the databases where they are now.
    for user in ["u0", "u1"] {
        assert_eq!(over(user).rows("select i from t"), ["42"]);
    }
    let said = machine.journal(&["--unit", &unit(1)]);
    assert!(said.contains("left sessions to other workers"), "{said}");
}

fn sessions_go_up_to_the_next_version_and_an_older_one_says_that_it_cannot_read_them(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    let mut marked = crowd(&machine.network(), 12, 4);
    marked[0].session.execute("create table t as select 42 as i");
    machine.replace_program("duckgres-worker", program_of_next_version());
    // Into it, and from one of its processes to another.
    for _ in 0..2 {
        machine.systemctl(&["restart", ALL]);
        marked.iter_mut().for_each(Marked::check);
        assert_eq!(marked[0].session.rows("select i from t"), ["42"]);
    }
    machine.restore_program("duckgres-worker");
    machine.systemctl(&["restart", ALL]);
    for one in &mut marked {
        assert_eq!(one.session.last_words(), [] as [&str; 0]);
    }
    let known = frozen_versions();
    let said = format!(
        "6 sessions of an earlier process are closed: a newer version of the program has frozen them, in \
         format {}, and this one reads formats {} to {}",
        known.end() + 1,
        known.start(),
        known.end()
    );
    let journal = machine.journal(&[]);
    assert_eq!(journal.matches(&said).count(), 2, "{journal}");
    // The databases are there, and serve.
    let again = Marked::new(machine.connect("u0"), 1);
    let mut marked = [again, Marked::new(machine.connect("u1"), 2)];
    assert_eq!(marked[0].session.rows("select i from t"), ["42"]);
    machine.systemctl(&["restart", ALL]);
    marked.iter_mut().for_each(Marked::check);
}

/// A program that answers each line with a line.
pub struct Talker {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Talker {
    pub fn start(mut command: Command) -> Talker {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Talker { child, answers }
    }

    /// What it answers to that.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        let mut stdin = self.child.stdin.as_ref().unwrap();
        writeln!(stdin, "{line}").unwrap();
        self.answers.next().expect("it has ended").unwrap()
    }

    #[track_caller]
    pub fn leave(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Prepares its statement when it is run for the first time, as psycopg does.
const PSYCOPG: &str = "
import psycopg, sys
with psycopg.connect(sys.argv[1], autocommit=True, prepare_threshold=0) as connection:
    for line in sys.stdin:
        print(connection.execute('select %s::int + 40', [int(line)], prepare=True).fetchone()[0], flush=True)
";

fn psql_and_psycopg_notice_a_pause(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let to = "host=127.0.0.1 user=u0 dbname=u0 password=not-a-secret sslmode=require";
    let mut psql = machine.command_in_network(Path::new("psql"));
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", to]);
    let mut psql = Talker::start(psql);
    let mut psycopg = machine.command_in_network(Path::new(python().get_program()));
    psycopg.args(["-c", PSYCOPG, to]);
    let mut psycopg = Talker::start(psycopg);
    let prepared = "prepare add(int) as select $1 + 40; set application_name = 'still me'; select 1;";
    assert_eq!(psql.ask(prepared), "1");
    assert_eq!(psycopg.ask("1"), "41");
    for _ in 0..3 {
        machine.systemctl(&["restart", &unit(1)]);
        assert_eq!(psql.ask("execute add(2);"), "42");
        assert_eq!(psql.ask("show application_name;"), "still me");
        assert_eq!(psycopg.ask("2"), "42");
    }
    psql.leave();
    psycopg.leave();
}

/// Checks all of them again and again while `events` happen.
pub fn in_a_loop(marked: Vec<Marked>, events: impl FnOnce()) -> Vec<Marked> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let loops: Vec<_> = marked
            .into_iter()
            .map(|mut marked| {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        marked.check();
                    }
                    marked
                })
            })
            .collect();
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(events));
        done.store(true, Ordering::Relaxed);
        let marked = loops.into_iter().map(|one| one.join().unwrap()).collect();
        happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        marked
    })
}

/// So many sessions of some users, over TLS of both versions and without.
pub fn crowd(network: &Network, count: usize, users: usize) -> Vec<Marked> {
    let ways = [Some(&version::TLS13), Some(&version::TLS12), None];
    (0..count)
        .map(|number| {
            let (user, way) = (format!("u{}", number % users), ways[number / users % 3]);
            Marked::new(network.connect_over(way, &user), number)
        })
        .collect()
}

/// A writer inserts numbers; it knows which were acknowledged.
fn writer(session: &mut Session, next: &mut u64) -> bool {
    let insert = format!("insert into numbers values ({})", *next);
    if session.try_send(&query(&insert)).is_err() {
        return false;
    }
    let mut acknowledged = false;
    while let Some(answer) = session.next_or_end() {
        match answer {
            Answer::CommandComplete(_) => acknowledged = true,
            Answer::ReadyForQuery(_) => break,
            _ => {}
        }
    }
    *next += u64::from(acknowledged);
    acknowledged
}

fn every_acknowledged_commit_is_there_and_none_twice(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    let network = machine.network();
    let written = Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    let sessions = ["u0", "u1", "u2", "u3"].map(|user| (user, network.connect(user)));
    thread::scope(|scope| {
        for (user, mut session) in sessions {
            let (done, written) = (&done, &written);
            scope.spawn(move || {
                session.execute("create table numbers (i bigint)");
                let mut next = 0;
                while !done.load(Ordering::Relaxed) {
                    assert!(writer(&mut session, &mut next), "a statement failed");
                }
                written.lock().unwrap().push((user, next));
            });
        }
        let happened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..5 {
                machine.systemctl(&["restart", ALL]);
            }
        }));
        done.store(true, Ordering::Relaxed);
        happened.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    for (user, count) in written.into_inner().unwrap() {
        println!("{user}: {count} commits");
        let found = machine
            .connect(user)
            .rows("select count(*), count(distinct i), max(i) + 1 from numbers");
        assert_eq!(found, [format!("{count}|{count}|{count}")], "{user}");
    }
}

pub const BUSY: &str = "from range(16000) a(i), range(16000) b(j) where (a.i * b.j) % 7 = 1";

/// What clients have said, or not yet said wholly, when their worker is gone.
fn what_was_on_its_way_is_answered_after_the_restart(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let network = machine.network();
    let mut half = Marked::new(machine.connect_locally("u0"), 1);
    let mut pipelined = Marked::new(network.connect("u0"), 2);
    let gone = Marked::new(network.connect("u0"), 3);
    let mut asked = Marked::new(network.connect("u0"), 4);
    let mut record = Marked::new(network.connect("u0"), 5);
    let key = asked.session.key.clone();
    // Half a message before the restart.
    let message = query("select 1 + 1");
    let (first, second) = message.split_at(9);
    half.session.send(first);
    let before = machine.main_process(&unit(1));
    // Half a TLS record, too.
    record.session.send_in_two(&query("select 2 + 2"), 9, || {
        // The next process does not start as long as this is in its way.
        machine.replace_program("duckgres-worker", "#!/bin/sh\nexit 3\n");
        machine.systemctl(&["restart", "--no-block", &unit(1)]);
        eventually("the old process is gone", || {
            let restarts: u32 = machine.property(&unit(1), "NRestarts").parse().unwrap();
            (restarts >= 1).then_some(())
        });
        half.session.send(second);
        let ten: Vec<Vec<u8>> = (0..10)
            .flat_map(|i| {
                [
                    parse_statement("", &format!("select {i}")),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ]
            })
            .collect();
        pipelined.session.send(&ten.concat());
        gone.session.vanish();
        // It concerns nothing that runs.
        let mut messenger = machine_tcp(&network);
        std::io::Write::write_all(
            &mut messenger,
            &crate::support::message::cancel_request(key.0, &key.1),
        )
        .unwrap();
        machine.restore_program("duckgres-worker");
        another_process(&machine, &unit(1), before);
    });
    assert!(record.session.transcript().contains(&"DataRow 4".to_owned()));
    record.check();
    assert!(half.session.transcript().contains(&"DataRow 2".to_owned()));
    for i in 0..10 {
        let answer = pipelined.session.transcript();
        assert!(answer.contains(&format!("DataRow {i}")), "{answer:?}");
    }
    asked.check();
    half.check();
    pipelined.check();
    // Its key still is its key.
    asked.session.send(&query(&format!("select count(*) {BUSY}")));
    eventually("the statement runs", || {
        let running = "select count(*) from pg_stat_activity where state = 'active' and query like '%range(16000)%' and query not like '%pg_stat%'";
        (half.session.rows(running) == ["1"]).then_some(())
    });
    let mut messenger = machine_tcp(&network);
    std::io::Write::write_all(
        &mut messenger,
        &crate::support::message::cancel_request(key.0, &key.1),
    )
    .unwrap();
    let answer = asked.session.transcript();
    assert!(answer.iter().any(|line| line.contains("57014")), "{answer:?}");
    asked.check();
    eventually("who has left is gone", || {
        (half.session.rows("select count(*) from pg_stat_activity") == ["4"]).then_some(())
    });
}

/// What a worker has noted of its restarts.
pub fn print_what_took_how_long(machine: &Machine, id: u32) {
    let said = machine.journal(&["--unit", &unit(id), "--output=short-precise"]);
    let of_restarts = [
        "its turn",
        "at rest",
        "are frozen",
        "left to the next",
        "closed all",
        "Starting",
        "taken up",
        "go on",
    ];
    said.lines()
        .filter(|line| of_restarts.iter().any(|what| line.contains(what)))
        .for_each(|line| println!("{line}"));
}

fn machine_tcp(network: &Network) -> std::net::TcpStream {
    network.tcp().unwrap()
}

fn any_number_of_sessions_survives(mut machine: Machine) {
    booted(&mut machine, &[1]);
    let network = machine.network();
    let mut marked = Vec::new();
    for count in [1, 100, 1000] {
        while marked.len() < count {
            let number = marked.len();
            marked.push(Marked::new(network.connect("u0"), number));
        }
        let began = Instant::now();
        machine.systemctl(&["restart", &unit(1)]);
        let restarted = began.elapsed();
        marked.iter_mut().for_each(|one| one.pauses.clear());
        for one in &mut marked {
            one.check();
        }
        println!("{count} sessions: restarted in {restarted:?}");
    }
    print_what_took_how_long(&machine, 1);
}

fn a_killed_control_plane_loses_no_session_of_a_rolling_restart(mut machine: Machine) {
    booted(&mut machine, &[1, 2, 3]);
    let marked = crowd(&machine.network(), 24, 6);
    in_a_loop(marked, || {
        for round in 0..20u64 {
            machine.systemctl(&["restart", "--no-block", ALL]);
            thread::sleep(Duration::from_millis(137 * round % 1900));
            let before = machine.main_process("duckgres.service");
            machine.signal("duckgres.service", "KILL");
            another_process(&machine, "duckgres.service", before);
            for id in 1..=3 {
                machine.await_property(&unit(id), "ActiveState", "active");
            }
        }
    });
}

/// Twenty times: what was acknowledged is there, the other worker's sessions go on.
fn a_killed_worker_loses_no_commit(mut machine: Machine) {
    booted(&mut machine, &[1, 2]);
    let network = machine.network();
    let mut session = network.connect("u0");
    session.execute("create table numbers (i bigint)");
    let other = Marked::new(network.connect("u1"), 1);
    assert_ne!(session.worker(), other.session.worker());
    let victim = unit(session.worker());
    let mut next = 0;
    in_a_loop(vec![other], || {
        for _ in 0..20 {
            thread::scope(|scope| {
                let (machine, victim) = (&machine, &victim);
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(100));
                    machine.signal(victim, "KILL");
                });
                while writer(&mut session, &mut next) {}
            });
            let died = Instant::now();
            session = network.connect("u0");
            let found = session.rows("select count(*), count(distinct i) from numbers where i < 1000000000");
            let served = died.elapsed();
            assert!(served < Duration::from_secs(30));
            // The last one was perhaps committed and not acknowledged.
            let (least, most) = (format!("{next}|{next}"), format!("{0}|{0}", next + 1));
            assert!(found == [least] || found == [most.clone()], "{found:?}, {next}");
            if found == [most] {
                next += 1;
            }
            println!("{next} commits, served again after {served:?}");
        }
    });
}
