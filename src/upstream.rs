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
pub mod dns;
pub mod files;
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

use arc_swap::ArcSwapOption;
use rustls_pki_types::{CertificateDer, ServerName};
use tracing::{info, warn};

use crate::cert::load::Roots;
use crate::cert::presented::{PresentedCertificate, describe};
use crate::clock::Clock;

use crate::config::{self, Balance, Ejection, HashKey, Protocol, ProxyProtocol};
use crate::config::{ServerAddress, Timeouts};
use balance::fnv;
use budget::Budget;
use gate::Gate;
use health::{Health, Moment, Standing};
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
    /// How to speak TLS to it, if at all.
    pub tls: Option<ServerTls>,
    /// The certificate that it presented last.
    pub presented: ArcSwapOption<Presented>,
    /// Why the last request failed of as many in a row as it may fail.
    trouble: ArcSwapOption<String>,
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

/// A certificate that a server presented.
#[derive(Debug)]
pub struct Presented {
    der: CertificateDer<'static>,
    /// What is in it.
    pub certificate: PresentedCertificate,
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
pub struct InFlight<'a> {
    server: &'a Arc<Server>,
    _pass: Option<gate::Pass>,
}

impl<'a> InFlight<'a> {
    /// Counts one more, which was let through by its gate where there is one.
    pub fn new(server: &'a Arc<Server>, pass: Option<gate::Pass>) -> Self {
        server.load.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            server,
            _pass: pass,
        }
    }

    /// The server.
    pub const fn server(&self) -> &'a Arc<Server> {
        self.server
    }
}

impl Drop for InFlight<'_> {
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
    /// How often names are resolved again, where not as their records say.
    pub refresh: Option<Duration>,
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

    /// How TLS is spoken to each of its servers; it is the same for all of them.
    pub fn trusts(&self) -> impl Iterator<Item = &Arc<Trust>> {
        let tls = self.servers.iter().filter_map(|server| server.tls.as_ref());
        tls.map(|tls| &tls.trust)
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
    /// `secure`: the client is spoken to over TLS; without, it would not keep a cookie that wants it.
    pub fn cookie(&self, server: usize, secure: bool) -> Option<String> {
        let name = self.sticky.as_ref()?;
        let tag = self.servers[server].tag();
        let secure = if secure { "; Secure" } else { "" };
        Some(format!(
            "{name}={tag:016x}; Path=/; HttpOnly{secure}; SameSite=Lax"
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
        let why = Arc::new(why.to_string());
        server.trouble.store(Some(Arc::clone(&why)));
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

    /// Why requests to a server fail, while they do.
    pub fn trouble(&self, server: usize) -> Option<Arc<String>> {
        let fails =
            self.is_failing(server) || self.servers[server].health.proven() == Standing::Ejected;
        fails
            .then(|| self.servers[server].trouble.load_full())
            .flatten()
    }

    /// Whether another server is up to take what waits for one that is down, and the budget has room
    /// for it.
    pub fn can_spare(&self) -> bool {
        let up = |server: &Arc<Server>| server.health.proven() == Standing::Up;
        self.budget.is_left() && self.servers.iter().any(up)
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
        system: &Arc<Roots>,
        clock: &Clock,
        previous: &Self,
    ) -> Self {
        let upstream = |(index, (name, upstream)): (usize, (&Arc<str>, &config::Upstream))| {
            let before = previous.get(name).map(Arc::as_ref);
            let built = Upstream::new(index, name, upstream, timeouts, system, clock, before);
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

    /// How TLS is spoken to each that speaks it.
    pub fn trusts(&self) -> impl Iterator<Item = &Arc<Trust>> {
        self.iter().filter_map(|upstream| upstream.trusts().next())
    }
}

impl Upstream {
    fn new(
        index: usize,
        name: &Arc<str>,
        upstream: &config::Upstream,
        timeouts: &Timeouts,
        system: &Arc<Roots>,
        clock: &Clock,
        before: Option<&Self>,
    ) -> Self {
        let speaks_tls = upstream.servers.iter().any(|server| server.tls);
        let trust = speaks_tls.then(|| {
            let before = before.and_then(|before| before.trusts().next());
            Trust::load(
                name,
                &upstream.tls,
                upstream.protocol,
                system,
                clock,
                before,
            )
        });
        let own = &upstream.timeouts;
        let capacity = &upstream.capacity;
        let mut servers = Vec::with_capacity(upstream.servers.len());
        let mut gates = Vec::with_capacity(upstream.servers.len());
        for server in &upstream.servers {
            let same = before.and_then(|before| {
                let tls = server_tls(server, upstream, trust.as_ref());
                let is_it = |s: &Arc<Server>| s.is_reached_by(server, upstream, tls.as_ref());
                let at = before.servers.iter().position(is_it)?;
                Some((&before.servers[at], &before.gates[at]))
            });
            let kept = match same {
                Some((same, _)) => Arc::clone(same),
                None => {
                    let tls = server_tls(server, upstream, trust.as_ref());
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

/// How TLS is spoken to a server, if at all.
fn server_tls(
    server: &config::Server,
    upstream: &config::Upstream,
    trust: Option<&Arc<Trust>>,
) -> Option<ServerTls> {
    if !server.tls {
        return None;
    }
    let named = |name: &str| ServerName::try_from(name.to_owned()).ok();
    let own = || match (&server.domain, &server.address) {
        // Who answers for a service's records is not whom clients were sent to (RFC 6125, section
        // 6.2.1): without this, whoever can forge them could send another's name.
        (Some(domain), _) => named(domain),
        (None, ServerAddress::Ip(address)) => Some(ServerName::from(address.ip())),
        (None, ServerAddress::Name(name, _)) => named(name),
        (None, ServerAddress::Unix(_) | ServerAddress::Service(_)) => None,
    };
    let given = upstream.tls.name.as_ref();
    let name = given.map_or_else(own, |name| ServerName::try_from(name.to_string()).ok())?;
    let trust = Arc::clone(trust?);
    Some(ServerTls { trust, name })
}

impl Server {
    /// The host that it is asked for, where nobody says another.
    fn host(&self) -> String {
        match &self.address {
            ServerAddress::Ip(address) => address.to_string(),
            ServerAddress::Name(name, port) => format!("{name}:{port}"),
            ServerAddress::Service(name) => name.to_string(),
            ServerAddress::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Notes what certificate it presented. On the way of each new connection, so that nothing is
    /// read that was read before.
    fn presents(&self, chain: Option<&[CertificateDer<'static>]>) {
        let Some(der) = chain.and_then(<[_]>::first) else {
            return;
        };
        let known = self.presented.load();
        if known.as_ref().is_some_and(|known| known.der == *der) {
            return;
        }
        if let Some(certificate) = describe(der) {
            let der = der.clone();
            self.presented
                .store(Some(Arc::new(Presented { der, certificate })));
        }
    }

    fn new(server: &config::Server, upstream: &config::Upstream, tls: Option<ServerTls>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            id: ServerId(NEXT.fetch_add(1, Ordering::Relaxed)),
            url: Arc::clone(&server.url),
            address: server.address.clone(),
            addresses: Addresses::default(),
            tls,
            presented: ArcSwapOption::empty(),
            trouble: ArcSwapOption::empty(),
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
        tls: Option<&ServerTls>,
    ) -> bool {
        let same_tls = match (&self.tls, tls) {
            (None, None) => true,
            (Some(one), Some(other)) => {
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
