//! The engine through its own face, on a real DuckDB.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use super::*;

fn connection() -> Connection {
    Instance::in_memory(&Options::default())
        .unwrap()
        .connect()
        .unwrap()
}

fn state_of(connection: &Connection, sql: &str) -> String {
    let error = connection.prepare(sql).and_then(|prepared| {
        let mut rows = prepared.execute()?;
        while rows.next_chunk()?.is_some() {}
        Ok(())
    });
    match error {
        Ok(()) => "no error".to_owned(),
        Err(error) => match sqlstate(&error) {
            "XX000" => format!("{error:?}"),
            state => state.to_owned(),
        },
    }
}

#[test]
fn the_library_is_the_version_that_was_pinned() {
    assert_eq!(library_version(), "v1.5.5");
}

#[test]
fn errors_have_postgresqls_sqlstates() {
    let connection = connection();
    connection
        .run("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n > 0))")
        .unwrap();
    connection.run("INSERT INTO t VALUES (1, 1)").unwrap();
    let cases = [
        ("SELEC 1", "42601"),
        ("SELECT * FROM nope", "42P01"),
        ("SELECT nope FROM t", "42703"),
        ("SELECT t.nope FROM t", "42703"),
        ("SELECT nope(1)", "42883"),
        ("SELECT * FROM nope()", "42883"),
        ("SELECT 1::nope", "42704"),
        ("CREATE TABLE s.x (a INT)", "3F000"),
        ("CREATE TABLE t (a INT)", "42P07"),
        ("DROP TABLE nope", "42P01"),
        ("SELECT 'x'::INTEGER", "22P02"),
        ("SELECT 300::TINYINT", "22003"),
        ("SELECT 9223372036854775807 + 1::BIGINT + n FROM t", "22003"),
        ("SELECT DATE 'x'", "22007"),
        ("INSERT INTO t VALUES (1, 1)", "23505"),
        ("INSERT INTO t VALUES (2, NULL)", "23502"),
        ("INSERT INTO t VALUES (2, -1)", "23514"),
        ("SELECT id, count(*) FROM t", "42803"),
        ("SET threads = 3", "42501"),
        ("LOAD nope", "42501"),
        ("SELECT * FROM read_csv('/etc/passwd')", "42501"),
        ("COMMIT", "25P01"),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(sql, expected)| (sql, expected, state_of(&connection, sql)))
        .filter(|(_, expected, found)| *expected != found)
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_error_names_its_place() {
    let error = connection().prepare("SELECT 1, nope FROM range(1)").unwrap_err();
    assert_eq!(error.position, Some(10));
}

#[test]
fn create_table_as_counts_its_rows() {
    let connection = connection();
    let mut rows = connection
        .prepare("CREATE TABLE t AS SELECT * FROM range(5)")
        .unwrap()
        .execute()
        .unwrap();
    assert_eq!(rows.outcome(), Outcome::Nothing);
    let chunk = rows.next_chunk().unwrap().unwrap();
    assert_eq!(chunk.column(0).values::<i64>().unwrap(), [5]);
}

#[test]
fn a_result_streams_in_chunks_to_its_last_row() {
    let prepared = connection().prepare("SELECT * FROM range(10000)").unwrap();
    let mut rows = prepared.stream().unwrap();
    let mut count = 0;
    while let Some(chunk) = rows.next_chunk().unwrap() {
        assert!(chunk.len() <= 2048);
        count += chunk.len();
    }
    assert_eq!(count, 10_000);
}

#[test]
fn a_running_statement_can_be_interrupted_and_the_connection_goes_on() {
    let connection = connection();
    let interrupt = connection.interrupt_handle();
    let prepared = connection
        .prepare("SELECT count(*) FROM range(100000000000)")
        .unwrap();
    let (stopped, is_stopped) = std::sync::mpsc::channel::<()>();
    let stopper = std::thread::spawn(move || {
        // An interrupt counts only once the statement runs, so it is repeated.
        while is_stopped.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let error = prepared.execute().unwrap_err();
    drop(stopped);
    stopper.join().unwrap();
    assert!(error.is_interrupt(), "{error:?}");
    connection.run("SELECT 1").unwrap();
}

#[test]
fn parameters_are_described_before_they_are_bound() {
    let connection = connection();
    connection
        .run("CREATE TABLE t (id INTEGER, name VARCHAR)")
        .unwrap();
    let prepared = connection.prepare("SELECT name FROM t WHERE id = $1").unwrap();
    assert_eq!(prepared.parameter_count(), 1);
    assert_eq!(prepared.parameter_type(0), LogicalType::Integer);
    assert_eq!(prepared.columns()[0].data_type, LogicalType::Varchar);
    let unknown = connection.prepare("SELECT $1").unwrap();
    assert_eq!(unknown.parameter_type(0), LogicalType::Unknown);
}

#[test]
fn rows_are_appended_through_casts_and_defaults() {
    let connection = connection();
    connection
        .run("CREATE TABLE t (a INTEGER, b VARCHAR DEFAULT 'x')")
        .unwrap();
    let query = format!("INSERT INTO t (a) SELECT CAST(col1 AS INTEGER) FROM {COPY_INPUT}");
    let mut appender = Appender::new(&connection, &query, 1).unwrap();
    for n in 0..5000 {
        appender
            .append([Some(n.to_string().as_bytes())].into_iter())
            .unwrap();
    }
    appender.append([None].into_iter()).unwrap();
    appender.flush().unwrap();
    drop(appender);
    let mut rows = connection
        .prepare("SELECT count(*), sum(a)::BIGINT, count(b) FROM t")
        .unwrap()
        .execute()
        .unwrap();
    let chunk = rows.next_chunk().unwrap().unwrap();
    let value = |column: usize| chunk.column(column).values::<i64>().unwrap()[0];
    assert_eq!((value(0), value(1), value(2)), (5001, 12_497_500, 5001));
}

#[test]
fn a_file_is_open_in_one_instance_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.duckdb");
    let instance = Instance::open(&path, &Options::default()).unwrap();
    // Reading the file through SQL drops DuckDB's own lock; the lease stays.
    let connection = instance.connect().unwrap();
    let _ = connection.run(&format!("SELECT size FROM read_blob('{}')", path.display()));
    let error = Instance::open(&path, &Options::default()).unwrap_err();
    assert!(error.message.contains("in use by another process"), "{error:?}");
    drop(connection);
    drop(instance);
    Instance::open(&path, &Options::default()).unwrap();
}
