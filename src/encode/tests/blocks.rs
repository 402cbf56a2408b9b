//! Blocks of rows are what single rows are.

use std::ops::Range;

use super::*;

/// A column of each type, by row number `i`; values of many lengths, those
/// that are too long for a cell in one column of a type at least.
const COLUMNS: &[&str] = &[
    "i % 2 = 0",
    "(i - 100)::tinyint",
    "(i * 150 - 30000)::smallint",
    "(i * 9999991 - 1000000000)::integer",
    "case i % 4 when 0 then i when 1 then -i * 12345 when 2 then 9223372036854775807 - i \
     else -9223372036854775807 - 1 end",
    "i::utinyint",
    "(i * 200)::usmallint",
    "(i * 10000019)::uinteger",
    "18446744073709551615::ubigint - i::ubigint",
    "(i - 100)::hugeint * 170141183460469231731687303715884",
    "i::uhugeint * 170141183460469231731687303715884",
    "((i - 100)::hugeint * 1000003)::bignum",
    "(i / 7)::float",
    "case when i % 3 = 0 then i / 100 when i % 3 = 1 then -1.7976931348623157e308 / (i + 1) \
     else 'nan'::double end",
    "((i - 100) / 10)::decimal(4,1)",
    "((i - 100) * 123.45)::decimal(9,2)",
    "(case i % 5 when 0 then 0 when 1 then i / 100 when 2 then -100000.00 + i / 100 \
     when 3 then 9999999999999.99 - i else 99999.99 + i / 100 end)::decimal(15,2)",
    "case i % 3 when 0 then -0.999999999999999999::decimal(18,18) else (i / 1000)::decimal(18,18) end",
    "(i * 1000)::decimal(15,0)",
    "((i - 100) * 12345678901234567890::hugeint)::decimal(38,10)",
    "repeat('é', (i % 7)::integer)",
    "substr('a string that is as long as the longest of all', 1, (i % 49)::integer)",
    "repeat('x', (i % 80)::integer)",
    "case when i % 64 = 63 then repeat('y', 100000) else i::varchar end",
    "to_json({'i': i})",
    "repeat('z', (i % 20)::integer)::blob",
    "repeat('10', (1 + i % 20)::integer)::bit",
    "uuid '00000000-0000-0000-0000-000000000001'",
    "(['red', 'green', 'blue'][1 + i % 3])::enum('red', 'green', 'blue')",
    "date '1999-12-30' + i::integer",
    "case i % 6 when 0 then date 'infinity' when 1 then date '-infinity' when 2 then date '0044-03-15 (BC)' \
     when 3 then date '200000-12-31' else date '1990-02-27' + i::integer end",
    "time '00:00:00' + to_microseconds(i * 123456789)",
    "timetz '12:30:00+05:30' + to_seconds(i)",
    "timestamp '1999-12-31 23:59:00' + to_microseconds(i * 500000)",
    "case i % 3 when 0 then timestamp 'infinity' when 1 then timestamp '0044-03-15 (BC) 01:02:03.4567' \
     else timestamp '200000-01-01' end",
    "(timestamp '2020-01-01' + to_seconds(i))::timestamp_s",
    "(timestamp '2020-01-01' + to_milliseconds(i))::timestamp_ms",
    "timestamp_ns '2020-01-01 00:00:00.123456789'",
    "timestamptz '2020-03-29 00:00:00+00' + to_seconds(i * 60)",
    "interval (i - 100) month",
    "[i, null, i * 2]",
    "array_value(i, 7)",
    "{'a': i, 'b': 'x'}",
    "map {'k': i}",
    "null",
];

const SIZES: [usize; 11] = [0, 1, 2, 7, 8, 9, 63, 64, 65, 128, 129];

/// Rows one by one, which have no cells.
fn one_by_one(encoder: &mut RowEncoder, chunk: &Chunk, rows: Range<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        encoder.encode(chunk, row..row + 1, &mut out).unwrap();
    }
    out
}

