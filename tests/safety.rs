//! What SQL may not do: reach the files of the server, or change the process
//! that others share.

use std::fs;

use crate::support::{Server, Session, Transport};

fn private() -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: PostgreSQL protects itself in its own way");
        return None;
    }
    Some(Server::duckgres(&[]))
}

/// Tries them all and says which were not refused.
#[track_caller]
fn assert_refused<S: AsRef<str>>(session: &mut Session, statements: &[S]) {
    let allowed: Vec<String> = statements
        .iter()
        .map(|sql| (sql.as_ref(), session.query(sql.as_ref())))
        .filter(|(_, transcript)| !transcript[0].starts_with("Error "))
        .map(|(sql, transcript)| format!("{sql}: {:.200}", transcript.join(", ")))
        .collect();
    assert!(allowed.is_empty(), "not refused:\n{}", allowed.join("\n"));
}

#[test]
fn the_database_file_cannot_be_overwritten_by_sql() {
    let Some(server) = private() else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("create table saf_kept (i int)");
    session.execute("insert into saf_kept values (42)");
    let file = server.data().join(format!("{}.duckdb", server.database));
    assert!(file.exists(), "{}", file.display());
    let file = file.display();
    assert_refused(
        &mut session,
        &[
            format!("copy (select 'x') to '{file}'"),
            format!("copy (select 'x') to '{file}' (format csv, use_tmp_file false)"),
            format!("copy saf_kept to '{file}.wal'"),
            format!("copy saf_kept from '{file}'"),
            format!("attach '{file}' as other"),
            format!("export database '{}'", server.data().display()),
            format!("explain analyze copy (select 'x') to '{file}' (use_tmp_file false)"),
            format!("prepare p as copy (select 'x') to '{file}'"),
        ],
    );
    assert_eq!(session.rows("select i from saf_kept"), ["42"]);
    drop(session);
    let mut server = server;
    assert!(server.stop().success());
    let again = server.start_again();
    assert_eq!(
        Session::over(&again, Transport::Tcp).rows("select i from saf_kept"),
        ["42"]
    );
}

/// Opening and closing it would also give away DuckDB's own lock on it.
#[test]
fn the_database_file_cannot_be_read_by_sql() {
    let Some(server) = private() else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("create table saf_read (i int)");
    let file = server.data().join(format!("{}.duckdb", server.database));
    let file = file.display();
    assert_refused(
        &mut session,
        &[
            format!("select * from read_blob('{file}')"),
            format!("select * from read_text('{file}')"),
            format!("select * from read_csv('{file}')"),
            format!("select * from '{file}'"),
            format!("select * from read_blob('{file}.wal')"),
            format!("select * from glob('{}/*')", server.data().display()),
        ],
    );
}

#[test]
fn files_of_the_system_are_out_of_reach() {
    let Some(server) = private() else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    let target = server.scratch("written-by-sql");
    assert_refused(
        &mut session,
        &[
            "select * from read_text('/etc/passwd')".to_string(),
            "select * from read_csv('/etc/passwd')".to_string(),
            "select * from '/etc/passwd'".to_string(),
            "copy (select 1) to '/dev/stdout'".to_string(),
            format!("copy (select 1) to '{}'", target.display()),
            format!("copy (select 1) to '{}' (format parquet)", target.display()),
            "select getenv('HOME')".to_string(),
            "copy (select 1) to program 'id'".to_string(),
        ],
    );
    assert!(!target.exists());
    let passwords = fs::read_to_string(server.data().join("pgpass")).unwrap();
    assert!(passwords.contains(&server.password));
}

#[test]
fn statements_that_change_the_process_are_refused() {
    let Some(server) = private() else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    assert_refused(
        &mut session,
        &[
            "install httpfs",
            "force install httpfs",
            "load httpfs",
            "attach ':memory:' as m",
            "/* */ attach ':memory:' as m",
            "detach root",
            "set enable_external_access = true",
            "set global threads = 64",
            "set memory_limit = '100GB'",
            "set temp_directory = '/'",
            "set lock_configuration = false",
            "reset enable_external_access",
            "pragma enable_external_access",
            "pragma memory_limit = '100GB'",
            "pragma enable_profiling",
            "call enable_logging()",
            "import database '/tmp'",
            "set extension_directory = '/tmp'",
            "set autoinstall_known_extensions = true",
            "set allow_unsigned_extensions = true",
        ],
    );
    // The same inside a message, a prepared statement and a transaction.
    assert_eq!(
        session.query("select 1 as a; attach ':memory:' as m")[3],
        "Error 42501"
    );
    assert!(session.query("prepare p as attach ':memory:' as m")[0].starts_with("Error "));
    assert_eq!(session.rows("select 1 as a"), ["1"]);
}

#[test]
fn a_file_outside_of_file_access_cannot_be_reached_through_a_link_inside() {
    if Server::shared().is_postgres() {
        println!("skipped: PostgreSQL protects itself in its own way");
        return;
    }
    let open = tempfile::TempDir::with_prefix("duckgres-open-").unwrap();
    fs::write(open.path().join("fine.csv"), "i\n1\n2\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", open.path().join("link")).unwrap();
    let server = Server::duckgres(&["--file-access", open.path().to_str().unwrap()]);
    let mut session = Session::over(&server, Transport::Tcp);
    let path = open.path().display();
    assert_eq!(
        session.rows(&format!("select sum(i) from read_csv('{path}/fine.csv')")),
        ["3"]
    );
    session.execute(&format!("copy (select 7 as i) to '{path}/out.csv' (header)"));
    assert_eq!(fs::read_to_string(open.path().join("out.csv")).unwrap(), "i\n7\n");
    for file in ["link", "../../etc/passwd", "../etc/passwd"] {
        let transcript = session.query(&format!("select * from read_text('{path}/{file}')"));
        assert!(transcript[0].starts_with("Error "), "{file}: {transcript:?}");
    }
}
