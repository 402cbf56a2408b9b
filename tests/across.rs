//! What users see and stop of each other's sessions in other workers.

use std::collections::HashSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::message::*;
use crate::support::session::V3_0;
use crate::support::{Server, Session, Transport, eventually};
use crate::wire::ENDLESS;

const PASSWORD: &str = "correct horse";

/// A server with three workers, alice, bob, who may also use alice's database, and
/// the administrator root; `None` when the tests are run against PostgreSQL.
fn server(arguments: &[&str]) -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's workers");
        return None;
    }
    let yaml = format!(
        "users:\n  alice: {PASSWORD}\n  bob: {{password: {PASSWORD}, databases: [alice, bob]}}\n  \
         root: {{password: {PASSWORD}, admin: on}}\n"
    );
    let mut all = vec!["--worker-count", "3"];
    all.extend(arguments);
    Some(Server::configured(&yaml, ("alice", PASSWORD), &all))
}

fn connect(server: &Server, user: &str, database: &str) -> Session {
    let mut session = Session::open(server, Transport::Tcp);
    session.send(&startup(V3_0, &[("user", user), ("database", database)]));
    session.authenticate(PASSWORD).unwrap();
    session.become_ready();
    session
}

/// Sessions of alice, bob and root in a worker each.
fn everywhere(server: &Server) -> [Session; 3] {
    let sessions = ["alice", "bob", "root"].map(|user| connect(server, user, user));
    let workers: HashSet<u32> = sessions.iter().map(Session::worker).collect();
    assert_eq!(workers.len(), 3);
    sessions
}

/// Waits until each worker can ask the others, which follows its first report.
fn acquainted(sessions: &mut [Session; 3]) {
    let ids: Vec<i32> = sessions.iter().map(|session| session.key.0).collect();
    for (session, other) in sessions.iter_mut().zip([ids[1], ids[2], ids[0]]) {
        // It is idle and does not mind.
        let cancel = format!("select pg_cancel_backend({other})");
        eventually("the workers know of each other", || {
            let answers = session.query(&cancel);
            let known = answers
                .iter()
                .any(|answer| answer == "Error 42501" || answer == "DataRow t");
            known.then_some(())
        });
    }
}

const ALL: &str = "select usename, datname, state from pg_stat_activity order by usename, datname";

#[test]
fn a_user_sees_own_sessions_in_all_workers_and_an_administrator_all() {
    let Some(server) = server(&[]) else { return };
    let mut sessions = everywhere(&server);
    acquainted(&mut sessions);
    let [mut alice, mut bob, mut root] = sessions;
    let mut guest = connect(&server, "bob", "alice");
    guest.execute("begin; select 'a secret of bob'");
    assert_eq!(alice.rows(ALL), ["alice|alice|active"]);
    assert_eq!(bob.rows(ALL), ["bob|alice|idle in transaction", "bob|bob|active"]);
    assert_eq!(
        root.rows(ALL),
        [
            "alice|alice|idle",
            "bob|alice|idle in transaction",
            "bob|bob|idle",
            "root|root|active"
        ]
    );
    let of_guest = format!(
        "select query, client_addr, xact_start is not null, query_start >= backend_start from pg_stat_activity where pid = {}",
        guest.key.0
    );
    assert_eq!(
        root.rows(&of_guest),
        ["begin; select 'a secret of bob'|127.0.0.1|t|t"].map(|row| row.replace("begin; ", ""))
    );
    assert_eq!(alice.rows(&of_guest), [] as [&str; 0]);
}

#[test]
fn sessions_of_other_workers_are_stopped_by_those_who_may() {
    let Some(server) = server(&[]) else { return };
    let mut sessions = everywhere(&server);
    acquainted(&mut sessions);
    let [mut alice, mut bob, mut root] = sessions;
    let mut busy = connect(&server, "bob", "alice");
    let id = busy.key.0;
    busy.send(&query(ENDLESS));
    let running = format!("select count(*) from pg_stat_activity where state = 'active' and pid = {id}");
    eventually("it runs", || (bob.rows(&running) == ["1"]).then_some(()));
    // One that comes before the statement has really begun concerns nothing.
    eventually("it is cancelled", || {
        bob.rows(&format!("select pg_cancel_backend({id})"));
        (bob.rows(&running) == ["0"]).then_some(())
    });
    let answers = busy.transcript();
    assert!(answers.contains(&"Error 57014".to_owned()), "{answers:?}");
    busy.settle();

    for (target, of) in [(bob.key.0, "another worker"), (id, "its own")] {
        for function in ["pg_cancel_backend", "pg_terminate_backend"] {
            let error = alice.error(&format!("select {function}({target})"));
            assert_eq!(error.sqlstate(), "42501", "{function} in {of}");
        }
    }
    for nobody in [0, 1, -1, i32::MAX, id + 1] {
        let done = root.rows(&format!("select pg_terminate_backend({nobody})"));
        assert_eq!(done, ["f"], "{nobody}");
    }
    assert_eq!(
        root.rows("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bob'"),
        ["t", "t"]
    );
    for session in [&mut busy, &mut bob] {
        assert_eq!(session.last_words(), ["Error FATAL 57P01"]);
    }
    assert_eq!(alice.rows("select 1 as a"), ["1"]);
}

