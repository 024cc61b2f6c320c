//! Chains: order, completeness, trust.
//!
//! What is sent must let a client that knows only its roots walk from the leaf to one of them
//! (RFC 8446, section 4.4.2). `Chain::build` takes the leaf and whatever else the file held, puts
//! it in issuer order, drops what has no part in it, and says what is missing.

use std::collections::HashMap;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};

use super::x509::{Certificate, Issued};
use crate::clock::Timestamp;

/// Certificates sent at most, leaf included. Real chains have two to four.
pub const MAX_CHAIN: usize = 10;

/// The roots that clients are taken to trust: this system's own, in the usual case.
#[derive(Debug, Default)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// By subject, as the content of its DER: where in `anchors`.
    by_subject: HashMap<Vec<u8>, Vec<usize>>,
}

impl Roots {
    /// The roots of this system. Those that cannot be read are left out, and there may be none:
    /// then every certificate is untrusted alike, which makes none worse than another.
    pub fn system() -> Self {
        Self::from_ders(rustls_native_certs::load_native_certs().certs)
    }

    /// The roots of this system at this moment, or these, which were read before, where they are the
    /// same, or where there are none now: a file that is just being written must not cost trust.
    pub fn again(self: &Arc<Self>) -> Arc<Self> {
        let now = Self::system();
        match now.is_empty() || now.anchors == self.anchors {
            true => Arc::clone(self),
            false => Arc::new(now),
        }
    }

    /// These roots; what is no certificate is left out.
    pub fn from_ders<'a>(ders: impl IntoIterator<Item = CertificateDer<'a>>) -> Self {
        let mut roots = Self::default();
        for der in ders {
            if let Ok(anchor) = webpki::anchor_from_trusted_cert(&der) {
                roots
                    .by_subject
                    .entry(anchor.subject.to_vec())
                    .or_default()
                    .push(roots.anchors.len());
                roots.anchors.push(anchor.to_owned());
            }
        }
        roots
    }

    /// No roots.
    pub fn empty() -> Self {
        Self::default()
    }

    /// All of them, for verifying others by them.
    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Whether one of them issued this certificate.
    fn issued(&self, certificate: &Certificate) -> bool {
        let Some(subject) = super::x509::sequence(&certificate.issuer) else {
            return false;
        };
        let named = self.by_subject.get(subject.data);
        named.into_iter().flatten().any(|&at| {
            let spki = webpki::spki_for_anchor(&self.anchors[at]);
            certificate.signed_by(&spki) != Issued::No
        })
    }

    /// Walks from the leaf to one of the roots, at this moment, and returns the intermediates that
    /// it took, or why there is no way.
    fn trusts(
        &self,
        leaf: &Certificate,
        intermediates: &[CertificateDer<'_>],
        at: Timestamp,
    ) -> Result<Vec<CertificateDer<'static>>, webpki::Error> {
        let usage = if leaf.server_usage {
            Usage::Server
        } else {
            Usage::Any
        };
        let leaf = EndEntityCert::try_from(&leaf.der)?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
            u64::try_from(at.unix()).unwrap_or(0),
        ));
        let path = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            intermediates,
            at,
            usage,
            None,
            None,
        )?;
        Ok(path
            .intermediate_certificates()
            .map(|certificate| certificate.der().into_owned())
            .collect())
    }
}

/// Trust in the chain and usage of the leaf are told apart: a leaf that is for another purpose is
/// said to be so once, and its chain is looked at for any purpose.
enum Usage {
    Server,
    Any,
}

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        match self {
            Self::Server => KeyUsage::server_auth().validate(purposes),
            Self::Any => Ok(()),
        }
    }
}

/// A leaf's chain, as it will be sent, and what was found out about it.
#[derive(Debug)]
pub(super) struct Chain {
    /// Leaf first.
    pub(super) sent: Vec<CertificateDer<'static>>,
    /// Each is issued by the next, up to a self-issued one or one that a root issued.
    pub(super) complete: bool,
    /// It ends at a root that is trusted.
    pub(super) trusted: bool,
    /// Why it is not complete, or not trusted, in words.
    pub(super) shortcoming: Option<String>,
    /// The first `notAfter` on the way that clients take.
    pub(super) not_after: Timestamp,
    /// Whose that is.
    pub(super) first_to_expire: String,
    /// Where the signature of a certificate on the way rests on a broken hash, in words.
    pub(super) weaknesses: Vec<String>,
    /// What was repaired or left out.
    pub(super) notes: Vec<String>,
}

