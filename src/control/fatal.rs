//! How a connection ends before it becomes a session.
//!
//! Codes and wording are PostgreSQL's, so that drivers and people recognise
//! them; nothing here tells a client more than PostgreSQL would.

use std::io;

use super::limits::Rejected;

/// An ErrorResponse after which the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// The SQLSTATE.
    pub code: &'static str,
    /// One line, lower case, no full stop.
    pub message: String,
    /// A sentence more, if there is something to add.
    pub detail: Option<String>,
    /// Whether the client speaks a protocol older than 3.0.
    pub old_protocol: bool,
}

impl Fatal {
    /// An error without a detail.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
            old_protocol: false,
        }
    }

    /// 08P01, protocol_violation.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new("08P01", message)
    }

    /// 53300, too_many_connections.
    pub fn too_many_connections() -> Self {
        Self::new("53300", "sorry, too many clients already")
    }

    /// 57P03, cannot_connect_now.
    pub fn cannot_connect_now(message: impl Into<String>) -> Self {
        Self::new("57P03", message)
    }

    /// The ErrorResponse (protocol documentation, 54.7 and 54.8), or what
    /// clients of the 2.0 protocol take for one.
    pub fn encode(&self) -> Vec<u8> {
        if self.old_protocol {
            return format!("EFATAL:  {}\n\0", self.message).into_bytes();
        }
        let mut body = Vec::with_capacity(64 + self.message.len());
        let mut field = |name: u8, value: &str| {
            body.push(name);
            body.extend(value.bytes().filter(|byte| *byte != 0));
            body.push(0);
        };
        field(b'S', "FATAL");
        field(b'V', "FATAL");
        field(b'C', self.code);
        field(b'M', &self.message);
        if let Some(detail) = &self.detail {
            field(b'D', detail);
        }
        body.push(0);
        message(b'E', &body)
    }
}

/// A framed message: its type, the length of what follows, the body.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(5 + body.len());
    message.push(kind);
    // Bodies made before a session starts are a few hundred bytes.
    message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// Why a connection ended before it became a session.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The client is told.
    #[error("{} ({})", .0.message, .0.code)]
    Fatal(Fatal),
    /// Nothing that the client says would change it. The log is not told either:
    /// who is refused once is refused often.
    #[error("{} ({})", fatal.message, fatal.code)]
    Unwelcome {
        /// What the client would be told.
        fatal: Fatal,
        /// Whether it is told: it has said something that has an answer.
        told: bool,
    },
    /// The client is not told: it does not speak our protocol, or PostgreSQL
    /// would not tell it either.
    #[error("{0}")]
    Silent(String),
    /// The client is gone, or the network.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<Fatal> for End {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl From<Rejected> for End {
    fn from(rejected: Rejected) -> Self {
        let told = match rejected {
            Rejected::TooManyConnections(_) => return Self::Fatal(rejected.into()),
            Rejected::TooManyVisitors(_) => false,
            Rejected::Banned(..) => true,
        };
        let fatal = rejected.into();
        Self::Unwelcome { fatal, told }
    }
}

impl End {
    pub(super) fn silent(reason: impl Into<String>) -> Self {
        Self::Silent(reason.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_is_framed_as_the_protocol_says() {
        let bytes = Fatal::new("28000", "no").encode();
        assert_eq!(bytes, b"E\0\0\0\x1eSFATAL\0VFATAL\0C28000\0Mno\0\0".as_slice());
        assert_eq!(bytes.len(), 0x1e + 1);
    }

    #[test]
    fn a_client_of_the_old_protocol_gets_an_error_that_it_can_read() {
        let fatal = Fatal {
            old_protocol: true,
            ..Fatal::new("0A000", "unsupported")
        };
        assert_eq!(fatal.encode(), b"EFATAL:  unsupported\n\0");
    }
}
