//! The server's messages, appended to a buffer.
//!
//! Source: PostgreSQL manual, section 55.7 "Message Formats".

use super::error::{Position, SessionError, Severity};
use crate::encode::{Format, pg_type};
use crate::engine::Column;

/// The status byte of ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not in a transaction block.
    Idle = b'I' as isize,
    /// In one.
    Block = b'T' as isize,
    /// In one that has failed.
    Failed = b'E' as isize,
}

/// Appends a message of type `kind` whose body `fill` writes.
pub fn message(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    // Longer than the protocol allows cannot be: what goes in here is names,
    // errors and copy data, all bounded far below 2 GiB.
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A message without a body: ParseComplete ('1'), BindComplete ('2'),
/// CloseComplete ('3'), NoData ('n'), PortalSuspended ('s'),
/// EmptyQueryResponse ('I'), CopyDone ('c').
pub fn bare(out: &mut Vec<u8>, kind: u8) {
    message(out, kind, |_| {});
}

/// Appends `text` with its terminating zero; an embedded zero would end it early
/// for the reader, so it is left out.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte != 0));
    out.push(0);
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |out| {
        text(out, name);
        text(out, value);
    });
}

/// BackendKeyData.
pub fn backend_key_data(out: &mut Vec<u8>, backend_id: i32, cancel_key: &[u8]) {
    message(out, b'K', |out| {
        out.extend_from_slice(&backend_id.to_be_bytes());
        out.extend_from_slice(cancel_key);
    });
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: Status) {
    message(out, b'Z', |out| out.push(status as u8));
}

/// CommandComplete.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| text(out, tag));
}

/// RowDescription. `formats` as in Bind: none, one for all, or one each.
pub fn row_description(out: &mut Vec<u8>, columns: &[Column], formats: &[Format]) {
    message(out, b'T', |out| {
        out.extend_from_slice(&(columns.len() as u16).to_be_bytes());
        for (index, column) in columns.iter().enumerate() {
            let data_type = pg_type(&column.data_type);
            text(out, &column.name);
            // Neither a table nor a column of one: DuckDB does not tell.
            out.extend_from_slice(&[0; 6]);
            out.extend_from_slice(&data_type.oid.to_be_bytes());
            out.extend_from_slice(&data_type.size.to_be_bytes());
            out.extend_from_slice(&data_type.modifier.to_be_bytes());
            let format = format_of(formats, index);
            out.extend_from_slice(&(format as u16).to_be_bytes());
        }
    });
}

/// The format of column `index` under the rule of Bind.
pub fn format_of(formats: &[Format], index: usize) -> Format {
    match formats {
        [] => Format::Text,
        [one] => *one,
        each => each.get(index).copied().unwrap_or(Format::Text),
    }
}

/// ParameterDescription.
pub fn parameter_description(out: &mut Vec<u8>, oids: impl ExactSizeIterator<Item = u32>) {
    message(out, b't', |out| {
        out.extend_from_slice(&(oids.len() as u16).to_be_bytes());
        for oid in oids {
            out.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// CopyInResponse ('G') or CopyOutResponse ('H'), all columns as text.
pub fn copy_response(out: &mut Vec<u8>, kind: u8, columns: usize) {
    message(out, kind, |out| {
        out.push(0);
        out.extend_from_slice(&(columns as u16).to_be_bytes());
        out.resize(out.len() + 2 * columns, 0);
    });
}

/// ErrorResponse.
pub fn error_response(out: &mut Vec<u8>, error: &SessionError) {
    let severity = match error.severity {
        Severity::Error => "ERROR",
        Severity::Fatal => "FATAL",
    };
    message(out, b'E', |out| fields(out, severity, error));
}

/// NoticeResponse with the severity "WARNING" or "NOTICE".
pub fn notice_response(out: &mut Vec<u8>, severity: &str, notice: &SessionError) {
    message(out, b'N', |out| fields(out, severity, notice));
}

fn fields(out: &mut Vec<u8>, severity: &str, error: &SessionError) {
    let mut field = |kind: u8, value: &str| {
        out.push(kind);
        text(out, value);
    };
    field(b'S', severity);
    field(b'V', severity);
    field(b'C', error.sqlstate);
    field(b'M', &error.message);
    if let Some(detail) = &error.detail {
        field(b'D', detail);
    }
    if let Some(context) = &error.context {
        field(b'W', context);
    }
    if let Some(hint) = error.hint {
        field(b'H', hint);
    }
    if let Some(Position::InQuery(position)) = error.position {
        field(b'P', &position.to_string());
    }
    out.push(0);
}
