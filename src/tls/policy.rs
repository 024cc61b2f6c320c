//! One set of settings, and which of several a client gets.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use rustls::server::ProducesTickets;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use smallvec::SmallVec;

use super::identity::Identity;
use super::settings::{self, Common};
use super::tickets::Ring;
use super::trust::{self, Trust};
use crate::config::{ClientMode, SiteName, SiteTls, TlsPolicy};

/// What makes two policies the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Versions, suites and groups, all told.
    pub(super) policy: TlsPolicy,
    /// What the site said, by which a request knows whether it may come on this connection.
    pub(super) site: Arc<SiteTls>,
    /// Whether sessions are resumed.
    pub(super) tickets: bool,
    /// What is agreed on by ALPN; `None`: HTTP.
    pub(super) alpn: Option<Vec<Arc<str>>>,
}

/// One set of settings, built once.
#[derive(Debug)]
pub struct Policy {
    pub(super) key: Key,
    common: Common,
    current: ArcSwap<Current>,
}

/// Numbers what handshakes go by.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What a handshake goes by, and what its outcome is judged by.
#[derive(Debug)]
pub struct Current {
    /// For `rustls`.
    pub config: Arc<ServerConfig>,
    trust: Option<Arc<Trust>>,
    site: Arc<SiteTls>,
    common: Common,
    /// Tells it from what came before and after it.
    number: u64,
    home: Weak<Policy>,
}

impl Policy {
    /// Builds it. `trust` is there where client certificates are asked for.
    pub(super) fn build(
        key: Key,
        common: &Common,
        ring: &Ring,
        trust: Option<Arc<Trust>>,
    ) -> Result<Arc<Self>, rustls::Error> {
        let current = Self::make(&key, common, ring, trust)?;
        Ok(Arc::new_cyclic(|home| Self {
            key,
            common: common.clone(),
            current: ArcSwap::from_pointee(Current {
                home: Weak::clone(home),
                ..current
            }),
        }))
    }

    fn make(
        key: &Key,
        common: &Common,
        ring: &Ring,
        trust: Option<Arc<Trust>>,
    ) -> Result<Current, rustls::Error> {
        let scope = trust
            .as_ref()
            .map_or_else(trust::no_scope, |trust| trust.scope);
        let ticketer = (key.tickets).then(|| ring.ticketer(scope) as Arc<dyn ProducesTickets>);
        let verifier = trust.as_ref().map(|trust| trust.verifier());
        Ok(Current {
            config: settings::server(key, common, verifier, ticketer)?,
            trust,
            site: Arc::clone(&key.site),
            common: common.clone(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            home: Weak::new(),
        })
    }

    /// Believes others from now on. Sessions that were authenticated by other authorities are not
    /// resumed.
    pub(super) fn believe(
        self: &Arc<Self>,
        ring: &Ring,
        trust: Arc<Trust>,
    ) -> Result<(), rustls::Error> {
        let current = Self::make(&self.key, &self.common, ring, Some(trust))?;
        self.current.store(Arc::new(Current {
            home: Arc::downgrade(self),
            ..current
        }));
        Ok(())
    }

    /// Whom it believes now.
    pub(super) fn trust(&self) -> Option<Arc<Trust>> {
        self.current.load().trust.clone()
    }

    /// What a handshake that begins now goes by.
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }
}

impl Current {
    /// Whether a connection under this policy satisfies a site that says this of TLS.
    pub fn satisfies(&self, site: &Arc<SiteTls>) -> bool {
        Arc::ptr_eq(&self.site, site) || site.is_default() || self.site == *site
    }

    /// Whether who the client has shown to be is still believed, where authorities or revocation
    /// lists have changed since the handshake. Verifies once for each change.
    pub fn still_believes(&self, identity: Option<&Identity>) -> bool {
        let Some(identity) = identity else {
            return true;
        };
        let Some(home) = self.home.upgrade() else {
            return true;
        };
        let now = home.current.load();
        let Some(trust) = now.trust.as_ref().filter(|_| now.number != self.number) else {
            return true;
        };
        identity.confirm(now.number, |chain| {
            let time = settings::unix_time(&self.common.clock);
            trust.verify(chain, time).is_ok()
        })
    }

    /// Who the client has shown to be; `None` where nobody asks.
    ///
    /// # Errors
    /// When the certificate of a resumed session is no longer good.
    pub fn identify(&self, tls: &ServerConnection) -> Result<Option<Arc<Identity>>, rustls::Error> {
        let (Some(trust), Some(client)) = (&self.trust, &self.site.client) else {
            return Ok(None);
        };
        let Some(chain) = tls.peer_certificates() else {
            return Ok(Some(Arc::new(Identity::nobody())));
        };
        let request = client.mode == ClientMode::Request;
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        let verified = match resumed || request {
            true => trust.verify(chain, settings::unix_time(&self.common.clock)),
            // The handshake has done so.
            false => Ok(()),
        };
        if let (Err(error), false) = (&verified, request) {
            return Err(error.clone());
        }
        let identity = Identity::of(chain, verified.is_ok(), &client.headers);
        Ok(Some(Arc::new(identity)))
    }
}

/// Which policy a client of one listener gets.
#[derive(Debug)]
pub struct Policies {
    /// For names that no site answers to; for all, where there is no other.
    default: Arc<Policy>,
    /// Whether clients are told apart by their greetings.
    pub ja4: bool,
    several: bool,
    exact: HashMap<Arc<str>, Arc<Policy>>,
    wildcard: HashMap<Arc<str>, Arc<Policy>>,
    /// For clients that name nobody.
    nameless: Arc<Policy>,
}

impl Policies {
    /// Of sites, in the order of the configuration, each with its policy.
    pub(super) fn new<'a>(
        default: Arc<Policy>,
        ja4: bool,
        sites: impl Iterator<Item = (&'a [SiteName], bool, Arc<Policy>)>,
    ) -> Self {
        let mut all = Self {
            nameless: Arc::clone(&default),
            default,
            ja4,
            several: false,
            exact: HashMap::new(),
            wildcard: HashMap::new(),
        };
        let mut any = None;
        let mut first = true;
        for (names, is_default, policy) in sites {
            all.several |= !Arc::ptr_eq(&policy, &all.default);
            for name in names {
                match name {
                    SiteName::Exact(name) => {
                        all.exact.insert(Arc::clone(name), Arc::clone(&policy));
                    }
                    SiteName::Wildcard(parent) => {
                        all.wildcard.insert(Arc::clone(parent), Arc::clone(&policy));
                    }
                    SiteName::Any => any = Some(Arc::clone(&policy)),
                }
            }
            if is_default || first {
                first = false;
                all.nameless = policy;
            }
        }
        if let Some(any) = any {
            all.default = any;
        }
        if !all.several {
            all.exact = HashMap::new();
            all.wildcard = HashMap::new();
        }
        all
    }

    /// The policy for a client that asks for this name.
    pub fn choose(&self, name: Option<&str>) -> &Arc<Policy> {
        if !self.several {
            return &self.default;
        }
        let Some(name) = name else {
            return &self.nameless;
        };
        // As the sites' names are written.
        let mut lower: SmallVec<[u8; 256]> = SmallVec::from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        let name = std::str::from_utf8(&lower).unwrap_or(name);
        let name = name.strip_suffix('.').unwrap_or(name);
        self.exact
            .get(name)
            .or_else(|| {
                let (label, parent) = name.split_once('.')?;
                self.wildcard.get(parent).filter(|_| !label.is_empty())
            })
            .unwrap_or(&self.default)
    }
}
