//! One handshake at a time: a signature takes as long as dozens of requests, and a thread that
//! makes sixteen in a row has everybody else wait for all of them. Between two of them, all that
//! is ready has its turn.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

thread_local! {
    static TURN: Arc<Semaphore> = Arc::new(Semaphore::new(1));
}

/// A handshake's turn on this thread.
pub struct Turn(Option<OwnedSemaphorePermit>);

impl Turn {
    /// Waits for it, in the order of asking.
    pub async fn wait() -> Self {
        // Never closed; were it, all would go on.
        Self(TURN.with(Arc::clone).acquire_owned().await.ok())
    }

    /// Ends it, once others have had theirs.
    pub async fn pass(self) {
        tokio::task::yield_now().await;
        drop(self.0);
    }
}
