//! A chunk of a result, and safe views of its columns.
//!
//! DuckDB gives results as chunks of up to 2048 rows, one flat vector per
//! column. A [`Vector`] knows its physical layout from the chunk itself and
//! not from what the caller believes, so the slices that it gives out have the
//! element type and the length that the memory has. Strings point into memory
//! that only rows which are not null initialise: [`Strings`] therefore reads a
//! row through its validity, always.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use duckdb::ffi;

use super::types::RawType;

/// A chunk of rows. Owned; may move to another thread.
pub struct Chunk {
    raw: ffi::duckdb_data_chunk,
    len: usize,
    columns: usize,
}

// SAFETY: a data chunk is plain memory with reference counts that are atomic;
// nothing in it is tied to the thread that made it, and a `Chunk` has no
// method that changes it.
unsafe impl Send for Chunk {}
// SAFETY: as above, all methods read only.
unsafe impl Sync for Chunk {}

impl Chunk {
    /// Takes over a chunk.
    ///
    /// # Safety
    /// `raw` is a live chunk as results give it (all vectors flat), owned by
    /// nobody else, and its database instance outlives the `Chunk`, because
    /// the memory goes back to the instance's allocator.
    pub unsafe fn from_raw(raw: ffi::duckdb_data_chunk) -> Self {
        // SAFETY: `raw` is live by this function's contract.
        let (len, columns) = unsafe {
            (
                ffi::duckdb_data_chunk_get_size(raw),
                ffi::duckdb_data_chunk_get_column_count(raw),
            )
        };
        Self {
            raw,
            len: len as usize,
            columns: columns as usize,
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of columns.
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// A view of one column.
    ///
    /// # Panics
    /// When there is no such column.
    pub fn column(&self, index: usize) -> Vector<'_> {
        assert!(index < self.columns, "column {index} of {}", self.columns);
        // SAFETY: the chunk is live and has this column; the vector lives as
        // long as the chunk, which the lifetime of the result says.
        unsafe {
            let raw = ffi::duckdb_data_chunk_get_vector(self.raw, index as u64);
            Vector::new(raw, self.len)
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: owned, destroyed once.
        unsafe { ffi::duckdb_destroy_data_chunk(&mut self.raw) }
    }
}

/// How the values of a vector lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the numbers are Rust's types of these names")]
pub enum Layout {
    /// One byte, 0 or 1; read as `u8`.
    Bool,
    /// A number of this type; dates, times and timestamps too.
    I8,
    I16,
    I32,
    I64,
    /// See [`HugeInt`]; UUIDs too, with the top bit flipped.
    I128,
    U8,
    U16,
    U32,
    /// Times with a zone too.
    U64,
    /// See [`UHugeInt`].
    U128,
    F32,
    F64,
    /// See [`Interval`].
    Interval,
    /// See [`Strings`]; blobs, bit strings and bignums too.
    String,
    /// See [`ListEntry`]; maps too, as lists of key and value.
    List,
    /// This many values of the child per row.
    Array(usize),
    /// This many children with a value per row; unions too, the tag first.
    Struct(usize),
    /// Not readable here.
    Opaque,
}

impl Layout {
    /// # Safety
    /// `raw` is a live vector.
    unsafe fn of(raw: ffi::duckdb_vector) -> Self {
        // SAFETY: the vector is live; the type is ours and freed by its guard;
        // each accessor is called for the type id that it is made for.
        unsafe {
            let logical = RawType::adopt(ffi::duckdb_vector_get_column_type(raw));
            let logical = logical.as_raw();
            let number = |id| match id {
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_SMALLINT => Self::I16,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER => Self::I32,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT => Self::I64,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT => Self::I128,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UTINYINT => Self::U8,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_USMALLINT => Self::U16,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UINTEGER => Self::U32,
                _ => Self::Opaque,
            };
            match ffi::duckdb_get_type_id(logical) {
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN => Self::Bool,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_TINYINT => Self::I8,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTEGER | ffi::DUCKDB_TYPE_DUCKDB_TYPE_DATE => Self::I32,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGINT
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_NS
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_S
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_MS
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_NS
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ => Self::I64,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_HUGEINT | ffi::DUCKDB_TYPE_DUCKDB_TYPE_UUID => Self::I128,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT | ffi::DUCKDB_TYPE_DUCKDB_TYPE_TIME_TZ => Self::U64,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UHUGEINT => Self::U128,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_FLOAT => Self::F32,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE => Self::F64,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_INTERVAL => Self::Interval,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BLOB
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIT
                | ffi::DUCKDB_TYPE_DUCKDB_TYPE_BIGNUM => Self::String,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_LIST | ffi::DUCKDB_TYPE_DUCKDB_TYPE_MAP => Self::List,
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_ARRAY => {
                    Self::Array(ffi::duckdb_array_type_array_size(logical) as usize)
                }
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_STRUCT => {
                    Self::Struct(ffi::duckdb_struct_type_child_count(logical) as usize)
                }
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_UNION => {
                    Self::Struct(ffi::duckdb_union_type_member_count(logical) as usize + 1)
                }
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_DECIMAL => number(ffi::duckdb_decimal_internal_type(logical)),
                ffi::DUCKDB_TYPE_DUCKDB_TYPE_ENUM => number(ffi::duckdb_enum_internal_type(logical)),
                id => number(id),
            }
        }
    }
}

/// One column of a chunk, or a child of a nested one.
#[derive(Clone, Copy)]
pub struct Vector<'a> {
    raw: ffi::duckdb_vector,
    len: usize,
    layout: Layout,
    chunk: PhantomData<&'a Chunk>,
}

impl<'a> Vector<'a> {
    /// # Safety
    /// `raw` is a live flat vector with `len` initialised rows that lives and
    /// does not change for `'a`.
    unsafe fn new(raw: ffi::duckdb_vector, len: usize) -> Self {
        // SAFETY: `raw` is live.
        let layout = unsafe { Layout::of(raw) };
        Self {
            raw,
            len,
            layout,
            chunk: PhantomData,
        }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How the values lie in memory.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Which rows are not null.
    pub fn validity(&self) -> Validity<'a> {
        // SAFETY: the mask is null (all valid) or has a bit for each row, in
        // whole words, and lives as long as the vector.
        let mask = unsafe {
            let mask = ffi::duckdb_vector_get_validity(self.raw);
            (!mask.is_null()).then(|| slice::from_raw_parts(mask, self.len.div_ceil(64)))
        };
        Validity { mask }
    }

