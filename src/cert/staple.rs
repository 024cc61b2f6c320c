//! OCSP responses (RFC 6960) to staple: whether one is worth sending.
//!
//! A bad staple is worse than none, since Firefox refuses the connection over it. So a response has
//! to be whole, about this certificate of this issuer, signed by that issuer or by whom it named for
//! it, and current.

use aws_lc_rs::digest::{Digest, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use x509_parser::asn1_rs::{Any, FromDer, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::time::ASN1Time;

use super::x509::{Certificate, Issued, elements, key_bits, sequence, signed_by};
use crate::clock::Timestamp;

/// How far a responder's clock may be ahead, in seconds.
const AHEAD: i64 = 300;

/// Delegates that are looked at in one response.
const DELEGATES: usize = 4;

const GENERALIZED_TIME: u8 = 0x18;

/// Object identifiers: id-pkix-ocsp-basic, and those of the two hashes.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];
const SHA1_ID: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256_ID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// Whom a response has to be about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    /// The certificate's serial number, as it is in DER.
    pub(super) serial: &'a [u8],
    /// Its issuer's name, DER.
    pub(super) issuer: &'a [u8],
    /// The issuer's SubjectPublicKeyInfo, where the issuer is known.
    pub(super) key: Option<&'a [u8]>,
}

/// What an issuer says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It is good.
    Good,
    /// It was revoked, at this time.
    Revoked(Timestamp),
    /// The responder does not know it.
    Unknown,
}

/// A response that was understood, and found to be authentic as far as that could be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) this_update: Timestamp,
    pub(super) next_update: Option<Timestamp>,
    /// The issuer is known and the signature was verified.
    pub(super) authentic: bool,
}

impl Response {
    /// Whether it says that the certificate is good, now.
    ///
    /// # Errors
    /// Why it is better not sent, in words.
    pub(super) fn is_good(&self, now: Timestamp) -> Result<(), String> {
        if self.status != Status::Good {
            return Err("it does not say that the certificate is good".to_owned());
        }
        if self.this_update > now.plus(AHEAD) {
            return Err(format!("it is good from {} only", self.this_update));
        }
        match self.next_update {
            Some(at) if at < now => Err(format!("it was good until {at} only")),
            _ => Ok(()),
        }
    }
}

/// Reads a response about a certificate.
///
/// # Errors
/// Why it is none, or none to go by, in words.
pub(super) fn read(der: &[u8], about: About<'_>, now: Timestamp) -> Result<Response, String> {
    let response = sequence(der).and_then(|response| elements(response.data));
    let (status, body) = match response.as_deref() {
        Some([status, body @ ..]) if status.tag() == Tag::Enumerated => (status, body.first()),
        _ => return Err("it is not an OCSP response".to_owned()),
    };
    if status.data != [0] {
        let error = status
            .data
            .first()
            .map_or("an error", |code| error_name(*code));
        return Err(format!(
            "the responder gave an error instead of an answer: {error}"
        ));
    }
    let basic = (body.and_then(Basic::read)).ok_or("it is not a basic OCSP response")?;
    let single = (basic.singles.iter())
        .find_map(|single| Single::read(single.data).filter(|single| single.id.is(about)))
        .ok_or("it is about another certificate")?;
    let authentic = match about.key {
        Some(key) => basic.is_authentic(about.issuer, key, now)?,
        None => false,
    };
    Ok(Response {
        status: single.status,
        this_update: single.this_update,
        next_update: single.next_update,
        authentic,
    })
}

/// RFC 6960, section 4.2.1.
const fn error_name(code: u8) -> &'static str {
    match code {
        1 => "malformedRequest",
        2 => "internalError",
        3 => "tryLater",
        5 => "sigRequired",
        6 => "unauthorized",
        _ => "an unknown one",
    }
}

/// A basic response (section 4.2.1).
struct Basic<'a> {
    der: &'a [u8],
    singles: Vec<Any<'a>>,
    /// Certificates of those to whom the issuer may have left this.
    delegates: Vec<&'a [u8]>,
}

impl<'a> Basic<'a> {
    fn read(body: &Any<'a>) -> Option<Self> {
        let bytes = elements(sequence(body.data)?.data)?;
        let [kind, der, ..] = bytes.as_slice() else {
            return None;
        };
        if kind.data != BASIC {
            return None;
        }
        let parts = elements(sequence(der.data)?.data)?;
        let data = elements(parts.first()?.data)?;
        let list = data.iter().find(|field| field.tag() == Tag::Sequence)?;
        let delegates = match parts.get(3) {
            Some(certificates) => wholes(sequence(certificates.data)?.data),
            None => Vec::new(),
        };
        Some(Self {
            der: der.data,
            singles: elements(list.data)?,
            delegates,
        })
    }

