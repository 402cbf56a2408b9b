//! What the tests stand on: servers that come and go with the test run, and a
//! client that says exactly what it is told to say.
//!
//! Nothing in here waits without a deadline ([`PATIENCE`]), and nothing sleeps
//! where there is an event to wait for.

pub mod message;
mod postgres;
pub mod processes;
pub mod programs;
mod replace;
pub mod server;
pub mod session;
pub mod terminal;
pub mod tracer;
pub mod transport;

use std::time::{Duration, Instant};

pub use message::Answer;
pub use server::{Kind, Server};
pub use session::Session;
pub use transport::Transport;

/// How long a test waits for something that must happen. Generous, because it
/// is only ever spent by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again, a few times a second, until there is an answer. For what no
/// event announces: a process that ends, another session's lock that goes.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(25));
    }
}
