//! Protocol messages: what a client sends, as bytes, and what it gets back, as
//! lines that a test can compare.
//!
//! The reader is strict on purpose. A message whose length does not fit its
//! content is a failed test, whatever the test was about.

use std::fmt;

use bytes::BytesMut;

/// Transaction status and everything else that a server says, one variant per
/// message. The `Display` form is what transcripts are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Authentication { code: u32, data: Vec<u8> },
    BackendKeyData { process: i32, secret: Vec<u8> },
    BindComplete,
    CloseComplete,
    CommandComplete(String),
    CopyData(Vec<u8>),
    CopyDone,
    CopyInResponse { format: u8, columns: Vec<u16> },
    CopyOutResponse { format: u8, columns: Vec<u16> },
    DataRow(Vec<Option<Vec<u8>>>),
    EmptyQueryResponse,
    Error(Report),
    NegotiateProtocolVersion { version: u32, options: Vec<String> },
    NoData,
    Notice(Report),
    ParameterDescription(Vec<u32>),
    ParameterStatus(String, String),
    ParseComplete,
    PortalSuspended,
    ReadyForQuery(char),
    RowDescription(Vec<Field>),
}

/// The fields of an ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, PartialEq)]
pub struct Report(pub Vec<(char, String)>);

impl Report {
    /// The field of that type, or "" when it was not sent.
    pub fn field(&self, of: char) -> &str {
        self.0
            .iter()
            .find(|(field, _)| *field == of)
            .map_or("", |(_, value)| value)
    }

    pub fn severity(&self) -> &str {
        self.field('V')
    }

    pub fn sqlstate(&self) -> &str {
        self.field('C')
    }

    pub fn message(&self) -> &str {
        self.field('M')
    }
}

/// One column of a RowDescription.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: String,
    pub table: u32,
    pub attribute: i16,
    pub oid: u32,
    pub size: i16,
    pub modifier: i32,
    pub format: i16,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Authentication { code, .. } => write!(f, "Authentication {code}"),
            Answer::BackendKeyData { .. } => write!(f, "BackendKeyData"),
            Answer::BindComplete => write!(f, "BindComplete"),
            Answer::CloseComplete => write!(f, "CloseComplete"),
            Answer::CommandComplete(tag) => write!(f, "CommandComplete {tag}"),
            Answer::CopyData(data) => write!(f, "CopyData {}", data.escape_ascii()),
            Answer::CopyDone => write!(f, "CopyDone"),
            Answer::CopyInResponse { format, columns } => write!(f, "CopyInResponse {format} {columns:?}"),
            Answer::CopyOutResponse { format, columns } => write!(f, "CopyOutResponse {format} {columns:?}"),
            Answer::DataRow(values) => {
                let values: Vec<String> = values
                    .iter()
                    .map(|value| match value {
                        Some(bytes) => match std::str::from_utf8(bytes) {
                            Ok(text) if !text.contains(|c: char| c.is_control()) => text.to_string(),
                            _ => format!("\\x{}", hex(bytes)),
                        },
                        None => "null".to_string(),
                    })
                    .collect();
                write!(f, "DataRow {}", values.join("|"))
            }
            Answer::EmptyQueryResponse => write!(f, "EmptyQueryResponse"),
            Answer::Error(report) => match report.severity() {
                "ERROR" => write!(f, "Error {}", report.sqlstate()),
                severity => write!(f, "Error {severity} {}", report.sqlstate()),
            },
            Answer::NegotiateProtocolVersion { version, options } => {
                write!(
                    f,
                    "NegotiateProtocolVersion {}.{} {options:?}",
                    version >> 16,
                    version & 0xffff
                )
            }
            Answer::NoData => write!(f, "NoData"),
            Answer::Notice(report) => write!(f, "Notice {} {}", report.severity(), report.sqlstate()),
            Answer::ParameterDescription(oids) => {
                write!(f, "ParameterDescription")?;
                oids.iter().try_for_each(|oid| write!(f, " {}", type_name(*oid)))
            }
            Answer::ParameterStatus(name, value) => write!(f, "ParameterStatus {name}={value}"),
            Answer::ParseComplete => write!(f, "ParseComplete"),
            Answer::PortalSuspended => write!(f, "PortalSuspended"),
            Answer::ReadyForQuery(status) => write!(f, "ReadyForQuery {status}"),
            Answer::RowDescription(fields) => {
                write!(f, "RowDescription")?;
                fields.iter().try_for_each(|field| {
                    let format = if field.format == 1 { " binary" } else { "" };
                    write!(f, " {}:{}{format}", field.name, type_name(field.oid))
                })
            }
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn type_name(oid: u32) -> String {
    match oid {
        16 => "bool".into(),
        20 => "int8".into(),
        21 => "int2".into(),
        23 => "int4".into(),
        // DuckDB has one type for both.
        25 | 1043 => "text".into(),
        701 => "float8".into(),
        1082 => "date".into(),
        1700 => "numeric".into(),
        other => other.to_string(),
    }
}

