//! What can be wrong with a value, and the SQLSTATE of each.

/// A value that cannot be sent, or that a client sent and that is not one.
/// The messages are PostgreSQL's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum EncodeError {
    #[error("values of type {0} cannot be sent to a client; cast them to another type")]
    UnsupportedType(String),
    #[error("parameters of type {0} are not supported")]
    UnsupportedParameter(String),
    #[error("{given} format codes were given for {columns} columns")]
    FormatCount { given: usize, columns: usize },
    #[error("a column is not of the type {0} that its description says")]
    TypeMismatch(String),
    #[error("multidimensional arrays must have sub-arrays of the same length, without nulls")]
    RaggedArray,
    #[error("a row is larger than the 1 GB that a message can hold")]
    RowTooLarge,
    #[error("invalid input syntax for type {kind}: \"{text}\"")]
    InvalidText { kind: &'static str, text: String },
    #[error("invalid hexadecimal data: \"{0}\"")]
    InvalidHex(String),
    #[error("malformed array literal: \"{0}\"")]
    MalformedArray(String),
    #[error("incorrect binary data format for type {0}")]
    InvalidBinary(&'static str),
    #[error("value \"{text}\" is out of range for type {kind}")]
    OutOfRange { kind: &'static str, text: String },
    #[error("invalid input syntax for type {kind}: \"{text}\"")]
    InvalidDatetime { kind: &'static str, text: String },
    #[error("date/time field value out of range: \"{0}\"")]
    DatetimeFieldOutOfRange(String),
    #[error("{0} out of range")]
    DatetimeOutOfRange(&'static str),
    #[error("interval field value out of range: \"{0}\"")]
    IntervalOutOfRange(String),
    #[error("time zone displacement out of range: \"{0}\"")]
    ZoneDisplacement(String),
    #[error("time zone \"{0}\" not recognized")]
    UnknownTimeZone(String),
    #[error("invalid byte sequence for encoding \"UTF8\": {0}")]
    InvalidUtf8(String),
    #[error("COPY, line {line}: {message}")]
    Copy { line: u64, message: String },
    #[error("COPY {0}")]
    CopyOption(String),
}

impl EncodeError {
    /// The SQLSTATE, from PostgreSQL's appendix A.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::UnsupportedType(_) | Self::UnsupportedParameter(_) => "0A000",
            Self::FormatCount { .. } => "08P01",
            Self::TypeMismatch(_) => "XX000",
            Self::RaggedArray => "2202E",
            Self::RowTooLarge => "54000",
            Self::InvalidText { .. } | Self::MalformedArray(_) => "22P02",
            Self::InvalidBinary(_) => "22P03",
            Self::OutOfRange { .. } => "22003",
            Self::InvalidDatetime { .. } => "22007",
            Self::DatetimeFieldOutOfRange(_) | Self::DatetimeOutOfRange(_) => "22008",
            Self::IntervalOutOfRange(_) => "22015",
            Self::ZoneDisplacement(_) => "22009",
            Self::UnknownTimeZone(_) | Self::CopyOption(_) | Self::InvalidHex(_) => "22023",
            Self::InvalidUtf8(_) => "22021",
            Self::Copy { .. } => "22P04",
        }
    }

    pub(super) fn invalid_text(kind: &'static str, text: &str) -> Self {
        Self::InvalidText {
            kind,
            text: excerpt(text),
        }
    }

    pub(super) fn out_of_range(kind: &'static str, text: &str) -> Self {
        Self::OutOfRange {
            kind,
            text: excerpt(text),
        }
    }

    pub(super) fn invalid_datetime(kind: &'static str, text: &str) -> Self {
        Self::InvalidDatetime {
            kind,
            text: excerpt(text),
        }
    }
}

impl From<Box<EncodeError>> for EncodeError {
    fn from(error: Box<EncodeError>) -> Self {
        *error
    }
}

/// As much of a client's text as belongs into a message.
pub(super) fn excerpt(text: &str) -> String {
    const LIMIT: usize = 200;
    match text.char_indices().nth(LIMIT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
