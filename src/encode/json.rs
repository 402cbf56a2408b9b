//! Structs, maps and unions, for which PostgreSQL has no type without a
//! declaration, as JSON: the values in it look as `to_json` prints them.

use super::column::{Column, Context, Data, Step, range};
use super::time;
use super::writer::Writer;

/// Appends a row, which may be null, as JSON. A struct is an object, a map
/// one whose keys are the text of the keys, a union the value of its member.
pub(super) fn value(column: &Column<'_>, row: usize, w: &mut Writer, context: &mut Context) -> Step {
    if column.is_null(row) {
        w.bytes(b"null");
        return Ok(());
    }
    match &column.data {
        Data::Null => w.bytes(b"null"),
        Data::Bool(values) => w.bytes(if values[row] != 0 { b"true" } else { b"false" }),
        Data::Json(values) => w.bytes(values.get(row).unwrap_or_default()),
        // JSON has no word for what is not finite.
        Data::F32(values) if !values[row].is_finite() => quoted(column, row, w, context)?,
        Data::F64(values) if !values[row].is_finite() => quoted(column, row, w, context)?,
        Data::I8(_)
        | Data::I16(_)
        | Data::I32(_)
        | Data::I64(_)
        | Data::U8(_)
        | Data::U16(_)
        | Data::U32(_)
        | Data::U64(_)
        | Data::I128(_)
        | Data::U128(_)
        | Data::BigNum(_)
        | Data::F32(_)
        | Data::F64(_)
        | Data::Decimal16(..)
        | Data::Decimal32(..)
        | Data::Decimal64(..)
        | Data::Decimal128(..) => column.bare_text(row, w, context)?,
        Data::Timestamp(values, unit) => {
            w.byte(b'"');
            w.value(false, |out, at| {
                time::timestamp(out, at, unit.micros(values[row]), b'T')
            });
            w.byte(b'"');
        }
        Data::TimestampTz(values) => {
            w.byte(b'"');
            w.value(false, |out, at| {
                time::timestamp_tz(out, at, values[row], &mut context.zone, b'T')
            });
            w.byte(b'"');
        }
        Data::List(..) | Data::Array(..) => {
            w.byte(b'[');
            if let Some((rows, child)) = column.elements(row) {
                for (index, row) in rows.enumerate() {
                    if index > 0 {
                        w.byte(b',');
                    }
                    value(child, row, w, context)?;
                }
            }
            w.byte(b']');
        }
        Data::Struct(fields) => {
            w.byte(b'{');
            for (index, (name, field)) in fields.iter().enumerate() {
                if index > 0 {
                    w.byte(b',');
                }
                w.byte(b'"');
                escape(w, name.as_bytes());
                w.bytes(b"\":");
                value(field, row, w, context)?;
            }
            w.byte(b'}');
        }
        Data::Map(entries, pairs) => {
            let (keys, values) = pairs.as_ref();
            w.byte(b'{');
            for (index, row) in range(entries[row]).enumerate() {
                if index > 0 {
                    w.byte(b',');
                }
                quoted(keys, row, w, context)?;
                w.byte(b':');
                value(values, row, w, context)?;
            }
            w.byte(b'}');
        }
        Data::Union(tags, members) => match members.get(usize::from(tags[row])) {
            Some(member) => value(member, row, w, context)?,
            None => w.bytes(b"null"),
        },
        _ => quoted(column, row, w, context)?,
    }
    Ok(())
}

/// The text of a row as a JSON string.
fn quoted(column: &Column<'_>, row: usize, w: &mut Writer, context: &mut Context) -> Step {
    w.byte(b'"');
    let mark = w.position();
    column.bare_text(row, w, context)?;
    let escaped = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    if w.since(mark).iter().any(escaped) {
        let mut text = std::mem::take(&mut context.scratch);
        text.clear();
        text.extend_from_slice(w.since(mark));
        w.truncate(mark);
        escape(w, &text);
        context.scratch = text;
    }
    w.byte(b'"');
    Ok(())
}

/// Appends text as the inside of a JSON string (`escape_json`).
fn escape(w: &mut Writer, text: &[u8]) {
    for byte in text {
        match byte {
            b'"' | b'\\' => w.array([b'\\', *byte]),
            b'\n' => w.array(*b"\\n"),
            b'\r' => w.array(*b"\\r"),
            b'\t' => w.array(*b"\\t"),
            0x08 => w.array(*b"\\b"),
            0x0c => w.array(*b"\\f"),
            0..=0x1f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                w.bytes(b"\\u00");
                w.array([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => w.byte(*byte),
        }
    }
}
