//! psql: scripts, `\copy`, errors as it shows them, Ctrl-C.

use std::fs;

use super::roads;
use crate::support::Server;
use crate::support::programs::{psql, run};
use crate::support::terminal::Terminal;
use crate::wire::ENDLESS;

/// Runs a script over the road that new users take.
#[track_caller]
fn script(sql: &str) -> String {
    run(&mut psql(&roads(Server::shared())[0]), sql).success()
}

#[test]
fn psql_connects_over_every_road() {
    for road in roads(Server::shared()) {
        let output = run(psql(&road).args(["-c", "select 1 + 1"]), "").success();
        assert_eq!(output, "2\n", "{road}");
    }
}

#[test]
fn psql_shows_that_the_connection_is_encrypted() {
    let output = script("\\conninfo\n");
    assert!(output.contains("SSL connection (protocol: TLSv1.3"), "{output}");
}

#[test]
fn psql_runs_a_script() {
    assert_eq!(
        script(
            "create table psql_script (i int, t text);
             insert into psql_script values (1, 'one'), (2, null);
             \\pset null NULL
             select * from psql_script order by i;
             update psql_script set t = 'zwei' where i = 2;
             select t from psql_script where i = 2;
             select count(*) as n from psql_script \\gset
             \\echo :n rows
             \\d_is_no_command_but_does_no_harm
             drop table psql_script;"
        ),
        "1|one\n2|NULL\nzwei\n2 rows\n"
    );
}

#[test]
fn psql_prints_the_tags_of_commands() {
    let mut command = psql(&roads(Server::shared())[0]);
    let output = run(
        command.args(["-v", "QUIET=off"]),
        "create table psql_tags (i int);\ninsert into psql_tags values (1), (2);\nselect i from psql_tags order by i;\n\
         delete from psql_tags;\nbegin;\nrollback;\ndrop table psql_tags;\n",
    );
    assert_eq!(
        output.success(),
        "CREATE TABLE\nINSERT 0 2\n1\n2\nDELETE 2\nBEGIN\nROLLBACK\nDROP TABLE\n"
    );
}

#[test]
fn psql_copies_files_in_and_out() {
    let server = Server::shared();
    let (source, target) = (server.scratch("psql_in.csv"), server.scratch("psql_out.csv"));
    let csv = "i,t,d\n1,\"with, comma\",2024-02-29\n2,,1999-12-31\n3,\"two\nlines\",\n";
    fs::write(&source, csv).unwrap();
    let output = script(&format!(
        "create table psql_copy (i int, t text, d date);
         \\copy psql_copy from '{}' with (format csv, header)
         select count(*), count(t), max(d) from psql_copy;
         \\copy (select * from psql_copy order by i) to '{}' csv header
         copy psql_copy (i) from stdin;
10
20
\\.
         select sum(i) from psql_copy;
         copy (select i from psql_copy where i >= 10 order by i) to stdout;",
        source.display(),
        target.display()
    ));
    assert_eq!(output, "3|2|2024-02-29\n36\n10\n20\n");
    assert_eq!(fs::read_to_string(&target).unwrap(), csv);
}

#[test]
fn psql_points_at_the_error() {
    let output = run(
        &mut psql(&roads(Server::shared())[0]),
        "select 1 as a,\n  nosuch as b;\n",
    );
    assert!(output.err.contains("ERROR:  "), "{output:?}");
    assert!(
        output.err.contains("LINE 2:   nosuch as b;\n          ^\n"),
        "{}",
        output.err
    );
}

#[test]
fn psql_stops_at_the_first_error_when_told_to() {
    let mut command = psql(&roads(Server::shared())[0]);
    let output = run(
        command.args(["-v", "ON_ERROR_STOP=1"]),
        "select 1;\nselect nosuch;\nselect 2;\n",
    );
    assert_eq!((output.status.code(), output.out.as_str()), (Some(3), "1\n"));
}

#[test]
fn psql_sees_a_transaction_fail() {
    let output = run(
        &mut psql(&roads(Server::shared())[0]),
        "create table psql_tx (i int primary key);
         begin;
         insert into psql_tx values (1);
         insert into psql_tx values (1);
         select 'not executed';
         commit;
         select count(*) from psql_tx;
         \\echo :ERROR :LAST_ERROR_SQLSTATE",
    );
    assert_eq!(output.out, "0\nfalse 25P02\n");
    assert!(
        output
            .err
            .contains("current transaction is aborted, commands ignored until end of transaction block"),
        "{}",
        output.err
    );
}

#[test]
fn psql_runs_a_script_in_a_single_transaction() {
    let road = &roads(Server::shared())[0];
    script("create table psql_single (i int)");
    let output = run(
        psql(road).args(["--single-transaction", "-v", "ON_ERROR_STOP=1", "-f", "-"]),
        "insert into psql_single values (1);\nselect nosuch;\n",
    );
    assert!(!output.status.success());
    run(
        psql(road).args(["--single-transaction", "-f", "-"]),
        "insert into psql_single values (2);\n",
    )
    .success();
    assert_eq!(script("select i from psql_single"), "2\n");
}

#[test]
fn psql_prepares_and_executes() {
    assert_eq!(
        script(
            "create table psql_prepare (i int, t text);
             prepare ins (int, text) as insert into psql_prepare values ($1, $2);
             execute ins (1, 'one');
             execute ins (2, 'it''s two');
             prepare sel as select t from psql_prepare where i = $1;
             execute sel (2);
             deallocate ins;
             execute sel (1);"
        ),
        "it's two\none\n"
    );
}

#[test]
fn psql_fetches_in_pieces() {
    let output = script("\\set FETCH_COUNT 1000\nselect i from generate_series(1, 5000) g(i) order by i;\n");
    let expected: String = (1..=5000).map(|i| format!("{i}\n")).collect();
    assert!(
        output == expected,
        "FETCH_COUNT, which uses a cursor, lost or added rows"
    );
}

#[test]
fn control_c_stops_the_query_and_psql_goes_on() {
    for road in roads(Server::shared()) {
        let mut terminal = Terminal::start(psql(&road).arg("-n"));
        // One line, so that psql has read both before Ctrl-C can make it forget one.
        terminal.type_line(&format!(
            "select 'star' || 'ted'; {};",
            ENDLESS.replace('\n', " ")
        ));
        terminal.await_text("started");
        terminal.interrupt_until("ERROR:  canceling statement due to user request");
        terminal.type_line("select 'still ' || 'here';");
        terminal.await_text("still here");
        assert!(terminal.end().success());
    }
}

#[test]
fn psql_says_that_the_password_is_wrong() {
    let server = Server::shared();
    for road in roads(server) {
        let output = run(&mut psql(&road.replace(&server.password, "wrong")), "select 1");
        assert_eq!(output.status.code(), Some(2));
        assert!(
            output.err.contains("password authentication failed for user"),
            "{}",
            output.err
        );
    }
}

#[test]
fn psql_reads_no_gigabyte_to_show_its_first_row() {
    let mut command = psql(&roads(Server::shared())[0]);
    let output = run(
        command.args(["-v", "FETCH_COUNT=10"]),
        "begin;\ndeclare c cursor for select a.i from generate_series(1, 1000000) a(i), generate_series(1, 1000) b(j);\n\
         fetch 3 from c;\nrollback;\n",
    );
    assert_eq!(output.success().lines().count(), 3);
}
