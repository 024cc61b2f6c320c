//! Everything of TLS that outlives a reload: policies, ticket keys, and the watch over their files.
//!
//! [`Keep::prepare`] makes what a configuration wants beside what is in use, and
//! [`Keep::commit`] takes it into use. A thread of its own looks after the files: what is new and
//! whole takes effect at once, what cannot be used changes nothing but the log and the metrics,
//! until it is mended.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustls::KeyLog;
use rustls::server::ResolvesServerCert;
use tracing::{error, info, warn};

use super::digest::Digest;
use super::file::{self, Content, Fault, Read};
use super::policy::{Key, Policies, Policy};
use super::settings::Common;
use super::tickets::{self, Ring};
use super::trust::Trust;
use crate::clock::{Clock, Timestamp};
use crate::config::{ClientCertificates, Config, SiteTls};
use crate::metrics::{Registry, TlsFiles, describe_tls_files};
use crate::priority;
use crate::watch::{Reach, Watch};

/// How often files are looked at although nothing was heard of them; and those of which nothing
/// can be heard, or that are broken.
const ROUND: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(5);

/// What it is made of.
#[derive(Debug)]
pub struct Options {
    /// Chooses the certificate of a handshake.
    pub resolver: Arc<dyn ResolvesServerCert>,
    /// What time it is.
    pub clock: Clock,
    /// Where the state of files is told.
    pub registry: Registry,
    /// Where the secrets of sessions are written, for debugging.
    pub key_log: Option<Arc<dyn KeyLog>>,
}

/// All policies in use.
#[derive(Debug)]
pub struct Keep {
    common: Common,
    shared: Arc<Shared>,
    wake: SyncSender<()>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    ring: Ring,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    policies: HashMap<Key, Arc<Policy>>,
    /// By what it is for; the watch goes by its number.
    units: Vec<Unit>,
    next: u32,
    /// The units have changed: watch anew.
    fresh: bool,
}

/// Files that belong together.
#[derive(Debug)]
struct Unit {
    number: u32,
    purpose: Purpose,
    /// Of the content in use.
    digest: Option<[u8; 32]>,
    /// Whom it says to believe, where that is what it is for.
    trust: Option<Arc<Trust>>,
    fault: Option<Fault>,
    /// Since when the first of its revocation lists is past its time; it was said.
    expired: Option<Timestamp>,
    reach: Reach,
    looked: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    Tickets(Vec<PathBuf>),
    Trust(ClientCertificates),
}

impl Purpose {
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let (one, other) = match self {
            Self::Tickets(files) => (files, None),
            Self::Trust(client) => (&client.ca, Some(&client.crl)),
        };
        one.iter().chain(other.into_iter().flatten())
    }

    fn label(&self) -> String {
        (self.files().next()).map_or_else(String::new, |first| first.display().to_string())
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Tickets(_) => "ticket_keys",
            Self::Trust(_) => "client_certificates",
        }
    }
}

/// What a configuration wants, ready to be taken into use.
#[derive(Debug)]
pub struct Prepared {
    listeners: BTreeMap<SocketAddr, Arc<Policies>>,
    policies: HashMap<Key, Arc<Policy>>,
    units: Vec<(Purpose, Loaded)>,
}

impl Prepared {
    /// What a listener goes by.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<Policies>> {
        self.listeners.get(&address)
    }
}

/// What is wrong with files now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What is on disk cannot be used.
    Unusable {
        /// What is wrong with which file.
        fault: Fault,
        /// What is done instead.
        instead: &'static str,
        /// Nothing was read before, and a site lets nobody in who needs a certificate.
        shut: bool,
    },
    /// A revocation list is past its time.
    Expired {
        /// The first of the files with revocation lists.
        file: PathBuf,
        /// Since when.
        at: Timestamp,
        /// Clients get in all the same.
        accepted: bool,
    },
}

/// What files came to.
#[derive(Debug)]
enum Loaded {
    /// In use already.
    Kept,
    Keys(Result<([u8; 32], Vec<tickets::Secret>), Fault>),
    Trust(Result<([u8; 32], Arc<Trust>), Fault>),
}

