use super::*;
use crate::encode::Settings;
use crate::engine::LogicalType;
use crate::engine::testing::Database;

fn lines(sql: &str, options: CopyOptions) -> String {
    let database = Database::open();
    let (types, chunks) = database.query(sql);
    let mut encoder = CopyEncoder::new(&types, options, &Settings::default()).unwrap();
    let mut out = Vec::new();
    for chunk in &chunks {
        encoder.encode(chunk, 0..chunk.len(), &mut out).unwrap();
    }
    let mut text = Vec::new();
    let mut rest = out.as_slice();
    while let [b'd', a, b, c, d, tail @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
        assert_eq!(tail[length - 1], b'\n', "one line a message");
        text.extend_from_slice(&tail[..length]);
        rest = &tail[length..];
    }
    assert!(rest.is_empty());
    String::from_utf8(text).unwrap()
}

type Row = Vec<Option<String>>;

fn parse_cut(
    options: &CopyOptions,
    columns: usize,
    text: &[u8],
    cut: usize,
) -> Result<Vec<Row>, EncodeError> {
    let names = (0..columns).map(|index| format!("c{index}")).collect();
    let mut parser = CopyParser::new(options.clone(), names)?;
    let mut found = Vec::new();
    let mut rows = CopyRows::default();
    let mut drain = |rows: &mut CopyRows| {
        for row in 0..rows.len() {
            let field = |column| {
                rows.field(row, column)
                    .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
            };
            found.push((0..columns).map(field).collect());
        }
        rows.clear();
    };
    for piece in text.chunks(cut.max(1)) {
        parser.feed(piece, &mut rows)?;
        drain(&mut rows);
    }
    parser.finish(&mut rows)?;
    drain(&mut rows);
    Ok(found)
}

/// Parses whole and in pieces of every small size, which must agree.
fn parse(options: &CopyOptions, columns: usize, text: &str) -> Result<Vec<Row>, EncodeError> {
    let whole = parse_cut(options, columns, text.as_bytes(), text.len());
    for cut in 1..8 {
        assert_eq!(
            parse_cut(options, columns, text.as_bytes(), cut),
            whole,
            "{text:?} cut by {cut}"
        );
    }
    whole
}

fn row<const N: usize>(fields: [Option<&str>; N]) -> Row {
    fields.map(|field| field.map(str::to_owned)).into()
}

fn text() -> CopyOptions {
    CopyOptions::new(CopyFormat::Text)
}

fn csv() -> CopyOptions {
    CopyOptions::new(CopyFormat::Csv)
}

#[test]
fn text_lines_escape_what_postgresql_escapes() {
    let sql =
        r"select 1, e'a\tb\nc\\d\re\bf' || chr(11) || e'g\fh', null, '\x00\xFF'::blob, 'x|y', [e'a\\b', 'c']";
    assert_eq!(
        lines(sql, text()),
        "1\ta\\tb\\nc\\\\d\\re\\bf\\vg\\fh\t\\N\t\\\\x00ff\tx|y\t{\"a\\\\\\\\b\",c}\n"
    );
    let bars = CopyOptions {
        delimiter: b'|',
        null: "NULL".to_owned(),
        ..text()
    };
    assert_eq!(lines("select 'x|y', null, e'a\\tb'", bars), "x\\|y|NULL|a\\tb\n");
    let dashes = CopyOptions {
        delimiter: b'-',
        ..text()
    };
    assert_eq!(
        lines("select -1, date '2024-01-02'", dashes),
        "\\-1-2024\\-01\\-02\n"
    );
}

#[test]
fn csv_lines_quote_what_postgresql_quotes() {
    let sql = r#"select 1, 'a,b', 'say "hi"', e'two\nlines', '', null, 'plain', ' x ', '\.'"#;
    assert_eq!(
        lines(sql, csv()),
        "1,\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\",\"\",,plain, x ,\\.\n"
    );
    assert_eq!(lines("select '\\.'", csv()), "\"\\.\"\n");
    let forced = CopyOptions {
        force_quote: ForceColumns::Some(vec![0]),
        ..csv()
    };
    assert_eq!(
        lines("select 1, 2, 'x' union all select null, 3, 'y'", forced),
        "\"1\",2,x\n,3,y\n"
    );
    let odd = CopyOptions {
        quote: b'\'',
        escape: b'\\',
        null: "1".to_owned(),
        ..csv()
    };
    assert_eq!(
        lines(r"select 'it''s', 'a\b', 'x,\', 1", odd),
        "'it\\'s',a\\b,'x,\\\\','1'\n"
    );
}

#[test]
fn a_header_has_the_names() {
    let mut encoder = CopyEncoder::new(
        &[LogicalType::Integer, LogicalType::Integer],
        csv(),
        &Settings::default(),
    )
    .unwrap();
    let mut out = Vec::new();
    encoder.header(&["id", "a,b"], &mut out);
    assert_eq!(out, b"d\0\0\0\x0did,\"a,b\"\n");
}

