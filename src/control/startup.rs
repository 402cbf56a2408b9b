//! The first packet of a connection (protocol documentation, 54.2 and 54.7).
//!
//! [`parse`] is a pure function of the packet's bytes: it allocates no more
//! than the packet holds, reads nothing, and never panics.

use zeroize::Zeroizing;

use super::fatal::{End, Fatal};
use super::options;
use crate::config::names;

/// The longest startup packet, length word included (PostgreSQL's
/// MAX_STARTUP_PACKET_LENGTH).
pub const MAX_PACKET: usize = 10_000;

/// The newest minor version of protocol 3 that is spoken.
pub const NEWEST_MINOR: u32 = 2;

const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSSENC_REQUEST: u32 = 1234 << 16 | 5680;
const CANCEL_REQUEST: u32 = 1234 << 16 | 5678;

/// What a client can begin with.
pub enum Packet {
    /// SSLRequest.
    Tls,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest.
    Cancel(Cancel),
    /// StartupMessage.
    Startup(Box<Startup>),
}

/// Asks for the end of another session's statement.
pub struct Cancel {
    /// The process id of that session's BackendKeyData.
    pub backend_id: i32,
    /// Its secret, 4 to 256 bytes.
    pub key: Zeroizing<Vec<u8>>,
}

/// Asks for a session.
#[derive(Debug, PartialEq, Eq)]
pub struct Startup {
    /// The minor version of protocol 3 that the client asks for.
    pub requested_minor: u32,
    /// The name to log in with; valid as a name.
    pub user: String,
    /// The database; valid as a name; the user's name if the client gave none.
    pub database: String,
    /// Settings of the session, later ones winning over earlier: first those of
    /// `options`, then the other parameters, as in PostgreSQL.
    pub settings: Vec<(String, String)>,
    /// Protocol options (`_pq_.*`) that were asked for; none is supported.
    pub protocol_options: Vec<String>,
}

impl Startup {
    /// The minor version in force: 2, or 0 (3.1 was never released and is 3.0
    /// in all but name).
    pub fn minor(&self) -> u32 {
        if self.requested_minor >= 2 { 2 } else { 0 }
    }

    /// The body of NegotiateProtocolVersion, if the client must be told that
    /// it gets less than it asked for.
    pub fn negotiation(&self) -> Option<Vec<u8>> {
        if self.requested_minor <= NEWEST_MINOR && self.protocol_options.is_empty() {
            return None;
        }
        // The whole version number, never above the one that was asked for:
        // libpq refuses anything else.
        let version = 3 << 16 | self.requested_minor.min(NEWEST_MINOR);
        let mut body = version.to_be_bytes().to_vec();
        body.extend_from_slice(&(self.protocol_options.len() as u32).to_be_bytes());
        for option in &self.protocol_options {
            body.extend_from_slice(option.as_bytes());
            body.push(0);
        }
        Some(body)
    }
}

/// The length of the packet's rest, from its first four bytes.
pub fn length(word: [u8; 4]) -> Result<usize, End> {
    match usize::try_from(u32::from_be_bytes(word)) {
        Ok(length) if (8..=MAX_PACKET).contains(&length) => Ok(length - 4),
        _ => Err(End::silent("invalid length of startup packet")),
    }
}

/// Reads a packet, its length word taken off. The answers to SSLRequest and
/// GSSENCRequest are given once each; asked again, they are unknown versions
/// of the protocol (`tls`, `gss`: whether they may still be asked).
pub fn parse(packet: &[u8], tls: bool, gss: bool) -> Result<Packet, End> {
    let Some((word, rest)) = packet.split_first_chunk::<4>() else {
        return Err(End::silent("invalid length of startup packet"));
    };
    match u32::from_be_bytes(*word) {
        CANCEL_REQUEST => cancel(rest).map(Packet::Cancel),
        SSL_REQUEST if tls => Ok(Packet::Tls),
        GSSENC_REQUEST if gss => Ok(Packet::Gss),
        version if version >> 16 == 3 => {
            startup(version & 0xffff, rest).map(|it| Packet::Startup(Box::new(it)))
        }
        version => Err(unsupported(version)),
    }
}

