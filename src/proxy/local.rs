//! What one worker has at hand to serve requests, without a lock and without asking anybody.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::{ArcSwap, Cache};

use super::World;
use super::compress::Room;
use super::route::{SiteIndex, Table};
use super::rules::Random;
use super::tally::Tally;
use crate::cert::select::Resolver;
use crate::clock::Clock;
use crate::config::{self, Limits, Timeouts};
use crate::drain::Draining;
use crate::metrics::{Edge, Registry, RequestSeries, StreamSeries, UpstreamSeries};
use crate::telemetry::access::{AccessLog, Writer};
use crate::telemetry::spans::Outbox;
use crate::upstream::Upstream;
use crate::upstream::pool::Pool;

/// Length of an HTTP date (RFC 9110, section 5.6.7).
const DATE: usize = 29;

/// See the module.
#[derive(Debug)]
pub struct Local {
    present: RefCell<Present>,
    registry: Registry,
    clock: Clock,
    date: RefCell<(i64, [u8; DATE])>,
    pool: Pool,
    edge: Edge,
    access: RefCell<Writer>,
    draining: Rc<Draining>,
    certificates: Arc<Resolver>,
    compressing: Room,
    random: Random,
}

impl Local {
    /// Makes one for the calling thread.
    pub fn new(
        shared: Arc<ArcSwap<World>>,
        registry: Registry,
        clock: Clock,
        access: &AccessLog,
        draining: Rc<Draining>,
        certificates: Arc<Resolver>,
    ) -> Self {
        let snapshot = Rc::new(Snapshot::new(
            shared.load_full(),
            &registry,
            &Handles::default(),
        ));
        let present = RefCell::new(Present {
            shared: Cache::new(shared),
            snapshot,
        });
        let edge = Edge::new(&registry);
        let date = RefCell::new((i64::MIN, [0; DATE]));
        let access = RefCell::new(access.writer());
        let pool = Pool::default();
        Self {
            present,
            registry,
            clock,
            date,
            pool,
            edge,
            access,
            draining,
            certificates,
            random: Random::new(),
            compressing: Room::default(),
        }
    }

    /// How many responses are compressed.
    pub(super) const fn compressing(&self) -> &Room {
        &self.compressing
    }

    /// Who chooses the certificate for each handshake.
    pub fn certificates(&self) -> &Resolver {
        &self.certificates
    }

    /// The world as it is now; a request takes it once and keeps it.
    pub fn world(&self) -> Rc<Snapshot> {
        let Present { shared, snapshot } = &mut *self.present.borrow_mut();
        let world = shared.load();
        if !Arc::ptr_eq(world, &snapshot.world) {
            let known = snapshot.handles();
            let next = Snapshot::new(Arc::clone(world), &self.registry, &known);
            *snapshot = Rc::new(next);
        }
        Rc::clone(snapshot)
    }

    /// For ids of requests and traces.
    pub const fn random(&self) -> &Random {
        &self.random
    }

    /// This worker's upstream connections.
    pub const fn pool(&self) -> &Pool {
        &self.pool
    }

    /// This worker's counters.
    pub const fn edge(&self) -> &Edge {
        &self.edge
    }

    /// Writes a line of the access log, where there is one.
    pub fn log(&self, line: impl FnOnce(&mut Writer)) {
        let mut access = self.access.borrow_mut();
        if access.is_on() {
            line(&mut access);
        }
    }

    /// Whether this worker is stopping.
    pub const fn draining(&self) -> &Rc<Draining> {
        &self.draining
    }

    /// The present as an HTTP date, formatted once a second.
    pub fn date(&self) -> Ref<'_, [u8; DATE]> {
        let now = self.clock.now().unix();
        if self.date.borrow().0 != now {
            let at = UNIX_EPOCH + Duration::from_secs(now.unsigned_abs());
            let text = httpdate::fmt_http_date(at);
            let mut date = [b' '; DATE];
            for (to, from) in date.iter_mut().zip(text.bytes()) {
                *to = from;
            }
            *self.date.borrow_mut() = (now, date);
        }
        Ref::map(self.date.borrow(), |date| &date.1)
    }
}

/// The world as it is, as far as this worker knows; it looks each time whether there is another.
#[derive(Debug)]
struct Present {
    shared: Cache<Arc<ArcSwap<World>>, Arc<World>>,
    snapshot: Rc<Snapshot>,
}

