//! BACKUP DATABASE: a consistent copy while the database is in use.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use duckgres::engine::{BackupError, Instance, Lease, Options};

use crate::support::message::*;
use crate::support::programs::python;
use crate::support::server::limit_files;
use crate::support::session::V3_0;
use crate::support::transport::Road;
use crate::support::{Server, Session, Transport, eventually};

const PASSWORD: &str = "correct horse";

/// A server with the administrator root, alice, who is none, and a database shop.
fn server() -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: PostgreSQL has other ways to make a backup");
        return None;
    }
    let yaml =
        format!("users:\n  alice: {PASSWORD}\n  root: {{password: {PASSWORD}, admin: on, databases: '*'}}\n");
    let server = Server::configured(&yaml, ("root", PASSWORD), &["--worker-count", "1"]);
    connect(&server, "root", "root").execute("create database shop");
    Some(server)
}

fn connect(server: &Server, user: &str, database: &str) -> Session {
    let mut session = Session::on(Road::open(server, Transport::Tcp).unwrap());
    session.send(&startup(V3_0, &[("user", user), ("database", database)]));
    session.authenticate(PASSWORD).unwrap();
    session.become_ready();
    session
}

/// Makes a backup and returns its file.
#[track_caller]
fn backup(session: &mut Session) -> PathBuf {
    let rows = session.rows("backup database");
    let [file] = &rows[..] else { panic!("{rows:?}") };
    file.into()
}

/// What is in the directory of backups.
fn kept(server: &Server) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.data().join("backup")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Restores a backup as the README says: beside the others, under a name of its own.
#[track_caller]
fn restore(server: &Server, file: &Path, name: &str) {
    let arriving = server.data().join(format!("{name}.arriving"));
    fs::copy(file, &arriving).unwrap();
    fs::rename(&arriving, server.data().join(format!("{name}.duckdb"))).unwrap();
}

const SCHEMA: &[&str] = &[
    "create schema s",
    "create type s.mood as enum ('sad', 'happy')",
    "create sequence s.numbers start 5 increment 2",
    "create table s.parent (id int primary key, name text not null unique, m s.mood default 'happy')",
    "create table s.child (id int default nextval('s.numbers'), parent int references s.parent(id), \
     price decimal(10, 2) check (price > 0), tags text[], seen timestamptz)",
    "create index child_price on s.child (price)",
    "create table generated (a int, b int generated always as (a * 2) virtual)",
    "create view s.joined as select p.name, c.price from s.parent p join s.child c on c.parent = p.id",
    "create view over_a_view as select count(*) as n from s.joined",
    "create macro twice(x) as x * 2",
    "create macro all_children() as table select * from s.child",
    "comment on table s.parent is 'those who have children'",
    "comment on column s.parent.name is 'as they are called'",
    "insert into s.parent values (1, 'ada', 'sad'), (2, 'grace', default)",
    "insert into s.child (parent, price, tags, seen) values \
     (1, 1.50, ['a', null], '2026-01-01 00:00:00+00'), (2, 2.25, [], null)",
    "insert into generated values (21)",
];

#[test]
fn a_backup_is_the_whole_database() {
    let Some(server) = server() else { return };
    let mut session = connect(&server, "root", "shop");
    for sql in SCHEMA {
        session.execute(sql);
    }
    let file = backup(&mut session);
    assert_eq!(kept(&server), std::slice::from_ref(&file));
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("shop-2") && name.ends_with("Z.duckdb"), "{name}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = fs::metadata(file.parent().unwrap()).unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o700);
    // What comes later is not in it.
    session.execute("insert into s.parent values (3, 'joan', null)");
    restore(&server, &file, "restored");
    let mut restored = connect(&server, "root", "restored");
    for (sql, rows) in [
        (
            "select * from s.parent order by id",
            &["1|ada|sad", "2|grace|happy"][..],
        ),
        (
            "select * from s.child order by id",
            &["5|1|1.50|{a,NULL}|2026-01-01 00:00:00+00", "7|2|2.25|{}|null"],
        ),
        ("select * from generated", &["21|42"]),
        ("select * from s.joined order by 1", &["ada|1.50", "grace|2.25"]),
        ("select * from over_a_view", &["2"]),
        ("select twice(21)", &["42"]),
        ("select count(*) from all_children()", &["2"]),
        ("select nextval('s.numbers')", &["9"]),
        (
            "select comment from duckdb_tables() where comment is not null",
            &["those who have children"],
        ),
        (
            "select comment from duckdb_columns() where comment is not null",
            &["as they are called"],
        ),
        ("select index_name from duckdb_indexes()", &["child_price"]),
        ("select enum_range(null::s.mood)", &["{sad,happy}"]),
    ] {
        assert_eq!(restored.rows(sql), rows, "{sql}");
    }
    for (sql, sqlstate) in [
        ("insert into s.parent values (1, 'again', null)", "23505"),
        ("insert into s.parent values (4, 'ada', null)", "23505"),
        ("insert into s.parent values (4, null, null)", "23502"),
        ("insert into s.child (parent, price) values (99, 1)", "23503"),
        ("insert into s.child (parent, price) values (1, 0)", "23514"),
    ] {
        assert_eq!(restored.error(sql).sqlstate(), sqlstate, "{sql}");
    }
}

