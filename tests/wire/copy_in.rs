//! COPY … FROM STDIN: the data in any cut, text and CSV, and how it fails.

use super::INT4;
use crate::support::message::*;
use crate::support::{Server, Session, Transport};

fn with_table(name: &str, columns: &str) -> Session {
    let mut session = Session::new();
    session.execute(&format!("create table {name} ({columns})"));
    session
}

/// Sends a COPY with its data and returns the transcript.
fn copy(session: &mut Session, sql: &str, data: &[&[u8]]) -> Vec<String> {
    session.send(&query(sql));
    assert_eq!(
        session.next().to_string().split(' ').next(),
        Some("CopyInResponse"),
        "{sql}"
    );
    data.iter().for_each(|data| session.send(&copy_data(data)));
    session.run(&[copy_done()])
}

#[test]
fn rows_are_copied_in_over_every_road() {
    let mut session = with_table("cin_roads", "i int, t text");
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        session.send(&query("copy cin_roads from stdin"));
        assert_eq!(session.take(1), ["CopyInResponse 0 [0, 0]"]);
        session.send(&[copy_data(b"1\tone\n"), copy_data(b"2\ttwo\n"), copy_done()].concat());
        assert_eq!(
            session.transcript(),
            ["CommandComplete COPY 2", "ReadyForQuery I"]
        );
    }
    assert_eq!(
        session.rows("select i, t, count(*) from cin_roads group by i, t order by i"),
        ["1|one|4", "2|two|4"]
    );
}

#[test]
fn the_data_may_be_cut_anywhere() {
    let mut session = with_table("cin_cut", "i int, t text, d date");
    let data = "1\tä€𝄞\t2024-02-29\n2\tb\\tc\\\\\\n\t\\N\n-3\t\\N\t0001-01-01\n".as_bytes();
    let whole = ["1|ä€𝄞|2024-02-29", "2|\\x6209635c0a|null", "-3|null|0001-01-01"];
    for size in [1, 2, 3, 5, 7, data.len()] {
        session.execute("truncate cin_cut");
        let pieces: Vec<&[u8]> = data.chunks(size).collect();
        assert_eq!(
            copy(&mut session, "copy cin_cut from stdin", &pieces),
            ["CommandComplete COPY 3", "ReadyForQuery I"],
            "pieces of {size}"
        );
        assert_eq!(session.rows("select * from cin_cut"), whole, "pieces of {size}");
    }
    session.execute("truncate cin_cut");
    copy(&mut session, "copy cin_cut from stdin", &[b"", data, b""]);
    assert_eq!(session.rows("select * from cin_cut"), whole, "empty pieces");
}

#[test]
fn csv_may_be_cut_anywhere() {
    let mut session = with_table("cin_csv", "i int, t text");
    let data = b"i,t\n1,plain\n2,\"quoted, with \"\"quotes\"\"\nand a line\"\n3,\n4,\"\"\n";
    let whole = [
        "1|plain",
        "2|\\x71756f7465642c2077697468202271756f746573220a616e642061206c696e65",
        "3|null",
        "4|",
    ];
    for size in [1, 2, 3, 5, 7, data.len()] {
        session.execute("truncate cin_csv");
        let pieces: Vec<&[u8]> = data.chunks(size).collect();
        assert_eq!(
            copy(
                &mut session,
                "copy cin_csv from stdin with (format csv, header)",
                &pieces
            ),
            ["CommandComplete COPY 4", "ReadyForQuery I"]
        );
        assert_eq!(session.rows("select * from cin_csv"), whole, "pieces of {size}");
    }
}

#[test]
fn lines_end_with_any_of_the_three_newlines_and_the_last_may_have_none() {
    let mut session = with_table("cin_newlines", "i int, t text");
    for format in ["text", "csv"] {
        let separator = if format == "text" { "\t" } else { "," };
        for newline in ["\n", "\r\n", "\r"] {
            let data = format!("1{separator}a{newline}2{separator}b");
            for data in [data.clone(), data + newline] {
                session.execute("truncate cin_newlines");
                let sql = format!("copy cin_newlines from stdin with (format {format})");
                assert_eq!(
                    copy(&mut session, &sql, &[data.as_bytes()])[0],
                    "CommandComplete COPY 2",
                    "{data:?}"
                );
                assert_eq!(
                    session.rows("select * from cin_newlines"),
                    ["1|a", "2|b"],
                    "{data:?}"
                );
            }
        }
    }
}