    /// The values of a vector of numbers; `None` when it does not hold `T`s.
    /// The value of a null row is any number.
    pub fn values<T: Native>(&self) -> Option<&'a [T]> {
        // SAFETY: the layout says that the elements are `T`s.
        T::is(self.layout).then(|| unsafe { self.slice() })
    }

    /// The strings of a vector of strings, blobs, bit strings or bignums.
    pub fn strings(&self) -> Option<Strings<'a>> {
        (self.layout == Layout::String).then(|| Strings {
            // SAFETY: the layout says that the elements are strings.
            data: unsafe { self.slice() },
            validity: self.validity(),
        })
    }

    /// For a list or a map: where each row's elements are in the child. The
    /// entry of a null row is any number.
    pub fn list(&self) -> Option<(&'a [ListEntry], Vector<'a>)> {
        (self.layout == Layout::List).then(|| {
            // SAFETY: the layout says that this is a list; its child lives as
            // long as it does and has the given size.
            unsafe {
                let child = ffi::duckdb_list_vector_get_child(self.raw);
                let size = ffi::duckdb_list_vector_get_size(self.raw) as usize;
                (self.slice(), Vector::new(child, size))
            }
        })
    }

    /// For an array: how many elements each row has, and the elements.
    pub fn array(&self) -> Option<(usize, Vector<'a>)> {
        match self.layout {
            Layout::Array(size) => {
                // SAFETY: the layout says that this is an array; its child
                // lives as long as it does, with `size` elements per row.
                let child = unsafe {
                    let child = ffi::duckdb_array_vector_get_child(self.raw);
                    Vector::new(child, self.len * size)
                };
                Some((size, child))
            }
            _ => None,
        }
    }

    /// A field of a struct, by position; of a union the tag (0) or a member.
    pub fn field(&self, index: usize) -> Option<Vector<'a>> {
        match self.layout {
            Layout::Struct(count) if index < count => {
                // SAFETY: the layout says that there is such a child; it lives
                // as long as the vector and has as many rows.
                Some(unsafe {
                    let child = ffi::duckdb_struct_vector_get_child(self.raw, index as u64);
                    Vector::new(child, self.len)
                })
            }
            _ => None,
        }
    }

    /// # Safety
    /// The elements of this vector are `T`s.
    unsafe fn slice<T>(&self) -> &'a [T] {
        // SAFETY: a flat vector has `len` elements at its data pointer, which
        // DuckDB aligns for them; they live as long as the vector.
        unsafe {
            let data = ffi::duckdb_vector_get_data(self.raw).cast::<T>();
            match data.is_null() || self.len == 0 {
                true => &[],
                false => slice::from_raw_parts(data, self.len),
            }
        }
    }
}

