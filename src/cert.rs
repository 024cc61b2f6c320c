//! Certificates: from bytes on disk to the best one for a handshake.
//!
//! One rule stands behind everything here: *every certificate that was ever verified and still
//! covers a name is a candidate for it, and the best candidate is served.*
//!
//! The way of a certificate: a [`source`] names files → [`load`] turns their bytes into a
//! [`Verified`] certificate or a [`Rejection`] → [`compare`] says whether it is no worse than the
//! one it would replace → a new immutable [`inventory`] is built → one `ArcSwap::store` → the
//! [`select`] resolver uses the best by its [`rank`] for the next handshake. [`keeper`] conducts;
//! [`last_good`] and [`ledger`] remember.
//!
//! This head holds the plain types that all of them share; it imports none of its children.

pub mod chain;
pub mod compare;
mod faults;
pub mod inventory;
pub mod keeper;
pub mod last_good;
pub mod ledger;
pub mod load;
pub mod names;
pub mod ocsp;
mod pem;
pub mod presented;
pub mod rank;
pub mod select;
pub mod source;
mod staple;
#[cfg(test)]
pub(crate) mod testing;
mod x509;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::sign::CertifiedKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::Timestamp;

/// Why a certificate is rejected, held back, or thought less of. The codes are part of the
/// interface: dashboards and alert rules match on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The file is there and cannot be read.
    Unreadable,
    /// The file is not there.
    Missing,
    /// The file holds no certificate.
    NoCertificate,
    /// The file holds no private key, or only an encrypted one.
    NoKey,
    /// The PEM armour is damaged or cut short.
    MalformedPem,
    /// The DER inside is not a certificate (RFC 5280).
    MalformedCertificate,
    /// A key of a type that cannot sign in a handshake here.
    UnsupportedKey,
    /// The private key does not belong to the certificate.
    KeyMismatch,
    /// `notAfter` has passed.
    Expired,
    /// `notBefore` has not come.
    NotYetValid,
    /// A name that a configured site needs, and the previous certificate had, is gone.
    NamesLost,
    /// A certificate of the chain is missing, out of place, or expired.
    BrokenChain,
    /// The chain does not end at a root that this system trusts.
    UntrustedChain,
    /// The extended key usage leaves out server authentication (RFC 5280, section 4.2.1.12).
    WrongUsage,
    /// A key or signature that clients refuse as weak.
    WeakKey,
    /// It was issued before the one it would replace.
    Older,
    /// Clients refused it, and staunch went back to the one before.
    RefusedByClients,
    /// The configuration no longer names it, and a configured name has no other.
    NotConfigured,
}

impl Reason {
    /// Every reason, for metrics that want a complete set of labels.
    pub const ALL: [Self; 18] = [
        Self::Unreadable,
        Self::Missing,
        Self::NoCertificate,
        Self::NoKey,
        Self::MalformedPem,
        Self::MalformedCertificate,
        Self::UnsupportedKey,
        Self::KeyMismatch,
        Self::Expired,
        Self::NotYetValid,
        Self::NamesLost,
        Self::BrokenChain,
        Self::UntrustedChain,
        Self::WrongUsage,
        Self::WeakKey,
        Self::Older,
        Self::RefusedByClients,
        Self::NotConfigured,
    ];

    /// The code, as the interface spells it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
            Self::NoCertificate => "no_certificate",
            Self::NoKey => "no_key",
            Self::MalformedPem => "malformed_pem",
            Self::MalformedCertificate => "malformed_certificate",
            Self::UnsupportedKey => "unsupported_key",
            Self::KeyMismatch => "key_mismatch",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::NamesLost => "names_lost",
            Self::BrokenChain => "broken_chain",
            Self::UntrustedChain => "untrusted_chain",
            Self::WrongUsage => "wrong_usage",
            Self::WeakKey => "weak_key",
            Self::Older => "older",
            Self::RefusedByClients => "refused_by_clients",
            Self::NotConfigured => "not_configured",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What is wrong with a certificate on disk: the same code and words in the log, the inventory,
/// the ledger, an alert and `staunch check`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}: {detail}; {help}", path.display())]
pub struct Rejection {
    /// The code.
    pub reason: Reason,
    /// The file at fault.
    pub path: PathBuf,
    /// What was expected and what was found.
    pub detail: String,
    /// What to do, with the command that confirms it.
    pub help: String,
}

/// A shortcoming that does not prevent a handshake, only makes a certificate worse than another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code.
    pub reason: Reason,
    /// What was expected and what was found.
    pub detail: String,
    /// What to do.
    pub help: String,
}

