//! A stream of frontend messages.
#![no_main]

use duckgres::session::message::{self, LARGE_MESSAGE};
use duckgres_fuzz::frugally;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Some((&[kind, a, b, c, d], behind)) = rest.split_first_chunk::<5>() {
        let declared = i32::from_be_bytes([a, b, c, d]);
        let length = message::check_header(kind, declared);
        if let Ok(length) = length {
            assert!(length + 4 <= LARGE_MESSAGE && length as i64 + 4 == i64::from(declared));
        }
        // A length that lies ends the session; here it is taken as what is left,
        // so that the fuzzer need not guess it right to get at the parser.
        let length = length.unwrap_or(usize::MAX).min(behind.len());
        let (body, next) = behind.split_at(length);
        let _ = frugally(body, |body| message::parse(kind, body));
        rest = next;
    }
});