#[test]
fn text_is_read_with_all_its_escapes() {
    let rows = parse(&text(), 3, "1\tab\\tc\\\\d\t\\N\n\\101\\x42\\x4g\\q\t\t\\\\N\n").unwrap();
    assert_eq!(
        rows,
        [
            row([Some("1"), Some("ab\tc\\d"), None]),
            row([Some("AB\u{4}gq"), Some(""), Some("\\N")])
        ]
    );
    assert_eq!(
        parse(&text(), 1, "a\\\nb\nc").unwrap(),
        [row([Some("a\nb")]), row([Some("c")])]
    );
    assert_eq!(parse(&text(), 1, "a\n\\.\nrest").unwrap(), [row([Some("a")])]);
    assert_eq!(parse(&text(), 1, "a\n\\.").unwrap(), [row([Some("a")])]);
    assert_eq!(parse(&text(), 2, "a\tb\r\nc\td\r\n").unwrap().len(), 2);
    assert_eq!(parse(&text(), 2, "a\tb\rc\td\r").unwrap().len(), 2);
    assert_eq!(
        parse(&text(), 1, "\n\n").unwrap(),
        [row([Some("")]), row([Some("")])]
    );
    assert_eq!(parse(&text(), 1, "").unwrap().len(), 0);
    assert_eq!(parse(&text(), 1, "\\303\\251\n").unwrap(), [row([Some("é")])]);
    let named = CopyOptions {
        null: "nil".to_owned(),
        ..text()
    };
    assert_eq!(
        parse(&named, 4, "nil\tnilx\tni\tn\\il\n").unwrap(),
        [row([None, Some("nilx"), Some("ni"), Some("nil")])]
    );
}

#[test]
fn csv_is_read_with_quotes_and_lines_in_quotes() {
    let rows = parse(&csv(), 3, "1,\"a,\"\"b\"\"\nc\",\r\n\"\",x\"y,z\"w,\" \"\r\n").unwrap();
    assert_eq!(
        rows,
        [
            row([Some("1"), Some("a,\"b\"\nc"), None]),
            row([Some(""), Some("xy,zw"), Some(" ")])
        ]
    );
    assert_eq!(parse(&csv(), 1, "a\n\\.\nrest").unwrap(), [row([Some("a")])]);
    assert_eq!(
        parse(&csv(), 1, "\"\\.\"\n\"x\"").unwrap(),
        [row([Some("\\.")]), row([Some("x")])]
    );
    let odd = CopyOptions {
        quote: b'\'',
        escape: b'\\',
        ..csv()
    };
    assert_eq!(
        parse(&odd, 2, "'it\\'s \\\\ \\n','x'\n").unwrap(),
        [row([Some("it's \\ \\n"), Some("x")])]
    );
    let header = CopyOptions {
        header: CopyHeader::On,
        ..csv()
    };
    assert_eq!(
        parse(&header, 2, "what,ever,this,is\n1,2\n").unwrap(),
        [row([Some("1"), Some("2")])]
    );
    let forced = CopyOptions {
        force_null: ForceColumns::Some(vec![0]),
        force_not_null: ForceColumns::Some(vec![1]),
        ..csv()
    };
    assert_eq!(
        parse(&forced, 3, "\"\",,\n").unwrap(),
        [row([None, Some(""), None])]
    );
}

#[test]
fn errors_name_the_line() {
    let message = |options: &CopyOptions, text: &str| {
        let error = parse(options, 2, text).unwrap_err();
        assert!(matches!(error.sqlstate(), "22P04" | "22021"), "{error}");
        error.to_string()
    };
    assert_eq!(
        message(&text(), "a\tb\nc\n"),
        "COPY, line 2: missing data for column \"c1\""
    );
    assert_eq!(
        message(&text(), "a\tb\tc\n"),
        "COPY, line 1: extra data after last expected column"
    );
    assert_eq!(
        message(&csv(), "a,b\n\"x\ny\n"),
        "COPY, line 4: unterminated CSV quoted field"
    );
    assert_eq!(
        message(&text(), "a\tb\nc\td\\.\n"),
        "COPY, line 2: end-of-copy marker corrupt"
    );
    assert_eq!(
        message(&text(), "a\tb\nc\td\r\n"),
        "COPY, line 2: literal carriage return found in data"
    );
    assert_eq!(
        message(&csv(), "a,b\r\nc,d\n"),
        "COPY, line 2: unquoted newline found in data"
    );
    assert!(message(&text(), "a\tb\nc\t\\377\n").contains("line 2"));
    let matching = CopyOptions {
        header: CopyHeader::Match,
        ..csv()
    };
    assert!(message(&matching, "c0,x\n").contains("field 2: got \"x\", expected \"c1\""));
    assert_eq!(parse(&matching, 2, "c0,c1\n1,2\n").unwrap().len(), 1);
    let small = CopyOptions {
        row_limit: 10,
        ..text()
    };
    assert!(message(&small, "a\tb\n12345678901234\tx\n").contains("line 2: row is larger than 10 bytes"));
}

#[test]
fn options_that_cannot_stand_together_are_refused() {
    for options in [
        CopyOptions {
            delimiter: b'\n',
            ..text()
        },
        CopyOptions {
            delimiter: b'a',
            ..text()
        },
        CopyOptions {
            delimiter: b'"',
            ..csv()
        },
        CopyOptions {
            null: "a,b".to_owned(),
            ..csv()
        },
        CopyOptions {
            null: "a\nb".to_owned(),
            ..text()
        },
    ] {
        assert_eq!(options.check().unwrap_err().sqlstate(), "22023");
    }
}
