//! Values of all sizes: binary in, text out, that text in, binary out again,
//! which must be the bytes that it began with.

use proptest::prelude::*;

use super::*;

fn through_duckdb(
    database: &Database,
    values: Vec<Value>,
    format: Format,
    settings: &Settings,
) -> Vec<Vec<u8>> {
    let places: Vec<_> = (1..=values.len()).map(|index| format!("${index}")).collect();
    let (types, chunks) = database.query_with(&format!("select {}", places.join(", ")), &values);
    let row = encode(&types, &chunks, format, settings).unwrap().remove(0);
    row.into_iter().map(|field| field.unwrap()).collect()
}

fn numeric(unscaled: i128, scale: u8) -> Vec<u8> {
    let mut slot = [0; 96];
    let end = number::numeric_binary(&mut slot, 0, unscaled < 0, unscaled.unsigned_abs(), scale);
    slot[..end].to_vec()
}

fn array(element: u32, elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [1, 0, element, elements.len() as u32, 1] {
        bytes.extend(word.to_be_bytes());
    }
    for element in elements {
        bytes.extend((element.len() as u32).to_be_bytes());
        bytes.extend(element);
    }
    bytes
}

prop_compose! {
    fn parameters()(
        small in any::<i16>(),
        int in any::<i32>(),
        big in any::<i64>(),
        float in any::<f32>().prop_filter("a number", |float| !float.is_nan()),
        double in any::<f64>().prop_filter("a number", |double| !double.is_nan()),
        days in -2_400_000i32..2_100_000_000,
        micros in -9_000_000_000_000_000_000i64..8_200_000_000_000_000_000,
        time in 0i64..=86_400_000_000,
        west in -57_599i32..=57_599,
        months in any::<i32>(),
        uuid in any::<[u8; 16]>(),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        text in "[^\\x00]{0,40}",
        unscaled in -(10i128.pow(38) - 1)..10i128.pow(38),
        digits in 0u32..38,
        scale in 0u8..=38,
        bits in prop::collection::vec(any::<bool>(), 1..70),
    ) -> Vec<(u32, Vec<u8>)> {
        let mut packed = vec![0u8; bits.len().div_ceil(8)];
        for (index, bit) in bits.iter().enumerate() {
            packed[index / 8] |= u8::from(*bit) << (7 - index % 8);
        }
        let text = text.into_bytes();
        let unscaled = unscaled / 10i128.pow(digits);
        vec![
            (oid::INT2, small.to_be_bytes().to_vec()),
            (oid::INT4, int.to_be_bytes().to_vec()),
            (oid::INT8, big.to_be_bytes().to_vec()),
            (oid::FLOAT4, float.to_be_bytes().to_vec()),
            (oid::FLOAT8, double.to_be_bytes().to_vec()),
            (oid::DATE, days.to_be_bytes().to_vec()),
            (oid::TIMESTAMP, micros.to_be_bytes().to_vec()),
            (oid::TIMESTAMPTZ, micros.to_be_bytes().to_vec()),
            (oid::TIME, time.to_be_bytes().to_vec()),
            (oid::TIMETZ, [time.to_be_bytes().to_vec(), west.to_be_bytes().to_vec()].concat()),
            (oid::INTERVAL, [big.to_be_bytes().to_vec(), int.to_be_bytes().to_vec(), months.to_be_bytes().to_vec()].concat()),
            (oid::UUID, uuid.to_vec()),
            (oid::BYTEA, bytes.clone()),
            (oid::VARCHAR, text.clone()),
            (oid::NUMERIC, numeric(unscaled, scale)),
            (oid::VARBIT, [(bits.len() as u32).to_be_bytes().to_vec(), packed].concat()),
            (oid::VARCHAR_ARRAY, array(oid::VARCHAR, &[text, b"NULL".to_vec(), b"".to_vec()])),
            (oid::BYTEA_ARRAY, array(oid::BYTEA, &[bytes])),
            (oid::TIMESTAMPTZ_ARRAY, array(oid::TIMESTAMPTZ, &[micros.to_be_bytes().to_vec()])),
            (oid::FLOAT8_ARRAY, array(oid::FLOAT8, &[double.to_be_bytes().to_vec(), 0f64.to_be_bytes().to_vec()])),
            (oid::NUMERIC_ARRAY, array(oid::NUMERIC, &[numeric(unscaled, scale)])),
        ]
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn binary_and_text_lead_to_each_other(
        parameters in parameters(),
        zone in prop::sample::select(&["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"][..]),
    ) {
        let database = Database::open();
        let settings = settings(zone);
        let decode = |format, fields: &[Vec<u8>]| -> Vec<Value> {
            let decode = |(bytes, (oid, _)): (&Vec<u8>, &(u32, Vec<u8>))| {
                match decode_parameter(*oid, format, Some(bytes), &LogicalType::Unknown, &settings) {
                    Ok(value) => value,
                    Err(error) => panic!("{oid} {}: {error}", String::from_utf8_lossy(bytes)),
                }
            };
            fields.iter().zip(&parameters).map(decode).collect()
        };
        let sent: Vec<Vec<u8>> = parameters.iter().map(|(_, bytes)| bytes.clone()).collect();
        let text = through_duckdb(&database, decode(Format::Binary, &sent), Format::Text, &settings);
        let back = through_duckdb(&database, decode(Format::Text, &text), Format::Binary, &settings);
        for (((oid, sent), text), back) in parameters.iter().zip(&text).zip(&back) {
            prop_assert_eq!(hex(sent), hex(back), "{} {}", oid, String::from_utf8_lossy(text));
        }
    }
}