/// Takes the first whole message off `buffer`, or nothing while it is incomplete.
pub fn take(buffer: &mut BytesMut) -> Option<Answer> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().unwrap()) as usize;
    assert!(length >= 4, "the server sent the length {length}");
    if buffer.len() < 1 + length {
        return None;
    }
    let message = buffer.split_to(1 + length);
    Some(parse(message[0], &message[5..]))
}

fn parse(kind: u8, body: &[u8]) -> Answer {
    let mut body = Body {
        rest: body,
        kind: kind as char,
    };
    let answer = match kind {
        b'R' => Answer::Authentication {
            code: body.u32(),
            data: body.all(),
        },
        b'K' => Answer::BackendKeyData {
            process: body.u32() as i32,
            secret: body.all(),
        },
        b'2' => Answer::BindComplete,
        b'3' => Answer::CloseComplete,
        b'C' => Answer::CommandComplete(body.string()),
        b'd' => Answer::CopyData(body.all()),
        b'c' => Answer::CopyDone,
        b'G' | b'H' => {
            let format = body.u8();
            let columns = (0..body.u16()).map(|_| body.u16()).collect();
            match kind {
                b'G' => Answer::CopyInResponse { format, columns },
                _ => Answer::CopyOutResponse { format, columns },
            }
        }
        b'D' => Answer::DataRow(
            (0..body.u16())
                .map(|_| match body.u32() as i32 {
                    -1 => None,
                    length => Some(body.bytes(usize::try_from(length).unwrap()).to_vec()),
                })
                .collect(),
        ),
        b'I' => Answer::EmptyQueryResponse,
        b'E' => Answer::Error(body.report()),
        b'v' => {
            let version = body.u32();
            let options = (0..body.u32()).map(|_| body.string()).collect();
            Answer::NegotiateProtocolVersion { version, options }
        }
        b'n' => Answer::NoData,
        b'N' => Answer::Notice(body.report()),
        b't' => Answer::ParameterDescription((0..body.u16()).map(|_| body.u32()).collect()),
        b'S' => Answer::ParameterStatus(body.string(), body.string()),
        b'1' => Answer::ParseComplete,
        b's' => Answer::PortalSuspended,
        b'Z' => Answer::ReadyForQuery(body.u8() as char),
        b'T' => Answer::RowDescription(
            (0..body.u16())
                .map(|_| Field {
                    name: body.string(),
                    table: body.u32(),
                    attribute: body.u16() as i16,
                    oid: body.u32(),
                    size: body.u16() as i16,
                    modifier: body.u32() as i32,
                    format: body.u16() as i16,
                })
                .collect(),
        ),
        _ => panic!("the server sent a message of type {:?}", kind as char),
    };
    assert!(
        body.rest.is_empty(),
        "{answer} carries {} bytes too many",
        body.rest.len()
    );
    answer
}

struct Body<'a> {
    rest: &'a [u8],
    kind: char,
}

impl<'a> Body<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .unwrap_or_else(|| panic!("the server's message {:?} is too short", self.kind));
        self.rest = rest;
        taken
    }

    fn all(&mut self) -> Vec<u8> {
        self.bytes(self.rest.len()).to_vec()
    }

    fn u8(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().unwrap())
    }

    fn string(&mut self) -> String {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .expect("a string ends with NUL");
        let text = String::from_utf8(self.bytes(end).to_vec()).expect("the server speaks UTF-8");
        self.u8();
        text
    }

    fn report(&mut self) -> Report {
        let mut fields = Vec::new();
        loop {
            match self.u8() {
                0 => return Report(fields),
                field => fields.push((field as char, self.string())),
            }
        }
    }
}

/// A message with its true length.
pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    lying(kind, i32::try_from(body.len() + 4).unwrap(), body)
}

/// A message that claims to be `length` bytes long, whatever its body.
pub fn lying(kind: u8, length: i32, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    message.extend(body);
    message
}

