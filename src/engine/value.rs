//! A single value, as parameters are bound.

use duckdb::ffi;

use super::chunk::Interval;
use super::types::{LogicalType, RawType};

/// An owned DuckDB value.
pub struct Value(ffi::duckdb_value);

// SAFETY: a value is plain memory, tied to no thread and to no connection, and
// nothing here changes it.
unsafe impl Send for Value {}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident($parameter:ident: $type:ty) = $create:ident($($argument:expr),+);)+) => {$(
        $(#[$doc])*
        pub fn $name($parameter: $type) -> Self {
            // SAFETY: passes plain data; the value that comes back is ours.
            unsafe { Self::adopt(ffi::$create($($argument),+)) }
        }
    )+};
}

impl Value {
    constructors! {
        /// A BOOLEAN.
        boolean(value: bool) = duckdb_create_bool(value);
        /// A TINYINT.
        tinyint(value: i8) = duckdb_create_int8(value);
        /// A SMALLINT.
        smallint(value: i16) = duckdb_create_int16(value);
        /// An INTEGER.
        integer(value: i32) = duckdb_create_int32(value);
        /// A BIGINT.
        bigint(value: i64) = duckdb_create_int64(value);
        /// A UTINYINT.
        utinyint(value: u8) = duckdb_create_uint8(value);
        /// A USMALLINT.
        usmallint(value: u16) = duckdb_create_uint16(value);
        /// A UINTEGER.
        uinteger(value: u32) = duckdb_create_uint32(value);
        /// A UBIGINT.
        ubigint(value: u64) = duckdb_create_uint64(value);
        /// A HUGEINT.
        hugeint(value: i128) = duckdb_create_hugeint(huge(value));
        /// A UHUGEINT.
        uhugeint(value: u128) = duckdb_create_uhugeint(unsigned_huge(value));
        /// A FLOAT.
        float(value: f32) = duckdb_create_float(value);
        /// A DOUBLE.
        double(value: f64) = duckdb_create_double(value);
        /// A UUID, its 16 bytes read as a big-endian number.
        uuid(value: u128) = duckdb_create_uuid(unsigned_huge(value));
        /// A DATE, in days since 1970-01-01; `i32::MAX` and `-i32::MAX` are the infinities.
        date(days: i32) = duckdb_create_date(ffi::duckdb_date { days });
        /// A TIME, in microseconds since midnight.
        time(micros: i64) = duckdb_create_time(ffi::duckdb_time { micros });
        /// A TIME_NS, in nanoseconds since midnight.
        time_ns(nanos: i64) = duckdb_create_time_ns(ffi::duckdb_time_ns { nanos });
        /// A TIMESTAMP, in microseconds since 1970; `i64::MAX` and `-i64::MAX` are the infinities.
        timestamp(micros: i64) = duckdb_create_timestamp(ffi::duckdb_timestamp { micros });
        /// A TIMESTAMP WITH TIME ZONE, in microseconds since 1970 UTC; infinities as above.
        timestamp_tz(micros: i64) = duckdb_create_timestamp_tz(ffi::duckdb_timestamp { micros });
        /// A BLOB.
        blob(bytes: &[u8]) = duckdb_create_blob(bytes.as_ptr(), bytes.len() as u64);
        /// An INTERVAL.
        interval(value: Interval) = duckdb_create_interval(ffi::duckdb_interval {
            months: value.months,
            days: value.days,
            micros: value.micros,
        });
    }

    /// A VARCHAR.
    pub fn varchar(text: &str) -> Self {
        // SAFETY: pointer and length belong together; valid UTF-8, so DuckDB
        // does not answer null.
        unsafe {
            Self::adopt(ffi::duckdb_create_varchar_length(
                text.as_ptr().cast(),
                text.len() as u64,
            ))
        }
    }

    /// A DECIMAL of `width` digits, `scale` of them after the point. `None`
    /// when 1 ≤ `width` ≤ 38, `scale` ≤ `width` does not hold or `unscaled`
    /// has more digits.
    pub fn decimal(unscaled: i128, width: u8, scale: u8) -> Option<Self> {
        let fits = (1..=38).contains(&width)
            && scale <= width
            && unscaled.unsigned_abs() < 10u128.pow(u32::from(width));
        fits.then(|| {
            let value = ffi::duckdb_decimal {
                width,
                scale,
                value: huge(unscaled),
            };
            // SAFETY: plain data; width and scale were checked.
            unsafe { Self::adopt(ffi::duckdb_create_decimal(value)) }
        })
    }

