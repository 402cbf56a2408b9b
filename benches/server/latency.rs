//! How long the smallest things take.

use std::time::{Duration, Instant};

use crate::Options;
use crate::client::{self, Client, Result};
use crate::engine::Engine;
use crate::result::verdict;
use crate::servers::Server;

const STATEMENTS: usize = 20_000;
const LOGINS: usize = 200;
/// How often the servers change turns.
const TURNS: usize = 20;

/// Something a client does again and again.
type Deed<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// `select 1` prepared and not, and logging in, plain and with TLS.
pub fn measure(
    duckgres: &Server,
    postgres: Option<&Server>,
    engine: &Engine,
    options: &Options,
) -> Result<()> {
    let servers: Vec<&Server> = [Some(duckgres), postgres].into_iter().flatten().collect();
    let names: Vec<_> = servers
        .iter()
        .map(|server| server.name)
        .chain(["engine and encoder"])
        .collect();
    for (name, make, count, goal) in [
        (
            "select 1, prepared",
            prepared as fn(&Server, bool) -> Result<Deed<'_>>,
            STATEMENTS,
            Some(2.0),
        ),
        ("select 1, simple", simple, STATEMENTS, Some(2.5)),
        ("connect, log in, select 1", log_in, LOGINS, None),
    ] {
        for tls in [false, true] {
            let title = format!("{name}, {}", if tls { "TLS" } else { "plain" });
            if !options.wants(&title) {
                continue;
            }
            let mut deeds = servers
                .iter()
                .map(|server| make(server, tls))
                .collect::<Result<Vec<_>>>()?;
            if count == STATEMENTS {
                deeds.push(engine.again("select 1")?);
            }
            let mut times = vec![Vec::with_capacity(count); deeds.len()];
            for deed in &mut deeds {
                (0..count / TURNS).try_for_each(|_| deed())?;
            }
            for _ in 0..TURNS {
                for (deed, times) in deeds.iter_mut().zip(&mut times) {
                    for _ in 0..count / TURNS {
                        let start = Instant::now();
                        deed()?;
                        times.push(start.elapsed());
                    }
                }
            }
            report(&title, goal, &names, &mut times);
        }
    }
    Ok(())
}

fn prepared(server: &Server, tls: bool) -> Result<Deed<'_>> {
    let mut client = Client::connect(&server.address, tls)?;
    client.send(&[client::parse("one", "select 1"), client::message(b'S', b"")].concat())?;
    client.drain()?;
    Ok(again(client, client::execute("one", false)))
}

fn simple(server: &Server, tls: bool) -> Result<Deed<'_>> {
    Ok(again(
        Client::connect(&server.address, tls)?,
        client::query("select 1"),
    ))
}

fn again<'a>(mut client: Client, request: Vec<u8>) -> Deed<'a> {
    Box::new(move || {
        client.send(&request)?;
        match client.drain()?.rows {
            1 => Ok(()),
            rows => Err(format!("select 1 gave {rows} rows").into()),
        }
    })
}

fn log_in(server: &Server, tls: bool) -> Result<Deed<'_>> {
    Ok(Box::new(move || {
        let mut client = Client::connect(&server.address, tls)?;
        client.run("select 1")?;
        client.send(&client::message(b'X', b""))
    }))
}

fn report(title: &str, goal: Option<f64>, names: &[&str], times: &mut [Vec<Duration>]) {
    println!("{title}: {} times", times[0].len());
    let mut medians = Vec::new();
    for (name, times) in names.iter().zip(times) {
        times.sort();
        let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
        println!("  {:20} p50 {:8.1} µs   p99 {:8.1} µs", name, at(0.5), at(0.99));
        medians.push(at(0.5));
    }
    let of = |wanted: &str| {
        let at = names.iter().position(|name| name.starts_with(wanted))?;
        medians.get(at).copied()
    };
    if let (Some(ours), Some(theirs)) = (of("duckgres"), of("PostgreSQL")) {
        let ratio = ours / theirs;
        match goal {
            Some(goal) => println!(
                "  {ratio:.2} x PostgreSQL (goal: at most {goal}, {})",
                verdict(ratio <= goal)
            ),
            None => println!("  {ratio:.2} x PostgreSQL"),
        }
    }
    println!();
}