/// A world, with this worker's handles beside it.
#[derive(Debug)]
pub struct Snapshot {
    world: Arc<World>,
    sites: Vec<Rc<RequestSeries>>,
    servers: Vec<Vec<Rc<UpstreamSeries>>>,
    streams: Vec<Option<Rc<StreamSeries>>>,
    /// Some server is told whose connection it is.
    tells: bool,
}

/// Handles by what they are of.
#[derive(Default)]
struct Handles<'s> {
    sites: HashMap<&'s str, &'s Rc<RequestSeries>>,
    servers: HashMap<(&'s str, &'s str), &'s Rc<UpstreamSeries>>,
    streams: HashMap<&'s str, &'s Rc<StreamSeries>>,
}

impl Snapshot {
    /// Handles that are `known` are used further: it is a request that finds the world changed, and
    /// to ask the registry for those of ten thousand sites takes longer than it has.
    fn new(world: Arc<World>, registry: &Registry, known: &Handles<'_>) -> Self {
        let site = |site: &super::route::Site| {
            let label = &*site.label;
            kept(&known.sites, &label, || RequestSeries::new(registry, label))
        };
        let sites = world.table.sites().iter().map(site).collect();
        let servers = (world.upstreams.iter())
            .map(|upstream| {
                let server = |url: &str| {
                    let new = || UpstreamSeries::new(registry, &upstream.name, url);
                    kept(&known.servers, &(&*upstream.name, url), new)
                };
                let servers = upstream.servers().iter();
                servers.map(|it| server(&it.url)).collect()
            })
            .collect();
        let streams = (world.upstreams.iter())
            .map(|upstream| {
                let is_stream = world.streams.contains(&upstream.name);
                let new = || StreamSeries::new(registry, &upstream.name);
                is_stream.then(|| kept(&known.streams, &&*upstream.name, new))
            })
            .collect();
        let tells = (world.upstreams.iter()).any(|upstream| upstream.proxy_protocol().is_some());
        Self {
            world,
            sites,
            servers,
            streams,
            tells,
        }
    }

    fn handles(&self) -> Handles<'_> {
        let sites = self.world.table.sites().iter().zip(&self.sites);
        let mut known = Handles {
            sites: sites.map(|(site, it)| (&*site.label, it)).collect(),
            ..Handles::default()
        };
        for upstream in self.world.upstreams.iter() {
            let name = &*upstream.name;
            let servers = upstream.servers().iter().zip(&self.servers[upstream.index]);
            let servers = servers.map(|(server, it)| ((name, &*server.url), it));
            known.servers.extend(servers);
            let stream = self.streams[upstream.index].as_ref();
            known.streams.extend(stream.map(|it| (name, it)));
        }
        known
    }

    /// Sites and routes.
    pub fn table(&self) -> &Table {
        &self.world.table
    }

    /// Deadlines.
    pub fn timeouts(&self) -> &Timeouts {
        &self.world.timeouts
    }

    /// Bounds.
    pub fn limits(&self) -> &Limits {
        &self.world.limits
    }

    /// What clients have had of what is limited.
    pub(super) fn tally(&self) -> &Tally {
        self.world.material.tally()
    }

    /// Where spans are put, if anywhere.
    pub fn spans(&self) -> Option<&Outbox> {
        self.world.spans.as_ref()
    }

    /// Whether this client is believed what it says of those before it.
    pub fn trusts(&self, client: IpAddr) -> bool {
        !self.world.forwarded_from.is_empty()
            && config::contains(&self.world.forwarded_from, client)
    }

    /// Handles of a site.
    pub fn site(&self, site: SiteIndex) -> &RequestSeries {
        &self.sites[site.get()]
    }

    /// An upstream by its name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.world.upstreams.get(name)
    }

    /// Handles of an upstream that whole connections are passed on to.
    pub fn stream(&self, upstream: &Upstream) -> Option<&StreamSeries> {
        self.streams[upstream.index].as_deref()
    }

    /// Whether some server is told whose connection it is.
    pub const fn tells(&self) -> bool {
        self.tells
    }

    /// Handles of a server of an upstream of this world.
    pub fn server(&self, upstream: &Upstream, server: usize) -> &UpstreamSeries {
        &self.servers[upstream.index][server]
    }
}

fn kept<K: Eq + Hash, T>(known: &HashMap<K, &Rc<T>>, of: &K, new: impl FnOnce() -> T) -> Rc<T> {
    match known.get(of) {
        Some(known) => Rc::clone(known),
        None => Rc::new(new()),
    }
}
