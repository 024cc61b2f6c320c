//! Passwords are hashed off the threads that serve, a few at a time: whoever sends many at once
//! waits, and then is sent away, and nobody's requests are slower for it but those that bring a
//! password that was not seen before.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::proxy::limit::{Crowd, Key};

/// Requests that may wait for their turn; and of one client, so that others find a place.
const WAITING: usize = 256;
const OF_ONE: usize = 64;

/// The longest wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module. Shared by all workers.
#[derive(Debug)]
pub struct Turns {
    /// Half of the machine, so that the other half serves.
    at_once: Arc<Semaphore>,
    places: Semaphore,
    crowd: Arc<Crowd>,
}

impl Default for Turns {
    fn default() -> Self {
        let threads = available_parallelism()
            .map_or(1, |all| all.get() / 2)
            .max(1);
        Self {
            at_once: Arc::new(Semaphore::new(threads)),
            places: Semaphore::new(WAITING),
            crowd: Arc::default(),
        }
    }
}

impl Turns {
    /// Does something that takes long, when it is its turn; `None`: too many wait already, or it
    /// took too long.
    pub async fn take<T: Send + 'static>(
        &self,
        client: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let _of_one = self.crowd.enter(Key::Client(client), OF_ONE)?;
        let _place = self.places.try_acquire().ok()?;
        let turn = timeout(PATIENCE, Arc::clone(&self.at_once).acquire_owned()).await;
        let turn = turn.ok()?.ok()?;
        // Whoever goes away meanwhile does not end the work, nor its turn before that.
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn few_have_their_turn_at_once_and_one_client_does_not_take_all_places() {
        let turns = Turns {
            at_once: Arc::new(Semaphore::new(2)),
            ..Turns::default()
        };
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let one = |client: u8| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            turns.take([192, 0, 2, client].into(), move || {
                let working = now.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(working, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
                now.fetch_sub(1, Ordering::SeqCst);
            })
        };
        let all = (0..OF_ONE + 10).map(|_| one(1)).chain([one(2)]);
        let all = futures_util::future::join_all(all).await;
        let refused = all.iter().filter(|done| done.is_none()).count();
        assert_eq!((refused, all[OF_ONE + 10]), (10, Some(())));
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(one(1).await, Some(()), "the places are free again");
    }
}
