//! The extended protocol: statements, portals, Describe, and what happens
//! after an error.

use super::{INT4, INT8, TEXT};
use crate::support::message::*;
use crate::support::{Server, Session, Transport};

#[test]
fn parse_bind_describe_execute_sync_answer_in_order() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        assert_eq!(
            session.run(&[
                parse_as("", "select $1 as a", &[INT4]),
                bind("", "", &["7"]),
                describe_portal(""),
                execute("", 0),
                sync()
            ]),
            [
                "ParseComplete",
                "BindComplete",
                "RowDescription a:int4",
                "DataRow 7",
                "CommandComplete SELECT 1",
                "ReadyForQuery I"
            ]
        );
    }
}

#[test]
fn execute_alone_sends_no_row_description() {
    assert_eq!(
        Session::new().run(&[
            parse_statement("", "select 1 as a"),
            bind("", "", &[]),
            execute("", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "DataRow 1",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn pipelines_are_answered_in_order_and_once_per_sync() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        let mut pipeline = parse_as("double", "select $1 + $1 as a", &[INT4]);
        for i in 0..200 {
            pipeline.extend(bind("", "double", &[&i.to_string()]));
            pipeline.extend(execute("", 0));
            if i % 10 == 9 {
                pipeline.extend(sync());
            }
        }
        session.send(&pipeline);
        let mut expected = vec!["ParseComplete".to_string()];
        for i in 0..200 {
            expected.push("BindComplete".into());
            expected.push(format!("DataRow {}", 2 * i));
            expected.push("CommandComplete SELECT 1".into());
            if i % 10 == 9 {
                expected.push("ReadyForQuery I".into());
            }
        }
        assert_eq!(session.take(expected.len()), expected);
    }
}

#[test]
fn after_an_error_everything_is_skipped_until_sync() {
    let mut session = Session::new();
    session.execute("create table ext_skip (i int)");
    assert_eq!(
        session.run(&[
            parse_statement("", "select nosuch"),
            bind("", "", &[]),
            execute("", 0),
            parse_statement("", "insert into ext_skip values (1)"),
            bind("", "", &[]),
            execute("", 0),
            describe_statement("nosuch"),
            close_statement("nosuch"),
            flush(),
            query("insert into ext_skip values (2)"),
            sync()
        ]),
        ["Error 42703", "ReadyForQuery I"]
    );
    assert_eq!(session.rows("select count(*) from ext_skip"), ["0"]);
}

#[test]
fn an_error_is_sent_without_waiting_for_sync() {
    let mut session = Session::new();
    session.send(&parse_statement("", "select nosuch"));
    assert_eq!(session.take(1), ["Error 42703"]);
    assert_eq!(session.run(&[sync()]), ["ReadyForQuery I"]);
}

#[test]
fn flush_makes_the_answers_come_before_sync() {
    for transport in Transport::ALL {
        let mut session = Session::over(Server::shared(), transport);
        session.send(&[parse_statement("s", "select 1 as a"), flush()].concat());
        assert_eq!(session.take(1), ["ParseComplete"]);
        session.send(&[describe_statement("s"), flush()].concat());
        assert_eq!(session.take(2), ["ParameterDescription", "RowDescription a:int4"]);
        session.send(&[bind("", "s", &[]), execute("", 0), flush()].concat());
        assert_eq!(
            session.take(3),
            ["BindComplete", "DataRow 1", "CommandComplete SELECT 1"]
        );
        assert_eq!(session.run(&[sync()]), ["ReadyForQuery I"]);
    }
}

#[test]
fn a_statement_is_described_before_it_is_executed() {
    let mut session = Session::new();
    session.execute("create table ext_describe (i int, t text)");
    assert_eq!(
        session.run(&[
            parse_statement("", "select i, t from ext_describe where i = $1 and t = $2"),
            describe_statement(""),
            sync()
        ]),
        [
            "ParseComplete",
            "ParameterDescription int4 text",
            "RowDescription i:int4 t:text",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn a_statement_without_rows_is_described_by_no_data() {
    let mut session = Session::new();
    session.execute("create table ext_no_data (i int)");
    for (sql, parameters) in [
        ("insert into ext_no_data values ($1)", "ParameterDescription int4"),
        ("update ext_no_data set i = $1", "ParameterDescription int4"),
        ("delete from ext_no_data", "ParameterDescription"),
        ("create table ext_no_data_2 (i int)", "ParameterDescription"),
        ("begin", "ParameterDescription"),
        ("set application_name = 'x'", "ParameterDescription"),
        ("", "ParameterDescription"),
    ] {
        assert_eq!(
            session.run(&[parse_statement("", sql), describe_statement(""), sync()]),
            ["ParseComplete", parameters, "NoData", "ReadyForQuery I"],
            "{sql}"
        );
    }
    assert_eq!(
        session.run(&[
            parse_statement("", "insert into ext_no_data values (1)"),
            bind("", "", &[]),
            describe_portal(""),
            execute("", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "BindComplete",
            "NoData",
            "CommandComplete INSERT 0 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn describing_executes_nothing() {
    let mut session = Session::new();
    session.execute("create table ext_untouched (i int)");
    session.run(&[
        parse_statement("s", "insert into ext_untouched values (1) returning i as a"),
        describe_statement("s"),
        bind("", "s", &[]),
        describe_portal(""),
        sync(),
    ]);
    assert_eq!(session.rows("select count(*) from ext_untouched"), ["0"]);
    assert_eq!(
        session.run(&[describe_statement("s"), sync()]),
        ["ParameterDescription", "RowDescription a:int4", "ReadyForQuery I"]
    );
}

#[test]
fn the_description_of_a_portal_has_the_formats_that_bind_asked_for() {
    let mut session = Session::new();
    let describe = |results: &[i16]| {
        let message = Bind {
            results,
            ..Bind::default()
        }
        .message();
        [
            parse_statement("", "select 1 as a, 2 as b"),
            message,
            describe_portal(""),
            execute("", 0),
            sync(),
        ]
    };
    let rows = |format: &[i16], session: &mut Session| session.run(&describe(format))[2..4].to_vec();
    assert_eq!(
        rows(&[], &mut session),
        ["RowDescription a:int4 b:int4", "DataRow 1|2"]
    );
    assert_eq!(
        rows(&[1], &mut session),
        [
            "RowDescription a:int4 binary b:int4 binary",
            "DataRow \\x00000001|\\x00000002"
        ]
    );
    assert_eq!(
        rows(&[0, 1], &mut session),
        ["RowDescription a:int4 b:int4 binary", "DataRow 1|\\x00000002"]
    );
    assert_eq!(
        session.run(&describe(&[0, 1, 1])),
        ["ParseComplete", "Error 08P01", "ReadyForQuery I"],
        "three formats for two columns"
    );
    assert_eq!(
        session.run(&describe(&[2])).last_chunk(),
        Some(&["Error 22023".to_string(), "ReadyForQuery I".to_string()]),
        "there is no format 2"
    );
}

#[test]
fn an_empty_statement_answers_with_an_empty_query_response() {
    assert_eq!(
        Session::new().run(&[parse_statement("", ""), bind("", "", &[]), execute("", 0), sync()]),
        [
            "ParseComplete",
            "BindComplete",
            "EmptyQueryResponse",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn a_named_statement_lives_until_it_is_closed() {
    let mut session = Session::new();
    let run = |name: &str| [bind("", name, &["5"]), execute("", 0), sync()];
    session.run(&[parse_as("named", "select $1 as a", &[INT8]), sync()]);
    for _ in 0..3 {
        assert_eq!(session.run(&run("named"))[1], "DataRow 5");
    }
    session.execute("begin; rollback");
    session.query("select nosuch");
    assert_eq!(
        session.run(&run("named"))[1],
        "DataRow 5",
        "errors and rollbacks do not touch it"
    );
    assert_eq!(
        session.run(&[close_statement("named"), sync()]),
        ["CloseComplete", "ReadyForQuery I"]
    );
    assert_eq!(session.run(&run("named")), ["Error 26000", "ReadyForQuery I"]);
}

#[test]
fn a_name_can_be_taken_only_once() {
    let mut session = Session::new();
    session.run(&[parse_statement("twice", "select 1 as a"), sync()]);
    assert_eq!(
        session.run(&[parse_statement("twice", "select 2 as a"), sync()]),
        ["Error 42P05", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[bind("", "twice", &[]), execute("", 0), sync()])[1],
        "DataRow 1",
        "the first one is still there"
    );
    session.run(&[close_statement("twice"), sync()]);
    assert_eq!(
        session.run(&[parse_statement("twice", "select 2 as a"), sync()]),
        ["ParseComplete", "ReadyForQuery I"]
    );
}

#[test]
fn the_unnamed_statement_is_replaced_by_the_next() {
    let mut session = Session::new();
    session.run(&[parse_statement("", "select 1 as a"), sync()]);
    session.run(&[parse_statement("", "select 2 as a"), sync()]);
    let run = [bind("", "", &[]), execute("", 0), sync()];
    assert_eq!(session.run(&run)[1], "DataRow 2");
    session.query("select 3 as a");
    assert_eq!(
        session.run(&run),
        ["Error 26000", "ReadyForQuery I"],
        "a simple query destroys it"
    );
}

#[test]
fn a_parse_that_fails_leaves_no_statement() {
    let mut session = Session::new();
    session.run(&[parse_statement("", "select 1 as a"), sync()]);
    assert_eq!(
        session.run(&[parse_statement("", "selec"), sync()]),
        ["Error 42601", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[bind("", "", &[]), sync()]),
        ["Error 26000", "ReadyForQuery I"]
    );
    session.run(&[parse_statement("failed", "selec"), sync()]);
    assert_eq!(
        session.run(&[describe_statement("failed"), sync()]),
        ["Error 26000", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[parse_statement("failed", "select 1 as a"), sync()]),
        ["ParseComplete", "ReadyForQuery I"]
    );
}

#[test]
fn what_does_not_exist_cannot_be_bound_described_or_executed() {
    let mut session = Session::new();
    for (message, state) in [
        (bind("", "nosuch", &[]), "26000"),
        (describe_statement("nosuch"), "26000"),
        (describe_portal("nosuch"), "34000"),
        (execute("nosuch", 0), "34000"),
        (describe_portal(""), "34000"),
        (execute("", 0), "34000"),
    ] {
        assert_eq!(
            session.run(&[message, sync()]),
            [format!("Error {state}"), "ReadyForQuery I".into()]
        );
    }
}

#[test]
fn closing_what_does_not_exist_is_no_error() {
    assert_eq!(
        Session::new().run(&[
            close_statement("nosuch"),
            close_portal("nosuch"),
            close_statement(""),
            sync()
        ]),
        [
            "CloseComplete",
            "CloseComplete",
            "CloseComplete",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn a_statement_is_exactly_one_statement() {
    let mut session = Session::new();
    assert_eq!(
        session.run(&[parse_statement("", "select 1; select 2"), sync()]),
        ["Error 42601", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[parse_statement("", "select 1 as a;;"), sync()]),
        ["ParseComplete", "ReadyForQuery I"]
    );
}

#[test]
fn a_syntax_error_is_found_by_parse_and_has_its_position() {
    let mut session = Session::new();
    session.send(&[parse_statement("", "select 1 frm x y"), sync()].concat());
    let answers = session.answers();
    let crate::support::Answer::Error(report) = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!(report.sqlstate(), "42601");
    assert!(!report.field('P').is_empty(), "{report:?}");
}

#[test]
fn sql_can_deallocate_what_the_protocol_prepared() {
    let mut session = Session::new();
    session.run(&[
        parse_statement("d1", "select 1"),
        parse_statement("d2", "select 2"),
        sync(),
    ]);
    assert_eq!(
        session.query("deallocate d1"),
        ["CommandComplete DEALLOCATE", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[bind("", "d1", &[]), sync()]),
        ["Error 26000", "ReadyForQuery I"]
    );
    assert_eq!(
        session.run(&[bind("", "d2", &[]), sync()]),
        ["BindComplete", "ReadyForQuery I"]
    );
    session.execute("deallocate all");
    assert_eq!(
        session.run(&[bind("", "d2", &[]), sync()]),
        ["Error 26000", "ReadyForQuery I"]
    );
    session.run(&[parse_statement("d3", "select 3"), sync()]);
    session.execute("discard all");
    assert_eq!(
        session.run(&[bind("", "d3", &[]), sync()]),
        ["Error 26000", "ReadyForQuery I"]
    );
}

#[test]
fn sql_and_protocol_share_their_prepared_statements() {
    let mut session = Session::new();
    session.execute("prepare shared as select 11 as a");
    assert_eq!(
        session.run(&[bind("", "shared", &[]), execute("", 0), sync()]),
        [
            "BindComplete",
            "DataRow 11",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
    session.run(&[parse_as("wired", "select $1 as a", &[INT4]), sync()]);
    assert_eq!(session.rows("execute wired(12)"), ["12"]);
}

#[test]
fn a_statement_is_never_executed_with_columns_other_than_those_described() {
    let mut session = Session::new();
    session.execute("create table ext_changes (i int); insert into ext_changes values (1)");
    session.run(&[
        parse_statement("s", "select * from ext_changes"),
        describe_statement("s"),
        sync(),
    ]);
    session.execute("alter table ext_changes add column j int");
    assert_eq!(
        session.run(&[bind("", "s", &[]), execute("", 0), sync()]),
        ["Error 0A000", "ReadyForQuery I"],
        "cached plan must not change result type"
    );
    session.execute("drop table ext_changes");
    assert_eq!(
        session.run(&[bind("", "s", &[]), sync()]),
        ["Error 42P01", "ReadyForQuery I"]
    );
}

#[test]
fn a_prepared_statement_sees_a_table_that_was_made_anew() {
    let mut session = Session::new();
    session.execute("create table ext_anew (i int); insert into ext_anew values (1)");
    session.run(&[parse_statement("s", "select i from ext_anew"), sync()]);
    session.execute("drop table ext_anew; create table ext_anew (i int); insert into ext_anew values (2)");
    assert_eq!(
        session.run(&[bind("", "s", &[]), execute("", 0), sync()])[1],
        "DataRow 2"
    );
}

#[test]
fn a_prepared_insert_is_executed_again_and_again() {
    let mut session = Session::new();
    session.execute("create table ext_again (i int, t text)");
    session.run(&[
        parse_as("s", "insert into ext_again values ($1, $2)", &[INT4, TEXT]),
        sync(),
    ]);
    for i in 0..50 {
        assert_eq!(
            session.run(&[bind("", "s", &[&i.to_string(), "x"]), execute("", 0), sync()]),
            ["BindComplete", "CommandComplete INSERT 0 1", "ReadyForQuery I"]
        );
    }
    assert_eq!(
        session.rows("select count(*), min(i), max(i) from ext_again"),
        ["50|0|49"]
    );
}

#[test]
fn show_and_other_answers_of_the_server_itself_are_described_like_any_result() {
    assert_eq!(
        Session::new().run(&[
            parse_statement("", "show server_encoding"),
            describe_statement(""),
            bind("", "", &[]),
            execute("", 0),
            sync()
        ]),
        [
            "ParseComplete",
            "ParameterDescription",
            "RowDescription server_encoding:text",
            "BindComplete",
            "DataRow UTF8",
            "CommandComplete SHOW",
            "ReadyForQuery I"
        ]
    );
}
