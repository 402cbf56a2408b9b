//! (in work)
use super::{EncodeError, Format, Settings};
use crate::engine::{LogicalType, Value};

/// Decodes one parameter of `Bind`.
pub fn decode_parameter(
    oid: u32,
    format: Format,
    bytes: Option<&[u8]>,
    target: &LogicalType,
    settings: &Settings,
) -> Result<Value, EncodeError> {
    let _ = (oid, format, settings);
    match bytes {
        None => Ok(Value::null_of(target)),
        Some(bytes) => Ok(Value::varchar(&String::from_utf8_lossy(bytes))),
    }
}
