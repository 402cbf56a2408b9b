//! Parameters of Bind, of every type, in text and binary.
#![no_main]

use duckgres::encode::{Format, Settings, decode_parameter};
use duckgres::engine::LogicalType;
use duckgres_fuzz::{Script, frugally};
use libfuzzer_sys::fuzz_target;

/// PostgreSQL's types, their arrays, and some that there are not.
const OIDS: &[u32] = &[
    0, 16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 700, 701, 705, 869, 1042, 1043, 1082, 1083, 1114, 1184, 1186,
    1266, 1560, 1562, 1700, 2950, 3802, 199, 1000, 1001, 1005, 1007, 1009, 1015, 1016, 1021, 1022, 1115,
    1182, 1183, 1185, 1187, 1231, 1270, 1561, 2951, 3807, 600, 99999,
];

fuzz_target!(|data: &[u8]| {
    let mut script = Script(data);
    let oid = OIDS[usize::from(script.byte()) % OIDS.len()];
    let target = target(script.byte());
    let format = if script.byte() & 1 == 0 {
        Format::Text
    } else {
        Format::Binary
    };
    let _ = frugally(script.0, |bytes| {
        decode_parameter(oid, format, Some(bytes), &target, &Settings::default())
    });
});

fn target(byte: u8) -> LogicalType {
    use LogicalType as T;
    let simple = match byte & 31 {
        0 => T::Unknown,
        1 => T::Boolean,
        2 => T::TinyInt,
        3 => T::SmallInt,
        4 => T::Integer,
        5 => T::BigInt,
        6 => T::HugeInt,
        7 => T::UTinyInt,
        8 => T::USmallInt,
        9 => T::UInteger,
        10 => T::UBigInt,
        11 => T::UHugeInt,
        12 => T::BigNum,
        13 => T::Float,
        14 => T::Double,
        15 => T::Decimal { width: 18, scale: 3 },
        16 => T::Decimal { width: 38, scale: 10 },
        17 => T::Varchar,
        18 => T::Json,
        19 => T::Blob,
        20 => T::Bit,
        21 => T::Uuid,
        22 => T::Date,
        23 => T::Time,
        24 => T::TimeNs,
        25 => T::TimeTz,
        26 => T::Timestamp,
        27 => T::TimestampS,
        28 => T::TimestampNs,
        29 => T::TimestampTz,
        30 => T::Interval,
        _ => T::Enum(std::sync::Arc::from(["a".to_owned(), "b".to_owned()])),
    };
    if byte & 32 == 0 {
        simple
    } else {
        T::List(Box::new(simple))
    }
}
