//! What a session still has afterwards.

use std::time::Duration;

use duckgres::session::Timeouts;

use super::rig::{BACKEND, KEY, Rig, Way};
use crate::support::message::{
    bind, close_statement, describe_statement, execute, parse_as, parse_statement, query, sync,
};

#[test]
fn settings_go_on_and_go_back_to_where_they_began() {
    let startup = [
        ("application_name", "tool"),
        ("my.begun", "early"),
        ("TimeZone", "Asia/Tokyo"),
    ];
    let (mut rig, mut client) = Rig::with(Way::Plain, &startup, Timeouts::default());
    for sql in [
        "set application_name = 'other'",
        "set my.begun = 'late'",
        "set my.own = 'x''y'",
        "set extra_float_digits = 0",
        "set time zone 'America/New_York'",
        "set integer_division = true",
        "set tcp_keepalives_idle = 77",
        "set statement_timeout = '33s'",
    ] {
        rig.execute(&mut client, sql);
    }
    let all = rig.rows(&mut client, "show all");
    rig.move_on();
    assert_eq!(rig.rows(&mut client, "show all"), all);
    assert_eq!(
        rig.rows(
            &mut client,
            "select '2024-01-01 12:00:00+00'::timestamptz, 7 / 2, 0.1::float8 + 0.2"
        ),
        ["2024-01-01 07:00:00-05|3|0.3"]
    );
    assert_eq!(
        rig.run(&mut client, &[query("reset all")]),
        [
            "ParameterStatus TimeZone=Asia/Tokyo",
            "ParameterStatus application_name=tool",
            "CommandComplete RESET",
            "ReadyForQuery I"
        ]
    );
    for (name, value) in [
        ("my.begun", "early"),
        ("statement_timeout", "0"),
        ("extra_float_digits", "1"),
    ] {
        assert_eq!(rig.rows(&mut client, &format!("show {name}")), [value]);
    }
    rig.move_on();
    assert_eq!(
        rig.rows(&mut client, "select 7 / 2, '2024-01-01 12:00:00+00'::timestamptz"),
        ["3.5|2024-01-01 21:00:00+09"]
    );
}

#[test]
fn the_smaller_of_two_timeouts_counts() {
    let limits = |seconds| Timeouts {
        statement: Some(Duration::from_secs(seconds)),
        ..Timeouts::default()
    };
    let (mut rig, mut client) = Rig::with(Way::Plain, &[], limits(60));
    rig.execute(&mut client, "set statement_timeout = '40s'");
    rig.policy().set_timeouts(limits(30));
    rig.move_on();
    assert_eq!(rig.rows(&mut client, "show statement_timeout"), ["30s"]);
    rig.policy().set_timeouts(limits(90));
    rig.move_on();
    assert_eq!(rig.rows(&mut client, "show statement_timeout"), ["30s"]);
    rig.execute(&mut client, "reset statement_timeout");
    assert_eq!(rig.rows(&mut client, "show statement_timeout"), ["30s"]);
    assert!(rig.run(&mut client, &[query("set statement_timeout = '2min'")])[0].starts_with("Error 42501"));
}

#[test]
fn a_setting_that_is_not_known_is_lost_and_the_session_is_not() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "set my.own = 'x'");
    let mut frozen = rig.freeze();
    rig.close();
    let state = frozen.state.frozen.as_mut().unwrap();
    for (name, value) in [
        ("of_another_version", "1"),
        ("jit", "maybe"),
        ("TimeZone", "Mars/Base"),
        ("integer_division", "never"),
    ] {
        state.values.push((name.to_owned(), value.to_owned()));
    }
    state.search_path = Some("no.such.schema".to_owned());
    rig.thaw(frozen);
    assert_eq!(rig.rows(&mut client, "show my.own"), ["x"]);
    assert_eq!(rig.rows(&mut client, "show integer_division"), ["false"]);
    assert_eq!(rig.rows(&mut client, "show timezone"), ["UTC"]);
}

#[test]
fn names_are_looked_for_where_the_session_has_said() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    for sql in [
        "create schema one; create table one.t as select 1 as a",
        "create schema two; create table two.t as select 2 as a",
        "create schema \"Odd, \"\"name\"\"\"; create table \"Odd, \"\"name\"\"\".t as select 2 as a",
    ] {
        rig.execute(&mut client, sql);
    }
    for sql in [
        "set search_path = 'two,one'",
        "set schema = 'one'; use two",
        "use one; set search_path = 'two,one'",
        "use analytics.two",
        "set schema = '\"Odd, \"\"name\"\"\"'",
    ] {
        for one in sql.split("; ") {
            rig.execute(&mut client, one);
        }
        let ask = "select current_setting('search_path'), current_schema(), a from t";
        let asked = rig.rows(&mut client, ask);
        assert!(asked[0].ends_with("|2"), "{sql}: {asked:?}");
        let shown = rig.rows(&mut client, "show search_path");
        for _ in 0..2 {
            rig.move_on();
            assert_eq!(rig.rows(&mut client, ask), asked, "{sql}");
            assert_eq!(rig.rows(&mut client, "show search_path"), shown, "{sql}");
        }
        rig.execute(&mut client, "reset all");
    }
}

