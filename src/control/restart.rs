//! Restarting the workers of this control plane, one after the other.
//!
//! A worker is asked as anybody may ask it, by SIGTERM; its supervisor knows that it is
//! to come back. The next one has its turn when this one's next process serves, so a
//! program that does not start takes one worker away and not all.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::pool::FIRST_REPORT_WITHIN;

/// One worker has been restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restarted {
    /// Its number.
    pub worker: u16,
    /// Its process now.
    pub process: u32,
    /// The sessions that it has now.
    pub sessions: u32,
    /// From the request to the first report of the new process.
    pub took: Duration,
}

/// Why a worker was not restarted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestartError {
    /// It belongs to another process of this server, or to nobody, by now.
    #[error("this control plane does not look after it any more")]
    NotOurs,
    /// The new process is not there.
    #[error("it cannot be started; the reason stands in the log")]
    NotStarted,
    /// The new process was there.
    #[error("its new process ended before it served; the reason stands in the log")]
    Ended,
    /// The new process is there and does not serve.
    #[error("its new process has not served within {FIRST_REPORT_WITHIN:?}")]
    Silent,
}

/// Where a restart of one worker is asked for.
#[derive(Clone)]
pub struct Bell {
    /// The worker's number.
    pub worker: u16,
    ring: mpsc::Sender<Request>,
}

/// Where such requests arrive.
pub type Requests = mpsc::Receiver<Request>;

/// Somebody waits for the worker's next process.
pub struct Request {
    answer: oneshot::Sender<Result<(u32, u32), RestartError>>,
}

impl Bell {
    /// A bell of this worker, and where it is heard.
    pub fn new(worker: u16) -> (Self, Requests) {
        let (ring, requests) = mpsc::channel(1);
        (Self { worker, ring }, requests)
    }

    /// Has the worker restarted, and returns when its next process serves. Sessions that
    /// cannot be frozen now are waited for, as long as the worker does.
    pub async fn ring(&self) -> Result<Restarted, RestartError> {
        let asked = Instant::now();
        let (answer, answered) = oneshot::channel();
        let sent = self.ring.send(Request { answer }).await;
        sent.map_err(|_| RestartError::NotOurs)?;
        let (process, sessions) = answered.await.map_err(|_| RestartError::NotOurs)??;
        Ok(Restarted {
            worker: self.worker,
            process,
            sessions,
            took: asked.elapsed(),
        })
    }
}

impl Request {
    /// This process serves, and has so many sessions.
    pub fn done(self, process: u32, sessions: u32) {
        let _ = self.answer.send(Ok((process, sessions)));
    }

    /// It does not come about.
    pub fn failed(self, error: RestartError) {
        let _ = self.answer.send(Err(error));
    }
}