impl Fault {
    /// The same, as the reason why the certificate in this file is held back.
    pub fn at(self, path: &Path) -> Rejection {
        Rejection {
            reason: self.reason,
            path: path.to_owned(),
            detail: self.detail,
            help: self.help,
        }
    }
}

/// SHA-256 of a certificate's DER. Displayed as lower-case hexadecimal without separators.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = (text.len() == 64).then_some(text.as_bytes());
        let byte = |pair: &[u8]| {
            let digit = |c: u8| {
                char::from(c)
                    .to_digit(16)
                    .and_then(|d| u8::try_from(d).ok())
            };
            Some(digit(pair[0])? << 4 | digit(pair[1])?)
        };
        let bytes: Option<Vec<u8>> = digits.and_then(|text| text.chunks(2).map(byte).collect());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(Self)
            .ok_or_else(|| de::Error::custom("not a fingerprint of 64 hexadecimal digits"))
    }
}

/// A key's algorithm and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyType {
    /// RSA, with the modulus' length in bits.
    Rsa(u32),
    /// ECDSA over P-256.
    EcdsaP256,
    /// ECDSA over P-384.
    EcdsaP384,
    /// ECDSA over P-521.
    EcdsaP521,
    /// Ed25519 (RFC 8032).
    Ed25519,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::EcdsaP521 => f.write_str("ECDSA P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
        }
    }
}

impl Serialize for KeyType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A certificate's period of validity, both ends included (RFC 5280, section 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub not_before: Timestamp,
    /// `notAfter`.
    pub not_after: Timestamp,
}

impl Validity {
    /// Whether it is valid at this moment.
    pub fn contains(self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Seconds from `notBefore` to `notAfter`, at least 1.
    pub fn lifetime(self) -> i64 {
        self.not_after.since(self.not_before).max(1)
    }

    /// The share of the lifetime that is left: above 1 before `notBefore`, below 0 after `notAfter`.
    #[allow(clippy::cast_precision_loss)] // seconds; a share needs no 53 bits
    pub fn share_left(self, now: Timestamp) -> f64 {
        self.not_after.since(now) as f64 / self.lifetime() as f64
    }

    /// Where in its life it is. `overdue` and `expiring` are shares of the lifetime left, as in
    /// `[alerts]`; a renewal is *due* from a third left, when the usual clients renew.
    pub fn stage(self, now: Timestamp, overdue: f64, expiring: f64) -> Stage {
        const DUE: f64 = 1.0 / 3.0;
        if now < self.not_before {
            return Stage::NotYetValid;
        }
        if now > self.not_after {
            return Stage::Expired;
        }
        match self.share_left(now) {
            left if left < expiring => Stage::Expiring,
            left if left < overdue => Stage::Overdue,
            left if left < DUE.max(overdue) => Stage::Due,
            _ => Stage::Fresh,
        }
    }
}

/// Where in its life a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing to do.
    Fresh,
    /// A renewal may come any day.
    Due,
    /// A renewal should have come.
    Overdue,
    /// It must come now.
    Expiring,
    /// `notAfter` has passed.
    Expired,
    /// `notBefore` has not come.
    NotYetValid,
}

/// A name that a certificate covers (RFC 5280, section 4.2.1.6; RFC 6125).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// A DNS name in lower case without a trailing dot.
    Dns(Arc<str>),
    /// `*.example.com`, holding `example.com`: any name with exactly one more label.
    Wildcard(Arc<str>),
    /// An address.
    Ip(IpAddr),
}

impl Name {
    /// Whether it covers `host`: a lower-case DNS name without a trailing dot, or an IP literal.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Dns(name) => **name == *host,
            Self::Wildcard(parent) => host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && *rest == **parent),
            Self::Ip(ip) => host.parse() == Ok(*ip),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
            Self::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a certificate says of itself, and what was found out about its chain.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The file that the chain was read from, for messages.
    pub path: Arc<Path>,
    /// Subject alternative names, in the certificate's order.
    pub names: Arc<[Name]>,
    /// Serial number, lower-case hexadecimal.
    pub serial: Arc<str>,
    /// SHA-256 of the leaf's DER.
    pub fingerprint: Fingerprint,
    /// The issuer, as a person would name it: its common name, or else the whole distinguished name.
    pub issuer: Arc<str>,
    /// Algorithm and size of the leaf's key.
    pub key_type: KeyType,
    /// The leaf's period.
    pub validity: Validity,
    /// Certificates that are sent, leaf included.
    pub chain_length: usize,
    /// The first `notAfter` in the whole chain: what clients really go by.
    pub chain_not_after: Timestamp,
    /// Each certificate is issued by the next, and none is missing up to a self-issued one or one
    /// whose issuer this system's roots hold.
    pub chain_complete: bool,
    /// The chain ends at a root that this system trusts.
    pub trusted: bool,
    /// Why the chain is not complete, or not trusted, in words.
    pub chain_shortcoming: Option<String>,
    /// The subject of the certificate that [`chain_not_after`](Self::chain_not_after) is of.
    pub first_to_expire: String,
    /// The certificate may be used for server authentication.
    pub server_usage: bool,
    /// Weaknesses in key or signature, as words; empty when none.
    pub weaknesses: Vec<String>,
    /// The certificate asks for a staple (RFC 7633).
    pub must_staple: bool,
    /// OCSP responder named by the certificate.
    pub ocsp_responder: Option<String>,
    /// What was repaired, left out or ignored on the way, as sentences; empty when nothing was.
    pub notes: Vec<String>,
}