/// Which rows of a vector are not null.
#[derive(Clone, Copy)]
pub struct Validity<'a> {
    mask: Option<&'a [u64]>,
}

impl Validity<'_> {
    /// Whether this row is not null.
    #[inline(always)]
    pub fn is_valid(&self, row: usize) -> bool {
        match self.mask {
            None => true,
            Some(mask) => (mask[row / 64] >> (row % 64)) & 1 == 1,
        }
    }

    /// Whether it is certain that no row is null.
    pub fn all_valid(&self) -> bool {
        self.mask.is_none()
    }
}

mod sealed {
    pub trait Sealed {}
}

/// Number types that vectors hold.
pub trait Native: Copy + sealed::Sealed {
    /// Whether vectors of this layout hold values of this type.
    fn is(layout: Layout) -> bool;
}

macro_rules! native {
    ($($native:ty: $($layout:ident)|+;)+) => {$(
        impl sealed::Sealed for $native {}
        impl Native for $native {
            fn is(layout: Layout) -> bool {
                matches!(layout, $(Layout::$layout)|+)
            }
        }
    )+};
}

native! {
    u8: Bool | U8;
    u16: U16;
    u32: U32;
    u64: U64;
    i8: I8;
    i16: I16;
    i32: I32;
    i64: I64;
    f32: F32;
    f64: F64;
    HugeInt: I128;
    UHugeInt: U128;
    Interval: Interval;
}

/// A signed 128-bit integer, aligned as DuckDB aligns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HugeInt {
    lower: u64,
    upper: i64,
}

impl HugeInt {
    /// The number.
    #[inline]
    pub fn get(self) -> i128 {
        (i128::from(self.upper) << 64) | i128::from(self.lower)
    }
}

/// An unsigned 128-bit integer, aligned as DuckDB aligns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UHugeInt {
    lower: u64,
    upper: u64,
}

impl UHugeInt {
    /// The number.
    #[inline]
    pub fn get(self) -> u128 {
        (u128::from(self.upper) << 64) | u128::from(self.lower)
    }
}

/// An interval; the three parts have signs of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

/// Where the elements of one list are in the child vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct ListEntry {
    pub offset: u64,
    pub length: u64,
}

/// The strings of a vector.
#[derive(Clone, Copy)]
pub struct Strings<'a> {
    data: &'a [StringCell],
    validity: Validity<'a>,
}

/// DuckDB's `string_t`: up to 12 bytes in place, else a prefix and a pointer.
#[derive(Clone, Copy)]
#[repr(C)]
struct StringCell {
    length: u32,
    prefix: [u8; 4],
    rest: StringRest,
}

#[derive(Clone, Copy)]
#[repr(C)]
union StringRest {
    bytes: [u8; 8],
    pointer: *const u8,
}

const INLINE: usize = 12;

