//! Many clients of all kinds, which notice nothing of restarts but pauses.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::lives::booted;
use crate::machine::{Machine, on_each_release};
use crate::support::programs::python;
use crate::survival::{ALL, Talker, crowd, in_a_loop, print_what_took_how_long, quantiles};

on_each_release!(sixty_four_clients_feel_ten_rolling_restarts_as_pauses);

/// Sixteen connections that check themselves until standard input ends.
const PSYCOPG_CROWD: &str = "
import psycopg, sys, threading
ready, done, failed = threading.Barrier(17), threading.Event(), []
ways = ['sslmode=require', 'sslmode=require ssl_max_protocol_version=TLSv1.2', 'sslmode=disable']
def check(connection, number):
    found = connection.execute(f'select %s::int + {number}', [1000], prepare=True).fetchone()[0]
    name = connection.execute('show application_name').fetchone()[0]
    marker = connection.execute(\"select getvariable('marker')\").fetchone()[0]
    assert (found, name, marker) == (1000 + number, f'psycopg {number}', number), (found, name, marker)
def crowd(number):
    try:
        who = f'u{number % 6}'
        to = f'{sys.argv[1]} {ways[number % 3]}'
        with psycopg.connect(to, user=who, dbname=who, autocommit=True) as connection:
            connection.execute(f\"set application_name = 'psycopg {number}'\")
            connection.execute(f'set variable marker = {number}')
            ready.wait()
            while not done.is_set():
                check(connection, number)
    except Exception as error:
        failed.append(repr(error))
        ready.abort()
threads = [threading.Thread(target=crowd, args=[number]) for number in range(16)]
[thread.start() for thread in threads]
ready.wait()
print(sys.stdin.readline().strip(), flush=True)
sys.stdin.read()
done.set()
[thread.join() for thread in threads]
sys.exit('; '.join(failed) or None)
";

/// Four of psql, over TLS of both versions and without.
const PSQL_WAYS: [&str; 4] = [
    "sslmode=require",
    "sslmode=require ssl_max_protocol_version=TLSv1.2",
    "sslmode=require ssl_max_protocol_version=TLSv1.2",
    "sslmode=disable",
];

fn psql(machine: &Machine, number: usize, way: &str) -> Talker {
    let mut psql = machine.command_in_network(Path::new("psql"));
    let to = format!("host=127.0.0.1 password=not-a-secret user=u{number} dbname=u{number} {way}");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", &to]);
    let mut psql = Talker::start(psql);
    let begin = format!(
        "prepare add(int) as select $1 + {number}; set application_name = 'psql {number}'; \
         set variable marker = {number}; select 1;"
    );
    assert_eq!(psql.ask(&begin), "1");
    psql
}

fn psql_in_a_loop(mut psql: Talker, number: usize, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        assert_eq!(psql.ask("execute add(2);"), (2 + number).to_string());
        assert_eq!(psql.ask("show application_name;"), format!("psql {number}"));
        assert_eq!(psql.ask("select getvariable('marker');"), number.to_string());
    }
    psql.leave();
}

/// tokio-postgres, without TLS.
fn tokio_postgres_in_a_loop(tcp: std::net::TcpStream, number: i32, done: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        tcp.set_nonblocking(true).unwrap();
        let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
        let application = format!("tokio {number}");
        let (client, connection) = tokio_postgres::Config::new()
            .user("u0")
            .password("not-a-secret")
            .connect_raw(tcp, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        let begin = format!("set application_name = '{application}'; set variable marker = {number}");
        client.batch_execute(&begin).await.unwrap();
        let add = client
            .prepare(&format!("select $1::int + {number}"))
            .await
            .unwrap();
        while !done.load(Ordering::Relaxed) {
            let sum: i32 = client.query_one(&add, &[&2]).await.unwrap().get(0);
            let name = client.query_one("show application_name", &[]).await.unwrap();
            let marker = client
                .query_one("select getvariable('marker')", &[])
                .await
                .unwrap();
            let (name, marker): (String, i32) = (name.get(0), marker.get(0));
            assert_eq!((sum, name, marker), (2 + number, application.clone(), number));
        }
    });
}

/// Ends the loops, also when what happens meanwhile has failed.
struct EndsLoops<'a>(&'a AtomicBool);

impl Drop for EndsLoops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Over TLS 1.3, TLS 1.2 and plaintext. Each checks in every iteration a prepared
/// statement, a setting and a marker that only it has.
fn sixty_four_clients_feel_ten_rolling_restarts_as_pauses(mut machine: Machine) {
    booted(&mut machine, &[1, 2, 3]);
    let network = machine.network();
    let mut psycopg = machine.command_in_network(Path::new(python().get_program()));
    psycopg.args(["-c", PSYCOPG_CROWD, "host=127.0.0.1 password=not-a-secret"]);
    let mut psycopg = Talker::start(psycopg);
    assert_eq!(psycopg.ask("all are here"), "all are here");
    let psqls = PSQL_WAYS.into_iter().enumerate();
    let psqls: Vec<_> = psqls
        .map(|(number, way)| (number, psql(&machine, number, way)))
        .collect();
    let done = AtomicBool::new(false);
    let marked = thread::scope(|scope| {
        let done = &done;
        for (number, psql) in psqls {
            scope.spawn(move || psql_in_a_loop(psql, number, done));
        }
        for number in 0..4 {
            let tcp = network.tcp().unwrap();
            scope.spawn(move || tokio_postgres_in_a_loop(tcp, number, done));
        }
        let _ends = EndsLoops(done);
        in_a_loop(crowd(&network, 40, 6), || {
            for _ in 0..10 {
                machine.systemctl(&["restart", ALL]);
            }
        })
    });
    psycopg.leave();
    print_what_took_how_long(&machine, 1);
    let longest: Vec<Duration> = marked
        .iter()
        .filter_map(|one| one.pauses.iter().max().copied())
        .collect();
    println!("of each client the longest: {}", quantiles(longest));
    println!(
        "{}",
        quantiles(marked.into_iter().flat_map(|one| one.pauses).collect())
    );
}
