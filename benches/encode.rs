//! How fast chunks become messages: `cargo bench --bench encode`.
//!
//! One thread reads a table of six columns as a stream, and once more a table
//! of one, and encodes what it reads as text and as binary rows and as COPY
//! data. "fetch only" is DuckDB alone, the limit of the rest. Time is the
//! processor's, so that a busy machine changes the numbers little.
//!
//! A wide table, shaped as TPC-H's `lineitem`, is encoded from chunks that stay
//! in memory: what is measured there is the encoder and nothing else.

use std::error::Error;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

use duckdb::ffi;
use duckgres::encode::copy::{CopyEncoder, CopyFormat, CopyOptions};
use duckgres::encode::{Format, RowEncoder, Settings};
use duckgres::engine::{Chunk, LogicalType};

const ROWS: usize = 4_000_000;
const ROUNDS: usize = 8;

/// About what a server gathers before it writes to a socket.
const BATCH: usize = 256 * 1024;

const SIX: &str = "create table six as select \
     (i * 7919) % 1000000007 as a, \
     round(random() * 1000000, 2)::double as b, \
     'customer#' || lpad((i % 100000)::varchar, 2 + (i % 8)::integer, '0') as c, \
     date '1992-01-01' + (i % 2500)::integer as d, \
     timestamp '1992-01-01' + to_microseconds((i * 77777777777) % 200000000000000) as e, \
     (((i * 104729) % 100000000) / 100)::decimal(18,2) as f \
     from range(4000000) t(i)";

/// 16 columns as in TPC-H: lengths, ranges and numbers of distinct values too.
const LINEITEM: &str = "create table lineitem as select \
     i // 4 + 1 as l_orderkey, \
     (i * 7919) % 200000 + 1 as l_partkey, \
     (i * 104729) % 10000 + 1 as l_suppkey, \
     i % 4 + 1 as l_linenumber, \
     (1 + hash(i) % 50)::decimal(15,2) as l_quantity, \
     ((90000 + hash(i + 1) % 10400000) / 100)::decimal(15,2) as l_extendedprice, \
     ((hash(i + 2) % 11) / 100)::decimal(15,2) as l_discount, \
     ((hash(i + 3) % 9) / 100)::decimal(15,2) as l_tax, \
     ['A', 'N', 'R'][1 + (hash(i + 4) % 3)::integer] as l_returnflag, \
     ['F', 'O'][1 + (hash(i + 5) % 2)::integer] as l_linestatus, \
     date '1992-01-01' + (hash(i + 6) % 2500)::integer as l_shipdate, \
     date '1992-01-01' + (hash(i + 7) % 2500)::integer as l_commitdate, \
     date '1992-01-01' + (hash(i + 8) % 2500)::integer as l_receiptdate, \
     ['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'][1 + (hash(i + 9) % 4)::integer] \
         as l_shipinstruct, \
     ['REG AIR', 'AIR', 'RAIL', 'SHIP', 'TRUCK', 'MAIL', 'FOB'][1 + (hash(i + 10) % 7)::integer] \
         as l_shipmode, \
     substr('carefully ironic deposits sleep furiously across the quickly regular pearls', \
         1 + (hash(i + 11) % 30)::integer, 10 + (hash(i + 12) % 34)::integer) as l_comment \
     from range(500000) t(i)";

/// How many chunks are encoded over and over: enough that no branch can be
/// learned by heart, few enough to stay near the processor.
const KEPT: usize = 8;

const TABLES: &[(&str, &str)] = &[
    ("six", SIX),
    (
        "random_doubles",
        "create table random_doubles as select random() as a from range(4000000)",
    ),
    (
        "bigints",
        "create table bigints as select i * 1234567 as a from range(4000000) t(i)",
    ),
    (
        "with_nulls",
        "create table with_nulls as select case when i % 3 > 0 then i end as a, case when i % 5 > 0 then \
         i::varchar end as b, case when i % 7 > 0 then timestamptz '2020-01-01' + to_seconds(i * 11) end as c \
         from range(4000000) t(i)",
    ),
];