#[test]
fn databases_are_counted_over_all_workers() {
    let Some(server) = server(&[]) else { return };
    let mut sessions = everywhere(&server);
    acquainted(&mut sessions);
    let [mut alice, mut bob, mut root] = sessions;
    let committed = "select xact_commit from pg_stat_database where datname = 'bob'";
    let before: i64 = root.rows(committed)[0].parse().unwrap();
    bob.execute("begin; select 1; select 2; commit");
    bob.execute("select 3");
    assert_eq!(root.rows(committed), [(before + 2).to_string()]);
    let counts = "select datname, numbackends, xact_rollback > 0 from pg_stat_database \
                  where datname <> 'root' order by 1";
    bob.error("select nosuch");
    assert_eq!(root.rows(counts), ["alice|1|t", "bob|1|t"]);
    assert_eq!(alice.rows("select datname from pg_stat_database"), ["alice"]);
}

#[test]
fn a_worker_that_does_not_answer_is_left_out() {
    let Some(server) = server(&["--hang-timeout", "1h"]) else {
        return;
    };
    let mut sessions = everywhere(&server);
    acquainted(&mut sessions);
    let [mut alice, bob, mut root] = sessions;
    let process = Pid::from_raw(server.worker_process(alice.worker()).try_into().unwrap());
    kill(process, Signal::SIGSTOP).unwrap();
    let users = "select usename from pg_stat_activity order by 1";
    assert_eq!(root.rows(users), ["bob", "root"]);
    assert_eq!(
        root.rows(&format!("select pg_cancel_backend({})", alice.key.0)),
        ["f"]
    );
    kill(process, Signal::SIGCONT).unwrap();
    eventually("it is back", || {
        (root.rows(users) == ["alice", "bob", "root"]).then_some(())
    });
    assert_eq!(alice.rows("select 1 as a"), ["1"]);
    drop(bob);
}

#[test]
fn without_a_control_plane_a_worker_answers_for_itself() {
    let Some(mut server) = server(&[]) else { return };
    let mut sessions = everywhere(&server);
    acquainted(&mut sessions);
    server.die();
    for (session, user) in sessions.iter_mut().zip(["alice", "bob", "root"]) {
        assert_eq!(session.rows("select usename from pg_stat_activity"), [user]);
        assert_eq!(session.rows("select datname from pg_stat_database"), [user]);
    }
    let stranger = sessions[0].key.0;
    let [_, _, root] = &mut sessions;
    assert_eq!(root.rows(&format!("select pg_cancel_backend({stranger})")), ["f"]);
    let error = root.error("drop database alice");
    assert_eq!(
        (error.sqlstate(), error.field('D')),
        ("55006", "Another process has it open.")
    );
    let _server = server.start_again();
    acquainted(&mut sessions);
}

#[test]
fn what_a_control_plane_was_asked_while_it_stood_still_does_not_happen_later() {
    let Some(server) = server(&[]) else { return };
    let mut sessions = everywhere(&server);
    acquainted(&mut sessions);
    server.signal(Signal::SIGSTOP);
    let [alice, _, root] = &mut sessions;
    let terminate = format!("select pg_terminate_backend({})", alice.key.0);
    assert_eq!(root.rows(&terminate), ["f"]);
    assert_eq!(root.rows("select usename from pg_stat_activity"), ["root"]);
    server.signal(Signal::SIGCONT);
    acquainted(&mut sessions);
    let [alice, ..] = &mut sessions;
    assert_eq!(alice.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_worker_that_was_replaced_asks_and_is_asked() {
    let Some(server) = server(&[]) else { return };
    let mut sessions = everywhere(&server);
    acquainted(&mut sessions);
    let process = Pid::from_raw(server.worker_process(sessions[0].worker()).try_into().unwrap());
    kill(process, Signal::SIGKILL).unwrap();
    assert_eq!(sessions[0].last_words(), [] as [&str; 0]);
    sessions[0] = connect(&server, "root", "alice");
    acquainted(&mut sessions);
    let [new, ..] = &mut sessions;
    assert_eq!(new.rows("select count(*) from pg_stat_activity"), ["3"]);
}
