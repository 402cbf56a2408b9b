//! The sending side of a handoff.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::envelope::{self, Kind, Payload};
use super::memfd;
use super::session::Session;
use super::socket::Stream;
use super::tape::Tape;
use crate::proto::accept_reply::Outcome;
use crate::proto::refused::Reason;
use crate::proto::{AcceptReply, Refused};

/// Why a session was not handed over, and whose it is now.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// The worker does not take it and has kept nothing of it.
    #[error("the worker refused the session: {message}")]
    Refused {
        /// The session, as usable as before.
        session: Box<Session>,
        /// What to do about it.
        reason: Reason,
        /// For the log.
        message: String,
    },
    /// It was never sent, or the worker has closed or died without reading it.
    #[error("the worker cannot be reached: {source}")]
    Unreachable {
        /// The session, as usable as before.
        session: Box<Session>,
        /// Why; [`io::ErrorKind::TimedOut`] if the deadline passed.
        source: io::Error,
    },
    /// It was sent and no answer came. The worker may have it, so this side has
    /// closed its copy of the socket without a word.
    #[error("the worker did not answer the handoff: {source}")]
    Ambiguous {
        /// Why; [`io::ErrorKind::TimedOut`] if the deadline passed.
        source: io::Error,
    },
}

/// Hands a session to the worker that listens at `worker_socket`, and waits until
/// it has taken it, at most until `deadline` from now. A worker that is not yet
/// accepting finds the session in its backlog.
///
/// # Errors
/// [`OfferError::Refused`] and [`OfferError::Unreachable`] give the session back.
/// If the future is dropped the session is closed, or the worker's.
pub async fn offer(worker_socket: &Path, session: Session, deadline: Duration) -> Result<(), OfferError> {
    offer_with(worker_socket, session, deadline, None).await
}

/// The same for a session whose handshake another process could do again: the
/// worker has it when it has claimed the tape. `used` is how many of the client's
/// bytes in the socket belong to the handshake; the worker takes them out.
///
/// # Errors
/// As of [`offer`]. When no answer has come the tape is claimed here, if that can
/// still be done ([`Tape::is_mine`]); then the session comes back, and can be offered
/// again without it. [`Reason::Taken`] says that the session is another's.
pub async fn offer_with(
    worker_socket: &Path,
    session: Session,
    deadline: Duration,
    tape: Option<(&Tape, u32)>,
) -> Result<(), OfferError> {
    let deadline = Instant::now() + deadline;
    let stream = match send(worker_socket, &session, deadline, tape).await {
        Ok(stream) => stream,
        Err(source) => {
            return Err(OfferError::Unreachable {
                session: Box::new(session),
                source,
            });
        }
    };
    answered(&stream, session, deadline, tape.map(|(tape, _)| tape)).await
}

/// What the other side says to a session that it was sent.
pub(super) async fn outcome(stream: &Stream, session: Session, deadline: Instant) -> Result<(), OfferError> {
    answered(stream, session, deadline, None).await
}

async fn answered(
    stream: &Stream,
    session: Session,
    deadline: Instant,
    tape: Option<&Tape>,
) -> Result<(), OfferError> {
    // From here on only a refusal gives the session back, or a worker that has
    // certainly not read it. Dropping it closes this side's copy of the socket; TLS
    // says nothing, because nobody seals anything.
    match within(deadline, reply(stream)).await {
        Ok(Outcome::Accepted(_)) => Ok(()),
        Ok(Outcome::Refused(refused)) => {
            let reason = refused.reason();
            let Refused { message, .. } = refused;
            Err(OfferError::Refused {
                session: Box::new(session),
                reason,
                message,
            })
        }
        // The last message on this connection was never read: the kernel says so
        // when a receiver closes, or dies, with something left in its queue
        // (unix(7); EOF would say that it was read).
        Err(source) if source.kind() == io::ErrorKind::ConnectionReset => Err(OfferError::Unreachable {
            session: Box::new(session),
            source,
        }),
        Err(source) => match tape.map(|tape| tape.take(session.socket.as_fd())) {
            // Nobody knows what has become of the worker, but it has not claimed the
            // session, and cannot any more.
            Some(Ok(true)) => Err(OfferError::Unreachable {
                session: Box::new(session),
                source,
            }),
            _ => Err(OfferError::Ambiguous { source }),
        },
    }
}

/// Connects and sends; an error means that nothing has been sent.
async fn send(
    worker_socket: &Path,
    session: &Session,
    deadline: Instant,
    tape: Option<(&Tape, u32)>,
) -> io::Result<Stream> {
    let kind = tape.map_or(Kind::Session, |_| Kind::Taped);
    let composed = compose(session, kind)?;
    let mut descriptors = composed.descriptors(session);
    descriptors.splice(1..1, tape.map(|(tape, _)| tape.fd()));
    within(deadline, async {
        let stream = Stream::connect(worker_socket).await?;
        if let Some((tape, used)) = tape {
            tape.offer(used)?;
        }
        stream.send(&composed.message, &descriptors).await?;
        Ok(stream)
    })
    .await
}

/// A session as a message.
pub(super) struct Composed {
    /// Wiped when dropped.
    pub(super) message: Zeroizing<Vec<u8>>,
    attached: Option<OwnedFd>,
}

impl Composed {
    /// What goes with it: the client's socket first.
    pub(super) fn descriptors<'a>(&'a self, session: &'a Session) -> Vec<BorrowedFd<'a>> {
        let attached = self.attached.as_ref().map(AsFd::as_fd);
        std::iter::once(session.socket.as_fd()).chain(attached).collect()
    }
}

pub(super) fn compose(session: &Session, kind: Kind) -> io::Result<Composed> {
    let mut message = session.state.encode_after(envelope::HEADER, |length, out| {
        envelope::inline_header(kind, length, out);
    });
    let length = message.len() - envelope::HEADER;
    if length > envelope::MAX_ATTACHED {
        return Err(io::Error::other(
            "the session's state is too large to be handed over",
        ));
    }
    let mut attached = None;
    if length > envelope::MAX_INLINE {
        attached = Some(memfd::create(&message[envelope::HEADER..])?);
        message = Zeroizing::new(Vec::with_capacity(envelope::HEADER));
        envelope::attached_header(kind, length, &mut message);
    }
    Ok(Composed { message, attached })
}

async fn reply(stream: &Stream) -> io::Result<Outcome> {
    let invalid = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    let message = stream.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if message.truncated || !message.descriptors.is_empty() {
        return Err(invalid("the reply is truncated or has descriptors".to_owned()));
    }
    match envelope::parse(message.bytes()) {
        Ok((Kind::Reply, Payload::Inline(payload))) => AcceptReply::decode(payload)
            .map_err(|error| invalid(error.to_string()))?
            .outcome
            .ok_or_else(|| invalid("the reply says nothing".to_owned())),
        Ok(_) => Err(invalid(
            "the worker answered something else than a reply".to_owned(),
        )),
        Err(error) => Err(invalid(error.to_string())),
    }
}

pub(super) async fn within<T>(deadline: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
