//! Handshakes take turns: a signature takes as long as dozens of requests, and a thread that makes
//! sixteen in a row has everybody else wait for all of them. After each [`STINT`] of them, all that
//! is ready has its turn. One after each single handshake would cost a third of what a thread can do.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a thread is busy with handshakes until others have their turn: one with a key of RSA,
/// or a few with one of ECDSA.
const STINT: Duration = Duration::from_micros(500);

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

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
