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
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::broadcast;

use super::inventory::{Inventory, Settings};
use super::load::Roots;
use super::select::Resolver;
use super::{Event, Fingerprint, Reason, Rejection};
use crate::clock::Clock;
use crate::config::{CertificateSource, Config, SiteName};
use crate::state::StateDir;
use conductor::Conductor;
pub use gather::Work;

/// Events that wait for a slow listener before it loses some.
const EVENTS: usize = 4096;

/// What the configuration wants of the keeper.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Where certificates come from.
    pub sources: Vec<CertificateSource>,
    /// The names that sites answer to.
    pub sites: Vec<SiteName>,
    /// The default certificate, and when a renewal is overdue.
    pub settings: Settings,
    /// No copies are kept in the state directory, of any source.
    pub forgetful: bool,
}

impl Wanted {
    /// What this configuration wants.
    pub fn of(config: &Config) -> Self {
        let default = config.sites.iter().find(|site| site.default);
        let default = default.or_else(|| config.sites.first());
        let default_name = default.and_then(|site| {
            site.names.iter().find_map(|name| match name {
                SiteName::Exact(host) => Some(Arc::clone(host)),
                // Any label will do to find what covers it.
                SiteName::Wildcard(parent) => Some(Arc::from(format!("*.{parent}"))),
                SiteName::Any => None,
            })
        });
        Self {
            sources: (config.certificates.iter())
                .map(|source| CertificateSource {
                    keep: source.keep && config.keep_last_good,
                    ..source.clone()
                })
                .collect(),
            sites: config
                .sites
                .iter()
                .flat_map(|site| site.names.iter().cloned())
                .collect(),
            settings: Settings {
                default_name,
                overdue: config.alerts.overdue,
                expiring: config.alerts.expiring,
            },
            forgetful: !config.keep_last_good,
        }
    }
}

/// What a keeper is made of.
#[derive(Debug)]
pub struct Options {
    /// What the configuration wants.
    pub wanted: Wanted,
    /// Where last-good certificates and the ledger are kept; `None`: nowhere.
    pub state: Option<StateDir>,
    /// The time.
    pub clock: Clock,
    /// Whom this system trusts.
    pub roots: Arc<Roots>,
    /// How patient it is.
    pub timing: Timing,
}

/// How patient a keeper is. The defaults are for use; tests are less so.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long files that cannot be used, or are worse, must be left alone until the inventory
    /// shows it.
    pub settle: Duration,
    /// How long until it is told: log, ledger, metrics, alerts.
    pub tell: Duration,
    /// The same where one of two files was renewed and the other was not: the second half may take
    /// minutes.
    pub tell_half: Duration,
    /// How long an entry must be gone from a folder until it is let go.
    pub grace: Duration,
    /// How often everything is read although nothing was heard of it.
    pub poll: Duration,
    /// The same where nothing can be heard.
    pub poll_unwatched: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(2),
            tell: Duration::from_secs(10),
            tell_half: Duration::from_secs(300),
            grace: Duration::from_secs(10),
            poll: Duration::from_secs(30),
            poll_unwatched: Duration::from_millis(700),
        }
    }
}

/// What a reload found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoadReport {
    /// Sources known.
    pub sources: usize,
    /// Sources of which a certificate is held.
    pub held: usize,
    /// Sources that are new, or gave another certificate than before.
    pub changed: Vec<String>,
    /// Sources that are no longer wanted.
    pub removed: Vec<String>,
    /// Sources whose files are not what is served, with the reason.
    pub refused: Vec<Refusal>,
}

/// A source whose files are not what is served.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The source, for people.
    pub source: String,
    /// The code.
    pub reason: Option<Reason>,
    /// In a sentence, with the next step.
    pub detail: Option<String>,
}

/// What an operator's word did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// The source, for people.
    pub source: String,
    /// What is on disk, and the current certificate of the source now.
    pub fingerprint: Fingerprint,
    /// Whether it was not already.
    pub changed: bool,
}

/// Why nothing could be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// No source is called so.
    #[error("no source is called {0:?}; `staunch certs` shows what they are called")]
    UnknownSource(String),
    /// What is on disk cannot be served at all.
    #[error("what is on disk cannot be served: {0}")]
    CannotBeServed(Arc<Rejection>),
    /// The keeper has stopped.
    #[error("staunch is stopping")]
    Stopped,
}

/// Something asked of the conductor.
enum Message {
    /// A watched path was touched.
    Look,
    Reload(Box<Wanted>, Sender<LoadReport>),
    Accept {
        source: String,
        because: String,
        reply: Sender<Result<Accepted, AcceptError>>,
    },
    Stop,
}

/// What the conductor and its keeper both see.
#[derive(Debug)]
struct Shared {
    inventory: Arc<ArcSwap<Inventory>>,
    events: broadcast::Sender<Arc<Event>>,
    degraded: ArcSwap<Vec<String>>,
    work: Arc<Work>,
}

impl Shared {
    fn new() -> Self {
        Self {
            inventory: Arc::default(),
            events: broadcast::channel(EVENTS).0,
            degraded: ArcSwap::default(),
            work: Arc::default(),
        }
    }
}

/// What a keeper would begin with: everything read once, at the time that the clock tells. Nothing
/// is written, and nothing remembered from earlier.
pub fn survey(wanted: Wanted, clock: Clock, roots: Arc<Roots>) -> Arc<Inventory> {
    let options = Options {
        wanted,
        state: None,
        clock,
        roots,
        timing: Timing::default(),
    };
    let shared = Arc::new(Shared::new());
    Conductor::new(options, Arc::clone(&shared), || {}).begin();
    shared.inventory.load_full()
}

/// Keeps certificates. Dropping it ends its thread.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    clock: Clock,
    inbox: Sender<Message>,
    thread: Option<JoinHandle<()>>,
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
        let mut conductor = Conductor::new(options, Arc::clone(&shared), wake);
        conductor.begin();
        let thread = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || conductor.run(&messages));
        let thread = thread
            .inspect_err(|error| {
                tracing::error!(%error, "no thread to keep certificates: they will not be renewed");
            })
            .ok();
        Self {
            shared,
            clock,
            inbox,
            thread,
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

    /// Reads everything again, as this configuration wants it, and tells at once what is wrong.
    /// Waits until it is done: not for a thread that must not wait.
    pub fn reload(&self, wanted: Wanted) -> LoadReport {
        let (reply, answer) = mpsc::channel();
        self.send(Message::Reload(Box::new(wanted), reply));
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

    /// Events from now on. A listener that is too slow loses the oldest, and is told how many.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.events.subscribe()
    }

    /// What does not work as it should, in words: watching, or the state directory.
    pub fn degraded(&self) -> Vec<String> {
        self.shared.degraded.load().to_vec()
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
        if let Some(thread) = self.thread.take() {
            // It logged its panic, if there was one.
            let _panicked = thread.join();
        }
    }
}
