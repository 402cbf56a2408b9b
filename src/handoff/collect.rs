//! Sessions that leave a worker for good, to go on in another one.
//!
//! Whoever comes for them connects to the handoff socket as for an offer, and says
//! that it collects. Then the sides are the other way round: the worker offers one
//! session after the other on this connection, each is answered before the next, and
//! the worker keeps its copy until it is. The end of the connection is the end of the
//! sessions. Who has a session when no answer comes is decided as for any handoff: it
//! is given up in silence.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::envelope::{self, Kind};
use super::receive::{ReceiveError, open, refuse, reply};
use super::send::{OfferError, compose, outcome, within};
use super::session::Session;
use super::socket::Stream;
use crate::proto::Accepted;
use crate::proto::accept_reply::Outcome;
use crate::proto::refused::Reason;

/// Somebody who takes sessions away.
#[derive(Debug)]
pub struct Collector(pub(super) Stream);

impl Collector {
    /// Gives a session away, and waits until it is taken, at most until `deadline` from
    /// now.
    ///
    /// # Errors
    /// As of [`offer`](super::offer). After another than [`OfferError::Refused`] nothing
    /// more can be given to this one.
    pub async fn give(&self, session: Session, deadline: Duration) -> Result<(), OfferError> {
        let deadline = Instant::now() + deadline;
        let sent = async {
            let composed = compose(&session, Kind::Session)?;
            let descriptors = composed.descriptors(&session);
            within(deadline, self.0.send(&composed.message, &descriptors)).await
        };
        if let Err(source) = sent.await {
            return Err(OfferError::Unreachable {
                session: Box::new(session),
                source,
            });
        }
        outcome(&self.0, session, deadline).await
    }
}

/// What a worker gives away.
pub struct Collection(Stream);

/// How a session that was collected fared; dropped, it is nobody's.
#[must_use]
pub struct Fate<'a>(&'a Stream);

impl Collection {
    /// Comes for the sessions of the worker that listens at `worker_socket`.
    ///
    /// # Errors
    /// The worker cannot be reached until `deadline` from now.
    pub async fn open(worker_socket: &Path, deadline: Duration) -> io::Result<Self> {
        let mut message = Vec::new();
        envelope::inline_header(Kind::Collect, 0, &mut message);
        within(Instant::now() + deadline, async {
            let stream = Stream::connect(worker_socket).await?;
            stream.send(&message, &[]).await?;
            Ok(Self(stream))
        })
        .await
    }

    /// The next session, and where its fate is to be told before the one after it;
    /// `None` when there is none. It is the worker's until then: it must be closed in
    /// silence unless its fate is that it was taken.
    ///
    /// # Errors
    /// The connection has failed, or what came is no session.
    pub async fn next(&mut self) -> Result<Option<(Session, Fate<'_>)>, ReceiveError> {
        let Some(message) = self.0.receive().await? else {
            return Ok(None);
        };
        match open(message)? {
            (session, None) => Ok(Some((session, Fate(&self.0)))),
            (_, Some(_)) => Err(ReceiveError::Taken),
        }
    }
}

impl Fate<'_> {
    /// Another worker has it.
    ///
    /// # Errors
    /// The worker does not hear it. It has given the session up.
    pub async fn taken(self) -> io::Result<()> {
        reply(self.0, Outcome::Accepted(Accepted {})).await
    }

    /// Nobody has it but the worker, and no copy of it is left here.
    ///
    /// # Errors
    /// The worker does not hear it. It has given the session up.
    pub async fn refused(self, reason: Reason, message: &str) -> io::Result<()> {
        refuse(self.0, reason, message).await
    }
}
