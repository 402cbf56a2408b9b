//! The messages of a client, from frames to values.
//!
//! A pure function over a complete frame: it never reads past it, allocates
//! nothing before it has checked the counts, and takes every error for a fault
//! of the client's. Source: PostgreSQL manual, section 55.7 "Message Formats".

use super::error::SessionError;

/// The longest message that may carry data (Query, Parse, Bind, CopyData …).
pub const LARGE_MESSAGE: usize = (1 << 30) - 1;
/// The longest of all others.
pub const SMALL_MESSAGE: usize = 10_000;

/// A parsed frontend message; it borrows from its frame.
#[derive(Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are those of the protocol's message formats"
)]
pub enum Message<'a> {
    Query(&'a str),
    Parse {
        name: &'a str,
        query: &'a str,
        types: Vec<u32>,
    },
    Bind {
        portal: &'a str,
        statement: &'a str,
        formats: Vec<i16>,
        parameters: Vec<Option<&'a [u8]>>,
        results: Vec<i16>,
    },
    Describe(Target<'a>),
    Execute {
        portal: &'a str,
        limit: i32,
    },
    Close(Target<'a>),
    Flush,
    Sync,
    Terminate,
    FunctionCall,
    CopyData(&'a [u8]),
    CopyDone,
    CopyFail(&'a str),
    Password,
}

/// What Describe and Close name.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a str),
    /// A portal.
    Portal(&'a str),
}

/// Checks a frame's type and declared length (without the type byte), before a
/// byte of its body is waited for.
pub fn check_header(kind: u8, length: i32) -> Result<usize, SessionError> {
    let limit = match kind {
        b'Q' | b'P' | b'B' | b'd' | b'F' => LARGE_MESSAGE,
        b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' | b'p' => SMALL_MESSAGE,
        _ => {
            return Err(SessionError::lost_sync(format!(
                "invalid frontend message type {kind}"
            )));
        }
    };
    match usize::try_from(length) {
        Ok(length) if (4..=limit).contains(&length) => Ok(length - 4),
        _ => Err(SessionError::lost_sync("invalid message length")),
    }
}

/// Parses the body of a frame of type `kind`.
pub fn parse(kind: u8, body: &[u8]) -> Result<Message<'_>, SessionError> {
    let mut reader = Reader { rest: body };
    let message = match kind {
        b'Q' => Message::Query(reader.text()?),
        b'P' => {
            let (name, query) = (reader.text()?, reader.text()?);
            let count = reader.count(4)?;
            let types = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
            Message::Parse { name, query, types }
        }
        b'B' => {
            let (portal, statement) = (reader.text()?, reader.text()?);
            let count = reader.count(2)?;
            let formats = (0..count).map(|_| reader.format()).collect::<Result<_, _>>()?;
            let count = reader.count(4)?;
            let parameters = (0..count).map(|_| reader.value()).collect::<Result<_, _>>()?;
            let count = reader.count(2)?;
            let results = (0..count).map(|_| reader.format()).collect::<Result<_, _>>()?;
            Message::Bind {
                portal,
                statement,
                formats,
                parameters,
                results,
            }
        }
        b'D' => Message::Describe(reader.target("DESCRIBE")?),
        b'E' => Message::Execute {
            portal: reader.text()?,
            limit: reader.i32()?,
        },
        b'C' => Message::Close(reader.target("CLOSE")?),
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'd' => return Ok(Message::CopyData(body)),
        b'c' => Message::CopyDone,
        b'f' => Message::CopyFail(reader.text()?),
        b'F' => return Ok(Message::FunctionCall),
        b'p' => return Ok(Message::Password),
        _ => {
            return Err(SessionError::lost_sync(format!(
                "invalid frontend message type {kind}"
            )));
        }
    };
    match reader.rest {
        [] => Ok(message),
        _ => Err(SessionError::protocol("invalid message format")),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], SessionError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| SessionError::protocol("insufficient data left in message"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SessionError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, SessionError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, SessionError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    /// A count of items that take at least `size` bytes each. The protocol calls
    /// it an Int16; PostgreSQL counts parameters up to 65,535.
    fn count(&mut self, size: usize) -> Result<usize, SessionError> {
        let count = usize::from(u16::from_be_bytes(self.array()?));
        if count * size > self.rest.len() {
            return Err(SessionError::protocol("insufficient data left in message"));
        }
        Ok(count)
    }

    fn format(&mut self) -> Result<i16, SessionError> {
        match i16::from_be_bytes(self.array()?) {
            format @ (0 | 1) => Ok(format),
            other => Err(SessionError::new(
                "22023",
                format!("unsupported format code: {other}"),
            )),
        }
    }

    fn value(&mut self) -> Result<Option<&'a [u8]>, SessionError> {
        match self.i32()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.take(length).map(Some),
                Err(_) => Err(SessionError::protocol("invalid parameter length")),
            },
        }
    }

    fn text(&mut self) -> Result<&'a str, SessionError> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| SessionError::protocol("invalid string in message"))?;
        let text = self.take(end)?;
        self.rest = &self.rest[1..];
        std::str::from_utf8(text).map_err(|error| {
            let wrong: Vec<String> = text[error.valid_up_to()..]
                .iter()
                .take(error.error_len().unwrap_or(1))
                .map(|byte| format!("0x{byte:02x}"))
                .collect();
            SessionError::new(
                "22021",
                format!("invalid byte sequence for encoding \"UTF8\": {}", wrong.join(" ")),
            )
        })
    }

    fn target(&mut self, command: &str) -> Result<Target<'a>, SessionError> {
        match self.array()? {
            [b'S'] => Ok(Target::Statement(self.text()?)),
            [b'P'] => Ok(Target::Portal(self.text()?)),
            [other] => Err(SessionError::protocol(format!(
                "invalid {command} message subtype {other}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bind_is_read_field_by_field() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x02ab\0\x01\0\0";
        assert_eq!(
            parse(b'B', body).unwrap(),
            Message::Bind {
                portal: "p",
                statement: "s",
                formats: vec![1],
                parameters: vec![None, Some(b"ab")],
                results: vec![0]
            }
        );
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_the_body() {
        for length in [-1, 0, 3, i32::MIN, i32::MAX] {
            assert!(check_header(b'Q', length).is_err());
        }
        assert_eq!(check_header(b'Q', 4).unwrap(), 0);
        assert!(check_header(b'S', 20_000).is_err());
        assert!(check_header(b'z', 4).is_err());
    }

    #[test]
    fn bytes_behind_the_last_field_are_refused() {
        assert!(parse(b'S', b"x").is_err());
        assert!(parse(b'Q', b"select 1\0x").is_err());
        assert!(parse(b'Q', b"select 1").is_err());
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(kind, &body);
        }
    }
}
