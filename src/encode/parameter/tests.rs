use super::*;
use crate::encode::RowEncoder;
use crate::engine::testing::Database;

const UNKNOWN: LogicalType = LogicalType::Unknown;

fn decode(oid: u32, format: Format, bytes: &[u8], target: &LogicalType) -> Result<Value, EncodeError> {
    decode_parameter(oid, format, Some(bytes), target, &Settings::default())
}

fn shown(value: &Value) -> String {
    format!("{} {value:?}", value.logical_type())
}

#[test]
fn a_value_takes_the_deduced_type_where_it_fits() {
    let decimal = LogicalType::Decimal { width: 18, scale: 2 };
    for (oid, text, target, expected) in [
        (oid::INT8, "5", LogicalType::Integer, "INTEGER 5"),
        (oid::INT8, "5000000000", LogicalType::Integer, "BIGINT 5000000000"),
        (oid::INT2, "5", LogicalType::UBigInt, "UBIGINT 5"),
        (oid::INT2, "-5", LogicalType::UBigInt, "SMALLINT -5"),
        (oid::NUMERIC, "1.5", decimal.clone(), "DECIMAL(18,2) 1.50"),
        (oid::NUMERIC, "1.555", decimal.clone(), "DECIMAL(4,3) 1.555"),
        (oid::NUMERIC, "7", LogicalType::HugeInt, "HUGEINT 7"),
        (oid::NUMERIC, "7", UNKNOWN, "DECIMAL(1,0) 7"),
        (oid::NUMERIC, "0.001", UNKNOWN, "DECIMAL(3,3) .001"),
        (oid::FLOAT4, "1.5", LogicalType::Double, "DOUBLE 1.5"),
        (0, "5", LogicalType::TinyInt, "TINYINT 5"),
        (0, "x", UNKNOWN, "VARCHAR 'x'"),
        (0, "a", LogicalType::Enum(["a".to_owned()].into()), "VARCHAR 'a'"),
        (
            0,
            "[1, 2]",
            LogicalType::List(Box::new(LogicalType::Integer)),
            "VARCHAR '[1, 2]'",
        ),
        (
            oid::UNKNOWN,
            "340282366920938463463374607431768211455",
            LogicalType::UHugeInt,
            "UHUGEINT 340282366920938463463374607431768211455",
        ),
    ] {
        let value = decode(oid, Format::Text, text.as_bytes(), &target).unwrap();
        assert_eq!(shown(&value), expected, "{oid} {text} {target}");
    }
}

#[test]
fn integers_that_do_not_fit_the_deduced_type_are_out_of_range() {
    for (text, target) in [
        ("128", LogicalType::TinyInt),
        ("-1", LogicalType::UTinyInt),
        ("65536", LogicalType::USmallInt),
        ("4294967296", LogicalType::UInteger),
        ("18446744073709551616", LogicalType::UBigInt),
        ("170141183460469231731687303715884105728", LogicalType::HugeInt),
        ("340282366920938463463374607431768211456", LogicalType::UHugeInt),
        ("-1", LogicalType::UHugeInt),
    ] {
        let error = decode(0, Format::Text, text.as_bytes(), &target).unwrap_err();
        assert_eq!(error.sqlstate(), "22003", "{text} {target}");
    }
}

#[test]
fn nulls_have_the_type_that_is_known() {
    let null = |oid, target: &LogicalType| {
        let value = decode_parameter(oid, Format::Binary, None, target, &Settings::default()).unwrap();
        value.logical_type()
    };
    assert_eq!(null(oid::INT4, &UNKNOWN), LogicalType::Integer);
    assert_eq!(null(oid::INT4, &LogicalType::Date), LogicalType::Date);
    assert_eq!(null(0, &UNKNOWN), LogicalType::SqlNull);
}

#[test]
fn text_that_is_no_text_is_refused() {
    for bytes in [&b"\xff"[..], b"a\0b", b"\xc3", b"\xed\xa0\x80"] {
        for format in [Format::Text, Format::Binary] {
            assert_eq!(
                decode(oid::TEXT, format, bytes, &UNKNOWN).unwrap_err().sqlstate(),
                "22021"
            );
        }
    }
    let error = decode(oid::TEXT, Format::Text, b"ab\xe2\x28", &UNKNOWN).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid byte sequence for encoding \"UTF8\": 0xe2"
    );
}

#[test]
fn binary_of_the_wrong_shape_is_refused() {
    let cases: &[(u32, &[u8])] = &[
        (oid::BOOL, b""),
        (oid::BOOL, b"\x01\x00"),
        (oid::INT2, b"\x01"),
        (oid::INT4, b"\0\0\0\0\0"),
        (oid::INT8, b""),
        (oid::FLOAT8, b"1234"),
        (oid::UUID, b"123456789012345"),
        (oid::TIMETZ, b"12345678"),
        (oid::INTERVAL, b"123456789012"),
        (oid::JSONB, b"\x02{}"),
        (oid::JSONB, b""),
        (oid::CHAR, b"ab"),
        (oid::VARBIT, b"\0\0\0\x09\xff"),
        (oid::VARBIT, b"\xff\xff\xff\xff\xff"),
        (oid::NUMERIC, b"\0\x01\0\0\0\0\0"),
        (oid::NUMERIC, b"\0\x02\0\0\0\0\0\0\0\x01"),
        (oid::NUMERIC, b"\0\x01\0\0\0\0\0\0\x27\x10"),
        (oid::NUMERIC, b"\0\x01\0\0\x12\x34\0\0\0\x01"),
        (oid::INT4_ARRAY, b""),
        (oid::INT4_ARRAY, b"\0\0\0\x07\0\0\0\0\0\0\0\x17"),
        (oid::INT4_ARRAY, b"\0\0\0\x01\0\0\0\0\0\0\0\x19\0\0\0\0\0\0\0\x01"),
        (
            oid::INT4_ARRAY,
            b"\0\0\0\x01\0\0\0\0\0\0\0\x17\x7f\xff\xff\xff\0\0\0\x01",
        ),
        (
            oid::INT4_ARRAY,
            b"\0\0\0\x02\0\0\0\0\0\0\0\x17\x7f\xff\xff\xff\0\0\0\x01\x7f\xff\xff\xff\0\0\0\x01",
        ),
        (
            oid::INT4_ARRAY,
            b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01\xff\xff\xff\xfe",
        ),
        (
            oid::INT4_ARRAY,
            b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01\0\0\0\x08\0\0\0\x01",
        ),
        (oid::INT4_ARRAY, b"\0\0\0\0\0\0\0\0\0\0\0\x17\0"),
    ];
    for (oid, bytes) in cases {
        let error = decode(*oid, Format::Binary, bytes, &UNKNOWN).unwrap_err();
        assert_eq!(error.sqlstate(), "22P03", "{oid} {bytes:?}");
    }
}

