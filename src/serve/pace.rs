//! Handshakes take turns: a signature takes as long as dozens of requests, and a thread that makes
//! sixteen in a row has everybody else wait for all of them. After each [`STINT`] of them, all that
//! is ready has its turn. One after each single handshake would cost a third of what a thread can do.
//!
//! One with a key of RSA is longer than a stint by itself. It is made [`aside`], on a thread that
//! makes way for those that serve.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::warn;

use crate::priority;

/// How long a thread is busy with handshakes until others have their turn: a few with a key of
/// ECDSA.
const STINT: Duration = Duration::from_micros(500);

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static ASIDE: Option<Sender<Job>> = beside();
}

/// What is done aside.
type Job = Box<dyn FnOnce() + Send>;

/// A handshake's turn on this thread.
pub struct Turn {
    began: Instant,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// Waits for it, in the order of asking.
    pub async fn wait() -> Self {
        // Never closed; were it, all would go on.
        let permit = TURN.with(Arc::clone).acquire_owned().await.ok();
        let began = Instant::now();
        Self { began, permit }
    }

    /// Ends it, and has others have theirs where it is time for that.
    pub async fn pass(self) {
        let spent = SPENT.get() + self.began.elapsed();
        SPENT.set(spent);
        if spent >= STINT {
            tokio::task::yield_now().await;
            SPENT.set(Duration::ZERO);
        }
        drop(self.permit);
    }
}

/// Does something that takes long on a thread beside the calling one, in the order of asking. What
/// nobody waits for any more when it is its turn is not done.
///
/// # Errors
/// When it panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (tell, told) = oneshot::channel();
    let job: Job = Box::new(move || {
        if !tell.is_closed() {
            // Who waited may have gone away meanwhile.
            let _ = tell.send(work());
        }
    });
    ASIDE.with(|thread| match thread {
        Some(thread) => {
            // It ends only after this thread.
            let _ = thread.send(job);
        }
        None => job(),
    });
    told.await
        .map_err(|_| io::Error::other("the handshake failed in a way that was not foreseen"))
}

/// Starts the thread beside this one, which ends with it.
fn beside() -> Option<Sender<Job>> {
    let (jobs, inbox) = mpsc::channel::<Job>();
    let work = move || {
        priority::make_way();
        for job in inbox {
            // Whoever waits for it learns of the panic by getting no answer.
            let _ = catch_unwind(AssertUnwindSafe(job));
            priority::breathe();
        }
    };
    let thread = thread::Builder::new().name("handshakes".to_owned());
    let started = thread.spawn(work).inspect_err(|error| {
        warn!(%error, "no thread for handshakes with RSA: they hold up others");
    });
    started.is_ok().then_some(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_done_aside_is_done_elsewhere_and_may_panic() {
        let here = thread::current().id();
        let there = aside(|| thread::current().id()).await.unwrap();
        assert_ne!(there, here);
        assert!(aside(|| panic!("on purpose")).await.is_err());
        assert_eq!(aside(|| thread::current().id()).await.unwrap(), there);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_done() {
        let (open, closed) = mpsc::channel::<()>();
        let (done, report) = mpsc::channel();
        let mut first = Box::pin(aside(move || closed.recv().is_err()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut second = Box::pin(aside(move || done.send(())));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(second);
        drop(open);
        assert!(first.await.unwrap());
        assert!(aside(move || report.recv().is_err()).await.unwrap());
    }
}
