//! The types that DuckDB has and PostgreSQL has not: sent as the type that
//! comes nearest.

use crate::support::message::*;
use crate::support::{Answer, Server, Session};

const INT2: u32 = 21;
const INT4: u32 = 23;
const INT8: u32 = 20;
const NUMERIC: u32 = 1700;
const TIMESTAMP: u32 = 1114;
const TIME: u32 = 1083;
const VARBIT: u32 = 1562;
const JSON: u32 = 114;

/// `None` when the server is PostgreSQL, which knows nothing of all this.
fn session() -> Option<Session> {
    if Server::shared().is_postgres() {
        println!("skipped: DuckDB's types, in PostgreSQL");
        return None;
    }
    let mut session = Session::new();
    session.execute("set timezone = 'UTC'");
    Some(session)
}

/// Oid and value of a statement's only column, in that format.
#[track_caller]
fn ask(session: &mut Session, expression: &str, format: i16) -> (u32, Option<Vec<u8>>) {
    let sql = format!("select {expression} as v");
    let bound = Bind {
        results: &[format],
        ..Bind::default()
    };
    session.send(
        &[
            parse_statement("", &sql),
            bound.message(),
            describe_portal(""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    let answers = session.answers();
    match answers.as_slice() {
        [_, _, Answer::RowDescription(fields), Answer::DataRow(values), ..] => {
            (fields[0].oid, values[0].clone())
        }
        _ => panic!("{expression}: {answers:?}"),
    }
}

#[track_caller]
fn assert_text(session: &mut Session, expression: &str, oid: u32, expected: &str) {
    let (got_oid, value) = ask(session, expression, 0);
    assert_eq!(
        (got_oid, String::from_utf8(value.unwrap()).unwrap().as_str()),
        (oid, expected),
        "{expression}"
    );
}

#[track_caller]
fn assert_binary(session: &mut Session, expression: &str, expected: &str) {
    let (_, value) = ask(session, expression, 1);
    assert_eq!(hex(&value.unwrap()), expected, "{expression}");
}

#[test]
fn integers_of_other_sizes_are_sent_as_the_next_larger_type() {
    let Some(mut session) = session() else { return };
    for (expression, oid, text, binary) in [
        ("(-128)::tinyint", INT2, "-128", "ff80"),
        ("255::utinyint", INT2, "255", "00ff"),
        ("65535::usmallint", INT4, "65535", "0000ffff"),
        ("4294967295::uinteger", INT8, "4294967295", "00000000ffffffff"),
        ("20000::ubigint", NUMERIC, "20000", "00010001000000000002"),
        ("0::hugeint", NUMERIC, "0", "0000000000000000"),
        ("(-12345)::hugeint", NUMERIC, "-12345", "000200014000000000010929"),
        ("12345::uhugeint", NUMERIC, "12345", "000200010000000000010929"),
    ] {
        assert_text(&mut session, expression, oid, text);
        assert_binary(&mut session, expression, binary);
    }
}

/// What is sent in binary is understood in binary.
#[test]
fn huge_integers_come_back_as_they_went() {
    let Some(mut session) = session() else { return };
    for (name, text) in [
        ("ubigint", "18446744073709551615"),
        ("hugeint", "-170141183460469231731687303715884105728"),
        ("hugeint", "170141183460469231731687303715884105727"),
        ("uhugeint", "340282366920938463463374607431768211455"),
    ] {
        let (oid, binary) = ask(&mut session, &format!("'{text}'::{name}"), 1);
        assert_eq!(oid, NUMERIC);
        let binary = binary.unwrap();
        let bound = Bind {
            formats: &[1],
            values: &[Some(&binary)],
            ..Bind::default()
        };
        let sql = format!("select cast($1 as {name}) as v");
        let transcript = session.run(&[
            parse_as("", &sql, &[NUMERIC]),
            bound.message(),
            execute("", 0),
            sync(),
        ]);
        assert_eq!(transcript[2], format!("DataRow {text}"), "{name}");
    }
}

#[test]
fn timestamps_of_other_units_are_timestamps() {
    let Some(mut session) = session() else { return };
    for (expression, oid, text) in [
        (
            "'2024-02-29 12:34:56'::timestamp_s",
            TIMESTAMP,
            "2024-02-29 12:34:56",
        ),
        (
            "'2024-02-29 12:34:56.789'::timestamp_ms",
            TIMESTAMP,
            "2024-02-29 12:34:56.789",
        ),
        (
            "'2024-02-29 12:34:56.123456'::timestamp_ns",
            TIMESTAMP,
            "2024-02-29 12:34:56.123456",
        ),
        (
            "'1969-12-31 23:59:59'::timestamp_s",
            TIMESTAMP,
            "1969-12-31 23:59:59",
        ),
        ("'12:34:56.5'::time", TIME, "12:34:56.5"),
    ] {
        assert_text(&mut session, expression, oid, text);
    }
    for unit in ["timestamp_s", "timestamp_ms", "timestamp_ns"] {
        assert_binary(
            &mut session,
            &format!("'2000-01-01 00:00:01'::{unit}"),
            "00000000000f4240",
        );
    }
}

#[test]
fn an_enum_is_sent_as_its_label() {
    let Some(mut session) = session() else { return };
    session.execute("create type dt_mood as enum ('sad', 'ok', 'häppy')");
    session.execute("create table dt_enum (i int, m dt_mood)");
    session.execute("insert into dt_enum values (1, 'häppy'), (2, null), (3, 'sad')");
    assert_eq!(
        session.rows("select m from dt_enum order by i"),
        ["häppy", "null", "sad"]
    );
    let (_, value) = ask(&mut session, "'ok'::dt_mood", 1);
    assert_eq!(value.as_deref(), Some(&b"ok"[..]));
    let transcript = session.run(&[
        parse_statement("", "select i from dt_enum where m = $1"),
        bind("", "", &["häppy"]),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(transcript[2], "DataRow 1");
}

#[test]
fn bits_are_sent_as_varbit() {
    let Some(mut session) = session() else { return };
    assert_text(&mut session, "'10110'::bit", VARBIT, "10110");
    assert_binary(&mut session, "'10110'::bit", "00000005b0");
    assert_binary(&mut session, "'111111110'::bit", "00000009ff00");
}

#[test]
fn structs_maps_and_unions_are_sent_as_json() {
    let Some(mut session) = session() else { return };
    for (expression, text) in [
        (
            "{'a': 1, 'b': 'x\"y', 'c': null, 'd': 1.5}",
            r#"{"a":1,"b":"x\"y","c":null,"d":1.5}"#,
        ),
        ("{'a': {'b': [1, 2]}}", r#"{"a":{"b":[1,2]}}"#),
        ("map {'k': 1, 'l': null}", r#"{"k":1,"l":null}"#),
        ("union_value(num := 1)", "1"),
        (
            "{'d': date '2024-02-29', 't': true}",
            r#"{"d":"2024-02-29","t":true}"#,
        ),
    ] {
        assert_text(&mut session, expression, JSON, text);
        let (_, value) = ask(&mut session, expression, 1);
        assert_eq!(
            value.as_deref(),
            Some(text.as_bytes()),
            "json is the same in binary"
        );
    }
}

#[test]
fn lists_and_arrays_are_arrays() {
    let Some(mut session) = session() else { return };
    assert_text(&mut session, "[1, 2, null]", 1007, "{1,2,NULL}");
    assert_text(&mut session, "[[1, 2], [3, 4]]", 1007, "{{1,2},{3,4}}");
    assert_text(&mut session, "[1, 2, 3]::integer[3]", 1007, "{1,2,3}");
    assert_text(&mut session, "[]::bigint[]", 1016, "{}");
    assert_text(&mut session, "['a,b', 'c']", 1015, r#"{"a,b",c}"#);
    assert_binary(
        &mut session,
        "[1, 2, 3]::integer[3]",
        "0000000100000000000000170000000300000001000000040000000100000004000000020000000400000003",
    );
}

/// PostgreSQL's arrays are rectangular, DuckDB's lists need not be.
#[test]
fn a_list_that_is_no_rectangle_is_sent_nevertheless_or_refused_but_breaks_nothing() {
    let Some(mut session) = session() else { return };
    let transcript = session.query("select [[1], [2, 3]] as v");
    assert_eq!(transcript.last().unwrap(), "ReadyForQuery I");
    let transcript = session.query("select [[1], null] as v");
    assert_eq!(transcript.last().unwrap(), "ReadyForQuery I");
    assert_eq!(session.rows("select 1 as v"), ["1"]);
}

/// Smallest, largest and null of every type that DuckDB knows.
#[test]
fn every_duckdb_type_can_be_selected_in_both_formats() {
    let Some(mut session) = session() else { return };
    // Geometries have no form of their own; the error says to cast them.
    let text = "geometry";
    // DuckDB's years reach farther than PostgreSQL's, and its lists need not be
    // rectangles. Text can say that, binary cannot.
    let binary = "geometry, date, timestamp, timestamp_s, timestamp_ms, timestamp_tz, nested_int_array,
                  fixed_nested_int_array, fixed_nested_varchar_array, fixed_array_of_int_list";
    for (format, without) in [(0, text), (1, binary)] {
        let sql = format!("select * exclude ({without}) from test_all_types()");
        let bound = Bind {
            results: &[format],
            ..Bind::default()
        };
        let transcript = session.run(&[parse_statement("", &sql), bound.message(), execute("", 0), sync()]);
        assert_eq!(
            transcript.last_chunk(),
            Some(&[
                "CommandComplete SELECT 3".to_string(),
                "ReadyForQuery I".to_string()
            ]),
            "format {format}"
        );
    }
    for sql in [
        "select geometry from test_all_types()",
        "select date from test_all_types()",
    ] {
        let bound = Bind {
            results: &[1],
            ..Bind::default()
        };
        let transcript = session.run(&[parse_statement("", sql), bound.message(), execute("", 0), sync()]);
        assert!(
            transcript.iter().any(|answer| answer.starts_with("Error ")),
            "{sql}: {transcript:?}"
        );
    }
}
