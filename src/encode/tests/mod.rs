//! Whole paths: DuckDB's values to wire forms, and wire forms back.

mod blocks;
mod forms;
mod hostile;
mod inputs;
mod round_trip;

use jiff::tz::TimeZone;

use super::*;
use crate::engine::testing::Database;
use crate::engine::{Chunk, LogicalType, Value};
use forms::FORMS;
use inputs::INPUTS;

type Row = Vec<Option<Vec<u8>>>;

fn settings(zone: &str) -> Settings {
    Settings {
        time_zone: TimeZone::get(zone).unwrap(),
        ..Settings::default()
    }
}

fn encode(
    types: &[LogicalType],
    chunks: &[Chunk],
    format: Format,
    settings: &Settings,
) -> Result<Vec<Row>, EncodeError> {
    let mut encoder = RowEncoder::new(types, &[format], settings)?;
    let mut out = Vec::new();
    for chunk in chunks {
        encoder.encode(chunk, 0..chunk.len(), &mut out)?;
    }
    Ok(read_rows(&out))
}

fn rows(database: &Database, sql: &str, format: Format) -> Vec<Row> {
    let (types, chunks) = database.query(sql);
    encode(&types, &chunks, format, &Settings::default()).unwrap()
}

fn texts(database: &Database, sql: &str) -> Vec<Vec<Option<String>>> {
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let texts = |row: Row| row.into_iter().map(|field| field.map(utf8)).collect();
    rows(database, sql, Format::Text).into_iter().map(texts).collect()
}

/// The text of the only value of a query.
fn text(database: &Database, sql: &str) -> String {
    texts(database, sql).remove(0).remove(0).unwrap()
}

