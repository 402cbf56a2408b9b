//! How the text or the bytes of a parameter are to be read.

use crate::encode::oid;
use crate::engine::LogicalType;

/// The forms that input can have. Integer types that PostgreSQL lacks are
/// here because a parameter may be read as the type that DuckDB deduced.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Bool,
    Int1,
    Int2,
    Int4,
    Int8,
    Huge,
    UInt1,
    UInt2,
    UInt4,
    UInt8,
    UHuge,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Char,
    Json,
    Jsonb,
    Bytea,
    Bit,
    Uuid,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Array(Box<Kind>),
}

impl Kind {
    pub(super) fn of_oid(oid: u32) -> Option<Self> {
        Some(match oid {
            oid::BOOL => Self::Bool,
            oid::INT2 => Self::Int2,
            oid::INT4 => Self::Int4,
            oid::INT8 => Self::Int8,
            oid::OID => Self::Oid,
            oid::FLOAT4 => Self::Float4,
            oid::FLOAT8 => Self::Float8,
            oid::NUMERIC => Self::Numeric,
            oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME => Self::Text,
            oid::CHAR => Self::Char,
            oid::JSON => Self::Json,
            oid::JSONB => Self::Jsonb,
            oid::BYTEA => Self::Bytea,
            oid::BIT | oid::VARBIT => Self::Bit,
            oid::UUID => Self::Uuid,
            oid::DATE => Self::Date,
            oid::TIME => Self::Time,
            oid::TIMETZ => Self::TimeTz,
            oid::TIMESTAMP => Self::Timestamp,
            oid::TIMESTAMPTZ => Self::TimestampTz,
            oid::INTERVAL => Self::Interval,
            array => Self::Array(Box::new(Self::of_oid(oid::element_of(array)?)?)),
        })
    }

    /// `None` for what DuckDB should cast from text itself.
    pub(super) fn of_type(logical: &LogicalType) -> Option<Self> {
        use LogicalType as T;
        Some(match logical {
            T::Boolean => Self::Bool,
            T::TinyInt => Self::Int1,
            T::SmallInt => Self::Int2,
            T::Integer => Self::Int4,
            T::BigInt => Self::Int8,
            T::HugeInt => Self::Huge,
            T::UTinyInt => Self::UInt1,
            T::USmallInt => Self::UInt2,
            T::UInteger => Self::UInt4,
            T::UBigInt => Self::UInt8,
            T::UHugeInt => Self::UHuge,
            T::Float => Self::Float4,
            T::Double => Self::Float8,
            T::Decimal { .. } => Self::Numeric,
            T::Varchar => Self::Text,
            T::Json => Self::Json,
            T::Blob => Self::Bytea,
            T::Bit => Self::Bit,
            T::Uuid => Self::Uuid,
            T::Date => Self::Date,
            T::Time => Self::Time,
            T::TimeTz => Self::TimeTz,
            T::Timestamp | T::TimestampS | T::TimestampMs => Self::Timestamp,
            T::TimestampTz => Self::TimestampTz,
            T::Interval => Self::Interval,
            T::List(child) | T::Array(child, _) => match Self::of_type(child)? {
                // PostgreSQL's array text has no levels of types.
                Self::Array(element) => Self::Array(element),
                element => Self::Array(Box::new(element)),
            },
            // What is finer than microseconds only DuckDB reads, as all that
            // PostgreSQL has no type for.
            T::TimestampNs
            | T::TimeNs
            | T::BigNum
            | T::Enum(_)
            | T::Struct(_)
            | T::Map(..)
            | T::Union(_)
            | T::Variant
            | T::Geometry
            | T::SqlNull
            | T::Any
            | T::Unknown
            | T::Other { .. } => return None,
        })
    }

    /// The type's name in messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int1 => "tinyint",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Huge => "hugeint",
            Self::UInt1 => "utinyint",
            Self::UInt2 => "usmallint",
            Self::UInt4 => "uinteger",
            Self::UInt8 => "ubigint",
            Self::UHuge => "uhugeint",
            Self::Oid => "oid",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Char => "\"char\"",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Bytea => "bytea",
            Self::Bit => "bit varying",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Time => "time",
            Self::TimeTz => "time with time zone",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamp with time zone",
            Self::Interval => "interval",
            Self::Array(_) => "array",
        }
    }

    /// The DuckDB type of values of this kind.
    pub(super) fn natural_type(&self) -> LogicalType {
        use LogicalType as T;
        match self {
            Self::Bool => T::Boolean,
            Self::Int1 => T::TinyInt,
            Self::Int2 => T::SmallInt,
            Self::Int4 => T::Integer,
            Self::Int8 => T::BigInt,
            Self::Huge => T::HugeInt,
            Self::UInt1 => T::UTinyInt,
            Self::UInt2 => T::USmallInt,
            Self::UInt4 | Self::Oid => T::UInteger,
            Self::UInt8 => T::UBigInt,
            Self::UHuge => T::UHugeInt,
            Self::Float4 => T::Float,
            Self::Float8 => T::Double,
            Self::Numeric => T::Decimal { width: 38, scale: 0 },
            Self::Text | Self::Char => T::Varchar,
            Self::Json | Self::Jsonb => T::Json,
            Self::Bytea => T::Blob,
            Self::Bit => T::Bit,
            Self::Uuid => T::Uuid,
            Self::Date => T::Date,
            Self::Time => T::Time,
            Self::TimeTz => T::TimeTz,
            Self::Timestamp => T::Timestamp,
            Self::TimestampTz => T::TimestampTz,
            Self::Interval => T::Interval,
            Self::Array(element) => T::List(Box::new(element.natural_type())),
        }
    }
}