#[test]
fn a_backup_has_all_of_a_transaction_or_nothing_while_writers_go_on() {
    let Some(server) = server() else { return };
    let mut session = connect(&server, "root", "shop");
    session.execute("create table one as select i, i * 7 as j from range(200000) t(i)");
    session.execute("create table other as select * from one");
    let stop = AtomicBool::new(false);
    let files = thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || {
                    let mut session = connect(server, "root", "shop");
                    for i in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            return i;
                        }
                        let number = 1_000_000 * (writer + 1) + i;
                        session.execute("begin");
                        session.execute(&format!("insert into one values ({number}, 0)"));
                        session.execute(&format!("insert into other values ({number}, 0)"));
                        session.execute("commit");
                    }
                    unreachable!()
                })
            })
            .collect();
        let files: Vec<PathBuf> = (0..3).map(|_| backup(&mut session)).collect();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            assert!(writer.join().unwrap() > 0);
        }
        files
    });
    let mut before = 200_000;
    for (file, name) in files.iter().zip(["first", "second", "third"]) {
        restore(&server, file, name);
        let mut restored = connect(&server, "root", name);
        let counts = restored.rows("select (select count(*) from one), (select count(*) from other)");
        let (one, other) = counts[0].split_once('|').unwrap();
        assert_eq!(one, other);
        let missing =
            "select count(*) from one full join other using (i) where one.j is null or other.j is null";
        assert_eq!(restored.rows(missing), ["0"]);
        let count: i32 = one.parse().unwrap();
        assert!(count >= before, "{count} after {before}");
        before = count;
    }
    // Nothing was lost meanwhile.
    assert_eq!(
        session.rows("select count(*) from one except select count(*) from other"),
        [""; 0]
    );
}

#[test]
fn a_backup_is_for_administrators_and_of_the_database_that_they_are_connected_to() {
    let Some(server) = server() else { return };
    let mut alice = connect(&server, "alice", "alice");
    assert_eq!(alice.error("backup database").sqlstate(), "42501");
    let mut root = connect(&server, "root", "alice");
    root.execute("create table t as select 42 as i");
    assert_eq!(root.error("backup database shop").sqlstate(), "0A000");
    assert_eq!(root.error("backup database alice, shop").sqlstate(), "42601");
    assert_eq!(root.error("backup database; select 1").sqlstate(), "25001");
    root.execute("begin");
    assert_eq!(root.error("backup database").sqlstate(), "25001");
    root.execute("rollback");
    // By either protocol, and where nothing may be written.
    root.execute("set default_transaction_read_only = on");
    let simple = root.query("BACKUP DATABASE alice");
    let [description, row, tag, _] = &simple[..] else {
        panic!("{simple:?}")
    };
    assert_eq!(description, "RowDescription file:text");
    assert!(row.contains("/backup/alice-"), "{row}");
    assert_eq!(tag, "CommandComplete BACKUP DATABASE");
    let extended = root.run(&[
        parse_statement("", "backup database"),
        bind("", "", &[]),
        describe_portal(""),
        execute("", 0),
        sync(),
    ]);
    assert_eq!(extended[2], "RowDescription file:text");
    // In the same second, and yet another.
    assert_eq!(kept(&server).len(), 2);
}

#[test]
fn nobody_sees_the_copy_while_and_after_it_is_made() {
    let Some(server) = server() else { return };
    let mut session = connect(&server, "root", "shop");
    session.execute("create table t as select 42 as i");
    let file = backup(&mut session);
    assert_eq!(
        session.rows("select database_name from duckdb_databases() where not internal"),
        ["shop"]
    );
    // SQL reaches neither the copy nor what the next one will be written to.
    let part = file.with_file_name("shop.duckdb.part").join("shop.duckdb");
    for path in [&file, &part] {
        let path = path.display();
        for sql in [
            format!("attach '{path}' as a"),
            format!("copy t to '{path}'"),
            format!("select * from read_blob('{path}')"),
        ] {
            assert_eq!(session.error(&sql).sqlstate(), "42501", "{sql}");
        }
    }
}

#[test]
fn one_backup_of_a_database_is_made_at_a_time() {
    let Some(server) = server() else { return };
    let mut session = connect(&server, "root", "shop");
    backup(&mut session);
    let part = server.data().join("backup/shop.duckdb.part");
    let other = Lease::take(&part).unwrap();
    assert_eq!(session.error("backup database").sqlstate(), "55006");
    drop(other);
    // What somebody has left who was killed is in nobody's way.
    fs::create_dir(&part).unwrap();
    fs::write(part.join("shop.duckdb"), "unfinished").unwrap();
    backup(&mut session);
    assert_eq!(kept(&server).len(), 2);
}

