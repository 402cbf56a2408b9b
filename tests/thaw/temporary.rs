//! Temporary tables and views, which go along.

use super::rig::{BACKEND, Rig, Way};
use crate::support::message::{bind, describe_statement, execute, parse_statement, query, sync};

/// Nothing that its client can ask about temporary objects has another answer.
#[track_caller]
fn moves(rig: &mut Rig, client: &mut crate::support::Session, questions: &[&str]) {
    let before: Vec<_> = questions.iter().map(|sql| rig.rows(client, sql)).collect();
    for _ in 0..2 {
        assert_eq!(rig.pin(), None);
        rig.move_on();
        let after: Vec<_> = questions.iter().map(|sql| rig.rows(client, sql)).collect();
        assert_eq!(after, before);
    }
}

#[test]
fn rows_of_every_type_go_along_in_their_order() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "create type mood as enum ('so', 'la la', 'it''s')");
    rig.execute(&mut client, "set time zone 'America/New_York'");
    rig.execute(
        &mut client,
        "create temp table \"all \"\"of\"\" them\" as select * exclude (\"union\", timestamp_tz) from test_all_types()",
    );
    rig.execute(
        &mut client,
        "create temp table t as select i, i::varchar || '''\"\\' as \"a b\", null as n, '' as e, \
         ('it''s')::mood as m, {'k': [i, null], 'l': 'x, \"y\"}'} as s, map([i], ['=']) as p, \
         '\\x00\\xFF'::blob as b, 0.1::float4 as f, 'NaN'::float8 as g, interval '1 month 31 days' as d, \
         'a' || chr(0) || 'b' as z \
         from range(5000) r(i) order by hash(i)",
    );
    rig.execute(&mut client, "create temp table nothing (a int, b varchar)");
    moves(
        &mut rig,
        &mut client,
        &[
            "select md5(x::varchar) from \"all \"\"of\"\" them\" x",
            "select md5(string_agg(x::varchar || hex(z), ';')) from t x",
            "select i, n, e, m, l, f, g, d from (select *, s['l'] as l from t) limit 3 offset 4711",
            "select count(*) from nothing",
            "select table_name, md5(sql) from duckdb_tables() where temporary order by 1",
            "select md5(string_agg(table_name || column_name || data_type, ';' order by table_name, column_index)) \
             from duckdb_columns() where database_name = 'temp' and not internal",
        ],
    );
}

#[test]
fn tables_go_along_with_what_holds_for_their_rows() {
    let (mut rig, mut client) = Rig::new(Way::Tls13);
    for sql in [
        "create temp table t (a int primary key, b varchar not null default 'it''s', \
         c int check (c > 0), d int unique, e timestamptz default now()) on commit preserve rows",
        "insert into t (a, c, d) values (1, 1, 1), (2, 2, null), (3, 3, 3)",
        "delete from t where a = 2",
        "create index \"by b\" on t (b, c)",
        "comment on table t is 'it''s mine'",
        "comment on column t.b is 'a \"b\"'",
        "comment on index \"by b\" is 'i'",
        "create temp view v as select a, upper(b) as u from t",
        "comment on view v is 'w'",
        "alter table t add column f int default 7",
    ] {
        rig.execute(&mut client, sql);
    }
    moves(
        &mut rig,
        &mut client,
        &[
            "select * from t order by a",
            "select * from v order by a",
            "select sql, comment from duckdb_tables() where temporary",
            "select index_name, sql, comment from duckdb_indexes()",
            "select view_name, sql, comment from duckdb_views() where temporary and not internal",
            "select column_name, comment from duckdb_columns() where table_name = 't' order by 1",
            "select constraint_name, constraint_text from duckdb_constraints() order by 1",
        ],
    );
    for (sql, code) in [
        ("insert into t (a) values (1)", "23505"),
        ("insert into t (a, d) values (9, 3)", "23505"),
        ("insert into t (a, b) values (9, null)", "23502"),
        ("insert into t (a, c) values (9, 0)", "23514"),
    ] {
        let answer = rig.run(&mut client, &[query(sql)]);
        assert_eq!(answer[0], format!("Error {code}"), "{sql}");
    }
    rig.execute(&mut client, "insert into t (a) values (2)");
    assert_eq!(
        rig.rows(&mut client, "select a, b, f from t order by a"),
        ["1|it's|7", "2|it's|7", "3|it's|7"]
    );
    // What is gone for it is gone for the next process, too.
    rig.execute(&mut client, "drop view v; drop table t");
    moves(
        &mut rig,
        &mut client,
        &["select count(*) from duckdb_tables() where temporary"],
    );
}

