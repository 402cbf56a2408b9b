//! Parameters: declared, deduced, in text and in binary, and what Bind refuses.

use super::{INT4, INT8, TEXT};
use crate::support::Session;
use crate::support::message::*;

#[test]
fn declared_types_are_described_as_declared() {
    assert_eq!(
        Session::new().run(&[
            parse_as("", "select $1 as a, $2 as b, $3 as c", &[INT8, TEXT, INT4]),
            describe_statement(""),
            sync()
        ]),
        [
            "ParseComplete",
            "ParameterDescription int8 text int4",
            "RowDescription a:int8 b:text c:int4",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn undeclared_types_are_deduced_and_text_where_nothing_says_otherwise() {
    let mut session = Session::new();
    session.execute("create table par_deduce (i int, b bigint, t text, d date)");
    for (sql, expected) in [
        ("select $1 as a", "text"),
        ("select i from par_deduce where i = $1", "int4"),
        (
            "insert into par_deduce values ($1, $2, $3, $4)",
            "int4 int8 text date",
        ),
        ("select cast($1 as bigint) as a", "int8"),
        ("select i from par_deduce limit $1", "int8"),
        ("select $2 as a, i from par_deduce where b = $1", "int8 text"),
    ] {
        let transcript = session.run(&[parse_statement("", sql), describe_statement(""), sync()]);
        assert_eq!(transcript[1], format!("ParameterDescription {expected}"), "{sql}");
    }
}

#[test]
fn the_oid_zero_means_undeclared() {
    let transcript = Session::new().run(&[
        parse_as("", "select cast($1 as int) as a, $2 as b", &[0, INT4]),
        describe_statement(""),
        sync(),
    ]);
    assert_eq!(transcript[1], "ParameterDescription int4 int4");
}

#[test]
fn a_parameter_may_be_null_and_may_be_empty() {
    let bound = Bind {
        values: &[None, Some(b"")],
        ..Bind::default()
    }
    .message();
    let transcript = Session::new().run(&[
        parse_as("", "select $1 as a, $2 || '!' as b", &[INT4, TEXT]),
        bound,
        execute("", 0),
        sync(),
    ]);
    assert_eq!(transcript[2], "DataRow null|!");
}

#[test]
fn formats_are_given_for_none_for_all_or_for_each() {
    let mut session = Session::new();
    let seven: Option<&[u8]> = Some(&[0, 0, 0, 7]);
    let text: Option<&[u8]> = Some(b"7");
    for (formats, values) in [
        (vec![], [text, text]),
        (vec![0], [text, text]),
        (vec![1], [seven, seven]),
        (vec![1, 0], [seven, text]),
    ] {
        let bound = Bind {
            formats: &formats,
            values: &values,
            ..Bind::default()
        }
        .message();
        let transcript = session.run(&[
            parse_as("", "select $1 + $2 as a", &[INT4, INT4]),
            bound,
            execute("", 0),
            sync(),
        ]);
        assert_eq!(transcript[2], "DataRow 14", "{formats:?}");
    }
}

#[test]
fn a_parameter_can_be_used_twice_and_out_of_order() {
    let transcript = Session::new().run(&[
        parse_as("", "select $2 as a, $1 as b, $2 as c", &[INT4, TEXT]),
        bind("", "", &["1", "x"]),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(transcript[2], "DataRow x|1|x");
}

#[test]
fn too_few_and_too_many_parameters_are_refused() {
    let mut session = Session::new();
    session.run(&[parse_as("s", "select $1 + $2 as a", &[INT4, INT4]), sync()]);
    for values in [vec![], vec!["1"], vec!["1", "2", "3"]] {
        assert_eq!(
            session.run(&[bind("", "s", &values), execute("", 0), sync()]),
            ["Error 08P01", "ReadyForQuery I"],
            "{values:?}"
        );
    }
    assert_eq!(
        session.run(&[bind("", "s", &["1", "2"]), execute("", 0), sync()])[1],
        "DataRow 3"
    );
}

#[test]
fn a_number_of_formats_that_fits_nothing_is_refused() {
    let mut session = Session::new();
    session.run(&[
        parse_as("s", "select $1 + $2 + $3 as a", &[INT4, INT4, INT4]),
        sync(),
    ]);
    for formats in [vec![0, 0], vec![0, 0, 0, 0]] {
        let one: Option<&[u8]> = Some(b"1");
        let bound = Bind {
            statement: "s",
            formats: &formats,
            values: &[one, one, one],
            ..Bind::default()
        };
        assert_eq!(
            session.run(&[bound.message(), sync()]),
            ["Error 08P01", "ReadyForQuery I"],
            "{formats:?}"
        );
    }
}

#[test]
fn values_that_are_not_of_their_type_are_refused() {
    let mut session = Session::new();
    let bound = |formats: &'static [i16], value: &'static [u8]| {
        [
            parse_as("", "select $1 as a", &[INT4]),
            Bind {
                formats,
                values: &[Some(value)],
                ..Bind::default()
            }
            .message(),
            execute("", 0),
            sync(),
        ]
    };
    for (formats, value, state) in [
        (&[0][..], &b"x"[..], "22P02"),
        (&[0], b"", "22P02"),
        (&[0], b"99999999999", "22003"),
        (&[0], b"\xff", "22021"),
        (&[1], &[0, 0, 0, 0, 1], "22P03"),
        (&[2], b"1", "22023"),
    ] {
        assert_eq!(
            session.run(&bound(formats, value)),
            ["ParseComplete", &format!("Error {state}"), "ReadyForQuery I"],
            "{value:?}"
        );
    }
    let transcript = session.run(&bound(&[1], &[0, 0, 1]));
    assert!(
        // PostgreSQL runs out of message before it can complain of the number.
        transcript[1] == "Error 22P03" || transcript[1] == "Error 08P01",
        "three bytes are no int4: {transcript:?}"
    );
}

#[test]
fn text_with_a_nul_or_broken_utf8_is_refused_as_a_parameter() {
    let mut session = Session::new();
    for value in [&b"a\0b"[..], b"\xc3", b"\xed\xa0\x80"] {
        let bound = Bind {
            values: &[Some(value)],
            ..Bind::default()
        }
        .message();
        assert_eq!(
            session.run(&[
                parse_as("", "select $1 as a", &[TEXT]),
                bound,
                execute("", 0),
                sync()
            ]),
            ["ParseComplete", "Error 22021", "ReadyForQuery I"],
            "{value:?}"
        );
    }
}

#[test]
fn a_parameter_of_megabytes_comes_back_unchanged() {
    let value = "x".repeat(3 << 20);
    let transcript = Session::new().run(&[
        parse_as("", "select $1 as a", &[TEXT]),
        bind("", "", &[&value]),
        execute("", 0),
        sync(),
    ]);
    assert!(
        transcript[2] == format!("DataRow {value}"),
        "3 MiB came back changed"
    );
}

#[test]
fn a_table_function_takes_parameters_too() {
    let transcript = Session::new().run(&[
        parse_as("", "select i as a from generate_series(1, $1) g(i)", &[INT4]),
        bind("", "", &["3"]),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(
        transcript,
        [
            "ParseComplete",
            "BindComplete",
            "DataRow 1",
            "DataRow 2",
            "DataRow 3",
            "CommandComplete SELECT 3",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn a_simple_query_has_no_parameters() {
    assert_eq!(
        Session::new().query("select $1 as a"),
        ["Error 42P02", "ReadyForQuery I"]
    );
}

#[test]
fn a_hundred_parameters_are_as_good_as_one() {
    let sum = (1..=100)
        .map(|i| format!("cast(${i} as int)"))
        .collect::<Vec<_>>()
        .join(" + ");
    let values: Vec<String> = (1..=100).map(|i| i.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let transcript = Session::new().run(&[
        parse_statement("", &format!("select {sum} as a")),
        bind("", "", &values),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(transcript[2], "DataRow 5050");
}
