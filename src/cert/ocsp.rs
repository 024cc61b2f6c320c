//! What issuers say of certificates: asked, answered, and kept beside them until it is out of date.
//!
//! An answer comes from a file beside the chain or from the responder that the certificate names.
//! Either way it is believed only after [`staple`] has looked at it, and it is no part of what a
//! certificate is: it comes and goes while the same certificate is served.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;
use rustls_pki_types::TrustAnchor;
use serde::Serialize;

use super::chain::Roots;
use super::staple::{self, About, Response, Status, tlv};
use super::x509::{Certificate, content_of};
use super::{Verified, x509};
use crate::clock::Timestamp;

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A file that somebody else keeps.
    File,
    /// The responder.
    Responder,
}

/// What is known at the moment: read by handshakes, written by the control plane.
#[derive(Debug, Default)]
pub struct Slot {
    known: ArcSwapOption<Known>,
    /// Why there is no staple, where one is wanted.
    fault: ArcSwapOption<String>,
}

#[derive(Debug)]
struct Known {
    answer: Answer,
    from: Via,
    /// With the staple in it, where that is worth sending.
    key: Option<Arc<CertifiedKey>>,
    /// The last moment at which it is sent.
    until: Timestamp,
}

/// An answer that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    der: Arc<[u8]>,
    response: Response,
}

/// Of a staple, for the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In a word.
    pub status: State,
    /// Where it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Via>,
    /// When the issuer said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub this_update: Option<Timestamp>,
    /// Until when that holds, where the issuer says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_update: Option<Timestamp>,
    /// Why there is no newer one, or none at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Arc<String>>,
}

/// See [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is sent.
    Good,
    /// The certificate is revoked; that is not sent.
    Revoked,
    /// There is none that could be sent.
    None,
}

impl State {
    /// As the interface spells it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Revoked => "revoked",
            Self::None => "none",
        }
    }
}

impl Slot {
    /// What a handshake uses, if that is something else than without this.
    pub(super) fn key_at(&self, now: Timestamp) -> Option<Arc<CertifiedKey>> {
        let known = self.known.load();
        let known = known.as_ref()?;
        known.key.as_ref().filter(|_| now <= known.until).cloned()
    }

    /// Whether a current staple of a file is there: then there is nothing to ask for.
    pub fn is_provided(&self, now: Timestamp) -> bool {
        let known = self.known.load();
        known.as_ref().is_some_and(|it| it.from == Via::File) && self.key_at(now).is_some()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.known.load().is_none()
    }

    /// When the issuer revoked the certificate, if it says so.
    pub fn revoked(&self) -> Option<Timestamp> {
        match self.known.load().as_ref()?.answer.response.status {
            Status::Revoked(at) => Some(at),
            _ => None,
        }
    }

    /// Notes why there is no staple, or no newer one; or that nothing is wrong.
    pub fn set_fault(&self, fault: Option<String>) {
        if self.fault.load().as_deref() != fault.as_ref() {
            self.fault.store(fault.map(Arc::new));
        }
    }

    /// For the inventory.
    pub fn report(&self, now: Timestamp) -> Option<Report> {
        let (known, detail) = (self.known.load_full(), self.fault.load_full());
        if known.is_none() && detail.is_none() {
            return None;
        }
        let response = known.as_ref().map(|known| known.answer.response);
        let status = match response.map(|response| response.status) {
            Some(Status::Revoked(_)) => State::Revoked,
            _ if self.key_at(now).is_some() => State::Good,
            _ => State::None,
        };
        Some(Report {
            status,
            from: known.as_ref().map(|known| known.from),
            this_update: response.map(|response| response.this_update),
            next_update: response.and_then(|response| response.next_update),
            detail,
        })
    }

    /// Whether files gave both the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let of_file = |slot: &Self| {
            let known = slot.known.load_full();
            let known = known.filter(|known| known.from == Via::File);
            known.map(|known| known.answer.clone())
        };
        of_file(self) == of_file(other)
    }

    fn fill(&self, certificate: &Verified, answer: Answer, from: Via, now: Timestamp) {
        let key = answer.response.is_good(now).ok().map(|()| {
            let mut key = CertifiedKey::clone(certificate.key());
            key.ocsp = Some(answer.der.to_vec());
            Arc::new(key)
        });
        // An answer that outlives its certificate does not make that live longer.
        let end = certificate.facts().validity.not_after;
        let until = answer.response.next_update.map_or(end, |at| at.min(end));
        self.known.store(Some(Arc::new(Known {
            answer,
            from,
            key,
            until,
        })));
    }
}