    /// Whether it is signed by the issuer, or by one that the issuer named for it (section 4.2.2.2).
    /// `false` where the signature is of a kind that cannot be verified here.
    fn is_authentic(&self, issuer: &[u8], key: &[u8], now: Timestamp) -> Result<bool, String> {
        let mut unsure = match signed_by(self.der, key) {
            Issued::Yes => return Ok(true),
            Issued::Perhaps => true,
            Issued::No => false,
        };
        for delegate in &self.delegates {
            let Ok(delegate) = Certificate::parse(delegate.to_vec()) else {
                continue;
            };
            match signed_by(self.der, &delegate.spki) {
                Issued::Yes => {}
                other => {
                    unsure |= other == Issued::Perhaps;
                    continue;
                }
            }
            if delegate.issuer != issuer || signed_by(&delegate.der, key) != Issued::Yes {
                return Err("it is signed by somebody whom the issuer does not know".to_owned());
            }
            if !may_sign(&delegate.der) {
                return Err("it is signed by somebody who may not (no OCSPSigning)".to_owned());
            }
            if !delegate.validity.contains(now) {
                return Err("the certificate it is signed with has expired".to_owned());
            }
            return Ok(true);
        }
        if unsure {
            return Ok(false);
        }
        Err("its signature is not the issuer's".to_owned())
    }
}

/// Each value, head and all.
fn wholes(mut content: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while found.len() < DELEGATES {
        let Ok((rest, _)) = Any::from_der(content) else {
            break;
        };
        found.push(&content[..content.len() - rest.len()]);
        content = rest;
    }
    found
}

fn may_sign(der: &[u8]) -> bool {
    let Ok((_, x509)) = X509Certificate::from_der(der) else {
        return false;
    };
    let usage = x509.extended_key_usage();
    usage.is_ok_and(|usage| usage.is_some_and(|usage| usage.value.ocsp_signing))
}

/// Which certificate is meant (CertID, section 4.1.1).
struct Id<'a> {
    algorithm: &'a [u8],
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    serial: &'a [u8],
}

impl<'a> Id<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let fields = elements(data)?;
        let [algorithm, name_hash, key_hash, serial, ..] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            algorithm: elements(algorithm.data)?.first()?.data,
            name_hash: name_hash.data,
            key_hash: key_hash.data,
            serial: serial.data,
        })
    }

    fn is(&self, about: About<'_>) -> bool {
        let hash: fn(&[u8]) -> Digest = match self.algorithm {
            SHA1_ID => sha1,
            SHA256_ID => |data| digest(&SHA256, data),
            _ => return false,
        };
        let same_key =
            |spki| key_bits(spki).is_some_and(|bits| hash(bits).as_ref() == self.key_hash);
        self.serial == about.serial
            && hash(about.issuer).as_ref() == self.name_hash
            && about.key.is_none_or(same_key)
    }
}

/// What certificates are named by here: no more than a name, and what responders know (RFC 5019,
/// section 2.1.1).
fn sha1(data: &[u8]) -> Digest {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, data)
}

/// One certificate's status.
struct Single<'a> {
    id: Id<'a>,
    status: Status,
    this_update: Timestamp,
    next_update: Option<Timestamp>,
}

impl<'a> Single<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let fields = elements(data)?;
        let [id, status, this_update, rest @ ..] = fields.as_slice() else {
            return None;
        };
        let next = rest.iter().find(|field| field.tag() == Tag(0));
        let begins = || time(status.data).unwrap_or(Timestamp::from_unix(0));
        Some(Self {
            id: Id::read(id.data)?,
            status: match status.tag() {
                Tag(0) => Status::Good,
                Tag(1) => Status::Revoked(begins()),
                _ => Status::Unknown,
            },
            this_update: time(&tlv(GENERALIZED_TIME, &[this_update.data])?)?,
            next_update: next.and_then(|next| time(next.data)),
        })
    }
}

fn time(der: &[u8]) -> Option<Timestamp> {
    let (_, at) = ASN1Time::from_der(der).ok()?;
    Some(Timestamp::from_unix(at.timestamp()))
}

/// A request for the status of one certificate (section 4.1), small and without a nonce, so that a
/// responder may have the answer ready (RFC 5019).
pub(super) fn request(about: About<'_>) -> Option<Vec<u8>> {
    const NULL: &[u8] = &[5, 0];
    let key = key_bits(about.key?)?;
    let algorithm = tlv(0x30, &[&tlv(0x06, &[SHA1_ID])?, NULL])?;
    let name = tlv(0x04, &[sha1(about.issuer).as_ref()])?;
    let key = tlv(0x04, &[sha1(key).as_ref()])?;
    let serial = tlv(0x02, &[about.serial])?;
    let mut whole = tlv(0x30, &[&algorithm, &name, &key, &serial])?;
    // CertID in a Request, in a list, in a TBSRequest, in an OCSPRequest.
    for _ in 0..4 {
        whole = tlv(0x30, &[&whole])?;
    }
    Some(whole)
}

/// A value in DER. `None` where it would be longer than any of ours are.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Option<Vec<u8>> {
    let content = parts.concat();
    let mut whole = vec![tag];
    match content.len() {
        short @ 0..0x80 => whole.push(u8::try_from(short).ok()?),
        long => {
            let length = u16::try_from(long).ok()?.to_be_bytes();
            match length {
                [0, low] => whole.extend([0x81, low]),
                [high, low] => whole.extend([0x82, high, low]),
            }
        }
    }
    whole.extend(content);
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        for (length, head) in [
            (0, &[4, 0][..]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 128]),
            (256, &[4, 0x82, 1, 0]),
        ] {
            let whole = tlv(4, &[&vec![7; length]]).unwrap();
            assert_eq!(&whole[..head.len()], head);
            assert_eq!(whole.len(), head.len() + length);
        }
        assert!(tlv(4, &[&vec![0; 70_000]]).is_none());
    }
}
