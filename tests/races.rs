//! What raced, leaked or crashed in earlier designs of such a server, by name.
//!
//! Others of their kind are where they belong: a worker that dies between a
//! handoff and its answer, or a control plane that is killed, in `workers`;
//! startup messages that lie in `wire::login`.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Barrier;
use std::thread;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::support::message::*;
use crate::support::processes::resident_bytes;
use crate::support::session::V3_0;
use crate::support::{Server, Session, Transport};

fn is_postgres() -> bool {
    if Server::shared().is_postgres() {
        println!("skipped: this is about duckgres's handoffs");
        return true;
    }
    false
}

/// One slot for the descriptor on its way, and a second message for what belongs
/// to it: with two clients at once, one gets the other's socket.
#[test]
fn five_hundred_clients_at_once_see_their_own_database_and_their_own_rows() {
    if is_postgres() {
        return;
    }
    let users: String = (0..50).map(|i| format!("  m{i}: not-a-secret\n")).collect();
    let server = Server::configured(
        &format!("users:\n{users}"),
        ("m0", "not-a-secret"),
        &["--worker-count", "4"],
    );
    for database in (0..50).map(|i| format!("m{i}")) {
        let mut session = Session::of(&server, &database, Transport::Tcp);
        session.execute(&format!("create table whose as select '{database}' as name"));
    }
    let start = Barrier::new(500);
    thread::scope(|scope| {
        for client in 0..500 {
            let (server, start) = (&server, &start);
            scope.spawn(move || {
                let user = format!("m{}", client % 50);
                start.wait();
                let mut session = Session::of(server, &user, Transport::ALL[client / 50 % 4]);
                session.execute(&format!("create temp table marker as select {client} as i"));
                assert_eq!(
                    session.rows("select current_database(), name, i from whose, marker"),
                    [format!("{user}|{user}|{client}")]
                );
            });
        }
    });
}

/// Opening a database is work for a processor, and who takes in sessions needs one
/// too: senders gave up before their message was read, and came again.
#[test]
fn two_hundred_new_databases_at_once_hold_up_no_handoff() {
    if is_postgres() {
        return;
    }
    let users: String = (0..200).map(|i| format!("  m{i}: not-a-secret\n")).collect();
    let server = Server::configured(
        &format!("users:\n{users}"),
        ("m0", "not-a-secret"),
        &["--worker-count", "2"],
    );
    let start = Barrier::new(200);
    thread::scope(|scope| {
        for client in 0..200 {
            let (server, start) = (&server, &start);
            scope.spawn(move || {
                let user = format!("m{client}");
                start.wait();
                let mut session = Session::of(server, &user, Transport::Tcp);
                assert_eq!(session.rows("select current_database()"), [user]);
            });
        }
    });
    let log = server.log();
    assert_eq!(log.matches(": opened database=").count(), 200, "{log}");
    let again = ["not understood", "was refused", "cannot be reached"];
    let retries: Vec<&str> = log
        .lines()
        .filter(|line| again.iter().any(|complaint| line.contains(complaint)))
        .collect();
    assert!(retries.is_empty(), "{retries:#?}");
}

/// A receiver that reads one peer after the other waits for the first for ever.
#[test]
fn silent_clients_and_silent_peers_of_a_worker_hold_up_nobody() {
    if is_postgres() {
        return;
    }
    let server = Server::with_workers(1, &[]);
    let mut silent = Vec::new();
    for first in [
        &b""[..],
        &[0, 0, 0],
        &ssl_request(),
        &startup(V3_0, &[("user", "u0")]),
    ] {
        for _ in 0..10 {
            let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            client.write_all(first).unwrap();
            silent.push(client);
        }
    }
    let peers: Vec<_> = (0..10)
        .map(|_| {
            let peer = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).unwrap();
            let path = server.data().join("run/worker-1/handoff.sock");
            connect(peer.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
            peer
        })
        .collect();
    for transport in Transport::ALL {
        let mut session = Session::of(&server, "u0", transport);
        assert_eq!(session.rows("select 1 as a"), ["1"]);
    }
    drop((silent, peers));
}

/// Bytes of a stranger decided how much memory a worker took, and whether it lived.
#[test]
fn http_and_startup_lengths_of_0_3_and_2_31_reach_no_worker() {
    if is_postgres() {
        return;
    }
    let server = Server::with_workers(2, &[]);
    let mut before = Session::of(&server, "u0", Transport::Tls13);
    let processes = [1, 2].map(|id| server.worker_process(id));
    let memory = resident_bytes(server.pid());
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        0_i32.to_be_bytes().to_vec(),
        3_i32.to_be_bytes().to_vec(),
        [&i32::MAX.to_be_bytes()[..], b"\0\x03\0\0user\0u0\0\0"].concat(),
    ] {
        for transport in Transport::ALL {
            let mut stranger = Session::open(&server, transport);
            stranger.try_send(&bytes).ok();
            let last = stranger.last_words();
            assert!(
                last.is_empty() || last == ["Error FATAL 08P01"],
                "{transport:?}: {last:?}"
            );
        }
    }
    assert_eq!(before.rows("select 1 as a"), ["1"]);
    assert_eq!([1, 2].map(|id| server.worker_process(id)), processes);
    assert!(resident_bytes(server.pid()) < memory + (16 << 20));
}

/// With a process for each connection, every connection read the file again.
#[test]
fn a_second_session_of_a_database_reads_what_the_first_has_read_from_memory() {
    if is_postgres() {
        return;
    }
    let mut server = Server::with_workers(2, &["--memory-limit", "1GiB"]);
    let mut loader = Session::of(&server, "u0", Transport::Tcp);
    loader.execute("create table rac_warm as select i, hash(i) as h from range(2000000) t(i)");
    loader.execute("checkpoint");
    drop(loader);
    assert!(server.stop().success());
    let server = server.start_again();
    let cached = |session: &mut Session| -> u64 {
        let sql = "select memory_usage_bytes from duckdb_memory() where tag = 'BASE_TABLE'";
        session.rows(sql)[0].parse().unwrap()
    };
    let mut first = Session::of(&server, "u0", Transport::Tcp);
    let process = server.worker_process(first.worker());
    // Bytes that the process has asked the kernel for, be they on the disk or not.
    let read = || -> u64 {
        let io = fs::read_to_string(format!("/proc/{process}/io")).unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
        line.unwrap().parse().unwrap()
    };
    let sql = "select count(*), bit_xor(h) > 0 from rac_warm";
    let (cold, start) = (cached(&mut first), read());
    let answer = first.rows(sql);
    let (warm, after_first) = (cached(&mut first), read());
    assert!(
        warm > cold + (8 << 20),
        "{cold} to {warm} bytes in DuckDB's cache"
    );
    assert!(
        after_first > start + (8 << 20),
        "{start} to {after_first} bytes read"
    );
    let mut second = Session::of(&server, "u0", Transport::Tls13);
    assert_eq!(second.rows(sql), answer);
    assert_eq!(cached(&mut second), warm);
    assert!(read() < after_first + (1 << 20), "it was read once more");
}
