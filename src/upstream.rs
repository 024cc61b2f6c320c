//! Servers behind: which there are, how one is chosen, and what is known of each.
//!
//! An [`Upstream`] is shared by all threads and immutable but for its counters; the connections to
//! its servers are not shared: each worker has its own [`pool::Pool`].
//!
//! What is thought of a server ([`health`]) is learnt from requests by the workers and from
//! [`check`]s and [`names`] by the control plane; how often a request may be sent again is for
//! [`budget`], how many a server is given at once for [`gate`].

pub mod balance;
pub mod budget;
pub mod check;
pub mod connection;
pub mod gate;
pub mod health;
pub mod names;
pub mod pool;
pub mod report;
#[cfg(test)]
mod tests;
pub mod trust;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustls_pki_types::{ServerName, TrustAnchor};
use tracing::{info, warn};

use crate::config::{self, Balance, Ejection, HashKey, Protocol, ProxyProtocol};
use crate::config::{ServerAddress, Timeouts};
use balance::fnv;
use budget::Budget;
use gate::Gate;
use health::{Health, Moment};
use names::Addresses;
use trust::Trust;

/// Identifies a server for as long as the process lives, across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId(u32);

/// One server of an upstream.
#[derive(Debug)]
pub struct Server {
    /// See [`ServerId`].
    pub id: ServerId,
    /// As configured, for people.
    pub url: Arc<str>,
    /// Where it is.
    pub address: ServerAddress,
    /// What its name resolves to, where it has one.
    pub addresses: Addresses,
    /// How to speak TLS to it, if at all; or why that cannot be.
    pub tls: Option<Result<ServerTls, String>>,
    /// What is spoken to it.
    pub protocol: Protocol,
    /// How it is told whose connection it is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What is thought of it.
    pub health: Health,
    /// What it has to do.
    pub load: Load,
    tag: u64,
}

/// How TLS is spoken to a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Whom to believe.
    pub trust: Arc<Trust>,
    /// The name that its certificate must cover.
    pub name: ServerName<'static>,
}

/// What a server has to do, counted by all threads.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicUsize,
    /// Connections, in use or kept.
    open: AtomicUsize,
    requests: AtomicU64,
    failures: AtomicU64,
    /// A moving average of the time to the head of a response, in microseconds.
    latency: AtomicU64,
    /// Connections that it should have at most; 0: as many as are needed.
    limit: AtomicUsize,
}

impl Load {
    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Connections open, in use or kept.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether a connection that is of no use now had better be closed than kept.
    fn is_over_limit(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        limit != 0 && self.open() > limit
    }

    fn answered(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.latency.load(Ordering::Relaxed);
        // An eighth of the news each time, as TCP does (RFC 6298). A lost update is no matter.
        let after = match before {
            0 => took,
            before => before - before / 8 + took / 8,
        };
        self.latency.store(after, Ordering::Relaxed);
    }
}

/// A request in flight to a server; counted while it lives.
#[derive(Debug)]
pub struct InFlight {
    server: Arc<Server>,
    _pass: Option<gate::Pass>,
}

impl InFlight {
    /// Counts one more, which was let through by its gate where there is one.
    pub fn new(server: &Arc<Server>, pass: Option<gate::Pass>) -> Self {
        server.load.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            server: Arc::clone(server),
            _pass: pass,
        }
    }

    /// The server.
    pub const fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.server.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to a server that is open; counted while it lives.
#[derive(Debug)]
pub struct Open(Arc<Server>);

impl Open {
    /// Counts one more.
    pub fn new(server: &Arc<Server>) -> Self {
        server.load.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(server))
    }

    /// The server.
    pub const fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.load.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A named group of servers.
#[derive(Debug)]
pub struct Upstream {
    /// Its name, or the URL it stands for.
    pub name: Arc<str>,
    /// Its place in [`Upstreams`], for tables beside it.
    pub index: usize,
    /// The deadlines that hold here.
    pub timeouts: Timeouts,
    /// For a whole request.
    pub total: Option<Duration>,
    /// Tries of a request after the first.
    pub retries: usize,
    /// How many requests may be sent again.
    pub budget: Budget,
    /// How its servers are checked, if they are.
    pub check: Option<config::Health>,
    /// How often names are resolved again.
    pub refresh: Duration,
    servers: Vec<Arc<Server>>,
    shares: Vec<Share>,
    gates: Vec<Option<Arc<Gate>>>,
    balance: Balance,
    hash: HashKey,
    sticky: Option<Arc<str>>,
    ejection: Ejection,
    slow_start: Option<Duration>,
    protocol: Protocol,
    proxy_protocol: Option<ProxyProtocol>,
    turn: AtomicUsize,
    /// Somebody is ejecting a server: one at a time, so that their number is right.
    ejecting: AtomicBool,
}

