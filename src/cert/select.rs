//! The certificate for a handshake.
//!
//! [`Resolver`] runs on the data plane: it takes no lock, waits for nothing and, in the common
//! path, allocates nothing. A client that names no host, or one that no certificate covers, gets
//! the default certificate rather than a refusal, which would tell neither side anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;
use tracing::error;

use super::inventory::Inventory;
use super::rank::{Candidate, Client};
use super::{Origin, Verified};
use crate::clock::Clock;

/// How often, in seconds, it is said that nothing is held at all.
const COMPLAIN_EVERY: i64 = 60;

/// What a certificate was chosen for lack of. They only ever grow.
#[derive(Debug, Default)]
pub struct Counters {
    /// The client's name is covered by no certificate; it got the default.
    pub unknown_name: AtomicU64,
    /// The client named no host; it got the default.
    pub no_sni: AtomicU64,
    /// Nothing is held at all; the handshake failed.
    pub none_held: AtomicU64,
}

/// A certificate that would be served.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The certificate.
    pub certificate: Arc<Verified>,
    /// Its source, for people.
    pub source: Arc<str>,
    /// Where it came from.
    pub origin: Origin,
    /// It is worse than another of its source, which is of no use for this name now.
    pub held_back: bool,
}

/// Chooses the certificate for each handshake.
#[derive(Debug)]
pub struct Resolver {
    inventory: Arc<ArcSwap<Inventory>>,
    clock: Clock,
    counters: Arc<Counters>,
    complained: AtomicI64,
}

impl Resolver {
    /// A resolver over what is held at each moment.
    pub fn new(inventory: Arc<ArcSwap<Inventory>>, clock: Clock) -> Self {
        Self {
            inventory,
            clock,
            counters: Arc::default(),
            complained: AtomicI64::new(i64::MIN),
        }
    }

    /// What happened so far.
    pub const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What a client that can do everything would get for this host now; `None` when no
    /// certificate covers it, so that it would get the default.
    pub fn best_for(&self, host: &str) -> Option<Choice> {
        let inventory = self.inventory.load();
        inventory.choice(host, self.clock.now())
    }

    /// The key for a client with this name and these abilities.
    fn choose(&self, name: Option<&str>, client: Client<'_>) -> Option<Arc<CertifiedKey>> {
        let inventory = self.inventory.load();
        let now = self.clock.now();
        let named = match name {
            Some(name) => with_canonical(name, |name| inventory.best(name, client, now)),
            None => None,
        };
        let Some(best) = named.or_else(|| inventory.default(client, now)) else {
            self.counters.none_held.fetch_add(1, Ordering::Relaxed);
            self.complain(name);
            return None;
        };
        if named.is_none() {
            let counter = match name {
                Some(_) => &self.counters.unknown_name,
                None => &self.counters.no_sni,
            };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Some(Arc::clone(best.certificate.key()))
    }

    /// Says that nothing is held, once in a while: a client sees only an alert, and an operator
    /// would see nothing.
    fn complain(&self, name: Option<&str>) {
        let now = self.clock.now().unix();
        let last = self.complained.load(Ordering::Relaxed);
        if now.saturating_sub(last) < COMPLAIN_EVERY && now >= last {
            return;
        }
        let mine =
            self.complained
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if mine.is_ok() {
            let refused = self.counters.none_held.load(Ordering::Relaxed);
            error!(
                name = name.unwrap_or_default(),
                refused, "handshakes fail: no certificate is held; see `staunch check`"
            );
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let client = Client::Offers(hello.signature_schemes());
        self.choose(hello.server_name(), client)
    }
}

impl Inventory {
    /// What a client that can do everything would get for this host at a moment; `None` when no
    /// certificate covers it.
    pub fn choice(&self, host: &str, now: crate::clock::Timestamp) -> Option<Choice> {
        let address = host.parse::<std::net::IpAddr>();
        let address = address.map(|address| address.to_string());
        let host = address.as_deref().unwrap_or(host);
        let best = with_canonical(host, |host| self.best(host, Client::Any, now))?;
        Some(self.explain(best))
    }

    /// What a client that can do everything would get when it names no host that is covered.
    pub fn default_choice(&self, now: crate::clock::Timestamp) -> Option<Choice> {
        let best = self.default(Client::Any, now)?;
        Some(self.explain(best))
    }

    fn explain(&self, best: &Candidate) -> Choice {
        let source = self.held(best.slot);
        Choice {
            certificate: Arc::clone(&best.certificate),
            source: source.map_or_else(|| Arc::from(""), |held| Arc::clone(&held.source.label)),
            origin: best.origin(),
            held_back: best.held_back,
        }
    }
}

/// Calls with the name in lower case and without a trailing dot, which it nearly always is already.
fn with_canonical<R>(name: &str, call: impl FnOnce(&str) -> R) -> R {
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return call(name);
    }
    // A host name has at most 253 bytes; a longer one is covered by no certificate.
    let mut lower: SmallVec<[u8; 256]> = SmallVec::from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    match std::str::from_utf8(&lower) {
        Ok(lower) => call(lower),
        Err(_) => call(name),
    }
}