/// A certificate that went through [`load`]: its key belongs to it, and a handshake with it can be
/// completed. The resolver accepts no other type, and nothing outside [`load`] can make one.
#[derive(Debug)]
pub struct Verified {
    key: Arc<CertifiedKey>,
    facts: Facts,
    tally: Arc<Tally>,
    status: Arc<ocsp::Slot>,
}

impl Verified {
    /// Only for [`load`], which has done the checking.
    pub(in crate::cert) fn new(key: Arc<CertifiedKey>, facts: Facts) -> Self {
        Self {
            key,
            facts,
            tally: Arc::default(),
            status: Arc::default(),
        }
    }

    /// The same certificate, of which other facts were found out: those of `again`, which was read
    /// from the same files.
    pub(in crate::cert) fn with_facts_of(&self, again: &Self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            facts: again.facts.clone(),
            tally: Arc::clone(&self.tally),
            status: Arc::clone(&self.status),
        }
    }

    /// This one in place of `earlier`, which is the same but for its staple: how clients receive it
    /// is counted on.
    pub(in crate::cert) fn continuing(&self, earlier: &Self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            facts: self.facts.clone(),
            tally: Arc::clone(&earlier.tally),
            status: Arc::clone(&self.status),
        }
    }

    /// Chain and key, without a staple.
    pub const fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// What a handshake uses at this moment: with a staple, where there is one that is current.
    pub fn key_at(&self, now: Timestamp) -> Arc<CertifiedKey> {
        self.status
            .key_at(now)
            .unwrap_or_else(|| Arc::clone(&self.key))
    }

    /// What its issuer says of it.
    pub fn status(&self) -> &ocsp::Slot {
        &self.status
    }

    /// What is known of it.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How clients receive it.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether one of its names covers `host` (lower case, no trailing dot, or an IP literal).
    pub fn covers(&self, host: &str) -> bool {
        self.facts.names.iter().any(|name| name.covers(host))
    }
}

/// Counts the full handshakes that showed a certificate. Resumed ones show none and do not count.
#[derive(Debug, Default)]
pub struct Tally {
    done: AtomicU64,
    refused: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Handshakes that were completed.
    pub done: u64,
    /// Handshakes that were ended by an alert of the client about the certificate.
    pub refused: u64,
}

impl Tally {
    /// A handshake was completed.
    pub fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// A client ended the handshake because of the certificate.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn shown(&self) -> Shown {
        Shown {
            done: self.done.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

impl Shown {
    /// What was counted between then and now.
    #[must_use]
    pub const fn since(self, then: Self) -> Self {
        Self {
            done: self.done.saturating_sub(then.done),
            refused: self.refused.saturating_sub(then.refused),
        }
    }

    /// The share that was refused, from 0 to 1.
    #[allow(clippy::cast_precision_loss)] // a share
    pub fn share_refused(self) -> f64 {
        self.refused as f64 / (self.done + self.refused).max(1) as f64
    }
}

/// Where a certificate that is held came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// It is what is on disk.
    Disk,
    /// It was kept from before, because what is on disk cannot be used, or is worse.
    LastGood,
}

/// What the disk holds now, compared with what is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// In a word.
    pub state: DiskState,
    /// The code, unless the state is `same`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// In a sentence, with the next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The file at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Since when it is so.
    pub since: Timestamp,
    /// Only one of its two files was written, and the other may follow.
    #[serde(skip)]
    pub half: bool,
}

/// See [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// What is on disk is what is held.
    Same,
    /// What is on disk cannot be served.
    Rejected,
    /// What is on disk could be served, but is worse than what is.
    HeldBack,
    /// The file is gone.
    Missing,
    /// The path is a bind-mounted file whose host copy was replaced.
    Pinned,
}

