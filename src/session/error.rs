//! What a client is told when something fails, and where SQLSTATEs are decided.
//!
//! Every layer below has its own error type; here they become the fields of an
//! ErrorResponse, in one place. A [`SessionError`] says what the client sees; a
//! [`Gone`] says that there is no client any more.

use std::borrow::Cow;
use std::io;

use crate::encode::EncodeError;
use crate::engine;
use crate::sql::policy::Refusal;

/// How much an error ends. Source: PostgreSQL manual, section 55.8, field S.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement (and its transaction).
    Error,
    /// The session.
    Fatal,
}

/// An error that a client is told.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct SessionError {
    /// How much it ends.
    pub severity: Severity,
    /// Five characters, PostgreSQL manual appendix A.
    pub sqlstate: &'static str,
    /// One sentence.
    pub message: Cow<'static, str>,
    /// More about it.
    pub detail: Option<Box<str>>,
    /// What to do about it.
    pub hint: Option<&'static str>,
    /// What was being done, for example "COPY t, line 3, column a".
    pub context: Option<Box<str>>,
    /// Where the cause is.
    pub position: Option<Position>,
}

/// A place in the text that the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Bytes from the start of the statement; the client is not told this.
    InStatement(usize),
    /// Characters in the whole query string, counted from 1.
    InQuery(usize),
}

impl SessionError {
    /// An error of the statement.
    pub fn new(sqlstate: &'static str, message: impl Into<Cow<'static, str>>) -> SessionError {
        let severity = Severity::Error;
        SessionError {
            severity,
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
            position: None,
        }
    }

    /// An error that ends the session.
    pub fn fatal(sqlstate: &'static str, message: impl Into<Cow<'static, str>>) -> SessionError {
        SessionError {
            severity: Severity::Fatal,
            ..Self::new(sqlstate, message)
        }
    }

    /// A message that breaks the protocol in a way that loses its place in the
    /// stream.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> SessionError {
        Self::new("08P01", message)
    }

    /// A message whose length cannot be: what follows cannot be understood.
    pub fn lost_sync(message: impl Into<Cow<'static, str>>) -> SessionError {
        Self::fatal("08P01", message)
    }

    /// Finds a place in the statement at `query[start..]` in the query itself, as
    /// the protocol wants it.
    pub fn locate(mut self, query: &str, start: usize) -> SessionError {
        if let Some(Position::InStatement(offset)) = self.position {
            let before = query.get(..start + offset);
            self.position = before.map(|before| Position::InQuery(before.chars().count() + 1));
        }
        self
    }

    /// Adds a hint.
    pub fn with_hint(self, hint: &'static str) -> SessionError {
        SessionError {
            hint: Some(hint),
            ..self
        }
    }
}

impl From<engine::Error> for SessionError {
    fn from(error: engine::Error) -> SessionError {
        let sqlstate = engine::sqlstate(&error);
        if error.is_interrupt() {
            return SessionError::new(sqlstate, "canceling statement due to user request");
        }
        let severity = if error.invalidates_instance() {
            Severity::Fatal
        } else {
            Severity::Error
        };
        // DuckDB puts candidates and hints on lines of their own.
        let (message, detail) = match error.message.split_once('\n') {
            Some((message, detail)) => (message.to_owned(), detail.trim()),
            None => (error.message.clone(), ""),
        };
        let detail = (!detail.is_empty()).then(|| Box::from(detail));
        let position = error.position.map(Position::InStatement);
        SessionError {
            severity,
            sqlstate,
            message: message.into(),
            detail,
            hint: None,
            context: None,
            position,
        }
    }
}

impl From<EncodeError> for SessionError {
    fn from(error: EncodeError) -> SessionError {
        SessionError::new(error.sqlstate(), error.to_string())
    }
}

impl From<Refusal> for SessionError {
    fn from(refusal: Refusal) -> SessionError {
        SessionError::new("42501", refusal.to_string())
    }
}

/// The client cannot be reached any more, or has said goodbye.
#[derive(Debug, thiserror::Error)]
pub enum Gone {
    /// Terminate, or TLS close_notify, or the end of the stream between messages.
    #[error("the client left")]
    Left,
    /// The stream ended within a message.
    #[error("the client vanished")]
    Vanished,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The TLS peer broke the protocol.
    #[error("TLS failed: {0}")]
    Tls(#[from] crate::tls::TlsError),
    /// The server ended the session and has told the client.
    #[error("the session was ended: {0}")]
    Ended(SessionError),
}

impl Failure {
    /// For an error in a text that the client knows only as part of another.
    pub fn without_position(self) -> Failure {
        match self {
            Failure::Report(error) => Failure::Report(SessionError {
                position: None,
                ..error
            }),
            gone => gone,
        }
    }

    /// See [`SessionError::locate`].
    pub fn locate(self, query: &str, start: usize) -> Failure {
        match self {
            Failure::Report(error) => Failure::Report(error.locate(query, start)),
            gone => gone,
        }
    }
}

/// Why a step of a session did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// To be reported.
    #[error(transparent)]
    Report(#[from] SessionError),
    /// Nobody to report to.
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Failure {
        Failure::Report(error.into())
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Failure {
        Failure::Report(error.into())
    }
}