/// What a server should get of its upstream's requests.
#[derive(Debug)]
struct Share {
    weight: u32,
    backup: bool,
    /// For smooth weighted round robin.
    purse: AtomicI64,
}

impl Upstream {
    /// All its servers.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// The gate before a server, where there is one.
    pub fn gate(&self, server: usize) -> Option<&Arc<Gate>> {
        self.gates[server].as_ref()
    }

    /// What is spoken to its servers.
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How its servers are told whose connection it is.
    pub const fn proxy_protocol(&self) -> Option<ProxyProtocol> {
        self.proxy_protocol
    }

    /// The cookie that brings a client back to a server, for a `Set-Cookie`, where cookies do that.
    pub fn cookie(&self, server: usize) -> Option<String> {
        let name = self.sticky.as_ref()?;
        let tag = self.servers[server].tag();
        Some(format!(
            "{name}={tag:016x}; Path=/; HttpOnly; Secure; SameSite=Lax"
        ))
    }

    /// Notes that a server answered.
    pub fn succeeded(&self, server: usize, now: Moment, took: Duration) {
        let server = &self.servers[server];
        server.load.requests.fetch_add(1, Ordering::Relaxed);
        server.load.answered(took);
        if server.health.succeeded(now, &self.ejection) {
            info!(upstream = %self.name, server = %server.url, "the server answers again");
        }
    }

    /// Notes that a server did not answer as it should. Enough of that, and it is left alone for a
    /// while, unless too many are already.
    pub fn failed(&self, server: usize, now: Moment, why: &dyn std::fmt::Display) {
        let server = &self.servers[server];
        server.load.requests.fetch_add(1, Ordering::Relaxed);
        server.load.failures.fetch_add(1, Ordering::Relaxed);
        if !server.health.failed(now, &self.ejection) || self.ejecting.swap(true, Ordering::Acquire)
        {
            return;
        }
        if !server.health.is_ejected(now) && self.may_eject(server, now) {
            let span = server.health.eject(now, &self.ejection);
            warn!(
                upstream = %self.name,
                server = %server.url,
                seconds = span.as_secs_f64(),
                error = %why,
                "the server fails, and is left alone for a while"
            );
        }
        self.ejecting.store(false, Ordering::Release);
    }

    /// Whether so many requests in a row failed that it would be left alone, could it be spared.
    pub fn is_failing(&self, server: usize) -> bool {
        let after = self.ejection.after;
        after != 0 && self.servers[server].health.failures() >= after
    }

    /// Whether one more can be spared.
    #[allow(clippy::cast_precision_loss)]
    fn may_eject(&self, server: &Arc<Server>, now: Moment) -> bool {
        let others = self
            .servers
            .iter()
            .filter(|other| !Arc::ptr_eq(other, server) && other.health.is_ejected(now));
        (others.count() + 1) as f64 <= self.ejection.share * self.servers.len() as f64
    }
}

/// All upstreams of a configuration, by name.
#[derive(Debug, Default)]
pub struct Upstreams(BTreeMap<Arc<str>, Arc<Upstream>>);

impl Upstreams {
    /// Builds them. A server that the upstream of the same name had in `previous` too stays the same
    /// server, with its connections, its health and its counters.
    pub fn build(
        configured: &BTreeMap<Arc<str>, config::Upstream>,
        timeouts: &Timeouts,
        system: &[TrustAnchor<'static>],
        previous: &Self,
    ) -> Self {
        let upstream = |(index, (name, upstream)): (usize, (&Arc<str>, &config::Upstream))| {
            let before = previous.get(name).map(Arc::as_ref);
            let built = Upstream::new(index, name, upstream, timeouts, system, before);
            (Arc::clone(name), Arc::new(built))
        };
        Self(configured.iter().enumerate().map(upstream).collect())
    }

    /// One by its name.
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.values()
    }
}