impl Chain {
    /// Builds the chain of `leaf` from `others`, which may hold the leaf again, strangers and
    /// duplicates, in any order.
    pub(super) fn build(
        leaf: &Certificate,
        others: Vec<Certificate>,
        roots: &Roots,
        now: Timestamp,
    ) -> Self {
        let mut notes = Vec::new();
        let mut pool = distinct(leaf, others, &mut notes);
        let at = within(leaf, now);
        let mut path = vec![leaf.clone()];
        // Whether it is trusted is asked first, since that finds the path as well.
        let ders: Vec<_> = pool.iter().map(|c| c.der.clone()).collect();
        let shortcoming = match roots.trusts(leaf, &ders, at) {
            Ok(taken) => {
                follow(&mut path, &mut pool, &taken);
                None
            }
            Err(error) => Some((walk(&mut path, &mut pool, roots, at), error)),
        };
        let mut alternatives = alternatives(&path, &mut pool);
        if shortcoming.is_none() {
            alternatives = needed(alternatives, at, &mut notes);
        }
        notes.extend(pool.iter().map(|stranger| {
            let subject = &stranger.subject_text;
            format!("'{subject}' is left out of what is sent: it has no part in the chain")
        }));
        let first = path
            .iter()
            .min_by_key(|c| c.validity.not_after)
            .unwrap_or(leaf);
        Self {
            complete: shortcoming
                .as_ref()
                .is_none_or(|(end, _)| end.is_complete()),
            trusted: shortcoming.is_none(),
            shortcoming: shortcoming.map(|(end, error)| end.in_words(&path, &error)),
            not_after: first.validity.not_after,
            first_to_expire: first.subject_text.clone(),
            weaknesses: weaknesses(&path),
            sent: path
                .iter()
                .chain(&alternatives)
                .map(|c| c.der.clone())
                .collect(),
            notes,
        }
    }
}

/// How a walk from the leaf upwards ended.
enum End {
    /// At a certificate that issued itself.
    SelfIssued,
    /// At one that a root of this system issued.
    KnownRoot,
    /// Where the next one is missing; in words.
    Missing(String),
    /// Never: there are more than [`MAX_CHAIN`].
    TooLong,
}

impl End {
    const fn is_complete(&self) -> bool {
        matches!(self, Self::SelfIssued | Self::KnownRoot)
    }

    /// What is wrong with a path that ends so, and that is not trusted for this reason.
    fn in_words(self, path: &[Certificate], error: &webpki::Error) -> String {
        match (self, path) {
            (Self::Missing(what), _) => what,
            (Self::TooLong, _) => format!("the chain has more than {MAX_CHAIN} certificates"),
            (Self::SelfIssued, path) if matches!(error, webpki::Error::UnknownIssuer) => match path
            {
                [.., _, root] => format!(
                    "it ends at '{}', which is no root of this system",
                    root.subject_text
                ),
                _ => "it is self-signed, and no root of this system".to_owned(),
            },
            (Self::SelfIssued | Self::KnownRoot, _) => in_words(error),
        }
    }
}

