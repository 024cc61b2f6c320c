//! How TLS is spoken to the servers of an upstream: whom to believe, and what to show.
//!
//! Its files are read when a configuration is taken, and again at each reload. One that cannot be
//! used harms its own upstream only: what was in use before stays in use, and where there was
//! nothing before, connections fail with the reason.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::TrustAnchor;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::balance::fnv;
use crate::config::{Protocol, UpstreamTls};
use crate::tls;

/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// See the module.
#[derive(Debug)]
pub struct Trust {
    settings: UpstreamTls,
    protocol: Protocol,
    /// Of the content of all files.
    digest: u64,
    /// As the upstream's protocol asks for.
    pub config: Arc<ClientConfig>,
    /// For requests that switch protocols, which HTTP/2 cannot.
    pub http1: Arc<ClientConfig>,
    /// For streams, which agree on no protocol.
    pub raw: Arc<ClientConfig>,
}

impl Trust {
    /// Reads the files and builds what they say; `before`, where nothing changed.
    pub fn load(
        settings: &UpstreamTls,
        protocol: Protocol,
        system: &[TrustAnchor<'static>],
        before: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, String> {
        let read = |path: &Option<std::path::PathBuf>| path.as_deref().map(read).transpose();
        let (ca, chain, key) = (
            read(&settings.ca)?,
            read(&settings.chain)?,
            read(&settings.key)?,
        );
        let parts = [&ca, &chain, &key].map(|file| file.as_deref().unwrap_or_default());
        let digest = fnv(&parts);
        if let Some(before) = before
            && before.settings == *settings
            && before.protocol == protocol
            && before.digest == digest
        {
            return Ok(Arc::clone(before));
        }
        let anchors = match (&ca, &settings.ca) {
            (Some(bytes), Some(path)) => anchors(bytes, path)?,
            _ => system.to_vec(),
        };
        let identity = match (&chain, &settings.chain) {
            (Some(chain), Some(path)) => Some(identity(chain, key.as_deref(), path)?),
            _ => None,
        };
        let build = |alpn: &[&[u8]]| {
            let identity = identity
                .as_ref()
                .map(|(chain, key)| (chain.clone(), key.clone_key()));
            tls::upstream(&anchors, identity, settings.only_tls13, alpn)
                .map_err(|error| format!("TLS to the upstream cannot be set up: {error}"))
        };
        let http1 = build(&[b"http/1.1"])?;
        let raw = build(&[])?;
        let config = match protocol {
            Protocol::Http1 => Arc::clone(&http1),
            Protocol::Http2 => build(&[b"h2"])?,
            Protocol::Auto => build(&[b"h2", b"http/1.1"])?,
        };
        Ok(Arc::new(Self {
            settings: settings.clone(),
            protocol,
            digest,
            config,
            http1,
            raw,
        }))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(wrong)?;
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}

fn anchors(bytes: &[u8], path: &Path) -> Result<Vec<TrustAnchor<'static>>, String> {
    let certificates = certificates(bytes, path)?;
    certificates
        .iter()
        .map(|certificate| {
            webpki::anchor_from_trusted_cert(certificate)
                .map(|anchor| anchor.to_owned())
                .map_err(|error| format!("{}: {error}", path.display()))
        })
        .collect()
}

fn certificates(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let read = read.map_err(|error| format!("{}: {error}", path.display()))?;
    match read.is_empty() {
        true => Err(format!("{}: there is no certificate in it", path.display())),
        false => Ok(read),
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The key is in the file of the chain where it has none of its own.
fn identity(chain: &[u8], key: Option<&[u8]>, path: &Path) -> Result<Identity, String> {
    let key = PrivateKeyDer::from_pem_slice(key.unwrap_or(chain))
        .map_err(|error| format!("the key of {}: {error}", path.display()))?;
    Ok((certificates(chain, path)?, key))
}
