//! A deadline that is moved far more often than it fires.
//!
//! Arming a timer for each request and each read would cost more than the work it guards. The
//! timer is left where it is when the deadline moves later, and looks at the deadline only when it
//! fires: in a busy connection once in several seconds instead of several times a request. Nor is the
//! clock read when it is set, but when it is first asked about, which for what is at hand already
//! is never.

use std::num::NonZero;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Debug, Default)]
pub struct Deadline {
    /// It was set to this long from when it will be asked about.
    after: Option<Duration>,
    at: Option<Instant>,
    /// No deadline is later than this one.
    bound: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes, by the place of its task, which the timer keeps from being another's.
    wakes: Option<NonZero<usize>>,
}

impl Deadline {
    /// Moves it to this long from when it is next asked about: whoever sets it asks in the same
    /// breath, or has no need to.
    pub const fn set(&mut self, after: Duration) {
        self.after = Some(after);
    }

    /// Moves it to this long after `now`, for whoever has just looked at the clock.
    pub fn set_from(&mut self, now: Instant, after: Duration) {
        self.after = None;
        self.move_to(now + after);
    }

    /// Finds out when it is.
    fn settle(&mut self) {
        if let Some(after) = self.after.take() {
            self.move_to(Instant::now() + after);
        }
    }

    fn move_to(&mut self, at: Instant) {
        let at = self.bound.map_or(at, |bound| at.min(bound));
        self.at = Some(at);
        if let Some(timer) = &mut self.timer
            && timer.deadline() > at
        {
            timer.as_mut().reset(at);
        }
    }

    /// Lets no deadline from now on be later than this long from now.
    pub fn bound(&mut self, after: Duration) {
        self.bound = Some(Instant::now() + after);
    }

    /// Turns it off altogether; its timer is left where it is.
    pub const fn reset(&mut self) {
        self.after = None;
        self.at = None;
        self.bound = None;
    }

    /// Takes the bound away.
    pub const fn unbound(&mut self) {
        self.bound = None;
    }

    /// What is left until the bound, if there is one.
    pub fn left(&self) -> Option<Duration> {
        let bound = self.bound?;
        Some(bound.saturating_duration_since(Instant::now()))
    }

    /// Turns it off, but for the bound.
    pub const fn clear(&mut self) {
        self.after = None;
        self.at = self.bound;
    }

    /// Whether it has passed, by the clock: for loops that would never get to
    /// [`poll`](Self::poll) it.
    pub fn has_passed(&mut self) -> bool {
        self.settle();
        self.at.is_some_and(|at| Instant::now() >= at)
    }

    /// Ready once it has passed. While it is off, never.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.settle();
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        // It has been told already, mostly.
        let who = NonZero::new(cx.waker().data().addr());
        if who.is_some() && self.wakes == who && !timer.is_elapsed() {
            return Poll::Pending;
        }
        self.wakes = None;
        // Whatever else the task did in this turn: a timer that puts off being set would not be asked
        // again.
        while pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
        self.wakes = who;
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::ready;

    use tokio::task::coop::{has_budget_remaining, poll_proceed};

    use super::*;

    fn paused() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    }

    #[test]
    fn it_fires_when_it_was_moved_to_and_not_before() {
        paused().block_on(async {
            let begin = Instant::now();
            let mut deadline = Deadline::default();
            deadline.set(Duration::from_secs(10));
            assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await);
            tokio::time::advance(Duration::from_secs(9)).await;
            deadline.set(Duration::from_secs(10));
            poll_fn(|cx| deadline.poll(cx)).await;
            assert_eq!(begin.elapsed().as_secs(), 19);
            deadline.set(Duration::from_secs(50));
            assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await);
            deadline.set(Duration::from_secs(1));
            poll_fn(|cx| deadline.poll(cx)).await;
            assert_eq!(begin.elapsed().as_secs(), 20);
        });
    }

    #[test]
    fn it_fires_for_a_task_that_has_done_too_much_in_its_turn() {
        paused().block_on(async {
            let begin = Instant::now();
            let mut deadline = Deadline::default();
            tokio::spawn(async move {
                deadline.set_from(begin, Duration::from_secs(10));
                poll_fn(|cx| {
                    while has_budget_remaining() {
                        ready!(poll_proceed(cx)).made_progress();
                    }
                    deadline.poll(cx)
                })
                .await;
            })
            .await
            .unwrap();
            assert_eq!(begin.elapsed().as_secs(), 10);
        });
    }

    #[test]
    fn it_wakes_who_asked_last() {
        paused().block_on(async {
            let mut deadline = Deadline::default();
            let begin = Instant::now();
            deadline.set_from(begin, Duration::from_secs(10));
            let asked = tokio::spawn(async move {
                for _ in 0..2 {
                    assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await);
                }
                deadline
            });
            let mut deadline = asked.await.unwrap();
            poll_fn(|cx| deadline.poll(cx)).await;
            assert_eq!(begin.elapsed().as_secs(), 10);
        });
    }
}
