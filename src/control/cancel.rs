//! Cancel requests: to the one worker that has the session, and no answer.
//!
//! A request tells its sender nothing, not even whether there is such a
//! session; the worker compares the key.

use std::time::Duration;

use tracing::debug;

use super::pool::Pool;
use super::startup::Cancel;
use crate::proto;

/// PostgreSQL's clients wait for the connection's end before they go on.
const DEADLINE: Duration = Duration::from_secs(5);

/// Passes a request on. It has been acted on when this returns, so that a
/// client which waits for the end of its connection cannot cancel the
/// statement that it sends next.
pub async fn forward(pool: &Pool, request: Cancel) {
    let owner = pool.ledger().worker_of(request.backend_id);
    let Some(worker) = owner.and_then(|id| pool.worker(id)) else {
        debug!(backend_id = request.backend_id, "a cancel request for no worker");
        return;
    };
    let message = proto::CancelRequest {
        backend_id: request.backend_id,
        cancel_key: request.key.to_vec(),
    };
    match tokio::time::timeout(DEADLINE, worker.rpc().cancel_query(message)).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) => debug!(worker = worker.id, code = ?status.code(), "a cancel request failed"),
        Err(_) => debug!(worker = worker.id, "a cancel request was not answered"),
    }
}
