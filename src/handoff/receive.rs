//! The receiving side of a handoff.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio::time::Instant;

use super::collect::Collector;
use super::envelope::{self, EnvelopeError, Kind, Payload};
use super::memfd;
use super::send::within;
use super::session::{Session, SessionState};
use super::socket::{Acceptor, Message, Stream, is_client_socket};
use super::state::StateError;
use super::tape::Tape;
use crate::proto::accept_reply::Outcome;
use crate::proto::refused::Reason;
use crate::proto::{AcceptReply, Accepted, Refused};

/// A reply that cannot be sent at once is to a sender that does not read.
const REPLY_DEADLINE: Duration = Duration::from_secs(5);
/// Characters of a refusal's message that are sent.
const MAX_EXPLANATION: usize = 1024;

/// Why a connection on the handoff socket has brought no session. The sender was
/// told, where it could be, and keeps its session.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The socket failed, or the deadline passed ([`io::ErrorKind::TimedOut`]).
    #[error("the handoff socket failed: {0}")]
    Io(#[from] io::Error),
    /// The sender closed without sending anything.
    #[error("the sender closed the connection")]
    Closed,
    /// A user that may not hand sessions over.
    #[error("user id {0} may not hand sessions over")]
    Sender(u32),
    /// The message did not fit, or the descriptors did not: there may be none left.
    #[error("the message or its descriptors were truncated")]
    Truncated,
    /// Fewer or more descriptors than the message needs.
    #[error("the message has {found} descriptors, not {expected}")]
    Descriptors {
        /// How many came.
        found: usize,
        /// How many belong to such a message.
        expected: usize,
    },
    /// The first descriptor is no connected stream socket.
    #[error("the first descriptor is not a client's socket")]
    NotASocket,
    /// The second descriptor should be a tape.
    #[error("the session's tape cannot be read: {0}")]
    Tape(#[source] io::Error),
    /// Another process has claimed it before.
    #[error("the session is another process's")]
    Taken,
    /// Not a message of this protocol.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// The memfd with the state is not as it should be.
    #[error("the attached state cannot be read: {0}")]
    Attached(#[source] io::Error),
    /// The state in the message is not one.
    #[error("the session's state is not valid: {0}")]
    State(#[from] StateError),
}

/// Where sessions arrive.
pub struct Listener {
    socket: Acceptor,
    senders: Arc<[u32]>,
}

impl Listener {
    /// Takes a listening socket from systemd or from [`bind`](super::bind).
    /// `senders` are the effective user ids that may hand sessions over: usually
    /// the worker's own, root, and the control plane's. Must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// The descriptor is not a listening `SOCK_SEQPACKET` Unix socket.
    pub fn from_fd(fd: OwnedFd, senders: &[u32]) -> io::Result<Listener> {
        Ok(Listener {
            socket: Acceptor::from_fd(fd)?,
            senders: senders.into(),
        })
    }

    /// Waits for the next sender. Cancel safe. An error is one of accept(2), of
    /// which EMFILE and its like pass: wait a moment, then go on.
    pub async fn accept(&self) -> io::Result<Incoming> {
        let stream = self.socket.accept().await?;
        Ok(Incoming {
            stream,
            senders: self.senders.clone(),
        })
    }
}

/// A sender that has connected and perhaps not yet sent.
pub struct Incoming {
    pub(super) stream: Stream,
    senders: Arc<[u32]>,
}

impl Incoming {
    /// Receives the session, or learns that this side's are collected, at most until `deadline` from now. What cannot be
    /// used is refused, and all its descriptors are closed.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub async fn receive(self, deadline: Duration) -> Result<Arrival, ReceiveError> {
        let deadline = Instant::now() + deadline;
        let uid = self.stream.peer_uid()?;
        // The message is taken off the queue even if its sender is not allowed:
        // closing a socket with unread messages would eat the refusal.
        let message = within(deadline, self.stream.receive()).await?;
        let message = message.ok_or(ReceiveError::Closed)?;
        let opened = match self.senders.contains(&uid) {
            true if is_collector(&message) => return Ok(Arrival::Collector(Collector(self.stream))),
            true => open(message),
            false => {
                drop(message);
                Err(ReceiveError::Sender(uid))
            }
        };
        match opened {
            Ok((session, tape)) => Ok(Arrival::Offer(Box::new(Offer {
                session,
                tape,
                stream: self.stream,
            }))),
            Err(error) => {
                let reason = match error {
                    ReceiveError::Taken => Reason::Taken,
                    _ => Reason::Malformed,
                };
                // The sender notices a lost refusal by its deadline.
                let _ = refuse(&self.stream, reason, &error.to_string()).await;
                Err(error)
            }
        }
    }
}

fn is_collector(message: &Message) -> bool {
    let whole = !message.truncated && message.descriptors.is_empty();
    whole && envelope::parse(message.bytes()) == Ok((Kind::Collect, Payload::Inline(&[])))
}

pub(super) fn open(mut message: Message) -> Result<(Session, Option<Tape>), ReceiveError> {
    if message.truncated {
        return Err(ReceiveError::Truncated);
    }
    let mut descriptors = std::mem::take(&mut message.descriptors).into_iter();
    let (kind, payload) = envelope::parse(message.bytes())?;
    let taped = match kind {
        Kind::Session => false,
        Kind::Taped => true,
        Kind::Reply | Kind::Collect => return Err(EnvelopeError::Kind.into()),
    };
    let found = descriptors.len();
    let expected = 1 + usize::from(taped) + usize::from(matches!(payload, Payload::Attached { .. }));
    if found != expected {
        return Err(ReceiveError::Descriptors { found, expected });
    }
    let mut next = || {
        descriptors
            .next()
            .ok_or(ReceiveError::Descriptors { found, expected })
    };
    let socket = next()?;
    if !is_client_socket(&socket) {
        return Err(ReceiveError::NotASocket);
    }
    let tape = match taped {
        true => Some(
            Tape::open(next()?)
                .map_err(ReceiveError::Tape)?
                .ok_or(ReceiveError::Taken)?,
        ),
        false => None,
    };
    let state = match payload {
        Payload::Inline(bytes) => SessionState::decode(bytes)?,
        Payload::Attached { length } => {
            SessionState::decode(&memfd::read(next()?, length).map_err(ReceiveError::Attached)?)?
        }
    };
    Ok((Session { socket, state }, tape))
}

/// What a connection to the handoff socket is about.
pub enum Arrival {
    /// A session comes.
    Offer(Box<Offer>),
    /// Sessions are taken away.
    Collector(Collector),
}

impl Arrival {
    /// The session, if one comes.
    pub fn offer(self) -> Option<Offer> {
        match self {
            Self::Offer(offer) => Some(*offer),
            Self::Collector(_) => None,
        }
    }
}

/// A session that can be taken or refused. Dropping it closes the session: its
/// sender gets no answer and gives it up as well.
#[must_use]
pub struct Offer {
    /// To decide by. It is not this process's yet.
    pub session: Session,
    tape: Option<Tape>,
    stream: Stream,
}

impl Offer {
    /// Takes the session over.
    ///
    /// A sender that has gone meanwhile has given the session up, because it had
    /// no answer: the session is then this process's all the same.
    ///
    /// # Errors
    /// The answer could not be sent to a sender that may still wait for it. The
    /// session is closed, on this side as on the other. Or it is another process's
    /// by now; then this side has just let go of it.
    pub async fn accept(self) -> io::Result<Session> {
        if let Some(tape) = &self.tape
            && !tape.take(self.session.socket.as_fd())?
        {
            let error = ReceiveError::Taken.to_string();
            refuse(&self.stream, Reason::Taken, &error).await?;
            return Err(io::Error::other(error));
        }
        match reply(&self.stream, Outcome::Accepted(Accepted {})).await {
            Err(error) if !sender_is_gone(&error) => Err(error),
            _ => Ok(self.session),
        }
    }

    /// Gives the session back to its sender.
    ///
    /// # Errors
    /// The sender could not be told; it has given the session up or will.
    pub async fn refuse(self, reason: Reason, message: &str) -> io::Result<()> {
        let Offer {
            session,
            tape,
            stream,
        } = self;
        // First nothing is kept, then that is said.
        drop((session, tape));
        refuse(&stream, reason, message).await
    }
}

fn sender_is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

pub(super) async fn refuse(stream: &Stream, reason: Reason, message: &str) -> io::Result<()> {
    let message = message.chars().take(MAX_EXPLANATION).collect();
    let refused = Refused {
        reason: reason.into(),
        message,
    };
    reply(stream, Outcome::Refused(refused)).await
}

pub(super) async fn reply(stream: &Stream, outcome: Outcome) -> io::Result<()> {
    let reply = AcceptReply {
        outcome: Some(outcome),
    }
    .encode_to_vec();
    let mut message = Vec::new();
    envelope::inline_header(Kind::Reply, reply.len(), &mut message);
    message.extend_from_slice(&reply);
    within(Instant::now() + REPLY_DEADLINE, stream.send(&message, &[])).await
}
