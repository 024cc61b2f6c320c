//! What the tests of this part share: certificates in words, without bytes.

use crate::cert::{
    Disk, DiskState, Facts, Fingerprint, KeyType, Name, Origin, Report, ReportedCertificate, Stage,
    Validity,
};
use crate::clock::Timestamp;
use crate::config::Alerts;

/// Midnight of this day since 1970.
pub(crate) fn day(n: i64) -> Timestamp {
    Timestamp::from_unix(n * 86_400)
}

/// The thresholds of a default configuration, and no sinks.
pub(crate) fn alerts() -> Alerts {
    Alerts {
        overdue: 0.25,
        expiring: 0.10,
        repeat: std::time::Duration::from_secs(6 * 3600),
        sinks: Vec::new(),
    }
}

/// The facts of a good certificate for `www.example.com`.
pub(crate) fn facts(not_before: Timestamp, not_after: Timestamp) -> Facts {
    Facts {
        names: vec![Name::Dns("www.example.com".into())],
        serial: "01".into(),
        fingerprint: Fingerprint([1; 32]),
        issuer: "R3".into(),
        key_type: KeyType::EcdsaP256,
        validity: Validity {
            not_before,
            not_after,
        },
        chain_length: 2,
        chain_not_after: not_after,
        chain_complete: true,
        trusted: true,
        server_usage: true,
        weaknesses: Vec::new(),
        must_staple: false,
        ocsp_responder: None,
    }
}

/// The report of a good certificate that is served for this name.
pub(crate) fn report(
    source: &str,
    name: &str,
    not_before: Timestamp,
    not_after: Timestamp,
) -> Report {
    let mut fingerprint = [0; 32];
    for (byte, value) in fingerprint.iter_mut().zip(source.bytes().rev()) {
        *byte = value;
    }
    Report {
        source: vec![source.to_owned()],
        certificate: Some(ReportedCertificate {
            names: vec![Name::Dns(name.into())],
            serial: "01".into(),
            fingerprint_sha256: Fingerprint(fingerprint),
            issuer: "R3".into(),
            key_type: KeyType::EcdsaP256,
            not_before,
            not_after,
            stage: Stage::Fresh,
            trusted: true,
            chain_complete: true,
            chain_length: 2,
        }),
        serving: true,
        origin: Origin::Disk,
        disk: Disk {
            state: DiskState::Same,
            reason: None,
            detail: None,
            since: not_before,
        },
    }
}
