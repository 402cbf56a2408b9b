//! What a worker asks the others: passed on to them, and their answers back.
//!
//! Workers do not know each other, and only this process knows them all. It does
//! not look into what they ask, but for whose session is meant.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::pool::{Pool, Worker};
use crate::process::unix_micros;
use crate::proto::inquiry::Matter;
use crate::proto::{Answer, Findings, Inquiry, Question};

/// Before a worker is listened to again: its process has gone, or is starting.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The same for a process that is older than the question.
const MUTE_FOR: Duration = Duration::from_secs(5);

/// Passes on what this worker of the pool asks, for as long as it is there. Must
/// be called inside a runtime.
pub fn pass_on(pool: &Arc<Pool>, worker: u16) {
    tokio::spawn(follow(Arc::downgrade(pool), worker));
}

async fn follow(pool: Weak<Pool>, id: u16) {
    loop {
        let Some(worker) = pool.upgrade().and_then(|pool| pool.worker(id)) else {
            return;
        };
        let pause = match listen(&pool, worker).await {
            Err(status) if status.code() == Code::Unimplemented => MUTE_FOR,
            Err(status) => {
                debug!(worker = id, code = ?status.code(), "a worker's questions are interrupted");
                AGAIN_AFTER
            }
            Ok(()) => AGAIN_AFTER,
        };
        tokio::time::sleep(pause).await;
    }
}

/// Answers one process of a worker.
async fn listen(pool: &Weak<Pool>, worker: Arc<Worker>) -> Result<(), Status> {
    let (answers, answered) = mpsc::channel(16);
    let mut rpc = worker.rpc();
    let mut questions = rpc.questions(ReceiverStream::new(answered)).await?.into_inner();
    let id = worker.id;
    drop(worker);
    while let Some(question) = questions.message().await? {
        let Some(pool) = pool.upgrade() else { break };
        let answers = answers.clone();
        tokio::spawn(async move {
            let answer = answer(&pool, id, question).await;
            let _ = answers.send(answer).await;
        });
    }
    Ok(())
}

async fn answer(pool: &Pool, asking: u16, question: Question) -> Answer {
    let mut answer = Answer {
        id: question.id,
        findings: Vec::new(),
    };
    let Some(inquiry) = question.inquiry else {
        return answer;
    };
    let within = Duration::from_millis(question.within_milliseconds.into());
    // This process may have stood still meanwhile.
    let age = unix_micros(SystemTime::now()).saturating_sub(question.asked_at);
    let Some(within) = within.checked_sub(Duration::from_micros(age)) else {
        return answer;
    };
    let only = match &inquiry.matter {
        Some(Matter::Signal(signal)) => Some(pool.ledger().worker_of(signal.backend_id).unwrap_or(asking)),
        _ => None,
    };
    let mut asked = JoinSet::new();
    for worker in pool.workers() {
        if worker.id != asking && only.is_none_or(|only| only == worker.id) {
            asked.spawn(ask(worker.clone(), inquiry.clone(), within));
        }
    }
    answer.findings = asked.join_all().await.into_iter().flatten().collect();
    answer
}

async fn ask(worker: Arc<Worker>, inquiry: Inquiry, within: Duration) -> Option<Findings> {
    let mut rpc = worker.rpc();
    match tokio::time::timeout(within, rpc.inquire(inquiry)).await {
        Ok(Ok(findings)) => Some(findings.into_inner()),
        Ok(Err(status)) => {
            warn!(worker = worker.id, code = ?status.code(), "does not answer another worker");
            None
        }
        Err(_) => {
            warn!(worker = worker.id, "does not answer another worker in time");
            None
        }
    }
}
