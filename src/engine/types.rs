//! DuckDB's types as owned values.
//!
//! A [`LogicalType`] is read once per statement and then needs nothing of the
//! database that it came from. Every type id of DuckDB 1.5.5 has a variant;
//! an id of a later version becomes [`LogicalType::Other`], so that a column
//! of an unknown type is an error message and never a wrong cast.

use std::ffi::CString;
use std::fmt;
use std::os::raw::c_char;
use std::sync::Arc;

use duckdb::ffi;

/// The type of a column, a parameter or a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are DuckDB's own")]
pub enum LogicalType {
    /// Not known: a parameter that nothing in the statement gives a type to.
    Unknown,
    Boolean,
    TinyInt,
    SmallInt,
    Integer,
    BigInt,
    HugeInt,
    UTinyInt,
    USmallInt,
    UInteger,
    UBigInt,
    UHugeInt,
    /// An integer of any length.
    BigNum,
    Float,
    Double,
    /// `width` digits in all, 1 to 38, of which `scale` are after the point.
    Decimal {
        width: u8,
        scale: u8,
    },
    Varchar,
    /// A VARCHAR with the alias `JSON`.
    Json,
    Blob,
    Bit,
    Uuid,
    /// The labels, in the order of their codes.
    Enum(Arc<[String]>),
    Date,
    Time,
    TimeNs,
    TimeTz,
    Timestamp,
    TimestampS,
    TimestampMs,
    TimestampNs,
    TimestampTz,
    Interval,
    List(Box<LogicalType>),
    /// A list of always the same length.
    Array(Box<LogicalType>, u64),
    Struct(Vec<(String, LogicalType)>),
    Map(Box<LogicalType>, Box<LogicalType>),
    Union(Vec<(String, LogicalType)>),
    Variant,
    Geometry,
    /// The type of a bare `NULL`.
    SqlNull,
    Any,
    /// A type id that this version does not know.
    Other {
        id: u32,
        name: String,
    },
}

/// The type ids that need no more than their id, and their variants.
const SIMPLE: &[(ffi::duckdb_type, LogicalType)] = {
    use LogicalType as T;
    &[
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_INVALID, T::Unknown),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN, T::Boolean),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TINYINT, T::TinyInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_SMALLINT, T::SmallInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER, T::Integer),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT, T::BigInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT, T::HugeInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_UTINYINT, T::UTinyInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_USMALLINT, T::USmallInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_UINTEGER, T::UInteger),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT, T::UBigInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_UHUGEINT, T::UHugeInt),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGNUM, T::BigNum),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_FLOAT, T::Float),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE, T::Double),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR, T::Varchar),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_BLOB, T::Blob),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIT, T::Bit),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_UUID, T::Uuid),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_DATE, T::Date),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME, T::Time),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_NS, T::TimeNs),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_TZ, T::TimeTz),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP, T::Timestamp),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_S, T::TimestampS),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_MS, T::TimestampMs),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_NS, T::TimestampNs),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ, T::TimestampTz),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTERVAL, T::Interval),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARIANT, T::Variant),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_GEOMETRY, T::Geometry),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_SQLNULL, T::SqlNull),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_ANY, T::Any),
        // The types of literals before binding; they read like this once bound.
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_STRING_LITERAL, T::Varchar),
        (ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER_LITERAL, T::Integer),
    ]
};

