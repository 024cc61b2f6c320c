//! Servers behind: which there are, how one is chosen, and what is known of each.
//!
//! An [`Upstream`] is shared by all threads and immutable but for its counters; the connections to
//! its servers are not shared: each worker has its own [`pool::Pool`].

pub mod connection;
pub mod pool;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::config::{self, Balance, ServerAddress};

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
    /// How to speak TLS to it, if at all.
    pub tls: Option<ServerTls>,
    /// Requests in flight, from all threads.
    in_flight: AtomicUsize,
}

/// How TLS is spoken to a server.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Trust and versions.
    pub config: Arc<ClientConfig>,
    /// The name that its certificate must cover.
    pub name: ServerName<'static>,
}

/// A request in flight to a server; counted while it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Server>);

impl InFlight {
    /// Counts one more.
    pub fn new(server: &Arc<Server>) -> Self {
        server.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(server))
    }

    /// The server.
    pub const fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A named group of servers.
#[derive(Debug)]
pub struct Upstream {
    /// Its name, or the URL it stands for.
    pub name: Arc<str>,
    /// Its place in [`Upstreams`], for tables beside it.
    pub index: usize,
    servers: Vec<Arc<Server>>,
    balance: Balance,
    turn: AtomicUsize,
}

impl Upstream {
    /// All its servers.
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }

    /// Chooses a server, by its place in [`servers`](Self::servers), for the `attempt`-th try (from
    /// 0) of a request by this client. A further try goes to another server where there is one. An
    /// upstream always has a server.
    pub fn choose(&self, client: IpAddr, attempt: usize) -> usize {
        let count = self.servers.len();
        if count == 1 {
            return 0;
        }
        let first = match self.balance {
            Balance::RoundRobin if attempt == 0 => self.turn.fetch_add(1, Ordering::Relaxed),
            Balance::RoundRobin => self.turn.load(Ordering::Relaxed).wrapping_sub(1),
            Balance::LeastRequests => self.least_busy(),
            Balance::Random => random(),
            Balance::Hash => return self.by_hash(client, attempt),
        };
        first.wrapping_add(attempt) % count
    }

    /// The server with the fewest requests in flight; ties are broken in turn, so that idle
    /// servers share the work.
    fn least_busy(&self) -> usize {
        let count = self.servers.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..count)
            .map(|offset| turn.wrapping_add(offset) % count)
            .min_by_key(|&index| self.servers[index].in_flight.load(Ordering::Relaxed))
            .unwrap_or(0)
    }

    /// Rendezvous hashing (Thaler and Ravishankar, 1998): each client ranks the servers by a hash
    /// of both, so that a server that comes or goes moves only its own share of the clients.
    fn by_hash(&self, client: IpAddr, attempt: usize) -> usize {
        let score = |server: &Server| {
            let mut hasher = Fnv::default();
            match client.to_canonical() {
                IpAddr::V4(ip) => hasher.write(&ip.octets()),
                IpAddr::V6(ip) => hasher.write(&ip.octets()),
            }
            hasher.write(server.url.as_bytes());
            hasher.finish()
        };
        let mut ranked: smallvec::SmallVec<[(u64, usize); 16]> = self
            .servers
            .iter()
            .enumerate()
            .map(|(index, server)| (score(server), index))
            .collect();
        ranked.sort_unstable();
        ranked[attempt % ranked.len()].1
    }
}

/// FNV-1a with a final mix: the same on every machine and in every release, which a hash that
/// decides where clients go has to be.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 33
    }
}

/// A random number from the standard library's per-process keys, which is random enough to
/// spread load.
fn random() -> usize {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static KEYS: std::hash::RandomState = std::hash::RandomState::new();
    }
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    #[allow(clippy::cast_possible_truncation)] // any bits will do
    KEYS.with(|keys| keys.hash_one(count) as usize)
}

/// All upstreams of a configuration, by name.
#[derive(Debug, Default)]
pub struct Upstreams(BTreeMap<Arc<str>, Arc<Upstream>>);

