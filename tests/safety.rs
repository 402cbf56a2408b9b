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

/// Every way that SQL knows to a file or a database, tried by the user of one
/// database on another that the same process has open, on its own, and on what
/// the server itself keeps.
#[test]
fn no_statement_reaches_another_database_the_configuration_or_its_own_file() {
    if Server::shared().is_postgres() {
        println!("skipped: PostgreSQL protects itself in its own way");
        return;
    }
    let open = tempfile::TempDir::with_prefix("duckgres-open-").unwrap();
    let server = Server::with_workers(1, &["--file-access", open.path().to_str().unwrap()]);
    std::os::unix::fs::symlink(server.data(), open.path().join("data")).unwrap();
    std::os::unix::fs::symlink(server.data().join("u1.duckdb"), open.path().join("own")).unwrap();
    std::os::unix::fs::symlink(server.data().join("u1.new"), open.path().join("new")).unwrap();
    let mut victim = Session::of(&server, "u0", Transport::Tcp);
    victim.execute("create table saf_victim as select 42 as marker");
    victim.execute("checkpoint");
    let mut session = Session::of(&server, "u1", Transport::Tcp);
    session.execute("create table saf_own as select 7 as i");
    let data = server.data().display().to_string();
    let open_path = open.path().display().to_string();
    let home = server.scratch("").display().to_string();
    let files = [
        format!("{data}/u0.duckdb"),
        format!("{data}/u0.duckdb.wal"),
        format!("{data}/u0.duckdb.lease"),
        format!("{data}/u1.duckdb"),
        format!("{data}/u1.duckdb.wal"),
        format!("{data}/./u1.duckdb"),
        format!("{data}/../data/u1.duckdb"),
        format!("{data}/new"),
        format!("{home}/duckgres.yaml"),
        format!("{home}/server.key"),
        format!("file://{data}/u1.duckdb"),
        format!("{open_path}/data/u0.duckdb"),
        format!("{open_path}/data/u1.duckdb"),
        format!("{open_path}/data/new"),
        format!("{open_path}/*/u1.duckdb"),
        format!("{open_path}/d?ta/u1.duckdb"),
        format!("{open_path}/o[w]n"),
        format!("{open_path}/**"),
        format!("{open_path}/own"),
        format!("{open_path}/new"),
        format!("{open_path}/../data/u1.duckdb"),
        "u1.duckdb".into(),
        "/etc/passwd".into(),
        "/proc/self/environ".into(),
        "/proc/self/cmdline".into(),
        "/proc/self/fd/3".into(),
        "/proc/self/root/etc/passwd".into(),
        "/dev/stdin".into(),
    ];
    for file in &files {
        let readers = [
            "read_blob",
            "read_text",
            "read_csv",
            "read_csv_auto",
            "read_json",
            "read_json_auto",
            "read_json_objects",
            "read_json_objects_auto",
            "read_ndjson",
            "read_ndjson_auto",
            "read_ndjson_objects",
            "read_parquet",
            "parquet_scan",
            "parquet_metadata",
            "parquet_schema",
            "parquet_file_metadata",
            "parquet_kv_metadata",
            "parquet_full_metadata",
            "sniff_csv",
            "read_duckdb",
            "glob",
        ];
        let mut attempts: Vec<String> = readers
            .iter()
            .flat_map(|reader| {
                [
                    format!("select * from {reader}('{file}')"),
                    format!("from \"{reader}\" ($${file}$$)"),
                    format!("from query('from {reader}(''{file}'')')"),
                ]
            })
            .collect();
        attempts.extend([
            format!("from read_text(['{file}'])"),
            format!("from read_text('{file}' || '')"),
            format!("from '{file}'"),
            format!("from \"{file}\""),
            format!("from query_table('{file}')"),
            format!("from query_table(['{file}'])"),
            format!("from query('from query(''from read_text(''''{file}'''')'')')"),
            format!("from query('from read_text(''' || '{file}' || ''')')"),
            format!("from json_execute_serialized_sql(json_serialize_sql('from read_text(''{file}'')'))"),
            format!("describe select * from read_csv('{file}')"),
            format!("summarize from read_csv('{file}')"),
            format!("explain analyze from read_text('{file}')"),
            format!("create table saf_stolen as from read_text('{file}')"),
            format!("create view saf_stolen as from read_text('{file}')"),
            format!("create macro saf_stolen() as table from read_text('{file}')"),
            "create macro saf_stolen(f) as table from read_text(f)".to_string(),
            format!("prepare saf_stolen as from read_text('{file}')"),
            format!("insert into saf_own select 1 from read_text('{file}')"),
            format!("select (select content from read_text('{file}'))"),
            format!("copy (from read_text('{file}')) to stdout"),
            format!("copy saf_own from '{file}'"),
            format!("copy saf_own to '{file}'"),
            format!("copy saf_own to '{file}' (format csv, use_tmp_file false)"),
            format!("copy saf_own to '{file}' (format parquet)"),
            format!("copy saf_own to '{file}' (format json)"),
            format!("copy saf_own to '{file}' (format csv, per_thread_output)"),
            format!(
                "copy (select 1 as a, 2 as b) to '{file}' (format csv, partition_by (a), overwrite_or_ignore)"
            ),
            format!("explain analyze copy saf_own to '{file}' (use_tmp_file false)"),
            format!("prepare saf_stolen as copy saf_own to '{file}'"),
            format!("export database '{file}'"),
            format!("import database '{file}'"),
            format!("attach '{file}' as saf_other"),
            format!("attach if not exists '{file}' as saf_other (read_only)"),
            format!("attach or replace '{file}' as u1"),
            format!("load '{file}'"),
            format!("install '{file}'"),
            format!("install x from '{file}'"),
            format!("set temp_directory = '{file}'"),
            format!("set secret_directory = '{file}'"),
            format!("set extension_directory = '{file}'"),
            format!("set file_search_path = '{file}'"),
            format!("set profile_output = '{file}'"),
            format!("set log_query_path = '{file}'"),
            format!("pragma profile_output = '{file}'"),
            format!("pragma log_query_path = '{file}'"),
            format!("pragma import_database('{file}')"),
            format!("call enable_logging(storage_path = '{file}', storage = 'file')"),
        ]);
        assert_refused(&mut session, &attempts);
    }
    assert_refused(
        &mut session,
        &[
            "from u0.main.saf_victim",
            "from u0.saf_victim",
            "use u0",
            "set search_path = 'u0.main'",
            "create table u0.main.x (i int)",
            "drop table u0.main.saf_victim",
            "insert into u0.main.saf_victim values (1)",
            "detach u0",
            "detach database if exists u1",
            "checkpoint u0",
            "copy from database u1 to u0",
            "copy from database u0 to u1",
            "pragma copy_database('u0', 'u1')",
            "attach ':memory:' as saf_other",
            "attach 'ducklake:x' as saf_other",
            "install httpfs",
            "install httpfs from community",
            "force install httpfs from 'http://localhost/'",
            "load httpfs",
            "update extensions",
            "create persistent secret saf_secret (type http)",
            "create or replace persistent secret saf_secret (type http)",
            "select getenv('HOME')",
            "set enable_external_access = true",
            "set allowed_directories = ['/']",
            "set allowed_paths = ['/etc/passwd']",
            "set allowed_configs = ['threads']",
            "set lock_configuration = false",
            "explain analyze set global lock_configuration = false",
            "explain analyze attach ':memory:' as saf_other",
            "explain analyze detach u1",
        ],
    );
    // What they left: nothing.
    assert_eq!(session.rows("select i from saf_own"), ["7"]);
    assert_eq!(session.rows("select count(*) from duckdb_tables()"), ["1"]);
    assert_eq!(
        session.rows("select database_name from duckdb_databases() where not internal"),
        ["u1"]
    );
    assert_eq!(victim.rows("select marker from saf_victim"), ["42"]);
    for left in ["new", "u1.new"] {
        assert!(!server.data().join(left).exists(), "{left}");
    }
    drop((session, victim));
    let mut server = server;
    assert!(server.stop().success());
    let again = server.start_again();
    assert_eq!(
        Session::of(&again, "u0", Transport::Tcp).rows("from saf_victim"),
        ["42"]
    );
    assert_eq!(
        Session::of(&again, "u1", Transport::Tcp).rows("from saf_own"),
        ["7"]
    );
}

#[test]
fn the_catalogs_cannot_be_changed_by_the_name_of_their_database() {
    let Some(server) = private() else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    session.query("select count(*) from pg_class");
    assert_refused(
        &mut session,
        &[
            "drop view __duckgres.pg.pg_class",
            "create table \"__DuckGres\".pg.mine (i int)",
            "insert into __duckgres.pg.pg_cast select 1",
            "copy __duckgres.pg.pg_cast from stdin",
            "use __duckgres.pg",
            "set search_path = '__duckgres.pg'",
            "set schema = '__duckgres.pg'",
            "detach __duckgres",
            "prepare p as drop view __duckgres.pg.pg_class",
        ],
    );
}