    /// A TIME WITH TIME ZONE: microseconds since midnight and the zone's
    /// offset in seconds east of UTC, between ±15:59:59.
    pub fn time_tz(micros: i64, offset: i32) -> Self {
        // SAFETY: plain data.
        unsafe {
            Self::adopt(ffi::duckdb_create_time_tz_value(ffi::duckdb_create_time_tz(
                micros, offset,
            )))
        }
    }

    /// A BIT string of at least one bit; `bytes` holds `bits` bits, the first
    /// in the top bit of the first byte. `None` when it is empty or `bytes`
    /// too short.
    pub fn bit(bytes: &[u8], bits: usize) -> Option<Self> {
        let size = bits.div_ceil(8);
        if bits == 0 || bytes.len() < size {
            return None;
        }
        // DuckDB keeps the padding in front, as ones, and its size before it.
        let padding = size * 8 - bits;
        let mut packed = Vec::with_capacity(size + 1);
        packed.push(padding as u8);
        let mut carry = !(0xffu8 >> padding);
        for byte in &bytes[..size] {
            packed.push(carry | (byte >> padding));
            carry = byte.checked_shl(8 - padding as u32).unwrap_or(0);
        }
        let raw = ffi::duckdb_bit {
            data: packed.as_mut_ptr(),
            size: packed.len() as u64,
        };
        // SAFETY: pointer and length belong together; DuckDB copies.
        Some(unsafe { Self::adopt(ffi::duckdb_create_bit(raw)) })
    }

    /// A LIST; each element is cast to `child`. `None` when there is no such
    /// list (`child` unknown, an element that cannot be cast).
    pub fn list(child: &LogicalType, elements: &[Value]) -> Option<Self> {
        let child = child.to_raw()?;
        Self::list_of(&child, elements)
    }

    fn list_of(child: &RawType, elements: &[Value]) -> Option<Self> {
        let mut raw: Vec<ffi::duckdb_value> = elements.iter().map(Self::as_raw).collect();
        // SAFETY: type and elements are alive; DuckDB copies the elements.
        let list =
            unsafe { ffi::duckdb_create_list_value(child.as_raw(), raw.as_mut_ptr(), raw.len() as u64) };
        // SAFETY: the value is ours.
        (!list.is_null()).then(|| unsafe { Self::adopt(list) })
    }

    /// A NULL without a type.
    pub fn null() -> Self {
        // SAFETY: the value that comes back is ours.
        unsafe { Self::adopt(ffi::duckdb_create_null_value()) }
    }

    /// A NULL of this type; without a type when no value can have it.
    pub fn null_of(logical: &LogicalType) -> Self {
        // The C API makes no typed NULL by itself, but a list casts its
        // elements, and an element can be taken out again.
        let typed = logical.to_raw().and_then(|raw| {
            let list = Self::list_of(&raw, &[Self::null()])?;
            // SAFETY: the list is alive and has one element; the copy is ours.
            let element = unsafe { ffi::duckdb_get_list_child(list.0, 0) };
            // SAFETY: the value is ours.
            (!element.is_null()).then(|| unsafe { Self::adopt(element) })
        });
        typed.unwrap_or_else(Self::null)
    }

    /// The value in DuckDB's own text form, which its casts read.
    pub fn to_text(&self) -> String {
        // SAFETY: the value is alive; the text is ours to free.
        unsafe { super::instance::take_string(ffi::duckdb_get_varchar(self.0)) }
    }

    /// The type.
    pub fn logical_type(&self) -> LogicalType {
        // SAFETY: the type belongs to the value and is borrowed for the call.
        unsafe { LogicalType::from_raw(ffi::duckdb_get_value_type(self.0)) }
    }

    /// The value, borrowed.
    pub(crate) fn as_raw(&self) -> ffi::duckdb_value {
        self.0
    }

