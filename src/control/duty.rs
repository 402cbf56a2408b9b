//! Who serves: this process, or another one of the same server.
//!
//! During a reload there are two control planes with the same listeners and the
//! same workers. Exactly one is on duty: it accepts, gives the workers their
//! orders, and replaces those that die. The other one only looks.

use tokio::sync::watch;

/// What this process is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Another process is on duty, or nobody yet.
    Off,
    On,
    /// Another process is on duty for good.
    Over,
}

/// Sets whether this process is on duty.
#[derive(Debug)]
pub struct Roster(watch::Sender<State>);

/// Whether this process is on duty.
#[derive(Clone, Debug)]
pub struct Duty(watch::Receiver<State>);

impl Roster {
    /// A process that is not on duty yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(State::Off))
    }

    /// For those who act on it.
    pub fn duty(&self) -> Duty {
        Duty(self.0.subscribe())
    }

    /// This process is on duty from now on.
    pub fn begin(&self) {
        self.0.send_replace(State::On);
    }

    /// It is not, for now. When this returns no [`Duty::act`] is under way.
    pub fn pause(&self) {
        self.0.send_replace(State::Off);
    }

    /// It will never be again.
    pub fn end(&self) {
        self.0.send_replace(State::Over);
    }
}

impl Default for Roster {
    fn default() -> Self {
        Self::new()
    }
}

impl Duty {
    /// Does it if this process is on duty, which it then is until it is done. Must
    /// not take long.
    pub fn act<T>(&self, what: impl FnOnce() -> T) -> Option<T> {
        // Whoever changes the state waits until it is not borrowed any more.
        let state = self.0.borrow();
        (*state == State::On).then(what)
    }

    /// Whether this process is on duty now.
    pub fn is_ours(&self) -> bool {
        *self.0.borrow() == State::On
    }

    /// Returns when this process is on duty.
    pub async fn begins(&mut self) {
        self.reaches(|state| state == State::On).await;
    }

    /// Returns when this process is not on duty, for now or for good.
    pub async fn ends(&mut self) {
        self.reaches(|state| state != State::On).await;
    }

    /// Returns when this process will not be on duty again.
    pub async fn is_over(&mut self) {
        self.reaches(|state| state == State::Over).await;
    }

    /// The outcome of `work`, which is begun on duty, and given up and `None` when
    /// the duty ends before.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        self.begins().await;
        tokio::select! {
            outcome = work => Some(outcome),
            () = self.ends() => None,
        }
    }

    async fn reaches(&mut self, which: impl Fn(State) -> bool) {
        if self.0.wait_for(|state| which(*state)).await.is_err() {
            // The server is gone, and so will be who waits.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
impl Duty {
    /// On duty for ever.
    pub fn always() -> Self {
        let roster = Box::leak(Box::new(Roster::new()));
        roster.begin();
        roster.duty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_on_duty_and_given_up_at_its_end() {
        let roster = Roster::new();
        let mut duty = roster.duty();
        assert_eq!(duty.act(|| 1), None);
        roster.begin();
        assert_eq!(duty.act(|| 1), Some(1));
        assert_eq!(duty.during(async { 1 }).await, Some(1));
        let mut other = roster.duty();
        let endless = tokio::spawn(async move { other.during(std::future::pending::<()>()).await });
        tokio::task::yield_now().await;
        roster.pause();
        assert_eq!(endless.await.unwrap(), None);
        roster.begin();
        roster.end();
        duty.is_over().await;
        assert_eq!(duty.act(|| 1), None);
    }

    #[test]
    fn nothing_is_half_done_when_the_duty_has_ended() {
        let roster = Roster::new();
        roster.begin();
        let duty = roster.duty();
        let (began, begun) = std::sync::mpsc::channel();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                duty.act(|| {
                    began.send(()).unwrap();
                    // Long enough for the other side to wait for it.
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    done.store(true, std::sync::atomic::Ordering::SeqCst);
                })
            });
            begun.recv().unwrap();
            roster.pause();
            assert!(done.load(std::sync::atomic::Ordering::SeqCst));
        });
    }
}
