//! TLS policy: the only place that names TLS settings.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ResolvesServerCert;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};

/// Protocols offered to clients by ALPN (RFC 7301), the preferred first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Versions spoken on both sides.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The cryptography of everything: aws-lc-rs, with the hybrid post-quantum key exchange
/// X25519MLKEM768 first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What listeners use: TLS 1.2 and 1.3. Built once and kept across certificate swaps and reloads,
/// so that tickets stay good; the certificate is the resolver's to choose at each handshake.
pub fn server(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    // Stateless resumption (RFC 8446, section 4.6.1; RFC 5077): its keys rotate by themselves and
    // live in memory only. No session is stored here.
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    // One ticket is enough for clients that keep their connection, and each costs a record.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// What connections to `https://` upstream servers use: their certificates are verified by these
/// roots.
pub fn upstream_client(roots: &[TrustAnchor<'static>]) -> Result<Arc<ClientConfig>, rustls::Error> {
    upstream(roots, None, false, &[])
}

/// The same, with a certificate of our own to show, nothing older than TLS 1.3 where that is asked
/// for, and these protocols by ALPN, the preferred first.
pub fn upstream(
    roots: &[TrustAnchor<'static>],
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    only_tls13: bool,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let versions = if only_tls13 { &VERSIONS[..1] } else { VERSIONS };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_root_certificates(RootCertStore {
            roots: roots.to_vec(),
        });
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
