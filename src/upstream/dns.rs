//! Names, asked of the DNS: addresses (A, AAAA) and services (SRV, RFC 2782), and how long the
//! answers hold.
//!
//! Name servers are those that are configured, or those of `/etc/resolv.conf`. What `/etc/hosts`
//! says goes before; what the DNS does not know, the system is asked for (`getaddrinfo`), which may
//! have other sources (`nsswitch.conf`). Neither of these tells how long an answer holds.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};

/// What the resolver goes by besides what is configured.
const SYSTEM: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// For one question to one server, and how often.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;
/// The library's word for an answer that holds for ever, which is none of the DNS.
const FOR_EVER: Duration = Duration::from_secs(86_000);

/// What was found, and for how long it holds where that is known.
#[derive(Debug)]
pub struct Found<T> {
    /// It.
    pub what: T,
    /// For so long.
    pub holds: Option<Duration>,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Lower ones are used first.
    pub priority: u16,
    /// Its name.
    pub name: Arc<str>,
    /// Its port.
    pub port: u16,
    /// Its share, among those of its priority.
    pub weight: u16,
}

/// See the module.
pub struct Dns {
    servers: Vec<SocketAddr>,
    /// Made anew when the system's files change.
    resolver: Mutex<Option<(Stamp, TokioResolver)>>,
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

/// What tells a file from what it was.
type Stamp = [Option<(u64, i64, i64, u64)>; 2];

impl Dns {
    /// Asks these, or the system's where there are none.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Self {
            servers: servers.to_vec(),
            resolver: Mutex::new(None),
        }
    }

    /// Whom it asks, where that is configured.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The addresses of a name.
    ///
    /// # Errors
    /// In words.
    pub async fn addresses(&self, name: &str, port: u16) -> Result<Found<Vec<SocketAddr>>, String> {
        let why = match self.ask_addresses(name, port).await {
            Ok(found) => return Ok(found),
            Err(why) => why,
        };
        if !self.servers.is_empty() {
            return Err(why);
        }
        // Off this thread.
        let found = tokio::net::lookup_host((name, port)).await;
        let found: Vec<_> = found.map_err(|error| error.to_string())?.collect();
        match found.is_empty() {
            true => Err(why),
            false => Ok(Found {
                what: found,
                holds: None,
            }),
        }
    }

    async fn ask_addresses(&self, name: &str, port: u16) -> Result<Found<Vec<SocketAddr>>, String> {
        let found = self.resolver()?.lookup_ip(name).await;
        let found = found.map_err(|error| error.to_string())?;
        let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        match addresses.is_empty() {
            true => Err("the name has no address".to_owned()),
            false => Ok(Found {
                what: addresses,
                holds: holds(found.valid_until()),
            }),
        }
    }

    /// The servers of a service, such as `_http._tcp.example.com`.
    ///
    /// # Errors
    /// In words; also where the service is said not to be there.
    pub async fn service(&self, name: &str) -> Result<Found<Vec<Target>>, String> {
        let found = self.resolver()?.srv_lookup(name).await;
        let found = found.map_err(|error| error.to_string())?;
        let targets = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) if !srv.target.is_root() => Some(Target {
                    priority: srv.priority,
                    name: srv
                        .target
                        .to_ascii()
                        .trim_end_matches('.')
                        .to_ascii_lowercase()
                        .into(),
                    port: srv.port,
                    weight: srv.weight,
                }),
                _ => None,
            });
        let mut targets: Vec<_> = targets.collect();
        targets.sort();
        targets.dedup();
        match targets.is_empty() {
            true => Err("the service has no server".to_owned()),
            false => Ok(Found {
                what: targets,
                holds: holds(found.valid_until()),
            }),
        }
    }

    fn resolver(&self) -> Result<TokioResolver, String> {
        let stamp = SYSTEM.map(|path| {
            let about = fs::metadata(path).ok()?;
            Some((about.ino(), about.mtime(), about.mtime_nsec(), about.len()))
        });
        let mut kept = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((of, resolver)) if *of == stamp => Ok(resolver.clone()),
            _ => {
                let resolver = build(&self.servers)?;
                *kept = Some((stamp, resolver.clone()));
                Ok(resolver)
            }
        }
    }
}

fn build(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = match servers {
        [] => Resolver::builder(provider).map_err(|error| format!("/etc/resolv.conf: {error}"))?,
        servers => {
            let servers = servers.iter().map(|server| {
                let mut one = NameServerConfig::udp_and_tcp(server.ip());
                let at = |connection: &mut ConnectionConfig| connection.port = server.port();
                one.connections.iter_mut().for_each(at);
                one
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            let mut builder = Resolver::builder_with_config(config, provider);
            *builder.options_mut() = ResolverOpts::default();
            builder
        }
    };
    let options = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Always;
    // Whoever asks knows how long it holds, and asks then.
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

fn holds(until: Instant) -> Option<Duration> {
    let holds = until.saturating_duration_since(Instant::now());
    (holds < FOR_EVER).then_some(holds)
}
