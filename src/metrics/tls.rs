//! What is told of TLS beyond the handshake itself.

use std::collections::BTreeMap;

use super::label::label;
use super::names;
use super::registry::Registry;

label! {
    /// An alert that a client sent (RFC 8446, section 6), as far as it tells something.
    pub enum ClientAlert {
        /// It does not know who issued the certificate.
        UnknownCa = "unknown_ca",
        /// The certificate is past its time, or before.
        CertificateExpired = "certificate_expired",
        /// The certificate is revoked.
        CertificateRevoked = "certificate_revoked",
        /// The certificate is not for this name, or otherwise bad.
        BadCertificate = "bad_certificate",
        /// The certificate is of a kind that it does not know.
        UnsupportedCertificate = "unsupported_certificate",
        /// Something else about the certificate.
        CertificateUnknown = "certificate_unknown",
        /// The OCSP response is bad.
        BadStatusResponse = "bad_certificate_status_response",
        /// It found nothing in common.
        HandshakeFailure = "handshake_failure",
        /// It does not speak this version.
        ProtocolVersion = "protocol_version",
        /// What it got could not be decrypted or understood.
        Undecodable = "undecodable",
        /// It changed its mind.
        UserCanceled = "user_canceled",
        /// Any other.
        Other = "other",
    }
}

/// The state of files that TLS goes by.
#[derive(Debug)]
pub struct TlsFiles {
    /// What they are for.
    pub kind: &'static str,
    /// The first of them.
    pub file: String,
    /// Whether what is on disk cannot be used.
    pub stale: bool,
    /// When the first revocation list is past its time, in seconds since the epoch.
    pub expires: Option<i64>,
}

/// Shows the state of all files that TLS goes by. The same file may be used in several ways, and has
/// one series all the same: the worst of them.
pub fn describe_tls_files(
    registry: &Registry,
    all: impl Fn() -> Vec<TlsFiles> + Send + Sync + 'static,
) {
    registry.collector(move |scrape| {
        let mut stale: BTreeMap<_, bool> = BTreeMap::new();
        let mut expires = BTreeMap::new();
        for files in all() {
            *stale.entry((files.kind, files.file.clone())).or_default() |= files.stale;
            if let Some(at) = files.expires {
                let first = expires.entry(files.file).or_insert(at);
                *first = at.min(*first);
            }
        }
        for ((kind, file), stale) in stale {
            let labels = [("kind", kind), ("file", file.as_str())];
            scrape.gauge(names::TLS_FILE_STALE, &labels, f64::from(u8::from(stale)));
        }
        for (file, at) in expires {
            #[allow(clippy::cast_precision_loss)] // no list is good for so long
            scrape.gauge(
                names::CRL_NEXT_UPDATE,
                &[("file", file.as_str())],
                at as f64,
            );
        }
    });
}
