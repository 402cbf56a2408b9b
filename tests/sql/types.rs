//! Every type that PostgreSQL has: described, read and understood as there, in
//! text and in binary.
//!
//! Each test goes through the whole table of values and reports all that is
//! wrong with it at once.

use super::values::{Described, TYPES, VALUES, Value};
use crate::support::message::*;
use crate::support::{Answer, Server, Session, Transport};

const TEXT: i16 = 0;
const BINARY: i16 = 1;

/// DuckDB has one type of strings, and duckgres calls it varchar where
/// PostgreSQL's would mostly be called text.
const VARCHAR: u32 = 1043;
const VARCHAR_ARRAY: u32 = 1015;

fn type_of(value: &Value) -> &'static Described {
    TYPES
        .iter()
        .find(|described| described.name == value.of)
        .expect(value.of)
}

fn session(server: &Server) -> Session {
    let mut session = Session::over(server, Transport::Tcp);
    session.execute("set timezone = 'UTC'");
    session
}

/// The single value that a statement returns for one parameter, and how its
/// column was described; or the server's complaint.
fn ask(
    session: &mut Session,
    sql: &str,
    oids: &[u32],
    parameter: Option<(i16, &[u8])>,
    result: i16,
) -> Result<(Option<Vec<u8>>, Field), String> {
    let (formats, values) = match parameter {
        Some((format, bytes)) => (vec![format], vec![Some(bytes)]),
        None => (vec![], vec![]),
    };
    let bound = Bind {
        formats: &formats,
        values: &values,
        results: &[result],
        ..Bind::default()
    };
    session.send(
        &[
            parse_as("", sql, oids),
            bound.message(),
            describe_portal(""),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    let (mut field, mut value) = (None, None);
    for answer in session.answers() {
        match answer {
            Answer::RowDescription(mut fields) => field = fields.pop(),
            Answer::DataRow(mut values) => value = values.pop(),
            Answer::Error(report) => return Err(format!("{} {}", report.sqlstate(), report.message())),
            _ => {}
        }
    }
    Ok((value.ok_or("no row")?, field.ok_or("no column")?))
}

/// duckgres takes parameters and COPY data of one dimension only.
fn is_nested(name: &str) -> bool {
    name.contains("[][]")
}

fn show(format: i16, bytes: &[u8]) -> String {
    match format {
        BINARY => hex(bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn expected(server: &Server, value: &Value, format: i16) -> String {
    match format {
        // The third word of an array is the oid of its elements.
        BINARY if value.of == "text[]" && !server.is_postgres() => {
            format!("{}{VARCHAR:08x}{}", &value.binary[..16], &value.binary[24..])
        }
        BINARY => value.binary.to_string(),
        _ => value.text.to_string(),
    }
}

fn bytes_of(value: &Value, format: i16) -> Vec<u8> {
    match format {
        BINARY => (0..value.binary.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&value.binary[at..at + 2], 16).unwrap())
            .collect(),
        _ => value.text.as_bytes().to_vec(),
    }
}

/// Compares and collects what is different.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare(&mut self, case: String, got: Result<String, String>, expected: &str) {
        match got {
            Ok(got) if got == expected => {}
            Ok(got) => self.0.push(format!("{case}: expected {expected}, got {got}")),
            Err(error) => self
                .0
                .push(format!("{case}: expected {expected}, got error {error}")),
        }
    }

    #[track_caller]
    fn assert_none(self) {
        assert!(
            self.0.is_empty(),
            "{} differences:\n{}",
            self.0.len(),
            self.0.join("\n")
        );
    }
}

fn describe_all(server: &Server) -> Differences {
    let mut session = session(server);
    let mut differences = Differences::default();
    for Described {
        name,
        oid,
        size,
        modifier,
    } in TYPES
    {
        let oid = match oid {
            25 if !server.is_postgres() => &VARCHAR,
            1009 if !server.is_postgres() => &VARCHAR_ARRAY,
            oid => oid,
        };
        let described = ask(
            &mut session,
            &format!("select cast(null as {name}) as v"),
            &[],
            None,
            TEXT,
        )
        .map(|(_, field)| format!("{:?}", (field.oid, field.size, field.modifier)));
        differences.compare(
            format!("null as {name}"),
            described,
            &format!("{:?}", (oid, size, modifier)),
        );
    }
    differences
}

#[test]
fn every_type_is_described_as_in_postgresql() {
    describe_all(Server::shared()).assert_none();
}

fn read_all(server: &Server) -> Differences {
    let mut session = session(server);
    let mut differences = Differences::default();
    for value in VALUES {
        let Some(sql) = value.sql else { continue };
        for format in [TEXT, BINARY] {
            let got = ask(&mut session, &format!("select {sql} as v"), &[], None, format)
                .and_then(|(got, _)| got.ok_or("null".into()))
                .map(|got| show(format, &got));
            differences.compare(sql.to_string(), got, &expected(server, value, format));
        }
    }
    differences
}

#[test]
fn every_value_reads_as_in_postgresql() {
    read_all(Server::shared()).assert_none();
}

/// In one format, out in each: with a declared type, and with one that the
/// server has to find out.
fn pass_all(server: &Server) -> Differences {
    let mut session = session(server);
    let mut differences = Differences::default();
    for value in VALUES {
        if is_nested(value.of) && !server.is_postgres() {
            continue;
        }
        let oid = type_of(value).oid;
        for (given, wanted) in [(TEXT, TEXT), (TEXT, BINARY), (BINARY, TEXT), (BINARY, BINARY)] {
            for (declared, oids) in [("declared", &[oid][..]), ("deduced", &[])] {
                let sql = format!("select cast($1 as {}) as v", value.of);
                let bytes = bytes_of(value, given);
                let got = ask(&mut session, &sql, oids, Some((given, &bytes)), wanted)
                    .and_then(|(got, _)| got.ok_or("null".into()))
                    .map(|got| show(wanted, &got));
                let format = |format| if format == BINARY { "binary" } else { "text" };
                differences.compare(
                    format!(
                        "{} {:?} {declared} {} to {}",
                        value.of,
                        value.text,
                        format(given),
                        format(wanted)
                    ),
                    got,
                    &expected(server, value, wanted),
                );
            }
        }
    }
    differences
}

#[test]
fn every_value_passes_as_a_parameter() {
    pass_all(Server::shared()).assert_none();
}

/// Through a column of its type, in by INSERT and COPY, out by SELECT and COPY.
fn store_all(server: &Server) -> Differences {
    let mut session = session(server);
    let mut differences = Differences::default();
    for described in TYPES {
        if is_nested(described.name) && !server.is_postgres() {
            continue;
        }
        let values: Vec<&Value> = VALUES.iter().filter(|value| value.of == described.name).collect();
        session.execute("drop table if exists types_stored");
        session.execute(&format!(
            "create table types_stored (i int, v {})",
            described.name
        ));
        session.send(
            &[
                parse_as("", "insert into types_stored values ($1, $2)", &[]),
                sync(),
            ]
            .concat(),
        );
        session.answers();
        for (row, value) in values.iter().enumerate() {
            let row = row.to_string();
            let values = [Some(row.as_bytes()), Some(value.text.as_bytes())];
            let bound = Bind {
                values: &values,
                ..Bind::default()
            };
            session.send(&[bound.message(), execute("", 0), sync()].concat());
            for answer in session.answers() {
                if let Answer::Error(report) = answer {
                    differences.0.push(format!(
                        "insert {} {:?}: {}",
                        value.of,
                        value.text,
                        report.message()
                    ));
                }
            }
        }
        // A null among them, and once more all by COPY.
        session.execute("insert into types_stored values (-1, null)");
        session.send(&query("copy (select * from types_stored order by i) to stdout"));
        let mut copied = Vec::new();
        for answer in session.answers() {
            match answer {
                Answer::CopyData(data) => copied.extend(data),
                Answer::Error(report) => {
                    differences
                        .0
                        .push(format!("copy {}: {}", described.name, report.message()))
                }
                _ => {}
            }
        }
        session.execute("truncate types_stored");
        session.send(
            &[
                query("copy types_stored from stdin"),
                copy_data(&copied),
                copy_done(),
            ]
            .concat(),
        );
        for answer in session.answers() {
            if let Answer::Error(report) = answer {
                differences
                    .0
                    .push(format!("copy back {}: {}", described.name, report.message()));
            }
        }
        for (row, value) in values.iter().enumerate() {
            for format in [TEXT, BINARY] {
                let sql = format!("select v from types_stored where i = {row}");
                let got = ask(&mut session, &sql, &[], None, format)
                    .and_then(|(got, _)| got.ok_or("null".into()))
                    .map(|got| show(format, &got));
                differences.compare(
                    format!("stored {} {:?}", value.of, value.text),
                    got,
                    &expected(server, value, format),
                );
            }
        }
        let null = ask(
            &mut session,
            "select v from types_stored where i = -1",
            &[],
            None,
            BINARY,
        );
        differences.compare(
            format!("stored null of {}", described.name),
            null.map(|(value, _)| format!("{value:?}")),
            "None",
        );
    }
    session.execute("drop table types_stored");
    differences
}

#[test]
fn every_value_survives_a_table_and_a_copy() {
    store_all(Server::shared()).assert_none();
}

#[test]
fn the_table_of_values_is_what_postgresql_says() {
    if Server::shared().is_postgres() {
        println!("skipped: the other tests say the same of this server");
        return;
    }
    let postgres = match Server::postgres() {
        Ok(postgres) => postgres,
        Err(missing) => {
            println!("skipped: {missing}");
            return;
        }
    };
    describe_all(&postgres).assert_none();
    read_all(&postgres).assert_none();
    pass_all(&postgres).assert_none();
    store_all(&postgres).assert_none();
}

#[test]
fn null_is_null_in_every_type_and_format() {
    let mut session = session(Server::shared());
    for described in TYPES {
        for format in [TEXT, BINARY] {
            let sql = format!("select cast($1 as {}) as v", described.name);
            let bound = Bind {
                values: &[None],
                results: &[format],
                ..Bind::default()
            };
            session.send(&[parse_statement("", &sql), bound.message(), execute("", 0), sync()].concat());
            let answers = session.answers();
            assert_eq!(answers[2], Answer::DataRow(vec![None]), "{}", described.name);
        }
    }
}

#[test]
fn timestamps_with_time_zone_read_in_the_zone_of_the_session() {
    let mut session = session(Server::shared());
    for (zone, instant, expected) in [
        (
            "Europe/Berlin",
            "2024-03-31 00:59:59+00",
            "2024-03-31 01:59:59+01",
        ),
        (
            "Europe/Berlin",
            "2024-03-31 01:00:00+00",
            "2024-03-31 03:00:00+02",
        ),
        (
            "America/St_Johns",
            "2024-01-01 00:00:00+00",
            "2023-12-31 20:30:00-03:30",
        ),
        (
            "Asia/Kathmandu",
            "2024-01-01 00:00:00+00",
            "2024-01-01 05:45:00+05:45",
        ),
        ("Pacific/Apia", "2011-12-30 12:00:00+00", "2011-12-31 02:00:00+14"),
        ("UTC", "2024-01-01 00:00:00+00", "2024-01-01 00:00:00+00"),
        (
            "Europe/Paris",
            "1900-01-01 00:00:00+00",
            "1900-01-01 00:09:21+00:09:21",
        ),
    ] {
        session.execute(&format!("set timezone = '{zone}'"));
        let got = session.rows(&format!("select cast('{instant}' as timestamptz) as v"));
        assert_eq!(got, [expected], "{instant} in {zone}");
    }
}

#[test]
fn text_without_an_offset_is_understood_in_the_zone_of_the_session() {
    let mut session = session(Server::shared());
    session.execute("set timezone = 'Europe/Berlin'");
    let sql = "select cast($1 as timestamptz) as v";
    let got = ask(
        &mut session,
        sql,
        &[1184],
        Some((TEXT, b"2024-07-01 12:00:00")),
        TEXT,
    )
    .unwrap();
    assert_eq!(show(TEXT, &got.0.unwrap()), "2024-07-01 12:00:00+02");
}

#[test]
fn extra_float_digits_rounds_floats_as_it_always_did() {
    let mut session = session(Server::shared());
    for (digits, double, real) in [
        ("1", "0.30000000000000004", "0.1"),
        ("0", "0.3", "0.1"),
        ("-10", "0.3", "0.1"),
    ] {
        session.execute(&format!("set extra_float_digits = {digits}"));
        let sql = "select cast('0.30000000000000004' as double precision) as d, cast('0.1' as real) as r";
        assert_eq!(session.rows(sql), [format!("{double}|{real}")], "{digits}");
    }
}

#[test]
fn other_spellings_of_a_value_are_understood_in_parameters() {
    let mut session = session(Server::shared());
    for (oid, name, given, expected) in [
        (16, "boolean", "yes", "t"),
        (16, "boolean", "off", "f"),
        (16, "boolean", " TRUE ", "t"),
        (16, "boolean", "0", "f"),
        (23, "integer", " 42 ", "42"),
        (23, "integer", "+7", "7"),
        (701, "double precision", "1e3", "1000"),
        (701, "double precision", "-inf", "-Infinity"),
        (701, "double precision", "nan", "NaN"),
        (1700, "numeric(10,2)", "1e3", "1000.00"),
        (1700, "numeric(10,2)", "2.345", "2.35"),
        (1700, "numeric(10,2)", "-2.345", "-2.35"),
        (1082, "date", "20240229", "2024-02-29"),
        (
            1114,
            "timestamp",
            "2024-02-29T12:00:00.5",
            "2024-02-29 12:00:00.5",
        ),
        (1114, "timestamp", "2024-02-29", "2024-02-29 00:00:00"),
        (
            1184,
            "timestamptz",
            "2024-02-29T12:00:00Z",
            "2024-02-29 12:00:00+00",
        ),
        (
            1184,
            "timestamptz",
            "2024-02-29 12:00:00-0530",
            "2024-02-29 17:30:00+00",
        ),
        (1083, "time", "04:05", "04:05:00"),
        (
            1186,
            "interval",
            "P1Y2M3DT4H5M6S",
            "1 year 2 mons 3 days 04:05:06",
        ),
        (1186, "interval", "1-2", "1 year 2 mons"),
        (1186, "interval", "3 days ago", "-3 days"),
        (1186, "interval", "1.5 hours", "01:30:00"),
        (1186, "interval", "2 weeks", "14 days"),
        (
            2950,
            "uuid",
            "{12345678-9ABC-DEF0-8123-456789ABCDEF}",
            "12345678-9abc-def0-8123-456789abcdef",
        ),
        (
            2950,
            "uuid",
            "123456789abcdef08123456789abcdef",
            "12345678-9abc-def0-8123-456789abcdef",
        ),
        (17, "bytea", r"a\\b\001", r"\x615c6201"),
        (1007, "integer[]", " { 1 , 2 } ", "{1,2}"),
        (1009, "text[]", r#"{ a b , "c" , nUll }"#, r#"{"a b",c,NULL}"#),
    ] {
        let sql = format!("select cast($1 as {name}) as v");
        let got = ask(&mut session, &sql, &[oid], Some((TEXT, given.as_bytes())), TEXT);
        let got = got.map(|(value, _)| value.map(|value| show(TEXT, &value)));
        assert_eq!(got, Ok(Some(expected.to_string())), "{name} {given:?}");
    }
}

#[test]
fn values_that_are_not_of_their_type_are_refused_with_the_right_state() {
    let mut session = session(Server::shared());
    for (oid, name, given, state) in [
        (16, "boolean", "maybe", "22P02"),
        (21, "smallint", "32768", "22003"),
        (23, "integer", "1.5", "22P02"),
        (20, "bigint", "9223372036854775808", "22003"),
        (701, "double precision", "1e400", "22003"),
        (700, "real", "1e40", "22003"),
        (701, "double precision", "x", "22P02"),
        (1700, "numeric(4,1)", "1000", "22003"),
        (1700, "numeric(4,1)", "1.2.3", "22P02"),
        (1082, "date", "2024-02-30", "22008"),
        (1082, "date", "x", "22007"),
        (1114, "timestamp", "2024-01-01 25:00:00", "22008"),
        (1083, "time", "x", "22007"),
        (1186, "interval", "1 fortnightish", "22007"),
        (2950, "uuid", "1234", "22P02"),
        (114, "json", "{", "22P02"),
        (1007, "integer[]", "{1,2", "22P02"),
        (1007, "integer[]", "{{1},{2,3}}", "22P02"),
        (17, "bytea", r"\x0", "22023"),
        (17, "bytea", r"\xzz", "22023"),
    ] {
        let sql = format!("select cast($1 as {name}) as v");
        let got = ask(&mut session, &sql, &[oid], Some((TEXT, given.as_bytes())), TEXT);
        let got = got
            .map(|_| ())
            .map_err(|error| error.split(' ').next().unwrap_or_default().to_string());
        assert_eq!(got, Err(state.to_string()), "{name} {given:?}");
    }
}
