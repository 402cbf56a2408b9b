//! COPY data, whole and cut anywhere.
#![no_main]

use duckgres::encode::EncodeError;
use duckgres::encode::copy::{CopyFormat, CopyHeader, CopyOptions, CopyParser, CopyRows};
use duckgres_fuzz::{Script, pieces};
use libfuzzer_sys::fuzz_target;

const COLUMNS: usize = 2;

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let (flags, seed) = (script.byte(), script.byte());
    let mut options = CopyOptions::new(if flags & 1 == 0 {
        CopyFormat::Text
    } else {
        CopyFormat::Csv
    });
    if flags & 2 != 0 {
        options.header = CopyHeader::On;
    }
    if flags & 4 != 0 {
        (options.delimiter, options.quote, options.escape) = (script.byte(), script.byte(), script.byte());
    }
    if flags & 8 != 0 {
        options.null = "NULL".to_owned();
    }
    if flags & 16 != 0 {
        options.row_limit = 64;
    }
    let whole = rows(&options, std::iter::once(script.0));
    let cut = rows(&options, pieces(script.0, seed));
    assert_eq!(whole, cut, "how the bytes were cut must not matter");
});

type Fields = Vec<Option<Vec<u8>>>;

fn rows<'a>(options: &CopyOptions, pieces: impl Iterator<Item = &'a [u8]>) -> (Fields, Result<(), String>) {
    let columns = (0..COLUMNS).map(|index| format!("c{index}")).collect();
    let mut parser = match CopyParser::new(options.clone(), columns) {
        Ok(parser) => parser,
        Err(error) => return (Vec::new(), Err(error.to_string())),
    };
    let mut rows = CopyRows::default();
    let mut result = Ok(());
    for piece in pieces {
        result = parser.feed(piece, &mut rows);
        if result.is_err() {
            break;
        }
    }
    let result = result.and_then(|()| parser.finish(&mut rows));
    let fields = (0..rows.len())
        .flat_map(|row| (0..COLUMNS).map(move |column| (row, column)))
        .map(|(row, column)| rows.field(row, column).map(<[u8]>::to_vec))
        .collect();
    // How far into a quoted field the limit is noticed, and therefore on which of
    // its lines, does depend on the cuts.
    let without_line = |error: EncodeError| match error {
        EncodeError::Copy { message, .. } => message,
        other => other.to_string(),
    };
    (fields, result.map_err(without_line))
}