/// What is wrong on disk with the files that a configuration names, and what each is for. Nothing
/// is taken into use.
pub fn faults(config: &Config, now: Timestamp) -> Vec<(&'static str, Fault)> {
    let keys = &config.tls.ticket_keys;
    let tickets = config.tls.tickets && !keys.is_empty();
    let sites = config.sites.iter().map(|site| &site.tls.client);
    let streams = config.listen.streams.iter();
    let streams = streams.filter_map(|stream| stream.tls.as_ref().map(|tls| &tls.client));
    let clients = sites.chain(streams).flatten().cloned().map(Purpose::Trust);
    let purposes = tickets.then(|| Purpose::Tickets(keys.clone())).into_iter();
    purposes
        .chain(clients)
        .filter_map(|purpose| match load(&purpose, file::read) {
            Loaded::Keys(Err(fault)) => Some(("ticket keys", fault)),
            Loaded::Trust(Err(fault)) => Some(("client certificates", fault)),
            Loaded::Trust(Ok((_, trust))) => {
                let at = trust.expires.filter(|at| *at <= now)?;
                let Purpose::Trust(client) = &purpose else {
                    return None;
                };
                let file = client.crl.first()?;
                let what = format!("a revocation list is past its time since {at}");
                let help = "fetch a new one from the authority";
                Some(("client certificates", Fault::new(file, what, help)))
            }
            Loaded::Kept | Loaded::Keys(Ok(_)) => None,
        })
        .collect()
}

