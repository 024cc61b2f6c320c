//! What is said between a keeper, its conductor, and those who ask: plain types.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::broadcast;

use super::gather::Work;
use super::memory::Rest;
use crate::cert::inventory::{Inventory, Settings};
use crate::cert::load::Roots;
use crate::cert::{Event, Fingerprint, Reason, Rejection, Verified};
use crate::clock::Clock;
use crate::config::{CertificateSource, Config, SiteName};
use crate::state::StateDir;

/// Events that wait for a slow listener before it loses some.
const EVENTS: usize = 4096;

/// What the configuration wants of the keeper.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Where certificates come from.
    pub sources: Vec<CertificateSource>,
    /// The names that sites answer to over TLS.
    pub sites: Vec<SiteName>,
    /// The default certificate, and when a renewal is overdue.
    pub settings: Settings,
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
                // What is served in plain text need not have a certificate.
                .filter(|site| site.needs_certificate())
                .flat_map(|site| site.names.iter().cloned())
                .collect(),
            settings: Settings {
                default_name,
                overdue: config.alerts.overdue,
                expiring: config.alerts.expiring,
            },
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
    /// How long after a start the copies of sources that the configuration does not name are kept,
    /// and those of what was let go after that: neither a wrong configuration nor a disk that was
    /// away must cost them.
    pub forget: Duration,
    /// How long a clock that leapt ahead must go on from there until what is held is judged by it.
    pub steady: Duration,
    /// How long until the state directory is tried again that could not be written.
    pub rewrite: Duration,
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
            forget: Duration::from_secs(24 * 3600),
            steady: Duration::from_secs(600),
            rewrite: Duration::from_secs(5),
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
pub(super) enum Message {
    /// A watched path was touched.
    Look,
    Reload(Box<Wanted>, Arc<Roots>, Sender<LoadReport>),
    Accept {
        source: String,
        because: String,
        reply: Sender<Result<Accepted, AcceptError>>,
    },
    GoBack(Setback),
    /// To be answered once nothing is left to be written.
    Settle(Sender<()>),
    Stop,
}

/// A swap that clients do not take, and that is to be undone.
#[derive(Clone, Debug)]
pub struct Setback {
    /// The source, for people.
    pub source: Arc<str>,
    /// What clients refuse.
    pub refused: Fingerprint,
    /// What was served before.
    pub earlier: Arc<Verified>,
    /// How often they refuse, in words.
    pub because: String,
}

/// What of a keeper's own work does not go as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Degraded {
    /// Changes are found by polling, or late; why, in words.
    Watch(String),
    /// Last-good certificates or the ledger cannot be written; why, in words.
    State(String),
    /// It failed once in a way that was not foreseen, and goes on.
    Failed,
}

/// What the conductor and its keeper both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inventory: Arc<ArcSwap<Inventory>>,
    pub(super) events: broadcast::Sender<Arc<Event>>,
    pub(super) degraded: ArcSwap<Vec<Degraded>>,
    pub(super) work: Arc<Work>,
    pub(super) rest: Arc<Rest>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            inventory: Arc::default(),
            events: broadcast::channel(EVENTS).0,
            degraded: ArcSwap::default(),
            work: Arc::default(),
            rest: Arc::default(),
        }
    }
}
