//! COPY … TO STDOUT: the bytes that `\copy` writes to a file.

use crate::support::message::*;
use crate::support::{Answer, Server, Session, Transport};

/// The data of a COPY that must succeed, and the messages around it.
fn copy(session: &mut Session, sql: &str) -> (Vec<String>, String) {
    session.send(&query(sql));
    collect(session)
}

fn collect(session: &mut Session) -> (Vec<String>, String) {
    let (mut frame, mut data) = (Vec::new(), Vec::new());
    for answer in session.answers() {
        match answer {
            Answer::CopyData(piece) => data.extend(piece),
            other => frame.push(other.to_string()),
        }
    }
    (frame, String::from_utf8(data).unwrap())
}

#[test]
fn rows_are_copied_out_over_every_road() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        let (frame, data) = copy(
            &mut session,
            "copy (select 1 as a, 'x' as b union all select 2, null order by 1) to stdout",
        );
        assert_eq!(
            frame,
            [
                "CopyOutResponse 0 [0, 0]",
                "CopyDone",
                "CommandComplete COPY 2",
                "ReadyForQuery I"
            ]
        );
        assert_eq!(data, "1\tx\n2\t\\N\n");
    }
}

#[test]
fn a_table_and_some_of_its_columns_can_be_copied() {
    let mut session = Session::new();
    session.execute(
        "create table cout_table (i int, t text, j int); insert into cout_table values (1, 'x', 10)",
    );
    assert_eq!(copy(&mut session, "copy cout_table to stdout").1, "1\tx\t10\n");
    assert_eq!(
        copy(&mut session, "copy cout_table (j, i) to stdout").1,
        "10\t1\n"
    );
}

#[test]
fn text_is_escaped_so_that_it_can_be_read_back() {
    let (_, data) = copy(
        &mut Session::new(),
        r"copy (select E'tab\tnewline\nreturn\rbackslash\\bell\x07bs\bff\fvt\x0b' as a, '\N' as b, '' as c) to stdout",
    );
    assert_eq!(
        data,
        "tab\\tnewline\\nreturn\\rbackslash\\\\bell\u{7}bs\\bff\\fvt\\v\t\\\\N\t\n"
    );
}

#[test]
fn csv_is_quoted_where_it_must_be() {
    let mut session = Session::new();
    let rows =
        "select 1 as a, 'plain' as b union all select 2, 'a,b' union all select 3, 'say \"x\"' union all
                select 4, E'two\\nlines' union all select 5, '' union all select 6, null union all
                select 7, ' space ' union all select 8, '\\.' order by 1";
    let (frame, data) = copy(
        &mut session,
        &format!("copy ({rows}) to stdout with (format csv, header)"),
    );
    assert_eq!(
        data,
        "a,b\n1,plain\n2,\"a,b\"\n3,\"say \"\"x\"\"\"\n4,\"two\nlines\"\n5,\"\"\n6,\n7, space \n8,\\.\n"
    );
    assert_eq!(frame[2], "CommandComplete COPY 8", "the header is no row");
}

#[test]
fn the_end_marker_is_quoted_where_csv_has_one_column() {
    let (_, data) = copy(
        &mut Session::new(),
        r"copy (select '\.' as a) to stdout with (format csv)",
    );
    assert_eq!(data, "\"\\.\"\n");
}

#[test]
fn delimiter_null_quote_and_force_quote_can_be_chosen() {
    let mut session = Session::new();
    let rows = "select 1 as a, 'x' as b, null as c";
    for (options, expected) in [
        ("delimiter '|', null 'nil'", "1|x|nil\n"),
        (
            "format csv, delimiter ';', null 'nil', force_quote (b)",
            "1;\"x\";nil\n",
        ),
        ("format csv, force_quote *", "\"1\",\"x\",\n"),
        ("format csv, quote '''', force_quote (b)", "1,'x',\n"),
    ] {
        assert_eq!(
            copy(&mut session, &format!("copy ({rows}) to stdout with ({options})")).1,
            expected,
            "{options}"
        );
    }
    assert_eq!(
        copy(&mut session, &format!("copy ({rows}) to stdout csv header")).1,
        "a,b,c\n1,x,\n"
    );
}

