//! What an operator sees of a running server: its metrics, and `duckgres status`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::message::*;
use crate::support::programs::{Output, run};
use crate::support::session::V3_0;
use crate::support::{PATIENCE, Server, Session, Transport, eventually};

const ANY_PORT: [&str; 2] = ["--metrics-address", "127.0.0.1:0"];

/// Whether the tests are run against PostgreSQL, which shows itself otherwise.
fn against_postgres() -> bool {
    let postgres = Server::shared().is_postgres();
    if postgres {
        println!("skipped: this is about what duckgres shows of itself");
    }
    postgres
}

/// Where the server says that its metrics are.
#[track_caller]
pub fn metrics_address(server: &Server) -> SocketAddr {
    let log = server.log();
    let (_, rest) = log
        .split_once("metrics are served on http://")
        .unwrap_or_else(|| panic!("no address of metrics in the log:\n{log}"));
    rest.split('/').next().unwrap().parse().unwrap()
}

/// The whole answer to an HTTP request.
pub fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
pub fn scrape(server: &Server) -> String {
    let answer = http(metrics_address(server), "GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\n# EOF\n"), "{answer}");
    answer
}

/// The value of a metric, labels included in its name, if it is there.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Waits until a metric has that value.
#[track_caller]
fn expect(server: &Server, name: &str, expected: f64) {
    eventually(name, || {
        (value(&scrape(server), name) == Some(expected)).then_some(())
    });
}

fn status_command(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    command
        .args(["status", "--data-dir"])
        .arg(data_dir)
        .args(arguments)
        .env_remove("DUCKGRES_CONFIG");
    command
}

fn status(data_dir: &Path, arguments: &[&str]) -> Output {
    run(&mut status_command(data_dir, arguments), "")
}

fn status_json(server: &Server) -> Value {
    serde_json::from_str(&status(&server.data(), &["--json"]).success()).unwrap()
}

/// Fails to log in over TCP, from this machine's usual address.
fn fail_to_log_in(server: &Server) -> String {
    let mut session = Session::open(server, Transport::Tcp);
    session.try_send(&startup(V3_0, &[("user", "alice")])).ok();
    session.authenticate("wrong").unwrap_err().sqlstate().to_owned()
}

fn signal(process: u32, signal: Signal) {
    kill(Pid::from_raw(process.try_into().unwrap()), signal).unwrap();
}

#[test]
fn one_scrape_shows_the_whole_host() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(2, &ANY_PORT);
    let mut first = Session::of(&server, "u0", Transport::Tls13);
    let second = Session::of(&server, "u1", Transport::Tcp);
    let third = Session::of(&server, "u1", Transport::Tcp);
    let of = |name: &str, session: &Session| format!("{name}{{worker=\"{}\"}}", session.worker());

    first.rows("select * from range(1000) t(a)");
    assert_eq!(first.error("select no_such_column").sqlstate(), "42703");
    first.execute("begin");

    let text = scrape(&server);
    for (name, expected) in [
        ("duckgres_connections_open", 3.0),
        ("duckgres_control_plane_workers_active", 2.0),
        ("duckgres_auth_failures_total", 0.0),
        ("duckgres_rate_limit_rejects_total", 0.0),
        ("duckgres_rate_limited_ips", 0.0),
        (&of("duckgres_worker_up", &first), 1.0),
        (&of("duckgres_worker_sessions", &first), 1.0),
        (&of("duckgres_worker_sessions", &second), 2.0),
        (&of("duckgres_worker_pinned_sessions", &first), 1.0),
        (&of("duckgres_worker_pinned_sessions", &second), 0.0),
        (&of("duckgres_worker_databases_open", &second), 1.0),
        (&of("duckgres_worker_handoffs_total", &second), 2.0),
        (&of("duckgres_worker_handoff_failures_total", &second), 0.0),
        (&of("duckgres_worker_handoff_seconds_count", &second), 2.0),
        (&of("duckgres_worker_restarts_total", &first), 0.0),
        (&of("duckgres_query_errors_total", &first), 1.0),
        (&of("duckgres_query_errors_total", &second), 0.0),
        (&of("duckgres_query_duration_seconds_count", &first), 3.0),
        (
            &format!(
                "duckgres_query_duration_seconds_bucket{{le=\"+Inf\",worker=\"{}\"}}",
                first.worker()
            ),
            3.0,
        ),
    ] {
        assert_eq!(value(&text, name), Some(expected), "{name}\n{text}");
    }
    let memory = of("duckgres_worker_resident_memory_bytes", &first);
    assert!(value(&text, &memory).unwrap() > 1e6, "{text}");
    expect(&server, &of("duckgres_rows_sent_total", &first), 1000.0);
    let bytes = value(&scrape(&server), &of("duckgres_bytes_sent_total", &first));
    assert!(bytes.unwrap() > 10_000.0);

    first.execute("rollback");
    drop((second, third));
    expect(&server, &of("duckgres_worker_pinned_sessions", &first), 0.0);
    expect(&server, "duckgres_connections_open", 1.0);
}