impl LogicalType {
    /// Reads a type, with all that it is made of.
    ///
    /// # Safety
    /// `raw` is null (which gives `Unknown`) or a live logical type; it is
    /// borrowed for the call.
    pub unsafe fn from_raw(raw: ffi::duckdb_logical_type) -> Self {
        if raw.is_null() {
            return Self::Unknown;
        }
        // SAFETY: `raw` is live by this function's contract. Every type and
        // string that the calls return is owned here and freed by its guard,
        // and each accessor is called for the type id that it is made for.
        unsafe {
            let child = |raw| LogicalType::from_raw(RawType::adopt(raw).as_raw());
            match ffi::duckdb_get_type_id(raw) {
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_DECIMAL => Self::Decimal {
                    width: ffi::duckdb_decimal_width(raw),
                    scale: ffi::duckdb_decimal_scale(raw),
                },
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_ENUM => Self::Enum(
                    (0..u64::from(ffi::duckdb_enum_dictionary_size(raw)))
                        .map(|index| take_string(ffi::duckdb_enum_dictionary_value(raw, index)))
                        .collect(),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_LIST => {
                    Self::List(Box::new(child(ffi::duckdb_list_type_child_type(raw))))
                }
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_ARRAY => Self::Array(
                    Box::new(child(ffi::duckdb_array_type_child_type(raw))),
                    ffi::duckdb_array_type_array_size(raw),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_MAP => Self::Map(
                    Box::new(child(ffi::duckdb_map_type_key_type(raw))),
                    Box::new(child(ffi::duckdb_map_type_value_type(raw))),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_STRUCT => Self::Struct(
                    (0..ffi::duckdb_struct_type_child_count(raw))
                        .map(|index| {
                            let name = take_string(ffi::duckdb_struct_type_child_name(raw, index));
                            (name, child(ffi::duckdb_struct_type_child_type(raw, index)))
                        })
                        .collect(),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UNION => Self::Union(
                    (0..ffi::duckdb_union_type_member_count(raw))
                        .map(|index| {
                            let name = take_string(ffi::duckdb_union_type_member_name(raw, index));
                            (name, child(ffi::duckdb_union_type_member_type(raw, index)))
                        })
                        .collect(),
                ),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR => {
                    match take_string(ffi::duckdb_logical_type_get_alias(raw)).as_str() {
                        "JSON" => Self::Json,
                        _ => Self::Varchar,
                    }
                }
                id => SIMPLE
                    .iter()
                    .find(|(simple, _)| *simple == id)
                    .map(|(_, known)| known.clone())
                    .unwrap_or_else(|| Self::Other {
                        id,
                        name: take_string(ffi::duckdb_logical_type_get_alias(raw)),
                    }),
            }
        }
    }

    /// Builds DuckDB's own object of this type; `None` for what cannot be the
    /// type of a value (`Unknown`, `Any`, `Other`, a name with a NUL in it).
    pub(crate) fn to_raw(&self) -> Option<RawType> {
        // SAFETY: the guards keep every argument alive for its call, the
        // arrays have the length that is passed beside them, and DuckDB copies
        // what it is given.
        let raw = unsafe {
            match self {
                Self::Unknown | Self::Any | Self::Other { .. } => return None,
                Self::Decimal { width, scale } => ffi::duckdb_create_decimal_type(*width, *scale),
                Self::Json => {
                    let json = ffi::duckdb_create_logical_type(ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR);
                    ffi::duckdb_logical_type_set_alias(json, c"JSON".as_ptr());
                    json
                }
                Self::Enum(labels) => {
                    let labels = c_strings(labels.iter())?;
                    let mut names: Vec<*const c_char> = labels.iter().map(|label| label.as_ptr()).collect();
                    ffi::duckdb_create_enum_type(names.as_mut_ptr(), names.len() as u64)
                }
                Self::List(child) => ffi::duckdb_create_list_type(child.to_raw()?.as_raw()),
                Self::Array(child, size) => ffi::duckdb_create_array_type(child.to_raw()?.as_raw(), *size),
                Self::Map(key, value) => {
                    let (key, value) = (key.to_raw()?, value.to_raw()?);
                    ffi::duckdb_create_map_type(key.as_raw(), value.as_raw())
                }
                Self::Struct(fields) | Self::Union(fields) => {
                    let types: Vec<RawType> = fields
                        .iter()
                        .map(|(_, field)| field.to_raw())
                        .collect::<Option<_>>()?;
                    let mut types_raw: Vec<_> = types.iter().map(RawType::as_raw).collect();
                    let names = c_strings(fields.iter().map(|(name, _)| name))?;
                    let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
                    let create = match self {
                        Self::Struct(_) => ffi::duckdb_create_struct_type,
                        _ => ffi::duckdb_create_union_type,
                    };
                    create(types_raw.as_mut_ptr(), names.as_mut_ptr(), names.len() as u64)
                }
                simple => {
                    let (id, _) = SIMPLE.iter().find(|(_, known)| known == simple)?;
                    ffi::duckdb_create_logical_type(*id)
                }
            }
        };
        // SAFETY: `raw` was just created and is owned by nobody else.
        (!raw.is_null()).then(|| unsafe { RawType::adopt(raw) })
    }
}

fn c_strings<'a>(strings: impl Iterator<Item = &'a String>) -> Option<Vec<CString>> {
    strings
        .map(|string| CString::new(string.as_bytes()).ok())
        .collect()
}

/// Copies a string that DuckDB allocated and frees it; empty for null.
///
/// # Safety
/// `raw` is null or a NUL-terminated string that is ours to free.
unsafe fn take_string(raw: *mut c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract; `raw` is not used after the free.
    unsafe {
        let string = std::ffi::CStr::from_ptr(raw).to_string_lossy().into_owned();
        ffi::duckdb_free(raw.cast());
        string
    }
}

/// Owns a `duckdb_logical_type`.
pub(crate) struct RawType(ffi::duckdb_logical_type);

impl RawType {
    /// # Safety
    /// `raw` is null or a live logical type that the caller owns and gives up.
    pub(crate) unsafe fn adopt(raw: ffi::duckdb_logical_type) -> Self {
        Self(raw)
    }

    /// The type, borrowed.
    pub(crate) fn as_raw(&self) -> ffi::duckdb_logical_type {
        self.0
    }
}

impl Drop for RawType {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once; null is allowed.
        unsafe { ffi::duckdb_destroy_logical_type(&mut self.0) }
    }
}

/// The type as DuckDB's SQL spells it, so that it can stand in a cast.
impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |f: &mut fmt::Formatter<'_>, head: &str, fields: &[(String, LogicalType)]| {
            write!(f, "{head}(")?;
            for (index, (name, field)) in fields.iter().enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                write!(f, "{separator}\"{}\" {field}", name.replace('"', "\"\""))?;
            }
            f.write_str(")")
        };
        let name = match self {
            Self::Decimal { width, scale } => return write!(f, "DECIMAL({width},{scale})"),
            Self::Enum(labels) => {
                f.write_str("ENUM(")?;
                for (index, label) in labels.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}'{}'", label.replace('\'', "''"))?;
                }
                ")"
            }
            Self::List(child) => return write!(f, "{child}[]"),
            Self::Array(child, size) => return write!(f, "{child}[{size}]"),
            Self::Struct(members) => return fields(f, "STRUCT", members),
            Self::Union(members) => return fields(f, "UNION", members),
            Self::Map(key, value) => return write!(f, "MAP({key}, {value})"),
            Self::Other { id, name } if name.is_empty() => return write!(f, "type {id}"),
            Self::Other { name, .. } => name,
            Self::Unknown => "UNKNOWN",
            Self::Boolean => "BOOLEAN",
            Self::TinyInt => "TINYINT",
            Self::SmallInt => "SMALLINT",
            Self::Integer => "INTEGER",
            Self::BigInt => "BIGINT",
            Self::HugeInt => "HUGEINT",
            Self::UTinyInt => "UTINYINT",
            Self::USmallInt => "USMALLINT",
            Self::UInteger => "UINTEGER",
            Self::UBigInt => "UBIGINT",
            Self::UHugeInt => "UHUGEINT",
            Self::BigNum => "BIGNUM",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Varchar => "VARCHAR",
            Self::Json => "JSON",
            Self::Blob => "BLOB",
            Self::Bit => "BIT",
            Self::Uuid => "UUID",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::TimeNs => "TIME_NS",
            Self::TimeTz => "TIME WITH TIME ZONE",
            Self::Timestamp => "TIMESTAMP",
            Self::TimestampS => "TIMESTAMP_S",
            Self::TimestampMs => "TIMESTAMP_MS",
            Self::TimestampNs => "TIMESTAMP_NS",
            Self::TimestampTz => "TIMESTAMP WITH TIME ZONE",
            Self::Interval => "INTERVAL",
            Self::Variant => "VARIANT",
            Self::Geometry => "GEOMETRY",
            Self::SqlNull => "\"NULL\"",
            Self::Any => "ANY",
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Database;

    #[test]
    fn every_type_survives_the_way_to_duckdb_and_back_and_its_sql_name_is_accepted() {
        let database = Database::open();
        let names = [
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INTEGER",
            "BIGINT",
            "HUGEINT",
            "UTINYINT",
            "USMALLINT",
            "UINTEGER",
            "UBIGINT",
            "UHUGEINT",
            "BIGNUM",
            "FLOAT",
            "DOUBLE",
            "DECIMAL(4,1)",
            "DECIMAL(38,10)",
            "VARCHAR",
            "JSON",
            "BLOB",
            "BIT",
            "UUID",
            "ENUM('a', 'it''s')",
            "DATE",
            "TIME",
            "TIME_NS",
            "TIME WITH TIME ZONE",
            "TIMESTAMP",
            "TIMESTAMP_S",
            "TIMESTAMP_MS",
            "TIMESTAMP_NS",
            "TIMESTAMP WITH TIME ZONE",
            "INTERVAL",
            "INTEGER[]",
            "VARCHAR[][]",
            "FLOAT[3]",
            "STRUCT(\"a\" INTEGER, \"b \"\"c\"\"\" VARCHAR[])",
            "MAP(VARCHAR, DATE)",
            "UNION(\"num\" INTEGER, \"str\" VARCHAR)",
            "VARIANT",
        ];
        for name in names {
            let (types, _) = database.query(&format!("select null::{name} as x"));
            assert_eq!(types[0].to_string(), name);
            let raw = types[0].to_raw().unwrap();
            // SAFETY: `raw` is alive.
            assert_eq!(unsafe { LogicalType::from_raw(raw.as_raw()) }, types[0], "{name}");
        }
        assert_eq!(database.query("select '{}'::json").0, [LogicalType::Json]);
    }
}