#[test]
fn a_backup_that_fails_leaves_nothing_and_hurts_nobody() {
    let Some(server) = server() else { return };
    let mut session = connect(&server, "root", "shop");
    session.execute("create table t as select hash(i) as i, hash(-i) as j from range(5000000) t(i)");
    session.execute("checkpoint");
    // A disk that is full in the middle.
    let worker = server.worker_process(1);
    limit_files(worker, Some(20 << 20));
    let report = session.error("backup database");
    assert_ne!(report.severity(), "FATAL", "{report:?}");
    limit_files(worker, None);
    assert_eq!(kept(&server), [] as [PathBuf; 0], "{report:?} {}", server.log());
    let mut other = connect(&server, "root", "shop");
    for session in [&mut session, &mut other] {
        assert_eq!(session.rows("select count(*) from t"), ["5000000"]);
    }
    session.execute("insert into t values (1, 2)");
    let file = backup(&mut session);
    restore(&server, &file, "restored");
    let mut restored = connect(&server, "root", "restored");
    assert_eq!(restored.rows("select count(*) from t"), ["5000001"]);
    // Its client may go in the middle.
    session.send(&query("backup database"));
    session.vanish();
    let mut session = connect(&server, "root", "shop");
    eventually("another backup can be made", || {
        match session.query("backup database").first().map(String::as_str) {
            Some("Error 55006") => None,
            Some(_) => Some(()),
            None => panic!("no answer"),
        }
    });
    assert!(
        !kept(&server)
            .iter()
            .any(|file| file.to_string_lossy().contains(".part"))
    );
}

#[test]
fn a_backup_can_be_stopped_at_any_time() {
    let home = tempfile::tempdir().unwrap();
    let options = Options {
        backup_directory: Some(home.path().join("backup")),
        ..Options::default()
    };
    let instance = Instance::open(&home.path().join("shop.duckdb"), &options).unwrap();
    let connection = instance.connect().unwrap();
    connection
        .run("create table t as select hash(i) as i from range(3000000) t(i)")
        .unwrap();
    for asked in 0.. {
        let left = Cell::new(asked);
        let stopped = || left.replace(left.get() - 1) == 0;
        match instance.backup(&stopped) {
            Err(BackupError::Stopped) => {}
            Ok(_) => {
                assert!(asked > 2, "asked {asked} times");
                break;
            }
            other => panic!("{other:?}"),
        }
        let left = fs::read_dir(home.path().join("backup")).unwrap();
        assert_eq!(left.count(), 0, "stopped after {asked}");
    }
}

/// DuckDB's own lock is a POSIX one, which a process loses when it closes the file.
#[test]
fn a_backup_does_not_take_the_lock_off_the_database() {
    let home = tempfile::tempdir().unwrap();
    let options = Options {
        backup_directory: Some(home.path().join("backup")),
        ..Options::default()
    };
    let path = home.path().join("shop.duckdb");
    let instance = Instance::open(&path, &options).unwrap();
    let is_locked = || {
        let script = "import fcntl, sys\nwith open(sys.argv[1], 'r+b') as f: fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)";
        let mut python = python();
        !python
            .args(["-c", script])
            .arg(&path)
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(is_locked());
    instance.backup(&|| false).unwrap();
    assert!(is_locked());
    drop(instance);
    assert!(!is_locked());
}

#[test]
fn no_checkpoint_comes_between_while_a_backup_is_made() {
    let home = tempfile::tempdir().unwrap();
    let options = Options {
        backup_directory: Some(home.path().join("backup")),
        ..Options::default()
    };
    let instance = Instance::open(&home.path().join("shop.duckdb"), &options).unwrap();
    let writer = instance.connect().unwrap();
    writer
        .run("create table t as select 0 as i, hash(0) as j")
        .unwrap();
    writer.run("checkpoint").unwrap();
    let asked = Cell::new(0);
    let file = instance
        .backup(&|| {
            // More than enough for a checkpoint, and one that is asked for.
            asked.set(asked.get() + 1);
            writer
                .run("insert into t select 1, hash(i) from range(500000) t(i)")
                .unwrap();
            let _ = writer.run("checkpoint");
            false
        })
        .unwrap();
    assert!(asked.get() > 1);
    drop((writer, instance));
    let copy = Instance::open(&file, &Options::default()).unwrap();
    let only_the_first = "select case when count(*) = 1 then 1 else error('there are more') end from t";
    copy.connect().unwrap().run(only_the_first).unwrap();
    let original = Instance::open(&home.path().join("shop.duckdb"), &Options::default()).unwrap();
    let all = format!(
        "select case when count(*) = {} then 1 else error('there are others') end from t",
        1 + 500_000 * asked.get()
    );
    original.connect().unwrap().run(&all).unwrap();
}
