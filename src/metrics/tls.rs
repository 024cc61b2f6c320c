//! What is told of TLS beyond the handshake itself.

use super::handle::Gauge;
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
    registry: Registry,
    file: String,
    stale: Gauge,
    expires: Option<Gauge>,
}

impl TlsFiles {
    /// `kind` says what they are for; `file` is the first of them.
    pub fn new(registry: &Registry, kind: &'static str, file: &str) -> Self {
        let labels = [("kind", kind), ("file", file)];
        Self {
            registry: registry.clone(),
            file: file.to_owned(),
            stale: names::TLS_FILE_STALE.gauge(registry, &labels),
            expires: None,
        }
    }

    /// Whether what is on disk cannot be used.
    pub fn stale(&self, stale: bool) {
        self.stale.set(f64::from(u8::from(stale)));
    }

    /// When the first revocation list is past its time, in seconds since the epoch.
    #[allow(clippy::cast_precision_loss)] // no list is good for so long
    pub fn expires(&mut self, at: Option<i64>) {
        let Some(at) = at else {
            self.expires = None;
            return;
        };
        let labels = [("file", self.file.as_str())];
        let gauge = || names::CRL_NEXT_UPDATE.gauge(&self.registry, &labels);
        self.expires.get_or_insert_with(gauge).set(at as f64);
    }
}
