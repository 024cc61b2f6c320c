//! How the inventory looks from here: what the alert loop, the probe and the canary ask of it.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::canary::Held;
use super::condition::{Code, Condition};
use super::evaluate::Coverage;
use super::judge::Observed;
use super::probe::{Protocol, Target};
use super::words;
use crate::cert::Fingerprint;
use crate::cert::inventory::Inventory;
use crate::cert::keeper::Degraded;
use crate::cert::rank::Client;
use crate::clock::{Clock, Timestamp};
use crate::config::{Severity, SiteName};

/// The inventory, as it is swapped.
pub type Shared = Arc<ArcSwap<Inventory>>;

/// A listener that terminates TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Whether it wants a PROXY header from this machine.
    pub proxy_header: bool,
}

/// What the alert loop looks at: every report, what answers for each name of a site, and what the
/// keeper says of its own work.
pub fn observe(
    inventory: &Inventory,
    sites: &[SiteName],
    degraded: &[Degraded],
    now: Timestamp,
) -> Observed {
    let coverage = sites.iter().filter_map(|site| {
        let (name, host) = asked_for(site)?;
        let certificate = held(inventory, &host, now);
        Some(Coverage { name, certificate })
    });
    Observed {
        coverage: coverage.collect(),
        reports: inventory.unordered_report(now),
        degraded: degraded.iter().map(degradation).collect(),
    }
}

/// The condition behind the keeper's words.
fn degradation(degraded: &Degraded) -> Condition {
    let warning = |code, subject: &str, summary: String, step: &str| {
        Condition::new(code, subject, Severity::Warning, summary, step)
    };
    match degraded {
        Degraded::Watch(why) => warning(
            Code::WatchDegraded,
            "watch",
            format!(
                "Changes of certificates on disk are noticed late: {}.",
                words::clean(why)
            ),
            "See `sysctl fs.inotify`; raise the limit with \
             `sysctl -w fs.inotify.max_user_watches=524288`, and in /etc/sysctl.d.",
        ),
        Degraded::State(why) => warning(
            Code::StateUnwritable,
            "last-good certificates",
            format!(
                "Last-good certificates and the ledger are not kept: {}.",
                words::clean(why)
            ),
            "See `df -h` and `ls -ld` of it. Until it is mended, a restart with broken files has \
             nothing new to fall back on. It is tried again by itself.",
        ),
        Degraded::Failed => warning(
            Code::WatchDegraded,
            "keeper",
            "The keeper of certificates failed once in a way that was not foreseen, and goes on: a \
             renewal may have been missed."
                .to_owned(),
            "See the log for what it says before `the keeper of certificates failed`, restart \
             staunch at a quiet time, and report it.",
        ),
    }
}

/// What the canary asks.
pub fn held_by(inventory: Shared, clock: Clock) -> Held {
    Arc::new(move |host| held(&inventory.load(), host, clock.now()))
}

/// What is to be probed: each listener, name and protocol. Sites for any name have nothing of their
/// own to compare.
pub fn targets(
    listeners: &[Listener],
    sites: &[SiteName],
    inventory: &Shared,
    clock: &Clock,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for (_, host) in sites.iter().filter_map(asked_for) {
        // A client asks for a name, not for a pattern; and rustls for no name with an asterisk.
        let name: Arc<str> = host.replacen('*', "probe", 1).into();
        for listener in listeners {
            for protocol in Protocol::ALL {
                let (inventory, clock) = (Arc::clone(inventory), clock.clone());
                let host = Arc::clone(&name);
                targets.push(Target {
                    address: listener.address,
                    name: Arc::clone(&name),
                    protocol,
                    proxy_header: listener.proxy_header,
                    expected: Arc::new(move || {
                        held(&inventory.load(), &host, clock.now())
                            .into_iter()
                            .collect()
                    }),
                });
            }
        }
    }
    targets
}

/// What a client that can use everything would get.
fn held(inventory: &Inventory, host: &str, now: Timestamp) -> Option<Fingerprint> {
    let best = inventory.best(host, Client::Any, now)?;
    Some(best.certificate.facts().fingerprint)
}

/// A site's name as configured, and a host that it stands for.
fn asked_for(site: &SiteName) -> Option<(Arc<str>, Arc<str>)> {
    match site {
        SiteName::Exact(host) => Some((Arc::clone(host), Arc::clone(host))),
        SiteName::Wildcard(parent) => {
            let name: Arc<str> = format!("*.{parent}").into();
            Some((Arc::clone(&name), name))
        }
        SiteName::Any => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::alert::board::Board;
    use crate::alert::canary::{self, Canary, NAME};
    use crate::alert::probe::probe;
    use crate::alert::testing::until;
    use crate::cert::keeper::{Keeper, Options, Timing, Wanted};
    use crate::cert::load::Roots;

    /// A listener that serves what the keeper holds.
    async fn listen(keeper: &Keeper) -> Listener {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(keeper.resolver()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    let _ = tls.read(&mut [0]).await;
                }
            }
        });
        Listener {
            address,
            proxy_header: false,
        }
    }

    #[tokio::test]
    async fn the_canary_goes_the_way_of_every_certificate_from_the_file_to_the_wire() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("canary")).unwrap();
        let clock = Clock::system();
        let wanted = Wanted {
            sources: vec![canary::source(folder.path())],
            ..Wanted::default()
        };
        let keeper = Keeper::start(Options {
            wanted,
            state: None,
            clock: clock.clone(),
            roots: Arc::new(Roots::empty()),
            timing: Timing::default(),
        });
        let listener = listen(&keeper).await;
        let inventory = keeper.inventory();
        let sites = [SiteName::Exact(NAME.into())];
        let listeners = targets(&[listener], &sites, &inventory, &clock);
        assert_eq!(listeners.len(), 2);
        let asked = listeners.clone();
        let board = Board::new();
        let canary = Canary {
            path: canary::file(folder.path()),
            clock: clock.clone(),
            board: board.clone(),
            held: held_by(Arc::clone(&inventory), clock.clone()),
            listeners: Arc::new(move || asked.clone()),
            every: Duration::from_millis(100),
            patience: Duration::from_secs(20),
        };
        let singing = tokio::spawn(canary.run());
        let now = || held(&inventory.load(), NAME, clock.now());
        let mut seen = std::collections::BTreeSet::new();
        let seen_more = |seen: &mut std::collections::BTreeSet<_>| {
            seen.extend(now());
            seen.len() >= 4
        };
        let cell = std::sync::Mutex::new(&mut seen);
        until(|| seen_more(&mut cell.lock().unwrap())).await;
        assert!(
            !board.holds(Code::CanaryFailed, NAME),
            "{:?}",
            board.conditions()
        );
        singing.abort();
        for target in &listeners {
            probe(target).await.unwrap();
        }
        let why = "max_user_watches is 8; 2 folders are polled".to_owned();
        let degraded = [Degraded::Watch(why), Degraded::State("full".to_owned())];
        let observed = observe(&inventory.load(), &sites, &degraded, clock.now());
        assert_eq!(observed.degraded[0].code, Code::WatchDegraded);
        assert_eq!(observed.degraded[1].code, Code::StateUnwritable);
        assert_eq!(observed.coverage[0].certificate, now());
        assert!(canary::is_canary(&observed.reports[0]));
    }
}
