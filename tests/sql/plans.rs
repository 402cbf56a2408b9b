//! A plan that is kept must not outlive what it was made from.

use crate::support::message::{bind, execute, parse_statement, sync};
use crate::support::{Server, Session};

fn session() -> Option<Session> {
    if Server::shared().is_postgres() {
        println!("skipped: macros are DuckDB's");
        return None;
    }
    Some(Session::new())
}

#[test]
fn a_repeated_statement_sees_a_macro_that_another_session_changed() {
    let (Some(mut session), Some(mut other)) = (session(), session()) else {
        return;
    };
    other.execute("create or replace macro pla_macro() as 1");
    for _ in 0..2 {
        assert_eq!(session.rows("select pla_macro()"), ["1"]);
    }
    other.execute("create or replace macro pla_macro() as 2");
    assert_eq!(session.rows("select pla_macro()"), ["2"]);
    other.execute("begin; create or replace macro pla_macro() as 3");
    assert_eq!(session.rows("select pla_macro()"), ["2"]);
    other.execute("commit");
    assert_eq!(session.rows("select pla_macro()"), ["3"]);
}

#[test]
fn a_transaction_keeps_its_view_of_the_catalog_and_gives_it_to_nobody() {
    let (Some(mut session), Some(mut other)) = (session(), session()) else {
        return;
    };
    other.execute("create or replace macro pla_view() as 1");
    session.execute("begin");
    assert_eq!(session.rows("select pla_view()"), ["1"]);
    other.execute("create or replace macro pla_view() as 2");
    assert_eq!(session.rows("select pla_view()"), ["1"]);
    session.execute("commit");
    assert_eq!(session.rows("select pla_view()"), ["2"]);
}

#[test]
fn a_repeated_statement_sees_a_changed_setting() {
    let Some(mut session) = session() else { return };
    let noon = "select timestamptz '2024-07-01 12:00:00+00'";
    assert_eq!(session.rows(noon), ["2024-07-01 12:00:00+00"]);
    session.execute("set timezone = 'Europe/Berlin'");
    assert_eq!(session.rows(noon), ["2024-07-01 14:00:00+02"]);
}

#[test]
fn a_prepared_statement_outlives_a_change_that_keeps_its_row_and_no_other() {
    let Some(mut session) = session() else { return };
    session.execute("create table pla_kept (a int); insert into pla_kept values (1)");
    session.run(&[parse_statement("pla", "select * from pla_kept"), sync()]);
    let run = [bind("", "pla", &[]), execute("", 0), sync()];
    session.execute("create index pla_index on pla_kept (a)");
    assert_eq!(session.run(&run)[1..3], ["DataRow 1", "CommandComplete SELECT 1"]);
    session.execute("drop index pla_index; alter table pla_kept add column b int");
    assert_eq!(session.run(&run)[0], "Error 0A000");
}