const COLUMNS: &[(&str, &str)] = &[
    ("a", "- bigint"),
    ("b", "- double"),
    ("c", "- varchar"),
    ("d", "- date"),
    ("e", "- timestamp"),
    ("f", "- decimal"),
];

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench --bench encode -- six` measures one table.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let mut database = ptr::null_mut();
    let mut connection = ptr::null_mut();
    // SAFETY: out pointers to locals; a null path is an instance in memory.
    unsafe {
        ffi::duckdb_open(ptr::null(), &mut database);
        ffi::duckdb_connect(database, &mut connection);
    }
    run(connection, "set threads = 1", |_, _| Ok(()))?;
    let settings = Settings {
        time_zone: jiff::tz::TimeZone::get("Europe/Berlin")?,
        ..Settings::default()
    };
    if wanted.as_deref().is_none_or(|wanted| wanted == "lineitem") {
        wide(connection, &settings)?;
    }
    for (table, create) in TABLES
        .iter()
        .filter(|(table, _)| wanted.as_deref().is_none_or(|wanted| wanted == *table))
    {
        run(connection, create, |_, _| Ok(()))?;
        let query = format!("select * from {table}");
        measure(table, "fetch only", connection, &query, |_, _, _| Ok(()))?;
        for (name, format) in [("text", Format::Text), ("binary", Format::Binary)] {
            rows(table, name, connection, &query, format, &settings)?;
        }
        let mut encoder = None;
        measure(table, "copy text", connection, &query, |types, chunk, out| {
            if encoder.is_none() {
                encoder = Some(CopyEncoder::new(
                    types,
                    CopyOptions::new(CopyFormat::Text),
                    &settings,
                )?);
            }
            let Some(encoder) = &mut encoder else {
                return Ok(());
            };
            Ok(encoder.encode(chunk, 0..chunk.len(), out)?)
        })?;
        if *table == "six" {
            for (column, kind) in COLUMNS {
                let query = format!("select {column} from six");
                measure(kind, "fetch only", connection, &query, |_, _, _| Ok(()))?;
                for (name, format) in [("text", Format::Text), ("binary", Format::Binary)] {
                    rows(kind, name, connection, &query, format, &settings)?;
                }
            }
        }
        run(connection, &format!("drop table {table}"), |_, _| Ok(()))?;
    }
    // SAFETY: both are live and closed once.
    unsafe {
        ffi::duckdb_disconnect(&mut connection);
        ffi::duckdb_close(&mut database);
    }
    Ok(())
}

fn rows(
    table: &str,
    name: &str,
    connection: ffi::duckdb_connection,
    query: &str,
    format: Format,
    settings: &Settings,
) -> Outcome {
    let mut encoder = None;
    measure(table, name, connection, query, |types, chunk, out| {
        if encoder.is_none() {
            encoder = Some(RowEncoder::new(types, &[format], settings)?);
        }
        let Some(encoder) = &mut encoder else {
            return Ok(());
        };
        Ok(encoder.encode(chunk, 0..chunk.len(), out)?)
    })
}

/// The encoder alone over chunks of the wide table: all columns, and those of
/// each kind.
fn wide(connection: ffi::duckdb_connection, settings: &Settings) -> Outcome {
    run(connection, LINEITEM, |_, _| Ok(()))?;
    for (kind, columns) in [
        ("lineitem", "*"),
        ("- bigint 4", "l_orderkey, l_partkey, l_suppkey, l_linenumber"),
        ("- decimal 4", "l_quantity, l_extendedprice, l_discount, l_tax"),
        ("- date 3", "l_shipdate, l_commitdate, l_receiptdate"),
        (
            "- varchar 4",
            "l_returnflag, l_linestatus, l_shipinstruct, l_shipmode",
        ),
        ("- varchar 1", "l_comment"),
    ] {
        let mut kept = Vec::new();
        let mut types = Vec::new();
        run(
            connection,
            &format!("select {columns} from lineitem"),
            |of, chunk| {
                types = of.to_vec();
                if kept.len() < KEPT {
                    kept.push(chunk);
                }
                Ok(())
            },
        )?;
        let rows: usize = kept.iter().map(Chunk::len).sum();
        for (name, format) in [("text", Format::Text), ("binary", Format::Binary)] {
            let mut encoder = RowEncoder::new(&types, &[format], settings)?;
            let mut out = Vec::with_capacity(2 * BATCH);
            let mut bytes = 0;
            let mut best = f64::MAX;
            for _ in 0..ROUNDS * 20 {
                bytes = 0;
                let start = processor_time();
                for chunk in &kept {
                    encoder.encode(chunk, 0..chunk.len(), &mut out)?;
                    if out.len() >= BATCH {
                        bytes += out.len();
                        out.clear();
                    }
                }
                bytes += out.len();
                out.clear();
                best = best.min((processor_time() - start).as_secs_f64());
            }
            println!(
                "{kind:16} {name:12} {:7.2} Mrows/s {:8.0} MB/s {:7.2} ns/value",
                rows as f64 / best / 1e6,
                bytes as f64 / best / 1e6,
                best * 1e9 / (rows * types.len()) as f64,
            );
        }
    }
    run(connection, "drop table lineitem", |_, _| Ok(()))
}

type Outcome = Result<(), Box<dyn Error>>;

fn measure(
    table: &str,
    name: &str,
    connection: ffi::duckdb_connection,
    query: &str,
    mut encode: impl FnMut(&[LogicalType], &Chunk, &mut Vec<u8>) -> Outcome,
) -> Outcome {
    let mut best = f64::MAX;
    let mut bytes = 0;
    let mut out = Vec::with_capacity(2 * BATCH);
    for _ in 0..ROUNDS {
        bytes = 0;
        let start = processor_time();
        run(connection, query, |types, chunk| {
            encode(types, &chunk, &mut out)?;
            if out.len() >= BATCH {
                bytes += out.len();
                out.clear();
            }
            Ok(())
        })?;
        bytes += out.len();
        out.clear();
        best = best.min((processor_time() - start).as_secs_f64());
    }
    println!(
        "{table:16} {name:12} {:7.2} Mrows/s {:8.0} MB/s {:7.1} ns/row",
        ROWS as f64 / best / 1e6,
        bytes as f64 / best / 1e6,
        best * 1e9 / ROWS as f64,
    );
    Ok(())
}

/// What this process has used of the processor.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: an out pointer to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn run(
    connection: ffi::duckdb_connection,
    sql: &str,
    mut each: impl FnMut(&[LogicalType], Chunk) -> Outcome,
) -> Outcome {
    let text = CString::new(sql)?;
    // SAFETY: the connection is live; statement and result are destroyed once,
    // after the chunks.
    unsafe {
        let mut statement = ptr::null_mut();
        if ffi::duckdb_prepare(connection, text.as_ptr(), &mut statement) != ffi::duckdb_state_DuckDBSuccess {
            return Err(CStr::from_ptr(ffi::duckdb_prepare_error(statement))
                .to_string_lossy()
                .into());
        }
        let mut result = MaybeUninit::<ffi::duckdb_result>::zeroed();
        let state = ffi::duckdb_execute_prepared_streaming(statement, result.as_mut_ptr());
        let mut result = result.assume_init();
        if state != ffi::duckdb_state_DuckDBSuccess {
            return Err(CStr::from_ptr(ffi::duckdb_result_error(&mut result))
                .to_string_lossy()
                .into());
        }
        let types: Vec<LogicalType> = (0..ffi::duckdb_column_count(&mut result))
            .map(|index| {
                let mut raw = ffi::duckdb_column_logical_type(&mut result, index);
                let logical = LogicalType::from_raw(raw);
                ffi::duckdb_destroy_logical_type(&mut raw);
                logical
            })
            .collect();
        loop {
            let raw = ffi::duckdb_fetch_chunk(result);
            if raw.is_null() {
                break;
            }
            each(&types, Chunk::from_raw(raw))?;
        }
        ffi::duckdb_destroy_result(&mut result);
        ffi::duckdb_destroy_prepare(&mut statement);
    }
    Ok(())
}
