//! The side of the process that takes another's place.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tracing::{info, warn};

use super::channel::{self, Channel};
use super::estate::Estate;
use super::{FORM, state};
use crate::control::error::StartError;
use crate::control::limits::Limits;
use crate::control::pool::Pool;
use crate::control::workers::Workers;
use crate::proto::{
    Failed, FromPredecessor, FromSuccessor, Hello, Ready, Serving, from_predecessor::Word, from_successor,
};
use crate::systemd::notify;

/// Names the descriptor of the conversation.
pub(super) const VARIABLE: &str = "DUCKGRES_PREDECESSOR_FD";

/// More of a reason is not for a terminal.
const LONGEST_REASON: usize = 16 * 1024;

/// The process whose place this one is to take.
pub struct Predecessor(OwnedFd);

impl Predecessor {
    /// The process that has started this one to take its place, if one has.
    ///
    /// Under systemd this process goes on as a child of the service manager, which
    /// notices the end of its own children only (systemd reports any other main
    /// process as "not our child"); the one that was started exits. So it must be
    /// called first of all, while there is one thread.
    ///
    /// # Errors
    /// The environment names something that is no such conversation, or the process
    /// cannot be split.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Some(number) = env::var(VARIABLE).ok() else {
            return Ok(None);
        };
        let invalid = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{VARIABLE} is set and names no socket"),
            )
        };
        let number: i32 = number.parse().map_err(|_| invalid())?;
        if number <= libc::STDERR_FILENO || !is_open(number) {
            return Err(invalid());
        }
        // SAFETY: the number is open (it was just asked), it was made for this
        // process by the one that set the variable, and this is called once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        if !channel::is_one(&fd) {
            return Err(invalid());
        }
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        if notify::is_asked_for() {
            become_child_of_the_manager()?;
        }
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        say(
            &fd,
            from_successor::Word::Hello(Hello {
                process_id: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            }),
            Some(own.as_fd()),
        )?;
        Ok(Some(Self(fd)))
    }

    /// Tells the reason why this process does not take over, for people.
    pub fn fail(&self, reason: &str) {
        let mut reason = reason.to_owned();
        let fits = |end: &usize| reason.is_char_boundary(*end);
        reason.truncate((0..=LONGEST_REASON).rev().find(fits).unwrap_or_default());
        let failed = Failed { reason };
        // Without it the predecessor sees that this process is gone.
        let _ = say(&self.0, from_successor::Word::Failed(failed), None);
    }

    /// What it offers.
    pub async fn meet(&self) -> Result<(Post, Estate), StartError> {
        let channel = Channel::new(self.0.try_clone()?)?;
        let (mut passed, mut descriptors) = (Vec::new(), Vec::new());
        loop {
            let Some((message, more)) = channel.receive::<FromPredecessor>().await? else {
                return Err(StartError::GivenUp);
            };
            let Some(Word::Offer(offer)) = message.word else {
                return Err(StartError::GivenUp);
            };
            if offer.form != FORM {
                return Err(StartError::UnknownForm {
                    version: offer.version,
                    form: offer.form,
                });
            }
            passed.extend(offer.passed);
            descriptors.extend(more);
            if !offer.more {
                let mut estate = Estate::sort(passed, descriptors)?;
                let shared = offer.workers.into_iter().filter_map(|id| u16::try_from(id).ok());
                estate.workers.shared = shared.collect();
                return Ok((Post { channel }, estate));
            }
        }
    }
}

/// The place that is being taken.
pub struct Post {
    channel: Channel,
}

impl Post {
    /// Returns when the predecessor has given the reload up, or is gone.
    pub async fn given_up(&self) {
        // It says nothing until it is told that this process is ready.
        let _ = self.channel.receive::<FromPredecessor>().await;
    }

    /// All that can fail has been done: returns when the predecessor has stopped
    /// accepting, and what it has counted is counted here.
    pub async fn take(&self, limits: &Limits, workers: &Workers) -> Result<(), StartError> {
        self.say(from_successor::Word::Ready(Ready {})).await?;
        loop {
            let Ok(Some((
                FromPredecessor {
                    word: Some(Word::Go(go)),
                },
                mut descriptors,
            ))) = self.channel.receive::<FromPredecessor>().await
            else {
                return Err(StartError::GivenUp);
            };
            let state = descriptors.len().saturating_sub(go.kept.len());
            let kept = descriptors.split_off(state);
            count(descriptors, limits, &workers.pool);
            for (about, fd) in go.kept.into_iter().zip(kept) {
                let of = |id: u16| u32::from(id) == about.worker;
                if let Some((_, store)) = workers.stores().iter().find(|(id, _)| of(*id)) {
                    store.take_over([(about.name, fd)]);
                }
            }
            if !go.more {
                return Ok(());
            }
        }
    }

    /// This process accepts. What the predecessor still has to tell is taken in.
    pub async fn serving(self, limits: Arc<Limits>, pool: Arc<Pool>) {
        if let Err(error) = self.say(from_successor::Word::Serving(Serving {})).await {
            warn!(%error, "the predecessor has gone early");
        }
        tokio::spawn(async move {
            let late = self.channel.receive::<FromPredecessor>().await;
            if let Ok(Some((_, descriptors))) = late {
                count(descriptors, &limits, &pool);
            }
            info!("the predecessor has left");
        });
    }

    async fn say(&self, word: from_successor::Word) -> io::Result<()> {
        self.channel.send(&FromSuccessor { word: Some(word) }, &[]).await
    }
}

/// Nobody would be helped if the server ended for it.
fn count(descriptors: Vec<OwnedFd>, limits: &Limits, pool: &Pool) {
    for fd in descriptors {
        match state::read(fd) {
            Ok(carried) => state::add(&carried, limits, pool),
            Err(error) => warn!(%error, "bans and counters begin anew"),
        }
    }
}

fn say(fd: &OwnedFd, word: from_successor::Word, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    channel::send_now(fd, &FromSuccessor { word: Some(word) }, descriptor)
}

fn is_open(number: i32) -> bool {
    // SAFETY: asks about a number, whatever it is.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

fn become_child_of_the_manager() -> io::Result<()> {
    // SAFETY: there is one thread, so the child has everything that this process has.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(()),
        // SAFETY: nothing of this process is left to be finished: it has done nothing.
        nix::unistd::ForkResult::Parent { .. } => unsafe { libc::_exit(0) },
    }
}