/// Moves the certificates of a path that is trusted from `pool` to `path`.
fn follow(path: &mut Vec<Certificate>, pool: &mut Vec<Certificate>, taken: &[CertificateDer<'_>]) {
    for der in taken {
        if let Some(at) = pool.iter().position(|candidate| candidate.der == *der) {
            path.push(pool.remove(at));
        }
    }
}

/// Moves certificates from `pool` to the end of `path`, each the issuer of the one before it.
fn walk(
    path: &mut Vec<Certificate>,
    pool: &mut Vec<Certificate>,
    roots: &Roots,
    at: Timestamp,
) -> End {
    loop {
        let Some(last) = path.last() else {
            return End::TooLong;
        };
        if last.is_self_issued() && last.issued_by(last) != Issued::No {
            return End::SelfIssued;
        }
        if path.len() == MAX_CHAIN {
            return End::TooLong;
        }
        match best_issuer(last, pool, at) {
            Some(next) => path.push(pool.remove(next)),
            None if roots.issued(last) => return End::KnownRoot,
            None => {
                return End::Missing(format!(
                    "the issuer of '{}', '{}', is neither in the file nor a root of this system",
                    last.subject_text, last.issuer_text
                ));
            }
        }
    }
}

/// The issuer among several with the same name and key (a cross-signed authority): one whose
/// signature could be verified before one whose could not, one that is valid before one that is
/// not, and else the file's order.
fn best_issuer(child: &Certificate, pool: &[Certificate], at: Timestamp) -> Option<usize> {
    let issuers = pool.iter().enumerate().filter_map(|(index, candidate)| {
        let issued = child.issued_by(candidate);
        let rank = (
            issued != Issued::Yes,
            !candidate.validity.contains(at),
            index,
        );
        (issued != Issued::No).then_some((rank, index))
    });
    issuers.min().map(|(_, index)| index)
}

/// Takes from `pool` what is another way up from some certificate of the path: clients with other
/// roots may need it, and the others ignore it.
fn alternatives(path: &[Certificate], pool: &mut Vec<Certificate>) -> Vec<Certificate> {
    let mut found: Vec<Certificate> = Vec::new();
    loop {
        let room = path.len() + found.len() < MAX_CHAIN;
        let next = pool.iter().position(|candidate| {
            let mut below = path.iter().chain(&found);
            below.any(|child| !child.is_self_issued() && child.issued_by(candidate) != Issued::No)
        });
        match next.filter(|_| room) {
            Some(next) => found.push(pool.remove(next)),
            None => return found,
        }
    }
}

/// Of the alternatives to a path that is trusted, those worth their bytes: not a root (the client
/// has it; RFC 8446, section 4.4.2 allows leaving it out), and not what has expired.
///
/// A root that is *not* trusted here stays, in the path: leaving it out would hide that the chain
/// is whole.
fn needed(found: Vec<Certificate>, at: Timestamp, notes: &mut Vec<String>) -> Vec<Certificate> {
    let mut kept = Vec::with_capacity(found.len());
    for certificate in found {
        let subject = &certificate.subject_text;
        let until = certificate.validity.not_after;
        if certificate.is_self_issued() {
            notes.push(format!(
                "the root '{subject}' is left out of what is sent: clients that trust it have it"
            ));
        } else if until < at {
            notes.push(format!(
                "'{subject}' is left out of what is sent: it expired at {until}, and the chain is \
                 whole without it"
            ));
        } else {
            kept.push(certificate);
        }
    }
    kept
}

/// The certificates other than the leaf, each once.
fn distinct(
    leaf: &Certificate,
    others: Vec<Certificate>,
    notes: &mut Vec<String>,
) -> Vec<Certificate> {
    let mut pool: Vec<Certificate> = Vec::with_capacity(others.len());
    for other in others {
        if other.der == leaf.der || pool.iter().any(|known| known.der == other.der) {
            notes.push(format!(
                "'{}' is in the file more than once, and sent once",
                other.subject_text
            ));
        } else {
            pool.push(other);
        }
    }
    pool
}

/// Certificates of the path whose signature can be forged. The signature of a self-issued one
/// above the leaf is nobody's concern: it is trusted, or not, as it is.
fn weaknesses(path: &[Certificate]) -> Vec<String> {
    path.iter()
        .enumerate()
        .filter(|(index, certificate)| *index == 0 || !certificate.is_self_issued())
        .filter_map(|(_, certificate)| {
            let hash = certificate.weak_signature?;
            let subject = &certificate.subject_text;
            Some(format!("the signature on '{subject}' rests on {hash}"))
        })
        .collect()
}

/// `now`, or where the leaf is not valid then, its nearest moment: so that what is said of the
/// chain does not depend on the leaf's own dates, which are judged by themselves.
fn within(leaf: &Certificate, now: Timestamp) -> Timestamp {
    now.min(leaf.validity.not_after)
        .max(leaf.validity.not_before)
}

/// Why a chain is not trusted, for people.
fn in_words(error: &webpki::Error) -> String {
    use webpki::Error;
    match error {
        Error::UnknownIssuer => "it does not end at a root that this system trusts".to_owned(),
        Error::CertExpired { not_after, .. } => {
            let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            let at = Timestamp::from_unix(seconds);
            format!("a certificate on the way to the root expired at {at}")
        }
        Error::CertNotValidYet { not_before, .. } => {
            let seconds = i64::try_from(not_before.as_secs()).unwrap_or(i64::MAX);
            let at = Timestamp::from_unix(seconds);
            format!("a certificate on the way to the root is not valid before {at}")
        }
        Error::CaUsedAsEndEntity => {
            "it is marked as an authority's, which strict clients refuse in a server".to_owned()
        }
        Error::EndEntityUsedAsCa => {
            "one of its issuers is not marked as an authority (basic constraints)".to_owned()
        }
        Error::NameConstraintViolation => {
            "an issuer may not issue for these names (name constraints)".to_owned()
        }
        Error::PathLenConstraintViolated => {
            "an issuer may not stand so far above the leaf (path length)".to_owned()
        }
        Error::RequiredEkuNotFoundContext(_) => {
            "the certificate or an issuer may not be used for servers (extended key usage)"
                .to_owned()
        }
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            "a signature on the way to the root is of a kind that clients no longer accept"
                .to_owned()
        }
        Error::UnsupportedCriticalExtension => {
            "it has a critical extension that clients do not know".to_owned()
        }
        Error::UnsupportedCertVersion => "it is not an X.509 version 3 certificate".to_owned(),
        other => format!("clients refuse it: {other}"),
    }
}
