//! What a client gets from the server, beside what PostgreSQL gives it:
//! `cargo bench --bench server`.
//!
//! One connection at a time, over loopback TCP, plain and with TLS. A full result
//! is read by a client that only counts; the same result from a PostgreSQL 15
//! that is started for the purpose, warm, with the same data and the same
//! certificate; and, as the limit, from the engine in this process, with the
//! encoder and without. They take turns; the numbers are medians. Then the
//! latency of the smallest statements, and of logging in.
//!
//! Nothing fails because it is slow: a goal that is missed is printed as such.
//!
//! After `--`: `--repetitions N` (5), `--only WORD` (only measurements whose name
//! has the word), `--without-postgres`.

mod client;
mod cpu;
mod engine;
mod latency;
mod result;
#[allow(dead_code, reason = "the other benchmark uses more of it")]
mod servers;

use std::path::{Path, PathBuf};
use std::process::Command;

use client::{Client, Result};
use engine::Engine;
use servers::Server;

/// What the command line says.
pub struct Options {
    /// How often each result is read.
    pub repetitions: usize,
    only: Option<String>,
    postgres: bool,
}

impl Options {
    fn read() -> Result<Options> {
        let mut options = Options {
            repetitions: 5,
            only: None,
            postgres: true,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--repetitions" => options.repetitions = words.next().ok_or("--repetitions N")?.parse()?,
                "--only" => options.only = Some(words.next().ok_or("--only WORD")?),
                "--without-postgres" => options.postgres = false,
                other => return Err(format!("what is {other}?").into()),
            }
        }
        Ok(options)
    }

    /// Is a measurement of this name wanted?
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|word| name.contains(word))
    }
}

fn main() -> Result<()> {
    let options = Options::read()?;
    let extensions = extensions();
    let database = database(extensions.as_deref())?;
    let tables = if extensions.is_some() {
        TABLES
    } else {
        &TABLES[1..]
    };
    let duckgres = servers::duckgres(&database)?;
    let postgres = if options.postgres {
        servers::postgres(&duckgres).and_then(|server| fill(&duckgres, &server, tables).map(|()| server))
    } else {
        Err("not wanted".into())
    };
    let postgres = postgres
        .inspect_err(|error| println!("Without PostgreSQL: {error}."))
        .ok();
    println!(
        "{} on {} processors{}; loopback TCP, one connection; medians of {}.\n",
        duckgres::engine::library_version(),
        std::thread::available_parallelism()?,
        if postgres.is_some() {
            ", beside PostgreSQL 15 with the same data in shared buffers"
        } else {
            ""
        },
        options.repetitions,
    );
    let engine = Engine::open(&database, None)?;
    for table in tables {
        result::measure(table, &duckgres, postgres.as_ref(), &engine, &options)?;
    }
    latency::measure(&duckgres, postgres.as_ref(), &engine, &options)
}

/// Where the tpch extension is; fetched if it can be.
fn extensions() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/extensions.sh");
    let output = Command::new(script).arg("tpch").output().ok()?;
    let directory = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    if output.status.success() {
        return Some(directory);
    }
    println!(
        "Without lineitem: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    None
}

/// The database file, made once and kept in the target directory.
fn database(extensions: Option<&Path>) -> Result<PathBuf> {
    let name = if extensions.is_some() {
        "tpch-sf1.duckdb"
    } else {
        "bigints.duckdb"
    };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        return Ok(path);
    }
    println!("Making {}", path.display());
    let unfinished = path.with_extension("unfinished");
    let _ = std::fs::remove_file(&unfinished);
    let engine = Engine::open(&unfinished, extensions)?;
    engine.run("create table bigints as select i * 1234567 as value from range(10000000) t(i)")?;
    if extensions.is_some() {
        engine.drain("call dbgen(sf = 1)", None)?;
        for table in [
            "customer", "nation", "orders", "part", "partsupp", "region", "supplier",
        ] {
            engine.run(&format!("drop table {table}"))?;
        }
    }
    engine.run("checkpoint")?;
    drop(engine);
    std::fs::rename(unfinished, &path)?;
    Ok(path)
}

/// A table that both servers have.
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// Its columns, as PostgreSQL is told them.
    columns: &'static str,
    /// So many times PostgreSQL's rows per second are wanted, in text and in binary.
    pub goals: [f64; 2],
}

const TABLES: &[Table] = &[
    Table {
        name: "lineitem",
        columns: "l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber bigint, \
             l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), \
             l_tax numeric(15,2), l_returnflag text, l_linestatus text, l_shipdate date, l_commitdate date, \
             l_receiptdate date, l_shipinstruct text, l_shipmode text, l_comment text",
        goals: [5.0, 6.0],
    },
    Table {
        name: "bigints",
        columns: "value bigint",
        goals: [5.0, 5.0],
    },
];

/// Copies the data from one server to the other, as a client does it.
fn fill(from: &Server, to: &Server, tables: &[Table]) -> Result<()> {
    let mut reader = Client::connect(&from.address, false)?;
    let mut writer = Client::connect(&to.address, false)?;
    for Table { name, columns, .. } in tables {
        println!("Copying {name} to PostgreSQL");
        writer.run(&format!("create table {name} ({columns})"))?;
        reader.send(&client::query(&format!("copy {name} to stdout")))?;
        writer.send(&client::query(&format!("copy {name} from stdin")))?;
        reader.pump(&mut writer)?;
        writer.run(&format!("vacuum (analyze) {name}"))?;
    }
    Ok(())
}
