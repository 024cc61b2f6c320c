//! From a configured policy to a `rustls` configuration.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{KeyLog, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};

use super::policy::Key;
use crate::clock::Clock;
use crate::config::{CipherSuite, Group, TlsPolicy, TlsVersion};

/// Protocols offered to clients by ALPN (RFC 7301), the preferred first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What all policies have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// Chooses the certificate.
    pub(super) resolver: Arc<dyn ResolvesServerCert>,
    /// What time it is.
    pub(super) clock: Clock,
    /// Where secrets are written for debugging.
    pub(super) key_log: Option<Arc<dyn KeyLog>>,
}

/// Builds the configuration of one policy.
pub(super) fn server(
    key: &Key,
    common: &Common,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let policy = &key.policy;
    let versions: Vec<_> = policy.versions.iter().copied().map(version).collect();
    let time = Arc::new(Time(common.clock.clone()));
    let builder = ServerConfig::builder_with_details(Arc::new(provider(policy)), time)
        .with_protocol_versions(&versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(&common.resolver));
    config.alpn_protocols = match &key.alpn {
        None => ALPN.map(<[u8]>::to_vec).to_vec(),
        Some(own) => own.iter().map(|own| own.as_bytes().to_vec()).collect(),
    };
    // Nothing is stored here: a session is in its ticket, or nowhere.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // Certificates are not compressed (RFC 8879), nor such accepted, whatever the library is built
    // with. It would do so on the worker, at each handshake whose certificate is not among the last
    // four: 2.6 ms for Brotli as the library uses it, the work of a dozen handshakes; and those four
    // are behind a lock. What is won is a kilobyte or two of a first flight with room for fourteen.
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    // One ticket is enough for clients that keep their connection, and each costs a record.
    config.send_tls13_tickets = usize::from(ticketer.is_some());
    if let Some(ticketer) = ticketer {
        config.ticketer = ticketer;
    }
    if let Some(key_log) = &common.key_log {
        config.key_log = Arc::clone(key_log);
    }
    Ok(Arc::new(config))
}

fn provider(policy: &TlsPolicy) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: policy.cipher_suites.iter().copied().map(suite).collect(),
        kx_groups: policy.groups.iter().copied().map(group).collect(),
        ..rustls::crypto::aws_lc_rs::default_provider()
    }
}

const fn version(version: TlsVersion) -> &'static SupportedProtocolVersion {
    match version {
        TlsVersion::Tls12 => &TLS12,
        TlsVersion::Tls13 => &TLS13,
    }
}

const fn suite(suite: CipherSuite) -> SupportedCipherSuite {
    match suite {
        CipherSuite::Aes128GcmSha256 => cipher_suite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Aes256GcmSha384 => cipher_suite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::ChaCha20Poly1305Sha256 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheEcdsaAes128GcmSha256 => {
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        CipherSuite::EcdheRsaAes128GcmSha256 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaAes256GcmSha384 => {
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        CipherSuite::EcdheRsaAes256GcmSha384 => cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaChaCha20Poly1305 => {
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        CipherSuite::EcdheRsaChaCha20Poly1305 => {
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
    }
}

fn group(group: Group) -> &'static dyn SupportedKxGroup {
    match group {
        Group::X25519MlKem768 => kx_group::X25519MLKEM768,
        Group::Secp256r1MlKem768 => kx_group::SECP256R1MLKEM768,
        Group::X25519 => kx_group::X25519,
        Group::Secp256r1 => kx_group::SECP256R1,
        Group::Secp384r1 => kx_group::SECP384R1,
        Group::MlKem768 => kx_group::MLKEM768,
        Group::MlKem1024 => kx_group::MLKEM1024,
    }
}

/// The clock, as `rustls` asks for it.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(&self.0))
    }
}

/// The present. Before 1970 there was no TLS.
pub(super) fn unix_time(clock: &Clock) -> UnixTime {
    let seconds = u64::try_from(clock.now().unix()).unwrap_or_default();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use rustls::compress::default_cert_compressors;

    use super::*;

    /// A dependency that turns this on turns it on for all: that is to be noticed.
    #[test]
    fn certificates_are_compressed_nowhere() {
        assert!(default_cert_compressors().is_empty());
    }

    /// What is configured is what the library has under that name.
    #[test]
    fn suites_and_groups_are_what_they_are_called() {
        for configured in CipherSuite::ALL {
            let name = format!("{:?}", suite(*configured).suite());
            let name = name.replace("TLS13_", "TLS_");
            assert_eq!(name, configured.name());
        }
        for configured in Group::ALL {
            let name = format!("{:?}", group(*configured).name());
            assert!(name.eq_ignore_ascii_case(configured.name()), "{name}");
        }
    }
}
