//! A reload: another process, of the program and the configuration as they are
//! now, takes this one's place, and no client notices.
//!
//! The old process (`old`) starts the new one (`successor`) and passes it every
//! listening socket ([`estate`]). The new one prepares everything that can fail,
//! and says that it is ready; then the old one stops accepting, passes on what it
//! has counted ([`state`]), and the new one goes on. In between, clients wait in the
//! kernel's queue. Until then the old one serves, whatever happens to the new one,
//! and the reason why there was no reload goes back to whoever asked for it. The
//! conversation is in `proto/reload.proto`.
//!
//! The old one finishes the connections that it has not handed over yet, and leaves
//! without touching the workers.

mod channel;
pub mod estate;
mod old;
mod program;
pub mod state;
mod successor;

use tokio::sync::{mpsc, oneshot};

use crate::proto::ReloadReply;

pub use old::{Handover, ReloadError, attempt};
pub use program::Program;
pub use successor::{Post, Predecessor};

/// The form of the conversation, and of the state that is carried over. Raised
/// when a version without the knowledge of a field would do harm.
const FORM: u32 = 2;

/// Takes requests for a reload, one at a time.
#[derive(Clone)]
pub struct Desk(mpsc::Sender<Request>);

/// Somebody waits for a reload.
pub struct Request {
    /// `None` if it was a signal, which waits for nothing.
    answer: Option<oneshot::Sender<Result<ReloadReply, String>>>,
}

impl Desk {
    /// A desk, and where its requests arrive.
    pub fn open() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Asks for a reload and waits for its end. An error is the reason for people
    /// why there was none. Dropped before, the reload is given up.
    pub async fn ask(&self) -> Result<ReloadReply, String> {
        let stopping = || Err("the server is stopping".to_owned());
        let (answer, answered) = oneshot::channel();
        let request = Request { answer: Some(answer) };
        match self.0.send(request).await {
            Ok(()) => answered.await.unwrap_or_else(|_| stopping()),
            Err(_) => stopping(),
        }
    }
}

impl Request {
    /// By a signal.
    pub fn of_a_signal() -> Self {
        Self { answer: None }
    }

    /// Tells who waits.
    pub fn answer(self, answer: Result<ReloadReply, String>) {
        if let Some(waiting) = self.answer {
            // Nobody waits any more.
            let _ = waiting.send(answer);
        }
    }

    /// Returns when nobody waits any more.
    async fn given_up(&mut self) {
        match &mut self.answer {
            Some(answer) => answer.closed().await,
            None => std::future::pending().await,
        }
    }
}