fn text(string: &str) -> Vec<u8> {
    let mut bytes = string.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn count(of: usize) -> [u8; 2] {
    u16::try_from(of).unwrap().to_be_bytes()
}

pub fn query(sql: &str) -> Vec<u8> {
    framed(b'Q', &text(sql))
}

pub fn parse_as(statement: &str, sql: &str, oids: &[u32]) -> Vec<u8> {
    let mut body = text(statement);
    body.extend(text(sql));
    body.extend(count(oids.len()));
    oids.iter().for_each(|oid| body.extend(oid.to_be_bytes()));
    framed(b'P', &body)
}

pub fn parse_statement(statement: &str, sql: &str) -> Vec<u8> {
    parse_as(statement, sql, &[])
}

/// Everything that a Bind message can say.
#[derive(Default)]
pub struct Bind<'a> {
    pub portal: &'a str,
    pub statement: &'a str,
    pub formats: &'a [i16],
    pub values: &'a [Option<&'a [u8]>],
    pub results: &'a [i16],
}

impl Bind<'_> {
    pub fn message(&self) -> Vec<u8> {
        framed(b'B', &self.body())
    }

    pub fn body(&self) -> Vec<u8> {
        let mut body = text(self.portal);
        body.extend(text(self.statement));
        body.extend(count(self.formats.len()));
        self.formats
            .iter()
            .for_each(|format| body.extend(format.to_be_bytes()));
        body.extend(count(self.values.len()));
        for value in self.values {
            match value {
                Some(bytes) => {
                    body.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                    body.extend(*bytes);
                }
                None => body.extend((-1i32).to_be_bytes()),
            }
        }
        body.extend(count(self.results.len()));
        self.results
            .iter()
            .for_each(|format| body.extend(format.to_be_bytes()));
        body
    }
}

/// Bind with parameters in text.
pub fn bind(portal: &str, statement: &str, values: &[&str]) -> Vec<u8> {
    let values: Vec<Option<&[u8]>> = values.iter().map(|value| Some(value.as_bytes())).collect();
    Bind {
        portal,
        statement,
        values: &values,
        ..Bind::default()
    }
    .message()
}

pub fn describe_statement(name: &str) -> Vec<u8> {
    framed(b'D', &[b"S", text(name).as_slice()].concat())
}

pub fn describe_portal(name: &str) -> Vec<u8> {
    framed(b'D', &[b"P", text(name).as_slice()].concat())
}

/// Execute; a limit of 0 means all rows.
pub fn execute(portal: &str, limit: i32) -> Vec<u8> {
    let mut body = text(portal);
    body.extend(limit.to_be_bytes());
    framed(b'E', &body)
}

pub fn close_statement(name: &str) -> Vec<u8> {
    framed(b'C', &[b"S", text(name).as_slice()].concat())
}

pub fn close_portal(name: &str) -> Vec<u8> {
    framed(b'C', &[b"P", text(name).as_slice()].concat())
}

pub fn flush() -> Vec<u8> {
    framed(b'H', b"")
}

pub fn sync() -> Vec<u8> {
    framed(b'S', b"")
}

pub fn terminate() -> Vec<u8> {
    framed(b'X', b"")
}

pub fn copy_data(data: &[u8]) -> Vec<u8> {
    framed(b'd', data)
}

pub fn copy_done() -> Vec<u8> {
    framed(b'c', b"")
}

pub fn copy_fail(why: &str) -> Vec<u8> {
    framed(b'f', &text(why))
}

/// A message of the startup phase: no type byte, only a length.
pub fn untyped(body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    message.extend(body);
    message
}

pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(text(name));
        body.extend(text(value));
    }
    body.push(0);
    untyped(&body)
}

pub fn ssl_request() -> Vec<u8> {
    untyped(&80877103u32.to_be_bytes())
}

pub fn gssenc_request() -> Vec<u8> {
    untyped(&80877104u32.to_be_bytes())
}

pub fn cancel_request(process: i32, secret: &[u8]) -> Vec<u8> {
    let mut body = 80877102u32.to_be_bytes().to_vec();
    body.extend(process.to_be_bytes());
    body.extend(secret);
    untyped(&body)
}

pub fn sasl_initial(mechanism: &str, data: &[u8]) -> Vec<u8> {
    let mut body = text(mechanism);
    body.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    body.extend(data);
    framed(b'p', &body)
}

pub fn sasl_response(data: &[u8]) -> Vec<u8> {
    framed(b'p', data)
}