#[test]
fn values_read_as_postgresql_writes_them() {
    let (_, data) = copy(
        &mut Session::new(),
        "copy (select true as a, cast(1.5 as double precision) as b, cast('2024-02-29' as date) as c,
               cast('2024-02-29 12:30:00.5' as timestamp) as d, cast(12.50 as decimal(10, 2)) as e) to stdout",
    );
    assert_eq!(data, "t\t1.5\t2024-02-29\t2024-02-29 12:30:00.5\t12.50\n");
}

#[test]
fn a_hundred_thousand_rows_come_whole_and_in_order() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        let (frame, data) = copy(
            &mut session,
            "copy (select i from generate_series(1, 100000) g(i) order by i) to stdout",
        );
        assert_eq!(frame[2], "CommandComplete COPY 100000");
        let expected: String = (1..=100_000).map(|i| format!("{i}\n")).collect();
        assert!(data == expected, "{transport:?}: the data differ");
    }
}

#[test]
fn what_was_copied_out_can_be_copied_in() {
    let mut session = Session::new();
    session.execute(
        r"create table cout_from (i int, t text, d date);
          insert into cout_from values (1, E'\t\n\r\\', '2024-01-01'), (2, null, null), (3, '', null), (4, '\.', null), (5, '\N', null);
          create table cout_to as select * from cout_from where false",
    );
    for options in ["", "with (format csv)", "with (format csv, header)"] {
        session.execute("delete from cout_to");
        let (_, data) = copy(&mut session, &format!("copy cout_from to stdout {options}"));
        session.send(&query(&format!("copy cout_to from stdin {options}")));
        session.take(1);
        assert_eq!(
            session.run(&[copy_data(data.as_bytes()), copy_done()])[0],
            "CommandComplete COPY 5",
            "{options}"
        );
        let rows =
            |session: &mut Session, table: &str| session.rows(&format!("select * from {table} order by i"));
        assert_eq!(
            rows(&mut session, "cout_to"),
            rows(&mut session, "cout_from"),
            "{options}"
        );
    }
}

#[test]
fn an_error_in_the_middle_ends_the_data_with_an_error() {
    let mut session = Session::new();
    let (frame, _) = copy(
        &mut session,
        "copy (select cast(case when i = 9000 then 'x' else '1' end as int) from generate_series(1, 10000) g(i)) to stdout",
    );
    // No CopyDone, and above all no CopyFail, which only clients may send.
    assert!(
        frame == ["CopyOutResponse 0 [0]", "Error 22P02", "ReadyForQuery I"]
            || frame == ["Error 22P02", "ReadyForQuery I"],
        "{frame:?}"
    );
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_copy_out_that_cannot_begin_says_so() {
    let mut session = Session::new();
    assert_eq!(
        session.query("copy nosuch to stdout"),
        ["Error 42P01", "ReadyForQuery I"]
    );
    assert_eq!(
        session.query("copy (select nosuch) to stdout"),
        ["Error 42703", "ReadyForQuery I"]
    );
    assert_eq!(
        session.query("begin; copy nosuch to stdout"),
        ["CommandComplete BEGIN", "Error 42P01", "ReadyForQuery E"]
    );
}

#[test]
fn the_extended_protocol_copies_out() {
    let mut session = Session::new();
    session.send(
        &[
            parse_statement("", "copy (select i from generate_series(1, 3) g(i)) to stdout"),
            bind("", "", &[]),
            describe_portal(""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    let (frame, data) = collect(&mut session);
    assert_eq!(
        frame,
        [
            "ParseComplete",
            "BindComplete",
            "NoData",
            "CopyOutResponse 0 [0]",
            "CopyDone",
            "CommandComplete COPY 3",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(data, "1\n2\n3\n");
}

#[test]
fn a_row_limit_does_not_cut_a_copy() {
    let mut session = Session::new();
    session.send(
        &[
            parse_statement("", "copy (select i from generate_series(1, 3) g(i)) to stdout"),
            bind("", "", &[]),
            execute("", 1),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(collect(&mut session).1, "1\n2\n3\n");
}
