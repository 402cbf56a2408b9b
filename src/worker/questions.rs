//! What a worker asks the others.
//!
//! Workers do not know each other; the control plane knows them all and passes
//! questions on. Without it, for example while it is started again, nobody
//! answers, and the worker goes by what it knows itself.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};

use crate::process::unix_micros;
use crate::proto::inquiry::Matter;
use crate::proto::{Answer, Findings, Inquiry, Question};

/// How much longer than the others the control plane may take.
const ON_THE_WAY: Duration = Duration::from_millis(500);

/// The questions that are on their way.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// To the control planes that listen. While one takes over from another there
    /// are two of them; the newer comes last.
    outlets: Vec<mpsc::UnboundedSender<Question>>,
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Vec<Findings>>>,
}

impl Questions {
    /// A control plane listens from now on, until it drops this.
    pub(super) fn open(&self) -> mpsc::UnboundedReceiver<Question> {
        let (outlet, questions) = mpsc::unbounded_channel();
        let mut state = self.lock();
        state.outlets.retain(|outlet| !outlet.is_closed());
        state.outlets.push(outlet);
        questions
    }

    /// An answer has come.
    pub(super) fn answered(&self, answer: Answer) {
        if let Some(asking) = self.lock().waiting.remove(&answer.id) {
            let _ = asking.send(answer.findings);
        }
    }

    /// What the other workers find that answer `within` this time; nothing if there
    /// is no control plane.
    pub(super) async fn ask(&self, matter: Matter, within: Duration) -> Vec<Findings> {
        let (answer, mut waiting) = oneshot::channel();
        let (id, outlet) = {
            let mut state = self.lock();
            let Some(outlet) = state.outlets.iter().rfind(|outlet| !outlet.is_closed()).cloned() else {
                return Vec::new();
            };
            state.last += 1;
            let id = state.last;
            state.waiting.insert(id, answer);
            (id, outlet)
        };
        let question = Question {
            id,
            inquiry: Some(Inquiry { matter: Some(matter) }),
            within_milliseconds: u32::try_from(within.as_millis()).unwrap_or(u32::MAX),
            asked_at: unix_micros(SystemTime::now()),
        };
        let _asked = Asked { questions: self, id };
        // If nobody takes it, the outlet is closed.
        let _ = outlet.send(question);
        tokio::select! {
            biased;
            answer = &mut waiting => answer.unwrap_or_default(),
            () = outlet.closed() => Vec::new(),
            () = tokio::time::sleep(within + ON_THE_WAY) => {
                tracing::warn!("the control plane does not pass on what this worker asks the others");
                Vec::new()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that somebody waits for.
struct Asked<'a> {
    questions: &'a Questions,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.questions.lock().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Asker;

    const WITHIN: Duration = Duration::from_millis(10);

    fn matter() -> Matter {
        Matter::Sessions(Asker::default())
    }

    #[tokio::test]
    async fn without_a_control_plane_nobody_is_waited_for() {
        let questions = Questions::default();
        assert!(
            questions
                .ask(matter(), Duration::from_secs(3600))
                .await
                .is_empty()
        );
        drop(questions.open());
        assert!(
            questions
                .ask(matter(), Duration::from_secs(3600))
                .await
                .is_empty()
        );
    }

    #[tokio::test]
    async fn each_question_gets_its_own_answer() {
        let questions = Questions::default();
        let mut asked = questions.open();
        let answer = async {
            let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
            for (id, count) in [(second.id, 2), (first.id, 1)] {
                let findings = vec![Findings::default(); count];
                questions.answered(Answer { id, findings });
            }
        };
        let hour = Duration::from_secs(3600);
        let (first, second, ()) = tokio::join!(
            questions.ask(matter(), hour),
            questions.ask(matter(), hour),
            answer
        );
        assert_eq!((first.len(), second.len()), (1, 2));
    }

    #[tokio::test]
    async fn a_control_plane_that_says_nothing_is_not_waited_for_and_one_that_goes_neither() {
        let questions = Questions::default();
        let silent = questions.open();
        assert!(questions.ask(matter(), WITHIN).await.is_empty());
        let goes = async {
            tokio::task::yield_now().await;
            drop(silent);
        };
        let (findings, ()) = tokio::join!(questions.ask(matter(), Duration::from_secs(3600)), goes);
        assert!(findings.is_empty());
        assert!(questions.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn the_newest_control_plane_is_asked_and_the_one_before_it_when_that_is_gone() {
        let questions = Questions::default();
        let (mut old, mut new) = (questions.open(), questions.open());
        assert!(questions.ask(matter(), WITHIN).await.is_empty());
        assert!(new.try_recv().is_ok() && old.try_recv().is_err());
        drop(new);
        assert!(questions.ask(matter(), WITHIN).await.is_empty());
        assert!(old.try_recv().is_ok());
    }
}
