//! The operator's tasks, run as the README has them.

use std::fs;

use duckgres::engine::{Instance, Options};

use crate::machine::{Machine, on_each_release};
use crate::packages::made::debs;
use crate::support::eventually;
use crate::support::programs::Output;

const README: &str = include_str!("../../README.md");

on_each_release!(bare: every_task_of_the_readme_is_done_by_its_lines);

/// The blocks of the README that are tasks: their names and their lines.
fn tasks() -> Vec<(&'static str, &'static str)> {
    let blocks = README.split("```sh task=").skip(1);
    blocks
        .map(|block| {
            let (name, rest) = block.split_once('\n').unwrap();
            (name, rest.split_once("\n```").unwrap().0)
        })
        .collect()
}

struct Reader {
    machine: Machine,
    left: Vec<(&'static str, &'static str)>,
}

impl Reader {
    /// Does the next task, which must be this one.
    #[track_caller]
    fn does(&mut self, name: &str) -> Output {
        let (next, lines) = self.left.remove(0);
        assert_eq!(next, name);
        let script = format!("set -eu; cd /root\n{lines}");
        let done = self.machine.run(&["bash", "-c", &script]);
        assert!(done.status.success(), "{name}: {done:#?}");
        done
    }

    /// psql's answer, of the administrator.
    #[track_caller]
    fn asks(&self, database: &str, sql: &str) -> String {
        let ask = ["duckgres", "psql", "-XAt", "-d", database, "-c", sql];
        self.machine.run(&ask).success().trim().to_owned()
    }

    #[track_caller]
    fn sees_two_workers(&self) {
        eventually("there are two workers", || {
            let status = self.machine.property("duckgres.service", "StatusText");
            status.starts_with("2 of 2 workers").then_some(())
        });
    }

    #[track_caller]
    fn logs_in(&self, user: &str, password: &str, database: &str, more: &str) -> Output {
        let to = format!("host=localhost user={user} password='{password}' dbname={database} {more}");
        self.machine.run(&["psql", "-XAt", &to, "-c", "select 42"])
    }
}

fn every_task_of_the_readme_is_done_by_its_lines(mut machine: Machine) {
    let debs = debs();
    for (file, name) in [
        (&debs.first, "duckgres_0.1.0_amd64.deb"),
        (&debs.next, "duckgres_0.2.0_amd64.deb"),
    ] {
        assert_eq!(file.file_name().unwrap(), name);
    }
    machine.boot();
    let home = machine.path("/root");
    for file in [&debs.first, &debs.next] {
        fs::copy(file, home.join(file.file_name().unwrap())).unwrap();
    }
    let mut reader = Reader {
        machine,
        left: tasks(),
    };
    let worker = |id: u32| format!("duckgres-worker@{id}.service");

    let done = reader.does("install");
    assert!(done.out.contains("42"), "{done:#?}");

    let done = reader.does("user");
    assert!(done.out.contains("42"), "{done:#?}");
    assert!(!reader.logs_in("alice", "wrong", "alice", "").status.success());

    let doors = |reader: &Reader| reader.machine.property("duckgres.socket", "Listen");
    assert!(!doors(&reader).contains("0.0.0.0:5432"));
    reader.does("network");
    assert!(doors(&reader).contains("0.0.0.0:5432"));
    let plain = reader.logs_in("alice", "a long password", "alice", "sslmode=disable");
    assert!(
        plain.err.contains("no encryption") || plain.err.contains("TLS") || plain.err.contains("SSL"),
        "{plain:#?}"
    );
    reader
        .logs_in("alice", "a long password", "alice", "sslmode=require")
        .success();

    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(home.join("server.crt"), certified.cert.pem()).unwrap();
    fs::write(home.join("server.key"), certified.signing_key.serialize_pem()).unwrap();
    reader.does("certificate");
    let verified = "sslmode=verify-full sslrootcert=/root/server.crt";
    reader
        .logs_in("alice", "a long password", "alice", verified)
        .success();

    reader.does("database");
    reader.logs_in("bob", "another long one", "sales", "").success();
    assert!(
        !reader
            .logs_in("alice", "a long password", "sales", "")
            .status
            .success()
    );
    reader.asks("sales", "create table orders as select i from range(1000) t(i)");

    reader.does("workers");
    reader.sees_two_workers();

    let before = reader.machine.main_process("duckgres.service");
    reader.does("reload");
    assert_ne!(reader.machine.main_process("duckgres.service"), before);

    let before = [1, 2].map(|id| reader.machine.main_process(&worker(id)));
    reader.does("roll");
    for (id, before) in (1..).zip(before) {
        assert_ne!(reader.machine.main_process(&worker(id)), before);
    }

    reader.does("upgrade");
    let version = reader
        .machine
        .run(&["dpkg-query", "--show", "--showformat=${Version}", "duckgres"]);
    assert_eq!(version.success(), "0.2.0");

    let done = reader.does("backup");
    assert!(
        done.out.contains("/var/lib/duckgres/data/backup/sales-"),
        "{done:#?}"
    );
    reader.asks("sales", "delete from orders");
    let done = reader.does("restore");
    assert!(done.out.contains("orders"), "{done:#?}");
    assert_eq!(
        reader.asks("sales_restored", "select count(*), sum(i) from orders"),
        "1000|499500"
    );
    assert_eq!(reader.asks("sales", "select count(*) from orders"), "0");

    reader.sees_two_workers();
    let done = reader.does("monitor");
    assert!(done.out.contains("2 of 2 workers"), "{done:#?}");
    let scrape = "exec 3<>/dev/tcp/127.0.0.1/9090; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
    let metrics = reader.machine.run(&["bash", "-c", scrape]).success();
    assert!(metrics.contains("duckgres_connections_open "), "{metrics:.300}");

    let made = tempfile::tempdir().unwrap();
    let hers = made.path().join("carol.duckdb");
    let instance = Instance::open(&hers, &Options::default()).unwrap();
    let connection = instance.connect().unwrap();
    connection.run("create table hers as select 42 as i").unwrap();
    drop((connection, instance));
    let old = reader.machine.path("/srv/old");
    fs::create_dir_all(&old).unwrap();
    fs::copy(&hers, old.join("carol.duckdb")).unwrap();
    reader.does("move");
    assert_eq!(reader.asks("carol", "select i from hers"), "42");
    reader.logs_in("carol", "her password", "carol", "").success();

    reader.does("remove");
    assert!(!reader.machine.succeeds(&["test", "-e", "/usr/bin/duckgres"]));
    assert!(
        reader
            .machine
            .succeeds(&["test", "-s", "/var/lib/duckgres/data/sales.duckdb"])
    );
    assert_eq!(reader.left, []);
}
