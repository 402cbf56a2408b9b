//! Everything that looks at SQL before DuckDB does.
#![no_main]

use duckgres::sql::{self, lexer, policy};
use duckgres_fuzz::frugally;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    frugally(text.as_bytes(), |_| {
        let mut end = 0;
        for token in lexer::tokens(text) {
            assert!(
                token.start >= end && token.end > token.start,
                "tokens overlap or are empty"
            );
            end = token.end;
            let _ = (token.text(text), token.parameter(text));
        }
        let mut end = 0;
        for range in sql::split(text) {
            assert!(
                range.start >= end && range.end > range.start,
                "statements overlap or are empty"
            );
            end = range.end;
            let statement = &text[range];
            let _ = sql::classify(statement);
            let _ = sql::command_tag(statement).text(1);
            let _ = sql::copy::parse(statement);
            let _ = policy::check(statement, &["/data".into()]);
            let _ = sql::rewrite(statement);
        }
    });
});
