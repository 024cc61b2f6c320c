//! The conductor: from *look again* to one `ArcSwap::store`.
//!
//! [`Keeper::start`] reads everything once, so that what it returns can serve, and then goes on by
//! itself on a thread of its own: watching, reading, judging, publishing, telling. It never fails.
//! A certificate that is bad harms itself only, and what is held goes on being served.
//!
//! What is whole and no worse is taken at once. What is not may be a renewal under way, so it is
//! read again as it changes, and nothing is said until it has been left alone for a while
//! ([`Timing`]).

mod announce;
mod conductor;
mod folders;
mod gather;
mod memory;
mod standing;
mod terms;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::broadcast;
use tracing::{error, warn};

use super::Event;
use super::inventory::Inventory;
use super::load::Roots;
use super::select::Resolver;
use crate::clock::Clock;
use crate::priority;
use conductor::Conductor;
pub use gather::Work;
use memory::Memory;
pub use terms::{
    AcceptError, Accepted, Degraded, LoadReport, Options, Refusal, Setback, Timing, Wanted,
};
use terms::{Message, Shared};

/// How long the end of its thread is waited for.
const LAST: Duration = Duration::from_secs(10);

/// What a keeper would begin with: everything read once, at the time that the clock tells, and what
/// the state directory at this path remembers, as far as it can be read. Nothing is written.
pub fn survey(wanted: Wanted, state: &Path, clock: Clock, roots: Arc<Roots>) -> Arc<Inventory> {
    let options = Options {
        wanted,
        state: None,
        clock,
        roots,
        timing: Timing::default(),
    };
    let shared = Arc::new(Shared::new());
    let mut conductor = Conductor::new(options, Arc::clone(&shared), || {});
    conductor.remember(Memory::peek(state));
    conductor.begin();
    shared.inventory.load_full()
}

/// Keeps certificates. Dropping it ends its thread.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    clock: Clock,
    inbox: Sender<Message>,
    /// What was wrong when everything was read for the first time.
    beginning: Mutex<Option<broadcast::Receiver<Arc<Event>>>>,
    /// Closed when its thread has ended.
    over: Mutex<Receiver<Infallible>>,
}

impl Keeper {
    /// Reads everything, and goes on keeping it. What cannot be read or used is in the inventory
    /// and the log.
    pub fn start(options: Options) -> Self {
        let (inbox, messages) = mpsc::channel();
        let shared = Arc::new(Shared::new());
        let clock = options.clock.clone();
        let look = inbox.clone();
        let wake = move || {
            // Nobody listens any more when the keeper is being dropped.
            let _closed = look.send(Message::Look);
        };
        let beginning = Mutex::new(Some(shared.events.subscribe()));
        let mut conductor = Conductor::new(options, Arc::clone(&shared), wake);
        conductor.begin();
        let (until_over, over) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                priority::make_way();
                conductor.run(&messages);
                drop(until_over);
            });
        if let Err(error) = thread {
            error!(%error, "no thread to keep certificates: they will not be renewed");
        }
        Self {
            shared,
            clock,
            inbox,
            beginning,
            over: Mutex::new(over),
        }
    }

    /// What is held at each moment.
    pub fn inventory(&self) -> Arc<ArcSwap<Inventory>> {
        Arc::clone(&self.shared.inventory)
    }

    /// A resolver over what is held.
    pub fn resolver(&self) -> Resolver {
        Resolver::new(self.inventory(), self.clock.clone())
    }

    /// Reads everything again, as this configuration wants it, judges it by these roots, and tells at
    /// once what is wrong. Waits until it is done: not for a thread that must not wait.
    pub fn reload(&self, wanted: Wanted, roots: Arc<Roots>) -> LoadReport {
        let (reply, answer) = mpsc::channel();
        self.send(Message::Reload(Box::new(wanted), roots, reply));
        // Without an answer the keeper has stopped, and has nothing to report.
        answer.recv().unwrap_or_default()
    }

    /// Uses what is on disk for a source although it is worse than what is held. Waits until it is
    /// done.
    ///
    /// # Errors
    /// When there is no such source, or its files cannot be served at all.
    pub fn accept(&self, source: &str, because: &str) -> Result<Accepted, AcceptError> {
        let (reply, answer) = mpsc::channel();
        self.send(Message::Accept {
            source: source.to_owned(),
            because: because.to_owned(),
            reply,
        });
        answer.recv().unwrap_or(Err(AcceptError::Stopped))
    }

    /// Goes back to the certificate from before a swap, where it is still valid and what clients
    /// refuse is still what is served from that source. It stays so, over restarts too, until the
    /// disk holds another one or an operator accepts this one.
    pub fn go_back(&self, setback: Setback) {
        self.send(Message::GoBack(setback));
    }

    /// Events from now on; the first listener also gets what was wrong at the start. One that is
    /// too slow loses the oldest, and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        let beginning = self.beginning.lock();
        let beginning = beginning.unwrap_or_else(PoisonError::into_inner).take();
        beginning.unwrap_or_else(|| self.shared.events.subscribe())
    }

    /// What does not work as it should.
    pub fn degraded(&self) -> Vec<Degraded> {
        self.shared.degraded.load().to_vec()
    }

    /// Writes nothing into the state directory from now on, once what is being written is whole; or
    /// goes on writing, with all that was left. Waits for the disk.
    pub fn rest(&self, resting: bool) {
        self.shared.rest.set(resting);
    }

    /// Has all that is served copied to the state directory, behind what was to be written there
    /// before. Waits for the disk, but no longer than `patience`. `false`: something is left.
    pub fn settle(&self, patience: Duration) -> bool {
        let (reply, settled) = mpsc::channel();
        self.send(Message::Settle(reply));
        settled.recv_timeout(patience).is_ok()
    }

    /// How much was done so far.
    pub fn work(&self) -> &Work {
        &self.shared.work
    }

    fn send(&self, message: Message) {
        // It is gone only when its thread could not be started or has panicked; callers see that
        // by the missing answer.
        let _stopped = self.inbox.send(message);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.send(Message::Stop);
        // One that waits for the disk of a server that is gone would wait for it for ever.
        let over = self.over.get_mut().unwrap_or_else(PoisonError::into_inner);
        if over.recv_timeout(LAST) == Err(RecvTimeoutError::Timeout) {
            warn!("certificates are still being read: that is not waited for");
        }
    }
}
