//! What frames a message on the handoff socket.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | "DGHO" |
//! | 4 | 2 | format, 1, big endian |
//! | 6 | 1 | kind: 1 a session, 2 the reply to one, 3 a session with its tape, 4 sessions are collected |
//! | 7 | 1 | place: 0 the payload follows, 1 it is in a sealed memfd, the last descriptor |
//! | 8 | 4 | length of the payload in bytes, big endian |
//! | 12 | … | the payload, a protobuf message, or nothing |
//!
//! A session's first descriptor is the client's socket; its tape, if it has one, is
//! the second.

const MAGIC: [u8; 4] = *b"DGHO";
const FORMAT: u16 = 1;
pub(super) const HEADER: usize = 12;
/// A payload in the message itself. A datagram must fit into the socket's buffer,
/// 208 KiB by default.
pub(super) const MAX_INLINE: usize = 64 * 1024;
/// A payload in a memfd: a bound on what the receiver allocates.
pub(super) const MAX_ATTACHED: usize = 64 * 1024 * 1024;

const INLINE: u8 = 0;
const ATTACHED: u8 = 1;

/// What a message is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A session that is offered: the payload is a `proto::AcceptConnection`.
    Session,
    /// The same; who does its handshake again is decided by a [`Tape`](super::Tape).
    Taped,
    /// The answer: the payload is a `proto::AcceptReply`.
    Reply,
    /// The receiver's sessions are to be given away on this connection. No payload.
    Collect,
}

/// Where the payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// In the message.
    Inline(&'a [u8]),
    /// In a memfd of exactly `length` bytes, at most 64 MiB.
    Attached {
        /// Bytes in the memfd.
        length: usize,
    },
}

/// Why a message is none of this protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Shorter than a header.
    #[error("the message is too short")]
    Short,
    /// It does not begin with the magic bytes.
    #[error("the message is not of the handoff protocol")]
    Magic,
    /// Written by another version of the program.
    #[error("the message has format {0}, this side knows format 1")]
    Format(u16),
    /// Not one of those, or not here.
    #[error("the message is of an unknown kind")]
    Kind,
    /// The payload is in no place that this side knows.
    #[error("the payload is in an unknown place")]
    Place,
    /// The length in the header is not that of the payload, or beyond the limit.
    #[error("the length of the payload is wrong")]
    Length,
}

/// Takes a message apart. Accepts any bytes, never panics, allocates nothing.
pub fn parse(message: &[u8]) -> Result<(Kind, Payload<'_>), EnvelopeError> {
    let (header, payload) = message
        .split_first_chunk::<HEADER>()
        .ok_or(EnvelopeError::Short)?;
    let [m0, m1, m2, m3, f0, f1, kind, place, length @ ..] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(EnvelopeError::Magic);
    }
    match u16::from_be_bytes([f0, f1]) {
        FORMAT => {}
        other => return Err(EnvelopeError::Format(other)),
    }
    let kind = match kind {
        1 => Kind::Session,
        2 => Kind::Reply,
        3 => Kind::Taped,
        4 => Kind::Collect,
        _ => return Err(EnvelopeError::Kind),
    };
    let length = u32::from_be_bytes(length) as usize;
    match place {
        INLINE if payload.len() == length && length <= MAX_INLINE => Ok((kind, Payload::Inline(payload))),
        ATTACHED if payload.is_empty() && length <= MAX_ATTACHED => Ok((kind, Payload::Attached { length })),
        INLINE | ATTACHED => Err(EnvelopeError::Length),
        _ => Err(EnvelopeError::Place),
    }
}

/// Appends the header of a payload that follows it.
pub(super) fn inline_header(kind: Kind, length: usize, out: &mut Vec<u8>) {
    header(kind, INLINE, length, out);
}

/// Appends the header of a payload that is in a memfd.
pub(super) fn attached_header(kind: Kind, length: usize, out: &mut Vec<u8>) {
    header(kind, ATTACHED, length, out);
}

fn header(kind: Kind, place: u8, length: usize, out: &mut Vec<u8>) {
    let kind = match kind {
        Kind::Session => 1,
        Kind::Reply => 2,
        Kind::Taped => 3,
        Kind::Collect => 4,
    };
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_be_bytes());
    out.extend_from_slice(&[kind, place]);
    out.extend_from_slice(&(length as u32).to_be_bytes());
}