impl Upstream {
    fn new(
        index: usize,
        name: &Arc<str>,
        upstream: &config::Upstream,
        timeouts: &Timeouts,
        system: &[TrustAnchor<'static>],
        before: Option<&Self>,
    ) -> Self {
        let trust = upstream
            .servers
            .iter()
            .any(|server| server.tls)
            .then(|| before_or_new(name, upstream, system, before));
        let own = &upstream.timeouts;
        let capacity = &upstream.capacity;
        let mut servers = Vec::with_capacity(upstream.servers.len());
        let mut gates = Vec::with_capacity(upstream.servers.len());
        for server in &upstream.servers {
            let same = before.and_then(|before| {
                let tls = server_tls(server, upstream, &trust);
                let is_it = |s: &Arc<Server>| s.is_reached_by(server, upstream, tls.as_ref());
                let at = before.servers.iter().position(is_it)?;
                Some((&before.servers[at], &before.gates[at]))
            });
            let kept = match same {
                Some((same, _)) => Arc::clone(same),
                None => {
                    let tls = server_tls(server, upstream, &trust);
                    Arc::new(Server::new(server, upstream, tls))
                }
            };
            let limit = capacity.connections.map_or(0, std::num::NonZeroUsize::get);
            kept.load.limit.store(limit, Ordering::Relaxed);
            servers.push(kept);
            gates.push(match same {
                Some((_, Some(gate))) if gate.fits(capacity) => Some(Arc::clone(gate)),
                _ => Gate::new(capacity),
            });
        }
        let shares = upstream.servers.iter().map(|server| Share {
            weight: server.weight,
            backup: server.backup,
            purse: AtomicI64::new(0),
        });
        Self {
            name: Arc::clone(name),
            index,
            timeouts: Timeouts {
                upstream_connect: own.connect.unwrap_or(timeouts.upstream_connect),
                upstream_response: own.response.unwrap_or(timeouts.upstream_response),
                upstream_idle: own.idle.unwrap_or(timeouts.upstream_idle),
                ..*timeouts
            },
            total: own.total,
            retries: upstream.retry.most as usize,
            budget: Budget::new(upstream.retry.share),
            check: upstream.health.clone(),
            refresh: upstream.refresh,
            servers,
            shares: shares.collect(),
            gates,
            balance: upstream.balance,
            hash: upstream.hash.clone(),
            sticky: upstream.sticky.clone(),
            ejection: upstream.ejection,
            slow_start: upstream.slow_start,
            protocol: upstream.protocol,
            proxy_protocol: upstream.proxy_protocol,
            turn: AtomicUsize::new(0),
            ejecting: AtomicBool::new(false),
        }
    }
}

/// How TLS is spoken to an upstream now; where its files cannot be used, as before.
fn before_or_new(
    name: &str,
    upstream: &config::Upstream,
    system: &[TrustAnchor<'static>],
    before: Option<&Upstream>,
) -> Result<Arc<Trust>, String> {
    let before = before.and_then(|before| {
        let mut known = before
            .servers
            .iter()
            .filter_map(|server| server.tls.as_ref());
        known
            .find_map(|tls| tls.as_ref().ok())
            .map(|tls| &tls.trust)
    });
    let loaded = Trust::load(&upstream.tls, upstream.protocol, system, before);
    match (loaded, before) {
        (Ok(trust), _) => Ok(trust),
        (Err(error), Some(before)) => {
            warn!(upstream = %name, %error, "TLS to the upstream stays as it was");
            Ok(Arc::clone(before))
        }
        (Err(error), None) => {
            warn!(upstream = %name, %error, "TLS to the upstream cannot be used");
            Err(error)
        }
    }
}

/// How TLS is spoken to a server, if at all.
fn server_tls(
    server: &config::Server,
    upstream: &config::Upstream,
    trust: &Option<Result<Arc<Trust>, String>>,
) -> Option<Result<ServerTls, String>> {
    if !server.tls {
        return None;
    }
    let own = || match &server.address {
        ServerAddress::Ip(address) => Some(ServerName::from(address.ip())),
        ServerAddress::Name(name, _) => ServerName::try_from(name.to_string()).ok(),
        ServerAddress::Unix(_) => None,
    };
    let given = upstream.tls.name.as_ref();
    let name = given.map_or_else(own, |name| ServerName::try_from(name.to_string()).ok())?;
    let trust = trust.as_ref()?;
    Some(trust.clone().map(|trust| ServerTls { trust, name }))
}

impl Server {
    fn new(
        server: &config::Server,
        upstream: &config::Upstream,
        tls: Option<Result<ServerTls, String>>,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: ServerId(NEXT.fetch_add(1, Ordering::Relaxed)),
            url: Arc::clone(&server.url),
            address: server.address.clone(),
            addresses: Addresses::default(),
            tls,
            protocol: upstream.protocol,
            proxy_protocol: upstream.proxy_protocol,
            health: Health::default(),
            load: Load::default(),
            tag: fnv(&[server.url.as_bytes()]),
        }
    }

    /// Stands for it in cookies and hashes, the same on every machine.
    pub const fn tag(&self) -> u64 {
        self.tag
    }

    /// Whether connections to it are what this configuration asks for.
    fn is_reached_by(
        &self,
        server: &config::Server,
        upstream: &config::Upstream,
        tls: Option<&Result<ServerTls, String>>,
    ) -> bool {
        let same_tls = match (&self.tls, tls) {
            (None, None) => true,
            (Some(Ok(one)), Some(Ok(other))) => {
                Arc::ptr_eq(&one.trust, &other.trust) && one.name == other.name
            }
            _ => false,
        };
        self.url == server.url
            && self.protocol == upstream.protocol
            && self.proxy_protocol == upstream.proxy_protocol
            && same_tls
    }
}