impl Upstreams {
    /// Builds them. A server that `previous` had too, under any name, stays the same server, with
    /// its connections and counters.
    pub fn build(
        configured: &BTreeMap<Arc<str>, config::Upstream>,
        tls: &Arc<ClientConfig>,
        previous: &Self,
    ) -> Self {
        let kept: BTreeMap<&str, &Arc<Server>> = previous
            .iter()
            .flat_map(|upstream| upstream.servers())
            .map(|server| (&*server.url, server))
            .collect();
        let upstream = |(index, (name, upstream)): (usize, (&Arc<str>, &config::Upstream))| {
            let servers = upstream
                .servers
                .iter()
                .map(|server| match kept.get(&*server.url) {
                    Some(&same) => Arc::clone(same),
                    None => Arc::new(Server::new(server, tls)),
                })
                .collect();
            let upstream = Upstream {
                name: Arc::clone(name),
                index,
                servers,
                balance: upstream.balance,
                turn: AtomicUsize::new(0),
            };
            (Arc::clone(name), Arc::new(upstream))
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

impl Server {
    fn new(server: &config::Server, tls: &Arc<ClientConfig>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = match &server.address {
            ServerAddress::Ip(address) => Some(ServerName::from(address.ip())),
            ServerAddress::Name(name, _) => ServerName::try_from(name.to_string()).ok(),
            ServerAddress::Unix(_) => None,
        };
        Self {
            id: ServerId(NEXT.fetch_add(1, Ordering::Relaxed)),
            url: Arc::clone(&server.url),
            address: server.address.clone(),
            tls: name.filter(|_| server.tls).map(|name| ServerTls {
                config: Arc::clone(tls),
                name,
            }),
            in_flight: AtomicUsize::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn upstream(balance: Balance, servers: usize) -> Upstream {
        let tls = crate::tls::upstream_client(&[]).unwrap();
        let configured = (0..servers)
            .map(|n| config::Server {
                url: format!("http://10.0.0.{n}").into(),
                address: ServerAddress::Ip(([10, 0, 0, n as u8], 80).into()),
                tls: false,
            })
            .collect();
        let all = Upstreams::build(
            &BTreeMap::from([(
                "u".into(),
                config::Upstream {
                    servers: configured,
                    balance,
                },
            )]),
            &tls,
            &Upstreams::default(),
        );
        Arc::into_inner(all.0.into_values().next().unwrap()).unwrap()
    }

    fn client(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn round_robin_takes_each_in_turn_and_retries_on_the_next() {
        let upstream = upstream(Balance::RoundRobin, 3);
        let mut seen = HashMap::new();
        for _ in 0..9 {
            *seen.entry(upstream.choose(client(1), 0)).or_insert(0) += 1;
        }
        assert!(seen.values().all(|&count| count == 3) && seen.len() == 3);
        let first = upstream.choose(client(1), 0);
        assert_ne!(first, upstream.choose(client(1), 1));
    }

    #[test]
    fn least_requests_avoids_the_busy() {
        let upstream = upstream(Balance::LeastRequests, 2);
        let busy = InFlight::new(&upstream.servers[0]);
        for _ in 0..4 {
            assert_eq!(upstream.choose(client(1), 0), 1);
        }
        drop(busy);
    }

    #[test]
    fn a_client_keeps_its_server_when_another_goes() {
        let three = upstream(Balance::Hash, 3);
        let two = upstream(Balance::Hash, 2); // without 10.0.0.2
        for n in 0..200 {
            let before = &three.servers[three.choose(client(n), 0)].url;
            if &**before != "http://10.0.0.2" {
                assert_eq!(before, &two.servers[two.choose(client(n), 0)].url);
            }
        }
    }

    #[test]
    fn a_server_survives_a_reload() {
        let configured = BTreeMap::from([(
            Arc::from("u"),
            config::Upstream {
                servers: vec![config::Server {
                    url: "http://10.0.0.1".into(),
                    address: ServerAddress::Ip(([10, 0, 0, 1], 80).into()),
                    tls: false,
                }],
                balance: Balance::Random,
            },
        )]);
        let tls = crate::tls::upstream_client(&[]).unwrap();
        let old = Upstreams::build(&configured, &tls, &Upstreams::default());
        let new = Upstreams::build(&configured, &tls, &old);
        assert_eq!(
            old.get("u").unwrap().servers[0].id,
            new.get("u").unwrap().servers[0].id
        );
    }
}