#[test]
fn rows_of_cursors_and_copies_count_and_so_does_a_restart() {
    if against_postgres() {
        return;
    }
    let server = Server::duckgres(&ANY_PORT);
    let mut session = Session::over(&server, Transport::Tcp);
    session.execute("begin");
    session.execute("declare c cursor for select * from range(50) t(a)");
    assert_eq!(session.rows("fetch 20 from c").len(), 20);
    session.execute("commit");
    session.query("copy (select * from range(7) t(a)) to stdout");
    expect(&server, "duckgres_rows_sent_total{worker=\"1\"}", 27.0);

    signal(server.worker_process(1), Signal::SIGKILL);
    expect(&server, "duckgres_worker_restarts_total{worker=\"1\"}", 1.0);
    expect(&server, "duckgres_connections_open", 0.0);
    expect(&server, "duckgres_rows_sent_total{worker=\"1\"}", 0.0);
}

#[test]
fn failed_logins_and_bans_are_counted_and_shown() {
    if against_postgres() {
        return;
    }
    let mut arguments = ANY_PORT.to_vec();
    arguments.extend(["--max-failed-attempts", "2"]);
    let server = Server::configured("users:\n  alice: secret\n", ("alice", "secret"), &arguments);
    assert_eq!(status_json(&server)["bans"], serde_json::json!([]));
    assert_eq!(fail_to_log_in(&server), "28P01");
    let text = scrape(&server);
    assert_eq!(value(&text, "duckgres_auth_failures_total"), Some(1.0));
    assert_eq!(value(&text, "duckgres_rate_limited_ips"), Some(0.0));

    assert_eq!(fail_to_log_in(&server), "28P01");
    assert_eq!(fail_to_log_in(&server), "28000", "banned");
    let text = scrape(&server);
    assert_eq!(value(&text, "duckgres_auth_failures_total"), Some(2.0));
    assert_eq!(value(&text, "duckgres_rate_limited_ips"), Some(1.0));
    assert_eq!(value(&text, "duckgres_rate_limit_rejects_total"), Some(1.0));

    let status_of = status_json(&server);
    let [ban] = &status_of["bans"].as_array().unwrap()[..] else {
        panic!("{status_of}")
    };
    assert_eq!(ban["network"], "127.0.0.1");
    let left = ban["seconds_left"].as_u64().unwrap();
    assert!((1..=900).contains(&left), "{left}");
    let table = status(&server.data(), &[]).success();
    assert!(table.contains("Banned") && table.contains("127.0.0.1"), "{table}");
}