#[test]
fn a_temporary_table_goes_on_hiding_another_and_statements_go_on_meaning_it() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "create table t as select 'lasting' as a");
    rig.execute(
        &mut client,
        "create schema s; create table s.u as select 'in s' as a",
    );
    rig.execute(&mut client, "set search_path = 's,main'");
    rig.execute(&mut client, "prepare three as select a || '!' from t");
    rig.execute(&mut client, "create temp table t as select 'temporary' as a");
    rig.execute(
        &mut client,
        "create temp view w as select t.a || u.a as a from t, u",
    );
    let described = rig.run(
        &mut client,
        &[
            parse_statement("one", "select a from t"),
            describe_statement("one"),
            sync(),
        ],
    );
    assert_eq!(described[2], "RowDescription a:text");
    let write = parse_statement("two", "insert into t values ($1)");
    assert_eq!(
        rig.run(&mut client, &[write, sync()]),
        ["ParseComplete", "ReadyForQuery I"]
    );
    for count in 1..3 {
        rig.move_on();
        let answer = rig.run(&mut client, &[bind("", "one", &[]), execute("", 0), sync()]);
        assert_eq!(answer[1], "DataRow temporary");
        assert_eq!(answer.len(), count + 3, "{answer:?}");
        assert_eq!(rig.rows(&mut client, "execute three").len(), count);
        assert_eq!(rig.rows(&mut client, "select a from w")[0], "temporaryin s");
        assert_eq!(
            rig.rows(&mut client, "select a from analytics.main.t"),
            ["lasting"]
        );
        let answer = rig.run(&mut client, &[bind("", "two", &["more"]), execute("", 0), sync()]);
        assert_eq!(answer[1], "CommandComplete INSERT 0 1");
    }
    rig.execute(&mut client, "drop view w; drop table t");
    assert_eq!(rig.rows(&mut client, "execute three"), ["lasting!"]);
}

#[test]
fn others_do_not_see_them_and_have_their_own() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "create temp table x as select 1 as a");
    assert_eq!(rig.pin(), None);
    let other = rig.instance().connect().unwrap();
    assert!(other.run("from x").is_err());
    other.run("create temp table x (b int)").unwrap();
    drop(other);
    // It was packed, and is not to be frozen after all.
    rig.execute(&mut client, "insert into x values (2)");
    rig.move_on();
    assert_eq!(rig.rows(&mut client, "select a from x order by a"), ["1", "2"]);
    let other = rig.instance().connect().unwrap();
    assert!(other.run("from x").is_err());
}

#[test]
fn what_was_packed_is_packed_anew_when_the_catalog_has_changed() {
    let (mut rig, mut client) = Rig::new(Way::Plain);
    rig.execute(&mut client, "create table t (a int)");
    rig.execute(&mut client, "create temp view v as select a from t");
    assert_eq!(rig.pin(), None);
    let instance = rig.instance();
    instance.connect().unwrap().run("drop table t").unwrap();
    instance.catalog_changed();
    drop(instance);
    assert_eq!(rig.pin(), Some(duckgres::session::Pin::Temporary));
}

#[test]
fn a_session_whose_tables_cannot_be_made_again_ends_and_is_told() {
    let (mut rig, mut client) = Rig::new(Way::Tls12);
    rig.execute(&mut client, "create temp table x as select 1 as a");
    let mut frozen = rig.freeze();
    assert_eq!(frozen.state.backend_id, BACKEND);
    rig.close();
    let temporary = frozen.state.frozen.as_mut().unwrap().temporary.as_mut().unwrap();
    temporary.rows[0].fields.pop();
    assert!(rig.try_thaw(frozen).is_err());
    assert_eq!(client.last_words(), ["Error FATAL 57P01"]);
}