#[test]
fn prepared_statements_of_both_kinds_are_still_there() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(
        &mut client,
        "create table t (a int, b varchar); insert into t values (1, 'x'), (2, 'y')",
    );
    rig.execute(&mut client, "prepare p (int) as select b from t where a = $1");
    rig.run(
        &mut client,
        &[
            parse_as("s", "select b, $2 as n from t where a = $1", &[23, 1700]),
            parse_statement("gone", "select 1"),
            parse_statement("", "select count(*) as n from t"),
            close_statement("gone"),
            describe_statement("s"),
            sync(),
        ],
    );
    let ask = |name: &str| {
        [
            describe_statement(name),
            bind("", name, &["2", "1.25"]),
            execute("", 0),
            sync(),
        ]
    };
    let before = rig.run(&mut client, &ask("s"));
    assert!(before.contains(&"DataRow y|1.25".to_owned()), "{before:?}");
    // The unnamed one is replaced by simple queries.
    rig.run(
        &mut client,
        &[parse_statement("", "select count(*) as n from t"), sync()],
    );
    rig.move_on();
    assert_eq!(
        rig.run(&mut client, &[bind("", "", &[]), execute("", 0), sync()]),
        [
            "BindComplete",
            "DataRow 2",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(rig.run(&mut client, &ask("s")), before);
    assert_eq!(rig.rows(&mut client, "execute p(1)"), ["x"]);
    assert!(rig.run(&mut client, &[query("prepare p as select 1")])[0].starts_with("Error 42P05"));
    assert!(rig.run(&mut client, &[bind("", "gone", &[]), sync()])[0].starts_with("Error 26000"));
    rig.execute(&mut client, "deallocate p");
    rig.move_on();
    assert!(rig.run(&mut client, &[query("execute p(1)")])[0].starts_with("Error 26000"));
}

#[test]
fn a_row_that_the_client_knows_does_not_change_behind_its_back() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "create table t (a int); insert into t values (1)");
    rig.run(
        &mut client,
        &[
            parse_statement("s", "select * from t"),
            describe_statement("s"),
            sync(),
        ],
    );
    let ask = [bind("", "s", &[]), execute("", 0), sync()];
    let frozen = rig.freeze();
    rig.close();
    rig.instance()
        .connect()
        .unwrap()
        .run("alter table t add column b int default 7")
        .unwrap();
    rig.thaw(frozen);
    assert_eq!(
        rig.run(&mut client, &ask),
        ["Error 0A000", "ReadyForQuery I"].map(str::to_owned)
    );
}

#[test]
fn variables_keep_their_values_and_types() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    for sql in [
        "set variable i = 1::tinyint",
        "set variable f = 0.1::float8 + 0.2::float8",
        "set variable n = null",
        "set variable \"odd, \"\"name\"\"\" = 'it''s; \\ \"q\"'",
        "set variable l = ['a', null, 'b, c', 'it''s \"x\"']",
        "set variable s = {'a': 1::decimal(18,3), 'b c': [{'d': date '2024-02-29'}]}",
        "set variable m = map {'k': timestamptz '2024-01-01 00:00:00+03'}",
        "set variable b = '\\xAA\\x00'::blob",
        "set variable e = 'b'::enum('a', 'b')",
        "set variable iv = interval '1 month 2 days 3.5 seconds'",
        "set variable gone = 1",
        "reset variable gone",
    ] {
        rig.execute(&mut client, sql);
    }
    assert_eq!(
        rig.run(&mut client, &[query("set variable i = 2::tinyint")]),
        ["CommandComplete SET", "ReadyForQuery I"]
    );
    let ask = "select name, value, type from duckdb_variables() order by name";
    let before = rig.rows(&mut client, ask);
    assert_eq!(before.len(), 10);
    let odd = "select getvariable('odd, \"name\"'), getvariable('f') = 0.1::float8 + 0.2::float8";
    let odd_before = rig.rows(&mut client, odd);
    rig.move_on();
    assert_eq!(rig.rows(&mut client, ask), before);
    assert_eq!(rig.rows(&mut client, odd), odd_before);
    rig.move_on();
    assert_eq!(rig.rows(&mut client, ask), before);
}

#[test]
fn others_know_the_session_as_before() {
    let (mut rig, mut client) = Rig::with(Way::Plain, &[("application_name", "tool")], Timeouts::default());
    rig.execute(&mut client, "select 'a marker'");
    let before = rig.session().handle().activity();
    let frozen = rig.freeze();
    assert_eq!(
        (frozen.state.user.as_str(), frozen.state.database.as_str()),
        ("ada", "analytics")
    );
    assert_eq!(frozen.state.peer.address, "203.0.113.7:50312");
    assert!(frozen.state.admin);
    let state = frozen.state.frozen.as_ref().unwrap();
    assert!(state.began <= state.frozen && state.state_change <= state.frozen);
    rig.close();
    rig.thaw(frozen);
    let handle = rig.session().handle().clone();
    assert_eq!(handle.backend_id(), BACKEND);
    assert!(handle.cancel_key().matches(&KEY));
    let after = handle.activity();
    let shown = |activity: &duckgres::session::Activity| {
        let micros =
            |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        (
            activity.state,
            micros(activity.state_change),
            activity.query.clone(),
            activity.query_start.map(micros),
            activity.application_name.clone(),
        )
    };
    assert_eq!(shown(&after), shown(&before));
    assert_eq!(after.query, "select 'a marker'");
}
