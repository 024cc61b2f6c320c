//! How TLS is spoken to the servers of an upstream: whom to believe, and what to show.
//!
//! Its files are read when a configuration is taken, and whenever they change
//! ([`files`](super::files)); the system's roots, when a configuration is taken. One that cannot be used harms its own upstream only: what was in use
//! before stays in use, and where there was nothing before, connections fail with the reason.
//! Connections that are open go on as they were made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::ClientConfig;
use rustls_pki_types::TrustAnchor;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tracing::{info, warn};

use super::balance::fnv;
use crate::cert::load::Roots;
use crate::cert::presented::{PresentedCertificate, describe};
use crate::clock::{Clock, Timestamp};
use crate::config::{Protocol, UpstreamTls};
use crate::tls;
use crate::tls::file::{self, Content, Fault, Read};

/// See the module.
#[derive(Debug)]
pub struct Trust {
    upstream: Arc<str>,
    settings: UpstreamTls,
    protocol: Protocol,
    /// For servers that no other authorities are named for.
    system: ArcSwap<Roots>,
    current: ArcSwapOption<Current>,
    fault: ArcSwapOption<Fault>,
}

/// What is in use.
#[derive(Debug)]
pub struct Current {
    /// Of the content of all files.
    digest: u64,
    /// The system's roots at that time.
    system: Arc<Roots>,
    /// As the upstream's protocol asks for.
    pub config: Arc<ClientConfig>,
    /// For requests that switch protocols, which HTTP/2 cannot.
    pub http1: Arc<ClientConfig>,
    /// For streams, which agree on no protocol.
    pub raw: Arc<ClientConfig>,
    /// What is shown to servers that ask for a certificate.
    pub shown: Option<PresentedCertificate>,
}

impl Trust {
    /// Reads the files. `before`, with what its files hold now, where the settings are the same.
    pub fn load(
        upstream: &Arc<str>,
        settings: &UpstreamTls,
        protocol: Protocol,
        system: &Arc<Roots>,
        clock: &Clock,
        before: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let before = before.filter(|it| it.settings == *settings && it.protocol == protocol);
        let trust = before.cloned().unwrap_or_else(|| {
            Arc::new(Self {
                upstream: Arc::clone(upstream),
                settings: settings.clone(),
                protocol,
                system: ArcSwap::new(Arc::clone(system)),
                current: ArcSwapOption::empty(),
                fault: ArcSwapOption::empty(),
            })
        });
        trust.system.store(Arc::clone(system));
        trust.look(file::read, clock.now());
        trust
    }

    /// What is in use, if anything can be.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// What is wrong with what is on disk.
    pub fn fault(&self) -> Option<Arc<Fault>> {
        self.fault.load_full()
    }

    /// The upstream whose servers it is for.
    pub const fn upstream(&self) -> &Arc<str> {
        &self.upstream
    }

    /// Whether the servers' certificates are verified.
    pub const fn verifies(&self) -> bool {
        self.settings.verify
    }