impl Keep {
    /// Begins with nothing; a thread looks after files until this is dropped.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            ring: Ring::new(options.clock.now().unix()),
            clock: options.clock.clone(),
            state: Mutex::default(),
        });
        let told = Arc::downgrade(&shared);
        describe_tls_files(&options.registry, move || {
            let shared = told.upgrade();
            shared.map_or_else(Vec::new, |shared| shared.state().tell())
        });
        let (wake, woken) = sync_channel(1);
        let (notify, minded) = (wake.clone(), Arc::downgrade(&shared));
        thread::Builder::new()
            .name("tls-files".to_owned())
            .spawn(move || {
                priority::make_way();
                mind(&minded, &notify, &woken);
            })?;
        Ok(Self {
            common: Common {
                resolver: options.resolver,
                clock: options.clock,
                key_log: options.key_log,
            },
            shared,
            wake,
        })
    }

    /// Makes what a configuration wants. Nothing in use changes. Files that cannot be used are no
    /// reason to refuse: what was made of them before goes on, or else their site's door stays shut.
    ///
    /// # Errors
    /// When the library does not take the settings.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, rustls::Error> {
        let mut units = Vec::new();
        let keys = &config.tls.ticket_keys;
        if config.tls.tickets && !keys.is_empty() {
            self.unit(&mut units, Purpose::Tickets(keys.clone()));
        }
        let mut policies: HashMap<Key, Arc<Policy>> = HashMap::new();
        let mut listeners = BTreeMap::new();
        let plain: Arc<SiteTls> = Arc::default();
        for &address in &config.listen.https {
            let wide = config.tls.at(address);
            let mut policy = |site: &Arc<SiteTls>| {
                let key = Key {
                    policy: site.choice.over(&wide).settle(),
                    site: match site.is_default() {
                        true => Arc::clone(&plain),
                        false => Arc::clone(site),
                    },
                    tickets: config.tls.tickets,
                    alpn: None,
                };
                self.policy(key, &mut policies, &mut units)
            };
            let default = policy(&plain)?;
            let sites = (config.sites.iter())
                .map(|site| Ok((&site.names[..], site.default, policy(&site.tls)?)))
                .collect::<Result<Vec<_>, rustls::Error>>()?;
            let all = Policies::new(default, config.tls.ja4, sites.into_iter());
            listeners.insert(address, Arc::new(all));
        }
        for stream in &config.listen.streams {
            let Some(tls) = &stream.tls else { continue };
            for &address in &stream.listen {
                let key = Key {
                    policy: config.tls.at(address).settle(),
                    site: Arc::new(SiteTls {
                        client: tls.client.clone(),
                        ..SiteTls::default()
                    }),
                    tickets: config.tls.tickets,
                    alpn: Some(tls.alpn.clone()),
                };
                let policy = self.policy(key, &mut policies, &mut units)?;
                let all = Policies::new(policy, config.tls.ja4, std::iter::empty());
                listeners.insert(address, Arc::new(all));
            }
        }
        Ok(Prepared {
            listeners,
            policies,
            units,
        })
    }

    fn policy(
        &self,
        key: Key,
        policies: &mut HashMap<Key, Arc<Policy>>,
        units: &mut Vec<(Purpose, Loaded)>,
    ) -> Result<Arc<Policy>, rustls::Error> {
        if let Some(known) = policies.get(&key) {
            return Ok(Arc::clone(known));
        }
        let trust = key.site.client.as_ref().map(|client| {
            let purpose = Purpose::Trust(client.clone());
            self.unit(units, purpose.clone());
            let of_unit = (units.iter()).find_map(|(known, loaded)| match loaded {
                Loaded::Trust(Ok((_, trust))) if *known == purpose => Some(Arc::clone(trust)),
                _ => None,
            });
            of_unit
                .or_else(|| self.shared.state().trust(client))
                .unwrap_or_else(|| Arc::new(Trust::none(client.mode)))
        });
        let in_use = self.shared.state().policies.get(&key).cloned();
        let policy = match in_use {
            Some(policy) => policy,
            None => Policy::build(key.clone(), &self.common, &self.shared.ring, trust)?,
        };
        policies.insert(key, Arc::clone(&policy));
        Ok(policy)
    }

    /// Reads files that are not in use yet.
    fn unit(&self, units: &mut Vec<(Purpose, Loaded)>, purpose: Purpose) {
        if units.iter().any(|(known, _)| *known == purpose) {
            return;
        }
        let kept = (self.shared.state().units.iter()).any(|unit| unit.purpose == purpose);
        let loaded = match kept {
            true => Loaded::Kept,
            // Caught in the middle of being written, it is looked at again in a moment.
            false => load(&purpose, file::read),
        };
        units.push((purpose, loaded));
    }

    /// What a successor needs to open the tickets that were given out.
    pub fn bequeath(&self) -> tickets::Legacy {
        self.shared.ring.bequeath()
    }

    /// Opens the tickets that a predecessor gave out.
    pub fn inherit(&self, legacy: &tickets::Legacy) {
        self.shared.ring.inherit(legacy);
    }

    /// What is wrong with files now.
    pub fn troubles(&self) -> Vec<Trouble> {
        let state = self.shared.state();
        let mut troubles = Vec::new();
        for unit in &state.units {
            if let Some(fault) = &unit.fault {
                troubles.push(Trouble::Unusable {
                    fault: fault.clone(),
                    instead: unit.instead(),
                    shut: unit.digest.is_none() && matches!(unit.purpose, Purpose::Trust(_)),
                });
            }
            if let (Purpose::Trust(client), Some(at)) = (&unit.purpose, unit.expired) {
                troubles.push(Trouble::Expired {
                    file: client.crl.first().cloned().unwrap_or_default(),
                    at,
                    accepted: client.accept_expired_crl,
                });
            }
        }
        troubles
    }

    /// Takes it into use. Files that were in use already are looked at again.
    pub fn commit(&self, prepared: Prepared) {
        let mut state = self.shared.state();
        let known = std::mem::take(&mut state.units);
        let mut known: Vec<_> = known.into_iter().map(Some).collect();
        let shares = (prepared.units.iter()).any(|(p, _)| matches!(p, Purpose::Tickets(_)));
        if !shares {
            self.shared.ring.own(self.shared.clock.now().unix());
        }
        for (purpose, loaded) in prepared.units {
            let old = known
                .iter_mut()
                .find(|unit| unit.as_ref().is_some_and(|unit| unit.purpose == purpose))
                .and_then(Option::take);
            let mut unit = match old {
                Some(unit) => unit,
                None => {
                    state.next += 1;
                    Unit::new(state.next, purpose)
                }
            };
            let policies = prepared.policies.values().cloned().collect();
            unit.settle(&self.shared, loaded, policies);
            state.units.push(unit);
        }
        state.policies = prepared.policies;
        state.fresh = true;
        drop(state);
        let _ = self.wake.try_send(());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whom policies that ask for these certificates believe now.
    fn trust(&self, client: &ClientCertificates) -> Option<Arc<Trust>> {
        let unit = self.units.iter().find(|unit| match &unit.purpose {
            Purpose::Trust(its) => its == client,
            Purpose::Tickets(_) => false,
        });
        unit?.trust.clone()
    }

    /// For the metrics.
    fn tell(&self) -> Vec<TlsFiles> {
        let of = |unit: &Unit| TlsFiles {
            kind: unit.purpose.kind(),
            file: unit.purpose.label(),
            stale: unit.fault.is_some(),
            expires: (unit.trust.as_ref())
                .and_then(|trust| trust.expires)
                .map(Timestamp::unix),
        };
        self.units.iter().map(of).collect()
    }

    fn asking(&self, client: &ClientCertificates) -> Vec<Arc<Policy>> {
        (self.policies.values())
            .filter(|policy| policy.key.site.client.as_ref() == Some(client))
            .cloned()
            .collect()
    }
}

