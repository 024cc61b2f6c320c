//! TLS policy: the only place that names TLS settings.
//!
//! A [`Policy`] is one set of settings (versions, suites, groups, client authentication) and the
//! `rustls` configuration made of them, once; it is kept across certificate swaps and reloads, so
//! that sessions live on. [`Policies`] says which of them a client gets, by listener and by the
//! name that it asks for. [`Keep`] has all of them, and watches the files behind them: ticket keys
//! ([`tickets`]), authorities and revocation lists ([`trust`]). What cannot be used changes
//! nothing.
//!
//! Sessions never cross from one kind of client authentication to another (compare CVE-2025-23419):
//! whatever encrypts tickets is bound to the mode and the authorities that were in force, so that a
//! ticket from elsewhere, or from before they changed, opens nowhere. Whoever resumes a session is
//! judged again, by the revocation lists of that moment.

mod digest;
pub mod file;
pub mod identity;
mod ja4;
mod keep;
pub mod keylog;
mod policy;
mod session;
mod settings;
#[cfg(test)]
mod testing;
pub mod tickets;
pub mod trust;
mod unverified;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};

pub use ja4::Ja4;
pub use keep::{Keep, Options, Prepared, Trouble, faults};
pub use policy::{Current, Policies, Policy};
pub use session::Session;
pub use tickets::Legacy;

/// Versions spoken with servers behind.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The cryptography of everything: aws-lc-rs, with the hybrid post-quantum key exchange
/// X25519MLKEM768 first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What connections to `https://` upstream servers use: their certificates are verified by these
/// roots.
pub fn upstream_client(roots: &[TrustAnchor<'static>]) -> Result<Arc<ClientConfig>, rustls::Error> {
    upstream(Some(roots), None, false, &[])
}

/// The same, with a certificate of our own to show, nothing older than TLS 1.3 where that is asked
/// for, and these protocols by ALPN, the preferred first. Without roots, servers are not verified.
pub fn upstream(
    roots: Option<&[TrustAnchor<'static>]>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    only_tls13: bool,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let versions = if only_tls13 { &VERSIONS[..1] } else { VERSIONS };
    let builder =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(RootCertStore {
            roots: roots.to_vec(),
        }),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(unverified::Unverified(provider()))),
    };
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