#[test]
fn binary_beyond_the_range_of_the_type_is_refused() {
    for (oid, bytes, state) in [
        (oid::DATE, (i32::MAX - 1).to_be_bytes().to_vec(), "22008"),
        (oid::TIMESTAMP, (i64::MAX - 1).to_be_bytes().to_vec(), "22008"),
        (oid::TIME, (-1i64).to_be_bytes().to_vec(), "22008"),
        (oid::TIME, 86_400_000_001i64.to_be_bytes().to_vec(), "22008"),
        (
            oid::TIMETZ,
            [0i64.to_be_bytes().to_vec(), 57_600i32.to_be_bytes().to_vec()].concat(),
            "22009",
        ),
        (
            oid::TIMETZ,
            [0i64.to_be_bytes().to_vec(), i32::MIN.to_be_bytes().to_vec()].concat(),
            "22009",
        ),
        (oid::VARBIT, vec![0, 0, 0, 0], "22P02"),
    ] {
        assert_eq!(
            decode(oid, Format::Binary, &bytes, &UNKNOWN)
                .unwrap_err()
                .sqlstate(),
            state,
            "{oid}"
        );
    }
}

#[test]
fn numbers_with_more_digits_than_decimal_are_left_to_duckdb_or_refused() {
    let long = "0.1000000000000000055511151231257827021181583404541015625";
    let target = LogicalType::Decimal { width: 10, scale: 3 };
    assert_eq!(
        shown(&decode(oid::NUMERIC, Format::Text, long.as_bytes(), &target).unwrap()),
        format!("VARCHAR '{long}'")
    );
    assert_eq!(
        decode(oid::NUMERIC, Format::Text, long.as_bytes(), &UNKNOWN)
            .unwrap_err()
            .sqlstate(),
        "22003"
    );
    for text in ["1e39", "1e2000000000", "1e-39", "1e-2000000000"] {
        assert_eq!(
            decode(oid::NUMERIC, Format::Text, text.as_bytes(), &UNKNOWN)
                .unwrap_err()
                .sqlstate(),
            "22003"
        );
    }
    assert_eq!(
        decode(oid::NUMERIC, Format::Text, b"1e99999999999", &UNKNOWN)
            .unwrap_err()
            .sqlstate(),
        "22P02"
    );
    assert_eq!(
        shown(&decode(oid::NUMERIC, Format::Text, b"NaN", &UNKNOWN).unwrap()),
        "DOUBLE 'nan'::DOUBLE"
    );
    // Weight and scale as far apart as they can be.
    for (weight, scale) in [(0x7fffu16, 0u16), (0x8000, 0x3fff), (0, 0x3fff), (0x7fff, 0x3fff)] {
        let mut bytes = vec![0, 1];
        bytes.extend([weight.to_be_bytes(), [0, 0], scale.to_be_bytes(), [0, 1]].concat());
        let _ = decode(oid::NUMERIC, Format::Binary, &bytes, &UNKNOWN);
    }
}

#[test]
fn json_arrays_and_wide_numbers_bind_as_lists() {
    let database = Database::open();
    let wide = "{99999999999999999999.5,0.00000000000000000001}";
    for (oid, text, expected) in [
        (
            oid::JSON_ARRAY,
            r#"{"{\"a\": 1}",NULL}"#,
            r#"{"{\"a\": 1}",NULL}"#,
        ),
        (oid::NUMERIC_ARRAY, wide, "{1e+20,1e-20}"),
        (oid::NUMERIC_ARRAY, "{1.5,22}", "{1.5,22.0}"),
        (oid::INT4_ARRAY, "{{1,2},{3,NULL}}", "{{1,2},{3,NULL}}"),
        (oid::INT4_ARRAY, "{{},{}}", "{{},{}}"),
    ] {
        let value = decode(oid, Format::Text, text.as_bytes(), &UNKNOWN).unwrap();
        let (types, chunks) = database.query_with("select $1", &[value]);
        let mut out = Vec::new();
        let mut encoder = RowEncoder::new(&types, &[], &Settings::default()).unwrap();
        encoder.encode(&chunks[0], 0..1, &mut out).unwrap();
        assert_eq!(std::str::from_utf8(&out[11..]).unwrap(), expected);
    }
}

#[test]
fn an_unknown_oid_is_text_or_refused() {
    assert_eq!(
        shown(&decode(790, Format::Text, b"$5", &UNKNOWN).unwrap()),
        "VARCHAR '$5'"
    );
    assert_eq!(
        decode(790, Format::Binary, b"12345678", &UNKNOWN)
            .unwrap_err()
            .sqlstate(),
        "0A000"
    );
}