impl Loaded {
    /// Of the content, where it can be used.
    const fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Keys(Ok((digest, _))) => Some(*digest),
            Self::Trust(Ok((digest, _))) => Some(*digest),
            _ => None,
        }
    }
}

/// Reads what these files hold.
fn load(purpose: &Purpose, read: Read) -> Loaded {
    let digest = |contents: &[&[Content]]| {
        let digest = Digest::new("staunch files");
        let digest = (contents.iter().flat_map(|some| some.iter()))
            .fold(digest, |digest, (_, content)| digest.with(content));
        digest.finish()
    };
    match purpose {
        Purpose::Tickets(files) => Loaded::Keys(
            read(files).and_then(|contents| Ok((digest(&[&contents]), tickets::parse(&contents)?))),
        ),
        Purpose::Trust(client) => Loaded::Trust((|| {
            let ca = read(&client.ca)?;
            let crl = match client.crl.is_empty() {
                true => Vec::new(),
                false => read(&client.crl)?,
            };
            let trust = Trust::read(client, &ca, &crl)?;
            Ok((digest(&[&ca, &crl]), Arc::new(trust)))
        })()),
    }
}

impl Unit {
    fn new(number: u32, purpose: Purpose) -> Self {
        Self {
            number,
            purpose,
            digest: None,
            trust: None,
            fault: None,
            expired: None,
            reach: Reach::Polled,
            looked: Instant::now(),
        }
    }

    /// Takes what was read into use, or says why it cannot be.
    fn settle(&mut self, shared: &Shared, loaded: Loaded, policies: Vec<Arc<Policy>>) {
        let what = self.purpose.label();
        let fault = match loaded {
            // A policy that was prepared before the files were last read has what they were then.
            Loaded::Kept => return self.believed_by(policies, shared),
            Loaded::Keys(Ok((digest, secrets))) => {
                let first = self.digest.replace(digest).is_none();
                let keys = secrets.len();
                if shared.ring.share(secrets) {
                    let said = if first {
                        "ticket keys are shared"
                    } else {
                        "ticket keys changed"
                    };
                    info!(file = %what, keys, "{said}");
                }
                None
            }
            Loaded::Trust(Ok((digest, trust))) => {
                let changed = self.digest.replace(digest).is_some_and(|old| old != digest);
                if changed {
                    info!(file = %what, "client certificates are judged by what is on disk now");
                }
                self.expired = None;
                self.trust = Some(trust);
                self.believed_by(policies, shared);
                None
            }
            Loaded::Keys(Err(fault)) | Loaded::Trust(Err(fault)) => Some(fault),
        };
        self.tell(fault);
    }

    /// Has those of these policies that ask for it believe what was read last.
    fn believed_by(&self, policies: Vec<Arc<Policy>>, shared: &Shared) {
        let (Purpose::Trust(mine), Some(trust)) = (&self.purpose, &self.trust) else {
            return;
        };
        for policy in policies {
            let asks = policy.key.site.client.as_ref() == Some(mine);
            let same = policy.trust().is_some_and(|old| Arc::ptr_eq(&old, trust));
            if asks && !same {
                let believed = policy.believe(&shared.ring, Arc::clone(trust));
                if let Err(error) = believed {
                    let file = self.purpose.label();
                    error!(%error, %file, "client certificates cannot be set up");
                }
            }
        }
    }