#[test]
fn a_line_with_backslash_dot_ends_the_data() {
    let mut session = with_table("cin_dot", "i int");
    assert_eq!(
        copy(&mut session, "copy cin_dot from stdin", &[b"1\n2\n\\.\n"]),
        ["CommandComplete COPY 2", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select i from cin_dot"), ["1", "2"]);
}

#[test]
fn the_escapes_of_the_text_format_are_understood() {
    let mut session = with_table("cin_escapes", "t text");
    copy(
        &mut session,
        "copy cin_escapes from stdin",
        &[b"\\b\\f\\n\\r\\t\\v\\\\\n\\101\\x42\\q\n\\\\N\n\n"],
    );
    assert_eq!(
        session.rows("select t from cin_escapes"),
        ["\\x080c0a0d090b5c", "ABq", "\\N", ""]
    );
}

#[test]
fn columns_can_be_chosen_and_the_others_have_their_defaults() {
    let mut session = with_table("cin_columns", "i int, t text default 'none', j int");
    session.send(&query("copy cin_columns (j, i) from stdin"));
    assert_eq!(session.take(1), ["CopyInResponse 0 [0, 0]"]);
    assert_eq!(
        session.run(&[copy_data(b"10\t1\n20\t2\n"), copy_done()]),
        ["CommandComplete COPY 2", "ReadyForQuery I"]
    );
    assert_eq!(
        session.rows("select i, t, j from cin_columns order by i"),
        ["1|none|10", "2|none|20"]
    );
}

#[test]
fn delimiter_null_quote_and_escape_can_be_chosen() {
    let mut session = with_table("cin_options", "i int, t text");
    copy(
        &mut session,
        "copy cin_options from stdin with (format csv, delimiter ';', null 'NULL', quote '''', escape '\\')",
        &[b"1;'it\\'s'\n2;NULL\n3;'NULL'\n"],
    );
    copy(
        &mut session,
        "copy cin_options from stdin with (delimiter '|', null '')",
        &[b"4|x\n5|\n"],
    );
    copy(
        &mut session,
        "copy cin_options from stdin csv header delimiter ';'",
        &[b"i;t\n6;old\n"],
    );
    assert_eq!(
        session.rows("select i, t from cin_options order by i"),
        ["1|it's", "2|null", "3|NULL", "4|x", "5|null", "6|old"]
    );
}

#[test]
fn no_data_is_no_rows() {
    let mut session = with_table("cin_nothing", "i int");
    for sql in ["copy cin_nothing from stdin", "copy cin_nothing from stdin csv"] {
        assert_eq!(
            copy(&mut session, sql, &[]),
            ["CommandComplete COPY 0", "ReadyForQuery I"]
        );
    }
}

#[test]
fn a_hundred_thousand_rows_arrive() {
    let mut session = with_table("cin_many", "i int, t text");
    let data: String = (1..=100_000).map(|i| format!("{i}\trow number {i}\n")).collect();
    let pieces: Vec<&[u8]> = data.as_bytes().chunks(10_007).collect();
    assert_eq!(
        copy(&mut session, "copy cin_many from stdin", &pieces)[0],
        "CommandComplete COPY 100000"
    );
    assert_eq!(
        session.rows("select count(*), sum(i), max(t) from cin_many"),
        ["100000|5000050000|row number 99999"]
    );
}

#[test]
fn copy_fail_ends_the_copy_with_the_clients_reason() {
    let mut session = with_table("cin_fail", "i int");
    session.send(
        &[
            query("copy cin_fail from stdin"),
            copy_data(b"1\n"),
            copy_fail("changed my mind"),
        ]
        .concat(),
    );
    assert_eq!(session.take(1), ["CopyInResponse 0 [0]"]);
    let answers = session.answers();
    let crate::support::Answer::Error(report) = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!(report.sqlstate(), "57014");
    assert!(report.message().contains("changed my mind"), "{report:?}");
    assert_eq!(session.rows("select count(*) from cin_fail"), ["0"]);
}

#[test]
fn an_error_in_the_middle_undoes_the_copy_and_ignores_the_rest() {
    let mut session = with_table("cin_middle", "i int");
    for (bad, state) in [
        (&b"x\n"[..], "22P02"),
        (b"99999999999\n", "22003"),
        (b"1\t2\n", "22P04"),
        (b"\xff\n", "22021"),
    ] {
        session.send(&query("copy cin_middle from stdin"));
        session.take(1);
        session.send(&[copy_data(b"1\n2\n"), copy_data(bad)].concat());
        session.send(&[copy_data(b"3\n"), copy_data(b"4\n"), copy_done()].concat());
        assert_eq!(
            session.transcript(),
            [format!("Error {state}"), "ReadyForQuery I".into()],
            "{}",
            bad.escape_ascii()
        );
        assert_eq!(
            session.rows("select count(*) from cin_middle"),
            ["0"],
            "nothing is answered twice"
        );
    }
}

#[test]
fn a_row_with_too_few_fields_is_refused() {
    let mut session = with_table("cin_few", "i int, j int");
    assert_eq!(
        copy(&mut session, "copy cin_few from stdin", &[b"1\n"]),
        ["Error 22P04", "ReadyForQuery I"]
    );
    assert_eq!(
        copy(&mut session, "copy cin_few from stdin csv", &[b"1\n"]),
        ["Error 22P04", "ReadyForQuery I"]
    );
}

#[test]
fn a_quote_that_never_ends_is_refused() {
    let mut session = with_table("cin_quote", "t text");
    assert_eq!(
        copy(&mut session, "copy cin_quote from stdin csv", &[b"\"never\n"]),
        ["Error 22P04", "ReadyForQuery I"]
    );
}

#[test]
fn the_error_says_in_which_line_it_was() {
    let mut session = with_table("cin_line", "i int, j int");
    session.send(
        &[
            query("copy cin_line from stdin"),
            copy_data(b"1\t1\n2\t2\n3\tx\n"),
            copy_done(),
        ]
        .concat(),
    );
    session.take(1);
    let answers = session.answers();
    let crate::support::Answer::Error(report) = &answers[0] else {
        panic!("{answers:?}")
    };
    assert!(
        report
            .field('W')
            .starts_with("COPY cin_line, line 3, column j: \"x\""),
        "{report:?}"
    );
}

#[test]
fn constraints_hold_for_copied_rows() {
    let mut session = with_table("cin_constraints", "i int primary key, j int not null");
    assert_eq!(
        copy(
            &mut session,
            "copy cin_constraints from stdin",
            &[b"1\t1\n1\t2\n"]
        ),
        ["Error 23505", "ReadyForQuery I"]
    );
    assert_eq!(
        copy(&mut session, "copy cin_constraints from stdin", &[b"1\t\\N\n"]),
        ["Error 23502", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from cin_constraints"), ["0"]);
}

#[test]
fn a_copy_that_cannot_begin_says_so_and_ignores_its_data() {
    let mut session = with_table("cin_cannot", "i int");
    for (sql, state) in [
        ("copy nosuch from stdin", "42P01"),
        ("copy cin_cannot (nosuch) from stdin", "42703"),
        ("copy cin_cannot from stdin with (format nosuch)", "22023"),
        ("copy cin_cannot from stdin with (nosuch true)", "42601"),
        ("copy cin_cannot from stdin with (delimiter 'ab')", "0A000"),
    ] {
        session.send(&[query(sql), copy_data(b"1\n"), copy_done()].concat());
        assert_eq!(
            session.transcript(),
            [format!("Error {state}"), "ReadyForQuery I".into()],
            "{sql}"
        );
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
}

#[test]
fn a_failed_copy_fails_its_transaction() {
    let mut session = with_table("cin_tx", "i int");
    session.execute("begin; insert into cin_tx values (1)");
    assert_eq!(
        copy(&mut session, "copy cin_tx from stdin", &[b"2\n"]),
        ["CommandComplete COPY 1", "ReadyForQuery T"]
    );
    assert_eq!(
        copy(&mut session, "copy cin_tx from stdin", &[b"x\n"]),
        ["Error 22P02", "ReadyForQuery E"]
    );
    assert_eq!(
        session.query("commit"),
        ["CommandComplete ROLLBACK", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from cin_tx"), ["0"]);
}

#[test]
fn a_copy_may_stand_between_other_statements() {
    let mut session = with_table("cin_between", "i int");
    session.send(&query("insert into cin_between values (1); copy cin_between from stdin; select count(*) as a from cin_between"));
    assert_eq!(
        session.take(2),
        ["CommandComplete INSERT 0 1", "CopyInResponse 0 [0]"]
    );
    assert_eq!(
        session.run(&[copy_data(b"2\n3\n"), copy_done()]),
        [
            "CommandComplete COPY 2",
            "RowDescription a:int8",
            "DataRow 3",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn sync_and_flush_are_ignored_while_data_is_expected() {
    let mut session = with_table("cin_sync", "i int");
    session.send(&query("copy cin_sync from stdin"));
    session.take(1);
    assert_eq!(
        session.run(&[
            copy_data(b"1\n"),
            sync(),
            flush(),
            copy_data(b"2\n"),
            sync(),
            copy_done()
        ]),
        ["CommandComplete COPY 2", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from cin_sync"), ["2"]);
}

#[test]
fn any_other_message_ends_the_copy_with_an_error() {
    let mut session = with_table("cin_other", "i int");
    for message in [query("select 1"), parse_statement("", "select 1"), execute("", 0)] {
        session.send(&query("copy cin_other from stdin"));
        session.take(1);
        session.send(&[copy_data(b"1\n"), message].concat());
        let transcript = session.take(1);
        // PostgreSQL gives the connection up in newer versions.
        assert!(
            ["Error 08P01", "Error FATAL 08P01"].contains(&transcript[0].as_str()),
            "{transcript:?}"
        );
        session = Session::new();
        assert_eq!(session.rows("select count(*) from cin_other"), ["0"]);
    }
}

#[test]
fn the_extended_protocol_copies_in() {
    let mut session = with_table("cin_extended", "i int");
    session.send(
        &[
            parse_statement("", "copy cin_extended from stdin"),
            describe_statement(""),
            bind("", "", &[]),
            describe_portal(""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(
        session.take(6),
        [
            "ParseComplete",
            "ParameterDescription",
            "NoData",
            "BindComplete",
            "NoData",
            "CopyInResponse 0 [0]"
        ]
    );
    // libpq sends the Sync above at once; it counts for nothing, this one does.
    assert_eq!(
        session.run(&[copy_data(b"1\n2\n"), copy_done(), sync()]),
        ["CommandComplete COPY 2", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from cin_extended"), ["2"]);
}

#[test]
fn an_error_in_an_extended_copy_is_skipped_to_sync() {
    let mut session = with_table("cin_extended_error", "i int");
    let start = [
        parse_statement("", "copy cin_extended_error from stdin"),
        bind("", "", &[]),
        execute("", 0),
    ]
    .concat();
    session.send(&start);
    session.take(3);
    assert_eq!(
        session.run(&[
            copy_data(b"x\n"),
            copy_data(b"1\n"),
            copy_done(),
            parse_as("", "select $1", &[INT4]),
            sync()
        ]),
        ["Error 22P02", "ReadyForQuery I"]
    );
    session.send(&start);
    session.take(3);
    assert_eq!(
        session.run(&[copy_fail("no"), sync()]),
        ["Error 57014", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from cin_extended_error"), ["0"]);
}