/// Takes framed `DataRow` messages apart and checks every length in them.
fn read_rows(mut bytes: &[u8]) -> Vec<Row> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(count);
        *bytes = tail;
        head
    }
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(take(&mut bytes, 1), b"D");
        let length = u32::from_be_bytes(take(&mut bytes, 4).try_into().unwrap()) as usize;
        let mut row = take(&mut bytes, length - 4);
        let count = u16::from_be_bytes(take(&mut row, 2).try_into().unwrap());
        let fields = (0..count)
            .map(
                |_| match i32::from_be_bytes(take(&mut row, 4).try_into().unwrap()) {
                    -1 => None,
                    length => Some(take(&mut row, length as usize).to_vec()),
                },
            )
            .collect();
        assert!(row.is_empty());
        rows.push(fields);
    }
    rows
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// Fails with all that differs and not with the first.
fn assert_none(differences: Vec<String>) {
    assert!(
        differences.is_empty(),
        "{} differ:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn every_form_is_postgresqls_to_the_byte() {
    let database = Database::open();
    let mut differences = Vec::new();
    for (zone, sql, oid, expected_text, expected_binary) in FORMS {
        let (types, chunks) = database.query(&format!("select {sql}"));
        let settings = settings(zone);
        // PostgreSQL has text where we have varchar.
        let described = pg_type(&types[0]);
        if described.oid != *oid {
            differences.push(format!("{sql}: oid {} instead of {oid}", described.oid));
        }
        let one = |format| {
            encode(&types, &chunks, format, &settings)
                .unwrap()
                .remove(0)
                .remove(0)
                .unwrap()
        };
        let text = String::from_utf8(one(Format::Text)).unwrap();
        if text != *expected_text {
            differences.push(format!("{zone} {sql}: {text} instead of {expected_text}"));
        }
        let binary = one(Format::Binary);
        if hex(&binary) != *expected_binary {
            differences.push(format!(
                "{zone} {sql}: {} instead of {expected_binary}",
                hex(&binary)
            ));
        }
        let fixed = usize::try_from(described.size);
        assert!(
            fixed.is_err() || fixed == Ok(binary.len()),
            "{sql}: size {}",
            described.size
        );
    }
    assert_none(differences);
}

#[test]
fn what_postgresql_sends_comes_back_as_the_same_value() {
    let database = Database::open();
    let mut differences = Vec::new();
    for (zone, sql, oid, text, binary) in FORMS {
        // DECIMAL has 38 digits.
        if sql.contains("bignum")
            || text.bytes().filter(u8::is_ascii_digit).count() > 38 && *oid == oid::NUMERIC
        {
            continue;
        }
        let settings = settings(zone);
        let types = database.query(&format!("select {sql}")).0;
        let binary = unhex(binary);
        for (format, bytes) in [(Format::Text, text.as_bytes()), (Format::Binary, &binary)] {
            for (declared, target) in [(*oid, &LogicalType::Unknown), (*oid, &types[0]), (0, &types[0])] {
                let value = match decode_parameter(declared, format, Some(bytes), target, &settings) {
                    Ok(value) => value,
                    Err(error) => {
                        differences.push(format!("{sql} {format:?} {declared}: {error}"));
                        continue;
                    }
                };
                let query = match target {
                    LogicalType::Unknown => "select $1".to_owned(),
                    target => format!("select $1::{target}"),
                };
                let (types, chunks) = database.query_with(&query, &[value]);
                let back = encode(&types, &chunks, Format::Text, &settings)
                    .unwrap()
                    .remove(0)
                    .remove(0)
                    .unwrap();
                let back = String::from_utf8(back).unwrap();
                if back != *text {
                    differences.push(format!(
                        "{sql} {format:?} {declared} {target}: {back} instead of {text}"
                    ));
                }
            }
        }
    }
    assert_none(differences);
}

#[test]
fn structs_maps_and_unions_are_json() {
    let database = Database::open();
    for (sql, expected) in [
        (
            r#"{'a': 1, 'b"c': 'x"y\z', 'd': null}"#,
            r#"{"a":1,"b\"c":"x\"y\\z","d":null}"#,
        ),
        (
            "{'t': timestamp '2024-01-02 03:04:05', 'd': date '2024-01-02', 'n': 1.50::decimal(5,2)}",
            r#"{"t":"2024-01-02T03:04:05","d":"2024-01-02","n":1.50}"#,
        ),
        (
            "{'z': '2024-07-01 12:00:00+00'::timestamptz}",
            r#"{"z":"2024-07-01T12:00:00+00:00"}"#,
        ),
        (
            "{'f': 'NaN'::double, 'g': 1e20::double, 'b': true}",
            r#"{"f":"NaN","g":1e+20,"b":true}"#,
        ),
        ("map {1: 'x', 2: null}", r#"{"1":"x","2":null}"#),
        ("map {'k': [1, null]}", r#"{"k":[1,null]}"#),
        ("map {}", "{}"),
        ("union_value(num := 5)", "5"),
        ("'abc'::union(num integer, str varchar)", r#""abc""#),
        (
            "{'j': '{\"x\": [1]}'::json, 'l': [{'y': 2}]}",
            r#"{"j":{"x": [1]},"l":[{"y":2}]}"#,
        ),
        (
            "{'c': chr(1) || chr(10) || 'é', 'x': '\\x01'::blob}",
            r#"{"c":"\u0001\né","x":"\\x01"}"#,
        ),
        ("[{'a': 1}, null]", r#"{"{\"a\":1}",NULL}"#),
    ] {
        assert_eq!(text(&database, &format!("select {sql}")), expected, "{sql}");
        let (types, _) = database.query(&format!("select {sql}"));
        let oid = if matches!(types[0], LogicalType::List(_)) {
            oid::JSON_ARRAY
        } else {
            oid::JSON
        };
        assert_eq!(pg_type(&types[0]).oid, oid, "{sql}");
        assert!(!rows(&database, &format!("select {sql}"), Format::Binary).is_empty());
    }
}

#[test]
fn nulls_are_nulls_in_every_type() {
    let database = Database::open();
    for (_, sql, ..) in FORMS.iter().filter(|(zone, ..)| *zone == "UTC") {
        let (types, _) = database.query(&format!("select {sql}"));
        for format in [Format::Text, Format::Binary] {
            assert_eq!(
                rows(&database, &format!("select null::{}", types[0]), format),
                [[None]],
                "{sql}"
            );
        }
    }
    assert_eq!(rows(&database, "select null", Format::Text), [[None]]);
    assert_eq!(
        rows(&database, "select null::struct(a integer)", Format::Binary),
        [[None]]
    );
}

#[test]
fn rows_on_both_sides_of_a_chunk_border_are_complete_and_in_order() {
    let database = Database::open();
    for count in [0, 1, 2047, 2048, 2049, 4097] {
        let sql = format!(
            "select i, case when i % 3 > 0 then 'row number ' || i end, [i, i + 1], {{'n': i}} \
             from range({count}) t(i) order by i"
        );
        let texts = texts(&database, &sql);
        assert_eq!(texts.len(), count);
        for (index, row) in texts.iter().enumerate() {
            assert_eq!(row[0], Some(index.to_string()));
            assert_eq!(row[1], (index % 3 > 0).then(|| format!("row number {index}")));
            assert_eq!(row[2], Some(format!("{{{index},{}}}", index + 1)));
            assert_eq!(row[3], Some(format!("{{\"n\":{index}}}")));
        }
    }
}

#[test]
fn parts_of_a_chunk_make_the_same_rows_as_the_whole() {
    let database = Database::open();
    let (types, chunks) = database.query("select i, i::varchar from range(2000) t(i)");
    let mut encoder = RowEncoder::new(&types, &[Format::Text, Format::Binary], &Settings::default()).unwrap();
    let (mut whole, mut parts) = (Vec::new(), b"before".to_vec());
    encoder.encode(&chunks[0], 0..2000, &mut whole).unwrap();
    for start in (0..2000).step_by(7) {
        encoder
            .encode(&chunks[0], start..(start + 7).min(2000), &mut parts)
            .unwrap();
    }
    assert!(parts.strip_prefix(b"before") == Some(&whole[..]));
}

#[test]
fn long_strings_pass_whole() {
    let database = Database::open();
    let sql = "select repeat('x', 1000000 * i) as a, i from range(4) t(i)";
    for (index, row) in texts(&database, sql).iter().enumerate() {
        assert_eq!(row[0].as_ref().unwrap().len(), 1_000_000 * index);
        assert_eq!(row[1], Some(index.to_string()));
    }
}

#[test]
fn ragged_lists_have_a_text_and_no_binary() {
    let database = Database::open();
    for (sql, expected) in [
        ("[[1, 2], [3]]", "{{1,2},{3}}"),
        ("[[1], null]", "{{1},NULL}"),
        ("[[[1]], [[2], [3]]]", "{{{1}},{{2},{3}}}"),
    ] {
        let (types, chunks) = database.query(&format!("select {sql}"));
        assert_eq!(text(&database, &format!("select {sql}")), expected);
        let error = encode(&types, &chunks, Format::Binary, &Settings::default()).unwrap_err();
        assert_eq!((error.sqlstate(), error), ("2202E", EncodeError::RaggedArray));
    }
}

#[test]
fn an_error_leaves_the_rows_before_it_and_the_encoder_usable() {
    let database = Database::open();
    let (types, chunks) =
        database.query("select case when i = 2 then [[1], [2, 3]] else [[i]] end from range(5) t(i)");
    let mut encoder = RowEncoder::new(&types, &[Format::Binary], &Settings::default()).unwrap();
    let mut out = Vec::new();
    assert!(encoder.encode(&chunks[0], 0..5, &mut out).is_err());
    assert_eq!(read_rows(&out).len(), 2);
    encoder.encode(&chunks[0], 3..5, &mut out).unwrap();
    assert_eq!(read_rows(&out).len(), 4);
}

#[test]
fn dates_beyond_postgresqls_are_printed_or_refused_but_not_wrong() {
    let database = Database::open();
    assert_eq!(text(&database, "select '5881580-07-10'::date"), "5881580-07-10");
    assert_eq!(
        text(&database, "select '5877642-06-25 (BC)'::date"),
        "5877642-06-25 BC"
    );
    assert_eq!(
        text(&database, "select '290309-12-22 (BC) 00:00:00'::timestamp"),
        "290309-12-22 00:00:00 BC"
    );
    let (types, chunks) = database.query("select '290309-12-22 (BC) 00:00:00'::timestamp");
    let error = encode(&types, &chunks, Format::Binary, &Settings::default()).unwrap_err();
    assert_eq!(error.sqlstate(), "22008");
}

#[test]
fn a_type_that_cannot_be_sent_is_named() {
    let database = Database::open();
    for (sql, name) in [("1::variant", "VARIANT"), ("[1::variant]", "VARIANT")] {
        let (types, _) = database.query(&format!("select {sql}"));
        let error = RowEncoder::new(&types, &[], &Settings::default()).err().unwrap();
        assert_eq!(error.sqlstate(), "0A000");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn types_that_do_not_fit_the_chunk_are_an_error() {
    let database = Database::open();
    let chunk = database.chunk("select 1::integer");
    for wrong in [
        LogicalType::BigInt,
        LogicalType::Varchar,
        LogicalType::List(Box::new(LogicalType::Integer)),
    ] {
        let mut encoder = RowEncoder::new(&[wrong], &[], &Settings::default()).unwrap();
        assert_eq!(
            encoder
                .encode(&chunk, 0..1, &mut Vec::new())
                .unwrap_err()
                .sqlstate(),
            "XX000"
        );
    }
    let formats = [Format::Text, Format::Binary];
    let error = RowEncoder::new(&[LogicalType::Integer], &formats, &Settings::default())
        .err()
        .unwrap();
    assert_eq!(error.sqlstate(), "08P01");
}

#[test]
fn extra_float_digits_of_zero_and_below_round() {
    let database = Database::open();
    let (types, chunks) = database.query("select 0.30000000000000004::double, 1e20::double, 123456789012345.6::double, '-0'::double, 0.1::float");
    for (digits, expected) in [
        (0, ["0.3", "1e+20", "123456789012346", "-0", "0.1"]),
        (-13, ["0.3", "1e+20", "1.2e+14", "-0", "0.1"]),
        (
            3,
            ["0.30000000000000004", "1e+20", "123456789012345.6", "-0", "0.1"],
        ),
    ] {
        let settings = Settings {
            extra_float_digits: digits,
            ..Settings::default()
        };
        let row = encode(&types, &chunks, Format::Text, &settings)
            .unwrap()
            .remove(0);
        let row: Vec<_> = row
            .into_iter()
            .map(|field| String::from_utf8(field.unwrap()).unwrap())
            .collect();
        assert_eq!(row, expected);
    }
}

/// Input that we answer otherwise than PostgreSQL, and why.
const KNOWN: &[&str] = &[
    // Julian days are not read.
    "J2451187",
    // An offset without a time of day, a date behind its time: we read them.
    "2024-01-01-01",
    "12:34:56 2024-02-29",
    // DuckDB's last timestamp is in January 294247.
    "294276-12-31 23:59:59.999999",
    // Lists count from 1.
    "[0:1]={7,8}",
    // The decimals of a list have one scale.
    "{1.5,22,NULL,-0.001}",
    // DECIMAL has 38 digits, BIT at least one.
    "1e38",
    "X",
];

#[test]
fn text_input_gives_postgresqls_value_or_its_sqlstate() {
    let database = Database::open();
    let mut differences = Vec::new();
    for (zone, oid, input, expected) in INPUTS.iter().filter(|(_, _, input, _)| !KNOWN.contains(input)) {
        let settings = settings(zone);
        let decoded = decode_parameter(
            *oid,
            Format::Text,
            Some(input.as_bytes()),
            &LogicalType::Unknown,
            &settings,
        );
        let actual = decoded.map_err(|error| error.sqlstate()).map(|value| {
            let (types, chunks) = database.query_with("select $1", &[value]);
            let row = encode(&types, &chunks, Format::Text, &settings)
                .unwrap()
                .remove(0);
            String::from_utf8(row.into_iter().next().unwrap().unwrap()).unwrap()
        });
        if actual.as_deref() != expected.as_ref().copied() {
            differences.push(format!(
                "{zone} {oid} {input:?}: {actual:?} instead of {expected:?}"
            ));
        }
    }
    assert_none(differences);
}
