//! Results cost the server a window, not their size; and a client that does
//! not read holds up itself alone.

use std::time::Duration;

use crate::support::message::*;
use crate::support::processes::resident_bytes;
use crate::support::{Server, Session, Transport, eventually};

const HUNDRED_MILLION_ROWS: &str = "select i as a, i * 2 as b from range(100000000) t(i)";

/// The process that runs the queries.
#[track_caller]
fn worker(server: &Server) -> u32 {
    let worker = server.processes().into_iter().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "duckgres-worker")
    });
    worker.expect("the server has a worker")
}

/// `None` when the server is PostgreSQL, which materializes its generate_series.
fn private() -> Option<Server> {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's worker");
        return None;
    }
    Some(Server::duckgres(&[]))
}

/// Starts the query and reads its first rows.
fn start(server: &Server, transport: Transport, messages: &[u8]) -> Session {
    let mut session = Session::over(server, transport);
    session.send(messages);
    while !session.next().to_string().starts_with("DataRow") {}
    session
}

#[test]
fn a_hundred_million_rows_drained_slowly_cost_less_than_64_mib() {
    let Some(server) = private() else { return };
    for transport in [Transport::Tcp, Transport::Tls13] {
        for messages in [
            query(HUNDRED_MILLION_ROWS),
            [
                parse_statement("", HUNDRED_MILLION_ROWS),
                bind("", "", &[]),
                execute("", 0),
                sync(),
            ]
            .concat(),
            query(&format!("copy ({HUNDRED_MILLION_ROWS}) to stdout")),
        ] {
            // What any query takes, threads and caches, is not what this is about.
            let mut warm = Session::over(&server, transport);
            warm.execute("select count(*) from range(10000000)");
            let worker = worker(&server);
            let before = resident_bytes(worker);
            let mut session = Session::over(&server, transport);
            session.send(&messages);
            let (mut read, mut most) = (0, 0);
            // At most 16 MiB a second; the server could do a hundred times that.
            for step in 1..=128 {
                while read < step << 18 {
                    read += session.read_some(1 << 18);
                }
                most = most.max(resident_bytes(worker));
                std::thread::sleep(Duration::from_millis(15));
            }
            let grown = most.saturating_sub(before) >> 20;
            assert!(
                grown < 64,
                "{grown} MiB for {} MiB read over {transport:?}",
                read >> 20
            );
            session.vanish();
        }
    }
}

#[test]
fn a_suspended_portal_keeps_no_rows_that_nobody_asked_for() {
    let Some(server) = private() else { return };
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("select count(*) from range(10000000)");
    let worker = worker(&server);
    let before = resident_bytes(worker);
    session.execute("begin");
    session.run(&[
        parse_statement("", "select i as a, i * 2 as b from range(5000000) t(i)"),
        bind("p", "", &[]),
        sync(),
    ]);
    for _ in 0..100 {
        assert_eq!(session.run(&[execute("p", 1000), sync()]).len(), 1002);
    }
    let grown = resident_bytes(worker).saturating_sub(before) >> 20;
    assert!(grown < 64, "{grown} MiB");
    // The engine streams one result per connection: for another statement, the
    // rest of the portal has to be put aside, but not in memory.
    assert_eq!(session.rows("select count(*) from range(1000)"), ["1000"]);
    let grown = resident_bytes(worker).saturating_sub(before) >> 20;
    assert!(grown < 64, "{grown} MiB after another statement");
    assert_eq!(
        session.run(&[execute("p", 1), sync()])[0],
        "DataRow 100000|200000"
    );
    session.execute("rollback");
}

#[test]
fn a_client_that_stops_reading_stops_its_query_and_nobody_elses() {
    let Some(server) = private() else { return };
    let worker = worker(&server);
    let stuck: Vec<Session> = [
        Transport::Tcp,
        Transport::Unix,
        Transport::Tls13,
        Transport::Tls12,
    ]
    .into_iter()
    .map(|transport| start(&server, transport, &query(HUNDRED_MILLION_ROWS)))
    .collect();
    // Its query stops: all buffers are full and no processor time is used.
    let mut last = processor_ticks(worker);
    eventually("the queries whose clients do not read come to rest", || {
        std::thread::sleep(Duration::from_millis(300));
        let now = processor_ticks(worker);
        // Ticks are hundredths of a second: at rest is less than a tenth of one core.
        let idle = now - std::mem::replace(&mut last, now) < 3;
        idle.then_some(())
    });
    // Nobody else's stops.
    let mut other = Session::over(&server, Transport::Tcp);
    other.execute("create table memory_other (i int)");
    other.execute("insert into memory_other select i from range(100000) t(i)");
    assert_eq!(
        other.rows("select count(*), sum(i) from memory_other"),
        ["100000|4999950000"]
    );
    other.send(&query("select i as a from range(1000000) t(i)"));
    assert_eq!(other.answers().len(), 1_000_003);
    // And whoever reads on gets the next row, not another.
    for mut session in stuck {
        for row in 1..100_000 {
            assert_eq!(session.next().to_string(), format!("DataRow {row}|{}", 2 * row));
        }
        session.vanish();
    }
    server.assert_serving();
}

/// Processor time of a process and its threads, in hundredths of a second.
fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
