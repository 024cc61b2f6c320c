//! Services whose servers the DNS names (`+srv://`): what each is made of now. When that changes, the
//! world is made anew with it; servers that stay keep their health, counters and connections.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::upstreams::{RETRY, pause};
use super::{Server, world};
use crate::config::{self, ServerAddress};
use crate::upstream::dns::Target;

type Upstreams = BTreeMap<Arc<str>, config::Upstream>;

/// See the module.
#[derive(Debug, Default)]
pub struct Services(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    found: HashMap<Arc<str>, Vec<Target>>,
    wanted: HashMap<Arc<str>, Option<Duration>>,
}

impl Services {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upstreams of a configuration, with the servers of services in the places of these. One of
    /// which nothing is known yet stays as it is.
    pub fn expand<'a>(&self, configured: &'a Upstreams) -> Cow<'a, Upstreams> {
        let mut state = self.state();
        state.wanted.clear();
        for upstream in configured.values() {
            for server in &upstream.servers {
                if let ServerAddress::Service(name) = &server.address {
                    state.wanted.insert(Arc::clone(name), upstream.refresh);
                }
            }
        }
        if state.wanted.is_empty() {
            return Cow::Borrowed(configured);
        }
        let mut expanded = configured.clone();
        for upstream in expanded.values_mut() {
            let servers = std::mem::take(&mut upstream.servers);
            upstream.servers = (servers.into_iter())
                .flat_map(|server| match &server.address {
                    ServerAddress::Service(name) => match state.found.get(name) {
                        Some(targets) => made_of(&server, targets),
                        None => vec![server],
                    },
                    _ => vec![server],
                })
                .collect();
        }
        Cow::Owned(expanded)
    }

    /// Services that are to be followed, and how often they are asked for.
    pub fn wanted(&self) -> HashMap<Arc<str>, Option<Duration>> {
        self.state().wanted.clone()
    }

    /// Takes what was found. Whether it is different.
    fn set(&self, name: &Arc<str>, targets: Vec<Target>) -> bool {
        let before = self.state().found.insert(Arc::clone(name), targets.clone());
        before.is_none_or(|before| before != targets)
    }
}

/// The servers of a service. Those of the lowest priority are used; the others are their backups
/// (RFC 2782).
fn made_of(service: &config::Server, targets: &[Target]) -> Vec<config::Server> {
    let first = targets.iter().map(|target| target.priority).min();
    let scheme = service.url.split('+').next().unwrap_or("http");
    (targets.iter())
        .map(|target| {
            let Target { name, port, .. } = target;
            config::Server {
                url: format!("{scheme}://{name}:{port}").into(),
                address: match name.parse() {
                    Ok(ip) => ServerAddress::Ip(SocketAddr::new(ip, *port)),
                    Err(_) => ServerAddress::Name(Arc::clone(name), *port),
                },
                weight: u32::from(target.weight).max(1),
                backup: service.backup || Some(target.priority) != first,
                ..service.clone()
            }
        })
        .collect()
}

/// Asks for a service again and again.
pub async fn follow(server: Arc<Server>, name: Arc<str>, every: Option<Duration>) {
    let mut failing = false;
    loop {
        let dns = server.dns.load_full();
        let wait = match dns.service(&name).await {
            Ok(found) => {
                failing = false;
                if server.services.set(&name, found.what.clone()) {
                    let servers: Vec<_> = (found.what.iter())
                        .map(|target| format!("{}:{}", target.name, target.port))
                        .collect();
                    info!(service = %name, ?servers, "the service was found");
                    begin(&server, &name, &found.what).await;
                    let server = Arc::clone(&server);
                    // It waits for a reload that is under way.
                    let _ = tokio::task::spawn_blocking(move || server.rebuild()).await;
                }
                pause(found.holds, every)
            }
            Err(error) => {
                for waiting in waiting(&server, &name) {
                    waiting.addresses.failed(error.clone());
                }
                if !std::mem::replace(&mut failing, true) {
                    warn!(service = %name, %error,
                        "the service cannot be found; what it was is used on");
                }
                RETRY
            }
        };
        sleep(wait).await;
    }
}

/// Those that stand for the service until it is known.
fn waiting(server: &Server, name: &Arc<str>) -> Vec<Arc<crate::upstream::Server>> {
    let world = server.shared.world.load();
    let servers = world
        .upstreams
        .iter()
        .flat_map(|upstream| upstream.servers());
    servers
        .filter(|it| matches!(&it.address, ServerAddress::Service(it) if it == name))
        .cloned()
        .collect()
}

/// Gives requests that wait for the service somewhere to go.
async fn begin(server: &Server, name: &Arc<str>, targets: &[Target]) {
    let waiting = waiting(server, name);
    if waiting.is_empty() {
        return;
    }
    let dns = server.dns.load_full();
    let mut addresses = Vec::new();
    for target in targets {
        if let Ok(found) = dns.addresses(&target.name, target.port).await {
            addresses.extend(found.what);
        }
    }
    for it in waiting {
        it.addresses.set(addresses.clone());
    }
}

impl Server {
    /// Makes the world anew, of the same configuration.
    fn rebuild(&self) {
        let _turn = self.turn();
        let config = self.config();
        let previous = self.shared.world.load();
        let world = world(
            &config,
            &self.roots.load(),
            &self.shared.clock,
            &self.services,
            &previous.upstreams,
            previous.material.clone(),
            &self.spans,
        );
        self.shared.world.store(Arc::new(world));
        self.reloaded.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_kept_until_it_is_known_and_then_made_of_its_servers() {
        let text = "[[site]]\nnames = [\"a.test\"]\nupstream = \"u\"\n[upstream.u]\n\
                    servers = [\"https+srv://_Web._tcp.shop.test\", \"https://other.test\"]\n";
        let config = config::parse(text, std::path::Path::new("f.toml")).unwrap();
        let services = Services::default();
        let name: Arc<str> = "_web._tcp.shop.test".into();
        assert_eq!(
            services.expand(&config.upstreams)["u"],
            config.upstreams["u"]
        );
        assert!(services.wanted().contains_key(&name));
        let target = |priority, name: &str, weight| Target {
            priority,
            name: name.into(),
            port: 8443,
            weight,
        };
        let found = vec![
            target(5, "a.test", 0),
            target(5, "b.test", 70),
            target(9, "c.test", 1),
        ];
        assert!(services.set(&name, found.clone()));
        assert!(!services.set(&name, found));
        let expanded = services.expand(&config.upstreams);
        let servers: Vec<_> = (expanded["u"].servers.iter())
            .map(|it| (&*it.url, it.weight, it.backup, it.tls, it.domain.as_deref()))
            .collect();
        let domain = Some("shop.test");
        assert_eq!(
            servers,
            [
                ("https://a.test:8443", 1, false, true, domain),
                ("https://b.test:8443", 70, false, true, domain),
                ("https://c.test:8443", 1, true, true, domain),
                ("https://other.test", 1, false, true, None),
            ]
        );
    }
}
