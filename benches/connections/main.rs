//! What it costs to come in, and to stay: `cargo bench --bench connections`.
//!
//! Connections per second, each from the first packet to the answer of its first
//! `select 1`, by 1 and by 32 clients at a time, plain and with TLS 1.3, always
//! with SCRAM: duckgres, PostgreSQL 15 and PgBouncer before it (session pooling,
//! its server connections warm), one after the other in each round; the numbers
//! are medians of the rounds. The clients run on the same processors and their
//! half of SCRAM costs as much as the servers'. Then what DuckDB itself needs for
//! such a login, how long a handoff takes, and what an idle TLS session costs in
//! resident memory, control plane and worker together.
//!
//! Nothing fails because it is slow: a goal that is missed is printed as such.
//!
//! After `--`: `--rounds N` (5), `--sessions N` (5000).

#[path = "../server/client.rs"]
#[allow(dead_code, reason = "the other benchmark uses more of it")]
mod client;
mod handoff;
mod pgbouncer;
#[path = "../server/servers.rs"]
#[allow(dead_code, reason = "the other benchmark uses more of it")]
mod servers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use client::{Address, Client, Result};
use duckgres::engine::{Instance, Options};
use servers::Server;

/// So many logins make a measurement.
const LOGINS: usize = 320;

fn main() -> Result<()> {
    let (mut rounds, mut sessions) = (5, 5000);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            // Cargo adds it.
            "--bench" => {}
            "--rounds" => rounds = words.next().ok_or("--rounds N")?.parse()?,
            "--sessions" => sessions = words.next().ok_or("--sessions N")?.parse()?,
            other => return Err(format!("what is {other}?").into()),
        }
    }
    raise_descriptor_limit()?;
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let database = home.path().join("empty.duckdb");
    Instance::open(&database, &Options::default())?;
    let duckgres = servers::duckgres(&database)?;
    let postgres = servers::postgres(&duckgres);
    let bouncer = match &postgres {
        Ok(postgres) => pgbouncer::start(postgres, &duckgres),
        Err(error) => Err(format!("{error}").into()),
    };
    let mut places: Vec<(&str, &Address)> = vec![("duckgres", &duckgres.address)];
    match &postgres {
        Ok(server) => places.push((server.name, &server.address)),
        Err(error) => println!("Without PostgreSQL: {error}"),
    }
    match &bouncer {
        Ok(bouncer) => places.push(("PgBouncer", &bouncer.address)),
        Err(error) => println!("Without PgBouncer: {error}"),
    }
    for (at_a_time, tls) in [(1, false), (1, true), (32, false), (32, true)] {
        rates(&places, at_a_time, tls, rounds)?;
    }
    engine_alone(home.path())?;
    handoff::measure()?;
    drop((bouncer, postgres));
    memory(&duckgres, sessions)
}

/// What DuckDB has to do for each of these logins, whoever does the rest: connect,
/// plan and run `select 1`, disconnect. PgBouncer's server has it done before.
fn engine_alone(home: &std::path::Path) -> Result<()> {
    let instance = Instance::open(&home.join("alone.duckdb"), &Options::default())?;
    let mut times = Vec::with_capacity(10 * LOGINS);
    for _ in 0..times.capacity() {
        let start = Instant::now();
        instance.connect()?.run("select 1")?;
        times.push(start.elapsed());
    }
    times.sort();
    let micros = times[times.len() / 2].as_secs_f64() * 1e6;
    println!("DuckDB alone, connect, select 1, disconnect: p50 {micros:.0} µs\n");
    Ok(())
}

/// Connections per second.
fn rates(places: &[(&str, &Address)], at_a_time: usize, tls: bool, rounds: usize) -> Result<()> {
    let road = if tls { "TLS 1.3" } else { "plain" };
    println!("connect, log in, select 1, {road}, {at_a_time} at a time: {LOGINS} logins, {rounds} rounds");
    let mut rates = vec![Vec::new(); places.len()];
    for (_, address) in places {
        log_in_often(address, at_a_time, tls)?;
    }
    for _ in 0..rounds {
        for ((_, address), rates) in places.iter().zip(&mut rates) {
            rates.push(log_in_often(address, at_a_time, tls)?);
        }
    }
    let mut medians = Vec::new();
    for ((name, _), rates) in places.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        println!("  {name:14} {median:8.0} connections/s");
        medians.push((*name, median));
    }
    if let Some((_, theirs)) = medians.iter().find(|(name, _)| *name == "PgBouncer") {
        let ratio = medians[0].1 / theirs;
        println!("  {ratio:.2} x PgBouncer (goal: 1, {})", verdict(ratio >= 1.0));
    }
    println!();
    Ok(())
}

fn log_in_often(address: &Address, at_a_time: usize, tls: bool) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_a_time)
            .map(|_| {
                scope.spawn(|| {
                    while next.fetch_add(1, Ordering::Relaxed) < LOGINS {
                        log_in(address, tls).map_err(|error| error.to_string())?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a client panicked")??;
        }
        Ok::<_, String>(())
    })?;
    Ok(LOGINS as f64 / start.elapsed().as_secs_f64())
}

fn log_in(address: &Address, tls: bool) -> Result<()> {
    let mut client = Client::connect(address, tls)?;
    client.run("select 1")?;
    client.send(&client::message(b'X', b""))
}

/// Resident memory per idle TLS session that has run a statement.
fn memory(server: &Server, sessions: usize) -> Result<()> {
    let mut held = Vec::with_capacity(sessions);
    // What the first session makes the server load is not the second's.
    held.push(idle_session(server)?);
    let before = server.resident_bytes()?;
    for _ in 0..sessions {
        held.push(idle_session(server)?);
    }
    let each = server.resident_bytes()?.saturating_sub(before) as f64 / sessions as f64 / 1024.0;
    println!(
        "{sessions} idle TLS sessions: {each:.1} KiB each (goal: at most 32, {})",
        verdict(each <= 32.0)
    );
    let mut lost = 0;
    for client in &mut held {
        lost += usize::from(client.run("select 1").is_err());
    }
    println!("  {lost} of them lost (goal: 0, {})", verdict(lost == 0));
    Ok(())
}

fn idle_session(server: &Server) -> Result<Client> {
    let mut client = Client::connect(&server.address, true)?;
    client.run("select 1")?;
    Ok(client)
}

/// Thousands of sockets at both ends.
fn raise_descriptor_limit() -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}