/// One entry of the inventory, as `/api/certificates`, `staunch certs` and alerts see it. A source
/// for which nothing is held at all has an entry too, with `certificate` empty. What is long in it is
/// shared: alerts look at all of them each time that one changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file or files it was read from.
    pub source: Arc<[String]>,
    /// What is held; absent when the source never gave anything that could be served.
    #[serde(flatten)]
    pub certificate: Option<ReportedCertificate>,
    /// Whether any name is answered with it now.
    pub serving: bool,
    /// Where it came from.
    pub origin: Origin,
    /// What the disk holds now.
    pub disk: Disk,
    /// It is a searched folder that cannot be searched.
    #[serde(skip)]
    pub is_folder: bool,
    /// It is a source whose renewals are no news: the program's own.
    #[serde(skip)]
    pub routine: bool,
}

/// The part of a [`Report`] about the certificate itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedCertificate {
    /// Subject alternative names.
    pub names: Arc<[Name]>,
    /// Lower-case hexadecimal.
    pub serial: Arc<str>,
    /// Of the leaf.
    pub fingerprint_sha256: Fingerprint,
    /// Who issued it.
    pub issuer: Arc<str>,
    /// Algorithm and size.
    pub key_type: KeyType,
    /// RFC 3339.
    pub not_before: Timestamp,
    /// RFC 3339.
    pub not_after: Timestamp,
    /// Where in its life it is.
    pub stage: Stage,
    /// Whether this system's roots trust its chain.
    pub trusted: bool,
    /// Whether the chain has all its links.
    pub chain_complete: bool,
    /// Certificates sent, leaf included.
    pub chain_length: usize,
    /// When its issuer revoked it, where it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// It asks clients to refuse it without a staple (RFC 7633).
    pub must_staple: bool,
    /// The staple, where there is one, or why there is none where one is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staple: Option<ocsp::Report>,
}

/// Something that happened to a certificate. Log, metrics, ledger and alerts listen; nobody acts
/// back on it.
#[derive(Clone, Debug)]
pub enum Event {
    /// A certificate is in the inventory for the first time.
    Loaded {
        /// Its source, for people.
        source: Arc<str>,
        /// What it is.
        facts: Arc<Verified>,
    },
    /// A certificate took the place of another from the same source.
    Swapped {
        /// Its source, for people.
        source: Arc<str>,
        /// What was served.
        old: Arc<Verified>,
        /// What is served now.
        new: Arc<Verified>,
    },
    /// What is on disk cannot be served.
    Rejected {
        /// Its source, for people.
        source: Arc<str>,
        /// Why.
        rejection: Arc<Rejection>,
    },
    /// What is on disk could be served, but is worse than what is.
    HeldBack {
        /// Its source, for people.
        source: Arc<str>,
        /// What is on disk.
        fingerprint: Fingerprint,
        /// Why.
        rejection: Arc<Rejection>,
    },
    /// An operator said to use what is on disk although it is worse.
    Accepted {
        /// Its source, for people.
        source: Arc<str>,
        /// What is served now.
        fingerprint: Fingerprint,
        /// The operator's words.
        because: Arc<str>,
    },
    /// What is on disk is what is served again.
    Recovered {
        /// Its source, for people.
        source: Arc<str>,
    },
    /// The source is no longer configured, or its folder entry is gone.
    Removed {
        /// Its source, for people.
        source: Arc<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(n: i64) -> Timestamp {
        Timestamp::from_unix(n * 86_400)
    }

    #[test]
    fn a_stage_is_a_share_of_the_lifetime() {
        let ninety = Validity {
            not_before: day(0),
            not_after: day(90),
        };
        let stage = |at| ninety.stage(at, 0.25, 0.10);
        assert_eq!(stage(day(-1)), Stage::NotYetValid);
        assert_eq!(stage(day(0)), Stage::Fresh);
        assert_eq!(stage(day(61)), Stage::Due);
        assert_eq!(stage(day(68)), Stage::Overdue);
        assert_eq!(stage(day(82)), Stage::Expiring);
        assert_eq!(stage(day(90)), Stage::Expiring);
        assert_eq!(stage(day(90).plus(1)), Stage::Expired);
        let six = Validity {
            not_before: day(0),
            not_after: day(6),
        };
        assert_eq!(six.stage(day(3), 0.25, 0.10), Stage::Fresh);
        assert_eq!(six.stage(day(5), 0.25, 0.10), Stage::Overdue);
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let name = Name::Wildcard("example.com".into());
        assert!(name.covers("a.example.com"));
        assert!(!name.covers("example.com"));
        assert!(!name.covers("a.b.example.com"));
        assert!(!name.covers(".example.com"));
    }
}
