use std::error::Error;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Instant;
use duckdb::ffi;
use duckgres::encode::{Format, RowEncoder, Settings};
use duckgres::engine::{Chunk, LogicalType};
type R<T> = Result<T, Box<dyn Error>>;
fn cpu(clock: libc::clockid_t) -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(clock, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}
fn exec(c: ffi::duckdb_connection, sql: &str) -> R<()> {
    let t = CString::new(sql)?;
    unsafe {
        let mut r = MaybeUninit::<ffi::duckdb_result>::zeroed();
        if ffi::duckdb_query(c, t.as_ptr(), r.as_mut_ptr()) != ffi::duckdb_state_DuckDBSuccess {
            return Err(CStr::from_ptr(ffi::duckdb_result_error(r.as_mut_ptr())).to_string_lossy().into());
        }
        ffi::duckdb_destroy_result(r.as_mut_ptr());
    }
    Ok(())
}
fn drain(c: ffi::duckdb_connection, sql: &str, format: Option<Format>, materialise: bool) -> R<u64> {
    let text = CString::new(sql)?;
    unsafe {
        let mut s = ptr::null_mut();
        assert_eq!(ffi::duckdb_prepare(c, text.as_ptr(), &mut s), ffi::duckdb_state_DuckDBSuccess);
        let mut result = MaybeUninit::<ffi::duckdb_result>::zeroed();
        let st = if materialise { ffi::duckdb_execute_prepared(s, result.as_mut_ptr()) } else { ffi::duckdb_execute_prepared_streaming(s, result.as_mut_ptr()) };
        assert_eq!(st, ffi::duckdb_state_DuckDBSuccess);
        let mut result = result.assume_init();
        let types: Vec<LogicalType> = (0..ffi::duckdb_column_count(&mut result)).map(|i| {
            let mut raw = ffi::duckdb_column_logical_type(&mut result, i);
            let l = LogicalType::from_raw(raw);
            ffi::duckdb_destroy_logical_type(&mut raw);
            l
        }).collect();
        let mut e = RowEncoder::new(&types, format.as_slice(), &Settings::default())?;
        let mut out = Vec::new();
        let mut bytes = 0;
        loop {
            let raw = ffi::duckdb_fetch_chunk(result);
            if raw.is_null() { break; }
            let chunk = Chunk::from_raw(raw);
            if format.is_some() { e.encode(&chunk, 0..chunk.len(), &mut out)?; }
            if out.len() > 128 * 1024 { bytes += out.len() as u64; out.clear(); }
        }
        ffi::duckdb_destroy_result(&mut result);
        ffi::duckdb_destroy_prepare(&mut s);
        Ok(bytes)
    }
}
fn main() -> R<()> {
    let mut db = ptr::null_mut();
    let mut c = ptr::null_mut();
    let path = CString::new(format!("{}/tpch-sf1.duckdb", env!("CARGO_TARGET_TMPDIR")))?;
    unsafe {
        assert_eq!(ffi::duckdb_open(path.as_ptr(), &mut db), ffi::duckdb_state_DuckDBSuccess);
        ffi::duckdb_connect(db, &mut c);
    }
    for table in ["lineitem", "bigints"] {
        for set in ["set streaming_buffer_size='1MB'; set preserve_insertion_order=true; set threads=2", "set threads=1", "set threads=2; set streaming_buffer_size='8MB'", "set streaming_buffer_size='32MB'", "set preserve_insertion_order=false; set streaming_buffer_size='1MB'", "set streaming_buffer_size='8MB'"] {
            for part in set.split(';') { exec(c, part)?; }
            println!("{table}: {set}");
            for format in [None, Some(Format::Text), Some(Format::Binary)] {
                let (mut w, mut t, mut p) = (f64::MAX, f64::MAX, f64::MAX);
                for _ in 0..4 {
                    let (a, b, start) = (cpu(libc::CLOCK_THREAD_CPUTIME_ID), cpu(libc::CLOCK_PROCESS_CPUTIME_ID), Instant::now());
                    drain(c, &format!("select * from {table}"), format, false)?;
                    w = w.min(start.elapsed().as_secs_f64());
                    t = t.min(cpu(libc::CLOCK_THREAD_CPUTIME_ID) - a);
                    p = p.min(cpu(libc::CLOCK_PROCESS_CPUTIME_ID) - b);
                }
                println!("   {format:?}: best wall {w:.3}, this thread cpu {t:.3}, process cpu {p:.3}");
            }
        }
    }
    for set in ["set preserve_insertion_order=true", "set threads=1", "set threads=2"] {
        exec(c, set)?;
        let text = CString::new("select 1")?;
        unsafe {
            let mut s = ptr::null_mut();
            ffi::duckdb_prepare(c, text.as_ptr(), &mut s);
            for materialise in [false, true] {
                let mut times = Vec::new();
                for _ in 0..20000 {
                    let start = Instant::now();
                    let mut result = MaybeUninit::<ffi::duckdb_result>::zeroed();
                    if materialise { ffi::duckdb_execute_prepared(s, result.as_mut_ptr()) } else { ffi::duckdb_execute_prepared_streaming(s, result.as_mut_ptr()) };
                    let mut result = result.assume_init();
                    loop { let mut raw = ffi::duckdb_fetch_chunk(result); if raw.is_null() { break; } ffi::duckdb_destroy_data_chunk(&mut raw); }
                    ffi::duckdb_destroy_result(&mut result);
                    times.push(start.elapsed());
                }
                times.sort();
                println!("{set}: select 1 materialise={materialise} p50 {:?} p99 {:?}", times[10000], times[19800]);
            }
        }
    }
    Ok(())
}
