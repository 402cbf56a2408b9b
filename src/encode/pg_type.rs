//! Which PostgreSQL type stands for which DuckDB type.

use crate::engine::LogicalType;

/// Object ids of PostgreSQL's built-in types (`pg_type.dat`), by their names.
#[allow(missing_docs)]
pub mod oid {
    macro_rules! oids {
        ($($name:ident $oid:literal $array:ident $array_oid:literal;)+) => {
            $(pub const $name: u32 = $oid; pub const $array: u32 = $array_oid;)+
            /// The element type of an array type and the reverse.
            const ARRAYS: &[(u32, u32)] = &[$(($oid, $array_oid)),+];
        };
    }
    oids! {
        BOOL 16 BOOL_ARRAY 1000;
        BYTEA 17 BYTEA_ARRAY 1001;
        CHAR 18 CHAR_ARRAY 1002;
        NAME 19 NAME_ARRAY 1003;
        INT8 20 INT8_ARRAY 1016;
        INT2 21 INT2_ARRAY 1005;
        INT4 23 INT4_ARRAY 1007;
        REGPROC 24 REGPROC_ARRAY 1008;
        TEXT 25 TEXT_ARRAY 1009;
        OID 26 OID_ARRAY 1028;
        JSON 114 JSON_ARRAY 199;
        FLOAT4 700 FLOAT4_ARRAY 1021;
        FLOAT8 701 FLOAT8_ARRAY 1022;
        BPCHAR 1042 BPCHAR_ARRAY 1014;
        VARCHAR 1043 VARCHAR_ARRAY 1015;
        DATE 1082 DATE_ARRAY 1182;
        TIME 1083 TIME_ARRAY 1183;
        TIMESTAMP 1114 TIMESTAMP_ARRAY 1115;
        TIMESTAMPTZ 1184 TIMESTAMPTZ_ARRAY 1185;
        INTERVAL 1186 INTERVAL_ARRAY 1187;
        TIMETZ 1266 TIMETZ_ARRAY 1270;
        BIT 1560 BIT_ARRAY 1561;
        VARBIT 1562 VARBIT_ARRAY 1563;
        NUMERIC 1700 NUMERIC_ARRAY 1231;
        REGCLASS 2205 REGCLASS_ARRAY 2210;
        REGTYPE 2206 REGTYPE_ARRAY 2211;
        UUID 2950 UUID_ARRAY 2951;
        JSONB 3802 JSONB_ARRAY 3807;
    }
    pub const UNKNOWN: u32 = 705;

    /// The array type with these elements.
    pub fn array_of(element: u32) -> Option<u32> {
        ARRAYS
            .iter()
            .find(|(known, _)| *known == element)
            .map(|(_, array)| *array)
    }

    /// The type of the elements of this array type.
    pub fn element_of(array: u32) -> Option<u32> {
        ARRAYS
            .iter()
            .find(|(_, known)| *known == array)
            .map(|(element, _)| *element)
    }
}

/// What a `RowDescription` says about the type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgType {
    /// The type's object id.
    pub oid: u32,
    /// Bytes of a value, -1 when it varies (`pg_type.typlen`).
    pub size: i16,
    /// The type modifier; -1 is none. For `numeric(p,s)` it is `((p << 16) | s) + 4`.
    pub modifier: i32,
}