    /// # Safety
    /// `raw` is a value that the caller owns and gives up.
    unsafe fn adopt(raw: ffi::duckdb_value) -> Self {
        Self(raw)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once; null is allowed.
        unsafe { ffi::duckdb_destroy_value(&mut self.0) }
    }
}

/// The value as an SQL literal.
impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // SAFETY: the value is alive; the text is ours and freed once.
        unsafe {
            let text = ffi::duckdb_value_to_string(self.0);
            if text.is_null() {
                return f.write_str("?");
            }
            let result = f.write_str(&std::ffi::CStr::from_ptr(text).to_string_lossy());
            ffi::duckdb_free(text.cast());
            result
        }
    }
}

fn huge(value: i128) -> ffi::duckdb_hugeint {
    ffi::duckdb_hugeint {
        lower: value as u64,
        upper: (value >> 64) as i64,
    }
}

fn unsigned_huge(value: u128) -> ffi::duckdb_uhugeint {
    ffi::duckdb_uhugeint {
        lower: value as u64,
        upper: (value >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Database;

    #[test]
    fn values_have_the_type_and_the_content_that_their_constructor_says() {
        let cases = [
            (Value::boolean(true), "BOOLEAN", "true"),
            (
                Value::hugeint(i128::MIN + 1),
                "HUGEINT",
                "-170141183460469231731687303715884105727",
            ),
            (
                Value::uhugeint(u128::MAX),
                "UHUGEINT",
                "340282366920938463463374607431768211455",
            ),
            (Value::decimal(-12345, 9, 2).unwrap(), "DECIMAL(9,2)", "-123.45"),
            (
                Value::uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
                "UUID",
                "01234567-89ab-cdef-0123-456789abcdef",
            ),
            (Value::varchar("it's"), "VARCHAR", "it's"),
            (Value::bit(&[0b1010_0000], 3).unwrap(), "BIT", "101"),
            (Value::bit(&[0xff, 0x01], 16).unwrap(), "BIT", "1111111100000001"),
            (Value::bit(&[0xab, 0xc0], 10).unwrap(), "BIT", "1010101111"),
            (
                Value::time_tz(3_600_000_000, -19_800),
                "TIME WITH TIME ZONE",
                "01:00:00-05:30",
            ),
            (Value::date(i32::MAX), "DATE", "infinity"),
        ];
        let database = Database::open();
        for (value, name, text) in cases {
            assert_eq!(value.logical_type().to_string(), name);
            let (_, chunks) = database.query_with("select $1::varchar", &[value]);
            let strings = chunks[0].column(0).strings().unwrap();
            assert_eq!(
                std::str::from_utf8(strings.get(0).unwrap()).unwrap(),
                text,
                "{name}"
            );
        }
        assert!(Value::decimal(100, 2, 0).is_none());
        assert!(Value::decimal(1, 39, 0).is_none());
        assert!(Value::bit(&[], 0).is_none());
    }

    #[test]
    fn a_null_has_the_type_that_was_asked_for() {
        for logical in [
            LogicalType::Integer,
            LogicalType::Decimal { width: 30, scale: 3 },
            LogicalType::List(Box::new(LogicalType::Varchar)),
            LogicalType::Enum(["a".to_owned()].into()),
            LogicalType::Struct(vec![("a".to_owned(), LogicalType::Date)]),
        ] {
            let null = Value::null_of(&logical);
            assert_eq!(null.logical_type(), logical);
            assert_eq!(format!("{null:?}"), "NULL");
        }
        assert_eq!(
            Value::null_of(&LogicalType::Unknown).logical_type(),
            LogicalType::SqlNull
        );
    }

    #[test]
    fn a_list_holds_its_elements_in_the_type_of_the_list() {
        let list = Value::list(
            &LogicalType::BigInt,
            &[Value::integer(1), Value::null(), Value::bigint(3)],
        )
        .unwrap();
        assert_eq!(
            list.logical_type(),
            LogicalType::List(Box::new(LogicalType::BigInt))
        );
        assert!(Value::list(&LogicalType::Unknown, &[]).is_none());
        assert!(Value::list(&LogicalType::Integer, &[Value::varchar("x")]).is_none());
    }
}
