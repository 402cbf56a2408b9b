//! DuckDB's errors, with their type, subtype and place.
//!
//! Every connection runs with `errors_as_json`, so that a message carries its
//! exception type, the kind of object that it is about and a byte position.
//! Without that, telling a missing table from a missing function would mean
//! matching English sentences.

use std::ffi::{CStr, c_char};

use serde_json::Value as Json;

/// What DuckDB said went wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The exception's name: "Catalog", "Binder", "Constraint", …
    pub exception: String,
    /// Finer than the exception: "MISSING_ENTRY", "COLUMN_NOT_FOUND", …
    pub subtype: Option<String>,
    /// The kind of catalog entry it is about: "Table", "Schema", …
    pub entry: Option<String>,
    /// DuckDB's sentence, without the exception's name in front.
    pub message: String,
    /// Where in the statement, as a byte offset.
    pub position: Option<usize>,
}

impl Error {
    /// An error that this module found before DuckDB could.
    pub(super) fn new(exception: &str, message: impl Into<String>) -> Error {
        Error {
            exception: exception.into(),
            subtype: None,
            entry: None,
            message: message.into(),
            position: None,
        }
    }

    /// Is the instance lost? DuckDB refuses every further statement after a
    /// fatal error, and after an internal one nothing it says can be trusted.
    pub fn invalidates_instance(&self) -> bool {
        self.exception.eq_ignore_ascii_case("FATAL") || self.exception.eq_ignore_ascii_case("INTERNAL")
    }

    /// Was the statement interrupted?
    pub fn is_interrupt(&self) -> bool {
        self.exception.eq_ignore_ascii_case("INTERRUPT")
    }

    /// Reads what a `duckdb_*_error` function returned.
    ///
    /// # Safety
    /// `text` is null or a C string that lives for the length of the call.
    pub(super) unsafe fn from_raw(text: *const c_char) -> Error {
        if text.is_null() {
            return Error::new("Unknown", "DuckDB failed without saying why");
        }
        // SAFETY: not null, and a live C string by the caller's promise.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        Error::parse(&text)
    }

    /// Takes both forms: bare JSON, and "Parser Error: {json}"; anything else is
    /// "Exception Error: sentence".
    pub(super) fn parse(text: &str) -> Error {
        let json = text
            .find('{')
            .and_then(|start| serde_json::from_str::<Json>(&text[start..]).ok());
        if let Some(Json::Object(fields)) = json {
            let field = |name: &str| fields.get(name).and_then(Json::as_str).map(str::to_owned);
            if let Some(exception) = field("exception_type") {
                return Error {
                    exception,
                    subtype: field("error_subtype"),
                    entry: field("type"),
                    message: field("exception_message").unwrap_or_default(),
                    position: field("position").and_then(|position| position.parse().ok()),
                };
            }
        }
        match text.split_once(" Error: ") {
            Some((exception, message)) if !exception.contains(' ') || exception == "Out of Memory" => {
                Error::new(exception, message)
            }
            Some((exception, message)) if exception.split(' ').count() <= 3 => Error::new(exception, message),
            _ => Error::new("Unknown", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_errors_carry_type_subtype_and_position() {
        let error = Error::parse(
            r#"{"exception_type":"Catalog","exception_message":"Table with name x does not exist!","name":"x","type":"Table","error_subtype":"MISSING_ENTRY","position":"14"}"#,
        );
        assert_eq!(error.exception, "Catalog");
        assert_eq!(error.subtype.as_deref(), Some("MISSING_ENTRY"));
        assert_eq!(error.entry.as_deref(), Some("Table"));
        assert_eq!(error.position, Some(14));
    }

    #[test]
    fn plain_errors_keep_their_exception() {
        let error = Error::parse("Out of Memory Error: failed to allocate");
        assert_eq!(
            (error.exception.as_str(), error.message.as_str()),
            ("Out of Memory", "failed to allocate")
        );
        assert_eq!(Error::parse("whatever").exception, "Unknown");
    }
}