fn unsupported(version: u32) -> End {
    let (major, minor) = (version >> 16, version & 0xffff);
    let message =
        format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}");
    End::Fatal(Fatal {
        old_protocol: major < 3,
        ..Fatal::new("0A000", message)
    })
}

fn cancel(rest: &[u8]) -> Result<Cancel, End> {
    match rest.split_first_chunk::<4>() {
        Some((id, key)) if (4..=256).contains(&key.len()) => Ok(Cancel {
            backend_id: i32::from_be_bytes(*id),
            key: Zeroizing::new(key.to_vec()),
        }),
        _ => Err(End::silent("invalid length of cancel request")),
    }
}

fn startup(requested_minor: u32, rest: &[u8]) -> Result<Startup, End> {
    let layout = || Fatal::protocol("invalid startup packet layout: expected terminator as last byte");
    let (mut user, mut database, mut options) = (None, None, None);
    let mut settings = Vec::new();
    let mut protocol_options = Vec::new();
    let mut rest = rest;
    loop {
        let name = take_text(&mut rest).ok_or_else(layout)??;
        if name.is_empty() {
            break;
        }
        let value = take_text(&mut rest).ok_or_else(layout)??;
        match name {
            "user" => user = Some(value),
            "database" => database = Some(value),
            "options" => options = Some(value),
            "replication" => no_replication(value)?,
            _ if name.starts_with("_pq_.") => protocol_options.push(name.to_owned()),
            _ => settings.push((name.to_owned(), value.to_owned())),
        }
    }
    if !rest.is_empty() {
        return Err(layout().into());
    }

    let user = user.filter(|name| !name.is_empty());
    let user =
        user.ok_or_else(|| Fatal::new("28000", "no PostgreSQL user name specified in startup packet"))?;
    names::check(user).map_err(|reason| Fatal::new("28000", format!("the user name {reason}")))?;
    let database = database.filter(|name| !name.is_empty()).unwrap_or(user);
    names::check(database).map_err(|reason| Fatal::new("3D000", format!("the database name {reason}")))?;
    let mut all = options::parse(options.unwrap_or_default())?;
    all.append(&mut settings);
    Ok(Startup {
        requested_minor,
        user: user.to_owned(),
        database: database.to_owned(),
        settings: all,
        protocol_options,
    })
}

/// Takes a text up to its zero byte; nothing if there is none.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<Result<&'a str, Fatal>> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&rest[..end]);
    *rest = &rest[end + 1..];
    Some(text.map_err(|_| {
        Fatal::new(
            "22021",
            "invalid byte sequence for encoding \"UTF8\" in startup packet",
        )
    }))
}

