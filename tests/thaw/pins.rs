//! What keeps a session where it is, and for how long.

use duckgres::session::Pin;

use super::rig::{Rig, Way};
use crate::support::message::{bind, describe_statement, execute, flush, parse_statement, sync};

#[test]
fn a_transaction_pins_until_it_ends() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "begin");
    assert_eq!(rig.pin(), Some(Pin::Transaction));
    rig.run(&mut client, &[crate::support::message::query("select nonsense")]);
    assert_eq!(rig.pin(), Some(Pin::Transaction));
    rig.execute(&mut client, "rollback");
    assert_eq!(rig.pin(), None);
    rig.move_on();
    assert_eq!(rig.rows(&mut client, "select 1"), ["1"]);
}

#[test]
fn a_pipeline_pins_from_its_first_bind_to_its_sync() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    // What is prepared needs no Sync to be carried.
    client.send(
        &[
            parse_statement("", "select 5 as n"),
            describe_statement(""),
            flush(),
        ]
        .concat(),
    );
    rig.serve();
    assert_eq!(
        client.take(3),
        ["ParseComplete", "ParameterDescription", "RowDescription n:int4"]
    );
    rig.move_on();
    client.send(&[bind("", "", &[]), flush()].concat());
    rig.serve();
    assert_eq!(rig.pin(), Some(Pin::Statement));
    client.send(&[execute("", 0), flush()].concat());
    rig.serve();
    assert_eq!(rig.pin(), Some(Pin::Statement));
    client.send(&sync());
    rig.serve();
    assert_eq!(rig.pin(), None);
    assert_eq!(
        client.transcript(),
        [
            "BindComplete",
            "DataRow 5",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn what_cannot_be_carried_pins_as_long_as_it_is_there() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    for (make, drop) in [
        (
            "create temp table x (a int, b int generated always as (a + 1))",
            "drop table x",
        ),
        (
            "create temp table x (a int primary key, b int references x(a))",
            "drop table x",
        ),
        // As a text it is a plain 1.
        (
            "create temp table x as select union_value(k := 1) as a",
            "drop table x",
        ),
        (
            "create temp table x as select repeat('x', 1000) as a from range(20000)",
            "drop table x",
        ),
        // What it was made of is gone.
        (
            "create temp table y (a int); create temp view x as select a from y; drop table y",
            "drop view x",
        ),
        ("create temp macro x(a) as a", "drop macro x"),
        ("create temp sequence x", "drop sequence x"),
        ("create temp type x as enum ('a')", "drop type x"),
        (
            "create temp table x (a int, b int generated always as (a))",
            "discard temp",
        ),
        (
            "create temp table x (a int, b int generated always as (a))",
            "discard all",
        ),
        ("begin; create temp sequence x; commit", "drop sequence x"),
        // As a text it is a plain 1.
        ("set variable x = union_value(k := 1)", "reset variable x"),
    ] {
        rig.execute(&mut client, make);
        assert_eq!(rig.pin(), Some(Pin::Temporary), "{make}");
        rig.execute(&mut client, drop);
        assert_eq!(rig.pin(), None, "{drop}");
    }
    rig.move_on();
    assert_eq!(rig.rows(&mut client, "select 1 as a"), ["1"]);
}

#[test]
fn what_others_and_the_engine_make_pins_nobody() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "create table t (year int, country varchar, n int)");
    rig.execute(
        &mut client,
        "insert into t values (2000, 'NL', 1), (2010, 'NL', 2), (2000, 'US', 3)",
    );
    rig.execute(
        &mut client,
        "create view v as select 1; create sequence s; create macro m(a) as a; create type e as enum ('a')",
    );
    let pivot = "pivot t on year using sum(n) group by country order by country";
    let before = rig.rows(&mut client, pivot);
    assert_eq!(rig.pin(), None);
    let other = rig.instance().connect().unwrap();
    other.run("create temp table x (a int)").unwrap();
    assert_eq!(rig.pin(), None);
    drop(other);
    rig.move_on();
    assert_eq!(rig.rows(&mut client, pivot), before);
    rig.move_on();
}

#[test]
fn a_session_that_ends_is_not_moved() {
    let (mut rig, client) = Rig::new(Way::Plain);
    rig.session().handle().end();
    assert_eq!(rig.pin(), Some(Pin::Ending));
    drop(client);
    for way in [Way::Tls12, Way::Tls13] {
        let (mut rig, mut client) = Rig::new(way);
        rig.session().handle().hold();
        client.send(&crate::support::message::query("create table t (a int)"));
        client.close_notify();
        rig.session().handle().release();
        assert!(
            matches!(rig.session().run(), duckgres::session::Pause::Over(_)),
            "{way:?}"
        );
        assert_eq!(rig.pin(), Some(Pin::Ending), "{way:?}");
    }
}
