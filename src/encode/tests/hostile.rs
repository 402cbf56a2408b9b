//! Bytes that no honest client sends: every answer is a value or an error,
//! and values that come out can be bound.

use proptest::prelude::*;

use super::*;

fn targets() -> Vec<LogicalType> {
    use LogicalType as T;
    vec![
        T::Unknown,
        T::Boolean,
        T::TinyInt,
        T::UHugeInt,
        T::HugeInt,
        T::Float,
        T::Decimal { width: 5, scale: 2 },
        T::Blob,
        T::Bit,
        T::Uuid,
        T::Date,
        T::Time,
        T::TimeNs,
        T::TimeTz,
        T::Timestamp,
        T::TimestampNs,
        T::TimestampTz,
        T::Interval,
        T::Json,
        T::List(Box::new(T::Integer)),
        T::List(Box::new(T::List(Box::new(T::Interval)))),
        T::Array(Box::new(T::Double), 3),
        T::Struct(vec![("a".to_owned(), T::Integer)]),
        T::Enum(["a".to_owned()].into()),
    ]
}

fn oids() -> Vec<u32> {
    let mut oids: Vec<u32> = FORMS.iter().map(|(_, _, oid, ..)| *oid).collect();
    oids.extend([0, 18, 26, 705, 790, 2205, 3802, 3807, u32::MAX]);
    oids.extend(oids.clone().into_iter().filter_map(oid::array_of));
    oids.sort_unstable();
    oids.dedup();
    oids
}

fn try_decode(oid: u32, format: Format, bytes: &[u8], target: &LogicalType) {
    let settings = settings("Europe/Berlin");
    if let Err(error) = decode_parameter(oid, format, Some(bytes), target, &settings) {
        assert_eq!(error.sqlstate().len(), 5);
        assert!(error.to_string().len() < 2000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_value_or_an_error(
        oid in prop::sample::select(oids()),
        target in prop::sample::select(targets()),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        try_decode(oid, Format::Text, &bytes, &target);
        try_decode(oid, Format::Binary, &bytes, &target);
    }

    #[test]
    fn honest_bytes_with_one_lie_are_a_value_or_an_error(
        form in prop::sample::select(FORMS),
        target in prop::sample::select(targets()),
        at in any::<prop::sample::Index>(),
        lie in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let (_, _, oid, text, binary) = form;
        for (format, mut bytes) in [(Format::Text, text.as_bytes().to_vec()), (Format::Binary, unhex(binary))] {
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            match cut {
                true => bytes.truncate(at),
                false => bytes[at] = lie,
            }
            try_decode(oid, format, &bytes, &target);
            try_decode(0, format, &bytes, &target);
        }
    }

    #[test]
    fn text_made_of_the_right_characters_is_a_value_or_an_error(
        oid in prop::sample::select(oids()),
        target in prop::sample::select(targets()),
        text in "[-+0-9a-zA-Z:./ ,{}\"\\\\é]{0,40}",
        date in "[0-9]{1,9}[-/.]([0-9]{1,9}|jan)[-/.][0-9]{1,9}[ T]?[0-9]{0,9}:?[0-9]{0,9}:?[0-9.]{0,9}[-+]?[0-9:]{0,8}( BC| pm)?",
        interval in "([-+]?[0-9]{1,20}(\\.[0-9]{1,30})? ?(mil|c|y|mon|w|d|h|m|s|ms|us|:[0-9]{1,20}) ?){1,5}(ago)?",
    ) {
        for text in [text, date, interval] {
            try_decode(oid, Format::Text, text.as_bytes(), &target);
        }
    }
}

#[test]
fn deep_and_long_arrays_are_bounded() {
    for text in [
        "{".repeat(100_000),
        "{1,".repeat(100_000),
        format!("{{{}1}}", "1,".repeat(100_000)),
    ] {
        try_decode(
            oid::INT4_ARRAY,
            Format::Text,
            text.as_bytes(),
            &LogicalType::Unknown,
        );
    }
    for text in [
        "1".repeat(1_000_000),
        format!("1e{}", "9".repeat(8)),
        format!("0.{}", "0".repeat(1_000_000)),
    ] {
        for oid in [
            oid::INT8,
            oid::FLOAT8,
            oid::NUMERIC,
            oid::INTERVAL,
            oid::DATE,
            oid::TIMESTAMPTZ,
        ] {
            try_decode(oid, Format::Text, text.as_bytes(), &LogicalType::Unknown);
        }
    }
}
