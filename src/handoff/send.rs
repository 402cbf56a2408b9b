//! The sending side of a handoff.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::envelope::{self, Kind, Payload};
use super::memfd;
use super::session::Session;
use super::socket::Stream;
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
    offer_after(worker_socket, session, deadline, |_| Ok(())).await
}

/// The same, with something to do on the client's socket at the last moment: when
/// the worker is reached, and before it has the session. If that fails, nothing
/// is sent.
///
/// # Errors
/// As of [`offer`].
pub async fn offer_after(
    worker_socket: &Path,
    session: Session,
    deadline: Duration,
    commit: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> Result<(), OfferError> {
    let deadline = Instant::now() + deadline;
    let stream = match send(worker_socket, &session, deadline, commit).await {
        Ok(stream) => stream,
        Err(source) => {
            return Err(OfferError::Unreachable {
                session: Box::new(session),
                source,
            });
        }
    };
    // From here on only a refusal gives the session back, or a worker that has
    // certainly not read it. Dropping it closes this side's copy of the socket; TLS
    // says nothing, because nobody seals anything.
    match within(deadline, reply(&stream)).await {
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
        // The only message on this connection was never read: the kernel says so
        // when a receiver closes, or dies, with something left in its queue
        // (unix(7); EOF would say that it was read).
        Err(source) if source.kind() == io::ErrorKind::ConnectionReset => Err(OfferError::Unreachable {
            session: Box::new(session),
            source,
        }),
        Err(source) => Err(OfferError::Ambiguous { source }),
    }
}

/// Connects and sends; an error means that nothing has been sent.
async fn send(
    worker_socket: &Path,
    session: &Session,
    deadline: Instant,
    commit: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<Stream> {
    // The buffer with the secrets is wiped at the end of this function.
    let mut message = session.state.encode_after(envelope::HEADER, |length, out| {
        envelope::inline_header(Kind::Session, length, out);
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
        envelope::attached_header(Kind::Session, length, &mut message);
    }
    let mut descriptors = vec![session.socket.as_fd()];
    descriptors.extend(attached.as_ref().map(AsFd::as_fd));
    within(deadline, async {
        let stream = Stream::connect(worker_socket).await?;
        commit(session.socket.as_fd())?;
        stream.send(&message, &descriptors).await?;
        Ok(stream)
    })
    .await
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