/// The PostgreSQL type that values of this type are sent as. Types that
/// cannot be sent ([`super::RowEncoder::new`] says so) are described as text.
pub fn pg_type(logical: &LogicalType) -> PgType {
    use LogicalType as T;
    let (oid, size) = match logical {
        T::Boolean => (oid::BOOL, 1),
        T::TinyInt | T::UTinyInt | T::SmallInt => (oid::INT2, 2),
        T::USmallInt | T::Integer => (oid::INT4, 4),
        T::UInteger | T::BigInt => (oid::INT8, 8),
        T::UBigInt | T::HugeInt | T::UHugeInt | T::BigNum => (oid::NUMERIC, -1),
        T::Decimal { width, scale } => {
            let modifier = ((i32::from(*width) << 16) | i32::from(*scale)) + 4;
            return PgType {
                oid: oid::NUMERIC,
                size: -1,
                modifier,
            };
        }
        T::Float => (oid::FLOAT4, 4),
        T::Double => (oid::FLOAT8, 8),
        T::Varchar => (oid::VARCHAR, -1),
        T::Json | T::Struct(_) | T::Map(..) | T::Union(_) => (oid::JSON, -1),
        T::Blob => (oid::BYTEA, -1),
        T::Bit => (oid::VARBIT, -1),
        T::Uuid => (oid::UUID, 16),
        T::Date => (oid::DATE, 4),
        T::Time | T::TimeNs => (oid::TIME, 8),
        T::TimeTz => (oid::TIMETZ, 12),
        T::Timestamp | T::TimestampS | T::TimestampMs | T::TimestampNs => (oid::TIMESTAMP, 8),
        T::TimestampTz => (oid::TIMESTAMPTZ, 8),
        T::Interval => (oid::INTERVAL, 16),
        T::List(child) | T::Array(child, _) => {
            // PostgreSQL has one array type for all numbers of dimensions.
            let PgType { oid, modifier, .. } = pg_type(child);
            let oid = match oid::element_of(oid) {
                Some(_) => oid,
                None => oid::array_of(oid).unwrap_or(oid::TEXT_ARRAY),
            };
            return PgType {
                oid,
                size: -1,
                modifier,
            };
        }
        T::Enum(_) | T::SqlNull | T::Unknown | T::Variant | T::Geometry | T::Any | T::Other { .. } => {
            (oid::TEXT, -1)
        }
    };
    PgType {
        oid,
        size,
        modifier: -1,
    }
}

/// The DuckDB type of a parameter that a client declared with this oid.
///
/// `None` for a type that we do not know, for `unknown`, and for `numeric`,
/// whose every value brings its own scale: a cast to any one DECIMAL would
/// round some of them.
pub fn type_for_oid(oid: u32) -> Option<LogicalType> {
    use LogicalType as T;
    Some(match oid {
        oid::BOOL => T::Boolean,
        oid::INT2 => T::SmallInt,
        oid::INT4 => T::Integer,
        oid::INT8 => T::BigInt,
        oid::OID | oid::REGPROC | oid::REGCLASS | oid::REGTYPE => T::UInteger,
        oid::FLOAT4 => T::Float,
        oid::FLOAT8 => T::Double,
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::CHAR => T::Varchar,
        oid::BYTEA => T::Blob,
        oid::JSON | oid::JSONB => T::Json,
        oid::DATE => T::Date,
        oid::TIME => T::Time,
        oid::TIMETZ => T::TimeTz,
        oid::TIMESTAMP => T::Timestamp,
        oid::TIMESTAMPTZ => T::TimestampTz,
        oid::INTERVAL => T::Interval,
        oid::UUID => T::Uuid,
        oid::BIT | oid::VARBIT => T::Bit,
        array => return Some(T::List(Box::new(type_for_oid(oid::element_of(array)?)?))),
    })
}

/// The type as SQL spells it in a cast, such as `DECIMAL(18,2)` or `INTEGER[]`.
pub fn sql_name(logical: &LogicalType) -> String {
    logical.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_lists_are_one_array_type_with_the_modifier_of_the_element() {
        let decimal = LogicalType::Decimal { width: 18, scale: 2 };
        let nested = LogicalType::List(Box::new(LogicalType::Array(Box::new(decimal), 3)));
        assert_eq!(
            pg_type(&nested),
            PgType {
                oid: 1231,
                size: -1,
                modifier: ((18 << 16) | 2) + 4
            }
        );
        let structs = LogicalType::List(Box::new(LogicalType::Struct(vec![])));
        assert_eq!(pg_type(&structs).oid, 199);
    }

    #[test]
    fn declared_types_come_back_as_what_they_were_declared_as() {
        for oid in [
            16, 17, 20, 21, 23, 114, 700, 701, 1082, 1083, 1114, 1184, 1186, 1266, 1562, 2950, 1007,
        ] {
            assert_eq!(pg_type(&type_for_oid(oid).unwrap()).oid, oid);
        }
        assert_eq!(type_for_oid(oid::NUMERIC), None);
        assert_eq!(type_for_oid(oid::NUMERIC_ARRAY), None);
        assert_eq!(type_for_oid(0), None);
    }
}
