//! A full result over one connection.

use std::time::{Duration, Instant};

use duckgres::encode::Format;

use crate::client::{self, Client, Counted, Result};
use crate::cpu;
use crate::engine::Engine;
use crate::servers::Server;
use crate::{Options, Table};

/// What one run took.
#[derive(Clone, Copy, Default)]
struct Run {
    time: Duration,
    /// Processor time of the server.
    server: Duration,
    /// That of the client.
    client: Duration,
    counted: Counted,
}

/// Who takes part in a measurement, with the runs so far.
struct Line<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> Result<Run> + 'a>,
    runs: Vec<Run>,
}

impl Line<'_> {
    fn median(&self, of: impl Fn(&Run) -> Duration) -> f64 {
        let mut times: Vec<_> = self.runs.iter().map(of).collect();
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }
}

/// Measures `select * from table` in text and binary, plain and with TLS.
pub fn measure(
    table: &Table,
    duckgres: &Server,
    postgres: Option<&Server>,
    engine: &Engine,
    options: &Options,
) -> Result<()> {
    let Table { name, goals, .. } = table;
    for (format, goal) in [(Format::Text, goals[0]), (Format::Binary, goals[1])] {
        for tls in [false, true] {
            let binary = format == Format::Binary;
            let title = format!(
                "{name}, {}, {}",
                if binary { "binary" } else { "text" },
                if tls { "TLS" } else { "plain" }
            );
            if options.wants(&title) {
                let query = format!("select * from {name}");
                let mut lines = Vec::new();
                for server in [Some(duckgres), postgres].into_iter().flatten() {
                    lines.push(over_the_wire(server, &query, binary, tls)?);
                }
                lines.push(in_process("engine and encoder", engine, &query, Some(format)));
                lines.push(in_process("engine alone", engine, &query, None));
                take_turns(&mut lines, options.repetitions)?;
                report(&title, goal, &lines);
            }
        }
    }
    Ok(())
}

fn over_the_wire<'a>(server: &'a Server, query: &str, binary: bool, tls: bool) -> Result<Line<'a>> {
    let mut client = Client::connect(&server.address, tls)?;
    let request = if binary {
        [client::parse("", query), client::execute("", true)].concat()
    } else {
        client::query(query)
    };
    let run = move || {
        let process = server.process_of(&client);
        let (server_before, client_before) = (cpu::of_process(process), cpu::of_this_thread());
        let start = Instant::now();
        client.send(&request)?;
        let counted = client.drain()?;
        let time = start.elapsed();
        Ok(Run {
            time,
            server: cpu::of_process(process).saturating_sub(server_before),
            client: cpu::of_this_thread().saturating_sub(client_before),
            counted,
        })
    };
    Ok(Line {
        name: server.name,
        run: Box::new(run),
        runs: Vec::new(),
    })
}

fn in_process<'a>(name: &'static str, engine: &'a Engine, query: &str, format: Option<Format>) -> Line<'a> {
    let query = query.to_owned();
    let run = move || {
        let before = cpu::of_this_process();
        let start = Instant::now();
        let counted = engine.drain(&query, format)?;
        let time = start.elapsed();
        let server = cpu::of_this_process().saturating_sub(before);
        Ok(Run {
            time,
            server,
            client: Duration::ZERO,
            counted,
        })
    };
    Line {
        name,
        run: Box::new(run),
        runs: Vec::new(),
    }
}

/// Each line once to get warm, then one after the other, again and again, so
/// that what else happens on the machine happens to all.
fn take_turns(lines: &mut [Line<'_>], repetitions: usize) -> Result<()> {
    for line in &mut *lines {
        (line.run)()?;
    }
    for _ in 0..repetitions {
        for line in &mut *lines {
            let run = (line.run)()?;
            line.runs.push(run);
        }
    }
    Ok(())
}

fn report(title: &str, goal: f64, lines: &[Line<'_>]) {
    let counted = lines[0].runs[0].counted;
    let million = counted.rows as f64 / 1e6;
    println!(
        "{title}: {} rows, {:.0} MB",
        counted.rows,
        counted.bytes as f64 / 1e6
    );
    println!(
        "  {:20} {:>9} {:>9} {:>9}   CPU s per Mrow: server, client",
        "", "seconds", "Mrows/s", "MB/s"
    );
    for line in lines {
        let time = line.median(|run| run.time);
        println!(
            "  {:20} {:9.3} {:9.2} {:9.0}   {:6.3} {:6.3}{}",
            line.name,
            time,
            million / time,
            line.runs[0].counted.bytes as f64 / 1e6 / time,
            line.median(|run| run.server) / million,
            line.median(|run| run.client) / million,
            // The engine alone makes no bytes.
            if line.runs[0].counted == counted || line.runs[0].counted.bytes == 0 {
                ""
            } else {
                "   OTHER BYTES"
            },
        );
    }
    let time_of = |name: &str| {
        lines
            .iter()
            .find(|line| line.name.starts_with(name))
            .map(|line| line.median(|run| run.time))
    };
    if let (Some(ours), Some(theirs)) = (time_of("duckgres"), time_of("PostgreSQL")) {
        println!(
            "  {:.2} x PostgreSQL (goal: {goal}, {})",
            theirs / ours,
            verdict(theirs / ours >= goal)
        );
    }
    if let (Some(ours), Some(limit)) = (time_of("duckgres"), time_of("engine and encoder")) {
        let share = limit / ours;
        println!(
            "  {:.0} % of engine and encoder (goal: 80, {})",
            share * 100.0,
            verdict(share >= 0.8)
        );
    }
    println!();
}

pub fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}