    /// The file of the certificate that is shown.
    pub fn chain(&self) -> Option<&Path> {
        self.settings.chain.as_deref()
    }

    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let UpstreamTls { ca, chain, key, .. } = &self.settings;
        [ca, chain, key].into_iter().flatten()
    }

    /// Whether what is on disk is not what is in use.
    pub fn is_stale(&self) -> bool {
        match (self.read(file::read), self.current()) {
            (Ok(files), Some(current)) => !self.goes_by(&current, &files),
            (read, current) => read.is_ok() || current.is_some() || self.fault().is_none(),
        }
    }

    /// Reads the files in this way, and takes into use what can be.
    pub fn look(&self, read: Read, now: Timestamp) {
        let before = self.current();
        let built = self.read(read).and_then(|files| match &before {
            Some(before) if self.goes_by(before, &files) => Ok(Arc::clone(before)),
            _ => self.build(&files, now, before.as_deref()).map(Arc::new),
        });
        let upstream = &self.upstream;
        match built {
            Ok(current) => {
                let is_new = before.as_ref().is_some_and(|it| !Arc::ptr_eq(it, &current));
                let was_wrong = self.fault.swap(None).is_some();
                self.current.store(Some(current));
                if is_new || was_wrong {
                    info!(%upstream, "TLS to the upstream goes by what is on disk now");
                }
            }
            Err(fault) => {
                let known = self.fault();
                if known.as_deref() != Some(&fault) {
                    match before.is_some() {
                        true => warn!(%upstream, %fault, "TLS to the upstream stays as it was"),
                        false => warn!(%upstream, %fault, "TLS to the upstream cannot be used"),
                    }
                    self.fault.store(Some(Arc::new(fault)));
                }
            }
        }
    }

    /// Whether these files, and the system's roots where they matter, would make it the same.
    fn goes_by(&self, current: &Current, files: &Files) -> bool {
        let same_roots = || Arc::ptr_eq(&current.system, &self.system.load());
        current.digest == files.digest() && (files.ca.is_some() || same_roots())
    }

    fn read(&self, read: Read) -> Result<Files, Fault> {
        let one = |path: &Option<PathBuf>| match path {
            Some(path) => read(std::slice::from_ref(path)).map(|mut files| files.pop()),
            None => Ok(None),
        };
        Ok(Files {
            ca: one(&self.settings.ca)?,
            chain: one(&self.settings.chain)?,
            key: one(&self.settings.key)?,
        })
    }

    fn build(
        &self,
        files: &Files,
        now: Timestamp,
        before: Option<&Current>,
    ) -> Result<Current, Fault> {
        let system = self.system.load_full();
        let anchors = match &files.ca {
            _ if !self.settings.verify => None,
            Some(ca) => Some(anchors(ca)?),
            None => Some(system.anchors().to_vec()),
        };
        let identity = match &files.chain {
            Some(chain) => Some(identity(chain, files.key.as_ref())?),
            None => None,
        };
        let shown = identity
            .as_ref()
            .and_then(|(chain, _)| describe(chain.first()?));
        if let (Some(new), Some(old)) = (&shown, before.and_then(|it| it.shown.as_ref()))
            && new.not_after < now
            && old.not_after >= now
        {
            let path = self.chain().unwrap_or_else(|| Path::new(""));
            let what = format!("the certificate in it expired at {}", new.not_after);
            return Err(Fault::new(path, what, "have it issued anew"));
        }
        let build = |alpn: &[&[u8]]| {
            let identity = identity
                .as_ref()
                .map(|(chain, key)| (chain.clone(), key.clone_key()));
            let anchors = anchors.as_deref();
            tls::upstream(anchors, identity, self.settings.only_tls13, alpn).map_err(|error| {
                let path = self
                    .files()
                    .last()
                    .map_or_else(|| Path::new(""), PathBuf::as_path);
                let what = format!("TLS to the upstream cannot be set up with it: {error}");
                Fault::new(path, what, "see that key and certificate belong together")
            })
        };
        let http1 = build(&[b"http/1.1"])?;
        let raw = build(&[])?;
        let config = match self.protocol {
            Protocol::Http1 => Arc::clone(&http1),
            Protocol::Http2 => build(&[b"h2"])?,
            Protocol::Auto => build(&[b"h2", b"http/1.1"])?,
        };
        Ok(Current {
            digest: files.digest(),
            system,
            config,
            http1,
            raw,
            shown,
        })
    }
}

/// What was read.
struct Files {
    ca: Option<Content>,
    chain: Option<Content>,
    key: Option<Content>,
}

impl Files {
    fn digest(&self) -> u64 {
        let content = |file: &Option<Content>| file.as_ref().map_or(0, |(_, it)| fnv(&[it]));
        let parts = [&self.ca, &self.chain, &self.key].map(|it| content(it).to_be_bytes());
        fnv(&[&parts[0], &parts[1], &parts[2]])
    }
}

fn anchors(file: &Content) -> Result<Vec<TrustAnchor<'static>>, Fault> {
    let certificates = certificates(file)?;
    let anchor = |certificate| {
        webpki::anchor_from_trusted_cert(certificate)
            .map(|anchor| anchor.to_owned())
            .map_err(|error| Fault::new(&file.0, error.to_string(), "see what is in it"))
    };
    certificates.iter().map(anchor).collect()
}

fn certificates((path, bytes): &Content) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let read = read.map_err(|error| Fault::new(path, error.to_string(), "write it in PEM"))?;
    match read.is_empty() {
        true => Err(Fault::new(
            path,
            "there is no certificate in it",
            "write it in PEM",
        )),
        false => Ok(read),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The key is in the file of the chain where it has none of its own.
fn identity(chain: &Content, key: Option<&Content>) -> Result<Identity, Fault> {
    let (path, bytes) = key.unwrap_or(chain);
    let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        let what = format!("its key cannot be read: {error}");
        Fault::new(path, what, "write it in PEM, without a passphrase")
    })?;
    Ok((certificates(chain)?, key))
}
