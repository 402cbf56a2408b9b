//! The simple query protocol: Query in, everything up to ReadyForQuery out.

use crate::support::message::*;
use crate::support::{Server, Session, Transport};

#[test]
fn a_select_answers_description_rows_tag_and_status() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        assert_eq!(
            session.query("select 1 as a, cast(null as int) as b"),
            [
                "RowDescription a:int4 b:int4",
                "DataRow 1|null",
                "CommandComplete SELECT 1",
                "ReadyForQuery I"
            ]
        );
    }
}

#[test]
fn no_rows_are_a_result_too() {
    assert_eq!(
        Session::new().query("select 1 as a where false"),
        [
            "RowDescription a:int4",
            "CommandComplete SELECT 0",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn an_empty_query_gets_an_answer_of_its_own() {
    let mut session = Session::new();
    for empty in [
        "",
        " ",
        ";",
        " ; ;; ",
        "-- nothing\n",
        "/* nothing */",
        "/* a /* nested */ b */;",
    ] {
        assert_eq!(
            session.query(empty),
            ["EmptyQueryResponse", "ReadyForQuery I"],
            "{empty:?}"
        );
    }
}

#[test]
fn several_statements_answer_one_after_the_other_and_once_ready() {
    assert_eq!(
        Session::new().query("select 1 as a; ; select 2 as b; -- end\n"),
        [
            "RowDescription a:int4",
            "DataRow 1",
            "CommandComplete SELECT 1",
            "RowDescription b:int4",
            "DataRow 2",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn semicolons_inside_literals_identifiers_and_comments_separate_nothing() {
    assert_eq!(
        Session::new().rows(
            r#"select 'a;b' as "c;d" /* ; */ -- ;
               ; select $$;$$ as x; select $tag$;$$;$tag$ as y; select E'\';' as z"#
        ),
        ["a;b", ";", ";$$;", "';"]
    );
}

#[test]
fn statements_after_a_failed_one_are_not_executed() {
    let mut session = Session::new();
    session.execute("create table simple_after_error (i int)");
    assert_eq!(
        session.query("select 1 as a; select nosuch; insert into simple_after_error values (1)"),
        [
            "RowDescription a:int4",
            "DataRow 1",
            "CommandComplete SELECT 1",
            "Error 42703",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(session.rows("select count(*) from simple_after_error"), ["0"]);
}

#[test]
fn a_syntax_error_anywhere_in_the_message_executes_nothing_of_it() {
    let mut session = Session::new();
    session.execute("create table simple_syntax (i int)");
    assert_eq!(
        session.query("insert into simple_syntax values (1); selec 2"),
        ["Error 42601", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from simple_syntax"), ["0"]);
}

#[test]
fn an_error_names_severity_sqlstate_message_and_position() {
    let mut session = Session::new();
    let report = session.error("select 1 as a,\n       nosuch");
    assert_eq!((report.field('S'), report.field('V')), ("ERROR", "ERROR"));
    assert_eq!(report.sqlstate(), "42703");
    assert!(report.message().contains("nosuch"), "{report:?}");
    assert_eq!(report.field('P'), "23", "counted in characters, from 1");
}

#[test]
fn the_position_of_an_error_counts_characters_not_bytes() {
    let report = Session::new().error("select 'äöü€𝄞' as a, nosuch");
    assert_eq!(report.field('P'), "22");
}

#[test]
fn the_position_of_an_error_counts_from_the_start_of_the_message() {
    let report = Session::new().error("select 1 as a; select nosuch");
    assert_eq!(report.field('P'), "23");
}

#[test]
fn errors_carry_the_sqlstate_that_drivers_look_for() {
    let mut session = Session::new();
    session.execute("create table simple_states (i int primary key, j int not null, k int check (k > 0))");
    session.execute("insert into simple_states values (1, 1, 1)");
    session.execute("create schema simple_states_s");
    for (sql, state) in [
        ("select * from nosuch", "42P01"),
        ("select nosuch from simple_states", "42703"),
        ("select nosuch(1)", "42883"),
        ("selec 1", "42601"),
        ("select * from nosuch.nosuch", "42P01"),
        ("create table simple_states (i int)", "42P07"),
        ("create schema simple_states_s", "42P06"),
        ("select cast('x' as int)", "22P02"),
        ("select cast(40000 as smallint)", "22003"),
        ("select cast('2024-02-30' as date)", "22008"),
        ("insert into simple_states values (1, 1, 1)", "23505"),
        ("insert into simple_states values (2, null, 1)", "23502"),
        ("insert into simple_states values (2, 1, -1)", "23514"),
        ("select i from simple_states group by j", "42803"),
        (
            "select a.i from simple_states a, simple_states b where i = 1",
            "42702",
        ),
        ("drop table nosuch", "42P01"),
        ("drop schema nosuch", "3F000"),
        ("set nosuch = 1", "42704"),
        ("create table simple_twice (i int, i int)", "42701"),
    ] {
        assert_eq!(
            session.query(sql),
            [format!("Error {state}"), "ReadyForQuery I".into()],
            "{sql}"
        );
    }
}

#[test]
fn every_kind_of_statement_has_the_tag_that_postgresql_gives_it() {
    let mut session = Session::new();
    for (sql, tag) in [
        ("create table simple_tags (i int)", "CREATE TABLE"),
        ("insert into simple_tags values (1), (2), (3)", "INSERT 0 3"),
        ("update simple_tags set i = i + 1 where i > 1", "UPDATE 2"),
        ("delete from simple_tags where i = 1", "DELETE 1"),
        (
            "create table simple_tags_2 as select * from simple_tags",
            "SELECT 2",
        ),
        (
            "create view simple_tags_v as select * from simple_tags",
            "CREATE VIEW",
        ),
        ("create index simple_tags_i on simple_tags_2 (i)", "CREATE INDEX"),
        ("create schema simple_tags_s", "CREATE SCHEMA"),
        ("create sequence simple_tags_q", "CREATE SEQUENCE"),
        ("drop index simple_tags_i", "DROP INDEX"),
        ("truncate simple_tags_2", "TRUNCATE TABLE"),
        ("alter table simple_tags_2 add column j int", "ALTER TABLE"),
        ("drop view simple_tags_v", "DROP VIEW"),
        ("drop schema simple_tags_s", "DROP SCHEMA"),
        ("drop sequence simple_tags_q", "DROP SEQUENCE"),
        ("drop table simple_tags_2", "DROP TABLE"),
        ("begin", "BEGIN"),
        ("commit", "COMMIT"),
        ("start transaction", "START TRANSACTION"),
        ("rollback", "ROLLBACK"),
        ("set application_name = 'x'", "SET"),
        ("reset application_name", "RESET"),
        ("deallocate all", "DEALLOCATE ALL"),
        ("discard all", "DISCARD ALL"),
    ] {
        let transcript = session.query(sql);
        assert!(
            transcript.contains(&format!("CommandComplete {tag}")),
            "{sql}: {transcript:?}"
        );
    }
}

#[test]
fn the_rows_of_dml_with_returning_come_with_the_tag_of_dml() {
    let mut session = Session::new();
    session.execute("create table simple_returning (i int)");
    assert_eq!(
        session.query("insert into simple_returning values (1), (2) returning i as a"),
        [
            "RowDescription a:int4",
            "DataRow 1",
            "DataRow 2",
            "CommandComplete INSERT 0 2",
            "ReadyForQuery I"
        ]
    );
    assert_eq!(
        session.query("delete from simple_returning where i = 2 returning i as a"),
        [
            "RowDescription a:int4",
            "DataRow 2",
            "CommandComplete DELETE 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn a_large_result_arrives_whole_and_in_order() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        session.send(&query(
            "select i as a from generate_series(1, 100000) g(i) order by i",
        ));
        let answers = session.answers();
        assert_eq!(answers.len(), 100_003, "{transport:?}");
        assert_eq!(answers[100_001].to_string(), "CommandComplete SELECT 100000");
        for (row, answer) in (1..).zip(&answers[1..100_001]) {
            assert_eq!(answer.to_string(), format!("DataRow {row}"));
        }
    }
}

#[test]
fn an_error_in_the_middle_of_the_rows_ends_the_result() {
    let mut session = Session::new();
    let transcript = session.query(
        "select cast(case when i = 9000 then 'x' else '1' end as int) as a from generate_series(1, 10000) g(i)",
    );
    let (rows, rest) = transcript.split_at(transcript.len() - 2);
    assert_eq!(rest, ["Error 22P02", "ReadyForQuery I"]);
    assert!(
        rows.iter().skip(1).all(|row| row == "DataRow 1"),
        "only rows before the error"
    );
    assert_eq!(session.rows("select 2 as a"), ["2"]);
}

#[test]
fn an_error_far_into_a_large_result_arrives_behind_the_rows_before_it() {
    let mut session = Session::new();
    session.send(&query(
        "select case when i = 400000 then cast(i || 'x' as bigint) else i end as a
         from generate_series(1, 500000) g(i)",
    ));
    let answers = session.answers();
    let (rows, rest) = answers.split_at(answers.len() - 2);
    assert_eq!(rest[0].to_string(), "Error 22P02");
    assert_eq!(rest[1].to_string(), "ReadyForQuery I");
    for (row, answer) in (1..).zip(&rows[1..]) {
        assert_eq!(answer.to_string(), format!("DataRow {row}"));
    }
    assert!(rows.len() < 400_001, "only rows before the error");
    assert_eq!(session.rows("select 2 as a"), ["2"]);
}

#[test]
fn rows_of_megabytes_arrive_whole_among_narrow_ones() {
    let mut session = Session::new();
    session.send(&query(
        "select repeat('x', case when i % 20000 = 0 then 3000000 else 1 end) as a
         from generate_series(1, 200000) g(i)",
    ));
    let answers = session.answers();
    assert_eq!(answers[200_001].to_string(), "CommandComplete SELECT 200000");
    for (row, answer) in (1..).zip(&answers[1..200_001]) {
        let length = if row % 20_000 == 0 { 3_000_000 } else { 1 };
        assert_eq!(answer.to_string().len(), "DataRow ".len() + length, "row {row}");
    }
}

#[test]
fn a_busy_session_still_sees_times_in_explain_analyze() {
    if Server::shared().is_postgres() {
        println!("skipped: the form is DuckDB's");
        return;
    }
    let mut session = Session::new();
    for _ in 0..40 {
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
    let explained = |session: &mut Session| {
        let rows = session.rows("explain (analyze, format json) select count(*) from range(1000)");
        // A value of several lines is shown in hexadecimal.
        let timing: String = b"operator_timing"
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(rows[0].contains(&timing), "{rows:?}");
    };
    explained(&mut session);
    assert_eq!(session.rows("select 1 as a"), ["1"]);
    explained(&mut session);
}

#[test]
fn a_value_of_megabytes_passes_both_ways() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        let value = "0123456789abcdef".repeat(1 << 17);
        let rows = session.rows(&format!("select '{value}' as a"));
        assert!(rows == [value.as_str()], "{transport:?}: 2 MiB came back changed");
    }
}

#[test]
fn queries_sent_ahead_are_answered_in_order() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        let pipeline: Vec<u8> = (1..=100)
            .flat_map(|i| query(&format!("select {i} as a")))
            .collect();
        session.send(&pipeline);
        for i in 1..=100 {
            let row = format!("DataRow {i}");
            assert_eq!(
                session.transcript(),
                [
                    "RowDescription a:int4",
                    &row,
                    "CommandComplete SELECT 1",
                    "ReadyForQuery I"
                ]
            );
        }
    }
}

#[test]
fn a_message_may_arrive_byte_by_byte() {
    for transport in [Transport::Tcp, Transport::Tls13, Transport::Tls12] {
        let mut session = Session::over(Server::shared(), transport);
        for byte in query("select 'piecemeal' as a") {
            session.send(&[byte]);
        }
        assert_eq!(session.transcript()[1], "DataRow piecemeal");
    }
}

#[test]
fn columns_without_a_name_of_their_own_and_with_the_same_name_are_sent_as_they_are() {
    assert_eq!(
        Session::new().query(r#"select 1 as a, 2 as a, 3 as "Mixed Case", 4 as "ü""#)[0],
        "RowDescription a:int4 a:int4 Mixed Case:int4 ü:int4"
    );
}

#[test]
fn terminate_ends_the_connection_without_an_answer() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        session.send(&[query("select 1 as a"), terminate(), query("select 2 as a")].concat());
        assert_eq!(
            session.last_words(),
            [
                "RowDescription a:int4",
                "DataRow 1",
                "CommandComplete SELECT 1",
                "ReadyForQuery I"
            ]
        );
    }
}

#[test]
fn text_that_is_not_utf8_is_refused_and_the_session_goes_on() {
    let mut session = Session::new();
    assert_eq!(
        session.run(&[framed(b'Q', b"select '\xff\xfe' as a\0")]),
        ["Error 22021", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[framed(b'P', b"\0select '\xc3\x28' as a\0\0\0"), sync()]),
        ["Error 22021", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

#[test]
fn nothing_may_follow_the_nul_that_ends_a_query() {
    let mut session = Session::new();
    assert_eq!(
        session.run(&[framed(b'Q', b"select 1 as a\0select 2 as a\0")]),
        ["Error 08P01", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_simple_query_is_answered_anew_when_another_session_has_changed_its_table() {
    for (i, transport) in Transport::ALL.into_iter().enumerate() {
        let mut session = Session::over(Server::shared(), transport);
        let mut other = Session::over(Server::shared(), transport);
        let table = format!("simple_changed_{i}");
        session.execute(&format!("create table {table} as select 1 as i"));
        let ask = format!("select * from {table}");
        assert_eq!(session.rows(&ask), ["1"]);
        other.execute(&format!("alter table {table} add column j text default 'a'"));
        assert_eq!(session.rows(&ask), ["1|a"]);
        other.execute(&format!("drop table {table}"));
        assert_eq!(session.query(&ask), ["Error 42P01", "ReadyForQuery I"]);
    }
}