/// Compares blocks with single rows at all edges, in all formats.
fn compare(database: &Database, sql: &str) {
    let (types, chunks) = database.query(sql);
    let mut mixed = vec![Format::Text; types.len()];
    mixed
        .iter_mut()
        .step_by(2)
        .for_each(|format| *format = Format::Binary);
    for formats in [&[Format::Text][..], &[Format::Binary], &mixed] {
        for extra_float_digits in [1, 0] {
            let settings = Settings {
                extra_float_digits,
                ..settings("Europe/Berlin")
            };
            let mut encoder = RowEncoder::new(&types, formats, &settings).unwrap();
            for size in SIZES {
                for start in [0, 1, 63] {
                    let rows = start..start + size;
                    let expected = one_by_one(&mut encoder, &chunks[0], rows.clone());
                    let mut out = b"before".to_vec();
                    encoder.encode(&chunks[0], rows.clone(), &mut out).unwrap();
                    assert!(out[6..] == expected, "{sql}: {rows:?} {formats:?}");
                    assert_eq!(read_rows(&expected).len(), size);
                }
            }
        }
    }
}

#[test]
fn a_block_of_each_type_is_what_its_single_rows_are() {
    let database = Database::open();
    for column in COLUMNS {
        compare(&database, &format!("select {column} from range(200) t(i)"));
        // Nulls at the edges of blocks, in between, and everywhere.
        // DuckDB has no CASE for arrays.
        if column.starts_with("array_value") {
            continue;
        }
        for nulls in ["i in (0, 7, 8, 63, 64, 65, 127, 128)", "i % 3 = 0", "true"] {
            compare(
                &database,
                &format!("select case when {nulls} then null else {column} end from range(200) t(i)"),
            );
        }
    }
}

#[test]
fn a_block_of_all_types_is_what_its_single_rows_are() {
    let database = Database::open();
    compare(
        &database,
        &format!("select {} from range(200) t(i)", COLUMNS.join(", ")),
    );
    // So many columns that blocks are shorter.
    let many = [COLUMNS.join(", "), COLUMNS.join(", "), COLUMNS.join(", ")].join(", ");
    compare(&database, &format!("select {many} from range(200) t(i)"));
}

#[test]
fn a_value_that_cannot_be_sent_ends_the_output_before_its_row() {
    let database = Database::open();
    let (types, chunks) = database.query(
        "select i, case when i = 70 then date '5877642-06-25 (BC)' else date '2000-01-01' end, \
         case when i = 71 then timestamp '290309-12-22 (BC) 00:00:00' else timestamp '2000-01-01' end \
         from range(200) t(i)",
    );
    let mut encoder = RowEncoder::new(&types, &[Format::Binary], &Settings::default()).unwrap();
    for (rows, whole, name) in [
        (0..200, 70, "date"),
        (64..128, 6, "date"),
        (71..200, 0, "timestamp"),
    ] {
        let mut out = Vec::new();
        let error = encoder.encode(&chunks[0], rows.clone(), &mut out).unwrap_err();
        assert!(
            matches!(error, EncodeError::DatetimeOutOfRange(of) if of == name),
            "{error}"
        );
        assert_eq!(read_rows(&out).len(), whole);
        assert!(out == one_by_one(&mut encoder, &chunks[0], rows.start..rows.start + whole));
    }
    // A row that was given up leaves nothing behind.
    let mut out = Vec::new();
    encoder.encode(&chunks[0], 72..200, &mut out).unwrap();
    assert!(out == one_by_one(&mut encoder, &chunks[0], 72..200));
}

#[test]
fn the_days_of_all_years_have_four_digits_and_their_months() {
    let database = Database::open();
    let (types, chunks) = database.query(
        "select d, strftime(d, '%Y-%m-%d') from (select date '0001-01-01' + (i * 17)::integer as d \
         from range(214000) t(i)) where d <= date '9999-12-31'",
    );
    let mut count = 0;
    for row in encode(&types, &chunks, Format::Text, &Settings::default()).unwrap() {
        // DuckDB does not fill years up.
        let expected = format!("{:0>10}", String::from_utf8(row[1].clone().unwrap()).unwrap());
        assert_eq!(String::from_utf8(row[0].clone().unwrap()).unwrap(), expected);
        count += 1;
    }
    assert!(count > 200_000);
}