fn no_replication(value: &str) -> Result<(), Fatal> {
    match value {
        "false" | "off" | "no" | "0" | "f" | "n" => Ok(()),
        _ => Err(Fatal::new("0A000", "replication connections are not supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(version: u32, text: &[u8]) -> Vec<u8> {
        [&version.to_be_bytes(), text].concat()
    }

    fn startup_of(version: u32, text: &[u8]) -> Result<Startup, Fatal> {
        match parse(&packet(version, text), true, true) {
            Ok(Packet::Startup(startup)) => Ok(*startup),
            Ok(_) => panic!("another packet"),
            Err(End::Fatal(fatal)) => Err(fatal),
            Err(end) => panic!("{end}"),
        }
    }

    fn code(version: u32, text: &[u8]) -> &'static str {
        startup_of(version, text).unwrap_err().code
    }

    const V3: u32 = 3 << 16;

    #[test]
    fn the_database_is_the_users_own_unless_named() {
        assert_eq!(startup_of(V3, b"user\0al\0\0").unwrap().database, "al");
        assert_eq!(
            startup_of(V3, b"user\0al\0database\0\0\0").unwrap().database,
            "al"
        );
        assert_eq!(
            startup_of(V3, b"user\0al\0database\0db\0\0").unwrap().database,
            "db"
        );
    }

    #[test]
    fn options_come_before_parameters_so_that_parameters_win() {
        let startup = startup_of(V3, b"TimeZone\0UTC\0options\0-c a=1 --b-c=2\0user\0al\0\0").unwrap();
        let pairs: Vec<_> = startup
            .settings
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "1"), ("b_c", "2"), ("TimeZone", "UTC")]);
    }

    #[test]
    fn malformed_packets_are_refused_with_the_codes_of_postgresql() {
        assert_eq!(code(V3, b""), "08P01");
        assert_eq!(code(V3, b"user\0al\0"), "08P01");
        assert_eq!(code(V3, b"user\0al\0\0x"), "08P01");
        assert_eq!(code(V3, b"user\0"), "08P01");
        assert_eq!(code(V3, b"database\0x\0\0"), "28000");
        assert_eq!(code(V3, b"\0"), "28000");
        assert_eq!(code(V3, b"user\0a/b\0\0"), "28000");
        assert_eq!(code(V3, b"user\0al\0database\0../x\0\0"), "3D000");
        assert_eq!(code(V3, b"user\0\xff\0\0"), "22021");
        assert_eq!(code(V3, b"user\0al\0replication\0true\0\0"), "0A000");
        assert_eq!(code(V3, b"user\0al\0options\0-x\0\0"), "42601");
    }

    #[test]
    fn other_protocols_are_refused_in_a_form_that_they_understand() {
        let old = startup_of(2 << 16, b"whatever").unwrap_err();
        assert!(old.old_protocol);
        assert_eq!(
            old.message,
            "unsupported frontend protocol 2.0: server supports 3.0 to 3.2"
        );
        let new = startup_of(4 << 16, b"\0").unwrap_err();
        assert!(!new.old_protocol);
        assert_eq!(new.code, "0A000");
    }

    #[test]
    fn a_second_request_for_encryption_is_an_unknown_protocol() {
        let again = parse(&packet(SSL_REQUEST, b""), false, true);
        assert!(matches!(again, Err(End::Fatal(fatal)) if fatal.message.contains("1234.5679")));
        assert!(matches!(
            parse(&packet(GSSENC_REQUEST, b""), false, true),
            Ok(Packet::Gss)
        ));
    }

    #[test]
    fn clients_that_ask_for_more_are_told_what_they_get() {
        assert_eq!(startup_of(V3, b"user\0al\0\0").unwrap().negotiation(), None);
        assert_eq!(startup_of(V3 | 2, b"user\0al\0\0").unwrap().negotiation(), None);
        let newer = startup_of(V3 | 9999, b"user\0al\0_pq_.x\0y\0_pq_.z\0\0\0").unwrap();
        assert_eq!(newer.minor(), 2);
        assert_eq!(
            newer.negotiation().unwrap(),
            b"\0\x03\0\x02\0\0\0\x02_pq_.x\0_pq_.z\0"
        );
        let middle = startup_of(V3 | 1, b"user\0al\0_pq_.x\0y\0\0").unwrap();
        assert_eq!(middle.minor(), 0);
        assert_eq!(middle.negotiation().unwrap(), b"\0\x03\0\x01\0\0\0\x01_pq_.x\0");
    }

    #[test]
    fn cancel_requests_carry_old_and_long_keys() {
        let key_length = |length: usize| {
            let mut bytes = packet(CANCEL_REQUEST, &7_i32.to_be_bytes());
            bytes.resize(8 + length, 9);
            match parse(&bytes, true, true) {
                Ok(Packet::Cancel(cancel)) => Some((cancel.backend_id, cancel.key.len())),
                _ => None,
            }
        };
        assert_eq!(key_length(4), Some((7, 4)));
        assert_eq!(key_length(32), Some((7, 32)));
        assert_eq!(key_length(256), Some((7, 256)));
        assert_eq!(key_length(3), None);
        assert_eq!(key_length(257), None);
        assert_eq!(key_length(0), None);
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_read() {
        for length_word in [
            0,
            3,
            4,
            7,
            10_001,
            0x7fff_ffff,
            u32::MAX,
            u32::from_be_bytes(*b"GET "),
        ] {
            assert!(length(length_word.to_be_bytes()).is_err(), "{length_word}");
        }
        assert_eq!(length(8_u32.to_be_bytes()).unwrap(), 4);
        assert_eq!(length(10_000_u32.to_be_bytes()).unwrap(), 9_996);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), minor: u16) {
            let _ = parse(&bytes, true, true);
            let _ = parse(&packet(V3 | u32::from(minor), &bytes), true, true);
            let _ = parse(&packet(CANCEL_REQUEST, &bytes), true, true);
        }
    }
}
