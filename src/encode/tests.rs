use super::*;
use crate::engine::testing::Database;

/// The text forms of the columns of all rows, `None` for null.
fn rows(database: &Database, sql: &str, format: Format, settings: &Settings) -> Vec<Vec<Option<Vec<u8>>>> {
    let (types, chunks) = database.query(sql);
    let mut encoder = RowEncoder::new(&types, &[format], settings).unwrap();
    let mut out = Vec::new();
    for chunk in &chunks {
        encoder.encode(chunk, 0..chunk.len(), &mut out).unwrap();
    }
    read_rows(&out)
}

fn read_rows(mut bytes: &[u8]) -> Vec<Vec<Option<Vec<u8>>>> {
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

#[test]
fn a_row_of_common_types_has_postgresqls_text() {
    let database = Database::open();
    let sql = "select 42, -7::bigint, 1.5::double, 'hi', date '2024-02-29', timestamp '2024-02-29 12:34:56.78', 12.30::decimal(10,2), true, null::integer";
    let row = rows(&database, sql, Format::Text, &Settings::default()).remove(0);
    let row: Vec<_> = row
        .into_iter()
        .map(|field| field.map(|field| String::from_utf8(field).unwrap()))
        .collect();
    let expected = [
        "42",
        "-7",
        "1.5",
        "hi",
        "2024-02-29",
        "2024-02-29 12:34:56.78",
        "12.30",
        "t",
    ];
    assert_eq!(row[..8], expected.map(|text| Some(text.to_owned())));
    assert_eq!(row[8], None);
}
