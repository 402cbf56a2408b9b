//! A column of one chunk, resolved: slices of the type that the memory has,
//! beside what the logical type adds to them.
//!
//! Resolving costs a few calls per column and chunk; after it a value is one
//! `match` away.

use super::EncodeError;
use super::Settings;
use super::time::Zone;
use crate::engine::chunk::Native;
use crate::engine::{HugeInt, Interval, ListEntry, LogicalType, Strings, UHugeInt, Validity, Vector};

pub(super) struct Column<'a> {
    pub(super) validity: Validity<'a>,
    pub(super) data: Data<'a>,
}

/// The values of a column; the value of a null row is anything.
pub(super) enum Data<'a> {
    Bool(&'a [u8]),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    I128(&'a [HugeInt]),
    U128(&'a [UHugeInt]),
    BigNum(Strings<'a>),
    F32(&'a [f32]),
    F64(&'a [f64]),
    Decimal16(&'a [i16], u8),
    Decimal32(&'a [i32], u8),
    Decimal64(&'a [i64], u8),
    Decimal128(&'a [HugeInt], u8),
    Text(Strings<'a>),
    Json(Strings<'a>),
    Blob(Strings<'a>),
    Bit(Strings<'a>),
    Uuid(&'a [HugeInt]),
    Enum8(&'a [u8], &'a [String]),
    Enum16(&'a [u16], &'a [String]),
    Enum32(&'a [u32], &'a [String]),
    Date(&'a [i32]),
    /// Microseconds; nanoseconds for the divisor 1000.
    Time(&'a [i64], i64),
    TimeTz(&'a [u64]),
    Timestamp(&'a [i64], Unit),
    TimestampTz(&'a [i64]),
    Interval(&'a [Interval]),
    List(&'a [ListEntry], Box<Column<'a>>),
    Array(usize, Box<Column<'a>>),
    Struct(Vec<(&'a str, Column<'a>)>),
    Map(&'a [ListEntry], Box<(Column<'a>, Column<'a>)>),
    /// The position of the member that has the value, and the members.
    Union(&'a [u8], Vec<Column<'a>>),
    Null,
}

/// What a timestamp counts.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// The timestamp in microseconds, the infinities unchanged. What is finer
    /// than PostgreSQL's timestamps is cut off, as DuckDB's own cast does.
    #[inline(always)]
    pub(super) fn micros(self, count: i64) -> i64 {
        const INFINITY: i64 = i64::MAX;
        let factor = match self {
            Self::Micros => return count,
            _ if count == INFINITY || count == -INFINITY => return count,
            Self::Nanos => return count.div_euclid(1000),
            Self::Seconds => 1_000_000,
            Self::Millis => 1_000,
        };
        count.saturating_mul(factor)
    }
}

/// The outcome of writing a value. Boxed, so that the way without an error
/// costs one register.
pub(super) type Step = Result<(), Box<EncodeError>>;

/// What writing a value needs besides the value.
pub(super) struct Context {
    pub(super) zone: Zone,
    pub(super) extra_float_digits: i32,
    /// For values that are escaped after they were written.
    pub(super) scratch: Vec<u8>,
}

impl Context {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            zone: Zone::new(&settings.time_zone),
            extra_float_digits: settings.extra_float_digits,
            scratch: Vec::new(),
        }
    }

    pub(super) fn another(&self) -> Self {
        Self {
            zone: self.zone.clone(),
            extra_float_digits: self.extra_float_digits,
            scratch: Vec::new(),
        }
    }
}

/// Whether values of this type can be sent at all.
pub(super) fn check(logical: &LogicalType) -> Result<(), EncodeError> {
    use LogicalType as T;
    match logical {
        T::Unknown | T::Variant | T::Geometry | T::Any | T::Other { .. } => {
            Err(EncodeError::UnsupportedType(logical.to_string()))
        }
        T::List(child) | T::Array(child, _) => check(child),
        T::Struct(fields) | T::Union(fields) => fields.iter().try_for_each(|(_, field)| check(field)),
        T::Map(key, value) => check(key).and_then(|()| check(value)),
        _ => Ok(()),
    }
}

impl<'a> Column<'a> {
    /// Resolves a vector that is described as being of this type.
    pub(super) fn resolve(vector: Vector<'a>, logical: &'a LogicalType) -> Result<Self, EncodeError> {
        use LogicalType as T;
        let mismatch = || EncodeError::TypeMismatch(logical.to_string());
        let strings = || vector.strings().ok_or_else(mismatch);
        let data = match logical {
            T::Boolean => Data::Bool(values(vector, logical)?),
            T::TinyInt => Data::I8(values(vector, logical)?),
            T::SmallInt => Data::I16(values(vector, logical)?),
            T::Integer => Data::I32(values(vector, logical)?),
            T::BigInt => Data::I64(values(vector, logical)?),
            T::UTinyInt => Data::U8(values(vector, logical)?),
            T::USmallInt => Data::U16(values(vector, logical)?),
            T::UInteger => Data::U32(values(vector, logical)?),
            T::UBigInt => Data::U64(values(vector, logical)?),
            T::HugeInt => Data::I128(values(vector, logical)?),
            T::UHugeInt => Data::U128(values(vector, logical)?),
            T::BigNum => Data::BigNum(strings()?),
            T::Float => Data::F32(values(vector, logical)?),
            T::Double => Data::F64(values(vector, logical)?),
            T::Decimal { width, scale } => match width {
                0..=4 => Data::Decimal16(values(vector, logical)?, *scale),
                5..=9 => Data::Decimal32(values(vector, logical)?, *scale),
                10..=18 => Data::Decimal64(values(vector, logical)?, *scale),
                _ => Data::Decimal128(values(vector, logical)?, *scale),
            },
            T::Varchar => Data::Text(strings()?),
            T::Json => Data::Json(strings()?),
            T::Blob => Data::Blob(strings()?),
            T::Bit => Data::Bit(strings()?),
            T::Uuid => Data::Uuid(values(vector, logical)?),
            T::Enum(labels) => match labels.len() {
                0..=0xff => Data::Enum8(values(vector, logical)?, labels),
                0x100..=0xffff => Data::Enum16(values(vector, logical)?, labels),
                _ => Data::Enum32(values(vector, logical)?, labels),
            },
            T::Date => Data::Date(values(vector, logical)?),
            T::Time => Data::Time(values(vector, logical)?, 1),
            T::TimeNs => Data::Time(values(vector, logical)?, 1000),
            T::TimeTz => Data::TimeTz(values(vector, logical)?),
            T::Timestamp => Data::Timestamp(values(vector, logical)?, Unit::Micros),
            T::TimestampS => Data::Timestamp(values(vector, logical)?, Unit::Seconds),
            T::TimestampMs => Data::Timestamp(values(vector, logical)?, Unit::Millis),
            T::TimestampNs => Data::Timestamp(values(vector, logical)?, Unit::Nanos),
            T::TimestampTz => Data::TimestampTz(values(vector, logical)?),
            T::Interval => Data::Interval(values(vector, logical)?),
            T::List(child) => {
                let (entries, elements) = vector.list().ok_or_else(mismatch)?;
                Data::List(entries, Box::new(Self::resolve(elements, child)?))
            }
            T::Array(child, size) => match vector.array() {
                Some((actual, elements)) if actual as u64 == *size => {
                    Data::Array(actual, Box::new(Self::resolve(elements, child)?))
                }
                _ => return Err(mismatch()),
            },
            T::Struct(fields) => Data::Struct(
                fields
                    .iter()
                    .enumerate()
                    .map(|(index, (name, field))| {
                        let vector = vector.field(index).ok_or_else(mismatch)?;
                        Ok((name.as_str(), Self::resolve(vector, field)?))
                    })
                    .collect::<Result<_, EncodeError>>()?,
            ),
            T::Map(key, value) => {
                let (entries, pairs) = vector.list().ok_or_else(mismatch)?;
                let keys = Self::resolve(pairs.field(0).ok_or_else(mismatch)?, key)?;
                let values = Self::resolve(pairs.field(1).ok_or_else(mismatch)?, value)?;
                Data::Map(entries, Box::new((keys, values)))
            }
            T::Union(members) => {
                let tags = values(vector.field(0).ok_or_else(mismatch)?, logical)?;
                let members = members
                    .iter()
                    .enumerate()
                    .map(|(index, (_, member))| {
                        Self::resolve(vector.field(index + 1).ok_or_else(mismatch)?, member)
                    })
                    .collect::<Result<_, EncodeError>>()?;
                Data::Union(tags, members)
            }
            T::SqlNull => Data::Null,
            T::Unknown | T::Variant | T::Geometry | T::Any | T::Other { .. } => {
                return Err(EncodeError::UnsupportedType(logical.to_string()));
            }
        };
        Ok(Self {
            validity: vector.validity(),
            data,
        })
    }

    /// Whether the row has no value.
    #[inline(always)]
    pub(super) fn is_null(&self, row: usize) -> bool {
        !self.validity.is_valid(row)
    }

    /// For a list or an array: the elements of a row, and their column.
    pub(super) fn elements(&self, row: usize) -> Option<(std::ops::Range<usize>, &Column<'a>)> {
        match &self.data {
            Data::List(entries, child) => Some((range(entries[row]), child)),
            Data::Array(size, child) => Some((row * size..(row + 1) * size, child)),
            _ => None,
        }
    }
}

/// The rows of the child that belong to a list.
pub(super) fn range(entry: ListEntry) -> std::ops::Range<usize> {
    let start = entry.offset as usize;
    start..start + entry.length as usize
}

fn values<'a, T: Native>(vector: Vector<'a>, logical: &LogicalType) -> Result<&'a [T], EncodeError> {
    vector
        .values()
        .ok_or_else(|| EncodeError::TypeMismatch(logical.to_string()))
}