/// What is to be asked about a certificate.
#[derive(Clone, Debug)]
pub struct Question {
    serial: Vec<u8>,
    issuer: Vec<u8>,
    key: Option<Vec<u8>>,
}

impl Question {
    /// About this certificate. Its issuer is looked for in its chain and among `anchors`.
    pub fn about(certificate: &Verified, anchors: &[TrustAnchor<'static>]) -> Self {
        let chain = &certificate.key().cert;
        let leaf = chain
            .first()
            .and_then(|der| Certificate::parse(der.to_vec()).ok());
        let Some(leaf) = leaf else {
            // Cannot be: it was verified.
            return Self {
                serial: Vec::new(),
                issuer: Vec::new(),
                key: None,
            };
        };
        let next = chain
            .get(1)
            .and_then(|der| Certificate::parse(der.to_vec()).ok());
        let above = next.filter(|next| leaf.issued_by(next) == x509::Issued::Yes);
        let anchor = || {
            let mut named = (anchors.iter())
                .filter(|anchor| content_of(&leaf.issuer) == Some(anchor.subject.as_ref()))
                .filter_map(|anchor| tlv(0x30, &[&anchor.subject_public_key_info]));
            named.find(|spki| leaf.signed_by(spki) == x509::Issued::Yes)
        };
        Self {
            serial: x509::serial_of(&leaf.der).unwrap_or_default(),
            key: above.map(|above| above.spki).or_else(anchor),
            issuer: leaf.issuer,
        }
    }

    /// What a responder is sent (RFC 6960, section 4.1). `None` where the issuer is not known.
    pub fn request(&self) -> Option<Vec<u8>> {
        staple::request(self.as_about())
    }

    /// Verifies what came back.
    ///
    /// # Errors
    /// Why it is none to go by, in words.
    pub fn answer(&self, der: &[u8], now: Timestamp) -> Result<Answer, String> {
        let response = staple::read(der, self.as_about(), now)?;
        if !response.authentic {
            return Err("its signature is of a kind that cannot be verified here".to_owned());
        }
        match response.status {
            Status::Good => response.is_good(now)?,
            // What is revoked stays so.
            Status::Revoked(_) => {}
            Status::Unknown => {
                return Err("the responder does not know the certificate".to_owned());
            }
        }
        let der = der.into();
        Ok(Answer { der, response })
    }

    fn as_about(&self) -> About<'_> {
        About {
            serial: &self.serial,
            issuer: &self.issuer,
            key: self.key.as_deref(),
        }
    }
}

impl Answer {
    /// As it came.
    pub fn der(&self) -> &Arc<[u8]> {
        &self.der
    }

    /// When half of its life is over, and a newer one is to be had. An answer that names no end is
    /// good for an hour here: newer information is always available (RFC 6960, section 4.2.2.1).
    pub fn half_life(&self) -> Timestamp {
        const UNNAMED: i64 = 3600;
        let from = self.response.this_update;
        let whole = self
            .response
            .next_update
            .map_or(2 * UNNAMED, |to| to.since(from));
        from.plus(whole.max(0) / 2)
    }

    /// Seconds until it is out of date.
    pub fn left(&self, now: Timestamp) -> i64 {
        self.response.next_update.map_or(0, |at| at.since(now))
    }

    /// Whether the issuer said something else since.
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.response.this_update < other.response.this_update
    }

    /// When the certificate was revoked, if that is the answer.
    pub const fn revoked(&self) -> Option<Timestamp> {
        match self.response.status {
            Status::Revoked(at) => Some(at),
            _ => None,
        }
    }

    /// Puts it beside the certificate it is about, for the next handshake.
    pub fn attach(self, certificate: &Verified, now: Timestamp) {
        let slot = certificate.status();
        slot.set_fault(None);
        slot.fill(certificate, self, Via::Responder, now);
    }
}

/// Uses an answer from a file, which may also say that the certificate is revoked.
pub(super) fn attach_file(
    certificate: &Verified,
    roots: &Roots,
    der: &[u8],
    now: Timestamp,
) -> Result<(), String> {
    let question = Question::about(certificate, roots.anchors());
    let response = staple::read(der, question.as_about(), now)?;
    let good = response.is_good(now);
    if good.is_ok() || matches!(response.status, Status::Revoked(_)) {
        let der = der.into();
        let answer = Answer { der, response };
        certificate.status.fill(certificate, answer, Via::File, now);
    }
    good
}