    /// What is done where the files cannot be used.
    const fn instead(&self) -> &'static str {
        match (&self.digest, &self.purpose) {
            (Some(_), _) => "what was read before goes on",
            (None, Purpose::Tickets(_)) => "keys of this process alone are used",
            (None, Purpose::Trust(_)) => {
                "no client certificate is believed, and its sites let nobody in who needs one"
            }
        }
    }

    /// Says once what is wrong, and when it is right again.
    fn tell(&mut self, fault: Option<Fault>) {
        match (&fault, &self.fault) {
            (Some(new), old) if old.as_ref() != Some(new) => {
                let goes_on = self.instead();
                match self.purpose {
                    Purpose::Tickets(_) => warn!(fault = %new, "ticket keys: {goes_on}"),
                    Purpose::Trust(_) => error!(fault = %new, "client certificates: {goes_on}"),
                }
            }
            (None, Some(_)) => info!(file = %self.purpose.label(), "the files can be used again"),
            _ => {}
        }
        self.fault = fault;
    }

    /// Says once that a revocation list is past its time.
    fn watch_time(&mut self, shared: &Shared) {
        let Purpose::Trust(client) = &self.purpose else {
            return;
        };
        let Some(at) = self.trust.as_ref().and_then(|trust| trust.expires) else {
            return;
        };
        let expired = (at < shared.clock.now()).then_some(at);
        if expired.is_some() && self.expired.is_none() {
            let then = match client.accept_expired_crl {
                true => "it is gone by all the same (on_expired_crl = \"accept\")",
                false => "clients of its authority are refused (on_expired_crl = \"refuse\")",
            };
            let file = client.crl.first().map(|file| file.display().to_string());
            error!(file = file.unwrap_or_default(), next_update = %at,
                "a revocation list is past its time: {then}; fetch a new one from the authority");
        }
        self.expired = expired;
    }
}

/// Looks after files for as long as somebody needs them.
fn mind(shared: &Weak<Shared>, wake: &SyncSender<()>, woken: &Receiver<()>) {
    let wake = wake.clone();
    let mut watch: Watch<u32> = Watch::start(move || {
        let _ = wake.try_send(());
    });
    let mut watched: Vec<u32> = Vec::new();
    loop {
        let pause = watch.due().unwrap_or(POLL);
        match woken.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.ring.rotate(shared.clock.now().unix());
        // Collected until it is quiet.
        let touched = match watch.due() {
            Some(due) if due.is_zero() => Some(watch.take()),
            _ => None,
        };
        let mut look = Vec::new();
        {
            let mut state = shared.state();
            let fresh = std::mem::take(&mut state.fresh);
            if fresh {
                let numbers: Vec<_> = state.units.iter().map(|unit| unit.number).collect();
                for gone in watched.iter().filter(|number| !numbers.contains(number)) {
                    watch.uncover(*gone);
                }
                watched = numbers;
            }
            for unit in &state.units {
                let age = unit.looked.elapsed();
                let is_touched = (touched.as_ref())
                    .is_some_and(|changes| changes.all || changes.keys.contains(&unit.number));
                let slow = unit.reach != Reach::Events || unit.fault.is_some();
                if fresh || is_touched || age >= ROUND || (slow && age >= POLL) {
                    look.push((unit.number, unit.purpose.clone()));
                }
            }
        }
        for (number, purpose) in look {
            look_at(&shared, &mut watch, number, &purpose);
        }
        for unit in &mut shared.state().units {
            unit.watch_time(&shared);
        }
    }
}

/// Reads the files of one unit, without holding anything up meanwhile.
fn look_at(shared: &Shared, watch: &mut Watch<u32>, number: u32, purpose: &Purpose) {
    // Watched before they are read: what changes later is heard of.
    let cover = watch.cover(number, purpose.files().map(PathBuf::as_path));
    let mut loaded = load(purpose, file::read);
    let known = (shared.state().units.iter())
        .find(|unit| unit.number == number)
        .and_then(|unit| unit.digest);
    if known.is_none() || loaded.digest() != known {
        loaded = load(purpose, file::read_still);
    }
    let mut state = shared.state();
    let policies = match purpose {
        Purpose::Trust(client) => state.asking(client),
        Purpose::Tickets(_) => Vec::new(),
    };
    let Some(unit) = state.units.iter_mut().find(|unit| unit.number == number) else {
        return;
    };
    unit.reach = cover.reach;
    unit.looked = Instant::now();
    // Nothing new is no reason to build anything anew.
    let digest = loaded.digest();
    let same = digest.is_some() && digest == unit.digest;
    match same {
        true => unit.tell(None),
        false => unit.settle(shared, loaded, policies),
    }
}

#[cfg(test)]
mod tests;