#[test]
fn the_status_of_four_workers_shows_their_processes() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(4, &ANY_PORT);
    let mut sessions: Vec<Session> = ["u0", "u1", "u1"]
        .iter()
        .map(|user| Session::of(&server, user, Transport::Tls13))
        .collect();
    sessions[0].execute("begin");

    let status_of = status_json(&server);
    assert_eq!(status_of["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status_of["process_id"], server.pid());
    assert_eq!(status_of["sessions"], 3);
    assert_eq!(status_of["data_dir"], server.data().to_str().unwrap());
    let url = format!("http://{}/metrics", metrics_address(&server));
    assert_eq!(status_of["metrics_url"], url);
    let workers = status_of["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 4);
    for (id, worker) in (1..).zip(workers) {
        assert_eq!(worker["id"], id);
        assert_eq!(worker["process_id"], server.worker_process(id));
        assert_eq!(worker["state"], "ready");
        assert_eq!(worker["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(worker["engine_version"], "v1.5.5");
        assert!(worker["uptime_seconds"].as_u64().unwrap() < 600, "{worker}");
        assert!(worker["resident_bytes"].as_u64().unwrap() > 1_000_000, "{worker}");
        let sessions = sessions.iter().filter(|session| session.worker() == id).count();
        assert_eq!(worker["sessions"], sessions);
        assert_eq!(worker["databases"], usize::from(sessions > 0));
    }
    let of = |session: &Session| &workers[session.worker() as usize - 1];
    assert_eq!(of(&sessions[0])["pinned_sessions"], 1);
    assert_eq!(of(&sessions[1])["pinned_sessions"], 0);
    let expected = serde_json::json!([
        {"name": "u0", "worker": sessions[0].worker(), "sessions": 1},
        {"name": "u1", "worker": sessions[1].worker(), "sessions": 2},
    ]);
    assert_eq!(status_of["databases"], expected);
    let expected = serde_json::json!([{"name": "u0", "sessions": 1}, {"name": "u1", "sessions": 2}]);
    assert_eq!(status_of["users"], expected);

    let table = status(&server.data(), &[]).success();
    for id in 1..=4 {
        let process = server.worker_process(id).to_string();
        assert!(table.split_whitespace().any(|word| word == process), "{table}");
    }
    for word in ["Workers", "Databases", "Users", "DuckDB v1.5.5", "3 sessions"] {
        assert!(table.contains(word), "{word}\n{table}");
    }
}

#[test]
fn without_a_server_the_status_is_one_sentence() {
    if against_postgres() {
        return;
    }
    let sentence = |output: &Output, data: &Path| {
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(output.out, "");
        let expected = format!(
            "duckgres: no duckgres is running on the data directory {}: start it, or name another with --data-dir\n",
            data.display()
        );
        assert_eq!(output.err, expected);
    };
    let nowhere = Path::new("/nonexistent/data");
    sentence(&status(nowhere, &[]), nowhere);

    let mut server = Server::duckgres(&[]);
    let socket = server.data().join("run/control.sock");
    let metadata = fs::metadata(&socket).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    status(&server.data(), &[]).success();
    assert!(server.stop().success());
    assert!(!socket.exists());
    sentence(&status(&server.data(), &["--json"]), &server.data());

    // Killed, it has left its socket behind.
    let mut server = server.start_again();
    status(&server.data(), &[]).success();
    server.die();
    assert!(socket_of(&server).exists());
    sentence(&status(&server.data(), &[]), &server.data());
    let server = server.start_again();
    status(&server.data(), &[]).success();
}

fn socket_of(server: &Server) -> std::path::PathBuf {
    server.data().join("run/control.sock")
}

#[test]
fn a_configuration_file_says_whose_status_it_is_even_if_it_could_not_start_a_server() {
    if against_postgres() {
        return;
    }
    let server = Server::duckgres(&[]);
    let file = server.scratch("other.yaml");
    let yaml = format!("data_dir: {}\nport: none\n", server.data().display());
    fs::write(&file, yaml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    command
        .args(["status", "--json", "--config"])
        .arg(&file)
        .env_remove("DUCKGRES_DATA_DIR");
    let status_of: Value = serde_json::from_str(&run(&mut command, "").success()).unwrap();
    assert_eq!(status_of["process_id"], server.pid());
}

#[test]
fn a_watch_goes_on_over_a_restart() {
    if against_postgres() {
        return;
    }
    let mut server = Server::duckgres(&[]);
    let mut watch = status_command(&server.data(), &["--json", "--watch", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["process_id"], server.pid());
    assert_eq!(next()["process_id"], server.pid());
    server.stop();
    let server = server.start_again();
    let mut same = (0..60).map(|_| next()["process_id"] == server.pid());
    assert!(same.any(|same| same), "the next process is seen");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

/// The inodes of the TCP sockets on which a process listens.
fn listening(process: u32) -> usize {
    let listening: Vec<String> = ["tcp", "tcp6"]
        .iter()
        .flat_map(|table| {
            let text = fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines
        })
        .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter(|fields| fields.get(3).is_some_and(|state| state == "0A"))
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect();
    fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| {
            listening
                .iter()
                .any(|socket| target.as_os_str() == socket.as_str())
        })
        .count()
}

#[test]
fn metrics_that_are_off_are_served_nowhere() {
    if against_postgres() {
        return;
    }
    let server = Server::duckgres(&["--metrics-address", "off", "--host", "127.0.0.1"]);
    assert_eq!(status_json(&server)["metrics_url"], "");
    assert!(!server.log().contains("metrics"), "{}", server.log());
    // Only root may look into a process that keeps secrets.
    if nix::unistd::geteuid().is_root() {
        assert_eq!(listening(server.pid()), 1, "only PostgreSQL's port");
        let mut arguments = ANY_PORT.to_vec();
        arguments.extend(["--host", "127.0.0.1"]);
        assert_eq!(listening(Server::duckgres(&arguments).pid()), 2);
    }
}

#[test]
fn an_address_for_metrics_that_was_asked_for_must_be_free() {
    if against_postgres() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = tempfile::TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_duckgres"));
    command
        .args(["--port", "0", "--metrics-address", &address, "--data-dir"])
        .arg(home.path().join("data"));
    let output = run(&mut command, "");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output.err.contains(&format!("cannot serve metrics on {address}"))
            && output.err.contains("--metrics-address"),
        "{}",
        output.err
    );
}

#[test]
fn only_metrics_are_served_and_silence_does_not_keep_others_out() {
    if against_postgres() {
        return;
    }
    let server = Server::duckgres(&ANY_PORT);
    let address = metrics_address(&server);
    assert!(http(address, "GET /").starts_with("HTTP/1.1 404 "));
    assert!(http(address, "GET /metrics/../status").starts_with("HTTP/1.1 404 "));
    assert!(http(address, "POST /metrics").starts_with("HTTP/1.1 405 "));
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.write_all(&startup(V3_0, &[("user", "alice")])).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    stranger.read_to_end(&mut Vec::new()).ok();

    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
    scrape(&server);
    drop(silent);
    server.assert_serving();
}

#[test]
fn a_worker_that_stands_still_does_not_hold_up_those_who_look() {
    if against_postgres() {
        return;
    }
    let server = Server::with_workers(2, &ANY_PORT);
    let stopped = Session::of(&server, "u0", Transport::Tcp);
    let other = Session::of(&server, "u1", Transport::Tcp);
    let of = |name: &str, session: &Session| format!("{name}{{worker=\"{}\"}}", session.worker());
    let process = server.worker_process(stopped.worker());
    signal(process, Signal::SIGSTOP);

    let before = Instant::now();
    let text = scrape(&server);
    let status_of = status_json(&server);
    assert!(
        before.elapsed() < Duration::from_secs(8),
        "{:?}",
        before.elapsed()
    );
    signal(process, Signal::SIGCONT);

    assert_eq!(
        value(&text, &of("duckgres_worker_up", &stopped)),
        Some(0.0),
        "{text}"
    );
    assert_eq!(
        value(&text, &of("duckgres_worker_up", &other)),
        Some(1.0),
        "{text}"
    );
    assert_eq!(value(&text, &of("duckgres_worker_sessions", &stopped)), Some(1.0));
    assert_eq!(value(&text, &of("duckgres_query_errors_total", &stopped)), None);
    assert_eq!(value(&text, "duckgres_connections_open"), Some(2.0));
    let worker = &status_of["workers"][stopped.worker() as usize - 1];
    assert_eq!(worker["state"], "not answering");
    assert_eq!(worker["process_id"], process);
    assert_eq!(worker["sessions"], 1);
    assert_eq!(worker["pinned_sessions"], Value::Null);

    expect(&server, &of("duckgres_worker_up", &stopped), 1.0);
}
