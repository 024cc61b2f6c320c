//! The certificate for a handshake.
//!
//! [`Resolver`] runs on the data plane: it takes no lock, waits for nothing and, in the common
//! path, allocates nothing. A client that names no host, or one that no certificate covers, gets
//! the default certificate rather than a refusal, which would tell neither side anything.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use smallvec::SmallVec;
use tracing::error;

use super::inventory::Inventory;
use super::rank::{Candidate, Client};
use super::{KeyType, Origin, Verified};
use crate::clock::{Clock, Timestamp};

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

/// What a client was answered with.
#[derive(Debug)]
pub struct Chosen {
    /// The name that it asked for.
    pub name: Option<Box<str>>,
    /// The certificate.
    pub certificate: Arc<Verified>,
}

thread_local! {
    /// The resolver's last answer on this thread. `rustls` gives a resolver no way to say more than
    /// the key, and lets go of the connection, and of the name in it, when a handshake fails.
    static CHOSEN: Cell<Option<Chosen>> = const { Cell::new(None) };
}

/// Takes the resolver's answer, if it was asked on this thread since the last call. Who polls a
/// handshake learns in this way what was chosen in it.
pub fn take_chosen() -> Option<Chosen> {
    CHOSEN.take()
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

    /// Whether what is served for `name` covers `host` too, so that a client may use its connection
    /// for the one for the other (RFC 9110, section 4.3.3; RFC 9113, section 9.1.1).
    pub fn serves_both(&self, name: &str, host: &str) -> bool {
        let inventory = self.inventory.load();
        let now = self.clock.now();
        answer(&inventory, Some(name), Client::Any, now)
            .is_some_and(|best| best.certificate.covers(host))
    }

    /// Whether the answer to this client takes a signature that keeps a thread busy for as long as
    /// dozens of requests: with RSA it is at least half a millisecond, with all others a twentieth.
    pub fn signs_slowly(&self, hello: &ClientHello<'_>) -> bool {
        let inventory = self.inventory.load();
        let (client, now) = (Client::Offers(hello.signature_schemes()), self.clock.now());
        answer(&inventory, hello.server_name(), client, now)
            .is_some_and(|best| matches!(best.certificate.facts().key_type, KeyType::Rsa(_)))
    }

    /// The key for a client with this name and these abilities.
    fn choose(&self, name: Option<&str>, client: Client<'_>) -> Option<Arc<CertifiedKey>> {
        let inventory = self.inventory.load();
        let now = self.clock.now();
        let named = named(&inventory, name, client, now);
        let Some(best) = named.or_else(|| inventory.fallback(client, now)) else {
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
        CHOSEN.set(Some(Chosen {
            name: name.map(Into::into),
            certificate: Arc::clone(&best.certificate),
        }));
        Some(best.certificate.key_at(now))
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
    pub fn choice(&self, host: &str, now: Timestamp) -> Option<Choice> {
        let address = host.parse::<std::net::IpAddr>();
        let address = address.map(|address| address.to_string());
        let host = address.as_deref().unwrap_or(host);
        let best = with_canonical(host, |host| self.best(host, Client::Any, now))?;
        Some(self.explain(best))
    }

    /// What a client that can do everything would get when it names no host that is covered.
    pub fn default_choice(&self, now: Timestamp) -> Option<Choice> {
        let best = self.fallback(Client::Any, now)?;
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

/// The best certificate that covers this name.
fn named<'a>(
    inventory: &'a Inventory,
    name: Option<&str>,
    client: Client<'_>,
    now: Timestamp,
) -> Option<&'a Candidate> {
    with_canonical(name?, |name| inventory.best(name, client, now))
}

/// The same, or else the default: what a client with this name and these abilities gets.
fn answer<'a>(
    inventory: &'a Inventory,
    name: Option<&str>,
    client: Client<'_>,
    now: Timestamp,
) -> Option<&'a Candidate> {
    named(inventory, name, client, now).or_else(|| inventory.fallback(client, now))
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

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::cert::testing::{Front, Leaf, NOW, World, day};

    struct Bench {
        world: World,
        front: Front,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                world: World::new(),
                front: Front::new(Clock::manual(NOW)),
            }
        }

        fn leaf(&self, name: &str, from: i64, to: i64) -> Arc<Verified> {
            let leaf = Leaf::new(&[name]).valid(day(from), day(to));
            Arc::new(self.world.verified(&leaf))
        }

        fn hold(&self, all: &[&Arc<Verified>]) {
            self.front.hold("/a.pem", all);
        }

        fn shake_hands(&self, name: &str) -> Result<CertificateDer<'static>, rustls::Error> {
            self.front.shake_hands(name)
        }

        fn counts(&self) -> [u64; 3] {
            let counters = self.front.resolver.counters();
            [
                &counters.unknown_name,
                &counters.no_sni,
                &counters.none_held,
            ]
            .map(|counter| counter.load(Ordering::Relaxed))
        }
    }

    fn der(certificate: &Arc<Verified>) -> CertificateDer<'static> {
        certificate.key().cert[0].clone()
    }

    #[test]
    fn a_handshake_gets_the_best_at_its_second_without_any_event() {
        let bench = Bench::new();
        let (now, later) = (bench.leaf("a.test", -30, 1), bench.leaf("a.test", 1, 60));
        bench.hold(&[&now, &later]);
        assert_eq!(bench.shake_hands("a.test"), Ok(der(&now)));
        bench.front.clock.set(day(1).plus(1));
        assert_eq!(bench.shake_hands("a.test"), Ok(der(&later)));
        assert_eq!(bench.counts(), [0, 0, 0]);
    }

    #[test]
    fn unknown_names_and_none_get_the_default_and_are_counted() {
        let bench = Bench::new();
        assert!(bench.shake_hands("a.test").is_err());
        let only = bench.leaf("a.test", -30, 60);
        bench.hold(&[&only]);
        assert_eq!(bench.shake_hands("unknown.test"), Ok(der(&only)));
        assert_eq!(bench.shake_hands("192.0.2.1"), Ok(der(&only)));
        assert_eq!(bench.counts(), [1, 1, 1]);
    }

    #[test]
    fn names_are_found_however_they_are_written() {
        let bench = Bench::new();
        bench.hold(&[
            &bench.leaf("a.test", -30, 60),
            &bench.leaf("2001:db8::1", -30, 60),
        ]);
        for host in [
            "a.test",
            "A.Test",
            "a.test.",
            "2001:db8::1",
            "2001:DB8:0::1",
        ] {
            assert!(bench.front.resolver.best_for(host).is_some(), "{host}");
        }
        for host in [
            "",
            ".",
            "b.test",
            "x.a.test",
            "192.0.2.1",
            &"A".repeat(1000),
        ] {
            assert!(bench.front.resolver.best_for(host).is_none(), "{host}");
        }
        assert_eq!(bench.counts(), [0, 0, 0]);
    }
}
