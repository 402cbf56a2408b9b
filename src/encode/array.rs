//! Lists and arrays as PostgreSQL arrays; nested ones have more dimensions.

use super::column::{Column, Context, Data, Step};
use super::writer::Writer;
use super::{EncodeError, pg_type::oid};

/// `{1,NULL,"a b"}`, `{{1,2},{3,4}}`. Sub-lists of different lengths are
/// written as they are: text has a place for them, if not in PostgreSQL.
pub(super) fn text(column: &Column<'_>, row: usize, w: &mut Writer, context: &mut Context) -> Step {
    let Some((rows, child)) = column.elements(row) else {
        return Ok(());
    };
    w.byte(b'{');
    for (index, row) in rows.enumerate() {
        if index > 0 {
            w.byte(b',');
        }
        if child.is_null(row) {
            w.bytes(b"NULL");
            continue;
        }
        let mark = w.position();
        child.bare_text(row, w, context)?;
        if child.needs_quotes() {
            quote(w, mark, context);
        }
    }
    w.byte(b'}');
    Ok(())
}

impl Column<'_> {
    /// Whether the text of a value can hold a character that means something
    /// in the text of an array.
    fn needs_quotes(&self) -> bool {
        matches!(
            self.data,
            Data::Text(_)
                | Data::Json(_)
                | Data::Blob(_)
                | Data::Enum8(..)
                | Data::Enum16(..)
                | Data::Enum32(..)
                | Data::Date(_)
                | Data::Timestamp(..)
                | Data::TimestampTz(_)
                | Data::Interval(_)
                | Data::Struct(_)
                | Data::Map(..)
                | Data::Union(..)
        )
    }
}

/// Puts what was written from `mark` on into quotes where an array needs it
/// (`array_out`).
fn quote(w: &mut Writer, mark: usize, context: &mut Context) {
    let element = w.since(mark);
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | 0x09..=0x0d);
    if !element.is_empty() && !element.iter().any(special) && !element.eq_ignore_ascii_case(b"null") {
        return;
    }
    let mut element = std::mem::take(&mut context.scratch);
    element.clear();
    element.extend_from_slice(w.since(mark));
    w.truncate(mark);
    w.byte(b'"');
    let mut rest = element.as_slice();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        w.bytes(&rest[..at]);
        w.array([b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    w.bytes(rest);
    w.byte(b'"');
    context.scratch = element;
}

/// The binary form (`array_send`): dimensions, whether there are nulls, the
/// element type, length and lower bound of each dimension, elements.
pub(super) fn binary(column: &Column<'_>, row: usize, w: &mut Writer, context: &mut Context) -> Step {
    let mut lengths = Vec::new();
    measure(column, row, 0, &mut lengths)?;
    let mut leaf = column;
    while let Data::List(_, child) | Data::Array(_, child) = &leaf.data {
        leaf = child;
    }
    // An array without elements has no dimensions.
    let empty = lengths.contains(&0);
    let dimensions = if empty { 0 } else { lengths.len() };
    w.array((dimensions as u32).to_be_bytes());
    let nulls = w.position();
    w.array(0u32.to_be_bytes());
    w.array(leaf.element_oid().to_be_bytes());
    if empty {
        return Ok(());
    }
    for length in &lengths {
        w.array((*length as u32).to_be_bytes());
        w.array(1u32.to_be_bytes());
    }
    if elements(column, row, w, context)? {
        w.patch(nulls, 1u32.to_be_bytes());
    }
    Ok(())
}

/// The length of each dimension; an error when sub-lists differ in length.
fn measure(column: &Column<'_>, row: usize, depth: usize, lengths: &mut Vec<usize>) -> Step {
    let Some((rows, child)) = column.elements(row) else {
        return Ok(());
    };
    match lengths.get(depth) {
        None => lengths.push(rows.len()),
        Some(length) if *length == rows.len() => {}
        Some(_) => return Err(Box::new(EncodeError::RaggedArray)),
    }
    if matches!(child.data, Data::List(..) | Data::Array(..)) {
        for row in rows {
            if child.is_null(row) {
                return Err(Box::new(EncodeError::RaggedArray));
            }
            measure(child, row, depth + 1, lengths)?;
        }
    }
    Ok(())
}

/// Appends all elements and says whether there was a null.
fn elements(
    column: &Column<'_>,
    row: usize,
    w: &mut Writer,
    context: &mut Context,
) -> Result<bool, Box<EncodeError>> {
    let Some((rows, child)) = column.elements(row) else {
        return Ok(false);
    };
    let nested = matches!(child.data, Data::List(..) | Data::Array(..));
    let mut nulls = false;
    for row in rows {
        if nested {
            nulls |= elements(child, row, w, context)?;
        } else if child.is_null(row) {
            nulls = true;
            w.array((-1i32).to_be_bytes());
        } else {
            child.binary(row, w, context)?;
        }
    }
    Ok(nulls)
}

impl Column<'_> {
    /// The type of an element; must agree with [`super::pg_type`].
    fn element_oid(&self) -> u32 {
        match self.data {
            Data::Bool(_) => oid::BOOL,
            Data::I8(_) | Data::U8(_) | Data::I16(_) => oid::INT2,
            Data::U16(_) | Data::I32(_) => oid::INT4,
            Data::U32(_) | Data::I64(_) => oid::INT8,
            Data::U64(_)
            | Data::I128(_)
            | Data::U128(_)
            | Data::BigNum(_)
            | Data::Decimal16(..)
            | Data::Decimal32(..)
            | Data::Decimal64(..)
            | Data::Decimal128(..) => oid::NUMERIC,
            Data::F32(_) => oid::FLOAT4,
            Data::F64(_) => oid::FLOAT8,
            Data::Text(_) => oid::VARCHAR,
            Data::Json(_) | Data::Struct(_) | Data::Map(..) | Data::Union(..) => oid::JSON,
            Data::Blob(_) => oid::BYTEA,
            Data::Bit(_) => oid::VARBIT,
            Data::Uuid(_) => oid::UUID,
            Data::Date(_) => oid::DATE,
            Data::Time(..) => oid::TIME,
            Data::TimeTz(_) => oid::TIMETZ,
            Data::Timestamp(..) => oid::TIMESTAMP,
            Data::TimestampTz(_) => oid::TIMESTAMPTZ,
            Data::Interval(_) => oid::INTERVAL,
            Data::Enum8(..) | Data::Enum16(..) | Data::Enum32(..) | Data::Null => oid::TEXT,
            // Not leaves.
            Data::List(..) | Data::Array(..) => oid::TEXT,
        }
    }
}