impl<'a> Strings<'a> {
    /// The bytes of a row, `None` when it is null.
    #[inline(always)]
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        if !self.validity.is_valid(row) {
            return None;
        }
        let cell = &self.data[row];
        let length = cell.length as usize;
        // SAFETY: the row is not null, so the cell is initialised. A short
        // string lies in the 12 bytes after the length (one allocation with
        // the cell, no padding in between); a long one at the pointer, in
        // memory that the chunk keeps alive.
        Some(unsafe {
            let start = match length <= INLINE {
                true => std::ptr::from_ref(cell).cast::<u8>().add(size_of::<u32>()),
                false => cell.rest.pointer,
            };
            slice::from_raw_parts(start, length)
        })
    }

    /// The bytes of a row, filled up with zeros to 12 when there are fewer, and
    /// how many there are; `None` when the row is null. Copying blocks of
    /// known size, which this allows, is what makes short strings fast.
    #[inline(always)]
    pub fn padded(&self, row: usize) -> Option<(&'a [u8], usize)> {
        if !self.validity.is_valid(row) {
            return None;
        }
        let cell = &self.data[row];
        let length = cell.length as usize;
        // SAFETY: as in `get`; all 12 bytes of a short string's cell are
        // string bytes or the zeros that DuckDB pads them with.
        Some(unsafe {
            let place = std::ptr::from_ref(cell).cast::<u8>().add(size_of::<u32>());
            let start = match length <= INLINE {
                true => place,
                false => cell.rest.pointer,
            };
            (slice::from_raw_parts(start, length.max(INLINE)), length)
        })
    }

    /// The length of the longest string of these rows.
    pub fn longest(&self, rows: Range<usize>) -> usize {
        if self.validity.all_valid() {
            let lengths = self.data[rows].iter().map(|cell| cell.length);
            return lengths.max().unwrap_or(0) as usize;
        }
        let cells = self.data[rows.clone()].iter().zip(rows);
        let lengths = cells.map(|(cell, row)| match self.validity.is_valid(row) {
            true => cell.length,
            false => 0,
        });
        lengths.max().unwrap_or(0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::Database;

    #[test]
    fn slices_have_the_type_of_the_memory_and_no_other() {
        let database = Database::open();
        let chunk = database.chunk("select 1::integer as a, 'x' as b, 2.5::decimal(20,2) as c");
        assert_eq!(chunk.column(0).values::<i32>(), Some(&[1][..]));
        assert!(chunk.column(0).values::<i64>().is_none());
        assert!(chunk.column(0).strings().is_none());
        assert_eq!(chunk.column(1).strings().unwrap().get(0), Some(&b"x"[..]));
        assert_eq!(chunk.column(2).values::<HugeInt>().unwrap()[0].get(), 250);
    }

    #[test]
    fn strings_on_both_sides_of_the_inline_length_read_alike() {
        let database = Database::open();
        let chunk =
            database.chunk("select case when i = 3 then null else repeat('é', i) end from range(20) t(i)");
        let strings = chunk.column(0).strings().unwrap();
        for row in 0..20 {
            let expected = (row != 3).then(|| "é".repeat(row));
            assert_eq!(strings.get(row), expected.as_deref().map(str::as_bytes));
            let padded = expected.map(|mut text| {
                let length = text.len();
                text.extend((length..12).map(|_| '\0'));
                (text, length)
            });
            let padded = padded.as_ref().map(|(text, length)| (text.as_bytes(), *length));
            assert_eq!(strings.padded(row), padded);
        }
        assert_eq!(strings.longest(0..20), 38);
        assert_eq!(strings.longest(2..4), 4);
        assert_eq!(strings.longest(3..4), 0);
        assert_eq!(strings.longest(3..3), 0);
    }

    #[test]
    fn constant_and_dictionary_children_arrive_flat() {
        let database = Database::open();
        let (_, chunks) = database.query(
            "select {'a': i, 'b': 42, 'c': case when i % 2 = 0 then 'const' end}, [7, 8, 9], \
             array_value(1, i), map {'k': 1} from range(3000) t(i)",
        );
        assert_eq!(chunks.iter().map(Chunk::len).sum::<usize>(), 3000);
        let mut total = 0;
        for chunk in &chunks {
            let b = chunk.column(0).field(1).unwrap();
            assert!(b.values::<i32>().unwrap().iter().all(|value| *value == 42));
            let (entries, child) = chunk.column(1).list().unwrap();
            let child = child.values::<i32>().unwrap();
            for (row, entry) in entries.iter().enumerate() {
                assert_eq!(
                    &child[entry.offset as usize..][..entry.length as usize],
                    [7, 8, 9]
                );
                let c = chunk.column(0).field(2).unwrap().strings().unwrap().get(row);
                assert_eq!(c, ((total + row) % 2 == 0).then_some(&b"const"[..]));
            }
            let (size, pairs) = chunk.column(2).array().unwrap();
            assert_eq!((size, pairs.len()), (2, 2 * chunk.len()));
            assert!(
                pairs
                    .values::<i64>()
                    .unwrap()
                    .iter()
                    .step_by(2)
                    .all(|value| *value == 1)
            );
            let (_, entries) = chunk.column(3).list().unwrap();
            assert!(
                entries
                    .field(1)
                    .unwrap()
                    .values::<i32>()
                    .unwrap()
                    .iter()
                    .all(|value| *value == 1)
            );
            total += chunk.len();
        }
    }
}
