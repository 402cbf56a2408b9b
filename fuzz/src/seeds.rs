//! Writes the seeds of each target's corpus: `seeds DIRECTORY`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use duckgres::proto::{
    AcceptConnection, Frozen, FrozenRows, FrozenStatement, FrozenTemporary, FrozenVariable, PeerFacts,
    Setting,
};
use duckgres_fuzz::peer::{Kind, sign};
// The counters in duckgres want to be registered with it.
use libfuzzer_sys as _;
use prost::Message;

fn main() -> io::Result<()> {
    let directory = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let write = |target: &str, seeds: Vec<Vec<u8>>| write(&directory.join(target), &seeds);
    write("startup", startup())?;
    write("message", messages())?;
    write("handoff", handoff())?;
    write("tls", tls())?;
    write("sql", SQL.iter().map(|text| text.as_bytes().to_vec()).collect())?;
    write("copy", COPY.iter().map(|bytes| bytes.to_vec()).collect())?;
    write("parameter", parameters())
}

fn write(directory: &Path, seeds: &[Vec<u8>]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(directory.join(format!("seed-{number}")), seed)?;
    }
    Ok(())
}

/// Something with its length, which counts itself, in front.
fn packet(body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

fn startup() -> Vec<Vec<u8>> {
    let version = |minor: u32| (3 << 16 | minor).to_be_bytes();
    let code = |code: u32| (1234 << 16 | code).to_be_bytes();
    vec![
        packet(&[
            &version(0),
            b"user\0al\0database\0db\0application_name\0psql\0client_encoding\0UTF8\0\0",
        ]),
        packet(&[
            &version(2),
            b"user\0al\0options\0-c DateStyle=ISO --search-path=a\\ b\0replication\0off\0\0",
        ]),
        packet(&[&version(9), b"user\0al\0_pq_.new\0on\0\0"]),
        packet(&[&code(5678), &7_i32.to_be_bytes(), &[9; 32]]),
        packet(&[&code(5679)]),
        packet(&[&code(5680)]),
        packet(&[&(2_u32 << 16).to_be_bytes(), &[0; 30]]),
    ]
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [vec![kind], packet(&[body])].concat()
}

fn messages() -> Vec<Vec<u8>> {
    let extended = [
        message(b'P', b"s\0select $1, $2\0\0\x02\0\0\0\x14\0\0\0\x19"),
        message(
            b'B',
            b"p\0s\0\0\x02\0\x01\0\0\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x01\0\x01",
        ),
        message(b'D', b"Pp\0"),
        message(b'D', b"Ss\0"),
        message(b'E', b"p\0\0\0\0\x05"),
        message(b'C', b"Pp\0"),
        message(b'H', b""),
        message(b'S', b""),
    ];
    let copy = [
        message(b'd', b"1\tx\n"),
        message(b'c', b""),
        message(b'f', b"why\0"),
        message(b'X', b""),
    ];
    vec![
        message(b'Q', b"select 1\0"),
        extended.concat(),
        copy.concat(),
        message(b'p', b"secret\0"),
    ]
}

fn handoff() -> Vec<Vec<u8>> {
    let session = |tls_state: Vec<u8>| AcceptConnection {
        backend_id: 1 << 20 | 7,
        cancel_key: vec![5; 32],
        protocol_minor: 2,
        user: "al".into(),
        database: "db".into(),
        settings: vec![Setting {
            name: "TimeZone".into(),
            value: "UTC".into(),
        }],
        unread_input: b"Q\0\0\0\x0dselect 1\0".to_vec(),
        tls_state,
        peer: Some(PeerFacts {
            address: "local".into(),
            ..PeerFacts::default()
        }),
        create_database: true,
        admin: false,
        frozen: None,
    };
    let mut seeds = Vec::new();
    let mut begun = session(Vec::new());
    begun.frozen = Some(frozen());
    seeds.push(begun.encode_to_vec());
    for number in 0..6 {
        let mut state = Kind::new(number).server();
        seeds.push(session(state.clone()).encode_to_vec());
        // With the beginning of a record.
        state[127] = 4;
        state.extend_from_slice(&[23, 3, 3, 0]);
        sign(&mut state);
        seeds.push(state);
    }
    let payload = session(Vec::new()).encode_to_vec();
    for kind in [1, 2] {
        let header = [
            b"DGHO\0\x01",
            &[kind, 0][..],
            &(payload.len() as u32).to_be_bytes(),
        ]
        .concat();
        seeds.push([header, payload.clone()].concat());
        seeds.push([b"DGHO\0\x01", &[kind, 1][..], &70_000_u32.to_be_bytes()].concat());
    }
    seeds
}

/// What a session carries with it that has run.
fn frozen() -> Frozen {
    let setting = |name: &str, value: &str| Setting {
        name: name.into(),
        value: value.into(),
    };
    let statement = FrozenStatement {
        name: "s".into(),
        sql: "select $1".into(),
        declared: vec![20, 0, 1700],
        numeric_scale: 10,
        row: vec![7; 32],
    };
    let variable = FrozenVariable {
        name: "v".into(),
        r#type: "INTEGER".into(),
        value: Some("1".into()),
    };
    let rows = FrozenRows {
        table: "t".into(),
        columns: 2,
        fields: b"\x01\0\0\0a\xff\xff\xff\xff".to_vec(),
    };
    let temporary = FrozenTemporary {
        definitions: vec!["CREATE TEMP TABLE t(a INTEGER)".into()],
        rows: vec![rows.encode_to_vec()],
        finishing: vec!["CREATE INDEX i ON t(a)".into()],
    };
    Frozen {
        version: 2,
        values: vec![setting("application_name", "x"), setting("my.own", "")],
        startup: vec![setting("application_name", "y")],
        search_path: Some("main".into()),
        statements: vec![statement.encode_to_vec(), Vec::new()],
        variables: vec![variable.encode_to_vec()],
        skip_until_sync: true,
        unsent_output: b"\x17\x03\x03".to_vec(),
        began: 1,
        frozen: u64::MAX,
        state_change: 2,
        query: "select 1".into(),
        query_start: Some(3),
        temporary: Some(temporary.encode_to_vec()),
    }
}

/// Scripts as targets/tls.rs reads them.
fn tls() -> Vec<Vec<u8>> {
    let script: &[&[u8]] = &[
        b"\x00\x05hello\x02\x03\x05world",
        b"\x05\x01\x00\x01x\x05\x00\x00\x01y",
        b"\x03\x05\x18\0\0\x01\x01\x03\x02\x18\0\x03\x03\0\x01\0",
        b"\x03\x04\x01\0\0\0",
        b"\x00\x01a\x04\x01\x00\x00\x01b",
        b"\x04\x02\x28",
        b"\x06\x05\x17\x03\x03\x00\x10",
        b"\x06\x05\x17\x03\x03\x41\x01",
        b"\x07\x17\x03abc\x06\x01",
        b"\x07\x18\x03abc\xff\x01",
    ];
    let with = |kind: u8| {
        script
            .iter()
            .map(move |part| [&[kind, kind.wrapping_mul(37)], *part].concat())
    };
    (0..6).flat_map(with).collect()
}

const SQL: &[&str] = &[
    "select 1; select 'a;b', \"c;d\", $a$;$a$, E'\\';', $1::int /* ; /* nested */ */ -- ;",
    "begin isolation level serializable read only; savepoint a; rollback to a; commit and chain",
    "set local search_path to a, \"B\"; set time zone 'Europe/Berlin'; reset all; show all; discard all",
    "copy t (a, \"b\") from stdin with (format csv, header, delimiter ';', null '', force_quote *)",
    "copy (select * from t) to stdout csv header quote '\"' escape '\\'",
    "copy t to '/data/x.csv'; attach '/x' as y; select * from read_csv('/etc/passwd')",
    "prepare p(int) as select $1; execute p(1); deallocate all; declare c cursor for select 1; fetch 1 from c",
    "with a as (select U&'\\0061', b'01', x'ff', 1e-3, .5, 0x1f) insert into t select * from a returning *",
    "create or replace temp table t as select 1; drop table if exists t; explain analyze select 1",
];

/// Flags and the seed of the cuts in front, as targets/copy.rs reads them.
const COPY: &[&[u8]] = &[
    b"\0\0a\tb\n\\N\t\\\\x\\t\\101\\x41\n\\.\n",
    b"\x02\x07c0\tc1\r\na\tb\r\n",
    b"\x01\x03a,\"b\"\"c\"\n,\"\"\n\"line\nbreak\",NULL\n",
    b"\x0d\x09;''a;'b''c'\nNULL;'NULL'\n",
    b"\x11\x01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,b\n",
];

/// OID, target and format in front, as targets/parameter.rs reads them.
fn parameters() -> Vec<Vec<u8>> {
    let texts: &[&str] = &[
        "1",
        "-170141183460469231731687303715884105728",
        "1.5e-7",
        "NaN",
        "-infinity",
        "2024-02-29 23:59:60.123456+05:30",
        "0044-03-15 BC",
        "24:00:00-15:59",
        "1 year 2 mons -3 days 04:05:06.789",
        "P1Y2M3DT4H5M6S",
        "{1,NULL,\"a\\\"b\",{2}}",
        "[0:1]={1,2}",
        "\\xdeadbeef",
        "\\001\\\\",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "0101",
        "yes",
        "{\"a\": [1, null]}",
    ];
    let binaries: &[&[u8]] = &[
        &[1],
        &[0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 1],
        &[0x7f, 0xf0, 0, 0, 0, 0, 0, 0],
        &[0, 2, 0, 1, 0x40, 0, 0, 2, 0, 12, 0x0d, 0x80],
        &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
        &[
            0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff,
        ],
        &[0, 0, 0, 9, 0xaa, 0x80],
        &[1, b'{', b'}'],
    ];
    let mut seeds = Vec::new();
    for oid in 0..50_u8 {
        let text = texts[usize::from(oid) % texts.len()];
        seeds.push([&[oid, oid, 0], text.as_bytes()].concat());
        let binary = binaries[usize::from(oid) % binaries.len()];
        seeds.push([&[oid, oid, 1], binary].concat());
    }
    for (number, text) in texts.iter().enumerate() {
        seeds.push([&[0, number as u8 * 2, 0], text.as_bytes()].concat());
    }
    seeds
}
