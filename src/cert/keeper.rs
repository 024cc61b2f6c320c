//! TEMP
use super::inventory::Inventory;
use super::*;
use crate::config::*;
use arc_swap::ArcSwap;
use std::sync::Arc;
#[derive(Debug, Default)]
pub struct Wanted(Vec<CertificateSource>);
impl Wanted {
    pub fn of(c: &Config) -> Self {
        Self(c.certificates.clone())
    }
}
#[derive(Debug, Default)]
pub struct Timing;
#[derive(Debug)]
pub struct Options {
    pub wanted: Wanted,
    pub state: Option<crate::state::StateDir>,
    pub clock: crate::clock::Clock,
    pub roots: Arc<load::Roots>,
    pub timing: Timing,
}
#[derive(Debug)]
pub struct Keeper(Option<Arc<CertifiedKey>>);
#[derive(Debug)]
pub struct R(Option<Arc<CertifiedKey>>);
impl rustls::server::ResolvesServerCert for R {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }
}
#[derive(Default)]
pub struct LoadReport {
    pub changed: Vec<Arc<str>>,
    pub removed: Vec<Arc<str>>,
    pub refused: Vec<Refusal>,
}
pub struct Refusal {
    pub source: Arc<str>,
    pub detail: Option<String>,
}
pub struct Accepted {
    pub source: Arc<str>,
    pub fingerprint: Fingerprint,
    pub changed: bool,
}
pub enum AcceptError {
    UnknownSource(String),
    CannotBeServed(Arc<Rejection>),
    Stopped,
}
impl Keeper {
    pub fn start(o: Options) -> Self {
        use rustls_pki_types::pem::PemObject;
        let k = o.wanted.0.iter().find_map(|c| match &c.location {
            Location::Pair { chain, key, .. } => {
                let certs: Vec<_> = rustls_pki_types::CertificateDer::pem_file_iter(chain)
                    .ok()?
                    .collect::<Result<_, _>>()
                    .ok()?;
                let key = rustls_pki_types::PrivateKeyDer::from_pem_file(key).ok()?;
                CertifiedKey::from_der(certs, key, &crate::tls::provider())
                    .ok()
                    .map(Arc::new)
            }
            _ => None,
        });
        Self(k)
    }
    pub fn inventory(&self) -> Arc<ArcSwap<Inventory>> {
        Arc::default()
    }
    pub fn resolver(&self) -> R {
        R(self.0.clone())
    }
    pub fn reload(&self, _: Wanted) -> LoadReport {
        LoadReport::default()
    }
    pub fn accept(&self, _: &str, _: &str) -> Result<Accepted, AcceptError> {
        Err(AcceptError::Stopped)
    }
}
