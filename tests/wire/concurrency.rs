//! Many sessions at once, each of which must see its own answers only.

use std::thread;

use crate::support::message::*;
use crate::support::{Server, Session, Transport};

#[test]
fn sixty_four_sessions_get_their_own_answers() {
    let server = Server::shared();
    thread::scope(|scope| {
        for number in 0..64usize {
            scope.spawn(move || {
                let mut session = Session::over(server, Transport::ALL[number % 4]);
                session.execute(&format!(
                    "create temporary table mine (i int); insert into mine values ({number})"
                ));
                for round in 0..20 {
                    let sql = format!("select {number} as a, {round} as b, i as c from mine");
                    assert_eq!(session.rows(&sql), [format!("{number}|{round}|{number}")]);
                    let transcript = session.run(&[
                        parse_as("", "select $1 as a from generate_series(1, 100) g(i)", &[23]),
                        bind("", "", &[&number.to_string()]),
                        execute("", 0),
                        sync(),
                    ]);
                    assert_eq!(transcript.len(), 104);
                    assert!(
                        transcript[2..102]
                            .iter()
                            .all(|row| *row == format!("DataRow {number}"))
                    );
                }
            });
        }
    });
}

#[test]
fn concurrent_writers_lose_no_row() {
    let server = Server::shared();
    Session::new().execute("create table con_writers (session int, i int)");
    thread::scope(|scope| {
        for number in 0..16usize {
            scope.spawn(move || {
                let mut session = Session::over(server, Transport::ALL[number % 4]);
                for i in 0..20 {
                    session.execute(&format!("insert into con_writers values ({number}, {i})"));
                }
            });
        }
    });
    assert_eq!(
        Session::new().rows("select count(*), count(distinct session), sum(i) from con_writers"),
        ["320|16|3040"]
    );
}

#[test]
fn temporary_tables_belong_to_their_session() {
    let mut session = Session::new();
    let mut other = Session::new();
    session.execute("create temporary table con_temporary (i int)");
    assert_eq!(
        other.query("select * from con_temporary"),
        ["Error 42P01", "ReadyForQuery I"]
    );
    other.execute("create temporary table con_temporary (j int)");
    assert_eq!(
        session.query("select * from con_temporary")[0],
        "RowDescription i:int4"
    );
}

#[test]
fn a_session_sees_what_another_committed_and_nothing_else() {
    let mut session = Session::new();
    let mut other = Session::new();
    session.execute("create table con_commit (i int)");
    session.execute("begin");
    session.execute("insert into con_commit values (1)");
    assert_eq!(other.rows("select count(*) from con_commit"), ["0"]);
    session.execute("commit");
    assert_eq!(other.rows("select count(*) from con_commit"), ["1"]);
}

/// A prepared statement of one session must notice what another does to its table.
#[test]
fn a_prepared_statement_notices_what_another_session_changed() {
    let mut session = Session::new();
    let mut other = Session::new();
    session.execute("create table con_prepared (i int); insert into con_prepared values (1)");
    session.run(&[parse_statement("s", "select i from con_prepared"), sync()]);
    let run = [bind("", "s", &[]), execute("", 0), sync()];
    assert_eq!(session.run(&run)[1], "DataRow 1");
    other.execute("update con_prepared set i = 2");
    assert_eq!(session.run(&run)[1], "DataRow 2");
    other.execute("drop table con_prepared");
    other.execute("create table con_prepared (i int); insert into con_prepared values (3)");
    assert_eq!(session.run(&run)[1], "DataRow 3");
    other.execute("drop table con_prepared");
    assert_eq!(session.run(&run), ["Error 42P01", "ReadyForQuery I"]);
}
