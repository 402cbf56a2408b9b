//! What ended sessions leave for those that come after them: a connection to the
//! engine, if nobody can tell it from a new one.

use duckgres::session::{Spare, Timeouts};

use crate::support::message::{bind, describe_statement, execute, parse_as, parse_statement, query, sync};
use crate::support::{Server, Session, Transport};
use crate::thaw::rig::{Rig, Way, state_of};

const SETTINGS: &[(&str, &str)] = &[("TimeZone", "Europe/Paris"), ("application_name", "one")];

/// A session that ran this, one message after the other, and what it leaves.
fn left_by(statements: &[&str]) -> Option<Spare> {
    let (mut rig, mut client) = Rig::with(Way::Plain, SETTINGS, Timeouts::default());
    for sql in statements {
        rig.run(&mut client, &[query(sql)]);
    }
    rig.leave(client)
}

#[test]
fn a_session_that_reads_and_writes_leaves_its_connection() {
    for statements in [
        &[][..],
        &["select 1"],
        &["show TimeZone", "select current_date"],
        &["begin", "select 1", "commit"],
        &["select * from generate_series(1, 10)"],
    ] {
        assert!(left_by(statements).is_some(), "{statements:?}");
    }
    // What it makes itself is there only once.
    let (mut rig, client) = Rig::new(Way::Tls13);
    assert!(rig.leave(client).is_some());
    let connection = rig.instance().connect().unwrap();
    connection.run("create table t (i int)").unwrap();
    let mut client = rig.begin(Way::Plain, &[], connection);
    rig.execute(&mut client, "insert into t values (1), (2)");
    rig.execute(&mut client, "update t set i = 3 where i = 2");
    assert_eq!(rig.rows(&mut client, "delete from t returning i"), ["1", "3"]);
    let extended = rig.run(
        &mut client,
        &[
            parse_statement("named", "select $1::int"),
            describe_statement("named"),
            bind("", "named", &["7"]),
            execute("", 0),
            sync(),
        ],
    );
    assert!(extended.contains(&"DataRow 7".to_owned()), "{extended:?}");
    assert!(rig.leave(client).is_some());
}

#[test]
fn what_a_session_could_leave_in_its_connection_keeps_it_from_others() {
    for statements in [
        &["create temp table t (i int)"][..],
        &["create temp view v as select 1", "drop view v"],
        &["create macro m() as 1"],
        &["set variable v = 1"],
        &["set search_path = 'information_schema'"],
        &["set TimeZone = 'UTC'"],
        &["set application_name = 'two'"],
        &["begin", "set local TimeZone = 'UTC'", "commit"],
        &["select set_config('TimeZone', 'UTC', false)"],
        &["use memory"],
        &["select setseed(0.5)"],
        &["select SetSeed(0.5)"],
        &["pivot (select 1 as a, 2 as b) on a using sum(b)"],
        &["explain select 1"],
        // Of an error nobody knows what it leaves.
        &["select 1/0 from nowhere"],
        &["begin", "select nowhere", "rollback"],
        // And of its end in the middle neither.
        &["begin", "select 1"],
    ] {
        assert!(left_by(statements).is_none(), "{statements:?}");
    }
}

#[test]
fn a_connection_goes_to_the_same_user_with_the_same_settings() {
    let spare = left_by(&["select 1"]).unwrap();
    assert!(spare.suits(&state_of(SETTINGS, None)));
    assert!(!spare.suits(&state_of(&SETTINGS[..1], None)));
    assert!(!spare.suits(&state_of(&[SETTINGS[0], ("application_name", "two")], None)));
    let mut other = state_of(SETTINGS, None);
    other.user = "grace".to_owned();
    assert!(!spare.suits(&other));
}

#[test]
fn the_next_session_goes_on_with_settings_and_plans_that_are_right() {
    let (mut rig, mut client) = Rig::with(Way::Plain, SETTINGS, Timeouts::default());
    let noon = "select timestamptz '2026-07-01 12:00:00+00'";
    let paris = ["2026-07-01 14:00:00+02"];
    assert_eq!(rig.rows(&mut client, noon), paris);
    let spare = rig.leave(client).unwrap();
    let mut client = rig.begin(Way::Tls12, SETTINGS, spare);
    assert_eq!(rig.rows(&mut client, noon), paris);
    assert_eq!(rig.rows(&mut client, "show TimeZone"), ["Europe/Paris"]);
    // RESET goes back to what the session began with.
    rig.execute(&mut client, "set TimeZone = 'UTC'");
    assert_eq!(rig.rows(&mut client, noon), ["2026-07-01 12:00:00+00"]);
    rig.execute(&mut client, "reset TimeZone");
    assert_eq!(rig.rows(&mut client, noon), paris);
    assert!(rig.leave(client).is_none());
}

#[test]
fn a_plan_that_was_left_knows_the_catalog_that_is_there() {
    let (mut rig, client) = Rig::new(Way::Plain);
    let other = rig.instance().connect().unwrap();
    other.run("create table t as select 1 as i").unwrap();
    let spare = rig.leave(client).unwrap();
    let mut client = rig.begin(Way::Plain, &[], spare);
    assert_eq!(rig.rows(&mut client, "select * from t"), ["1"]);
    let spare = rig.leave(client).unwrap();
    other
        .run("create or replace table t as select 'a' as j, 2 as k")
        .unwrap();
    rig.instance().catalog_changed();
    let mut client = rig.begin(Way::Plain, &[], spare);
    assert_eq!(rig.rows(&mut client, "select * from t"), ["a|2"]);
}

#[test]
fn prepared_statements_end_with_their_session() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.run(&mut client, &[parse_as("mine", "select 1", &[]), sync()]);
    rig.execute(&mut client, "prepare also_mine as select 2");
    let spare = rig.leave(client).unwrap();
    let mut client = rig.begin(Way::Plain, &[], spare);
    let answer = rig.run(&mut client, &[bind("", "mine", &[]), sync()]);
    assert_eq!(answer, ["Error 26000", "ReadyForQuery I"]);
    let answer = rig.run(&mut client, &[query("execute also_mine")]);
    assert_eq!(answer, ["Error 26000", "ReadyForQuery I"]);
}

#[test]
fn who_comes_next_is_somebody_else_to_all() {
    if Server::shared().is_postgres() {
        println!("skipped: PostgreSQL's backends serve one session each");
        return;
    }
    let server = Server::duckgres(&[]);
    let mut last: Option<(i32, Vec<u8>)> = None;
    for _ in 0..5 {
        let mut session = Session::over(&server, Transport::Tcp);
        let own = session.key.0;
        assert_eq!(session.rows("select pg_backend_pid()"), [own.to_string()]);
        let listed = "select pid from pg_stat_activity where state = 'active'";
        assert_eq!(session.rows(listed), [own.to_string()]);
        if let Some(key) = last.replace(session.key.clone()) {
            assert_ne!(key.0, own);
            // The key of the session before is nobody's.
            Session::cancel(&key, &server, Transport::Tcp);
        }
        assert_eq!(
            session.rows("select count(*) from range(3000000) t(i) where i % 3 = 0"),
            ["1000000"]
        );
        session.send(&crate::support::message::terminate());
        assert_eq!(session.last_words(), [] as [&str; 0]);
    }
    // The database can be closed, and all is there.
    let mut server = server;
    assert!(server.stop().success());
}
