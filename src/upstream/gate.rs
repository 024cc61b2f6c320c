//! How many requests a server is given at once, and who waits for it.
//!
//! Only an upstream with `connections` has gates. To go through an open one is a few atomic
//! operations; only who has to wait is put into a list, behind a lock that is held for the length of
//! a pointer's change.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::Capacity;

/// Let through; the gate counts it while it lives.
#[derive(Debug)]
pub struct Pass(#[allow(dead_code)] OwnedSemaphorePermit);

/// Why a request was not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Too many wait already.
    #[error("too many requests wait for it already")]
    Queue,
    /// It waited too long.
    #[error("it did not come free in time")]
    Wait,
}

/// One server's gate.
#[derive(Debug)]
pub struct Gate {
    passes: Arc<Semaphore>,
    limit: usize,
    queue: usize,
    wait: Duration,
    queued: AtomicUsize,
}

impl Gate {
    /// The gate that this capacity asks for, if it asks for one.
    pub fn new(capacity: &Capacity) -> Option<Arc<Self>> {
        let limit = capacity.connections?.get().min(Semaphore::MAX_PERMITS);
        Some(Arc::new(Self {
            passes: Arc::new(Semaphore::new(limit)),
            limit,
            queue: capacity.queue,
            wait: capacity.wait,
            queued: AtomicUsize::new(0),
        }))
    }

    /// Whether it is the gate that this capacity asks for.
    pub fn fits(&self, capacity: &Capacity) -> bool {
        let limit = capacity.connections.map(std::num::NonZeroUsize::get);
        (limit, capacity.queue, capacity.wait) == (Some(self.limit), self.queue, self.wait)
    }

    /// Requests that it lets through at once.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a request would have to wait.
    pub fn is_full(&self) -> bool {
        self.passes.available_permits() == 0
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }

    /// Goes through without waiting.
    pub fn try_pass(&self) -> Option<Pass> {
        let pass = Arc::clone(&self.passes).try_acquire_owned();
        pass.ok().map(Pass)
    }

    /// Waits to be let through, in the order of coming.
    pub async fn pass(self: Arc<Self>) -> Result<Pass, Full> {
        if self.queued.fetch_add(1, Relaxed) >= self.queue {
            self.queued.fetch_sub(1, Relaxed);
            return Err(Full::Queue);
        }
        let waiting = Waiting(&self);
        let pass = timeout(self.wait, Arc::clone(&self.passes).acquire_owned()).await;
        drop(waiting);
        match pass {
            Ok(Ok(pass)) => Ok(Pass(pass)),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Full::Wait),
        }
    }
}

/// Counts who waits, also one who gives up.
struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn so_many_pass_so_many_wait_and_the_rest_is_turned_away() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let gate = Gate::new(&Capacity {
                connections: NonZeroUsize::new(1),
                queue: 2,
                wait: Duration::from_secs(1),
            })
            .unwrap();
            let pass = gate.try_pass().unwrap();
            assert!(gate.is_full() && gate.try_pass().is_none());
            let (a, b, c, ()) = tokio::join!(
                Arc::clone(&gate).pass(),
                Arc::clone(&gate).pass(),
                Arc::clone(&gate).pass(),
                async {
                    tokio::task::yield_now().await;
                    drop(pass);
                }
            );
            assert!(a.is_ok());
            assert_eq!(b.unwrap_err(), Full::Wait, "the first one never left");
            assert_eq!(c.unwrap_err(), Full::Queue);
            assert_eq!(gate.queued(), 0);
        });
    }
}
