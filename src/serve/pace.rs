//! Handshakes take turns: a signature takes as long as dozens of requests, and a thread that makes
//! sixteen in a row has everybody else wait for all of them. After each [`STINT`] of them, all that
//! is ready has its turn. One after each single handshake would cost a third of what a thread can do.
//!
//! One with a key of RSA is longer than a stint by itself. It is made [`aside`], on a thread that
//! makes way for those that serve.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;

/// How long a thread is busy with handshakes until others have their turn: a few with a key of
/// ECDSA.
const STINT: Duration = Duration::from_micros(500);

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static ASIDE: Arc<Semaphore> = Arc::new(Semaphore::new(1));
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

/// Does something that takes long, on another thread, one thing at a time for each thread that
/// serves and in the order of asking. What nobody waits for any more when it is its turn is not done.
///
/// # Errors
/// When it panicked.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    // Never closed; were it, all would go on.
    let turn = ASIDE.with(Arc::clone).acquire_owned().await.ok();
    let (tell, told) = oneshot::channel();
    spawn_blocking(move || {
        let _turn = turn;
        if !tell.is_closed() {
            // Who waited may have gone away meanwhile.
            let _ = tell.send(work());
        }
    });
    told.await
        .map_err(|_| io::Error::other("the handshake failed in a way that was not foreseen"))
}
